//! What one node should have, given every ContainerRuntime of its shoot.
//!
//! The rule that stands above all others here: what is not known uninstalls
//! nothing. A type whose bundle is not resolved, whose label is gone for a
//! moment, or about which two resources disagree goes to `keep`, and the node
//! leaves it as it is. Only a type that no resource asks for is taken away.
//!
//! Where several resources ask for one type on one node, the oldest decides;
//! one that asks for the same agrees with it, another one is told of the
//! conflict. The oldest decides also when its settings are refused: the node
//! keeps what it last gave, and does not change hands because of a typing error.

use std::collections::{BTreeMap, BTreeSet};

use crate::bundle::ConfigBlob;
use crate::desired::{DesiredBundle, DesiredContent, Registry};
use crate::digest::Digest;
use crate::name::{Architecture, NodeName, RuntimeType};
use crate::path::BinaryPath;
use crate::provider::{Given, PassedOver};
use crate::selector::{Labels, Selector};
use crate::status::Reason;

mod choose;
mod direct;
#[cfg(test)]
mod tests;

pub use direct::{Bundles, Turn, Turns, direct};

/// The label that says which CRI a node runs.
pub const CRI_LABEL: &str = "worker.gardener.cloud/cri-name";
/// The one CRI that runtimes are installed for.
pub const CRI_CONTAINERD: &str = "containerd";
/// The prefix of the labels that say which runtimes a node should have.
pub const RUNTIME_LABEL_PREFIX: &str = "containerruntime.worker.gardener.cloud/";
/// The label that names a node's worker pool.
pub const POOL_LABEL: &str = "worker.gardener.cloud/pool";
/// The older label that does so too.
const OLD_POOL_LABEL: &str = "worker.garden.sapcloud.io/group";
/// The label that keeps the agent on a node until nothing is left there.
pub const AGENT_LABEL: &str = "rootstock.gardener.cloud/agent";

/// What asks for a runtime on a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AskedBy {
    /// The labels of the worker pool, and a resource whose selector agrees.
    #[default]
    Labels,
    /// A resource's selector alone: where nobody labels worker pools.
    Selector,
}

/// What is known of a node, from its Node object alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeFacts {
    /// Its name.
    pub name: NodeName,
    /// Its labels.
    pub labels: Labels,
    /// Its architecture, where it is one that is known.
    pub architecture: Option<Architecture>,
    /// What asks for its runtimes.
    pub asked_by: AskedBy,
}

/// What one ContainerRuntime asks for. Those that are being deleted ask for nothing.
#[derive(Clone, Debug, PartialEq)]
pub struct Claim {
    /// The resource's name.
    pub name: String,
    /// The type.
    pub runtime: RuntimeType,
    /// The worker pool's name.
    pub pool: String,
    /// When the resource was made, where that is known.
    pub created: Option<Created>,
    /// What exactly, or what is wrong with it. A resource that can't be read
    /// still covers its type: what nodes have of it stays.
    pub ask: Result<Ask, Problem>,
}

impl Claim {
    /// The smaller, the older; of one second, the names decide.
    fn seniority(&self) -> (bool, Option<Created>, &str) {
        (self.created.is_none(), self.created, &self.name)
    }
}

/// When a resource was made, in seconds since 1970, which is as exact as Kubernetes is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Created(pub i64);

/// What a well-formed ContainerRuntime asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct Ask {
    /// Where entry points are placed.
    pub binary_path: BinaryPath,
    /// Which nodes.
    pub selector: Selector,
    /// The user's settings, to be checked when the bundle is known; or what is
    /// wrong with them in any case.
    pub settings: Result<Given, Problem>,
}

/// A bundle for one platform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedBundle {
    /// The digest of its manifest.
    pub digest: Digest,
    /// The name of its registry.
    pub registry: String,
    /// Its repository.
    pub repository: String,
    /// Its config blob.
    pub config: ConfigBlob,
}

