//! The bundles that a world offers, and the catalog that names them.

use std::path::Path;

use rootstock_bundle::{Built, Client, InvalidRegistry, PushError};
use rootstock_core::reference::InvalidReference;
use serde_json::{Value, json};

use super::istio;
use crate::registry::Registry;

/// The registry's name in the catalog.
const REGISTRY: &str = "main";

/// One runtime type of the catalog, and what is pushed for it.
#[derive(Clone, Debug)]
pub struct Offer {
    /// The runtime type.
    pub runtime: String,
    /// The version, which is also the tag.
    pub version: String,
    /// The bundle, one for each architecture. Without any the catalog names a
    /// bundle that the registry lacks.
    pub platforms: Vec<Built>,
    /// The RuntimeClasses: name and handler.
    pub classes: Vec<(String, String)>,
}

/// Why the bundles are not offered.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// The registry has no proper address.
    #[error("reach the registry")]
    Registry(#[from] InvalidRegistry),
    /// A runtime's name makes no proper reference.
    #[error("name the bundle")]
    Reference(#[from] InvalidReference),
    /// A bundle can't be pushed.
    #[error("push the bundle of {runtime}")]
    Push {
        /// The runtime type.
        runtime: String,
        /// Why.
        source: PushError,
    },
    /// The catalog can't be written.
    #[error("write the catalog")]
    Write(#[from] std::io::Error),
}

/// Pushes the bundles and writes the catalog that pins them, each with this strategy.
///
/// # Errors
/// See [`CatalogError`].
pub async fn offer(
    registry: &Registry,
    offers: &[Offer],
    strategy: &Value,
    catalog: &Path,
) -> Result<(), CatalogError> {
    let client = Client::new(&registry.as_desired(REGISTRY))?;
    let mut runtimes = Vec::new();
    for offer in offers {
        let repository = format!("rootstock/{}", offer.runtime);
        let bundle = if offer.platforms.is_empty() {
            format!("{REGISTRY}/{repository}:{}", offer.version)
        } else {
            let (name, tag) = (repository.parse()?, offer.version.parse()?);
            let pushed = client.push(&name, &tag, &offer.platforms).await;
            let failed = |source| CatalogError::Push { runtime: offer.runtime.clone(), source };
            format!("{REGISTRY}/{repository}@{}", pushed.map_err(failed)?.digest)
        };
        let classes: Vec<Value> = offer
            .classes
            .iter()
            .map(|(name, handler)| json!({"name": name, "handler": handler}))
            .collect();
        runtimes.push(json!({
            "type": offer.runtime, "bundle": bundle, "runtimeClasses": classes,
            "strategy": strategy,
        }));
    }
    let content = json!({
        "registries": [{"name": REGISTRY, "url": registry.url()}],
        "rings": {"percentages": []},
        "runtimes": runtimes,
    });
    // JSON is YAML too.
    let text = format!("{content:#}\n");
    Ok(tokio::fs::write(catalog, text).await?)
}

/// A strategy for worlds in which nothing runs that a bundle could break: every
/// node tries it at once.
pub fn at_once() -> Value {
    json!({
        "canary": "100%", "soak": "0s", "maxUnavailable": "100%", "window": "none",
        "deadlines": {"firstSandbox": "0s"},
    })
}

/// The CRDs that a seed serves: those of the controller's own types, and Istio's.
pub(super) fn definitions() -> Result<Vec<Value>, serde_json::Error> {
    let own = rootstock_controller::api::definitions();
    let istio = istio::definitions().into_iter().map(Ok);
    own.iter().map(serde_json::to_value).chain(istio).collect()
}
