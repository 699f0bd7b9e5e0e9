//! One look at a shoot: what is recorded, and what each node may have and do.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use jiff::Timestamp;

use super::progress::{self, Progress};
use super::record::{Digests, Slot};
use super::view::{Node, OnNode, Track, View};
use crate::digest::Digest;
use crate::name::{Architecture, Uid};
use crate::state::State;
use quick::{Decides, Quick};
use stage::{Mark, Tally};

mod aim;
mod give;
mod quick;
mod settle;
mod slots;
mod stage;

pub(super) use aim::Gate;
pub(super) use stage::hash as stage_hash;

/// What follows from one look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// The states that changed, by ContainerRuntime. They are written first;
    /// where one could not be written nothing else of the step holds.
    pub states: BTreeMap<String, State>,
    /// What each node may have and do, in the order of the view's nodes.
    pub nodes: Vec<NodeStep>,
    /// How far each ContainerRuntime is.
    pub progress: BTreeMap<String, Progress>,
    /// When to look again if nothing changes before.
    pub next: Option<Timestamp>,
}

/// What one node may have and do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeStep {
    /// Whether it may activate what it has pending.
    pub permit: Option<Permit>,
    /// Whether a slot waits for its bytes: they go before those of others.
    pub first: bool,
    /// What it is to have, in the order of the node's runtimes.
    pub runtimes: Vec<RuntimeStep>,
}

/// Why a node may activate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permit {
    /// Nothing runs there yet.
    Joining,
    /// It has a slot.
    Slot {
        /// Until when it may begin and be done.
        until: Timestamp,
        /// Whether somebody asked for a retry, so that the node is to forget
        /// what it failed with.
        again: bool,
    },
}

/// What one node is to have of one type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RuntimeStep {
    /// What it is sent.
    pub give: Give,
    /// What it may pull ahead.
    pub prefetch: Option<Digest>,
}

/// What one node is sent of one type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Give {
    /// What it has stays as it is, whatever that is.
    #[default]
    Stay,
    /// The bundle that is known to work.
    Promoted(Digest),
    /// The bundle that is being tried.
    Candidate(Digest),
}

/// Decides what follows for one shoot from what is known and recorded of it.
///
/// `states` has the state of each ContainerRuntime, [`State::default`] where
/// there is none yet; one that is missing could not be read, and nothing that
/// it might speak of is touched. Repeated with its own states and nothing
/// changed it gives the same again.
pub fn step(view: &View<'_>, states: &BTreeMap<String, State>, now: Timestamp) -> Step {
    // Seconds are as exact as anything that is recorded.
    let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
    let mut work = Work::new(view, states, now);
    if view.complete {
        for at in 0..work.runs.len() {
            work.act(at);
            work.settle(at);
            work.aim(at);
            work.observe(at);
            work.tally(at);
            while work.advance(at) {}
        }
        work.give_slots();
    }
    work.end(states)
}

/// One ContainerRuntime while a step is worked out.
pub(super) struct Run<'v, 'a> {
    name: &'a str,
    pub(super) track: &'v Track<'a>,
    /// None where it could not be read.
    pub(super) state: Option<State>,
    /// Its nodes: the index of each, and that of the type there.
    pub(super) members: Vec<(usize, usize)>,
    /// How many of them count for what the pool offers.
    all: usize,
    /// Whether containerd may be restarted now, until when, and else when.
    open: bool,
    closing: Option<Timestamp>,
    pub(super) opening: Option<Timestamp>,
    /// Whether somebody stopped every rollout of the seed.
    frozen: bool,
    /// What is recorded of its nodes, by their index.
    marks: HashMap<usize, Mark, Quick>,
    pub(super) tally: Tally,
    pub(super) gate: Gate,
    /// Whether a first bundle breaks nothing here.
    fresh: bool,
    /// Whether a node waits for the window, because as many others are
    /// unavailable as may be, or for bytes until then.
    pub(super) waits_for_window: bool,
    pub(super) waits_for_nodes: bool,
    pub(super) waits_for_bytes: Option<Timestamp>,
}

/// Everything while a step is worked out.
pub(super) struct Work<'v, 'a> {
    pub(super) view: &'v View<'a>,
    pub(super) now: Timestamp,
    by_uid: HashMap<&'a Uid, usize, Quick>,
    pub(super) runs: Vec<Run<'v, 'a>>,
    /// For each node and each of its runtimes, which run decides.
    decides: Decides,
    /// The nodes that have their turn when their bytes are there.
    first: BTreeSet<usize>,
}

