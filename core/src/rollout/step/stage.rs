//! From the canary over soaking and waves to the promoted bundle.

use jiff::Timestamp;

use super::settle::matters;
use super::{Gate, Run, Work, after};
use crate::digest::Digest;
use crate::name::Uid;
use crate::rollout::record::{
    Candidate, Course, Evidence, Halt, MAX_FAILURES, MAX_HELD, Stage, Why,
};
use crate::rollout::view::{Link, Node, Verdict};
use crate::status::Reason;

/// The nodes of a candidate, counted.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::rollout) struct Tally {
    /// They have it, by their last word.
    pub(in crate::rollout) have: usize,
    /// They have it, are here, stay, and did not fail.
    pub(super) healthy: usize,
    /// Of those, some started a pod's sandbox with it.
    pub(super) used: bool,
    /// They could have it and don't: all that keeps it from being promoted.
    pub(in crate::rollout) left: usize,
    /// Nobody knows yet what they have.
    pub(in crate::rollout) awaited: usize,
    /// Something else is in their way.
    pub(in crate::rollout) held: usize,
    /// Of those, they fell silent with it.
    silent: usize,
    /// They are not here.
    pub(in crate::rollout) away: usize,
    /// Nodes that failed with what is promoted.
    pub(super) base_failing: usize,
}

/// What is recorded of one node.
#[derive(Clone, Debug, Default)]
pub(super) struct Mark {
    /// The place of its slot.
    pub(super) slot: Option<usize>,
    /// Whether it failed with the candidate.
    pub(super) failed: bool,
    /// Whether it failed with the candidate before somebody asked for a retry.
    pub(super) excused: bool,
    /// The places of what holds it up.
    pub(super) held: Vec<usize>,
}

