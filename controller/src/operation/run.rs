//! One reconcile of one ContainerRuntime.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use kube::Api;
use kube::api::{ObjectMeta, Patch, PatchParams};
use kube::runtime::controller::Action;
use rootstock_core::assign::Problem;
use rootstock_core::name::NodeName;
use rootstock_core::status::Reason;
use rootstock_daemon::error::Chain;
use serde_json::{Value, json};

use super::kind::{Due, due, is_asked};
use super::{Context, status};
use crate::api::{Cluster, ContainerRuntime, FINALIZER, OPERATION, OperationState, OperationType};
use crate::events::Word;
use crate::index::RuntimeKey;
use crate::objects::ObjectsError;

/// How often a deletion looks whether its nodes have confirmed.
const LOOK: Duration = Duration::from_millis(500);

/// Why an operation did not succeed.
#[derive(Debug, thiserror::Error)]
pub(super) enum OperationError {
    /// The resource asks for something that can't be: its status says so.
    #[error("the ContainerRuntime can't be carried out: {0}")]
    Configuration(String),
    /// The seed's API refused.
    #[error("the seed's API refused")]
    Api(#[from] kube::Error),
    /// The shoot's objects are not as they should be.
    #[error("the shoot's objects could not be written")]
    Objects(#[from] ObjectsError),
}

/// Does what is due.
pub(super) async fn reconcile(
    object: Arc<ContainerRuntime>,
    ctx: Arc<Context>,
) -> Result<Action, OperationError> {
    if !ctx.scope.has(&object) {
        return Ok(Action::await_change());
    }
    let Some(key) = RuntimeKey::of(&object) else { return Ok(Action::await_change()) };
    if due(&object) == Due::Nothing {
        return Ok(Action::await_change());
    }
    if let Some(pause) = ctx.backoffs.remaining(&object).filter(|_| !is_asked(&object)) {
        return Ok(Action::requeue(pause));
    }
    // The cache may be behind our own writes, and an operation is not done twice.
    let api = key.api(&ctx.client);
    let Some(object) = api.get_opt(&key.name).await? else { return Ok(Action::await_change()) };
    let kind = match due(&object) {
        Due::Operation(kind) => kind,
        Due::Nothing => return Ok(Action::await_change()),
        Due::Unknown => {
            tracing::warn!(shoot = %key.shoot, name = key.name, "this version does not migrate or restore");
            return Ok(Action::await_change());
        }
    };
    let clusters: Api<Cluster> = Api::all(ctx.client.clone());
    let cluster = clusters.get_opt(key.shoot.as_str()).await?;
    let Some(cluster) = cluster.filter(|cluster| !cluster.is_failed()) else {
        // Gardener asks again when the shoot can be worked on.
        return Ok(Action::await_change());
    };
    let task = Task { api, key, ctx, object };
    let outcome = if kind == OperationType::Delete {
        task.delete(&cluster).await
    } else {
        task.apply(kind, &cluster).await
    };
    match &outcome {
        Ok(_) => task.ctx.backoffs.succeeded(&task.object),
        // Its status says so already.
        Err(OperationError::Configuration(_)) => {}
        Err(error) => task.show_if_it_lasts(kind, error).await,
    }
    outcome
}

struct Task {
    api: Api<ContainerRuntime>,
    key: RuntimeKey,
    ctx: Arc<Context>,
    object: ContainerRuntime,
}

impl Task {
    /// Create and Reconcile. The order of writes is the generic controller's,
    /// which tools and people are used to.
    async fn apply(
        &self,
        kind: OperationType,
        cluster: &Cluster,
    ) -> Result<Action, OperationError> {
        let name = self.key.name.as_str();
        let mut metadata = self.object.metadata.clone();
        if is_asked(&self.object) {
            metadata = self.merge(json!({"annotations": {OPERATION: null}})).await?;
        }
        let mut finalizers = metadata.finalizers.unwrap_or_default();
        if !finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
            finalizers.push(FINALIZER.to_owned());
            self.write_finalizers(&finalizers, metadata.resource_version).await?;
        }
        self.write(status::processing(kind, Timestamp::now())).await?;
        let generation = self.object.metadata.generation;
        // The index may be a moment behind the catalog.
        let outdated = |problem: &Problem| {
            problem.reason == Reason::TypeUnknown && self.ctx.scope.is_configured(&self.object)
        };
        if let Some(problem) = self.ctx.index.problem(&self.object).filter(|p| !outdated(p)) {
            let why = format!("{}; what to do: {}", problem.message, problem.reason.advice());
            let codes = [status::CONFIGURATION_PROBLEM];
            self.write(status::failed(kind, generation, &why, &codes, Timestamp::now())).await?;
            return Err(OperationError::Configuration(why));
        }
        if let Ok(runtime) = self.object.spec.runtime.parse() {
            let taken = self.ctx.objects.put(&self.key.shoot, cluster, &runtime).await?;
            if let Some(note) = taken.note() {
                self.ctx.events.say(&self.object, Word::TakenOver, note);
            }
        }
        self.write(status::succeeded(kind, generation, Timestamp::now())).await?;
        tracing::info!(shoot = %self.key.shoot, name, ?kind, "reconciled");
        Ok(Action::await_change())
    }

    /// Delete: done when the connected nodes have confirmed, or after a bound,
    /// or at once when nobody is left to confirm.
    async fn delete(&self, cluster: &Cluster) -> Result<Action, OperationError> {
        let last = self.object.status.as_ref().and_then(|status| status.last_operation.as_ref());
        let begun = last.is_some_and(|last| {
            last.kind == OperationType::Delete && last.state == OperationState::Processing
        });
        if !begun {
            self.write(status::processing(OperationType::Delete, Timestamp::now())).await?;
        }
        let nobody_left =
            cluster.is_hibernated() || cluster.is_deleting() || cluster.is_force_deleted();
        if !nobody_left {
            let late = self.waited() >= self.ctx.deletion_timeout;
            match self.ctx.index.removal_pending(&self.key, Instant::now()).as_deref() {
                Some([]) => {
                    let away = self.ctx.index.removal_unconfirmed(&self.key);
                    if !away.is_empty() {
                        self.announce_leftovers(&away);
                    }
                }
                _ if !late => return Ok(Action::requeue(LOOK)),
                nodes => self.announce_leftovers(nodes.unwrap_or_default()),
            }
        }
        let generation = self.object.metadata.generation;
        let done = status::succeeded(OperationType::Delete, generation, Timestamp::now());
        let metadata = self.write(done).await?;
        let mut finalizers = metadata.finalizers.unwrap_or_default();
        finalizers.retain(|finalizer| finalizer != FINALIZER);
        self.write_finalizers(&finalizers, metadata.resource_version).await?;
        tracing::info!(shoot = %self.key.shoot, name = self.key.name, "deleted");
        Ok(Action::await_change())
    }

    /// Writes an error that does not pass by itself. One that does is no
    /// business of gardenlet, which may end its wait at the first that it sees.
    async fn show_if_it_lasts(&self, kind: OperationType, error: &OperationError) {
        if !self.ctx.backoffs.lasts(&self.object) {
            return;
        }
        let why = Chain(error).to_string();
        let generation = self.object.metadata.generation;
        let failed = status::failed(kind, generation, &why, &[], Timestamp::now());
        if let Err(error) = self.write(failed).await {
            // The operation's own error is in the log; this one is most likely the same.
            tracing::debug!(error = %Chain(&error), "writing an error");
        }
    }

    fn waited(&self) -> Duration {
        let since = self.object.metadata.deletion_timestamp.as_ref();
        let since = since.map_or_else(Timestamp::now, |time| time.0);
        Duration::try_from(Timestamp::now().duration_since(since)).unwrap_or_default()
    }

    /// Says which nodes keep the runtime's files for now; none where they are not known.
    fn announce_leftovers(&self, nodes: &[NodeName]) {
        let names: Vec<_> = nodes.iter().take(10).map(NodeName::as_str).collect();
        let who = match nodes.len() {
            0 => "The shoot's nodes, which are not known,".to_owned(),
            1 => format!("Node {}", names.join(", ")),
            count => format!("{count} nodes ({})", names.join(", ")),
        };
        let note = format!(
            "{who} did not confirm in time that the runtime is gone; what is left is removed when it can be"
        );
        self.ctx.events.say(&self.object, Word::NodesNotConfirmed, note);
        tracing::warn!(shoot = %self.key.shoot, name = self.key.name, ?names, "nodes have not confirmed in time");
    }

    /// Writes the whole list, over the one that was read and over no other.
    async fn write_finalizers(
        &self,
        finalizers: &[String],
        read: Option<String>,
    ) -> Result<(), kube::Error> {
        self.merge(json!({"finalizers": finalizers, "resourceVersion": read})).await?;
        Ok(())
    }

    async fn merge(&self, metadata: Value) -> Result<ObjectMeta, kube::Error> {
        let patch = Patch::Merge(json!({"metadata": metadata}));
        let name = &self.key.name;
        Ok(self.api.patch_metadata(name, &PatchParams::default(), &patch).await?.metadata)
    }

    async fn write(&self, status: Value) -> Result<ObjectMeta, kube::Error> {
        let patch = Patch::Merge(status);
        let name = &self.key.name;
        Ok(self.api.patch_status(name, &PatchParams::default(), &patch).await?.metadata)
    }
}
