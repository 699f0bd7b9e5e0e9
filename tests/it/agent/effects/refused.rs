//! A disk that is full, broken, read-only, or out of handles at each effect.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures_util::{StreamExt as _, stream};
use rootstock_agent::reconcile::NodeReport;
use rootstock_agent::rootfs::{Effect, Watcher};
use rootstock_core::status::Reason;
use rustix::io::Errno;

use super::super::support::LIMIT;
use super::Changes;
use super::kill::effects;
use super::node::{Life, Node};
use super::sound::Eye;

const ERRORS: [Errno; 4] = [Errno::NOSPC, Errno::IO, Errno::ROFS, Errno::MFILE];

/// Refuses one effect, or every one from there on until it is healed.
#[derive(Debug)]
struct Refuser {
    nth: usize,
    errno: Errno,
    lasting: bool,
    healed: AtomicBool,
    count: AtomicUsize,
    eye: Arc<Eye>,
}

impl Watcher for Refuser {
    fn before(&self, _: &Effect) -> io::Result<()> {
        let nth = self.count.fetch_add(1, Ordering::SeqCst);
        let lasts = self.lasting && nth > self.nth && !self.healed.load(Ordering::SeqCst);
        if nth == self.nth || lasts { Err(self.errno.into()) } else { Ok(()) }
    }

    fn after(&self, effect: &Effect) {
        self.eye.look(effect);
    }
}

/// What a user is told.
fn told(report: &NodeReport) -> Option<Reason> {
    report.bundles.values().find_map(|bundle| bundle.reason)
}

/// Makes a change on a node whose disk refuses something. What the user was told meanwhile.
async fn refused(node: &Node<'_>, refuser: Arc<Refuser>) -> Option<Reason> {
    let life = Life::new();
    let mut said = None;
    // An agent that can't open its own folder ends, and the kubelet starts it again.
    for _ in 0..4 {
        let watcher = Arc::clone(&refuser) as Arc<dyn Watcher>;
        let mut agent = match node.start(watcher, &life).await {
            Ok(agent) => agent,
            Err(error) => {
                said = said.or_else(|| Some(error.reason()));
                refuser.healed.store(true, Ordering::SeqCst);
                continue;
            }
        };
        if refuser.lasting {
            let mut reports = agent.reports.clone();
            let waits = async {
                tokio::select! {
                    report = reports.wait_for(|report| told(report).is_some()) => told(&report.unwrap()),
                    // What could not be done was not needed for it.
                    () = node.said(&agent) => None,
                }
            };
            said = said.or(tokio::time::timeout(LIMIT, waits).await.unwrap());
            refuser.healed.store(true, Ordering::SeqCst);
        }
        node.made(&mut agent).await;
        agent.stop().await;
        refuser.eye.saw_nothing_wrong();
        return said;
    }
    panic!("the agent does not start: {refuser:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_refuses_an_effect_leaves_nothing_torn() {
    let changes = Changes::new().await;
    for (at, change) in changes.all.iter().enumerate() {
        let effects = effects(change).await.len();
        for lasting in [false, true] {
            // The agent takes them all alike but for what it says: each effect meets
            // one of them, and each kind of effect meets all.
            let of = |nth| ERRORS[(nth + at + usize::from(lasting)) % 4];
            let points = (0..effects).map(|nth| (nth, of(nth)));
            let tries = points.map(|(nth, errno)| async move {
                let node = Node::new(change).with_retries();
                let (healed, count) = (AtomicBool::new(false), AtomicUsize::new(0));
                let eye = node.eye();
                *node.story.lock().unwrap() = format!("{nth} {errno} lasting {lasting}");
                let refuser = Refuser { nth, errno, lasting, healed, count, eye };
                let said = refused(&node, Arc::new(refuser)).await;
                // What a rollback is for is said, too.
                let said = said.filter(|reason| *reason != Reason::ProofFailed);
                if let Some(reason) = said {
                    let full = errno == Errno::NOSPC;
                    assert_eq!(
                        reason == Reason::NoSpace,
                        full,
                        "{}: {errno}: {reason}",
                        change.name
                    );
                }
                said
            });
            let said: Vec<_> = stream::iter(tries).buffer_unordered(4).collect().await;
            let reasons: BTreeSet<_> = said.iter().flatten().map(ToString::to_string).collect();
            eprintln!("{}: {} refusals, told as {reasons:?}", change.name, said.len());
            if lasting {
                let silent = said.iter().filter(|said| said.is_none()).count();
                assert!(silent * 2 < said.len(), "{}: {silent} of {}", change.name, said.len());
            }
        }
    }
}
