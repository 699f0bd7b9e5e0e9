//! Which bundles are open to which shoots of the seed.
//!
//! ```text
//!  looks at shoots ─ see ─▶ what each makes of its bundles
//!                              │ core::rollout::rings
//!                              ▼
//!                 a record that changed ─ written ─▶ ConfigMap ─▶ seed: what each shoot may try
//! ```
//!
//! What is recorded is written before it is acted on. Until it was read nothing
//! is open that is not open already.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use rootstock_core::catalog::Catalog;
use rootstock_core::name::{RuntimeType, ShootName};
use rootstock_core::rollout::progress::Phase;
use rootstock_core::rollout::rings::{InShoot, Observed, RingsConfig, RingsRecord, rings};
use rootstock_core::rollout::view::Seed;
use rootstock_core::rollout::{Progress, record::Digests};
use rootstock_daemon::Shutdown;
use rootstock_daemon::error::Chain;
use serde_json::json;
use tokio::sync::watch;

use super::PATIENCE;
use crate::api::is_not_found;
use crate::index::Survey;

/// The ConfigMap in the controller's namespace.
const NAME: &str = "rootstock-rings";
/// Its key.
const KEY: &str = "rings.json";
/// What shoots say is gathered for so long.
const GATHER: Duration = Duration::from_secs(1);
/// The pause after a failure.
const RETRY: Duration = Duration::from_secs(5);
/// The longest without a look.
const LONGEST: Duration = Duration::from_secs(60);

/// The rings of a seed. Cloned, it is the same one.
#[derive(Clone)]
pub(crate) struct Rings {
    api: Api<ConfigMap>,
    catalog: watch::Receiver<Arc<Catalog>>,
    state: Arc<Mutex<State>>,
    /// Raised with each record that was written.
    written: watch::Sender<u64>,
    /// Raised with each word of a shoot that is new.
    seen: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    /// As it is written; none before it was read.
    record: Option<RingsRecord>,
    targets: BTreeMap<RuntimeType, Digests>,
    shoots: BTreeMap<(RuntimeType, ShootName), InShoot>,
}

