//! What is built once and kept outside the project.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};
use clap::ValueEnum;

/// The release of gVisor whose shim an older containerd understands, as its Go
/// module has it, and the Go that builds it.
const OLD_GVISOR: (&str, &str) = ("v0.0.0-20240722211153-64c016c92987", "go1.22.5");
const MIRROR: &str = "http://deb.debian.org/debian";
/// What a worker node has beside the minimal system.
const PACKAGES: &str = "systemd,systemd-sysv,dbus,ca-certificates,iproute2,iptables,runc,\
                        containernetworking-plugins,containerd";

/// A generation of containerd.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Generation {
    /// From Debian 12.
    #[value(name = "1.6")]
    V1_6,
    /// From Debian 13.
    #[value(name = "1.7")]
    V1_7,
    /// From Debian unstable.
    #[value(name = "2.1")]
    V2_1,
    /// Built from its Go module.
    #[value(name = "2.4")]
    V2_4,
}

impl Generation {
    pub(crate) const ALL: [Self; 4] = [Self::V1_6, Self::V1_7, Self::V2_1, Self::V2_4];

    /// The version of the configuration that it writes itself.
    pub(crate) fn config(self) -> u8 {
        match self {
            Self::V1_6 | Self::V1_7 => 2,
            Self::V2_1 => 3,
            Self::V2_4 => 4,
        }
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V1_6 => "1.6",
            Self::V1_7 => "1.7",
            Self::V2_1 => "2.1",
            Self::V2_4 => "2.4",
        })
    }
}

/// What this machine lacks.
pub(crate) fn missing() -> Vec<String> {
    let mut missing = Vec::new();
    let uid = Command::new("id").arg("-u").output();
    if !uid.is_ok_and(|output| output.stdout.starts_with(b"0\n")) {
        missing.push("root: nodes are booted in containers of their own".to_owned());
    }
    for (program, package) in [
        ("systemd-nspawn", "systemd-container"),
        ("debootstrap", "debootstrap"),
        ("busybox", "busybox-static"),
        ("nsenter", "util-linux"),
        ("dpkg", "dpkg"),
    ] {
        if find(program).is_none() {
            missing.push(format!("{program}: apt-get install {package}"));
        }
    }
    for part in ["runsc", "containerd-shim-runsc-v1", "containerd"] {
        if !parts().is_some_and(|parts| parts.join(part).exists()) {
            missing.push(format!("{part} in $ROOTSTOCK_PARTS/bin"));
        }
    }
    missing
}

pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.exists())
}

/// Where the parts are that no package has.
pub(crate) fn parts() -> Option<PathBuf> {
    Some(PathBuf::from(std::env::var_os("ROOTSTOCK_PARTS")?).join("bin"))
}

/// The cache, with everything in it.
#[derive(Debug)]
pub(crate) struct Cache {
    folder: PathBuf,
}

impl Cache {
    /// Builds what is missing.
    pub(crate) fn prepare(generations: &[Generation]) -> anyhow::Result<Self> {
        let named = std::env::var_os("ROOTSTOCK_LAB_CACHE").map(PathBuf::from);
        let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache/rootstock-lab"));
        let folder = named.or_else(home).context("neither ROOTSTOCK_LAB_CACHE nor HOME is set")?;
        std::fs::create_dir_all(&folder)?;
        let cache = Self { folder };
        cache.base()?;
        for generation in generations {
            cache.containerd(*generation)?;
        }
        cache.once("images.tar", crate::images::build)?;
        Ok(cache)
    }

    /// The system that every node is made of; nothing writes into it.
    pub(crate) fn base_root(&self) -> PathBuf {
        self.folder.join("base")
    }

    /// The files of a containerd that lie over the base; none for the base's own.
    pub(crate) fn containerd_root(&self, generation: Generation) -> Option<PathBuf> {
        (generation != Generation::V1_6)
            .then(|| self.folder.join(format!("containerd-{generation}")))
    }

    /// The gVisor that works with a containerd; none for the newest one.
    pub(crate) fn gvisor(&self, generation: Generation) -> Option<PathBuf> {
        (generation == Generation::V1_6).then(|| self.folder.join("gvisor-old"))
    }

    /// The images that nodes start pods of.
    pub(crate) fn images(&self) -> PathBuf {
        self.folder.join("images.tar")
    }

