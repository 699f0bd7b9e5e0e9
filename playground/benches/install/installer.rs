//! An agent that does nothing but fetch one file when it is told to.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;

use rootstock_agent::fetch::{Fetcher, Partial, Shared, Wanted};
use rootstock_agent::pull::Pulls;
use rootstock_agent::rootfs::Rootfs;
use rootstock_core::desired::Registry;
use rootstock_core::digest::Digest;
use rootstock_core::path::BinaryRoots;

pub(crate) struct Installer {
    child: Child,
    says: BufReader<ChildStdout>,
}

/// What is installed, as the process is told it.
pub(crate) fn arguments(blob: Digest, blob_size: usize, plain: Digest, size: usize) -> Vec<String> {
    vec![blob.to_string(), blob_size.to_string(), plain.to_string(), size.to_string()]
}

impl Installer {
    pub(crate) fn start(url: &str, wanted: &[String], root: &Path) -> Self {
        std::fs::create_dir_all(root).unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["install", url])
            .arg(root)
            .args(wanted)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut says = BufReader::new(child.stdout.take().unwrap());
        let mut ready = String::new();
        says.read_line(&mut ready).unwrap();
        Self { child, says }
    }

    pub(crate) fn go(&mut self) {
        self.child.stdin.take().unwrap().write_all(b"\n").unwrap();
    }

    /// Waits for it; the CPU seconds that it took.
    pub(crate) fn done(&mut self) -> f64 {
        let mut cpu = String::new();
        self.says.read_line(&mut cpu).unwrap();
        self.child.wait().unwrap();
        cpu.trim().parse().expect("the installation succeeded")
    }
}

pub(crate) fn run(args: &[String]) {
    let [url, root, blob, blob_size, plain, plain_size] = args else { panic!("{args:?}") };
    let wanted = Wanted {
        blob: blob.parse().unwrap(),
        blob_size: blob_size.parse().unwrap(),
        plain: plain.parse().unwrap(),
        plain_size: plain_size.parse().unwrap(),
        name: "runsc".to_owned(),
        mode: 0o755,
    };
    let registry = Registry {
        name: "bench".to_owned(),
        url: url.clone(),
        mirrors: vec![],
        ca_bundle: String::new(),
        credential: None,
    };
    let rootfs = Rootfs::open(Path::new(root), BinaryRoots::default()).unwrap();
    let into = Arc::new(rootfs.make_folder("/into").unwrap());
    let folder = Arc::new(rootfs.make_folder("/partial").unwrap());
    let partial = Partial { folder, limit: 1 << 30, shared: Shared::new(Pulls::unbounded()) };
    let mut fetcher = Fetcher::new(&registry, "bench", partial).unwrap();
    // The agent's own kind of runtime.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    println!("ready");
    std::io::stdin().read_line(&mut String::new()).unwrap();
    let before = cpu();
    runtime.block_on(fetcher.fetch(&wanted, &into, &|_| ())).unwrap();
    println!("{}", cpu() - before);
}

/// CPU seconds of all threads. None has ended: tokio keeps them for a while.
fn cpu() -> f64 {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let spent = tasks.map(|task| {
        let text = std::fs::read_to_string(task.unwrap().path().join("schedstat")).unwrap();
        text.split(' ').next().unwrap().parse::<f64>().unwrap()
    });
    spent.sum::<f64>() / 1e9
}
