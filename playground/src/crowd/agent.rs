//! One agent of a crowd.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::Context as _;
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use rcgen::{CertificateParams, KeyPair};
use rootstock_agent::link::{Cause, Pauses};
use rootstock_agent::pull::{Pulls, Word};
use rootstock_controller::identity::NodeId;
use rootstock_controller::identity::ca::{NODE_LIFETIME, ShootCa};
use rootstock_core::bandwidth::{Grant, Held};
use rootstock_core::desired::{Desired, DesiredContent, Generation, Offer, offer};
use rootstock_core::digest::Digest;
use rootstock_core::status::{BundleReport, Phase};
use rootstock_proto::desired::content_hash;
use rootstock_proto::v1::controller_message::Kind as Said;
use rootstock_proto::v1::enrollment_client::EnrollmentClient;
use rootstock_proto::v1::fleet_client::FleetClient;
use rootstock_proto::v1::node_message::Kind;
use rootstock_proto::{PROTOCOL, v1};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::codegen::{Service, http::Uri};
use tonic::transport::{Channel, Endpoint};

use super::Shared;

/// As real agents do.
const CONNECT: Duration = Duration::from_secs(15);
const KEEPALIVE: Duration = Duration::from_secs(20);
const KEEPALIVE_ANSWER: Duration = Duration::from_secs(10);

/// What one node holds.
#[derive(Clone, Debug, Default)]
pub(super) struct Node {
    pub(super) held: Option<(Generation, Digest)>,
    /// What it says of its bundles.
    pub(super) bundles: Vec<BundleReport>,
}

impl Node {
    fn report(&self) -> Option<Kind> {
        let (Generation(generation), _) = self.held?;
        let bundles = self.bundles.iter().map(Into::into).collect();
        Some(Kind::Report(v1::Report { bundles, generation }))
    }
}

/// An agent that takes what it is sent and says that it is there.
#[derive(Clone, Debug)]
pub(super) struct Agent {
    node: Arc<Mutex<Node>>,
    /// How fast it may pull; without bounds where it pulls nothing.
    pub(super) pulls: Pulls,
    /// What it should have, for whoever pulls it.
    pub(super) wanted: watch::Sender<DesiredContent>,
    shared: Arc<Shared>,
    tls: Arc<ClientConfig>,
    pauses: Pauses,
    draws: u64,
}

/// Why a stream is over.
enum Ended {
    /// The controller asked to come back after that time.
    Goodbye(Duration),
    /// It is to come back with another certificate, which it has.
    Renewed(Arc<ClientConfig>),
    Lost,
}

impl Agent {
    pub(super) fn new(
        ca: &ShootCa,
        id: &NodeId,
        node: Arc<Mutex<Node>>,
        shared: Arc<Shared>,
    ) -> anyhow::Result<Self> {
        let key = KeyPair::generate()?;
        let request = CertificateParams::new(Vec::new())?.serialize_request(&key)?;
        let issued = ca.sign(request.der(), id, Timestamp::now(), NODE_LIFETIME)?;
        let tls = tls(&key, issued.certificate, shared.roots.clone())?;
        let draws =
            u64::from_le_bytes(Digest::of(id.to_spiffe().as_bytes()).as_bytes()[..8].try_into()?);
        let (pulls, wanted, pauses) =
            (Pulls::unbounded(), watch::Sender::default(), Pauses::default());
        Ok(Self { node, pulls, wanted, shared, tls, pauses, draws })
    }

    /// The same that pulls as these may.
    pub(super) fn with_pulls(self, pulls: Pulls) -> Self {
        Self { pulls, ..self }
    }

