//! What a leader does, from the beginning of its term to the end.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use kube::Client;
use rootstock_core::catalog::Catalog;
use rootstock_core::path::BinaryRoots;
use rootstock_daemon::{Shutdown, Tasks};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::args::{Args, ClusterKind, Ingress};
use crate::bandwidth::{self, Bandwidth};
use crate::events::Events;
use crate::fleet::Fleet;
use crate::grpc;
use crate::heartbeat::Heartbeat;
use crate::home::Home;
use crate::index::Index;
use crate::lead::{Mark, Standing, Term, fenced};
use crate::objects::istio::Istio;
use crate::objects::plain::Plain;
use crate::objects::proxy::Proxy;
use crate::objects::route::Backend;
use crate::objects::{AgentSettings, Objects, Place, Recent};
use crate::operation::{Operations, Triggers};
use crate::rollout::{Rings, Rollouts};
use crate::seed::{Clusters, Scope, Store};
use crate::shoot::Endpoints;
use crate::shoot::authorities::ByShoot;
use crate::status::StatusWriter;

/// How long what a leader does may take to end.
const GRACE: Duration = Duration::from_secs(12);

/// Everything that leading takes.
pub(crate) struct Leading {
    pub(crate) args: Args,
    pub(crate) client: Client,
    pub(crate) index: Arc<Index>,
    pub(crate) store: Arc<Store>,
    pub(crate) clusters: Arc<Clusters>,
    pub(crate) triggers: Arc<Triggers>,
    pub(crate) endpoints: Arc<Endpoints>,
    pub(crate) authorities: watch::Receiver<ByShoot>,
    pub(crate) catalog: watch::Receiver<Arc<Catalog>>,
    pub(crate) scope: Scope,
    pub(crate) mark: Option<Mark>,
    pub(crate) bandwidth: bandwidth::Current,
}

impl Leading {
    /// Leads in each term that comes. `left` is told when nothing is done in a
    /// term's name any more, and will not be.
    pub(crate) async fn run(
        self,
        mut standing: Standing,
        left: CancellationToken,
        shutdown: Shutdown,
    ) -> anyhow::Result<()> {
        let _left = left.drop_guard();
        self.triggers.rest();
        if let Some(mark) = &self.mark {
            // Cancel-safe: whoever leads takes the mark off.
            tokio::select! {
                () = mark.clear() => {}
                () = shutdown.begun() => return Ok(()),
            }
        }
        loop {
            // Cancel-safe: a term that began is still there at the next look.
            let term = tokio::select! {
                term = standing.term() => term,
                () = shutdown.begun() => return Ok(()),
            };
            let led = self.lead(term, &shutdown).await;
            self.triggers.rest();
            // Nothing that another leader may change is known from here on.
            self.index.forget_agents();
            led?;
        }
    }

