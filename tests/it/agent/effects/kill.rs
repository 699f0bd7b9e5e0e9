//! An agent that is killed before or after each effect, and the next one.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex};

use futures_util::{StreamExt as _, stream};
use rootstock_agent::rootfs::{Effect, Kind, Watcher};

use super::node::{Life, Lived, Node};
use super::sound::Eye;
use super::{Change, Changes};

/// At which effect an agent dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum At {
    Before(usize),
    After(usize),
    Never,
}

/// Ends an agent's life at one of its effects.
#[derive(Debug)]
pub(super) struct Killer {
    at: At,
    life: Life,
    eye: Arc<Eye>,
    /// Every effect that it came to.
    all: Mutex<Vec<Effect>>,
    /// The effect after which it ends.
    last: Mutex<Option<Effect>>,
    /// Where it ended.
    pub(super) end: Mutex<Option<Effect>>,
}

impl Killer {
    pub(super) fn new(at: At, life: &Life, eye: &Arc<Eye>) -> Arc<Self> {
        Arc::new(Self {
            at,
            life: life.clone(),
            eye: Arc::clone(eye),
            all: Mutex::default(),
            last: Mutex::default(),
            end: Mutex::default(),
        })
    }

    fn kill(&self, effect: &Effect) -> io::Error {
        *self.end.lock().unwrap() = Some(effect.clone());
        self.life.end();
        dead()
    }
}

fn dead() -> io::Error {
    io::Error::other("the agent is dead")
}

impl Watcher for Killer {
    fn before(&self, effect: &Effect) -> io::Result<()> {
        if self.life.ended() {
            return Err(dead());
        }
        let nth = {
            let mut all = self.all.lock().unwrap();
            all.push(effect.clone());
            all.len() - 1
        };
        if At::Before(nth) == self.at {
            return Err(self.kill(effect));
        }
        if At::After(nth) == self.at {
            *self.last.lock().unwrap() = Some(effect.clone());
        }
        Ok(())
    }

    fn after(&self, effect: &Effect) {
        self.eye.look(effect);
        if self.last.lock().unwrap().take_if(|last| last == effect).is_some() {
            drop(self.kill(effect));
        }
    }
}

/// The effects of a change on a node where nothing happens to the agent.
pub(super) async fn effects(change: &Change) -> Vec<Effect> {
    let node = Node::new(change);
    let (life, eye) = (Life::new(), node.eye());
    let killer = Killer::new(At::Never, &life, &eye);
    assert_eq!(node.live(Arc::clone(&killer) as Arc<dyn Watcher>, &life).await, Lived::Done);
    eye.saw_nothing_wrong();
    std::mem::take(&mut *killer.all.lock().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_is_killed_at_any_effect_leaves_nothing_torn() {
    let changes = Changes::new().await;
    let mut kinds = BTreeSet::new();
    for change in &changes.all {
        let effects = effects(change).await.len();
        assert!(effects > 20, "{}: {effects}", change.name);
        let points = (0..effects).flat_map(|nth| [At::Before(nth), At::After(nth)]);
        let tries = points.map(|at| async move {
            let node = Node::new(change);
            let (life, eye) = (Life::new(), node.eye());
            let killer = Killer::new(at, &life, &eye);
            node.live(Arc::clone(&killer) as Arc<dyn Watcher>, &life).await;
            eye.saw_nothing_wrong();
            *node.story.lock().unwrap() = format!("{at:?} {:?}", killer.end);
            node.recover().await;
            let end = killer.end.lock().unwrap().take();
            end.map(|effect| effect.kind)
        });
        let ends: Vec<_> = stream::iter(tries).buffer_unordered(4).collect().await;
        // Threads may do one effect more or less; nearly all points were met.
        let met = ends.iter().flatten().count();
        eprintln!("{}: killed at {met} points of {effects} effects", change.name);
        assert!(met + 8 > 2 * effects, "{}: {met} of {effects}", change.name);
        kinds.extend(
            ends.into_iter()
                .flatten()
                .map(|kind| if matches!(kind, Kind::Write(_)) { Kind::Write(0) } else { kind }),
        );
    }
    let all = [
        Kind::MakeFolder,
        Kind::Create,
        Kind::Append,
        Kind::Write(0),
        Kind::SetMode,
        Kind::SyncFile,
        Kind::SyncFolder,
        Kind::Link,
        Kind::Rename,
        Kind::Exchange,
        Kind::Remove,
    ];
    assert_eq!(kinds, all.into(), "every kind of effect was met");
}

/// A number that looks random and is the same in each run.
pub(super) fn mixed(seed: usize) -> usize {
    let mut x = (seed as u64).wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    usize::try_from((x ^ (x >> 31)) >> 16).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_is_killed_again_and_again_comes_to_the_same_end() {
    let changes = Changes::new().await;
    for change in &changes.all {
        let effects = effects(change).await.len();
        let tries = (0..24).map(|seed| async move {
            let node = Node::new(change);
            for life in 0.. {
                let nth = mixed(seed * 1000 + life) % (effects / 2);
                let (mortal, eye) = (Life::new(), node.eye());
                let at = if nth.is_multiple_of(2) { At::Before(nth) } else { At::After(nth) };
                let killer = Killer::new(at, &mortal, &eye);
                let lived = node.live(killer, &mortal).await;
                eye.saw_nothing_wrong();
                if lived == Lived::Done || life == 5 {
                    break;
                }
            }
            node.recover().await;
        });
        stream::iter(tries).buffer_unordered(4).collect::<Vec<()>>().await;
    }
}