    /// Makes something under a temporary name first, so that what is there is whole.
    fn once(
        &self,
        name: &str,
        make: impl FnOnce(&Path) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let (to, temporary) = (self.folder.join(name), self.folder.join(format!("{name}.new")));
        if to.exists() {
            return Ok(());
        }
        eprintln!("lab: making {} (once)", to.display());
        if temporary.is_dir() {
            std::fs::remove_dir_all(&temporary)?;
        }
        make(&temporary).with_context(|| format!("make {}", to.display()))?;
        run(Command::new("mv").arg(&temporary).arg(&to))
    }

    fn base(&self) -> anyhow::Result<()> {
        self.once("base", |to| {
            let include = format!("--include={PACKAGES}");
            run(Command::new("debootstrap")
                .args(["--variant=minbase", &include, "bookworm"])
                .arg(to)
                .arg(MIRROR))
        })
    }

    fn containerd(&self, generation: Generation) -> anyhow::Result<()> {
        let name = format!("containerd-{generation}");
        match generation {
            Generation::V1_6 => self.once("gvisor-old", old_gvisor),
            Generation::V1_7 => self.once(&name, |to| self.package("trixie", to)),
            Generation::V2_1 => self.once(&name, |to| self.package("sid", to)),
            Generation::V2_4 => self.once(&name, |to| {
                let bin = to.join("usr/bin");
                std::fs::create_dir_all(&bin)?;
                let parts = parts().context("ROOTSTOCK_PARTS is not set")?;
                for program in ["containerd", "ctr", "containerd-shim-runc-v2"] {
                    std::fs::copy(parts.join(program), bin.join(program))?;
                }
                Ok(())
            }),
        }
    }

    /// Unpacks the containerd of a suite, without installing it.
    fn package(&self, suite: &str, to: &Path) -> anyhow::Result<()> {
        let apt = self.folder.join(format!("apt-{suite}"));
        for folder in ["state/lists/partial", "cache/archives/partial"] {
            std::fs::create_dir_all(apt.join(folder))?;
        }
        let key = "/usr/share/keyrings/debian-archive-keyring.gpg";
        let list = apt.join("sources.list");
        let mut file = std::fs::File::create(&list)?;
        std::io::Write::write_all(
            &mut file,
            format!("deb [signed-by={key}] {MIRROR} {suite} main\n").as_bytes(),
        )?;
        let options = [
            format!("-oDir::Etc::SourceList={}", list.display()),
            "-oDir::Etc::SourceParts=/dev/null".to_owned(),
            format!("-oDir::State={}", apt.join("state").display()),
            format!("-oDir::Cache={}", apt.join("cache").display()),
        ];
        run(Command::new("apt-get").args(&options).args(["update", "-qq"]))?;
        run(Command::new("apt-get")
            .args(&options)
            .args(["download", "containerd"])
            .current_dir(&apt))?;
        let package = std::fs::read_dir(&apt)?
            .filter_map(Result::ok)
            .map(|entry| entry.path())
            .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
            .context("apt-get download left no package")?;
        run(Command::new("dpkg").arg("-x").arg(package).arg(to))
    }
}

/// Builds gVisor and its shim from their Go module.
fn old_gvisor(to: &Path) -> anyhow::Result<()> {
    let (version, toolchain) = OLD_GVISOR;
    let work = tempfile::tempdir()?;
    crate::images::write(&work.path().join("go.mod"), b"module lab\n\ngo 1.22\n")?;
    let go = || {
        let mut go = Command::new("go");
        go.current_dir(&work).env("CGO_ENABLED", "0").env("GOTOOLCHAIN", toolchain);
        go
    };
    let programs = [("runsc", "runsc"), ("containerd-shim-runsc-v1", "shim")];
    let packages = programs.map(|(_, package)| format!("gvisor.dev/gvisor/{package}"));
    let wanted = packages.iter().map(|package| format!("{package}@{version}"));
    run(go().arg("get").args(wanted)).context("go")?;
    for ((program, _), package) in programs.iter().zip(&packages) {
        let flags = "-s -w -X gvisor.dev/gvisor/runsc/version.version=release-20240722.0";
        let build = ["build", "-buildvcs=false", "-trimpath", "-ldflags", flags, "-o"];
        run(go().args(build).arg(to.join(program)).arg(package))?;
    }
    Ok(())
}

/// Runs a program to its end; its last words are the error.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<()> {
    output(command).map(drop)
}

/// The same with what it printed.
pub(crate) fn output(command: &mut Command) -> anyhow::Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("{command:?}"))?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let tail: Vec<&str> = said.lines().rev().take(5).collect();
        let tail: Vec<&str> = tail.into_iter().rev().collect();
        bail!("{command:?}: {}: {} {}", output.status, tail.join(" | "), stdout.trim());
    }
    Ok(stdout)
}
