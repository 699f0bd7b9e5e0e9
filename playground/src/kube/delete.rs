//! DELETE: at once, or when finalizers, a kubelet or a namespace's contents let it.

use std::sync::Arc;

use axum::body::Body;
use http::{Response, StatusCode};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    api::{Api, show},
    failure::{Failure, respond, success},
    kinds::Kind,
    object::{child, finalizers, map, meta, terminating},
    read::selector,
    request::{Form, Request},
    rules,
    store::{Key, Store},
};

impl Api {
    pub(super) fn delete(&self, request: &Request) -> Result<Response<Body>, Failure> {
        let kind = &request.target.kind;
        let key = request.target.key().ok_or_else(Failure::no_such_path)?;
        let options = request.object()?.unwrap_or_default();
        let uid = self.store().get(&key).map(|object| meta(object, "uid").to_owned());
        let object = self.delete_one(kind, &key, &options, request)?;
        let returned = matches!(&*kind.resource, "pods" | "serviceaccounts" | "namespaces");
        let answer = match object {
            Some(object) if returned || self.store().get(&key).is_some() => {
                show(kind, request.form, &object)
            }
            _ => success(kind, &key.name, &uid.unwrap_or_default()),
        };
        Ok(respond(StatusCode::OK, &answer))
    }

    pub(super) fn delete_collection(&self, request: &Request) -> Result<Response<Body>, Failure> {
        let kind = &request.target.kind;
        let selector = selector(request)?;
        let options = request.object()?.unwrap_or_default();
        let keys: Vec<Key> = self
            .store()
            .list(&kind.resource, request.target.namespace.as_deref())
            .filter(|(_, object)| selector.matches(object))
            .map(|(key, _)| key.clone())
            .collect();
        let mut items = Vec::new();
        for key in keys {
            // Another request may have deleted it meanwhile, which is what was asked for.
            if let Ok(Some(object)) = self.delete_one(kind, &key, &options, request) {
                items.push(show(kind, Form::Whole, &object));
            }
        }
        let revision = self.store().revision().to_string();
        let answer = json!({"kind": format!("{}List", kind.kind), "apiVersion": kind.api_version(),
            "metadata": {"resourceVersion": revision}, "items": items});
        Ok(respond(StatusCode::OK, &answer))
    }

    fn delete_one(
        &self,
        kind: &Kind,
        key: &Key,
        options: &Value,
        request: &Request,
    ) -> Result<Option<Arc<Value>>, Failure> {
        let mut store = self.store();
        let old = store.get(key).cloned().ok_or_else(|| Failure::not_found(kind, &key.name))?;
        for (field, name, shown) in
            [("uid", "uid", "UID"), ("resourceVersion", "resourceVersion", "ResourceVersion")]
        {
            if let Some(wanted) = options["preconditions"][field].as_str()
                && wanted != meta(&old, name)
            {
                return Err(rules::precondition(kind, &key.name, shown, wanted, meta(&old, name)));
            }
        }
        let dry_run = request.query.dry_run()
            || options["dryRun"].as_array().is_some_and(|list| !list.is_empty());
        if dry_run {
            return Ok(Some(old));
        }
        let asked = match request.query.number("gracePeriodSeconds")? {
            Some(seconds) => Some(seconds),
            None => options["gracePeriodSeconds"].as_u64(),
        };
        let grace = grace_seconds(kind, &old, asked);
        let waits = grace > 0 || !finalizers(&old).is_empty();
        let now = Timestamp::now();
        if &*kind.resource == "namespaces" {
            return Ok(Some(self.delete_namespace(&mut store, kind, key, &old, now)));
        }
        if !waits {
            return Ok(self.remove(&mut store, key));
        }
        let had = old["metadata"]["deletionGracePeriodSeconds"].as_u64();
        if had.is_some_and(|had| had <= grace) {
            return Ok(Some(old));
        }
        let mut marked = Value::clone(&old);
        if had.is_some() {
            map(child(&mut marked, "metadata"))
                .insert("deletionGracePeriodSeconds".to_owned(), json!(grace));
        } else {
            rules::deleted(kind, &mut marked, grace, now);
        }
        Ok(Some(self.put(&mut store, key.clone(), marked)))
    }

    /// Plays the namespace controller: the contents go, and the namespace after them.
    fn delete_namespace(
        &self,
        store: &mut Store,
        kind: &Kind,
        key: &Key,
        old: &Arc<Value>,
        now: Timestamp,
    ) -> Arc<Value> {
        let mut marked = Arc::clone(old);
        if !terminating(old) {
            let mut new = Value::clone(old);
            rules::deleted(kind, &mut new, 0, now);
            new["status"]["phase"] = json!("Terminating");
            marked = self.put(store, key.clone(), new);
        }
        let kinds = self.kinds();
        for inner in store.keys_in(&key.name) {
            let Some(object) = store.get(&inner).cloned() else { continue };
            if finalizers(&object).is_empty() {
                self.remove(store, &inner);
            } else if let (false, Some(kind)) =
                (terminating(&object), kinds.stored(&inner.resource))
            {
                let mut object = Value::clone(&object);
                rules::deleted(&kind, &mut object, 0, now);
                self.put(store, inner, object);
            }
        }
        self.finish_namespace(store, &key.name);
        marked
    }
}

/// A Pod on a node ends when its kubelet says so, by a second deletion with no grace.
fn grace_seconds(kind: &Kind, object: &Value, asked: Option<u64>) -> u64 {
    let ended = matches!(object["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    if &*kind.resource != "pods" || ended || !object["spec"]["nodeName"].is_string() {
        return 0;
    }
    asked.unwrap_or_else(|| object["spec"]["terminationGracePeriodSeconds"].as_u64().unwrap_or(30))
}
