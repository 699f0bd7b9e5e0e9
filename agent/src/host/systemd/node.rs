//! The node's kernel: what kind it is, and whether it has what a bundle needs.
//!
//! `/proc` and `/sys` of the agent's container show the node's own kernel;
//! devices and module lists are the node's files.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

use rootstock_core::bundle::Need;
use rustix::io::Errno;

use crate::host::{Facts, HostError};

const KERNEL: &str = "/proc/sys/kernel/osrelease";
const BOOT: &str = "/proc/sys/kernel/random/boot_id";

/// What kind of node this is. Blocking.
pub(super) fn facts() -> Result<Facts, HostError> {
    let read = |path: &str| match fs::read_to_string(path) {
        Ok(text) => Ok(text.trim().to_owned()),
        Err(error) => Err(unreadable(path, error)),
    };
    // What a process is in tells what the kernel has mounted; a container's
    // own mounts need not show it.
    let cgroups = cgroups(&read("/proc/self/cgroup")?).to_owned();
    Ok(Facts { kernel: read(KERNEL)?, boot: read(BOOT)?, cgroups })
}

/// Why the node does not have what is needed; none where it has it. Blocking.
pub(super) fn unmet(host_root: &Path, need: &Need) -> Result<Option<String>, HostError> {
    match need {
        Need::Device(path) => device(host_root, path),
        Need::Module(name) => module(host_root, Path::new("/"), name),
    }
}

fn unreadable(path: &str, source: io::Error) -> HostError {
    HostError::Unavailable { what: format!("read {path} on the node"), source: source.into() }
}

/// How control groups are mounted, from `/proc/self/cgroup`: one line for each
/// hierarchy, that of version 2 without a name.
fn cgroups(lines: &str) -> &'static str {
    let named = |line: &str| line.split(':').nth(1).is_some_and(|name| !name.is_empty());
    let v1 = lines.lines().any(named);
    let v2 = lines.lines().any(|line| line.starts_with("0::"));
    match (v1, v2) {
        (true, true) => "hybrid",
        (true, false) => "v1",
        (false, _) => "v2",
    }
}

fn device(host_root: &Path, path: &str) -> Result<Option<String>, HostError> {
    let missing = || Some(format!("the node has no device {path}"));
    let below = Path::new(path).strip_prefix("/dev").ok();
    let plain = |below: &&Path| {
        below.components().all(|part| matches!(part, std::path::Component::Normal(_)))
    };
    let Some(below) = below.filter(plain) else {
        return Ok(Some(format!("the bundle needs {path}, which is no path below /dev")));
    };
    let dev = host_root.join("dev");
    // Every node has it: without it, these are not the node's devices.
    if let Err(error) = fs::symlink_metadata(dev.join("null")) {
        return Err(unreadable("/dev", error));
    }
    let at = dev.join(below);
    match fs::symlink_metadata(&at) {
        Ok(meta) if meta.file_type().is_char_device() || meta.file_type().is_block_device() => {}
        Ok(_) => return Ok(Some(format!("{path} on the node is no device"))),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(missing()),
        Err(error) => return Err(unreadable(path, error)),
    }
    // Others do something when they are opened. This one tells whether there
    // is a driver behind it; whether it takes a virtual machine only a proof tells.
    if path == "/dev/kvm"
        && let Err(error) = fs::File::open(&at)
        && let Some(Errno::NODEV | Errno::NXIO) = Errno::from_io_error(&error)
    {
        return Ok(Some(format!("{path} on the node has no driver: {error}")));
    }
    Ok(None)
}

/// `root` is that of the kernel's own file systems.
fn module(host_root: &Path, root: &Path, name: &str) -> Result<Option<String>, HostError> {
    let wanted = normal(name);
    if wanted.is_empty() || !wanted.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    {
        return Ok(Some(format!(
            "the bundle needs kernel module {name:?}, which is no module's name"
        )));
    }
    if root.join("sys/module").join(&wanted).exists() {
        return Ok(None);
    }
    // A kernel without modules has no such file.
    let loaded = read(&root.join("proc/modules"))?.unwrap_or_default();
    if loaded.lines().any(|line| line.split(' ').next().map(normal) == Some(wanted.clone())) {
        return Ok(None);
    }
    let release = read(&root.join("proc/sys/kernel/osrelease"))?.unwrap_or_default();
    let list = builtin_list(host_root, release.trim());
    match read(&list)? {
        Some(built_in) if is_built_in(&built_in, &wanted) => Ok(None),
        Some(_) => Ok(Some(format!(
            "kernel module {name} is neither loaded nor built into the node's kernel: load it at boot"
        ))),
        // What is built in and has no parameters shows nowhere else.
        None => {
            tracing::debug!(module = name, list = %list.display(), "can't tell whether it is built in");
            Ok(None)
        }
    }
}

