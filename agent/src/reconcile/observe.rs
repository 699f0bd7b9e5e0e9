//! Looking at the node: its disk, its containerd, its pods.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use rootstock_core::bundle::BundleConfig;
use rootstock_core::desired::DesiredBundle;
use rootstock_core::digest::Digest;
use rootstock_core::layout::{FOLDER, Layout, Link, RenderedId, TreeId};
use rootstock_core::name::{HandlerName, RuntimeType};
use rootstock_core::path::BinaryPath;
use rootstock_core::plan::{LinkState, Observed, Rendered, Tree, TreeState};
use rootstock_core::status::Reason;
use tokio::time::Instant;

use super::{Files, Reconciler, takeover};
use crate::containerd::{self, ConfigError, file};
use crate::host::{Containerd, HostError};
use crate::install::is_intact;
use crate::rootfs::{Entry, FsError};
use crate::store::{BundleKey, Drift, Record};

/// Why the node can't be looked at as a whole.
#[derive(Debug, thiserror::Error)]
pub(super) enum LookError {
    #[error("look at the node's files")]
    Thread(#[from] tokio::task::JoinError),
}

impl LookError {
    pub(super) fn reason(&self) -> Reason {
        match self {
            Self::Thread(_) => Reason::Internal,
        }
    }
}

/// What was seen.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) observed: Observed,
    /// containerd's configuration; none where there is no file.
    pub(super) config: Result<Option<String>, Obstacle>,
    /// How long to wait until the configuration has been still for long enough.
    pub(super) unsettled: Duration,
    /// The running containerd.
    pub(super) containerd: Result<Containerd, Obstacle>,
    /// Under which start of containerd an activation began that was never proven.
    pub(super) activation: Option<String>,
    /// What that activation is about.
    pub(super) begun: BTreeMap<RuntimeType, BundleKey>,
    /// Handlers that a pod sandbox was started with, as they are loaded now.
    pub(super) proven: BTreeSet<HandlerName>,
    /// How many pods' sandboxes were started with each folder.
    pub(super) sandboxes: BTreeMap<TreeId, u32>,
    /// What others changed so far.
    pub(super) drift: Drift,
    /// Folders in the journal that are on the disk no more.
    pub(super) stale: BTreeSet<TreeId>,
    /// Folders of config files in the journal that are on the disk no more.
    pub(super) stale_rendered: BTreeSet<RenderedId>,
}

/// Something that keeps the node from being changed.
#[derive(Clone, Debug)]
pub(super) struct Obstacle {
    pub(super) reason: Reason,
    pub(super) message: String,
}

impl Obstacle {
    fn fs(error: &FsError) -> Self {
        Self { reason: error.reason(), message: chain(error) }
    }

    fn config(error: &ConfigError) -> Self {
        Self { reason: error.reason(), message: chain(error) }
    }

    fn host(error: &HostError) -> Self {
        Self { reason: error.reason(), message: chain(error) }
    }
}

fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    rootstock_daemon::error::Chain(error).to_string()
}

type Layouts = BTreeMap<RuntimeType, (DesiredBundle, Layout)>;

/// Looks at everything.
pub(super) async fn look(
    reconciler: &mut Reconciler,
    layouts: &Layouts,
    ahead: &Layouts,
) -> Result<Seen, LookError> {
    let (now, pace) = (Instant::now(), reconciler.pace);
    let due: BTreeSet<TreeId> = layouts
        .values()
        .chain(ahead.values())
        .map(|(_, layout)| layout.tree.clone())
        .filter(|tree| reconciler.verified.get(tree).is_none_or(|at| now - *at >= pace.bytes))
        .collect();
    let (files, deep) = (Arc::clone(&reconciler.files), due.clone());
    let (wanted, ahead) = (layouts.clone(), ahead.clone());
    let look = move || disk(&files, &wanted, &ahead, &deep, pace.still);
    let disk = tokio::task::spawn_blocking(look).await?;
    let Disk { mut observed, config, unsettled, record, stale, stale_rendered } = disk;
    for tree in due {
        if observed.trees.get(&tree).is_some_and(|tree| tree.state == TreeState::Complete) {
            reconciler.verified.insert(tree, now);
        }
    }
    let text = config.as_ref().ok().and_then(Option::as_deref);
    let mut sandboxes = BTreeMap::new();
    let asked = ask(reconciler, &mut observed, &record, text, &mut sandboxes).await;
    let containerd = match asked {
        Ok(containerd) => Ok(containerd),
        Err(error) => Err(Obstacle::host(&error)),
    };
    let proven = record.proven.iter().filter(|(handler, table)| {
        observed.loaded.get(*handler).and_then(Option::as_ref) == Some(*table)
    });
    let proven = proven.map(|(handler, _)| handler.clone()).collect();
    let drift = record.drift.clone();
    let (activation, previous) = record.activation.map(|open| (open.start, open.previous)).unzip();
    let begun = previous.flatten().map(|previous| previous.bundles).unwrap_or_default();
    Ok(Seen {
        observed,
        config,
        unsettled,
        containerd,
        activation,
        begun,
        proven,
        sandboxes,
        drift,
        stale,
        stale_rendered,
    })
}

