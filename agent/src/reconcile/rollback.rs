//! Taking an activation back: the tables and links that were before, one
//! restart, and a look whether containerd is well with them.
//!
//! What has begun here is in the journal, so an agent that is killed in the
//! middle goes on with it at its next start, before it plans anything else.

use std::collections::BTreeMap;
use std::sync::Arc;

use rootstock_core::digest::Digest;
use rootstock_core::path::BinaryPath;
use rootstock_core::status::{Phase, Reason};
use rootstock_daemon::error::Chain;

use super::activate::PREVIOUS;
use super::change::ChangeError;
use super::{Files, Reconciler, ladder};
use crate::containerd::file::{self, Put};
use crate::containerd::{self, Changes, MAX_SIZE};
use crate::rootfs::Entry;
use crate::store::{Activation, Failed, Loaded, Previous, Rejected, Step};

/// Bytes of the journal's lines that a message holds: a report has 1 KiB.
const EVIDENCE: usize = 600;
/// How often another program may write between our look and our write.
const WRITES: usize = 5;

impl Reconciler {
    /// Takes the open activation back, for this reason.
    pub(super) async fn roll_back(&mut self, mut failed: Failed) {
        let previous = self.files.journal(|journal| {
            journal.state().activation.as_ref().and_then(|open| open.previous.clone())
        });
        if previous.is_none_or(|previous| previous.bundles.is_empty()) {
            // Nothing was put in place that could be at fault.
            return self.failures.node(Phase::Failed, failed.reason, failed.message);
        }
        match self.host.journal().await {
            Ok(lines) => {
                let text = lines.join(" | ");
                let from = text.len().saturating_sub(EVIDENCE);
                let from = (from..text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(0);
                failed.message = format!("{}; its journal: {}", failed.message, &text[from..]);
            }
            Err(error) => tracing::warn!(error = %Chain(&error), "no journal as evidence"),
        }
        tracing::warn!(reason = %failed.reason, why = failed.message, "what was before is put back");
        let files = Arc::clone(&self.files);
        let note = move || {
            files.journal(|journal| {
                journal.write(Step::RollBack, |state| {
                    if let Some(activation) = &mut state.activation {
                        activation.failed = Some(failed);
                    }
                })
            })
        };
        let noted = match tokio::task::spawn_blocking(note).await {
            Ok(noted) => noted.map_err(ChangeError::from),
            Err(error) => Err(error.into()),
        };
        match noted {
            Ok(()) => self.go_back().await,
            Err(error) => {
                self.failures.node(Phase::Blocked, error.reason(), Chain(&error).to_string());
            }
        }
    }

    /// The activation that is being taken back, if one is.
    pub(super) fn going_back(&self) -> bool {
        self.files.journal(|journal| {
            journal.state().activation.as_ref().is_some_and(|open| open.failed.is_some())
        })
    }

    /// Puts back what was before, and looks whether containerd is well with it.
    pub(super) async fn go_back(&mut self) {
        let open = self.files.journal(|journal| journal.state().activation.clone());
        let Some(Activation { previous: Some(previous), failed: Some(failed), start, .. }) = open
        else {
            return;
        };
        let (files, of) = (Arc::clone(&self.files), previous.clone());
        let put = match tokio::task::spawn_blocking(move || put_back(&files, &of)).await {
            Ok(put) => put,
            Err(error) => Err(error.into()),
        };
        if let Err(error) = put {
            let message =
                format!("{}; and it is not taken back: {}", failed.message, Chain(&error));
            return self.failures.not_put_back(error.reason(), message);
        }
        let restarted = match self.host.restart_containerd().await {
            Ok(()) => self.answers(&start).await,
            Err(error) => Err(Chain(&error).to_string()),
        };
        let back = restarted.is_ok();
        if let Err(error) = self.reject(&previous, &failed, restarted.ok().map(|c| c.start)).await {
            return self.failures.node(Phase::Blocked, error.reason(), Chain(&error).to_string());
        }
        if back {
            tracing::info!("containerd is as it was before");
            self.failures.node_over();
        } else {
            let message = format!("{}; containerd does not come back either", failed.message);
            self.failures.node(Phase::Degraded, Reason::ContainerdStartFailed, message);
        }
    }

    /// Writes down what is not to be tried again here.
    async fn reject(
        &self,
        previous: &Previous,
        failed: &Failed,
        start: Option<String>,
    ) -> Result<(), ChangeError> {
        let bundles =
            previous.bundles.iter().filter(|(runtime, _)| failed.types.contains(*runtime));
        let rejected = bundles.map(|(runtime, bundle)| {
            let rejected = Rejected {
                bundle: bundle.clone(),
                node: previous.node.clone(),
                reason: failed.reason,
                message: failed.message.clone(),
                back: start.is_some(),
            };
            (runtime.clone(), rejected)
        });
        let rejected: BTreeMap<_, _> = rejected.collect();
        let files = Arc::clone(&self.files);
        let write = move || {
            let tables = ladder::ours(&files)?;
            files.journal(|journal| {
                journal.write(Step::Settled, |state| {
                    state.rejected.extend(rejected);
                    if let Some(start) = start {
                        state.activation = None;
                        state.loaded = Some(Loaded { start, tables });
                    }
                })
            })?;
            Ok(())
        };
        tokio::task::spawn_blocking(write).await?
    }
}

/// Puts back tables, links, and whose they were. Blocking; done twice it changes nothing.
fn put_back(files: &Files, previous: &Previous) -> Result<(), ChangeError> {
    let before = match previous.config {
        None => None,
        Some(digest) => {
            let bytes = files.store.folder().read(PREVIOUS, MAX_SIZE)?;
            bytes.filter(|bytes| Digest::of(bytes) == digest)
        }
    };
    let before = before.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    for _ in 0..WRITES {
        let now = file::read(&files.rootfs)?;
        let target = match &now {
            // Somebody took the file away: theirs is the last word.
            None => break,
            Some(now) => target(files, now, before.as_deref())?,
        };
        if now.as_deref() == Some(&target) {
            break;
        }
        files.journal(|journal| {
            journal.write(Step::RollBack, |state| {
                state.config = Some(Digest::of(target.as_bytes()));
                state.displaced = now.as_ref().map(|text| Digest::of(text.as_bytes()));
            })
        })?;
        if file::put(&files.rootfs, now.as_deref(), &target)? == Put::Written {
            break;
        }
    }
    for (path, target) in &previous.links {
        let Some((folder, name)) = path.rsplit_once('/') else { continue };
        let Ok(folder) = folder.parse::<BinaryPath>() else { continue };
        let Some(folder) = files.rootfs.binary_path(&folder)? else { continue };
        match (folder.entry(name)?, target) {
            (Some(Entry::Link(_)) | None, Some(target)) => folder.link(name, target)?,
            (Some(Entry::Link(_)), None) => drop(folder.remove(name)?),
            // A file of somebody else has the place by now.
            (Some(Entry::File { .. } | Entry::Folder | Entry::Other) | None, _) => {}
        }
    }
    files.journal(|journal| {
        journal.write(Step::RollBack, |state| state.owned.clone_from(&previous.owned))
    })?;
    Ok(())
}

/// The configuration to go back to. Where nobody else has written since, it is
/// the one that was before, byte for byte; else only our tables go back.
fn target(files: &Files, now: &str, before: Option<&str>) -> Result<String, ChangeError> {
    let (written, owned) =
        files.journal(|journal| (journal.state().config, journal.state().owned.clone()));
    if let Some(before) = before
        && written == Some(Digest::of(now.as_bytes()))
    {
        return Ok(before.to_owned());
    }
    let mut changes = Changes::default();
    for handler in owned.keys() {
        let table = before.map(|text| containerd::table_text(text, handler)).transpose()?;
        match table.flatten() {
            Some(text) => drop(changes.restore.insert(handler.clone(), text)),
            None => drop(changes.remove.insert(handler.clone())),
        }
    }
    Ok(containerd::change(now, &changes)?)
}
