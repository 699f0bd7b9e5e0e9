//! What has happened, told by what a status said and what it says now: a
//! controller that starts has nothing to tell where nothing changed.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use jiff::Timestamp;
use rootstock_core::digest::Digest;
use rootstock_core::name::Architecture;
use rootstock_core::runtime_status::{Rollout, RolloutPhase, RuntimeStatus};
use rootstock_core::status::Reason;

use crate::events::Word;
use crate::index::Summary;

/// The longest list in a note, in bytes: Kubernetes takes 1024 of a note.
const MAX_NOTE: usize = 1000;

/// What one Event says.
pub(super) type News = (Word, String);

/// What has happened between two states. `moved` is what was promoted on the
/// seed that the resource comes from, or here before.
pub(super) fn of(
    before: Option<&RuntimeStatus>,
    moved: &BTreeMap<Architecture, Digest>,
    after: &RuntimeStatus,
    summary: &Summary,
    now: Timestamp,
) -> Vec<News> {
    let mut news = Vec::new();
    news.extend(resolved(before, moved, after).map(|note| (Word::BundleResolved, note)));
    news.extend(rolled(before.and_then(|before| before.rollout.as_ref()), after, now));
    news.extend(passed_over(before, after).map(|note| (Word::ConfigurationPassedOver, note)));
    news.extend(failed(before, summary).map(|note| (Word::NodesFailed, note)));
    news
}

/// A rollout has begun, goes on, stands, or is over.
fn rolled(before: Option<&Rollout>, after: &RuntimeStatus, now: Timestamp) -> Vec<News> {
    let mut news = Vec::new();
    // What waits for a ring, or is paused with nothing to try, has not begun.
    let with_nodes = |rollout: &&Rollout| rollout.nodes > 0;
    match (before.filter(with_nodes), after.rollout.as_ref().filter(with_nodes)) {
        (None, Some(rollout)) => {
            news.push((Word::RolloutBegun, format!("{} to go", count(rollout.nodes))));
        }
        (Some(rollout), None) if after.rollout.is_none() && after.nodes.selected > 0 => {
            let seconds = now.as_second().saturating_sub(rollout.since.as_second());
            let took = Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
            let took = humantime::format_duration(took);
            let (rolled, all) = (count(rollout.nodes), count(after.nodes.selected));
            news.push((Word::RolloutDone, format!("{rolled} took {took}; {all} ready")));
        }
        (Some(_), _) | (None, None) => {}
    }
    news.extend(after.rollout.as_ref().and_then(|after| advanced(before, after)));
    news
}

/// A rollout is in another phase than before, or in another wave; or it stands
/// from its begin on.
fn advanced(before: Option<&Rollout>, after: &Rollout) -> Option<News> {
    let stands = matches!(
        after.phase,
        Some(RolloutPhase::Halted | RolloutPhase::Stopped | RolloutPhase::PromotedFails)
    );
    let moved = |before: &Rollout| before.phase != after.phase || before.wave != after.wave;
    if !before.map_or(stands, moved) {
        return None;
    }
    let word = if stands { Word::RolloutHalted } else { Word::RolloutAdvanced };
    let mut note = after.message.clone();
    if let (Some(wave), Some(waves)) = (after.wave, after.waves) {
        let _ = write!(note, ", wave {wave} of {waves}");
    }
    for failed in &after.failures {
        let reason = failed.reason.map_or("Failed", Reason::as_str);
        let _ = write!(note, "; {}: {reason} {}", failed.node, failed.message);
    }
    note.truncate(note.floor_char_boundary(MAX_NOTE));
    Some((word, note))
}

/// The first bundle of a resource is no news; another one is.
fn resolved(
    before: Option<&RuntimeStatus>,
    moved: &BTreeMap<Architecture, Digest>,
    after: &RuntimeStatus,
) -> Option<String> {
    let to = after.bundle.as_ref()?;
    let from = before.and_then(|before| before.bundle.as_ref()).map_or(moved, |b| &b.digests);
    let changed = to.digests.iter().any(|(a, digest)| from.get(a).is_some_and(|f| f != digest));
    changed.then(|| {
        let (from, version, reference) = (words(from), &to.version, &to.reference);
        format!("{reference} is now {version} ({}), before {from}", words(&to.digests))
    })
}

/// Other parts of the providerConfig than before are passed over.
fn passed_over(before: Option<&RuntimeStatus>, after: &RuntimeStatus) -> Option<String> {
    let list = after.passed_over.as_slice();
    let known = before.map_or(&[][..], |before| &before.passed_over);
    (!list.is_empty() && list != known).then(|| passed_over_in_words(list))
}

