//! What a node says of itself, and what one sees of it from outside.

use rootstock_core::digest::Digest;
use rootstock_core::status::{Phase, Reason};

use super::Node;
use crate::message::Word;

/// Where a node is, for pictures and tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lane {
    /// It has what it had.
    Before,
    /// Bytes come, or it waits for them.
    Pulling,
    /// The bytes are there, and it waits for its slot.
    Queued,
    /// containerd is being restarted.
    Activating,
    /// It works with the bundle that is brought to all.
    Done,
    /// Something else than the bundle was in its way.
    Held,
    /// The bundle did not work there.
    Failed,
}

impl Lane {
    /// Every lane, in the order of a rollout.
    pub(crate) const ALL: [Self; 7] = [
        Self::Before,
        Self::Pulling,
        Self::Queued,
        Self::Activating,
        Self::Done,
        Self::Held,
        Self::Failed,
    ];

    /// What people read.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Before => "as before",
            Self::Pulling => "pulling",
            Self::Queued => "bytes there, waiting",
            Self::Activating => "activating",
            Self::Done => "done",
            Self::Held => "held up",
            Self::Failed => "failed",
        }
    }
}

impl Node {
    /// What there is to say of it.
    pub(super) fn say(&self) -> Word {
        let (digest, phase, reason) = match (self.pending(), self.works) {
            (Some(digest), _) => {
                let (phase, reason) = self.pending_phase(digest);
                (Some(digest), phase, reason)
            }
            (None, Some(works)) => (Some(works), Phase::Proven, None),
            (None, None) => (None, Phase::Waiting, None),
        };
        let ahead = |digest: &Digest| self.has(*digest) && self.works != Some(*digest);
        let fetched = [self.prefetch, self.desired].into_iter().flatten().find(ahead);
        Word { digest, phase, reason, fetched, sandboxes: self.pods.sandboxes() }
    }

    fn pending_phase(&self, digest: Digest) -> (Phase, Option<Reason>) {
        if self.activation.as_ref().is_some_and(|of| of.digest == digest) {
            (Phase::Activating, None)
        } else if self.degraded == Some(digest) {
            (Phase::Degraded, Some(Reason::ContainerdStartFailed))
        } else if let Some(reason) = self.refused.get(digest) {
            (Phase::RolledBack, Some(*reason))
        } else if self.activate_again.is_some() {
            (Phase::Failed, Some(Reason::HostError))
        } else if self.has(digest) {
            (Phase::Queued, None)
        } else if self.pull_again.is_some() {
            (Phase::Blocked, Some(Reason::RegistryUnreachable))
        } else if self.pull.is_some() {
            (Phase::Pulling, None)
        } else {
            (Phase::Waiting, None)
        }
    }

    /// Where it is with a bundle that is to come to all, by what it last did.
    pub(crate) fn lane(&self, target: Option<Digest>) -> Lane {
        let word = &self.word;
        if self.dead || word.sandboxes.failing() || word.phase.is_failure() && !self.is_held() {
            return Lane::Failed;
        }
        if target.is_some_and(|target| self.refused.get(target).is_some()) {
            return Lane::Failed;
        }
        if self.activation.is_some() {
            return Lane::Activating;
        }
        if target.is_some() && self.works == target {
            return Lane::Done;
        }
        if self.is_held() {
            return Lane::Held;
        }
        if self.pull.is_some() {
            return Lane::Pulling;
        }
        if target.is_some_and(|target| self.has(target)) {
            return Lane::Queued;
        }
        Lane::Before
    }

    fn is_held(&self) -> bool {
        self.pull_again.is_some() || self.activate_again.is_some()
    }
}
