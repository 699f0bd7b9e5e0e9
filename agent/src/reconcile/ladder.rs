//! A restart of containerd, and whether it is well after it.
//!
//! ```text
//!  job done ─▶ unit active ─▶ CRI answers ─▶ every handler is there
//!           ─▶ a pod sandbox starts with each ─▶ the unit stays up for a while
//! ```
//! The first rung that breaks takes the activation back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use rootstock_core::layout::HandlerTable;
use rootstock_core::name::{HandlerName, RuntimeType};
use rootstock_core::status::{Phase, Reason};
use rootstock_daemon::error::Chain;
use tokio::time::Instant;

use super::change::{ChangeError, Layouts};
use super::{Files, Reconciler, report};
use crate::containerd::{self, file};
use crate::host::{Containerd, Proof, UnitState};
use crate::store::{BundleKey, Failed, Loaded, Step};

/// How long containerd's socket may take to answer after its start. It loads
/// every container of the node first: some seconds with hundreds of them.
const ANSWER: Duration = Duration::from_secs(90);
/// How often the unit is looked at while it should stay up.
const WATCH: Duration = Duration::from_millis(500);

/// What an activation is about.
type Wanted = BTreeMap<HandlerName, (RuntimeType, HandlerTable)>;

/// A containerd that is well.
struct Well {
    containerd: Containerd,
    proven: BTreeSet<HandlerName>,
}

impl Reconciler {
    /// Restarts containerd and looks whether it is well; if it is not, what was
    /// before is put back. Whether it is well with what is wanted.
    pub(super) async fn restart(&mut self, before: &str, layouts: &Layouts) -> bool {
        let wanted = self.wanted(layouts);
        tracing::info!("containerd restarts");
        let well = match self.climb(before, &wanted).await {
            Ok(well) => well,
            Err(failed) => {
                self.roll_back(failed).await;
                return false;
            }
        };
        let files = Arc::clone(&self.files);
        let settle = move || {
            let tables = ours(&files)?;
            files.journal(|journal| {
                journal.write(Step::Settled, |state| {
                    state.activation = None;
                    state.proven.retain(|handler, table| tables.get(handler) == Some(table));
                    let new = tables.iter().filter(|(handler, _)| well.proven.contains(*handler));
                    state.proven.extend(new.map(|(name, table)| (name.clone(), table.clone())));
                    state.loaded = Some(Loaded { start: well.containerd.start, tables });
                })
            })?;
            Ok::<_, ChangeError>(())
        };
        let settled = match tokio::task::spawn_blocking(settle).await {
            Ok(settled) => settled,
            Err(error) => Err(error.into()),
        };
        match settled {
            Ok(()) => {
                // Whether it has every handler is for the next look to see.
                self.again = false;
                true
            }
            Err(error) => {
                self.failures.node(Phase::Blocked, error.reason(), Chain(&error).to_string());
                false
            }
        }
    }

    /// The handlers of the bundles that the activation is about; not those of
    /// others that take their place later.
    fn wanted(&self, layouts: &Layouts) -> Wanted {
        let about: BTreeMap<RuntimeType, BundleKey> = self.files.journal(|journal| {
            let activation = journal.state().activation.as_ref();
            let previous = activation.and_then(|activation| activation.previous.as_ref());
            previous.map(|previous| previous.bundles.clone()).unwrap_or_default()
        });
        let of = layouts
            .iter()
            .filter(|(runtime, (bundle, _))| about.get(*runtime) == Some(&BundleKey::of(bundle)));
        of.flat_map(|(runtime, (_, layout))| {
            let with_type = |(name, table): (&HandlerName, &HandlerTable)| {
                (name.clone(), (runtime.clone(), table.clone()))
            };
            layout.tables.iter().map(with_type)
        })
        .collect()
    }

