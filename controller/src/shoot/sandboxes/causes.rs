//! Whether a Pod without an address waits for something else than its sandbox.
//!
//! A kubelet writes a Pod's address when it looks at it the next time, and that
//! is after it has pulled the image. What it does meanwhile only Events say.

use std::time::Duration;

use kube::Client;
use kube::api::{ListParams, Request};
use serde::Deserialize;
use tokio::time::timeout;

use super::waiting::Pod;

/// Who writes them.
const KUBELET: &str = "kubelet";
/// What a kubelet says when the sandbox is there, or when it is still at what
/// comes before: the volumes, the devices, the Pod's own cgroup
/// (pkg/kubelet/events/event.go).
const OTHERS: [&str; 13] = [
    "Pulling",
    "Pulled",
    "Created",
    "Started",
    "Failed",
    "BackOff",
    "ErrImageNeverPull",
    "InspectFailed",
    "FailedMount",
    "FailedMapVolume",
    "VolumePermissionChangeInProgress",
    "FailedPrepareDynamicResources",
    "FailedCreatePodContainer",
];
/// Who attaches volumes, and what it says where that fails.
const ATTACHER: &str = "attachdetach-controller";
const NOT_ATTACHED: &str = "FailedAttachVolume";
/// The Events of a Pod that are read: one has a few.
const MOST: u32 = 100;
/// How long the shoot's API may take for them.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why a Pod's Events can't be told.
#[derive(Debug, thiserror::Error)]
pub(super) enum CausesError {
    #[error("the shoot's API does not give the Pod's Events")]
    Api(#[from] kube::Error),
    #[error("the shoot's API takes longer than {} s for a Pod's Events", PATIENCE.as_secs())]
    Slow,
}

#[derive(Clone, Debug, Deserialize)]
struct Events {
    items: Option<Vec<Event>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    reason: Option<String>,
    #[serde(default)]
    source: Source,
    reporting_component: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Source {
    component: Option<String>,
}

/// Whether the Pod's Events say that it waits for something else.
pub(super) async fn has_another(client: &Client, pod: &Pod) -> Result<bool, CausesError> {
    let path = format!("/api/v1/namespaces/{}/events", pod.namespace);
    let of_pod = format!("involvedObject.uid={}", pod.uid);
    let params = ListParams::default().fields(&of_pod).limit(MOST);
    let request = Request::new(path).list(&params).map_err(kube::Error::BuildRequest)?;
    let events: Events =
        timeout(PATIENCE, client.request(request)).await.map_err(|_| CausesError::Slow)??;
    Ok(events.name_another())
}

impl Events {
    fn name_another(&self) -> bool {
        self.items.iter().flatten().any(Event::names_another)
    }
}

impl Event {
    fn names_another(&self) -> bool {
        let Some(reason) = self.reason.as_deref() else { return false };
        // Other controllers, too, call something "Failed" or "Created".
        let is_by = |name| {
            let by = [&self.source.component, &self.reporting_component];
            by.into_iter().flatten().any(|by| by == name)
        };
        reason == NOT_ATTACHED && is_by(ATTACHER) || OTHERS.contains(&reason) && is_by(KUBELET)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn what_a_kubelet_is_at_is_told_by_its_events() {
        let of = |reasons: &[&str]| -> Value {
            let by = json!({"component": "kubelet", "host": "n1"});
            reasons.iter().map(|reason| json!({"reason": reason, "source": by})).collect()
        };
        let by = |component: &str| json!([{"reason": "Started", "reportingComponent": component}]);
        let not_attached = |component: &str| json!([{"reason": "FailedAttachVolume", "source": {"component": component}}]);
        for (items, another) in [
            (Value::Null, false),
            (of(&["Scheduled"]), false),
            (of(&["Scheduled", "FailedCreatePodSandBox"]), false),
            (of(&["NetworkNotReady", "SandboxChanged"]), false),
            (of(&["Scheduled", "Pulling"]), true),
            (of(&["Scheduled", "FailedMount"]), true),
            (json!([{"message": "no reason"}]), false),
            (by("kubelet"), true),
            (by("someone"), false),
            (json!([{"reason": "Started"}]), false),
            (not_attached("attachdetach-controller"), true),
            (not_attached("someone"), false),
        ] {
            let events: Events = serde_json::from_value(json!({"items": items})).unwrap();
            assert_eq!(events.name_another(), another, "{items}");
        }
    }
}