impl<'a> Work<'_, 'a> {
    /// Notes for each node what is recorded of it.
    fn mark(&mut self, run: usize) {
        let mut marks = std::mem::take(&mut self.runs[run].marks);
        marks.clear();
        if let Some(state) = &self.runs[run].state {
            let mut mark = |uid, note: &mut dyn FnMut(&mut Mark)| {
                if let Some(node) = self.by_uid.get(uid) {
                    note(marks.entry(*node).or_default());
                }
            };
            for (at, slot) in state.slots.iter().enumerate() {
                mark(&slot.node, &mut |mark| mark.slot = Some(at));
            }
            for (at, held) in state.held.iter().enumerate() {
                mark(&held.node, &mut |mark| mark.held.push(at));
            }
            for failure in state.candidate.iter().flat_map(|c| &c.failures) {
                // One that was given up and is back with it: what works stays.
                let lost = failure.reason == Reason::NodeUnreachable;
                let back = lost && self.works(run, &failure.node);
                mark(&failure.node, &mut |mark| {
                    (mark.failed, mark.excused) = (!failure.excused && !back, failure.excused);
                });
            }
        }
        self.runs[run].marks = marks;
    }

    /// Whether a node says that it works with the candidate.
    fn works(&self, run: usize, node: &Uid) -> bool {
        let Some((node, Some(on))) = self.find(run, node) else { return false };
        self.runs[run].candidate(node.architecture).is_some_and(|digest| on.has(digest))
    }

    /// Counts the nodes of a run.
    pub(super) fn tally(&mut self, run: usize) {
        self.mark(run);
        let mut tally = Tally::default();
        let of = &self.runs[run];
        let candidate = of.state.as_ref().and_then(|state| state.candidate.as_ref());
        let back = candidate.is_some_and(|candidate| candidate.course == Course::Back);
        if let (Some(candidate), Some(state)) = (candidate, &of.state) {
            let held = || state.held.iter().filter(|held| candidate.has(held.digest));
            tally.held = held().count();
            tally.silent = held().filter(|held| held.reason == Reason::NodeUnreachable).count();
        }
        for (at, on) in &of.members {
            let node = &self.view.nodes[*at];
            let on = &node.runtimes[*on];
            let base = node.architecture.and_then(|architecture| of.base(architecture));
            let failing = |d| matches!(on.verdict(d), Verdict::Failing(_));
            tally.base_failing += usize::from(base.is_some_and(failing));
            tally.away += usize::from(matches!(node.link, Link::Away { .. }));
            let Some(digest) = of.candidate(node.architecture) else { continue };
            let has = on.has(digest);
            tally.have += usize::from(has);
            let awaited = node.link == Link::Awaited && !node.leaving && !node.joining;
            tally.awaited += usize::from(awaited);
            if !node.is_reachable() {
                continue;
            }
            let mark = of.marks.get(at);
            let failed = mark.is_some_and(|mark| mark.failed);
            if has && !failed {
                tally.healthy += 1;
                tally.used |= on.sandboxes.started > 0;
            }
            let held = mark.is_some_and(|mark| of.held(mark, digest).is_some());
            // Excused where there is nothing to go back to: only its pods can tell.
            let stuck = !has && on.runs(digest) && base.is_none();
            // More are held up than can be recorded.
            let unrecorded = !held && matches!(on.verdict(digest), Verdict::Held(_));
            tally.held += usize::from(unrecorded && !failed);
            // One that Kubernetes calls not ready has no turn, but on the way back.
            let able = (node.ready || back) && !node.joining;
            let held = held || unrecorded;
            tally.left += usize::from(!has && !failed && !held && !stuck && able);
        }
        let gate = of.gate();
        (self.runs[run].tally, self.runs[run].gate) = (tally, gate);
    }

    /// Takes a candidate one stage further, if it may go there.
    pub(super) fn advance(&mut self, at: usize) -> bool {
        let now = self.now;
        let run = &self.runs[at];
        let gate = run.gate;
        let Some(candidate) = run.state.as_ref().and_then(|state| state.candidate.as_ref()) else {
            return false;
        };
        if candidate.halted.is_some() || matches!(gate, Gate::Deleting | Gate::Unread) {
            return false;
        }
        if let Some(why) = run.broken(candidate) {
            return self.amend(at, |candidate| candidate.halted = Some(Halt { at: now, why }));
        }
        if gate != Gate::Open || run.tally.awaited > 0 {
            return false;
        }
        let (tally, in_flight) = (run.tally, run.in_flight(candidate));
        let strategy = run.track.strategy;
        let (passed, failed) = (candidate.passed, number(candidate.failed()));
        let first_wave = Stage::Wave { number: 1, passed, failed };
        let next = match candidate.stage {
            // The nodes that proved it, or were to, are gone: others have to.
            Stage::Canary if tally.have == 0 && in_flight == 0 && passed > 0 => {
                return self.amend(at, |candidate| candidate.passed = 0);
            }
            Stage::Canary => {
                let tried = candidate.passed as usize + candidate.failed();
                let done = tried >= candidate.canary as usize || tally.left == 0;
                if in_flight > 0 || tally.healthy == 0 || !done {
                    return false;
                }
                Stage::Soak { since: now, from: None }
            }
            Stage::Soak { .. } if tally.have == 0 => {
                return self.amend(at, |candidate| {
                    (candidate.stage, candidate.passed) = (Stage::Canary, 0);
                });
            }
            Stage::Soak { since, from } => {
                // Where there is nothing safer, its soak protects nobody once
                // every node has it.
                let alone = run.bases().is_empty() && tally.left == 0;
                if tally.healthy == 0 {
                    return run.due().is_some_and(|due| due <= now) && self.out_of_sight(at);
                }
                let unused = after(since, strategy.deadlines.first_sandbox);
                match from {
                    _ if candidate.skip_soak || alone => first_wave,
                    Some(from) if after(from, strategy.soak) <= now => first_wave,
                    Some(_) => return false,
                    None if tally.used => Stage::Soak { since, from: Some(now) },
                    None if unused <= now => Stage::Soak { since, from: Some(unused) },
                    None => return false,
                }
            }
            Stage::Wave { .. } if in_flight > 0 => return false,
            Stage::Wave { .. } if tally.left == 0 && tally.healthy > 0 && !run.is_held_up() => {
                return self.promote(at);
            }
            Stage::Wave { number, .. } => match run.size(candidate, number) {
                Some(size) if run.tried(candidate) >= size => {
                    Stage::Wave { number: number.saturating_add(1), passed, failed }
                }
                Some(_) | None => return false,
            },
        };
        self.amend(at, |candidate| candidate.stage = next)
    }

    /// No node of the canary is here any more when its soak is long over: one that
    /// leaves is followed by others, one that went silent stops the rollout.
    fn out_of_sight(&mut self, at: usize) -> bool {
        let run = &self.runs[at];
        let silent = run.members.iter().find_map(|(node, on)| {
            let node = &self.view.nodes[*node];
            let has = run.candidate(node.architecture).is_some_and(|d| node.runtimes[*on].has(d));
            (has && !node.leaving).then_some(node)
        });
        let Some(node) = silent else {
            return self.amend(at, |candidate| {
                (candidate.stage, candidate.passed) = (Stage::Canary, 0);
            });
        };
        let (uid, name, now) = (node.uid.clone(), node.name.clone(), self.now);
        let message = "silent since it has the bundle".to_owned();
        self.amend(at, |candidate| candidate.lose(uid, Some(Evidence { name, message }), now))
    }

    fn amend(&mut self, run: usize, how: impl FnOnce(&mut Candidate)) -> bool {
        let state = self.runs[run].state.as_mut();
        let Some(candidate) = state.and_then(|state| state.candidate.as_mut()) else {
            return false;
        };
        how(candidate);
        true
    }

    fn promote(&mut self, run: usize) -> bool {
        let seed = self.runs[run].track.seed;
        let Some(state) = &mut self.runs[run].state else { return false };
        let Some(candidate) = state.candidate.take() else { return false };
        state.promoted = candidate.digests;
        let mut held = std::mem::take(&mut state.held);
        held.retain(|held| matters(state, seed, held.digest));
        state.held = held;
        // What it was counted by is another thing now.
        self.tally(run);
        true
    }

    /// A node's place in the order in which the nodes of a pool get slots. It
    /// is the same for all types of the pool, and another one with each bundle.
    pub(super) fn order(&self, pool: &str) -> impl Fn(&Node<'a>) -> u64 + use<'a> {
        let mut salts: Vec<_> = self
            .runs
            .iter()
            .filter(|run| run.members.iter().any(|(at, _)| self.view.nodes[*at].pool == pool))
            .filter_map(|run| Some(&run.state.as_ref()?.candidate.as_ref()?.digests))
            .flat_map(|digests| digests.values().copied())
            .collect();
        salts.sort();
        salts.dedup();
        let salt = salts.iter().fold(SEED, |salt, digest| hash(salt, digest.as_bytes()));
        move |node| hash(salt, node.uid.as_str().as_bytes())
    }
}

