//! The distribution specification's endpoints.

mod list;
mod upload;

use std::io::SeekFrom;
use std::sync::{Arc, PoisonError};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use http::header::{
    ACCEPT_RANGES, AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, LOCATION, RANGE,
};
use http::request::Parts;
use http::{HeaderMap, HeaderName, Method, StatusCode};
use rootstock_bundle::media::MAX_MANIFEST_SIZE;
use rootstock_core::digest::Digest;
use rootstock_core::reference::{Repository, Tag, Version};
use tokio::io::AsyncSeekExt as _;

use super::Shared;
use super::answer::Refusal;
use super::body::Outgoing;
use super::faults::{Fault, Target};
use super::store::Found;

const DOCKER_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

type Answer = Result<Response, Refusal>;

pub(super) fn router(shared: Arc<Shared>) -> Router {
    // Repositories have slashes in their names, which path patterns can't
    // express in the middle: the path is taken apart by hand.
    Router::new().fallback(handle).with_state(shared)
}

async fn handle(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    shared.meter.count_request();
    let (head, body) = request.into_parts();
    let response = route(&shared, &head, body).await;
    let response = response.unwrap_or_else(|refusal| refusal.into_response());
    let (method, path) = (head.method, head.uri.path());
    tracing::debug!(%method, path, status = response.status().as_u16(), "registry");
    response
}

async fn route(shared: &Arc<Shared>, request: &Parts, body: Body) -> Answer {
    if let Some((_, Fault::Status(status))) = shared.faults.strike(&[Target::Everything]) {
        return Err(Refusal::on_demand(status));
    }
    if !is_welcome(shared, &request.headers) {
        return Err(Refusal::unauthorized());
    }
    let path = request.uri.path();
    let unknown = || Refusal::not_found("NAME_UNKNOWN", path);
    let rest = match path.strip_prefix("/v2/") {
        None if path == "/v2" => "",
        None => return Err(unknown()),
        Some(rest) => rest,
    };
    let reads = matches!(request.method, Method::GET | Method::HEAD);
    match rest {
        "" if reads => return Ok(json("{}".to_owned())),
        "_catalog" if reads => return list::catalog(shared, request.uri.query()).await,
        _ => {}
    }
    if let Some(repository) = rest.strip_suffix("/tags/list") {
        let repository = repository_of(repository)?;
        return list::tags(shared, &repository, request.uri.query()).await;
    }
    if let Some((repository, id)) = rest.split_once("/blobs/uploads/") {
        return upload::upload(shared, repository_of(repository)?, id, request, body).await;
    }
    if let Some(repository) = rest.strip_suffix("/blobs/uploads") {
        return upload::upload(shared, repository_of(repository)?, "", request, body).await;
    }
    if let Some((repository, digest)) = rest.rsplit_once("/blobs/") {
        let repository = repository_of(repository)?;
        let digest: Digest = digest.parse().map_err(Refusal::digest)?;
        if !reads {
            return Err(unsupported());
        }
        let found = shared.store.blob(&repository, &digest).await?;
        let found = found.ok_or_else(|| Refusal::not_found("BLOB_UNKNOWN", digest))?;
        return hand_out(shared, request, found, true).await;
    }
    if let Some((repository, name)) = rest.rsplit_once("/manifests/") {
        let repository = repository_of(repository)?;
        let version = match name.parse::<Digest>() {
            Ok(digest) => Version::Digest(digest),
            Err(_) => Version::Tag(name.parse::<Tag>().map_err(|error| {
                Refusal::new(StatusCode::BAD_REQUEST, "MANIFEST_INVALID", error)
            })?),
        };
        return match request.method {
            Method::GET | Method::HEAD => manifest(shared, &repository, &version, request).await,
            Method::PUT => put_manifest(shared, &repository, version, request, body).await,
            _ => Err(unsupported()),
        };
    }
    Err(unknown())
}

fn is_welcome(shared: &Shared, headers: &HeaderMap) -> bool {
    let wanted = shared.login.read().unwrap_or_else(PoisonError::into_inner);
    wanted.is_empty() || header(headers, AUTHORIZATION) == Some(wanted.as_str())
}

fn repository_of(name: &str) -> Result<Repository, Refusal> {
    name.parse().map_err(|error| Refusal::new(StatusCode::BAD_REQUEST, "NAME_INVALID", error))
}

fn unsupported() -> Refusal {
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", "this registry can't do that")
}

fn json(body: String) -> Response {
    ([(CONTENT_TYPE, "application/json")], body).into_response()
}

async fn manifest(
    shared: &Arc<Shared>,
    repository: &Repository,
    version: &Version,
    request: &Parts,
) -> Answer {
    let unknown =
        || Refusal::not_found("MANIFEST_UNKNOWN", format_args!("manifest {repository}{version}"));
    let digest = match version {
        Version::Digest(digest) => *digest,
        Version::Tag(tag) => shared.store.tag(repository, tag).await?.ok_or_else(unknown)?,
    };
    let found = shared.store.manifest(repository, &digest).await?.ok_or_else(unknown)?;
    hand_out(shared, request, found, false).await
}

