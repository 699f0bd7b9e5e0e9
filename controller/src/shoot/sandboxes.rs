//! The sandboxes of one shoot that could not be started, by the kubelets' Events
//! and by the Pods that wait for one ([`stuck`]).
//!
//! ```text
//!  Events FailedCreatePodSandBox ─list, watch─▶ how many more ─▶ queue
//!                                                                  │ one GET for each new Pod
//!        index.sandbox_failed ◀─ type ◀─ catalog ◀─ RuntimeClass ◀─┘
//!                    ▲
//!                    └ stuck ◀─ pending Pods: those that wait for too long
//! ```
//!
//! Whoever may write Events in the shoot can make some up, so what an Event
//! says counts only for a Pod that is there, on the node that the Pod is on.

mod causes;
mod increments;
mod pods;
mod stuck;
mod waiting;

use std::convert::Infallible;
use std::sync::Arc;

use kube::Client;
use kube::api::{ListParams, Request, WatchParams};
use kube::core::request::Error as Unbuilt;
use rootstock_core::catalog::Catalog;
use rootstock_core::name::{NodeName, RuntimeType, ShootName, Uid};
use serde::Deserialize;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use self::increments::Increments;
use self::pods::Pods;
use self::stuck::Stuck;
use super::follow::{Follow, Followed};
use super::sight::Sight;
use crate::index::Index;

const EVENTS: &str = "/api/v1/events";
/// What the kubelet calls it, whatever the cause was.
const SELECTOR: &str = "reason=FailedCreatePodSandBox";
/// The failures whose Pods are still to be looked up. A kubelet tries a Pod
/// again every few seconds: what is dropped beyond is said again.
const WAITING: usize = 256;

/// Follows the sandboxes of a shoot that could not be started.
#[derive(Debug)]
pub(super) struct Sandboxes {
    shoot: ShootName,
    index: Arc<Index>,
    catalog: watch::Receiver<Arc<Catalog>>,
    events: Follow<ToQueue>,
    queue: mpsc::Receiver<Failure>,
    pods: Pods,
    stuck: Stuck,
    sight: Sight,
}

/// A Pod whose sandbox could not be started.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Failure {
    namespace: String,
    pod: String,
    uid: Uid,
    node: NodeName,
    /// How often since it was last told.
    count: u32,
    at: Instant,
}

impl Sandboxes {
    pub(super) fn new(
        shoot: ShootName,
        index: Arc<Index>,
        catalog: watch::Receiver<Arc<Catalog>>,
    ) -> Self {
        let (tell, queue) = mpsc::channel(WAITING);
        let (of, told) = (shoot.clone(), Arc::clone(&index));
        let to = ToQueue { shoot: of, index: told, increments: Increments::default(), tell };
        let events = Follow::new(shoot.clone(), to);
        let lacking = "a rollout does not see what fails on its nodes";
        let sight = Sight::of::<ToQueue>(shoot.clone(), lacking);
        let stuck = Stuck::new(shoot.clone(), Arc::clone(&index), catalog.clone());
        Self { shoot, index, catalog, events, queue, pods: Pods::default(), stuck, sight }
    }

    /// What was known is of no use any more: the shoot sleeps.
    pub(super) fn forget(&mut self) {
        self.events.forget();
        self.pods = Pods::default();
        self.stuck.forget();
    }

    /// Follows them for ever; whatever is wrong here ends nothing.
    ///
    /// Cancel-safe but for a Pod that is being looked up: its failure is lost,
    /// and the kubelet's next try counts.
    pub(super) async fn follow(&mut self, client: &Client) -> Infallible {
        let Self { shoot, index, catalog, events, queue, pods, stuck, sight } = self;
        let follow = async {
            sight.begin();
            loop {
                let error = events.follow(client, || sight.back()).await;
                sight.lost(&error).await;
            }
        };
        let count = async {
            // The other end is held by what is followed.
            while let Some(failure) = queue.recv().await {
                let Some(class) = pods.class_of(client, &failure).await else { continue };
                let Some(runtime) = runtime_of(&catalog.borrow(), &class) else { continue };
                let Failure { node, count, at, .. } = failure;
                index.sandbox_failed(shoot, &node, &runtime, count, at.into_std());
            }
            std::future::pending().await
        };
        // Cancel-safe: none ends.
        tokio::select! {
            never = follow => never,
            never = count => never,
            never = stuck.follow(client) => never,
        }
    }
}

/// The type that a RuntimeClass is of.
fn runtime_of(catalog: &Catalog, class: &str) -> Option<RuntimeType> {
    let is_its = |of: &&rootstock_core::catalog::RuntimeEntry| {
        of.runtime_classes.iter().any(|of| of.name.as_str() == class)
    };
    catalog.runtimes.iter().find(is_its).map(|entry| entry.runtime.clone())
}

