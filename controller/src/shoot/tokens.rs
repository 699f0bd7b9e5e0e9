//! The tokens by which the controller speaks to shoots' APIs.
//!
//! Gardener's token requestor writes them into a Secret of each shoot and
//! renews them; one watch sees them all.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::Secret;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, ResourceExt as _};
use rootstock_core::name::ShootName;
use rootstock_daemon::Shutdown;
use rootstock_daemon::error::Chain;
use tokio::sync::watch;

use super::secrets::{ACCESS_LABEL, ACCESS_SECRET};

/// A token. It is not printed.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Token(pub(crate) Arc<str>);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token")
    }
}

/// The tokens by shoot.
pub(crate) type ByShoot = BTreeMap<ShootName, Token>;

/// Follows the tokens.
pub(crate) struct Tokens {
    pub(crate) seed: Client,
    pub(crate) tokens: watch::Sender<ByShoot>,
}

impl Tokens {
    pub(crate) async fn run(self, shutdown: Shutdown) -> anyhow::Result<()> {
        let api: Api<Secret> = Api::all(self.seed.clone());
        let selected = watcher::Config::default().labels(&format!("{ACCESS_LABEL}=true"));
        let mut events = watcher(api, selected).default_backoff().boxed();
        let mut listed = ByShoot::new();
        loop {
            // Cancel-safe: a stream's `next` loses nothing.
            let event = tokio::select! {
                event = events.next() => event,
                () = shutdown.begun() => return Ok(()),
            };
            match event {
                Some(Ok(watcher::Event::Apply(secret))) => {
                    if let Some((shoot, token)) = read(&secret) {
                        self.tokens.send_if_modified(|tokens| {
                            tokens.insert(shoot, token.clone()) != Some(token)
                        });
                    }
                }
                Some(Ok(watcher::Event::Delete(secret))) => {
                    if let Some(shoot) = shoot_of(&secret) {
                        self.tokens.send_if_modified(|tokens| tokens.remove(&shoot).is_some());
                    }
                }
                Some(Ok(watcher::Event::Init)) => listed.clear(),
                Some(Ok(watcher::Event::InitApply(secret))) => listed.extend(read(&secret)),
                Some(Ok(watcher::Event::InitDone)) => {
                    let new = std::mem::take(&mut listed);
                    self.tokens.send_if_modified(|tokens| {
                        let changed = *tokens != new;
                        *tokens = new;
                        changed
                    });
                }
                Some(Err(error)) => {
                    tracing::warn!(error = %Chain(&error), "watching access Secrets")
                }
                None => anyhow::bail!("the watch of access Secrets ended"),
            }
        }
    }
}

fn shoot_of(secret: &Secret) -> Option<ShootName> {
    (secret.name_any() == ACCESS_SECRET).then(|| secret.namespace())??.parse().ok()
}

fn read(secret: &Secret) -> Option<(ShootName, Token)> {
    let token = secret.data.as_ref()?.get("token")?;
    let token = std::str::from_utf8(&token.0).ok()?.trim();
    (!token.is_empty()).then_some((shoot_of(secret)?, Token(token.into())))
}
