//! What came of the slots, and of nodes that had none.

use std::time::Duration;

use jiff::Timestamp;

use super::{Work, after};
use crate::digest::Digest;
use crate::name::Uid;
use crate::rollout::record::{
    Candidate, Evidence, Failure, Halt, Held, MAX_EVIDENCE, MAX_FAILURES, MAX_HELD, MAX_NAMED,
    Silent, Slot, Why,
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
    /// Its node fell silent since it had it.
    Lost,
    /// It says nothing of anything.
    Dropped,
}

impl<'a> Work<'_, 'a> {
    /// Takes slots back: by a report, at their deadline, or because the node is gone.
    pub(super) fn settle(&mut self, run: usize) {
        let Some(mut state) = self.runs[run].state.take() else { return };
        let slots = std::mem::take(&mut state.slots);
        let (mut lost, mut silent) = (Vec::new(), 0);
        for mut slot in slots {
            let of_candidate = state.candidate.as_ref().is_some_and(|c| c.has(slot.digest));
            let Some((node, on)) = self.find(run, &slot.node) else {
                // Whoever replaces silent nodes must not make a rollout forget them.
                lost.extend(Some(slot).filter(|slot| of_candidate && slot.silent.is_some()));
                continue;
            };
            slot.silent = self.silence(slot.silent, node, silent < MAX_NAMED);
            silent += usize::from(slot.silent.is_some());
            let excused = is_excused(&state, &slot.node);
            let held = is_held(&state, &slot.node, slot.digest);
            let verdict = on.map_or(Verdict::Nothing, |on| on.verdict(slot.digest));
            let over = slot.until <= self.now;
            let stopped = self.runs[run].is_stopped(&state, slot.digest);
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
                // Whoever has not come to this controller yet may have much to say.
                _ if node.link == Link::Awaited => Outcome::Keeps,
                // It was drained, or went with its machine after it fell silent.
                _ if node.leaving && slot.silent.is_none() => Outcome::Dropped,
                _ if node.link != Link::Here => Outcome::Lost,
                Verdict::Busy(Phase::Activating) => Outcome::Failed(Reason::DeadlineExceeded),
                // It was not to be used.
                _ if stopped => Outcome::Dropped,
                Verdict::Held(reason) | Verdict::Failing(reason) => Outcome::Held(reason),
                Verdict::Busy(_) | Verdict::Nothing => Outcome::Held(Reason::DeadlineExceeded),
            };
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
                        None => self.hold(&mut state, node.uid, slot.digest, reason),
                    }
                }
                Outcome::Held(reason) => self.hold(&mut state, node.uid, slot.digest, reason),
                Outcome::Lost => lost.push(slot),
                Outcome::Dropped => {}
            }
        }
        let proven = lost.is_empty() || self.is_proven(run, &state);
        for slot in lost {
            match state.candidate.as_mut().filter(|c| !proven && c.has(slot.digest)) {
                Some(candidate) => self.lose(run, candidate, slot),
                None => self.hold(&mut state, &slot.node, slot.digest, Reason::NodeUnreachable),
            }
        }
        self.runs[run].state = Some(state);
    }

    /// Since when a node with a slot is silent, by what was known and is now. One
    /// that was on its way out before is not: its end is no bundle's doing.
    fn silence(&self, before: Option<Silent>, node: &Node<'a>, named: bool) -> Option<Silent> {
        match node.link {
            Link::Here => None,
            Link::Awaited => before,
            Link::Away { .. } if node.leaving => before,
            Link::Away { .. } => before.or_else(|| {
                Some(Silent { since: self.now, name: named.then(|| node.name.clone()) })
            }),
        }
    }

    /// Whether a node works with the candidate, or did: then one that is silent
    /// is that node's trouble, until there are too many.
    fn is_proven(&self, run: usize, state: &State) -> bool {
        let Some(candidate) = &state.candidate else { return true };
        let has = |(node, on): (&Node<'a>, &OnNode<'a>)| {
            let digest = node.architecture.and_then(|of| candidate.digests.get(&of));
            digest.is_some_and(|digest| on.has(*digest))
        };
        candidate.passed > 0 || self.members(run).any(has)
    }

    /// Gives the node of a slot up.
    fn lose(&self, run: usize, candidate: &mut Candidate, slot: Slot) {
        let Slot { node, silent, .. } = slot;
        let here = self.find(run, &node).map(|(node, _)| node.name.clone());
        let since = silent.as_ref().map_or(self.now, |silent| silent.since);
        let name = here.or_else(|| silent.and_then(|silent| silent.name));
        let message = format!("silent since {since}, after it was to activate the bundle");
        candidate.lose(node, name.map(|name| Evidence { name, message }), self.now);
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
                    self.hold(&mut state, node.uid, digest, reason);
                }
                Verdict::Held(_) | Verdict::Ready | Verdict::Busy(_) | Verdict::Nothing => {}
            }
        }
        self.runs[run].state = Some(state);
    }

    /// Records that a node failed, once; of one that was lost, what it says now.
    fn fail(
        &self,
        candidate: &mut Candidate,
        node: &Node<'a>,
        on: Option<&OnNode<'a>>,
        reason: Reason,
    ) {
        let message = || on.map(|on| words(on, reason)).unwrap_or_default();
        if let Some(known) = candidate.failures.iter_mut().find(|f| f.node == *node.uid) {
            if known.reason == Reason::NodeUnreachable && !known.excused {
                known.reason = reason;
                known.evidence.iter_mut().for_each(|evidence| evidence.message = message());
            }
            return;
        }
        let evidence = Evidence { name: node.name.clone(), message: message() };
        candidate.note(node.uid.clone(), reason, Some(evidence), self.now);
    }

    /// Records that something is in a node's way, and when it may try again.
    fn hold(&self, state: &mut State, node: &Uid, digest: Digest, reason: Reason) {
        let pause = |times: u32| after(self.now, PAUSE * 2_u32.pow(times.min(DOUBLED)));
        let known = state.held.iter_mut().find(|h| h.node == *node && h.digest == digest);
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
            let (node, again) = (node.clone(), pause(0));
            state.held.push(Held { node, digest, reason, again, times: 1 });
        }
    }
}

impl Candidate {
    /// Records that a node failed, as long as there is room; of the first ones
    /// also who it is and what it said.
    fn note(&mut self, node: Uid, reason: Reason, evidence: Option<Evidence>, at: Timestamp) {
        if self.failures.len() >= MAX_FAILURES {
            return;
        }
        let shown = self.failures.iter().filter(|failure| failure.evidence.is_some()).count();
        let evidence = evidence.filter(|_| shown < MAX_EVIDENCE);
        self.failures.push(Failure { node, reason, at, excused: false, evidence });
    }

    /// Halts it: all that is known of it is that a node fell silent with it.
    pub(super) fn lose(&mut self, node: Uid, evidence: Option<Evidence>, at: Timestamp) {
        self.failures.retain(|failure| failure.node != node);
        self.note(node, Reason::NodeUnreachable, evidence, at);
        self.halted.get_or_insert(Halt { at, why: Why::CanaryLost });
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
        || seed.is_some_and(|seed| seed.has_promoted(digest))
}

fn is_excused(state: &State, node: &Uid) -> bool {
    let failures = state.candidate.as_ref().map_or(&[][..], |c| &c.failures);
    failures.iter().any(|failure| failure.excused && failure.node == *node)
}

fn is_held(state: &State, node: &Uid, digest: Digest) -> bool {
    state.held.iter().any(|held| held.node == *node && held.digest == digest)
}
