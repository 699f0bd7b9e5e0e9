//! Every rendered object is what Kubernetes' own types say, down to the last
//! field: a misspelt one would be lost on the way through them.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{ConfigMap, Container, PodSpec, ServiceAccount};
use k8s_openapi::api::node::v1::RuntimeClass;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule};
use rootstock_core::name::RuntimeType;
use rootstock_core::path::BinaryRoots;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::objects::proxy::Proxy;
use crate::objects::{AgentSettings, agent, classes, daemonset};

fn settings() -> AgentSettings {
    AgentSettings {
        image: "registry.example/agent:1".to_owned(),
        roots: BinaryRoots::default(),
        domain: None,
        port: 443,
        proxy: Proxy::default(),
    }
}

fn types(names: &[&str]) -> BTreeSet<RuntimeType> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

fn rendered() -> Vec<Value> {
    let types = types(&["kata", "gvisor"]);
    agent::render(&settings(), &types, Some("https://rs-a.example"), "PEM")
}

/// The object as Kubernetes' type, with nothing lost.
fn typed<K: DeserializeOwned + Serialize>(object: &Value) -> K {
    let typed: K = serde_json::from_value(object.clone()).unwrap();
    assert_eq!(&serde_json::to_value(&typed).unwrap(), object, "a field is unknown");
    typed
}

fn daemon_set() -> DaemonSet {
    typed(&rendered()[4])
}

fn pod() -> PodSpec {
    daemon_set().spec.unwrap().template.spec.unwrap()
}

fn container() -> Container {
    let [container] = <[Container; 1]>::try_from(pod().containers).unwrap();
    container
}

#[test]
fn the_agent_has_an_account_without_a_token_for_the_api() {
    let account: ServiceAccount = typed(&rendered()[0]);
    assert_eq!(account.metadata.name.as_deref(), Some("rootstock-agent"));
    assert_eq!(account.metadata.namespace.as_deref(), Some("kube-system"));
    assert_eq!(account.automount_service_account_token, Some(false));
    assert_eq!(pod().automount_service_account_token, Some(false));
    assert_eq!(pod().service_account_name.as_deref(), Some("rootstock-agent"));
}

#[test]
fn the_config_map_says_where_the_controller_is_and_whom_to_trust() {
    let config: ConfigMap = typed(&rendered()[1]);
    assert_eq!(config.metadata.name.as_deref(), Some("rootstock-agent"));
    let data = config.data.unwrap();
    assert_eq!(data["endpoint"], "https://rs-a.example");
    assert_eq!(data["ca.crt"], "PEM");
    assert_eq!(data.len(), 2);
    // It is changed in place: an immutable one could not be.
    assert_eq!(config.immutable, None);
    assert_eq!(agent::endpoint_url("h", 443), "https://h");
    assert_eq!(agent::endpoint_url("h", 8443), "https://h:8443");
}

#[test]
fn the_controller_may_do_in_the_shoot_what_it_does_and_no_more() {
    let role: ClusterRole = typed(&rendered()[2]);
    let binding: ClusterRoleBinding = typed(&rendered()[3]);
    let name = Some("extensions.gardener.cloud:rootstock");
    assert_eq!([role.metadata.name.as_deref(), binding.metadata.name.as_deref()], [name, name]);
    let rule = |rule: PolicyRule| {
        assert_eq!((&rule.resource_names, &rule.non_resource_urls), (&None, &None));
        (
            rule.api_groups.unwrap().join(","),
            rule.resources.unwrap().join(","),
            rule.verbs.join(","),
        )
    };
    let rules: Vec<_> = role.rules.unwrap().into_iter().map(rule).collect();
    let want = [
        ("", "nodes", "get,list,watch,patch"),
        ("", "pods", "get,list,watch"),
        ("", "events", "get,list,watch,create,patch"),
        ("authentication.k8s.io", "tokenreviews", "create"),
    ];
    assert_eq!(rules, want.map(|(a, b, c)| (a.to_owned(), b.to_owned(), c.to_owned())));
    assert_eq!(binding.role_ref.name, "extensions.gardener.cloud:rootstock");
    let subjects = serde_json::to_value(binding.subjects).unwrap();
    let account =
        json!({"kind": "ServiceAccount", "name": "rootstock", "namespace": "kube-system"});
    assert_eq!(subjects, json!([account]));
}

