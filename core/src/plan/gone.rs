//! What is desired no more: out of the configuration first, off the disk when nothing leads to it.

use std::collections::{BTreeMap, BTreeSet};

use super::{LinkState, Observed, Outlook, Plan, Tree, TreeState};
use crate::layout::{FOLDER, HandlerTable, Layout, Link, RenderedId, TreeId};
use crate::name::{HandlerName, RuntimeType};

/// Takes out tables and links that are desired no more.
pub(super) fn remove(
    active: &BTreeMap<RuntimeType, &Layout>,
    kept: &BTreeSet<RuntimeType>,
    observed: &Observed,
    plan: &mut Plan,
) {
    let wanted_handlers: BTreeSet<&HandlerName> =
        active.values().flat_map(|layout| layout.tables.keys()).collect();
    let wanted_links: BTreeSet<&Link> =
        active.values().flat_map(|layout| layout.links.keys()).collect();
    // Of a type that goes as a whole; a handler that only its new version lacks is no such.
    let mut gone: BTreeSet<&RuntimeType> = observed.owned.values().collect();
    gone.extend(observed.trees.keys().map(|tree| &tree.runtime));
    gone.retain(|runtime| !active.contains_key(*runtime) && !kept.contains(*runtime));
    let mut held = BTreeSet::new();
    for runtime in gone {
        let pods = pods_of(runtime, observed);
        if pods.is_empty() {
            plan.outlook.insert(runtime.clone(), Outlook::Removed);
        } else {
            plan.outlook.insert(runtime.clone(), Outlook::InUse(pods));
            held.insert(runtime.clone());
        }
    }
    for (handler, runtime) in &observed.owned {
        if wanted_handlers.contains(handler) || kept.contains(runtime) || held.contains(runtime) {
            continue;
        }
        if observed.sandboxes.get(handler).is_some_and(|pods| !pods.is_empty()) {
            continue;
        }
        let ours = |table: &HandlerTable| leads_into(runtime, &table.runtime_path);
        match observed.tables.get(handler) {
            Some(Some(table)) if ours(table) => {
                if observed.replaced.contains(handler) {
                    plan.restore_tables.insert(handler.clone());
                } else {
                    plan.remove_tables.insert(handler.clone());
                }
                if let Some(outlook @ Outlook::Removed) = plan.outlook.get_mut(runtime) {
                    *outlook = Outlook::Removing;
                }
            }
            // Gone already, or someone else's by now.
            _ => {
                plan.disown.insert(handler.clone());
            }
        }
    }
    for (link, state) in &observed.links {
        let LinkState::Ours(target) = state else { continue };
        let Some(runtime) = type_of_target(target) else { continue };
        let stays = wanted_links.contains(link) || kept.contains(&runtime);
        if !stays && !held.contains(&runtime) {
            plan.remove_links.insert(link.clone());
        }
    }
}

fn leads_into(runtime: &RuntimeType, path: &str) -> bool {
    path.contains(&format!("/{}/{runtime}/", FOLDER))
}

fn type_of_target(target: &str) -> Option<RuntimeType> {
    let rest = target.strip_prefix(FOLDER)?.strip_prefix('/')?;
    rest.split('/').next()?.parse().ok()
}

/// The pods that use a handler which any version of the type ever had here.
///
/// A sandbox tells its handler and not its version, so it counts for all.
fn pods_of(runtime: &RuntimeType, observed: &Observed) -> Vec<String> {
    let owned = observed.owned.iter().filter(|(_, r)| *r == runtime).map(|(handler, _)| handler);
    let trees = observed.trees.iter().filter(|(id, _)| id.runtime == *runtime);
    let handlers: BTreeSet<&HandlerName> =
        owned.chain(trees.flat_map(|(_, tree)| &tree.handlers)).collect();
    let pods = handlers.into_iter().filter_map(|handler| observed.sandboxes.get(handler));
    pods.flatten().cloned().collect()
}

/// Deletes what nothing leads to once the rest of the plan is done.
pub(super) fn collect(
    active: &BTreeMap<RuntimeType, &Layout>,
    layouts: &BTreeMap<RuntimeType, Layout>,
    ahead: &BTreeSet<TreeId>,
    kept: &BTreeSet<RuntimeType>,
    observed: &Observed,
    plan: &mut Plan,
) {
    let mut tables = observed.tables.clone();
    for handler in plan.remove_tables.iter().chain(&plan.restore_tables) {
        tables.remove(handler);
    }
    for (handler, (_, table)) in &plan.set_tables {
        tables.insert(handler.clone(), Some(table.clone()));
    }
    // Also where containerd is about to restart: until then it may start a pod
    // with what it knows now, and only the next look would find that pod.
    let loaded = &observed.loaded;
    let paths: Vec<&str> =
        tables.values().chain(loaded.values()).flatten().flat_map(HandlerTable::paths).collect();
    let unknown = |tree: &Tree| tree.handlers.iter().any(|h| loaded.get(h) == Some(&None));
    // A pod keeps the version that it was started with; which one that is, only
    // containerd's own state can tell.
    let untold = |tree: &Tree| tree.handlers.iter().any(|h| observed.untold.contains(h));
    let used = |id: &TreeId| observed.used.iter().any(|path| id.concerns(path));
    let wanted: BTreeSet<&TreeId> =
        layouts.values().map(|layout| &layout.tree).chain(ahead).collect();
    for (id, tree) in &observed.trees {
        let superseded =
            || begun_before(id, tree, layouts) || ahead_before(id, ahead, &observed.links);
        let free = !wanted.contains(id)
            && (!kept.contains(&id.runtime) || superseded())
            && !paths.iter().any(|path| id.concerns(path))
            && !used(id)
            && (tree.state == TreeState::Partial || !(unknown(tree) || untold(tree)));
        if free {
            plan.collect_trees.insert(id.clone());
        }
    }
    let rendered: BTreeSet<&RenderedId> =
        active.values().filter_map(|layout| Some(&layout.rendered.as_ref()?.0)).collect();
    for id in observed.rendered.keys() {
        let tree = observed.trees.get(&id.tree);
        let free = !rendered.contains(id)
            && !kept.contains(&id.tree.runtime)
            && !paths.iter().any(|path| id.holds(path))
            && !observed.used.iter().any(|path| id.holds(path))
            && !tree.is_some_and(|tree| unknown(tree) || untold(tree));
        if free {
            plan.collect_rendered.insert(id.clone());
        }
    }
}

/// Whether a tree was begun for a digest that is desired no more, and never finished.
fn begun_before(id: &TreeId, tree: &Tree, layouts: &BTreeMap<RuntimeType, Layout>) -> bool {
    tree.state == TreeState::Partial
        && layouts.get(&id.runtime).is_some_and(|layout| layout.tree != *id)
}

/// Whether a tree came ahead before another one that does now. Of a type that
/// stays as it is there would be one more with each bundle that is tried.
///
/// What has links was activated, even if somebody took its table out.
fn ahead_before(id: &TreeId, ahead: &BTreeSet<TreeId>, links: &BTreeMap<Link, LinkState>) -> bool {
    let inside = format!("{}/", id.relative());
    let linked = |(link, state): (&Link, &LinkState)| {
        link.binary_path == id.binary_path
            && matches!(state, LinkState::Ours(target) if target.starts_with(&inside))
    };
    ahead.iter().any(|other| other.runtime == id.runtime && other != id)
        && !links.iter().any(linked)
}
