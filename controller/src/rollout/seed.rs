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
//!
//! A ring has every shoot with a ContainerRuntime of the type. A new leader has
//! looked at none of them: what it has not seen is waited for, and what sleeps
//! or could not be reached in [`AWAITED`] is in its ring without a word.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use rootstock_core::name::{RuntimeType, ShootName};
use rootstock_core::rollout::progress::Phase;
use rootstock_core::rollout::rings::{
    InShoot, Observed, Presence, RingsConfig, RingsRecord, rings,
};
use rootstock_core::rollout::view::Seed;
use rootstock_core::rollout::{Progress, record::Digests};
use rootstock_daemon::Shutdown;
use rootstock_daemon::error::Chain;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::api::{PATIENCE, is_not_found};
use crate::index::Survey;
use crate::seed::{Scope, Store};

/// The ConfigMap in the controller's namespace.
const NAME: &str = "rootstock-rings";
/// Its key.
const KEY: &str = "rings.json";
/// What shoots say is gathered for so long.
const GATHER: Duration = Duration::from_secs(1);
/// The pause after a failure.
const RETRY: Duration = Duration::from_secs(5);
/// How long a shoot is waited for that nobody has looked at in this term: ten
/// times what a node's agent is given to come back, and time for an API server
/// that is just being replaced. One that can't be reached for longer holds the
/// others' rings up no more; it proves nothing either.
pub(super) const AWAITED: Duration = Duration::from_secs(5 * 60);
/// The longest without a look.
const LONGEST: Duration = Duration::from_secs(60);

/// The rings of a seed. Cloned, it is the same one.
#[derive(Clone)]
pub(crate) struct Rings {
    api: Api<ConfigMap>,
    scope: Scope,
    store: Arc<Store>,
    /// When the term began.
    begun: Instant,
    state: Arc<Mutex<State>>,
    /// Raised with each record that was written.
    written: watch::Sender<u64>,
    /// Raised with each word of a shoot that is new.
    seen: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    record: Record,
    targets: BTreeMap<RuntimeType, Digests>,
    /// What became of the shoots that were looked at.
    shoots: BTreeMap<ShootName, Shoot>,
}

/// What is recorded, as it is written.
#[derive(Debug, Default)]
enum Record {
    /// It has not been read yet.
    #[default]
    Awaited,
    /// It could not be read.
    Unread,
    Known(RingsRecord),
}

