//! The shoots' authorities, as the operations keep them in Secrets: one watch
//! sees them all, on every replica.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client, ResourceExt as _};
use rootstock_core::name::ShootName;
use rootstock_daemon::Shutdown;
use rootstock_daemon::error::Chain;
use tokio::sync::watch;

use super::gather::{Seen, follow_secrets};
use super::secrets::authority::{Authority, SELECTED, in_slots, read};
use crate::home::Home;

/// How often the Secrets of a plain cluster are looked at: its role does not
/// let the controller watch them.
const LOOK: Duration = Duration::from_secs(5);

/// A shoot's authorities by the names of their Secrets.
pub(crate) type OfShoot = BTreeMap<String, Arc<Authority>>;
/// The authorities by shoot.
pub(crate) type ByShoot = BTreeMap<ShootName, OfShoot>;

/// Follows the authorities.
pub(crate) struct Authorities {
    pub(crate) seed: Client,
    pub(crate) home: Home,
    pub(crate) authorities: watch::Sender<ByShoot>,
}

/// What is read of a Secret: whose it is, its name, and the authority in it.
type Entry = (ShootName, String, Option<Authority>);

impl Authorities {
    pub(crate) async fn run(self, shutdown: Shutdown) -> anyhow::Result<()> {
        match self.home.cluster() {
            None => self.watch(shutdown).await,
            Some(own) => {
                let shoot = own.name_any().parse()?;
                self.look(&shoot, shutdown).await
            }
        }
    }

    async fn watch(self, shutdown: Shutdown) -> anyhow::Result<()> {
        let take = |seen| {
            self.authorities.send_if_modified(|all| apply(all, seen));
        };
        follow_secrets(&self.seed, (SELECTED, "authorities"), &shutdown, entry, take).await
    }

    async fn look(self, shoot: &ShootName, shutdown: Shutdown) -> anyhow::Result<()> {
        let api: Api<Secret> = crate::home::beside(&self.seed, shoot);
        loop {
            match in_slots(&api, shoot).await {
                Ok(found) => {
                    let named = |(secret, authority): (Secret, Option<Authority>)| {
                        (shoot.clone(), secret.name_any(), authority)
                    };
                    let all = found.into_iter().map(named).collect();
                    self.authorities.send_if_modified(|known| apply(known, Seen::All(all)));
                }
                Err(error) => tracing::debug!(error = %Chain(&error), "reading authorities"),
            }
            // Cancel-safe: both only wait.
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = shutdown.begun() => return Ok(()),
            }
        }
    }
}

fn entry(secret: Secret) -> Option<Entry> {
    let (name, shoot) = (secret.name_any(), secret.namespace()?.parse().ok()?);
    match read(&shoot, &secret) {
        Ok(authority) => Some((shoot, name, authority)),
        // The operations say so in the resource.
        Err(error) => {
            tracing::debug!(%shoot, name, error = %Chain(&error), "reading an authority");
            Some((shoot, name, None))
        }
    }
}

/// Takes in what was seen; tells whether anything is new.
fn apply(all: &mut ByShoot, seen: Seen<Entry>) -> bool {
    match seen {
        Seen::All(entries) => {
            let mut now = ByShoot::new();
            for (shoot, name, authority) in entries {
                let Some(authority) = authority else { continue };
                now.entry(shoot).or_default().insert(name, Arc::new(authority));
            }
            let changed = !is_same(&now, all);
            if changed {
                *all = now;
            }
            changed
        }
        Seen::Put((shoot, name, Some(authority))) => {
            let of_shoot = all.entry(shoot).or_default();
            let changed = of_shoot.get(&name).is_none_or(|before| !same(before, &authority));
            if changed {
                of_shoot.insert(name, Arc::new(authority));
            }
            changed
        }
        Seen::Put((shoot, name, None)) | Seen::Gone((shoot, name, _)) => {
            let Some(of_shoot) = all.get_mut(&shoot) else { return false };
            let changed = of_shoot.remove(&name).is_some();
            if of_shoot.is_empty() {
                all.remove(&shoot);
            }
            changed
        }
    }
}

fn same(one: &Authority, other: &Authority) -> bool {
    one.kept == other.kept && one.ca.cert_der() == other.ca.cert_der()
}

fn is_same(one: &ByShoot, other: &ByShoot) -> bool {
    let flat = |all: &ByShoot| all.values().map(BTreeMap::len).sum::<usize>();
    flat(one) == flat(other)
        && one.iter().all(|(shoot, authorities)| {
            authorities.iter().all(|(name, authority)| {
                let before = other.get(shoot).and_then(|before| before.get(name));
                before.is_some_and(|before| same(before, authority))
            })
        })
}
