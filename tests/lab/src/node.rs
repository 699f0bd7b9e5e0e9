//! A worker node: systemd as PID 1 of a container, over a base that is never written.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use crate::cache::{Cache, Generation, output, run};
use crate::images::{PAUSE, write};

/// How long a node may take to boot; it takes five seconds.
const BOOT: Duration = Duration::from_secs(60);

/// A booted node; it is stopped and its files are gone when this is dropped.
#[derive(Debug)]
pub(crate) struct Node {
    dir: PathBuf,
    nspawn: Child,
    pid: u32,
    pub(crate) generation: Generation,
}

impl Node {
    /// Boots a node with a containerd of a generation.
    pub(crate) async fn boot(cache: &Cache, generation: Generation) -> anyhow::Result<Self> {
        // Not below /tmp, which is a mount of its own inside the node.
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed()?.as_millis();
        let dir = PathBuf::from(format!("/var/tmp/rootstock-lab-{}-{now}", std::process::id()));
        for folder in ["upper", "work", "root", "containerd"] {
            std::fs::create_dir_all(dir.join(folder))?;
        }
        let mut lower: Vec<String> = Vec::new();
        lower.extend(cache.containerd_root(generation).map(|path| path.display().to_string()));
        lower.push(cache.base_root().display().to_string());
        let options = format!(
            "lowerdir={},upperdir={},workdir={}",
            lower.join(":"),
            dir.join("upper").display(),
            dir.join("work").display()
        );
        let root = dir.join("root");
        run(Command::new("mount").args(["-t", "overlay", "overlay", "-o", &options]).arg(&root))?;
        prepare(&root, generation, &cache.images())?;
        let nspawn = spawn(&dir)?;
        let mut node = Self { dir, nspawn, pid: 0, generation };
        node.until_up().await?;
        node.run(&["ctr", "-n", "k8s.io", "images", "import", "/var/lib/images.tar"])?;
        Ok(node)
    }

    /// Ends everything on the node where it stands, and boots it again.
    pub(crate) async fn reboot(&mut self) -> anyhow::Result<()> {
        self.end();
        self.pid = 0;
        self.nspawn = spawn(&self.dir)?;
        self.until_up().await
    }

    /// Waits until systemd has started containerd.
    async fn until_up(&mut self) -> anyhow::Result<()> {
        let until = Instant::now() + BOOT;
        while Instant::now() < until {
            if self.pid == 0 {
                self.pid = self.first_process().unwrap_or_default();
            } else if self.run(&["systemctl", "is-active", "--quiet", "containerd"]).is_ok() {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let console = std::fs::read_to_string(self.dir.join("console")).unwrap_or_default();
        let tail: Vec<&str> = console.lines().rev().take(5).collect();
        let unit = self.run(&["journalctl", "-u", "containerd", "-n", "5", "-o", "cat"]);
        bail!("the node does not boot: {} | {unit:?}", tail.join(" | "))
    }

    fn end(&mut self) {
        // What runs in the container ends with its first process, and not with nspawn.
        if self.pid > 1 {
            let _ = run(Command::new("kill").args(["-9", &self.pid.to_string()]));
        }
        let _ = self.nspawn.kill();
        let _ = self.nspawn.wait();
    }

    /// The container's PID 1 is nspawn's only child.
    fn first_process(&self) -> Option<u32> {
        let id = self.nspawn.id();
        let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).ok()?;
        children.split_whitespace().next()?.parse().ok()
    }

    /// A command inside the node. The network is the machine's own, where the registry is.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.pid.to_string(), "-m", "-u", "-i", "-p", "-C", "-U"]);
        command.args(["--preserve-credentials", "--"]).args(arguments);
        command
    }

    /// Runs a command inside the node to its end; what it printed.
    pub(crate) fn run(&self, arguments: &[&str]) -> anyhow::Result<String> {
        output(&mut self.command(arguments))
    }

