//! The agent's Pods: whose stream ends with them.

use serde_json::{Value, json};

use super::server::pod;
use super::*;
use crate::content::Offered;

type Stream = watch::Receiver<Option<Offered>>;

fn id(n: usize) -> NodeId {
    let (name, uid) = (format!("n{n}").parse().unwrap(), n.to_string().parse().unwrap());
    NodeId { shoot: shoot(0), name, uid }
}

impl Running {
    fn connect(&self, n: usize) -> Result<Stream, Refused> {
        self.index.connect(&id(n), None)
    }

    /// A watch of Pods is open, and all that was told before is known.
    async fn watched(&self) {
        self.until("Pods are watched", |r| r.server.pod_events.receiver_count() > 0).await;
    }

    fn tell(&self, kind: &str, pod: Value) {
        self.server.pod_events.send(json!({"type": kind, "object": pod})).unwrap();
    }
}

fn has_ended(stream: &Stream) -> bool {
    stream.has_changed().is_err()
}

#[tokio::test]
async fn a_stream_ends_with_the_pod_and_the_next_pod_has_one() {
    let running = Running::start([Mood::Good]).await;
    running.until("it is known", |r| r.is_known(0)).await;
    running.watched().await;
    let (one, two) = (running.connect(1).unwrap(), running.connect(2).unwrap());
    let mut going = pod("p1", 1);
    going["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    running.tell("MODIFIED", going.clone());
    running.until("its stream ends", |_| has_ended(&one)).await;
    assert_eq!(running.connect(1).unwrap_err(), Refused::NoAgent);
    running.tell("DELETED", going);
    running.tell("ADDED", pod("p3", 1));
    running.until("the next one is let in", |r| r.connect(1).is_ok()).await;
    // One that is gone without a word before.
    let one = running.connect(1).unwrap();
    running.tell("DELETED", pod("p3", 1));
    running.until("its stream ends", |_| has_ended(&one)).await;
    assert!(!has_ended(&two), "the other node's stays");
}

#[tokio::test]
async fn pods_that_are_not_seen_end_nothing() {
    let running = Running::start([Mood::Good]).await;
    running.until("it is known", |r| r.is_known(0)).await;
    running.watched().await;
    running.tell("DELETED", pod("p1", 1));
    running.until("it has none", |r| r.connect(1).err() == Some(Refused::NoAgent)).await;
    // Neither a watch that breaks nor a list that is refused.
    for code in [403, 500] {
        running.server.pods.send_modify(|pods| *pods = Err(code));
        running.server.cut.send_modify(|cut| *cut += 1);
        running.until("nobody is refused", |r| r.connect(1).is_ok()).await;
        let streams = [running.connect(1).unwrap(), running.connect(2).unwrap()];
        running.server.pods.send_modify(|pods| *pods = Ok(vec![pod("p2", 2)]));
        running.until("it is seen that it has none", |_| has_ended(&streams[0])).await;
        assert_eq!(running.connect(1).unwrap_err(), Refused::NoAgent);
        assert!(!has_ended(&streams[1]));
        running.watched().await;
    }
    // Who follows them no longer knows nothing.
    running.clusters[0].send_replace(cluster(0, true));
    running.until("it sleeps", |r| !r.is_known(0)).await;
    assert!(!running.index.lacks_agent(&id(1)));
}
