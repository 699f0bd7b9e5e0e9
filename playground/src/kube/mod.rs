//! A Kubernetes API: embedded, or the real server.
//!
//! Both stand behind [`Cluster`], so that whatever runs against the one runs
//! against the other, and the real one judges the embedded one.
//!
//! ```text
//!  kube-rs, kubectl ══ TLS, HTTP/1.1 or 2 ══▶ server ─▶ api: authenticate ─▶ authorize ─▶ dispatch
//!                                              request (path, verb, form)      rbac         │
//!      discovery ◀── kinds ◀── CustomResourceDefinitions ◀─────────────────────┐            │
//!                                                                              │            ▼
//!      read (get, list) ◀── selectors, table ◀───────────────────────────── store ◀── write ◀── patch, rules, schema
//!      watch ◀── history since its last look ◀── watch::Sender<revision> ◀─────┘       reviews ◀── tokens
//! ```
//!
//! The embedded one keeps all objects in memory behind one lock, which no task
//! holds over an await. It knows the kinds of one table (`kinds`) and of the CRDs
//! it is given. Controllers that a cluster would have are not played here.

mod access;
mod api;
mod audit;
mod delete;
mod discovery;
mod events;
mod failure;
mod faults;
mod kinds;
mod object;
mod patch;
mod rbac;
mod read;
mod real;
mod request;
mod reviews;
mod rules;
mod schema;
mod selectors;
mod server;
mod store;
mod table;
mod tls;
mod tokens;
mod watch;
mod write;

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use self::{access::Access, api::Api, server::Server};
pub use self::{
    access::AccessError,
    audit::Audited,
    real::{RealControlPlane, RealError},
    tls::TlsError,
};

/// One Kubernetes API and its administrator's client.
pub struct Cluster {
    access: Access,
    client: kube::Client,
    backend: Backend,
}

/// What a cluster is made of.
#[derive(Debug, Clone)]
pub struct Options {
    /// Its name: in the kubeconfig, and of the kubeconfig's file.
    pub name: String,
    /// Where the kubeconfig goes, and the real server's state and logs.
    pub dir: PathBuf,
    /// CustomResourceDefinitions that are served from the beginning.
    pub crds: Vec<Value>,
}

/// Why a cluster does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its certificates.
    #[error("prepare TLS of cluster {cluster}")]
    Tls {
        /// The cluster's name.
        cluster: String,
        /// Why.
        source: TlsError,
    },
    /// Its port.
    #[error("listen for cluster {cluster}")]
    Listen {
        /// The cluster's name.
        cluster: String,
        /// Why.
        source: io::Error,
    },
    /// An object that it should have from the beginning.
    #[error("create {what} in cluster {cluster}: {message}")]
    Object {
        /// The cluster's name.
        cluster: String,
        /// Kind and name.
        what: String,
        /// What the API answers.
        message: String,
    },
    /// Its kubeconfig or client.
    #[error("reach cluster {cluster}")]
    Access {
        /// The cluster's name.
        cluster: String,
        /// Why.
        source: AccessError,
    },
    /// The real server.
    #[error("start the API server of cluster {cluster}")]
    Real {
        /// The cluster's name.
        cluster: String,
        /// Why.
        source: Box<RealError>,
    },
}

#[derive(Debug)]
enum Backend {
    Embedded { api: Arc<Api>, server: Server },
    Real(real::ApiServer),
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").field("name", &self.access.name).finish_non_exhaustive()
    }
}

impl Cluster {
    /// Starts an embedded API.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn embedded(options: Options) -> Result<Self, StartError> {
        let cluster = options.name;
        let tls_failed = |source| StartError::Tls { cluster: cluster.clone(), source };
        let identity = tls::Identity::new(&cluster).map_err(tls_failed)?;
        let config = identity.server_config().map_err(tls_failed)?;

