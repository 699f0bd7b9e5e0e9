//! GET with `watch`: history as a stream of lines, then what comes.
//!
//! A watch holds no events of its own: it remembers the last revision it has told,
//! waits for a newer one, and reads the store's history. A slow client costs
//! nothing, and one that is too slow gets 410 as it would from the real server.

use std::{collections::VecDeque, convert::Infallible, sync::Arc, time::Duration};

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderValue, Response, header};
use serde_json::{Value, json};
use tokio::{sync::watch, time::Instant};

use super::{
    api::{Api, show},
    events,
    failure::Failure,
    kinds::Kind,
    object::meta_mut,
    read::selector,
    request::{Form, Request},
    selectors::Selector,
    store::{Change, Compacted},
    table,
};

/// The real server sends one about every minute; a demo is over by then.
const BOOKMARK_PERIOD: Duration = Duration::from_secs(10);
/// A bookmark this long before the end lets the client go on from there.
const LAST_BOOKMARK: Duration = Duration::from_secs(2);
/// The real server ends a watch after 30 to 60 minutes where the client sets no time.
const DEFAULT_TIMEOUT: u64 = 1800;

struct Watch {
    api: Arc<Api>,
    kind: Arc<Kind>,
    namespace: Option<String>,
    selector: Selector,
    form: Form,
    /// The last revision that was told.
    at: u64,
    revision: watch::Receiver<u64>,
    ready: VecDeque<Value>,
    bookmarks: bool,
    next_bookmark: Instant,
    end: Instant,
    over: bool,
    told_headers: bool,
}

impl Api {
    pub(super) fn watch(self: Arc<Self>, request: &Request) -> Result<Response<Body>, Failure> {
        let bookmarks = request.query.flag("allowWatchBookmarks");
        let initial = request.query.flag("sendInitialEvents");
        if initial && request.query.get("resourceVersionMatch") != "NotOlderThan" {
            return Err(Failure::bad_request(
                "resourceVersionMatch: Forbidden: resourceVersionMatch=NotOlderThan is required when sendInitialEvents is set",
            ));
        }
        let from = request.query.number("resourceVersion")?.filter(|version| *version > 0);
        let timeout = request.query.number("timeoutSeconds")?.unwrap_or(DEFAULT_TIMEOUT).max(1);
        let now = Instant::now();
        let end = now + Duration::from_secs(timeout.min(86_400));
        let mut watch = Watch {
            kind: Arc::clone(&request.target.kind),
            namespace: request.target.namespace.clone(),
            selector: selector(request)?,
            form: request.form,
            at: 0,
            // Subscribed before the first look, so that no change falls between.
            revision: self.revision.subscribe(),
            ready: VecDeque::new(),
            bookmarks,
            next_bookmark: next_bookmark(now, end),
            end,
            over: false,
            told_headers: false,
            api: self,
        };
        watch.start(from, initial);
        let stream = futures_util::stream::unfold(watch, async |mut watch| {
            let chunk = watch.next().await?;
            Some((Ok::<_, Infallible>(chunk), watch))
        });
        let mut response = Response::new(Body::from_stream(stream));
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Ok(response)
    }
}

impl Watch {
    /// Without a revision, or where it asks for them, a watch begins with what is there.
    fn start(&mut self, from: Option<u64>, initial: bool) {
        let api = Arc::clone(&self.api);
        let store = api.store();
        if let (Some(revision), false) = (from, initial) {
            self.at = revision;
            let newest = store.revision();
            drop(store);
            if revision > newest {
                self.fail(&Failure::too_large_version(revision, newest));
            }
            return;
        }
        self.at = store.revision();
        let objects: Vec<_> = store
            .list(&self.kind.resource, self.namespace.as_deref())
            .map(|(_, object)| Arc::clone(object))
            .collect();
        drop(store);
        for object in objects {
            if self.selects(&object) {
                self.tell("ADDED", &object);
            }
        }
        if initial && self.bookmarks {
            self.bookmark(true);
        }
    }

