//! Bundles of a few bytes, for tests: good ones, ones for another
//! architecture, and ones that no build would make.

use std::path::Path;

use rootstock_bundle::Built;
use rootstock_core::bundle::FileMode;
use rootstock_core::name::Architecture;
use serde_json::{Value, json};

use super::{Chosen, Sample, SampleError, noise, script, write};

/// Which tiny bundle.
#[derive(Clone, Debug)]
pub struct Tiny<'a> {
    /// The runtime type; its handler is called after it.
    pub runtime: &'a str,
    /// The version. Another one has other bytes too.
    pub version: &'a str,
    /// What it runs on; none for everything.
    pub architecture: Option<Architecture>,
    /// The size of the file `share/data`, in bytes that don't compress.
    pub data: usize,
    /// The devices that a node must have.
    pub devices: &'a [&'a str],
}

impl<'a> Tiny<'a> {
    /// A bundle for this machine: a runtime, its shim, and 64 KiB of data.
    pub fn new(runtime: &'a str, version: &'a str) -> Self {
        let architecture = Architecture::of_this_machine();
        Self { runtime, version, architecture, data: 64 << 10, devices: &[] }
    }

    /// The same for another architecture.
    pub fn on(self, architecture: Architecture) -> Self {
        Self { architecture: Some(architecture), ..self }
    }

    /// The same with so much data.
    pub fn with_data(self, data: usize) -> Self {
        Self { data, ..self }
    }

    /// The same for nodes that have these devices.
    pub fn with_needs(self, devices: &'a [&'a str]) -> Self {
        Self { devices, ..self }
    }

    /// Its files, written into `work`, and its description.
    pub async fn sample(&self, work: &Path) -> Result<Sample, SampleError> {
        let Self { runtime, version, architecture, data, devices } = self;
        let shim = format!("containerd-shim-{runtime}-v1");
        let program = format!("{runtime}-tiny");
        let seed = version.bytes().fold(7_u64, |sum, byte| sum.wrapping_mul(31) + u64::from(byte));
        let of = architecture.map_or("any", Architecture::as_str);
        let folder = work.join(format!("{runtime}-{version}-{of}"));
        let parts = [
            (shim.clone(), FileMode::PROGRAM, script(&format!("{shim} {version} {of}")).into()),
            (
                program.clone(),
                FileMode::PROGRAM,
                script(&format!("{program} {version} {of}")).into(),
            ),
            ("share/data".to_owned(), FileMode::DATA, noise(seed, *data)),
        ];
        let mut chosen = Vec::new();
        for (path, mode, bytes) in parts {
            let from = folder.join(&path);
            let bytes: Vec<u8> = bytes;
            write(&from, &bytes).await?;
            chosen.push(Chosen { path, from, mode });
        }
        let config = format!("{runtime}.toml");
        let mut description = json!({
            "type": runtime,
            "version": version,
            "files": [],
            "entryPoints": [shim, program],
            "handlers": [{
                "name": runtime,
                "runtimeType": format!("io.containerd.{runtime}.v1"),
                "shim": shim,
                "config": config,
            }],
            "configs": [{
                "name": config,
                "format": "toml",
                "template": {"binary": format!("{{bundle}}/{program}"), "options": {}},
            }],
            "settings": [{
                "name": "debug", "kind": "bool", "config": config, "key": "options.debug",
            }],
        });
        if !devices.is_empty() {
            description["needs"] = devices.iter().map(|path| json!({"device": path})).collect();
        }
        if let Some(architecture) = architecture {
            description["architecture"] = json!(architecture);
        }
        Sample::of(description, chosen, false, "a tiny bundle".to_owned()).await
    }

    /// Built, with its blobs in `work/blobs`.
    pub async fn build(&self, work: &Path) -> Result<Built, SampleError> {
        self.sample(work).await?.build(&work.join("blobs")).await
    }

    /// Built, with a config blob that `change` has had its way with: such a
    /// bundle can be pushed, and must be refused by whoever reads it.
    ///
    /// The manifest's layers stay those of the good bundle.
    pub async fn hostile(
        &self,
        work: &Path,
        change: impl FnOnce(&mut Value),
    ) -> Result<Built, SampleError> {
        let built = self.build(work).await?;
        let mut config: Value = serde_json::from_slice(built.config())?;
        change(&mut config);
        let config = serde_json::to_vec(&config)?;
        let blobs = built.blobs().to_vec();
        Ok(Built::unchecked(built.architecture(), config, blobs, self.version)?)
    }
}
