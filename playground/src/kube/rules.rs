//! What becomes of an object on its way into the store: names, metadata that only
//! the server writes, generation, and the border between spec and status.
//!
//! Pure functions: time and randomness are arguments.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::{
    failure::Failure,
    kinds::{CRD_GROUP, Kind, Names},
    object::{child, finalizers, map, meta, meta_mut, set, terminating, time},
    schema,
};

/// Which part of an object a write is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Main,
    Status,
}

/// Makes a new object ready for the store.
///
/// # Errors
/// The object is not one of this kind, or its name or fields are wrong.
pub(super) fn created(
    kind: &Kind,
    namespace: &str,
    mut object: Value,
    uid: &str,
    now: Timestamp,
) -> Result<Value, Failure> {
    belongs(kind, namespace, &object)?;
    if !meta(&object, "resourceVersion").is_empty() {
        return Err(Failure::bad_request(
            "resourceVersion should not be set on objects to be created",
        ));
    }
    if meta(&object, "name").is_empty() && !meta(&object, "generateName").is_empty() {
        let name = format!("{}{}", meta(&object, "generateName"), suffix(uid));
        meta_mut(&mut object).insert("name".to_owned(), Value::String(name));
    }
    check_name(kind, &object)?;
    let metadata = meta_mut(&mut object);
    for field in [
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "managedFields",
        "selfLink",
        "generation",
    ] {
        metadata.remove(field);
    }
    metadata.insert("uid".to_owned(), json!(uid));
    metadata.insert("creationTimestamp".to_owned(), json!(time(now)));
    if kind.namespaced {
        metadata.insert("namespace".to_owned(), json!(namespace));
    } else {
        metadata.remove("namespace");
    }
    if kind.generation {
        metadata.insert("generation".to_owned(), json!(1));
    }
    // A Node's kubelet registers it with its status; no one else's status comes with the object.
    if kind.status && &*kind.resource != "nodes" {
        map(&mut object).remove("status");
    }
    leave_out_empty(&mut object);
    fill(kind, &mut object, now);
    checked(kind, object)
}

/// What an object becomes by an update of one of its parts.
///
/// # Errors
/// The update is of an older version or another object, or its fields are wrong.
pub(super) fn updated(
    kind: &Kind,
    old: &Value,
    mut new: Value,
    part: Part,
) -> Result<Value, Failure> {
    belongs(kind, meta(old, "namespace"), &new)?;
    let name = meta(old, "name");
    let version = meta(&new, "resourceVersion");
    if !version.is_empty() && version != meta(old, "resourceVersion") {
        return Err(Failure::conflict(
            kind,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        ));
    }
    let uid = meta(&new, "uid");
    if !uid.is_empty() && uid != meta(old, "uid") {
        return Err(precondition(kind, name, "UID", uid, meta(old, "uid")));
    }
    if part == Part::Status {
        let status = new.get("status").cloned();
        new = old.clone();
        set(map(&mut new), "status", status);
        return checked(kind, new);
    }
    if kind.status {
        set(map(&mut new), "status", old.get("status").cloned());
    }
    let metadata = meta_mut(&mut new);
    for field in [
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
        "resourceVersion",
        "generateName",
        "namespace",
        "name",
    ] {
        set(metadata, field, old["metadata"].get(field).cloned());
    }
    metadata.remove("managedFields");
    if terminating(old) {
        let had = finalizers(old);
        let added: Vec<_> =
            finalizers(&new).into_iter().filter(|name| !had.contains(name)).collect();
        if !added.is_empty() {
            let why = format!(
                "Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers {added:?}"
            );
            return Err(Failure::invalid(
                kind,
                name,
                vec![("metadata.finalizers".to_owned(), why)],
            ));
        }
    }
    leave_out_empty(&mut new);
    normalize(kind, &mut new);
    let mut new = checked(kind, new)?;
    if kind.generation && body(kind, old) != body(kind, &new) {
        raise_generation(&mut new);
    }
    Ok(new)
}

