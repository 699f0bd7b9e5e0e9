//! All tasks of the controller, and what runs between them.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::response::Json;
use axum::routing::get;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use rootstock_core::path::BinaryRoots;
use rootstock_daemon::{Readiness, Shutdown, Tasks, admin, telemetry};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::args::{Args, ClusterKind};
use crate::bundles::{Resolver, Secrets};
use crate::catalog;
use crate::home::{self, Home};
use crate::index::{Index, Page};
use crate::lead::{Candidate, Mark, Standing};
use crate::operation::Triggers;
use crate::seed::{self, Clusters, Scope, Seed, Store};
use crate::shoot::{Authorities, Endpoints, Shoots, Tokens};
use crate::term::Leading;
use crate::{bandwidth, metrics};

/// How long tasks may take to end: what a leader does has 12 s, and giving the
/// Lease back is one request.
const GRACE: Duration = Duration::from_secs(18);

/// Threads that work. One is busy with a large seed; by default a machine with
/// 64 cores would get 64, each with its own part of the heap.
const WORKERS: usize = 2;
/// Threads that wait for files and names. By default each shoot whose name is
/// looked up at one time would get one.
const BLOCKING: usize = 16;

/// The runtime in which the controller runs.
pub fn runtime() -> tokio::runtime::Builder {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.worker_threads(WORKERS).max_blocking_threads(BLOCKING).enable_all();
    runtime
}

/// Runs the controller until it is told to end.
///
/// # Errors
/// When it can't start, or one of its tasks fails.
pub async fn run(args: Args) -> anyhow::Result<()> {
    // Both log every failed request; who asked says what is worth a line.
    telemetry::init(&args.telemetry, &["kube_runtime=off", "kube_client=off"])?;
    // The Kubernetes and registry clients take the process's provider. A
    // second call finds the first one's.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let shutdown = Shutdown::new();
    let readiness = Readiness::new();
    readiness.await_for(seed::LISTED, "the seed's ContainerRuntimes are being listed");

    let home = Home::new(&args)?;
    let first = catalog::load(&args.config).await?;
    let (catalog, catalog_changes) = watch::channel(Arc::new(first));
    let client = client(&args).await?;
    let admin_listener = listen(args.admin_listen, "--admin-listen").await?;

    if matches!(home, Home::Plain { .. }) {
        home::bring(&client, &home).await?;
    }
    let (terms, standing) = Standing::new();

    let roots = BinaryRoots::new(args.binary_roots.clone());
    let index = Index::new(roots).at_home(home.clone());
    let index = Arc::new(index.with_provider_config(args.provider_config.into()));
    let endpoints = Arc::new(Endpoints::default());
    let (tokens, token_changes) = watch::channel(Default::default());
    let (authorities, authority_changes) = watch::channel(Default::default());
    let scope = Scope {
        home: home.clone(),
        types: args.types.clone(),
        classes: args.classes.clone(),
        catalog: catalog_changes.clone(),
    };

    let mut tasks = Tasks::new(shutdown.clone());
    tasks.spawn("signals", shutdown.clone().on_signal());
    // Tasks end in any order: what they listen to lives until the last has ended.
    let _open = (catalog.clone(), tokens.clone(), authorities.clone());
    let follow = catalog::Follow { path: args.config.clone(), catalog };
    tasks.spawn("configuration", follow.run(shutdown.clone()));
    let secrets = Secrets(Api::namespaced(client.clone(), &args.namespace));
    let resolver =
        Resolver { seed: secrets, catalog: catalog_changes.clone(), index: Arc::clone(&index) };
    resolver.announce();
    tasks.spawn("bundles", resolver.run(shutdown.clone()));
    let store = Arc::new(Store::default());
    let clusters = Arc::new(Clusters::default());
    // Without Gardener nobody sets its annotation.
    let freely = args.ignore_operation_annotation || args.cluster == ClusterKind::Local;
    let triggers = Arc::new(Triggers::new(freely));
    let seed = Seed {
        client: client.clone(),
        store: Arc::clone(&store),
        index: Arc::clone(&index),
        triggers: Arc::clone(&triggers),
        scope: scope.clone(),
        readiness: readiness.clone(),
    };
    tasks.spawn("seed", seed.run(shutdown.clone()));
    if home == Home::Seed {
        let tokens = Tokens { seed: client.clone(), tokens };
        tasks.spawn("tokens", tokens.run(shutdown.clone()));
    }
    let follow = Authorities { seed: client.clone(), home: home.clone(), authorities };
    tasks.spawn("authorities", follow.run(shutdown.clone()));
    let shoots = Shoots {
        seed: client.clone(),
        standing: standing.clone(),
        index: Arc::clone(&index),
        clusters: Arc::clone(&clusters),
        endpoints: Arc::clone(&endpoints),
        tokens: token_changes,
        authorities: authority_changes.clone(),
        catalog: catalog_changes.clone(),
        domain: args.endpoint_domain.clone(),
        home,
    };
    tasks.spawn("shoots", shoots.run(shutdown.clone()));
    let left = CancellationToken::new();
    let candidate = Candidate::new(
        client.clone(),
        args.leader_election_namespace.as_ref().unwrap_or(&args.namespace),
        (args.identity(), args.lease_duration),
        terms,
        left.clone(),
        readiness.clone(),
    );
    tasks.spawn("election", candidate.run(shutdown.clone()));
    let mark = args.pod.as_ref().map(|pod| Mark::new(client.clone(), &args.namespace, pod));
    let bandwidth = bandwidth::Current::default();
    let leading = Leading {
        args,
        client,
        index: Arc::clone(&index),
        store,
        clusters,
        triggers,
        endpoints,
        authorities: authority_changes,
        catalog: catalog_changes,
        scope,
        mark,
        bandwidth: bandwidth.clone(),
    };
    tasks.spawn("leading", leading.run(standing, left, shutdown.clone()));
    let (counted, in_use) = (Arc::clone(&index), bandwidth.clone());
    let status = async move || Json(Status { page: index.page(), bandwidth: bandwidth.view() });
    let metrics = async move || {
        // Who stands by has heard of no agent.
        let view = in_use.view();
        let gauges = if view.is_some() { counted.gauges() } else { Vec::new() };
        let page = metrics::page(&gauges, view);
        ([(http::header::CONTENT_TYPE, metrics::CONTENT_TYPE)], page)
    };
    let pages = Router::new().route("/status", get(status)).route("/metrics", get(metrics));
    tasks.spawn("admin", admin::serve(admin_listener, readiness, pages, shutdown));
    tasks.join(GRACE).await
}

/// What the page `/status` shows.
#[derive(Serialize)]
struct Status {
    #[serde(flatten)]
    page: Page,
    /// What is in use of the budgets, where this process leads.
    #[serde(skip_serializing_if = "Option::is_none")]
    bandwidth: Option<bandwidth::View>,
}

async fn client(args: &Args) -> anyhow::Result<Client> {
    let mut config = match &args.kubeconfig {
        Some(path) => {
            let kubeconfig = Kubeconfig::read_from(path)
                .with_context(|| format!("can't read the kubeconfig {path:?}"))?;
            Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?
        }
        None => Config::infer().await.context("no --kubeconfig, and this is no Pod")?,
    };
    config.connect_timeout = Some(Duration::from_secs(5));
    if args.cluster == ClusterKind::Local {
        config.default_namespace.clone_from(&args.namespace);
    }
    Ok(Client::try_from(config)?)
}

async fn listen(address: std::net::SocketAddr, flag: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("can't listen on {flag} {address}"))
}
