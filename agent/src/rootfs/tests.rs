#![expect(clippy::disallowed_methods, reason = "tests put foreign things in the way")]

use std::os::unix::fs::symlink;

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
