//! The real kube-apiserver and its etcd, as child processes.
//!
//! One etcd serves several API servers, each below a prefix of its own. Output goes
//! to log files; a start that fails quotes their last lines. Children end with their
//! handle.

mod process;

use std::{
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use http::Request;
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, ListParams, PostParams},
    core::GroupVersionKind,
};
use serde_json::Value;

use self::process::{Process, free_port};
use super::tls::Identity;

/// Twenty times what it takes on an idle machine with two cores.
const START: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(100);

/// Why the real server does not start.
#[derive(Debug, thiserror::Error)]
pub enum RealError {
    /// A file that it needs.
    #[error("prepare {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No port is free.
    #[error("find a free port")]
    Port(#[source] io::Error),
    /// A key.
    #[error("make a key")]
    Key(#[source] rcgen::Error),
    /// The program can't be started.
    #[error("run {}", program.display())]
    Run {
        /// The program.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The program ended, or is not ready in time.
    #[error("{program} {what}; the end of {}:\n{tail}", log.display())]
    NotReady {
        /// The program.
        program: &'static str,
        /// What happened.
        what: String,
        /// Its log.
        log: PathBuf,
        /// The log's last lines.
        tail: String,
    },
    /// A CRD is refused.
    #[error("install {crd}")]
    Install {
        /// Its name.
        crd: String,
        /// Why.
        source: Box<kube::Error>,
    },
    /// A CRD is no object that the API knows.
    #[error("read a CustomResourceDefinition")]
    Crd(#[source] serde_json::Error),
}

/// One etcd, for several API servers.
#[derive(Debug, Clone)]
pub struct RealControlPlane(Arc<Etcd>);

#[derive(Debug)]
struct Etcd {
    assets: PathBuf,
    url: String,
    _process: Process,
}

impl RealControlPlane {
    /// The folder with `etcd` and `kube-apiserver` that the environment names, if it does.
    pub fn assets() -> Option<PathBuf> {
        std::env::var_os("KUBEBUILDER_ASSETS").filter(|value| !value.is_empty()).map(PathBuf::from)
    }

    /// Starts etcd of the folder `assets`; its data and log go to `dir`.
    ///
    /// # Errors
    /// See [`RealError`].
    pub async fn start(assets: &Path, dir: &Path) -> Result<Self, RealError> {
        let (client, peer) = (free_port()?, free_port()?);
        let [client, peer] = [client, peer].map(|port| format!("http://127.0.0.1:{port}"));
        let flags = [
            ("--data-dir", dir.join("etcd").into_os_string()),
            ("--listen-client-urls", client.clone().into()),
            ("--advertise-client-urls", client.clone().into()),
            ("--listen-peer-urls", peer.clone().into()),
            ("--initial-advertise-peer-urls", peer.clone().into()),
            ("--initial-cluster", format!("default={peer}").into()),
            // The data does not outlive the process: nothing to save from a power cut.
            ("--unsafe-no-fsync", "true".into()),
        ];
        // API servers wait for it themselves, so nothing is asked of it here.
        let process = Process::start("etcd", assets, dir, "etcd", &flags).await?;
        Ok(Self(Arc::new(Etcd { assets: assets.to_owned(), url: client, _process: process })))
    }
}

/// One kube-apiserver.
#[derive(Debug)]
pub(super) struct ApiServer {
    port: u16,
    process: Process,
    /// etcd ends after the last of its API servers.
    _plane: RealControlPlane,
}

impl ApiServer {
    pub(super) async fn start(
        plane: &RealControlPlane,
        name: &str,
        dir: &Path,
        identity: &Identity,
        token: &str,
    ) -> Result<Self, RealError> {
        let state = dir.join(format!("{name}-apiserver"));
        let signing = rcgen::KeyPair::generate().map_err(RealError::Key)?;
        let files = [
            ("tls.crt", identity.cert_pem.clone()),
            ("tls.key", identity.key_pem.clone()),
            ("sa.key", signing.serialize_pem()),
            ("sa.pub", signing.public_key_pem()),
            ("tokens.csv", format!("{token},admin,admin,system:masters\n")),
        ];
        // Keys and the administrator's token go there.
        let mut folder = tokio::fs::DirBuilder::new();
        folder
            .recursive(true)
            .mode(0o700)
            .create(&state)
            .await
            .map_err(|source| RealError::File { path: state.clone(), source })?;
        for (file, text) in files {
            let path = state.join(file);
            tokio::fs::write(&path, text)
                .await
                .map_err(|source| RealError::File { path, source })?;
        }
        let port = free_port()?;
        let file = |name: &str| state.join(name).into_os_string();
        let text = OsString::from;
        let flags = [
            ("--bind-address", text("127.0.0.1")),
            ("--secure-port", port.to_string().into()),
            ("--etcd-servers", plane.0.url.clone().into()),
            ("--etcd-prefix", format!("/{name}").into()),
            ("--cert-dir", state.clone().into_os_string()),
            ("--tls-cert-file", file("tls.crt")),
            ("--tls-private-key-file", file("tls.key")),
            ("--token-auth-file", file("tokens.csv")),
            ("--anonymous-auth", text("false")),
            ("--authorization-mode", text("RBAC")),
            ("--service-account-issuer", text(super::tokens::ISSUER)),
            ("--service-account-key-file", file("sa.pub")),
            ("--service-account-signing-key-file", file("sa.key")),
            ("--service-cluster-ip-range", text("10.0.0.0/24")),
            // There is no Service of the API itself, and no controllers that would make
            // ServiceAccounts or take taints away.
            ("--endpoint-reconciler-type", text("none")),
            (
                "--disable-admission-plugins",
                text("ServiceAccount,TaintNodesByCondition,RuntimeClass"),
            ),
            ("--allow-privileged", text("true")),
            ("--profiling", text("false")),
        ];
        let log = format!("{name}-apiserver");
        let process = Process::start("kube-apiserver", &plane.0.assets, dir, &log, &flags).await?;
        Ok(Self { port, process, _plane: plane.clone() })
    }

    pub(super) fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// Waits until the server is ready, and installs the CRDs.
    pub(super) async fn furnish(
        &mut self,
        client: &Client,
        crds: &[Value],
    ) -> Result<(), RealError> {
        self.wait("is not ready", || ready(client)).await?;
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(
            "apiextensions.k8s.io",
            "v1",
            "CustomResourceDefinition",
        ));
        let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
        for crd in crds {
            let object: DynamicObject =
                serde_json::from_value(crd.clone()).map_err(RealError::Crd)?;
            api.create(&PostParams::default(), &object).await.map_err(|source| {
                let crd = object.metadata.name.clone().unwrap_or_default();
                RealError::Install { crd, source: Box::new(source) }
            })?;
        }
        for crd in crds {
            for kind in super::kinds::Kind::of_crd(crd) {
                let path = format!("/apis/{}/{}/{}", kind.group, kind.version, kind.plural);
                self.wait("does not serve a CRD", || served(client, &path)).await?;
            }
        }
        Ok(())
    }

    /// Looks until it is so. The only sign is an answer, so looking again is all there is.
    async fn wait<F: Future<Output = bool>>(
        &mut self,
        what: &str,
        mut is_so: impl FnMut() -> F,
    ) -> Result<(), RealError> {
        let end = tokio::time::Instant::now() + START;
        while !is_so().await {
            if let Ok(Some(status)) = self.process.child.try_wait() {
                return Err(self.process.failed(format!("ended with {status}")).await);
            }
            if tokio::time::Instant::now() > end {
                return Err(self.process.failed(format!("{what} after {START:?}")).await);
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    pub(super) async fn stop(mut self) {
        self.process.stop().await;
    }
}

/// Ready, and with the namespaces that it makes itself.
async fn ready(client: &Client) -> bool {
    if !served(client, "/readyz").await {
        return false;
    }
    let namespaces = Api::<Namespace>::all(client.clone()).list(&ListParams::default()).await;
    namespaces.is_ok_and(|list| list.items.len() >= 4)
}

async fn served(client: &Client, path: &str) -> bool {
    match Request::get(path).body(Vec::new()) {
        Ok(request) => client.request_text(request).await.is_ok(),
        Err(_) => false,
    }
}
