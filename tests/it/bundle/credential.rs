//! Who is shown the credential of a registry.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use http::header::{AUTHORIZATION, LOCATION, WWW_AUTHENTICATE};
use rootstock_bundle::{Client, ResolveError, Version};
use rootstock_core::desired::{Credential, Registry};
use rootstock_core::name::Architecture::Amd64;
use rootstock_core::status::Reason;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::{REPOSITORY, tag};

/// `reader:secret`, as HTTP has it.
const BASIC: &str = "Basic cmVhZGVyOnNlY3JldA==";

/// A server that writes down what it is asked, and by whom.
struct Server {
    port: u16,
    asked: Arc<Mutex<Vec<(String, String)>>>,
    _task: JoinSet<()>,
}

impl Server {
    async fn start(answer: impl Fn(&str) -> Response + Clone + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&asked);
        let router = Router::new().fallback(async move |request: Request| {
            let target = request.uri().to_string();
            let shown = request.headers().get(AUTHORIZATION);
            let shown = shown.map_or("", |value| value.to_str().unwrap()).to_owned();
            seen.lock().unwrap().push((target.clone(), shown));
            answer(&target)
        });
        let mut task = JoinSet::new();
        task.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { port, asked, _task: task }
    }

    /// A registry that wants a token which is given out there.
    async fn registry(challenge: impl Into<String>) -> Self {
        let challenge = challenge.into();
        Self::start(move |target| match target {
            "/v2/" => {
                let challenge = [(WWW_AUTHENTICATE, challenge.clone())];
                (StatusCode::UNAUTHORIZED, challenge).into_response()
            }
            _ => StatusCode::NOT_FOUND.into_response(),
        })
        .await
    }

    /// One that gives out tokens.
    async fn tokens() -> Self {
        Self::start(|_| r#"{"token":"a-token"}"#.into_response()).await
    }

    fn asked(&self) -> Vec<(String, String)> {
        self.asked.lock().unwrap().clone()
    }
}

async fn resolve(registry: &Server, login: bool) -> ResolveError {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let credential = Credential { username: "reader".into(), secret: "secret".into() };
    let registry = Registry {
        name: "main".into(),
        url: format!("http://127.0.0.1:{}", registry.port),
        mirrors: Vec::new(),
        ca_bundle: String::new(),
        credential: login.then_some(credential),
    };
    let version: Version = tag("1");
    let client = Client::new(&registry).unwrap();
    client.resolve(&REPOSITORY.parse().unwrap(), &version, Amd64).await.unwrap_err()
}

fn bearer(host: &str, port: u16) -> String {
    format!(r#"Bearer realm="http://{host}:{port}/token",service="a registry""#)
}

#[tokio::test]
async fn a_token_is_asked_for_where_the_registry_says_on_its_own_host() {
    let tokens = Server::tokens().await;
    let registry = Server::registry(bearer("127.0.0.1", tokens.port)).await;
    let error = resolve(&registry, true).await;
    assert_eq!(error.reason(), Reason::BundleNotFound, "{error}");
    let target = "/token?scope=repository%3Arootstock%2Fgvisor%3Apull&service=a+registry";
    assert_eq!(tokens.asked(), [(target.to_owned(), BASIC.to_owned())]);
    // The registry is shown the token, and never the credential behind it.
    let shown: Vec<_> = registry.asked().into_iter().map(|(_, shown)| shown).collect();
    assert_eq!(shown, ["", "Bearer a-token"]);
}

#[tokio::test]
async fn a_challenge_that_points_to_another_host_does_not_get_the_credential() {
    let tokens = Server::tokens().await;
    // The same machine under another name.
    let registry = Server::registry(bearer("localhost", tokens.port)).await;
    let error = resolve(&registry, true).await;
    assert_eq!(error.reason(), Reason::RegistryUnauthorized, "{error}");
    assert!(error.to_string().contains("not shown to"), "{error}");
    assert_eq!(tokens.asked(), [], "it is not even asked");
    // Who has nothing to lose asks.
    let error = resolve(&registry, false).await;
    assert_eq!(error.reason(), Reason::BundleNotFound, "{error}");
    assert_eq!(tokens.asked().len(), 1);
}

#[tokio::test]
async fn a_redirect_to_another_host_does_not_get_the_credential() {
    let storage = Server::start(|_| StatusCode::NOT_FOUND.into_response()).await;
    let to = format!("http://localhost:{}/bucket", storage.port);
    let registry = Server::start(move |target| match target {
        "/v2/" => StatusCode::OK.into_response(),
        _ => (StatusCode::TEMPORARY_REDIRECT, [(LOCATION, to.clone())]).into_response(),
    })
    .await;
    let error = resolve(&registry, true).await;
    assert_eq!(error.reason(), Reason::BundleNotFound, "{error}");
    assert_eq!(registry.asked()[1].1, BASIC);
    assert_eq!(storage.asked(), [("/bucket".to_owned(), String::new())]);
}
