//! What the types of the catalog stand for: each reference is resolved once,
//! and asked again only while it has no answer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use rootstock_bundle::{Client, Reference, Version};
use rootstock_core::assign::{Problem, Resolution, ResolvedBundle};
use rootstock_core::catalog::{Catalog, RegistryEntry};
use rootstock_core::desired::{Credential, Registry};
use rootstock_core::digest::Digest;
use rootstock_core::name::{Architecture, RuntimeType};
use rootstock_core::status::Reason;
use rootstock_daemon::Shutdown;
use rootstock_daemon::error::Chain;
use tokio::sync::watch;

use crate::index::{Index, Needed};

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
    /// Tells the index which types there are, before anyone asks: a type is
    /// unknown because the catalog lacks it, not because nobody has looked.
    pub(crate) fn announce(&self) {
        let known = carry_over(Known::new(), &self.catalog.borrow());
        self.publish(&known, &Registries::new());
    }

    pub(crate) async fn run(mut self, shutdown: Shutdown) -> anyhow::Result<()> {
        let mut known = Known::new();
        let mut registries = Registries::new();
        let mut pause = FIRST_RETRY;
        let mut needed = self.index.needed();
        loop {
            let catalog = Arc::clone(&self.catalog.borrow_and_update());
            known = carry_over(known, &catalog);
            let read = self.registries(&catalog).await;
            // One whose credential can't be read is tried again, and what is
            // known of it serves until then.
            let readable = read.values().all(Result::is_ok);
            registries = keep_good(&registries, read);
            self.publish(&known, &registries);
            // Cancel-safe: nothing of it outlives the process. A registry that
            // hangs must not hold the end up.
            let resolved = tokio::select! {
                all = self.resolve(&mut known, &registries) => all,
                () = shutdown.begun() => return Ok(()),
            };
            let open = needed.borrow_and_update().clone();
            let found = tokio::select! {
                found = self.find(open, &known, &registries) => found,
                () = shutdown.begun() => return Ok(()),
            };
            let complete = resolved && readable && found;
            // Cancel-safe: a change is still seen by the next `changed`.
            tokio::select! {
                changed = needed.changed() => {
                    changed?;
                    pause = FIRST_RETRY;
                }
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

    /// Asks for bundles that rollouts need and that no type stands for any more,
    /// in the repository that the type has now; tells whether all were found.
    async fn find(&self, needed: BTreeSet<Needed>, known: &Known, registries: &Registries) -> bool {
        let mut all = true;
        for (runtime, architecture, digest) in needed {
            let Some((reference, _)) = known.get(&runtime) else { continue };
            let Some(Ok(registry)) = registries.get(&reference.registry) else {
                all = false;
                continue;
            };
            match ask_for(reference, registry, Version::Digest(digest), architecture).await {
                Ok((bundle, _)) => {
                    tracing::info!(%runtime, %digest, "an earlier bundle is known");
                    self.index.put_bundle(runtime, bundle);
                }
                Err(problem) => {
                    all = false;
                    let (reason, why) = (problem.reason, problem.message);
                    tracing::warn!(%runtime, %digest, %reason, why, "an earlier bundle is not known");
                }
            }
        }
        all
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

    async fn registry(&self, entry: &RegistryEntry) -> Result<Registry, Unreadable> {
        let credential = match &entry.credentials_secret {
            None => None,
            Some(name) => Some(self.credential(name).await.map_err(|message| {
                let message = format!("registry {}: Secret {name:?}: {message}", entry.name);
                tracing::warn!(message, "no credential");
                let problem = Problem::new(Reason::RegistryUnauthorized, message);
                Unreadable { url: entry.url.clone(), problem }
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

type Registries = BTreeMap<String, Result<Registry, Unreadable>>;

/// A registry whose credential can't be read.
#[derive(Clone, Debug)]
struct Unreadable {
    url: String,
    problem: Problem,
}

/// The registries as they were read, or else as they were known at the same address.
fn keep_good(before: &Registries, read: Registries) -> Registries {
    let known = |name: &str, now: &Unreadable| {
        let before = before.get(name)?.as_ref().ok()?;
        (before.url == now.url).then(|| before.clone())
    };
    read.into_iter()
        .map(|(name, registry)| {
            let registry = registry.or_else(|now| known(&name, &now).ok_or(now));
            (name, registry)
        })
        .collect()
}

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
        Some(Err(unreadable)) => return Resolution::Failed(unreadable.problem.clone()),
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
    let mut version = reference.version.clone();
    let mut bundles = ByArchitecture::new();
    for architecture in [Architecture::Amd64, Architecture::Arm64] {
        match ask_for(reference, registry, version.clone(), architecture).await {
            Ok((bundle, exactly)) => {
                // A tag is looked up once: both architectures are of one moment.
                version = Version::Digest(exactly);
                bundles.insert(architecture, Ok(bundle));
            }
            // It is there, and has nothing for these nodes.
            Err(problem) if problem.reason == Reason::ArchitectureMismatch => {
                bundles.insert(architecture, Err(problem));
            }
            Err(problem) => return Err(problem),
        }
    }
    Ok(bundles)
}

/// A bundle, and the digest that its version has.
async fn ask_for(
    reference: &Reference,
    registry: &Registry,
    version: Version,
    architecture: Architecture,
) -> Result<(ResolvedBundle, Digest), Problem> {
    let client = Client::new(registry)
        .map_err(|error| Problem::new(Reason::ConfigurationInvalid, Chain(&error).to_string()))?;
    let resolved = client.resolve(&reference.repository, &version, architecture).await;
    let resolved =
        resolved.map_err(|error| Problem::new(error.reason(), Chain(&error).to_string()))?;
    let bundle = ResolvedBundle {
        digest: resolved.manifest,
        registry: registry.name.clone(),
        repository: reference.repository.to_string(),
        config: resolved.config,
    };
    Ok((bundle, resolved.digest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_whose_credential_is_away_for_a_moment_stays_known() {
        let registry = |url: &str| Registry {
            name: "main".into(),
            url: url.into(),
            mirrors: vec![],
            ca_bundle: String::new(),
            credential: Some(Credential { username: "u".into(), secret: "s".into() }),
        };
        let problem = Problem::new(Reason::RegistryUnauthorized, "away");
        let away = |url: &str| -> Registries {
            let url = url.to_owned();
            [("main".to_owned(), Err(Unreadable { url, problem: problem.clone() }))].into()
        };
        let before: Registries = [("main".to_owned(), Ok(registry("http://a")))].into();
        assert!(keep_good(&before, away("http://a"))["main"].is_ok());
        // A credential is shown to the registry that it is for.
        assert!(keep_good(&before, away("http://b"))["main"].is_err());
        assert!(keep_good(&Registries::new(), away("http://a"))["main"].is_err());
        assert!(keep_good(&before, Registries::new()).is_empty());
    }
}
