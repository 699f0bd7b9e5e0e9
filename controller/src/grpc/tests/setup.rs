//! Two shoots, their server, and agents' clients.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair, SanType};
use rootstock_core::bandwidth::{Budgets, Node, Puller};
use rootstock_core::catalog::Catalog;
use rootstock_core::desired::{Desired, DesiredContent, Generation, Registry};
use rootstock_core::name::Uid;
use rootstock_core::status::BundleReport;
use rootstock_daemon::Shutdown;
use rootstock_proto::v1::enrollment_client::EnrollmentClient;
use rootstock_proto::v1::fleet_client::FleetClient;
use rootstock_proto::{PROTOCOL, v1};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::codegen::{Service, http::Uri};
use tonic::transport::{Channel, Endpoint};
use tonic::{Status, Streaming};

use crate::bandwidth::{Bandwidth, Follow};
use crate::content::{Offered, Slot};
use crate::grpc::listener::SHARE;
use crate::grpc::{
    Connected, Directory, Hello, Refused, RefusedItem, ServeError, ShootEndpoint, serve_shares,
};
use crate::identity::NodeId;
use crate::identity::authorities::Authorities;
use crate::identity::ca::{NODE_LIFETIME, ShootCa};
use crate::identity::fixtures::{ScriptedApi, request};
use crate::lead::Term;

/// The term of the server.
pub(super) const EPOCH: u64 = 7;

/// Nodes of shoot one beside those that have a name.
pub(super) const MANY: usize = 100;

/// What the directory was told.
#[derive(Debug, PartialEq)]
pub(super) enum Told {
    Connected(String, Generation),
    Reported(String, Generation, Vec<BundleReport>),
    Accepted(String, Generation),
    Refused(String, Generation, Vec<RefusedItem>),
    Disconnected(String),
}

pub(super) struct FakeDirectory {
    shoots: Mutex<BTreeMap<String, Arc<ShootEndpoint>>>,
    nodes: Mutex<BTreeMap<String, watch::Sender<Option<Offered>>>>,
    /// The nodes on which no Pod of the agent lives.
    pub(super) without_agent: Mutex<BTreeSet<String>>,
    /// Of the present term.
    pub(super) bandwidth: Mutex<Arc<Bandwidth>>,
    told: mpsc::Sender<Told>,
}

impl FakeDirectory {
    fn tell(&self, told: Told) {
        self.told.try_send(told).unwrap();
    }

    /// Forgets a node: its stream ends, and it gets no other.
    pub(super) fn forget(&self, node: &str) {
        self.nodes.lock().unwrap().remove(node);
    }

    /// Gives a node that has a desired state a slot for it.
    pub(super) fn give(&self, node: &str, slot: Slot) {
        self.nodes.lock().unwrap()[node].send_modify(|desired| {
            desired.as_mut().unwrap().slot = Some(slot);
        });
    }

    pub(super) fn desire(&self, node: &str, generation: u64) {
        self.desire_of_size(node, generation, 0);
    }

    /// A desired state that takes so many bytes on the wire.
    pub(super) fn desire_of_size(&self, node: &str, generation: u64, size: usize) {
        let large = Registry {
            name: "main".into(),
            url: "http://r".into(),
            mirrors: Vec::new(),
            ca_bundle: "x".repeat(size),
            credential: None,
        };
        let registries = (size > 0).then_some(large).into_iter().collect();
        let content = DesiredContent { registries, ..DesiredContent::default() };
        let content = Arc::new(content.into());
        let desired = Offered { generation: Generation(generation), content, slot: None };
        self.nodes.lock().unwrap()[node].send_replace(Some(desired));
    }
}

impl Directory for FakeDirectory {
    fn shoot_by_host(&self, host: &str) -> Option<Arc<ShootEndpoint>> {
        self.shoots.lock().unwrap().get(host).cloned()
    }

    fn connect(&self, node: &NodeId, hello: Hello) -> Result<Connected, Refused> {
        let nodes = self.nodes.lock().unwrap();
        let desired = nodes.get(&node.to_string()).ok_or(Refused::UnknownNode)?;
        if self.lacks_agent(node) {
            return Err(Refused::NoAgent);
        }
        self.tell(Told::Connected(node.to_string(), hello.generation));
        let desired = desired.subscribe();
        let line = self.bandwidth.lock().unwrap().connect(self.puller(node), hello.leases);
        Ok(Connected { desired, line })
    }

