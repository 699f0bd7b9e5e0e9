//! gVisor: the real one where the machine has it.

use std::env;
use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rootstock_core::bundle::FileMode;
use serde_json::json;
use tokio::process::Command;

use super::{Chosen, SAMPLE_VERSION, Sample, SampleError, script, this_machine, write};

const RUNSC: &str = "runsc";
const SHIM: &str = "containerd-shim-runsc-v1";
const CONFIG: &str = "runsc.toml";
/// Since release 20260907 runsc finds parts of itself in this folder beside it.
const TREE: &str = "gvisor-bin";
/// How long `runsc --version` may take; it answers within a tenth of a second.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where runsc is looked for.
#[derive(Clone, Debug, Default)]
pub struct Places {
    /// The folder that the user named: the only one, if there is one.
    pub named: Option<PathBuf>,
    /// Other folders, in order.
    pub others: Vec<PathBuf>,
}

impl Places {
    /// The named folder, else `$ROOTSTOCK_PARTS/bin` and `PATH`.
    pub fn of_environment(named: Option<PathBuf>) -> Self {
        Self::of(named, env::var_os("ROOTSTOCK_PARTS"), env::var_os("PATH"))
    }

    /// Nowhere: for a sample in any case.
    pub fn nowhere() -> Self {
        Self::default()
    }

    fn of(named: Option<PathBuf>, parts: Option<OsString>, path: Option<OsString>) -> Self {
        let parts = parts.map(|parts| PathBuf::from(parts).join("bin"));
        let path: Vec<PathBuf> = path.iter().flat_map(env::split_paths).collect();
        Self { named, others: parts.into_iter().chain(path).collect() }
    }

    /// The first place that has a program of this name.
    async fn find(&self, name: &str) -> Option<PathBuf> {
        let folders = match &self.named {
            Some(named) => std::slice::from_ref(named),
            None => &self.others,
        };
        for folder in folders {
            if let Some(found) = program(&folder.join(name)).await {
                return Some(found);
            }
        }
        None
    }
}

/// The file that a path leads to, if it is a program.
async fn program(path: &Path) -> Option<PathBuf> {
    let real = tokio::fs::canonicalize(path).await.ok()?;
    let metadata = tokio::fs::metadata(&real).await.ok()?;
    (metadata.is_file() && metadata.permissions().mode() & 0o111 != 0).then_some(real)
}

/// gVisor for this machine's architecture. A sample's files are written into `work`.
pub async fn gvisor(places: &Places, work: &Path) -> Result<Sample, SampleError> {
    let Some(runsc) = places.find(RUNSC).await else {
        return match &places.named {
            Some(dir) => Err(SampleError::NoRunsc { dir: dir.clone() }),
            None => sample(work).await,
        };
    };
    // What lies beside runsc is of the same release.
    let beside = runsc.with_file_name(SHIM);
    let shim = match program(&beside).await {
        Some(shim) => Some(shim),
        None => places.find(SHIM).await,
    };
    let mut chosen = vec![of_program(RUNSC, runsc.clone())];
    let is_real = shim.is_some();
    let mut origin = runsc.display().to_string();
    match shim {
        Some(shim) => chosen.push(of_program(SHIM, shim)),
        None => {
            // Debian's package has no shim.
            let to = work.join("gvisor").join(SHIM);
            write(&to, script(SHIM).as_bytes()).await?;
            chosen.push(of_program(SHIM, to));
            origin.push_str(" with a sample shim");
        }
    }
    collect(&runsc.with_file_name(TREE), TREE, &mut chosen).await?;
    let version = version(&runsc).await.unwrap_or_else(|| "unknown".to_owned());
    Sample::of(description(&version)?, chosen, is_real, origin).await
}

async fn sample(work: &Path) -> Result<Sample, SampleError> {
    let mut chosen = Vec::new();
    for name in [RUNSC, SHIM] {
        let to = work.join("gvisor").join(name);
        write(&to, script(name).as_bytes()).await?;
        chosen.push(of_program(name, to));
    }
    let origin = "a sample: no runsc on this machine".to_owned();
    Sample::of(description(SAMPLE_VERSION)?, chosen, false, origin).await
}

fn of_program(path: &str, from: PathBuf) -> Chosen {
    Chosen { path: path.to_owned(), from, mode: FileMode::PROGRAM }
}

/// Adds the files below a folder, if it is there.
async fn collect(folder: &Path, path: &str, into: &mut Vec<Chosen>) -> Result<(), SampleError> {
    let mut folders = vec![(folder.to_owned(), path.to_owned())];
    while let Some((folder, path)) = folders.pop() {
        let Ok(mut entries) = tokio::fs::read_dir(&folder).await else { continue };
        while let Some(entry) = entries.next_entry().await.map_err(SampleError::file(&folder))? {
            let from = entry.path();
            let metadata = tokio::fs::metadata(&from).await.map_err(SampleError::file(&from))?;
            let path = format!("{path}/{}", entry.file_name().to_string_lossy());
            if metadata.is_dir() {
                folders.push((from, path));
            } else if metadata.is_file() {
                let is_program = metadata.permissions().mode() & 0o111 != 0;
                let mode = if is_program { FileMode::PROGRAM } else { FileMode::DATA };
                into.push(Chosen { path, from, mode });
            }
        }
    }
    Ok(())
}

