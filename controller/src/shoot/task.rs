//! The task of one shoot.

use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use rootstock_core::catalog::Catalog;
use rootstock_core::name::ShootName;
use rootstock_daemon::error::Chain;
use tokio::sync::watch;
use tokio::time::timeout;

use super::agents::Agents;
use super::client::{Link, client};
use super::endpoints::Endpoints;
use super::follow::FollowError;
use super::health::{Health, words};
use super::nodes::{Nodes, nodes};
use super::sandboxes::Sandboxes;
use super::serving::{self, Served};
use super::takeover::Takeover;
use super::tokens::{self, ByShoot, Token};
use super::trouble::Kind;
use super::{PATIENCE, access, authorities, labels};
use crate::api::Cluster;
use crate::grpc::ShootEndpoint;
use crate::index::{Index, ShootState};
use crate::lead::{Standing, fenced};

/// How long the seed's API may take for what a client is made of.
const OPEN: Duration = Duration::from_secs(20);
/// After so many failures in a row the kubeconfig is read again.
const REOPEN: u32 = 8;

const NO_TOKEN: &str = "its access Secret has no token yet";

/// One shoot.
pub(super) struct Shoot {
    pub(super) name: ShootName,
    pub(super) seed: Client,
    pub(super) standing: Standing,
    pub(super) index: Arc<Index>,
    pub(super) endpoints: Arc<Endpoints>,
    pub(super) cluster: watch::Receiver<Arc<Cluster>>,
    pub(super) tokens: watch::Receiver<ByShoot>,
    pub(super) authorities: watch::Receiver<authorities::ByShoot>,
    /// Whose the RuntimeClasses are.
    pub(super) catalog: watch::Receiver<Arc<Catalog>>,
    pub(super) domain: Option<String>,
    /// A client of its API where that is the controller's own: nothing has to
    /// be found out then.
    pub(super) own_api: Option<Client>,
}

/// What a shoot's client was made from: when it changes, a new one is made. A
/// new token alone is handed to the client that is there.
#[derive(Clone, Debug, PartialEq)]
struct Basis {
    host: String,
    kubeconfig: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
enum Stand {
    Hibernated,
    Waiting(&'static str),
    Ready(Basis, Token),
}

/// A client, and what it was made from.
struct Open {
    basis: Basis,
    client: Client,
    link: Arc<Link>,
    /// The token that the watch of Secrets had last.
    token: Token,
    served: Option<Served>,
    failures: u32,
}

enum Ended {
    Changed,
    Failed(FollowError),
}

impl Shoot {
    /// Runs until it is dropped.
    pub(super) async fn run(mut self) {
        let mut nodes = nodes(self.name.clone(), Arc::clone(&self.index));
        let takeover = if self.own_api.is_some() { Takeover::none } else { Takeover::new };
        let mut takeover = takeover(self.name.clone(), Arc::clone(&self.index));
        let mut sandboxes =
            Sandboxes::new(self.name.clone(), Arc::clone(&self.index), self.catalog.clone());
        let mut health = Health::new(&self.name, &self.index);
        let mut open: Option<Open> = None;
        loop {
            let stand = self.stand();
            match &stand {
                Stand::Hibernated => {
                    open = None;
                    nodes.forget();
                    sandboxes.forget();
                    self.endpoints.remove(&self.name);
                    self.index.put_shoot_state(&self.name, ShootState::Hibernated);
                    self.until_not(&stand).await;
                    self.index.put_shoot_state(&self.name, ShootState::Unknown);
                    health.wakes_up();
                }
                Stand::Waiting(what) => {
                    // What comes after may have another authority.
                    open = None;
                    if *what == NO_TOKEN {
                        self.mark().await;
                    }
                    // Cancel-safe: a change is still seen by the next look.
                    tokio::select! {
                        () = self.until_not(&stand) => {}
                        () = tokio::time::sleep(PATIENCE) => health.bad(what),
                    }
                }
                Stand::Ready(basis, token) => {
                    let current = open.take().filter(|open| open.basis == *basis);
                    let pause = match self.opened(current, basis, token).await {
                        Err(why) => health.failed(&why, Kind::Away, None),
                        Ok(mut there) => {
                            let ended = self
                                .serve(
                                    &mut there,
                                    &mut nodes,
                                    &mut takeover,
                                    &mut sandboxes,
                                    &mut health,
                                )
                                .await;
                            let pause = match ended {
                                Ended::Changed => Duration::ZERO,
                                Ended::Failed(error) => {
                                    self.failed(&mut there, &error, &mut health).await
                                }
                            };
                            open = (there.failures < REOPEN).then_some(there);
                            pause
                        }
                    };
                    // Cancel-safe, as above.
                    tokio::select! {
                        () = self.until_not(&stand) => {}
                        () = tokio::time::sleep(pause) => {}
                    }
                }
            }
        }
    }

