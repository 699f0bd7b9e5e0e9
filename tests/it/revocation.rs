//! A node's certificate is good for nothing once the agent's Pod is gone from
//! the node, before its time is over.

use std::path::Path;
use std::time::Duration;

use kube::api::{DeleteParams, PostParams};
use rootstock_playground::crowd::{Crowd, Seen};
use tonic::Code;

use crate::leaders::replicas::{Replicas, Size, agent_pod};

const LIMIT: Duration = Duration::from_secs(60);
/// How long it may take until a Pod's end has an effect.
const SECONDS: Duration = Duration::from_secs(5);

async fn until(crowd: &Crowd, within: Duration, what: &str, is: impl Fn(&Seen) -> bool) {
    let mut seen = crowd.seen();
    let waited = tokio::time::timeout(within, seen.wait_for(|seen| is(seen))).await.is_ok();
    assert!(waited, "not so: {what}: {:?}", crowd.seen().borrow());
}

/// How each node's renewal ends.
async fn renewals(crowd: &Crowd) -> Vec<Code> {
    let answers = crowd.renew().await.unwrap();
    answers.into_iter().map(|answer| answer.err().map_or(Code::Ok, |s| s.code())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_ends_with_the_agents_pod() {
    let program = Path::new(env!("CARGO_BIN_EXE_rootstock-playground"));
    let size = Size { controllers: 1, nodes: 2, lease: "15s", limit: LIMIT };
    let replicas = Replicas::start(program, size).await;
    // The nodes' agents, and who has other certificates of the same nodes.
    let (mut agents, mut thieves) = (replicas.crowd().await, replicas.crowd().await);
    agents.begin();
    until(&agents, LIMIT, "both have a stream", |seen| seen.connected == 2).await;
    replicas.until("both have the runtime", async || replicas.says("1").await).await;
    assert_eq!(renewals(&thieves).await, [Code::Ok, Code::Ok]);

    // It is told to go, and nobody confirms that it went.
    replicas.agents().delete("rootstock-agent-0", &DeleteParams::default()).await.unwrap();
    until(&agents, SECONDS, "its stream ends", |seen| seen.connected == 1).await;
    assert_eq!(renewals(&thieves).await, [Code::PermissionDenied, Code::Ok]);
    assert_eq!(agents.seen().borrow().streams, 2, "the other one's is still the first");
    drop(agents);
    thieves.begin();
    until(&thieves, LIMIT, "one is let in", |seen| seen.connected == 1).await;

    // The DaemonSet's next Pod.
    let next = agent_pod("rootstock-agent-next", "node-0");
    replicas.agents().create(&PostParams::default(), &next).await.unwrap();
    let after = replicas.crowd().await;
    let renewed = async || match renewals(&after).await {
        codes if codes == [Code::Ok, Code::Ok] => Ok(()),
        codes => Err(codes),
    };
    replicas.until("the node is renewed again", renewed).await;
    until(&thieves, LIMIT, "both are let in", |seen| seen.connected == 2).await;
    assert!(thieves.seen().borrow().wrong.is_empty());
    replicas.stop().await;
}
