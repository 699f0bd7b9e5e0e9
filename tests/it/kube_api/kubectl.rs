//! What a person does with kubectl. Skipped where there is none.

use std::{path::PathBuf, process::Stdio};

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{Api, api::PostParams};
use rootstock_playground::kube::{Cluster, RealControlPlane};
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt as _, process::Command};

use super::support::{namespace, node, pod, runtime, runtimes};

/// kubectl for one cluster.
struct Kubectl<'a> {
    cluster: &'a Cluster,
    program: PathBuf,
}

impl<'a> Kubectl<'a> {
    /// The one beside the real server, else the one in PATH.
    async fn new(cluster: &'a Cluster) -> Option<Self> {
        let beside = RealControlPlane::assets().map(|assets| assets.join("kubectl"));
        let program = beside.filter(|path| path.exists()).unwrap_or_else(|| "kubectl".into());
        let asked = Command::new(&program)
            .args(["version", "--client"])
            .stdout(Stdio::null())
            .status()
            .await;
        if asked.is_ok() {
            return Some(Self { cluster, program });
        }
        eprintln!("skipped: there is no kubectl in PATH");
        None
    }

    async fn try_run(&self, args: &str, stdin: &str, editor: &str) -> Result<String, String> {
        let mut child = Command::new(&self.program)
            .arg("--kubeconfig")
            .arg(self.cluster.kubeconfig_path())
            // Discovery is kept in a folder per server; ports come back with other servers.
            .arg("--cache-dir")
            .arg(self.cluster.kubeconfig_path().with_extension("cache"))
            .args(args.split_whitespace())
            .env("EDITOR", editor)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut input = child.stdin.take().unwrap();
        input.write_all(stdin.as_bytes()).await.unwrap();
        drop(input);
        let output = child.wait_with_output().await.unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
    }

    async fn run(&self, args: &str) -> String {
        match self.try_run(args, "", "false").await {
            Ok(output) => output,
            Err(error) => panic!("kubectl {args}: {error}"),
        }
    }
}

/// The words of the line that begins with a word.
fn line(output: &str, first: &str) -> Vec<String> {
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let mut lines = output.lines().map(words);
    lines
        .find(|words| words.first().is_some_and(|word| word == first))
        .unwrap_or_else(|| panic!("no line of {first} in:\n{output}"))
}

async fn furnish(cluster: &Cluster, ns: &str) {
    namespace(cluster, ns).await;
    let api = runtimes(cluster.client(), ns);
    for name in ["gvisor-a", "gvisor-b"] {
        api.create(&PostParams::default(), &runtime(name)).await.unwrap();
    }
}

pub(super) async fn gets_tables(cluster: &Cluster) {
    let Some(kubectl) = Kubectl::new(cluster).await else { return };
    furnish(cluster, "tables").await;
    let nodes: Api<Node> = Api::all(cluster.client());
    nodes.create(&PostParams::default(), &node("tables-node")).await.unwrap();
    let pods: Api<Pod> = Api::namespaced(cluster.client(), "tables");
    pods.create(&PostParams::default(), &pod("p", Some("tables-node"), "default")).await.unwrap();

    let output = kubectl.run("get containerruntimes -A").await;
    assert_eq!(line(&output, "NAMESPACE"), ["NAMESPACE", "NAME", "TYPE", "STATUS", "AGE"]);
    assert_eq!(line(&output, "tables")[..3], ["tables", "gvisor-a", "gvisor"]);
    let output = kubectl.run("get cr -n tables gvisor-b").await;
    assert_eq!(line(&output, "gvisor-b")[..2], ["gvisor-b", "gvisor"]);
    let output = kubectl.run("get nodes").await;
    assert_eq!(line(&output, "NAME"), ["NAME", "STATUS", "ROLES", "AGE", "VERSION"]);
    let words = line(&output, "tables-node");
    assert_eq!((words[1].as_str(), words[4].as_str()), ("Ready", "v1.33.1"));
    let output = kubectl.run("get pods -n tables -o wide").await;
    assert_eq!(line(&output, "p")[..4], ["p", "0/1", "Pending", "0"]);
    assert!(line(&output, "p").contains(&"tables-node".to_owned()));
    let output = kubectl.run("get pods,cr -n tables -o name").await;
    assert_eq!(output.lines().count(), 3);
    let output = kubectl.run("get cr -n tables gvisor-a -o json").await;
    assert_eq!(serde_json::from_str::<Value>(&output).unwrap()["spec"]["type"], "gvisor");
    let output = kubectl.run("get cr -n tables -o yaml -l absent").await;
    assert!(output.contains("items: []"));
    let output = kubectl
        .run("get namespaces,configmaps,secrets,leases,daemonsets,events,serviceaccounts -n tables")
        .await;
    assert!(output.contains("namespace/tables"));
    nodes.delete("tables-node", &kube::api::DeleteParams::default()).await.unwrap();
}

