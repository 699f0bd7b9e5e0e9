//! The Nodes of one shoot, as far as they are used: names, UIDs and labels.
//!
//! ```text
//!  list, page by page ─▶ index.nodes_listed ─▶ watch from there ─▶ index.put_node, remove_node
//!        ▲                                        │ ended: again from the last version seen
//!        └──────────── 410: too long ago ─────────┘
//! ```
//!
//! Where it stands outlives clients and failures, so that nothing is listed
//! twice for a new token. Only metadata is asked for (a Node's images alone
//! are 30 KiB), and of that only what is used is decoded. The architecture
//! comes from the label that every kubelet sets.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::TryStreamExt as _;
use http_body_util::LengthLimitError;
use k8s_openapi::api::core::v1::Node;
use kube::Client;
use kube::api::{ListParams, ObjectMeta, Request, WatchEvent, WatchParams};
use rootstock_core::name::ShootName;
use serde::Deserialize;
use tokio::time::{Instant, timeout};

use super::trouble::{self, Kind};
use crate::index::{Index, MAX_LABEL_BYTES, MAX_NODES};

/// Nodes in one answer.
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

/// Why Nodes can't be followed now.
#[derive(Debug, thiserror::Error)]
pub(super) enum NodesError {
    /// The API refused, or is away.
    #[error("the shoot's API does not give its Nodes")]
    Api(#[source] kube::Error),
    /// A list did not come to its end.
    #[error("the shoot's API takes longer than {} s for a list of Nodes", LIST.as_secs())]
    Slow,
    /// Watches end at once.
    #[error("the shoot's API ends each watch of Nodes at once")]
    Short,
    /// A list does not say of when it is.
    #[error("the shoot's API gives a list without resourceVersion")]
    NoVersion,
}

impl NodesError {
    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Api(error) => trouble::kind(error),
            Self::Slow | Self::Short | Self::NoVersion => Kind::Away,
        }
    }
}

/// Feeds the index with the Nodes of a shoot.
#[derive(Debug)]
pub(super) struct Nodes {
    shoot: ShootName,
    index: Arc<Index>,
    /// The version up to which everything is in the index.
    from: Option<String>,
    page: u32,
}

/// What is read of a Node.
#[derive(Clone, Debug, Deserialize)]
struct Item {
    metadata: Meta,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Meta {
    name: Option<String>,
    uid: Option<String>,
    labels: Option<BTreeMap<String, String>>,
    resource_version: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Page {
    metadata: PageMeta,
    /// None where there are none: the server writes `null` then.
    items: Option<Vec<Item>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PageMeta {
    resource_version: Option<String>,
    #[serde(rename = "continue")]
    next: Option<String>,
}

impl Item {
    fn into_node(self) -> Node {
        let Meta { name, uid, labels, .. } = self.metadata;
        Node {
            metadata: ObjectMeta { name, uid, labels, ..ObjectMeta::default() },
            ..Node::default()
        }
    }

    fn label_bytes(&self) -> usize {
        self.metadata.labels.iter().flatten().map(|(key, value)| key.len() + value.len()).sum()
    }
}

impl Nodes {
    pub(super) fn new(shoot: ShootName, index: Arc<Index>) -> Self {
        Self { shoot, index, from: None, page: PAGE }
    }

    /// The index knows the Nodes no longer: they are listed anew.
    pub(super) fn forget(&mut self) {
        self.from = None;
    }

    /// Goes on until something is wrong; `healthy` is called when it works.
    ///
    /// Cancel-safe: what is not in the index yet is asked for again.
    pub(super) async fn follow(
        &mut self,
        client: &Client,
        mut healthy: impl FnMut(),
    ) -> NodesError {
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
    ) -> Result<(), NodesError> {
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

    async fn list(&mut self, client: &Client) -> Result<String, NodesError> {
        let mut nodes = Vec::new();
        let (mut passed_over, mut label_bytes) = (0_usize, 0_usize);
        let mut next: Option<String> = None;
        let version = loop {
            let mut params = ListParams::default().limit(self.page);
            params.continue_token.clone_from(&next);
            let request = request().list_metadata(&params).map_err(unbuilt)?;
            let page: Page = match timeout(LIST, client.request(request)).await {
                Err(_) => return Err(NodesError::Slow),
                Ok(Err(error)) if self.page > 1 && is_too_large(&error) => {
                    self.page = (self.page / 8).max(1);
                    tracing::debug!(shoot = %self.shoot, page = self.page, "Nodes are large");
                    continue;
                }
                Ok(page) => page.map_err(NodesError::Api)?,
            };
            for item in page.items.into_iter().flatten() {
                label_bytes += item.label_bytes();
                if nodes.len() < MAX_NODES && label_bytes <= MAX_LABEL_BYTES {
                    nodes.push(item.into_node());
                } else {
                    passed_over += 1;
                }
            }
            next = page.metadata.next.filter(|token| !token.is_empty());
            if next.is_none() {
                break page.metadata.resource_version.filter(|version| !version.is_empty());
            }
        };
        let version = version.ok_or(NodesError::NoVersion)?;
        tracing::debug!(shoot = %self.shoot, nodes = nodes.len(), "nodes listed");
        if passed_over > 0 {
            tracing::warn!(shoot = %self.shoot, MAX_NODES, passed_over, "the shoot has too many Nodes");
        }
        self.index.nodes_listed(&self.shoot, &nodes);
        Ok(version)
    }

    async fn watch(
        &mut self,
        client: &Client,
        from: String,
        healthy: &mut impl FnMut(),
    ) -> Result<(), NodesError> {
        let seconds = u32::try_from(trouble::jitter(WATCH).as_secs()).unwrap_or(300);
        let params = WatchParams::default().timeout(seconds);
        let request = request().watch_metadata(&params, &from).map_err(unbuilt)?;
        let begun = Instant::now();
        let events = match timeout(LIST, client.request_events::<Item>(request)).await {
            Err(_) => return Err(NodesError::Slow),
            Ok(events) => events.map_err(NodesError::Api)?,
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
                Ok(event) => event.map_err(NodesError::Api)?,
            };
            let Some(event) = event else {
                return if silent && begun.elapsed() < SHORT {
                    Err(NodesError::Short)
                } else {
                    Ok(())
                };
            };
            let version = match event {
                WatchEvent::Added(item) | WatchEvent::Modified(item) => {
                    let version = item.metadata.resource_version.clone();
                    self.index.put_node(&self.shoot, &item.into_node());
                    version
                }
                WatchEvent::Deleted(item) => {
                    if let Some(name) = item.metadata.name.and_then(|name| name.parse().ok()) {
                        self.index.remove_node(&self.shoot, &name);
                    }
                    item.metadata.resource_version
                }
                WatchEvent::Bookmark(bookmark) => Some(bookmark.metadata.resource_version),
                WatchEvent::Error(status) => return Err(NodesError::Api(kube::Error::Api(status))),
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

fn request() -> Request {
    Request::new("/api/v1/nodes")
}

fn unbuilt(error: kube::core::request::Error) -> NodesError {
    NodesError::Api(kube::Error::BuildRequest(error))
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