/// Why the record is not kept.
#[derive(Debug, thiserror::Error)]
enum KeepError {
    #[error("the API refused ConfigMap {NAME}")]
    Api(#[from] kube::Error),
    #[error("the API did not answer within {PATIENCE:?}")]
    Late(#[from] tokio::time::error::Elapsed),
    #[error("composing {KEY} of ConfigMap {NAME}")]
    Json(#[from] serde_json::Error),
}

impl Rings {
    pub(crate) fn new(
        client: Client,
        namespace: &str,
        catalog: watch::Receiver<Arc<Catalog>>,
    ) -> Self {
        let api = Api::namespaced(client, namespace);
        let ((written, _), (seen, _)) = (watch::channel(0), watch::channel(0));
        Self { api, catalog, state: Arc::default(), written, seen }
    }

    /// Sees each change of what is open.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.written.subscribe()
    }

    /// What is said of a type to a shoot.
    pub(super) fn seed(&self, runtime: &RuntimeType, shoot: &ShootName) -> Seed {
        let config = self.config();
        let state = self.state();
        let of = state.record.as_ref().and_then(|record| record.types.get(runtime));
        of.map(|of| of.seed(&config, shoot)).unwrap_or_default()
    }

    /// What a shoot makes of its bundles.
    pub(super) fn see(
        &self,
        shoot: &ShootName,
        survey: &Survey,
        progress: &BTreeMap<String, Progress>,
    ) {
        if !survey.complete {
            return;
        }
        let mut says: BTreeMap<RuntimeType, InShoot> = BTreeMap::new();
        let mut targets = BTreeMap::new();
        for (name, track) in survey.tracks.iter().filter(|(_, track)| !track.deleting) {
            let target: Digests =
                track.target.iter().filter_map(|(of, digest)| Some((*of, (*digest)?))).collect();
            if target.is_empty() {
                continue;
            }
            let said = says.entry(track.runtime.clone()).or_default();
            let (ready, started) = survey.with(name, &target);
            said.ready += ready;
            said.started += started;
            if let Some(progress) = progress.get(name).filter(|p| p.candidate == target)
                && matches!(progress.phase, Phase::Halted(_))
            {
                said.halted.extend(progress.failures.iter().map(|failure| failure.reason));
            }
            targets.insert(track.runtime.clone(), target);
        }
        let mut state = self.state();
        let said: BTreeMap<_, _> =
            says.into_iter().map(|(runtime, says)| ((runtime, shoot.clone()), says)).collect();
        let before: BTreeMap<_, _> =
            state.shoots.extract_if(.., |(_, of), _| of == shoot).collect();
        let mut new = before != said;
        state.shoots.extend(said);
        for (runtime, target) in targets {
            new |= state.targets.insert(runtime, target.clone()) != Some(target);
        }
        drop(state);
        if new {
            self.seen.send_modify(|count| *count += 1);
        }
    }

    /// A shoot is gone, or leaves.
    pub(super) fn forget(&self, shoot: &ShootName) {
        self.state().shoots.retain(|(_, of), _| of != shoot);
    }

    /// Reads the record, and keeps it.
    pub(crate) async fn keep(self, shutdown: Shutdown) -> anyhow::Result<()> {
        let mut seen = self.seen.subscribe();
        loop {
            let pause = match self.look().await {
                Ok(next) => next,
                Err(error) => {
                    tracing::warn!(error = %Chain(&error), "what is open to shoots stays as it is");
                    RETRY
                }
            };
            // Cancel-safe: each arm only waits.
            tokio::select! {
                changed = seen.changed() => {
                    changed?;
                    tokio::select! {
                        () = tokio::time::sleep(GATHER) => {}
                        () = shutdown.begun() => return Ok(()),
                    }
                    seen.mark_unchanged();
                }
                () = tokio::time::sleep(pause) => {}
                () = shutdown.begun() => return Ok(()),
            }
        }
    }

    /// Works out what is open, and writes it. Tells when to look again.
    async fn look(&self) -> Result<Duration, KeepError> {
        let known = self.state().record.clone();
        let record = match known {
            Some(record) => record,
            None => {
                let record = self.read().await?;
                self.take(record.clone());
                record
            }
        };
        let (config, now) = (self.config(), Timestamp::now());
        let observed = {
            let state = self.state();
            let (targets, shoots) = (state.targets.clone(), state.shoots.clone());
            Observed { targets, shoots, cleared: config.cleared.clone() }
        };
        let next = rings(&config, &record, &observed, now);
        if next.record != record {
            self.write(&next.record).await?;
            self.take(next.record);
        }
        let wait = next.next.and_then(|next| Duration::try_from(next.duration_since(now)).ok());
        Ok(wait.unwrap_or(LONGEST).clamp(GATHER, LONGEST))
    }

    fn take(&self, record: RingsRecord) {
        self.state().record = Some(record);
        self.written.send_modify(|count| *count += 1);
    }

    async fn read(&self) -> Result<RingsRecord, KeepError> {
        let found = match tokio::time::timeout(PATIENCE, self.api.get(NAME)).await? {
            Ok(found) => found,
            Err(error) if is_not_found(&error) => return Ok(RingsRecord::default()),
            Err(error) => return Err(error.into()),
        };
        let text = found.data.and_then(|mut data| data.remove(KEY)).unwrap_or_default();
        // It is lost without harm: bundles begin with the first ring again.
        Ok(serde_json::from_str(&text).unwrap_or_else(|error| {
            tracing::warn!(error = %Chain(&error), "{KEY} of ConfigMap {NAME} is begun anew");
            RingsRecord::default()
        }))
    }

    async fn write(&self, record: &RingsRecord) -> Result<(), KeepError> {
        let data = json!({ KEY: serde_json::to_string(record)? });
        let patch = Patch::Merge(json!({ "data": data }));
        let params = PatchParams::default();
        match tokio::time::timeout(PATIENCE, self.api.patch(NAME, &params, &patch)).await? {
            Ok(_) => return Ok(()),
            Err(error) if is_not_found(&error) => {}
            Err(error) => return Err(error.into()),
        }
        let object = serde_json::from_value(json!({"metadata": {"name": NAME}, "data": data}))?;
        let params = PostParams::default();
        tokio::time::timeout(PATIENCE, self.api.create(&params, &object)).await??;
        Ok(())
    }

    fn config(&self) -> RingsConfig {
        self.catalog.borrow().rings.clone().unwrap_or_default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits for a change of what is open; for ever where there are no rings.
pub(super) async fn changed(rings: &mut Option<watch::Receiver<u64>>) {
    if let Some(rings) = rings
        && rings.changed().await.is_ok()
    {
        return;
    }
    std::future::pending().await
}
