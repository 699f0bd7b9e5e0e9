//! Objects for a shoot as Gardener's resource manager takes them: an immutable
//! Secret that is named by its content, and the ManagedResource that names it.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::ObjectMeta;
use rootstock_core::digest::Digest;
use serde_json::Value;

use crate::api::{ManagedResource, ManagedResourceSpec, SecretRef};

/// By this label the resource manager collects a Secret that nothing names any more.
pub(super) const COLLECTABLE: &str = "resources.gardener.cloud/garbage-collectable-reference";
/// An annotation that begins so keeps the Secret that it names from being collected.
pub(super) const REFERENCE: &str = "reference.resources.gardener.cloud/";
/// The key below which the objects are, the one that Gardener's charts use.
const DATA_KEY: &str = "config.yaml";
/// Objects with this label outlive Gardener's sweep of a shoot that is
/// deleted: their ManagedResource takes them away.
const NO_CLEANUP: &str = "shoot.gardener.cloud/no-cleanup";
/// How many hex digits of a digest Gardener puts in names and keys.
const SHORT: usize = 8;

/// A ManagedResource and its Secret, as they should be.
#[derive(Clone, Debug)]
pub(super) struct Package {
    pub(super) secret: Secret,
    pub(super) resource: ManagedResource,
}

impl Package {
    /// Packs objects, in the order in which they are given.
    pub(super) fn new(namespace: &str, name: &str, objects: &[Value]) -> Self {
        let data = BTreeMap::from([(DATA_KEY.to_owned(), ByteString(text(objects).into_bytes()))]);
        let secret_name = format!("managedresource-{name}-{}", checksum(&data));
        let metadata = |name: &str| ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(namespace.to_owned()),
            ..ObjectMeta::default()
        };
        let secret = Secret {
            metadata: ObjectMeta {
                labels: Some([(COLLECTABLE.to_owned(), "true".to_owned())].into()),
                ..metadata(&secret_name)
            },
            type_: Some("Opaque".to_owned()),
            immutable: Some(true),
            data: Some(data),
            ..Secret::default()
        };
        let resource = ManagedResource {
            metadata: ObjectMeta {
                labels: Some([("origin".to_owned(), name.to_owned())].into()),
                annotations: Some([(reference_key(&secret_name), secret_name.clone())].into()),
                ..metadata(name)
            },
            spec: ManagedResourceSpec {
                class: None,
                secret_refs: vec![SecretRef { name: secret_name }],
                inject_labels: Some([(NO_CLEANUP.to_owned(), "true".to_owned())].into()),
                keep_objects: Some(false),
            },
            status: None,
        };
        Self { secret, resource }
    }

    /// The Secret's name.
    pub(super) fn secret_name(&self) -> &str {
        self.secret.metadata.name.as_deref().unwrap_or_default()
    }

    /// The ManagedResource's name.
    pub(super) fn name(&self) -> &str {
        self.resource.metadata.name.as_deref().unwrap_or_default()
    }
}

/// The annotation's key by which a Secret of this name is kept.
pub(super) fn reference_key(secret: &str) -> String {
    format!("{REFERENCE}secret-{}", &Digest::of(secret.as_bytes()).hex()[..SHORT])
}

/// What Gardener puts behind the name of a Secret with this data: the digests
/// of the values in their keys' order, and of these the digest.
fn checksum(data: &BTreeMap<String, ByteString>) -> String {
    let digests: String = data.values().map(|value| Digest::of(&value.0).hex()).collect();
    Digest::of(digests.as_bytes()).hex()[..SHORT].to_owned()
}

/// The objects as YAML documents, each of which is JSON.
///
/// The text begins with a separator: without one the resource manager takes
/// it for plain JSON and stops at the first.
fn text(objects: &[Value]) -> String {
    objects.iter().map(|object| format!("---\n{}\n", sorted(object))).collect()
}

/// The same with every map's keys in order, so that equal objects are equal
/// texts however serde_json was built.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let ordered: BTreeMap<_, _> = map.iter().map(|(k, v)| (k.clone(), sorted(v))).collect();
            ordered.into_iter().collect()
        }
        Value::Array(items) => items.iter().map(sorted).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

