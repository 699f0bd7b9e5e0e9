#![expect(clippy::disallowed_methods, reason = "tests put foreign things in the way")]

use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicUsize, Ordering};

use rootstock_core::layout::TEMP_PREFIX;

use super::*;

fn rootfs() -> (tempfile::TempDir, Rootfs) {
    let root = tempfile::tempdir().unwrap();
    let rootfs = Rootfs::open(root.path(), BinaryRoots::default()).unwrap();
    (root, rootfs)
}

#[test]
fn a_file_is_replaced_as_a_whole() {
    let (root, rootfs) = rootfs();
    let folder = rootfs.make_folder("/etc/containerd").unwrap();
    folder.replace("config.toml", b"one", 0o644).unwrap();
    folder.replace("config.toml", b"two", 0o600).unwrap();
    assert_eq!(std::fs::read(root.path().join("etc/containerd/config.toml")).unwrap(), b"two");
    assert_eq!(folder.entry("config.toml").unwrap(), Some(Entry::File { size: 3, mode: 0o600 }));
    assert_eq!(folder.names().unwrap(), ["config.toml"]);
    assert!(folder.read("config.toml", 2).is_err());
}

#[test]
fn what_is_not_kept_goes_away() {
    let (_root, rootfs) = rootfs();
    let folder = rootfs.make_folder("/etc").unwrap();
    drop(folder.temp_file().unwrap());
    assert!(folder.names().unwrap().is_empty());
    // Left by a process that was killed.
    folder.replace(&format!("{TEMP_PREFIX}1"), b"x", 0o600).unwrap();
    folder.make(&format!("{TEMP_PREFIX}tree")).unwrap();
    folder.replace("theirs", b"x", 0o600).unwrap();
    folder.sweep().unwrap();
    assert_eq!(folder.names().unwrap(), [&*format!("{TEMP_PREFIX}tree"), "theirs"]);
}

#[test]
fn no_link_is_followed() {
    let (root, rootfs) = rootfs();
    let outside = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(root.path().join("var/real")).unwrap();
    symlink(outside.path(), root.path().join("var/bin")).unwrap();
    let path: BinaryPath = "/var/bin/containerruntimes".parse().unwrap();
    let error = rootfs.make_binary_path(&path).unwrap_err();
    assert_eq!(error.reason(), Reason::PathRefused);
    assert!(error.to_string().contains("/var/bin on the node"), "{error}");
    // A link that stays inside is refused too: its owner may turn it round.
    std::fs::remove_file(root.path().join("var/bin")).unwrap();
    symlink("real", root.path().join("var/bin")).unwrap();
    assert_eq!(rootfs.make_binary_path(&path).unwrap_err().reason(), Reason::PathRefused);
    assert!(std::fs::read_dir(outside.path()).unwrap().next().is_none());
    let folder = rootfs.make_folder("/etc").unwrap();
    symlink(outside.path().join("x"), root.path().join("etc/config")).unwrap();
    assert!(folder.read("config", 10).is_err());
    assert!(folder.append("config").is_err());
    assert!(!outside.path().join("x").exists());
}

#[test]
fn a_binary_path_outside_the_list_is_refused() {
    let (_root, rootfs) = rootfs();
    let error = rootfs.make_binary_path(&"/etc/x".parse().unwrap()).unwrap_err();
    assert_eq!(error.reason(), Reason::BinaryPathRefused);
}

#[test]
fn links_are_swapped_and_foreign_files_stay() {
    let (root, rootfs) = rootfs();
    let folder = rootfs.make_binary_path(&"/var/bin/c".parse().unwrap()).unwrap();
    folder.link("runsc", ".rootstock/a").unwrap();
    folder.link("runsc", ".rootstock/b").unwrap();
    assert_eq!(folder.entry("runsc").unwrap(), Some(Entry::Link(".rootstock/b".into())));
    folder.replace("foreign", b"x", 0o755).unwrap();
    assert!(folder.link("foreign", ".rootstock/b").is_err());
    assert_eq!(std::fs::read(root.path().join("var/bin/c/foreign")).unwrap(), b"x");
    assert_eq!(folder.names().unwrap(), ["foreign", "runsc"]);
    assert!(folder.remove("runsc").unwrap());
    assert!(!folder.remove("runsc").unwrap());
}

