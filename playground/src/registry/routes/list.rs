//! Lists of tags and repositories, by the page.

use axum::response::Response;
use http::header::LINK;
use rootstock_core::reference::Repository;

use super::{Answer, json, parameter};
use crate::registry::Shared;
use crate::registry::answer::Refusal;

pub(super) async fn tags(shared: &Shared, repository: &Repository, query: Option<&str>) -> Answer {
    let all = shared.store.tags(repository).await?;
    let all = all.ok_or_else(|| Refusal::not_found("NAME_UNKNOWN", repository))?;
    let (tags, next) = page(all, query);
    let body = serde_json::json!({"name": repository, "tags": tags});
    Ok(with_next(json(body.to_string()), next, &format!("/v2/{repository}/tags/list")))
}

pub(super) async fn catalog(shared: &Shared, query: Option<&str>) -> Answer {
    let (repositories, next) = page(shared.store.repositories().await?, query);
    let body = serde_json::json!({"repositories": repositories});
    Ok(with_next(json(body.to_string()), next, "/v2/_catalog"))
}

/// The page behind `last`, at most `n` names; and the query of the next one.
fn page(mut all: Vec<String>, query: Option<&str>) -> (Vec<String>, Option<String>) {
    let query = query.unwrap_or_default();
    if let Some(last) = parameter(query, "last") {
        all.retain(|name| *name > last);
    }
    let limit = parameter(query, "n").and_then(|n| n.parse::<usize>().ok());
    match limit {
        Some(limit) if limit < all.len() => {
            all.truncate(limit);
            let next = all.last().map(|last| format!("n={limit}&last={last}"));
            (all, next)
        }
        Some(_) | None => (all, None),
    }
}

fn with_next(mut response: Response, next: Option<String>, path: &str) -> Response {
    let link = next.and_then(|query| format!("<{path}?{query}>; rel=\"next\"").parse().ok());
    if let Some(link) = link {
        response.headers_mut().insert(LINK, link);
    }
    response
}
