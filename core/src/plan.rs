//! What an agent should do next on its node: desired and observed in, a plan out.
//!
//! Laws, which the tests hold it to: a plan that was carried out leaves an
//! empty plan; it never has more than one restart, however many runtimes it
//! serves; nothing foreign is touched; nothing in use is taken away.
//!
//! ```text
//!  1  pull      trees that are not complete
//!  2  render    config files of complete trees
//!  3  tables    one edit of containerd's configuration
//!  4  files     what another installer left, once nothing uses it; links, for people
//!  5  restart   once, if the running containerd lacks what it should have
//!  6  collect   what nothing leads to any more
//! ```

mod gone;
pub mod inherited;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use crate::desired::{DesiredBundle, DesiredContent};
use crate::layout::{HandlerTable, Layout, Link, RenderedId, TreeId};
use crate::name::{HandlerName, RuntimeType};
use crate::status::Reason;
use inherited::{Inherited, InheritedFile};

/// What an agent sees on its node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// The folders of files that it made, or that a desired bundle needs.
    pub trees: BTreeMap<TreeId, Tree>,
    /// The folders of rendered files that it made; whether each is as it should be.
    pub rendered: BTreeMap<RenderedId, Rendered>,
    /// The links in its binaryPaths.
    pub links: BTreeMap<Link, LinkState>,
    /// The tables in containerd's configuration; none where one is not of our form.
    pub tables: BTreeMap<HandlerName, Option<HandlerTable>>,
    /// Whose the tables are that it put there.
    pub owned: BTreeMap<HandlerName, RuntimeType>,
    /// The handlers of the running containerd, with the tables that it started
    /// with; none where that can't be told.
    pub loaded: BTreeMap<HandlerName, Option<HandlerTable>>,
    /// The tables of ours that the running containerd was started with, as far
    /// as that was seen. What it makes of them is in `loaded`.
    pub started: BTreeMap<HandlerName, HandlerTable>,
    /// The pods that use each handler.
    pub sandboxes: BTreeMap<HandlerName, Vec<String>>,
    /// The files that sandboxes were started with, as containerd's own state tells.
    pub used: BTreeSet<String>,
    /// The handlers of sandboxes whose files nothing tells.
    pub untold: BTreeSet<HandlerName>,
    /// The handlers whose table took the place of someone else's, which is kept.
    pub replaced: BTreeSet<HandlerName>,
    /// What the gVisor extension's script left.
    pub inherited: Inherited,
    /// Whether an activation began and its health was never proven.
    pub activation_open: bool,
}

/// A folder of files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    /// How far it is.
    pub state: TreeState,
    /// The handlers that lead into it.
    pub handlers: BTreeSet<HandlerName>,
}

/// How far a folder of files is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TreeState {
    /// It was never finished, so nothing ever led to it.
    Partial,
    /// It was complete, and a file is missing or has other bytes by now.
    Damaged,
    /// Every file is there and has the right bytes.
    Complete,
}

/// A folder of rendered files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rendered {
    /// Every file is as it was written.
    Intact,
    /// A file is missing or has other bytes.
    Damaged,
}

/// What stands where a link should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// A link into our folder, and where it leads.
    Ours(String),
    /// A file, folder or link of someone else.
    Foreign,
}

