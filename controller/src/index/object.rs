//! What is used of a Node object.

use rootstock_core::assign::{AGENT_LABEL, AskedBy, NodeFacts};
use rootstock_core::name::Uid;

/// The most bytes of labels that a Node may have. Gardener's take 2 KiB.
const MAX_LABELS: usize = 64 * 1024;

/// What is used of a Node object.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NodeObject {
    pub(super) facts: NodeFacts,
    pub(super) uid: Uid,
    pub(super) label_bytes: usize,
    agent_label: bool,
    pub(super) stay: Stay,
}

/// Whether a node comes, goes, or is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stay {
    /// Whether Kubernetes says that it is ready; where nobody says anything it
    /// is not known to be otherwise.
    pub(super) ready: bool,
    /// Whether nothing runs there yet: it still has [`JOINING`].
    pub(super) joining: bool,
    /// Whether it is on its way out, or is being changed in place.
    pub(super) leaving: bool,
}

/// The taint that a node has until what it can't do without is there.
const JOINING: &str = "node.gardener.cloud/critical-components-not-ready";
/// The taint by which the autoscaler says that a node goes.
const DELETED_BY_AUTOSCALER: &str = "ToBeDeletedByClusterAutoscaler";
/// The labels by which machine-controller-manager says that a node is changed in place.
const CHANGED_IN_PLACE: [&str; 2] = [
    "node.machine.sapcloud.io/candidate-for-update",
    "node.machine.sapcloud.io/selected-for-update",
];

impl Stay {
    fn of(object: &k8s_openapi::api::core::v1::Node) -> Self {
        let spec = object.spec.as_ref();
        let has = |key: &str| {
            let mut taints = spec.and_then(|spec| spec.taints.as_ref()).into_iter().flatten();
            taints.any(|taint| taint.key == key)
        };
        let labels = object.metadata.labels.as_ref();
        let changed = |label: &str| labels.is_some_and(|labels| labels.contains_key(label));
        let cordoned = spec.and_then(|spec| spec.unschedulable).unwrap_or(false);
        let conditions = object.status.as_ref().and_then(|status| status.conditions.as_ref());
        let ready = conditions.into_iter().flatten().find(|c| c.type_ == "Ready");
        Self {
            ready: ready.is_none_or(|ready| ready.status == "True"),
            joining: has(JOINING),
            leaving: cordoned
                || object.metadata.deletion_timestamp.is_some()
                || has(DELETED_BY_AUTOSCALER)
                || CHANGED_IN_PLACE.iter().any(|label| changed(label)),
        }
    }
}

impl NodeObject {
    /// Reads a Node. One whose name or UID Kubernetes would not allow, or that
    /// has more labels than is bearable, is passed over.
    pub(super) fn read(
        object: &k8s_openapi::api::core::v1::Node,
        asked_by: AskedBy,
    ) -> Option<Self> {
        let sizes = object.metadata.labels.iter().flatten().map(|(k, v)| k.len() + v.len());
        let label_bytes = sizes.sum();
        if label_bytes > MAX_LABELS {
            return None;
        }
        let labels = object.metadata.labels.clone().unwrap_or_default();
        let info = object.status.as_ref().and_then(|status| status.node_info.as_ref());
        let architecture = labels
            .get("kubernetes.io/arch")
            .or_else(|| info.map(|info| &info.architecture))
            .and_then(|name| name.parse().ok());
        let name = object.metadata.name.as_deref()?.parse().ok()?;
        let uid = object.metadata.uid.as_deref()?.parse().ok()?;
        let agent_label = labels.get(AGENT_LABEL).is_some_and(|value| value == "true");
        let facts = NodeFacts { name, labels, architecture, asked_by };
        let stay = Stay::of(object);
        Some(Self { facts, uid, label_bytes, agent_label, stay })
    }

    pub(super) fn has_agent_label(&self) -> bool {
        self.agent_label
    }
}