impl Run<'_, '_> {
    /// What holds a node up from a digest, by its place in the state.
    pub(super) fn held(&self, mark: &Mark, digest: Digest) -> Option<usize> {
        let state = self.state.as_ref()?;
        mark.held.iter().copied().find(|at| state.held[*at].digest == digest)
    }

    /// How many slots of a candidate are in flight.
    pub(in crate::rollout) fn in_flight(&self, candidate: &Candidate) -> usize {
        self.slots().iter().filter(|slot| candidate.has(slot.digest)).count()
    }

    /// How many nodes may be held up.
    pub(in crate::rollout) fn most_held(&self) -> usize {
        self.track.strategy.max_blocked.up(self.all).max(1)
    }

    /// Whether more nodes are held up than may be. Of silent ones no more may be
    /// than can be recorded: those after them would be forgotten with their nodes.
    pub(in crate::rollout) fn is_held_up(&self) -> bool {
        self.tally.held > self.most_held() || self.tally.silent >= MAX_HELD
    }

    /// How many nodes may fail in all.
    pub(in crate::rollout) fn budget(&self) -> usize {
        self.track.strategy.failure_budget.down(self.all).min(MAX_FAILURES - 1)
    }

    /// Whether so many nodes failed with what is promoted that no other is to follow.
    pub(in crate::rollout) fn base_is_bad(&self) -> bool {
        self.tally.base_failing > self.budget()
    }

