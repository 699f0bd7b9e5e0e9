//! An API server that answers as a test says, behind a Kubernetes client.

use std::sync::{Arc, Mutex};

use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};

use crate::screen::{Screen, Style};

/// One request.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) content_type: String,
    pub(crate) body: Value,
}

/// What was asked so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Calls(Arc<Mutex<Vec<Call>>>);

impl Calls {
    pub(crate) fn all(&self) -> Vec<Call> {
        self.0.lock().unwrap().clone()
    }

    /// Those that change something.
    pub(crate) fn writes(&self) -> Vec<Call> {
        self.all().into_iter().filter(|call| call.method != "GET").collect()
    }
}

/// In place of a code: the request hangs.
pub(crate) const SILENCE: u16 = 0;

/// A client whose kubeconfig names the namespace `shoot--garden--one`.
pub(crate) fn client(
    answer: impl Fn(&Call) -> (u16, Value) + Send + Sync + 'static,
) -> (Client, Calls) {
    let calls = Calls::default();
    let (kept, answer) = (calls.clone(), Arc::new(answer));
    let service = tower::service_fn(move |request: http::Request<Body>| {
        let (kept, answer) = (kept.clone(), Arc::clone(&answer));
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect_bytes().await?;
            let header = parts.headers.get(http::header::CONTENT_TYPE);
            let call = Call {
                method: parts.method.to_string(),
                path: parts.uri.path().to_owned(),
                query: parts.uri.query().unwrap_or_default().to_owned(),
                content_type: header.map_or("", |v| v.to_str().unwrap()).to_owned(),
                body: serde_json::from_slice(&body).unwrap_or_default(),
            };
            kept.0.lock().unwrap().push(call.clone());
            let (status, body) = answer(&call);
            if status == SILENCE {
                std::future::pending::<()>().await;
            }
            // Of a list of events each is a line; everything else is one document.
            let text = match body.as_array() {
                Some(lines) => lines
                    .iter()
                    .map(|line| {
                        format!(
                            "{line}
"
                        )
                    })
                    .collect(),
                None => body.to_string(),
            };
            let body = Body::from(text.into_bytes());
            Ok::<_, kube::Error>(http::Response::builder().status(status).body(body).unwrap())
        }
    });
    (Client::new(service, "shoot--garden--one"), calls)
}

/// What an API server says with an error about an object of this name.
pub(crate) fn refusal(code: u16, message: &str, name: &str) -> (u16, Value) {
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": "Any", "details": {"name": name}, "code": code});
    (code, status)
}

/// A list of ContainerRuntimes.
pub(crate) fn list(items: &[Value]) -> (u16, Value) {
    let list = json!({"apiVersion": "extensions.gardener.cloud/v1alpha1",
        "kind": "ContainerRuntimeList", "metadata": {"resourceVersion": "1"}, "items": items});
    (200, list)
}

/// What the command line prints into a pipe, and how it ends.
pub(crate) async fn run(
    client: &Client,
    line: &str,
) -> (String, Result<crate::Outcome, crate::Error>) {
    let (said, _, ended) = run_noted(client, line).await;
    (said, ended)
}

/// The same, and between the two what it notes beside that.
pub(crate) async fn run_noted(
    client: &Client,
    line: &str,
) -> (String, String, Result<crate::Outcome, crate::Error>) {
    let (mut out, mut notes) = (Vec::new(), Vec::new());
    let mut screen = Screen::new(&mut out, Style::default()).with_notes(&mut notes);
    let args = clap::Parser::parse_from(line.split_whitespace());
    let ended = crate::run(&args, client, &mut screen, now).await;
    drop(screen);
    (String::from_utf8(out).unwrap(), String::from_utf8(notes).unwrap(), ended)
}

/// When all tests happen.
pub(crate) fn now() -> jiff::Timestamp {
    "2026-01-01T01:00:00Z".parse().unwrap()
}