/// Lists and maps of the metadata with nothing in them are not there.
fn leave_out_empty(object: &mut Value) {
    let metadata = meta_mut(object);
    for field in ["annotations", "finalizers", "labels", "ownerReferences"] {
        let value = metadata.get(field);
        let is_empty = value.is_some_and(|value| match value {
            Value::Array(list) => list.is_empty(),
            Value::Object(fields) => fields.is_empty(),
            Value::Null => true,
            Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
        });
        if is_empty {
            metadata.remove(field);
        }
    }
}

/// Marks an object for deletion; it counts as a change of what is wanted.
pub(super) fn deleted(kind: &Kind, object: &mut Value, grace_seconds: u64, now: Timestamp) {
    let metadata = meta_mut(object);
    metadata.insert("deletionTimestamp".to_owned(), json!(time(now)));
    metadata.insert("deletionGracePeriodSeconds".to_owned(), json!(grace_seconds));
    if kind.generation {
        raise_generation(object);
    }
}

/// A deletion or update meant another object than the one that is there.
pub(super) fn precondition(
    kind: &Kind,
    name: &str,
    field: &str,
    asked: &str,
    found: &str,
) -> Failure {
    let why = format!(
        "Precondition failed: {field} in precondition: {asked}, {field} in object meta: {found}"
    );
    Failure::conflict(kind, name, &why)
}

fn raise_generation(object: &mut Value) {
    let generation = object["metadata"]["generation"].as_u64().unwrap_or_default();
    meta_mut(object).insert("generation".to_owned(), json!(generation + 1));
}

/// What generation counts: all but metadata, and but the status where it is apart.
fn body(kind: &Kind, object: &Value) -> Map<String, Value> {
    let mut body = object.as_object().cloned().unwrap_or_default();
    body.remove("metadata");
    if kind.status {
        body.remove("status");
    }
    body
}

fn belongs(kind: &Kind, namespace: &str, object: &Value) -> Result<(), Failure> {
    let (api_version, found) = (object["apiVersion"].as_str(), object["kind"].as_str());
    // Built-in kinds may leave their name out, the path says it.
    let api_version = api_version.unwrap_or_default();
    let found = found.unwrap_or_default();
    if (!found.is_empty() && found != kind.kind)
        || (!api_version.is_empty() && api_version != kind.api_version())
        || (kind.custom() && (found.is_empty() || api_version.is_empty()))
    {
        return Err(Failure::bad_request(format!(
            "the object provided is unrecognized: it is of {api_version:?} kind {found:?}, expected {:?} kind {:?}",
            kind.api_version(),
            kind.kind
        )));
    }
    let stated = meta(object, "namespace");
    if !stated.is_empty() && stated != namespace {
        return Err(Failure::bad_request(format!(
            "the namespace of the provided object does not match the namespace sent on the request: {stated:?}, {namespace:?}"
        )));
    }
    Ok(())
}

fn check_name(kind: &Kind, object: &Value) -> Result<(), Failure> {
    let name = meta(object, "name");
    let field = || "metadata.name".to_owned();
    if name.is_empty() {
        let why = "Required value: name or generateName is required".to_owned();
        return Err(Failure::invalid(kind, name, vec![(field(), why)]));
    }
    let edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let label = |part: &str| {
        part.starts_with(edge) && part.ends_with(edge) && part.chars().all(|c| edge(c) || c == '-')
    };
    let (good, rule) = match kind.names {
        Names::Label => (
            name.len() <= 63 && label(name),
            "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character",
        ),
        Names::Subdomain => (
            name.len() <= 253 && name.split('.').all(label),
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character",
        ),
        Names::Path => (
            name != "." && name != ".." && !name.contains(['/', '%']),
            "may not be '.' or '..' and may not contain '/' or '%'",
        ),
    };
    if good {
        return Ok(());
    }
    Err(Failure::invalid(kind, name, vec![(field(), format!("Invalid value: {name:?}: {rule}"))]))
}

