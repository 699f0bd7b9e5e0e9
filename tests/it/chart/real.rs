//! The rendered objects at a real API server. Skipped without one.

use std::time::Duration;

use k8s_openapi::api::authorization::v1::SubjectAccessReview;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use kube::{Api, discovery};
use rootstock_playground::kube::{Cluster, Options, RealControlPlane};
use serde_json::{Value, json};

use super::support::{Helm, LOCAL, NAMESPACE, seed_values, the};

/// Where ("" is everywhere), verb, group, resource, name ("" is any); whether it
/// is allowed in a seed, and in a plain cluster.
type Asked = (&'static str, &'static str, &'static str, &'static str, &'static str, bool, bool);

/// What the controller does, and what it has no business with.
const ASKED: &[Asked] = &[
    // Gardener's resources.
    ("", "watch", "extensions.gardener.cloud", "containerruntimes", "", true, false),
    (NAMESPACE, "watch", "extensions.gardener.cloud", "containerruntimes", "", true, true),
    (SHOOT, "patch", "extensions.gardener.cloud", "containerruntimes", "a", true, false),
    (SHOOT, "patch", "extensions.gardener.cloud", "containerruntimes/status", "a", true, false),
    (SHOOT, "get", "extensions.gardener.cloud", "containerruntimes/status", "a", false, false),
    (NAMESPACE, "get", "extensions.gardener.cloud", "containerruntimes/status", "a", false, false),
    (NAMESPACE, "patch", "extensions.gardener.cloud", "containerruntimes/status", "a", true, true),
    (NAMESPACE, "delete", "extensions.gardener.cloud", "containerruntimes", "a", false, false),
    ("", "watch", "extensions.gardener.cloud", "clusters", "", true, false),
    ("", "get", "extensions.gardener.cloud", "clusters", "a", false, false),
    ("", "patch", "extensions.gardener.cloud", "clusters", "a", false, false),
    (SHOOT, "list", "resources.gardener.cloud", "managedresources", "", true, false),
    (SHOOT, "watch", "resources.gardener.cloud", "managedresources", "", true, false),
    (SHOOT, "create", "resources.gardener.cloud", "managedresources", "", true, false),
    (SHOOT, "delete", "resources.gardener.cloud", "managedresources", "a", true, false),
    // Secrets: in a plain cluster only its own.
    ("", "watch", "", "secrets", "", true, false),
    (SHOOT, "create", "", "secrets", "", true, false),
    ("kube-system", "get", "", "secrets", "a", true, false),
    (NAMESPACE, "get", "", "secrets", "bundles", true, true),
    (NAMESPACE, "patch", "", "secrets", "ca-rootstock", true, true),
    (NAMESPACE, "delete", "", "secrets", "ca-rootstock-b", true, true),
    // Events and the heartbeat.
    (SHOOT, "create", "events.k8s.io", "events", "", true, false),
    (NAMESPACE, "create", "events.k8s.io", "events", "", true, true),
    (NAMESPACE, "create", "coordination.k8s.io", "leases", "", true, true),
    (
        NAMESPACE,
        "patch",
        "coordination.k8s.io",
        "leases",
        "gardener-extension-heartbeat",
        true,
        true,
    ),
    (
        NAMESPACE,
        "get",
        "coordination.k8s.io",
        "leases",
        "gardener-extension-heartbeat",
        false,
        false,
    ),
    (NAMESPACE, "patch", "coordination.k8s.io", "leases", "another", false, false),
    // The leader, and its mark.
    (NAMESPACE, "get", "coordination.k8s.io", "leases", "rootstock-controller", true, true),
    (NAMESPACE, "patch", "coordination.k8s.io", "leases", "rootstock-controller", true, true),
    (NAMESPACE, "delete", "coordination.k8s.io", "leases", "rootstock-controller", false, false),
    (NAMESPACE, "list", "", "pods", "", true, true),
    (NAMESPACE, "patch", "", "pods", "a", true, true),
    (NAMESPACE, "delete", "", "pods", "a", false, false),
    (SHOOT, "patch", "", "pods", "a", false, false),
    ("kube-node-lease", "create", "coordination.k8s.io", "leases", "", false, false),
    // The agents' way in: by its name, and what tells where it leads through.
    (SHOOT, "create", "networking.istio.io", "gateways", "", true, false),
    (SHOOT, "get", "networking.istio.io", "gateways", "kube-apiserver", true, false),
    (SHOOT, "update", "networking.istio.io", "gateways", "rootstock-agent", true, false),
    (SHOOT, "delete", "networking.istio.io", "virtualservices", "rootstock-agent", true, false),
    (SHOOT, "update", "networking.istio.io", "gateways", "kube-apiserver", false, false),
    (SHOOT, "delete", "networking.istio.io", "gateways", "kube-apiserver", false, false),
    (SHOOT, "get", "networking.istio.io", "virtualservices", "kube-apiserver", false, false),
    ("", "list", "networking.istio.io", "gateways", "", false, false),
    // What a shoot's own role gives elsewhere.
    ("", "watch", "", "nodes", "", false, true),
    ("", "patch", "", "nodes", "a", false, true),
    ("", "delete", "", "nodes", "a", false, false),
    ("kube-system", "get", "", "pods", "a", false, true),
    ("kube-system", "watch", "", "pods", "", false, true),
    ("kube-system", "delete", "", "pods", "a", false, false),
    (SHOOT, "get", "", "pods", "a", false, true),
    ("", "list", "", "pods", "", false, true),
    ("", "watch", "", "pods", "", false, true),
    (SHOOT, "delete", "", "pods", "a", false, false),
    ("", "list", "", "events", "", false, true),
    ("", "watch", "", "events", "", false, true),
    (SHOOT, "create", "", "events", "", false, false),
    ("", "create", "authentication.k8s.io", "tokenreviews", "", false, true),
    // The shoot's objects, where the resource manager does not make them.
    ("", "create", "apiextensions.k8s.io", "customresourcedefinitions", "", false, true),
    ("", "delete", "apiextensions.k8s.io", "customresourcedefinitions", "a", false, false),
    ("", "patch", "node.k8s.io", "runtimeclasses", "gvisor", false, true),
    ("kube-system", "patch", "apps", "daemonsets", "rootstock-agent", false, true),
    ("kube-system", "patch", "apps", "daemonsets", "another", false, false),
    (NAMESPACE, "create", "apps", "daemonsets", "", false, false),
    // Nobody becomes more than they are.
    ("", "escalate", "rbac.authorization.k8s.io", "clusterroles", "", false, false),
    ("", "bind", "rbac.authorization.k8s.io", "clusterroles", "", false, false),
    ("", "impersonate", "", "users", "", false, false),
    (NAMESPACE, "create", "", "pods", "", false, false),
];

/// The namespace of a shoot's control plane.
const SHOOT: &str = "shoot--garden--one";

#[tokio::test]
async fn an_api_server_takes_every_object_and_allows_what_is_needed() {
    let (Some(helm), Some(assets)) = (Helm::find(), RealControlPlane::assets()) else { return };
    let dir = tempfile::tempdir().unwrap();
    let plane = RealControlPlane::start(&assets, dir.path()).await.unwrap();
    let options = Options { name: "chart".to_owned(), dir: dir.path().to_owned(), crds: vec![] };
    let cluster = Cluster::real(&plane, options).await.unwrap();
    for name in [NAMESPACE, "kube-system"] {
        apply(
            &cluster,
            &json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}),
        )
        .await;
    }
    let seed = helm.template_file(&seed_values()).unwrap();
    for (objects, local) in [(seed, false), (helm.template(LOCAL).unwrap(), true)] {
        for object in &objects {
            // Gardener and Istio bring the definitions of these.
            if object["kind"] != "VerticalPodAutoscaler" && object["kind"] != "DestinationRule" {
                apply(&cluster, object).await;
            }
        }
        let account = the(&objects, "ServiceAccount")["metadata"]["name"].as_str().unwrap();
        let user = format!("system:serviceaccount:{NAMESPACE}:{account}");
        let mut wrong = Vec::new();
        for asked in ASKED {
            let expected = if local { asked.6 } else { asked.5 };
            // The server's own look at roles is a moment behind what was written.
            let patience = tokio::time::timeout(Duration::from_secs(5), async {
                while allowed(&cluster, &user, asked).await != expected {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            });
            if patience.await.is_err() {
                wrong.push(asked);
            }
        }
        assert!(wrong.is_empty(), "local: {local}, otherwise than expected: {wrong:#?}");
    }
}

