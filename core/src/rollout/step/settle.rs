//! What came of the slots, and of nodes that had none.

use std::time::Duration;

use super::{Work, after};
use crate::digest::Digest;
use crate::name::Uid;
use crate::rollout::record::{
    Candidate, Evidence, Failure, Held, MAX_EVIDENCE, MAX_FAILURES, MAX_HELD,
};
use crate::rollout::view::{Link, Node, OnNode, Seed, Verdict, is_of_the_pull};
use crate::state::State;
use crate::status::{Phase, Reason};

/// How long a node waits that something was in the way of, doubled each time.
const PAUSE: Duration = Duration::from_secs(10 * 60);
/// How often that is doubled: up to 160 minutes.
const DOUBLED: u32 = 4;

/// What came of a slot.
enum Outcome {
    Keeps,
    Passed,
    Failed(Reason),
    Held(Reason),
    /// It says nothing of anything.
    Dropped,
}

impl<'a> Work<'_, 'a> {
    /// Takes slots back: by a report, at their deadline, or because the node is gone.
    pub(super) fn settle(&mut self, run: usize) {
        let Some(mut state) = self.runs[run].state.take() else { return };
        let slots = std::mem::take(&mut state.slots);
        for slot in slots {
            let Some((node, on)) = self.find(run, &slot.node) else { continue };
            let excused = is_excused(&state, &slot.node);
            let held = is_held(&state, &slot.node, slot.digest);
            let verdict = on.map_or(Verdict::Nothing, |on| on.verdict(slot.digest));
            let over = slot.until <= self.now;
            let outcome = match verdict {
                Verdict::Ready => Outcome::Passed,
                // What a node says from before a retry, or a second try, is old.
                Verdict::Failing(reason) if !excused => Outcome::Failed(reason),
                // What can't be recorded is not paused: the slot would be given
                // again at once, and taken back from a node that begins to use it.
                Verdict::Held(reason) if !held && state.held.len() < MAX_HELD => {
                    Outcome::Held(reason)
                }
                _ if !over => Outcome::Keeps,
                // It is being drained: not its bundle's doing.
                _ if node.leaving => Outcome::Dropped,
                _ if node.link != Link::Here => Outcome::Held(Reason::NodeUnreachable),
                Verdict::Busy(Phase::Activating) => Outcome::Failed(Reason::DeadlineExceeded),
                Verdict::Held(reason) | Verdict::Failing(reason) => Outcome::Held(reason),
                Verdict::Busy(_) | Verdict::Nothing => Outcome::Held(Reason::DeadlineExceeded),
            };
            let of_candidate = state.candidate.as_ref().is_some_and(|c| c.has(slot.digest));
            match outcome {
                Outcome::Keeps => state.slots.push(slot),
                Outcome::Passed => {
                    if let Some(candidate) = state.candidate.as_mut().filter(|_| of_candidate) {
                        candidate.passed = candidate.passed.saturating_add(1);
                    }
                }
                Outcome::Failed(reason) => {
                    match state.candidate.as_mut().filter(|_| of_candidate) {
                        Some(candidate) => self.fail(candidate, node, on, reason),
                        None => self.hold(&mut state, node, slot.digest, reason),
                    }
                }
                Outcome::Held(reason) => self.hold(&mut state, node, slot.digest, reason),
                Outcome::Dropped => {}
            }
        }
        self.runs[run].state = Some(state);
    }

    /// Counts nodes that fail without a slot, and forgets what is over.
    pub(super) fn observe(&mut self, run: usize) {
        let Some(mut state) = self.runs[run].state.take() else { return };
        if let Some(candidate) = &mut state.candidate {
            let old = |failure: &Failure| match self.find(run, &failure.node) {
                Some((node, Some(on))) => {
                    let digest = node.architecture.and_then(|of| candidate.digests.get(&of));
                    digest.is_some_and(|d| matches!(on.verdict(*d), Verdict::Failing(_)))
                }
                Some((_, None)) | None => false,
            };
            let kept: Vec<_> =
                candidate.failures.iter().filter(|f| !f.excused || old(f)).cloned().collect();
            candidate.failures = kept;
        }
        let seed = self.runs[run].track.seed;
        let mut held = std::mem::take(&mut state.held);
        held.retain(|held| {
            let silent = held.reason == Reason::NodeUnreachable;
            matters(&state, seed, held.digest)
                && match self.find(run, &held.node) {
                    Some((node, on)) => {
                        let has = on.is_some_and(|on| on.has(held.digest));
                        // What kept its bytes away is over when they are there.
                        let came = is_of_the_pull(held.reason)
                            && on.is_some_and(|on| {
                                let now = on.verdict(held.digest);
                                on.is_fetched(held.digest) && !matches!(now, Verdict::Held(_))
                            });
                        !(has || came || silent && node.link == Link::Here)
                    }
                    None => silent,
                }
        });
        state.held = held;
        for (node, on) in self.members(run) {
            let Some(candidate) = &mut state.candidate else { break };
            let digest = node.architecture.and_then(|of| candidate.digests.get(&of)).copied();
            let Some(digest) = digest.filter(|_| !node.leaving) else { continue };
            match on.verdict(digest) {
                Verdict::Failing(reason) => {
                    let failed = candidate.failures.len();
                    self.fail(candidate, node, Some(on), reason);
                    // It was ready when its slot came back, and is counted once.
                    let slot = state.slots.iter().any(|slot| slot.node == *node.uid);
                    if candidate.failures.len() > failed && !slot {
                        candidate.passed = candidate.passed.saturating_sub(1);
                    }
                }
                Verdict::Held(reason)
                    if !is_held(&state, node.uid, digest)
                        && state.slots.iter().all(|slot| slot.node != *node.uid) =>
                {
                    self.hold(&mut state, node, digest, reason);
                }
                Verdict::Held(_) | Verdict::Ready | Verdict::Busy(_) | Verdict::Nothing => {}
            }
        }
        self.runs[run].state = Some(state);
    }

    /// Records that a node failed, once.
    fn fail(
        &self,
        candidate: &mut Candidate,
        node: &Node<'a>,
        on: Option<&OnNode<'a>>,
        reason: Reason,
    ) {
        let known = candidate.failures.iter().any(|failure| failure.node == *node.uid);
        if known || candidate.failures.len() >= MAX_FAILURES {
            return;
        }
        let shown = candidate.failures.iter().filter(|f| f.evidence.is_some()).count();
        let evidence = (shown < MAX_EVIDENCE).then(|| Evidence {
            name: node.name.clone(),
            message: on.map(|on| words(on, reason)).unwrap_or_default(),
        });
        let node = node.uid.clone();
        candidate.failures.push(Failure { node, reason, at: self.now, excused: false, evidence });
    }

    /// Records that something is in a node's way, and when it may try again.
    fn hold(&self, state: &mut State, node: &Node<'a>, digest: Digest, reason: Reason) {
        let pause = |times: u32| after(self.now, PAUSE * 2_u32.pow(times.min(DOUBLED)));
        let known = state.held.iter_mut().find(|h| h.node == *node.uid && h.digest == digest);
        if let Some(held) = known {
            (held.reason, held.again) = (reason, pause(held.times));
            held.times = held.times.saturating_add(1);
            return;
        }
        if state.held.len() >= MAX_HELD && reason == Reason::NodeUnreachable {
            // What holds up a node that is here is seen again.
            let seen = state.held.iter().position(|held| held.reason != Reason::NodeUnreachable);
            seen.into_iter().for_each(|at| drop(state.held.remove(at)));
        }
        if state.held.len() < MAX_HELD {
            let (node, again) = (node.uid.clone(), pause(0));
            state.held.push(Held { node, digest, reason, again, times: 1 });
        }
    }
}

