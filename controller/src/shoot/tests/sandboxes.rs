//! Sandboxes that could not be started, as the shoot's Events and its pending Pods tell.

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

/// A Pod on the first node that has no address yet.
pub(super) fn waits(uid: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": uid, "namespace": "default", "uid": uid, "resourceVersion": "8"},
        "spec": {"nodeName": "n1", "runtimeClassName": "sandboxed"},
        "status": {"phase": "Pending"}})
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
    /// One shoot whose nodes are to have the type.
    async fn with_runtime() -> Self {
        let running = Self::start([Mood::Good]).await;
        running.until("it is known", |r| r.is_known(0)).await;
        running.index.put_runtime(&runtime());
        let kata: RuntimeType = "kata".parse().unwrap();
        let reference = [(kata.clone(), "main/rootstock/kata:1".to_owned())].into();
        let bundle = crate::index::tests::bundle(b"one", &json!({"type": "kata"}));
        running.index.put_bundles(reference, [(kata, bundle)].into(), Default::default());
        running
    }

    fn say(&self, kind: &str, event: Value) {
        self.server.sandbox_events.send(json!({"type": kind, "object": event})).unwrap();
    }

    fn pends(&self, kind: &str, pod: Value) {
        self.server.pending_events.send(json!({"type": kind, "object": pod})).unwrap();
    }

    /// Ends the watch of pending Pods and waits for the next one.
    /// The pending Pods are listed once more: a watch that only broke goes on
    /// from where it was, and one that was given up while time went by still
    /// seems to be open.
    async fn pending_anew(&self, listed: Vec<Value>) {
        let refused = |r: &Running| {
            r.server.refusals.lock().unwrap().iter().filter(|code| **code == 410).count()
        };
        let before = refused(self);
        self.server.pending.send_modify(|pods| *pods = Err(410));
        self.server.cut.send_modify(|cut| *cut += 1);
        self.until("the past is forgotten", |r| refused(r) > before).await;
        self.server.pending.send_modify(|pods| *pods = Ok(listed));
        self.until("Pods are watched", pending_seen).await;
    }

    fn asked(&self) -> Vec<String> {
        self.server.asked.lock().unwrap().clone()
    }

    /// Lets so many seconds go by. Time stands still for none of the answers.
    async fn pass(&self, seconds: u64) {
        for _ in 0..seconds / 5 {
            tokio::time::pause();
            tokio::time::advance(Duration::from_secs(5)).await;
            tokio::time::resume();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Lets time go by until it is so.
    async fn later(&self, what: &str, mut is_so: impl FnMut(&Self) -> bool) {
        for _ in 0..600 {
            if is_so(self) {
                return;
            }
            self.pass(5).await;
        }
        panic!("{what}: {:?} of {:?}", self.failed(), self.asked());
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
    let running = Running::with_runtime().await;
    let watched = |r: &Running| r.server.sandbox_events.receiver_count() > 0;
    running.until("Events are watched", watched).await;
    running.report(Phase::Loaded, b"one");
    // What was there is the base; two more came.
    running.say("MODIFIED", event("e0", "sandboxed", 42));
    running.until("the Pod is asked for", |r| r.asked().len() == 1).await;
    // Until another is asked for the first was counted: one follows the other.
    running.say("ADDED", event("e1", "plain", 7));
    running.until("the next is asked for", |r| r.asked().len() == 2).await;
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
    assert_eq!(
        running.asked(),
        ["sandboxed", "plain", "gone", "elsewhere"],
        "each was asked for once"
    );
}

/// Whether pending Pods are watched.
fn pending_seen(running: &Running) -> bool {
    running.server.pending_events.receiver_count() > 0
}

#[tokio::test]
async fn a_pod_that_waits_counts_on_the_bundle_that_it_met() {
    let running = Running::with_runtime().await;
    running.until("Pods are watched", pending_seen).await;
    running.report(Phase::Loaded, b"one");
    // The one in the list waits since before.
    running.report(Phase::Loaded, b"two");
    for uid in ["pulls", "starts", "goes", "stuck", "unanswered"] {
        running.pends("ADDED", waits(uid));
    }
    let mut starts = waits("starts");
    starts["status"]["podIP"] = json!("10.0.0.7");
    running.pends("MODIFIED", starts);
    running.pends("DELETED", waits("goes"));
    let mut other = waits("other");
    other["spec"]["runtimeClassName"] = json!("nobody-knows");
    running.pends("ADDED", other);
    running.later("those that are stuck count", |r| r.failed() == (2, 0)).await;
    let asked = ["first", "pulls", "stuck", "unanswered", "unanswered"];
    assert_eq!(running.asked(), asked);
    // Each counts again when it has waited as long once more, and now the first
    // one too: it did so on this bundle.
    running.later("they count again", |r| r.failed() == (5, 0)).await;
    assert_eq!(running.asked()[asked.len()..], ["first", "stuck", "unanswered"]);
    // Those that a list lacks do not.
    running.pending_anew(Vec::new()).await;
    running.pends("ADDED", waits("last"));
    running.later("another counts", |r| r.failed() != (5, 0)).await;
    assert_eq!(running.failed(), (6, 0));
    assert_eq!(running.asked().last().unwrap(), "last");
    running.report(Phase::Loaded, b"three");
    assert_eq!(running.failed(), (0, 7), "the first one counts as before");
}

#[tokio::test]
async fn pods_that_may_not_be_listed_harm_nothing() {
    let running = Running::with_runtime().await;
    running.until("Pods are watched", pending_seen).await;
    running.report(Phase::Loaded, b"one");
    running.report(Phase::Loaded, b"two");
    let pending = |pods| drop(running.server.pending.send_replace(pods));
    let events = running.server.events.send_replace(Err(403));
    pending(Err(403));
    running.server.cut.send_modify(|cut| *cut += 1);
    let watched = |r: &Running| r.server.sandbox_events.receiver_count() > 0;
    running.until("nothing is watched", |r| !watched(r) && !pending_seen(r)).await;
    running.server.events.send_modify(|now| *now = events);
    running.until("Events are watched", watched).await;
    running.say("MODIFIED", event("e0", "sandboxed", 42));
    running.until("Events count", |r| r.failed() == (2, 0)).await;
    // What a later list lacks waits no more.
    running.pending_anew(vec![waits("stuck")]).await;
    running.later("one is stuck", |r| r.failed() != (2, 0)).await;
    assert_eq!(
        (running.failed(), running.asked()),
        ((3, 0), vec!["sandboxed".into(), "stuck".into()])
    );
    // Nor does what waited before the shoot slept: it waits anew.
    running.pending_anew(vec![waits("slept")]).await;
    running.clusters[0].send_replace(cluster(0, true));
    running.until("it sleeps", |r| !r.is_known(0)).await;
    running.server.cut.send_modify(|cut| *cut += 1);
    running.until("no Pods are watched", |r| !pending_seen(r)).await;
    running.pass(300).await;
    running.clusters[0].send_replace(cluster(0, false));
    running.until("it is awake", |r| r.is_known(0) && pending_seen(r)).await;
    running.pass(120).await;
    assert_eq!(running.asked().len(), 2);
    running.later("it is asked for", |r| r.asked().len() > 2).await;
    assert_eq!(running.asked()[2..], ["slept"]);
}
