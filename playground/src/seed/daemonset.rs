//! The DaemonSet controller and the scheduler: one Pod for each node that the
//! DaemonSet's node affinity selects.

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, RandomState};

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Node, NodeSelectorRequirement, NodeSelectorTerm, Pod};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::watcher;
use kube::{Api, Resource as _, ResourceExt as _};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::follow::Follow;
use super::objects::{Access, is_conflict, is_not_found, typed};
use super::resource_manager::NAMESPACE;
use super::retry::Retry;

/// The DaemonSet controller of one shoot.
#[derive(Debug)]
pub struct DaemonSets {
    client: Access,
    daemon_sets: Follow<DaemonSet>,
    nodes: Follow<Node>,
    pods: Follow<Pod>,
}

impl DaemonSets {
    /// Serves the DaemonSets in kube-system.
    pub fn new(client: Access) -> Self {
        let all = watcher::Config::default();
        Self {
            daemon_sets: Follow::new(client.within(NAMESPACE), all.clone()),
            nodes: Follow::new(client.all(), all.clone()),
            pods: Follow::new(client.within(NAMESPACE), all),
            client,
        }
    }

    /// Runs until shut down.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut retry = Retry::new("DaemonSet controller");
        loop {
            // A followed set keeps what it has received; the others are timers and flags.
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.daemon_sets.changed() => {}
                () = self.nodes.changed() => {}
                () = self.pods.changed() => {}
                () = retry.due() => {}
            }
            if self.daemon_sets.synced() && self.nodes.synced() && self.pods.synced() {
                retry.after(self.reconcile().await);
            }
        }
    }

    async fn reconcile(&self) -> kube::Result<()> {
        let api = self.client.within::<Pod>(NAMESPACE);
        // What was created a moment ago need not have come through the watch yet.
        let pods = api.list(&ListParams::default()).await?;
        for daemon_set in self.daemon_sets.objects() {
            let mut by_node: BTreeMap<&str, &Pod> = BTreeMap::new();
            for pod in pods.items.iter().filter(|pod| owned_by(pod, daemon_set)) {
                if let Some(node) = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) {
                    by_node.insert(node, pod);
                }
            }
            for node in self.nodes.objects() {
                let name = node.name_any();
                let pod = by_node.remove(name.as_str());
                match (selects(daemon_set, node), pod) {
                    (true, None) => create(&api, daemon_set, &name).await?,
                    (false, Some(pod)) => delete(&api, pod).await?,
                    (true, Some(_)) | (false, None) => {}
                }
            }
            // What is left belongs to nodes that are gone.
            for pod in by_node.into_values() {
                delete(&api, pod).await?;
            }
            let wanted = self.nodes.objects().filter(|node| selects(daemon_set, node)).count();
            let owned = pods.items.iter().filter(|pod| owned_by(pod, daemon_set));
            self.report(daemon_set, wanted, &owned.collect::<Vec<_>>()).await?;
        }
        // What the garbage collector does when a DaemonSet is gone.
        let left = |pod: &&Pod| is_orphan(pod, self.daemon_sets.objects());
        for pod in pods.items.iter().filter(left) {
            delete(&api, pod).await?;
        }
        Ok(())
    }

    /// Writes what `kubectl get daemonsets` shows.
    async fn report(
        &self,
        daemon_set: &DaemonSet,
        wanted: usize,
        pods: &[&Pod],
    ) -> kube::Result<()> {
        let ready = pods.iter().filter(|pod| is_running(pod)).count();
        let status = json!({
            "desiredNumberScheduled": wanted, "currentNumberScheduled": pods.len(),
            "updatedNumberScheduled": pods.len(), "numberMisscheduled": 0,
            "numberReady": ready, "numberAvailable": ready,
            "observedGeneration": daemon_set.metadata.generation,
        });
        let known = serde_json::to_value(&daemon_set.status).map_err(kube::Error::SerdeError)?;
        if status
            .as_object()
            .is_some_and(|s| s.iter().all(|(key, value)| known.get(key) == Some(value)))
        {
            return Ok(());
        }
        let api = self.client.within::<DaemonSet>(NAMESPACE);
        let patch = Patch::Merge(json!({"status": status}));
        api.patch_status(&daemon_set.name_any(), &PatchParams::default(), &patch).await?;
        Ok(())
    }
}

fn is_running(pod: &Pod) -> bool {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running")
}