    /// The client that is there, with the token of now, or a new one.
    async fn opened(
        &self,
        current: Option<Open>,
        basis: &Basis,
        token: &Token,
    ) -> Result<Open, String> {
        let mut open = match current {
            Some(mut open) => {
                open.take_token(token);
                open
            }
            // Boxed, for it is large and over soon; the task stays.
            None => match timeout(OPEN, Box::pin(self.open(basis, token))).await {
                Ok(opened) => opened?,
                Err(_) => {
                    let seconds = OPEN.as_secs();
                    return Err(format!("the seed's API does not answer within {seconds} s"));
                }
            },
        };
        let Open { basis, client, served, .. } = &mut open;
        self.admit(basis, client, served)?;
        Ok(open)
    }

    /// Lets agents in as the shoot's authorities have it now. Streams that are
    /// there do not feel it, but for those of an authority that has left.
    fn admit(
        &self,
        basis: &Basis,
        client: &Client,
        served: &mut Option<Served>,
    ) -> Result<(), String> {
        let rotation = self.cluster.borrow().rotation();
        let authorities = self.authorities.borrow().get(&self.name).cloned().unwrap_or_default();
        let new = serving::serve(&authorities, rotation, &basis.host, served.as_ref())
            .map_err(|error| Chain(&error).to_string())?;
        if let Some((now_served, authorities, tls)) = new {
            let (name, client) = (self.name.clone(), client.clone());
            let endpoint = ShootEndpoint { name, authorities, tls, client };
            self.endpoints.put(basis.host.clone(), endpoint);
            tracing::info!(
                shoot = %self.name, host = basis.host, %now_served, "serving the shoot's agents",
            );
            *served = Some(now_served);
        }
        Ok(())
    }

    /// Makes the client.
    async fn open(&self, basis: &Basis, token: &Token) -> Result<Open, String> {
        let link = Link::new(token.clone());
        let client = match &self.own_api {
            Some(own) => own.clone(),
            None => {
                let config = access::config(&self.seed, &self.name, basis.kubeconfig.as_deref())
                    .await
                    .map_err(|error| Chain(&error).to_string())?;
                client(&config, &link).map_err(|error| Chain(&error).to_string())?
            }
        };
        let (basis, token) = (basis.clone(), token.clone());
        Ok(Open { basis, client, link, token, served: None, failures: 0 })
    }

    /// Follows Nodes, agents and sandboxes, and keeps labels, until something is wrong, or
    /// the client has to be made anew.
    async fn serve(
        &mut self,
        open: &mut Open,
        nodes: &mut Nodes,
        takeover: &mut Takeover,
        sandboxes: &mut Sandboxes,
        health: &mut Health,
    ) -> Ended {
        let Open { basis, client, link, token, served, failures } = open;
        let labels = labels::keep(
            client.clone(),
            Arc::clone(link),
            self.name.clone(),
            Arc::clone(&self.index),
            self.standing.clone(),
        );
        let following = nodes.follow(client, || {
            *failures = 0;
            health.good();
        });
        let seed = self.seed.clone();
        let installers = takeover.follow(&seed, client);
        let mut agents = Agents::new(self.name.clone(), Arc::clone(&self.index));
        let agents = agents.follow(client);
        let sandboxes = sandboxes.follow(client);
        let changes = async {
            loop {
                // Cancel-safe: a change is still seen by the next look. What
                // comes with time alone is a matter of days.
                tokio::select! {
                    () = self.something_changes() => {}
                    () = tokio::time::sleep(serving::LOOK) => {}
                }
                match self.stand() {
                    Stand::Ready(now, fresh) if now == *basis => {
                        if fresh != *token {
                            link.set_token(&fresh);
                            *token = fresh;
                        }
                        if let Err(error) = self.admit(basis, client, served) {
                            tracing::warn!(shoot = %self.name, error, "agents are served as before");
                        }
                    }
                    Stand::Ready(..) | Stand::Hibernated | Stand::Waiting(_) => break,
                }
            }
        };
        // Cancel-safe: each goes on from what is in the index when it is run again.
        tokio::select! {
            error = following => Ended::Failed(error),
            never = labels => match never {},
            never = installers => match never {},
            never = agents => match never {},
            never = sandboxes => match never {},
            () = changes => Ended::Changed,
        }
    }

