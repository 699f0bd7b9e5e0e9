//! The workers: a few reconciles run at once, each bounded, and a panic in one
//! harms no other.

use std::collections::HashMap;
use std::fmt::Debug;
use std::time::Duration;

use rootstock_daemon::error::Chain;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;

use super::queue::{Outcome, Queue, Turn};

/// The longest that one reconcile may take, as with Gardener's controllers.
const BOUND: Duration = Duration::from_secs(180);
/// How long running reconciles may take to end at a shutdown.
const GRACE: Duration = Duration::from_secs(10);

/// A queue and those who work on it.
#[derive(Debug)]
pub(super) struct Pool<K> {
    pub(super) queue: Queue<K>,
    running: JoinSet<Option<Outcome>>,
    names: HashMap<Id, K>,
}

impl<K: Clone + Debug + Ord> Pool<K> {
    /// A pool in which so many run at once.
    pub(super) fn new(at_once: usize) -> Self {
        Self { queue: Queue::new(at_once), running: JoinSet::new(), names: HashMap::new() }
    }

    /// Starts those whose turn it is.
    pub(super) fn start<F>(&mut self, mut reconcile: impl FnMut(Turn<K>) -> F)
    where
        F: Future<Output = Outcome> + Send + 'static,
    {
        while let Some(turn) = self.queue.pop(Instant::now()) {
            let key = turn.key.clone();
            let bounded = tokio::time::timeout(BOUND, reconcile(turn));
            let task = self.running.spawn(async move { bounded.await.ok() });
            self.names.insert(task.id(), key);
        }
    }

    /// Waits for one to end; does not end while none runs. What it then does is
    /// in the queue already. Cancel-safe: one that has ended stays so.
    pub(super) async fn ended(&mut self) -> (K, Outcome) {
        loop {
            let Some(ended) = self.running.join_next_with_id().await else {
                std::future::pending::<()>().await;
                continue;
            };
            let id = ended.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
            let Some(key) = self.names.remove(&id) else { continue };
            let outcome = match ended {
                Ok((_, Some(outcome))) => outcome,
                Ok((_, None)) => {
                    tracing::warn!(?key, bound = ?BOUND, "a reconcile took too long");
                    Outcome::Passing
                }
                Err(error) => {
                    tracing::error!(?key, error = %Chain(&error), "a reconcile panicked");
                    Outcome::Failed
                }
            };
            return (key, outcome);
        }
    }

    /// Lets those that run come to an end, and cuts off those that do not.
    pub(super) async fn drain(mut self) {
        let running = &mut self.running;
        let rest = async { while running.join_next().await.is_some() {} };
        if tokio::time::timeout(GRACE, rest).await.is_err() {
            // Every write is one request, and the next process goes on.
            tracing::warn!(count = self.running.len(), "reconciles are cut off by the shutdown");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::super::queue::Version;
    use super::*;

    async fn next(pool: &mut Pool<u32>) -> (u32, Outcome, Option<Duration>) {
        let (key, outcome) = pool.ended().await;
        let pause = pool.queue.done(&key, outcome, Instant::now());
        (key, outcome, pause)
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_than_allowed_run_at_once_and_all_get_their_turn() {
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let mut pool = Pool::new(5);
        for key in 0..20 {
            pool.queue.ask(&key, Version::default());
        }
        for _ in 0..20 {
            pool.start(|_| {
                let (now, most) = (Arc::clone(&now), Arc::clone(&most));
                async move {
                    most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    now.fetch_sub(1, Ordering::SeqCst);
                    Outcome::Done
                }
            });
            next(&mut pool).await;
        }
        assert_eq!(most.load(Ordering::SeqCst), 5);
    }

    #[tokio::test(start_paused = true)]
    #[expect(clippy::panic, reason = "that is the point")]
    async fn a_panic_is_a_failure_of_one() {
        let mut pool = Pool::new(2);
        pool.queue.ask(&1, Version::default());
        pool.queue.ask(&2, Version::default());
        pool.start(|turn| async move {
            assert_ne!(turn.key, 1, "scripted");
            tokio::time::sleep(Duration::from_millis(1)).await;
            Outcome::Done
        });
        let first = Duration::from_millis(5);
        assert_eq!(next(&mut pool).await, (1, Outcome::Failed, Some(first)));
        assert_eq!(next(&mut pool).await, (2, Outcome::Done, None));
        // It is tried again, after its pause.
        pool.start(|_| async { panic!("too early") });
        tokio::time::advance(first).await;
        pool.start(|_| async { Outcome::Done });
        assert_eq!(next(&mut pool).await, (1, Outcome::Done, None));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_hangs_is_cut_off_and_tried_again() {
        let mut pool = Pool::new(1);
        pool.queue.ask(&1, Version::default());
        pool.start(|_| std::future::pending());
        let began = Instant::now();
        let (key, outcome, pause) = next(&mut pool).await;
        assert_eq!((key, outcome, began.elapsed()), (1, Outcome::Passing, BOUND));
        assert!(pause.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_shutdown_lets_reconciles_finish_within_bounds() {
        let mut pool = Pool::new(2);
        pool.queue.ask(&1, Version::default());
        pool.queue.ask(&2, Version::default());
        pool.start(|turn| async move {
            let long = Duration::from_secs(if turn.key == 1 { 1 } else { 3600 });
            tokio::time::sleep(long).await;
            Outcome::Done
        });
        let began = Instant::now();
        pool.drain().await;
        assert_eq!(began.elapsed(), GRACE);
    }
}
