//! What is on a node's disk, read from outside.

use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// One file of a bundle.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct File {
    /// Its path in the bundle.
    pub path: String,
    /// Its bytes.
    pub size: u64,
    /// Their SHA-256, in hex.
    pub sha256: String,
}

/// A bundle's folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bundle {
    /// The runtime type.
    pub runtime: String,
    /// The bundle's digest.
    pub digest: String,
    /// Its files, by path.
    pub files: Vec<File>,
}

/// The bundles below `<root>/<binary path>`; none if there is no such folder.
pub fn bundles(root: &Path, binary_path: &str) -> Vec<Bundle> {
    let home = root.join(binary_path.trim_start_matches('/')).join(".rootstock");
    let mut bundles = Vec::new();
    for runtime in names(&home) {
        for folder in names(&home.join(&runtime)) {
            // A folder of rendered configuration has a second hash behind a dash,
            // a temporary one is not a digest at all.
            let hex = folder.strip_prefix("sha256:").unwrap_or(&folder);
            if hex.len() != 64 || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                continue;
            }
            let path = home.join(&runtime).join(&folder);
            let digest = format!("sha256:{hex}");
            bundles.push(Bundle { runtime: runtime.clone(), digest, files: files(&path) });
        }
    }
    bundles
}

/// All regular files below a folder, by path; what can't be read is left out.
pub fn files(folder: &Path) -> Vec<File> {
    let mut files = Vec::new();
    collect(folder, "", &mut files);
    files.sort();
    files
}

fn collect(folder: &Path, prefix: &str, files: &mut Vec<File>) {
    for name in names(folder) {
        let path = folder.join(&name);
        let Ok(metadata) = path.symlink_metadata() else { continue };
        if metadata.is_dir() {
            collect(&path, &format!("{prefix}{name}/"), files);
        } else if metadata.is_file()
            && let Ok(sha256) = sha256(&path)
        {
            files.push(File { path: format!("{prefix}{name}"), size: metadata.len(), sha256 });
        }
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<_> =
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}

/// The SHA-256 of a file, in hex.
///
/// # Errors
/// The file can't be read.
pub fn sha256(path: &Path) -> io::Result<String> {
    let mut file = fs::File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match io::Read::read(&mut file, &mut buffer)? {
            0 => break,
            read => hasher.update(&buffer[..read]),
        }
    }
    Ok(rootstock_core::digest::Digest::from_bytes(hasher.finalize().into()).hex())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "the test's own folder")]
    fn a_bundles_folder_is_told_from_others() {
        let root = tempfile::tempdir().unwrap();
        let hex = "a".repeat(64);
        let home = root.path().join("var/bin/.rootstock/gvisor");
        for folder in [format!("{hex}/lib"), format!("{hex}-{hex}"), ".tmp-x".to_owned()] {
            fs::create_dir_all(home.join(&folder)).unwrap();
            fs::write(home.join(folder).join("f"), "").unwrap();
        }
        let [bundle] = bundles(root.path(), "/var/bin").try_into().unwrap();
        assert_eq!(bundle.digest, format!("sha256:{hex}"));
        let [file] = bundle.files.try_into().unwrap();
        assert_eq!((file.path.as_str(), file.size), ("lib/f", 0));
        assert!(file.sha256.starts_with("e3b0c442"));
        assert!(bundles(root.path(), "/nowhere").is_empty());
    }
}