    /// A file of the node, from outside.
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.pid))
    }

    /// containerd's configuration as it is now.
    pub(crate) fn config(&self) -> anyhow::Result<String> {
        std::fs::read_to_string(self.path("/etc/containerd/config.toml")).context("config.toml")
    }

    /// Which start of containerd this is.
    pub(crate) fn start(&self) -> anyhow::Result<String> {
        self.run(&["systemctl", "show", "-p", "InvocationID", "--value", "containerd"])
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.end();
        let root = self.dir.join("root");
        let _ = run(Command::new("umount").arg("--lazy").arg(&root));
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn spawn(dir: &Path) -> anyhow::Result<Child> {
    let log = std::fs::File::options().append(true).create(true).open(dir.join("console"))?;
    let name = dir.file_name().context("a node's folder has a name")?.to_string_lossy();
    Command::new("systemd-nspawn")
        .args(["--quiet", "--register=no", "--keep-unit", "--boot", "--private-network"])
        .args(["--private-users=identity", "--capability=all", "--bind=/dev/fuse"])
        .args(["--system-call-filter=@keyring bpf add_key keyctl"])
        .arg(format!("--machine={}", name.trim_start_matches("rootstock-")))
        // Images are overlays too, and those can't lie on an overlay.
        .arg(format!("--bind={}:/var/lib/containerd", dir.join("containerd").display()))
        .arg("--directory")
        .arg(dir.join("root"))
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("systemd-nspawn")
}

/// What a node has that no package brings.
fn prepare(root: &Path, generation: Generation, images: &Path) -> anyhow::Result<()> {
    for folder in [
        "etc/cni/net.d",
        "opt/cni",
        "etc/containerd",
        "etc/systemd/system/containerd.service.d",
        "var/bin/containerruntimes",
        "var/lib/rootstock",
    ] {
        std::fs::create_dir_all(root.join(folder))?;
    }
    // Where the newest containerd looks, whatever an older key says.
    std::os::unix::fs::symlink("/usr/lib/cni", root.join("opt/cni/bin"))?;
    std::fs::copy(images, root.join("var/lib/images.tar"))?;
    let network = br#"{"cniVersion":"0.4.0","name":"lab","plugins":[{"type":"bridge","bridge":"cni0",
"isGateway":true,"ipMasq":false,"ipam":{"type":"host-local","ranges":[[{"subnet":"10.88.0.0/24"}]]}}]}"#;
    write(&root.join("etc/cni/net.d/10-lab.conflist"), network)?;
    // As gardener-node-agent has it; and a node in a container loads no modules
    // and may not make its processes safer from the kernel than they are.
    let unit = b"[Service]\nExecStartPre=\nOOMScoreAdjust=0\n\
                 Environment=PATH=/var/bin/containerruntimes:/usr/sbin:/usr/bin:/sbin:/bin\n";
    write(&root.join("etc/systemd/system/containerd.service.d/lab.conf"), unit)?;
    write(&root.join("etc/containerd/config.toml"), config(generation).as_bytes())
}

/// A configuration with keys of others in it.
fn config(generation: Generation) -> String {
    let version = generation.config();
    let (cri, image) = match version {
        2 => ("io.containerd.grpc.v1.cri", format!("  sandbox_image = \"{PAUSE}\"\n")),
        _ => ("io.containerd.cri.v1.runtime", String::new()),
    };
    let pinned = match version {
        2 => String::new(),
        _ => format!(
            "[plugins.'io.containerd.cri.v1.images'.pinned_images]\n  sandbox = \"{PAUSE}\"\n"
        ),
    };
    format!(
        "# someone's comment\nversion = {version}\n\n[metrics]\n  address = \"127.0.0.1:1338\"\n\n\
         [plugins.'{cri}']\n{image}  max_container_log_line_size = 32768\n  restrict_oom_score_adj = true\n\n\
         [plugins.'{cri}'.containerd.runtimes.runc]\n  runtime_type = \"io.containerd.runc.v2\"\n\n\
         [plugins.'{cri}'.cni]\n  bin_dir = \"/usr/lib/cni\"\n  conf_dir = \"/etc/cni/net.d\"\n{pinned}"
    )
}