    async fn lead(&self, term: Term, shutdown: &Shutdown) -> anyhow::Result<()> {
        let Self { args, index, .. } = self;
        let client = fenced(&self.client, &term);
        let end = shutdown.child();
        // Before the Pod is marked: whoever is sent here finds someone.
        let agents = grpc::listen(args.listen)
            .with_context(|| format!("can't listen on --listen {}", args.listen))?;
        // What this process knew of agents is of its last term, if of any; and
        // what was asked for meanwhile another leader has answered.
        index.forget_agents();
        self.triggers.begin_anew(|| self.scope.of(&self.store).collect());

        let mut tasks = Tasks::new(end.clone());
        let over = (term.clone(), end.clone());
        tasks.spawn("end of the term", async move {
            let (term, end) = over;
            // Cancel-safe: both stay so.
            tokio::select! {
                () = term.over() => end.begin(),
                () = end.begun() => {}
            }
            Ok(())
        });
        let (events, publish) = Events::new(client.clone());
        tasks.spawn("events", publish.run(end.clone()));
        let operations = Operations {
            client: client.clone(),
            store: Arc::clone(&self.store),
            clusters: Arc::clone(&self.clusters),
            triggers: Arc::clone(&self.triggers),
            index: Arc::clone(index),
            endpoints: Arc::clone(&self.endpoints),
            objects: Arc::new(self.objects(&client)),
            authorities: self.authorities.clone(),
            events: events.clone(),
            scope: self.scope.clone(),
            deletion_timeout: args.deletion_timeout,
            at_once: args.max_concurrent_reconciles,
        };
        tasks.spawn("operations", operations.run(end.clone()));
        // A plain cluster has no Gardener that would look.
        if args.cluster == ClusterKind::Seed {
            let namespace = args.heartbeat_namespace.as_ref().unwrap_or(&args.namespace).clone();
            let interval = args.heartbeat_renew_interval;
            let heartbeat = Heartbeat { client: client.clone(), namespace, interval };
            tasks.spawn("heartbeat", heartbeat.run(end.clone()));
        }
        // Nothing is known of the leases of the leader before, but by its agents.
        let budgets = self.catalog.borrow().budgets.unwrap_or_default();
        let bandwidth = Arc::new(Bandwidth::new(budgets));
        self.bandwidth.begin(&bandwidth);
        let catalog = self.catalog.clone();
        let follow = bandwidth::Follow { bandwidth: Arc::clone(&bandwidth), catalog };
        tasks.spawn("bandwidth", follow.run(end.clone()));
        let rings = (args.cluster == ClusterKind::Seed).then(|| {
            let (scope, store) = (self.scope.clone(), Arc::clone(&self.store));
            Rings::new(client.clone(), &args.namespace, scope, store)
        });
        if let Some(rings) = rings.clone() {
            tasks.spawn("rings", rings.keep(end.clone()));
        }
        let rollouts = Rollouts {
            client: client.clone(),
            home: self.scope.home.clone(),
            index: Arc::clone(index),
            store: Arc::clone(&self.store),
            clusters: Arc::clone(&self.clusters),
            catalog: self.catalog.clone(),
            events: events.clone(),
            bandwidth: Arc::clone(&bandwidth),
            rings,
        };
        tasks.spawn("rollouts", rollouts.run(end.clone()));
        let (index, store) = (Arc::clone(index), Arc::clone(&self.store));
        let catalog = self.catalog.clone();
        let status = StatusWriter { client, index, store, events, catalog };
        tasks.spawn("status", status.run(end.clone()));
        let (index, endpoints) = (Arc::clone(&self.index), Arc::clone(&self.endpoints));
        let fleet = Arc::new(Fleet { index, endpoints, bandwidth });
        let token = end.token();
        if let Some(mark) = self.mark.clone() {
            tasks.spawn("mark", mark.keep(term.clone(), end));
        }
        tasks.spawn("agents", async move { Ok(grpc::serve(agents, fleet, term, token).await?) });
        tasks.join(GRACE).await
    }

    fn objects(&self, client: &Client) -> Objects {
        let args = &self.args;
        Objects {
            client: client.clone(),
            catalog: self.catalog.clone(),
            agent: AgentSettings {
                image: args.agent_image.clone(),
                roots: BinaryRoots::new(args.binary_roots.clone()),
                domain: args.endpoint_domain.clone(),
                port: args.endpoint_port,
                proxy: Proxy { url: args.agent_proxy.clone(), except: args.agent_no_proxy.clone() },
            },
            place: match self.scope.home {
                Home::Seed => Place::Managed,
                Home::Plain { .. } => Place::Plain(Plain::new(client.clone())),
            },
            ingress: match (&self.scope.home, args.ingress) {
                (Home::Seed, Ingress::Istio) => {
                    let (service, port) = (&args.service_name, args.service_port);
                    Some(Istio::new(Backend::new(service, &args.namespace, port)))
                }
                (Home::Seed, Ingress::None) | (Home::Plain { .. }, _) => None,
            },
            // Another leader may have written since.
            recent: Recent::default(),
        }
    }
}
