//! Who gets a slot.
//!
//! A slot is for a node and all that it has pending, so that several types cost
//! one restart: one that has begun nothing yet takes along what its other types
//! may have. Each pool is gone through once, in one order for all of its types;
//! what may be unavailable there only shrinks on the way, so the same look gives
//! nothing twice.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::Map;

use super::{Gate, Give, Run, Work, after, earlier};
use crate::digest::Digest;
use crate::rollout::record::{Course, MAX_SLOTS, Slot};
use crate::rollout::view::{Node, OnNode, Verdict};
use crate::state::MAX_STATE;
use crate::status::Phase;

/// The most bytes that a slot has in a state.
const SLOT: usize = 256;

/// What a node wants of one type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Want {
    /// A slot for the candidate, and from when on also without its bytes.
    tries: Option<(Digest, Option<Timestamp>)>,
    /// A slot for what is promoted, where the candidate may not be tried.
    catches_up: Option<Digest>,
    /// A slot for the candidate, when its turn comes in a moment.
    comes: bool,
}

/// What a run may still give.
struct Room {
    /// By its stage.
    quota: usize,
    /// By what a state may hold.
    slots: usize,
    /// Whether only nodes that were held up before are tried.
    held_only: bool,
    /// Whether it goes on in a moment where its stage allows no more now.
    goes_on: bool,
    /// How many nodes have their turn when their bytes are there.
    first: usize,
}

/// The nodes among which so many may be unavailable.
#[derive(Default)]
struct Pool {
    nodes: Vec<usize>,
    /// How many count.
    all: usize,
    /// How many are unavailable.
    down: usize,
    /// How many are unavailable or have a slot.
    taken: usize,
    /// How many slots were given in this look.
    given: usize,
    /// Whether a state of it could not be read: who has slots is not known.
    blind: bool,
}

impl<'v, 'a> Work<'v, 'a> {
    /// Gives every slot that may be given now.
    pub(super) fn give_slots(&mut self) {
        if self.view.frozen {
            return;
        }
        let mut rooms: Vec<_> = self.runs.iter().map(|run| Room::of(run, self.now)).collect();
        for (name, mut pool) in self.pools() {
            let mut wants: Vec<(usize, Vec<Want>)> = Vec::new();
            let mut want = Vec::new();
            for at in std::mem::take(&mut pool.nodes) {
                self.wants(at, &rooms, &mut want);
                if want.iter().any(|want| want.tries.is_some() || want.catches_up.is_some()) {
                    wants.push((at, want.clone()));
                }
            }
            if wants.is_empty() || pool.blind {
                continue;
            }
            let order = self.order(name);
            // Of a look before only a part may have been written: it is made whole.
            wants.sort_by_cached_key(|(at, _)| {
                (!self.has_slot(*at), order(&self.view.nodes[*at]), *at)
            });
            // A node that waits for its bytes need not, once others have what
            // its candidate may have: so again, until nobody gets anything.
            let mut before = None;
            while before != Some(pool.given) {
                before = Some(pool.given);
                for (at, want) in &wants {
                    self.give_slot(*at, want, &mut pool, &mut rooms);
                }
                wants.retain(|(at, _)| !self.has_slot(*at));
            }
        }
    }

