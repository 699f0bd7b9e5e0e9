//! Sandboxes that could not be started, as the shoot's Events tell.

use rootstock_core::digest::Digest;
use rootstock_core::name::RuntimeType;
use rootstock_core::rollout::view::Rate;
use rootstock_core::status::{BundleReport, Phase};
use serde_json::{Value, json};

use super::*;
use crate::api::ContainerRuntime;

/// An Event of a Pod on the first node.
pub(super) fn event(uid: &str, pod: &str, count: u32) -> Value {
    json!({"apiVersion": "v1", "kind": "Event",
        "metadata": {"name": uid, "namespace": "default", "uid": uid, "resourceVersion": "8"},
        "involvedObject": {"kind": "Pod", "namespace": "default", "name": pod, "uid": pod},
        "reason": "FailedCreatePodSandBox", "count": count,
        "source": {"component": "kubelet", "host": "n1"}})
}

fn runtime() -> ContainerRuntime {
    serde_json::from_value(json!({
        "apiVersion": "extensions.gardener.cloud/v1alpha1", "kind": "ContainerRuntime",
        "metadata": {"name": "gvisor", "namespace": name(0), "uid": "r"},
        "spec": {"type": "kata", "binaryPath": "/var/bin/containerruntimes", "workerPool": {
            "name": "a", "selector": {"matchLabels": {"worker.gardener.cloud/pool": "a"}}}},
    }))
    .unwrap()
}

impl Running {
    fn say(&self, kind: &str, event: Value) {
        self.server.sandbox_events.send(json!({"type": kind, "object": event})).unwrap();
    }

    /// How many failed on the first node since its bundle was activated, and before.
    fn failed(&self) -> (u32, u32) {
        let survey = self.index.survey(&shoot(0)).unwrap();
        let node = survey.nodes.iter().find(|node| node.name.as_str() == "n1").unwrap();
        let sandboxes = node.in_view().runtimes[0].sandboxes;
        let count = |rate: Rate| rate.count;
        (count(sandboxes.failed), count(sandboxes.failed_before))
    }

    fn report(&self, phase: Phase, content: &[u8]) {
        let mut report = BundleReport::new("kata".parse().unwrap(), phase);
        report.digest = Some(Digest::of(content));
        let name = "n1".parse().unwrap();
        let id = NodeId { shoot: shoot(0), name, uid: "1".parse().unwrap() };
        self.index.report(&id, Default::default(), vec![report]);
    }
}

#[tokio::test]
async fn what_fails_on_a_node_counts_for_the_type_of_its_pod() {
    let running = Running::start([Mood::Good]).await;
    running.until("it is known", |r| r.is_known(0)).await;
    running.index.put_runtime(&runtime());
    let kata: RuntimeType = "kata".parse().unwrap();
    let reference = [(kata.clone(), "main/rootstock/kata:1".to_owned())].into();
    let bundle = crate::index::tests::bundle(b"one", &json!({"type": "kata"}));
    running.index.put_bundles(reference, [(kata, bundle)].into(), Default::default());
    let watched = |r: &Running| r.server.sandbox_events.receiver_count() > 0;
    running.until("Events are watched", watched).await;
    running.report(Phase::Loaded, b"one");
    // What was there is the base; two more came.
    running.say("MODIFIED", event("e0", "sandboxed", 42));
    running.until("the Pod is asked for", |r| r.server.asked.lock().unwrap().len() == 1).await;
    // Until another is asked for the first was counted: one follows the other.
    running.say("ADDED", event("e1", "plain", 7));
    running.until("the next is asked for", |r| r.server.asked.lock().unwrap().len() == 2).await;
    running.report(Phase::Loaded, b"two");
    assert_eq!(running.failed(), (0, 2));
    // One that is gone, and one that is on another node.
    running.say("ADDED", event("e2", "gone", 5));
    running.say("ADDED", event("e3", "elsewhere", 5));
    running.say("MODIFIED", event("e0", "sandboxed", 45));
    running.until("it counts", |r| r.failed() == (3, 2)).await;
    // A watch that breaks and one that is refused lose nothing, and count nothing twice.
    running.server.events.send_modify(|events| *events = Err(403));
    running.server.cut.send_modify(|cut| *cut += 1);
    running.until("it is over", |r| !watched(r)).await;
    let now = vec![event("e0", "sandboxed", 47)];
    running.server.events.send_modify(|events| *events = Ok(now));
    running.until("Events are watched", watched).await;
    running.say("MODIFIED", event("e0", "sandboxed", 49));
    running.until("it goes on", |r| r.failed() == (7, 2)).await;
    let asked = running.server.asked.lock().unwrap().clone();
    assert_eq!(asked, ["sandboxed", "plain", "gone", "elsewhere"], "each was asked for once");
}
