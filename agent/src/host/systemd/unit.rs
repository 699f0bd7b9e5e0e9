//! systemd over the system bus: units, their properties and their jobs.

use std::path::Path;

use futures_util::StreamExt as _;
use zbus::proxy::SignalStream;
use zbus::{Connection, OwnedObjectPath, OwnedVariant, Proxy};

const SYSTEMD: &str = "org.freedesktop.systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
/// What all units have.
pub(super) const UNIT: &str = "org.freedesktop.systemd1.Unit";
/// What services have beside that.
pub(super) const SERVICE: &str = "org.freedesktop.systemd1.Service";

/// The service manager, over a connection of its own: one that is kept goes
/// stale when the bus restarts.
#[derive(Debug)]
pub(super) struct Systemd {
    connection: Connection,
    pub(super) manager: Proxy<'static>,
}

impl Systemd {
    pub(super) async fn connect(bus: &Path) -> zbus::Result<Self> {
        let address = format!("unix:path={}", bus.display());
        let connection = zbus::connection::Builder::address(address.as_str()).build().await?;
        let path = "/org/freedesktop/systemd1";
        let manager = Proxy::new_owned(connection.clone(), SYSTEMD, path, MANAGER).await?;
        Ok(Self { connection, manager })
    }

    /// A unit, also one that is not there: its `LoadState` says so.
    pub(super) async fn unit(&self, name: &str) -> zbus::Result<Unit> {
        // Unlike GetUnit it also knows a unit that failed and was let go.
        let path: OwnedObjectPath = self.manager.call("LoadUnit", &(name,)).await?;
        Ok(Unit { connection: self.connection.clone(), path })
    }

    /// The ends of jobs from now on. To be asked for before the job: it may be
    /// over before the call that starts it returns.
    pub(super) async fn jobs(&self) -> zbus::Result<Jobs> {
        let removed = self.manager.receive_signal("JobRemoved").await?;
        let () = self.manager.call("Subscribe", &()).await?;
        Ok(Jobs { removed })
    }
}

/// The ends of jobs.
pub(super) struct Jobs {
    removed: SignalStream<'static>,
}

impl Jobs {
    /// Waits for the end of a job: `done`, or how it failed. None where the bus closed.
    pub(super) async fn end(&mut self, job: &OwnedObjectPath) -> zbus::Result<Option<String>> {
        while let Some(message) = self.removed.next().await {
            let body = message.body();
            let (_, ended, _, result): (u32, OwnedObjectPath, String, String) =
                body.deserialize()?;
            if ended == *job {
                return Ok(Some(result));
            }
        }
        Ok(None)
    }
}

/// A unit.
#[derive(Debug)]
pub(super) struct Unit {
    connection: Connection,
    path: OwnedObjectPath,
}

impl Unit {
    /// A property as it is now: systemd does not tell of all changes.
    pub(super) async fn property<T>(&self, interface: &str, name: &str) -> zbus::Result<T>
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

    /// Which start of the unit this is; empty where it did not start yet.
    pub(super) async fn invocation(&self) -> zbus::Result<String> {
        let id: Vec<u8> = self.property(UNIT, "InvocationID").await?;
        Ok(id.iter().map(|byte| format!("{byte:02x}")).collect())
    }
}
