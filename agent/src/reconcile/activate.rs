//! Tables and links: tried first, then put in place, with the intent in the journal.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rootstock_core::digest::Digest;
use rootstock_core::effective;
use rootstock_core::layout::Link;
use rootstock_core::name::{HandlerName, RuntimeType};
use rootstock_core::plan::Plan;
use rootstock_daemon::error::Chain;

use super::change::{ChangeError, Layouts};
use super::observe::Seen;
use super::{Files, Reconciler, takeover};
use crate::containerd::file::{self, Put};
use crate::containerd::{self, Changes, ConfigError, dump};
use crate::host::{Containerd, HostError};
use crate::rootfs::{Entry, FsError};
use crate::store::{Activation, BundleKey, Previous, Step};

/// containerd's configuration before the last activation, in the agent's own folder.
pub(super) const PREVIOUS: &str = "previous.toml";

/// A configuration that containerd takes, and the one that it takes the place of.
#[derive(Debug)]
pub(super) struct Candidate {
    before: Option<String>,
    edited: String,
}

impl Reconciler {
    /// The configuration that a plan asks for, tried with the node's own
    /// containerd; none where it is so already.
    pub(super) async fn candidate(
        &self,
        plan: &Plan,
        containerd: &Containerd,
        seen: &Seen,
    ) -> Result<Option<Candidate>, ChangeError> {
        let before = seen.config.as_ref().ok().cloned().flatten();
        if !plan.edits_tables() || (before.is_none() && plan.set_tables.is_empty()) {
            return Ok(None);
        }
        let config = file::path();
        let effective = match self.host.dump(&config).await {
            Ok(text) => dump::read(&text, &config)?,
            Err(error @ HostError::Config { .. }) => return Err(ChangeError::WrongBefore(error)),
            Err(error) => return Err(error.into()),
        };
        let minimal = || containerd::minimal(&containerd.version, &dump::imports(&effective));
        let text = before.clone().unwrap_or_else(minimal);
        let set = plan.set_tables.iter().map(|(name, (_, table))| (name.clone(), table.clone()));
        let mut restore = self.files.journal(|journal| journal.state().replaced.clone());
        // What makes room for ours now is restored by no plan that is being carried out.
        restore.retain(|handler, _| plan.restore_tables.contains(handler));
        let changes = Changes {
            set: set.collect(),
            remove: plan.remove_tables.clone(),
            restore,
            strays: plan.remove_strays.clone(),
        };
        let edited = containerd::change(&text, &changes)?;
        if before.as_deref() == Some(&edited) {
            return Ok(None);
        }
        let wanted = self.try_out(&edited).await?;
        let ours: BTreeSet<HandlerName> = plan
            .set_tables
            .keys()
            .chain(&plan.remove_tables)
            .chain(&plan.restore_tables)
            .cloned()
            .chain(plan.remove_strays.iter().filter_map(|_| "runsc".parse().ok()))
            .collect();
        if let Some(change) = effective::foreign_change(&effective, &wanted, &ours) {
            return Err(ChangeError::Foreign(change));
        }
        let seen = effective::handlers(&wanted);
        if let Some(handler) = plan.set_tables.keys().find(|handler| !seen.contains(*handler)) {
            return Err(ChangeError::NotSeen(handler.clone()));
        }
        Ok(Some(Candidate { before, edited }))
    }

    /// What the node's own containerd makes of a configuration.
    async fn try_out(
        &self,
        content: &str,
    ) -> Result<serde_json::Map<String, serde_json::Value>, ChangeError> {
        let (files, content) = (Arc::clone(&self.files), content.to_owned());
        let write = move || file::write_candidate(&files.rootfs, &content);
        let path = tokio::task::spawn_blocking(write).await??;
        let dumped = self.host.dump(&path).await;
        let files = Arc::clone(&self.files);
        tokio::task::spawn_blocking(move || file::remove_candidate(&files.rootfs)).await??;
        match dumped {
            Ok(text) => Ok(dump::read(&text, &path)?),
            Err(error @ HostError::Config { .. }) => Err(ChangeError::Candidate(error)),
            Err(error) => Err(error.into()),
        }
    }

    /// Sets and takes out tables and links, with the intent in the journal first.
    pub(super) async fn put(
        &self,
        plan: &Plan,
        layouts: &Layouts,
        containerd: &Containerd,
        candidate: Option<Candidate>,
    ) -> Result<Put, ChangeError> {
        let (files, plan) = (Arc::clone(&self.files), plan.clone());
        let (start, node) = (containerd.start.clone(), self.node.name());
        let bundles = plan.set_tables.values().filter_map(|(runtime, _)| {
            let (bundle, _) = layouts.get(runtime)?;
            Some((runtime.clone(), BundleKey::of(bundle)))
        });
        let bundles: BTreeMap<RuntimeType, BundleKey> = bundles.collect();
        if plan.restart.is_some() {
            self.reports.activating(bundles.keys().cloned());
        }
        tokio::task::spawn_blocking(move || {
            let previous = Previous { node, bundles, ..Previous::default() };
            let opened = begin(&files, &plan, start, previous, candidate.as_ref())?;
            if let Some(candidate) = &candidate {
                let put = exchange(&files, candidate);
                if opened && !matches!(put, Ok(Put::Written)) {
                    close(&files, candidate)?;
                }
                if put? == Put::Moved {
                    return Ok(Put::Moved);
                }
            }
            takeover::remove(&files, &plan)?;
            put_links(&files, &plan)?;
            end(&files, &plan)?;
            Ok(Put::Written)
        })
        .await?
    }
}

