//! The label by which the Service sends agents to the leader's Pod.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Client, ResourceExt as _};
use rootstock_daemon::Shutdown;
use rootstock_daemon::error::Chain;
use serde_json::{Value, json};

use super::{Term, fenced};
use crate::api::is_not_found;

/// The label of the Pod that serves agents.
pub(crate) const SERVING: &str = "rootstock.gardener.cloud/serving";
/// How long the API may take for one request.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often the marks are looked at: a request of the leader before, which
/// nobody waited for, may be carried out late.
const LOOK: Duration = Duration::from_secs(10);
/// The pause after a failure.
const RETRY: Duration = Duration::from_secs(1);

/// The mark on this process's Pod.
#[derive(Clone)]
pub(crate) struct Mark {
    client: Client,
    namespace: String,
    pods: Api<Pod>,
    name: String,
}

#[derive(Debug, thiserror::Error)]
enum MarkError {
    #[error("the API refused")]
    Api(#[from] kube::Error),
    #[error("the API did not answer within {PATIENCE:?}")]
    Late(#[from] tokio::time::error::Elapsed),
}

impl Mark {
    pub(crate) fn new(client: Client, namespace: &str, name: &str) -> Self {
        let pods = Api::namespaced(client.clone(), namespace);
        Self { client, namespace: namespace.to_owned(), pods, name: name.to_owned() }
    }

    /// Takes it off: a process that begins does not serve, whatever the one
    /// before it in this Pod did. It is tried a few times; what stays is taken
    /// off by whoever leads.
    pub(crate) async fn clear(&self) {
        for _ in 0..3 {
            match bounded(set(&self.pods, &self.name, Value::Null)).await {
                Ok(()) => return,
                Err(error) => {
                    tracing::warn!(pod = self.name, error = %Chain(&error), "the Pod may keep its mark");
                }
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Puts it on, takes it off all others, which is done in the term alone, and
    /// off at the end.
    pub(crate) async fn keep(self, term: Term, end: Shutdown) -> anyhow::Result<()> {
        let fenced = Api::namespaced(fenced(&self.client, &term), &self.namespace);
        loop {
            // Cancel-safe: what was not done is undone by the next leader, or here below.
            let taken = tokio::select! {
                taken = self.take(&fenced) => taken,
                () = end.begun() => break,
            };
            let pause = match taken {
                Ok(()) => LOOK,
                Err(error) => {
                    tracing::warn!(
                        pod = self.name,
                        error = %Chain(&error),
                        "agents may not find this Pod"
                    );
                    RETRY
                }
            };
            // Cancel-safe: a pause keeps nothing.
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = end.begun() => break,
            }
        }
        // Where it does not lead any more this may come too late, and harms nobody.
        if let Err(error) = bounded(set(&self.pods, &self.name, Value::Null)).await {
            tracing::debug!(pod = self.name, error = %Chain(&error), "the mark stays");
        }
        Ok(())
    }

    async fn take(&self, fenced: &Api<Pod>) -> Result<(), MarkError> {
        let marked = ListParams::default().labels(&format!("{SERVING}=true"));
        let marked = bounded(self.pods.list_metadata(&marked)).await?;
        let marked: Vec<_> = marked.iter().map(|pod| pod.name_any()).collect();
        for other in marked.iter().filter(|name| **name != self.name) {
            bounded(set(fenced, other, Value::Null)).await?;
        }
        if marked.contains(&self.name) {
            return Ok(());
        }
        bounded(set(fenced, &self.name, json!("true"))).await
    }
}

async fn set(pods: &Api<Pod>, name: &str, value: Value) -> Result<(), kube::Error> {
    let patch = Patch::Merge(json!({"metadata": {"labels": {SERVING: value}}}));
    match pods.patch_metadata(name, &PatchParams::default(), &patch).await {
        Err(error) if !is_not_found(&error) => Err(error),
        // A Pod that is gone has no mark.
        Ok(_) | Err(_) => Ok(()),
    }
}

async fn bounded<T>(answer: impl Future<Output = Result<T, kube::Error>>) -> Result<T, MarkError> {
    Ok(tokio::time::timeout(PATIENCE, answer).await??)
}
