//! A real node: systemd over the system bus, containerd over its CRI socket.
//!
//! Both are reached by their path at the moment of a call: the folders are
//! mounted into the agent's Pod and not the sockets, which go stale when
//! their owner restarts.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::StreamExt as _;

use zbus::{Connection, OwnedObjectPath, OwnedVariant, Proxy};

use super::cri::Cri;
use super::{Containerd, Host, HostError, HostFuture, Sandbox};

const SYSTEMD: &str = "org.freedesktop.systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const UNIT: &str = "org.freedesktop.systemd1.Unit";
const SERVICE: &str = "org.freedesktop.systemd1.Service";
const CONTAINERD: &str = "containerd.service";
/// How long systemd may take for a restart: its own default for stop and
/// start together.
const RESTART: Duration = Duration::from_secs(180);
/// How long the bus may take for anything else.
const PATIENCE: Duration = Duration::from_secs(10);

/// A node with systemd and containerd.
#[derive(Debug)]
pub struct SystemdHost {
    bus: PathBuf,
    cri: Cri,
    /// Where containerd keeps a folder for each sandbox that runs.
    tasks: PathBuf,
}

impl SystemdHost {
    /// The node whose root is here for this process.
    pub fn new(host_root: &Path) -> Self {
        Self {
            bus: host_root.join("run/dbus/system_bus_socket"),
            cri: Cri::new(host_root.join("run/containerd/containerd.sock")),
            tasks: host_root.join("run/containerd/io.containerd.runtime.v2.task/k8s.io"),
        }
    }

    async fn connect(&self) -> zbus::Result<Connection> {
        let address = format!("unix:path={}", self.bus.display());
        zbus::connection::Builder::address(address.as_str()).build().await
    }

    /// Which start of the unit this is.
    async fn invocation(&self) -> zbus::Result<String> {
        let unit = Unit::of_containerd(self.connect().await?).await?;
        let id: Vec<u8> = unit.property(UNIT, "InvocationID").await?;
        Ok(id.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    async fn restart(&self) -> Result<(), RestartError> {
        let unit = Unit::of_containerd(self.connect().await?).await?;
        // Any other mode ends the shims with containerd, and with them every pod.
        let mode: String = unit.property(SERVICE, "KillMode").await?;
        if mode != "process" {
            return Err(RestartError::Evidence(format!(
                "{CONTAINERD} has KillMode={mode}: a restart would end every pod, want KillMode=process"
            )));
        }
        // Before the call: the job may be over before it returns.
        let mut removed = unit.manager.receive_signal("JobRemoved").await?;
        let () = unit.manager.call("Subscribe", &()).await?;
        let job: OwnedObjectPath =
            unit.manager.call("RestartUnit", &(CONTAINERD, "replace")).await?;
        let result = loop {
            let Some(message) = removed.next().await else {
                return Err(RestartError::Evidence("the system bus closed".to_owned()));
            };
            let body = message.body();
            let (_, ended, _, result): (u32, OwnedObjectPath, String, String) =
                body.deserialize()?;
            if ended == job {
                break result;
            }
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

/// containerd's unit.
struct Unit {
    connection: Connection,
    manager: Proxy<'static>,
    path: OwnedObjectPath,
}

impl Unit {
    async fn of_containerd(connection: Connection) -> zbus::Result<Self> {
        let manager =
            Proxy::new_owned(connection.clone(), SYSTEMD, "/org/freedesktop/systemd1", MANAGER)
                .await?;
        // Unlike GetUnit it also knows a unit that failed and was let go.
        let path: OwnedObjectPath = manager.call("LoadUnit", &(CONTAINERD,)).await?;
        Ok(Self { connection, manager, path })
    }

    /// A property as it is now: systemd does not tell of all changes.
    async fn property<T>(&self, interface: &str, name: &str) -> zbus::Result<T>
    where
        T: TryFrom<OwnedVariant>,
        T::Error: Into<zbus::Error>,
    {
        let properties =
            Proxy::new(&self.connection, SYSTEMD, &self.path, "org.freedesktop.DBus.Properties")
                .await?;
        let value: OwnedVariant = properties.call("Get", &(interface, name)).await?;
        value.try_into().map_err(Into::into)
    }
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

/// The shim that a sandbox was started with; none where it does not run, or
/// containerd is too old to write that down.
async fn shim(tasks: &Path, id: &str) -> Result<Option<String>, HostError> {
    let unavailable = |source: Box<dyn std::error::Error + Send + Sync>| HostError::Unavailable {
        what: format!("read the shim of sandbox {id}"),
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
    fn containerd(&self) -> HostFuture<'_, Result<Containerd, HostError>> {
        Box::pin(async {
            let start = tokio::time::timeout(PATIENCE, self.invocation())
                .await
                .map_err(|_| late("ask systemd", PATIENCE))?
                .map_err(bus)?;
            let version = self.cri.version().await?;
            let handlers = self.cri.handlers().await?;
            Ok(Containerd { version, start, handlers })
        })
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
            if let Some(shim) = shim(&self.tasks, &sandbox.id).await? {
                paths.insert(shim);
            }
            Ok((!paths.is_empty()).then_some(paths))
        })
    }

    fn free_space<'a>(&'a self, path: &'a Path) -> HostFuture<'a, Result<u64, HostError>> {
        Box::pin(super::free_space(path))
    }
}
