//! The specification's rules that our own client doesn't lean on.

use axum::Router;
use axum::body::Body;
use http::{Method, Request, Response, StatusCode};
use rootstock_core::digest::Digest;
use serde_json::{Value, json};
use tower::Service as _;

use super::*;

struct World {
    _dir: tempfile::TempDir,
    registry: Registry,
    router: Router,
}

impl World {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let registry = Registry::start(dir.path()).await.unwrap();
        let router = routes::router(Arc::clone(&registry.shared));
        Self { _dir: dir, registry, router }
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Response<Body> {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.router.clone().call(request.body(body.into()).unwrap()).await.unwrap()
    }

    async fn get(&self, path: &str) -> Response<Body> {
        self.ask(Method::GET, path, &[], "").await
    }

    /// Uploads a blob in one POST.
    async fn put_blob(&self, repository: &str, bytes: &'static [u8]) -> Digest {
        let digest = Digest::of(bytes);
        let path = format!("/v2/{repository}/blobs/uploads/?digest={digest}");
        let response = self.ask(Method::POST, &path, &[], bytes).await;
        assert_eq!(response.status(), StatusCode::CREATED);
        digest
    }

    async fn put_manifest(&self, repository: &str, name: &str) -> Response<Body> {
        let path = format!("/v2/{repository}/manifests/{name}");
        let kind = [("content-type", rootstock_bundle::media::MANIFEST)];
        self.ask(Method::PUT, &path, &kind, "{}").await
    }
}

async fn bytes(response: Response<Body>) -> Result<Vec<u8>, axum::Error> {
    axum::body::to_bytes(response.into_body(), 1 << 20).await.map(Into::into)
}

async fn document(response: Response<Body>) -> Value {
    serde_json::from_slice(&bytes(response).await.unwrap()).unwrap()
}

fn header<'a>(response: &'a Response<Body>, name: &str) -> &'a str {
    response.headers()[name].to_str().unwrap()
}

#[tokio::test]
async fn a_blob_comes_in_chunks() {
    let world = World::start().await;
    let digest = Digest::of(b"hello world");
    let begun = world.ask(Method::POST, "/v2/a/b/blobs/uploads/", &[], "").await;
    assert_eq!(begun.status(), StatusCode::ACCEPTED);
    let location = header(&begun, "location").to_owned();

    let first = [("content-range", "0-5")];
    let response = world.ask(Method::PATCH, &location, &first, "hello ").await;
    assert_eq!(response.status(), StatusCode::ACCEPTED);
    assert_eq!(header(&response, "range"), "0-5");
    // The same chunk again begins at the wrong place; the upload stays.
    let response = world.ask(Method::PATCH, &location, &first, "hello ").await;
    assert_eq!(response.status(), StatusCode::RANGE_NOT_SATISFIABLE);
    let response = world.ask(Method::GET, &location, &[], "").await;
    assert_eq!((response.status(), header(&response, "range")), (StatusCode::NO_CONTENT, "0-5"));

    let end = format!("{location}?digest={}", digest.to_string().replace(':', "%3A"));
    let response = world.ask(Method::PUT, &end, &[], "world").await;
    assert_eq!(response.status(), StatusCode::CREATED);
    let place = header(&response, "location").to_owned();
    assert_eq!(bytes(world.get(&place).await).await.unwrap(), b"hello world");
    assert_eq!(world.ask(Method::PUT, &end, &[], "").await.status(), StatusCode::NOT_FOUND);
    assert_eq!(world.registry.uploads(), 1);
}