fn exchange(files: &Files, Candidate { before, edited }: &Candidate) -> Result<Put, FsError> {
    file::put(&files.rootfs, before.as_deref(), edited)
}

/// Takes an activation out of the journal that was opened for nothing: what is
/// open is ended by a restart, with or without a slot. Where a write failed
/// after the exchange it was not for nothing.
fn close(files: &Files, candidate: &Candidate) -> Result<(), ChangeError> {
    if file::read(&files.rootfs)?.as_ref() == Some(&candidate.edited) {
        return Ok(());
    }
    // What the displaced file may be is still told by the rest.
    files.journal(|journal| journal.write(Step::Settled, |state| state.activation = None))?;
    Ok(())
}

/// Writes into the journal what is about to be done, and what was before.
/// Whether that opens an activation.
fn begin(
    files: &Files,
    plan: &Plan,
    start: String,
    about: Previous,
    candidate: Option<&Candidate>,
) -> Result<bool, ChangeError> {
    let noted = takeover::note(files, plan)?;
    let before = candidate.and_then(|candidate| candidate.before.as_deref());
    let kept = keep_tables(plan, before)?;
    let links = links_before(files, plan)?;
    let open = files.journal(|journal| journal.state().activation.is_some());
    let opens = plan.restart.is_some() && !open;
    // What an open activation began with is what was well last.
    if opens && let Some(text) = before {
        files.store.replace(PREVIOUS, text.as_bytes())?;
    }
    files.journal(|journal| {
        let step = if plan.restart.is_some() { Step::Activate } else { Step::Change };
        journal.write(step, |state| {
            let owned = state.owned.clone();
            let stands: BTreeSet<HandlerName> = owned.keys().cloned().collect();
            for (handler, (runtime, _)) in &plan.set_tables {
                state.owned.insert(handler.clone(), runtime.clone());
            }
            state.inherited.extend(noted);
            state.replaced.extend(kept);
            if let Some(candidate) = candidate {
                state.config = Some(Digest::of(candidate.edited.as_bytes()));
                state.displaced = before.map(|text| Digest::of(text.as_bytes()));
            }
            if plan.restart.is_none() {
                return;
            }
            let handlers: BTreeSet<_> = plan.set_tables.keys().chain(&stands).cloned().collect();
            let activation = state.activation.get_or_insert_with(|| Activation {
                start,
                handlers: BTreeSet::new(),
                previous: candidate.map(|_| Previous {
                    config: before.map(|text| Digest::of(text.as_bytes())),
                    owned,
                    node: about.node,
                    ..Previous::default()
                }),
                failed: None,
            });
            activation.handlers.extend(handlers);
            if let Some(previous) = &mut activation.previous {
                previous.bundles.extend(about.bundles);
                for (path, target) in links {
                    previous.links.entry(path).or_insert(target);
                }
            }
        })
    })?;
    Ok(opens)
}

/// Writes into the journal what is done.
fn end(files: &Files, plan: &Plan) -> Result<(), ChangeError> {
    files.journal(|journal| {
        let gone = |handler: &HandlerName| {
            plan.remove_tables.contains(handler)
                || plan.restore_tables.contains(handler)
                || plan.disown.contains(handler)
        };
        let done =
            |path: &String| plan.remove_files.contains(path) || plan.forget_files.contains(path);
        let step = if plan.restart.is_some() { Step::Activate } else { Step::Settled };
        journal.write(step, |state| {
            state.owned.retain(|handler, _| !gone(handler));
            state.replaced.retain(|handler, _| !gone(handler));
            state.proven.retain(|handler, _| !gone(handler));
            state.inherited.retain(|path, _| !done(path));
        })
    })?;
    Ok(())
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

/// Where the links that are about to change lead now.
fn links_before(files: &Files, plan: &Plan) -> Result<BTreeMap<String, Option<String>>, FsError> {
    let mut links = BTreeMap::new();
    for link in plan.set_links.keys().chain(&plan.remove_links) {
        let target = match files.rootfs.binary_path(&link.binary_path)? {
            None => None,
            Some(folder) => match folder.entry(&link.name)? {
                Some(Entry::Link(target)) => Some(target),
                Some(Entry::File { .. } | Entry::Folder | Entry::Other) | None => None,
            },
        };
        links.insert(path_of(link), target);
    }
    Ok(links)
}

fn path_of(link: &Link) -> String {
    format!("{}/{}", link.binary_path, link.name)
}

fn put_links(files: &Files, plan: &Plan) -> Result<(), FsError> {
    for (link, target) in &plan.set_links {
        let folder = files.rootfs.make_binary_path(&link.binary_path)?;
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
