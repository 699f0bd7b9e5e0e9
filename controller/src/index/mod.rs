//! Everything that is known, and what follows from it.
//!
//! ```text
//!  watches ─▶ put_runtime, put_node, put_agent …   ─┐
//!  agents  ─▶ connect, report, accepted …          ─┤
//!                                                   ▼
//!                 State (one lock, never held over an await)
//!                   │ core::assign for each kind of node that changed
//!                   ├─▶ watch<Offered> of that node
//!                   └─▶ dirty ContainerRuntimes ─▶ status writer ─▶ core::rollup
//! ```
//!
//! A node is sent nothing before its shoot's ContainerRuntimes and Nodes are
//! known as a whole, because what is not known must not uninstall anything.

mod agents;
mod alike;
mod claim;
mod gauges;
mod installer;
mod missed;
mod node;
mod object;
mod removal;
mod rollout;
mod sandboxes;
mod settings;
mod shoot;
mod summary;
mod view;

#[cfg(test)]
pub(crate) mod tests;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use jiff::Timestamp;
use rootstock_core::assign::{Bundles, Resolution, Turns};
use rootstock_core::desired::Registry;
use rootstock_core::name::{NodeName, RuntimeType, ShootName};
use rootstock_core::path::BinaryRoots;
use rootstock_core::provider::How;
use tokio::sync::watch;

pub use agents::AgentPod;
pub(crate) use gauges::Gauges;
pub use installer::Installer;
pub use missed::Missed;
pub use node::LabelChange;
pub(crate) use rollout::{Needed, NodeSurvey, Survey};
pub use shoot::ShootState;
pub use summary::{ResolvedView, Slow, Summary};
pub use view::{BundleView, NodeView, Page, RuntimeKey};

use crate::api::ContainerRuntime;
use crate::home::Home;
use crate::identity::NodeId;
use alike::Basis;
use claim::Runtime;
use node::Node;
use object::NodeObject;
use shoot::Shoot;

/// The most Nodes of one shoot that are known; others get nothing. It is four
/// times what Kubernetes supports, and as many as connections are taken: a
/// shoot's owner can create any number.
pub const MAX_NODES: usize = 20_000;
/// The most bytes of labels that the Nodes of one shoot have together:
/// [`MAX_NODES`] with Gardener's 2 KiB each, and room.
pub const MAX_LABEL_BYTES: usize = 64 * 1024 * 1024;

/// Everything that is known. Clone an `Arc` of it.
#[derive(Debug)]
pub struct Index {
    state: Mutex<State>,
    roots: BinaryRoots,
    how: How,
    home: Home,
    /// The bundles that rollouts need and nobody knows.
    needed: watch::Sender<BTreeSet<rollout::Needed>>,
    /// Raised with each change that a waiting task may want to see.
    changed: watch::Sender<u64>,
    /// Raised with each shoot that is new, suspended or no longer suspended,
    /// or without a ContainerRuntime.
    new_shoots: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    shoots: BTreeMap<ShootName, Shoot>,
    bundles: BTreeMap<RuntimeType, Resolution>,
    references: BTreeMap<RuntimeType, String>,
    /// The bundles that a rollout may send, also those that no type stands for
    /// any more.
    known: Bundles,
    registries: BTreeMap<String, Registry>,
    /// Whether every ContainerRuntime of the seed has been seen.
    seed_listed: bool,
    /// When this term began; none where there is none yet.
    begun: Option<Instant>,
    dirty: BTreeSet<RuntimeKey>,
    /// Raised with each change of a shoot.
    changes: u64,
    /// Since when a node has not had what a ContainerRuntime asks for.
    unready: BTreeMap<RuntimeKey, BTreeMap<NodeName, Timestamp>>,
    #[cfg(test)]
    at_once: bool,
}

impl Index {
    /// An index that knows nothing.
    pub fn new(roots: BinaryRoots) -> Self {
        let (changed, _) = watch::channel(0);
        let (new_shoots, _) = watch::channel(0);
        let (needed, _) = watch::channel(BTreeSet::new());
        let (how, home) = (How::default(), Home::default());
        Self { state: Mutex::default(), roots, how, home, needed, changed, new_shoots }
    }

