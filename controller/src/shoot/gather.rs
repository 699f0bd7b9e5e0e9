//! A listing as one piece: until it is whole, what was known before counts.

use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::Secret;
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client};
use rootstock_daemon::Shutdown;
use rootstock_daemon::error::Chain;

/// What a watch says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Seen<T> {
    /// These are all.
    All(Vec<T>),
    /// This one is there, or has changed.
    Put(T),
    /// This one is gone.
    Gone(T),
}

/// Gathers what a watch lists.
#[derive(Debug)]
pub(super) struct Gather<T>(Vec<T>);

impl<T> Default for Gather<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Gather<T> {
    /// Takes an event; `read` makes what is kept of an object, if anything is.
    pub(super) fn take<K>(
        &mut self,
        event: Event<K>,
        read: impl Fn(K) -> Option<T>,
    ) -> Option<Seen<T>> {
        match event {
            Event::Apply(object) => read(object).map(Seen::Put),
            Event::Delete(object) => read(object).map(Seen::Gone),
            Event::Init => {
                self.0.clear();
                None
            }
            Event::InitApply(object) => {
                self.0.extend(read(object));
                None
            }
            Event::InitDone => Some(Seen::All(std::mem::take(&mut self.0))),
        }
    }
}

/// Watches the seed's Secrets that the labels select, until the shutdown.
/// `what` they are is for the log.
pub(super) async fn follow_secrets<T>(
    seed: &Client,
    (labels, what): (&str, &str),
    shutdown: &Shutdown,
    read: impl Fn(Secret) -> Option<T>,
    mut take: impl FnMut(Seen<T>),
) -> anyhow::Result<()> {
    let api: Api<Secret> = Api::all(seed.clone());
    let selected = watcher::Config::default().labels(labels);
    let mut events = watcher(api, selected).default_backoff().boxed();
    let mut gather = Gather::default();
    loop {
        // Cancel-safe: a stream's `next` loses nothing.
        let event = tokio::select! {
            event = events.next() => event,
            () = shutdown.begun() => return Ok(()),
        };
        match event {
            Some(Ok(event)) => {
                if let Some(seen) = gather.take(event, &read) {
                    take(seen);
                }
            }
            Some(Err(error)) => tracing::warn!(error = %Chain(&error), "watching {what}"),
            None => anyhow::bail!("the watch of {what} ended"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_that_was_cut_off_says_nothing() {
        let mut gather = Gather::default();
        let mut take = |event| gather.take(event, |n: i32| (n > 0).then_some(n));
        assert_eq!(take(Event::Init), None);
        assert_eq!(take(Event::InitApply(1)), None);
        assert_eq!(take(Event::Init), None);
        assert_eq!(take(Event::InitApply(2)), None);
        assert_eq!(take(Event::InitApply(-3)), None);
        assert_eq!(take(Event::InitDone), Some(Seen::All(vec![2])));
        assert_eq!(take(Event::Apply(4)), Some(Seen::Put(4)));
        assert_eq!(take(Event::Delete(4)), Some(Seen::Gone(4)));
        assert_eq!(take(Event::Apply(-1)), None);
    }
}
