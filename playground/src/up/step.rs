//! What a node is doing, in words that an operator uses.

use std::fmt;

use rootstock_core::status::{Phase, Reason};

use crate::seed::status::{NodeBundle, NodeEntry, StatusPage};

/// Where a node is on its way; later variants are further, failures are last.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    /// The controller asks the registry what the bundle is.
    Resolving,
    /// Its agent has not connected, or has not begun.
    WaitingForNode,
    /// Bytes are on their way.
    Pulling {
        /// Which types.
        what: String,
        /// Bytes that are there.
        done: u64,
        /// Bytes in all.
        total: u64,
    },
    /// All bytes are there; the last are being checked.
    Verifying,
    /// Waits for the permission to activate.
    Queued,
    /// Every byte is right: files and links take their places.
    Installing,
    /// containerd gets its new configuration, is restarted and looked at.
    Restarting,
    /// Every runtime of the node can be used.
    Ready,
    /// A runtime does not get further.
    Failed {
        /// Which type.
        what: String,
        /// The reason, in one word.
        reason: String,
        /// The reason, for people.
        message: String,
    },
}

impl Step {
    /// What a node that should have `wanted` is doing.
    pub(super) fn of(wanted: &[String], page: &StatusPage, node: Option<&NodeEntry>) -> Self {
        let mut unresolved = wanted.iter().filter_map(|runtime| {
            page.bundles.iter().find(|bundle| &bundle.runtime == runtime && bundle.digest.is_none())
        });
        if let Some(bundle) = unresolved.next() {
            return match &bundle.reason {
                None => Self::Resolving,
                Some(reason) if reason == Reason::BundlePending.as_str() => Self::Resolving,
                Some(reason) => Self::Failed {
                    what: bundle.runtime.clone(),
                    reason: reason.clone(),
                    message: bundle.message.clone().unwrap_or_default(),
                },
            };
        }
        let Some(node) = node.filter(|node| node.connected) else {
            return Self::WaitingForNode;
        };
        let bundles: Option<Vec<&NodeBundle>> =
            wanted.iter().map(|runtime| node.bundle(runtime)).collect();
        match bundles {
            Some(bundles) => Self::of_bundles(&bundles),
            None => Self::WaitingForNode,
        }
    }

    fn of_bundles(bundles: &[&NodeBundle]) -> Self {
        let phases: Vec<(Option<Phase>, &NodeBundle)> =
            bundles.iter().map(|bundle| (bundle.phase.parse().ok(), *bundle)).collect();
        let any = |wanted: Phase| phases.iter().find(|(phase, _)| *phase == Some(wanted));
        if let Some((_, bundle)) =
            phases.iter().find(|(phase, _)| phase.is_some_and(Phase::is_failure))
        {
            return Self::Failed {
                what: bundle.runtime.clone(),
                reason: bundle.reason.clone().unwrap_or_else(|| bundle.phase.clone()),
                message: bundle.message.clone().unwrap_or_default(),
            };
        }
        if any(Phase::Pulling).is_some() {
            // All of the node's bytes, so that its bar never goes back.
            let names: Vec<&str> = phases
                .iter()
                .filter(|(phase, _)| *phase == Some(Phase::Pulling))
                .map(|(_, bundle)| bundle.runtime.as_str())
                .collect();
            let done = bundles.iter().map(|bundle| bundle.bytes_done).sum();
            let total = bundles.iter().map(|bundle| bundle.bytes_total).sum();
            if done == total && total > 0 {
                return Self::Verifying;
            }
            return Self::Pulling { what: names.join(", "), done, total };
        }
        if any(Phase::Activating).is_some() {
            return Self::Restarting;
        }
        if any(Phase::Waiting).is_some() {
            return Self::WaitingForNode;
        }
        if any(Phase::Queued).is_some() {
            return Self::Queued;
        }
        if bundles.iter().all(|bundle| bundle.is_ready()) { Self::Ready } else { Self::Installing }
    }

    /// Whether two steps differ in more than bytes.
    pub(super) fn differs(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Pulling { what: a, .. }, Self::Pulling { what: b, .. }) => a != b,
            _ => self != other,
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Resolving => f.write_str("resolving"),
            Self::WaitingForNode => f.write_str("waiting for the node"),
            Self::Pulling { what, done, total } => {
                write!(f, "pulling {what} {}/{} MiB", Mebibytes(*done), Mebibytes(*total))
            }
            Self::Verifying => f.write_str("verifying"),
            Self::Queued => f.write_str("waiting for a slot"),
            Self::Installing => f.write_str("installing"),
            Self::Restarting => f.write_str("restarting containerd"),
            Self::Ready => f.write_str("ready"),
            Self::Failed { what, reason, message } if message.is_empty() => {
                write!(f, "{what}: {reason}")
            }
            Self::Failed { what, reason, message } => write!(f, "{what}: {reason}: {message}"),
        }
    }
}

/// Bytes, in MiB with one decimal place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mebibytes(pub(super) u64);

impl fmt::Display for Mebibytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Tenths of a MiB, so that no float has to carry the bytes.
        let tenths = self.0.saturating_mul(10) / (1 << 20);
        f.pad(&format!("{}.{}", tenths / 10, tenths % 10))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Type, phase and message.
    type Bundle = (&'static str, &'static str, &'static str);

    fn page(digest: Option<&str>, phases: &[Bundle]) -> StatusPage {
        let bundles: Vec<_> = phases
            .iter()
            .map(|(runtime, phase, message)| {
                json!({"type": runtime, "phase": phase, "message": message,
                       "bytesDone": 1 << 20, "bytesTotal": 3 << 20})
            })
            .collect();
        serde_json::from_value(json!({
            "bundles": [{"type": "gvisor", "reference": "r", "digest": digest}],
            "nodes": [{"shoot": "s", "name": "n", "connected": true, "bundles": bundles}],
        }))
        .unwrap()
    }

    fn step(page: &StatusPage) -> String {
        let wanted = ["gvisor".to_owned(), "kata".to_owned()];
        Step::of(&wanted, page, page.node("s", "n")).to_string()
    }

    #[test]
    fn a_node_is_as_far_as_its_slowest_runtime() {
        let table: [(&str, &[Bundle]); 7] = [
            ("waiting for the node", &[]),
            ("waiting for the node", &[("gvisor", "Proven", "")]),
            ("pulling gvisor 2.0/6.0 MiB", &[("gvisor", "Pulling", ""), ("kata", "Verified", "")]),
            ("installing", &[("gvisor", "Verified", ""), ("kata", "Loaded", "")]),
            ("restarting containerd", &[("gvisor", "Activating", ""), ("kata", "Verified", "")]),
            ("ready", &[("gvisor", "Proven", ""), ("kata", "Loaded", "")]),
            (
                "kata: Blocked: no room",
                &[("gvisor", "Pulling", ""), ("kata", "Blocked", "no room")],
            ),
        ];
        for (expected, phases) in table {
            assert_eq!(step(&page(Some("d"), phases)), expected);
        }
        assert_eq!(step(&page(None, &[])), "resolving");
        let nobody = StatusPage::default();
        assert_eq!(step(&nobody), "waiting for the node");
    }

    #[test]
    fn bytes_alone_are_no_new_step() {
        let pulling = |done| Step::Pulling { what: "gvisor".to_owned(), done, total: 9 };
        assert!(!pulling(1).differs(&pulling(2)));
        assert!(pulling(1).differs(&Step::Verifying));
    }
}