pub(super) async fn describes(cluster: &Cluster) {
    let Some(kubectl) = Kubectl::new(cluster).await else { return };
    furnish(cluster, "describe").await;
    let nodes: Api<Node> = Api::all(cluster.client());
    nodes.create(&PostParams::default(), &node("describe-node")).await.unwrap();
    let pods: Api<Pod> = Api::namespaced(cluster.client(), "describe");
    pods.create(&PostParams::default(), &pod("p", Some("describe-node"), "default")).await.unwrap();
    let about = runtimes(cluster.client(), "describe").get("gvisor-a").await.unwrap();
    let event = json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "e", "namespace": "describe"},
        "involvedObject": {"kind": "ContainerRuntime", "name": "gvisor-a", "namespace": "describe",
            "uid": about.metadata.uid, "apiVersion": "extensions.gardener.cloud/v1alpha1"},
        "reason": "Rooted", "message": "it grows", "type": "Normal", "count": 1,
        "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-01T00:00:00Z"});
    kubectl.try_run("create -f -", &event.to_string(), "false").await.unwrap();

    let output = kubectl.run("describe cr -n describe gvisor-a").await;
    assert_eq!(line(&output, "Kind:"), ["Kind:", "ContainerRuntime"]);
    assert!(output.contains("it grows"), "{output}");
    let output = kubectl.run("describe node describe-node").await;
    assert!(
        output.contains("worker.gardener.cloud/pool=a") && output.contains("Non-terminated Pods")
    );
    assert_eq!(line(&output, "describe")[..2], ["describe", "p"]);
    let output = kubectl.run("describe pod -n describe p").await;
    assert!(output.contains("describe-node"));
    nodes.delete("describe-node", &kube::api::DeleteParams::default()).await.unwrap();
}

