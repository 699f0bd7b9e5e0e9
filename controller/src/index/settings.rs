//! What is wrong with the settings of a ContainerRuntime, and what is passed over.
//!
//! Both can be told in full only when the bundle is known: until then they are
//! pending, not wrong.

use rootstock_core::assign::{Ask, Problem};
use rootstock_core::name::RuntimeType;
use rootstock_core::provider::{Given, PassedOver};

use super::claim::{self, Runtime};
use super::{Index, State};
use crate::api::ContainerRuntime;

#[cfg(test)]
mod tests;

/// How many things a list names. A resource may have hundreds.
const NAMED: usize = 20;

impl Index {
    /// What of a ContainerRuntime's providerConfig is passed over: one text for
    /// each field or flag, sorted. Empty where it is refused instead, and while
    /// nothing is wrong.
    pub fn passed_over(&self, object: &ContainerRuntime) -> Vec<String> {
        let runtime = claim::read(object, &self.roots, self.how);
        let mut list = self.lock().passed_over(&runtime);
        let more = list.len().saturating_sub(NAMED);
        list.truncate(NAMED);
        if more > 0 {
            list.push(format!("{more} more"));
        }
        list
    }
}

impl State {
    /// What is wrong with a runtime's settings, by the declaration of its bundle.
    pub(super) fn settings_problem(&self, runtime: &Runtime) -> Option<Problem> {
        let (name, given) = settings(runtime)?;
        self.bundles.get(name)?.check(name, given).err()
    }

    /// What of a runtime's settings is passed over, for people.
    pub(super) fn passed_over(&self, runtime: &Runtime) -> Vec<String> {
        let Some((name, given)) = settings(runtime) else { return Vec::new() };
        let by_bundle = self.bundles.get(name).and_then(|bundle| bundle.check(name, given).ok());
        let by_bundle = by_bundle.unwrap_or_default();
        let all = given.passed_over.iter().chain(&by_bundle);
        let mut list: Vec<_> = all.map(PassedOver::to_string).collect();
        list.sort();
        list
    }
}

fn settings(runtime: &Runtime) -> Option<(&RuntimeType, &Given)> {
    let claim = runtime.claim.as_ref()?;
    let Ask { settings, .. } = claim.ask.as_ref().ok()?;
    Some((&claim.runtime, settings.as_ref().ok()?))
}
