//! What waits for a slot: containerd is restarted when the controller lets the
//! node, and everything else goes on.

use std::collections::BTreeSet;

use rootstock_core::desired::{DesiredBundle, DesiredContent, Generation};
use rootstock_core::layout::TreeId;
use rootstock_core::name::RuntimeType;
use rootstock_core::plan::{Observed, Plan, plan};

use super::Reconciler;
use super::observe::Seen;
use crate::store::BundleKey;

impl Reconciler {
    /// The types that wait for a slot. What has begun is brought to its end
    /// without one, and so is the way back.
    pub(super) fn queued(
        &self,
        generation: Generation,
        content: &DesiredContent,
        seen: &Seen,
        whole: &Plan,
    ) -> BTreeSet<RuntimeType> {
        if !content.gated || self.files.slots().is_open(generation) {
            return BTreeSet::new();
        }
        // Where that can't be seen nothing is restarted, and why is to be said.
        if seen.containerd.is_err() || seen.config.is_err() {
            return BTreeSet::new();
        }
        if !seen.observed.activation_open {
            return whole.restarts_for(content);
        }
        // The restart that ends an activation takes nothing along that it was not about.
        let closed = Observed { activation_open: false, ..seen.observed.clone() };
        let mut types = plan(content, &closed).restarts_for(content);
        for bundle in &content.bundles {
            if seen.begun.get(bundle.runtime()) == Some(&BundleKey::of(bundle)) {
                types.remove(bundle.runtime());
            }
        }
        types
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

/// Whether a folder is that of a bundle which the node was sent: also while it
/// waits or is refused here its bytes stay.
pub(super) fn is_sent(bundles: &[DesiredBundle], id: &TreeId) -> bool {
    bundles.iter().any(|bundle| {
        (bundle.digest, bundle.runtime(), &bundle.binary_path)
            == (id.digest, &id.runtime, &id.binary_path)
    })
}
