//! Gardener's operations on a ContainerRuntime: create, reconcile, delete.
//!
//! An operation succeeds when the desired state is known and the shoot's
//! objects in the seed are stored. No node and no registry is waited for:
//! how far they are is in the conditions. Only a deletion waits for nodes,
//! for a bounded time, and holds no worker meanwhile.
//!
//! * [`kind`]: which operation is due
//! * [`status`]: how it is written, in Gardener's words

mod backoff;
mod kind;
mod run;
mod status;

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use kube::runtime::Controller;
use kube::runtime::controller::{Action, Config};
use kube::runtime::watcher;
use kube::Client;
use rootstock_daemon::Shutdown;
use rootstock_daemon::error::Chain;
use tokio_stream::wrappers::WatchStream;

use crate::api::ContainerRuntime;
use crate::events::Events;
use crate::index::Index;
use crate::objects::Objects;
use crate::seed::Scope;
use backoff::Backoffs;

/// Carries out operations.
pub(crate) struct Operations {
    pub(crate) client: Client,
    pub(crate) index: Arc<Index>,
    pub(crate) objects: Arc<Objects>,
    pub(crate) events: Events,
    pub(crate) scope: Scope,
    pub(crate) deletion_timeout: Duration,
    pub(crate) at_once: u16,
}

/// What one reconcile needs.
struct Context {
    client: Client,
    index: Arc<Index>,
    objects: Arc<Objects>,
    events: Events,
    scope: Scope,
    deletion_timeout: Duration,
    backoffs: Backoffs,
}

impl Operations {
    pub(crate) async fn run(self, shutdown: Shutdown) -> anyhow::Result<()> {
        let api = self.scope.home.resources(&self.client);
        let context = Arc::new(Context {
            client: self.client,
            index: self.index,
            objects: self.objects,
            events: self.events,
            scope: self.scope,
            deletion_timeout: self.deletion_timeout,
            backoffs: Backoffs::default(),
        });
        // A type that is new in the catalog makes resources ours, and mends
        // those that failed for the lack of it.
        let catalog = WatchStream::from_changes(context.scope.catalog.clone());
        let changed = Arc::clone(&context);
        let stop = shutdown.clone();
        let mut reconciled = Controller::new(api, watcher::Config::default())
            .with_config(Config::default().concurrency(self.at_once))
            .reconcile_all_on(catalog.map(move |_| changed.backoffs.forget_all()))
            .graceful_shutdown_on(async move { stop.begun().await })
            .run(run::reconcile, on_error, context)
            .boxed();
        while let Some(outcome) = reconciled.next().await {
            if let Err(error) = outcome {
                // An object that is gone before its turn is no trouble.
                tracing::debug!(error = %Chain(&error), "reconcile");
            }
        }
        if shutdown.has_begun() { Ok(()) } else { anyhow::bail!("the reconciler ended") }
    }
}

fn on_error(
    object: Arc<ContainerRuntime>,
    error: &run::OperationError,
    ctx: Arc<Context>,
) -> Action {
    let pause = ctx.backoffs.failed(&object);
    let name = kube::ResourceExt::name_any(&*object);
    let namespace = object.metadata.namespace.as_deref().unwrap_or_default();
    tracing::warn!(namespace, name, error = %Chain(error), ?pause, "operation failed");
    Action::requeue(pause)
}