/// A blob or manifest, or what a fault makes of it.
async fn hand_out(shared: &Arc<Shared>, request: &Parts, found: Found, is_blob: bool) -> Answer {
    let kind = if is_blob { Target::Blobs } else { Target::Manifests };
    let fault = shared.faults.strike(&[Target::Digest(found.digest), kind]);
    if let Some((_, Fault::Status(status))) = fault {
        return Err(Refusal::on_demand(status));
    }
    let range = match request.headers.get(RANGE) {
        Some(value) if is_blob => parse_range(value.to_str().unwrap_or_default(), found.size)?,
        Some(_) | None => None,
    };
    let (from, length) = range.unwrap_or((0, found.size));
    let mut file = tokio::fs::File::open(&found.at).await?;
    file.seek(SeekFrom::Start(from)).await?;
    let out = Outgoing {
        shared: Arc::clone(shared),
        file,
        digest: found.digest,
        size: found.size,
        from,
        length,
        fault,
        is_blob,
    };
    let mut response = Response::builder()
        .header(CONTENT_TYPE, &found.media_type)
        .header(DOCKER_DIGEST, found.digest.to_string())
        .header(ACCEPT_RANGES, "bytes");
    if let Some(length) = out.stated_length() {
        response = response.header(CONTENT_LENGTH, length);
    }
    if range.is_some() {
        let last = from + length - 1;
        response = response
            .status(StatusCode::PARTIAL_CONTENT)
            .header(CONTENT_RANGE, format!("bytes {from}-{last}/{}", found.size));
    }
    let head = request.method == Method::HEAD;
    finish(response, if head { Body::empty() } else { out.into_body() })
}

/// The first byte and the length of `bytes=a-b`, `bytes=a-` or `bytes=-n`;
/// none where the header is of a form that a server may pass over.
fn parse_range(value: &str, size: u64) -> Result<Option<(u64, u64)>, Refusal> {
    let Some((first, last)) = value.strip_prefix("bytes=").and_then(|range| range.split_once('-'))
    else {
        return Ok(None);
    };
    let beyond = || {
        let text = format!("{value} of {size} bytes");
        Refusal::new(StatusCode::RANGE_NOT_SATISFIABLE, "RANGE_INVALID", text)
    };
    let (first, end) = match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(first), Ok(last)) if first <= last => (first, last.saturating_add(1).min(size)),
        (Ok(first), Err(_)) if last.is_empty() => (first, size),
        (Err(_), Ok(suffix)) if first.is_empty() => (size.saturating_sub(suffix), size),
        _ => return Ok(None),
    };
    if first >= end { Err(beyond()) } else { Ok(Some((first, end - first))) }
}

async fn put_manifest(
    shared: &Shared,
    repository: &Repository,
    version: Version,
    request: &Parts,
    body: Body,
) -> Answer {
    let invalid = |status, text: String| Refusal::new(status, "MANIFEST_INVALID", text);
    let media_type = header(&request.headers, CONTENT_TYPE).unwrap_or_default().to_owned();
    if media_type.is_empty() {
        return Err(invalid(StatusCode::BAD_REQUEST, "it has no Content-Type".to_owned()));
    }
    let bytes = axum::body::to_bytes(body, MAX_MANIFEST_SIZE)
        .await
        .map_err(|error| invalid(StatusCode::PAYLOAD_TOO_LARGE, error.to_string()))?;
    if let Err(error) = serde_json::from_slice::<serde::de::IgnoredAny>(&bytes) {
        return Err(invalid(StatusCode::BAD_REQUEST, error.to_string()));
    }
    let digest = Digest::of(&bytes);
    let tag = match &version {
        Version::Digest(named) if *named != digest => {
            return Err(Refusal::digest(format_args!("the manifest has digest {digest}")));
        }
        Version::Digest(_) => None,
        Version::Tag(tag) => Some(tag),
    };
    shared.store.put_manifest(repository, tag, &digest, &media_type, bytes.into()).await?;
    let name = tag.map_or_else(|| digest.to_string(), ToString::to_string);
    let response = Response::builder()
        .status(StatusCode::CREATED)
        .header(LOCATION, format!("/v2/{repository}/manifests/{name}"))
        .header(DOCKER_DIGEST, digest.to_string());
    finish(response, Body::empty())
}

fn finish(response: http::response::Builder, body: Body) -> Answer {
    response
        .body(body)
        .map_err(|error| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN", error))
}

fn header(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// A query parameter. Digests come with their `:` escaped.
fn parameter(query: &str, name: &str) -> Option<String> {
    let value = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))?;
    let mut plain = Vec::with_capacity(value.len());
    let mut bytes = value.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let hex = [bytes.next()?, bytes.next()?];
            plain.push(u8::from_str_radix(std::str::from_utf8(&hex).ok()?, 16).ok()?);
        } else {
            plain.push(byte);
        }
    }
    String::from_utf8(plain).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_those_of_http() {
        for (value, want) in [
            ("bytes=0-3", Some((0, 4))),
            ("bytes=4-", Some((4, 6))),
            ("bytes=-2", Some((8, 2))),
            ("bytes=8-99", Some((8, 2))),
            ("lines=1-2", None),
            ("bytes=3-1", None),
        ] {
            assert_eq!(parse_range(value, 10).unwrap(), want, "{value}");
        }
        assert!(parse_range("bytes=10-", 10).is_err());
    }

    #[test]
    fn parameters_are_unescaped() {
        assert_eq!(parameter("a=b&digest=sha256%3Aff", "digest").unwrap(), "sha256:ff");
        assert_eq!(parameter("digestive=1", "digest"), None);
        assert_eq!(parameter("digest=%zz", "digest"), None);
        assert_eq!(parameter("digest=%ä", "digest"), None);
    }
}
