//! The Nodes of one shoot, as far as they are used.

use std::convert::Infallible;
use std::sync::Arc;

use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::{Node, NodeStatus};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client};
use rootstock_core::name::ShootName;
use rootstock_daemon::error::Chain;
use tokio::time::Instant;

use super::task::PATIENCE;
use crate::index::{Index, ShootState};

/// Feeds the index with the Nodes of a shoot. Does not end by itself.
pub(super) async fn follow(client: Client, shoot: ShootName, index: Arc<Index>) -> Infallible {
    let api: Api<Node> = Api::all(client);
    let mut events = watcher(api, watcher::Config::default())
        .modify(|node| {
            // A Node's images alone are 30 KiB.
            node.metadata.managed_fields = None;
            node.metadata.annotations = None;
            let info = node.status.take().and_then(|status| status.node_info);
            node.status = Some(NodeStatus { node_info: info, ..NodeStatus::default() });
        })
        .default_backoff()
        .boxed();
    let mut listed = Vec::new();
    let mut since = Instant::now();
    loop {
        match events.next().await {
            Some(Ok(watcher::Event::Apply(node))) => index.put_node(&shoot, &node),
            Some(Ok(watcher::Event::Delete(node))) => {
                if let Some(name) = node.metadata.name.and_then(|name| name.parse().ok()) {
                    index.remove_node(&shoot, &name);
                }
            }
            Some(Ok(watcher::Event::Init)) => listed.clear(),
            Some(Ok(watcher::Event::InitApply(node))) => listed.push(node),
            Some(Ok(watcher::Event::InitDone)) => {
                tracing::debug!(%shoot, nodes = listed.len(), "nodes listed");
                index.nodes_listed(&shoot, &listed);
                since = Instant::now();
                listed = Vec::new();
            }
            Some(Err(error)) => {
                tracing::warn!(%shoot, error = %Chain(&error), "watching Nodes");
                // A watch that is cut off is opened again at once, and a new
                // shoot's roles take a moment; only what lasts is worth a condition.
                let lasts = since.elapsed() >= PATIENCE;
                if lasts && matches!(error, watcher::Error::InitialListFailed(_)) {
                    let why = Chain(&error).to_string();
                    index.put_shoot_state(&shoot, ShootState::Unreachable(why));
                }
            }
            None => std::future::pending().await,
        }
    }
}