fn owned_by(pod: &Pod, daemon_set: &DaemonSet) -> bool {
    pod.owner_references().iter().any(|owner| {
        owner.controller == Some(true) && Some(&owner.uid) == daemon_set.metadata.uid.as_ref()
    })
}

/// Whether it was made for a DaemonSet that is there no longer.
fn is_orphan<'a>(pod: &Pod, mut daemon_sets: impl Iterator<Item = &'a DaemonSet>) -> bool {
    let owner = pod.owner_references().iter().find(|owner| owner.controller == Some(true));
    owner.is_some_and(|owner| owner.kind == "DaemonSet")
        && !daemon_sets.any(|daemon_set| owned_by(pod, daemon_set))
}

async fn create(api: &Api<Pod>, daemon_set: &DaemonSet, node: &str) -> kube::Result<()> {
    let template = daemon_set.spec.as_ref().map(|spec| &spec.template);
    let labels = template.and_then(|template| template.metadata.as_ref()?.labels.clone());
    let mut pod: Pod = typed(json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            // The name differs each time, as a real one does.
            "name": format!("{}-{:05x}", daemon_set.name_any(), random() & 0xf_ffff),
            "namespace": NAMESPACE,
            "labels": labels,
        },
    }))?;
    pod.metadata.owner_references = daemon_set.controller_owner_ref(&()).map(|owner| vec![owner]);
    pod.spec = template.and_then(|template| template.spec.clone());
    if let Some(spec) = &mut pod.spec {
        spec.node_name = Some(node.to_owned());
    }
    match api.create(&PostParams::default(), &pod).await {
        // The next look takes another name.
        Err(error) if !is_conflict(&error) => Err(error),
        _ => Ok(()),
    }
}

async fn delete(api: &Api<Pod>, pod: &Pod) -> kube::Result<()> {
    if pod.metadata.deletion_timestamp.is_some() {
        return Ok(());
    }
    match api.delete(&pod.name_any(), &DeleteParams::default()).await {
        Err(error) if !is_not_found(&error) => Err(error),
        _ => Ok(()),
    }
}

/// A fresh number; the standard library seeds each of these anew.
fn random() -> u64 {
    RandomState::new().hash_one(())
}

/// Whether the DaemonSet's required node affinity selects the node.
fn selects(daemon_set: &DaemonSet, node: &Node) -> bool {
    let terms = daemon_set.spec.as_ref().and_then(|spec| {
        let affinity = spec.template.spec.as_ref()?.affinity.as_ref()?.node_affinity.as_ref()?;
        affinity.required_during_scheduling_ignored_during_execution.as_ref()
    });
    terms.is_none_or(|terms| terms.node_selector_terms.iter().any(|term| matches(term, node)))
}

fn matches(term: &NodeSelectorTerm, node: &Node) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    // A term without expressions selects nothing.
    !expressions.is_empty() && expressions.iter().all(|expression| holds(expression, node))
}

fn holds(expression: &NodeSelectorRequirement, node: &Node) -> bool {
    let value = node.labels().get(&expression.key);
    let listed = |value: &String| expression.values.iter().flatten().any(|known| known == value);
    match expression.operator.as_str() {
        "In" => value.is_some_and(listed),
        "NotIn" => !value.is_some_and(listed),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        // Gt and Lt: nothing here uses them.
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(labels: &[(&str, &str)]) -> Node {
        let mut node = Node::default();
        for (key, value) in labels {
            node.labels_mut().insert((*key).to_owned(), (*value).to_owned());
        }
        node
    }

    #[test]
    fn terms_are_alternatives_and_expressions_all_hold() {
        let daemon_set: DaemonSet = typed(json!({
            "spec": {"selector": {}, "template": {"spec": {"containers": [], "affinity": {"nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                    {"matchExpressions": [
                        {"key": "cri", "operator": "In", "values": ["containerd"]},
                        {"key": "gvisor", "operator": "Exists"},
                    ]},
                    {"matchExpressions": [{"key": "agent", "operator": "In", "values": ["true"]}]},
                    {},
                ]},
            }}}}},
        }))
        .unwrap();
        let table = [
            (true, &[("cri", "containerd"), ("gvisor", "true")][..]),
            (true, &[("agent", "true")]),
            (false, &[("cri", "docker"), ("gvisor", "true")]),
            (false, &[("cri", "containerd")]),
            (false, &[("agent", "false")]),
            (false, &[]),
        ];
        for (expected, labels) in table {
            assert_eq!(selects(&daemon_set, &node(labels)), expected, "{labels:?}");
        }
    }
}
