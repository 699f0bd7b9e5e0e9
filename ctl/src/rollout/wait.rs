//! Waits until the controller has taken up what was asked for.

use std::time::Duration;

use kube::Client;
use rootstock_core::rollout::record::Command;
use tokio::time::{Instant, sleep};

use crate::api;
use crate::error::Error;
use crate::runtime::Runtime;

/// Between two looks at one object.
const PAUSE: Duration = Duration::from_millis(500);
/// The status is written within a second after the annotation is gone; so many
/// looks are worth the newer words.
const LOOKS: usize = 4;

/// The runtime when its annotation is gone: as its status is then, or a moment
/// later where that says something new. `before` is what it was when it was asked.
pub(super) async fn until_taken(
    client: &Client,
    before: &Runtime,
    verb: Command,
    end: Instant,
    patience: Duration,
) -> Result<Runtime, Error> {
    let get = || api::get(client, &before.namespace, &before.name);
    let mut runtime;
    loop {
        runtime = Runtime::read(&get().await?);
        match runtime.asked.as_deref() {
            None => break,
            Some(asked) if asked == verb.as_str() => {}
            Some(other) => {
                let other = other.to_owned();
                let (what, verb) = (before.path(), verb.as_str());
                return Err(Error::Overruled { what, verb, other });
            }
        }
        if Instant::now() >= end {
            let (what, verb) = (before.path(), verb.as_str());
            return Err(Error::NotTaken { what, verb, seconds: patience.as_secs() });
        }
        sleep(PAUSE).await;
    }
    let said = |runtime: &Runtime| runtime.status.as_ref().map(|status| status.rollout.clone());
    for _ in 0..LOOKS {
        if said(&runtime) != said(before) || Instant::now() >= end {
            break;
        }
        sleep(PAUSE).await;
        runtime = Runtime::read(&get().await?);
    }
    Ok(runtime)
}
