//! A network of its own, and a second one that can be cut off, by Linux'
//! network namespaces.
//!
//! ```text
//!  this process' threads                │ those of `Elsewhere`
//!  lo, packets of 1,500 bytes   rs-near ═ veth ═ rs-far
//! ```
//!
//! A loopback's own packets are 64 KiB, all that a receive buffer holds that is
//! kept small: connections stall there, as they do between no two machines.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::runtime::{Builder, Handle, Runtime};

/// Says to a process that its network is its own.
const OWN: &str = "ROOTSTOCK_OWN_NETWORK";
/// Of this process and of what is elsewhere; nobody else is in these networks.
pub(crate) const NEAR: Ipv4Addr = Ipv4Addr::new(10, 231, 0, 1);
const FAR: Ipv4Addr = Ipv4Addr::new(10, 231, 0, 2);
/// Nobody has it.
const NOBODY: &str = "02:00:00:00:00:00";

/// Goes on in a network of its own, where that may be made. Whether this is in one.
pub(crate) fn enter() -> bool {
    if std::env::var_os(OWN).is_some() {
        return true;
    }
    let up = "ip link set lo mtu 1500 up";
    let unshare = |script: &str| {
        let mut unshare = Command::new("unshare");
        unshare.args(["--net", "--", "sh", "-c", script]);
        unshare
    };
    let tried = unshare(up).stdin(Stdio::null()).stderr(Stdio::null()).status();
    if !tried.is_ok_and(|status| status.success()) {
        eprintln!("no network of its own, which root could make: over the machine's loopback");
        return false;
    }
    let mut again = unshare(&format!("{up} && exec \"$0\" \"$@\""));
    again.arg(std::env::current_exe().unwrap()).args(std::env::args_os().skip(1));
    panic!("{}", again.env(OWN, "1").exec());
}

/// Threads in another network, which leads here.
#[derive(Debug)]
pub(crate) struct Elsewhere {
    runtime: Option<Runtime>,
    /// Keeps the network there, and ends with this process.
    keeper: Child,
}

impl Elsewhere {
    pub(crate) fn start() -> Self {
        let mut keeper = Command::new("unshare");
        // It waits for an end of its input that comes with ours.
        keeper.args(["--net", "cat"]).stdin(Stdio::piped()).stdout(Stdio::null());
        let keeper = keeper.spawn().unwrap();
        let network = format!("/proc/{}/ns/net", keeper.id());
        let of = |path: &str| std::fs::read_link(path).unwrap();
        let (own, limit) = (of("/proc/self/ns/net"), Instant::now() + Duration::from_secs(10));
        while of(&network) == own {
            assert!(Instant::now() < limit, "no second network");
            std::thread::sleep(Duration::from_millis(1));
        }
        let file = std::fs::File::open(&network).unwrap();
        let enter = move || -> io::Result<()> {
            Ok(move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?)
        };
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .max_blocking_threads(1024)
            .on_thread_start(move || enter().expect("root may enter any network"))
            .enable_all()
            .build()
            .unwrap();
        let elsewhere = Self { runtime: Some(runtime), keeper };
        let pid = elsewhere.keeper.id();
        ip(&format!("link add rs-near type veth peer name rs-far netns {pid}"));
        ip(&format!("addr add {NEAR}/30 dev rs-near"));
        ip("link set rs-near up");
        elsewhere.ip(&format!("addr add {FAR}/30 dev rs-far"));
        elsewhere.ip("link set rs-far up");
        elsewhere
    }

    /// What runs there.
    pub(crate) fn handle(&self) -> &Handle {
        self.runtime.as_ref().unwrap().handle()
    }

    /// Cuts the way between the networks, or mends it. Packets go to an address
    /// that nobody has, so that each side hears nothing at all of the other.
    pub(crate) fn cut(&self, cut: bool) {
        let words = |other: Ipv4Addr, device: &str| match cut {
            true => format!("neigh replace {other} lladdr {NOBODY} nud permanent dev {device}"),
            false => format!("neigh del {other} dev {device}"),
        };
        ip(&words(FAR, "rs-near"));
        self.ip(&words(NEAR, "rs-far"));
    }

    fn ip(&self, words: &str) {
        let network = format!("--net=/proc/{}/ns/net", self.keeper.id());
        run(Command::new("nsenter").args([&network, "ip"]).args(words.split(' ')));
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
        // It may have ended by itself.
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
    }
}

fn ip(words: &str) {
    run(Command::new("ip").args(words.split(' ')));
}

fn run(command: &mut Command) {
    let status = command.status().unwrap();
    assert!(status.success(), "{command:?}: {status}");
}
