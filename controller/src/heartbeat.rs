//! The Lease by which Gardener sees that the extension lives.
//!
//! gardenlet calls a shoot's conditions outdated when it is older than five minutes.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use rootstock_daemon::Shutdown;
use rootstock_daemon::error::Chain;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::api::is_conflict;

#[cfg(test)]
mod tests;

/// The Lease's name, the same for every extension.
const NAME: &str = "gardener-extension-heartbeat";
/// Who lives.
const HOLDER: &str = "rootstock";
/// The shortest pause, whatever the flag says.
const SHORTEST: Duration = Duration::from_secs(1);
/// The longest pause after a failure.
const RETRY: Duration = Duration::from_secs(5);
/// How long the API may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Renews the Lease.
pub(crate) struct Heartbeat {
    pub(crate) client: Client,
    pub(crate) namespace: String,
    /// How often it is renewed, which is also how long it lasts.
    pub(crate) interval: Duration,
}

/// Why the Lease is not renewed.
#[derive(Debug, thiserror::Error)]
enum HeartbeatError {
    #[error("the API refused the Lease")]
    Api(#[from] kube::Error),
    #[error("the API did not answer within {PATIENCE:?}")]
    Late(#[from] tokio::time::error::Elapsed),
}

impl Heartbeat {
    pub(crate) async fn run(self, shutdown: Shutdown) -> anyhow::Result<()> {
        let api: Api<Lease> = Api::namespaced(self.client.clone(), &self.namespace);
        // What is wrong is said once, until it is something else.
        let mut trouble = None;
        loop {
            let begun = Instant::now();
            // Cancel-safe: what was not renewed is as old as it says.
            let renewed = tokio::select! {
                renewed = tokio::time::timeout(PATIENCE, self.renew(&api)) => renewed,
                () = shutdown.begun() => return Ok(()),
            };
            let renewed = renewed.map_err(HeartbeatError::from).flatten();
            let interval = self.interval.max(SHORTEST);
            let pause = if renewed.is_ok() { interval } else { interval.min(RETRY) };
            match renewed.map_err(|error| Chain(&error).to_string()) {
                Ok(()) if trouble.take().is_some() => tracing::info!("the heartbeat is back"),
                Ok(()) => {}
                Err(error) if trouble.as_ref() == Some(&error) => {}
                Err(error) => {
                    tracing::warn!(
                        namespace = self.namespace,
                        error,
                        "the heartbeat is not written"
                    );
                    trouble = Some(error);
                }
            }
            // Cancel-safe: a sleep keeps nothing.
            tokio::select! {
                () = tokio::time::sleep_until(begun + pause) => {}
                () = shutdown.begun() => return Ok(()),
            }
        }
    }

    async fn renew(&self, api: &Api<Lease>) -> Result<(), HeartbeatError> {
        match self.patch(api).await {
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            patched => return Ok(patched?),
        }
        let lease = json!({"metadata": {"name": NAME}, "spec": self.spec()});
        let lease = serde_json::from_value(lease).map_err(kube::Error::SerdeError)?;
        match api.create(&PostParams::default(), &lease).await {
            Ok(_) => Ok(()),
            // Another replica was quicker.
            Err(error) if is_conflict(&error) => Ok(self.patch(api).await?),
            Err(error) => Err(error.into()),
        }
    }

    /// Only our own fields: what others keep there stays.
    async fn patch(&self, api: &Api<Lease>) -> Result<(), kube::Error> {
        let patch = Patch::Merge(json!({"spec": self.spec()}));
        api.patch(NAME, &PatchParams::default(), &patch).await.map(drop)
    }

    fn spec(&self) -> Value {
        json!({
            "holderIdentity": HOLDER,
            "leaseDurationSeconds": self.interval.as_secs().clamp(1, 3600),
            "renewTime": MicroTime(Timestamp::now()),
        })
    }
}
