//! The registry that bundles come from: `docker-registry`, as a site has it.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rootstock_core::desired::Registry as Desired;
use rootstock_playground::registry;

use crate::cache::find;
use crate::images::write;

/// Debian's name of the reference implementation of the OCI distribution spec.
const PROGRAM: &str = "docker-registry";
/// How long it may take to listen.
const START: Duration = Duration::from_secs(20);

/// A registry on this machine, which the nodes share.
#[derive(Debug)]
pub(crate) enum Registry {
    /// A process of its own.
    Real {
        /// Its URL.
        url: String,
        /// Kept for its end alone.
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
        let (process, address) = Process::start(dir).context(PROGRAM)?;
        Ok(Self::Real { url: format!("http://{address}"), _process: process })
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

/// A child that is killed when this is dropped.
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
            // REGISTRY_* would go before what is in the file.
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let log = child.stderr.take().context("its log is piped")?;
        let process = Self(child);
        let (tell, told) = mpsc::channel();
        // It reads to the end: a pipe that nobody reads would hold the registry up.
        std::thread::spawn(move || {
            let lines = BufReader::new(log).lines().map_while(Result::ok);
            // Nobody listens any more once the address is known.
            lines.for_each(|line| drop(tell.send(line)));
        });
        let (until, mut said) = (Instant::now() + START, Vec::new());
        while let Ok(line) = told.recv_timeout(until.saturating_duration_since(Instant::now())) {
            let address = line.split("listening on ").nth(1).and_then(|at| at.split('"').next());
            if let Some(address) = address {
                return Ok((process, address.trim().to_owned()));
            }
            said.push(line);
        }
        bail!("it does not listen: {}", said.join("; "))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
