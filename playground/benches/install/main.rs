//! What an installation costs a node: throughput, CPU, memory, the program's size.
//!
//! Installing a zstd blob (both digests checked, fsynced, renamed) is held
//! against `curl -s URL | openssl dgst -sha256` of the same plain file, which
//! stores nothing. One server of its own process serves both sides, and they
//! take turns, so that a busy machine slows both. The file is the real
//! `$ROOTSTOCK_PARTS/bin/runsc`; without it, bytes that compress like a
//! program's are made.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]
#![allow(clippy::disallowed_methods, reason = "nothing here is a node")]

#[path = "../../../tests/it/agent_link/controller.rs"]
#[expect(dead_code, reason = "a test looks at all that an agent says")]
mod controller;
mod idle;
mod installer;
mod serve;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use rootstock_core::digest::Digest;

use installer::Installer;

/// Turns of each side; the fastest is what the machine can do, the median what it does.
const TURNS: usize = 7;
/// So many nodes at once.
const MANY: usize = 8;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.first().map(String::as_str) {
        Some("serve") => serve::run(Path::new(&args[1])),
        Some("install") => installer::run(&args[1..]),
        _ => measure(),
    }
}

fn measure() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let plain = plain();
    let blob = zstd::encode_all(&plain[..], 3).unwrap();
    let (plain_digest, blob_digest) = (Digest::of(&plain), Digest::of(&blob));
    let mb = plain.len() as f64 / 1e6;
    eprintln!("{mb:.1} MB plain, {:.1} MB as a blob", blob.len() as f64 / 1e6);
    std::fs::create_dir_all(dir.path().join("v2/bench/blobs")).unwrap();
    std::fs::write(dir.path().join("plain"), &plain).unwrap();
    std::fs::write(dir.path().join("empty"), b"").unwrap();
    std::fs::write(dir.path().join(format!("v2/bench/blobs/{blob_digest}")), &blob).unwrap();
    let wanted = installer::arguments(blob_digest, blob.len(), plain_digest, plain.len());
    let expected = plain_digest.hex();
    drop((plain, blob));

    let mut server = serve::start(dir.path());
    let url = format!("{}/plain", server.url);
    let curl = |count| hashed(&url, count, &expected);
    let bare: Vec<f64> =
        (0..TURNS).map(|_| shell(&format!("curl -s {url} -o /dev/null"))).collect();
    eprintln!("the server alone: {:.0} MB/s", mb / min(&bare));
    let empty = format!("curl -s {}/empty | openssl dgst -sha256", server.url);
    let empty: Vec<f64> = (0..TURNS).map(|_| shell(&empty)).collect();
    eprintln!("curl | openssl of no byte: {:.0} ms", min(&empty) * 1e3);

    for (name, count, goal) in [("install_ratio", 1, 1.15), ("install_ratio_8", MANY, 1.0)] {
        let (mut ours, mut theirs, mut cpu) = (Vec::new(), Vec::new(), Vec::new());
        for turn in 0..TURNS {
            theirs.push(curl(count));
            let node = dir.path().join(format!("node-{count}-{turn}"));
            let (time, spent) = installed(&server.url, &wanted, &node, count);
            ours.push(time);
            cpu.push(spent / count as f64);
            std::fs::remove_dir_all(&node).unwrap();
        }
        let total = mb * count as f64;
        let rate = |times: &[f64]| (total / min(times), total / median(times));
        let ((ours_best, ours_mid), (best, mid)) = (rate(&ours), rate(&theirs));
        eprintln!(
            "{count} at once: {ours_best:.0} MB/s installed, {best:.0} MB/s hashed by curl | openssl"
        );
        eprintln!("  medians: {ours_mid:.0} and {mid:.0} MB/s, ratio {:.2}", ours_mid / mid);
        println!("figure {name} {:.3} x goal >= {goal}", ours_best / best);
        if count == 1 {
            // The goal: hashing the plain bytes (0.6 s), zstd (0.9 s), copying to the
            // disk's cache (0.4 s), hashing the blob and the rest (0.6 s).
            println!("figure install_cpu_per_gb {:.3} s goal <= 2.5", median(&cpu) / mb * 1e3);
        }
    }
    server.child.kill().unwrap();
    server.child.wait().unwrap();
    idle::measure(dir.path());
}

/// The file that is installed.
fn plain() -> Vec<u8> {
    let runsc = std::env::var_os("ROOTSTOCK_PARTS").map(|it| Path::new(&it).join("bin/runsc"));
    if let Some(runsc) = runsc.filter(|runsc| runsc.exists()) {
        eprintln!("{} is installed", runsc.display());
        return std::fs::read(&runsc).expect("it can be read");
    }
    eprintln!(
        "bytes that compress as a program's are installed: $ROOTSTOCK_PARTS/bin has no runsc"
    );
    // Words of which a third is new: zstd makes a third of it, as of a program.
    let mut state = 1u64;
    let mut bytes = Vec::with_capacity(80 << 20);
    while bytes.len() < 80 << 20 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        bytes.extend_from_slice(&state.to_be_bytes()[..4]);
        bytes.extend_from_slice(b"\x48\x8b\x05\x00\x00\x00\xe8\x00");
    }
    bytes
}

fn shell(line: &str) -> f64 {
    let begun = Instant::now();
    let output = Command::new("sh").args(["-c", line]).output().unwrap();
    assert!(output.status.success(), "{line}");
    begun.elapsed().as_secs_f64()
}

/// Seconds that so many `curl | openssl` take side by side.
fn hashed(url: &str, count: usize, expected: &str) -> f64 {
    let line = format!("curl -s {url} | openssl dgst -sha256");
    let begun = Instant::now();
    let run = |_| {
        let mut command = Command::new("sh");
        command.args(["-c", &line]).stdout(Stdio::piped()).spawn().unwrap()
    };
    let all: Vec<Child> = (0..count).map(run).collect();
    for child in all {
        let output = child.wait_with_output().unwrap();
        assert!(String::from_utf8_lossy(&output.stdout).trim().ends_with(expected));
    }
    begun.elapsed().as_secs_f64()
}

/// Seconds that so many agents take side by side, and their CPU seconds. An
/// agent runs already when it is told to install, so its start is not in it.
fn installed(url: &str, wanted: &[String], node: &Path, count: usize) -> (f64, f64) {
    let start = |number| Installer::start(url, wanted, &node.join(format!("{number}")));
    let mut all: Vec<Installer> = (0..count).map(start).collect();
    let begun = Instant::now();
    all.iter_mut().for_each(Installer::go);
    let cpu = all.iter_mut().map(Installer::done).sum();
    (begun.elapsed().as_secs_f64(), cpu)
}

fn min(times: &[f64]) -> f64 {
    times.iter().copied().fold(f64::INFINITY, f64::min)
}

fn median(times: &[f64]) -> f64 {
    let mut times = times.to_vec();
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