        let token = tls::hex(&tls::random::<16>());
        let api = Arc::new(Api::new(token.clone(), tls::random(), CancellationToken::new()));
        furnish(&api, &cluster, &options.crds)?;
        let server = Server::start(Arc::clone(&api), config)
            .await
            .map_err(|source| StartError::Listen { cluster: cluster.clone(), source })?;
        let url = format!("https://{}", server.address);
        tracing::info!(cluster, url, "embedded Kubernetes API is up");
        let access = Access::new(&cluster, &options.dir, url, identity.ca_pem, token).await;
        let access = access.map_err(|source| StartError::Access { cluster, source })?;
        Self::connect(access, Backend::Embedded { api, server }).await
    }

    /// Starts a real API server on the etcd of `plane`.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn real(plane: &RealControlPlane, options: Options) -> Result<Self, StartError> {
        let cluster = options.name;
        let failed =
            |source| StartError::Real { cluster: cluster.clone(), source: Box::new(source) };
        let identity = tls::Identity::new(&cluster)
            .map_err(|source| StartError::Tls { cluster: cluster.clone(), source })?;
        let token = tls::hex(&tls::random::<16>());
        let server = real::ApiServer::start(plane, &cluster, &options.dir, &identity, &token)
            .await
            .map_err(failed)?;
        let access = Access::new(&cluster, &options.dir, server.url(), identity.ca_pem, token)
            .await
            .map_err(|source| StartError::Access { cluster: cluster.clone(), source })?;
        let mut this = Self::connect(access, Backend::Real(server)).await?;
        let client = this.client.clone();
        if let Backend::Real(server) = &mut this.backend {
            server.furnish(&client, &options.crds).await.map_err(failed)?;
        }
        Ok(this)
    }

    async fn connect(access: Access, backend: Backend) -> Result<Self, StartError> {
        let client = access
            .client(&access.token)
            .await
            .map_err(|source| StartError::Access { cluster: access.name.clone(), source })?;
        Ok(Self { access, client, backend })
    }

    /// The name it was started with.
    pub fn name(&self) -> &str {
        &self.access.name
    }

    /// `https://127.0.0.1:<port>`.
    pub fn url(&self) -> &str {
        &self.access.url
    }

    /// The CA of the API's certificate, as PEM.
    pub fn ca_pem(&self) -> &str {
        &self.access.ca_pem
    }

    /// The administrator's kubeconfig, with his token in it.
    pub fn kubeconfig_path(&self) -> &Path {
        &self.access.kubeconfig
    }

    /// A kubeconfig with another token.
    pub fn kubeconfig_with_token(&self, token: &str) -> String {
        format!("{:#}\n", self.access.config(token))
    }

    /// The administrator's client. It works on the runtime on which the cluster was started.
    pub fn client(&self) -> kube::Client {
        self.client.clone()
    }

    /// A client with a bearer token, for example a ServiceAccount's.
    ///
    /// # Errors
    /// See [`AccessError`].
    pub async fn client_with_token(&self, token: &str) -> Result<kube::Client, AccessError> {
        self.access.client(token).await
    }

    /// Forgets the history, so that watches from older versions get 410.
    ///
    /// The real server compacts when it likes; there nothing happens.
    pub fn compact(&self) {
        match &self.backend {
            Backend::Embedded { api, .. } => api.store().compact(),
            Backend::Real(_) => {}
        }
    }

    /// How many requests came in by `verb resource`, as `patch nodes/status`. Nothing is
    /// counted at the real server.
    pub fn requests(&self) -> BTreeMap<String, u64> {
        match &self.backend {
            Backend::Embedded { api, .. } => api.requests(),
            Backend::Real(_) => BTreeMap::new(),
        }
    }

    /// Lets the next requests for `verb resource` fail with a status code, whoever makes
    /// them but the administrator. The real server fails when it likes; there nothing happens.
    pub fn fail_next(&self, what: &str, code: u16, times: u32) {
        match &self.backend {
            Backend::Embedded { api, .. } => api.faults.arrange(what, code, times),
            Backend::Real(_) => {}
        }
    }

    /// Takes down what is written from here on, by whom. The real server has
    /// other means; there nothing happens.
    pub fn start_audit(&self) {
        match &self.backend {
            Backend::Embedded { api, .. } => api.start_audit(),
            Backend::Real(_) => {}
        }
    }

    /// What was written since then, in order.
    pub fn audited(&self) -> Vec<Audited> {
        match &self.backend {
            Backend::Embedded { api, .. } => api.audited(),
            Backend::Real(_) => Vec::new(),
        }
    }

    /// How many requests have failed because it was arranged.
    pub fn faults_met(&self) -> u64 {
        match &self.backend {
            Backend::Embedded { api, .. } => api.faults.met(),
            Backend::Real(_) => 0,
        }
    }

    /// Ends all watches and closes.
    pub async fn stop(self) {
        match self.backend {
            Backend::Embedded { server, .. } => server.stop().await,
            Backend::Real(server) => server.stop().await,
        }
    }
}

/// What an API server has from the beginning, and the CRDs.
fn furnish(api: &Api, cluster: &str, crds: &[Value]) -> Result<(), StartError> {
    let namespaces = ["default", "kube-node-lease", "kube-public", "kube-system"]
        .map(|name| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}));
    let objects = namespaces
        .iter()
        .map(|object| ("namespaces", object))
        .chain(crds.iter().map(|crd| ("customresourcedefinitions.apiextensions.k8s.io", crd)));
    for (resource, object) in objects {
        let failed = |message: String| StartError::Object {
            cluster: cluster.to_owned(),
            what: format!("{resource} {}", object::meta(object, "name")),
            message,
        };
        let kind = api.kinds().stored(resource).ok_or_else(|| failed("unknown kind".to_owned()))?;
        api.insert(&kind, None, object.clone(), false)
            .map_err(|failure| failed(failure.message))?;
    }
    // A watch from before the beginning is too old, as with a server that has just come up.
    api.store().compact();
    Ok(())
}