/// What to do, field by field in the order in which it is done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Trees whose files have to be fetched.
    pub pulls: BTreeSet<TreeId>,
    /// Trees whose files are to be fetched ahead; nothing of them is put in place.
    pub prefetches: BTreeSet<TreeId>,
    /// Folders of config files to write.
    pub renders: BTreeSet<RenderedId>,
    /// Tables to set, and for which type.
    pub set_tables: BTreeMap<HandlerName, (RuntimeType, HandlerTable)>,
    /// Handlers whose table is someone else's until now: it is kept before ours takes its place.
    pub keep_tables: BTreeSet<HandlerName>,
    /// Tables to take out.
    pub remove_tables: BTreeSet<HandlerName>,
    /// Tables to put back: ours took the place of someone else's.
    pub restore_tables: BTreeSet<HandlerName>,
    /// Plugins of other versions of the configuration to take the script's table out of.
    pub remove_strays: BTreeSet<String>,
    /// Files of the script to note before its table is taken over.
    pub note_files: BTreeSet<String>,
    /// Files of the script to delete, if they are what was noted.
    pub remove_files: BTreeSet<String>,
    /// Files whose note is about nothing any more.
    pub forget_files: BTreeSet<String>,
    /// Handlers whose table is not ours any more: only the record of it goes.
    pub disown: BTreeSet<HandlerName>,
    /// Links to set, and where they lead.
    pub set_links: BTreeMap<Link, String>,
    /// Links to take away.
    pub remove_links: BTreeSet<Link>,
    /// Why containerd has to be restarted, if it has to.
    pub restart: Option<Restart>,
    /// Trees to delete.
    pub collect_trees: BTreeSet<TreeId>,
    /// Folders of config files to delete.
    pub collect_rendered: BTreeSet<RenderedId>,
    /// How each type stands. This is no work: an empty plan has it too.
    pub outlook: BTreeMap<RuntimeType, Outlook>,
}

/// Why containerd has to be restarted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Restart {
    /// An earlier attempt died before it was proven.
    Unproven,
    /// The running containerd lacks these handlers, or has them in another form.
    Handlers(BTreeSet<HandlerName>),
}

/// How one type stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outlook {
    /// Its files have to come first.
    Pull,
    /// Its files are there; containerd has to learn of it.
    Activate,
    /// containerd lists its handlers as desired.
    Loaded {
        /// Files of others that stand where its links should.
        foreign: Vec<Link>,
        /// Files of the gVisor extension that stand there until these pods have ended.
        inherited: Vec<String>,
    },
    /// containerd was started with its tables, and still lacks these handlers or
    /// has them in another form: one more start would not help.
    NotLoaded(BTreeSet<HandlerName>),
    /// It stays as it is, for nothing more can be said of it.
    Kept,
    /// It can't be laid out; what the node has of it stays as it is.
    Refused(Reason, String),
    /// It should go, but these pods use it.
    InUse(Vec<String>),
    /// It is being taken away.
    Removing,
    /// It is out of the configuration; its files wait for containerd's next start.
    Removed,
}

impl Plan {
    /// Whether nothing has to be done.
    pub fn is_empty(&self) -> bool {
        let Self {
            pulls,
            prefetches,
            renders,
            set_tables: _,
            keep_tables,
            remove_tables: _,
            restore_tables: _,
            remove_strays: _,
            note_files,
            remove_files,
            forget_files,
            disown,
            set_links,
            remove_links,
            restart,
            collect_trees,
            collect_rendered,
            outlook: _,
        } = self;
        pulls.is_empty()
            && prefetches.is_empty()
            && renders.is_empty()
            && !self.edits_tables()
            && keep_tables.is_empty()
            && note_files.is_empty()
            && remove_files.is_empty()
            && forget_files.is_empty()
            && disown.is_empty()
            && set_links.is_empty()
            && remove_links.is_empty()
            && restart.is_none()
            && collect_trees.is_empty()
            && collect_rendered.is_empty()
    }

    /// Whether something has to be put right that leads to a runtime: what only
    /// goes, or is only noted, is no such.
    pub fn mends(&self) -> bool {
        !(self.pulls.is_empty()
            && self.renders.is_empty()
            && self.set_tables.is_empty()
            && self.set_links.is_empty()
            && self.restart.is_none())
    }

    /// What has to be put right, in words.
    pub fn describe(&self) -> String {
        let tables = self.set_tables.keys().map(|handler| format!("table {handler}"));
        let links = self.set_links.keys().map(|link| format!("link {}", link.name));
        let trees = self.pulls.iter().map(|tree| format!("files of {}", tree.runtime));
        let configs = self.renders.iter().map(|id| format!("config files of {}", id.tree.runtime));
        let restart = self.restart.iter().map(|_| "containerd without our tables".to_owned());
        let all: Vec<String> = tables.chain(links).chain(trees).chain(configs).collect();
        if all.is_empty() { restart.collect() } else { all.join(", ") }
    }

