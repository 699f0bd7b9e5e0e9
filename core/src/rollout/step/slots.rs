//! Who gets a slot.
//!
//! A slot is for a node and all that it has pending, so that several types cost
//! one restart. Each pool is gone through once, in one order for all of its
//! types; what may be unavailable there only shrinks on the way, so the same
//! look gives nothing twice.

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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Want {
    Nothing,
    /// A slot for the candidate.
    Try(Digest),
    /// A slot for what is promoted.
    CatchUp(Digest),
    /// A slot for the candidate, as soon as its bytes are there.
    Bytes(Timestamp),
}

/// What a run may still give.
struct Room {
    /// By its stage.
    quota: usize,
    /// By what a state may hold.
    slots: usize,
    /// Whether only nodes that were held up before are tried.
    held_only: bool,
}

/// The nodes among which so many may be unavailable.
#[derive(Default)]
struct Pool {
    nodes: Vec<usize>,
    /// How many count.
    all: usize,
    /// How many are unavailable or have a slot.
    taken: usize,
    /// Whether a state of it could not be read: who has slots is not known.
    blind: bool,
}

impl<'v, 'a> Work<'v, 'a> {
    /// Gives every slot that may be given now.
    pub(super) fn give_slots(&mut self) {
        if self.view.frozen {
            return;
        }
        let mut rooms: Vec<_> = self.runs.iter().map(Room::of).collect();
        for (name, mut pool) in self.pools() {
            let mut wants: Vec<(usize, Vec<Want>)> = Vec::new();
            for at in std::mem::take(&mut pool.nodes) {
                let want = self.wants(at);
                if want.iter().any(|want| *want != Want::Nothing) {
                    wants.push((at, want));
                }
            }
            if wants.is_empty() || pool.blind {
                continue;
            }
            let order = self.order(name);
            wants.sort_by_cached_key(|(at, _)| (order(&self.view.nodes[*at]), *at));
            for (at, want) in wants {
                self.give_slot(at, &want, &mut pool, &mut rooms);
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

    /// What a node wants of each of its types.
    fn wants(&mut self, at: usize) -> Vec<Want> {
        let view = self.view;
        let node = &view.nodes[at];
        if !node.is_reachable() || node.joining || self.has_slot(at) {
            return Vec::new();
        }
        let types = node.runtimes.iter().enumerate();
        types
            .map(|(on, runtime)| match self.decides[at][on] {
                Some(run) => self.want(run, at, node, runtime),
                None => Want::Nothing,
            })
            .collect()
    }

    fn want(&mut self, run: usize, at: usize, node: &Node<'a>, on: &OnNode<'a>) -> Want {
        let of = &self.runs[run];
        let want = match self.try_it(of, run, at, node, on) {
            Want::Nothing => self.catch_up(of, run, at, node, on),
            want => want,
        };
        let run = &mut self.runs[run];
        if want != Want::Nothing && on.restart && !run.open {
            run.waits_for_window = true;
            return Want::Nothing;
        }
        want
    }

    fn try_it(
        &self,
        of: &Run<'v, 'a>,
        run: usize,
        at: usize,
        node: &Node<'a>,
        on: &OnNode<'a>,
    ) -> Want {
        let candidate = of.state.as_ref().and_then(|state| state.candidate.as_ref());
        let Some(candidate) = candidate.filter(|c| c.halted.is_none()) else {
            return Want::Nothing;
        };
        let Some(digest) = of.candidate(node.architecture) else { return Want::Nothing };
        if of.gate != Gate::Open || !node.ready {
            return Want::Nothing;
        }
        let mark = of.marks.get(&at);
        let fit = match on.verdict(digest) {
            Verdict::Ready => false,
            Verdict::Failing(_) => mark.is_some_and(|mark| mark.excused),
            Verdict::Held(_) => self.again(run, at, digest).is_some(),
            Verdict::Busy(_) | Verdict::Nothing => true,
        };
        let waits = self.again(run, at, digest).is_some_and(|again| again > self.now);
        if !fit || waits || mark.is_some_and(|mark| mark.failed) {
            return Want::Nothing;
        }
        let in_time = after(candidate.since, of.track.strategy.deadlines.pull);
        if on.is_fetched(digest) || in_time <= self.now {
            Want::Try(digest)
        } else {
            Want::Bytes(in_time)
        }
    }

    fn catch_up(
        &self,
        of: &Run<'v, 'a>,
        run: usize,
        at: usize,
        node: &Node<'a>,
        on: &OnNode<'a>,
    ) -> Want {
        let Give::Promoted(digest) = of.give(at, node, on) else { return Want::Nothing };
        let candidate = of.state.as_ref().and_then(|state| state.candidate.as_ref());
        // On the way back what is promoted is what is tried.
        let back = candidate.is_some_and(|candidate| candidate.course == Course::Back);
        let shut = matches!(of.gate, Gate::Paused | Gate::Frozen | Gate::Deleting | Gate::Unknown);
        let waits = self.again(run, at, digest).is_some_and(|again| again > self.now);
        if back || shut || waits || !is_queued(on, digest) || self.base_is_bad(run) {
            return Want::Nothing;
        }
        Want::CatchUp(digest)
    }

    fn give_slot(&mut self, at: usize, wants: &[Want], pool: &mut Pool, rooms: &mut [Room]) {
        let view = self.view;
        let node = &view.nodes[at];
        let taken = pool.taken + usize::from(!node.is_unavailable());
        let mut given = Vec::new();
        for (on, want) in wants.iter().enumerate() {
            let Some(run) = self.decides[at][on] else { continue };
            let (of, room, on) = (&self.runs[run], &rooms[run], &node.runtimes[on]);
            let digest = match want {
                Want::Nothing => {
                    // What is queued and may not go would go along.
                    let paused = of.gate == Gate::Paused;
                    if paused && on.report.is_some_and(|said| said.phase == Phase::Queued) {
                        return;
                    }
                    continue;
                }
                Want::Try(digest) => {
                    let held = self.again(run, at, *digest).is_some();
                    if room.quota == 0 || room.held_only && !held {
                        continue;
                    }
                    *digest
                }
                Want::CatchUp(digest) => *digest,
                Want::Bytes(until) if room.quota > 0 && !room.held_only => {
                    // One restart for all of them, when the last is there.
                    let waits = &mut self.runs[run].waits_for_bytes;
                    *waits = earlier(*waits, Some(*until));
                    return;
                }
                Want::Bytes(_) => continue,
            };
            if room.slots == 0 || taken > of.track.strategy.max_unavailable(pool.all) {
                continue;
            }
            let deadlines = of.track.strategy.deadlines;
            let pull = if on.is_fetched(digest) { Default::default() } else { deadlines.pull };
            let until = after(after(self.now, pull), deadlines.activate);
            given.push((run, digest, until, matches!(want, Want::Try(_))));
        }
        let Some(until) = given.iter().map(|(_, _, until, _)| *until).max() else { return };
        for (run, digest, _, tries) in given {
            let Some(state) = &mut self.runs[run].state else { continue };
            let place = state.slots.len();
            state.slots.push(Slot { node: node.uid.clone(), digest, until, more: Map::new() });
            self.runs[run].marks.entry(at).or_default().slot = Some(place);
            rooms[run].slots -= 1;
            rooms[run].quota -= usize::from(tries);
        }
        pool.taken = taken;
    }
}

impl Room {
    fn of(run: &Run<'_, '_>) -> Self {
        let Some(state) = &run.state else { return Self { quota: 0, slots: 0, held_only: false } };
        let candidate = state.candidate.as_ref();
        let quota = candidate.map_or(0, |candidate| run.quota(candidate));
        let bytes = MAX_STATE.saturating_sub(state.size()) / SLOT;
        let slots = MAX_SLOTS.saturating_sub(state.slots.len()).min(bytes);
        Self { quota, slots, held_only: run.tally.held > run.most_held() }
    }
}

fn is_queued(on: &OnNode<'_>, digest: Digest) -> bool {
    on.verdict(digest) == Verdict::Busy(Phase::Queued)
}