fn builtin_list(host_root: &Path, release: &str) -> PathBuf {
    host_root.join("lib/modules").join(release).join("modules.builtin")
}

/// A list of lines as `kernel/drivers/vhost/vhost_vsock.ko`.
fn is_built_in(list: &str, wanted: &str) -> bool {
    let stem = |line: &str| {
        let file = line.trim().rsplit('/').next().unwrap_or_default();
        normal(file.strip_suffix(".ko").unwrap_or(file))
    };
    list.lines().any(|line| stem(line) == wanted)
}

/// The kernel takes `-` and `_` in a module's name for the same.
fn normal(name: &str) -> String {
    name.replace('-', "_")
}

fn read(path: &Path) -> Result<Option<String>, HostError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unreadable(&path.display().to_string(), error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_groups_are_told_by_what_a_process_is_in() {
        let table = [
            ("0::/kubepods.slice/x", "v2"),
            ("2:cpu,cpuacct:/x\n1:name=systemd:/x\n0::/x", "hybrid"),
            ("2:cpu,cpuacct:/x\n1:name=systemd:/x", "v1"),
        ];
        for (lines, want) in table {
            assert_eq!(cgroups(lines), want, "{lines}");
        }
        let facts = facts().unwrap();
        assert_eq!(facts.boot.len(), 36);
        assert!(!facts.kernel.is_empty());
    }

    #[test]
    fn a_device_is_one_of_the_node_s() {
        let root = tempfile::tempdir().unwrap();
        let need = |path: &str| unmet(root.path(), &Need::Device(path.to_owned()));
        let error = need("/dev/kvm").unwrap_err().to_string();
        assert_eq!(error, "read /dev on the node");
        fs::create_dir_all(root.path().join("dev/net")).unwrap();
        fs::File::create(root.path().join("dev/null")).unwrap();
        assert!(need("/dev/kvm").unwrap().unwrap().contains("no device /dev/kvm"));
        assert!(need("/dev/net").unwrap().unwrap().contains("is no device"));
        for outside in ["/dev/../etc", "/etc/passwd", "kvm"] {
            assert!(need(outside).unwrap().unwrap().contains("no path below /dev"), "{outside}");
        }
        assert_eq!(unmet(Path::new("/"), &Need::Device("/dev/null".to_owned())).unwrap(), None);
    }

    #[test]
    fn a_module_is_loaded_or_built_in() {
        let host = tempfile::tempdir().unwrap();
        let root = tempfile::tempdir().unwrap();
        let put = |base: &tempfile::TempDir, path: &str, text: &str| {
            let at = base.path().join(path);
            fs::create_dir_all(at.parent().unwrap()).unwrap();
            std::io::Write::write_all(&mut fs::File::create(at).unwrap(), text.as_bytes()).unwrap();
        };
        put(&root, "proc/modules", "vhost_vsock 28672 0 - Live 0x0\nvhost 1 1 vhost_vsock\n");
        put(&root, "proc/sys/kernel/osrelease", "6.1.0\n");
        put(&root, "sys/module/kvm_intel/x", "");
        let missing = |name: &str| module(host.path(), root.path(), name).unwrap();
        assert_eq!(missing("vhost-vsock"), None);
        assert_eq!(missing("kvm-intel"), None);
        assert_eq!(missing("tun"), None, "what can't be told is no obstacle");
        put(&host, "lib/modules/6.1.0/modules.builtin", "kernel/net/veth-pair.ko\n");
        assert_eq!(missing("veth_pair"), None);
        assert!(missing("tun").unwrap().contains("module tun is neither loaded nor built"));
        assert!(missing("../x").unwrap().contains("no module's name"));
    }
}
