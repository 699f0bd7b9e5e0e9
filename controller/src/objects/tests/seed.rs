//! A seed's API that keeps Secrets and ManagedResources and writes down what
//! it was asked.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::scripted::{self, Call, merge, refusal};

pub(super) const NAMESPACE: &str = "shoot--garden--one";

/// What somebody else does just before a request is answered.
type Meanwhile = Box<dyn FnOnce(&mut State) + Send>;

#[derive(Default)]
pub(super) struct State {
    /// By `secrets/<name>` or `managedresources/<name>`.
    pub(super) objects: BTreeMap<String, Value>,
    asked: Vec<String>,
    meanwhile: VecDeque<(String, Meanwhile)>,
    /// Kinds that are not served, by their plural.
    pub(super) unknown: Vec<&'static str>,
    versions: u64,
}

#[derive(Clone, Default)]
pub(super) struct Seed(Arc<Mutex<State>>);

impl Seed {
    pub(super) fn client(&self) -> kube::Client {
        let seed = self.clone();
        scripted::client(move |call| seed.answer(call)).0
    }

    /// What was asked since the last look: `GET secrets/x`.
    pub(super) fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap().asked)
    }

    pub(super) fn object(&self, path: &str) -> Option<Value> {
        self.0.lock().unwrap().objects.get(path).cloned()
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.0.lock().unwrap());
    }

    /// Does something just before the next such request is answered.
    pub(super) fn before(&self, request: &str, change: impl FnOnce(&mut State) + Send + 'static) {
        self.0.lock().unwrap().meanwhile.push_back((request.to_owned(), Box::new(change)));
    }

    fn answer(&self, call: &Call) -> (u16, Value) {
        let mut state = self.0.lock().unwrap();
        let (method, sent) = (call.method.as_str(), call.body.clone());
        let short = short(&call.path, &sent);
        let asked = format!("{method} {short}");
        let due = state.meanwhile.iter().position(|(request, _)| *request == asked);
        if let Some((_, change)) = due.and_then(|due| state.meanwhile.remove(due)) {
            change(&mut state);
        }
        if short == "secrets" && method == "GET" {
            state.asked.push(asked);
            let label = |object: &Value| object["metadata"]["labels"]["manager-identity"].clone();
            let ours = state.objects.iter().filter(|(path, object)| {
                path.starts_with("secrets/") && label(object) == "rootstock"
            });
            let items: Vec<_> = ours.map(|(_, object)| object.clone()).collect();
            return ok(
                json!({"apiVersion": "v1", "kind": "SecretList", "metadata": {}, "items": items}),
            );
        }
        if !short.contains('/') {
            // The look for another extension's installers; here there are none.
            return ok(json!({"metadata": {}, "items": []}));
        }
        state.asked.push(asked);
        if state.unknown.iter().any(|kind| short.starts_with(&format!("{kind}/"))) {
            // No object is named.
            return refusal(404, "NotFound");
        }
        match method {
            "GET" => state.objects.get(&short).cloned().map_or_else(|| failure(404), ok),
            "PUT" => state.replace(&short, sent),
            "POST" => state.create(&short, sent),
            "PATCH" => state.patch(&short, &sent),
            "DELETE" => state.delete(&short, &sent),
            _ => failure(405),
        }
    }
}

/// `secrets/x` from the path, or from what is to be made below it.
fn short(path: &str, sent: &Value) -> String {
    let (_, path) = path.split_once(&format!("/namespaces/{NAMESPACE}/")).unwrap();
    let name = sent["metadata"]["name"].as_str().filter(|_| !path.contains('/'));
    name.map_or_else(|| path.to_owned(), |name| format!("{path}/{name}"))
}

impl State {
    fn create(&mut self, path: &str, object: Value) -> (u16, Value) {
        if self.objects.contains_key(path) {
            return failure(409);
        }
        self.put(path, object);
        ok(self.objects[path].clone())
    }

    fn replace(&mut self, path: &str, object: Value) -> (u16, Value) {
        let Some(there) = self.objects.get(path) else { return failure(404) };
        if object["metadata"]["resourceVersion"] != there["metadata"]["resourceVersion"] {
            return failure(409);
        }
        self.put(path, object);
        ok(self.objects[path].clone())
    }

    fn patch(&mut self, path: &str, patch: &Value) -> (u16, Value) {
        let Some(mut object) = self.objects.get(path).cloned() else { return failure(404) };
        let asked = &patch["metadata"]["resourceVersion"];
        if !asked.is_null() && *asked != object["metadata"]["resourceVersion"] {
            return failure(409);
        }
        merge(&mut object, patch);
        self.put(path, object);
        ok(self.objects[path].clone())
    }

    fn delete(&mut self, path: &str, options: &Value) -> (u16, Value) {
        let Some(mut object) = self.objects.get(path).cloned() else { return failure(404) };
        let asked = &options["preconditions"]["uid"];
        if !asked.is_null() && *asked != object["metadata"]["uid"] {
            return failure(409);
        }
        if object["metadata"]["finalizers"].as_array().is_some_and(|held| !held.is_empty()) {
            object["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            self.put(path, object);
            return ok(self.objects[path].clone());
        }
        self.objects.remove(path);
        ok(json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}))
    }

    pub(super) fn put(&mut self, path: &str, mut object: Value) {
        self.versions += 1;
        object["metadata"]["resourceVersion"] = json!(self.versions.to_string());
        object["metadata"]["uid"] = json!(format!("uid of {path}"));
        self.objects.insert(path.to_owned(), object);
    }

    /// Changes an object as somebody else would.
    pub(super) fn edit(&mut self, path: &str, patch: &Value) {
        assert_eq!(self.patch(path, patch).0, 200, "{path}");
    }
}

fn ok(object: Value) -> (u16, Value) {
    (200, object)
}

fn failure(code: u16) -> (u16, Value) {
    let (code, mut status) = refusal(code, if code == 404 { "NotFound" } else { "Other" });
    status["details"] = json!({"name": "it"});
    (code, status)
}
