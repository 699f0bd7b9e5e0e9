//! The tasks of a daemon: each has a name, is joined, and is fatal if it ends early.

use std::future::Future;
use std::time::Duration;

use tokio::task::JoinSet;

use crate::shutdown::Shutdown;

/// The tasks of a daemon.
#[derive(Debug)]
pub struct Tasks {
    running: JoinSet<(&'static str, anyhow::Result<()>)>,
    names: Vec<(tokio::task::Id, &'static str)>,
    shutdown: Shutdown,
}

impl Tasks {
    /// No tasks, which end with `shutdown`.
    pub fn new(shutdown: Shutdown) -> Self {
        Self { running: JoinSet::new(), names: Vec::new(), shutdown }
    }

    /// Starts a task.
    pub fn spawn(
        &mut self,
        name: &'static str,
        task: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    ) {
        let handle = self.running.spawn(async move { (name, task.await) });
        self.names.push((handle.id(), name));
    }

    /// Runs until the shutdown begins or a task ends, then gives the others
    /// `grace` to end too.
    ///
    /// # Errors
    /// When a task failed, panicked, ended before the shutdown, or did not end
    /// within `grace`.
    pub async fn join(mut self, grace: Duration) -> anyhow::Result<()> {
        // Cancel-safe: neither `join_next` nor `begun` loses anything.
        let first = tokio::select! {
            ended = self.running.join_next() => ended.map(|ended| self.outcome(ended, true)),
            () = self.shutdown.begun() => None,
        };
        self.shutdown.begin();
        let mut outcome = first.unwrap_or(Ok(()));
        let rest = async {
            while let Some(ended) = self.running.join_next().await {
                let ended = self.outcome(ended, false);
                if outcome.is_ok() {
                    outcome = ended;
                }
            }
        };
        if tokio::time::timeout(grace, rest).await.is_err() && outcome.is_ok() {
            let late = self.running.len();
            outcome = Err(anyhow::anyhow!("{late} tasks did not end within {grace:?}"));
        }
        outcome
    }

    fn outcome(
        &self,
        ended: Result<(&'static str, anyhow::Result<()>), tokio::task::JoinError>,
        early: bool,
    ) -> anyhow::Result<()> {
        match ended {
            Ok((_, Ok(()))) if !early || self.shutdown.has_begun() => Ok(()),
            Ok((name, Ok(()))) => Err(anyhow::anyhow!("task {name} ended early")),
            Ok((name, Err(error))) => Err(error.context(format!("task {name} failed"))),
            Err(error) => {
                let id = error.id();
                let name = self.names.iter().find(|named| named.0 == id).map_or("?", |n| n.1);
                Err(anyhow::anyhow!("task {name} panicked: {error}"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_ends_early_ends_all() {
        let shutdown = Shutdown::new();
        let mut tasks = Tasks::new(shutdown.clone());
        let waits = shutdown.clone();
        tasks.spawn("waits", async move {
            waits.begun().await;
            Ok(())
        });
        tasks.spawn("stops", async { Ok(()) });
        let error = tasks.join(Duration::from_secs(5)).await.unwrap_err();
        assert_eq!(error.to_string(), "task stops ended early");
        assert!(shutdown.has_begun());
    }

    #[tokio::test]
    async fn a_shutdown_is_no_failure() {
        let shutdown = Shutdown::new();
        let mut tasks = Tasks::new(shutdown.clone());
        let waits = shutdown.clone();
        tasks.spawn("waits", async move {
            waits.begun().await;
            Ok(())
        });
        shutdown.begin();
        tasks.join(Duration::from_secs(5)).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_hangs_is_named_in_number() {
        let shutdown = Shutdown::new();
        let mut tasks = Tasks::new(shutdown.clone());
        tasks.spawn("hangs", std::future::pending());
        shutdown.begin();
        let error = tasks.join(Duration::from_secs(5)).await.unwrap_err();
        assert_eq!(error.to_string(), "1 tasks did not end within 5s");
    }
}