async fn allowed(cluster: &Cluster, user: &str, asked: &Asked) -> bool {
    let (namespace, verb, group, resource, name, ..) = asked;
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    let review: SubjectAccessReview = serde_json::from_value(json!({
        "metadata": {},
        "spec": {"user": user, "resourceAttributes": {
            "namespace": namespace, "verb": verb, "group": group, "resource": resource,
            "subresource": subresource, "name": name,
        }},
    }))
    .unwrap();
    let api: Api<SubjectAccessReview> = Api::all(cluster.client());
    api.create(&PostParams::default(), &review).await.unwrap().status.unwrap().allowed
}

async fn apply(cluster: &Cluster, object: &Value) {
    let parsed: DynamicObject = serde_json::from_value(object.clone()).unwrap();
    let types = parsed.types.clone().unwrap();
    let kind = GroupVersionKind::try_from(&types).unwrap();
    let (resource, _): (ApiResource, _) =
        discovery::pinned_kind(&cluster.client(), &kind).await.unwrap();
    let api: Api<DynamicObject> = match &parsed.metadata.namespace {
        Some(namespace) => Api::namespaced_with(cluster.client(), namespace, &resource),
        None => Api::all_with(cluster.client(), &resource),
    };
    let how = PatchParams::apply("chart").validation_strict().force();
    let name = parsed.metadata.name.clone().unwrap();
    let applied = api.patch(&name, &how, &Patch::Apply(&parsed)).await;
    applied.unwrap_or_else(|error| panic!("{}: {error}", kind.kind));
}
