//! How to reach a cluster: URL, CA and the administrator's token, as clients and as a kubeconfig.

use std::path::{Path, PathBuf};

use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::json;
use tokio::io::AsyncWriteExt as _;

/// Why there is no client for a cluster.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// The kubeconfig can't be written.
    #[error("write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A kubeconfig is refused.
    #[error("read the kubeconfig of cluster {cluster}")]
    Config {
        /// The cluster's name.
        cluster: String,
        /// Why.
        source: Box<kube::config::KubeconfigError>,
    },
    /// A client can't be made.
    #[error("make a client for cluster {cluster}")]
    Client {
        /// The cluster's name.
        cluster: String,
        /// Why.
        source: Box<kube::Error>,
    },
}

/// The way to one cluster.
#[derive(Debug)]
pub(super) struct Access {
    pub(super) name: String,
    pub(super) url: String,
    pub(super) ca_pem: String,
    pub(super) token: String,
    pub(super) kubeconfig: PathBuf,
}

impl Access {
    /// Writes the administrator's kubeconfig into `dir`, as `<name>.kubeconfig`.
    pub(super) async fn new(
        name: &str,
        dir: &Path,
        url: String,
        ca_pem: String,
        token: String,
    ) -> Result<Self, AccessError> {
        let path = dir.join(format!("{name}.kubeconfig"));
        let access = Self { name: name.to_owned(), url, ca_pem, token, kubeconfig: path };
        let text = format!("{:#}\n", access.config(&access.token));
        let write = async {
            tokio::fs::create_dir_all(dir).await?;
            // Only its user may read it: it has a token in it.
            let mut options = tokio::fs::OpenOptions::new();
            options.write(true).create(true).truncate(true).mode(0o600);
            let mut file = options.open(&access.kubeconfig).await?;
            file.write_all(text.as_bytes()).await?;
            file.flush().await
        };
        match write.await {
            Ok(()) => Ok(access),
            Err(source) => Err(AccessError::Write { path: access.kubeconfig, source }),
        }
    }

    /// A kubeconfig with a bearer token. It is JSON, which is YAML too.
    pub(super) fn config(&self, token: &str) -> serde_json::Value {
        use base64::{Engine as _, prelude::BASE64_STANDARD};
        let ca = BASE64_STANDARD.encode(&self.ca_pem);
        json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": self.name,
            "clusters": [{"name": self.name, "cluster": {"server": self.url, "certificate-authority-data": ca}}],
            "contexts": [{"name": self.name, "context": {"cluster": self.name, "user": "admin"}}],
            "users": [{"name": "admin", "user": {"token": token}}],
        })
    }

    /// A client with a bearer token.
    pub(super) async fn client(&self, token: &str) -> Result<kube::Client, AccessError> {
        let refused =
            |source| AccessError::Config { cluster: self.name.clone(), source: Box::new(source) };
        let text = self.config(token).to_string();
        let kubeconfig = Kubeconfig::from_yaml(&text).map_err(refused)?;
        let config =
            kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
                .await
                .map_err(refused)?;
        kube::Client::try_from(config).map_err(|source| AccessError::Client {
            cluster: self.name.clone(),
            source: Box::new(source),
        })
    }
}