/// What is passed over in one line that an Event takes.
fn passed_over_in_words(list: &[String]) -> String {
    let mut note = "passed over: ".to_owned();
    for (at, one) in list.iter().enumerate() {
        let rest = list.len() - at;
        let more = format!("and {rest} more");
        if note.len() + one.len() + "; ".len() + more.len() > MAX_NOTE {
            note.push_str(&more);
            return note;
        }
        note.push_str(one);
        if rest > 1 {
            note.push_str("; ");
        }
    }
    note
}

/// Nodes fail for a reason for which none failed before.
fn failed(before: Option<&RuntimeStatus>, summary: &Summary) -> Option<String> {
    // Nodes come and go, and a bundle that is away has a condition of its own.
    let counts = |reason: &Reason| *reason != Reason::NodeUnreachable && summary.bundle.is_some();
    let known = |reason| before.is_some_and(|before| before.nodes.reasons.contains_key(reason));
    let stopped = summary.stopped.iter().filter(|(reason, _)| counts(reason));
    let is_new = stopped.clone().any(|(reason, _)| !known(reason));
    is_new.then(|| {
        let part = |(reason, (nodes, names)): (&Reason, &(usize, String))| {
            format!("{reason} on {} ({names})", count(*nodes))
        };
        stopped.map(part).collect::<Vec<_>>().join("; ")
    })
}

fn words(digests: &BTreeMap<Architecture, Digest>) -> String {
    let words = digests.iter().map(|(a, digest)| format!("{a} {digest}"));
    words.collect::<Vec<_>>().join(", ")
}

fn count(nodes: usize) -> String {
    if nodes == 1 { "1 node".to_owned() } else { format!("{nodes} nodes") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rollout_begins_with_its_first_node() {
        use RolloutPhase::{Canary, Paused, Stopped, WaitingForRing};
        use Word::{RolloutAdvanced, RolloutBegun, RolloutDone, RolloutHalted};
        type Case = (&'static str, &'static [(RolloutPhase, usize)], &'static [Word]);
        let table: [Case; 6] = [
            ("a new bundle", &[(Canary, 5)], &[RolloutBegun, RolloutDone]),
            (
                "its ring opens later",
                &[(WaitingForRing, 0), (Canary, 5)],
                &[RolloutBegun, RolloutAdvanced, RolloutDone],
            ),
            ("a pause of nothing", &[(Paused, 0)], &[]),
            ("a bundle in a pause", &[(Paused, 0), (Paused, 5)], &[RolloutBegun, RolloutDone]),
            ("it stands from its begin on", &[(Stopped, 0)], &[RolloutHalted]),
            ("with nodes, too", &[(Stopped, 5)], &[RolloutBegun, RolloutHalted, RolloutDone]),
        ];
        for (name, steps, words) in table {
            let rollouts = steps.iter().map(|(phase, nodes)| {
                Some(Rollout { phase: Some(phase.clone()), nodes: *nodes, ..Rollout::default() })
            });
            let (mut before, mut said) = (None, Vec::new());
            for rollout in rollouts.chain([None]) {
                let mut status = RuntimeStatus { rollout, ..RuntimeStatus::default() };
                status.nodes.selected = 5;
                let news = rolled(before.as_ref(), &status, Timestamp::UNIX_EPOCH);
                said.extend(news.into_iter().map(|(word, _)| word));
                before = status.rollout;
            }
            assert_eq!(said, words, "{name}");
        }
    }

    #[test]
    fn what_is_passed_over_is_said_when_it_changes_and_stays_short() {
        let with = |passed_over: &[&str]| RuntimeStatus {
            passed_over: passed_over.iter().map(|one| (*one).to_owned()).collect(),
            ..RuntimeStatus::default()
        };
        assert_eq!(passed_over(None, &with(&[])), None);
        let said = passed_over(None, &with(&["a is 1", "b is 2"])).unwrap();
        assert_eq!(said, "passed over: a is 1; b is 2");
        assert_eq!(passed_over(Some(&with(&["a is 1"])), &with(&["a is 1"])), None);
        assert!(passed_over(Some(&with(&["a is 1"])), &with(&["c is 1"])).is_some());

        let many: Vec<String> = (0..20).map(|n| format!("{n:03}{}", "x".repeat(97))).collect();
        let note = passed_over_in_words(&many);
        let named = note.matches('x').count() / 97;
        assert!(note.len() <= MAX_NOTE && note.ends_with(&format!("; and {} more", 20 - named)));
    }
}
