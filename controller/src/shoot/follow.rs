//! Objects of one shoot's API, followed: listed once, then watched.
//!
//! ```text
//!  list, page by page ─▶ Followed::listed ─▶ watch from there ─▶ Followed::put, gone
//!        ▲                                        │ ended: again from the last version seen
//!        └──────────── 410: too long ago ─────────┘
//! ```

use std::pin::pin;
use std::time::Duration;

use futures_util::TryStreamExt as _;
use http_body_util::LengthLimitError;
use kube::Client;
use kube::api::{ListParams, WatchEvent, WatchParams};
use kube::core::request::Error as Unbuilt;
use rootstock_core::name::ShootName;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout};

use super::trouble::{self, Kind};

/// Objects in one answer.
const PAGE: u32 = 500;
/// How long one page may take, its body included.
const LIST: Duration = Duration::from_secs(30);
/// The longest that one watch lives: the server ends it, and the next goes on
/// from there. It is spread, so that not all are opened again at once.
const WATCH: Duration = Duration::from_secs(600);
/// A server sends a bookmark each minute, give or take a quarter: where
/// nothing comes for longer, nobody is there.
const IDLE: Duration = Duration::from_secs(100);
/// A watch that ends sooner, without a word, is a failure.
const SHORT: Duration = Duration::from_secs(2);

/// Why objects can't be followed now.
#[derive(Debug, thiserror::Error)]
pub(super) enum FollowError {
    /// The API refused, or is away.
    #[error("the shoot's API does not give its {what}")]
    Api {
        what: &'static str,
        #[source]
        source: kube::Error,
    },
    /// A list did not come to its end.
    #[error("the shoot's API takes longer than {} s for a list of {what}", LIST.as_secs())]
    Slow { what: &'static str },
    /// Watches end at once.
    #[error("the shoot's API ends each watch of {what} at once")]
    Short { what: &'static str },
    /// A list does not say of when it is.
    #[error("the shoot's API gives a list without resourceVersion")]
    NoVersion,
}

impl FollowError {
    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Api { source, .. } => trouble::kind(source),
            Self::Slow { .. } | Self::Short { .. } | Self::NoVersion => Kind::Away,
        }
    }
}

/// What is followed: how it is asked for, and who is told.
pub(super) trait Followed {
    /// What is decoded of an object.
    type Item: DeserializeOwned + Clone;

    /// What they are called, in the plural.
    const WHAT: &'static str;

    /// The request for a page of a list.
    fn list(params: &ListParams) -> Result<http::Request<Vec<u8>>, Unbuilt>;

    /// The request for a watch from a version on.
    fn watch(params: &WatchParams, from: &str) -> Result<http::Request<Vec<u8>>, Unbuilt>;

    /// The object's version.
    fn version(item: &Self::Item) -> Option<&str>;

    /// A list begins.
    fn begin(&mut self);

    /// The list has this one.
    fn gather(&mut self, item: Self::Item);

    /// What was gathered since the list began is all that there is.
    fn listed(&mut self);

    /// This one is there, or has changed.
    fn put(&mut self, item: Self::Item);

    /// This one is gone.
    fn gone(&mut self, item: Self::Item);
}

/// Follows objects. Where it stands outlives clients and failures, so that
/// nothing is listed twice for a new token.
#[derive(Debug)]
pub(super) struct Follow<F> {
    shoot: ShootName,
    followed: F,
    /// The version up to which everything was told.
    from: Option<String>,
    page: u32,
}

#[derive(Debug, Deserialize)]
struct Page<T> {
    metadata: PageMeta,
    /// None where there are none: the server writes `null` then.
    items: Option<Vec<T>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PageMeta {
    resource_version: Option<String>,
    #[serde(rename = "continue")]
    next: Option<String>,
}

impl<F: Followed> Follow<F> {
    pub(super) fn new(shoot: ShootName, followed: F) -> Self {
        Self { shoot, followed, from: None, page: PAGE }
    }

    /// Nothing is known any more: all is listed anew.
    pub(super) fn forget(&mut self) {
        self.from = None;
    }

    /// Goes on until something is wrong; `healthy` is called when it works.
    ///
    /// Cancel-safe: what was not told yet is asked for again.
    pub(super) async fn follow(
        &mut self,
        client: &Client,
        mut healthy: impl FnMut(),
    ) -> FollowError {
        loop {
            if let Err(error) = self.step(client, &mut healthy).await {
                if error.kind() == Kind::Expired {
                    self.from = None;
                }
                return error;
            }
        }
    }

