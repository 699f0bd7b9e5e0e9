//! What failed, and when it is tried again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rootstock_core::name::RuntimeType;
use rootstock_core::status::{Phase, Reason};
use tokio::time::Instant;

use crate::backoff::backoff;

/// One thing that failed.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) phase: Phase,
    pub(super) reason: Reason,
    pub(super) message: String,
    /// How often in a row.
    count: u32,
    again: Instant,
}

/// Failures of types, and of the node as a whole.
#[derive(Debug, Default)]
pub(super) struct Failures {
    types: BTreeMap<RuntimeType, Failure>,
    node: Option<Failure>,
}

impl Failures {
    /// A bundle's files did not come.
    pub(super) fn pull(&mut self, runtime: &RuntimeType, reason: Reason, message: String) {
        // What is outside the bundle is in its way, or the bundle itself is wrong.
        let outside = matches!(
            reason,
            Reason::RegistryUnreachable | Reason::RegistryUnauthorized | Reason::NoSpace
        );
        let phase = if outside { Phase::Blocked } else { Phase::Failed };
        // A registry that returns is noticed within 15 s; wrong bytes are asked for rarely.
        let most = Duration::from_secs(if outside { 15 } else { 300 });
        let before = self.types.get(runtime).map_or(0, |failure| failure.count);
        let first = Duration::from_millis(500);
        let failure = Failure::new(phase, reason, message, before, first, most);
        self.types.insert(runtime.clone(), failure);
    }

    /// A bundle could not be activated.
    pub(super) fn activation(&mut self, runtime: &RuntimeType, reason: Reason, message: String) {
        let before = self.types.get(runtime).map_or(0, |failure| failure.count);
        let (first, most) = (Duration::from_secs(30), Duration::from_secs(3600));
        let failure = Failure::new(Phase::Failed, reason, message, before, first, most);
        self.types.insert(runtime.clone(), failure);
    }

    /// Nothing can be changed on this node.
    pub(super) fn node(&mut self, phase: Phase, reason: Reason, message: String) {
        // What is in the way is only looked at; all else restarts containerd each
        // time, which takes its time with many pods.
        let restarts = phase != Phase::Blocked;
        let (first, most) = if restarts { (30, 600) } else { (2, 60) };
        let (first, most) = (Duration::from_secs(first), Duration::from_secs(most));
        self.node_fails(phase, reason, message, (first, most));
    }

    /// What was before can't be put back. Nothing is as urgent, and containerd
    /// was not restarted for it.
    pub(super) fn not_put_back(&mut self, reason: Reason, message: String) {
        let (first, most) = (Duration::from_secs(1), Duration::from_secs(30));
        self.node_fails(Phase::Degraded, reason, message, (first, most));
    }

    fn node_fails(
        &mut self,
        phase: Phase,
        reason: Reason,
        message: String,
        (first, most): (Duration, Duration),
    ) {
        tracing::warn!(%reason, why = message, "the node can't be changed");
        let before = self.node.as_ref().map_or(0, |failure| failure.count);
        self.node = Some(Failure::new(phase, reason, message, before, first, most));
    }

    /// The type has no failure any more.
    pub(super) fn over(&mut self, runtime: &RuntimeType) {
        self.types.remove(runtime);
    }

    /// The node has no failure any more.
    pub(super) fn node_over(&mut self) {
        self.node = None;
    }

    /// Nothing is left to be done: what may be tried again needs it no more. Of
    /// what is being tried it is not known yet.
    pub(super) fn settle(&mut self, tried: &BTreeSet<RuntimeType>) {
        self.types.retain(|runtime, failure| failure.waits() || tried.contains(runtime));
        self.node.take_if(|failure| !failure.waits());
    }

    /// Everything may be tried again at once.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }

    pub(super) fn of(&self, runtime: &RuntimeType) -> Option<&Failure> {
        self.types.get(runtime)
    }

    pub(super) fn of_node(&self) -> Option<&Failure> {
        self.node.as_ref()
    }

    /// Whether the type's time has not come yet.
    pub(super) fn waits(&self, runtime: &RuntimeType) -> bool {
        self.types.get(runtime).is_some_and(Failure::waits)
    }

    /// Whether the node's time has not come yet.
    pub(super) fn node_waits(&self) -> bool {
        self.node.as_ref().is_some_and(Failure::waits)
    }

    /// Whether the node's failure is more than containerd on its way up.
    pub(super) fn node_lasts(&self) -> bool {
        self.node
            .as_ref()
            .is_some_and(|failure| failure.phase == Phase::Failed || failure.count > 1)
    }

    /// The time until the first that waits is tried again, or `otherwise`.
    ///
    /// Never nothing: one whose time has come may still wait for the node.
    pub(super) fn rest(&self, otherwise: Duration) -> Duration {
        let now = Instant::now();
        let waiting = self.types.values().chain(&self.node).filter(|failure| failure.waits());
        let first = waiting.map(|failure| failure.again.saturating_duration_since(now)).min();
        first.map_or(otherwise, |first| first.min(otherwise))
    }
}

impl Failure {
    fn new(
        phase: Phase,
        reason: Reason,
        message: String,
        before: u32,
        first: Duration,
        most: Duration,
    ) -> Self {
        let again = Instant::now() + backoff(before, first, most);
        Self { phase, reason, message, count: before + 1, again }
    }

    /// Whether its time has not come yet.
    pub(super) fn waits(&self) -> bool {
        self.again > Instant::now()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_tried_again_later_and_the_node_rests_until_then() {
        let runtime: RuntimeType = "gvisor".parse().unwrap();
        let mut failures = Failures::default();
        failures.pull(&runtime, Reason::DigestMismatch, "x".into());
        assert!(failures.waits(&runtime));
        let rest = failures.rest(Duration::from_secs(3600));
        assert!(rest <= Duration::from_secs(1), "{rest:?}");
        tokio::time::advance(rest + Duration::from_millis(1)).await;
        assert!(!failures.waits(&runtime));
        assert_eq!(failures.of(&runtime).unwrap().phase, Phase::Failed);
        failures.node(Phase::Failed, Reason::ContainerdStartFailed, "x".into());
        let rest = failures.rest(Duration::from_secs(3600));
        assert!(rest > Duration::from_secs(20), "the type waits for the node: {rest:?}");
        failures.over(&runtime);
        assert_eq!(failures.rest(Duration::from_secs(9)), Duration::from_secs(9));
    }
}
