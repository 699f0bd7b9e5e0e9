//! What a condition says of the rollout, before what it says of the nodes.

use std::fmt::Write as _;

use super::words::{bounded, count};
use super::{Condition, ConditionStatus, MAX_MESSAGE};
use crate::rollout::Progress;
use crate::rollout::progress::Phase;
use crate::rollout::record::Course;
use crate::status::Reason;

/// How many failed nodes are named.
const NAMED: usize = 3;

/// A condition of the nodes, with what their rollout waits for.
pub(super) fn said(nodes: Condition, progress: &Progress) -> Condition {
    let (status, reason) = match progress.phase {
        // It does not go on by itself: somebody has to look.
        Phase::Halted(_) | Phase::Stopped | Phase::PromotedFails => {
            (ConditionStatus::False, Reason::Halted.as_str())
        }
        Phase::Idle | Phase::Deleting | Phase::Unknown => return nodes,
        // Every node has it: nothing waits for the rollout.
        _ if nodes.status == ConditionStatus::True => return nodes,
        // What stops nodes says more than that their rollout stands still.
        Phase::Paused | Phase::Frozen if nodes.status == ConditionStatus::Progressing => {
            (nodes.status, Reason::Paused.as_str())
        }
        Phase::Paused
        | Phase::Frozen
        | Phase::Unread
        | Phase::Canary
        | Phase::Soaking { .. }
        | Phase::Wave { .. }
        | Phase::WaitingForRing
        | Phase::WaitingForWindow
        | Phase::WaitingForNodes
        | Phase::Blocked => (nodes.status, nodes.reason.as_str()),
    };
    let mut text = words(progress);
    let _ = write!(text, "; {}", nodes.message);
    Condition {
        status,
        reason: reason.to_owned(),
        message: bounded(text, MAX_MESSAGE),
        ..nodes.clone()
    }
}

fn words(progress: &Progress) -> String {
    let mut text = match progress.course {
        Course::Forwards => "the rollout".to_owned(),
        Course::Back => "the rollout back to the promoted bundle".to_owned(),
    };
    let _ = write!(text, " {}", progress.phase.in_words());
    if let Phase::Wave { number, of } = progress.phase {
        let _ = write!(text, ", wave {number} of {of}");
    }
    let failed = || progress.failures.iter().filter(|failure| !failure.excused);
    if failed().next().is_some() {
        let _ =
            write!(text, "; {} failed, at most {} may", count(failed().count()), progress.budget);
        let named =
            failed().filter_map(|failure| Some((failure.reason, failure.evidence.as_ref()?)));
        for (reason, evidence) in named.take(NAMED) {
            let _ = write!(text, "; {}: {reason}", evidence.name);
            if !evidence.message.is_empty() {
                let _ = write!(text, ", {}", evidence.message);
            }
        }
    }
    if progress.held > 0 {
        let _ = write!(text, "; {} held up by something else", count(progress.held));
    }
    if let Some(advice) = progress.phase.advice() {
        let _ = write!(text, "; what to do: {advice}");
    }
    text
}
