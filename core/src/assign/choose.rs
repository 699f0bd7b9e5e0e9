//! One type on one node: which bundle, with whose settings.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::{Ask, Claim, NodeFacts, Problem, Resolution, ResolvedBundle, Verdict};
use crate::desired::DesiredBundle;
use crate::name::{RuntimeType, cut};
use crate::path::BinaryPath;
use crate::provider::{Given, PassedOver};
use crate::status::Reason;

#[cfg(test)]
mod tests;

/// What one claim comes to with the node's bundle.
#[derive(PartialEq)]
struct Want<'a> {
    binary_path: &'a BinaryPath,
    settings: Map<String, Value>,
}

type Verdicts = BTreeMap<String, Verdict>;

/// Decides among the claims for one type that select a node, the oldest first.
/// Without a bundle the node keeps what it has.
pub(super) fn choose(
    node: &NodeFacts,
    claims: &[(&Claim, &Ask)],
    resolution: Option<&Resolution>,
) -> (Option<DesiredBundle>, Verdicts) {
    let Some((eldest, _)) = claims.first() else { return (None, Verdicts::new()) };
    let held = |claim: &Claim, problem| (claim.name.clone(), Verdict::Held(problem));
    let bundle = match bundle_of(node, eldest, resolution) {
        Ok(bundle) => bundle,
        Err(problem) => {
            let verdicts = claims.iter().map(|(claim, ask)| {
                // What the resource itself has wrong is what its owner can mend.
                let own = ask.settings.as_ref().err();
                held(claim, own.unwrap_or(&problem).clone())
            });
            return (None, verdicts.collect());
        }
    };
    let wants: Vec<_> =
        claims.iter().map(|(claim, ask)| (*claim, want(ask, bundle, resolution))).collect();
    let decides = &wants[0].1;
    let verdicts = wants.iter().map(|(claim, want)| match (decides, want) {
        (_, Err(problem)) => held(claim, problem.clone()),
        (Ok(first), Ok(want)) if first == want => {
            (claim.name.clone(), Verdict::Wanted(bundle.digest))
        }
        (Ok(first), Ok(want)) => held(claim, conflict(node, eldest, claim, &first.unlike(want))),
        (Err(_), Ok(_)) => held(claim, conflict(node, eldest, claim, "its settings are refused")),
    });
    let verdicts = verdicts.collect();
    let chosen = decides.as_ref().ok().map(|want| desired(bundle, want));
    (chosen, verdicts)
}

/// A bundle with the settings of a claim; none where it refuses them.
pub(super) fn with(claim: &Claim, bundle: &ResolvedBundle) -> Option<DesiredBundle> {
    let ask = claim.ask.as_ref().ok()?;
    let want = want(ask, bundle, None).ok()?;
    Some(desired(bundle, &want))
}

fn desired(bundle: &ResolvedBundle, want: &Want<'_>) -> DesiredBundle {
    DesiredBundle {
        digest: bundle.digest,
        binary_path: want.binary_path.clone(),
        registry: bundle.registry.clone(),
        repository: bundle.repository.clone(),
        config: bundle.config.clone(),
        settings: want.settings.clone(),
    }
}