#[tokio::test]
async fn bytes_that_belie_their_digest_stay_out() {
    let world = World::start().await;
    let digest = Digest::of(b"other");
    let path = format!("/v2/a/blobs/uploads/?digest={digest}");
    let response = world.ask(Method::POST, &path, &[], "bytes").await;
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    assert_eq!(document(response).await["errors"][0]["code"], "DIGEST_INVALID");
    let response = world.get(&format!("/v2/a/blobs/{digest}")).await;
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
    assert_eq!(document(response).await["errors"][0]["code"], "BLOB_UNKNOWN");

    let response = world.put_manifest("a", &digest.to_string()).await;
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_blob_comes_out_in_ranges() {
    let world = World::start().await;
    let digest = world.put_blob("a", b"0123456789").await;
    let path = format!("/v2/a/blobs/{digest}");
    let head = world.ask(Method::HEAD, &path, &[], "").await;
    assert_eq!((head.status(), header(&head, "content-length")), (StatusCode::OK, "10"));
    assert_eq!(world.registry.served_bytes(), 0);

    let part = world.ask(Method::GET, &path, &[("range", "bytes=4-")], "").await;
    assert_eq!(part.status(), StatusCode::PARTIAL_CONTENT);
    assert_eq!(header(&part, "content-range"), "bytes 4-9/10");
    assert_eq!(header(&part, "content-length"), "6");
    assert_eq!(bytes(part).await.unwrap(), b"456789");
    assert_eq!((world.registry.served_bytes(), world.registry.served_of(&digest)), (6, 6));

    let beyond = world.ask(Method::GET, &path, &[("range", "bytes=10-")], "").await;
    assert_eq!(beyond.status(), StatusCode::RANGE_NOT_SATISFIABLE);
}

#[tokio::test]
async fn faults_break_what_they_say() {
    let world = World::start().await;
    let digest = world.put_blob("a", b"0123456789").await;
    let path = format!("/v2/a/blobs/{digest}");
    let faults = world.registry.faults();

    faults.set(Target::Digest(digest), Fault::Corrupt);
    let corrupt = bytes(world.get(&path).await).await.unwrap();
    assert_eq!((corrupt.len(), corrupt[5]), (10, !b'5'));
    // The same byte, wherever a range begins.
    let part = world.ask(Method::GET, &path, &[("range", "bytes=4-")], "").await;
    assert_eq!(bytes(part).await.unwrap()[1], !b'5');

    faults.set(Target::Digest(digest), Fault::Oversize { extra: 2 });
    let response = world.get(&path).await;
    assert!(!response.headers().contains_key("content-length"));
    assert_eq!(bytes(response).await.unwrap(), b"0123456789\0\0");

    faults.set_times(Target::Digest(digest), Fault::Truncate { after: 3 }, 1);
    let response = world.get(&path).await;
    assert_eq!(header(&response, "content-length"), "10");
    assert!(bytes(response).await.is_err());
    assert_eq!(bytes(world.get(&path).await).await.unwrap(), b"0123456789");
}

#[tokio::test]
async fn a_blob_belongs_to_its_repository_until_it_is_mounted() {
    let world = World::start().await;
    let digest = world.put_blob("a", b"x").await;
    let there = format!("/v2/b/c/blobs/{digest}");
    assert_eq!(world.get(&there).await.status(), StatusCode::NOT_FOUND);

    let mount = |from| format!("/v2/b/c/blobs/uploads/?mount={digest}&from={from}");
    let missing = world.ask(Method::POST, &mount("none"), &[], "").await;
    assert_eq!(missing.status(), StatusCode::ACCEPTED);
    let mounted = world.ask(Method::POST, &mount("a"), &[], "").await;
    assert_eq!(mounted.status(), StatusCode::CREATED);
    assert_eq!(world.get(&there).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn names_are_listed_by_the_page() {
    let world = World::start().await;
    for (repository, tag) in [("a", "1"), ("a", "2"), ("a", "3"), ("b/c", "1")] {
        assert_eq!(world.put_manifest(repository, tag).await.status(), StatusCode::CREATED);
    }
    let page = world.get("/v2/a/tags/list?n=2").await;
    assert_eq!(header(&page, "link"), "</v2/a/tags/list?n=2&last=2>; rel=\"next\"");
    assert_eq!(document(page).await, json!({"name": "a", "tags": ["1", "2"]}));
    let page = world.get("/v2/a/tags/list?n=2&last=2").await;
    assert_eq!(document(page).await["tags"], json!(["3"]));
    assert_eq!(
        document(world.get("/v2/_catalog").await).await,
        json!({"repositories": ["a", "b/c"]})
    );
    for unknown in ["/v2/none/tags/list", "/v2/a/manifests/9", "/v2/A/tags/list", "/v2/a", "/x"] {
        let response = world.get(unknown).await;
        assert!(response.status().is_client_error(), "{unknown}");
        assert!(document(response).await["errors"][0]["code"].is_string(), "{unknown}");
    }
}
