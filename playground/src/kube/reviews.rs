//! Requests that are answered and not stored: tokens, and questions about them.

use std::sync::Arc;

use axum::body::Body;
use http::{Response, StatusCode};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::{
    api::Api,
    failure::{Failure, respond},
    object::{meta, time},
    rbac::{Attributes, User},
    request::{Request, Verb},
    store::Key,
    tls,
    tokens::{Grant, ISSUER},
};

impl Api {
    pub(super) fn review(&self, user: &User, request: &Request) -> Result<Response<Body>, Failure> {
        if request.verb != Verb::Create {
            return Err(Failure::method_not_allowed());
        }
        let mut review =
            request.object()?.ok_or_else(|| Failure::bad_request("the body is empty"))?;
        review["status"] = match request.target.kind.plural.as_str() {
            "tokenreviews" => self.token_review(&review["spec"]),
            _ => self.access_review(user, &review["spec"]["resourceAttributes"]),
        };
        Ok(respond(StatusCode::CREATED, &review))
    }

    fn token_review(&self, spec: &Value) -> Value {
        let token = spec["token"].as_str().unwrap_or_default();
        let mut audiences = texts(&spec["audiences"]);
        if audiences.is_empty() {
            audiences.push(ISSUER.to_owned());
        }
        match self.check_token(token, &audiences, Timestamp::now()) {
            Err(error) => json!({"user": {}, "error": error}),
            Ok((claims, shared)) => json!({
                "authenticated": true,
                "user": {"username": claims.user(), "uid": claims.account.uid, "groups": claims.groups(), "extra": claims.extra()},
                "audiences": shared,
            }),
        }
    }

    fn access_review(&self, user: &User, attributes: &Value) -> Value {
        let text = |field: &str| attributes[field].as_str().unwrap_or_default();
        let resource = match text("subresource") {
            "" => text("resource").to_owned(),
            subresource => format!("{}/{subresource}", text("resource")),
        };
        let request = Attributes {
            verb: text("verb"),
            group: text("group"),
            resource: &resource,
            name: attributes["name"].as_str(),
        };
        json!({"allowed": self.allowed(user, request)})
    }

    /// TokenRequest of a ServiceAccount.
    pub(super) fn token(&self, request: &Request) -> Result<Response<Body>, Failure> {
        if request.verb != Verb::Create {
            return Err(Failure::method_not_allowed());
        }
        let kind = &request.target.kind;
        let key = request.target.key().ok_or_else(Failure::no_such_path)?;
        let mut answer =
            request.object()?.ok_or_else(|| Failure::bad_request("the body is empty"))?;
        let spec = answer["spec"].clone();
        let seconds = spec["expirationSeconds"].as_u64().unwrap_or(3600);
        if seconds < 600 {
            let why = format!(
                "Invalid value: {seconds}: may not specify a duration less than 10 minutes"
            );
            return Err(Failure::invalid(
                kind,
                &key.name,
                vec![("spec.expirationSeconds".to_owned(), why)],
            ));
        }
        let mut audiences = texts(&spec["audiences"]);
        if audiences.is_empty() {
            audiences.push(ISSUER.to_owned());
        }
        let now = Timestamp::now();
        // A century at most: far from where the calendar ends.
        let lifetime =
            SignedDuration::from_secs(i64::try_from(seconds.min(3_155_760_000)).unwrap_or(3600));
        let expires = now.saturating_add(lifetime).unwrap_or(now);

        let store = self.store();
        let account =
            store.get(&key).cloned().ok_or_else(|| Failure::not_found(kind, &key.name))?;
        let reference = &spec["boundObjectRef"];
        let pod = match reference.is_object() {
            true => Some(bound_pod(self, &store, &key, reference)?),
            false => None,
        };
        let node_name = pod.as_ref().and_then(|pod| pod["spec"]["nodeName"].as_str());
        let node = node_name.and_then(|name| {
            store
                .get(&Key {
                    resource: "nodes".into(),
                    namespace: String::new(),
                    name: name.to_owned(),
                })
                .cloned()
        });
        drop(store);
        let grant = Grant {
            account: &account,
            pod: pod.as_deref(),
            node: node_name.map(|name| (name, node.as_deref().map(|node| meta(node, "uid")))),
            audiences: audiences.clone(),
            expires,
        };
        let token = self.tokens.issue(&grant, &tls::uuid(), now);
        answer["spec"]["audiences"] = json!(audiences);
        answer["spec"]["expirationSeconds"] = json!(seconds);
        answer["status"] = json!({"token": token, "expirationTimestamp": time(expires)});
        answer["metadata"] =
            json!({"name": key.name, "namespace": key.namespace, "creationTimestamp": time(now)});
        Ok(respond(StatusCode::CREATED, &answer))
    }
}

/// The Pod that a token is bound to: it must be there, the same, and of this ServiceAccount.
fn bound_pod(
    api: &Api,
    store: &super::store::Store,
    account: &Key,
    reference: &Value,
) -> Result<Arc<Value>, Failure> {
    let text = |field: &str| reference[field].as_str().unwrap_or_default();
    if text("kind") != "Pod" {
        return Err(Failure::bad_request(format!("cannot bind token to {:?}", text("kind"))));
    }
    let kinds = api.kinds();
    let kind = kinds.stored("pods").ok_or_else(Failure::no_such_path)?;
    let name = text("name");
    let key = Key {
        resource: "pods".into(),
        namespace: account.namespace.clone(),
        name: name.to_owned(),
    };
    let pod = store.get(&key).ok_or_else(|| Failure::not_found(&kind, name))?;
    if !text("uid").is_empty() && text("uid") != meta(pod, "uid") {
        let why = format!(
            "the UID in the bound object reference ({}) does not match the UID in record. The object might have been deleted and then recreated",
            text("uid")
        );
        return Err(Failure::conflict(&kind, name, &why));
    }
    let owner = pod["spec"]["serviceAccountName"].as_str().unwrap_or("default");
    if owner != account.name {
        return Err(Failure::bad_request(format!(
            "cannot bind token for serviceaccount {:?} to pod running with different serviceaccount name.",
            account.name
        )));
    }
    Ok(Arc::clone(pod))
}

fn texts(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}