/// What a type stands for now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// Not asked yet.
    Pending,
    /// It could not be found out.
    Failed(Problem),
    /// By architecture, either the bundle or why there is none.
    Resolved(BTreeMap<Architecture, Result<ResolvedBundle, Problem>>),
}

impl Resolution {
    /// Checks settings against the declaration of a type's bundle for every platform, and
    /// says what is passed over. While the bundle is not known nothing is wrong.
    ///
    /// # Errors
    /// When a platform refuses them: no node gets them then, so that those of
    /// one resource don't fall apart.
    pub fn check(&self, runtime: &RuntimeType, given: &Given) -> Result<Vec<PassedOver>, Problem> {
        choose::check(self, runtime, given)
    }
}

/// Why something is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The reason.
    pub reason: Reason,
    /// What exactly, for people.
    pub message: String,
}

impl Problem {
    /// A problem.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }

    /// No catalog entry names the type.
    pub fn type_unknown(runtime: &RuntimeType) -> Self {
        let message = format!("no catalog entry names the runtime type {runtime}");
        Self::new(Reason::TypeUnknown, message)
    }
}

/// What becomes of one claim on one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The node is to have this bundle.
    Wanted(Digest),
    /// The node is selected, but what it has stays as it is.
    Held(Problem),
}

/// What one node should have, and why.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Assignment {
    /// For the node.
    pub content: DesiredContent,
    /// For each claim that selects the node, by the resource's name.
    pub verdicts: BTreeMap<String, Verdict>,
    /// For each type that a bundle may be sent of, the resource that decides.
    pub tracks: BTreeMap<RuntimeType, String>,
}

/// How the claims of a shoot see a node, each in its place. Nodes that are
/// seen alike get the same content; only a problem may name its node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sight(Option<Architecture>, Vec<Stance>);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stance {
    /// It has nothing to do with the node.
    Apart,
    /// It may be the node's own: what the node has of the type stays.
    Keeps,
    /// It can't be read, and is the node's own.
    Stops,
    /// The node is to have what it asks for.
    Selects,
}

impl Sight {
    /// How these claims see a node.
    pub fn of(node: &NodeFacts, claims: &[Claim]) -> Self {
        Self(node.architecture, claims.iter().map(|claim| stance(node, claim)).collect())
    }
}

fn stance(node: &NodeFacts, claim: &Claim) -> Stance {
    let own = || is_in_pool(node, &claim.pool);
    match &claim.ask {
        Ok(ask) if !ask.selector.matches(&node.labels) => {
            // A label of the selector may be lost while the node is still in the pool.
            if own() && ask.selector.allows(&node.labels) { Stance::Keeps } else { Stance::Apart }
        }
        Ok(_) if is_labelled(node, &claim.runtime) => Stance::Selects,
        Err(_) if is_labelled(node, &claim.runtime) && own() => Stance::Stops,
        Ok(_) | Err(_) => Stance::Keeps,
    }
}