    /// The next lines, or the end.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(chunk) = self.take_ready() {
                return Some(chunk);
            }
            if self.over {
                return None;
            }
            self.catch_up();
            if !self.ready.is_empty() {
                continue;
            }
            tokio::select! {
                // Cancel-safe: a change that is not seen here is seen by the next look.
                changed = self.revision.changed() => if changed.is_err() { return None },
                // Cancel-safe: sleeping to a fixed time.
                () = tokio::time::sleep_until(self.next_bookmark) => {
                    self.next_bookmark = next_bookmark(Instant::now(), self.end);
                    if self.bookmarks {
                        self.bookmark(false);
                    }
                }
                // Cancel-safe: sleeping to a fixed time.
                () = tokio::time::sleep_until(self.end) => return None,
                // Cancel-safe: the token stays cancelled.
                () = self.api.stop.cancelled() => return None,
            }
        }
    }

    fn take_ready(&mut self) -> Option<Bytes> {
        if self.ready.is_empty() {
            return None;
        }
        let mut lines = String::new();
        for event in self.ready.drain(..) {
            lines.push_str(&event.to_string());
            lines.push('\n');
        }
        Some(Bytes::from(lines))
    }

    /// Reads the history since the last look.
    fn catch_up(&mut self) {
        self.revision.mark_unchanged();
        let api = Arc::clone(&self.api);
        let store = api.store();
        let newest = store.revision();
        let changes: Result<Vec<Change>, _> = store
            .after(self.at)
            .map(|changes| changes.filter(|change| self.concerns(change)).cloned().collect());
        drop(store);
        let changes = match changes {
            Ok(changes) => changes,
            Err(Compacted { oldest }) => {
                let message = format!("too old resource version: {} ({oldest})", self.at);
                return self.fail(&Failure::expired(message));
            }
        };
        self.at = newest;
        for change in changes {
            let was = change.before.as_ref().filter(|before| self.selects(before));
            let is = !change.deleted && self.selects(&change.object);
            match (was, is) {
                (None, true) => self.tell("ADDED", &change.object),
                (Some(_), true) => self.tell("MODIFIED", &change.object),
                (Some(_), false) if change.deleted => self.tell("DELETED", &change.object),
                (Some(before), false) => {
                    // It left the selection: told as it was, at the revision of the change.
                    let mut last = Value::clone(before);
                    let version = change.object["metadata"]["resourceVersion"].clone();
                    meta_mut(&mut last).insert("resourceVersion".to_owned(), version);
                    self.tell("DELETED", &last);
                }
                (None, false) => {}
            }
        }
    }

    fn concerns(&self, change: &Change) -> bool {
        change.key.resource == self.kind.resource
            && self.namespace.as_ref().is_none_or(|namespace| change.key.namespace == *namespace)
    }

    fn selects(&self, object: &Value) -> bool {
        if self.kind.group == super::kinds::EVENTS_GROUP {
            return self.selector.matches(&events::from_store(&self.kind, object.clone()));
        }
        self.selector.matches(object)
    }

    fn tell(&mut self, event: &str, object: &Value) {
        let shown = match self.form {
            Form::Table { whole } => {
                let metadata = json!({"resourceVersion": object["metadata"]["resourceVersion"]});
                let headers = !std::mem::replace(&mut self.told_headers, true);
                table::table(
                    &self.kind.columns,
                    &[Arc::new(object.clone())],
                    &metadata,
                    whole,
                    headers,
                )
            }
            Form::Whole | Form::Partial => show(&self.kind, self.form, object),
        };
        self.ready.push_back(json!({"type": event, "object": shown}));
    }

    fn bookmark(&mut self, initial_end: bool) {
        let (kind, api_version) = match self.form {
            Form::Whole => (self.kind.kind.as_str(), self.kind.api_version()),
            Form::Partial => ("PartialObjectMetadata", "meta.k8s.io/v1".to_owned()),
            // kubectl reads no bookmarks of Tables.
            Form::Table { .. } => return,
        };
        let mut metadata =
            json!({"resourceVersion": self.at.to_string(), "creationTimestamp": null});
        if initial_end {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let object = json!({"kind": kind, "apiVersion": api_version, "metadata": metadata});
        self.ready.push_back(json!({"type": "BOOKMARK", "object": object}));
    }

    fn fail(&mut self, failure: &Failure) {
        self.ready.push_back(json!({"type": "ERROR", "object": failure.to_value()}));
        self.over = true;
    }
}

fn next_bookmark(now: Instant, end: Instant) -> Instant {
    let last = end.checked_sub(LAST_BOOKMARK).unwrap_or(end);
    if last > now { last.min(now + BOOKMARK_PERIOD) } else { now + BOOKMARK_PERIOD }
}
