//! The controller's status page: what it knows of bundles and nodes at this moment.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// A page of a large landscape is some hundred KiB; more than this is not the page.
const LARGEST: usize = 16 << 20;
const PATIENCE: Duration = Duration::from_secs(2);

/// What the controller knows.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StatusPage {
    /// One entry for each catalog type in use.
    pub bundles: Vec<BundleEntry>,
    /// One entry for each node that is selected or connected.
    pub nodes: Vec<NodeEntry>,
}

/// What one catalog type stands for.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BundleEntry {
    /// The runtime type.
    #[serde(rename = "type")]
    pub runtime: String,
    /// The reference in the catalog.
    pub reference: String,
    /// What it was resolved to.
    pub digest: Option<String>,
    /// Why it was not.
    pub reason: Option<String>,
    /// The same for people.
    pub message: Option<String>,
}

/// One node.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeEntry {
    /// The shoot that it belongs to.
    pub shoot: String,
    /// Its name.
    pub name: String,
    /// Whether its agent has a stream open.
    pub connected: bool,
    /// The generation of what it should have.
    pub generation: u64,
    /// Its bundles, as it last reported them.
    pub bundles: Vec<NodeBundle>,
}

/// One bundle on one node.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeBundle {
    /// The runtime type.
    #[serde(rename = "type")]
    pub runtime: String,
    /// The bundle's digest.
    pub digest: Option<String>,
    /// Its version, for people.
    pub version: Option<String>,
    /// Where it is.
    pub phase: String,
    /// Why it is not further.
    pub reason: Option<String>,
    /// The same for people.
    pub message: Option<String>,
    /// Bytes of its blobs that are there.
    pub bytes_done: u64,
    /// Bytes of its blobs in all.
    pub bytes_total: u64,
    /// Bytes of its blobs that came over the network.
    pub bytes_pulled: u64,
    /// The handlers that containerd lists.
    pub handlers: Vec<String>,
}

impl StatusPage {
    /// The entry of one node.
    pub fn node(&self, shoot: &str, name: &str) -> Option<&NodeEntry> {
        self.nodes.iter().find(|node| node.shoot == shoot && node.name == name)
    }

    /// Bytes that all nodes have pulled.
    pub fn bytes_pulled(&self) -> u64 {
        self.nodes.iter().flat_map(|node| &node.bundles).map(|bundle| bundle.bytes_pulled).sum()
    }
}

impl NodeEntry {
    /// The bundle of one type.
    pub fn bundle(&self, runtime: &str) -> Option<&NodeBundle> {
        self.bundles.iter().find(|bundle| bundle.runtime == runtime)
    }
}

impl NodeBundle {
    /// Whether the runtime can be used on the node.
    pub fn is_ready(&self) -> bool {
        self.phase.parse().is_ok_and(rootstock_core::status::Phase::is_ready)
    }
}

/// Reads the page from the controller's admin listener.
///
/// # Errors
/// The controller is not there (yet, or again), or answers with something else.
pub async fn read(admin: SocketAddr) -> io::Result<StatusPage> {
    let text = timeout(PATIENCE, get(admin, "/status")).await.map_err(io::Error::other)??;
    serde_json::from_slice(&text).map_err(io::Error::other)
}

async fn get(address: SocketAddr, path: &str) -> io::Result<Bytes> {
    let stream = TcpStream::connect(address).await?;
    let (mut requests, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    let request = Request::get(path)
        .header(http::header::HOST, address.to_string())
        .body(Empty::<Bytes>::new())
        .map_err(io::Error::other)?;
    let answer = async {
        let response = requests.send_request(request).await.map_err(io::Error::other)?;
        if !response.status().is_success() {
            return Err(io::Error::other(format!("{path} answered {}", response.status())));
        }
        let body = Limited::new(response.into_body(), LARGEST).collect().await;
        Ok(body.map_err(io::Error::other)?.to_bytes())
    };
    tokio::pin!(answer, connection);
    // Both are polled in place and dropped together.
    tokio::select! {
        answer = &mut answer => answer,
        _ = &mut connection => answer.await,
    }
}
