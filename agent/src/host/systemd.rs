//! A real node: systemd over the system bus, containerd over its CRI socket.
//!
//! Both are reached by their path at the moment of a call: the folders are
//! mounted into the agent's Pod and not the sockets, which go stale when
//! their owner restarts.

mod find;
mod node;
#[cfg(test)]
mod real;
mod transient;
mod unit;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rootstock_core::bundle::Need;
use rootstock_core::name::HandlerName;
use zbus::OwnedObjectPath;

use super::cri::Cri;
use super::{
    Containerd, Facts, Host, HostError, HostFuture, Installation, JOURNAL_LINES, Proof, Sandbox,
    UnitState,
};
use unit::{SERVICE, Systemd, UNIT, Unit};

const CONTAINERD: &str = "containerd.service";
/// containerd's socket on the node.
const SOCKET: &str = "/run/containerd/containerd.sock";
/// Where every distribution has it; on those that have merged /usr and /bin
/// too, which is all with a systemd that is still cared for.
const JOURNALCTL: &str = "/usr/bin/journalctl";
/// How long systemd may take for a restart: its own default for stop and
/// start together.
const RESTART: Duration = Duration::from_secs(180);
/// How long the bus may take for anything else.
const PATIENCE: Duration = Duration::from_secs(10);
/// The last lines of a program's errors that are passed on.
const SAID_LINES: usize = 3;
/// The most of a line that is passed on, in bytes.
const MAX_LINE: usize = 500;

/// A node with systemd and containerd.
#[derive(Debug)]
pub struct SystemdHost {
    root: PathBuf,
    bus: PathBuf,
    cri: Cri,
    /// Where containerd keeps a folder for each sandbox that runs.
    tasks: PathBuf,
}

impl SystemdHost {
    /// The node whose root is here for this process.
    pub fn new(host_root: &Path) -> Self {
        Self {
            root: host_root.to_owned(),
            bus: host_root.join("run/dbus/system_bus_socket"),
            cri: Cri::new(host_root.join(SOCKET.trim_start_matches('/'))),
            tasks: host_root.join("run/containerd/io.containerd.runtime.v2.task/k8s.io"),
        }
    }

    /// Asks systemd something that it answers at once.
    async fn ask<T>(
        &self,
        question: impl AsyncFnOnce(Systemd) -> zbus::Result<T>,
    ) -> Result<T, HostError> {
        let work = async { question(Systemd::connect(&self.bus).await?).await };
        let answer = tokio::time::timeout(PATIENCE, work).await;
        answer.map_err(|_| late("ask systemd", PATIENCE))?.map_err(bus)
    }

    /// Runs a program of the node.
    async fn run(&self, argv: &[&str]) -> Result<transient::Output, HostError> {
        let systemd = self.ask(async |systemd| Ok(systemd)).await?;
        transient::run(&systemd, argv).await.map_err(|error| HostError::Unavailable {
            what: format!("run {} in a unit of systemd", argv.join(" ")),
            source: Box::new(error),
        })
    }

    async fn restart(&self) -> Result<(), RestartError> {
        let systemd = Systemd::connect(&self.bus).await?;
        let unit = systemd.unit(CONTAINERD).await?;
        // Looked at here too: the unit may have changed since it was found.
        let mode: String = unit.property(SERVICE, "KillMode").await?;
        if let Some(harm) = find::harm(&mode) {
            return Err(RestartError::Evidence(harm));
        }
        let mut jobs = systemd.jobs().await?;
        // Five starts in ten seconds, whoever asked for them, and systemd lets a unit
        // lie: a change and its way back must not be what takes the node down.
        let () = systemd.manager.call("ResetFailedUnit", &(CONTAINERD,)).await?;
        let job: OwnedObjectPath =
            systemd.manager.call("RestartUnit", &(CONTAINERD, "replace")).await?;
        let Some(result) = jobs.end(&job).await? else {
            return Err(RestartError::Evidence("the system bus closed".to_owned()));
        };
        let state: String = unit.property(UNIT, "ActiveState").await?;
        if result == "done" && state == "active" {
            return Ok(());
        }
        let outcome: String = unit.property(SERVICE, "Result").await?;
        let status: i32 = unit.property(SERVICE, "ExecMainStatus").await?;
        Err(RestartError::Evidence(format!(
            "{CONTAINERD}: job {result}, state {state}, result {outcome}, exit status {status}"
        )))
    }
}

