//! A controller that says what a test has it say, and writes down what it hears.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use futures_util::stream;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, IsCa, Issuer, KeyPair,
};
use rootstock_core::path::BinaryRoots;
use rootstock_proto::v1::enrollment_server::{Enrollment, EnrollmentServer};
use rootstock_proto::v1::fleet_server::{Fleet, FleetServer};
use rootstock_proto::v1::node_message::Kind;
use rootstock_proto::v1::{self, controller_message};
use rustls::{ServerConfig, SupportedProtocolVersion};
use rustls_pki_types::PrivatePkcs8KeyDer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::transport::server::{Connected, Server};
use tonic::{Request, Response, Status, Streaming};

use super::super::{EndpointSource, Link, LinkSettings};
use crate::pull::Pulls;
use crate::reconcile::{Files, Reports};

pub(super) const HOST: &str = "controller.localhost";

pub(super) type Said = controller_message::Kind;
type Messages = Pin<Box<dyn Stream<Item = Result<v1::ControllerMessage, Status>> + Send>>;
/// Changes an answer to an enrolment.
pub(super) type Change = fn(&mut v1::Certificate);

/// What signs certificates.
pub(super) struct Authority {
    pub(super) pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(super) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    fn server(&self, host: &str, version: &'static SupportedProtocolVersion) -> ServerConfig {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![host.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        config
    }
}

/// What the controller says, and what it has heard.
#[derive(Default)]
struct Script {
    says: Vec<Said>,
    /// Whether it says that again and again.
    endless: bool,
    /// Whether it says that it grants.
    grants: bool,
    change: Option<Change>,
    enrolled: u32,
}

#[derive(Clone)]
pub(super) struct Controller {
    script: Arc<Mutex<Script>>,
    heard: mpsc::Sender<Kind>,
}

impl Controller {
    pub(super) fn says(&self, says: Vec<Said>) {
        self.script.lock().unwrap().says = says;
    }

    pub(super) fn says_for_ever(&self, says: Vec<Said>) {
        *self.script.lock().unwrap() = Script { says, endless: true, ..Script::default() };
    }

    pub(super) fn grants(&self, grants: bool) {
        self.script.lock().unwrap().grants = grants;
    }

    pub(super) fn enrols(&self, change: Option<Change>) {
        self.script.lock().unwrap().change = change;
    }

    /// How often a token was shown to it.
    pub(super) fn enrolled(&self) -> u32 {
        self.script.lock().unwrap().enrolled
    }
}

#[tonic::async_trait]
impl Enrollment for Controller {
    async fn enroll(
        &self,
        request: Request<v1::EnrollRequest>,
    ) -> Result<Response<v1::EnrollResponse>, Status> {
        let request = request.into_inner().certificate_request.into();
        let request = CertificateSigningRequestParams::from_der(&request).unwrap();
        let leaf = request.signed_by(&Authority::new().issuer).unwrap().der().to_vec();
        let later = SystemTime::now() + Duration::from_secs(3600);
        let (not_after, renew_after) = (Some(later.into()), Some(later.into()));
        let mut given = v1::Certificate { leaf, authorities: Vec::new(), not_after, renew_after };
        let mut script = self.script.lock().unwrap();
        script.enrolled += 1;
        if let Some(change) = script.change {
            change(&mut given);
        }
        Ok(Response::new(v1::EnrollResponse { certificate: Some(given) }))
    }

    async fn renew(
        &self,
        _: Request<v1::RenewRequest>,
    ) -> Result<Response<v1::RenewResponse>, Status> {
        Err(Status::unimplemented("an agent enrols again"))
    }
}

#[tonic::async_trait]
impl Fleet for Controller {
    type SyncStream = Messages;

