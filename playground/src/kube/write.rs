//! POST, PUT and PATCH: each one look and one change under the store's lock.

use std::sync::Arc;

use axum::body::Body;
use http::{Response, StatusCode};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    api::{Api, show},
    events,
    failure::{Failure, respond},
    kinds::{CRD_GROUP, Kind},
    object::{child, finalizers, map, meta, terminating},
    patch::Patch,
    request::Request,
    rules::{self, Part},
    schema,
    store::{Key, Store},
    tls,
};

impl Api {
    pub(super) fn create(&self, request: &Request) -> Result<Response<Body>, Failure> {
        let object = request.object()?.ok_or_else(|| Failure::bad_request("the body is empty"))?;
        check_fields(request, &object)?;
        let object = self.insert(
            &request.target.kind,
            request.target.namespace.as_deref(),
            object,
            request.query.dry_run(),
        )?;
        Ok(respond(StatusCode::CREATED, &show(&request.target.kind, request.form, &object)))
    }

    /// Stores a new object.
    ///
    /// # Errors
    /// It is there already, its namespace is not, or it is not well formed.
    pub(super) fn insert(
        &self,
        kind: &Arc<Kind>,
        namespace: Option<&str>,
        object: Value,
        dry_run: bool,
    ) -> Result<Arc<Value>, Failure> {
        if kind.namespaced && namespace.is_none() {
            return Err(Failure::method_not_allowed());
        }
        let stored_kind = self.stored_kind(kind);
        let mut store = self.store();
        let namespace = namespace.unwrap_or_default();
        if kind.namespaced {
            self.check_namespace(&store, kind, namespace)?;
        }
        let object = events::to_store(kind, object);
        let object =
            rules::created(&stored_kind, namespace, object, &tls::uuid(), Timestamp::now())?;
        let key = Key {
            resource: Arc::clone(&kind.resource),
            namespace: namespace.to_owned(),
            name: meta(&object, "name").to_owned(),
        };
        if store.get(&key).is_some() {
            return Err(Failure::already_exists(kind, &key.name));
        }
        Ok(if dry_run { Arc::new(object) } else { self.put(&mut store, key, object) })
    }

    fn check_namespace(&self, store: &Store, kind: &Kind, namespace: &str) -> Result<(), Failure> {
        let found = store.get(&namespace_key(namespace));
        match found {
            None => {
                let kinds = self.kinds();
                let namespaces = kinds.stored("namespaces");
                Err(namespaces.map_or_else(Failure::no_such_path, |kind| {
                    Failure::not_found(&kind, namespace)
                }))
            }
            Some(found) if terminating(found) => Err(Failure::forbidden(format!(
                "{} is forbidden: unable to create new content in namespace {namespace} because it is being terminated",
                kind.resource
            ))),
            Some(_) => Ok(()),
        }
    }

    pub(super) fn update(&self, request: &Request) -> Result<Response<Body>, Failure> {
        let kind = &request.target.kind;
        let key = request.target.key().ok_or_else(Failure::no_such_path)?;
        let new = request.object()?.ok_or_else(|| Failure::bad_request("the body is empty"))?;
        let name = meta(&new, "name");
        if name != key.name {
            return Err(Failure::bad_request(format!(
                "the name of the object ({name}) does not match the name on the URL ({})",
                key.name
            )));
        }
        let object = self.change(request, key, |_| {
            if !kind.unconditional && meta(&new, "resourceVersion").is_empty() {
                let why = "Invalid value: 0: must be specified for an update".to_owned();
                let field = "metadata.resourceVersion".to_owned();
                return Err(Failure::invalid(kind, meta(&new, "name"), vec![(field, why)]));
            }
            Ok(new)
        })?;
        Ok(respond(StatusCode::OK, &show(kind, request.form, &object)))
    }

    pub(super) fn patch(&self, request: &Request) -> Result<Response<Body>, Failure> {
        let kind = &request.target.kind;
        let key = request.target.key().ok_or_else(Failure::no_such_path)?;
        let patch = read_patch(request)?;
        if let Patch::Apply(object) = &patch {
            if request.query.get("fieldManager").is_empty() {
                return Err(Failure::bad_request("fieldManager is required for apply patch"));
            }
            if self.store().get(&key).is_none() && request.target.subresource.is_none() {
                check_fields(request, object)?;
                let mut object = object.clone();
                map(child(&mut object, "metadata")).insert("name".to_owned(), json!(key.name));
                let namespace = request.target.namespace.as_deref();
                let object = self.insert(kind, namespace, object, request.query.dry_run())?;
                return Ok(respond(StatusCode::CREATED, &show(kind, request.form, &object)));
            }
        }
        let object = self.change(request, key.clone(), |old| {
            patch.apply(old).map_err(|why| {
                Failure::invalid(
                    kind,
                    &key.name,
                    vec![("patch".to_owned(), format!("Invalid value: {why}"))],
                )
            })
        })?;
        Ok(respond(StatusCode::OK, &show(kind, request.form, &object)))
    }

