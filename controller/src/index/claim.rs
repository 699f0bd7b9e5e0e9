//! What a ContainerRuntime asks for, read from the resource.

use kube::ResourceExt as _;
use rootstock_core::assign::{Ask, Claim, Created, Problem};
use rootstock_core::name::RuntimeType;
use rootstock_core::path::{BinaryPath, BinaryRoots};
use rootstock_core::provider::{self, How};
use rootstock_core::selector::Selector;
use rootstock_core::status::Reason;

use crate::api::ContainerRuntime;

/// One ContainerRuntime in the index.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Runtime {
    /// The resource's UID.
    pub(super) uid: Option<String>,
    /// Its type, where it is one.
    pub(super) runtime: Option<RuntimeType>,
    /// What it asks for; nothing while it is being deleted.
    pub(super) claim: Option<Claim>,
    /// What is wrong with it.
    pub(super) problem: Option<Problem>,
    /// Whether it is being deleted.
    pub(super) deleting: bool,
}

/// Reads a resource. What is wrong with it is part of the answer.
pub(super) fn read(object: &ContainerRuntime, roots: &BinaryRoots, how: How) -> Runtime {
    let spec = &object.spec;
    let deleting = object.metadata.deletion_timestamp.is_some();
    let uid = object.uid();
    let pool = spec.worker_pool.name.clone();
    let runtime = match spec.runtime.parse::<RuntimeType>() {
        Ok(runtime) => runtime,
        Err(error) => {
            let problem = Problem::new(Reason::TypeUnknown, format!("spec.type: {error}"));
            return Runtime { uid, runtime: None, claim: None, problem: Some(problem), deleting };
        }
    };
    let ask = ask(object, &runtime, roots, how);
    let problem = match &ask {
        Ok(ask) => ask.settings.as_ref().err(),
        Err(problem) => Some(problem),
    };
    let problem = problem.cloned();
    let created = object.metadata.creation_timestamp.as_ref().map(|at| Created(at.0.as_second()));
    let claim = Claim { name: object.name_any(), runtime: runtime.clone(), pool, created, ask };
    let claim = (!deleting).then_some(claim);
    Runtime { uid, runtime: Some(runtime), claim, problem, deleting }
}

fn ask(
    object: &ContainerRuntime,
    runtime: &RuntimeType,
    roots: &BinaryRoots,
    how: How,
) -> Result<Ask, Problem> {
    let spec = &object.spec;
    let selector = Selector::try_from(&spec.worker_pool.selector).map_err(|error| {
        Problem::new(Reason::SelectorInvalid, format!("spec.workerPool.selector: {error}"))
    })?;
    let refused =
        |error: &dyn std::fmt::Display| Problem::new(Reason::BinaryPathRefused, error.to_string());
    let binary_path: BinaryPath = spec
        .binary_path
        .parse()
        .map_err(|error| refused(&format_args!("spec.binaryPath: {error}")))?;
    roots.check(&binary_path).map_err(|error| refused(&error))?;
    // Wrong settings still ask for the runtime, on the nodes that are selected.
    let settings = provider::read(spec.provider_config.as_ref(), runtime, how)
        .map_err(|error| Problem::new(Reason::ConfigurationInvalid, error.to_string()));
    Ok(Ask { binary_path, selector, settings })
}