/// The objects in a Secret of a ManagedResource, whoever wrote it. What can't
/// be read is named by its key.
pub(super) fn objects_of(secret: &Secret) -> Result<Vec<Value>, String> {
    let mut objects = Vec::new();
    for (key, value) in secret.data.iter().flatten() {
        // Brotli, by which Gardener packs the largest of its own.
        let plain = std::str::from_utf8(&value.0).ok().filter(|_| !key.ends_with(".br"));
        let documents = plain.and_then(|text| serde_saphyr::from_multiple::<Value>(text).ok());
        objects.extend(documents.ok_or_else(|| key.clone())?);
    }
    objects.retain(|object| !object.is_null());
    Ok(objects)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn data(pairs: &[(&str, &str)]) -> BTreeMap<String, ByteString> {
        let owned = |(key, value): &(&str, &str)| {
            ((*key).to_owned(), ByteString(value.as_bytes().to_vec()))
        };
        pairs.iter().map(owned).collect()
    }

    /// Vectors of Gardener's own functions, computed with sha256sum.
    #[test]
    fn names_and_keys_are_gardeners() {
        // printf %s "$(printf foo | sha256sum | cut -c-64)" | sha256sum
        assert_eq!(checksum(&data(&[("a", "foo")])), "50522102");
        // The digests of "foo" and "bar" in the order of their keys.
        assert_eq!(checksum(&data(&[("b", "bar"), ("a", "foo")])), "ec321de5");
        assert_eq!(
            reference_key("managedresource-extension-runtime-gvisor-c7ade88f"),
            "reference.resources.gardener.cloud/secret-0bcc3889"
        );
    }

    #[test]
    fn a_package_has_what_gardener_writes() {
        let object =
            json!({"kind": "B", "apiVersion": "v1", "data": {"z": 1, "a": [{"y": 1, "b": 2}]}});
        let package = Package::new("shoot--garden--one", "extension-runtime-gvisor", &[object]);
        let secret = serde_json::to_value(&package.secret).unwrap();
        let text = package.secret.data.as_ref().unwrap()["config.yaml"].0.clone();
        let text = String::from_utf8(text).unwrap();
        assert_eq!(
            text,
            "---\n{\"apiVersion\":\"v1\",\"data\":{\"a\":[{\"b\":2,\"y\":1}],\"z\":1},\"kind\":\"B\"}\n"
        );
        let name = package.secret_name();
        assert!(name.starts_with("managedresource-extension-runtime-gvisor-"), "{name}");
        assert_eq!(secret["immutable"], true);
        assert_eq!(secret["type"], "Opaque");
        assert_eq!(secret["metadata"]["labels"], json!({COLLECTABLE: "true"}));
        let resource = serde_json::to_value(&package.resource).unwrap();
        assert_eq!(resource["metadata"]["labels"], json!({"origin": "extension-runtime-gvisor"}));
        assert_eq!(resource["metadata"]["annotations"], json!({reference_key(name): name}));
        assert_eq!(
            resource["spec"],
            json!({
                "secretRefs": [{"name": name}], "keepObjects": false,
                "injectLabels": {"shoot.gardener.cloud/no-cleanup": "true"},
            })
        );
        assert_eq!(objects_of(&package.secret).unwrap().len(), 1);
    }

    #[test]
    fn a_charts_secret_is_read_too() {
        let text = "---\n# Source: gvisor/templates/runtimeclass.yaml\n\
                    apiVersion: node.k8s.io/v1\nkind: RuntimeClass\nmetadata:\n  name: gvisor\n\
                    handler: runsc\n---\n# empty\n---\napiVersion: v1\nkind: ServiceAccount\n\
                    metadata:\n  name: gvisor\n  namespace: kube-system\n";
        let secret = |key: &str| Secret { data: Some(data(&[(key, text)])), ..Secret::default() };
        let objects = objects_of(&secret("config.yaml")).unwrap();
        let kinds: Vec<_> = objects.iter().map(|object| object["kind"].clone()).collect();
        assert_eq!(kinds, ["RuntimeClass", "ServiceAccount"]);
        assert_eq!(objects_of(&secret("config.yaml.br")), Err("config.yaml.br".to_owned()));
    }
}
