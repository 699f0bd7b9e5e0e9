//! Clusters as a watch of them all keeps them: only what is read of them.
//!
//! A Cluster has up to a MiB, most of it the CloudProfile; of a shoot's 20 KiB
//! six fields are read. What is not read is passed over while the answer is
//! decoded, and never takes memory.

use std::borrow::Cow;
use std::fmt;

use kube::Resource;
use kube::api::ObjectMeta;
use kube::core::ClusterResourceScope;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use serde_json::{Map, Value};

use super::{Cluster, ClusterSpec, KUBECONFIG_SECRET};

/// What is kept of a value.
#[derive(Clone, Copy, Debug)]
enum Keep {
    /// All of it.
    All,
    /// These fields.
    Fields(&'static [(&'static str, Keep)]),
}

use Keep::{All, Fields};

/// What the accessors of a [`Cluster`] read, and what the rotation of
/// authorities will.
const CLUSTER: Keep = Fields(&[
    (
        "metadata",
        Fields(&[
            ("name", All),
            ("uid", All),
            ("resourceVersion", All),
            ("deletionTimestamp", All),
            ("annotations", Fields(&[(KUBECONFIG_SECRET, All)])),
        ]),
    ),
    ("spec", Fields(&[("seed", SEED), ("shoot", SHOOT)])),
]);
const SEED: Keep = Fields(&[("spec", Fields(&[("ingress", Fields(&[("domain", All)]))]))]);
const SHOOT: Keep = Fields(&[
    (
        "metadata",
        Fields(&[
            ("deletionTimestamp", All),
            ("annotations", Fields(&[("confirmation.gardener.cloud/force-deletion", All)])),
        ]),
    ),
    (
        "spec",
        Fields(&[
            ("hibernation", Fields(&[("enabled", All)])),
            ("maintenance", Fields(&[("timeWindow", All)])),
        ]),
    ),
    (
        "status",
        Fields(&[
            ("isHibernated", All),
            ("lastOperation", Fields(&[("state", All)])),
            ("credentials", Fields(&[("rotation", Fields(&[("certificateAuthorities", All)]))])),
        ]),
    ),
]);

/// A Cluster with what is read of it.
#[derive(Clone, Debug)]
pub(crate) struct Lean(pub(crate) Cluster);

impl<'de> Deserialize<'de> for Lean {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut kept = CLUSTER.deserialize(deserializer)?;
        let metadata: ObjectMeta =
            serde_json::from_value(kept["metadata"].take()).map_err(D::Error::custom)?;
        let mut part = |name: &str| kept["spec"].get_mut(name).map(Value::take);
        let (seed, shoot) = (part("seed"), part("shoot"));
        let spec = ClusterSpec { seed, shoot, ..ClusterSpec::default() };
        Ok(Self(Cluster { metadata, spec }))
    }
}

impl<'de> DeserializeSeed<'de> for Keep {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        match self {
            All => Value::deserialize(deserializer),
            Fields(fields) => deserializer.deserialize_any(Picked(fields)),
        }
    }
}

/// Takes fields out of an object; anything else is as nothing.
struct Picked(&'static [(&'static str, Keep)]);

impl<'de> Visitor<'de> for Picked {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Value, A::Error> {
        let mut kept = Map::new();
        while let Some(key) = object.next_key::<Cow<'de, str>>()? {
            match self.0.iter().find(|(name, _)| *name == key) {
                Some((name, keep)) => {
                    kept.insert((*name).to_owned(), object.next_value_seed(*keep)?);
                }
                None => {
                    object.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(Value::Object(kept))
    }
}

impl Resource for Lean {
    type DynamicType = ();
    type Scope = ClusterResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        Cluster::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        Cluster::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        Cluster::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        Cluster::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        self.0.meta()
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        self.0.meta_mut()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Each accessor of a Cluster says the same of the lean one.
    #[test]
    fn what_is_read_is_kept() {
        let annotations = json!({"confirmation.gardener.cloud/force-deletion": "true", "b": "c"});
        let object = json!({
            "apiVersion": "extensions.gardener.cloud/v1alpha1", "kind": "Cluster",
            "metadata": {"name": "shoot--a--b", "resourceVersion": "7",
                "annotations": {KUBECONFIG_SECRET: "generic", "other": "x"},
                "managedFields": [{"manager": "gardenlet"}]},
            "spec": {
                "cloudProfile": {"spec": {"machineImages": [1, 2, 3]}},
                "seed": {"spec": {"ingress": {"domain": "seed.test"}, "networks": {}}},
                "shoot": {
                    "metadata": {"annotations": annotations, "deletionTimestamp": "2026-01-01T00:00:00Z"},
                    "spec": {"hibernation": {"enabled": true}, "provider": {"workers": [{}]}},
                    "status": {"isHibernated": true, "lastOperation": {"state": "Failed", "progress": 3},
                        "credentials": {"rotation": {"certificateAuthorities": {"phase": "Prepared"}}}},
                },
            },
        });
        let full: Cluster = serde_json::from_value(object.clone()).unwrap();
        let Lean(lean) = serde_json::from_value(object).unwrap();
        let name = "shoot--a--b".parse().unwrap();
        let said = |c: &Cluster| {
            let state = (c.is_hibernated(), c.is_failed(), c.is_deleting(), c.is_force_deleted());
            let annotations = c.metadata.annotations.clone().unwrap_or_default();
            (state, c.endpoint_host(&name, None), annotations.get(KUBECONFIG_SECRET).cloned())
        };
        assert_eq!(said(&lean), said(&full));
        assert_eq!(said(&lean).0, (true, true, true, true));
        let kept = serde_json::to_string(&lean).unwrap();
        for gone in ["machineImages", "workers", "progress", "managedFields", "other", "networks"] {
            assert!(!kept.contains(gone), "{gone} in {kept}");
        }
        assert!(kept.contains("Prepared"));
    }

    #[test]
    fn an_odd_cluster_is_read_too() {
        let odd = [
            json!({"metadata": {"name": "a"}, "spec": {}}),
            json!({"metadata": {"name": "a"}, "spec": {"shoot": null, "seed": null}}),
            json!({"metadata": {"name": "a"}}),
        ];
        for odd in odd {
            let Lean(lean) = serde_json::from_str(&odd.to_string()).unwrap();
            assert!(!lean.is_hibernated() && lean.metadata.name.as_deref() == Some("a"));
        }
    }
}