/// Prunes and checks by the CRD's schema, and names the kind in the object.
fn checked(kind: &Kind, mut object: Value) -> Result<Value, Failure> {
    let fields = map(&mut object);
    fields.insert("apiVersion".to_owned(), json!(kind.api_version()));
    fields.insert("kind".to_owned(), json!(kind.kind));
    if let Some(schema) = &kind.schema {
        let unknown = schema::shape(schema, &mut object);
        if !unknown.is_empty() {
            tracing::debug!(
                kind = kind.kind,
                ?unknown,
                "fields that the schema does not know are dropped"
            );
        }
        let problems = schema::problems(schema, &object);
        if !problems.is_empty() {
            return Err(Failure::invalid(kind, meta(&object, "name"), problems));
        }
    }
    Ok(object)
}

/// What the server fills in for some kinds, as far as clients rely on it.
fn fill(kind: &Kind, object: &mut Value, now: Timestamp) {
    normalize(kind, object);
    match &*kind.resource {
        "namespaces" => {
            let name = meta(object, "name").to_owned();
            map(child(child(object, "metadata"), "labels"))
                .insert("kubernetes.io/metadata.name".to_owned(), json!(name));
            map(child(object, "spec")).insert("finalizers".to_owned(), json!(["kubernetes"]));
            map(object).insert("status".to_owned(), json!({"phase": "Active"}));
        }
        "pods" => {
            map(object)
                .insert("status".to_owned(), json!({"phase": "Pending", "qosClass": "BestEffort"}));
            let spec = map(child(object, "spec"));
            for (field, value) in [
                ("restartPolicy", json!("Always")),
                ("terminationGracePeriodSeconds", json!(30)),
                ("dnsPolicy", json!("ClusterFirst")),
            ] {
                spec.entry(field).or_insert(value);
            }
        }
        "daemonsets.apps" => {
            map(object).insert(
                "status".to_owned(),
                json!({"currentNumberScheduled": 0, "desiredNumberScheduled": 0, "numberMisscheduled": 0, "numberReady": 0}),
            );
        }
        crds if crds.ends_with(CRD_GROUP) => {
            let condition = |kind: &str, reason: &str, message: &str| json!({"type": kind, "status": "True", "lastTransitionTime": time(now), "reason": reason, "message": message});
            let status = json!({
                "acceptedNames": object["spec"]["names"],
                "storedVersions": object["spec"]["versions"].as_array().into_iter().flatten()
                    .filter(|version| version["storage"] == true)
                    .map(|version| version["name"].clone()).collect::<Vec<_>>(),
                "conditions": [
                    condition("NamesAccepted", "NoConflicts", "no conflicts found"),
                    condition("Established", "InitialNamesAccepted", "the initial names have been accepted"),
                ],
            });
            map(object).insert("status".to_owned(), status);
        }
        _ => {}
    }
}

/// Write-only fields and defaults that hold for updates too.
fn normalize(kind: &Kind, object: &mut Value) {
    if &*kind.resource != "secrets" {
        return;
    }
    use base64::{Engine as _, prelude::BASE64_STANDARD};
    let fields = map(object);
    fields.entry("type").or_insert_with(|| json!("Opaque"));
    if let Some(Value::Object(texts)) = fields.remove("stringData") {
        let data = map(fields.entry("data").or_insert(Value::Null));
        for (key, text) in texts {
            let text = text.as_str().unwrap_or_default();
            data.insert(key, json!(BASE64_STANDARD.encode(text)));
        }
    }
}

/// Five characters, as names generated by the server end.
fn suffix(uid: &str) -> String {
    // The alphabet leaves out vowels and digits that look like them, so that no words come out.
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    uid.bytes()
        .filter(u8::is_ascii_hexdigit)
        .collect::<Vec<_>>()
        .chunks(2)
        .take(5)
        .map(|pair| {
            let number = pair.iter().fold(0_usize, |sum, byte| sum * 16 + usize::from(byte % 32));
            char::from(ALPHABET[number % ALPHABET.len()])
        })
        .collect()
}

#[cfg(test)]
mod tests;
