//! Somebody who puts a link in the agent's way right before an effect.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use futures_util::{StreamExt as _, stream};
use rootstock_agent::rootfs::{Effect, Watcher};
use tokio::sync::watch;

use super::super::support::{CONFIG, LIMIT, tree};
use super::Changes;
use super::kill::effects;
use super::node::{Life, Node, copy};

/// What is put in place of a part of an effect's path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trick {
    /// A link to the same place in the victim's tree.
    Link,
    /// Another name of a file of the victim.
    HardLink,
    /// A pipe that nobody reads.
    Pipe,
}

/// Swaps one part of the path of one effect.
#[derive(Debug)]
struct Attacker {
    root: PathBuf,
    victim: PathBuf,
    nth: usize,
    /// Parts of the path that stay; the next one is swapped.
    depth: usize,
    trick: Trick,
    count: AtomicUsize,
    /// What was swapped.
    swapped: Mutex<Option<PathBuf>>,
    done: watch::Sender<bool>,
}

fn aside(path: &Path) -> PathBuf {
    path.with_file_name("moved-aside")
}

impl Attacker {
    fn swap(&self, effect: &Effect) -> Option<PathBuf> {
        let parts: Vec<&str> = effect.path.split('/').filter(|part| !part.is_empty()).collect();
        if self.depth >= parts.len() || (self.trick != Trick::Link && self.depth + 1 < parts.len())
        {
            return None;
        }
        let below: PathBuf = parts[..=self.depth].iter().collect();
        let path = self.root.join(&below);
        if path.symlink_metadata().is_ok() {
            fs::rename(&path, aside(&path)).unwrap();
        } else if !path.parent().unwrap().is_dir() {
            return None;
        }
        match self.trick {
            Trick::Link => symlink(self.victim.join(&below), &path).unwrap(),
            Trick::HardLink => fs::hard_link(self.victim.join("precious"), &path).unwrap(),
            Trick::Pipe => {
                let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
                let kind = rustix::fs::FileType::Fifo;
                rustix::fs::mknodat(rustix::fs::CWD, &path, kind, mode, 0).unwrap();
            }
        }
        Some(path)
    }

    /// Takes away what was put there, also where the agent has given it
    /// another name, and puts back what was there before.
    fn restore(&self) {
        self.clean(&self.root);
        let Some(path) = self.swapped.lock().unwrap().take() else { return };
        let aside = aside(&path);
        if aside.symlink_metadata().is_err() {
            return;
        }
        if path.symlink_metadata().is_ok() {
            fs::remove_file(aside).unwrap();
        } else {
            fs::rename(aside, path).unwrap();
        }
    }

    /// Somebody finds containerd's configuration missing, and writes it.
    fn mend(&self) {
        let config = self.root.join("etc/containerd/config.toml");
        if config.symlink_metadata().is_err() {
            fs::write(config, CONFIG).unwrap();
        }
    }

    fn clean(&self, folder: &Path) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let meta = path.symlink_metadata().unwrap();
            if meta.is_dir() {
                self.clean(&path);
                continue;
            }
            let own = if meta.is_symlink() {
                !fs::read_link(&path).unwrap().starts_with(&self.victim)
            } else {
                meta.is_file() && meta.nlink() == 1
            };
            if !own {
                fs::remove_file(&path).unwrap();
            }
        }
    }
}

impl Watcher for Attacker {
    fn before(&self, effect: &Effect) -> io::Result<()> {
        if self.count.fetch_add(1, Ordering::SeqCst) == self.nth {
            *self.swapped.lock().unwrap() = self.swap(effect);
            self.done.send_replace(true);
        }
        Ok(())
    }

    fn after(&self, _: &Effect) {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_link_pipe_or_second_name_leads_out_of_the_node() {
    let changes = Changes::new().await;
    let victims = tempfile::tempdir_in(changes.world.dir.path()).unwrap();
    for change in changes.all.iter().filter(|change| change.name == "install") {
        let effects = effects(change).await;
        let points = effects.iter().enumerate().flat_map(|(nth, effect)| {
            let parts = effect.path.split('/').filter(|part| !part.is_empty()).count();
            let links = (0..parts).map(move |depth| (nth, depth, Trick::Link));
            // The root itself can't be swapped.
            let last = parts.checked_sub(1);
            let others = [Trick::HardLink, Trick::Pipe].map(move |trick| Some((nth, last?, trick)));
            links.chain(others.into_iter().flatten())
        });
        let points: Vec<_> = points.collect();
        let count = points.len();
        let victims = victims.path();
        let tries = points.into_iter().map(|(nth, depth, trick)| async move {
            let node = Node::new(change).with_retries();
            let victim = tempfile::tempdir_in(victims).unwrap();
            copy(&node.root(), victim.path());
            fs::write(victim.path().join("precious"), "bytes of somebody else").unwrap();
            let before = tree(victim.path());
            let attacker = Arc::new(Attacker {
                root: node.root(),
                victim: victim.path().to_owned(),
                nth,
                depth,
                trick,
                count: AtomicUsize::new(0),
                swapped: Mutex::default(),
                done: watch::Sender::new(false),
            });
            *node.story.lock().unwrap() = format!("{nth} at {depth} {trick:?}");
            attacked(&node, &attacker).await;
            assert_eq!(tree(victim.path()), before, "{}: {attacker:?}", change.name);
            let met = attacker.swapped.lock().unwrap().is_some();
            attacker.restore();
            attacker.mend();
            if met {
                node.recover().await;
            }
            met
        });
        let met: Vec<_> = stream::iter(tries).buffer_unordered(4).collect().await;
        let met = met.into_iter().filter(|met| *met).count();
        eprintln!("{}: {met} attacks on {} effects", change.name, effects.len());
        assert!(met * 2 > count, "{}: {met} of {count}", change.name);
    }
}

/// Lets the agent go on after the attack until it rests.
async fn attacked(node: &Node<'_>, attacker: &Arc<Attacker>) {
    let mut done = attacker.done.subscribe();
    let watcher = Arc::clone(attacker) as Arc<dyn Watcher>;
    // An agent whose own folder is not its own does not start.
    let Ok(mut agent) = node.start(watcher, &Life::new()).await else { return };
    let rests = async {
        tokio::select! {
            _ = done.wait_for(|done| *done) => {}
            () = node.made(&mut agent) => return,
        }
        let generation = node.change.wish.desired.generation;
        let rests = agent.reports.wait_for(|report| {
            let told = report.bundles.values().any(|bundle| bundle.reason.is_some());
            report.generation == generation && (report.settled || told)
        });
        drop(rests.await.unwrap());
    };
    let rested = tokio::time::timeout(LIMIT, rests).await;
    if rested.is_err() {
        panic!("{attacker:?}: {:#?}", agent.reports.borrow());
    }
    agent.stop().await;
}
