//! Objects of any kind in a shoot, as the resource manager applies and deletes them.

use std::collections::BTreeMap;
use std::fmt;

use kube::Api;
use kube::api::{DeleteParams, DynamicObject, GroupVersionKind, PostParams};
use kube::core::ApiResource;
use kube::discovery::{Scope, pinned_kind};
use serde_json::{Value, json};

use super::objects::{Access, is_conflict, is_not_found, typed};

/// An object that asks for it is made anew where it can't be changed in place.
const ANEW: &str = "resources.gardener.cloud/delete-on-invalid-update";

/// Which object: as a ManagedResource's status names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reference {
    api_version: String,
    kind: String,
    namespace: String,
    name: String,
}

impl Reference {
    /// The reference to an object.
    pub fn of(object: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Self {
            api_version: text(&object["apiVersion"]),
            kind: text(&object["kind"]),
            namespace: text(&object["metadata"]["namespace"]),
            name: text(&object["metadata"]["name"]),
        }
    }

    /// Reads one from a status.
    pub fn read(reference: &Value) -> Self {
        let metadata = json!({"name": reference["name"], "namespace": reference["namespace"]});
        Self::of(&json!({
            "apiVersion": reference["apiVersion"], "kind": reference["kind"], "metadata": metadata,
        }))
    }

    /// As a status has it.
    pub fn to_value(&self) -> Value {
        let mut value =
            json!({"apiVersion": self.api_version, "kind": self.kind, "name": self.name});
        if !self.namespace.is_empty() {
            value["namespace"] = json!(self.namespace);
        }
        value
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, namespace, name, .. } = self;
        if namespace.is_empty() {
            write!(f, "{kind} {name}")
        } else {
            write!(f, "{kind} {namespace}/{name}")
        }
    }
}

/// The objects of one shoot.
#[derive(Debug)]
pub struct ShootObjects {
    shoot: Access,
    /// What discovery said of each kind, by apiVersion and kind.
    kinds: BTreeMap<[String; 2], (ApiResource, Scope)>,
}

impl ShootObjects {
    /// The objects behind `shoot`.
    pub fn new(shoot: Access) -> Self {
        Self { shoot, kinds: BTreeMap::new() }
    }

    /// Creates the object, or makes the one that is there the same: labels and
    /// annotations of others stay.
    ///
    /// # Errors
    /// What the API says.
    pub async fn apply(&mut self, object: &Value) -> kube::Result<()> {
        let reference = Reference::of(object);
        let api = self.api(&reference).await?;
        let Some(there) = api.get_opt(&reference.name).await? else {
            let wanted = typed(object.clone())?;
            return match api.create(&PostParams::default(), &wanted).await {
                Err(error) if !is_conflict(&error) => Err(error),
                // Then the next look finds it.
                _ => Ok(()),
            };
        };
        let there = serde_json::to_value(&there).map_err(kube::Error::SerdeError)?;
        let merged = over(&there, object);
        if merged == there {
            return Ok(());
        }
        match api.replace(&reference.name, &PostParams::default(), &typed(merged)?).await {
            Err(kube::Error::Api(status)) if status.code == 422 => {
                if object["metadata"]["annotations"][ANEW] == "true" {
                    self.delete(&reference).await?;
                }
                Err(kube::Error::Api(status))
            }
            Err(error) => Err(error),
            Ok(_) => Ok(()),
        }
    }

    /// Deletes an object and tells whether it is gone.
    ///
    /// # Errors
    /// What the API says.
    pub async fn delete(&mut self, reference: &Reference) -> kube::Result<bool> {
        let api = self.api(reference).await?;
        match api.delete(&reference.name, &DeleteParams::background()).await {
            Err(error) if is_not_found(&error) => Ok(true),
            Err(error) => Err(error),
            Ok(_) => Ok(api.get_opt(&reference.name).await?.is_none()),
        }
    }

    async fn api(&mut self, reference: &Reference) -> kube::Result<Api<DynamicObject>> {
        let key = [reference.api_version.clone(), reference.kind.clone()];
        let (kind, scope) = match self.kinds.get(&key) {
            Some(known) => known.clone(),
            None => {
                let (group, version) = key[0].split_once('/').unwrap_or(("", &key[0]));
                let named = GroupVersionKind::gvk(group, version, &key[1]);
                let (kind, capabilities) = pinned_kind(&self.shoot.client(), &named).await?;
                let found = (kind, capabilities.scope);
                self.kinds.insert(key, found.clone());
                found
            }
        };
        Ok(match scope {
            Scope::Namespaced => {
                Api::namespaced_with(self.shoot.client(), &reference.namespace, &kind)
            }
            Scope::Cluster => Api::all_with(self.shoot.client(), &kind),
        })
    }
}

/// What is there with all that is wanted over it.
fn over(there: &Value, wanted: &Value) -> Value {
    let mut merged = there.clone();
    for (key, value) in wanted.as_object().into_iter().flatten() {
        if key != "metadata" {
            merged[key] = value.clone();
        }
    }
    for kind in ["labels", "annotations"] {
        for (key, value) in wanted["metadata"][kind].as_object().into_iter().flatten() {
            merged["metadata"][kind][key] = value.clone();
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_wrote_beside_it_stays() {
        let there = json!({
            "kind": "ConfigMap", "data": {"old": "1"}, "status": {"x": 1},
            "metadata": {"name": "a", "uid": "u", "labels": {"theirs": "1", "ours": "old"}},
        });
        let wanted = json!({
            "kind": "ConfigMap", "data": {"new": "2"},
            "metadata": {"name": "a", "labels": {"ours": "new"}, "annotations": {"a": "b"}},
        });
        let merged = over(&there, &wanted);
        assert_eq!(merged["data"], json!({"new": "2"}));
        assert_eq!(merged["status"], json!({"x": 1}));
        assert_eq!(merged["metadata"]["uid"], "u");
        assert_eq!(merged["metadata"]["labels"], json!({"theirs": "1", "ours": "new"}));
        assert_eq!(merged["metadata"]["annotations"], json!({"a": "b"}));
        assert_eq!(over(&merged, &wanted), merged);
    }

    #[test]
    fn a_reference_is_read_as_it_was_written() {
        for namespace in [json!("kube-system"), Value::Null] {
            let object = json!({
                "apiVersion": "apps/v1", "kind": "DaemonSet",
                "metadata": {"name": "a", "namespace": namespace},
            });
            let reference = Reference::of(&object);
            assert_eq!(Reference::read(&reference.to_value()), reference);
        }
    }
}
