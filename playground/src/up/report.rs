//! What `up` prints when it is done. The only place that writes to standard output.

use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use super::args::UpArgs;
use super::dir::StateDir;
use super::progress::say;
use super::step::Mebibytes;
use super::tables;
use crate::seed::processes::Usage;
use crate::seed::snapshot::Document;

/// Prints the document and nothing else.
pub(super) fn json(document: &Document) -> io::Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, document)?;
    writeln!(out)
}

/// Prints tables, what to try next, and the figures.
pub(super) fn text(
    document: &Document,
    missing: &[(String, String)],
    args: &UpArgs,
    dir: &StateDir,
) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "\n{}\n", tables::container_runtimes(document))?;
    writeln!(out, "{}\n", tables::nodes(document))?;
    if !args.once || dir.is_kept() {
        try_next(&mut out, document, &dir.path().join("logs"), args.once)?;
    }
    figures(&mut out, document, missing.is_empty())
}

/// Says on standard error what is missing.
pub(super) fn missing(rows: &[(String, String)], after: Duration, logs: &Path, once: bool) {
    let after = humantime::format_duration(after);
    say(&format!("\nNot ready after {after}:\n{}", tables::missing(rows)));
    if !once {
        say(&format!("It goes on trying. Logs are in {}", logs.display()));
    }
}

fn try_next(out: &mut impl Write, document: &Document, logs: &Path, ended: bool) -> io::Result<()> {
    let node = document.nodes.iter().find(|node| !node.runtimes.is_empty());
    writeln!(out, "Try next:")?;
    if !ended {
        let path = |name: &str| {
            document.kubeconfigs.get(name).map(|p| p.display().to_string()).unwrap_or_default()
        };
        let seed = path("seed");
        let shoot = document.kubeconfigs.keys().find(|name| *name != "seed");
        let shoot = shoot.map_or("", String::as_str);
        // One of the shoot that has two runtimes, so that one stays when it is deleted.
        let all = &document.container_runtimes;
        let first = all.first().map(|resource| &resource.namespace);
        let resource = all.iter().rfind(|resource| Some(&resource.namespace) == first);
        let name = resource.map_or("", |resource| resource.name.as_str());
        let namespace = resource.map_or("", |resource| resource.namespace.as_str());
        writeln!(out, "  export KUBECONFIG={seed}")?;
        writeln!(out, "  cargo rootstock status -A --watch")?;
        writeln!(out, "  cargo rootstock status -n {namespace} {name}")?;
        writeln!(out, "  kubectl get containerruntimes -A -w")?;
        writeln!(out, "  kubectl -n {namespace} describe containerruntime {name}")?;
        writeln!(out, "  kubectl -n {namespace} edit containerruntime {name}")?;
        writeln!(out, "  kubectl -n {namespace} delete containerruntime {name}")?;
        writeln!(out, "  kubectl --kubeconfig {} get nodes", path(shoot))?;
    }
    if let Some(root) = node.map(|node| node.root.display()) {
        writeln!(out, "  {root}/var/bin/containerruntimes/runsc --version")?;
        writeln!(out, "  less {root}/etc/containerd/config.toml")?;
    }
    writeln!(out, "  ls {}", logs.display())?;
    writeln!(out)
}

fn figures(out: &mut impl Write, document: &Document, ready: bool) -> io::Result<()> {
    let figures = &document.figures;
    let what = if ready { "Ready" } else { "Not ready" };
    writeln!(out, "{what} after {:.1} s", document.elapsed_seconds)?;
    let pulled = Mebibytes(figures.bytes_pulled);
    let rate = figures.bytes_per_second / f64::from(1 << 20);
    if figures.bytes_pulled == 0 {
        writeln!(out, "Pulled     nothing")?;
    } else {
        writeln!(out, "Pulled     {pulled} MiB at {rate:.1} MiB/s or more")?;
    }
    writeln!(out, "Controller {}", usage(&figures.controller))?;
    writeln!(out, "An agent   {} (the busiest of them)", usage(&figures.agent))
}

fn usage(usage: &Usage) -> String {
    let memory = Mebibytes(usage.peak_memory_bytes);
    format!("{:.2} s of CPU, {memory} MiB of memory at its peak", usage.cpu_seconds)
}
