//! The agent as nodes run it, with a controller and nothing to do.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rootstock_controller::content::Offered;
use rootstock_core::desired::{DesiredContent, Generation};
use tokio::time::{sleep, timeout};

use crate::controller::{HOST, Server, World, token};

/// How long the agent may take to be connected and to have nothing to do.
const LIMIT: Duration = Duration::from_secs(60);
/// How long it is then left alone.
const SETTLE: Duration = Duration::from_secs(5);

/// Its memory and its size.
#[tokio::main(flavor = "current_thread")]
pub(crate) async fn measure(dir: &Path) {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let program = build();
    let world = World::new();
    let server = Server::start(&world, 0).await;
    let (root, log) = (dir.join("root"), dir.join("agent.log"));
    std::fs::create_dir_all(&root).unwrap();
    std::fs::write(dir.join("ca.crt"), &world.ca).unwrap();
    std::fs::write(dir.join("token"), token()).unwrap();
    let mut child = tokio::process::Command::new(&program)
        .args(["run", "--endpoint", &format!("https://{HOST}:{}", server.port), "--host-root"])
        .arg(&root)
        .arg("--ca-file")
        .arg(dir.join("ca.crt"))
        .arg("--token-file")
        .arg(dir.join("token"))
        .stderr(std::fs::File::create(&log).unwrap())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut seen = world.seen.subscribe();
    let content = Arc::new(DesiredContent::default().into());
    let nothing = Offered { generation: Generation(1), content, slot: None };
    world.desired.send_replace(Some(nothing));
    if timeout(LIMIT, seen.wait_for(|seen| seen.accepted == [1])).await.is_err() {
        panic!("the agent is not connected: {}", std::fs::read_to_string(&log).unwrap());
    }
    sleep(SETTLE).await;
    let status = format!("/proc/{}/status", child.id().expect("it runs"));
    let status = std::fs::read_to_string(status).unwrap();
    let line = |name: &str| {
        let found = status.lines().find_map(|text| text.strip_prefix(name)).unwrap();
        found.trim().trim_end_matches(" kB").parse::<f64>().unwrap() * 1024.0 / 1e6
    };
    let [rss, own, file] = ["VmRSS:", "RssAnon:", "RssFile:"].map(line);
    assert_eq!(world.seen.borrow().disconnects, 0, "it is connected still");
    child.kill().await.unwrap();
    server.stop().await;
    eprintln!("memory of a connected agent: {own:.2} MB its own, {file:.2} MB of its program");
    println!("figure agent_idle_rss {rss:.3} MB goal <= 4");
    let size = std::fs::metadata(&program).unwrap().len() as f64 / 1e6;
    println!("figure agent_binary {size:.3} MB goal <= 5");
}

/// Builds the static program, and says where it is.
fn build() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("a folder of targets");
    eprintln!("building the agent as nodes run it; a first build takes minutes");
    let built = Command::new(env!("CARGO"))
        .args(["--quiet", "static-agent"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("CARGO_TARGET_DIR", target)
        .status()
        .expect("cargo runs");
    assert!(built.success(), "the agent is not built");
    target.join("agent/rootstock-agent")
}
