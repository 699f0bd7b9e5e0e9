//! Whether the parts of a config blob fit together.

use std::collections::BTreeSet;

use super::{BundleConfig, InvalidBundle, MAX_FILE_SIZE, MAX_FILES};
use crate::path::BundlePath;

/// Programs that containerd finds by their name alone, with binaryPath first.
const HOST_PROGRAMS: [&str; 18] = [
    "apparmor_parser",
    "containerd",
    "containerd-shim",
    "containerd-shim-runc-v1",
    "containerd-shim-runc-v2",
    "criu",
    "crun",
    "ctr",
    "ip6tables",
    "iptables",
    "modprobe",
    "mount",
    "newgidmap",
    "newuidmap",
    "runc",
    "sh",
    "umount",
    "unpigz",
];

impl BundleConfig {
    /// Refuses what contradicts itself or would take over the node.
    pub(super) fn check(&self) -> Result<(), InvalidBundle> {
        let wrong = |text: String| Err(InvalidBundle::Content(text));
        if self.files.is_empty() || self.handlers.is_empty() {
            return wrong("it has no files or no handlers".to_owned());
        }
        if self.files.len() > MAX_FILES {
            return wrong(format!(
                "it has {} files, at most {MAX_FILES} are allowed",
                self.files.len()
            ));
        }
        if self.version.is_empty() || self.version.len() > 128 {
            return wrong("its version is empty or longer than 128 bytes".to_owned());
        }
        let files = self.check_files()?;
        let mut entries = BTreeSet::new();
        for entry in &self.entry_points {
            if !entries.insert(entry) {
                return wrong(format!("entry point {entry} is there twice"));
            }
            // binaryPath stands first in containerd's PATH: under such a name
            // it would be run for every ordinary pod.
            if HOST_PROGRAMS.contains(&entry.as_str()) {
                return wrong(format!("entry point {entry} belongs to the node"));
            }
            if !entry.is_top_level() || !files.contains(entry) {
                return wrong(format!("entry point {entry} is not a file at its top"));
            }
        }
        let mut rendered = BTreeSet::new();
        for config in &self.configs {
            if !config.name.is_top_level() || !rendered.insert(&config.name) {
                return wrong(format!("config file {} is not a name of its own", config.name));
            }
        }
        let mut names = BTreeSet::new();
        for handler in &self.handlers {
            let name = &handler.name;
            if !names.insert(name) {
                return wrong(format!("handler {name} is there twice"));
            }
            // A bundle that takes this name would take over every ordinary pod.
            if name.as_str() == "runc" {
                return wrong("handler runc belongs to the node".to_owned());
            }
            if !files.contains(&handler.shim) {
                return wrong(format!(
                    "shim {} of handler {name} is not among its files",
                    handler.shim
                ));
            }
            if let Some(config) = handler.config.as_ref().filter(|c| !rendered.contains(c)) {
                return wrong(format!(
                    "config {config} of handler {name} is not among its configs"
                ));
            }
        }
        self.check_settings().map_err(InvalidBundle::Content)
    }

    fn check_files(&self) -> Result<BTreeSet<&BundlePath>, InvalidBundle> {
        let mut files = BTreeSet::new();
        for file in &self.files {
            if file.size > MAX_FILE_SIZE || file.blob_size > MAX_FILE_SIZE {
                return Err(InvalidBundle::Content(format!(
                    "file {} has more than {MAX_FILE_SIZE} bytes",
                    file.path
                )));
            }
            if !files.insert(&file.path) {
                return Err(InvalidBundle::Path(format!("path {} is there twice", file.path)));
            }
        }
        let names: BTreeSet<&str> = files.iter().map(|path| path.as_str()).collect();
        for file in &self.files {
            if let Some(folder) = file.path.folders().find(|folder| names.contains(folder)) {
                return Err(InvalidBundle::Path(format!(
                    "path {} leads through {folder}, which is a file",
                    file.path
                )));
            }
        }
        Ok(files)
    }
}
