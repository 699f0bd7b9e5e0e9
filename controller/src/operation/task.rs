//! One reconcile of one ContainerRuntime: what all operations have in common.

use std::time::Duration;

use jiff::Timestamp;
use kube::Api;
use kube::api::{Patch, PatchParams};
use rootstock_daemon::error::Chain;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::kind::{Due, due, has_finalizer, is_reconcile_asked_for};
use super::queue::{Outcome, Turn};
use super::{Context, status};
use crate::api::{
    Cluster, ContainerRuntime, FINALIZER, OPERATION, OperationState, OperationType, is_conflict,
    is_transient,
};
use crate::index::RuntimeKey;
use crate::objects::ObjectsError;

/// The pauses before a request is tried again in place: more than a second
/// together. What takes longer is tried again later, and holds no worker.
const RETRIES: [Duration; 7] = [
    Duration::from_millis(10),
    Duration::from_millis(20),
    Duration::from_millis(40),
    Duration::from_millis(80),
    Duration::from_millis(160),
    Duration::from_millis(320),
    Duration::from_millis(640),
];

/// How long the seed's API may take for one request, and for all of a shoot's
/// objects. A worker is not held for the rest of a reconcile's three minutes.
const PATIENCE: Duration = Duration::from_secs(20);

/// Why an operation did not succeed.
#[derive(Debug, thiserror::Error)]
pub(super) enum OperationError {
    /// The resource is gone.
    #[error("the ContainerRuntime is gone")]
    Gone,
    /// The resource asks for something that can't be.
    #[error("{0}")]
    Configuration(String),
    /// Somebody does not let go.
    #[error("still there after {}: {what}", humantime::format_duration(*.after))]
    Lingers { what: String, after: Duration },
    /// The seed's API refused.
    #[error("the seed's API refused")]
    Api(#[source] kube::Error),
    /// The seed's API is silent.
    #[error("the seed's API did not answer within {PATIENCE:?}")]
    Late(#[from] tokio::time::error::Elapsed),
    /// The shoot's objects are not as they should be.
    #[error("the shoot's objects could not be written")]
    Objects(#[from] ObjectsError),
}

impl OperationError {
    fn is_passing(&self) -> bool {
        match self {
            Self::Gone | Self::Configuration(_) | Self::Lingers { .. } => false,
            Self::Api(error) => is_transient(error),
            Self::Late(_) => true,
            Self::Objects(error) => error.is_transient(),
        }
    }
}

impl From<kube::Error> for OperationError {
    fn from(error: kube::Error) -> Self {
        let gone = matches!(&error, kube::Error::Api(status) if status.code == 404);
        if gone { Self::Gone } else { Self::Api(error) }
    }
}

/// Waits for the seed's API for no longer than it may take.
pub(super) async fn within<T, E>(
    answer: impl Future<Output = Result<T, E>>,
) -> Result<T, OperationError>
where
    OperationError: From<E>,
{
    Ok(tokio::time::timeout(PATIENCE, answer).await??)
}

/// Does what is due with the resource whose turn it is, as it is known; it was
/// asked for then.
pub(super) async fn reconcile(
    ctx: &Context,
    turn: &Turn<RuntimeKey>,
    object: &ContainerRuntime,
    since: Instant,
) -> Outcome {
    // A shoot that is not there, or whose operation failed for good, is left
    // alone; what was asked for stays asked for.
    let cluster = ctx.clusters.get(&turn.key.shoot).filter(|cluster| !cluster.is_failed());
    match cluster {
        Some(cluster) if ctx.scope.has(object) => {
            Task::new(ctx, turn, object.clone(), since).run(&cluster).await
        }
        Some(_) | None => Outcome::Done,
    }
}

/// What of a resource is written.
#[derive(Clone, Copy, Debug)]
enum Part {
    Metadata,
    Status,
}

/// One reconcile.
pub(super) struct Task<'a> {
    pub(super) ctx: &'a Context,
    pub(super) key: &'a RuntimeKey,
    /// Whether somebody asked for it; else it is tried again.
    pub(super) asked: bool,
    /// What was looked at since then need not be looked at again.
    pub(super) since: Instant,
    /// The resource as the last write left it.
    pub(super) object: ContainerRuntime,
    /// The generation that the operation is about.
    pub(super) generation: Option<i64>,
    api: Api<ContainerRuntime>,
}

impl<'a> Task<'a> {
    fn new(
        ctx: &'a Context,
        turn: &'a Turn<RuntimeKey>,
        object: ContainerRuntime,
        since: Instant,
    ) -> Self {
        let generation = object.metadata.generation;
        let api = turn.key.api(&ctx.client);
        Self { ctx, key: &turn.key, asked: turn.asked, since, object, generation, api }
    }

    async fn run(mut self, cluster: &Cluster) -> Outcome {
        let kind = match due(&self.object) {
            Due::Nothing => return Outcome::Done,
            Due::Skipped => None,
            Due::Operation(kind) => Some(kind),
        };
        let done = match kind {
            Some(kind) => self.operate(kind, cluster).await,
            None => self.acknowledge().await.map(|()| Outcome::Done),
        };
        match (done, kind) {
            (Ok(outcome), _) => outcome,
            (Err(OperationError::Gone), _) => Outcome::Done,
            (Err(error), Some(kind)) if !error.is_passing() => self.show(kind, &error).await,
            (Err(error), _) => {
                self.say(&error, "an operation is tried again");
                Outcome::Passing
            }
        }
    }

    async fn operate(
        &mut self,
        kind: OperationType,
        cluster: &Cluster,
    ) -> Result<Outcome, OperationError> {
        match kind {
            OperationType::Delete => self.delete(cluster).await,
            OperationType::Migrate | OperationType::LiveMigrate => self.migrate().await,
            OperationType::Restore => self.restore(cluster).await,
            OperationType::Create | OperationType::Reconcile | OperationType::Other => {
                self.reconcile(kind, cluster).await
            }
        }
    }

    /// Writes an error that does not pass by itself.
    async fn show(&mut self, kind: OperationType, error: &OperationError) -> Outcome {
        self.say(error, "an operation failed");
        let codes: &[&str] = match error {
            OperationError::Configuration(_) => &[status::CONFIGURATION_PROBLEM],
            OperationError::Gone
            | OperationError::Lingers { .. }
            | OperationError::Api(_)
            | OperationError::Late(_)
            | OperationError::Objects(_) => &[],
        };
        let why = Chain(error).to_string();
        let failed = status::failed(kind, self.generation, &why, codes, self.time());
        match self.write(failed).await {
            Ok(()) => Outcome::Failed,
            Err(OperationError::Gone) => Outcome::Done,
            Err(unwritten) => {
                self.say(&unwritten, "an error is not written");
                Outcome::Passing
            }
        }
    }

    fn time(&self) -> Timestamp {
        status::time(&self.object, Timestamp::now())
    }

    fn say(&self, error: &OperationError, what: &str) {
        let (shoot, name) = (&self.key.shoot, &self.key.name);
        tracing::warn!(%shoot, name, error = %Chain(error), "{what}");
    }

    /// Takes the annotation off by which a reconciliation was asked for, where it is.
    pub(super) async fn acknowledge(&mut self) -> Result<(), OperationError> {
        if is_reconcile_asked_for(&self.object) { self.take_annotation_off().await } else { Ok(()) }
    }

    /// Takes the annotation off, where it is.
    pub(super) async fn take_annotation_off(&mut self) -> Result<(), OperationError> {
        if self.object.asked().is_none() {
            return Ok(());
        }
        self.merge(json!({"metadata": {"annotations": {OPERATION: null}}})).await
    }

    /// Whether an operation of this kind is said to be under way.
    pub(super) fn is_processing(&self, kind: OperationType) -> bool {
        self.object
            .last_operation()
            .is_some_and(|last| last.kind == kind && last.state == OperationState::Processing)
    }

    pub(super) async fn begin(&mut self, kind: OperationType) -> Result<(), OperationError> {
        self.write(status::processing(kind, self.time())).await
    }

    pub(super) async fn succeed(&mut self, kind: OperationType) -> Result<(), OperationError> {
        self.write(status::succeeded(kind, self.generation, self.time())).await?;
        let (shoot, name) = (&self.key.shoot, &self.key.name);
        tracing::info!(%shoot, name, ?kind, "operation succeeded");
        Ok(())
    }

    pub(super) async fn add_finalizer(&mut self) -> Result<(), OperationError> {
        if has_finalizer(&self.object) {
            return Ok(());
        }
        self.change_finalizers(|all| all.push(FINALIZER.to_owned())).await
    }

    /// Writes the whole list, over the one that was read and over no other.
    pub(super) async fn change_finalizers(
        &mut self,
        change: impl Fn(&mut Vec<String>),
    ) -> Result<(), OperationError> {
        let mut retries = RETRIES.iter();
        loop {
            let metadata = &self.object.metadata;
            let before = metadata.finalizers.clone().unwrap_or_default();
            let mut after = before.clone();
            change(&mut after);
            if after == before {
                return Ok(());
            }
            let metadata =
                json!({"finalizers": after, "resourceVersion": metadata.resource_version});
            let patch = json!({"metadata": metadata});
            match self.send(Part::Metadata, &patch, &mut retries).await? {
                None => return Ok(()),
                Some(error) if is_conflict(&error) => {
                    self.object = within(self.api.get(&self.key.name)).await?;
                }
                Some(_) => {}
            }
        }
    }

    async fn merge(&mut self, patch: Value) -> Result<(), OperationError> {
        self.patch(Part::Metadata, patch).await
    }

    async fn write(&mut self, status: Value) -> Result<(), OperationError> {
        self.patch(Part::Status, status).await
    }

    /// Sends a patch, and again where that may help at once.
    async fn patch(&mut self, part: Part, patch: Value) -> Result<(), OperationError> {
        let mut retries = RETRIES.iter();
        while self.send(part, &patch, &mut retries).await?.is_some() {}
        Ok(())
    }

    /// Sends a patch once. What stood in its way, after a pause, where it may
    /// be sent again.
    async fn send(
        &mut self,
        part: Part,
        patch: &Value,
        retries: &mut std::slice::Iter<'_, Duration>,
    ) -> Result<Option<kube::Error>, OperationError> {
        let (patch, params) = (Patch::Merge(patch), PatchParams::default());
        let answer = async {
            match part {
                Part::Metadata => self.api.patch(&self.key.name, &params, &patch).await,
                Part::Status => self.api.patch_status(&self.key.name, &params, &patch).await,
            }
        };
        let error = match tokio::time::timeout(PATIENCE, answer).await? {
            Ok(object) => {
                self.wrote(object);
                return Ok(None);
            }
            Err(error) => error,
        };
        let Some(pause) = retries.next().filter(|_| is_transient(&error)) else {
            return Err(error.into());
        };
        tracing::debug!(error = %Chain(&error), ?pause, "a request is tried again");
        tokio::time::sleep(*pause).await;
        Ok(Some(error))
    }

    fn wrote(&mut self, object: ContainerRuntime) {
        self.ctx.triggers.wrote(self.key, &object);
        self.object = object;
    }
}
