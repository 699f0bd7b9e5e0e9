//! A client of a shoot's own API.

use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::config::{AuthInfo, KubeConfigOptions, Kubeconfig};
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
    let kubeconfig = read(&bytes.0, token).map_err(|why| wrong(why.to_owned()))?;
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .map_err(|error| wrong(error.to_string()))?;
    config.connect_timeout = Some(CONNECT);
    Client::try_from(config).map_err(AccessError::Client)
}

/// Reads a kubeconfig and puts the token in the place of all that it says of
/// how to log in: it names a token file that exists where it is mounted, and a
/// Secret must not make this process read other files or run a program.
///
/// What is wrong with it is not quoted: it may be a secret.
fn read(yaml: &[u8], token: &Token) -> Result<Kubeconfig, &'static str> {
    let text = std::str::from_utf8(yaml).map_err(|_| "it is not UTF-8")?;
    let mut kubeconfig = Kubeconfig::from_yaml(text).map_err(|_| "it can't be read")?;
    for named in &mut kubeconfig.auth_infos {
        let token = Some(token.0.to_string().into());
        named.auth_info = Some(AuthInfo { token, ..AuthInfo::default() });
    }
    let files = kubeconfig.clusters.iter().filter_map(|named| named.cluster.as_ref());
    if files.into_iter().any(|cluster| cluster.certificate_authority.is_some()) {
        return Err("it names a file of authorities, want certificate-authority-data");
    }
    Ok(kubeconfig)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kubeconfig(cluster: &str, user: &str) -> String {
        format!(
            "clusters: [{{name: c, cluster: {{server: 'https://api.test'{cluster}}}}}]\n\
             users: [{{name: u, user: {{{user}}}}}]\n\
             contexts: [{{name: x, context: {{cluster: c, user: u}}}}]\n\
             current-context: x\n"
        )
    }

    #[test]
    fn only_the_token_is_used_to_log_in() {
        let token = Token("t0ken".into());
        let users = [
            "tokenFile: /var/run/token",
            "exec: {command: /bin/sh, apiVersion: client.authentication.k8s.io/v1}",
            "client-certificate: /etc/passwd, client-key: /etc/shadow, username: root",
        ];
        for user in users {
            let read = read(kubeconfig("", user).as_bytes(), &token).unwrap();
            let info = serde_json::to_value(&read.auth_infos[0].auth_info).unwrap();
            assert_eq!(info, serde_json::json!({"token": "t0ken"}), "{user}");
        }
    }

    #[test]
    fn a_kubeconfig_reads_no_files_and_is_not_quoted() {
        let token = Token("t".into());
        let bad = kubeconfig(", certificate-authority: /etc/ca.crt", "tokenFile: /t");
        assert!(read(bad.as_bytes(), &token).unwrap_err().contains("certificate-authority-data"));
        let error = read(b"clusters: {s3cret", &token).unwrap_err();
        assert!(!error.contains("s3cret"), "{error}");
    }
}
