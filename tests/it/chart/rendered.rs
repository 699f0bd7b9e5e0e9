//! What Helm makes of the chart.

use std::collections::BTreeMap;

use clap::{CommandFactory as _, Parser as _};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Service, ServiceAccount};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use rootstock_controller::{Args, ClusterKind, Ingress, catalog};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::support::{
    Helm, LOCAL, NAMESPACE, args, path, registered_values, registrations, seed_values, text, the,
};

/// Every value that becomes a flag, set to something that is not its default.
const OTHER_VALUES: &[&str] = &[
    "--set=cluster=local,controller.types={gvisor,kata},controller.classes={shoot,seed}",
    "--set=controller.ignoreOperationAnnotation=true,controller.providerConfig=warn",
    "--set=controller.binaryRoots={/opt/runtimes},controller.maxConcurrentReconciles=50",
    "--set=controller.deletionTimeout=90s,controller.heartbeatRenewInterval=1m,controller.leaseDuration=30s",
    "--set=agentImage.repository=r.example/agent,agentImage.tag=v2",
    "--set=endpoint.domain=nodes.example,endpoint.port=8444,endpoint.ingress=none",
    "--set=service.port=9444,agentProxy.url=http://proxy.example:3128",
    "--set=agentProxy.except={.internal.example,10.0.0.1}",
    "--set=ports.agents=9443,ports.admin=9080,log.level=debug,log.format=json",
];

/// Flags that no value changes, and why.
const FIXED: [(&str, &str); 7] = [
    ("kubeconfig", "in a Pod the ServiceAccount is used"),
    ("config", "the mounted ConfigMap"),
    ("namespace", "the release's namespace"),
    ("heartbeat-namespace", "the release's namespace"),
    ("leader-election-namespace", "the controller's own"),
    ("pod", "the Pod's own name, by an environment variable"),
    ("identity", "the Pod's name"),
];

/// The object as its Kubernetes type has it must be the object as rendered.
fn typed<T: DeserializeOwned + Serialize>(object: &Value) {
    let read: T = serde_json::from_value(object.clone())
        .unwrap_or_else(|error| panic!("{}: {error}", object["kind"]));
    let (back, given) = (serde_json::to_value(read).unwrap(), filled(object));
    assert_eq!(filled(&back), given, "a field of {} is unknown", object["kind"]);
}

