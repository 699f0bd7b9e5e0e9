//! Which bundle each runtime type stands for: the operator's configuration.

mod runtime_class;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::bandwidth::Budgets;
use crate::name::{RuntimeClassName, RuntimeType};
use crate::reference::Reference;
use crate::rollout::rings::RingsConfig;
use crate::rollout::strategy::StrategySpec;

pub use runtime_class::{
    Effect, InvalidQuantity, Operator, Overhead, Quantity, RuntimeClass, Scheduling, Toleration,
};

/// The operator's configuration, as the file `--config` has it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Catalog {
    /// The registries that bundles come from.
    #[serde(default)]
    pub registries: Vec<RegistryEntry>,
    /// Limits of bytes per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budgets: Option<Budgets>,
    /// In which order the shoots of a seed try a bundle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rings: Option<RingsConfig>,
    /// Whether every rollout stands still: no node is let restart containerd
    /// but those that nothing runs on yet.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub frozen: bool,
    /// The runtime types.
    #[serde(default)]
    pub runtimes: Vec<RuntimeEntry>,
}

/// A registry and how to reach it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RegistryEntry {
    /// The name by which references begin.
    pub name: String,
    /// Scheme, host and port.
    pub url: String,
    /// URLs that serve the same digests and are tried first, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mirrors: Vec<String>,
    /// The CAs that sign its certificate, as PEM. Agents trust no others, so
    /// every `https` URL needs them.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub ca_bundle: String,
    /// A Secret in the controller's namespace with `username` and `password`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_secret: Option<String>,
}

/// One runtime type.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RuntimeEntry {
    /// The type, as in `ContainerRuntime.spec.type`.
    #[serde(rename = "type")]
    pub runtime: RuntimeType,
    /// The bundle.
    pub bundle: Reference,
    /// The RuntimeClasses that a shoot gets.
    #[serde(default)]
    pub runtime_classes: Vec<RuntimeClass>,
    /// How it is rolled out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strategy: Option<StrategySpec>,
    /// Whose signature the bundle must have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<Value>,
}

/// A catalog that contradicts itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidCatalog {
    /// A registry's name is there twice.
    #[error("registry {0:?} is there twice")]
    RegistryTwice(String),
    /// A runtime type is there twice.
    #[error("runtime type {0} is there twice")]
    RuntimeTwice(RuntimeType),
    /// A RuntimeClass is there twice.
    #[error("RuntimeClass {0} is there twice")]
    RuntimeClassTwice(RuntimeClassName),
    /// A bundle names a registry that is not there.
    #[error("the bundle of {runtime} names registry {registry:?}, which is not in registries")]
    RegistryUnknown {
        /// The type whose bundle it is.
        runtime: RuntimeType,
        /// The name.
        registry: String,
    },
}

impl Catalog {
    /// Refuses a catalog that contradicts itself.
    pub fn check(&self) -> Result<(), InvalidCatalog> {
        let mut registries = BTreeSet::new();
        for registry in &self.registries {
            if !registries.insert(registry.name.as_str()) {
                return Err(InvalidCatalog::RegistryTwice(registry.name.clone()));
            }
        }
        let (mut runtimes, mut classes) = (BTreeSet::new(), BTreeSet::new());
        for entry in &self.runtimes {
            if !runtimes.insert(&entry.runtime) {
                return Err(InvalidCatalog::RuntimeTwice(entry.runtime.clone()));
            }
            if !registries.contains(entry.bundle.registry.as_str()) {
                return Err(InvalidCatalog::RegistryUnknown {
                    runtime: entry.runtime.clone(),
                    registry: entry.bundle.registry.clone(),
                });
            }
            // A shoot has one object of a name, and two types would fight over it.
            if let Some(twice) = entry.runtime_classes.iter().find(|c| !classes.insert(&c.name)) {
                return Err(InvalidCatalog::RuntimeClassTwice(twice.name.clone()));
            }
        }
        Ok(())
    }

    /// What it says of a type.
    pub fn runtime(&self, runtime: &RuntimeType) -> Option<&RuntimeEntry> {
        self.runtimes.iter().find(|entry| entry.runtime == *runtime)
    }

    /// The types by name.
    pub fn references(&self) -> BTreeMap<RuntimeType, Reference> {
        self.runtimes.iter().map(|e| (e.runtime.clone(), e.bundle.clone())).collect()
    }

    /// The keys that are there and that this version does not act on: an
    /// operator must not believe that a limit holds.
    pub fn without_effect(&self) -> Vec<String> {
        let entries = self.runtimes.iter().flat_map(|entry| {
            let name = &entry.runtime;
            entry.signature.as_ref().map(|_| format!("runtimes[{name}].signature"))
        });
        entries.collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn contradictions_are_named() {
        let entry = |kind: &str| json!({"type": kind, "bundle": "main/x:1"});
        let registry = json!({"name": "main", "url": "http://r"});
        let check = |value: Value| serde_json::from_value::<Catalog>(value).unwrap().check();
        assert_eq!(check(json!({"registries": [registry], "runtimes": [entry("a")]})), Ok(()));
        assert_eq!(
            check(json!({"runtimes": [entry("a")]})).unwrap_err().to_string(),
            "the bundle of a names registry \"main\", which is not in registries"
        );
        let twice = json!({"registries": [registry], "runtimes": [entry("a"), entry("a")]});
        assert!(matches!(check(twice), Err(InvalidCatalog::RuntimeTwice(_))));
        assert!(matches!(
            check(json!({"registries": [registry, registry]})),
            Err(InvalidCatalog::RegistryTwice(_))
        ));
        assert!(serde_json::from_value::<Catalog>(json!({"registrys": []})).is_err());
        let with_class = |kind: &str| {
            let mut entry = entry(kind);
            entry["runtimeClasses"] = json!([{"name": "sandboxed", "handler": kind}]);
            entry
        };
        let twice =
            json!({"registries": [registry], "runtimes": [with_class("a"), with_class("b")]});
        assert_eq!(check(twice).unwrap_err().to_string(), "RuntimeClass sandboxed is there twice");
    }

    #[test]
    fn keys_without_effect_are_named() {
        let catalog: Catalog = serde_json::from_value(json!({
            "budgets": {"seed": "1MiB/s"},
            "runtimes": [{"type": "a", "bundle": "m/x:1", "strategy": {"canary": 1},
                "signature": {"keys": []}}],
        }))
        .unwrap();
        assert_eq!(catalog.without_effect(), ["runtimes[a].signature"]);
    }

    #[test]
    fn budgets_may_be_null_but_not_wrong() {
        let read = |budgets: Value| serde_json::from_value::<Catalog>(json!({"budgets": budgets}));
        assert_eq!(read(Value::Null).unwrap().budgets, None);
        let error = read(json!({"seed": "fast"})).unwrap_err().to_string();
        assert!(error.contains("\"fast\"") && error.contains("such as 200MiB/s"), "{error}");
    }
}
