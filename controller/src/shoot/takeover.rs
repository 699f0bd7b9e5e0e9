//! Whether the gVisor extension's installers are still in a shoot: while one
//! can write on a node, no agent touches gVisor there.
//!
//! ```text
//!  ManagedResources with an installer, in the seed ─ none left ─▶ its Pods, in the shoot ─ none left ─▶ done
//!      └─ all nodes wait                                             └─ the nodes with one wait
//! ```
//! Where there is nothing, that is two lists for a shoot that asks for gVisor,
//! once. A watch is opened only where a list shows something. In a plain
//! cluster nobody looks: Gardener's extension was never there.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;

use futures_util::{Stream, StreamExt as _};
use k8s_openapi::api::core::v1::Pod;
use kube::core::PartialObjectMeta;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, Resource, ResourceExt as _};
use rootstock_core::name::{NodeName, ShootName};
use rootstock_daemon::error::Chain;

use super::trouble::Trouble;
use crate::api::ManagedResource;
use crate::index::{Index, Installer};
use crate::objects::takeover::{ORIGIN, RUNTIME, is_installer};

/// The label of the installer's Pods.
const PODS: &str = "app.kubernetes.io/name=containerd-gvisor";

/// Looks for installers in one shoot.
#[derive(Debug)]
pub(super) struct Takeover {
    shoot: ShootName,
    index: Arc<Index>,
    /// Whether nothing is left: nobody brings an installer back.
    done: bool,
}

impl Takeover {
    /// Nothing is known yet, and the index says so before it knows any Node.
    pub(super) fn new(shoot: ShootName, index: Arc<Index>) -> Self {
        index.put_installer(&shoot, Installer::Unknown);
        Self { shoot, index, done: false }
    }

    /// Nothing was ever there.
    pub(super) fn none(shoot: ShootName, index: Arc<Index>) -> Self {
        index.put_installer(&shoot, Installer::Gone);
        Self { shoot, index, done: true }
    }

    /// Follows what is left until nothing is. Does not end by itself.
    ///
    /// Cancel-safe: it begins anew with a list.
    pub(super) async fn follow(
        &mut self,
        seed: &Client,
        client: &Client,
    ) -> std::convert::Infallible {
        if !self.done {
            // Boxed: each shoot's task would keep room for it for ever.
            let gone = async {
                self.asked().await;
                self.managed_resources(seed).await;
                self.pods(client).await;
            };
            Box::pin(gone).await;
            self.index.put_installer(&self.shoot, Installer::Gone);
            self.done = true;
        }
        std::future::pending().await
    }

    /// Waits until the shoot asks for gVisor.
    async fn asked(&self) {
        let mut changes = self.index.changes();
        while !self.index.asks_for(&self.shoot, RUNTIME) {
            if changes.changed().await.is_err() {
                // The controller ends, and this task with it.
                std::future::pending::<()>().await;
            }
        }
    }

    async fn managed_resources(&self, seed: &Client) {
        let api: Api<PartialObjectMeta<ManagedResource>> =
            Api::namespaced(seed.clone(), self.shoot.as_str());
        let events = watcher(api, watcher::Config::default().labels(ORIGIN)).default_backoff();
        let read = |object: &PartialObjectMeta<ManagedResource>| {
            is_installer(&object.name_any()).then_some(())
        };
        let say = |left: &BTreeMap<String, ()>| {
            let names: Vec<&str> = left.keys().map(String::as_str).collect();
            Installer::Everywhere(format!(
                "the gVisor extension's ManagedResource {} is still there",
                names.join(", ")
            ))
        };
        self.until_none(events, read, say).await;
    }

    async fn pods(&self, client: &Client) {
        let api: Api<Pod> = Api::namespaced(client.clone(), "kube-system");
        let events = watcher(api, watcher::Config::default().labels(PODS))
            .modify(|pod| {
                pod.metadata.managed_fields = None;
                pod.status = None;
                if let Some(spec) = &mut pod.spec {
                    let node_name = spec.node_name.take();
                    *spec = Default::default();
                    spec.node_name = node_name;
                }
            })
            .default_backoff();
        let read = |pod: &Pod| {
            let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
            let node = node.and_then(|node| node.parse::<NodeName>().ok());
            Some((node, still_there(pod)))
        };
        self.until_none(events, read, |left: &BTreeMap<String, (Option<NodeName>, String)>| {
            let mut nodes = BTreeMap::new();
            for (node, why) in left.values() {
                match node {
                    Some(node) => nodes.insert(node.clone(), why.clone()),
                    // One that is on no node yet may come to any.
                    None => return Installer::Everywhere(why.clone()),
                };
            }
            Installer::On(nodes)
        })
        .await;
    }

    /// Follows a watch, says what is left, and returns when nothing is.
    async fn until_none<K, T>(
        &self,
        events: impl Stream<Item = watcher::Result<watcher::Event<K>>>,
        read: impl Fn(&K) -> Option<T>,
        say: impl Fn(&BTreeMap<String, T>) -> Installer,
    ) where
        K: Resource,
    {
        let mut events = pin!(events.ready_chunks(CHUNK));
        let (mut left, mut listed) = (BTreeMap::new(), BTreeMap::new());
        let mut trouble = Trouble::new(self.shoot.clone());
        while let Some(chunk) = events.next().await {
            let mut known = false;
            for event in chunk {
                let entry = |object: &K| Some((object.name_any(), read(object)?));
                match event {
                    Ok(watcher::Event::Apply(object)) => left.extend(entry(&object)),
                    Ok(watcher::Event::Delete(object)) => {
                        left.remove(&object.name_any());
                    }
                    Ok(watcher::Event::Init) => {
                        listed.clear();
                        continue;
                    }
                    Ok(watcher::Event::InitApply(object)) => {
                        listed.extend(entry(&object));
                        continue;
                    }
                    Ok(watcher::Event::InitDone) => left = std::mem::take(&mut listed),
                    Err(error) => {
                        let why = Chain(&error).to_string();
                        if let Some(why) = trouble.note(&why) {
                            let why = format!(
                                "it can't be seen whether the gVisor extension is there: {why}"
                            );
                            self.index.put_installer(&self.shoot, Installer::Everywhere(why));
                        }
                        continue;
                    }
                }
                known = true;
            }
            if !known {
                continue;
            }
            trouble.over();
            if left.is_empty() {
                return;
            }
            self.index.put_installer(&self.shoot, say(&left));
        }
    }
}

/// Why a Pod keeps its node waiting, and what helps where its ManagedResource
/// went without it: a migration that was broken off leaves that.
fn still_there(pod: &Pod) -> String {
    let name = pod.name_any();
    let owners = pod.owner_references().iter();
    let mut owners = owners.filter(|owner| owner.controller == Some(true));
    let what = match owners.next() {
        Some(owner) => format!("{} {}", owner.kind.to_lowercase(), owner.name),
        None => format!("pod {name}"),
    };
    format!(
        "the gVisor extension's Pod kube-system/{name} is still there; \
         if it stays: kubectl -n kube-system delete {what}"
    )
}

/// Events that are taken together where so many are there: each makes every
/// node of the shoot be looked at again.
const CHUNK: usize = 256;
