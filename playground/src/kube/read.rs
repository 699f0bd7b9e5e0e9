//! GET of one object and of lists.

use std::sync::Arc;

use axum::body::Body;
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::{
    api::{Api, show},
    events,
    failure::{Failure, respond},
    request::{Form, Request},
    selectors::Selector,
    store::Key,
    table,
};

impl Api {
    pub(super) fn get(&self, request: &Request) -> Result<Response<Body>, Failure> {
        let kind = &request.target.kind;
        let key = request.target.key().ok_or_else(Failure::no_such_path)?;
        let object = self.store().get(&key).cloned();
        let object = object.ok_or_else(|| Failure::not_found(kind, &key.name))?;
        Ok(respond(StatusCode::OK, &show(kind, request.form, &object)))
    }

    pub(super) fn list(&self, request: &Request) -> Result<Response<Body>, Failure> {
        let kind = &request.target.kind;
        let selector = selector(request)?;
        let limit = request.query.number("limit")?.filter(|limit| *limit > 0);
        let asked = request.query.number("resourceVersion")?.unwrap_or_default();
        let token = request.query.get("continue");
        let start = (!token.is_empty()).then(|| read_continue(token)).transpose()?;

        let store = self.store();
        if asked > store.revision() {
            return Err(Failure::too_large_version(asked, store.revision()));
        }
        if let Some((revision, _)) = &start
            && *revision < store.oldest()
        {
            return Err(Failure::expired(
                "The provided continue parameter is too old to display a consistent list result.",
            ));
        }
        // A continued list tells the revision of its first page, so that a watch from there
        // misses nothing that changed between pages.
        let revision = start.as_ref().map_or_else(|| store.revision(), |(revision, _)| *revision);
        let mut matching = store
            .list(&kind.resource, request.target.namespace.as_deref())
            .filter(|(key, _)| {
                start
                    .as_ref()
                    .is_none_or(|(_, last)| (&key.namespace, &key.name) > (&last.0, &last.1))
            })
            .filter(|(_, object)| selector.matches(&events_view(request, object)));
        let limit = limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
        let page: Vec<(&Key, &Arc<Value>)> = matching.by_ref().take(limit).collect();
        let remaining = matching.count();
        let mut metadata = json!({"resourceVersion": revision.to_string()});
        if let (true, Some((last, _))) = (remaining > 0, page.last()) {
            metadata["continue"] = json!(write_continue(revision, last));
            metadata["remainingItemCount"] = json!(remaining);
        }
        let objects: Vec<_> = page.into_iter().map(|(_, object)| Arc::clone(object)).collect();
        drop(store);

        let answer = match request.form {
            Form::Table { whole } => table::table(&kind.columns, &objects, &metadata, whole, true),
            Form::Partial => {
                let items: Vec<_> = objects.iter().map(|object| table::partial(object)).collect();
                // The real server has no empty list in this form, but none.
                let items = (!items.is_empty()).then_some(items);
                json!({"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": metadata, "items": items})
            }
            Form::Whole => {
                let items: Vec<_> = objects
                    .iter()
                    .map(|object| events::from_store(kind, Value::clone(object)))
                    .collect();
                json!({"kind": format!("{}List", kind.kind), "apiVersion": kind.api_version(), "metadata": metadata, "items": items})
            }
        };
        Ok(respond(StatusCode::OK, &answer))
    }
}

/// What a list, watch or deletion of many selects.
pub(super) fn selector(request: &Request) -> Result<Selector, Failure> {
    let mut fields = request.query.get("fieldSelector").to_owned();
    if let Some(name) = &request.target.name {
        fields = format!("metadata.name={name}");
    }
    Selector::parse(request.query.get("labelSelector"), &fields).map_err(Failure::bad_request)
}

/// Field selectors of Events use the names of the request's version.
fn events_view<'a>(request: &Request, object: &'a Arc<Value>) -> std::borrow::Cow<'a, Value> {
    if request.target.kind.group == super::kinds::EVENTS_GROUP {
        std::borrow::Cow::Owned(events::from_store(&request.target.kind, Value::clone(object)))
    } else {
        std::borrow::Cow::Borrowed(object)
    }
}

fn write_continue(revision: u64, last: &Key) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(json!([revision, last.namespace, last.name]).to_string())
}

fn read_continue(token: &str) -> Result<(u64, (String, String)), Failure> {
    let read = || {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(token).ok()?;
        let (revision, namespace, name) = serde_json::from_slice(&bytes).ok()?;
        Some((revision, (namespace, name)))
    };
    read().ok_or_else(|| Failure::bad_request("continue key is not valid"))
}
