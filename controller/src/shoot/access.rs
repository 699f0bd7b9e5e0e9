//! Where a shoot's API is and how it is spoken to.

use k8s_openapi::api::core::v1::Secret;
use kube::api::{Patch, PatchParams};
use kube::config::{AuthInfo, KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config, ResourceExt as _};
use rootstock_core::name::ShootName;
use serde_json::json;

use super::secrets::{ACCESS_LABEL, ACCESS_SECRET};
use crate::api::KUBECONFIG_SECRET;

/// Why it is not known where a shoot's API is.
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
}

/// Reads the kubeconfig that Gardener provides for all extensions. Its Secret
/// is another one after each change of the shoot's authorities.
pub(super) async fn config(
    seed: &Client,
    shoot: &ShootName,
    name: Option<&str>,
) -> Result<Config, AccessError> {
    let name = name.ok_or(AccessError::NoKubeconfigName)?.to_owned();
    let api: Api<Secret> = crate::home::beside(seed, shoot);
    let secret = api
        .get(&name)
        .await
        .map_err(|source| AccessError::Secret { name: name.clone(), source })?;
    let wrong = |why: String| AccessError::Kubeconfig { name: name.clone(), why };
    let data = secret.data.unwrap_or_default();
    let bytes = data.get("kubeconfig").ok_or_else(|| wrong("it has no such key".to_owned()))?;
    let kubeconfig = read(&bytes.0).map_err(|why| wrong(why.to_owned()))?;
    Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .map_err(|error| wrong(error.to_string()))
}

/// Gives an access Secret of an earlier version the label by which its token
/// is seen. A Secret that is not there is the operations' to make.
pub(super) async fn mark(seed: &Client, shoot: &ShootName) -> Result<(), kube::Error> {
    let api: Api<Secret> = crate::home::beside(seed, shoot);
    let Some(there) = api.get_metadata_opt(ACCESS_SECRET).await? else { return Ok(()) };
    if there.labels().get(ACCESS_LABEL).is_none_or(|value| value != "true") {
        let patch = Patch::Merge(json!({"metadata": {"labels": {ACCESS_LABEL: "true"}}}));
        api.patch_metadata(ACCESS_SECRET, &PatchParams::default(), &patch).await?;
    }
    Ok(())
}

/// Reads a kubeconfig without all that it says of how to log in, which the
/// controller's own token does: it names a token file that exists where it is
/// mounted, and a Secret must not make this process read other files or run a
/// program.
///
/// What is wrong with it is not quoted: it may be a secret.
fn read(yaml: &[u8]) -> Result<Kubeconfig, &'static str> {
    let text = std::str::from_utf8(yaml).map_err(|_| "it is not UTF-8")?;
    let mut kubeconfig = Kubeconfig::from_yaml(text).map_err(|_| "it can't be read")?;
    for named in &mut kubeconfig.auth_infos {
        named.auth_info = Some(AuthInfo::default());
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
    fn nothing_else_is_used_to_log_in() {
        let users = [
            "tokenFile: /var/run/token",
            "exec: {command: /bin/sh, apiVersion: client.authentication.k8s.io/v1}",
            "client-certificate: /etc/passwd, client-key: /etc/shadow, username: root",
        ];
        for user in users {
            let read = read(kubeconfig("", user).as_bytes()).unwrap();
            let info = serde_json::to_value(&read.auth_infos[0].auth_info).unwrap();
            assert_eq!(info, json!({}), "{user}");
        }
    }

    #[test]
    fn a_kubeconfig_reads_no_files_and_is_not_quoted() {
        let bad = kubeconfig(", certificate-authority: /etc/ca.crt", "tokenFile: /t");
        assert!(read(bad.as_bytes()).unwrap_err().contains("certificate-authority-data"));
        let error = read(b"clusters: {s3cret").unwrap_err();
        assert!(!error.contains("s3cret"), "{error}");
    }
}