#[test]
fn names_are_exchanged_and_nothing_is_replaced() {
    let (_root, rootfs) = rootfs();
    let folder = rootfs.make_folder("/etc").unwrap();
    folder.replace("a", b"one", 0o600).unwrap();
    folder.replace("b", b"two", 0o644).unwrap();
    folder.exchange("a", "b").unwrap();
    assert_eq!(folder.read("a", 9).unwrap().unwrap(), b"two");
    assert_eq!(folder.read("b", 9).unwrap().unwrap(), b"one");
    assert!(!folder.rename_new("a", "b").unwrap());
    assert!(folder.rename_new("a", "c").unwrap());
    assert_eq!(folder.names().unwrap(), ["b", "c"]);
    assert_eq!(folder.exchange("b", "none").unwrap_err().reason(), Reason::HostError);
    for name in ["..", "../etc/b", "/etc/b", "."] {
        assert_eq!(folder.exchange("b", name).unwrap_err().reason(), Reason::PathRefused);
        assert_eq!(folder.rename_new(name, "d").unwrap_err().reason(), Reason::PathRefused);
        assert!(folder.append(name).is_err() && folder.remove(name).is_err());
    }
    assert_eq!(folder.read("b", 9).unwrap().unwrap(), b"one");
}

#[test]
fn a_file_with_another_name_is_not_appended_to() {
    let (root, rootfs) = rootfs();
    let folder = rootfs.make_folder("/etc").unwrap();
    folder.replace("theirs", b"x", 0o600).unwrap();
    std::fs::hard_link(root.path().join("etc/theirs"), root.path().join("etc/ours")).unwrap();
    assert_eq!(folder.append("ours").unwrap_err().reason(), Reason::PathRefused);
    // Replacing takes the name alone.
    folder.replace("ours", b"y", 0o600).unwrap();
    assert_eq!(folder.read("theirs", 9).unwrap().unwrap(), b"x");
}

#[test]
fn a_folder_goes_with_all_in_it_and_without_what_its_links_lead_to() {
    let (root, rootfs) = rootfs();
    let folder = rootfs.make_folder("/var").unwrap();
    folder.make("a/b/c").unwrap().replace("file", b"x", 0o600).unwrap();
    folder.make("kept").unwrap().replace("file", b"x", 0o600).unwrap();
    symlink("../../kept", root.path().join("var/a/b/link")).unwrap();
    assert!(folder.remove("a").unwrap());
    assert_eq!(folder.names().unwrap(), ["kept"]);
    assert_eq!(folder.open("kept").unwrap().unwrap().names().unwrap(), ["file"]);
}

/// Lets so many effects pass.
#[derive(Debug)]
struct Budget(AtomicUsize);

impl Watcher for Budget {
    fn before(&self, _: &Effect) -> io::Result<()> {
        let less = |left: usize| left.checked_sub(1);
        let taken = self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less);
        taken.map(drop).map_err(|_| io::Error::from_raw_os_error(Errno::NOSPC.raw_os_error()))
    }

    fn after(&self, _: &Effect) {}
}

#[test]
fn the_gate_stands_before_every_effect() {
    let root = tempfile::tempdir().unwrap();
    let watch = |effects| Arc::new(Budget(AtomicUsize::new(effects)));
    let open = || Rootfs::open(root.path(), BinaryRoots::default()).unwrap();
    // A folder and its parent's sync; then create, write, mode, sync, rename, sync.
    for effects in 0..8 {
        let rootfs = watched(watch(effects), open);
        let done = rootfs.make_folder("/etc").and_then(|etc| etc.replace("a", b"x", 0o600));
        assert_eq!(done.unwrap_err().reason(), Reason::NoSpace, "{effects}");
        assert_eq!(root.path().join("etc").exists(), effects > 0);
        assert_eq!(root.path().join("etc/a").exists(), effects > 6);
        open().root.remove("etc").unwrap();
    }
    let rootfs = Rootfs::open_gated(root.path(), BinaryRoots::default(), watch(8)).unwrap();
    rootfs.make_folder("/etc").unwrap().replace("a", b"x", 0o600).unwrap();
}