    /// Replaces an object by what `new` makes of it. A change of nothing is none.
    fn change(
        &self,
        request: &Request,
        key: Key,
        new: impl FnOnce(&Value) -> Result<Value, Failure>,
    ) -> Result<Arc<Value>, Failure> {
        let kind = &request.target.kind;
        let part = if request.target.subresource.is_some() { Part::Status } else { Part::Main };
        let stored_kind = self.stored_kind(kind);
        let mut store = self.store();
        let old = store.get(&key).cloned().ok_or_else(|| Failure::not_found(kind, &key.name))?;
        let new = new(&events::from_store(kind, Value::clone(&old)))?;
        check_fields(request, &new)?;
        let new = rules::updated(&stored_kind, &old, events::to_store(kind, new), part)?;
        if new == *old || request.query.dry_run() {
            return Ok(if new == *old { old } else { Arc::new(new) });
        }
        if released(&new) {
            self.remove(&mut store, &key);
            return Ok(Arc::new(new));
        }
        Ok(self.put(&mut store, key, new))
    }

    pub(super) fn put(&self, store: &mut Store, key: Key, object: Value) -> Arc<Value> {
        let defines_kinds = key.resource.ends_with(CRD_GROUP);
        let object = store.put(key, object);
        self.told(store, defines_kinds);
        object
    }

    pub(super) fn remove(&self, store: &mut Store, key: &Key) -> Option<Arc<Value>> {
        let removed = store.remove(key);
        self.told(store, key.resource.ends_with(CRD_GROUP));
        if !key.namespace.is_empty() {
            self.finish_namespace(store, &key.namespace);
        }
        removed
    }

    pub(super) fn finish_namespace(&self, store: &mut Store, namespace: &str) {
        let key = namespace_key(namespace);
        if store.get(&key).is_some_and(|object| terminating(object)) && !store.occupied(namespace) {
            self.remove(store, &key);
        }
    }

    fn told(&self, store: &Store, defines_kinds: bool) {
        if defines_kinds {
            self.learn_kinds(store);
        }
        self.revision.send_replace(store.revision());
    }
}

pub(super) fn namespace_key(name: &str) -> Key {
    Key { resource: "namespaces".into(), namespace: String::new(), name: name.to_owned() }
}

/// A deleted object that nothing holds back any more.
fn released(object: &Value) -> bool {
    terminating(object)
        && finalizers(object).is_empty()
        && object["metadata"]["deletionGracePeriodSeconds"].as_u64().unwrap_or_default() == 0
}

/// `fieldValidation=Strict`, which kubectl asks for: a field that the schema does not know is
/// a mistake. Otherwise it is dropped.
fn check_fields(request: &Request, object: &Value) -> Result<(), Failure> {
    let kind = &request.target.kind;
    let Some(schema) = &kind.schema else { return Ok(()) };
    if request.query.get("fieldValidation") != "Strict" {
        return Ok(());
    }
    let unknown = schema::shape(schema, &mut object.clone());
    if unknown.is_empty() {
        return Ok(());
    }
    let list: Vec<_> = unknown.iter().map(|path| format!("unknown field {path:?}")).collect();
    Err(Failure::bad_request(format!(
        "{} in version {:?} cannot be handled as a {}: strict decoding error: {}",
        kind.kind,
        kind.version,
        kind.kind,
        list.join(", ")
    )))
}

fn read_patch(request: &Request) -> Result<Patch, Failure> {
    let bad =
        |error: serde_json::Error| Failure::bad_request(format!("error decoding patch: {error}"));
    let object = || -> Result<Value, Failure> {
        let value: Value = serde_json::from_slice(&request.body).map_err(bad)?;
        if value.is_object() {
            Ok(value)
        } else {
            Err(Failure::bad_request("the patch is no object"))
        }
    };
    Ok(match request.content_type.as_str() {
        "application/merge-patch+json" => Patch::Merge(object()?),
        "application/json-patch+json" => {
            Patch::Json(serde_json::from_slice(&request.body).map_err(bad)?)
        }
        "application/strategic-merge-patch+json" if !request.target.kind.custom() => {
            Patch::Strategic(object()?)
        }
        "application/apply-patch+yaml" => Patch::Apply(object()?),
        other => return Err(Failure::unsupported_media_type(other)),
    })
}
