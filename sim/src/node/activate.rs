//! Activations, and the pods that use what was activated.

use std::time::Duration;

use rootstock_core::digest::Digest;
use rootstock_core::rollout::view::{Rate, Sandboxes};
use rootstock_core::status::Reason;

use super::{Deed, Node};
use crate::bundle::{Bundles, Fate};
use crate::rng::Rng;

/// containerd is being restarted and looked at.
#[derive(Debug)]
pub(super) struct Activation {
    pub(super) digest: Digest,
    end: Duration,
    /// Something else than the bundle is in the way.
    held: bool,
}

impl Activation {
    pub(super) fn end(&self) -> Duration {
        self.end
    }
}

/// More sandboxes than these nobody counts.
const COUNTED: u64 = 5;
/// So many failed ones say all that there is to say.
const FAILED: u32 = 9;

/// The pods that use the runtime.
#[derive(Debug, Default)]
pub(super) struct Pods {
    started: u64,
    failed: u32,
    next: Option<Duration>,
}

impl Pods {
    pub(super) fn next(&self) -> Option<Duration> {
        self.next
    }

    pub(super) fn sandboxes(&self) -> Sandboxes {
        let failed = Rate { count: self.failed, seconds: 60 };
        let failed_before = Rate { count: 1, seconds: 600 };
        Sandboxes { started: self.started, failed, failed_before }
    }
}

impl Node {
    /// Begins what is pending, if it may.
    pub(super) fn begin_activation(&mut self, now: Duration, rng: &mut Rng) -> Option<Deed> {
        let digest = self.pending().filter(|digest| self.has(*digest))?;
        if self.activation.is_some() || self.activate_again.is_some() {
            return None;
        }
        let slot = self.permitted(now).filter(|_| self.refused.get(digest).is_none())?;
        self.used = slot;
        // containerd restarts in some seconds; the proof and the time for which
        // it has to stay up follow.
        let end = now + rng.millis(5_000..15_000);
        let held = rng.chance(self.traits.host_fails);
        self.activation = Some(Activation { digest, end, held });
        Some(Deed::Began(digest, slot.is_some()))
    }

    /// What came of it.
    pub(super) fn end_activation(
        &mut self,
        now: Duration,
        bundles: &Bundles,
        rng: &mut Rng,
    ) -> Option<Deed> {
        let Activation { digest, held, .. } = self.activation.take_if(|a| a.end <= now)?;
        if held {
            // The agent tries again by itself after a while, when it may.
            self.activate_again = Some(now + rng.millis(30_000..90_000));
            return Some(Deed::WasHeld);
        }
        match bundles.fate(digest) {
            fate @ (Fate::Works | Fate::FailsPods) => {
                (self.works, self.degraded) = (Some(digest), None);
                let next = Some(now + rng.millis(5_000..60_000));
                self.pods = Pods { next, ..Pods::default() };
                Some(if fate == Fate::Works { Deed::Worked(digest) } else { Deed::Broke(digest) })
            }
            Fate::RollsBack => {
                self.refused.insert(digest, Reason::ContainerdStartFailed);
                Some(Deed::Broke(digest))
            }
            Fate::Degrades => {
                self.refused.insert(digest, Reason::ContainerdStartFailed);
                (self.works, self.degraded) = (None, Some(digest));
                Some(Deed::Broke(digest))
            }
            Fate::Silences => {
                self.dead = true;
                Some(Deed::Died)
            }
        }
    }

    /// Pods come, and their sandboxes start or don't.
    pub(super) fn run_pods(&mut self, now: Duration, bundles: &Bundles, rng: &mut Rng) {
        let Some(next) = self.pods.next.filter(|next| *next <= now) else { return };
        let fails = self.works.is_none_or(|digest| bundles.fate(digest) == Fate::FailsPods);
        if fails {
            self.pods.failed += 1;
        } else {
            self.pods.started += 1;
        }
        let more = self.pods.started < COUNTED && self.pods.failed < FAILED;
        self.pods.next = more.then(|| next + rng.millis(20_000..90_000));
    }
}
