//! An embedded OCI registry: real HTTP on loopback, bytes on disk, faults on demand.
//!
//! ```text
//!  Registry (handle) ─commands─▶ server: accept ─▶ a task per connection ─▶ routes
//!     ├ faults()  what goes wrong, for which digest          │  store: blobs, links, tags on disk
//!     └ served(), uploads(), requests()  what went out ◀─────┘  body: paced, cut, corrupted
//! ```
//!
//! It speaks the distribution specification as far as clients push, list and
//! pull: monolithic and chunked uploads, ranges, tags. What it holds survives a
//! restart on the same folder.

mod answer;
mod body;
mod faults;
mod gauge;
mod routes;
mod server;
mod store;
#[cfg(test)]
mod tests;
mod uploads;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rootstock_core::digest::Digest;

pub use faults::{Fault, Faults, Target};
pub use gauge::{Counts, Gauge};

use body::Meter;
use server::Server;
use store::Store;
use uploads::Uploads;

/// A registry that runs as long as this handle lives.
#[derive(Debug)]
pub struct Registry {
    shared: Arc<Shared>,
    server: Server,
}

/// What every request sees.
#[derive(Debug)]
pub(crate) struct Shared {
    store: Store,
    uploads: Uploads,
    faults: Faults,
    meter: Meter,
    /// The value of `Authorization` that requests must have; empty for none.
    login: RwLock<String>,
}

impl Registry {
    /// Starts a registry on a free port of 127.0.0.1, with its bytes in `dir`.
    pub async fn start(dir: &Path) -> io::Result<Self> {
        Self::start_at(dir, SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await
    }

    /// Starts a registry on a given address.
    pub async fn start_at(dir: &Path, address: SocketAddr) -> io::Result<Self> {
        let store = Store::open(dir).await?;
        let uploads = Uploads::open(&dir.join("uploads")).await?;
        let shared = Arc::new(Shared {
            store,
            uploads,
            faults: Faults::default(),
            meter: Meter::default(),
            login: RwLock::default(),
        });
        let server = Server::start(address, routes::router(Arc::clone(&shared)))?;
        Ok(Self { shared, server })
    }

    /// Its URL: scheme, host and port.
    pub fn url(&self) -> String {
        format!("http://{}", self.server.address())
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// It as the catalog names it.
    pub fn as_desired(&self, name: &str) -> rootstock_core::desired::Registry {
        rootstock_core::desired::Registry {
            name: name.to_owned(),
            url: self.url(),
            mirrors: Vec::new(),
            ca_bundle: String::new(),
            credential: None,
        }
    }

    /// What goes wrong.
    pub fn faults(&self) -> &Faults {
        &self.shared.faults
    }

    /// Stops accepting and cuts every connection. The port stays its own.
    pub async fn go_down(&self) {
        self.server.go_down().await;
    }

    /// Accepts again, on the same port.
    pub async fn come_up(&self) -> io::Result<()> {
        self.server.come_up().await
    }

    /// Bytes of blobs that left it, config blobs included.
    pub fn served_bytes(&self) -> u64 {
        self.shared.meter.served()
    }

    /// Bytes of one blob that left it.
    pub fn served_of(&self, blob: &Digest) -> u64 {
        self.shared.meter.served_of(blob)
    }

    /// Requests that came, of every kind.
    pub fn requests(&self) -> u64 {
        self.shared.meter.requests()
    }

    /// Blobs that were uploaded.
    pub fn uploads(&self) -> u64 {
        self.shared.meter.uploads()
    }

    /// Limits what leaves it to a rate, in bytes per second, over all
    /// connections; none for as fast as it goes.
    pub fn limit(&self, rate: Option<u64>) {
        self.shared.meter.limit(rate);
    }

    /// Asks for a user and password from here on; none for nobody's.
    pub fn require_login(&self, login: Option<(&str, &str)>) {
        let value = login.map(|(user, password)| {
            format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}")))
        });
        let mut current = self.shared.login.write().unwrap_or_else(PoisonError::into_inner);
        *current = value.unwrap_or_default();
    }

    /// Takes a tag away.
    pub async fn remove_tag(&self, repository: &str, tag: &str) -> io::Result<()> {
        self.shared.store.remove_tag(repository, tag).await
    }

    /// Takes a blob or manifest away from every repository.
    pub async fn remove_blob(&self, digest: &Digest) -> io::Result<()> {
        self.shared.store.remove_blob(digest).await
    }
}