    /// The same, reading providerConfig in this way.
    #[must_use]
    pub fn with_provider_config(mut self, how: How) -> Self {
        self.how = how;
        self
    }

    /// The same, where something else asks for a node's runtimes.
    #[must_use]
    pub(crate) fn at_home(mut self, home: Home) -> Self {
        self.home = home;
        self
    }

    /// The same, where every node may have what it is to have in the end at once.
    #[cfg(test)]
    pub(crate) fn at_once(self) -> Self {
        self.lock().at_once = true;
        self
    }

    /// Sees every change from here on. What changed is asked of the index.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// A number that is another one after each change of this shoot: who waits
    /// for one shoot looks at nothing else when another changed.
    pub fn change_of(&self, shoot: &ShootName) -> u64 {
        self.lock().shoots.get(shoot).map(|shoot| shoot.changed).unwrap_or_default()
    }

    /// Sees every shoot that is new, or is suspended or no longer is, from here on.
    pub fn new_shoots(&self) -> watch::Receiver<u64> {
        self.new_shoots.subscribe()
    }

    /// A ContainerRuntime is there, or has changed.
    pub fn put_runtime(&self, object: &ContainerRuntime) {
        let Some(key) = self.home.key(object) else { return };
        let runtime = claim::read(object, &self.roots, self.how);
        let leaves = object.is_migrating();
        let known = |s: &Shoot| {
            s.runtimes.get(&key.name) == Some(&runtime) && s.migrating.contains(&key.name) == leaves
        };
        // Most changes are of its status, and often our own.
        if self.lock().shoots.get(&key.shoot).is_some_and(known) {
            return;
        }
        let mut turned = false;
        self.change(&key.shoot, |shoot| {
            turned = shoot.set_migrating(&key.name, leaves);
            if shoot.runtimes.insert(key.name.clone(), runtime).is_none() {
                shoot.came = Some(Instant::now());
            }
        });
        if turned {
            self.new_shoots.send_modify(|count| *count += 1);
        }
    }

    /// Whether a shoot leaves this seed, or has left it.
    pub fn is_suspended(&self, name: &ShootName) -> bool {
        self.lock().shoots.get(name).is_some_and(Shoot::is_suspended)
    }

    /// A ContainerRuntime is gone.
    pub fn remove_runtime(&self, key: &RuntimeKey) {
        let mut state = self.lock();
        let Some(shoot) = state.shoots.get_mut(&key.shoot) else { return };
        if shoot.runtimes.remove(&key.name).is_none() {
            return;
        }
        let was_last = shoot.runtimes.is_empty();
        state.forget(key);
        state.assign(&key.shoot, None);
        state.drop_if_empty(&key.shoot);
        self.raise();
        drop(state);
        if was_last {
            self.new_shoots.send_modify(|count| *count += 1);
        }
    }

    /// These are all ContainerRuntimes of the seed.
    pub fn seed_listed(&self, objects: &[Arc<ContainerRuntime>]) {
        let mut present: BTreeMap<RuntimeKey, (Runtime, bool)> = objects
            .iter()
            .filter_map(|object| {
                let runtime = claim::read(object, &self.roots, self.how);
                Some((self.home.key(object)?, (runtime, object.is_migrating())))
            })
            .collect();
        {
            let mut state = self.lock();
            if state.seed_listed && state.has_exactly(&present) {
                return;
            }
            state.seed_listed = true;
            let mut gone = Vec::new();
            for (name, shoot) in &mut state.shoots {
                shoot.runtimes.retain(|runtime, _| {
                    let key = RuntimeKey { shoot: name.clone(), name: runtime.clone() };
                    let stays = present.contains_key(&key);
                    if !stays {
                        gone.push(key);
                    }
                    stays
                });
            }
            for key in &gone {
                state.forget(key);
                state.drop_if_empty(&key.shoot);
            }
            while let Some((key, (runtime, leaves))) = present.pop_first() {
                let shoot = state.shoots.entry(key.shoot).or_default();
                shoot.set_migrating(&key.name, leaves);
                shoot.runtimes.insert(key.name, runtime);
            }
        }
        self.new_shoots.send_modify(|count| *count += 1);
        // Nodes are looked at once, when all of it is known.
        self.change_all();
    }