/// Without nulls and empty maps, which a type may leave out.
fn filled(value: &Value) -> Value {
    match value {
        Value::Object(map) => map
            .iter()
            .map(|(key, value)| (key.clone(), filled(value)))
            .filter(|(_, value)| !value.is_null() && *value != json!({}))
            .collect(),
        Value::Array(items) => items.iter().map(filled).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

fn all_typed(objects: &[Value]) {
    for object in objects {
        match object["kind"].as_str().unwrap() {
            "Deployment" => typed::<Deployment>(object),
            "ConfigMap" => typed::<ConfigMap>(object),
            "Service" => typed::<Service>(object),
            "ServiceAccount" => typed::<ServiceAccount>(object),
            "PodDisruptionBudget" => typed::<PodDisruptionBudget>(object),
            "ClusterRole" => typed::<ClusterRole>(object),
            "ClusterRoleBinding" => typed::<ClusterRoleBinding>(object),
            "Role" => typed::<Role>(object),
            "RoleBinding" => typed::<RoleBinding>(object),
            "DestinationRule" => assert_eq!(object["apiVersion"], "networking.istio.io/v1beta1"),
            "VerticalPodAutoscaler" => assert_eq!(object["apiVersion"], "autoscaling.k8s.io/v1"),
            other => panic!("the chart renders a {other}"),
        }
        let namespaced = !object["kind"].as_str().unwrap().starts_with("ClusterRole");
        assert_eq!(object["metadata"]["namespace"].is_string(), namespaced, "{object}");
    }
}

fn pod(objects: &[Value]) -> &Value {
    &the(objects, "Deployment")["spec"]["template"]
}

#[test]
fn helm_finds_nothing_to_say() {
    let Some(helm) = Helm::find() else { return };
    let chart = path("rootstock");
    for values in [&[][..], LOCAL] {
        let output = helm.run(&[&["lint", "--strict", chart.to_str().unwrap()], values].concat());
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && !said.contains("WARNING"), "{said}");
    }
}

#[test]
fn every_object_is_what_kubernetes_knows() {
    let Some(helm) = Helm::find() else { return };
    let seed = helm.template_file(&seed_values()).unwrap();
    all_typed(&seed);
    all_typed(&helm.template(&[]).unwrap());
    all_typed(&helm.template(LOCAL).unwrap());
    let more = "podLabels.a=b,podAnnotations.a=b,nodeSelector.a=b,service.annotations.a=b,\
                tolerations[0].operator=Exists,imagePullSecrets={pull},service.type=NodePort,\
                vpa.enabled=true,podDisruptionBudget.enabled=false,replicas=0";
    let more = helm.template(&["--set", "cluster=local", "--set", more]).unwrap();
    all_typed(&more);
    assert!(!more.iter().any(|object| object["kind"] == "PodDisruptionBudget"));
    the(&more, "VerticalPodAutoscaler");
}

#[test]
fn in_a_seed_the_pod_is_what_gardener_wants() {
    let Some(helm) = Helm::find() else { return };
    let objects = helm.template_file(&seed_values()).unwrap();
    let deployment = the(&objects, "Deployment");
    let prefix = "high-availability-config.resources.gardener.cloud";
    assert_eq!(deployment["metadata"]["labels"][format!("{prefix}/type")], "controller");
    assert_eq!(deployment["metadata"]["annotations"][format!("{prefix}/replicas")], "2");
    assert_eq!(deployment["spec"]["revisionHistoryLimit"], 2);
    // The new Pod waits for the Lease while the old one has it.
    let rolling = json!({"maxSurge": 1, "maxUnavailable": 0});
    let strategy = json!({"type": "RollingUpdate", "rollingUpdate": rolling});
    assert_eq!(deployment["spec"]["strategy"], strategy);
    assert_eq!(deployment["spec"]["replicas"], 2);
    let pod = pod(&objects);
    for label in [
        "networking.gardener.cloud/to-dns",
        "networking.gardener.cloud/to-runtime-apiserver",
        "networking.gardener.cloud/to-private-networks",
        "networking.gardener.cloud/to-public-networks",
        "networking.resources.gardener.cloud/to-all-shoots-kube-apiserver-tcp-443",
    ] {
        assert_eq!(pod["metadata"]["labels"][label], "allowed", "{label}");
    }
    assert_eq!(pod["spec"]["priorityClassName"], "gardener-system-900");
    // The resource manager mounts a token where the account alone says no.
    assert_eq!(the(&objects, "ServiceAccount")["automountServiceAccountToken"], false);
    assert_eq!(pod["spec"].get("automountServiceAccountToken"), None);
    let budget = the(&objects, "PodDisruptionBudget");
    assert_eq!(budget["spec"]["maxUnavailable"], 1);
    assert_eq!(budget["spec"]["unhealthyPodEvictionPolicy"], "AlwaysAllow");
    let vpa = the(&objects, "VerticalPodAutoscaler");
    assert_eq!(vpa["spec"]["updatePolicy"]["updateMode"], "InPlaceOrRecreate");
    assert_eq!(vpa["spec"]["targetRef"]["name"], deployment["metadata"]["name"]);
    // Whether and by what /metrics is scraped is the operator's to say.
    assert!(!json!(objects).to_string().contains("prometheus.io"));
}

#[test]
fn in_a_seed_istio_leads_to_the_service() {
    let Some(helm) = Helm::find() else { return };
    let values = &["--set", "service.port=9444,service.annotations.a=b"];
    let objects = helm.template(values).unwrap();
    let service = the(&objects, "Service");
    let annotations = json!({"networking.istio.io/exportTo": "*", "a": "b"});
    assert_eq!(service["metadata"]["annotations"], annotations);
    let parsed = Args::try_parse_from([vec!["controller".to_owned()], args(&objects)].concat());
    let parsed = parsed.unwrap();
    assert_eq!(parsed.ingress, Ingress::Istio);
    // The routes that the controller makes end where the Service is.
    assert_eq!(service["metadata"]["name"], *parsed.service_name);
    assert_eq!(service["spec"]["ports"][0]["port"], i64::from(parsed.service_port));
    let rule = &the(&objects, "DestinationRule")["spec"];
    assert_eq!(rule["host"], format!("{}.{NAMESPACE}.svc.cluster.local", parsed.service_name));
    assert_eq!(rule["exportTo"], json!(["*"]));
    assert_eq!(
        rule["trafficPolicy"],
        json!({
            "tls": {"mode": "DISABLE"},
            "connectionPool": {"tcp": {
                "maxConnectionDuration": "86400s",
                "tcpKeepalive": {"time": "7200s", "interval": "75s"},
            }},
        })
    );
    // Where somebody else makes the way there is nothing of Istio, nor in a plain cluster.
    for values in [&["--set", "endpoint.ingress=none"][..], LOCAL] {
        assert!(!json!(helm.template(values).unwrap()).to_string().contains("istio.io/"));
    }
}

#[test]
fn in_a_plain_cluster_nothing_of_gardener_is_left() {
    let Some(helm) = Helm::find() else { return };
    let objects = helm.template(LOCAL).unwrap();
    let pod = pod(&objects);
    assert_eq!(pod["spec"].get("priorityClassName"), None);
    assert_eq!(the(&objects, "ServiceAccount")["automountServiceAccountToken"], true);
    let (deployment, service) = (the(&objects, "Deployment"), the(&objects, "Service"));
    // The mark of the leader's Pod is Rootstock's own.
    let unmarked = service.to_string().replace("rootstock.gardener.cloud/serving", "");
    for text in [deployment.to_string(), unmarked] {
        assert!(!text.contains("gardener.cloud"), "{text}");
    }
    assert!(!objects.iter().any(|object| object["kind"] == "VerticalPodAutoscaler"));
    let args = Args::try_parse_from([vec!["controller".to_owned()], args(&objects)].concat());
    let args = args.unwrap();
    assert_eq!(args.cluster, ClusterKind::Local);
    assert!(args.ignore_operation_annotation);
    // What the controller tells agents where no domain is given.
    assert_eq!(service["metadata"]["name"], "rs-local");
    assert_eq!(i64::from(args.endpoint_port), service["spec"]["ports"][0]["port"]);
}

#[test]
fn the_pod_has_no_more_rights_than_it_needs() {
    let Some(helm) = Helm::find() else { return };
    for objects in [helm.template(&[]).unwrap(), helm.template(LOCAL).unwrap()] {
        let spec = &pod(&objects)["spec"];
        assert_eq!(spec["securityContext"]["runAsNonRoot"], true);
        assert_eq!(spec["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
        let container = &spec["containers"][0]["securityContext"];
        assert_eq!(container["allowPrivilegeEscalation"], false);
        assert_eq!(container["readOnlyRootFilesystem"], true);
        assert_eq!(container["capabilities"], json!({"drop": ["ALL"]}));
        for shared in ["hostNetwork", "hostPID", "hostIPC"] {
            assert_eq!(spec.get(shared), None);
        }
    }
}

#[test]
fn the_service_and_the_probes_find_the_listeners() {
    let Some(helm) = Helm::find() else { return };
    let objects =
        helm.template(&["--set", "ports.agents=9443,ports.admin=9080,service.port=443"]).unwrap();
    let pod = pod(&objects);
    let container = &pod["spec"]["containers"][0];
    let parsed = Args::try_parse_from([vec!["controller".to_owned()], args(&objects)].concat());
    let parsed = parsed.unwrap();
    // The kubelet asks from outside the Pod.
    assert!(parsed.listen.ip().is_unspecified() && parsed.admin_listen.ip().is_unspecified());
    let ports: BTreeMap<&str, u16> = container["ports"]
        .as_array()
        .unwrap()
        .iter()
        .map(|port| {
            (port["name"].as_str().unwrap(), port["containerPort"].as_u64().unwrap() as u16)
        })
        .collect();
    let listened = [("admin", parsed.admin_listen.port()), ("agents", parsed.listen.port())];
    assert_eq!(ports, listened.into());
    for (probe, at) in [("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")] {
        assert_eq!(container[probe]["httpGet"], json!({"path": at, "port": "admin"}));
    }
    let service = &the(&objects, "Service")["spec"];
    assert_eq!(service["ports"][0]["port"], 443);
    assert_eq!(service["ports"][0]["targetPort"], "agents");
    // The leader gives itself what its template lacks.
    let mut selector = service["selector"].as_object().unwrap().clone();
    assert_eq!(selector.remove("rootstock.gardener.cloud/serving"), Some(json!("true")));
    for (key, value) in &selector {
        assert_eq!(pod["metadata"]["labels"][key], *value);
    }
}

#[test]
fn every_flag_has_a_value_or_a_reason() {
    let Some(helm) = Helm::find() else { return };
    let parse = |values: &[&str]| {
        let args = [vec!["controller".to_owned()], args(&helm.template(values).unwrap())].concat();
        Args::command().try_get_matches_from(args).unwrap()
    };
    let (usual, other) = (parse(&[]), parse(OTHER_VALUES));
    for flag in Args::command().get_arguments() {
        let (id, name) = (flag.get_id().as_str(), flag.get_long().unwrap());
        let raw = |matches: &clap::ArgMatches| -> Option<Vec<_>> {
            Some(matches.get_raw(id)?.map(ToOwned::to_owned).collect())
        };
        let fixed = FIXED.iter().find(|(fixed, _)| *fixed == name);
        match fixed {
            Some((_, why)) => assert_eq!(raw(&usual), raw(&other), "--{name}: {why}"),
            None => assert_ne!(raw(&usual), raw(&other), "no value changes --{name}"),
        }
    }
    assert_eq!(usual.get_one::<String>("namespace").unwrap(), NAMESPACE);
}

#[tokio::test]
async fn the_controller_reads_the_configuration() {
    let Some(helm) = Helm::find() else { return };
    let mut values = seed_values();
    values["config"]["budgets"] = json!({"seed": "200MiB/s", "concurrentPulls": 64});
    values["config"]["registries"][0]["credentialsSecret"] = json!("bundles");
    values["config"]["runtimes"][0]["strategy"] =
        json!({"canary": 1, "soak": "10m", "maxUnavailable": "10%", "failureBudget": 2});
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.yaml");
    for objects in [helm.template(&[]).unwrap(), helm.template_file(&values).unwrap()] {
        let text = the(&objects, "ConfigMap")["data"]["config.yaml"].as_str().unwrap();
        std::fs::write(&file, text).unwrap();
        catalog::load(&file).await.unwrap();
    }
    let catalog = catalog::load(&file).await.unwrap();
    assert_eq!(catalog.registries[0].credentials_secret.as_deref(), Some("bundles"));
    let types: Vec<_> = catalog.runtimes.iter().map(|entry| entry.runtime.as_str()).collect();
    assert_eq!(types, ["gvisor", "kata"]);
}

#[test]
fn registrations_hand_over_values_that_the_chart_takes() {
    let Some(helm) = Helm::find() else { return };
    for (name, documents) in registrations() {
        let values = registered_values(&documents);
        let objects = helm.template_file(values).unwrap_or_else(|error| panic!("{name}: {error}"));
        all_typed(&objects);
    }
}

#[test]
fn the_values_that_the_readme_shows_are_taken() {
    let Some(helm) = Helm::find() else { return };
    let readme = text("README.md");
    let (_, rest) = readme.split_once("```yaml\n").unwrap();
    let (shown, _) = rest.split_once("```").unwrap();
    let mut values: Value = serde_saphyr::from_str(shown).unwrap();
    values["cluster"] = json!("local");
    let objects = helm.template_file(&values).unwrap();
    let args = args(&objects).join(" ");
    assert!(args.contains("--agent-image=registry.example/rootstock-agent:"), "{args}");
}

#[test]
fn roles_are_the_files_and_bound_to_the_controller() {
    let Some(helm) = Helm::find() else { return };
    let rules = |files: &[&str]| -> Value {
        let all = files.iter().map(|file| text(&format!("rootstock/files/{file}")));
        let all = all.flat_map(|text| serde_saphyr::from_str::<Vec<Value>>(&text).unwrap());
        all.collect()
    };
    let seed = helm.template(&[]).unwrap();
    assert_eq!(the(&seed, "ClusterRole")["rules"], rules(&["rules.yaml"]));
    assert_eq!(the(&seed, "Role")["rules"], rules(&["rules-own-namespace.yaml"]));
    let local = helm.template(LOCAL).unwrap();
    assert_eq!(the(&local, "ClusterRole")["rules"], rules(&["rules-local.yaml"]));
    let roles: BTreeMap<_, _> = (local.iter().filter(|object| object["kind"] == "Role"))
        .map(|role| (role["metadata"]["namespace"].as_str().unwrap(), &role["rules"]))
        .collect();
    let own = rules(&["rules-own-namespace.yaml", "rules-local-own-namespace.yaml"]);
    assert_eq!(*roles[NAMESPACE], own);
    assert_eq!(*roles["kube-system"], rules(&["rules-local-kube-system.yaml"]));
    for object in seed.iter().chain(&local) {
        if object["kind"].as_str().unwrap().ends_with("RoleBinding") {
            let account = the(&seed, "ServiceAccount")["metadata"].clone();
            assert_eq!(
                object["subjects"],
                json!([{"kind": "ServiceAccount", "name": account["name"], "namespace": NAMESPACE}])
            );
            assert_eq!(object["roleRef"]["name"], object["metadata"]["name"]);
        }
    }
}
