//! A node for one try.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rootstock_agent::reconcile::{NodeReport, Pace};
use rootstock_agent::rootfs::{Watcher, watched};
use rootstock_agent::store::StoreError;
use rootstock_core::status::Phase;
use rootstock_playground::host::SimulatedHost;
use tokio::sync::watch;

use super::super::mortal::{Fate, Mortal};
use super::super::support::*;
use super::Change;
use super::sound::{self, Eye};

/// Waits where there is nothing to wait for.
const PACE: Pace = Pace {
    bytes: Duration::from_secs(3600),
    look: Duration::from_secs(60),
    waiting: Duration::from_millis(2),
    still: Duration::ZERO,
    settle: Duration::ZERO,
    together: Duration::from_secs(30),
};

/// A node, and the change that is tried on it.
pub(super) struct Node<'a> {
    pub(super) change: &'a Change,
    dir: tempfile::TempDir,
    /// What happened to it, for whoever reads why a test failed.
    pub(super) story: Mutex<String>,
    /// Whether somebody asks the agent to try again: what a kill or a power cut
    /// leaves is put right without that.
    retries: bool,
}

/// Whether the agent lives. Once dead it has no effect and no answer any more.
#[derive(Clone, Debug)]
pub(super) struct Life(watch::Sender<bool>);

impl Life {
    pub(super) fn new() -> Self {
        Self(watch::Sender::new(false))
    }

    pub(super) fn end(&self) {
        self.0.send_replace(true);
    }

    pub(super) fn ended(&self) -> bool {
        *self.0.borrow()
    }
}

/// How a life went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lived {
    /// It was ended.
    Died,
    /// The change was made.
    Done,
}

impl<'a> Node<'a> {
    pub(super) fn new(change: &'a Change) -> Self {
        let dir = tempfile::tempdir_in(change.before.parent().unwrap()).unwrap();
        let node = Self { change, dir, story: Mutex::default(), retries: false };
        copy(&change.before, &node.root());
        node
    }

    /// The same where somebody asks for another try of what did not work.
    pub(super) fn with_retries(self) -> Self {
        Self { retries: true, ..self }
    }

    pub(super) fn root(&self) -> PathBuf {
        self.dir.path().join("node")
    }

    pub(super) fn eye(&self) -> Arc<Eye> {
        Arc::new(Eye::new(&self.root(), &self.change.known))
    }

    /// Starts an agent and offers it the change. Where the disk does not let
    /// it start it ends, as the process does.
    pub(super) async fn start(
        &self,
        watcher: Arc<dyn Watcher>,
        life: &Life,
    ) -> Result<Agent, StoreError> {
        let host = SimulatedHost::new(&self.root()).with_start(Duration::from_millis(1));
        let life = life.clone();
        let fate = move |_: &str| match life.ended() {
            true => Fate::DieBefore,
            false => Fate::Live,
        };
        let (host, _) = Mortal::new(host, fate);
        let agent = watched(watcher, || Agent::open(&self.root(), Arc::new(host), PACE))?;
        let wish = &self.change.wish;
        // What it holds already it does not need to be told.
        if agent.files.ledger.held().is_some_and(|held| *held == *wish) {
            return Ok(agent);
        }
        if let Err(error) = agent.files.ledger.take(&agent.files.store, wish.clone()) {
            agent.stop().await;
            return Err(error);
        }
        Ok(agent)
    }

    /// Lets an agent work until it dies or has made the change.
    pub(super) async fn live(&self, watcher: Arc<dyn Watcher>, life: &Life) -> Lived {
        let mut died = life.0.subscribe();
        let mut agent = match self.start(watcher, life).await {
            Ok(agent) => agent,
            Err(error) if life.ended() => {
                drop(error);
                return Lived::Died;
            }
            Err(error) => {
                panic!("{}, {}: {error:?}", self.change.name, self.story.lock().unwrap())
            }
        };
        let lived = tokio::select! {
            _ = died.wait_for(|died| *died) => Lived::Died,
            () = self.made(&mut agent) => Lived::Done,
        };
        agent.stop().await;
        lived
    }

    /// An agent that nothing happens to makes the change.
    pub(super) async fn recover(&self) {
        let (eye, life) = (self.eye(), Life::new());
        let lived = self.live(Arc::clone(&eye) as Arc<dyn Watcher>, &life).await;
        assert_eq!(lived, Lived::Done);
        eye.saw_nothing_wrong();
    }

    /// Whether the agent says that the change is made.
    fn says(&self, report: &NodeReport) -> bool {
        let phases: Vec<_> = report.bundles.values().map(|bundle| bundle.phase).collect();
        report.generation == self.change.wish.desired.generation
            && report.settled
            && (phases == [self.change.phase]
                // What a killed agent took away the next one never saw.
                || (phases.is_empty() && self.change.phase == Phase::Removed))
    }

    /// Waits until the agent says so.
    pub(super) async fn said(&self, agent: &Agent) {
        let mut reports = agent.reports.clone();
        drop(reports.wait_for(|report| self.says(report)).await.unwrap());
    }

    /// What others do in the course of time.
    async fn help(&self, agent: &Agent, report: &NodeReport) {
        let failed = report.bundles.values().any(|bundle| bundle.reason.is_some());
        let rests = report.settled || failed;
        if report.generation != self.change.wish.desired.generation || !rests {
            return;
        }
        if self.change.phase == Phase::Removed && sound::is_untouched(&self.root()) {
            // The files of what is out of the configuration wait for containerd's next start.
            SimulatedHost::restart(&self.root()).await.unwrap();
        }
        let back = report.bundles.values().any(|bundle| bundle.phase == Phase::RolledBack);
        if self.retries && !(back && self.change.phase == Phase::RolledBack) {
            // What was not made is tried again at once.
            agent.retry.notify_one();
        }
    }

    /// Waits until the node is as the change has to leave it, and the agent says so.
    pub(super) async fn made(&self, agent: &mut Agent) {
        let said = async {
            loop {
                let report = agent.reports.borrow_and_update().clone();
                let told = self.says(&report);
                let seen = sound::ended(&self.root(), self.change);
                if told && seen.is_ok() {
                    return;
                }
                self.help(agent, &report).await;
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        if tokio::time::timeout(LIMIT, said).await.is_err() {
            let (name, story) = (self.change.name, self.story.lock().unwrap());
            let (report, ended) = (agent.reports.borrow(), sound::ended(&self.root(), self.change));
            panic!("{name}, {story}: {ended:?}\n{report:#?}\n{:#?}", agent.files.record());
        }
    }
}

/// Copies a node, with the times of its files.
pub(super) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let (meta, to) = (path.symlink_metadata().unwrap(), to.join(path.file_name().unwrap()));
        if meta.is_symlink() {
            symlink(fs::read_link(&path).unwrap(), &to).unwrap();
        } else if meta.is_dir() {
            copy(&path, &to);
        } else {
            fs::copy(&path, &to).unwrap();
            let file = fs::File::options().append(true).open(&to).unwrap();
            file.set_modified(meta.modified().unwrap()).unwrap();
            assert_eq!(meta.mode(), to.metadata().unwrap().mode());
        }
    }
}
