//! Carrying out a plan: config files, tables and links, one restart, collection.
//!
//! The intent is in the journal before each effect and is taken out after it;
//! an activation is over only when containerd is up and lists its handlers.

use std::collections::BTreeMap;
use std::sync::Arc;

use rootstock_core::desired::{DesiredBundle, Generation};
use rootstock_core::effective::ForeignChange;
use rootstock_core::layout::Layout;
use rootstock_core::name::{HandlerName, RuntimeType};
use rootstock_core::path::BundlePath;
use rootstock_core::plan::Plan;
use rootstock_core::status::{Phase, Reason};
use rootstock_daemon::error::Chain;

use super::observe::{Obstacle, Seen};
use super::{Files, Reconciler};
use crate::containerd::ConfigError;
use crate::containerd::file::Put;
use crate::host::HostError;
use crate::rootfs::FsError;
use crate::store::{Step, StoreError};

/// Why the node's files could not be changed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ChangeError {
    #[error(transparent)]
    Fs(#[from] FsError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Host(#[from] HostError),
    #[error("the configuration was wrong before Rootstock came to it, and is left as it is")]
    WrongBefore(#[source] HostError),
    #[error("the new tables are not used")]
    Candidate(#[source] HostError),
    #[error("containerd's configuration is left as it was: {0}")]
    Foreign(ForeignChange),
    #[error(
        "containerd would not know handler {0} with the new tables: see what config.toml imports"
    )]
    NotSeen(HandlerName),
    #[error("a thread of the agent failed")]
    Thread(#[from] tokio::task::JoinError),
}

impl ChangeError {
    pub(super) fn reason(&self) -> Reason {
        match self {
            Self::Fs(error) => error.reason(),
            Self::Store(error) => error.reason(),
            Self::Config(error) => error.reason(),
            Self::Host(error) | Self::WrongBefore(error) | Self::Candidate(error) => error.reason(),
            Self::Foreign(_) => Reason::ContainerdConfigForeignChange,
            Self::NotSeen(_) => Reason::HandlerMissing,
            Self::Thread(_) => Reason::Internal,
        }
    }
}

pub(super) type Layouts = BTreeMap<RuntimeType, (DesiredBundle, Layout)>;

impl Reconciler {
    /// Carries out everything of a plan but its pulls; a restart that needs a
    /// slot only if that generation's is still open when it is begun.
    pub(super) async fn change(
        &mut self,
        plan: &Plan,
        layouts: &Layouts,
        seen: &Seen,
        by: Option<Generation>,
    ) {
        if let (Err(_), Some(start)) = (&seen.containerd, &seen.activation)
            && self.failures.node_lasts()
        {
            // This agent restarted it, and it is not up since: nobody else may start it.
            if self.restart(start, layouts).await {
                self.failures.node_over();
            }
            return;
        }
        let containerd = match (&seen.config, &seen.containerd) {
            (Ok(_), Ok(containerd)) => containerd,
            (Err(Obstacle { reason, message }), _) | (_, Err(Obstacle { reason, message })) => {
                self.failures.node(Phase::Blocked, *reason, message.clone());
                return;
            }
        };
        if plan.edits_tables() && !seen.unsettled.is_zero() {
            tracing::info!(wait = ?seen.unsettled, "containerd's configuration was just changed");
            tokio::time::sleep(seen.unsettled).await;
            // Look again: it may have changed once more.
            return;
        }
        self.render(plan, layouts).await;
        if plan.renders.iter().any(|id| self.failures.waits(&id.tree.runtime)) {
            // The plan counted on them: make another one without.
            return;
        }
        let candidate = match self.candidate(plan, containerd, seen).await {
            Ok(candidate) => candidate,
            Err(error) => return self.not_put(plan, &error),
        };
        if plan.restart.is_some() && !self.lets(by) {
            tracing::info!("the slot is over before it was used");
            return;
        }
        match self.put(plan, layouts, containerd, candidate).await {
            Ok(Put::Written) => {}
            Ok(Put::Moved) => {
                tracing::info!("containerd's configuration changed meanwhile");
                return;
            }
            Err(error) => return self.not_put(plan, &error),
        }
        if plan.restart.is_some() && !self.restart(&containerd.start, layouts).await {
            return;
        }
        self.failures.node_over();
        if let Err(error) = self.collect(plan, seen).await {
            // Files that nothing leads to do no harm; the next look finds them again.
            tracing::warn!(error = %Chain(&error), "old files could not be deleted");
            self.failures.node(Phase::Blocked, error.reason(), Chain(&error).to_string());
        }
    }

    /// Says why nothing was put in place. One table that can't be written holds
    /// back no other.
    fn not_put(&mut self, plan: &Plan, error: &ChangeError) {
        let message = Chain(error).to_string();
        let guilty = match error {
            ChangeError::Config(ConfigError::Table { handler, .. })
            | ChangeError::NotSeen(handler) => plan.set_tables.get(handler),
            ChangeError::Candidate(_) if plan.set_tables.len() == 1 => {
                plan.set_tables.values().next()
            }
            ChangeError::Fs(_)
            | ChangeError::Store(_)
            | ChangeError::Config(_)
            | ChangeError::Host(_)
            | ChangeError::WrongBefore(_)
            | ChangeError::Candidate(_)
            | ChangeError::Foreign(_)
            | ChangeError::Thread(_) => None,
        };
        match guilty {
            Some((runtime, _)) => self.failures.activation(runtime, error.reason(), message),
            None => self.failures.node(Phase::Blocked, error.reason(), message),
        }
    }

    /// Writes config files; a failure is its type's own.
    async fn render(&mut self, plan: &Plan, layouts: &Layouts) {
        for id in &plan.renders {
            let Some((_, Layout { rendered: Some((_, content)), .. })) =
                layouts.get(&id.tree.runtime)
            else {
                continue;
            };
            let (files, folder, content) = (Arc::clone(&self.files), id.clone(), content.clone());
            let write = move || {
                files.journal(|journal| {
                    journal.write(Step::Install, |state| {
                        state.rendered.insert(folder.clone());
                    })
                })?;
                let top = files.rootfs.make_binary_path(&folder.tree.binary_path)?;
                render(&top.make(&folder.relative())?, &content)?;
                Ok::<_, ChangeError>(())
            };
            let written = match tokio::task::spawn_blocking(write).await {
                Ok(written) => written,
                Err(error) => Err(error.into()),
            };
            if let Err(error) = written {
                let message = Chain(&error).to_string();
                self.failures.pull(&id.tree.runtime, error.reason(), message);
            }
        }
    }

    /// Deletes what nothing leads to any more.
    async fn collect(&mut self, plan: &Plan, seen: &Seen) -> Result<(), ChangeError> {
        let (files, plan) = (Arc::clone(&self.files), plan.clone());
        let (stale, stale_rendered) = (seen.stale.clone(), seen.stale_rendered.clone());
        if plan.collect_trees.is_empty() && plan.collect_rendered.is_empty() {
            return Ok(());
        }
        for tree in &plan.collect_trees {
            self.verified.remove(tree);
        }
        tokio::task::spawn_blocking(move || {
            for id in &plan.collect_rendered {
                remove(&files, &id.tree, &id.name(), None)?;
            }
            for id in &plan.collect_trees {
                tracing::info!(tree = %id, "an old bundle is deleted");
                // Under its temporary name nothing takes it for complete while it shrinks.
                remove(&files, id, &id.name(), Some(&id.temp_name()))?;
            }
            files.journal(|journal| {
                journal.write(Step::Collected, |state| {
                    state.trees.retain(|tree| {
                        !plan.collect_trees.contains(&tree.id) && !stale.contains(&tree.id)
                    });
                    state.rendered.retain(|id| {
                        !plan.collect_rendered.contains(id)
                            && (!stale_rendered.contains(id) || plan.renders.contains(id))
                    });
                })
            })?;
            Ok(())
        })
        .await?
    }
}

fn render(
    folder: &crate::rootfs::Folder,
    content: &BTreeMap<BundlePath, String>,
) -> Result<(), FsError> {
    content
        .iter()
        .try_for_each(|(name, text)| folder.replace(name.as_str(), text.as_bytes(), 0o644))
}

/// Deletes a folder beside the type's trees, and the type's folder when it was the last.
fn remove(
    files: &Files,
    id: &rootstock_core::layout::TreeId,
    name: &str,
    by: Option<&str>,
) -> Result<(), FsError> {
    let Some(top) = files.rootfs.binary_path(&id.binary_path)? else { return Ok(()) };
    let Some(parent) = top.open(&id.parent())? else { return Ok(()) };
    if let Some(temporary) = by {
        if parent.entry(name)?.is_some() {
            parent.remove(temporary)?;
            parent.rename(name, temporary)?;
        }
        parent.remove(temporary)?;
    } else {
        parent.remove(name)?;
    }
    if parent.names()?.is_empty() {
        let folder = top.open(rootstock_core::layout::FOLDER)?;
        if let Some(folder) = folder {
            folder.remove(id.runtime.as_str())?;
            if folder.names()?.is_empty() {
                top.remove(rootstock_core::layout::FOLDER)?;
            }
        }
    }
    Ok(())
}