#[test]
fn the_agent_is_node_critical_on_both_levels() {
    let daemon_set = daemon_set();
    let template = daemon_set.spec.unwrap().template.metadata.unwrap();
    for labels in [daemon_set.metadata.labels.unwrap(), template.labels.unwrap()] {
        assert_eq!(labels["node.gardener.cloud/critical-component"], "true");
        assert_eq!(labels["app.kubernetes.io/name"], "rootstock-agent");
        assert_eq!(labels["gardener.cloud/role"], "container-runtime");
    }
    assert_eq!(daemon_set.metadata.namespace.as_deref(), Some("kube-system"));
    // What rolls the DaemonSet must be in the template, and nothing else is.
    assert_eq!(template.annotations, None);
    assert_eq!(pod().priority_class_name.as_deref(), Some("system-node-critical"));
    let tolerations = serde_json::to_value(pod().tolerations).unwrap();
    let all = |effect: &str| json!({"operator": "Exists", "effect": effect});
    assert_eq!(tolerations, json!([all("NoSchedule"), all("NoExecute")]));
}

#[test]
fn the_selector_is_the_daemon_sets_own_and_never_changes() {
    let spec = daemon_set().spec.unwrap();
    let want =
        BTreeMap::from([("app.kubernetes.io/name".to_owned(), "rootstock-agent".to_owned())]);
    assert_eq!(spec.selector.match_labels, Some(want));
    assert_eq!(spec.selector.match_expressions, None);
}

#[test]
fn nodes_of_containerd_with_a_runtime_or_our_mark_have_an_agent() {
    let affinity = serde_json::to_value(pod().affinity).unwrap();
    let is = |key: &str, value: &str| json!({"key": key, "operator": "In", "values": [value]});
    let term = |mark: &str| json!({"matchExpressions": [is("worker.gardener.cloud/cri-name", "containerd"), is(mark, "true")]});
    let terms = json!([
        term("containerruntime.worker.gardener.cloud/gvisor"),
        term("containerruntime.worker.gardener.cloud/kata"),
        term("rootstock.gardener.cloud/agent"),
    ]);
    let want = json!({"nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms},
    }});
    assert_eq!(affinity, want);
    assert_eq!(pod().node_selector, None);
}

#[test]
fn the_agent_waits_for_no_network_of_the_shoot() {
    let pod = pod();
    assert_eq!(pod.host_network, Some(true));
    assert_eq!(pod.dns_policy.as_deref(), Some("Default"));
    assert_eq!((pod.host_pid, pod.host_ipc), (None, None));
}

#[test]
fn folders_are_mounted_and_sockets_never() {
    let pod = pod();
    let mut volumes: BTreeMap<_, _> =
        pod.volumes.unwrap().into_iter().map(|volume| (volume.name.clone(), volume)).collect();
    let mut seen = Vec::new();
    for mount in container().volume_mounts.unwrap() {
        let volume = volumes.remove(&mount.name).unwrap();
        let Some(host) = volume.host_path else {
            assert_eq!(mount.read_only, Some(true));
            continue;
        };
        assert_eq!(mount.mount_path, format!("/host{}", host.path));
        assert!(["Directory", "DirectoryOrCreate"].contains(&host.type_.as_deref().unwrap()));
        seen.push((host.path, mount.read_only.unwrap_or(false)));
    }
    assert!(volumes.is_empty(), "a volume without a mount: {volumes:?}");
    let want = [
        ("/var/bin", false),
        ("/opt/rootstock", false),
        ("/etc/containerd", false),
        ("/var/lib/rootstock", false),
        ("/run/containerd", true),
        ("/run/dbus", true),
        ("/run/systemd", true),
        ("/dev", true),
        ("/lib/modules", true),
    ];
    assert_eq!(seen, want.map(|(path, read_only)| (path.to_owned(), read_only)));
}