/// A shoot that was looked at in this term.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Shoot {
    /// It leaves this seed, and is in no ring.
    Leaves,
    /// It sleeps.
    Sleeps,
    /// It says this of its types.
    Says(BTreeMap<RuntimeType, InShoot>),
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
    pub(crate) fn new(client: Client, namespace: &str, scope: Scope, store: Arc<Store>) -> Self {
        let api = Api::namespaced(client, namespace);
        let ((written, _), (seen, _)) = (watch::channel(0), watch::channel(0));
        Self { api, scope, store, begun: Instant::now(), state: Arc::default(), written, seen }
    }

    /// Sees each change of what is open.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.written.subscribe()
    }

    /// What is said of a type to a shoot.
    pub(super) fn seed(&self, runtime: &RuntimeType, shoot: &ShootName) -> Seed {
        let config = self.config();
        match &self.state().record {
            Record::Awaited => Seed::default(),
            Record::Unread => Seed { unread: true, ..Seed::default() },
            Record::Known(record) => {
                let of = record.types.get(runtime);
                of.map(|of| of.seed(&config, shoot)).unwrap_or_default()
            }
        }
    }

    /// What a shoot makes of its bundles, if it does not sleep.
    pub(super) fn see(
        &self,
        shoot: &ShootName,
        sleeps: bool,
        survey: &Survey,
        progress: &BTreeMap<String, Progress>,
    ) {
        if sleeps {
            return self.put(shoot, Shoot::Sleeps, BTreeMap::new());
        }
        if !survey.complete {
            return;
        }
        // Nodes that are back in a moment may have failed while nobody led. An
        // agent that never says anything must not keep its shoot from it.
        let early = self.begun.elapsed() < AWAITED && !self.state().shoots.contains_key(shoot);
        if early && progress.values().any(|progress| progress.awaited > 0) {
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
        self.put(shoot, Shoot::Says(says), targets);
    }

    /// A shoot is gone, or leaves.
    pub(super) fn forget(&self, shoot: &ShootName) {
        self.put(shoot, Shoot::Leaves, BTreeMap::new());
    }

    fn put(&self, name: &ShootName, shoot: Shoot, targets: BTreeMap<RuntimeType, Digests>) {
        let mut state = self.state();
        let mut new = state.shoots.get(name) != Some(&shoot);
        state.shoots.insert(name.clone(), shoot);
        for (runtime, target) in targets {
            new |= state.targets.insert(runtime, target.clone()) != Some(target);
        }
        drop(state);
        if new {
            self.seen.send_modify(|count| *count += 1);
        }
    }

    /// Reads the record, and keeps it.
    pub(crate) async fn keep(self, shutdown: Shutdown) -> anyhow::Result<()> {
        let mut seen = self.seen.subscribe();
        loop {
            let pause = match self.look().await {
                Ok(next) => next,
                Err(error) => {
                    self.is_unread();
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
        let known = match &self.state().record {
            Record::Known(record) => Some(record.clone()),
            Record::Awaited | Record::Unread => None,
        };
        let record = match known {
            Some(record) => record,
            None => {
                let record = self.read().await?;
                self.take(record.clone());
                record
            }
        };
        let (config, now) = (self.config(), Timestamp::now());
        let observed = self.observed(&config);
        let next = rings(&config, &record, &observed, now);
        if next.record != record {
            self.write(&next.record).await?;
            self.take(next.record);
        }
        let wait = next.next.and_then(|next| Duration::try_from(next.duration_since(now)).ok());
        Ok(wait.unwrap_or(LONGEST).clamp(GATHER, LONGEST))
    }

    /// What every shoot that has a type makes of it.
    fn observed(&self, config: &RingsConfig) -> Observed {
        let late = self.begun.elapsed() >= AWAITED;
        let mut types: BTreeMap<ShootName, BTreeSet<RuntimeType>> = BTreeMap::new();
        for (key, object) in self.scope.of(&self.store) {
            let of = types.entry(key.shoot).or_default();
            if let Ok(runtime) = object.spec.runtime.parse()
                && object.metadata.deletion_timestamp.is_none()
                && !object.is_migrating()
            {
                of.insert(runtime);
            }
        }
        let mut state = self.state();
        state.shoots.retain(|shoot, _| types.contains_key(shoot));
        let mut shoots = BTreeMap::new();
        for (shoot, runtimes) in types {
            for runtime in runtimes {
                let presence = match state.shoots.get(&shoot) {
                    Some(Shoot::Leaves) => continue,
                    Some(Shoot::Sleeps) => Presence::Away,
                    // Of a type that is new there nothing is said yet.
                    Some(Shoot::Says(says)) => {
                        Presence::Here(says.get(&runtime).cloned().unwrap_or_default())
                    }
                    None if late => Presence::Away,
                    None => Presence::Awaited,
                };
                shoots.insert((runtime, shoot.clone()), presence);
            }
        }
        let (targets, cleared) = (state.targets.clone(), config.cleared.clone());
        Observed { targets, shoots, cleared }
    }

    fn take(&self, record: RingsRecord) {
        self.state().record = Record::Known(record);
        self.written.send_modify(|count| *count += 1);
    }

    /// The record could not be read, if it was not before; who waits for it is told so.
    fn is_unread(&self) {
        let mut state = self.state();
        if let Record::Awaited = state.record {
            state.record = Record::Unread;
            self.written.send_modify(|count| *count += 1);
        }
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
        self.scope.catalog.borrow().rings.clone().unwrap_or_default()
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
