//! What waits for a slot: containerd is restarted when the controller lets the
//! node, and everything else goes on.

use std::collections::BTreeSet;

use rootstock_core::desired::{DesiredContent, Generation};
use rootstock_core::name::RuntimeType;
use rootstock_core::plan::{Plan, plan};

use super::Reconciler;
use super::observe::Seen;

impl Reconciler {
    /// The types that wait for a slot. What has begun is brought to its end
    /// without one, and so is the way back.
    pub(super) fn queued(
        &self,
        generation: Generation,
        content: &DesiredContent,
        whole: &Plan,
    ) -> BTreeSet<RuntimeType> {
        if !content.gated || self.files.slots().is_open(generation) {
            return BTreeSet::new();
        }
        whole.restarts_for(content)
    }

    /// The plan with what may not be touched now left as it is: what has just
    /// failed, and what waits for a slot.
    pub(super) fn without_waiting(
        &self,
        content: &DesiredContent,
        seen: &Seen,
        whole: Plan,
        queued: &BTreeSet<RuntimeType>,
    ) -> Plan {
        let waits =
            |runtime: &RuntimeType| self.failures.waits(runtime) || queued.contains(runtime);
        let types = content.bundles.iter().map(|bundle| bundle.runtime());
        let waiting: BTreeSet<RuntimeType> = types.filter(|of| waits(of)).cloned().collect();
        if waiting.is_empty() {
            return whole;
        }
        let mut content = content.clone();
        content.bundles.retain(|bundle| !waiting.contains(bundle.runtime()));
        content.keep.extend(waiting);
        plan(&content, &seen.observed)
    }
}