/// Works out what a node should have.
///
/// Total: whatever the input, the answer is an assignment.
pub fn assign(
    node: &NodeFacts,
    claims: &[Claim],
    bundles: &BTreeMap<RuntimeType, Resolution>,
    registries: &BTreeMap<String, Registry>,
) -> Assignment {
    let mut assignment = Assignment::default();
    let mut by_type: BTreeMap<&RuntimeType, Vec<(&Claim, &Ask)>> = BTreeMap::new();
    for claim in claims {
        match (stance(node, claim), &claim.ask) {
            (Stance::Apart, _) => {}
            (Stance::Selects, Ok(ask)) => {
                by_type.entry(&claim.runtime).or_default().push((claim, ask));
            }
            (Stance::Stops, Err(problem)) => {
                assignment.content.keep.insert(claim.runtime.clone());
                let verdict = Verdict::Held(problem.clone());
                assignment.verdicts.insert(claim.name.clone(), verdict);
            }
            (Stance::Keeps | Stance::Stops | Stance::Selects, _) => {
                assignment.content.keep.insert(claim.runtime.clone());
            }
        }
    }
    let mut chosen = BTreeMap::new();
    for (runtime, claims) in &mut by_type {
        claims.sort_by_key(|(claim, _)| claim.seniority());
        let (bundle, verdicts) = choose::choose(node, claims, bundles.get(*runtime));
        if let Some((eldest, _)) = claims.first()
            && verdicts.get(&eldest.name).is_some_and(may_have_another)
        {
            assignment.tracks.insert((*runtime).clone(), eldest.name.clone());
        }
        assignment.verdicts.extend(verdicts);
        match bundle {
            Some(bundle) => {
                chosen.insert(*runtime, bundle);
            }
            None => {
                assignment.content.keep.insert((*runtime).clone());
            }
        }
    }
    for (runtime, problem) in conflicts(&chosen) {
        chosen.remove(&runtime);
        assignment.tracks.remove(&runtime);
        assignment.content.keep.insert(runtime.clone());
        for (claim, _) in &by_type[&runtime] {
            let verdict = Verdict::Held(problem.clone());
            assignment.verdicts.insert(claim.name.clone(), verdict);
        }
    }
    for (runtime, bundle) in chosen {
        // Another claim that can't be read changes nothing for a node that this one selects.
        assignment.content.keep.remove(runtime);
        assignment.content.bundles.push(bundle);
    }
    assignment.content.registries = named(assignment.content.bundles.iter(), registries);
    assignment
}

/// Whether a node may be sent a bundle of a type, if not the one that it is to
/// have in the end: nothing is wrong with what is asked for.
fn may_have_another(verdict: &Verdict) -> bool {
    match verdict {
        Verdict::Wanted(_) => true,
        Verdict::Held(problem) => !matches!(
            problem.reason,
            Reason::ConfigurationInvalid | Reason::TakeoverPending | Reason::TypeUnknown
        ),
    }
}

/// The registries that bundles name.
fn named<'a>(
    bundles: impl Iterator<Item = &'a DesiredBundle>,
    registries: &BTreeMap<String, Registry>,
) -> Vec<Registry> {
    let used: BTreeSet<_> = bundles.map(|bundle| bundle.registry.as_str()).collect();
    used.into_iter().filter_map(|name| registries.get(name)).cloned().collect()
}

/// Whether the worker pool's labels ask for a runtime on this node.
fn is_labelled(node: &NodeFacts, runtime: &RuntimeType) -> bool {
    if node.asked_by == AskedBy::Selector {
        return true;
    }
    let has = |key: &str, value: &str| node.labels.get(key).is_some_and(|found| found == value);
    has(CRI_LABEL, CRI_CONTAINERD) && has(&format!("{RUNTIME_LABEL_PREFIX}{runtime}"), "true")
}

fn is_in_pool(node: &NodeFacts, pool: &str) -> bool {
    [POOL_LABEL, OLD_POOL_LABEL]
        .iter()
        .any(|label| node.labels.get(*label).is_some_and(|found| found == pool))
}

/// Types whose bundles claim one handler, or one entry point in one folder:
/// none of them is touched, for it can't be told whose it is.
fn conflicts(chosen: &BTreeMap<&RuntimeType, DesiredBundle>) -> BTreeMap<RuntimeType, Problem> {
    let mut owners: BTreeMap<String, &RuntimeType> = BTreeMap::new();
    let mut problems = BTreeMap::new();
    for (runtime, bundle) in chosen {
        let config = bundle.config.config();
        let handlers = config.handlers.iter().map(|h| format!("handler {}", h.name));
        let entries =
            config.entry_points.iter().map(|path| format!("{}/{path}", bundle.binary_path));
        for thing in handlers.chain(entries) {
            if let Some(other) = owners.insert(thing.clone(), runtime) {
                let message = format!("{other} and {runtime} both claim {thing}");
                for runtime in [other, *runtime] {
                    let problem = Problem::new(Reason::SettingsConflict, message.clone());
                    problems.entry(runtime.clone()).or_insert(problem);
                }
            }
        }
    }
    problems
}
