//! What the gVisor extension's script leaves on a node.

use std::io;
use std::path::Path;

use rootstock_agent::containerd;

use super::SimulatedHost;

/// Where it puts its programs; also the folder that stands first in containerd's PATH.
pub const BINARY_PATH: &str = "/var/bin/containerruntimes";
/// Its configuration of runsc.
pub const CONFIG: &str = "/etc/containerd/runsc.toml";
/// Its programs.
pub const PROGRAMS: [&str; 2] = ["runsc", "containerd-shim-runsc-v1"];

/// One of the forms that a node is found in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Script<'a> {
    /// The version of the node's `config.toml`: 1 to 4.
    pub version: u8,
    /// The version for which the script wrote its table: an older one where
    /// the node was upgraded in place.
    pub table: u8,
    /// The flags in `runsc.toml`.
    pub flags: &'a [(&'a str, &'a str)],
}

impl Default for Script<'_> {
    fn default() -> Self {
        Self { version: 3, table: 3, flags: &[("net-raw", "true")] }
    }
}

impl Script<'_> {
    /// The node's configuration before the script came.
    pub fn before(&self) -> String {
        let text = include_str!("config.toml");
        let text = text.replace("version = 3", &format!("version = {}", self.version));
        match self.version {
            1 => text.replace("'io.containerd.cri.v1.runtime'", "cri"),
            2 => text.replace("'io.containerd.cri.v1.runtime'", "\"io.containerd.grpc.v1.cri\""),
            _ => text,
        }
    }

    /// The configuration after it.
    pub fn config(&self) -> String {
        format!("{}{}", self.before(), self.table())
    }

    /// The tables that it appends.
    pub fn table(&self) -> String {
        let plugin = match self.table {
            1 => "plugins.cri",
            2 => "plugins.\"io.containerd.grpc.v1.cri\"",
            _ => "plugins.\"io.containerd.cri.v1.runtime\"",
        };
        format!(
            "[{plugin}.containerd.runtimes.runsc]\n  \
             runtime_type = \"io.containerd.runsc.v1\"\n\
             [{plugin}.containerd.runtimes.runsc.options]\n  \
             TypeUrl = \"io.containerd.runsc.v1.options\"\n  \
             ConfigPath = \"{CONFIG}\"\n"
        )
    }

    /// Its `runsc.toml`.
    pub fn runsc_toml(&self) -> String {
        let flags = self.flags.iter().map(|(name, value)| format!("  {name} = \"{value}\"\n"));
        format!("[runsc_config]\n{}", flags.collect::<String>())
    }

    /// Runs it on a node: its files, its table, and a restart of containerd.
    pub async fn run(&self, root: &Path) -> io::Result<()> {
        let (root, config, runsc) = (root.to_owned(), self.config(), self.runsc_toml());
        let at = root.clone();
        let write = move || {
            let etc = at.join(containerd::FOLDER.trim_start_matches('/'));
            let binaries = at.join(BINARY_PATH.trim_start_matches('/'));
            std::fs::create_dir_all(&etc)?;
            put(&etc, containerd::FILE, config.as_bytes(), 0o644)?;
            put(&etc, "runsc.toml", runsc.as_bytes(), 0o644)?;
            for name in PROGRAMS {
                put(
                    &binaries,
                    name,
                    format!("#!/bin/sh\n# the script's {name}\n").as_bytes(),
                    0o755,
                )?;
            }
            Ok::<_, io::Error>(())
        };
        tokio::task::spawn_blocking(write).await.map_err(io::Error::other)??;
        SimulatedHost::restart(&root).await
    }
}

/// A file of a while ago: nobody writes it at this moment.
fn put(folder: &Path, name: &str, bytes: &[u8], mode: u32) -> io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::PermissionsExt as _;
    use std::time::{Duration, SystemTime};

    std::fs::create_dir_all(folder)?;
    let mut file = std::fs::File::create(folder.join(name))?;
    file.write_all(bytes)?;
    file.set_permissions(std::fs::Permissions::from_mode(mode))?;
    file.set_modified(SystemTime::now() - Duration::from_secs(3600))
}
