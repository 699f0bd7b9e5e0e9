//! The registry that bundles come from: `docker-registry`, as a site has it.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::Context as _;
use rootstock_core::desired::Registry as Desired;
use rootstock_playground::registry;

use crate::cache::find;
use crate::images::write;

/// Debian's name of the reference implementation of the OCI distribution spec.
const PROGRAM: &str = "docker-registry";

/// A registry on this machine, which the nodes share.
#[derive(Debug)]
pub(crate) enum Registry {
    /// A process of its own.
    Real {
        /// Its URL.
        url: String,
        /// It ends with this.
        _process: Process,
    },
    /// The playground's.
    Playground(registry::Registry),
}

impl Registry {
    /// The real one where it is installed.
    pub(crate) async fn start(dir: &Path) -> anyhow::Result<Self> {
        if find(PROGRAM).is_none() {
            eprintln!("lab: no {PROGRAM} here, the playground's registry has the bundles");
            return Ok(Self::Playground(registry::Registry::start(dir).await?));
        }
        let (_process, address) = Process::start(dir).context(PROGRAM)?;
        Ok(Self::Real { url: format!("http://{address}"), _process })
    }

    /// It as the catalog names it.
    pub(crate) fn as_desired(&self, name: &str) -> Desired {
        match self {
            Self::Playground(registry) => registry.as_desired(name),
            Self::Real { url, .. } => Desired {
                name: name.to_owned(),
                url: url.clone(),
                mirrors: Vec::new(),
                ca_bundle: String::new(),
                credential: None,
            },
        }
    }
}

/// Ends with its handle.
#[derive(Debug)]
pub(crate) struct Process(Child);

impl Process {
    /// Starts it on a port of the system's, which only its log tells.
    fn start(dir: &Path) -> anyhow::Result<(Self, String)> {
        std::fs::create_dir_all(dir)?;
        let config = dir.join("config.yml");
        let data = dir.join("data");
        let text = format!(
            "version: 0.1\nlog: {{level: info}}\nhttp: {{addr: \"127.0.0.1:0\"}}\n\
             storage: {{filesystem: {{rootdirectory: {data:?}}}}}\n"
        );
        write(&config, text.as_bytes())?;
        let mut child = Command::new(PROGRAM)
            .arg("serve")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let log = child.stderr.take().context("its log is piped")?;
        let process = Self(child);
        let mut lines = BufReader::new(log).lines();
        let mut said = Vec::new();
        for line in lines.by_ref() {
            let line = line?;
            let address =
                line.split("listening on ").nth(1).and_then(|rest| rest.split('"').next());
            if let Some(address) = address {
                let address = address.trim().to_owned();
                // A pipe that nobody reads would hold it up.
                std::thread::spawn(move || lines.for_each(drop));
                return Ok((process, address));
            }
            said.push(line);
        }
        anyhow::bail!("it ended: {}", said.join("; "))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
