//! What the types of the catalog stand for: each reference is resolved once,
//! and asked again only while it has no answer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use rootstock_bundle::{Client, Reference, Version};
use rootstock_core::assign::{Problem, Resolution, ResolvedBundle};
use rootstock_core::catalog::{Catalog, RegistryEntry};
use rootstock_core::desired::{Credential, Registry};
use rootstock_core::name::{Architecture, RuntimeType};
use rootstock_core::status::Reason;
use rootstock_daemon::Shutdown;
use rootstock_daemon::error::Chain;
use tokio::sync::watch;

use crate::index::Index;

/// The first pause before a reference is asked again; it doubles.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// The longest pause.
const LAST_RETRY: Duration = Duration::from_secs(60);
/// How many references are asked at once.
const AT_ONCE: usize = 4;

/// Resolves the references of the catalog.
#[derive(Debug)]
pub(crate) struct Resolver {
    pub(crate) seed: Secrets,
    pub(crate) catalog: watch::Receiver<Arc<Catalog>>,
    pub(crate) index: Arc<Index>,
}

/// Where the registries' credentials are.
#[derive(Clone)]
pub(crate) struct Secrets(pub(crate) Api<Secret>);

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secrets")
    }
}

type Known = BTreeMap<RuntimeType, (Reference, Resolution)>;

impl Resolver {
    pub(crate) async fn run(mut self, shutdown: Shutdown) -> anyhow::Result<()> {
        let mut known = Known::new();
        let mut pause = FIRST_RETRY;
        loop {
            let catalog = Arc::clone(&self.catalog.borrow_and_update());
            known = carry_over(known, &catalog);
            let registries = self.registries(&catalog).await;
            self.publish(&known, &registries);
            let complete = self.resolve(&mut known, &registries).await;
            // Cancel-safe: a change is still seen by the next `changed`.
            tokio::select! {
                changed = self.catalog.changed() => {
                    changed?;
                    pause = FIRST_RETRY;
                }
                () = tokio::time::sleep(pause), if !complete => {
                    pause = (pause * 2).min(LAST_RETRY);
                }
                () = shutdown.begun() => return Ok(()),
            }
        }
    }

    /// Asks for everything that has no answer yet; tells whether all have one.
    async fn resolve(&self, known: &mut Known, registries: &Registries) -> bool {
        let open: Vec<_> = known
            .iter()
            .filter(|(_, (_, resolution))| !matches!(resolution, Resolution::Resolved(_)))
            .map(|(runtime, (reference, _))| (runtime.clone(), reference.clone()))
            .collect();
        let mut answers = futures_util::stream::iter(open)
            .map(|(runtime, reference)| async move {
                let resolution = resolve(&reference, registries).await;
                (runtime, reference, resolution)
            })
            .buffer_unordered(AT_ONCE);
        let mut complete = true;
        while let Some((runtime, reference, resolution)) = answers.next().await {
            match &resolution {
                Resolution::Failed(problem) => {
                    complete = false;
                    tracing::warn!(
                        %runtime, %reference, reason = %problem.reason, message = problem.message,
                        "bundle not resolved"
                    );
                }
                Resolution::Pending | Resolution::Resolved(_) => {
                    tracing::info!(%runtime, %reference, "bundle resolved");
                }
            }
            known.insert(runtime, (reference, resolution));
            self.publish(known, registries);
        }
        complete
    }

    fn publish(&self, known: &Known, registries: &Registries) {
        let references = known.iter().map(|(runtime, (r, _))| (runtime.clone(), r.to_string()));
        let bundles = known.iter().map(|(runtime, (_, r))| (runtime.clone(), r.clone()));
        let good = registries.iter().filter_map(|(name, r)| Some((name.clone(), r.clone().ok()?)));
        self.index.put_bundles(references.collect(), bundles.collect(), good.collect());
    }

    async fn registries(&self, catalog: &Catalog) -> Registries {
        let mut registries = Registries::new();
        for entry in &catalog.registries {
            registries.insert(entry.name.clone(), self.registry(entry).await);
        }
        registries
    }

    async fn registry(&self, entry: &RegistryEntry) -> Result<Registry, Problem> {
        let credential = match &entry.credentials_secret {
            None => None,
            Some(name) => Some(self.credential(name).await.map_err(|message| {
                Problem::new(
                    Reason::RegistryUnauthorized,
                    format!("registry {}: Secret {name:?}: {message}", entry.name),
                )
            })?),
        };
        Ok(Registry {
            name: entry.name.clone(),
            url: entry.url.clone(),
            mirrors: entry.mirrors.clone(),
            ca_bundle: entry.ca_bundle.clone(),
            credential,
        })
    }

    async fn credential(&self, name: &str) -> Result<Credential, String> {
        let secret = self.seed.0.get(name).await.map_err(|error| Chain(&error).to_string())?;
        let data = secret.data.unwrap_or_default();
        let text = |key: &str| {
            let bytes = data.get(key).ok_or_else(|| format!("it has no key {key:?}"))?;
            String::from_utf8(bytes.0.clone()).map_err(|_| format!("its {key:?} is not UTF-8"))
        };
        Ok(Credential { username: text("username")?, secret: text("password")? })
    }
}

type Registries = BTreeMap<String, Result<Registry, Problem>>;

/// What is known of references that stand as they did.
fn carry_over(mut known: Known, catalog: &Catalog) -> Known {
    let references = catalog.references().into_iter();
    references
        .map(|(runtime, reference)| {
            let resolution = match known.remove(&runtime) {
                Some((before, resolution)) if before == reference => resolution,
                _ => Resolution::Pending,
            };
            (runtime, (reference, resolution))
        })
        .collect()
}

async fn resolve(reference: &Reference, registries: &Registries) -> Resolution {
    let registry = match registries.get(&reference.registry) {
        Some(Ok(registry)) => registry,
        Some(Err(problem)) => return Resolution::Failed(problem.clone()),
        None => {
            let message = format!("registry {:?} is not in the catalog", reference.registry);
            return Resolution::Failed(Problem::new(Reason::ConfigurationInvalid, message));
        }
    };
    match ask(reference, registry).await {
        Ok(bundles) => Resolution::Resolved(bundles),
        Err(problem) => Resolution::Failed(problem),
    }
}

type ByArchitecture = BTreeMap<Architecture, Result<ResolvedBundle, Problem>>;

async fn ask(reference: &Reference, registry: &Registry) -> Result<ByArchitecture, Problem> {
    let client = Client::new(registry)
        .map_err(|error| Problem::new(Reason::ConfigurationInvalid, Chain(&error).to_string()))?;
    let mut version = reference.version.clone();
    let mut bundles = ByArchitecture::new();
    for architecture in [Architecture::Amd64, Architecture::Arm64] {
        match client.resolve(&reference.repository, &version, architecture).await {
            Ok(resolved) => {
                // A tag is looked up once: both architectures are of one moment.
                version = Version::Digest(resolved.digest);
                let bundle = ResolvedBundle {
                    digest: resolved.manifest,
                    registry: registry.name.clone(),
                    repository: reference.repository.to_string(),
                    config: resolved.config,
                };
                bundles.insert(architecture, Ok(bundle));
            }
            Err(error) => {
                let problem = Problem::new(error.reason(), Chain(&error).to_string());
                // It is there, and has nothing for these nodes.
                if problem.reason == Reason::ArchitectureMismatch {
                    bundles.insert(architecture, Err(problem));
                } else {
                    return Err(problem);
                }
            }
        }
    }
    Ok(bundles)
}
