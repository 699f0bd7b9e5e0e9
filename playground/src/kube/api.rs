//! One API: who asks, what, and the answer.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
};

use axum::body::Body;
use http::{HeaderMap, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::audit::Audited;
use super::{
    discovery, events,
    failure::{Failure, respond},
    faults::Faults,
    kinds::{EVENTS_GROUP, Kind, Kinds},
    rbac::{self, Attributes, MASTERS, User},
    request::{Form, Parameters, Request, Target, Verb, segments},
    store::{Key, Store},
    table,
    tokens::{Claims, ISSUER, Tokens},
};

/// As many changes as watches can look back; a demo makes some thousands.
const HISTORY: usize = 20_000;
/// What the real server takes at most.
const MAX_BODY: usize = 3 * 1024 * 1024;

/// The state behind all connections.
#[derive(Debug)]
pub(super) struct Api {
    store: Mutex<Store>,
    kinds: RwLock<Arc<Kinds>>,
    /// The newest revision; watches wait for it to change.
    pub(super) revision: watch::Sender<u64>,
    pub(super) tokens: Tokens,
    admin_token: String,
    requests: Mutex<BTreeMap<String, u64>>,
    pub(super) faults: Faults,
    /// What was written, where somebody wants to know.
    audit: Mutex<Option<Vec<Audited>>>,
    /// Ends all watches.
    pub(super) stop: CancellationToken,
}

impl Api {
    pub(super) fn new(admin_token: String, token_key: [u8; 32], stop: CancellationToken) -> Self {
        let store = Store::new(HISTORY);
        Self {
            revision: watch::Sender::new(store.revision()),
            store: Mutex::new(store),
            kinds: RwLock::new(Arc::new(Kinds::new(std::iter::empty()))),
            tokens: Tokens::new(token_key),
            admin_token,
            requests: Mutex::default(),
            faults: Faults::default(),
            audit: Mutex::default(),
            stop,
        }
    }

    /// The objects. The guard is never held over an await.
    pub(super) fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The kinds that are served.
    pub(super) fn kinds(&self) -> Arc<Kinds> {
        Arc::clone(&self.kinds.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Serves the kinds of the CRDs that are stored.
    pub(super) fn learn_kinds(&self, store: &Store) {
        let crds = store.list(&"customresourcedefinitions.apiextensions.k8s.io".into(), None);
        let kinds = Arc::new(Kinds::new(crds.map(|(_, crd)| crd.as_ref())));
        *self.kinds.write().unwrap_or_else(PoisonError::into_inner) = kinds;
    }

    /// How often what was asked, by `verb resource`.
    pub(super) fn requests(&self) -> BTreeMap<String, u64> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Answers a request; every failure is an answer too.
    pub(super) async fn answer(
        self: Arc<Self>,
        request: http::Request<Incoming>,
    ) -> Response<Body> {
        match self.try_answer(request).await {
            Ok(response) => response,
            Err(failure) => {
                tracing::debug!(code = failure.code.as_u16(), message = %failure.message, "refused");
                failure.into_response()
            }
        }
    }

    async fn try_answer(
        self: Arc<Self>,
        request: http::Request<Incoming>,
    ) -> Result<Response<Body>, Failure> {
        let user = self.authenticate(request.headers())?;
        let segments = segments(request.uri().path());
        let path: Vec<_> = segments.iter().map(String::as_str).collect();
        if let ["healthz" | "livez" | "readyz", ..] = path[..] {
            return Ok(Response::new(Body::from("ok")));
        }
        let kinds = self.kinds();
        if request.method() == http::Method::GET
            && let Some(answer) = discovery::answer(&kinds, &path)
        {
            return Ok(respond(StatusCode::OK, &answer));
        }
        let target = Target::parse(&kinds, &path).ok_or_else(Failure::no_such_path)?;
        let query = Parameters::of(request.uri());
        let verb =
            Verb::of(request.method(), &target, &query).ok_or_else(Failure::method_not_allowed)?;
        self.authorize(&user, &target, verb)?;
        self.count(&target, verb);
        self.faults.meet(&user, &target, verb)?;

        let form = Form::of(request.headers(), &query);
        let content_type = content_type(request.headers());
        let body = Limited::new(request.into_body(), MAX_BODY)
            .collect()
            .await
            .map_err(|error| Failure::bad_request(format!("the body can't be read: {error}")))?
            .to_bytes();
        let request = Request { target, verb, query, form, content_type, body };
        let audited = Audited::new(&user, &request);
        let answer = Arc::clone(&self).dispatch(&user, request)?;
        if let (Some(audited), Some(audit)) = (audited, &mut *self.audit()) {
            audit.push(audited);
        }
        Ok(answer)
    }

    /// Takes down what is written from here on.
    pub(super) fn start_audit(&self) {
        self.audit().get_or_insert_default();
    }

    /// What was written since then, in order.
    pub(super) fn audited(&self) -> Vec<Audited> {
        self.audit().clone().unwrap_or_default()
    }

    fn audit(&self) -> MutexGuard<'_, Option<Vec<Audited>>> {
        self.audit.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn dispatch(self: Arc<Self>, user: &User, request: Request) -> Result<Response<Body>, Failure> {
        let kind = Arc::clone(&request.target.kind);
        if kind.review {
            return self.review(user, &request);
        }
        match (request.target.subresource.as_deref(), kind.plural.as_str()) {
            (None, _) => {}
            (Some("status"), _) if kind.status => {}
            (Some("token"), "serviceaccounts") => return self.token(&request),
            _ => return Err(Failure::no_such_path()),
        }
        match request.verb {
            Verb::Get => self.get(&request),
            Verb::List => self.list(&request),
            Verb::Watch => self.watch(&request),
            Verb::Create => self.create(&request),
            Verb::Update => self.update(&request),
            Verb::Patch => self.patch(&request),
            Verb::Delete => self.delete(&request),
            Verb::DeleteCollection => self.delete_collection(&request),
        }
    }

    fn authenticate(&self, headers: &HeaderMap) -> Result<User, Failure> {
        let token = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.strip_prefix("Bearer "))
            .ok_or_else(Failure::unauthorized)?
            .trim();
        if token == self.admin_token {
            return Ok(User { name: "admin".to_owned(), groups: vec![MASTERS.to_owned()] });
        }
        let (claims, _) = self
            .check_token(token, &[ISSUER.to_owned()], Timestamp::now())
            .map_err(|_| Failure::unauthorized())?;
        Ok(User { name: claims.user(), groups: claims.groups() })
    }

    /// Reads a token and looks whether what it is bound to is still there.
    ///
    /// Gives the claims and the audiences that the token and the caller share.
    pub(super) fn check_token(
        &self,
        token: &str,
        audiences: &[String],
        now: Timestamp,
    ) -> Result<(Claims, Vec<String>), String> {
        let claims = self.tokens.read(token, now)?;
        let shared: Vec<_> =
            claims.audiences.iter().filter(|own| audiences.contains(own)).cloned().collect();
        if shared.is_empty() {
            return Err(format!(
                "[invalid bearer token, token audiences {:?} is invalid for the target audiences {audiences:?}]",
                claims.audiences
            ));
        }
        let store = self.store();
        let there = |resource: &str, bound: &super::tokens::Bound| {
            let key = Key {
                resource: resource.into(),
                namespace: claims.namespace.clone(),
                name: bound.name.clone(),
            };
            store.get(&key).is_some_and(|object| object["metadata"]["uid"] == bound.uid.as_str())
        };
        let bound = there("serviceaccounts", &claims.account)
            && claims.pod.as_ref().is_none_or(|pod| there("pods", pod));
        drop(store);
        if !bound {
            return Err(
                "[invalid bearer token, service account token has been invalidated]".to_owned()
            );
        }
        Ok((claims, shared))
    }

    fn authorize(&self, user: &User, target: &Target, verb: Verb) -> Result<(), Failure> {
        let resource = target.resource();
        let request = Attributes {
            verb: verb.as_str(),
            group: &target.kind.group,
            resource: &resource,
            name: target.name.as_deref(),
        };
        if self.allowed(user, request) {
            return Ok(());
        }
        let full = match target.kind.group.as_str() {
            "" => target.kind.plural.clone(),
            group => format!("{}.{group}", target.kind.plural),
        };
        let name = target.name.as_deref().map_or_else(String::new, |name| format!(" {name:?}"));
        let scope = match &target.namespace {
            Some(namespace) => format!("in the namespace {namespace:?}"),
            None => "at the cluster scope".to_owned(),
        };
        Err(Failure::forbidden(format!(
            "{full}{name} is forbidden: User {:?} cannot {} resource {resource:?} in API group {:?} {scope}",
            user.name,
            verb.as_str(),
            target.kind.group,
        )))
    }

    /// Whether the stored roles let the user do it.
    pub(super) fn allowed(&self, user: &User, request: Attributes<'_>) -> bool {
        // Everybody who is known may ask about himself, as `system:basic-user` has it.
        if request.resource == "selfsubjectaccessreviews" {
            return true;
        }
        let of = |resource: &str| -> Vec<Arc<Value>> {
            let resource = format!("{resource}.rbac.authorization.k8s.io").into();
            self.store().list(&resource, None).map(|(_, object)| Arc::clone(object)).collect()
        };
        if user.groups.iter().any(|group| group == MASTERS) {
            return true;
        }
        let (roles, bindings) = (of("clusterroles"), of("clusterrolebindings"));
        rbac::allowed(
            user,
            request,
            roles.iter().map(Arc::as_ref),
            bindings.iter().map(Arc::as_ref),
        )
    }

    fn count(&self, target: &Target, verb: Verb) {
        let what = format!("{} {}", verb.as_str(), target.resource());
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        *requests.entry(what).or_default() += 1;
    }

    /// The kind under which a kind's objects are stored.
    pub(super) fn stored_kind(&self, kind: &Arc<Kind>) -> Arc<Kind> {
        if kind.group != EVENTS_GROUP {
            return Arc::clone(kind);
        }
        self.kinds().stored(&kind.resource).unwrap_or_else(|| Arc::clone(kind))
    }
}

/// An object as a request wants to see it.
pub(super) fn show(kind: &Kind, form: Form, object: &Value) -> Value {
    match form {
        Form::Whole => events::from_store(kind, object.clone()),
        Form::Partial => table::partial(object),
        Form::Table { whole } => {
            let metadata =
                serde_json::json!({"resourceVersion": object["metadata"]["resourceVersion"]});
            table::table(&kind.columns, &[Arc::new(object.clone())], &metadata, whole, true)
        }
    }
}

fn content_type(headers: &HeaderMap) -> String {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    value.unwrap_or_default().split(';').next().unwrap_or_default().trim().to_owned()
}
