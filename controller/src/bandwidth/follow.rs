//! What happens without a word from a node.

use std::sync::Arc;

use rootstock_core::catalog::Catalog;
use rootstock_daemon::Shutdown;
use rootstock_daemon::timer::until;
use tokio::sync::watch;

use super::Bandwidth;

/// Tells the allocator that time has passed, when that means something to it,
/// and that the catalog has other budgets.
#[derive(Debug)]
pub(crate) struct Follow {
    pub(crate) bandwidth: Arc<Bandwidth>,
    pub(crate) catalog: watch::Receiver<Arc<Catalog>>,
}

impl Follow {
    pub(crate) async fn run(mut self, shutdown: Shutdown) -> anyhow::Result<()> {
        loop {
            let budgets = self.catalog.borrow_and_update().budgets;
            self.bandwidth.set(budgets.unwrap_or_default());
            let due = self.bandwidth.tick();
            // Cancel-safe, all of them: what is due stays due, a notice stays
            // until it is taken, and a change until it is borrowed.
            tokio::select! {
                () = until(due) => {}
                () = self.bandwidth.sooner.notified() => {}
                changed = self.catalog.changed() => changed?,
                () = shutdown.begun() => return Ok(()),
            }
        }
    }
}