    fn puller(&self, node: &NodeId) -> Puller {
        Puller { node: Node::new(node.shoot.clone(), node.name.clone()), pool: "a".into() }
    }

    fn report(&self, node: &NodeId, generation: Generation, reports: Vec<BundleReport>) {
        self.tell(Told::Reported(node.to_string(), generation, reports));
    }

    fn accepted(&self, node: &NodeId, generation: Generation) {
        self.tell(Told::Accepted(node.to_string(), generation));
    }

    fn refused(&self, node: &NodeId, generation: Generation, items: Vec<RefusedItem>) {
        self.tell(Told::Refused(node.to_string(), generation, items));
    }

    fn vouch(&self, node: &NodeId, pod: &Uid) {
        assert_eq!(pod.as_str(), "pod-uid-1");
        self.without_agent.lock().unwrap().remove(&node.to_string());
    }

    fn lacks_agent(&self, node: &NodeId) -> bool {
        self.without_agent.lock().unwrap().contains(&node.to_string())
    }

    fn disconnect(&self, node: &NodeId) {
        self.tell(Told::Disconnected(node.to_string()));
    }
}

/// A running server of shoots `one` and `two` at `rs-one.test` and `rs-two.test`.
pub(super) struct Seed {
    pub(super) directory: Arc<FakeDirectory>,
    pub(super) one: Arc<ShootCa>,
    pub(super) two: Arc<ShootCa>,
    pub(super) api: ScriptedApi,
    pub(super) shutdown: CancellationToken,
    pub(super) server: JoinSet<Result<(), ServeError>>,
    /// The configuration, which has no budgets at first.
    pub(super) catalog: watch::Sender<Arc<Catalog>>,
    following: JoinSet<anyhow::Result<()>>,
    address: SocketAddr,
    told: mpsc::Receiver<Told>,
}

impl Seed {
    pub(super) async fn start() -> Self {
        Self::start_with(SHARE).await
    }

