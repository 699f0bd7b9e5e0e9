//! What each node is sent.

use super::{Gate, Give, NodeStep, Permit, Run, RuntimeStep, Work};
use crate::digest::Digest;
use crate::rollout::record::{Course, Slot};
use crate::rollout::view::{Link, Node, OnNode, Standing, Verdict, is_of_the_pull};
use crate::state::State;

impl<'a> Work<'_, 'a> {
    /// What every node may have and do, in the order of the nodes.
    pub(super) fn give_all(&self) -> Vec<NodeStep> {
        let every = self.view.nodes.iter().enumerate();
        every.map(|(at, node)| self.give_node(at, node)).collect()
    }

    fn give_node(&self, at: usize, node: &Node<'a>) -> NodeStep {
        let runtimes = Vec::with_capacity(node.runtimes.len());
        let mut step = NodeStep { permit: None, first: self.first.contains(&at), runtimes };
        if node.joining && !node.leaving && self.view.complete {
            step.permit = Some(Permit::Joining);
        }
        for (run, on) in self.decides[at].iter().zip(&node.runtimes) {
            let Some(run) = run.map(|run| &self.runs[run]).filter(|_| self.view.complete) else {
                step.runtimes.push(RuntimeStep::default());
                continue;
            };
            if let Some(slot) = run.slot(at).filter(|slot| !run.is_withdrawn(slot, on)) {
                let (mut latest, mut asked) = (slot.until, run.is_again());
                if let Some(Permit::Slot { until, again }) = step.permit {
                    (latest, asked) = (latest.max(until), asked || again);
                }
                step.permit = Some(Permit::Slot { until: latest, again: asked });
            }
            let give = run.give(at, node, on);
            step.runtimes.push(RuntimeStep { give, prefetch: run.prefetch(at, node, on, give) });
        }
        step
    }
}

impl Run<'_, '_> {
    /// What a node is sent.
    pub(super) fn give(&self, at: usize, node: &Node<'_>, on: &OnNode<'_>) -> Give {
        let (Some(state), Some(architecture)) = (&self.state, node.architecture) else {
            return Give::Stay;
        };
        let base = self.base(architecture);
        let known = |digest| if base == Some(digest) { Give::Promoted } else { Give::Candidate };
        if let Some(slot) = self.slot(at) {
            let withdrawn = self.is_withdrawn(slot, on) && !on.has(slot.digest);
            return if withdrawn { Give::Stay } else { known(slot.digest)(slot.digest) };
        }
        if self.track.deleting || node.leaving {
            return Give::Stay;
        }
        let or_stay = |base: Option<Digest>| base.map_or(Give::Stay, Give::Promoted);
        let candidate = state.candidate.as_ref();
        let digest = self.candidate(Some(architecture));
        let failed = self.marks.get(&at).is_some_and(|mark| mark.failed);
        match digest {
            // What works stays.
            Some(digest) if on.has(digest) && !failed => return known(digest)(digest),
            // It works with it, as far as anybody knows, and is in trouble at this moment.
            Some(digest) if !failed && Self::may_have(on, digest) => return Give::Stay,
            Some(digest) if node.joining && base.is_none() && self.is_live() => {
                return if failed { Give::Stay } else { Give::Candidate(digest) };
            }
            Some(_) | None if node.joining => return or_stay(base),
            Some(_) | None => {}
        }
        let back = candidate.is_some_and(|candidate| candidate.course == Course::Back);
        let unknown = self.gate == Gate::Unknown || node.link == Link::Awaited;
        if unknown || base.is_some_and(|base| on.has(base)) {
            return if unknown { Give::Stay } else { or_stay(base) };
        }
        let works = on.report.filter(|said| said.phase.is_ready()).and_then(|said| said.digest);
        let replaced = |digest| candidate.is_some_and(|c| c.replaces.contains(&digest));
        let live = candidate.is_some_and(|c| c.halted.is_none()) && self.gate != Gate::Stopped;
        // The way back is taken with a slot, and not at all once it is halted.
        if back && (failed || !live || works.is_some_and(replaced)) {
            return Give::Stay;
        }
        if !back && live && digest.is_some() && !failed {
            let own = state.promoted.contains_key(&architecture);
            if works.is_some_and(replaced) || !own {
                return Give::Stay;
            }
        }
        let begun = base.is_some_and(|base| matches!(on.verdict(base), Verdict::Busy(_)));
        // Nobody follows those that failed with it; what they say has to be seen.
        let fails = base.is_some_and(|base| matches!(on.verdict(base), Verdict::Failing(_)));
        let shut = matches!(self.gate, Gate::Paused | Gate::Frozen) && !begun
            || self.base_is_bad() && !base.is_some_and(|base| on.activates(base)) && !fails;
        if shut { Give::Stay } else { or_stay(base) }
    }