#[test]
fn the_mounts_are_the_binary_roots_that_both_sides_let_through() {
    let roots = BinaryRoots::new(vec!["/opt/kata".parse().unwrap()]);
    let settings = AgentSettings { roots, ..settings() };
    let objects = agent::render(&settings, &types(&[]), Some("https://e"), "PEM");
    let spec = typed::<DaemonSet>(&objects[4]).spec.unwrap().template.spec.unwrap();
    let mounts = spec.containers[0].volume_mounts.as_deref().unwrap();
    assert!(mounts.iter().any(|mount| mount.mount_path == "/host/opt/kata"));
    assert!(!mounts.iter().any(|mount| mount.mount_path == "/host/var/bin"));
    let args = spec.containers[0].args.as_deref().unwrap();
    assert!(args.contains(&"--binary-roots=/opt/kata".to_owned()), "{args:?}");
}

#[test]
fn a_proxy_is_told_to_the_agent_and_none_is_by_default() {
    let names = |container: Container| -> Vec<_> {
        container.env.unwrap().into_iter().map(|variable| variable.name).collect()
    };
    assert_eq!(names(container()), ["GLIBC_TUNABLES"]);
    let url = Some("http://proxy.example:3128".parse().unwrap());
    let proxy = Proxy { url, except: Some("registry.example".to_owned()) };
    let objects = agent::render(&AgentSettings { proxy, ..settings() }, &types(&[]), None, "PEM");
    let spec = typed::<DaemonSet>(&objects[4]).spec.unwrap().template.spec.unwrap();
    let [container] = <[Container; 1]>::try_from(spec.containers).unwrap();
    assert_eq!(names(container), ["GLIBC_TUNABLES", "HTTPS_PROXY", "NO_PROXY"]);
}

#[test]
fn the_token_is_for_the_controller_and_short_lived() {
    let volumes = pod().volumes.unwrap();
    let token = volumes.iter().find(|volume| volume.name == "token").unwrap();
    let want = json!({"defaultMode": 0o400, "sources": [{"serviceAccountToken": {
        "audience": "rootstock", "expirationSeconds": 3600, "path": "token",
    }}]});
    assert_eq!(serde_json::to_value(&token.projected).unwrap(), want);
    let args = container().args.unwrap();
    assert!(args.contains(&"--token-file=/var/run/secrets/rootstock/token".to_owned()));
    assert!(args.contains(&"--endpoint=/etc/rootstock/endpoint".to_owned()));
    assert!(args.contains(&"--ca-file=/etc/rootstock/ca.crt".to_owned()));
}

#[test]
fn the_container_can_do_what_it_must() {
    let container = container();
    let security = container.security_context.unwrap();
    assert_eq!(security.run_as_user, Some(0));
    assert_eq!(security.privileged, Some(false));
    assert_eq!(security.allow_privilege_escalation, Some(false));
    assert_eq!(security.read_only_root_filesystem, Some(true));
    assert_eq!(security.app_armor_profile.unwrap().type_, "Unconfined");
    assert_eq!(security.capabilities.unwrap().drop, Some(vec!["ALL".to_owned()]));
    let seccomp = pod().security_context.unwrap().seccomp_profile.unwrap();
    assert_eq!(seccomp.type_, "RuntimeDefault");
    let resources = container.resources.unwrap();
    let limits: Vec<_> = resources.limits.unwrap().into_keys().collect();
    assert_eq!(limits, ["memory"], "a CPU limit would hold up the node");
    assert!(resources.requests.unwrap().contains_key("cpu"));
}

#[test]
fn probes_ask_the_nodes_own_loopback() {
    let container = container();
    let listen = format!("--admin-listen=127.0.0.1:{}", daemonset::ADMIN_PORT);
    assert!(container.args.unwrap().contains(&listen));
    let probes = [
        (container.startup_probe, "/healthz"),
        (container.liveness_probe, "/healthz"),
        (container.readiness_probe, "/readyz"),
    ];
    for (probe, path) in probes {
        let get = probe.unwrap().http_get.unwrap();
        assert_eq!((get.host.as_deref(), get.path.as_deref()), (Some("127.0.0.1"), Some(path)));
    }
    // Neither a NodePort nor a port of outgoing connections.
    assert!((1024..30_000).contains(&daemonset::ADMIN_PORT));
}

