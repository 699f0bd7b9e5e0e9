//! `rootstock-playground up` as a person or a script calls it.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rootstock_playground::seed::snapshot::Document;
use rustix::process::{Pid, Signal, kill_process};

fn up() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rootstock-playground"));
    // Samples, whatever this machine has.
    command.arg("up").env_remove("ROOTSTOCK_PARTS").env("PATH", "/usr/bin:/bin");
    command
}

fn run(flags: &[&str]) -> Output {
    up().args(flags).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn bad_flags_are_refused_by_clap() {
    let here = env!("CARGO_MANIFEST_DIR");
    for flags in [
        &["--timeout", "soon"][..],
        &["--output", "yaml"],
        &["--gvisor", "/nonexistent"],
        &["--dir", here],
        &["--nonsense"],
    ] {
        let output = run(flags);
        assert_eq!(output.status.code(), Some(2), "{flags:?}: {output:?}");
        assert!(output.stdout.is_empty(), "{flags:?}");
        assert!(text(&output.stderr).contains("--help"), "{flags:?}: {}", text(&output.stderr));
    }
}

#[test]
fn help_has_examples_and_hides_what_is_not_for_people() {
    let output = run(&["--help"]);
    let help = text(&output.stdout);
    assert!(output.status.success() && help.contains("Examples:"), "{help}");
    let output = Command::new(env!("CARGO_BIN_EXE_rootstock-playground")).arg("--help").output();
    let help = text(&output.unwrap().stdout);
    assert!(help.contains("up") && !help.contains("controller  "), "{help}");
}

#[test]
fn once_prints_one_document_and_keeps_the_nodes() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("world");
    // Other tests may run beside this one.
    let flags = ["--once", "--output", "json", "--timeout", "10m", "--dir", dir.to_str().unwrap()];
    let first = document(&run(&flags));
    assert_eq!(first.container_runtimes.len(), 5);
    assert!(first.container_runtimes.iter().all(|resource| resource.is_healthy()));
    assert_eq!(first.nodes.len(), 7);
    assert!(first.figures.bytes_pulled > 0 && first.figures.agent.peak_memory_bytes > 0);
    let node = &first.nodes[0];
    let runsc = node.root.join("var/bin/containerruntimes/runsc");
    let version = Command::new(&runsc).arg("--version").output().unwrap();
    assert!(version.status.success(), "{runsc:?}: {version:?}");

    // A second world finds its nodes as they were left.
    let second = document(&run(&flags));
    assert_eq!(second.figures.bytes_pulled, 0, "{:#?}", second.figures);
    assert_eq!(second.nodes[0].containerd_restarts, node.containerd_restarts);
}

fn document(output: &Output) -> Document {
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn too_little_time_ends_with_what_is_missing() {
    let output = run(&["--once", "--timeout", "1ms"]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("Not ready") && said.contains("gvisor on shoot--garden--one/a-1"),
        "{said}"
    );
}

#[test]
fn children_end_with_their_parent() {
    for signal in [Signal::KILL, Signal::INT] {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("world");
        let mut parent = up()
            .args(["--dir", dir.to_str().unwrap()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        until("children are there", || !children(&dir, &parent).is_empty());
        let pid = Pid::from_raw(parent.id().cast_signed()).unwrap();
        kill_process(pid, signal).unwrap();
        let ended = parent.wait().unwrap();
        assert!(!ended.success());
        until("no child is left", || children(&dir, &parent).is_empty());
    }
}

/// Programs other than the parent that have a flag with a path in this folder.
fn children(dir: &Path, parent: &Child) -> Vec<u32> {
    let needle = dir.to_str().unwrap().as_bytes();
    let pids = std::fs::read_dir("/proc").unwrap().flatten();
    pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| *pid != parent.id())
        .filter(|pid| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.windows(needle.len()).any(|window| window == needle)
        })
        .collect()
}

/// Looks until it is so; processes of others can't be waited for.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !is_so() {
        assert!(Instant::now() < end, "{what}: not so in time");
        std::thread::sleep(Duration::from_millis(20));
    }
}