    /// Whether a slot may not be used now: what it is for was stopped, or is over.
    /// What has begun is brought to its end.
    fn is_withdrawn(&self, slot: &Slot, on: &OnNode<'_>) -> bool {
        let stopped = self.state.as_ref().is_some_and(|state| self.is_stopped(state, slot.digest));
        stopped && !on.activates(slot.digest)
    }

    /// Whether nothing new is to be activated with a digest.
    pub(super) fn is_stopped(&self, state: &State, digest: Digest) -> bool {
        if state.paused || self.frozen || self.track.deleting {
            return true;
        }
        match state.candidate.as_ref().filter(|candidate| candidate.has(digest)) {
            Some(candidate) => {
                let forwards = candidate.course == Course::Forwards;
                let stopped = || self.standing(&candidate.digests) == Standing::Stopped;
                candidate.halted.is_some() || forwards && stopped()
            }
            None => {
                let seed = || self.track.seed.is_some_and(|seed| seed.has_promoted(digest));
                let own = || state.promoted.values().any(|promoted| *promoted == digest);
                !(own() || state.promoted.is_empty() && seed())
            }
        }
    }

    /// Whether a node without a slot speaks of the candidate, because it works with
    /// it or did. Left alone it says what containerd has.
    fn may_have(on: &OnNode<'_>, digest: Digest) -> bool {
        let named = on.report.is_some_and(|said| said.digest == Some(digest));
        named
            && match on.verdict(digest) {
                Verdict::Busy(_) => true,
                // What comes ahead can be in trouble as well.
                Verdict::Held(reason) => !is_of_the_pull(reason),
                Verdict::Ready | Verdict::Failing(_) | Verdict::Nothing => false,
            }
    }

    /// What a node may pull ahead of what it is sent.
    fn prefetch(&self, at: usize, node: &Node<'_>, on: &OnNode<'_>, give: Give) -> Option<Digest> {
        let candidate = self.state.as_ref()?.candidate.as_ref();
        if node.leaving || matches!(self.gate, Gate::Frozen | Gate::Unknown | Gate::Deleting) {
            return None;
        }
        let base = self.base(node.architecture?);
        if self.gate == Gate::Paused && give == Give::Stay && candidate.is_none() {
            return base.filter(|base| !on.has(*base));
        }
        let digest = self.candidate(node.architecture)?;
        let given =
            matches!(give, Give::Candidate(given) | Give::Promoted(given) if given == digest);
        let failed = self.marks.get(&at).is_some_and(|mark| mark.failed);
        let goes_on = candidate.is_some_and(|candidate| candidate.halted.is_none());
        let open = matches!(self.gate, Gate::Open | Gate::Paused);
        (!given && !failed && goes_on && open && !on.has(digest)).then_some(digest)
    }

    /// Whether the candidate may be given to nodes that have nothing.
    fn is_live(&self) -> bool {
        let candidate = self.state.as_ref().and_then(|state| state.candidate.as_ref());
        self.gate == Gate::Open && candidate.is_some_and(|candidate| candidate.halted.is_none())
    }

    /// Whether somebody asked for a retry of what is tried.
    fn is_again(&self) -> bool {
        let candidate = self.state.as_ref().and_then(|state| state.candidate.as_ref());
        candidate.is_some_and(|candidate| candidate.attempt > 0)
    }
}