    /// The types for which containerd has to be restarted, of those that are
    /// desired. An activation that has begun is of none: it has to be ended.
    pub fn restarts_for(&self, desired: &DesiredContent) -> BTreeSet<RuntimeType> {
        let Some(Restart::Handlers(wanting)) = &self.restart else { return BTreeSet::new() };
        let wants = |bundle: &&DesiredBundle| {
            let config = bundle.config.config();
            config.handlers.iter().any(|handler| wanting.contains(&handler.name))
        };
        desired.bundles.iter().filter(wants).map(|bundle| bundle.runtime().clone()).collect()
    }

    /// Whether containerd's configuration has to be changed.
    pub fn edits_tables(&self) -> bool {
        !(self.set_tables.is_empty()
            && self.remove_tables.is_empty()
            && self.restore_tables.is_empty()
            && self.remove_strays.is_empty())
    }
}

/// What to do so that the node becomes as desired.
pub fn plan(desired: &DesiredContent, observed: &Observed) -> Plan {
    let mut plan = Plan::default();
    let mut kept = desired.keep.clone();
    let mut layouts = BTreeMap::new();
    for (bundle, layout) in lay_out(desired, observed) {
        let runtime = bundle.runtime().clone();
        match layout {
            Ok(layout) => {
                layouts.insert(runtime, layout);
            }
            Err((reason, message)) => {
                plan.outlook.insert(runtime.clone(), Outlook::Refused(reason, message));
                kept.insert(runtime);
            }
        }
    }
    for runtime in &desired.keep {
        if !layouts.contains_key(runtime) {
            plan.outlook.entry(runtime.clone()).or_insert(Outlook::Kept);
        }
    }
    let mut active = BTreeMap::new();
    for (runtime, layout) in &layouts {
        if observed.trees.get(&layout.tree).is_some_and(|tree| tree.state == TreeState::Complete) {
            active.insert(runtime.clone(), layout);
        } else {
            plan.pulls.insert(layout.tree.clone());
            plan.outlook.insert(runtime.clone(), Outlook::Pull);
            // What is there of it serves until the new one is complete.
            kept.insert(runtime.clone());
        }
    }
    inherited::plan(&active, &kept, observed, &mut plan);
    let mut wanting = BTreeSet::new();
    for (runtime, layout) in &active {
        activate(runtime, layout, observed, &mut plan, &mut wanting);
    }
    gone::remove(&active, &kept, observed, &mut plan);
    if observed.activation_open {
        plan.restart = Some(Restart::Unproven);
    } else if !wanting.is_empty() {
        plan.restart = Some(Restart::Handlers(wanting));
    }
    let ahead = ahead(desired, observed, &mut plan);
    gone::collect(&active, &layouts, &ahead, &kept, observed, &mut plan);
    plan
}

/// The trees that are wanted ahead; those that are not complete are to be fetched.
fn ahead(desired: &DesiredContent, observed: &Observed, plan: &mut Plan) -> BTreeSet<TreeId> {
    let layouts = desired.prefetch.iter().filter_map(|bundle| Layout::of(bundle).ok());
    let trees: BTreeSet<TreeId> = layouts.map(|layout| layout.tree).collect();
    let complete =
        |id: &TreeId| observed.trees.get(id).is_some_and(|tree| tree.state == TreeState::Complete);
    let open = trees.iter().filter(|id| !complete(id) && !plan.pulls.contains(*id)).cloned();
    plan.prefetches = open.collect();
    trees
}

type Laid<'a> = (&'a DesiredBundle, Result<Layout, (Reason, String)>);

