//! The Nodes of one shoot, as far as they are used.

use std::convert::Infallible;
use std::sync::Arc;

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use k8s_openapi::api::core::v1::{Node, NodeStatus};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client};
use rootstock_core::name::ShootName;
use rootstock_daemon::error::Chain;
use tokio::time::Instant;

use super::PATIENCE;
use crate::index::{Index, MAX_NODES, ShootState};

/// Feeds the index with the Nodes of a shoot. Does not end by itself.
pub(super) async fn follow(client: Client, shoot: ShootName, index: Arc<Index>) -> Infallible {
    let api: Api<Node> = Api::all(client);
    let mut events = events(&api);
    let mut listed = Vec::new();
    let mut passed_over = 0_usize;
    let mut failing = Failing::default();
    loop {
        let event = events.next().await;
        if event.as_ref().is_some_and(is_answer) {
            failing = Failing::default();
        }
        match event {
            Some(Ok(watcher::Event::Apply(node))) => index.put_node(&shoot, &node),
            Some(Ok(watcher::Event::Delete(node))) => {
                if let Some(name) = node.metadata.name.and_then(|name| name.parse().ok()) {
                    index.remove_node(&shoot, &name);
                }
            }
            Some(Ok(watcher::Event::Init)) => {
                listed.clear();
                passed_over = 0;
            }
            Some(Ok(watcher::Event::InitApply(node))) if listed.len() < MAX_NODES => {
                listed.push(node);
            }
            Some(Ok(watcher::Event::InitApply(_))) => passed_over += 1,
            Some(Ok(watcher::Event::InitDone)) => {
                tracing::debug!(%shoot, nodes = listed.len(), "nodes listed");
                if passed_over > 0 {
                    tracing::warn!(%shoot, MAX_NODES, passed_over, "the shoot has too many Nodes");
                }
                index.nodes_listed(&shoot, &listed);
                listed = Vec::new();
            }
            Some(Err(error)) => {
                tracing::warn!(%shoot, error = %Chain(&error), "watching Nodes");
                if failing.lasts(Instant::now()) {
                    let why = Chain(&error).to_string();
                    index.put_shoot_state(&shoot, ShootState::Unreachable(why));
                    // A watch that is only opened again does not tell when
                    // that worked; a new list does.
                    if !matches!(error, watcher::Error::InitialListFailed(_)) {
                        events = self::events(&api);
                    }
                }
            }
            None => std::future::pending().await,
        }
    }
}

fn events(api: &Api<Node>) -> BoxStream<'static, watcher::Result<watcher::Event<Node>>> {
    watcher(api.clone(), watcher::Config::default())
        .modify(|node| {
            // A Node's images alone are 30 KiB.
            node.metadata.managed_fields = None;
            node.metadata.annotations = None;
            node.spec = None;
            let info = node.status.take().and_then(|status| status.node_info);
            node.status = Some(NodeStatus { node_info: info, ..NodeStatus::default() });
        })
        .default_backoff()
        .boxed()
}

/// Whether the shoot's API answered: a list is announced before it is asked for.
fn is_answer(event: &watcher::Result<watcher::Event<Node>>) -> bool {
    match event {
        Ok(watcher::Event::Init) | Err(_) => false,
        Ok(
            watcher::Event::Apply(_)
            | watcher::Event::Delete(_)
            | watcher::Event::InitApply(_)
            | watcher::Event::InitDone,
        ) => true,
    }
}

/// How long a watch has failed. One that is cut off is opened again at once,
/// and a new shoot's roles take a moment: only what lasts is worth a condition.
#[derive(Debug, Default)]
struct Failing(Option<Instant>);

impl Failing {
    /// Notes a failure and tells whether it lasts.
    fn lasts(&mut self, now: Instant) -> bool {
        let since = *self.0.get_or_insert(now);
        now.saturating_duration_since(since) >= PATIENCE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_failure_that_lasts_is_worth_a_condition() {
        let start = Instant::now();
        let mut failing = Failing::default();
        assert!(!failing.lasts(start));
        assert!(!failing.lasts(start + PATIENCE / 2));
        assert!(failing.lasts(start + PATIENCE));
        assert!(!is_answer(&Ok(watcher::Event::Init)));
        assert!(is_answer(&Ok(watcher::Event::InitDone)));
    }
}
