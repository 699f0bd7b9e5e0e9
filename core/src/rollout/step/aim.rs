//! What is to be tried: by the catalog, by the seed, and by what somebody asks for.

use super::{Run, Work};
use crate::rollout::record::{Candidate, Command, Course, Digests, Halt, Stage, Why};
use crate::rollout::view::{Link, Node, OnNode, Standing};

/// Whether a candidate may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::rollout) enum Gate {
    /// It may.
    Open,
    /// The resource's state could not be read.
    Unread,
    /// The resource is being deleted.
    Deleting,
    /// It is not known what the type stands for.
    Unknown,
    /// Somebody stopped every rollout of the seed.
    Frozen,
    /// The bundle broke other shoots.
    Stopped,
    /// Somebody paused it.
    Paused,
    /// Other shoots try it, or what follows it, first.
    NotYet,
}

impl Work<'_, '_> {
    /// Carries out what somebody asks for, once for each time it is written.
    pub(super) fn act(&mut self, run: usize) {
        let (now, run) = (self.now, &mut self.runs[run]);
        let (bases, all) = (run.bases(), run.all);
        let Some(state) = &mut run.state else { return };
        let command = run.track.command;
        if state.acted == command {
            return;
        }
        state.acted = command;
        match command {
            None => {}
            Some(Command::Pause) => state.paused = true,
            Some(Command::Resume) => state.paused = false,
            Some(Command::Promote) => {
                if let Some(candidate) = &mut state.candidate {
                    candidate.skip_soak = true;
                }
            }
            Some(Command::Retry) => {
                state.held.clear();
                state.aborted.clear();
                if let Some(candidate) = &mut state.candidate {
                    candidate.failures.iter_mut().for_each(|failure| failure.excused = true);
                    (candidate.halted, candidate.passed) = (None, 0);
                    candidate.stage = Stage::Canary;
                    candidate.canary = count(run.track.strategy.canary(all));
                    candidate.attempt = candidate.attempt.saturating_add(1);
                }
            }
            Some(Command::Abort) => match &mut state.candidate {
                Some(candidate) if candidate.course == Course::Forwards => {
                    state.aborted = candidate.digests.clone();
                    if bases.is_empty() {
                        candidate.halted = Some(Halt { at: now, why: Why::NothingBefore });
                    } else {
                        let canary = run.track.strategy.canary(all);
                        let back = Candidate::new(bases, Course::Back, canary, now);
                        *candidate = back.replacing(candidate);
                    }
                }
                Some(_) | None => {}
            },
        }
    }

    /// Makes what the catalog names the candidate, if it is not promoted yet.
    pub(super) fn aim(&mut self, run: usize) {
        self.runs[run].fresh = self.is_fresh(run);
        let (now, run) = (self.now, &mut self.runs[run]);
        let Some(target) = run.target() else { return };
        let canary = run.track.strategy.canary(run.all);
        let standing = run.standing(&target);
        let seeds = run.of_the_seed();
        if run.frozen || run.track.deleting {
            return;
        }
        let Some(state) = &mut run.state else { return };
        if !state.aborted.is_empty() {
            if state.aborted == target {
                return;
            }
            state.aborted.clear();
        }
        if target.iter().all(|(of, digest)| state.promoted.get(of) == Some(digest)) {
            state.candidate = None;
            state.promoted.retain(|of, _| target.contains_key(of));
            return;
        }
        let aim = match standing {
            Standing::Open => target,
            // A shoot that has nothing yet gets what the seed knows to work.
            Standing::First | Standing::NotYet | Standing::Stopped
                if state.promoted.is_empty() && !seeds.is_empty() =>
            {
                seeds
            }
            Standing::First | Standing::NotYet | Standing::Stopped => return,
        };
        let same = |c: &&mut Candidate| c.digests == aim && c.course == Course::Forwards;
        if let Some(candidate) = state.candidate.as_mut().filter(same) {
            // Nodes connect one after the other: the canary is counted when its
            // first slot is given.
            if candidate.is_untried() && !state.slots.iter().any(|s| candidate.has(s.digest)) {
                candidate.canary = count(canary);
            }
            return;
        }
        let next = Candidate::new(aim, Course::Forwards, canary, now);
        state.candidate = Some(match &state.candidate {
            Some(old) => next.replacing(old),
            None => next,
        });
    }