/// What a node said, cut; or what was counted there.
fn words(on: &OnNode<'_>, reason: Reason) -> String {
    let message = on.report.map(|said| said.message).unwrap_or_default();
    let rate = on.sandboxes.failed;
    if reason == Reason::ProofFailed && on.sandboxes.failing() {
        let (count, minutes) = (rate.count, rate.seconds.div_ceil(60));
        return format!("{count} sandboxes could not be started in {minutes} min");
    }
    crate::name::cut(message)
}

/// Whether a digest is one that nodes may still activate.
pub(super) fn matters(state: &State, seed: Option<&Seed>, digest: Digest) -> bool {
    state.candidate.as_ref().is_some_and(|candidate| candidate.has(digest))
        || state.promoted.values().any(|promoted| *promoted == digest)
        || state.slots.iter().any(|slot| slot.digest == digest)
        || seed.is_some_and(|seed| seed.promoted.values().any(|promoted| *promoted == digest))
}

fn is_excused(state: &State, node: &Uid) -> bool {
    let failures = state.candidate.as_ref().map_or(&[][..], |c| &c.failures);
    failures.iter().any(|failure| failure.excused && failure.node == *node)
}

fn is_held(state: &State, node: &Uid, digest: Digest) -> bool {
    state.held.iter().any(|held| held.node == *node && held.digest == digest)
}
