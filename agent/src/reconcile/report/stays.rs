//! What is said of a type that stays on the node as it is, and of what comes
//! ahead of its turn.

use rootstock_core::desired::DesiredContent;
use rootstock_core::digest::Digest;
use rootstock_core::layout::{Layout, TreeId};
use rootstock_core::name::RuntimeType;
use rootstock_core::plan::{Observed, TreeState};
use rootstock_core::status::{BundleReport, Phase};

use super::{Seen, Waiting, fail, of_bundle, say_coming};

/// A type that the desired state says nothing of, by what is on the node.
pub(super) fn of_node(
    runtime: &RuntimeType,
    seen: &Observed,
    before: Option<&BundleReport>,
) -> BundleReport {
    let of_type = |id: &&TreeId| id.runtime == *runtime;
    let last = || seen.trees.keys().rfind(of_type).map(|id| id.digest);
    let digest = active(runtime, seen).or_else(last);
    match before.filter(|before| digest.is_none() || before.digest == digest) {
        Some(before) => BundleReport { handlers: Vec::new(), ..before.clone() },
        None => BundleReport { digest, ..BundleReport::new(runtime.clone(), Phase::Waiting) },
    }
}

/// The bundle of a type that containerd has, or else the one that its
/// configuration leads to.
fn active(runtime: &RuntimeType, seen: &Observed) -> Option<Digest> {
    let tables = seen.loaded.values().chain(seen.tables.values()).flatten();
    let mut of_tables = tables.filter_map(|table| {
        let leads = |id: &&TreeId| id.runtime == *runtime && id.holds(&table.runtime_path);
        seen.trees.keys().find(leads).map(|id| id.digest)
    });
    of_tables.next()
}

pub(super) fn installed(seen: &Observed) -> Vec<(RuntimeType, Digest, bool)> {
    let named =
        |id: &TreeId| seen.tables.values().flatten().any(|table| id.holds(&table.runtime_path));
    seen.trees.keys().map(|id| (id.runtime.clone(), id.digest, named(id))).collect()
}

/// How a type stands that stays as it is: its handlers are all that is known of it.
pub(super) fn say(now: &mut BundleReport, seen: &Seen) {
    let Seen { observed, proven, .. } = seen;
    let owned = observed.owned.values().filter(|of| **of == now.runtime).count();
    let all = now.handlers.iter().all(|name| proven.iter().any(|h| h.as_str() == name));
    now.phase = match &seen.containerd {
        Err(obstacle) if active(&now.runtime, observed).is_some() => {
            now.reason = Some(obstacle.reason);
            now.message.clone_from(&obstacle.message);
            Phase::Blocked
        }
        Ok(_) if owned > 0 && now.handlers.len() == owned && all => Phase::Proven,
        Ok(_) if owned > 0 && now.handlers.len() == owned => Phase::Loaded,
        Ok(_) | Err(_) => Phase::Waiting,
    };
}

