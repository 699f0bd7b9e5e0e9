//! Uploads: one POST, POST and PUT, or chunks by PATCH between them.

use axum::body::Body;
use axum::response::Response;
use http::header::{CONTENT_RANGE, LOCATION, RANGE};
use http::request::Parts;
use http::{HeaderName, Method, StatusCode};
use rootstock_core::digest::Digest;
use rootstock_core::reference::Repository;

use super::{Answer, DOCKER_DIGEST, finish, header, parameter, unsupported};
use crate::registry::Shared;
use crate::registry::answer::Refusal;
use crate::registry::uploads::Session;

const UPLOAD_ID: HeaderName = HeaderName::from_static("docker-upload-uuid");

pub(super) async fn upload(
    shared: &Shared,
    repository: Repository,
    id: &str,
    request: &Parts,
    body: Body,
) -> Answer {
    let query = request.uri.query().unwrap_or_default();
    let digest: Option<Digest> = match parameter(query, "digest") {
        Some(text) => Some(text.parse().map_err(Refusal::digest)?),
        None => None,
    };
    let unknown = || Refusal::not_found("BLOB_UPLOAD_UNKNOWN", format_args!("upload {id}"));
    match request.method {
        Method::POST if id.is_empty() => {
            if let Some(digest) = mountable(query)
                && shared.store.mount(&digest.1, &repository, &digest.0).await?
            {
                return created(&repository, &digest.0);
            }
            let session = shared.uploads.begin()?;
            match digest {
                Some(digest) => complete(shared, &repository, session, digest, body).await,
                None => accepted(shared, &repository, session, StatusCode::ACCEPTED),
            }
        }
        Method::PATCH => {
            let begin = header(&request.headers, CONTENT_RANGE)
                .map(|range| range.split('-').next().unwrap_or_default().to_owned());
            let mut session = shared.uploads.take(id).ok_or_else(unknown)?;
            // A chunk that does not begin where the last one ended.
            if begin.is_some_and(|begin| begin != session.size().to_string()) {
                return accepted(shared, &repository, session, StatusCode::RANGE_NOT_SATISFIABLE);
            }
            session.append(body).await?;
            accepted(shared, &repository, session, StatusCode::ACCEPTED)
        }
        Method::PUT => {
            let digest = digest.ok_or_else(|| Refusal::digest("the digest is missing"))?;
            let session = shared.uploads.take(id).ok_or_else(unknown)?;
            complete(shared, &repository, session, digest, body).await
        }
        Method::GET => {
            let session = shared.uploads.take(id).ok_or_else(unknown)?;
            accepted(shared, &repository, session, StatusCode::NO_CONTENT)
        }
        Method::DELETE => {
            shared.uploads.take(id).ok_or_else(unknown)?;
            finish(Response::builder().status(StatusCode::NO_CONTENT), Body::empty())
        }
        _ => Err(unsupported()),
    }
}

fn mountable(query: &str) -> Option<(Digest, Repository)> {
    Some((parameter(query, "mount")?.parse().ok()?, parameter(query, "from")?.parse().ok()?))
}

/// Tells a client where its upload stands, and keeps it.
fn accepted(
    shared: &Shared,
    repository: &Repository,
    session: Session,
    status: StatusCode,
) -> Answer {
    let response = Response::builder()
        .status(status)
        .header(LOCATION, format!("/v2/{repository}/blobs/uploads/{}", session.id()))
        .header(UPLOAD_ID, session.id())
        .header(RANGE, format!("0-{}", session.size().saturating_sub(1)));
    shared.uploads.put_back(session);
    finish(response, Body::empty())
}

async fn complete(
    shared: &Shared,
    repository: &Repository,
    mut session: Session,
    digest: Digest,
    body: Body,
) -> Answer {
    session.append(body).await?;
    let (file, actual) = session.finish();
    if actual != digest {
        return Err(Refusal::digest(format_args!("the blob has digest {actual}")));
    }
    shared.store.put_blob(repository, &digest, file).await?;
    shared.meter.count_upload();
    created(repository, &digest)
}

fn created(repository: &Repository, digest: &Digest) -> Answer {
    let response = Response::builder()
        .status(StatusCode::CREATED)
        .header(LOCATION, format!("/v2/{repository}/blobs/{digest}"))
        .header(DOCKER_DIGEST, digest.to_string());
    finish(response, Body::empty())
}
