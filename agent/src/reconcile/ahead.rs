//! Bundles that may be activated soon: pulled and verified, and nothing else.

use rootstock_core::desired::DesiredContent;
use rootstock_core::plan::Plan;
use rootstock_daemon::error::Chain;
use tokio::time::Instant;

use super::change::Layouts;
use super::{Reconciler, lay_out};

/// What the prefetched bundles mean on the node.
pub(super) fn lay_out_ahead(content: &DesiredContent) -> Layouts {
    lay_out(&content.prefetch)
}

impl Reconciler {
    /// Pulls one bundle ahead, if one is to come; tells whether there was one.
    /// Whatever else there is to do comes first, also in the middle of it: what
    /// came until then is kept.
    pub(super) async fn pull_ahead(
        &mut self,
        content: &DesiredContent,
        ahead: &Layouts,
        whole: &Plan,
    ) -> bool {
        let due = ahead.values().find(|(bundle, layout)| {
            whole.prefetches.contains(&layout.tree) && !self.ahead.waits(bundle.runtime())
        });
        let Some(due @ (bundle, layout)) = due else { return false };
        let runtime = bundle.runtime();
        if let Err(error) = self.announce(content, &[due]).await {
            self.ahead.pull(runtime, error.reason(), Chain(&error).to_string());
            return true;
        }
        let mut slots = self.files.slots().changes();
        let (files, host, reports) = (&self.files, &self.host, &self.reports);
        let pull =
            super::install(files, &**host, bundle, content, reports, files.store_limit, true);
        let outcome = tokio::select! {
            // Cancel-safe: dropping the pull keeps the bytes that came.
            outcome = pull => outcome,
            // Cancel-safe: a change stays unseen.
            _ = self.held.changed() => {
                self.held.mark_changed();
                return true;
            }
            // Cancel-safe: what the slot is for is looked at next.
            _ = slots.changed() => return true,
            // Cancel-safe: it only waits; who asked to try again is heard next.
            () = self.retry.notified() => {
                self.retry.notify_one();
                return true;
            }
            // Cancel-safe: it only waits. The node is looked at meanwhile, and
            // what failed of what is desired is tried again.
            () = tokio::time::sleep(self.failures.rest(self.pace.look)) => return true,
        };
        match outcome {
            Ok(()) => {
                tracing::info!(%runtime, digest = %layout.tree.digest, "every byte is here ahead");
                self.ahead.over(runtime);
                self.verified.insert(layout.tree.clone(), Instant::now());
            }
            Err(error) => {
                let why = Chain(&error).to_string();
                tracing::warn!(%runtime, reason = %error.reason(), why, "a bundle does not come ahead");
                self.ahead.pull(runtime, error.reason(), why);
            }
        }
        true
    }
}
