//! The Pods of one shoot that never get as far as a sandbox, where no Event
//! says so: its start hangs, or the kubelet waits for a containerd that hangs.
//!
//! ```text
//!  pending Pods ─list, watch─▶ Waiting ─ each three minutes without address ─▶ their Events ─ no other cause ─▶ index.sandbox_failed
//! ```

use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kube::Client;
use kube::api::{ListParams, Request, WatchParams};
use kube::core::request::Error as Unbuilt;
use rootstock_core::catalog::Catalog;
use rootstock_core::name::{ShootName, Uid};
use rootstock_daemon::error::Chain;
use serde::Deserialize;
use serde::de::IgnoredAny;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::waiting::{Pod, Waiting};
use super::{causes, pods, runtime_of};
use crate::index::Index;
use crate::shoot::follow::{Follow, Followed};
use crate::shoot::sight::Sight;

const PODS: &str = "/api/v1/pods";
/// A kubelet calls a Pod so until its first container runs.
const SELECTOR: &str = "status.phase=Pending";
/// The pause between two looks at who waits for too long. It is also the time
/// in which a watch that was broken tells what was missed.
const LOOK: Duration = Duration::from_secs(15);
/// The pause between two requests, of which one is under way at most.
const PAUSE: Duration = Duration::from_millis(100);

/// Follows the Pods of a shoot that wait for their sandbox.
#[derive(Debug)]
pub(super) struct Stuck {
    shoot: ShootName,
    index: Arc<Index>,
    catalog: watch::Receiver<Arc<Catalog>>,
    waiting: Shared,
    pods: Follow<ToWaiting>,
    sight: Sight,
}

/// Who waits: told by the one that follows, read by the one that looks.
#[derive(Clone, Debug, Default)]
struct Shared(Arc<Mutex<Waiting>>);

impl Stuck {
    pub(super) fn new(
        shoot: ShootName,
        index: Arc<Index>,
        catalog: watch::Receiver<Arc<Catalog>>,
    ) -> Self {
        let waiting = Shared::default();
        let pods = Follow::new(shoot.clone(), ToWaiting(waiting.clone()));
        let lacking = "a rollout does not see which of them hang on its nodes";
        let sight = Sight::of::<ToWaiting>(shoot.clone(), lacking);
        Self { shoot, index, catalog, waiting, pods, sight }
    }

    /// What was known is of no use any more: the shoot sleeps.
    pub(super) fn forget(&mut self) {
        self.pods.forget();
        *self.waiting.lock() = Waiting::default();
    }

    /// Follows them for ever; whatever is wrong here ends nothing.
    ///
    /// Cancel-safe: what was not told yet is asked for again.
    pub(super) async fn follow(&mut self, client: &Client) -> Infallible {
        let Self { shoot, index, catalog, waiting, pods, sight } = self;
        sight.begin();
        loop {
            let followed = pods.follow(client, || sight.back());
            // Cancel-safe: a Pod that is being asked about stays due. Nobody
            // looks while nobody follows: who waits then is not known.
            let error = tokio::select! {
                error = followed => error,
                never = look(shoot, index, catalog, waiting, client) => match never {},
            };
            sight.lost(&error).await;
        }
    }
}