    fn pools(&self) -> BTreeMap<&'a str, Pool> {
        let mut pools: BTreeMap<&'a str, Pool> = BTreeMap::new();
        for (at, node) in self.view.nodes.iter().enumerate() {
            let pool = pools.entry(node.pool).or_default();
            let runs = || self.decides[at].iter().flatten().map(|run| &self.runs[*run]);
            pool.nodes.push(at);
            pool.all += usize::from(node.counts());
            pool.down += usize::from(node.is_unavailable());
            pool.taken += usize::from(node.is_unavailable() || self.has_slot(at));
            pool.blind |= runs().any(|run| run.state.is_none());
        }
        pools
    }

    /// Whether a node has a slot of any run: also of one that decides nothing there any more.
    fn has_slot(&self, at: usize) -> bool {
        let slot = |run: &Run<'_, '_>| run.marks.get(&at).is_some_and(|mark| mark.slot.is_some());
        self.runs.iter().any(slot)
    }

    /// Whether a node may have slots more: it has none, or has begun nothing yet.
    fn is_idle(&self, at: usize) -> bool {
        let node = &self.view.nodes[at];
        let of_node = || self.decides[at].iter().zip(&node.runtimes);
        let begun = self.runs.iter().enumerate().any(|(run, of)| {
            let Some(slot) = of.slot(at) else { return false };
            let decides = of_node().find(|(decides, _)| **decides == Some(run));
            // Of a run that decides nothing here any more nobody knows.
            decides.is_none_or(|(_, on)| match on.verdict(slot.digest) {
                Verdict::Busy(phase) => phase == Phase::Activating,
                Verdict::Nothing => false,
                Verdict::Ready | Verdict::Failing(_) | Verdict::Held(_) => true,
            })
        });
        !begun
    }

    /// What a node wants of each of its types.
    fn wants(&mut self, at: usize, rooms: &[Room], wants: &mut Vec<Want>) {
        wants.clear();
        let view = self.view;
        let node = &view.nodes[at];
        if !node.is_reachable() || node.joining || !self.is_idle(at) {
            return;
        }
        let types = node.runtimes.iter().enumerate();
        wants.extend(types.map(|(on, runtime)| match self.decides[at][on] {
            Some(run) if self.runs[run].slot(at).is_none() => {
                self.want(run, at, node, runtime, &rooms[run])
            }
            Some(_) | None => Want::default(),
        }));
    }

    fn want(
        &mut self,
        run: usize,
        at: usize,
        node: &Node<'a>,
        on: &OnNode<'a>,
        room: &Room,
    ) -> Want {
        if room.slots == 0 {
            return Want::default();
        }
        let of = &self.runs[run];
        let may = room.quota > 0;
        let comes = !may && room.goes_on && node.runtimes.len() > 1;
        // What there is no turn for needs no place in the order.
        let tries = if may || comes { self.tries(of, run, at, node, on) } else { None };
        let catches_up = self.catches_up(of, run, at, node, on);
        let comes = comes && tries.is_some();
        let want = Want { tries: tries.filter(|_| may), catches_up, comes };
        let run = &mut self.runs[run];
        if want != Want::default() && on.restart && !run.open {
            run.waits_for_window = true;
            return Want::default();
        }
        want
    }

    fn tries(
        &self,
        of: &Run<'v, 'a>,
        run: usize,
        at: usize,
        node: &Node<'a>,
        on: &OnNode<'a>,
    ) -> Option<(Digest, Option<Timestamp>)> {
        let candidate = of.state.as_ref()?.candidate.as_ref().filter(|c| c.halted.is_none())?;
        let digest = of.candidate(node.architecture)?;
        // What a node is to be healed of may be why it is not ready.
        if of.gate != Gate::Open || !node.ready && candidate.course == Course::Forwards {
            return None;
        }
        let mark = of.marks.get(&at);
        let fit = match on.verdict(digest) {
            Verdict::Ready => false,
            // One that runs with it has nothing to activate: it goes back first,
            // or shows that its pods start by now.
            Verdict::Failing(_) => mark.is_some_and(|mark| mark.excused) && !on.runs(digest),
            Verdict::Held(_) => self.again(run, at, digest).is_some(),
            Verdict::Busy(_) | Verdict::Nothing => true,
        };
        let waits = self.again(run, at, digest).is_some_and(|again| again > self.now);
        if !fit || waits || mark.is_some_and(|mark| mark.failed) {
            return None;
        }
        let in_time = after(candidate.since, of.track.strategy.deadlines.pull);
        let bytes = (!on.is_fetched(digest) && in_time > self.now).then_some(in_time);
        Some((digest, bytes))
    }

    fn catches_up(
        &self,
        of: &Run<'v, 'a>,
        run: usize,
        at: usize,
        node: &Node<'a>,
        on: &OnNode<'a>,
    ) -> Option<Digest> {
        let Give::Promoted(digest) = of.give(at, node, on) else { return None };
        let candidate = of.state.as_ref()?.candidate.as_ref();
        // On the way back what is promoted is what is tried.
        let back = candidate.is_some_and(|candidate| candidate.course == Course::Back);
        let shut = matches!(of.gate, Gate::Paused | Gate::Frozen | Gate::Deleting | Gate::Unknown);
        let waits = self.again(run, at, digest).is_some_and(|again| again > self.now);
        let may = !back && !shut && !waits && !of.base_is_bad();
        (may && on.verdict(digest) == Verdict::Busy(Phase::Queued)).then_some(digest)
    }

    fn give_slot(&mut self, at: usize, wants: &[Want], pool: &mut Pool, rooms: &mut [Room]) {
        let view = self.view;
        let node = &view.nodes[at];
        let taken = pool.taken + usize::from(!node.is_unavailable() && !self.has_slot(at));
        let down = pool.down + usize::from(!node.is_unavailable());
        let mut given = Vec::new();
        let mut comes = false;
        for (on, want) in wants.iter().enumerate() {
            let Some(run) = self.decides[at][on] else { continue };
            let (of, room, on) = (&self.runs[run], &rooms[run], &node.runtimes[on]);
            comes |= want.comes || want.tries.is_some() && room.quota == 0 && room.goes_on;
            let held = |digest| self.again(run, at, digest).is_some();
            let tries = want
                .tries
                .filter(|(digest, _)| room.quota > 0 && (!room.held_only || held(*digest)));
            // What is queued and may not go would go along.
            let queued = on.report.is_some_and(|said| said.phase == Phase::Queued);
            if *want == Want::default() && queued {
                let waits = |digest| self.again(run, at, digest).is_some_and(|at| at > self.now);
                let sent = of.give(at, node, on);
                if of.gate == Gate::Paused || matches!(sent, Give::Promoted(d) if waits(d)) {
                    return;
                }
            }
            if let Some((_, Some(until))) = tries {
                // One restart for all of them, when the last is there.
                let most = room.quota.min(of.track.strategy.max_unavailable(pool.all));
                if room.first < most && self.first.insert(at) {
                    rooms[run].first += 1;
                }
                let waits = &mut self.runs[run].waits_for_bytes;
                *waits = earlier(*waits, Some(until));
                return;
            }
            let Some(digest) = tries.map(|(digest, _)| digest).or(want.catches_up) else {
                continue;
            };
            let most = of.track.strategy.max_unavailable(pool.all);
            if room.slots == 0 || taken > most {
                comes |= tries.is_some() && room.goes_on;
                self.runs[run].waits_for_nodes |= down > most;
                continue;
            }
            let deadlines = of.track.strategy.deadlines;
            let pull = if on.is_fetched(digest) { Default::default() } else { deadlines.pull };
            let until = after(after(self.now, pull), deadlines.activate);
            let until = of.closing.filter(|_| on.restart).map_or(until, |end| end.min(until));
            given.push((run, digest, until, tries.is_some()));
        }
        let Some(until) = given.iter().map(|(_, _, until, _)| *until).max() else { return };
        // What the node lacks it gets at once: but for the rest of what is tried
        // it waits, where its turn is near.
        if comes && given.iter().all(|(.., tries)| *tries) {
            return;
        }
        for (run, digest, _, tries) in given {
            let Some(state) = &mut self.runs[run].state else { continue };
            let (place, more) = (state.slots.len(), Map::new());
            state.slots.push(Slot { node: node.uid.clone(), digest, until, silent: None, more });
            self.runs[run].marks.entry(at).or_default().slot = Some(place);
            rooms[run].slots -= 1;
            rooms[run].quota -= usize::from(tries);
            rooms[run].goes_on |= tries && !rooms[run].held_only;
        }
        (pool.taken, pool.given) = (taken, pool.given + 1);
    }
}

impl Room {
    fn of(run: &Run<'_, '_>, now: Timestamp) -> Self {
        let Some(state) = &run.state else {
            return Self { quota: 0, slots: 0, held_only: false, goes_on: false, first: 0 };
        };
        let candidate = state.candidate.as_ref();
        let quota = candidate.map_or(0, |candidate| run.quota(candidate));
        // Slots in flight end by their deadline; a soak is waited for as long.
        let soon = after(now, run.track.strategy.deadlines.activate);
        let held_only = run.is_held_up();
        let goes_on = candidate.is_some_and(|candidate| run.in_flight(candidate) > 0)
            || run.due().is_some_and(|due| due > now && due <= soon);
        let bytes = MAX_STATE.saturating_sub(state.size()) / SLOT;
        let slots = MAX_SLOTS.saturating_sub(state.slots.len()).min(bytes);
        Self { quota, slots, held_only, goes_on: goes_on && !held_only, first: 0 }
    }
}
