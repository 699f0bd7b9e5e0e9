//! What a status is made of and what it says, by the controller's own types.

use std::collections::BTreeSet;

use rootstock_core::runtime_status::{BundleStatus, RuntimeStatus, SlowNode};
use rootstock_core::status::Reason;

use crate::index::{Missed, ResolvedView, Slow};

/// Whose agent was away by a status.
pub(super) fn missed(status: &RuntimeStatus) -> Missed {
    let is_away = |reason| matches!(reason, Reason::AgentMissing | Reason::NodeUnreachable);
    let away = status.nodes.reasons.iter().filter(|(reason, _)| is_away(**reason));
    let count: usize = away.map(|(_, count)| *count).sum();
    let named = status.slowest_nodes.iter().filter(|node| node.reason.is_some_and(is_away));
    let named: BTreeSet<_> = named.filter_map(|node| node.name.parse().ok()).collect();
    if named.len() < count { Missed::More } else { Missed::Named(named) }
}

/// What a type stands for.
pub(super) fn bundle(view: &ResolvedView) -> BundleStatus {
    let digests = view.digests.iter().filter_map(|(a, digest)| Some((*a, (*digest)?)));
    let (reference, version) = (view.reference.clone(), view.version.clone());
    BundleStatus { reference, version, digests: digests.collect() }
}

/// A node that does not have the runtime. `before` is what was written of the
/// slowest nodes: a controller that has just started has not seen for how long
/// they have been so.
pub(super) fn slow_node(slow: &Slow, before: &[SlowNode]) -> SlowNode {
    let name = slow.name.as_str();
    let known = before.iter().find(|node| node.name == name).map(|node| node.since);
    SlowNode {
        name: name.to_owned(),
        phase: slow.phase,
        reason: slow.reason,
        since: known.map_or(slow.since, |known| known.min(slow.since)),
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use rootstock_core::runtime_status::NodesStatus;
    use rootstock_core::status::Phase;

    use super::*;

    #[test]
    fn a_status_tells_who_was_missed() {
        let status = |named: &[(&str, Reason)], counts: &[(Reason, usize)]| {
            let since = Timestamp::UNIX_EPOCH;
            let slow = |(name, reason): &(&str, Reason)| SlowNode {
                name: (*name).to_owned(),
                phase: Phase::Waiting,
                reason: Some(*reason),
                since,
            };
            let nodes =
                NodesStatus { reasons: counts.iter().copied().collect(), ..Default::default() };
            let slowest_nodes = named.iter().map(slow).collect();
            missed(&RuntimeStatus { nodes, slowest_nodes, ..RuntimeStatus::new() })
        };
        let these = |names: &[&str]| {
            Missed::Named(names.iter().map(|name| name.parse().unwrap()).collect())
        };
        use Reason::{AgentMissing, NoSpace, NodeUnreachable};
        assert_eq!(status(&[], &[]), these(&[]));
        assert_eq!(status(&[("a", NoSpace)], &[(NoSpace, 7)]), these(&[]));
        let named = [("a", NoSpace), ("b", AgentMissing), ("c", NodeUnreachable)];
        let all = status(&named, &[(NoSpace, 1), (AgentMissing, 1), (NodeUnreachable, 1)]);
        assert_eq!(all, these(&["b", "c"]));
        assert_eq!(status(&named, &[(AgentMissing, 2), (NodeUnreachable, 1)]), Missed::More);
    }
}