    /// The same, where each shoot may have so many connections.
    pub(super) async fn start_with(share: usize) -> Self {
        let (now, api) = (Timestamp::now(), ScriptedApi::new());
        let shoot = |name: &str| {
            let ca = Arc::new(ShootCa::generate(&name.parse().unwrap(), now).unwrap());
            let host = format!("rs-{name}.test");
            let tls = ca.server_config(std::slice::from_ref(&host), now).unwrap();
            let (name, client) = (name.parse().unwrap(), api.client());
            let authorities = Authorities::one(Arc::clone(&ca));
            ((host, Arc::new(ShootEndpoint { name, authorities, tls, client })), ca)
        };
        let ((one, one_ca), (two, two_ca)) = (shoot("one"), shoot("two"));
        let cas = (one_ca, two_ca);
        let nodes = ["one/node-1", "one/node-2", "two/node-1"];
        let nodes = nodes.map(|node| (node.to_owned(), watch::Sender::new(None)));
        let many = (0..MANY).map(|n| (format!("one/many-{n}"), watch::Sender::new(None)));
        let (tell, told) = mpsc::channel(512);
        let directory = Arc::new(FakeDirectory {
            shoots: Mutex::new([one, two].into()),
            nodes: Mutex::new(nodes.into_iter().chain(many).collect()),
            without_agent: Mutex::default(),
            bandwidth: Mutex::new(Arc::new(Bandwidth::new(Budgets::default()))),
            told: tell,
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let mut server = JoinSet::new();
        let term = Term::until(EPOCH, shutdown.clone());
        server.spawn(serve_shares(listener, Arc::clone(&directory), term, shutdown.clone(), share));
        let (catalog, following) = (watch::Sender::default(), JoinSet::new());
        let (one, two) = cas;
        let mut seed =
            Self { directory, one, two, api, shutdown, server, catalog, following, address, told };
        seed.begin_term();
        seed
    }

    /// Another term begins: nothing of the one before it is known, but that
    /// agents say it.
    pub(super) fn begin_term(&mut self) {
        let budgets = self.catalog.borrow().budgets.unwrap_or_default();
        let bandwidth = Arc::new(Bandwidth::new(budgets));
        let catalog = self.catalog.subscribe();
        let follow = Follow { bandwidth: Arc::clone(&bandwidth), catalog };
        self.following.abort_all();
        self.following.spawn(follow.run(Shutdown::new()));
        *self.directory.bandwidth.lock().unwrap() = bandwidth;
    }

    /// Writes other budgets into the configuration.
    pub(super) fn budget(&self, budgets: Budgets) {
        let catalog = Catalog { budgets: Some(budgets), ..Catalog::default() };
        self.catalog.send_replace(Arc::new(catalog));
    }

    /// Serves shoot one by these from now on, as [`crate::shoot::Endpoints`] does it.
    pub(super) fn serve_by(&self, mut authorities: Authorities) {
        let host = "rs-one.test".to_owned();
        let mut shoots = self.directory.shoots.lock().unwrap();
        let leaving = authorities.succeed(shoots[&host].authorities.anchors());
        let tls = authorities.server_config(std::slice::from_ref(&host), Timestamp::now()).unwrap();
        let (name, client) = ("one".parse().unwrap(), self.api.client());
        shoots.insert(host, Arc::new(ShootEndpoint { name, authorities, tls, client }));
        drop(shoots);
        for anchor in leaving {
            anchor.leave();
        }
    }

    /// What the directory is told next.
    pub(super) async fn told(&mut self) -> Told {
        soon(self.told_at_last()).await
    }

    /// The same where only the clock of the test sets a limit.
    pub(super) async fn told_at_last(&mut self) -> Told {
        self.told.recv().await.unwrap()
    }

    pub(super) fn told_nothing(&mut self) -> bool {
        self.told.try_recv().is_err()
    }

    /// A connection on which nothing was said yet.
    pub(super) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// An agent that calls `host` and trusts `ca`.
    pub(super) fn agent(&self, host: &str, ca: &ShootCa) -> Agent {
        Agent {
            address: self.address,
            host: host.to_owned(),
            authorities: vec![ca.cert_der().clone()],
            identity: None,
            chain: Vec::new(),
            version: &rustls::version::TLS13,
            alpn: &["h2"],
        }
    }

    /// An agent of a node of shoot one, with a certificate.
    pub(super) fn node(&self, name: &str) -> Agent {
        let node = format!("spiffe://one/node/{name}/uid");
        self.agent("rs-one.test", &self.one).with(identity(&self.one, &node, Timestamp::now()))
    }
}

pub(super) type Identity = (CertificateDer<'static>, KeyPair);

pub(super) fn identity(ca: &ShootCa, node: &str, now: Timestamp) -> Identity {
    let (key, request) = request();
    let node = NodeId::from_spiffe(node).unwrap();
    (ca.sign(&request, &node, now, NODE_LIFETIME).unwrap().certificate, key)
}

pub(super) fn uri(name: &str) -> SanType {
    SanType::URI(name.try_into().unwrap())
}

/// A client's certificate under a name, but for what is changed.
pub(super) fn certificate(
    name: &str,
    change: impl FnOnce(&mut CertificateParams),
) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![uri(name)];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    change(&mut params);
    params
}

/// One that the authority signed, which [`ShootCa::sign`] would never give out.
pub(super) fn signed(
    ca: &ShootCa,
    name: &str,
    change: impl FnOnce(&mut CertificateParams),
) -> Identity {
    let (key, signer) = (KeyPair::generate().unwrap(), KeyPair::from_pem(&ca.key_pem()).unwrap());
    let issuer = Issuer::from_ca_cert_der(ca.cert_der(), signer).unwrap();
    (certificate(name, change).signed_by(&key, &issuer).unwrap().der().clone(), key)
}

pub(super) struct Agent {
    address: SocketAddr,
    host: String,
    authorities: Vec<CertificateDer<'static>>,
    identity: Option<Identity>,
    /// Behind the certificate.
    chain: Vec<CertificateDer<'static>>,
    version: &'static SupportedProtocolVersion,
    alpn: &'static [&'static str],
}

impl Agent {
    pub(super) fn with(mut self, identity: Identity) -> Self {
        self.identity = Some(identity);
        self
    }

    /// It trusts another one, too.
    pub(super) fn trusting(mut self, ca: &ShootCa) -> Self {
        self.authorities.push(ca.cert_der().clone());
        self
    }

    pub(super) fn with_chain(mut self, chain: Vec<CertificateDer<'static>>) -> Self {
        self.chain = chain;
        self
    }

    pub(super) fn with_tls(mut self, version: &'static SupportedProtocolVersion) -> Self {
        self.version = version;
        self
    }

    pub(super) fn with_alpn(mut self, protocols: &'static [&'static str]) -> Self {
        self.alpn = protocols;
        self
    }

