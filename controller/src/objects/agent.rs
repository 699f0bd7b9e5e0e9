//! What a shoot gets for its agents: who they are, whom they speak to, and what
//! the controller may do there to look after them.

use std::collections::BTreeSet;

use rootstock_core::name::RuntimeType;
use serde_json::{Value, json};

use super::AgentSettings;
use super::daemonset;

/// The name of the agent's ServiceAccount, ConfigMap and DaemonSet.
pub(crate) const AGENT: &str = "rootstock-agent";
/// The namespace of the same.
pub(crate) const NAMESPACE: &str = "kube-system";
/// The ConfigMap's key with the controller's URL.
pub(super) const ENDPOINT_KEY: &str = "endpoint";
/// The ConfigMap's key with the authorities that the agents trust, as PEM.
pub(super) const CA_KEY: &str = "ca.crt";
/// The ServiceAccount of the controller in the shoot, which the access Secret names.
pub(crate) const ACCESS_ACCOUNT: &str = "rootstock";
/// The controller's role in the shoot.
const ROLE: &str = "extensions.gardener.cloud:rootstock";
const RBAC: &str = "rbac.authorization.k8s.io";

/// Renders the objects in a fixed order, each before those that need it.
///
/// `types` are the catalog's: all of a shoot's ContainerRuntimes must render
/// the same, whichever of them is being reconciled.
pub(crate) fn render(
    settings: &AgentSettings,
    types: &BTreeSet<RuntimeType>,
    endpoint: Option<&str>,
    authorities: &str,
) -> Vec<Value> {
    vec![
        account(),
        config_map(endpoint, authorities),
        role(),
        role_binding(),
        daemonset::render(&settings.image, &settings.roots, types, &settings.proxy),
    ]
}

/// The controller's URL from its host and port.
pub(crate) fn endpoint_url(host: &str, port: u16) -> String {
    match port {
        443 => format!("https://{host}"),
        port => format!("https://{host}:{port}"),
    }
}

fn account() -> Value {
    json!({
        "apiVersion": "v1", "kind": "ServiceAccount",
        "metadata": {"name": AGENT, "namespace": NAMESPACE, "labels": labels()},
        // Its Pods mount a token for the controller, and none for the API.
        "automountServiceAccountToken": false,
    })
}

/// Read again before each connection: it is changed in place. An agent that
/// finds no endpoint in it looks again.
fn config_map(endpoint: Option<&str>, authorities: &str) -> Value {
    let mut data = json!({CA_KEY: authorities});
    if let Some(endpoint) = endpoint {
        data[ENDPOINT_KEY] = endpoint.into();
    }
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": AGENT, "namespace": NAMESPACE, "labels": labels()},
        "data": data,
    })
}

/// What the controller may do in the shoot, and no more.
fn role() -> Value {
    let rule = |group: &str, resource: &str, verbs: &[&str]| json!({"apiGroups": [group], "resources": [resource], "verbs": verbs});
    json!({
        "apiVersion": format!("{RBAC}/v1"), "kind": "ClusterRole",
        "metadata": {"name": ROLE, "labels": labels()},
        "rules": [
            // Which runtimes a node should have; the label that keeps the agent there.
            rule("", "nodes", &["get", "list", "watch", "patch"]),
            // Whether the Pod that enrols is the agent's, and where one is left;
            // which ones wait for their sandbox.
            rule("", "pods", &["get", "list", "watch"]),
            // Sandboxes that do not start.
            rule("", "events", &["get", "list", "watch", "create", "patch"]),
            // Whose token it is.
            rule("authentication.k8s.io", "tokenreviews", &["create"]),
        ],
    })
}

fn role_binding() -> Value {
    json!({
        "apiVersion": format!("{RBAC}/v1"), "kind": "ClusterRoleBinding",
        "metadata": {"name": ROLE, "labels": labels()},
        "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": ROLE},
        "subjects": [{"kind": "ServiceAccount", "name": ACCESS_ACCOUNT, "namespace": NAMESPACE}],
    })
}

fn labels() -> Value {
    json!({"app.kubernetes.io/name": AGENT, "app.kubernetes.io/part-of": "rootstock"})
}
