//! What has happened, told by what a status said and what it says now: a
//! controller that starts has nothing to tell where nothing changed.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use rootstock_core::digest::Digest;
use rootstock_core::name::Architecture;
use rootstock_core::status::Reason;

use super::provider::RuntimeStatus;
use crate::events::Word;
use crate::index::Summary;

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
    let begun = before.and_then(|before| before.rollout.as_ref());
    match (begun, &after.rollout) {
        (None, Some(rollout)) => {
            news.push((Word::RolloutBegun, format!("{} to go", count(rollout.nodes))));
        }
        (Some(rollout), None) if after.nodes.selected > 0 => {
            let seconds = now.as_second().saturating_sub(rollout.since.as_second());
            let took = Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
            let took = humantime::format_duration(took);
            let (rolled, all) = (count(rollout.nodes), count(after.nodes.selected));
            news.push((Word::RolloutDone, format!("{rolled} took {took}; {all} ready")));
        }
        _ => {}
    }
    news.extend(failed(before, summary).map(|note| (Word::NodesFailed, note)));
    news
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
