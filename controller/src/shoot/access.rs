//! A client of a shoot's own API.

use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config, ResourceExt as _};
use rootstock_core::name::ShootName;

use super::tokens::Token;
use crate::api::{Cluster, KUBECONFIG_SECRET};

/// How long a connection to a shoot's API may take.
const CONNECT: Duration = Duration::from_secs(5);

/// Why a shoot's API can't be spoken to.
#[derive(Debug, thiserror::Error)]
pub(super) enum AccessError {
    /// The Cluster does not name the Secret with the kubeconfig.
    #[error("the Cluster has no annotation {KUBECONFIG_SECRET}")]
    NoKubeconfigName,
    /// The Secret can't be read.
    #[error("Secret {name} with the shoot's kubeconfig can't be read")]
    Secret {
        /// The Secret.
        name: String,
        /// Why.
        #[source]
        source: kube::Error,
    },
    /// The Secret holds no kubeconfig.
    #[error("Secret {name} holds no kubeconfig: {why}")]
    Kubeconfig {
        /// The Secret.
        name: String,
        /// What is wrong.
        why: String,
    },
    /// No client can be made of it.
    #[error("the shoot's kubeconfig can't be used")]
    Client(#[source] kube::Error),
}

/// Makes a client from the kubeconfig that Gardener provides for all
/// extensions, and the controller's own token.
pub(super) async fn client(
    seed: &Client,
    shoot: &ShootName,
    cluster: &Cluster,
    token: &Token,
) -> Result<Client, AccessError> {
    let name =
        cluster.annotations().get(KUBECONFIG_SECRET).ok_or(AccessError::NoKubeconfigName)?.clone();
    let api: Api<Secret> = Api::namespaced(seed.clone(), shoot.as_str());
    let secret = api
        .get(&name)
        .await
        .map_err(|source| AccessError::Secret { name: name.clone(), source })?;
    let wrong = |why: String| AccessError::Kubeconfig { name: name.clone(), why };
    let data = secret.data.unwrap_or_default();
    let bytes = data.get("kubeconfig").ok_or_else(|| wrong("it has no such key".to_owned()))?;
    let text = std::str::from_utf8(&bytes.0).map_err(|error| wrong(error.to_string()))?;
    let mut kubeconfig = Kubeconfig::from_yaml(text).map_err(|error| wrong(error.to_string()))?;
    for named in &mut kubeconfig.auth_infos {
        // It names a file that exists where the kubeconfig is mounted; here
        // the token itself takes that place.
        let info = named.auth_info.get_or_insert_default();
        info.token_file = None;
        info.token = Some(token.0.to_string().into());
    }
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .map_err(|error| wrong(error.to_string()))?;
    config.connect_timeout = Some(CONNECT);
    Client::try_from(config).map_err(AccessError::Client)
}