#[test]
fn an_update_goes_by_and_by() {
    let spec = daemon_set().spec.unwrap();
    let strategy = serde_json::to_value(spec.update_strategy).unwrap();
    let want = json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "10%"}});
    assert_eq!(strategy, want);
    assert_eq!(spec.revision_history_limit, Some(2));
    assert!(pod().termination_grace_period_seconds.unwrap() >= 10);
}

#[test]
fn a_new_endpoint_or_authority_restarts_no_agent() {
    let types = types(&["gvisor"]);
    let one = agent::render(&settings(), &types, Some("https://one"), "ONE");
    let two = agent::render(&settings(), &types, Some("https://two"), "TWO");
    assert_ne!(one[1], two[1]);
    assert_eq!(one[4], two[4]);
}

#[test]
fn a_runtime_class_has_what_the_catalog_says() {
    let said = serde_json::from_value::<Vec<_>>(json!([
        {"name": "kata-qemu", "handler": "kata-qemu",
         "overhead": {"podFixed": {"cpu": "250m", "memory": "160Mi"}},
         "scheduling": {"nodeSelector": {"vm": "yes"}, "tolerations": [{"key": "vm", "operator": "Exists"}]}},
        {"name": "kata", "handler": "kata", "scheduling": {"tolerations": [{"key": "vm"}]}},
        {"name": "kata-any", "handler": "kata", "scheduling": {"nodeSelector": {}}},
    ]))
    .unwrap();
    let objects = classes::render(&"kata".parse().unwrap(), &said);
    let classes: Vec<RuntimeClass> = objects.iter().map(typed).collect();
    let names: Vec<_> = classes.iter().map(|c| c.metadata.name.as_deref().unwrap()).collect();
    assert_eq!(names, ["kata", "kata-any", "kata-qemu"], "in their names' order");
    let own = json!({"containerruntime.worker.gardener.cloud/kata": "true"});
    assert_eq!(
        objects[0]["scheduling"],
        json!({"nodeSelector": own, "tolerations": [{"key": "vm"}]})
    );
    assert_eq!(objects[1]["scheduling"], json!({"nodeSelector": {}}));
    assert_eq!(objects[2]["scheduling"]["nodeSelector"], json!({"vm": "yes"}));
    assert_eq!(objects[2]["overhead"]["podFixed"], json!({"cpu": "250m", "memory": "160Mi"}));
    assert_eq!(classes[2].handler, "kata-qemu");
}

#[test]
fn the_class_of_the_gvisor_extension_is_the_same_here() {
    let said = serde_json::from_value::<Vec<_>>(json!([{"name": "gvisor", "handler": "runsc"}]));
    let [object] =
        <[Value; 1]>::try_from(classes::render(&"gvisor".parse().unwrap(), &said.unwrap()))
            .unwrap();
    let class: RuntimeClass = typed(&object);
    assert_eq!(class.handler, "runsc");
    assert!(class.overhead.is_none());
    let own = json!({"nodeSelector": {"containerruntime.worker.gardener.cloud/gvisor": "true"}});
    assert_eq!(object["scheduling"], own);
}

#[test]
fn classes_that_the_catalog_no_longer_names_stay() {
    let class = |name: &str, handler: &str| json!({"kind": "RuntimeClass", "metadata": {"name": name}, "handler": handler});
    let account = json!({"kind": "ServiceAccount", "metadata": {"name": "gvisor"}});
    let rendered = vec![class("b", "new")];
    let present =
        vec![class("b", "old"), class("a", "a"), account, json!({"kind": "RuntimeClass"})];
    assert_eq!(classes::keep(rendered, present.clone()), [class("a", "a"), class("b", "new")]);
    assert_eq!(classes::keep(vec![], present), [class("a", "a"), class("b", "old")]);
}

#[test]
fn without_a_domain_the_agents_find_no_endpoint_and_look_again() {
    let objects = agent::render(&settings(), &types(&[]), None, "PEM");
    assert_eq!(objects[1]["data"], json!({"ca.crt": "PEM"}));
}