async fn ask(
    reconciler: &Reconciler,
    observed: &mut Observed,
    record: &Record,
    config: Option<&str>,
    counts: &mut BTreeMap<TreeId, u32>,
) -> Result<Containerd, HostError> {
    let containerd = reconciler.host.containerd().await?;
    observed.loaded = containerd.handlers.clone();
    // Where containerd does not tell, this agent knows if it started it.
    if let Some(loaded) = record.loaded.as_ref().filter(|at| at.start == containerd.start) {
        if !reconciler.again {
            observed.started.clone_from(&loaded.tables);
        }
        for (handler, table) in &mut observed.loaded {
            if table.is_none() {
                *table = loaded.tables.get(handler).cloned();
            }
        }
    }
    let sandboxes = reconciler.host.sandboxes().await?;
    observed.inherited.pods =
        takeover::pods(&*reconciler.host, &sandboxes, &record.inherited, config).await;
    let default = config.and_then(|text| containerd::default_handler(text).ok().flatten());
    let default: Option<HandlerName> = default.and_then(|name| name.parse().ok());
    for sandbox in sandboxes {
        let Some(handler) = sandbox.handler.clone().or_else(|| default.clone()) else { continue };
        if observed.trees.values().any(|tree| tree.handlers.contains(&handler)) {
            match reconciler.host.started_with(&sandbox).await {
                Ok(Some(paths)) => {
                    let of = |id: &&TreeId| paths.iter().any(|path| id.concerns(path));
                    if let Some(id) = observed.trees.keys().find(of) {
                        *counts.entry(id.clone()).or_default() += 1;
                    }
                    observed.used.extend(paths);
                }
                // What nothing tells counts as used.
                Ok(None) => drop(observed.untold.insert(handler.clone())),
                Err(error) => {
                    tracing::debug!(
                        pod = sandbox.pod,
                        error = chain(&error),
                        "its files can't be told"
                    );
                    observed.untold.insert(handler.clone());
                }
            }
        }
        if sandbox.handler.is_some() {
            observed.sandboxes.entry(handler).or_default().push(sandbox.pod);
        }
    }
    Ok(containerd)
}

struct Disk {
    observed: Observed,
    config: Result<Option<String>, Obstacle>,
    unsettled: Duration,
    record: Record,
    stale: BTreeSet<TreeId>,
    stale_rendered: BTreeSet<RenderedId>,
}

/// Looks at the files. What can't be read of a desired bundle counts as not
/// there: installing it then says why. Blocking.
fn disk(
    files: &Files,
    layouts: &Layouts,
    ahead: &Layouts,
    deep: &BTreeSet<TreeId>,
    still: Duration,
) -> Disk {
    let record = files.journal(|journal| journal.state().clone());
    if !files.store.is_peek() {
        if let Err(error) = file::settle_displaced(&files.rootfs, &record, still) {
            // It stays where it is, and is looked at again.
            tracing::warn!(error = chain(&error), "the displaced configuration can't be looked at");
        }
        if let Err(error) = sweep(files, &record, layouts) {
            // They do no harm, and the next look finds them again.
            tracing::debug!(error = chain(&error), "temporary files stay");
        }
    }
    let mut observed = Observed {
        owned: record.owned.clone(),
        replaced: record.replaced.keys().cloned().collect(),
        activation_open: record.activation.is_some(),
        ..Observed::default()
    };
    let (mut stale, mut stale_rendered) = (BTreeSet::new(), BTreeSet::new());
    let known = record.trees.iter().map(|tree| (tree.id.clone(), tree.handlers.clone()));
    let all = || layouts.values().chain(ahead.values());
    let wanted =
        all().map(|(_, layout)| (layout.tree.clone(), layout.tables.keys().cloned().collect()));
    let trees: BTreeMap<TreeId, _> = known.chain(wanted).collect();
    for (id, handlers) in trees {
        let of_it = all().find(|(_, layout)| layout.tree == id);
        let bundle = of_it.map(|(bundle, _)| bundle.config.config());
        match tree_state(files, &id, bundle, deep.contains(&id)) {
            Ok(Some(state)) => {
                observed.trees.insert(id, Tree { state, handlers });
            }
            Ok(None) => {
                stale.insert(id);
            }
            Err(error) => {
                tracing::debug!(tree = %id, error = chain(&error), "a folder can't be read")
            }
        }
    }
    let wanted: BTreeMap<_, _> =
        layouts.values().filter_map(|(_, layout)| layout.rendered.clone()).collect();
    for id in record.rendered.iter().chain(wanted.keys()) {
        match rendered_state(files, id, wanted.get(id)) {
            Ok(Some(state)) => {
                observed.rendered.insert(id.clone(), state);
            }
            Ok(None) => {
                stale_rendered.insert(id.clone());
            }
            Err(error) => {
                tracing::debug!(
                    folder = id.absolute(),
                    error = chain(&error),
                    "a folder can't be read"
                );
            }
        }
    }
    let mut paths = record.binary_paths();
    paths.extend(layouts.values().map(|(_, layout)| layout.tree.binary_path.clone()));
    for path in paths {
        if let Err(error) = links(files, &path, layouts, &mut observed) {
            tracing::debug!(%path, error = chain(&error), "links can't be read");
        }
    }
    let config = file::read(&files.rootfs).map_err(|error| Obstacle::fs(&error));
    let config = config.and_then(|text| {
        if let Some(text) = &text {
            let understood = containerd::tables(text)
                .and_then(|tables| Ok((tables, containerd::stray_tables(text)?)));
            (observed.tables, observed.inherited.strays) =
                understood.map_err(|error| Obstacle::config(&error))?;
        }
        Ok(text)
    });
    let wanted = layouts.values().map(|(_, layout)| layout);
    observed.inherited.files = takeover::look(files, &record, wanted, &observed);
    let text = config.as_ref().ok().and_then(Option::as_deref);
    let unsettled = text.map_or(Duration::ZERO, |text| unsettled(files, text, still));
    Disk { observed, config, unsettled, record, stale, stale_rendered }
}