    /// How many nodes of this run may be unavailable, whatever their pools allow.
    fn most(&self) -> usize {
        self.track.strategy.max_unavailable(self.all)
    }

    /// How many nodes a wave has; none for the last one, which has the rest.
    pub(in crate::rollout) fn size(&self, candidate: &Candidate, number: u32) -> Option<usize> {
        let most = self.most();
        let size = self.track.strategy.wave(candidate.canary as usize, number, most);
        (size < most).then_some(size)
    }

    /// How many nodes of this wave passed or failed.
    fn tried(&self, candidate: &Candidate) -> usize {
        let Stage::Wave { passed, failed, .. } = candidate.stage else { return 0 };
        let passed = candidate.passed.saturating_sub(passed) as usize;
        passed + candidate.failed().saturating_sub(failed as usize)
    }

    /// How many slots more the stage allows.
    pub(super) fn quota(&self, candidate: &Candidate) -> usize {
        let in_flight = self.in_flight(candidate);
        let (size, tried) = match candidate.stage {
            Stage::Canary => {
                let tried = candidate.passed as usize + candidate.failed();
                (candidate.canary as usize, tried)
            }
            Stage::Soak { .. } => return 0,
            Stage::Wave { number, .. } => match self.size(candidate, number) {
                Some(size) => (size, self.tried(candidate)),
                None => return usize::MAX,
            },
        };
        size.saturating_sub(tried + in_flight)
    }

    /// Which bound of failures is broken.
    fn broken(&self, candidate: &Candidate) -> Option<Why> {
        let failed = candidate.failed();
        if failed > self.budget() {
            return Some(Why::BudgetSpent);
        }
        match candidate.stage {
            Stage::Canary | Stage::Soak { .. } => {
                // As long as one node of the canary may still work it is waited for.
                let all_tried = failed >= candidate.canary as usize || self.tally.left == 0;
                let soaks = matches!(candidate.stage, Stage::Soak { .. });
                let none_works = self.tally.healthy == 0
                    && self.tally.have == 0
                    && self.tally.awaited == 0
                    && self.in_flight(candidate) == 0;
                (failed > 0 && none_works && (all_tried || soaks)).then_some(Why::CanaryFailed)
            }
            Stage::Wave { number, failed: before, .. } => {
                let size = self.size(candidate, number).unwrap_or(self.all);
                let most = self.track.strategy.wave_failure_budget.up(size).max(1);
                (failed.saturating_sub(before as usize) > most).then_some(Why::WaveFailed)
            }
        }
    }

    /// When the clock has something to say of the candidate.
    pub(in crate::rollout) fn due(&self) -> Option<Timestamp> {
        let candidate = self.state.as_ref()?.candidate.as_ref()?;
        let Stage::Soak { since, from } = candidate.stage else { return None };
        let deadlines = self.track.strategy.deadlines;
        let due = match from {
            Some(from) => after(from, self.track.strategy.soak),
            None => after(since, deadlines.first_sandbox),
        };
        // Its nodes may come back.
        Some(if self.tally.healthy == 0 { after(due, deadlines.activate) } else { due })
    }
}

impl<'a> Work<'_, 'a> {
    /// When a node that was held up may try a digest again.
    pub(super) fn again(&self, run: usize, at: usize, digest: Digest) -> Option<Timestamp> {
        let of = &self.runs[run];
        let held = of.held(of.marks.get(&at)?, digest)?;
        Some(of.state.as_ref()?.held[held].again)
    }
}

fn number(nodes: usize) -> u32 {
    u32::try_from(nodes).unwrap_or(u32::MAX)
}

/// Where a hash begins.
const SEED: u64 = 0xcbf2_9ce4_8422_2325;

/// FNV-1a, and a mixer that spreads its last byte over all bits. Nobody gains
/// by a place in this order, so it need not be hard to find one.
pub(in crate::rollout) fn hash(seed: u64, bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    let mut hash = bytes.iter().fold(seed, step);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}