    /// Connects and shakes hands.
    pub(super) async fn tls(&self) -> io::Result<TlsStream<TcpStream>> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut anchors = RootCertStore::empty();
        for authority in &self.authorities {
            anchors.add(authority.clone()).unwrap();
        }
        let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[self.version])
            .unwrap()
            .with_root_certificates(anchors);
        let mut config = match &self.identity {
            None => config.with_no_client_auth(),
            Some((certificate, key)) => {
                // Whether the two belong together is for the server to find out.
                let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
                let key = provider.key_provider.load_private_key(key).unwrap();
                let chain = [std::slice::from_ref(certificate), &self.chain].concat();
                let shown = SingleCertAndKey::from(CertifiedKey::new(chain, key));
                config.with_client_cert_resolver(Arc::new(shown))
            }
        };
        config.alpn_protocols = self.alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        let tcp = TcpStream::connect(self.address).await?;
        // As the agent has it; what waits for an acknowledgement waits in real time.
        tcp.set_nodelay(true)?;
        let host = self.host.clone().try_into().unwrap();
        TlsConnector::from(Arc::new(config)).connect(host, tcp).await
    }

    pub(super) async fn channel(&self) -> Channel {
        let io = soon(self.tls()).await.unwrap();
        let endpoint = Endpoint::from_shared(format!("http://{}", self.host)).unwrap();
        endpoint.connect_with_connector(Once(Some(io))).await.unwrap()
    }

    pub(super) async fn enrollment(&self) -> EnrollmentClient<Channel> {
        EnrollmentClient::new(self.channel().await)
    }

    /// Opens a stream with this as the first message.
    pub(super) async fn sync_with(&self, first: v1::node_message::Kind) -> Result<Stream, Status> {
        let (say, said) = mpsc::channel(8);
        say.send(v1::NodeMessage { kind: Some(first) }).await.unwrap();
        let mut client = FleetClient::new(self.channel().await);
        let hear = soon(client.sync(ReceiverStream::new(said))).await?.into_inner();
        Ok(Stream { say, hear })
    }

    pub(super) async fn sync(&self) -> Result<Stream, Status> {
        self.sync_with(v1::node_message::Kind::Hello(hello())).await
    }
}

pub(super) fn hello() -> v1::Hello {
    v1::Hello {
        protocol: Some(PROTOCOL),
        architecture: "amd64".into(),
        generation: 7,
        ..v1::Hello::default()
    }
}

/// An open stream, from the node's side.
pub(super) struct Stream {
    say: mpsc::Sender<v1::NodeMessage>,
    hear: Streaming<v1::ControllerMessage>,
}

impl Stream {
    pub(super) async fn say(&self, kind: v1::node_message::Kind) {
        self.say.send(v1::NodeMessage { kind: Some(kind) }).await.unwrap();
    }

    /// Says it if there is room; whether there was.
    pub(super) fn try_say(&self, kind: v1::node_message::Kind) -> bool {
        self.say.try_send(v1::NodeMessage { kind: Some(kind) }).is_ok()
    }

    /// The next message that says more than that this controller grants.
    pub(super) async fn hear(&mut self) -> Result<Option<v1::controller_message::Kind>, Status> {
        while let Some(message) = self.message().await? {
            if message.kind.is_some() {
                return Ok(message.kind);
            }
        }
        Ok(None)
    }

    /// The next message.
    pub(super) async fn message(&mut self) -> Result<Option<v1::ControllerMessage>, Status> {
        let message = soon(self.hear.message()).await?;
        assert!(message.as_ref().is_none_or(|message| message.epoch == EPOCH && message.grants));
        Ok(message)
    }

    /// The next message, where only the clock of the test sets a limit.
    pub(super) async fn message_at_last(&mut self) -> Option<v1::controller_message::Kind> {
        self.hear.message().await.unwrap().unwrap().kind
    }

    /// The generation that is sent next.
    pub(super) async fn desired(&mut self) -> u64 {
        match self.hear().await.unwrap() {
            Some(v1::controller_message::Kind::Desired(desired)) => {
                Desired::try_from(desired).unwrap().generation.0
            }
            other => panic!("{other:?}"),
        }
    }
}

/// Gives the connection away that is already there.
struct Once(Option<TlsStream<TcpStream>>);

impl Service<Uri> for Once {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let io = self.0.take().ok_or_else(|| io::ErrorKind::NotConnected.into());
        Box::pin(async move { io.map(TokioIo::new) })
    }
}

/// Waits, but not for ever.
pub(super) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("nothing within 20 s")
}
