//! The agent's tasks: everything that runs is started and joined here.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use rootstock_core::name::Architecture;
use rootstock_daemon::{Readiness, Shutdown, Tasks, admin, telemetry};
use tokio::net::TcpListener;
use tokio::sync::Notify;

use crate::args::RunArgs;
use crate::host::Host;
use crate::link::{Link, LinkSettings};
use crate::pull::Pulls;
use crate::reconcile::{Files, Pace, Reconciler, Reports};
use crate::store::StoreError;

/// How long the tasks may take to end. What they write is whole at any moment.
const GRACE: Duration = Duration::from_secs(5);
/// How long a new node is held back at most for its runtimes: pods that need
/// none of them must not wait for a registry that is down.
const READY_AT_LAST: Duration = Duration::from_secs(240);

/// Runs the agent until SIGTERM or SIGINT.
///
/// # Errors
/// When it can't begin, or a task of it fails; neither is for bundles, whose
/// failures are reported and tried again.
pub async fn run(args: RunArgs, host: Arc<dyn Host>) -> anyhow::Result<()> {
    telemetry::init(&args.telemetry, &[])?;
    let (root, state) = (args.host_root.clone(), args.state_dir.to_string());
    let (roots, limit) = (args.roots(), args.store_limit);
    let pulls = if args.ungranted_pulls { Pulls::unbounded() } else { Pulls::granted() };
    let open = move || {
        let files = Files::open(&root, &state, roots)?;
        Ok::<_, StoreError>(files.with_store_limit(limit).with_pulls(pulls))
    };
    let files = tokio::task::spawn_blocking(open).await?;
    let files = Arc::new(files.context("can't open the agent's folder on the node")?);
    let shutdown = Shutdown::new();
    let readiness = Readiness::new();
    readiness.await_for("runtimes", "not every desired runtime is settled");
    let (reports, retry) = (Reports::default(), Arc::new(Notify::new()));
    let architecture = Architecture::of_this_machine();
    let reconciler = Reconciler::new(
        Arc::clone(&files),
        host,
        architecture,
        reports.clone(),
        Arc::clone(&retry),
    )
    .with_pace(Pace { settle: Duration::from_secs(args.settle_seconds.into()), ..Pace::default() });
    let settings = LinkSettings {
        endpoint: args.endpoint,
        ca_file: args.ca_file,
        token_file: args.token_file,
        architecture,
    };
    let link = Link::new(settings, Arc::clone(&files), reports.clone(), retry);
    let mut tasks = Tasks::new(shutdown.clone());
    tasks.spawn("signals", shutdown.clone().on_signal());
    if let Some(address) = args.admin_listen {
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("can't listen on {address}"))?;
        tracing::info!(address = %listener.local_addr()?, "health is served");
        let serve = admin::serve(listener, readiness.clone(), Default::default(), shutdown.clone());
        tasks.spawn("admin", serve);
    }
    tasks.spawn("reconcile", reconciler.run(shutdown.clone()));
    tasks.spawn("link", link.run(shutdown.clone()));
    tasks.spawn("readiness", settle(files, reports, readiness, shutdown));
    tasks.join(GRACE).await
}

/// Says ready once every desired runtime is settled, for better or worse.
async fn settle(
    files: Arc<Files>,
    reports: Reports,
    readiness: Readiness,
    shutdown: Shutdown,
) -> anyhow::Result<()> {
    let mut reports = reports.watch();
    let settled = reports.wait_for(|report| {
        let held = files.ledger.held();
        report.settled && held.is_some_and(|held| held.desired.generation == report.generation)
    });
    // Cancel-safe: each arm only waits.
    tokio::select! {
        settled = settled => { settled?; }
        () = tokio::time::sleep(READY_AT_LAST) => {
            tracing::warn!("ready without every runtime: the time for them is over");
        }
        () = shutdown.begun() => return Ok(()),
    }
    readiness.done("runtimes");
    shutdown.begun().await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rootstock_core::desired::{Desired, DesiredContent, Generation};
    use rootstock_core::digest::Digest;
    use rootstock_core::path::BinaryRoots;
    use tokio::time::Instant;

    use super::*;
    use crate::reconcile::NodeReport;
    use crate::store::Held;

    /// When an agent that holds this generation says that it is ready.
    async fn ready_after(held: u64, reported: NodeReport) -> Duration {
        let root = tempfile::tempdir().unwrap();
        let files = Files::open(root.path(), "/var/lib/rootstock", BinaryRoots::default()).unwrap();
        let (generation, content) = (Generation(held), DesiredContent::default());
        let desired = Desired { generation, content };
        let held = Held { content_hash: Digest::of(b"x"), desired };
        files.ledger.take(&files.store, held).unwrap();
        let (reports, readiness) = (Reports::default(), Readiness::new());
        readiness.await_for("runtimes", "not every desired runtime is settled");
        let (begun, shutdown) = (Instant::now(), Shutdown::new());
        reports.say(reported);
        let settle = settle(Arc::new(files), reports, readiness.clone(), shutdown);
        let mut settle = std::pin::pin!(settle);
        while !readiness.missing().is_empty() {
            let step = Duration::from_secs(1);
            assert!(tokio::time::timeout(step, &mut settle).await.is_err(), "it goes on");
        }
        begun.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_node_waits_for_its_runtimes_and_not_for_ever() {
        let report = |generation, settled| NodeReport {
            generation: Generation(generation),
            settled,
            bundles: BTreeMap::new(),
            ..NodeReport::default()
        };
        let soon = Duration::from_secs(1);
        assert!(ready_after(2, report(2, true)).await <= soon);
        for reported in [report(2, false), report(1, true), NodeReport::default()] {
            let after = ready_after(2, reported).await;
            assert!(after >= READY_AT_LAST && after <= READY_AT_LAST + soon, "{after:?}");
        }
    }
}
