//! Create, Reconcile and Restore: the shoot's objects are stored.

use rootstock_core::status::Reason;

use super::queue::Outcome;
use super::status;
use super::task::{OperationError, Task, within};
use crate::api::{Cluster, OperationState, OperationType};
use crate::events::Word;

impl Task<'_> {
    /// Create and Reconcile. The order of writes is the generic controller's,
    /// which tools and people are used to.
    pub(super) async fn reconcile(
        &mut self,
        kind: OperationType,
        cluster: &Cluster,
    ) -> Result<Outcome, OperationError> {
        let problem = self.problem();
        if let Some(problem) = problem.as_deref().filter(|_| !self.asked)
            && self.says(kind, problem)
        {
            // Tried again, with nothing new to say.
            return Ok(Outcome::Failed);
        }
        self.acknowledge().await?;
        self.add_finalizer().await?;
        self.begin(kind).await?;
        self.put(problem, cluster).await?;
        self.succeed(kind).await?;
        Ok(Outcome::Done)
    }

    /// Restore: a reconciliation whose annotation stays until it has succeeded.
    pub(super) async fn restore(&mut self, cluster: &Cluster) -> Result<Outcome, OperationError> {
        if self.ctx.index.is_suspended(&self.key.shoot) {
            // Another resource of the shoot has yet to be restored.
            return Ok(Outcome::Soon);
        }
        let problem = self.problem();
        self.add_finalizer().await?;
        self.begin(OperationType::Restore).await?;
        self.put(problem, cluster).await?;
        self.succeed(OperationType::Restore).await?;
        self.take_annotation_off().await?;
        Ok(Outcome::Done)
    }

    async fn put(&self, problem: Option<String>, cluster: &Cluster) -> Result<(), OperationError> {
        if let Some(problem) = problem {
            self.ctx.events.say(&self.object, Word::ConfigurationRefused, problem.as_str());
            return Err(OperationError::Configuration(problem));
        }
        let Ok(runtime) = self.object.spec.runtime.parse() else { return Ok(()) };
        // It is not written while a deletion decides that nobody needs it.
        let lock = self.ctx.locks.of(&self.key.shoot);
        let _held = lock.read().await;
        if self.ctx.index.is_suspended(&self.key.shoot) {
            // It is done when the shoot is back.
            self.ctx.owe_objects(self.key);
            return Ok(());
        }
        let objects = &self.ctx.objects;
        let taken = within(objects.put(&self.key.shoot, cluster, &runtime, self.since)).await?;
        if let Some(note) = taken.note() {
            self.ctx.events.say(&self.object, Word::TakenOver, note);
        }
        Ok(())
    }

    /// What is wrong with the resource, in words.
    fn problem(&self) -> Option<String> {
        let problem = self.ctx.index.problem(&self.object)?;
        // The index may be a moment behind the catalog.
        let outdated =
            problem.reason == Reason::TypeUnknown && self.ctx.scope.is_configured(&self.object);
        let advice = problem.reason.advice();
        (!outdated).then(|| format!("{}; what to do: {advice}", problem.message))
    }

    /// Whether the status says exactly this already.
    fn says(&self, kind: OperationType, why: &str) -> bool {
        let Some(status) = &self.object.status else { return false };
        let state = status.last_operation.as_ref().map(|last| last.state);
        let description = status.last_error.as_ref().map(|error| error.description.as_str());
        state == Some(OperationState::Error)
            && description == Some(status::failure(kind, why).as_str())
            && status.observed_generation == self.generation
    }
}
