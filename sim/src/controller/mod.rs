//! The controller: one process that knows only what it was told.
//!
//! ```text
//!  Hello, Report ─▶ known ─▶ View ─▶ rollout::step ─▶ writes, one after the other
//!                                                        │ all of them recorded
//!                                                        ▼
//!  nodes ◀═══════════ Desired, where it is another one ── NodeSteps
//!  nodes ◀═══════════ Grant ◀── Allocator ◀── Ask, Shrunk, Hello
//! ```
//!
//! Where a write fails nothing else of the step holds: it reads again what is
//! recorded and looks again. It can be killed between any two events.

mod look;
mod rings;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rootstock_core::bandwidth::{Action, Allocator, Budgets, Class, Event as Told};
use rootstock_core::digest::Digest;
use rootstock_core::name::{RuntimeType, ShootName};
use rootstock_core::rollout::rings::{RingsConfig, RingsRecord};
use rootstock_core::rollout::strategy::Strategy;
use rootstock_core::rollout::view::{Link, Seed};
use rootstock_core::rollout::{NodeStep, Permit};
use rootstock_core::state::State;

use crate::api::{Api, Body, Key};
use crate::message::{Desired, Down, Up, Word};
use crate::node::Who;

/// The one ContainerRuntime of each shoot, and its pool.
pub(crate) const TRACK: &str = "gvisor-a";
/// The pool.
pub(crate) const POOL: &str = "a";

/// How long a node may take to come back before it counts as away.
const AWAITED: Duration = Duration::from_secs(60);

/// What is the same for every controller of a run.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// The runtime type.
    pub(crate) runtime: RuntimeType,
    /// How careful rollouts are.
    pub(crate) strategy: Strategy,
    /// How bundles open from shoot to shoot; none in a plain cluster.
    pub(crate) rings: Option<RingsConfig>,
    /// Every shoot.
    pub(crate) shoots: Vec<ShootName>,
    /// A look at a shoot comes this long after the one before it at the earliest.
    pub(crate) pace: Duration,
    /// A defect, to show that the laws see it: nodes are told before it is recorded.
    pub(crate) hasty: bool,
}

/// What a controller does.
#[derive(Debug)]
pub(crate) enum Effect {
    /// It sends a message over a node's stream.
    Send(usize, u64, Down),
    /// It writes over the version that it has seen.
    Write(Key, u64, Body),
    /// It wants to look at a shoot then.
    Look(usize, Duration),
    /// It wants to look at the rings then.
    Rings(Duration),
}

/// One turn of the controller: what is around it at a moment, and what it does.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    /// What is the same for every controller.
    pub(crate) of: &'a Settings,
    /// What it would read from the API server.
    pub(crate) api: &'a Api,
    /// The moment.
    pub(crate) now: Duration,
    /// What it does, in this order.
    pub(crate) effects: Vec<Effect>,
}

/// A node as the controller knows it.
#[derive(Debug)]
struct Known {
    who: Arc<Who>,
    shoot: usize,
    joining: bool,
    ready: bool,
    link: Link,
    stream: Option<u64>,
    word: Option<Word>,
    sent: Option<Desired>,
    /// Whether its turn waits for its bytes.
    first: bool,
}

/// What the API says of a node.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// What it is called.
    pub(crate) who: Arc<Who>,
    /// Its shoot.
    pub(crate) shoot: usize,
    /// Whether it has the taint of a new node.
    pub(crate) joining: bool,
    /// Whether its kubelet says that it is ready.
    pub(crate) ready: bool,
}

/// A shoot as the controller knows it.
#[derive(Debug, Default)]
struct Shoot {
    /// Its nodes, by number, in the order of a look.
    nodes: Vec<usize>,
    states: BTreeMap<String, State>,
    version: u64,
    seed: Option<Seed>,
    /// When it is to be looked at, and was last.
    due: Option<Duration>,
    last: Option<Duration>,
    /// The state that is being written, and what nodes are sent once it is recorded.
    held_back: Option<(State, Vec<(usize, NodeStep)>)>,
    /// Whether something changed while a write was on its way.
    changed: bool,
}

