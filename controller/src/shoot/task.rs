//! The task of one shoot.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::Client;
use rootstock_core::name::ShootName;
use rootstock_daemon::error::Chain;
use tokio::sync::watch;
use tokio::time::Instant;

use super::endpoints::Endpoints;
use super::tokens::{ByShoot, Token};
use super::{PATIENCE, access, labels, nodes, secrets};
use crate::api::Cluster;
use crate::grpc::ShootEndpoint;
use crate::index::{Index, ShootState};

/// The first pause after a failure; it doubles.
const FIRST_RETRY: Duration = Duration::from_millis(200);
/// The longest pause.
const LAST_RETRY: Duration = Duration::from_secs(30);

/// One shoot.
pub(super) struct Shoot {
    pub(super) name: ShootName,
    pub(super) seed: Client,
    pub(super) index: Arc<Index>,
    pub(super) endpoints: Arc<Endpoints>,
    pub(super) cluster: watch::Receiver<Arc<Cluster>>,
    pub(super) tokens: watch::Receiver<ByShoot>,
    pub(super) domain: Option<String>,
}

/// What a shoot's client was made from: when it changes, a new one is made.
#[derive(Clone, Debug, PartialEq)]
struct Basis {
    host: String,
    kubeconfig: Option<String>,
    token: Token,
}

enum Stand {
    Hibernated,
    Waiting(&'static str),
    Ready(Basis, Arc<Cluster>),
}

impl Shoot {
    /// Runs until it is dropped.
    pub(super) async fn run(mut self) {
        let mut pause = FIRST_RETRY;
        let mut since = Instant::now();
        loop {
            if let Err(error) = secrets::request_access(&self.seed, &self.name).await {
                self.trouble(since, &Chain(&error).to_string());
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LAST_RETRY);
                continue;
            }
            match self.stand() {
                Stand::Hibernated => {
                    self.endpoints.remove(&self.name);
                    self.index.put_shoot_state(&self.name, ShootState::Hibernated);
                    // Tokens of other shoots change too: that wakes nobody up.
                    while matches!(self.stand(), Stand::Hibernated) {
                        self.something_changes().await;
                    }
                    self.index.put_shoot_state(&self.name, ShootState::Unknown);
                    (pause, since) = (FIRST_RETRY, Instant::now());
                }
                Stand::Waiting(what) => {
                    // Cancel-safe: a change is still seen by the next look.
                    tokio::select! {
                        () = self.something_changes() => {}
                        () = tokio::time::sleep(PATIENCE) => self.trouble(since, what),
                    }
                }
                Stand::Ready(basis, cluster) => match self.open(&basis, &cluster).await {
                    Ok(client) => {
                        (pause, since) = (FIRST_RETRY, Instant::now());
                        self.serve(client, &basis).await;
                    }
                    Err(error) => {
                        self.trouble(since, &error);
                        tokio::time::sleep(pause).await;
                        pause = (pause * 2).min(LAST_RETRY);
                    }
                },
            }
        }
    }

    /// Makes the client and lets agents in.
    async fn open(&self, basis: &Basis, cluster: &Cluster) -> Result<Client, String> {
        let client = access::client(&self.seed, &self.name, cluster, &basis.token)
            .await
            .map_err(|error| Chain(&error).to_string())?;
        let ca = secrets::authority(&self.seed, &self.name)
            .await
            .map_err(|error| Chain(&error).to_string())?;
        let tls = ca
            .server_config(std::slice::from_ref(&basis.host), Timestamp::now())
            .map_err(|error| Chain(&error).to_string())?;
        let name = self.name.clone();
        let endpoint = ShootEndpoint { name, ca: Arc::new(ca), tls, client: client.clone() };
        self.endpoints.put(basis.host.clone(), endpoint);
        tracing::info!(shoot = %self.name, host = basis.host, "serving the shoot's agents");
        Ok(client)
    }

    /// Follows Nodes and keeps labels until the client has to be made anew.
    async fn serve(&mut self, client: Client, basis: &Basis) {
        let nodes = nodes::follow(client.clone(), self.name.clone(), Arc::clone(&self.index));
        let labels = labels::keep(client, self.name.clone(), Arc::clone(&self.index));
        let changes = async {
            loop {
                self.something_changes().await;
                match self.stand() {
                    Stand::Ready(now, _) if now == *basis => {}
                    Stand::Ready(..) | Stand::Hibernated | Stand::Waiting(_) => break,
                }
            }
        };
        // Cancel-safe: both start from what is there when they are run again.
        tokio::select! {
            never = nodes => match never {},
            never = labels => match never {},
            () = changes => {}
        }
    }

    fn stand(&mut self) -> Stand {
        let cluster = Arc::clone(&self.cluster.borrow_and_update());
        if cluster.is_hibernated() {
            return Stand::Hibernated;
        }
        let Some(token) = self.tokens.borrow_and_update().get(&self.name).cloned() else {
            return Stand::Waiting("its access Secret has no token yet");
        };
        let Some(host) = cluster.endpoint_host(&self.name, self.domain.as_deref()) else {
            return Stand::Waiting("its seed has no ingress domain: set --endpoint-domain");
        };
        let annotations = cluster.metadata.annotations.as_ref();
        let kubeconfig = annotations.and_then(|a| a.get(crate::api::KUBECONFIG_SECRET)).cloned();
        Stand::Ready(Basis { host, kubeconfig, token }, cluster)
    }

    async fn something_changes(&mut self) {
        // Cancel-safe: `changed` loses nothing. An error means that the
        // controller ends, and this task with it.
        let ended = tokio::select! {
            changed = self.cluster.changed() => changed.is_err(),
            changed = self.tokens.changed() => changed.is_err(),
        };
        if ended {
            std::future::pending::<()>().await;
        }
    }

    fn trouble(&self, since: Instant, why: &str) {
        tracing::debug!(shoot = %self.name, why, "no access to the shoot");
        if since.elapsed() >= PATIENCE {
            self.index.put_shoot_state(&self.name, ShootState::Unreachable(why.to_owned()));
        }
    }
}