    /// Does what can be done about a failure and tells how long to wait.
    async fn failed(&self, open: &mut Open, error: &FollowError, health: &mut Health) -> Duration {
        open.failures += 1;
        if error.kind() == Kind::Unauthorized {
            // The watch may be behind the Secret.
            let look = timeout(OPEN, Box::pin(tokens::look(&self.seed, &self.name))).await;
            match look {
                Ok(Ok(Some(token))) => open.link.set_token(&token),
                Ok(Ok(None)) | Err(_) => {}
                Ok(Err(error)) => {
                    tracing::debug!(shoot = %self.name, error = %Chain(&error), "reading the token");
                }
            }
        }
        health.failed(&words(error), error.kind(), open.link.take_hold())
    }

    /// An access Secret that an earlier version made may lack its label, which
    /// the leader gives it.
    async fn mark(&self) {
        let Some(term) = self.standing.now() else { return };
        let seed = fenced(&self.seed, &term);
        match timeout(OPEN, Box::pin(access::mark(&seed, &self.name))).await {
            Ok(Ok(())) | Err(_) => {}
            Ok(Err(error)) => {
                tracing::debug!(shoot = %self.name, error = %Chain(&error), "marking the access Secret");
            }
        }
    }

    fn stand(&mut self) -> Stand {
        let cluster = Arc::clone(&self.cluster.borrow_and_update());
        if cluster.is_hibernated() {
            return Stand::Hibernated;
        }
        let known = self.tokens.borrow_and_update().get(&self.name).cloned();
        let own = || self.own_api.as_ref().map(|_| Token::none());
        let Some(token) = known.or_else(own) else {
            return Stand::Waiting(NO_TOKEN);
        };
        // The operations make them: here nobody knows whether the shoot is on its way out.
        if !self.authorities.borrow_and_update().contains_key(&self.name) {
            return Stand::Waiting("it has no certificate authority yet");
        }
        let Some(host) = cluster.endpoint_host(&self.name, self.domain.as_deref()) else {
            return Stand::Waiting("its seed has no ingress domain: set --endpoint-domain");
        };
        let annotations = cluster.metadata.annotations.as_ref();
        let kubeconfig = annotations.and_then(|a| a.get(crate::api::KUBECONFIG_SECRET)).cloned();
        Stand::Ready(Basis { host, kubeconfig }, token)
    }

    /// Waits until it stands otherwise. Tokens of other shoots change too:
    /// that wakes nobody up.
    async fn until_not(&mut self, stand: &Stand) {
        while self.stand() == *stand {
            self.something_changes().await;
        }
    }

    async fn something_changes(&mut self) {
        // Cancel-safe: `changed` loses nothing. An error means that the
        // controller ends, and this task with it.
        let ended = tokio::select! {
            changed = self.cluster.changed() => changed.is_err(),
            changed = self.tokens.changed() => changed.is_err(),
            changed = self.authorities.changed() => changed.is_err(),
        };
        if ended {
            std::future::pending::<()>().await;
        }
    }
}

impl Open {
    /// Takes a token that the watch shows. One that it has shown before may be
    /// older than the one that was read after a refusal.
    fn take_token(&mut self, token: &Token) {
        if self.token != *token {
            self.link.set_token(token);
            self.token = token.clone();
        }
    }
}