    pub(super) async fn run(mut self) {
        loop {
            let ended = self.stream().await;
            let pause = match ended {
                Ok(Ended::Goodbye(after)) => {
                    self.shared.seen.send_modify(|seen| seen.goodbyes += 1);
                    self.pauses = Pauses::default();
                    after
                }
                Ok(Ended::Renewed(tls)) => {
                    self.tls = tls;
                    Duration::ZERO
                }
                Ok(Ended::Lost) => {
                    self.pauses = Pauses::default();
                    self.pause()
                }
                Err(error) => {
                    tracing::debug!(%error, "no stream");
                    self.pause()
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    fn pause(&mut self) -> Duration {
        // Any generator will do; each agent has a beginning of its own.
        self.draws = self.draws.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        self.pauses.next(Cause::Away, self.draws >> 33)
    }

    async fn connect(&self) -> anyhow::Result<Channel> {
        let place = &self.shared.place;
        let endpoint = Endpoint::from_shared(format!("http://{}", place.host))?
            .http2_keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE_ANSWER)
            .keep_alive_while_idle(true)
            .buffer_size(4);
        let connect = async {
            let address = *place.address.borrow();
            let address = address.ok_or(io::ErrorKind::ConnectionRefused)?;
            let tcp = TcpStream::connect(address).await?;
            tcp.set_nodelay(true)?;
            let name = place.host.clone().try_into().map_err(io::Error::other)?;
            TlsConnector::from(Arc::clone(&self.tls)).connect(name, tcp).await
        };
        let io = tokio::time::timeout(CONNECT, connect).await??;
        Ok(endpoint.connect_with_connector(Once(Some(io))).await?)
    }

    /// Asks for a new certificate, and gives it up.
    pub(super) async fn renew(&self) -> anyhow::Result<Result<(), Status>> {
        let key = KeyPair::generate()?;
        Ok(renew(self.connect().await?, &key).await?.map(drop))
    }

    /// Another certificate by this connection, and who is trusted from here on.
    async fn renewed(&self, channel: Channel) -> anyhow::Result<Arc<ClientConfig>> {
        let key = KeyPair::generate()?;
        let given = renew(channel, &key).await??.certificate.context("no certificate")?;
        let mut roots = RootCertStore::empty();
        for authority in given.authorities {
            roots.add(authority.into())?;
        }
        tls(&key, given.leaf.into(), roots)
    }

    async fn stream(&self) -> anyhow::Result<Ended> {
        let channel = self.connect().await?;
        let mut client = FleetClient::new(channel.clone());
        let (say, said) = mpsc::channel(4);
        let (_stream, leases) = self.pulls.connect();
        say.send(message(Kind::Hello(self.hello(&leases)))).await?;
        let mut hear = client.sync(ReceiverStream::new(said)).await?.into_inner();
        let _connected = Connected::new(&self.shared);
        // What is known is said at once: a new controller sends nothing that
        // the node holds, and knows nothing of it.
        let report = self.node().report();
        if let Some(report) = report {
            say.send(message(report)).await?;
        }
        let mut at_work = self.shared.at_work.subscribe();
        let mut renewals = self.shared.renewals.subscribe();
        loop {
            let heard = tokio::select! {
                // Cancel-safe: what was read in part stays in the stream.
                heard = hear.message() => heard,
                // Cancel-safe: a change stays unseen until it is borrowed.
                _ = renewals.changed() => return match self.renewed(channel).await {
                    Ok(tls) => Ok(Ended::Renewed(tls)),
                    Err(error) => {
                        self.wrong(format!("it is not renewed: {error:#}"));
                        Err(error)
                    }
                },
                // Cancel-safe: it only waits. What is due is sent at once.
                () = self.pulls.due() => {
                    for word in self.pulls.says() {
                        say.send(message(match word {
                            Word::Asks(request) => Kind::PullRequest((&request).into()),
                            Word::Shrunk(shrunk) => Kind::GrantShrunk((&shrunk).into()),
                        })).await?;
                    }
                    continue;
                }
                // Cancel-safe: a change stays unseen until it is borrowed.
                _ = at_work.changed() => {
                    let done = !*at_work.borrow_and_update();
                    let report = done.then(|| self.node().report()).flatten();
                    if let Some(report) = report {
                        say.send(message(report)).await?;
                    }
                    continue;
                }
            };
            let Ok(Some(heard)) = heard else { return Ok(Ended::Lost) };
            let epoch = heard.epoch;
            self.pulls.controller(heard.grants);
            match heard.kind {
                Some(Said::Desired(wire)) => {
                    for answer in self.take(epoch, wire) {
                        say.send(message(answer)).await?;
                    }
                }
                Some(Said::Goodbye(goodbye)) => {
                    let after = goodbye.reconnect_after.and_then(|after| after.try_into().ok());
                    return Ok(Ended::Goodbye(after.unwrap_or_default()));
                }
                Some(Said::PullGrant(wire)) => {
                    let shrunk = self.pulls.heard(&Grant::try_from(wire)?);
                    if let Some(shrunk) = shrunk {
                        say.send(message(Kind::GrantShrunk((&shrunk).into()))).await?;
                    }
                }
                Some(Said::Slot(_) | Said::Retry(_) | Said::Resync(_)) | None => {}
            }
        }
    }

    fn hello(&self, leases: &[Held]) -> v1::Hello {
        let held = self.node().held;
        v1::Hello {
            protocol: Some(PROTOCOL),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            architecture: "amd64".to_owned(),
            generation: held.map_or(0, |(generation, _)| generation.0),
            content_hash: held.map_or_else(Vec::new, |(_, content)| content.as_bytes().to_vec()),
            grants: leases.iter().map(Into::into).collect(),
            ..v1::Hello::default()
        }
    }

    /// Takes a desired state, as a node's ledger would, and answers.
    fn take(&self, epoch: u64, wire: v1::Desired) -> Vec<Kind> {
        let desired = match Desired::try_from(wire) {
            Ok(desired) => desired,
            Err(error) => {
                self.wrong(format!("a desired state that can't be read: {error}"));
                return Vec::new();
            }
        };
        let (generation, content) = (desired.generation, content_hash(&desired.content));
        let mut node = self.node();
        let offered = offer(node.held, (generation, content));
        if matches!(offered, Offer::Older | Offer::Contradicts) {
            self.wrong(format!("{offered:?}: {generation:?} over {:?}", node.held));
            return Vec::new();
        }
        let bundles = reports(&desired.content);
        node.held = Some((generation, content));
        node.bundles = bundles;
        self.wanted.send_replace(desired.content);
        // Who is at work reports when it is done.
        let report = (!*self.shared.at_work.borrow()).then(|| node.report()).flatten();
        drop(node);
        self.shared.seen.send_modify(|seen| {
            if epoch < seen.epoch {
                seen.wrong.push(format!("term {epoch} speaks after term {}", seen.epoch));
            }
            seen.epoch = seen.epoch.max(epoch);
            seen.desired += 1;
            seen.repeated += u64::from(offered == Offer::Same);
        });
        let accept = Kind::Accept(v1::Accept { generation: generation.0 });
        [Some(accept), report].into_iter().flatten().collect()
    }

    fn wrong(&self, what: String) {
        self.shared.seen.send_modify(|seen| seen.wrong.push(what));
    }

    fn node(&self) -> std::sync::MutexGuard<'_, Node> {
        self.node.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn renew(
    channel: Channel,
    key: &KeyPair,
) -> anyhow::Result<Result<v1::RenewResponse, Status>> {
    let request = CertificateParams::new(Vec::new())?.serialize_request(key)?;
    let certificate_request = request.der().to_vec();
    let mut client = EnrollmentClient::new(channel);
    let answer = client.renew(v1::RenewRequest { certificate_request }).await;
    Ok(answer.map(tonic::Response::into_inner))
}

/// What it shows, and whom it trusts.
fn tls(
    key: &KeyPair,
    certificate: CertificateDer<'static>,
    roots: RootCertStore,
) -> anyhow::Result<Arc<ClientConfig>> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut tls = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_client_auth_cert(
            vec![certificate],
            PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        )?;
    tls.alpn_protocols = vec![b"h2".to_vec()];
    tls.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(tls))
}

/// What a node has that pulls and activates in no time.
fn reports(content: &DesiredContent) -> Vec<BundleReport> {
    let mut reports: Vec<_> = content.bundles.iter().map(report).collect();
    for ahead in &content.prefetch {
        let of_type = reports.iter_mut().find(|report| report.runtime == *ahead.runtime());
        if let Some(active) = of_type {
            active.fetched = Some(ahead.digest);
        } else {
            let mut verified = report(ahead);
            (verified.phase, verified.fetched) = (Phase::Verified, Some(ahead.digest));
            verified.handlers.clear();
            reports.push(verified);
        }
    }
    reports
}

fn report(bundle: &rootstock_core::desired::DesiredBundle) -> BundleReport {
    let config = bundle.config.config();
    let mut report = BundleReport::new(bundle.runtime().clone(), Phase::Proven);
    report.digest = Some(bundle.digest);
    report.version.clone_from(&config.version);
    report.handlers = config.handlers.iter().map(|handler| handler.name.to_string()).collect();
    report
}

fn message(kind: Kind) -> v1::NodeMessage {
    v1::NodeMessage { kind: Some(kind) }
}

/// Counts a stream while it is there.
struct Connected<'a>(&'a Shared);

impl<'a> Connected<'a> {
    fn new(shared: &'a Shared) -> Self {
        shared.seen.send_modify(|seen| {
            seen.connected += 1;
            seen.streams += 1;
        });
        Self(shared)
    }
}

impl Drop for Connected<'_> {
    fn drop(&mut self) {
        self.0.seen.send_modify(|seen| seen.connected -= 1);
    }
}

/// Gives the connection away that is already there.
struct Once(Option<TlsStream<TcpStream>>);

impl Service<Uri> for Once {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), io::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let io = self.0.take().ok_or_else(|| io::ErrorKind::NotConnected.into());
        Box::pin(async move { io.map(TokioIo::new) })
    }
}