    /// What is known of a shoot's API changed.
    pub fn put_shoot_state(&self, name: &ShootName, shoot_state: ShootState) {
        self.change(name, |shoot| {
            if shoot.is_suspended() {
                return;
            }
            if shoot_state == ShootState::Hibernated {
                // They are forgotten, not lost.
                shoot.forget_nodes();
            }
            shoot.state = shoot_state;
        });
    }

    /// Whether a shoot has, or had, a ContainerRuntime.
    pub fn has_shoot(&self, name: &ShootName) -> bool {
        self.lock().shoots.contains_key(name)
    }

    /// Whether a shoot has a ContainerRuntime, be it one that is being deleted.
    pub fn has_runtimes(&self, name: &ShootName) -> bool {
        self.lock().shoots.get(name).is_some_and(|shoot| !shoot.runtimes.is_empty())
    }

    /// A shoot is gone, with its nodes.
    ///
    /// The ContainerRuntimes that are still there stay known: when the shoot
    /// comes back, its nodes must not be sent a part of what is asked for.
    pub fn remove_shoot(&self, name: &ShootName) {
        let mut state = self.lock();
        if let Some(shoot) = state.shoots.get_mut(name) {
            shoot.forget_nodes();
            shoot.state = ShootState::Unknown;
        }
        state.mark_dirty(name);
        state.drop_if_empty(name);
        self.raise();
    }

    /// A Node is there, or has changed.
    pub fn put_node(&self, shoot: &ShootName, object: &k8s_openapi::api::core::v1::Node) {
        let Some(object) = NodeObject::read(object, self.home.asked_by()) else { return };
        let mut state = self.lock();
        let name = object.facts.name.clone();
        if state.shoots.get(shoot).is_some_and(Shoot::is_suspended) {
            return;
        }
        if !state.shoots.entry(shoot.clone()).or_default().put_node(object) {
            return;
        }
        state.assign(shoot, Some(&name));
        self.raise();
    }

    /// A Node is gone.
    pub fn remove_node(&self, shoot: &ShootName, name: &NodeName) {
        let mut state = self.lock();
        if let Some(shoot) = state.shoots.get_mut(shoot) {
            shoot.remove_node(name);
        }
        state.mark_dirty(shoot);
        self.raise();
    }

    /// These are all Nodes of a shoot.
    pub fn nodes_listed(&self, shoot: &ShootName, objects: &[k8s_openapi::api::core::v1::Node]) {
        let objects: Vec<_> =
            objects.iter().filter_map(|o| NodeObject::read(o, self.home.asked_by())).collect();
        self.change(shoot, |shoot| {
            if shoot.is_suspended() {
                return;
            }
            shoot.put_all_nodes(objects);
            shoot.state = ShootState::Known;
        });
    }

    /// What the types of the catalog stand for.
    pub fn put_bundles(
        &self,
        references: BTreeMap<RuntimeType, String>,
        bundles: BTreeMap<RuntimeType, Resolution>,
        registries: BTreeMap<String, Registry>,
    ) {
        {
            let mut state = self.lock();
            state.bundles = bundles;
            state.references = references;
            state.registries = registries;
            state.know_bundles();
        }
        self.change_all();
    }

    fn change(&self, name: &ShootName, change: impl FnOnce(&mut Shoot)) {
        let mut state = self.lock();
        if !state.shoots.contains_key(name) {
            self.new_shoots.send_modify(|count| *count += 1);
        }
        change(state.shoots.entry(name.clone()).or_default());
        state.assign(name, None);
        self.raise();
    }

    fn change_all(&self) {
        let mut state = self.lock();
        let names: Vec<_> = state.shoots.keys().cloned().collect();
        for name in names {
            state.assign(&name, None);
        }
        self.raise();
    }

