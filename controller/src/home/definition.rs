//! The definition of ContainerRuntimes in a plain cluster.

use std::time::Duration;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Client, CustomResourceExt as _, ResourceExt as _};
use tokio::time::Instant;

use super::Home;
use crate::api::ContainerRuntime;
use crate::objects::plain::MANAGER;

/// Whose it is.
const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// The version that brought it: an older one does not take it back.
const VERSION: &str = "rootstock.gardener.cloud/version";
/// A label that Gardener gives all its definitions.
const GARDENERS: &str = "gardener.cloud/deletion-protected";
/// How long the API server may take to serve it.
const SERVED: Duration = Duration::from_secs(30);

/// Why there are no ContainerRuntimes.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DefinitionError {
    /// The API refused.
    #[error("the API refused the CustomResourceDefinition {name}")]
    Api {
        /// The definition.
        name: String,
        /// Why.
        #[source]
        source: kube::Error,
    },
    /// The cluster has Gardener's.
    #[error(
        "the CustomResourceDefinition {0} is Gardener's: this is a seed, run with --cluster seed"
    )]
    Gardeners(String),
    /// It is not served.
    #[error("the API does not serve {name} within {} s", SERVED.as_secs())]
    NotServed {
        /// The definition.
        name: String,
        /// The last answer.
        #[source]
        source: kube::Error,
    },
}

/// What becomes of a definition that is there.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    /// It is ours, and not newer.
    Ours,
    /// A newer version brought it.
    Newer,
    /// It is Gardener's.
    Gardeners,
    /// Somebody else brought it, and keeps it.
    Others,
}

/// Brings the definition, where it is not there or an older version brought it.
pub(crate) async fn bring(client: &Client, home: &Home) -> Result<(), DefinitionError> {
    let mut wanted = ContainerRuntime::crd();
    let name = wanted.name_any();
    let own = env!("CARGO_PKG_VERSION");
    wanted.labels_mut().insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    wanted.annotations_mut().insert(VERSION.to_owned(), own.to_owned());
    let at = |source| DefinitionError::Api { name: name.clone(), source };
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let there = api.get_opt(&name).await.map_err(at)?;
    match there.as_ref().map(|there| found(there, own)) {
        Some(Found::Gardeners) => return Err(DefinitionError::Gardeners(name)),
        Some(found @ (Found::Newer | Found::Others)) => {
            tracing::info!(name, ?found, "the definition is used as it is");
        }
        Some(Found::Ours) | None => {
            let params = PatchParams::apply(MANAGER).force();
            api.patch(&name, &params, &Patch::Apply(&wanted)).await.map_err(at)?;
        }
    }
    served(client, home, name).await
}

fn found(there: &CustomResourceDefinition, own: &str) -> Found {
    let manager = there.labels().get(MANAGED_BY).map(String::as_str);
    let by_gardener = there
        .managed_fields()
        .iter()
        .any(|entry| entry.manager.as_deref().is_some_and(|name| name.starts_with("garden")));
    if there.labels().contains_key(GARDENERS) || by_gardener {
        Found::Gardeners
    } else if manager != Some(MANAGER) {
        Found::Others
    } else if there.annotations().get(VERSION).map(|v| parts(v)) > Some(parts(own)) {
        Found::Newer
    } else {
        Found::Ours
    }
}

/// The numbers of a version, for comparison.
fn parts(version: &str) -> Vec<u64> {
    let number = |part: &str| part.parse().unwrap_or_default();
    version.split(['-', '+']).next().unwrap_or_default().split('.').map(number).collect()
}

async fn served(client: &Client, home: &Home, name: String) -> Result<(), DefinitionError> {
    let api = home.resources(client);
    let end = Instant::now() + SERVED;
    let mut pause = Duration::from_millis(20);
    loop {
        match api.list_metadata(&ListParams::default().limit(1)).await {
            Ok(_) => return Ok(()),
            Err(source) if Instant::now() >= end => {
                return Err(DefinitionError::NotServed { name, source });
            }
            Err(_) => tokio::time::sleep(pause).await,
        }
        pause = (pause * 2).min(Duration::from_secs(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_older_definition_of_our_own_is_changed() {
        let make = |labels: &[(&str, &str)], version: Option<&str>, manager: &str| {
            let mut definition = ContainerRuntime::crd();
            for (key, value) in labels {
                definition.labels_mut().insert((*key).to_owned(), (*value).to_owned());
            }
            if let Some(version) = version {
                definition.annotations_mut().insert(VERSION.to_owned(), version.to_owned());
            }
            let entry = serde_json::json!({"manager": manager});
            definition.metadata.managed_fields = Some(vec![serde_json::from_value(entry).unwrap()]);
            definition
        };
        let ours = [(MANAGED_BY, MANAGER)];
        let table = [
            (make(&ours, Some("0.1.0"), MANAGER), Found::Ours),
            (make(&ours, Some("0.9.0"), MANAGER), Found::Ours),
            (make(&ours, Some("0.10.0"), MANAGER), Found::Ours),
            (make(&ours, Some("0.10.1"), MANAGER), Found::Newer),
            (make(&ours, Some("1.0.0-rc.1"), MANAGER), Found::Newer),
            (make(&ours, None, MANAGER), Found::Ours),
            (make(&[], None, "kubectl"), Found::Others),
            (make(&[(GARDENERS, "true")], None, "kubectl"), Found::Gardeners),
            (make(&ours, None, "gardenlet"), Found::Gardeners),
        ];
        for (there, want) in table {
            assert_eq!(found(&there, "0.10.0"), want, "{:?}", there.metadata);
        }
    }
}