pub(super) async fn changes(cluster: &Cluster) {
    let Some(kubectl) = Kubectl::new(cluster).await else { return };
    furnish(cluster, "changes").await;
    let nodes: Api<Node> = Api::all(cluster.client());
    nodes.create(&PostParams::default(), &node("changes-node")).await.unwrap();
    let api = runtimes(cluster.client(), "changes");

    kubectl.run("label cr -n changes gvisor-a tier=gold").await;
    kubectl.run("annotate cr -n changes gvisor-a gardener.cloud/operation=reconcile").await;
    kubectl.run("label node changes-node worker.gardener.cloud/pool-").await;
    kubectl.run(r#"patch cr -n changes gvisor-a --type=merge -p {"spec":{"mode":"a"}}"#).await;
    kubectl
        .run(r#"patch cr -n changes gvisor-a --subresource=status --type=merge -p {"status":{"observedGeneration":2}}"#)
        .await;
    kubectl.run(r#"patch node changes-node -p {"spec":{"unschedulable":true}}"#).await;
    let object = api.get("gvisor-a").await.unwrap();
    assert_eq!(object.metadata.labels.as_ref().unwrap()["tier"], "gold");
    assert_eq!(
        object.metadata.annotations.as_ref().unwrap()["gardener.cloud/operation"],
        "reconcile"
    );
    assert_eq!(
        (&object.data["spec"]["mode"], &object.data["status"]["observedGeneration"]),
        (&json!("a"), &json!(2))
    );
    let node = nodes.get("changes-node").await.unwrap();
    assert_eq!(node.spec.unwrap().unschedulable, Some(true));
    assert!(node.metadata.labels.unwrap_or_default().is_empty());

    let editor = "sed -i s,/var/bin/containerruntimes,/opt/edited,";
    kubectl.try_run("edit cr -n changes gvisor-b", "", editor).await.unwrap();
    assert_eq!(api.get("gvisor-b").await.unwrap().data["spec"]["binaryPath"], "/opt/edited");
    let editor = "sed -i s/unschedulable:.true/unschedulable:\\ false/";
    kubectl.try_run("edit node changes-node", "", editor).await.unwrap();
    let cordoned =
        nodes.get("changes-node").await.unwrap().spec.and_then(|spec| spec.unschedulable);
    assert_ne!(cordoned, Some(true));
    kubectl.run("cordon changes-node").await;
    let output = kubectl.run("get node changes-node").await;
    assert_eq!(line(&output, "changes-node")[1], "Ready,SchedulingDisabled");
    nodes.delete("changes-node", &kube::api::DeleteParams::default()).await.unwrap();
}

pub(super) async fn applies(cluster: &Cluster) {
    let Some(kubectl) = Kubectl::new(cluster).await else { return };
    namespace(cluster, "applies").await;
    let runtime = |mode: &str| {
        json!({"apiVersion": "extensions.gardener.cloud/v1alpha1", "kind": "ContainerRuntime",
            "metadata": {"name": "r", "namespace": "applies"},
            "spec": {"type": "gvisor", "binaryPath": "/x", "mode": mode}})
        .to_string()
    };
    let map = |data: Value| {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m", "namespace": "applies"}, "data": data}).to_string()
    };
    for (object, said) in [
        (runtime("a"), "created"),
        (runtime("b"), "configured"),
        (runtime("b"), "unchanged"),
        (map(json!({"a": "1", "b": "2"})), "created"),
        (map(json!({"a": "1"})), "configured"),
        (map(json!({"a": "1"})), "unchanged"),
    ] {
        let output = kubectl.try_run("apply -f -", &object, "false").await.unwrap();
        assert!(output.trim_end().ends_with(said), "{said}: {output}");
    }
    let daemon_set = |image: &str, env: &str| {
        let containers = json!([{"name": "agent", "image": image, "env": [{"name": env, "value": "1"}]},
            {"name": "other", "image": "other"}]);
        json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "d", "namespace": "applies"},
            "spec": {"selector": {"matchLabels": {"app": "a"}}, "template": {"metadata": {"labels": {"app": "a"}},
                "spec": {"containers": containers}}}})
        .to_string()
    };
    for (object, said) in [
        (daemon_set("one", "A"), "created"),
        (daemon_set("two", "B"), "configured"),
        (daemon_set("two", "B"), "unchanged"),
    ] {
        let output = kubectl.try_run("apply -f -", &object, "false").await.unwrap();
        assert!(output.trim_end().ends_with(said), "{said}: {output}");
    }
    let images = "get ds -n applies d -o jsonpath={.spec.template.spec.containers[*].image},{.spec.template.spec.containers[*].env[*].name},{.metadata.generation}";
    assert_eq!(kubectl.run(images).await, "two other,B,2");

    let output = kubectl.run("get configmap -n applies m -o jsonpath={.data}").await;
    assert_eq!(output, r#"{"a":"1"}"#);
    let output =
        kubectl.try_run("apply --server-side -f -", &map(json!({"c": "3"})), "false").await;
    assert!(output.unwrap().contains("serverside-applied"));
    let unknown = runtime("a").replace("\"mode\"", "\"mood\"");
    let error = kubectl.try_run("apply -f -", &unknown, "false").await.unwrap_err();
    assert!(error.contains("unknown field") && error.contains("spec.mood"), "{error}");
    let invalid = runtime("c");
    let error = kubectl.try_run("apply -f -", &invalid, "false").await.unwrap_err();
    assert!(error.contains("spec.mode") && error.contains("nvalid"), "{error}");
}

pub(super) async fn deletes_and_waits(cluster: &Cluster) {
    let Some(kubectl) = Kubectl::new(cluster).await else { return };
    furnish(cluster, "deletes").await;
    kubectl.run("delete cr -n deletes gvisor-a --timeout=20s").await;
    let error = kubectl.try_run("get cr -n deletes gvisor-a", "", "false").await.unwrap_err();
    assert!(error.contains("NotFound"), "{error}");
    let waiting = kubectl.run("wait cr/gvisor-b -n deletes --for=jsonpath={.status.lastOperation.state}=Succeeded --timeout=20s");
    let working = async {
        let patch = r#"patch cr -n deletes gvisor-b --subresource=status --type=merge -p {"status":{"lastOperation":{"state":"Succeeded"}}}"#;
        kubectl.run(patch).await
    };
    let (output, _) = tokio::join!(waiting, working);
    assert!(output.contains("condition met"));
    kubectl.run("delete cr -n deletes --all --timeout=20s --wait").await;
    kubectl.run("wait cr/gvisor-b -n deletes --for=delete --timeout=20s").await;
    assert_eq!(
        runtimes(cluster.client(), "deletes")
            .list(&kube::api::ListParams::default())
            .await
            .unwrap()
            .items
            .len(),
        0
    );
}