    async fn climb(&self, before: &str, wanted: &Wanted) -> Result<Well, Failed> {
        let all = || wanted.values().map(|(runtime, _)| runtime.clone()).collect();
        let broken = |reason, message: String| Failed { reason, message, types: all() };
        if let Err(error) = self.host.restart_containerd().await {
            return Err(broken(Reason::ContainerdStartFailed, Chain(&error).to_string()));
        }
        let first = self.host.unit().await.ok();
        let containerd = self
            .answers(before)
            .await
            .map_err(|message| broken(Reason::ContainerdStartFailed, message))?;
        let lacks =
            |(handler, (_, table)): &(&HandlerName, &(RuntimeType, HandlerTable))| match containerd
                .handlers
                .get(*handler)
            {
                None => true,
                Some(there) => there.as_ref().is_some_and(|there| there != table),
            };
        let missing: BTreeMap<_, _> = wanted.iter().filter(lacks).collect();
        if !missing.is_empty() {
            let names = missing.keys().map(|name| (*name).clone()).collect();
            return Err(Failed {
                reason: Reason::HandlerMissing,
                message: report::not_loaded(&names, &containerd.handlers),
                types: missing.values().map(|(runtime, _)| runtime.clone()).collect(),
            });
        }
        let mut proven = BTreeSet::new();
        for (handler, (runtime, _)) in wanted {
            match self.host.prove(handler).await {
                Ok(Proof::Started) => {
                    proven.insert(handler.clone());
                }
                Ok(Proof::NotPossible(why)) => {
                    tracing::info!(%handler, why, "no pod sandbox could be tried");
                }
                Ok(Proof::Failed(why)) => {
                    return Err(Failed {
                        reason: Reason::ProofFailed,
                        message: format!("no pod sandbox starts with handler {handler}: {why}"),
                        types: [runtime.clone()].into(),
                    });
                }
                Err(error) => {
                    tracing::info!(%handler, error = %Chain(&error), "no pod sandbox could be tried");
                }
            }
        }
        self.stays_up(first).await.map_err(|message| broken(Reason::CrashLoop, message))?;
        Ok(Well { containerd, proven })
    }

    /// Waits until the containerd that was started answers.
    pub(super) async fn answers(&self, before: &str) -> Result<Containerd, String> {
        let deadline = Instant::now() + ANSWER;
        loop {
            let said = match self.host.containerd().await {
                Ok(containerd) if containerd.start != before => return Ok(containerd),
                Ok(_) => "it is the one that ran before".to_owned(),
                Err(error) => Chain(&error).to_string(),
            };
            if let Ok(unit) = self.host.unit().await
                && (unit.result != "success" && !unit.active)
            {
                return Err(format!("containerd ended with {}: {said}", unit.result));
            }
            if Instant::now() >= deadline {
                return Err(format!("containerd does not answer within {ANSWER:?}: {said}"));
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Looks for a while whether the unit stays up. Only what systemd counts as
    /// a failure does: a clean restart by somebody else begins the time again.
    async fn stays_up(&self, first: Option<UnitState>) -> Result<(), String> {
        // Without systemd's word there is nothing to go by; the next look asks again.
        let Some(mut first) = first else { return Ok(()) };
        let mut until = Instant::now() + self.pace.settle;
        loop {
            match self.host.unit().await {
                Ok(now) if now.restarts > first.restarts || (now.result != "success") => {
                    return Err(crashed(now.restarts, &now.result));
                }
                Ok(now) if now.start != first.start => {
                    first = now;
                    until = Instant::now() + self.pace.settle;
                }
                Ok(_) => {}
                Err(error) => tracing::debug!(error = %Chain(&error), "the unit can't be seen"),
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            tokio::time::sleep(WATCH.min(left)).await;
        }
    }
}

fn crashed(restarts: u32, result: &str) -> String {
    format!("containerd does not stay up: started again {restarts} times, last result {result}")
}

/// Our tables in containerd's configuration.
pub(super) fn ours(files: &Files) -> Result<BTreeMap<HandlerName, HandlerTable>, ChangeError> {
    let owned = files.journal(|journal| journal.state().owned.clone());
    let Some(text) = file::read(&files.rootfs)? else { return Ok(BTreeMap::new()) };
    let tables = containerd::tables(&text)?;
    let ours = tables.into_iter().filter(|(handler, _)| owned.contains_key(handler));
    Ok(ours.filter_map(|(handler, table)| Some((handler, table?))).collect())
}
