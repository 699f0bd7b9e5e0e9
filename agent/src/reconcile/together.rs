//! One restart for all bundles that come at about the same time.

use std::collections::BTreeSet;
use std::time::Duration;

use rootstock_core::desired::{DesiredContent, Generation};
use rootstock_core::name::RuntimeType;
use rootstock_core::plan::{Observed, Plan, plan};
use tokio::time::Instant;

use super::Reconciler;
use super::gate::restarts_apart;
use super::observe::Seen;

/// What waits for others that are on their way.
#[derive(Debug, Default)]
pub(super) struct Together {
    /// The types that could be activated by now.
    pub(super) types: BTreeSet<RuntimeType>,
    /// How much longer they wait; none where nothing does.
    pub(super) left: Option<Duration>,
    /// Whether an activation that has begun waits for its own bytes.
    begun: bool,
}

impl Together {
    /// What was seen, but for the activation that waits.
    pub(super) fn without_what_waits(&self, seen: Seen) -> Seen {
        if !self.begun {
            return seen;
        }
        Seen { observed: Observed { activation_open: false, ..seen.observed }, ..seen }
    }

    /// The plan for that, which is another one only where an activation waits.
    pub(super) fn planned(&self, content: &DesiredContent, seen: &Seen, whole: &Plan) -> Plan {
        if self.begun { plan(content, &seen.observed) } else { whole.clone() }
    }
}

impl Reconciler {
    /// What waits a little, so that containerd is restarted once. A bundle may
    /// wait for its share of the bandwidth for long, so this has an end; and it
    /// leaves most of a slot's time to what it was given for.
    pub(super) fn together(
        &mut self,
        generation: Generation,
        content: &DesiredContent,
        seen: &Seen,
        queued: &BTreeSet<RuntimeType>,
        coming: &BTreeSet<RuntimeType>,
    ) -> Together {
        let open = seen.observed.activation_open;
        // An activation is proven by its handlers, which need all their bytes.
        let begun = open && seen.begun.keys().any(|runtime| coming.contains(runtime));
        // What has begun is ended, and takes them along.
        let may = !coming.is_empty() && (begun || !open);
        let mut types = match may {
            true => restarts_apart(content, &seen.observed),
            false => BTreeSet::new(),
        };
        types.retain(|runtime| !queued.contains(runtime));
        if types.is_empty() && !begun {
            self.together = None;
            return Together::default();
        }
        let now = Instant::now();
        let slot = content.gated.then(|| self.files.slots().patience(generation)).flatten();
        let most = slot.map_or(self.pace.together, |slot| slot.min(self.pace.together));
        let until = *self.together.get_or_insert(now + most);
        if now >= until {
            return Together::default();
        }
        Together { types, left: Some(until - now), begun }
    }
}