/// Lays out every desired bundle; of two that want one place, the one that has it keeps it.
fn lay_out<'a>(desired: &'a DesiredContent, observed: &Observed) -> Vec<Laid<'a>> {
    let holds = |bundle: &DesiredBundle| observed.owned.values().any(|r| r == bundle.runtime());
    let mut bundles: Vec<&DesiredBundle> = desired.bundles.iter().collect();
    bundles.sort_by_key(|bundle| (!holds(bundle), bundle.runtime()));
    let mut handlers: BTreeMap<HandlerName, RuntimeType> = observed
        .owned
        .iter()
        .filter(|(_, runtime)| desired.keep.contains(runtime))
        .map(|(handler, runtime)| (handler.clone(), runtime.clone()))
        .collect();
    let mut links: BTreeMap<Link, RuntimeType> = BTreeMap::new();
    let mut types = BTreeSet::new();
    let mut laid = Vec::new();
    for bundle in bundles {
        let runtime = bundle.runtime();
        if !types.insert(runtime) {
            continue;
        }
        let layout = Layout::of(bundle)
            .map_err(|error| (error.reason(), error.to_string()))
            .and_then(|layout| {
                let taken = |name: &str, what: &str, by: &RuntimeType| {
                    let text = format!("{what} {name} of {runtime} belongs to {by} on this node");
                    Err((Reason::SettingsConflict, text))
                };
                for handler in layout.tables.keys() {
                    if let Some(by) = handlers.get(handler).filter(|by| *by != runtime) {
                        return taken(handler.as_str(), "handler", by);
                    }
                }
                for link in layout.links.keys() {
                    if let Some(by) = links.get(link) {
                        return taken(&link.name, "entry point", by);
                    }
                }
                Ok(layout)
            });
        if let Ok(layout) = &layout {
            handlers.extend(layout.tables.keys().map(|name| (name.clone(), runtime.clone())));
            links.extend(layout.links.keys().map(|link| (link.clone(), runtime.clone())));
        }
        laid.push((bundle, layout));
    }
    laid
}

fn activate(
    runtime: &RuntimeType,
    layout: &Layout,
    observed: &Observed,
    plan: &mut Plan,
    wanting: &mut BTreeSet<HandlerName>,
) {
    if let Some((id, _)) = &layout.rendered
        && observed.rendered.get(id) != Some(&Rendered::Intact)
    {
        plan.renders.insert(id.clone());
    }
    let mut lacking = BTreeSet::new();
    for (handler, table) in &layout.tables {
        let before = observed.tables.get(handler);
        let there = before.and_then(Option::as_ref) == Some(table);
        if !there || observed.owned.get(handler) != Some(runtime) {
            plan.set_tables.insert(handler.clone(), (runtime.clone(), table.clone()));
            let theirs = before.is_some_and(|table| inherited::is_foreign(table.as_ref()));
            if theirs && !observed.owned.contains_key(handler) {
                plan.keep_tables.insert(handler.clone());
            }
        }
        if observed.loaded.get(handler).and_then(Option::as_ref) != Some(table) {
            lacking.insert(handler.clone());
            if observed.started.get(handler) != Some(table) {
                wanting.insert(handler.clone());
            }
        }
    }
    let mut foreign = Vec::new();
    let mut waits = false;
    for (link, target) in &layout.links {
        let path = format!("{}/{}", link.binary_path, link.name);
        match observed.links.get(link) {
            Some(LinkState::Foreign) if plan.remove_files.contains(&path) => {
                plan.set_links.insert(link.clone(), target.clone());
            }
            Some(LinkState::Foreign) => match inherited::stands_at(link, observed) {
                Some(InheritedFile::Found | InheritedFile::Noted) => waits = true,
                Some(InheritedFile::Changed) | None => foreign.push(link.clone()),
            },
            Some(LinkState::Ours(at)) if at == target => {}
            Some(LinkState::Ours(_)) | None => {
                plan.set_links.insert(link.clone(), target.clone());
            }
        }
    }
    let outlook = if observed.activation_open || lacking.iter().any(|h| wanting.contains(h)) {
        Outlook::Activate
    } else if lacking.is_empty() {
        let inherited = if waits { observed.inherited.pods.clone() } else { Vec::new() };
        Outlook::Loaded { foreign, inherited }
    } else {
        Outlook::NotLoaded(lacking)
    };
    plan.outlook.insert(runtime.clone(), outlook);
}