    async fn step(
        &mut self,
        client: &Client,
        healthy: &mut impl FnMut(),
    ) -> Result<(), FollowError> {
        let from = match &self.from {
            Some(from) => from.clone(),
            None => {
                let from = self.list(client).await?;
                self.from = Some(from.clone());
                from
            }
        };
        self.watch(client, from, healthy).await
    }

    async fn list(&mut self, client: &Client) -> Result<String, FollowError> {
        self.followed.begin();
        let mut count = 0_usize;
        let mut next: Option<String> = None;
        let version = loop {
            let mut params = ListParams::default().limit(self.page);
            params.continue_token.clone_from(&next);
            let request = F::list(&params).map_err(unbuilt::<F>)?;
            let page: Page<F::Item> = match timeout(LIST, client.request(request)).await {
                Err(_) => return Err(FollowError::Slow { what: F::WHAT }),
                Ok(Err(error)) if self.page > 1 && is_too_large(&error) => {
                    self.page = (self.page / 8).max(1);
                    let (what, page) = (F::WHAT, self.page);
                    tracing::debug!(shoot = %self.shoot, page, "{what} are large");
                    continue;
                }
                Ok(page) => page.map_err(refused::<F>)?,
            };
            for item in page.items.into_iter().flatten() {
                count += 1;
                self.followed.gather(item);
            }
            next = page.metadata.next.filter(|token| !token.is_empty());
            if next.is_none() {
                break page.metadata.resource_version.filter(|version| !version.is_empty());
            }
        };
        let version = version.ok_or(FollowError::NoVersion)?;
        tracing::debug!(shoot = %self.shoot, count, "{} listed", F::WHAT);
        self.followed.listed();
        Ok(version)
    }

    async fn watch(
        &mut self,
        client: &Client,
        from: String,
        healthy: &mut impl FnMut(),
    ) -> Result<(), FollowError> {
        let seconds = u32::try_from(trouble::jitter(WATCH).as_secs()).unwrap_or(300);
        let params = WatchParams::default().timeout(seconds);
        let request = F::watch(&params, &from).map_err(unbuilt::<F>)?;
        let begun = Instant::now();
        let events = match timeout(LIST, client.request_events::<F::Item>(request)).await {
            Err(_) => return Err(FollowError::Slow { what: F::WHAT }),
            Ok(events) => events.map_err(refused::<F>)?,
        };
        let mut events = pin!(events);
        let mut silent = true;
        loop {
            // One that lives for a moment, or says something, is one that works.
            let bound = if silent { SHORT } else { IDLE };
            let event = match timeout(bound, events.try_next()).await {
                Err(_) if silent => {
                    silent = false;
                    healthy();
                    continue;
                }
                // Nobody may be there any more; another connection tells.
                Err(_) => return Ok(()),
                Ok(event) => event.map_err(refused::<F>)?,
            };
            let Some(event) = event else {
                return if silent && begun.elapsed() < SHORT {
                    Err(FollowError::Short { what: F::WHAT })
                } else {
                    Ok(())
                };
            };
            let version = match event {
                WatchEvent::Added(item) | WatchEvent::Modified(item) => {
                    let version = F::version(&item).map(str::to_owned);
                    self.followed.put(item);
                    version
                }
                WatchEvent::Deleted(item) => {
                    let version = F::version(&item).map(str::to_owned);
                    self.followed.gone(item);
                    version
                }
                WatchEvent::Bookmark(bookmark) => Some(bookmark.metadata.resource_version),
                WatchEvent::Error(status) => return Err(refused::<F>(kube::Error::Api(status))),
            };
            if let Some(version) = version.filter(|version| !version.is_empty()) {
                self.from = Some(version);
            }
            if std::mem::take(&mut silent) {
                healthy();
            }
        }
    }
}

fn refused<F: Followed>(source: kube::Error) -> FollowError {
    FollowError::Api { what: F::WHAT, source }
}

fn unbuilt<F: Followed>(error: Unbuilt) -> FollowError {
    refused::<F>(kube::Error::BuildRequest(error))
}

/// Whether an answer was larger than is borne.
fn is_too_large(error: &kube::Error) -> bool {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = source {
        if error.is::<LengthLimitError>() {
            return true;
        }
        source = error.source();
    }
    false
}