    fn raise(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic in one reconcile harms no other: every change is whole
        // before anything of it is published.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Works out again what one node of a shoot should have, or all of them.
    fn assign(&mut self, name: &ShootName, only: Option<&NodeName>) {
        if only.is_none()
            && let Some(shoot) = self.shoots.get_mut(name)
        {
            shoot.alike.forget();
        }
        match only {
            Some(only) => self.assign_some(name, std::slice::from_ref(only)),
            None => self.assign_each(name, None),
        }
    }

    /// Works out again what these nodes of a shoot should have.
    fn assign_some(&mut self, name: &ShootName, only: &[NodeName]) {
        self.assign_each(name, Some(only));
    }

    fn assign_each(&mut self, name: &ShootName, only: Option<&[NodeName]>) {
        let Some(shoot) = self.shoots.get_mut(name) else { return };
        let claims: Vec<_> =
            shoot.runtimes.values().filter_map(|runtime| runtime.claim.clone()).collect();
        let known = self.seed_listed && shoot.nodes_listed && !shoot.waits_for_installer();
        let basis = Basis { claims: &claims, known: &self.known, registries: &self.registries };
        let none = Turns::new();
        let assign_one = |node: &mut Node| {
            let facts = &node.object.facts;
            #[cfg(test)]
            if self.at_once {
                let bundles = installer::gate(&self.bundles, &shoot.installer, &facts.name);
                node.course = Some(rollout::at_once(facts, &bundles, basis));
            }
            let turns = node.course.as_ref().map_or(&none, |course| &course.turns);
            let assigned = match installer::gate(&self.bundles, &shoot.installer, &facts.name) {
                Cow::Borrowed(all) => shoot.alike.assign(facts, turns, all, basis),
                Cow::Owned(its) => shoot.alike.alone(facts, turns, &its, basis),
            };
            node.assign(assigned, known);
            node.recall(&shoot.missed, self.begun);
        };
        match only {
            Some(only) => {
                let mut assign_one = assign_one;
                for name in only {
                    shoot.nodes.get_mut(name).into_iter().for_each(&mut assign_one);
                }
            }
            None => shoot.nodes.values_mut().for_each(assign_one),
        }
        self.mark_dirty(name);
    }

    /// Whether these are the ContainerRuntimes as they are known.
    fn has_exactly(&self, runtimes: &BTreeMap<RuntimeKey, (Runtime, bool)>) -> bool {
        let known = self.shoots.values().map(|shoot| shoot.runtimes.len()).sum::<usize>();
        known == runtimes.len()
            && runtimes.iter().all(|(key, (runtime, leaves))| {
                self.shoots.get(&key.shoot).is_some_and(|shoot| {
                    shoot.runtimes.get(&key.name) == Some(runtime)
                        && shoot.migrating.contains(&key.name) == *leaves
                })
            })
    }

    /// A node, where it is the one of that UID.
    fn node(&mut self, id: &NodeId) -> Option<&mut Node> {
        let shoot = self.shoots.get_mut(&id.shoot)?;
        shoot.nodes.get_mut(&id.name).filter(|node| node.object.uid == id.uid)
    }

    /// Forgets what was to be written of a ContainerRuntime.
    fn forget(&mut self, key: &RuntimeKey) {
        self.dirty.remove(key);
        self.unready.remove(key);
    }

    /// Drops a shoot of which nothing is known. One whose Nodes are known stays:
    /// they may have something to lose, and are not listed a second time.
    fn drop_if_empty(&mut self, name: &ShootName) {
        let empty = self.shoots.get(name).is_some_and(|shoot| {
            shoot.runtimes.is_empty() && !shoot.nodes_listed && shoot.state == ShootState::Unknown
        });
        if empty {
            self.shoots.remove(name);
        }
    }

    fn mark_dirty(&mut self, name: &ShootName) {
        let Some(shoot) = self.shoots.get_mut(name) else { return };
        self.changes += 1;
        shoot.changed = self.changes;
        let key = |runtime: &String| RuntimeKey { shoot: name.clone(), name: runtime.clone() };
        self.dirty.extend(shoot.runtimes.keys().map(key));
    }
}
