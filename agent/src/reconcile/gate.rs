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

/// Whether the restart that a plan asks for may be.
#[derive(Debug, Default)]
pub(super) struct Gate {
    /// The types that wait for a slot.
    pub(super) queued: BTreeSet<RuntimeType>,
    /// Whose slot lets the others be restarted for; none where they need none.
    pub(super) by: Option<Generation>,
}

impl Reconciler {
    /// What waits for a slot, and what is let through by one.
    pub(super) fn gate(
        &self,
        generation: Generation,
        content: &DesiredContent,
        seen: &Seen,
        whole: &Plan,
    ) -> Gate {
        let needing = needing(content, seen, whole);
        if needing.is_empty() {
            return Gate::default();
        }
        if self.files.slots().is_open(generation) {
            return Gate { by: Some(generation), ..Gate::default() };
        }
        Gate { queued: needing, by: None }
    }

    /// Whether it is still so: the node's own containerd was asked since, which
    /// takes its time, and a slot may be over by then, or taken back.
    pub(super) fn lets(&self, by: Option<Generation>) -> bool {
        by.is_none_or(|generation| self.files.slots().is_open(generation))
    }

    /// The plan with what may not be touched now left as it is: what has just
    /// failed, and what waits for a slot or for others.
    pub(super) fn without_waiting(
        &self,
        content: &DesiredContent,
        seen: &Seen,
        whole: Plan,
        others: &BTreeSet<RuntimeType>,
    ) -> Plan {
        let waits =
            |runtime: &RuntimeType| self.failures.waits(runtime) || others.contains(runtime);
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

/// The types for which containerd is restarted only with a slot. What has begun
/// is brought to its end without one, and so is the way back.
fn needing(content: &DesiredContent, seen: &Seen, whole: &Plan) -> BTreeSet<RuntimeType> {
    // Where that can't be seen nothing is restarted, and why is to be said.
    if !content.gated || seen.containerd.is_err() || seen.config.is_err() {
        return BTreeSet::new();
    }
    if !seen.observed.activation_open {
        return whole.restarts_for(content);
    }
    // The restart that ends an activation takes nothing along that it was not about.
    let mut types = restarts_apart(content, &seen.observed);
    for bundle in &content.bundles {
        if seen.begun.get(bundle.runtime()) == Some(&BundleKey::of(bundle)) {
            types.remove(bundle.runtime());
        }
    }
    types
}

/// The types that containerd would be restarted for, whatever has begun.
pub(super) fn restarts_apart(content: &DesiredContent, seen: &Observed) -> BTreeSet<RuntimeType> {
    let closed = Observed { activation_open: false, ..seen.clone() };
    plan(content, &closed).restarts_for(content)
}

/// Whether a folder is that of a bundle which the node was sent: also while it
/// waits or is refused here its bytes stay.
pub(super) fn is_sent(bundles: &[DesiredBundle], id: &TreeId) -> bool {
    bundles.iter().any(|bundle| {
        (bundle.digest, bundle.runtime(), &bundle.binary_path)
            == (id.digest, &id.runtime, &id.binary_path)
    })
}