enum RestartError {
    Bus(zbus::Error),
    Evidence(String),
}

impl From<zbus::Error> for RestartError {
    fn from(error: zbus::Error) -> Self {
        Self::Bus(error)
    }
}

async fn state(unit: &Unit) -> zbus::Result<UnitState> {
    let active: String = unit.property(UNIT, "ActiveState").await?;
    Ok(UnitState {
        start: unit.invocation().await?,
        active: active == "active" || active == "reloading",
        restarts: unit.property(SERVICE, "NRestarts").await?,
        result: unit.property(SERVICE, "Result").await?,
    })
}

/// The last lines of a text, each of a length that a person reads.
fn last_lines(text: &str, most: usize) -> Vec<String> {
    let lines = text.lines().map(str::trim_end).filter(|line| !line.is_empty());
    let mut last: Vec<String> = lines.rev().take(most).map(line).collect();
    last.reverse();
    last
}

fn line(text: &str) -> String {
    let text: String = text.chars().filter(|c| !c.is_control()).collect();
    if text.len() <= MAX_LINE {
        return text;
    }
    format!("{}…", &text[..text.floor_char_boundary(MAX_LINE)])
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, HostError> + Send + 'static,
) -> Result<T, HostError> {
    let joined = tokio::task::spawn_blocking(work).await;
    joined.unwrap_or_else(|error| {
        Err(HostError::Unavailable { what: "look at the node".to_owned(), source: error.into() })
    })
}

fn bus(error: zbus::Error) -> HostError {
    HostError::Unavailable {
        what: format!("ask systemd about {CONTAINERD}"),
        source: Box::new(error),
    }
}

fn late(what: &str, limit: Duration) -> HostError {
    let source = format!("no answer within {limit:?}").into();
    HostError::Unavailable { what: what.to_owned(), source }
}

/// The shim that a sandbox or container was started with; none where it does not run, or
/// containerd is too old to write that down.
async fn shim(tasks: &Path, id: &str) -> Result<Option<String>, HostError> {
    let unavailable = |source: Box<dyn std::error::Error + Send + Sync>| HostError::Unavailable {
        what: format!("read the shim of {id}"),
        source,
    };
    if !id.bytes().all(|byte| byte.is_ascii_alphanumeric()) || id.is_empty() {
        return Err(unavailable("it has no plain name".into()));
    }
    match tokio::fs::read_to_string(tasks.join(id).join("shim-binary-path")).await {
        Ok(path) => Ok(Some(path.trim().to_owned())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unavailable(error.into())),
    }
}

