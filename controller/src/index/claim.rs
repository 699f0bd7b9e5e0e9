//! What a ContainerRuntime asks for, read from the resource.

use kube::ResourceExt as _;
use rootstock_core::assign::{Ask, Claim, Problem};
use rootstock_core::name::RuntimeType;
use rootstock_core::path::{BinaryPath, BinaryRoots};
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
pub(super) fn read(object: &ContainerRuntime, roots: &BinaryRoots) -> Runtime {
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
    let ask = ask(object, roots);
    let problem = ask.as_ref().err().cloned();
    let claim = Claim { name: object.name_any(), runtime: runtime.clone(), pool, ask };
    let claim = (!deleting).then_some(claim);
    Runtime { uid, runtime: Some(runtime), claim, problem, deleting }
}

fn ask(object: &ContainerRuntime, roots: &BinaryRoots) -> Result<Ask, Problem> {
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
    if spec.provider_config.is_some() {
        let message = "spec.providerConfig: no runtime takes settings in this version";
        return Err(Problem::new(Reason::ConfigurationInvalid, message));
    }
    Ok(Ask { binary_path, selector, settings: serde_json::Map::new() })
}