/// Takes away temporary files that an agent left which was killed, or refused
/// by the disk, while it put something in place.
fn sweep(files: &Files, record: &Record, layouts: &Layouts) -> Result<(), FsError> {
    let of_trees = record.trees.iter().map(|tree| &tree.id.binary_path);
    let wanted = layouts.values().map(|(_, layout)| &layout.tree.binary_path);
    for path in of_trees.chain(wanted).collect::<BTreeSet<_>>() {
        if let Some(folder) = files.rootfs.binary_path(path)? {
            folder.sweep()?;
        }
    }
    match files.rootfs.folder(containerd::FOLDER)? {
        Some(folder) => folder.sweep(),
        None => Ok(()),
    }
}

/// Others truncate the file and write it in place: what is read in between
/// looks whole and is not. What we wrote ourselves appeared at once.
fn unsettled(files: &Files, text: &str, still: Duration) -> Duration {
    let written = files.journal(|journal| journal.state().config);
    if written == Some(Digest::of(text.as_bytes())) {
        return Duration::ZERO;
    }
    let age = files.rootfs.folder(containerd::FOLDER).and_then(|folder| match folder {
        Some(folder) => folder.age(containerd::FILE),
        None => Ok(None),
    });
    match age {
        Ok(age) => age.map_or(Duration::ZERO, |age| still.saturating_sub(age)),
        Err(_) => still,
    }
}

fn tree_state(
    files: &Files,
    id: &TreeId,
    bundle: Option<&BundleConfig>,
    deep: bool,
) -> Result<Option<TreeState>, FsError> {
    let Some(top) = files.rootfs.binary_path(&id.binary_path)? else { return Ok(None) };
    let Some(parent) = top.open(&id.parent())? else { return Ok(None) };
    if let Some(folder) = parent.open(&id.name())? {
        let intact = bundle.map_or(Ok(true), |bundle| is_intact(&folder, bundle, deep))?;
        return Ok(Some(if intact { TreeState::Complete } else { TreeState::Damaged }));
    }
    Ok(parent.entry(&id.temp_name())?.map(|_| TreeState::Partial))
}

fn rendered_state(
    files: &Files,
    id: &RenderedId,
    content: Option<&BTreeMap<rootstock_core::path::BundlePath, String>>,
) -> Result<Option<Rendered>, FsError> {
    let Some(top) = files.rootfs.binary_path(&id.tree.binary_path)? else { return Ok(None) };
    let Some(folder) = top.open(&id.relative())? else { return Ok(None) };
    for (name, text) in content.into_iter().flatten() {
        let there = folder.read(name.as_str(), text.len() as u64);
        match there {
            Ok(Some(bytes)) if bytes == text.as_bytes() => {}
            Ok(_) | Err(FsError::Refused { .. }) => return Ok(Some(Rendered::Damaged)),
            Err(error) => return Err(error),
        }
    }
    Ok(Some(Rendered::Intact))
}

fn links(
    files: &Files,
    path: &BinaryPath,
    layouts: &Layouts,
    observed: &mut Observed,
) -> Result<(), FsError> {
    let Some(folder) = files.rootfs.binary_path(path)? else { return Ok(()) };
    let wanted: BTreeSet<&Link> =
        layouts.values().flat_map(|(_, layout)| layout.links.keys()).collect();
    for name in folder.names()? {
        let link = Link { binary_path: path.clone(), name };
        let state = match folder.entry(&link.name)? {
            Some(Entry::Link(target)) if target.starts_with(&format!("{FOLDER}/")) => {
                LinkState::Ours(target)
            }
            Some(_) if wanted.contains(&link) => LinkState::Foreign,
            Some(_) | None => continue,
        };
        observed.links.insert(link, state);
    }
    Ok(())
}