/// What is there of a bundle that may be activated soon. Where the type only
/// stays as it is and the node has nothing of it, the report is about it.
pub(super) fn say_ahead(
    now: &mut BundleReport,
    kept: bool,
    content: &DesiredContent,
    seen: &Observed,
    before: Option<&BundleReport>,
    waiting: Waiting<'_>,
) {
    now.fetched = None;
    let Some(ahead) = content.prefetch.iter().find(|ahead| *ahead.runtime() == now.runtime) else {
        return;
    };
    let complete = Layout::of(ahead).is_ok_and(|layout| {
        seen.trees.get(&layout.tree).is_some_and(|tree| tree.state == TreeState::Complete)
    });
    now.fetched = complete.then_some(ahead.digest);
    if kept && now.phase == Phase::Waiting && active(&now.runtime, seen).is_none() {
        *now = BundleReport { fetched: now.fetched, ..of_bundle(ahead, before) };
        now.phase = match (complete, now.bytes_done) {
            (true, _) => Phase::Verified,
            (false, 0) => Phase::Waiting,
            (false, _) => Phase::Pulling,
        };
        if complete {
            now.bytes_done = now.bytes_total;
        } else if let Some(failure) = waiting.ahead.of(&now.runtime) {
            fail(now, failure);
        }
        if !complete {
            say_coming(now, ahead, before, waiting);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use rootstock_core::layout::HandlerTable;
    use rootstock_core::plan::Tree;
    use rootstock_core::status::Reason;

    use super::*;
    use crate::host::Containerd;
    use crate::reconcile::observe::Obstacle;
    use crate::store::Drift;

    fn tree(version: &str) -> TreeId {
        TreeId {
            binary_path: "/var/bin/containerruntimes".parse().unwrap(),
            runtime: "gvisor".parse().unwrap(),
            digest: Digest::of(version.as_bytes()),
        }
    }

    fn table(version: &str) -> Option<HandlerTable> {
        let runtime_path = format!("{}/shim", tree(version).absolute());
        Some(HandlerTable { runtime_path, ..HandlerTable::default() })
    }

    /// A node with two bundles of gvisor, handlers of which it owns some, has
    /// some in its configuration and some in its containerd, each of a version.
    fn node(owned: &[&str], tables: &[(&str, &str)], loaded: &[(&str, &str)]) -> Seen {
        let state = TreeState::Complete;
        let trees = ["1", "2"].map(|v| (tree(v), Tree { state, handlers: Default::default() }));
        let of = |of: &[(&str, &str)]| {
            of.iter().map(|(name, v)| (name.parse().unwrap(), table(v))).collect()
        };
        let observed = Observed {
            trees: trees.into(),
            owned: owned.iter().map(|h| (h.parse().unwrap(), "gvisor".parse().unwrap())).collect(),
            tables: of(tables),
            loaded: of(loaded),
            ..Observed::default()
        };
        let containerd = Containerd {
            version: "2.1.4".to_owned(),
            start: "1".to_owned(),
            handlers: observed.loaded.clone(),
        };
        Seen {
            observed,
            config: Ok(None),
            unsettled: Duration::ZERO,
            containerd: Ok(containerd),
            activation: None,
            begun: BTreeMap::new(),
            proven: Default::default(),
            sandboxes: BTreeMap::new(),
            drift: Drift::default(),
            stale: Default::default(),
            stale_rendered: Default::default(),
        }
    }

    fn said(seen: &Seen) -> (Phase, Option<Digest>, Option<Reason>) {
        let runtime = "gvisor".parse().unwrap();
        let mut now = of_node(&runtime, &seen.observed, None);
        let loaded = seen.observed.loaded.keys().map(ToString::to_string);
        now.handlers = loaded.collect();
        say(&mut now, seen);
        (now.phase, now.digest, now.reason)
    }

    #[test]
    fn what_stays_is_as_containerd_has_it() {
        let digest = |version: &str| Some(tree(version).digest);
        let (one, two) = ([("a", "1")], [("a", "1"), ("b", "1")]);
        let table = [
            ("in order", node(&["a"], &one, &one), Phase::Loaded, "1"),
            ("its table was taken out", node(&["a"], &[], &one), Phase::Loaded, "1"),
            ("its table was not read yet", node(&["a"], &[("a", "2")], &one), Phase::Loaded, "1"),
            ("one of two is missing", node(&["a", "b"], &two, &one), Phase::Waiting, "1"),
            ("containerd started without it", node(&["a"], &one, &[]), Phase::Waiting, "1"),
            ("nothing was activated", node(&[], &[], &[]), Phase::Waiting, "2"),
        ];
        // The last digest in order is the one that nothing but its files speaks for.
        let last = tree("1").max(tree("2")).digest;
        for (what, seen, phase, version) in table {
            let digest = if version == "2" { Some(last) } else { digest(version) };
            assert_eq!(said(&seen), (phase, digest, None), "{what}");
        }
    }

    #[test]
    fn what_was_proven_and_stays_is_proven() {
        let mut seen = node(&["a"], &[("a", "1")], &[("a", "1")]);
        seen.proven.insert("a".parse().unwrap());
        assert_eq!(said(&seen).0, Phase::Proven);
    }

    #[test]
    fn what_stays_is_blocked_while_containerd_is_down() {
        let down = |mut seen: Seen| {
            let (reason, message) = (Reason::ContainerdUnknown, "refused".to_owned());
            seen.containerd = Err(Obstacle { reason, message });
            seen.observed.loaded.clear();
            said(&seen)
        };
        let (phase, digest, reason) = down(node(&["a"], &[("a", "1")], &[]));
        assert_eq!(
            (phase, digest, reason),
            (Phase::Blocked, Some(tree("1").digest), Some(Reason::ContainerdUnknown))
        );
        assert_eq!(down(node(&[], &[], &[])).0, Phase::Waiting, "it has nothing to lose");
    }
}
