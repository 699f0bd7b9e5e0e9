//! The label that keeps the agent on a node until it has cleaned up.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use rootstock_core::assign::AGENT_LABEL;
use rootstock_core::name::ShootName;
use rootstock_daemon::error::Chain;
use serde_json::json;

use crate::index::{Index, LabelChange};

/// Changes are gathered for so long: nodes report several times a second while they pull.
const GATHER: Duration = Duration::from_millis(50);
/// The pause after a refused change: until the controller's role is there, a
/// refusal means wait.
const RETRY: Duration = Duration::from_secs(1);

/// Keeps the labels as the index wants them. Does not end by itself.
pub(super) async fn keep(client: Client, shoot: ShootName, index: Arc<Index>) -> Infallible {
    let api: Api<Node> = Api::all(client);
    let mut changes = index.changes();
    loop {
        changes.borrow_and_update();
        let mut failed = false;
        for change in index.label_changes(&shoot) {
            if let Err(error) = apply(&api, &change).await {
                tracing::debug!(%shoot, node = %change.node, error = %Chain(&error), "labelling");
                failed = true;
                if concerns_all(&error) {
                    break;
                }
            }
        }
        if failed {
            tokio::time::sleep(RETRY).await;
        } else if changes.changed().await.is_err() {
            // The index lives as long as the controller does.
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(GATHER).await;
    }
}

async fn apply(api: &Api<Node>, change: &LabelChange) -> Result<(), kube::Error> {
    let value = if change.set { json!("true") } else { json!(null) };
    let patch = json!({"metadata": {"labels": {AGENT_LABEL: value}}});
    let name = change.node.as_str();
    match api.patch_metadata(name, &PatchParams::default(), &Patch::Merge(patch)).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(error),
    }
}

/// Whether what stands in the way of one label stands in the way of all:
/// thousands of Nodes are not asked for in vain each second.
fn concerns_all(error: &kube::Error) -> bool {
    let kube::Error::Api(status) = error else { return true };
    matches!(status.code, 401 | 403 | 429 | 500..)
}
