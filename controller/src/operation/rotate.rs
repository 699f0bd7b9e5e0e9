//! Authorities that are made and dropped when their time comes: by the phases
//! of the shoot, or by their own age. The first of a shoot is made by its first
//! operation.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rootstock_core::name::ShootName;
use rootstock_daemon::Shutdown;
use rootstock_daemon::error::Chain;
use tokio::sync::watch;

use super::Context;
use super::task::within;
use crate::api::Cluster;
use crate::shoot::authorities::{ByShoot, OfShoot};
use crate::shoot::secrets::authority;

/// How often it is looked whether one is old enough. An own rotation takes days.
const LOOK: Duration = Duration::from_secs(60 * 60);
/// When what failed is tried again.
const RETRY: Duration = Duration::from_secs(30);
/// Changes are gathered for so long: shoots come in lists.
const GATHER: Duration = Duration::from_millis(200);

/// Keeps the authorities of all shoots until the shutdown.
pub(super) async fn keep(
    ctx: Arc<Context>,
    mut authorities: watch::Receiver<ByShoot>,
    shutdown: Shutdown,
) -> anyhow::Result<()> {
    let mut clusters = ctx.clusters.changes();
    // Whose agents may not have been told: of a rotation that is under way, a
    // leader before this one may have done a half.
    let mut owed = BTreeSet::new();
    let mut seen = BTreeSet::new();
    loop {
        let due = due(&ctx, &authorities.borrow_and_update(), &mut seen, &mut owed);
        clusters.borrow_and_update();
        for (shoot, cluster) in due {
            match rotate(&ctx, &shoot, &cluster).await {
                Ok(()) => drop(owed.remove(&shoot)),
                Err(error) => {
                    tracing::warn!(%shoot, error, "keeping the shoot's authorities");
                    owed.insert(shoot);
                }
            }
            if shutdown.token().is_cancelled() {
                return Ok(());
            }
        }
        let pause = if owed.is_empty() { LOOK } else { RETRY };
        // Cancel-safe: a watch's `changed` and a timer lose nothing.
        tokio::select! {
            changed = authorities.changed() => changed?,
            changed = clusters.changed() => changed?,
            () = tokio::time::sleep(pause) => {}
            () = shutdown.begun() => return Ok(()),
        }
        // Cancel-safe, as above.
        tokio::select! {
            () = tokio::time::sleep(GATHER) => {}
            () = shutdown.begun() => return Ok(()),
        }
    }
}

/// The shoots with something to be done.
fn due(
    ctx: &Context,
    authorities: &ByShoot,
    seen: &mut BTreeSet<ShootName>,
    owed: &mut BTreeSet<ShootName>,
) -> Vec<(ShootName, Arc<Cluster>)> {
    for (shoot, of_shoot) in authorities {
        if seen.insert(shoot.clone()) && of_shoot.len() > 1 {
            owed.insert(shoot.clone());
        }
    }
    // One whose last authority somebody deletes gets another.
    seen.retain(|shoot| authorities.contains_key(shoot) || is_used(ctx, shoot));
    owed.retain(|shoot| seen.contains(shoot));
    let mut due = Vec::new();
    for shoot in seen.iter() {
        let cluster = ctx.clusters.get(shoot);
        // Gardener leaves a failed shoot alone, and so do its extensions.
        let Some(cluster) = cluster.filter(|c| !c.is_failed() && !c.is_deleting()) else {
            continue;
        };
        let wish = ctx.objects.wish(&cluster);
        let of_shoot = authorities.get(shoot).into_iter().flat_map(OfShoot::values);
        let is_kept = authority::is_kept(of_shoot, wish, Timestamp::now());
        if (owed.contains(shoot) || !is_kept) && is_used(ctx, shoot) {
            due.push((shoot.clone(), cluster));
        }
    }
    due
}

/// Whether a resource stays there that needs the agent.
fn is_used(ctx: &Context, shoot: &ShootName) -> bool {
    let of_shoot = ctx.store.of_shoot(shoot);
    !ctx.index.is_suspended(shoot)
        && of_shoot.into_iter().any(|(_, object)| {
            object.metadata.deletion_timestamp.is_none() && ctx.scope.has(&object)
        })
}

async fn rotate(ctx: &Context, shoot: &ShootName, cluster: &Cluster) -> Result<(), String> {
    // Nothing is written while a deletion decides that nobody needs it.
    let lock = ctx.locks.of(shoot);
    let _held = lock.read().await;
    if !is_used(ctx, shoot) {
        return Ok(());
    }
    within(ctx.objects.rotate(shoot, cluster)).await.map_err(|error| Chain(&error).to_string())
}