    async fn sync(
        &self,
        request: Request<Streaming<v1::NodeMessage>>,
    ) -> Result<Response<Messages>, Status> {
        let (mut inbound, heard) = (request.into_inner(), self.heard.clone());
        let (says, endless, grants) = {
            let script = self.script.lock().unwrap();
            (script.says.clone(), script.endless, script.grants)
        };
        let message = move |kind| Ok(v1::ControllerMessage { kind: Some(kind), grants, epoch: 0 });
        // What the node says is read for as long as the stream lives.
        let hear = stream::once(async move {
            while let Ok(Some(message)) = inbound.message().await {
                let Some(kind) = message.kind else { continue };
                if heard.send(kind).await.is_err() {
                    break;
                }
            }
            Err(Status::cancelled("the node has left"))
        });
        let said: Messages = if endless {
            Box::pin(stream::iter(says.into_iter().cycle().map(message)))
        } else {
            Box::pin(stream::iter(says.into_iter().map(message)))
        };
        Ok(Response::new(Box::pin(said.merge(hear))))
    }
}

/// An agent's link and the controller that it finds.
pub(super) struct World {
    pub(super) link: Link,
    pub(super) files: Arc<Files>,
    pub(super) controller: Controller,
    pub(super) heard: mpsc::Receiver<Kind>,
    _root: tempfile::TempDir,
    _server: JoinSet<()>,
}

impl World {
    /// A controller that is what it says.
    pub(super) async fn start() -> Self {
        let authority = Authority::new();
        Self::with(&authority.pem, authority.server(HOST, &rustls::version::TLS13)).await
    }

    /// One that shows this authority's certificate for that host, to an agent that trusts another.
    pub(super) async fn imposed(
        trusted: &Authority,
        by: &Authority,
        host: &str,
        version: &'static SupportedProtocolVersion,
    ) -> Self {
        Self::with(&trusted.pem, by.server(host, version)).await
    }

    async fn with(trusted: &str, tls: ServerConfig) -> Self {
        let (said, heard) = mpsc::channel(64);
        let controller = Controller { script: Arc::default(), heard: said };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut server = JoinSet::new();
        server.spawn(serve(listener, TlsAcceptor::from(Arc::new(tls)), controller.clone()));

        let root = tempfile::tempdir().unwrap();
        let files = Files::open(root.path(), "/var/lib/rootstock", BinaryRoots::default()).unwrap();
        let files = Arc::new(files.with_pulls(Pulls::granted()));
        let [ca_file, token_file] =
            [("ca.crt", trusted), ("token", "a-token")].map(|(name, text)| {
                files.store.replace(name, text.as_bytes()).unwrap();
                root.path().join("var/lib/rootstock").join(name)
            });
        let endpoint = EndpointSource::Url(format!("https://{HOST}:{port}"));
        let settings = LinkSettings { endpoint, ca_file, token_file, architecture: None };
        let link = Link::new(settings, Arc::clone(&files), Reports::default(), Arc::default());
        Self { link, files, controller, heard, _root: root, _server: server }
    }

    /// What the agent says to it on a new stream, beside Hello and reports.
    pub(super) async fn answer(&mut self) -> Kind {
        let Self { link, heard, .. } = self;
        let answer = async {
            loop {
                let said = heard.recv().await.unwrap();
                if !matches!(said, Kind::Hello(_) | Kind::Report(_)) {
                    return said;
                }
            }
        };
        tokio::select! {
            ended = link.stream() => panic!("{ended:?}"),
            answer = tokio::time::timeout(Duration::from_secs(20), answer) => answer.unwrap(),
        }
    }

    pub(super) fn heard_nothing(&mut self) -> bool {
        self.heard.try_recv().is_err()
    }
}

async fn serve(listener: TcpListener, tls: TlsAcceptor, controller: Controller) {
    let (accepted, connections) = mpsc::channel(4);
    let accept = async {
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            // A client that does not trust it hangs up.
            if let Ok(stream) = tls.accept(tcp).await {
                accepted.send(Ok::<_, io::Error>(Io(stream))).await.unwrap();
            }
        }
    };
    let server = Server::builder()
        .add_service(EnrollmentServer::new(controller.clone()))
        .add_service(FleetServer::new(controller).max_encoding_message_size(usize::MAX))
        .serve_with_incoming(ReceiverStream::new(connections));
    tokio::select! {
        // Cancel-safe: the test is over where either ends.
        () = accept => {}
        served = server => served.unwrap(),
    }
}

/// A TLS connection that tonic takes.
struct Io(TlsStream<TcpStream>);

impl Connected for Io {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
