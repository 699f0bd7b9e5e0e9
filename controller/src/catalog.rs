//! The configuration file, followed as it changes.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rootstock_core::catalog::{Catalog, InvalidCatalog};
use rootstock_daemon::Shutdown;
use rootstock_daemon::error::Chain;
use tokio::sync::watch;

/// How often the file is looked at: a ConfigMap in a Pod changes once a minute
/// at most, a person who tries something out wants to see it.
const LOOK: Duration = Duration::from_secs(2);
/// The largest file, in bytes.
const MAX_SIZE: u64 = 4 << 20;

/// A configuration that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// The file can't be read.
    #[error("can't read the configuration {path:?}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is too large to be one.
    #[error("the configuration {path:?} has more than {MAX_SIZE} bytes")]
    Size {
        /// The file.
        path: PathBuf,
    },
    /// The file is not what it should be.
    #[error("the configuration {path:?} is wrong: {why}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// What is wrong and where.
        why: String,
    },
    /// The file contradicts itself.
    #[error("the configuration {path:?} contradicts itself")]
    Contradiction {
        /// The file.
        path: PathBuf,
        /// Where.
        #[source]
        source: InvalidCatalog,
    },
}

/// Reads a configuration.
pub async fn load(path: &Path) -> Result<Catalog, CatalogError> {
    let catalog = parse(path, &read(path).await?)?;
    warn(path, &catalog);
    Ok(catalog)
}

async fn read(path: &Path) -> Result<String, CatalogError> {
    let error = |source| CatalogError::Read { path: path.to_owned(), source };
    if tokio::fs::metadata(path).await.map_err(error)?.len() > MAX_SIZE {
        return Err(CatalogError::Size { path: path.to_owned() });
    }
    tokio::fs::read_to_string(path).await.map_err(error)
}

fn parse(path: &Path, text: &str) -> Result<Catalog, CatalogError> {
    let catalog: Catalog = serde_saphyr::from_str(text)
        .map_err(|error| CatalogError::Parse { path: path.to_owned(), why: error.to_string() })?;
    catalog
        .check()
        .map_err(|source| CatalogError::Contradiction { path: path.to_owned(), source })?;
    Ok(catalog)
}

/// Says what an operator may not expect of a configuration that is taken into use.
fn warn(path: &Path, catalog: &Catalog) {
    if catalog.runtimes.is_empty() {
        tracing::warn!(?path, "the configuration names no runtime type");
    }
    for key in catalog.without_effect() {
        tracing::warn!(key, "this version reads the key and does not act on it");
    }
}

/// Follows the file and passes on what changed.
#[derive(Debug)]
pub(crate) struct Follow {
    pub(crate) path: PathBuf,
    pub(crate) catalog: watch::Sender<Arc<Catalog>>,
}

impl Follow {
    pub(crate) async fn run(self, shutdown: Shutdown) -> anyhow::Result<()> {
        let mut last = None;
        let mut looks = tokio::time::interval(LOOK);
        loop {
            // Cancel-safe: a tick that is lost comes again.
            tokio::select! {
                _ = looks.tick() => {}
                () = shutdown.begun() => return Ok(()),
            }
            let text = read(&self.path).await;
            // The same error is said once, the same text read once.
            let seen = text.as_ref().map_err(|error| Chain(error).to_string()).cloned();
            if last.as_ref() == Some(&seen) {
                continue;
            }
            last = Some(seen);
            match text.and_then(|text| parse(&self.path, &text)) {
                Ok(catalog) => {
                    let changed = self.catalog.send_if_modified(|current| {
                        let changed = **current != catalog;
                        *current = Arc::new(catalog);
                        changed
                    });
                    if changed {
                        tracing::info!(path = ?self.path, "configuration changed");
                        warn(&self.path, &self.catalog.borrow());
                    }
                }
                Err(error) => {
                    tracing::warn!(error = %Chain(&error), "the last good configuration stays in use");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_form_is_read() {
        let text = r#"
registries: [{name: main, url: "https://registry.example", mirrors: [], credentialsSecret: pull}]
budgets: {seed: 200MiB/s, concurrentPulls: 64}
runtimes:
  - {type: gvisor, bundle: "main/rootstock/gvisor:1", runtimeClasses: [{name: gvisor, handler: runsc}], strategy: {canary: 1}, signature: null}
"#;
        let catalog = parse(Path::new("config.yaml"), text).unwrap();
        assert_eq!(catalog.runtimes[0].runtime_classes[0].handler.as_str(), "runsc");
        assert_eq!(catalog.without_effect(), [""; 0]);
    }

    #[test]
    fn a_runtime_class_has_overhead_and_scheduling() {
        let file = |overhead: &str| {
            format!(
                "registries: [{{name: main, url: \"https://registry.example\"}}]\n\
                 runtimes:\n\
                 - type: kata\n  bundle: main/rootstock/kata:1\n  runtimeClasses:\n\
                 \x20 - name: kata\n    handler: kata\n    overhead: {overhead}\n\
                 \x20   scheduling: {{tolerations: [{{key: kata, operator: Exists}}]}}\n"
            )
        };
        let read = |overhead: &str| parse(Path::new("c.yaml"), &file(overhead));
        let catalog = read("{podFixed: {cpu: 0.5, memory: 160Mi}}").unwrap();
        let overhead = catalog.runtimes[0].runtime_classes[0].overhead.as_ref().unwrap();
        assert_eq!(overhead.pod_fixed["cpu"].to_string(), "0.5");
        assert_eq!(overhead.pod_fixed["memory"].to_string(), "160Mi");
        assert!(catalog.without_effect().is_empty());
        for (wrong, word) in [("{podFixed: {memory: lots}}", "lots"), ("{fixed: {}}", "fixed")] {
            let text = read(wrong).unwrap_err().to_string();
            assert!(text.contains(word) && text.contains("line"), "{text}");
        }
    }

    #[test]
    fn a_wrong_file_says_where() {
        let error = parse(Path::new("c.yaml"), "runtimes:\n  - {type: gvisor, bundel: x}\n");
        let text = error.unwrap_err().to_string();
        assert!(text.contains("c.yaml") && text.contains("bundel"), "{text}");
    }
}
