//! The resource manager's token requestor: fills access Secrets with tokens of the shoot.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use kube::ResourceExt as _;
use kube::api::{Patch, PatchParams, PostParams};
use kube::runtime::watcher;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::follow::Follow;
use super::objects::{Access, ensure, typed};
use super::retry::Retry;

const PURPOSE: &str = "resources.gardener.cloud/purpose=token-requestor";
const NAME: &str = "serviceaccount.resources.gardener.cloud/name";
const NAMESPACE: &str = "serviceaccount.resources.gardener.cloud/namespace";
const RENEW: &str = "serviceaccount.resources.gardener.cloud/token-renew-timestamp";

/// What Gardener's token requestor asks for; it renews at four fifths of it.
const LIFETIME: SignedDuration = SignedDuration::from_hours(12);

/// The token requestor of one shoot.
#[derive(Debug)]
pub struct TokenRequestor {
    seed: Access,
    shoot: Access,
    namespace: String,
    secrets: Follow<Secret>,
}

impl TokenRequestor {
    /// Serves the Secrets in `namespace` of the seed with tokens of `shoot`.
    pub fn new(seed: Access, shoot: Access, namespace: &str) -> Self {
        let purpose = watcher::Config::default().labels(PURPOSE);
        let secrets = Follow::new(seed.within(namespace), purpose);
        Self { seed, shoot, namespace: namespace.to_owned(), secrets }
    }

    /// Runs until shut down.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut retry = Retry::new("token requestor");
        loop {
            // A followed set keeps what it has received; the others are timers and flags.
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.secrets.changed() => {}
                () = retry.due() => {}
            }
            let result = self.reconcile().await;
            let next = result.as_ref().ok().copied().flatten();
            retry.after(result.map(|_| ()));
            if let Some(next) = next {
                retry.again_in(next);
            }
        }
    }

    /// Renews what is due; gives the time until the next is.
    async fn reconcile(&self) -> kube::Result<Option<Duration>> {
        let now = Timestamp::now();
        let mut next: Option<Duration> = None;
        for secret in self.secrets.objects() {
            let annotations = secret.annotations();
            let (Some(name), Some(namespace)) = (annotations.get(NAME), annotations.get(NAMESPACE))
            else {
                continue;
            };
            let due = due(secret, annotations).unwrap_or(now);
            let wait = if due > now {
                Duration::try_from(due.duration_since(now)).unwrap_or_default()
            } else {
                self.renew(&secret.name_any(), name, namespace).await?;
                LIFETIME.unsigned_abs() * 4 / 5
            };
            next = Some(next.map_or(wait, |known| known.min(wait)));
        }
        Ok(next)
    }

    async fn renew(&self, secret: &str, name: &str, namespace: &str) -> kube::Result<()> {
        let accounts = self.shoot.within::<ServiceAccount>(namespace);
        let account = typed(json!({
            "apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": {"name": name, "namespace": namespace},
        }))?;
        ensure(&accounts, &account).await?;
        let request: TokenRequest = typed(json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "metadata": {},
            "spec": {"audiences": [], "expirationSeconds": LIFETIME.as_secs()},
        }))?;
        let answer = accounts.create_token_request(name, &PostParams::default(), &request).await?;
        let token = answer.status.map(|status| status.token).unwrap_or_default();
        let renew = Timestamp::now() + LIFETIME * 4 / 5;
        let patch = json!({
            "metadata": {"annotations": {RENEW: renew.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()}},
            "data": {"token": super::encode(token.as_bytes())},
        });
        let secrets = self.seed.within::<Secret>(&self.namespace);
        secrets.patch(secret, &PatchParams::default(), &Patch::Merge(patch)).await?;
        tracing::debug!(secret, "token renewed");
        Ok(())
    }
}

/// When the Secret's token is to be renewed; none if it has none.
fn due(secret: &Secret, annotations: &BTreeMap<String, String>) -> Option<Timestamp> {
    secret.data.as_ref()?.get("token").filter(|token| !token.0.is_empty())?;
    annotations.get(RENEW)?.parse().ok()
}