/// Puts what is new in the queue.
#[derive(Debug)]
struct ToQueue {
    shoot: ShootName,
    index: Arc<Index>,
    increments: Increments,
    tell: mpsc::Sender<Failure>,
}

/// What is read of an Event.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Item {
    metadata: Meta,
    #[serde(default)]
    involved_object: Involved,
    #[serde(default)]
    source: Source,
    reporting_instance: Option<String>,
    count: Option<u32>,
    series: Option<Series>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Meta {
    uid: Option<String>,
    resource_version: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Involved {
    kind: Option<String>,
    namespace: Option<String>,
    name: Option<String>,
    uid: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Source {
    host: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Series {
    count: Option<u32>,
}

impl Item {
    /// How often it has happened.
    fn count(&self) -> u32 {
        let series = self.series.as_ref().and_then(|series| series.count);
        series.or(self.count).unwrap_or_default().max(1)
    }

    /// The Event's own UID.
    fn uid(&self) -> Option<Uid> {
        self.metadata.uid.as_deref()?.parse().ok()
    }

    fn into_failure(self, count: u32, at: Instant) -> Option<Failure> {
        let Involved { kind, namespace, name, uid } = self.involved_object;
        if kind.as_deref() != Some("Pod") {
            return None;
        }
        let host = self.source.host.filter(|host| !host.is_empty()).or(self.reporting_instance);
        Some(Failure {
            namespace: namespace.filter(|name| pods::is_name(name))?,
            pod: name.filter(|name| pods::is_name(name))?,
            uid: uid?.parse().ok()?,
            node: host?.parse().ok()?,
            count,
            at,
        })
    }
}

impl Followed for ToQueue {
    type Item = Item;

    const WHAT: &'static str = "Events of sandboxes";

    fn list(params: &ListParams) -> Result<http::Request<Vec<u8>>, Unbuilt> {
        Request::new(EVENTS).list(&params.clone().fields(SELECTOR))
    }

    fn watch(params: &WatchParams, from: &str) -> Result<http::Request<Vec<u8>>, Unbuilt> {
        Request::new(EVENTS).watch(&params.clone().fields(SELECTOR), from)
    }

    fn version(item: &Item) -> Option<&str> {
        item.metadata.resource_version.as_deref()
    }

    fn begin(&mut self) {
        self.increments.begin();
    }

    fn gather(&mut self, item: Item) {
        self.put(item);
    }

    fn listed(&mut self) {
        self.increments.listed();
        self.index.sandboxes_watched(&self.shoot, Instant::now().into_std());
    }

    fn put(&mut self, item: Item) {
        let Some(uid) = item.uid() else { return };
        let more = self.increments.more(uid, item.count());
        if more == 0 {
            return;
        }
        let Some(failure) = item.into_failure(more, Instant::now()) else { return };
        if self.tell.try_send(failure).is_err() {
            tracing::debug!(shoot = %self.shoot, "more sandboxes fail than can be looked up");
        }
    }

    fn gone(&mut self, item: Item) {
        if let Some(uid) = item.uid() {
            self.increments.forget(&uid);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn failure(change: impl FnOnce(&mut Value)) -> Option<Failure> {
        let mut event = json!({
            "metadata": {"name": "p.1", "namespace": "default", "uid": "e1", "resourceVersion": "7"},
            "involvedObject": {"kind": "Pod", "namespace": "default", "name": "p", "uid": "p1"},
            "reason": "FailedCreatePodSandBox", "message": "no runtime", "count": 3,
            "source": {"component": "kubelet", "host": "n1"}, "reportingInstance": "n2",
        });
        change(&mut event);
        let item: Item = serde_json::from_value(event).unwrap();
        let count = item.count();
        item.into_failure(count, Instant::now())
    }

    #[test]
    fn an_event_is_of_a_pod_and_a_node() {
        type Case = (&'static str, fn(&mut Value), Option<(&'static str, u32)>);
        let table: [Case; 9] = [
            ("the kubelet's", |_| {}, Some(("n1", 3))),
            ("by a newer client", |e| e["source"] = json!({}), Some(("n2", 3))),
            ("a host that is empty", |e| e["source"]["host"] = json!(""), Some(("n2", 3))),
            ("a series", |e| e["series"] = json!({"count": 9}), Some(("n1", 9))),
            ("no count", |e| e["count"] = Value::Null, Some(("n1", 1))),
            ("of something else", |e| e["involvedObject"]["kind"] = json!("Node"), None),
            ("of nobody", |e| e["involvedObject"] = json!({}), None),
            ("a name with a path", |e| e["involvedObject"]["name"] = json!("../secrets"), None),
            (
                "from nowhere",
                |e| (e["source"], e["reportingInstance"]) = (json!({}), json!(null)),
                None,
            ),
        ];
        for (name, change, wanted) in table {
            let failure = failure(change);
            let said = failure.as_ref().map(|failure| (failure.node.as_str(), failure.count));
            assert_eq!(said, wanted, "{name}");
        }
    }
}
