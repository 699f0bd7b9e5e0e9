//! The resource manager: applies in the shoot what the agent needs there.

use std::fmt::Debug;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{ConfigMap, Secret, ServiceAccount};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use kube::Api;
use kube::runtime::watcher;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::follow::Follow;
use super::landscape::{AGENT_LABEL, CRI_NAME, RUNTIME_LABEL_PREFIX};
use super::objects::{Access, ensure, typed};
use super::retry::Retry;

/// The name of the agent's DaemonSet, ServiceAccount and ConfigMap.
pub const AGENT: &str = "rootstock-agent";
/// The namespace of the same.
pub const NAMESPACE: &str = "kube-system";
/// The Secret in the seed with the CA that the agents pin.
const CA: &str = "ca-rootstock";

/// The resource manager of one shoot.
#[derive(Debug)]
pub struct ResourceManager {
    shoot: Access,
    endpoint: String,
    runtimes: Vec<String>,
    secrets: Follow<Secret>,
}

impl ResourceManager {
    /// Keeps the agent's objects in `shoot`: its CA comes from `namespace` in the
    /// seed, `endpoint` is the controller's URL, `runtimes` are the catalog's types.
    pub fn new(
        seed: Access,
        namespace: &str,
        shoot: Access,
        endpoint: String,
        runtimes: Vec<String>,
    ) -> Self {
        let secrets = Follow::new(seed.within(namespace), watcher::Config::default());
        Self { shoot, endpoint, runtimes, secrets }
    }

    /// Runs until shut down.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut retry = Retry::new("resource manager");
        loop {
            // A followed set keeps what it has received; the others are timers and flags.
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.secrets.changed() => {}
                () = retry.due() => {}
            }
            retry.after(self.reconcile().await);
        }
    }

    async fn reconcile(&self) -> kube::Result<()> {
        let shoot = &self.shoot;
        apply::<ServiceAccount>(&shoot.within(NAMESPACE), account()).await?;
        apply::<ClusterRole>(&shoot.all(), role()).await?;
        apply::<ClusterRoleBinding>(&shoot.all(), role_binding()).await?;
        if let Some(ca) = self.certificate_authority() {
            apply::<ConfigMap>(&shoot.within(NAMESPACE), config_map(&self.endpoint, &ca)).await?;
        }
        apply::<DaemonSet>(&shoot.within(NAMESPACE), daemon_set(&self.runtimes)).await
    }

    fn certificate_authority(&self) -> Option<String> {
        let data = self.secrets.named(CA)?.data.as_ref()?;
        String::from_utf8(data.get("ca.crt")?.0.clone()).ok()
    }
}

async fn apply<K>(api: &Api<K>, object: Value) -> kube::Result<()>
where
    K: kube::Resource + Clone + serde::Serialize + serde::de::DeserializeOwned + Debug,
{
    ensure(api, &typed::<K>(object)?).await?;
    Ok(())
}

fn account() -> Value {
    json!({
        "apiVersion": "v1", "kind": "ServiceAccount", "automountServiceAccountToken": false,
        "metadata": {"name": AGENT, "namespace": NAMESPACE},
    })
}

/// What the controller may do in the shoot, and no more.
fn role() -> Value {
    let rule = |group: &str, resource: &str, verbs: &[&str]| json!({"apiGroups": [group], "resources": [resource], "verbs": verbs});
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": {"name": "extensions.gardener.cloud:rootstock"},
        "rules": [
            rule("", "nodes", &["get", "list", "watch", "patch"]),
            rule("", "pods", &["get", "list", "watch"]),
            rule("", "events", &["get", "list", "watch", "create", "patch"]),
            rule("authentication.k8s.io", "tokenreviews", &["create"]),
        ],
    })
}

fn role_binding() -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
        "metadata": {"name": "extensions.gardener.cloud:rootstock"},
        "roleRef": {
            "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole",
            "name": "extensions.gardener.cloud:rootstock",
        },
        "subjects": [{"kind": "ServiceAccount", "name": "rootstock", "namespace": "kube-system"}],
    })
}

fn config_map(endpoint: &str, ca: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": AGENT, "namespace": NAMESPACE},
        "data": {"endpoint": endpoint, "ca.crt": ca},
    })
}

fn daemon_set(runtimes: &[String]) -> Value {
    let labels = json!({
        "app.kubernetes.io/name": AGENT,
        "node.gardener.cloud/critical-component": "true",
    });
    let marks = runtimes.iter().map(|runtime| format!("{RUNTIME_LABEL_PREFIX}{runtime}"));
    // Terms are alternatives, the expressions of one term must all hold.
    let terms = marks.chain([AGENT_LABEL.to_owned()]).map(|mark| {
        json!({"matchExpressions": [
            {"key": CRI_NAME, "operator": "In", "values": ["containerd"]},
            {"key": mark, "operator": "In", "values": ["true"]},
        ]})
    });
    json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet",
        "metadata": {"name": AGENT, "namespace": NAMESPACE, "labels": labels},
        "spec": {
            "selector": {"matchLabels": {"app.kubernetes.io/name": AGENT}},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "serviceAccountName": AGENT,
                    "automountServiceAccountToken": false,
                    "hostNetwork": true,
                    "dnsPolicy": "Default",
                    "priorityClassName": "system-node-critical",
                    "tolerations": [{"operator": "Exists"}],
                    "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
                        "nodeSelectorTerms": terms.collect::<Vec<_>>(),
                    }}},
                    "containers": [{"name": "agent", "image": "rootstock-agent:playground"}],
                },
            },
        },
    })
}