/// The bundle for a node, whatever the settings.
fn bundle_of<'a>(
    node: &NodeFacts,
    claim: &Claim,
    resolution: Option<&'a Resolution>,
) -> Result<&'a ResolvedBundle, Problem> {
    let runtime = &claim.runtime;
    let by_architecture = match resolution {
        None => return Err(Problem::type_unknown(runtime)),
        Some(Resolution::Pending) => {
            let message = format!("the bundle of {runtime} is being looked up");
            return Err(Problem::new(Reason::BundlePending, message));
        }
        Some(Resolution::Failed(problem)) => return Err(problem.clone()),
        Some(Resolution::Resolved(by_architecture)) => by_architecture,
    };
    let Some(architecture) = node.architecture else {
        let message = format!("node {} has an architecture that is not known", node.name);
        return Err(Problem::new(Reason::ArchitectureMismatch, message));
    };
    let bundle = match by_architecture.get(&architecture) {
        Some(Ok(bundle)) => bundle,
        Some(Err(problem)) => return Err(problem.clone()),
        None => {
            let message = format!("the bundle of {runtime} has nothing for {architecture}");
            return Err(Problem::new(Reason::ArchitectureMismatch, message));
        }
    };
    let of = &bundle.config.config().runtime;
    if of != runtime {
        let (registry, repository) = (&bundle.registry, &bundle.repository);
        let message =
            format!("the bundle {registry}/{repository} is one of {of}, not of {runtime}");
        return Err(Problem::new(Reason::BundleInvalid, message));
    }
    Ok(bundle)
}

fn want<'a>(
    ask: &'a Ask,
    bundle: &ResolvedBundle,
    resolution: Option<&Resolution>,
) -> Result<Want<'a>, Problem> {
    let given = ask.settings.as_ref().map_err(Clone::clone)?;
    if let Some(resolution) = resolution {
        resolution.check(&bundle.config.config().runtime, given)?;
    }
    let refused = |error: crate::provider::Refused| invalid(&error.to_string());
    let checked = given.check(bundle.config.config()).map_err(refused)?;
    Ok(Want { binary_path: &ask.binary_path, settings: checked.settings })
}

impl Want<'_> {
    /// What the other one has otherwise, for people.
    fn unlike(&self, other: &Self) -> String {
        let mut unlike = Vec::new();
        if self.binary_path != other.binary_path {
            let (first, second) = (self.binary_path, other.binary_path);
            unlike.push(format!("it has binaryPath {first}, not {second}"));
        }
        let names: BTreeSet<_> = self.settings.keys().chain(other.settings.keys()).collect();
        let value = |settings: &Map<String, Value>, name: &String| {
            settings.get(name).map_or_else(|| "not set".to_owned(), |v| cut(&v.to_string()))
        };
        for name in names {
            let (first, second) = (value(&self.settings, name), value(&other.settings, name));
            if first != second {
                unlike.push(format!("it has setting {name} {first}, not {second}"));
            }
        }
        unlike.join(", ")
    }
}

fn conflict(node: &NodeFacts, eldest: &Claim, claim: &Claim, why: &str) -> Problem {
    let message = format!(
        "{} and {} both select node {}, and the older one, {}, decides: {why}",
        eldest.name, claim.name, node.name, eldest.name
    );
    Problem::new(Reason::SettingsConflict, message)
}

pub(super) fn check(
    resolution: &Resolution,
    runtime: &RuntimeType,
    given: &Given,
) -> Result<Vec<PassedOver>, Problem> {
    let Resolution::Resolved(by_architecture) = resolution else { return Ok(Vec::new()) };
    if given.settings.is_empty() {
        return Ok(Vec::new());
    }
    let bundles = by_architecture
        .iter()
        .filter_map(|(on, bundle)| Some((on, bundle.as_ref().ok()?.config.config())))
        .filter(|(_, bundle)| bundle.runtime == *runtime);
    let mut passed_over: BTreeMap<String, PassedOver> = BTreeMap::new();
    let (mut refused, mut count) = (Vec::new(), 0);
    for (on, bundle) in bundles {
        count += 1;
        match given.check(bundle) {
            Ok(checked) => {
                for one in checked.passed_over {
                    passed_over.entry(one.field.clone()).or_insert(one);
                }
            }
            Err(error) => refused.push((on, error)),
        }
    }
    match refused.first() {
        None => Ok(passed_over.into_values().collect()),
        Some((_, error)) if refused.len() == count => Err(invalid(&error.to_string())),
        Some((on, error)) => Err(invalid(&format!("for {on}, {error}"))),
    }
}

fn invalid(message: &str) -> Problem {
    Problem::new(Reason::ConfigurationInvalid, message)
}