/// The release in `runsc version release-20260905.0`, the first line of `--version`.
async fn version(runsc: &Path) -> Option<String> {
    let run = async {
        loop {
            let mut command = Command::new(runsc);
            command.arg("--version").stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
            match command.output().await {
                // A program that was just written may still be open for
                // writing in a child that another thread is about to start.
                Err(error) if error.kind() == ErrorKind::ExecutableFileBusy => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                output => return output.ok(),
            }
        }
    };
    let output = tokio::time::timeout(PATIENCE, run).await.ok()??;
    parse_version(&String::from_utf8_lossy(&output.stdout))
}

fn parse_version(text: &str) -> Option<String> {
    let word = text.lines().next()?.strip_prefix("runsc version ")?.split_whitespace().next()?;
    let version = word.strip_prefix("release-").unwrap_or(word);
    (!version.is_empty()).then(|| version.chars().take(64).collect())
}

fn description(version: &str) -> Result<serde_json::Value, SampleError> {
    Ok(json!({
        "type": "gvisor",
        "version": version,
        "architecture": this_machine()?,
        "minContainerd": "1.7.0",
        "files": [],
        "entryPoints": [RUNSC, SHIM],
        "handlers": [{
            "name": "runsc",
            "runtimeType": "io.containerd.runsc.v1",
            "shim": SHIM,
            "config": CONFIG,
            "options": {"TypeUrl": "io.containerd.runsc.v1.options"},
        }],
        "configs": [{
            "name": CONFIG,
            "format": "toml",
            "template": {"binary_name": "{bundle}/runsc", "runsc_config": {}},
        }],
        // What the gVisor extension takes of runsc's flags, written as it writes them.
        "settings": [
            {
                "name": "net-raw", "kind": "bool", "config": CONFIG,
                "key": "runsc_config.net-raw", "as": "string",
            },
            {
                "name": "debug", "kind": "bool", "config": CONFIG,
                "key": "runsc_config.debug", "as": "string", "omitFalse": true,
                "also": {"runsc_config.debug-log": "/var/log/runsc/%ID%/gvisor-%COMMAND%.log"},
            },
            {
                "name": "nvproxy", "kind": "bool", "config": CONFIG,
                "key": "runsc_config.nvproxy", "as": "string", "omitFalse": true,
            },
            {
                "name": "panic-signal", "kind": "int", "config": CONFIG,
                "key": "runsc_config.panic-signal", "as": "string",
            },
        ],
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_release_is_read() {
        let text = "runsc version release-20260905.0\nspec: 1.1.0\n";
        assert_eq!(parse_version(text).unwrap(), "20260905.0");
        assert_eq!(parse_version("runsc version sample\n").unwrap(), "sample");
        for other in ["", "runc version 1.1", "runsc version ", "runsc version release-"] {
            assert_eq!(parse_version(other), None, "{other:?}");
        }
    }

    #[test]
    fn the_parts_come_before_the_path() {
        let places = Places::of(None, Some("/parts".into()), Some("/usr/bin:/bin".into()));
        assert_eq!(places.others, ["/parts/bin", "/usr/bin", "/bin"].map(PathBuf::from));
    }

    #[tokio::test]
    async fn a_machine_without_runsc_gets_a_sample_that_says_so() {
        let work = tempfile::tempdir().unwrap();
        let sample = gvisor(&Places::nowhere(), work.path()).await.unwrap();
        assert!(!sample.is_real);
        assert_eq!(sample.version, SAMPLE_VERSION);
        let built = sample.build(&work.path().join("blobs")).await.unwrap();
        assert_eq!(built.blobs().len(), 2);

        let named = Places { named: Some(work.path().to_owned()), others: Vec::new() };
        let error = gvisor(&named, work.path()).await.unwrap_err();
        assert!(error.to_string().contains("no program runsc"), "{error}");
    }

    #[tokio::test]
    async fn real_files_are_taken_whole() {
        let dir = tempfile::tempdir().unwrap();
        let text = "#!/bin/sh\necho runsc version release-20260907.0\n";
        for (path, mode) in [
            (RUNSC, 0o755),
            (SHIM, 0o755),
            ("gvisor-bin/sentry", 0o755),
            ("gvisor-bin/a/data", 0o644),
        ] {
            let to = dir.path().join(path);
            write(&to, text.as_bytes()).await.unwrap();
            tokio::fs::set_permissions(&to, std::fs::Permissions::from_mode(mode)).await.unwrap();
        }
        let places = Places { named: Some(dir.path().to_owned()), others: Vec::new() };
        let sample = gvisor(&places, &dir.path().join("work")).await.unwrap();
        assert!(sample.is_real, "{}", sample.origin);
        assert_eq!(sample.version, "20260907.0");
        let paths: Vec<_> = sample.files.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(paths, [SHIM, "gvisor-bin/a/data", "gvisor-bin/sentry", RUNSC]);
        assert_eq!(sample.files[1].mode, FileMode::DATA);
    }
}