/// One controller, from its beginning to its end.
#[derive(Debug)]
pub(crate) struct Controller {
    /// Which one it is.
    pub(crate) term: u32,
    begun: Duration,
    listed: bool,
    target: Option<Digest>,
    known: Vec<Option<Known>>,
    shoots: Vec<Shoot>,
    rings: rings::Seen,
    allocator: Allocator,
}

impl Controller {
    /// One that begins at this moment and knows nothing.
    pub(crate) fn new(term: u32, of: &Settings, budgets: Budgets, now: Duration) -> Self {
        let mut shoots = Vec::new();
        shoots.resize_with(of.shoots.len(), Shoot::default);
        Self {
            term,
            begun: now,
            listed: false,
            target: None,
            known: Vec::new(),
            shoots,
            rings: rings::Seen::default(),
            allocator: Allocator::new(budgets, local(term, now)),
        }
    }

    /// It has listed what there is.
    pub(crate) fn listed(
        &mut self,
        nodes: impl Iterator<Item = (usize, Seen)>,
        target: Option<Digest>,
        turn: &mut Turn<'_>,
    ) {
        (self.listed, self.target) = (true, target);
        for (number, seen) in nodes {
            self.saw(number, seen, turn);
        }
        for shoot in 0..self.shoots.len() {
            self.read(Key::Shoot(shoot), turn);
            // Whoever has not come by then is away.
            turn.effects.push(Effect::Look(shoot, self.begun + AWAITED));
        }
        self.read(Key::Rings, turn);
        turn.effects.push(Effect::Rings(turn.now));
        let pullers = self.known.iter().flatten().map(|known| known.who.puller.node.clone());
        let told = Told::Expected(pullers.collect());
        self.tell(told, turn);
    }

    /// What the API says of a node is this by now.
    pub(crate) fn saw(&mut self, number: usize, seen: Seen, turn: &mut Turn<'_>) {
        if !self.listed {
            return;
        }
        if self.known.len() <= number {
            self.known.resize_with(number + 1, || None);
        }
        let Seen { who, shoot, joining, ready } = seen;
        match &mut self.known[number] {
            Some(known) => (known.joining, known.ready) = (joining, ready),
            empty => {
                let (link, stream, word, sent) = (Link::Awaited, None, None, None);
                let first = false;
                *empty =
                    Some(Known { who, shoot, joining, ready, link, stream, word, sent, first });
                self.shoots[shoot].nodes.push(number);
            }
        }
        self.changed(shoot, turn);
    }

    /// The API knows a node no more.
    pub(crate) fn gone(&mut self, number: usize, turn: &mut Turn<'_>) {
        let Some(known) = self.known.get_mut(number).and_then(Option::take) else { return };
        self.shoots[known.shoot].nodes.retain(|node| *node != number);
        self.tell(Told::Disconnected { node: known.who.puller.node.clone() }, turn);
        self.changed(known.shoot, turn);
    }

    /// The catalog names another bundle.
    pub(crate) fn aim(&mut self, target: Digest, turn: &mut Turn<'_>) {
        self.target = Some(target);
        turn.effects.push(Effect::Rings(turn.now));
        (0..self.shoots.len()).for_each(|shoot| self.changed(shoot, turn));
    }

    /// A message came over a node's stream. Whether the node is known: of one
    /// that is not the API has said nothing yet, and its stream is refused.
    pub(crate) fn hear(
        &mut self,
        (number, stream): (usize, u64),
        up: Up,
        turn: &mut Turn<'_>,
    ) -> bool {
        let known = self.known.get_mut(number).and_then(Option::as_mut);
        let Some(known) = known else { return false };
        let shoot = known.shoot;
        let node = known.who.puller.node.clone();
        match up {
            Up::Hello { held, word } => {
                (known.stream, known.link) = (Some(stream), Link::Here);
                (known.word, known.sent) = (Some(word), None);
                let puller = known.who.puller.clone();
                self.tell(Told::Connected { puller, held }, turn);
                self.changed(shoot, turn);
            }
            // An older stream than the one that it has says nothing more.
            _ if known.stream != Some(stream) => {}
            Up::Report(word) => {
                let before = known.word.replace(word);
                if before.is_none_or(|before| matters(&before, &word)) {
                    self.changed(shoot, turn);
                }
                if self.rings.due.is_none() {
                    turn.effects.push(Effect::Rings(turn.now + rings::PACE));
                    self.rings.due = Some(turn.now + rings::PACE);
                }
            }
            Up::Ask(request) => {
                let slot = known.sent.and_then(|sent| sent.permit);
                let class = match slot {
                    Some(Permit::Slot { .. }) => Class::Canary,
                    Some(Permit::Joining) | None if known.first => Class::Canary,
                    Some(Permit::Joining) | None => Class::Regular,
                };
                let puller = known.who.puller.clone();
                self.tell(Told::Request { puller, class, request }, turn);
            }
            Up::Shrunk(shrunk) => self.tell(Told::Shrunk { node, shrunk }, turn),
        }
        true
    }