/// Tells the index of those that wait for too long.
async fn look(
    shoot: &ShootName,
    index: &Index,
    catalog: &watch::Receiver<Arc<Catalog>>,
    waiting: &Shared,
    client: &Client,
) -> Infallible {
    loop {
        sleep(LOOK).await;
        loop {
            let due = waiting.lock().due(Instant::now());
            let Some((pod, since)) = due else { break };
            let Some(runtime) = runtime_of(&catalog.borrow(), &pod.class) else {
                waiting.lock().leave(&pod.uid);
                continue;
            };
            // Boxed: each shoot's task would keep room for it for ever.
            match Box::pin(causes::has_another(client, &pod)).await {
                Ok(true) => waiting.lock().leave(&pod.uid),
                Ok(false) => {
                    waiting.lock().told(&pod.uid, Instant::now());
                    // It fails since it waits: on a bundle that has come since
                    // then it does not count.
                    index.sandbox_failed(shoot, &pod.node, &runtime, 1, since.into_std());
                }
                Err(error) => {
                    tracing::debug!(%shoot, pod = %pod.uid, error = %Chain(&error), "why a Pod waits is not known");
                    waiting.lock().put_off(&pod.uid, Instant::now() + LOOK);
                }
            }
            sleep(PAUSE).await;
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Every change is whole when the lock is given back.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Notes who waits.
#[derive(Debug)]
struct ToWaiting(Shared);

/// What is read of a Pod.
#[derive(Clone, Debug, Deserialize)]
struct Item {
    metadata: Meta,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Meta {
    uid: Option<String>,
    namespace: Option<String>,
    resource_version: Option<String>,
    deletion_timestamp: Option<IgnoredAny>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    node_name: Option<String>,
    runtime_class_name: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Status {
    #[serde(rename = "podIP")]
    ip: Option<String>,
    #[serde(rename = "podIPs")]
    ips: Option<Vec<IgnoredAny>>,
}

impl Item {
    fn uid(&self) -> Option<Uid> {
        self.metadata.uid.as_deref()?.parse().ok()
    }

    /// None of one that does not wait for a sandbox: it has an address, no
    /// node yet, or no RuntimeClass, or is to go.
    fn into_waiting(self) -> Option<Pod> {
        let uid = self.uid()?;
        let Self { metadata, spec, status } = self;
        let has_address = status.ip.is_some_and(|ip| !ip.is_empty())
            || status.ips.is_some_and(|ips| !ips.is_empty());
        if has_address || metadata.deletion_timestamp.is_some() {
            return None;
        }
        let namespace = metadata.namespace.filter(|name| pods::is_name(name))?;
        let node = spec.node_name?.parse().ok()?;
        let class = spec.runtime_class_name.filter(|class| !class.is_empty())?;
        Some(Pod { uid, namespace, node, class })
    }
}

impl Followed for ToWaiting {
    type Item = Item;

    const WHAT: &'static str = "Pods that are pending";

    fn list(params: &ListParams) -> Result<http::Request<Vec<u8>>, Unbuilt> {
        Request::new(PODS).list(&params.clone().fields(SELECTOR))
    }

    fn watch(params: &WatchParams, from: &str) -> Result<http::Request<Vec<u8>>, Unbuilt> {
        Request::new(PODS).watch(&params.clone().fields(SELECTOR), from)
    }

    fn version(item: &Item) -> Option<&str> {
        item.metadata.resource_version.as_deref()
    }

    fn begin(&mut self) {
        self.0.lock().begin();
    }

    fn gather(&mut self, item: Item) {
        self.put(item);
    }

    fn listed(&mut self) {
        self.0.lock().listed();
    }

    fn put(&mut self, item: Item) {
        let Some(uid) = item.uid() else { return };
        match item.into_waiting() {
            Some(pod) => self.0.lock().put(pod, Instant::now()),
            None => self.0.lock().forget(&uid),
        }
    }

    fn gone(&mut self, item: Item) {
        if let Some(uid) = item.uid() {
            self.0.lock().forget(&uid);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_pod_waits_from_its_node_to_its_address() {
        type Case = (&'static str, fn(&mut Value), bool);
        let table: [Case; 9] = [
            ("on a node", |_| {}, true),
            ("the kubelet has not seen it", |pod| pod["status"] = json!({}), true),
            ("no address", |pod| pod["status"] = json!({"podIP": "", "podIPs": []}), true),
            ("an address", |pod| pod["status"]["podIP"] = json!("10.0.0.7"), false),
            ("addresses", |pod| pod["status"]["podIPs"] = json!([{"ip": "10.0.0.7"}]), false),
            ("on no node", |pod| pod["spec"]["nodeName"] = Value::Null, false),
            ("plain", |pod| pod["spec"]["runtimeClassName"] = Value::Null, false),
            (
                "told to go",
                |pod| pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z"),
                false,
            ),
            ("a path", |pod| pod["metadata"]["namespace"] = json!("../x"), false),
        ];
        for (name, change, waits) in table {
            let mut pod = json!({
                "metadata": {"name": "p", "namespace": "default", "uid": "p1", "resourceVersion": "7"},
                "spec": {"nodeName": "n1", "runtimeClassName": "sandboxed", "containers": [{}]},
                "status": {"phase": "Pending", "hostIP": "10.250.0.1"},
            });
            change(&mut pod);
            let item: Item = serde_json::from_value(pod).unwrap();
            let waiting = item.into_waiting();
            assert_eq!(waiting.is_some(), waits, "{name}: {waiting:?}");
        }
    }
}
