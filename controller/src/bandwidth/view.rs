//! What people see of it.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use rootstock_core::bandwidth::{Budgets, Limit, Rate};
use serde::Serialize;

use super::Bandwidth;

/// What is in use of the budgets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct View {
    /// The budgets that count at the moment; what is absent is unlimited.
    budgets: Budgets,
    /// The rates of all leases that may be in use, together.
    granted: Rate,
    /// How many leases there are.
    pulls: u32,
    /// How many pulls wait for one.
    waiting: usize,
}

impl View {
    /// What is counted of it: a name, what it means, and how much it is.
    pub(crate) fn numbers(
        &self,
    ) -> impl Iterator<Item = (&'static str, &'static str, u64)> + use<> {
        let Self { budgets, granted, pulls, waiting } = *self;
        let budget = match budgets.seed {
            Limit::Unlimited => None,
            Limit::At(rate) => Some(rate.get()),
        };
        let in_use = [
            ("bandwidth_granted", "Bytes per second of all leases.", granted.get()),
            ("bandwidth_pulls", "Pulls that have a lease.", u64::from(pulls)),
            ("bandwidth_waiting", "Pulls that wait for one.", waiting as u64),
        ];
        let budget = budget.map(|rate| ("bandwidth_budget", "Bytes per second of the seed.", rate));
        in_use.into_iter().chain(budget)
    }
}

impl Bandwidth {
    /// What is in use at this moment.
    pub(crate) fn view(&self) -> View {
        let desk = self.desk();
        let usage = desk.allocator.usage();
        let (granted, pulls, waiting) = (usage.rate, usage.pulls, usage.waiting);
        View { budgets: desk.budgets, granted, pulls, waiting }
    }
}

/// The bandwidth of the term that lasts, for those who outlast terms. Clones
/// are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Current(Arc<Mutex<Weak<Bandwidth>>>);

impl Current {
    /// A term begins. Its end is seen by itself.
    pub(crate) fn begin(&self, bandwidth: &Arc<Bandwidth>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(bandwidth);
    }

    /// What is in use; none where this process does not lead.
    pub(crate) fn view(&self) -> Option<View> {
        let current = self.0.lock().unwrap_or_else(PoisonError::into_inner).upgrade();
        current.map(|bandwidth| bandwidth.view())
    }
}
