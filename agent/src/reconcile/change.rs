//! Carrying out a plan: config files, tables and links, one restart, collection.
//!
//! The intent is in the journal before each effect and is taken out after it;
//! an activation is over only when containerd is up and lists its handlers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use rootstock_core::desired::DesiredBundle;
use rootstock_core::digest::Digest;
use rootstock_core::layout::{HandlerTable, Layout};
use rootstock_core::name::{HandlerName, RuntimeType};
use rootstock_core::path::BundlePath;
use rootstock_core::plan::Plan;
use rootstock_core::status::{Phase, Reason};
use rootstock_daemon::error::Chain;
use tokio::time::Instant;

use super::observe::{Obstacle, Seen, read_config};
use super::{Files, Reconciler, takeover};
use crate::containerd::{self, Changes, ConfigError};
use crate::host::Containerd;
use crate::rootfs::{Entry, FsError};
use crate::store::{Activation, Loaded, Step, StoreError};

/// How long containerd's socket may take to answer after its start. It loads
/// every container of the node first: some seconds with hundreds of them.
const ANSWER: Duration = Duration::from_secs(90);

/// Why the node's files could not be changed.
#[derive(Debug, thiserror::Error)]
enum ChangeError {
    #[error(transparent)]
    Fs(#[from] FsError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("containerd's configuration changed meanwhile")]
    Moved,
    #[error("a thread of the agent failed")]
    Thread(#[from] tokio::task::JoinError),
}

impl ChangeError {
    fn reason(&self) -> Reason {
        match self {
            Self::Fs(error) => error.reason(),
            Self::Store(error) => error.reason(),
            Self::Config(error) => error.reason(),
            Self::Moved => Reason::ContainerdConfigForeignChange,
            Self::Thread(_) => Reason::Internal,
        }
    }
}

type Layouts = BTreeMap<RuntimeType, (DesiredBundle, Layout)>;

impl Reconciler {
    /// Carries out everything of a plan but its pulls.
    pub(super) async fn change(&mut self, plan: &Plan, layouts: &Layouts, seen: &Seen) {
        if let (Err(_), Some(start)) = (&seen.containerd, &seen.activation)
            && self.failures.node_lasts()
        {
            // This agent restarted it, and it is not up since: nobody else may start it.
            if self.restart(start).await {
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
        if let Err(error) = self.put(plan, containerd, seen).await {
            if let ChangeError::Moved = error {
                tracing::info!("containerd's configuration changed meanwhile");
                return;
            }
            let message = Chain(&error).to_string();
            // One table that can't be written holds back no other.
            if let ChangeError::Config(ConfigError::Table { handler, .. }) = &error
                && let Some((runtime, _)) = plan.set_tables.get(handler)
            {
                self.failures.activation(runtime, error.reason(), message);
            } else {
                self.failures.node(Phase::Blocked, error.reason(), message);
            }
            return;
        }
        if plan.restart.is_some() && !self.restart(&containerd.start).await {
            return;
        }
        self.failures.node_over();
        if let Err(error) = self.collect(plan, seen).await {
            // Files that nothing leads to do no harm; the next look finds them again.
            tracing::warn!(error = %Chain(&error), "old files could not be deleted");
            self.failures.node(Phase::Blocked, error.reason(), Chain(&error).to_string());
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

    /// Sets and takes out tables and links, with the intent in the journal first.
    async fn put(
        &self,
        plan: &Plan,
        containerd: &Containerd,
        seen: &Seen,
    ) -> Result<(), ChangeError> {
        let (files, plan) = (Arc::clone(&self.files), plan.clone());
        let stands: BTreeSet<HandlerName> = seen.observed.owned.keys().cloned().collect();
        let (version, start) = (containerd.version.clone(), containerd.start.clone());
        let config = seen.config.as_ref().ok().cloned().flatten();
        if plan.restart.is_some() {
            let types = plan.set_tables.values().map(|(runtime, _)| runtime.clone());
            self.reports.activating(types);
        }
        tokio::task::spawn_blocking(move || {
            let noted = takeover::note(&files, &plan)?;
            let kept = keep_tables(&plan, config.as_deref())?;
            files.journal(|journal| {
                let step = if plan.restart.is_some() { Step::Activate } else { Step::Change };
                journal.write(step, |state| {
                    for (handler, (runtime, _)) in &plan.set_tables {
                        state.owned.insert(handler.clone(), runtime.clone());
                    }
                    state.inherited.extend(noted);
                    state.replaced.extend(kept);
                    if plan.restart.is_some() {
                        let handlers = plan.set_tables.keys().chain(&stands).cloned().collect();
                        state.activation = Some(Activation { start, handlers });
                    }
                })
            })?;
            put_tables(&files, &plan, config.as_deref(), &version)?;
            takeover::remove(&files, &plan)?;
            put_links(&files, &plan)?;
            files.journal(|journal| {
                let gone = |handler: &HandlerName| {
                    plan.remove_tables.contains(handler)
                        || plan.restore_tables.contains(handler)
                        || plan.disown.contains(handler)
                };
                let done = |path: &String| {
                    plan.remove_files.contains(path) || plan.forget_files.contains(path)
                };
                let step = if plan.restart.is_some() { Step::Activate } else { Step::Settled };
                journal.write(step, |state| {
                    state.owned.retain(|handler, _| !gone(handler));
                    state.replaced.retain(|handler, _| !gone(handler));
                    state.inherited.retain(|path, _| !done(path));
                })
            })?;
            Ok(())
        })
        .await?
    }

    /// Restarts containerd and looks whether it is well. Whether it is.
    async fn restart(&mut self, before: &str) -> bool {
        tracing::info!("containerd restarts");
        if let Err(error) = self.host.restart_containerd().await {
            let message = Chain(&error).to_string();
            self.failures.node(Phase::Failed, Reason::ContainerdStartFailed, message);
            return false;
        }
        let containerd = match self.answers(before).await {
            Ok(containerd) => containerd,
            Err(message) => {
                self.failures.node(Phase::Failed, Reason::ContainerdStartFailed, message);
                return false;
            }
        };
        let files = Arc::clone(&self.files);
        let proven = move || {
            let tables = ours(&files)?;
            let loaded = Loaded { start: containerd.start, tables };
            files.journal(|journal| {
                journal.write(Step::Settled, |state| {
                    state.activation = None;
                    state.loaded = Some(loaded);
                })
            })?;
            Ok::<_, ChangeError>(())
        };
        let proven = match tokio::task::spawn_blocking(proven).await {
            Ok(proven) => proven,
            Err(error) => Err(error.into()),
        };
        match proven {
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

    /// Waits until the containerd that was started answers.
    async fn answers(&self, before: &str) -> Result<Containerd, String> {
        let deadline = Instant::now() + ANSWER;
        loop {
            let said = match self.host.containerd().await {
                Ok(containerd) if containerd.start != before => return Ok(containerd),
                Ok(_) => "it is the one that ran before".to_owned(),
                Err(error) => Chain(&error).to_string(),
            };
            if Instant::now() >= deadline {
                return Err(format!("containerd does not answer within {ANSWER:?}: {said}"));
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
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

/// The tables of others that make room for ours.
fn keep_tables(
    plan: &Plan,
    config: Option<&str>,
) -> Result<BTreeMap<HandlerName, String>, ConfigError> {
    let mut kept = BTreeMap::new();
    for handler in &plan.keep_tables {
        let text = config.map(|text| containerd::table_text(text, handler)).transpose()?;
        kept.extend(text.flatten().map(|text| (handler.clone(), text)));
    }
    Ok(kept)
}

fn put_tables(
    files: &Files,
    plan: &Plan,
    seen: Option<&str>,
    version: &str,
) -> Result<(), ChangeError> {
    if !plan.edits_tables() {
        return Ok(());
    }
    // Another writer may have been here since the plan was made.
    let before = read_config(files)?;
    if before.as_deref() != seen {
        return Err(ChangeError::Moved);
    }
    let text = match &before {
        Some(text) => text,
        None if plan.set_tables.is_empty() => return Ok(()),
        None => containerd::minimal(version),
    };
    let set = plan.set_tables.iter().map(|(name, (_, table))| (name.clone(), table.clone()));
    let mut restore = files.journal(|journal| journal.state().replaced.clone());
    restore.retain(|handler, _| plan.restore_tables.contains(handler));
    let changes = Changes {
        set: set.collect(),
        remove: plan.remove_tables.clone(),
        restore,
        strays: plan.remove_strays.clone(),
    };
    let edited = containerd::change(text, &changes)?;
    if before.as_deref() == Some(&edited) {
        return Ok(());
    }
    let folder = files.rootfs.make_folder(containerd::FOLDER)?;
    // An agent that was killed while it wrote left a file here.
    folder.sweep()?;
    let mode = match folder.entry(containerd::FILE)? {
        Some(Entry::File { mode, .. }) => mode,
        Some(Entry::Folder | Entry::Link(_) | Entry::Other) | None => 0o644,
    };
    files.journal(|journal| {
        let step = journal.state().step;
        journal.write(step, |state| state.config = Some(Digest::of(edited.as_bytes())))
    })?;
    folder.replace(containerd::FILE, edited.as_bytes(), mode)?;
    Ok(())
}

fn put_links(files: &Files, plan: &Plan) -> Result<(), FsError> {
    for (link, target) in &plan.set_links {
        let folder = files.rootfs.make_binary_path(&link.binary_path)?;
        folder.sweep()?;
        // A file that someone put there since it was looked at stays.
        match folder.link(&link.name, target) {
            Ok(()) => {}
            Err(error @ FsError::Refused { .. }) => {
                tracing::warn!(error = %Chain(&error), "a link is not set");
            }
            Err(error) => return Err(error),
        }
    }
    for link in &plan.remove_links {
        if let Some(folder) = files.rootfs.binary_path(&link.binary_path)?
            && matches!(folder.entry(&link.name)?, Some(Entry::Link(_)))
        {
            folder.remove(&link.name)?;
        }
    }
    Ok(())
}

/// Our tables in containerd's configuration.
fn ours(files: &Files) -> Result<BTreeMap<HandlerName, HandlerTable>, ChangeError> {
    let owned = files.journal(|journal| journal.state().owned.clone());
    let Some(text) = read_config(files)? else { return Ok(BTreeMap::new()) };
    let tables = containerd::tables(&text)?;
    let ours = tables.into_iter().filter(|(handler, _)| owned.contains_key(handler));
    Ok(ours.filter_map(|(handler, table)| Some((handler, table?))).collect())
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