    /// Whether nothing runs yet where the type's first bundle comes to: every
    /// node that could get a slot for it, or may in a moment, works with it already.
    fn is_fresh(&self, run: usize) -> bool {
        let of = &self.runs[run];
        let (Some(state), Some(target)) = (&of.state, of.target()) else { return false };
        let asks = |(node, on): (&Node<'_>, &OnNode<'_>)| {
            let digest = node.architecture.and_then(|of| target.get(&of));
            let runs = !node.joining && !node.leaving && !matches!(node.link, Link::Away { .. });
            runs && digest.is_some_and(|digest| !on.has(*digest))
        };
        state.promoted.is_empty() && !self.members(run).any(asks)
    }
}

impl Run<'_, '_> {
    /// What the type stands for; what is not known now of one architecture is
    /// as it was. None where nothing is known.
    fn target(&self) -> Option<Digests> {
        let state = self.state.as_ref()?;
        self.track.target.values().flatten().next()?;
        let tried = state.candidate.as_ref().filter(|c| c.course == Course::Forwards);
        let target = self.track.target.iter().filter_map(|(of, digest)| {
            let before =
                || tried.and_then(|c| c.digests.get(of)).or_else(|| state.promoted.get(of));
            Some((*of, digest.as_ref().or_else(before).copied()?))
        });
        Some(target.collect())
    }

    /// What the seed says of a bundle: the worst that it says of a part.
    pub(super) fn standing(&self, digests: &Digests) -> Standing {
        let Some(seed) = self.track.seed else { return Standing::Open };
        let of = |digest| match seed.digests.get(digest) {
            Some(standing) => *standing,
            None if seed.has_promoted(*digest) => Standing::Open,
            None => Standing::NotYet,
        };
        match digests.values().map(of).max() {
            Some(Standing::First) if self.fresh => Standing::Open,
            Some(Standing::First) | None => Standing::NotYet,
            Some(standing) => standing,
        }
    }

    /// The bundle that the seed promoted, if it may be used.
    fn of_the_seed(&self) -> Digests {
        let promoted = self.track.seed.map(|seed| seed.promoted.clone()).unwrap_or_default();
        if self.standing(&promoted) == Standing::Open { promoted } else { Digests::new() }
    }

    /// Whether the candidate may go on; where there is none, whether one might begin.
    pub(super) fn gate(&self) -> Gate {
        let Some(state) = &self.state else { return Gate::Unread };
        if self.track.deleting {
            return Gate::Deleting;
        }
        if self.frozen {
            return Gate::Frozen;
        }
        let target = self.target();
        let (standing, current) = match (&state.candidate, &target) {
            // The way back is known from what is recorded, and closed to nobody.
            (Some(candidate), _) if candidate.course == Course::Back => (Standing::Open, true),
            (_, None) => return Gate::Unknown,
            (Some(candidate), Some(target)) => {
                let standing = self.standing(&candidate.digests);
                let first = state.promoted.is_empty() && standing == Standing::Open;
                (standing, candidate.digests == *target || first)
            }
            (None, Some(target)) => {
                let promoted = state.promoted == *target;
                (if promoted { Standing::Open } else { self.standing(target) }, true)
            }
        };
        match standing {
            Standing::Stopped => Gate::Stopped,
            _ if state.paused => Gate::Paused,
            Standing::Open if current => Gate::Open,
            Standing::Open | Standing::First | Standing::NotYet => Gate::NotYet,
        }
    }
}

fn count(nodes: usize) -> u32 {
    u32::try_from(nodes).unwrap_or(u32::MAX)
}