impl<'v, 'a> Work<'v, 'a> {
    fn new(view: &'v View<'a>, states: &BTreeMap<String, State>, now: Timestamp) -> Self {
        let mut runs: Vec<Run<'v, 'a>> = Vec::with_capacity(view.tracks.len());
        for (name, track) in &view.tracks {
            let window = track.strategy.window.resolve(view.maintenance);
            let closing = window.and_then(|window| window.closing(now));
            runs.push(Run {
                name,
                track,
                state: states.get(*name).cloned(),
                members: Vec::new(),
                all: 0,
                open: window.is_none() || closing.is_some_and(|end| end >= after(now, LEAST)),
                closing,
                opening: window.and_then(|window| window.next_opening(now)),
                marks: HashMap::default(),
                tally: Tally::default(),
                gate: Gate::Unread,
                frozen: view.frozen,
                fresh: false,
                waits_for_window: false,
                waits_for_nodes: false,
                waits_for_bytes: None,
            });
        }
        let names: BTreeMap<&str, usize> =
            view.tracks.keys().enumerate().map(|(at, name)| (*name, at)).collect();
        let mut by_uid = HashMap::with_capacity_and_hasher(view.nodes.len(), Quick::default());
        let mut decides = Decides::new(view.nodes.len());
        for (at, node) in view.nodes.iter().enumerate() {
            by_uid.insert(node.uid, at);
            let of_node = node.runtimes.iter().enumerate().map(|(on, runtime)| {
                let run = names.get(runtime.track).copied()?;
                runs[run].members.push((at, on));
                runs[run].all += usize::from(node.counts());
                Some(run)
            });
            decides.push(of_node);
        }
        Self { view, now, by_uid, runs, decides, first: BTreeSet::new() }
    }

    /// A node by its UID, and what it says of a run's type.
    fn find(&self, run: usize, uid: &Uid) -> Option<(&'v Node<'a>, Option<&'v OnNode<'a>>)> {
        let at = *self.by_uid.get(uid)?;
        let node = &self.view.nodes[at];
        let on = self.decides[at].iter().position(|decides| *decides == Some(run));
        Some((node, on.map(|on| &node.runtimes[on])))
    }

    /// The nodes of a run, and what they say of its type.
    fn members(&self, run: usize) -> impl Iterator<Item = (&'v Node<'a>, &'v OnNode<'a>)> {
        let view = self.view;
        self.runs[run].members.iter().map(move |(node, on)| {
            let node = &view.nodes[*node];
            (node, &node.runtimes[*on])
        })
    }

    /// How many nodes of a run are sent what is promoted and do not have it yet.
    pub(super) fn catching_up(&self, run: usize, steps: &[NodeStep]) -> usize {
        let members = self.runs[run].members.iter();
        let lacks = members.filter(|(at, on)| {
            let node = &self.view.nodes[*at];
            let sent = steps[*at].runtimes.get(*on).map(|step| step.give);
            matches!(sent, Some(Give::Promoted(digest)) if !node.runtimes[*on].has(digest))
                && node.is_reachable()
                && !node.joining
        });
        lacks.count()
    }

    /// The states that changed, what nodes get, and what is to be said of it.
    fn end(mut self, states: &BTreeMap<String, State>) -> Step {
        let mut step = Step { nodes: self.give_all(), ..Step::default() };
        for run in &mut self.runs {
            if let Some(state) = &mut run.state
                && states.get(run.name) != Some(state)
            {
                state.bound();
                if states.get(run.name) != Some(state) {
                    step.states.insert(run.name.to_owned(), state.clone());
                }
            }
        }
        for at in 0..self.runs.len() {
            let progress = progress::of(&self, at, &step.nodes);
            step.next = earlier(step.next, progress.next);
            step.progress.insert(self.runs[at].name.to_owned(), progress);
        }
        step
    }
}

impl Run<'_, '_> {
    /// What is known to work: the shoot's own promoted bundle, else the seed's.
    fn base(&self, architecture: Architecture) -> Option<Digest> {
        let own = self.state.as_ref()?.promoted.get(&architecture).copied();
        own.or_else(|| self.of_seed(architecture))
    }

    /// The seed's promoted bundle, unless it was stopped since.
    fn of_seed(&self, architecture: Architecture) -> Option<Digest> {
        let seed = self.track.seed?;
        let digest = *seed.promoted.get(&architecture)?;
        (seed.digests.get(&digest) != Some(&super::view::Standing::Stopped)).then_some(digest)
    }

    /// The shoot's promoted bundle, or the seed's where it has none.
    fn bases(&self) -> Digests {
        let own = self.state.as_ref().map(|state| state.promoted.clone()).unwrap_or_default();
        if !own.is_empty() {
            return own;
        }
        let every = [Architecture::Amd64, Architecture::Arm64];
        every.into_iter().filter_map(|of| Some((of, self.of_seed(of)?))).collect()
    }

    /// The candidate's digest for an architecture.
    fn candidate(&self, architecture: Option<Architecture>) -> Option<Digest> {
        let candidate = self.state.as_ref()?.candidate.as_ref()?;
        candidate.digests.get(&architecture?).copied()
    }

    /// The slots in flight.
    pub(super) fn slots(&self) -> &[Slot] {
        self.state.as_ref().map_or(&[], |state| &state.slots)
    }

    /// The slot of a node, by its index.
    fn slot(&self, at: usize) -> Option<&Slot> {
        self.slots().get(self.marks.get(&at)?.slot?)
    }
}

/// So long before a window closes nothing is begun in it: an activation takes a
/// minute or two.
const LEAST: Duration = Duration::from_secs(120);

/// A moment later, or the last one there is.
pub(super) fn after(at: Timestamp, time: Duration) -> Timestamp {
    at.checked_add(time).unwrap_or(Timestamp::MAX)
}

/// The earlier of two moments that may not be.
pub(super) fn earlier(one: Option<Timestamp>, other: Option<Timestamp>) -> Option<Timestamp> {
    [one, other].into_iter().flatten().min()
}