impl Host for SystemdHost {
    fn find(&self) -> HostFuture<'_, Result<Installation, HostError>> {
        Box::pin(async {
            let found = self.ask(async |systemd| find::find(&systemd).await).await?;
            found.map_err(|why| HostError::Unsupported { why })
        })
    }

    fn containerd(&self) -> HostFuture<'_, Result<Containerd, HostError>> {
        Box::pin(async {
            let start =
                self.ask(async |systemd| systemd.unit(CONTAINERD).await?.invocation().await);
            let start = start.await?;
            let version = self.cri.version().await?;
            let handlers = self.cri.handlers().await?;
            Ok(Containerd { version, start, handlers })
        })
    }

    fn dump<'a>(&'a self, config: &'a str) -> HostFuture<'a, Result<String, HostError>> {
        Box::pin(async move {
            let Installation { program, .. } = self.find().await?;
            let output = self.run(&[&program, "--config", config, "config", "dump"]).await?;
            let Some(failed) = output.failed else { return Ok(output.stdout) };
            let mut said = last_lines(&output.stderr, SAID_LINES);
            if said.is_empty() {
                said.push(failed);
            }
            Err(HostError::Config { config: config.to_owned(), said: said.join("; ") })
        })
    }

    fn unit(&self) -> HostFuture<'_, Result<UnitState, HostError>> {
        Box::pin(self.ask(async |systemd| state(&systemd.unit(CONTAINERD).await?).await))
    }

    fn journal(&self) -> HostFuture<'_, Result<Vec<String>, HostError>> {
        Box::pin(async {
            let count = JOURNAL_LINES.to_string();
            let argv = [JOURNALCTL, "-u", CONTAINERD, "-n", &count, "-o", "cat", "--no-pager"];
            let output = self.run(&argv).await?;
            match output.failed {
                None => Ok(last_lines(&output.stdout, JOURNAL_LINES)),
                Some(failed) => {
                    let said = last_lines(&output.stderr, SAID_LINES).join("; ");
                    let what = format!("read the journal of {CONTAINERD} with {JOURNALCTL}");
                    let source = format!("{failed}: {said}").into();
                    Err(HostError::Unavailable { what, source })
                }
            }
        })
    }

    fn prove<'a>(&'a self, handler: &'a HandlerName) -> HostFuture<'a, Result<Proof, HostError>> {
        Box::pin(self.cri.prove(handler))
    }

    fn unmet<'a>(&'a self, need: &'a Need) -> HostFuture<'a, Result<Option<String>, HostError>> {
        let (root, need) = (self.root.clone(), need.clone());
        Box::pin(blocking(move || node::unmet(&root, &need)))
    }

    fn facts(&self) -> HostFuture<'_, Result<Facts, HostError>> {
        Box::pin(blocking(node::facts))
    }

    fn restart_containerd(&self) -> HostFuture<'_, Result<(), HostError>> {
        Box::pin(async {
            match tokio::time::timeout(RESTART, self.restart()).await {
                Ok(Ok(())) => Ok(()),
                Ok(Err(RestartError::Bus(error))) => Err(bus(error)),
                Ok(Err(RestartError::Evidence(evidence))) => Err(HostError::Restart { evidence }),
                Err(_) => Err(late("restart containerd", RESTART)),
            }
        })
    }

    fn sandboxes(&self) -> HostFuture<'_, Result<Vec<Sandbox>, HostError>> {
        Box::pin(self.cri.sandboxes())
    }

    fn started_with<'a>(
        &'a self,
        sandbox: &'a Sandbox,
    ) -> HostFuture<'a, Result<Option<BTreeSet<String>>, HostError>> {
        Box::pin(async {
            let mut paths = self.cri.paths_of(&sandbox.id).await?;
            // containerd starts a shim for each container, and later ones may
            // come from another place than the sandbox's.
            let containers = self.cri.containers_of(&sandbox.id).await?;
            for id in [sandbox.id.clone()].into_iter().chain(containers) {
                paths.extend(shim(&self.tasks, &id).await?);
            }
            Ok((!paths.is_empty()).then_some(paths))
        })
    }

    fn free_space<'a>(&'a self, path: &'a Path) -> HostFuture<'a, Result<u64, HostError>> {
        Box::pin(super::free_space(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_kept_and_are_short() {
        let long = "ä".repeat(MAX_LINE);
        let text = format!("one\n\ntwo\x1b[31m\nthree\n{long}\n\n");
        let lines = last_lines(&text, 3);
        assert_eq!(lines[..2], ["two[31m", "three"]);
        assert!(lines[2].len() <= MAX_LINE + 3 && lines[2].ends_with('…'));
        assert!(last_lines("", 3).is_empty());
    }

    #[tokio::test]
    async fn without_a_bus_the_error_says_what_was_asked() {
        let root = tempfile::tempdir().unwrap();
        let host = SystemdHost::new(root.path());
        let error = host.find().await.unwrap_err();
        assert_eq!(error.to_string(), "ask systemd about containerd.service");
        assert!(host.dump("/x").await.is_err() && host.unit().await.is_err());
    }
}