    /// A stream has ended.
    pub(crate) fn lost(&mut self, number: usize, stream: u64, turn: &mut Turn<'_>) {
        let known = self.known.get_mut(number).and_then(Option::as_mut);
        let Some(known) = known.filter(|known| known.stream == Some(stream)) else { return };
        (known.stream, known.link) = (None, Link::Away { was_ready: !known.joining });
        let (shoot, node) = (known.shoot, known.who.puller.node.clone());
        self.tell(Told::Disconnected { node }, turn);
        self.changed(shoot, turn);
    }

    /// Tells the allocator, and sends what it grants.
    pub(crate) fn tell(&mut self, event: Told, turn: &mut Turn<'_>) {
        for Action::Grant { node, grant } in self.allocator.step(event, local(self.term, turn.now))
        {
            // A node is named by its number.
            let number = node.name().as_str().rsplit('-').next().and_then(|n| n.parse().ok());
            let known = number.and_then(|n: usize| Some((n, self.known.get(n)?.as_ref()?)));
            if let Some((number, Known { stream: Some(stream), .. })) = known {
                turn.effects.push(Effect::Send(number, *stream, Down::Grant(grant)));
            }
        }
    }

    /// When the allocator has something to do.
    pub(crate) fn tick_due(&self) -> Option<Duration> {
        let due = self.allocator.due()?;
        Some(due.saturating_sub(local(self.term, Duration::ZERO)))
    }

    /// Something of a shoot is another thing now.
    fn changed(&mut self, shoot: usize, turn: &mut Turn<'_>) {
        let shoot_of = &mut self.shoots[shoot];
        if shoot_of.held_back.is_some() {
            shoot_of.changed = true;
            return;
        }
        let due = shoot_of.last.map_or(turn.now, |last| turn.now.max(last + turn.of.pace));
        if shoot_of.due.is_none_or(|before| due < before) {
            shoot_of.due = Some(due);
            turn.effects.push(Effect::Look(shoot, due));
        }
    }

    /// Reads what is recorded of an object.
    fn read(&mut self, key: Key, turn: &mut Turn<'_>) {
        match key {
            Key::Shoot(shoot) => {
                let (version, state) = &turn.api.shoots[shoot];
                self.shoots[shoot].version = *version;
                self.shoots[shoot].states = [(TRACK.to_owned(), state.clone())].into();
                self.changed(shoot, turn);
            }
            Key::Rings => {
                let (version, record) = &turn.api.rings;
                self.adopt(*version, record.clone(), turn);
            }
        }
    }

    fn adopt(&mut self, version: u64, record: RingsRecord, turn: &mut Turn<'_>) {
        let of = turn.of;
        let Some(config) = &of.rings else { return };
        let types = record.types.get(&turn.of.runtime).cloned().unwrap_or_default();
        for (shoot, name) in of.shoots.iter().enumerate() {
            let seed = Some(types.seed(config, name));
            if self.shoots[shoot].seed != seed {
                self.shoots[shoot].seed = seed;
                self.changed(shoot, turn);
            }
        }
        self.rings.adopt(version, record);
    }
}

/// What a look makes another thing of: more sandboxes on a bundle that works say nothing new to it.
fn matters(before: &Word, after: &Word) -> bool {
    let essence = |word: &Word| {
        let pods = word.sandboxes;
        (word.digest, word.phase, word.reason, word.fetched, pods.started > 0, pods.failing())
    };
    essence(before) != essence(after)
}

/// A controller's own clock; each has another origin.
fn local(term: u32, now: Duration) -> Duration {
    Duration::from_secs(u64::from(term) * 7) + now
}
