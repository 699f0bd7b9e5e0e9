//! The agent as it runs in its Pod: with the mounts, the namespaces and the
//! capabilities of the DaemonSet, which are read from what the controller renders.

use std::fmt::Write as _;

use anyhow::{Context as _, bail, ensure};
use rootstock_core::path::BinaryRoots;
use serde_json::{Value, json};

/// Where the node has the agent's program; the Pod has it in its image.
pub(crate) const PROGRAM: &str = "/usr/local/bin/rootstock-agent";

/// A script for the node's own namespaces that becomes the agent in its Pod.
///
/// `flags` come after those of the DaemonSet. Files that the kubelet would put
/// there hold what leads to no controller.
pub(crate) fn script(flags: &[&str]) -> anyhow::Result<String> {
    let types = ["gvisor".parse()?].into();
    let set = rootstock_controller::agent_daemonset("lab", &BinaryRoots::default(), &types);
    let pod = &set["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    // What this script does is all that it can do.
    let context = &container["securityContext"];
    ensure!(pod["hostNetwork"] == true && pod["hostPID"].is_null(), "other namespaces: {pod}");
    ensure!(context["capabilities"] == json!({"drop": ["ALL"]}), "capabilities: {context}");
    ensure!(context["runAsUser"] == 0 && context["privileged"] == false, "{context}");
    ensure!(context["allowPrivilegeEscalation"] == false, "{context}");
    ensure!(context["readOnlyRootFilesystem"] == true, "{context}");

    let mut script = String::from(
        "set -e\nroot=/run/agent-pod\nmkdir -p $root\nmount -t tmpfs -o mode=755 tmpfs $root\ncd $root\n\
         mkdir usr proc host\nmount --rbind /usr usr\nln -s usr/bin usr/lib usr/lib64 usr/sbin .\n\
         mount -t proc proc proc\n",
    );
    for mount in container["volumeMounts"].as_array().context("no mounts")? {
        bind(&mut script, mount, &pod["volumes"])?;
    }
    let mut arguments = Vec::new();
    for argument in container["args"].as_array().context("no arguments")? {
        let argument = argument.as_str().context("no text")?;
        let file = ["--endpoint=", "--ca-file=", "--token-file="]
            .iter()
            .find_map(|flag| argument.strip_prefix(flag));
        if let Some(path) = file {
            writeln!(script, "mkdir -p $(dirname .{path})\necho https://127.0.0.1:9 > .{path}")?;
        }
        arguments.push(argument);
    }
    arguments.extend(flags);
    for variable in container["env"].as_array().into_iter().flatten() {
        let part = |name: &str| variable[name].as_str().context("no text");
        writeln!(script, "export {}={}", part("name")?, part("value")?)?;
    }
    write!(
        script,
        "mount -o remount,ro $root\n\
         exec chroot . /usr/bin/setpriv --bounding-set=-all --inh-caps=-all --no-new-privs -- \
         {PROGRAM} {}\n",
        arguments.join(" ")
    )?;
    Ok(script)
}

/// Mounts a folder of the node as the kubelet does; what is no folder of the
/// node is written by whoever needs it.
fn bind(script: &mut String, mount: &Value, volumes: &Value) -> anyhow::Result<()> {
    let volume = volumes.as_array().into_iter().flatten().find(|v| v["name"] == mount["name"]);
    let Some(folder) = volume.map(|volume| &volume["hostPath"]).filter(|path| !path.is_null())
    else {
        return Ok(());
    };
    let (from, to) = (folder["path"].as_str(), mount["mountPath"].as_str());
    let (from, to) = (from.context("no path")?, to.context("no mountPath")?);
    match folder["type"].as_str() {
        Some("DirectoryOrCreate") => writeln!(script, "mkdir -p {from}")?,
        Some("Directory") => writeln!(script, "test -d {from}")?,
        other => bail!("{from} is a {other:?}"),
    }
    writeln!(script, "mkdir -p .{to}\nmount --rbind {from} .{to}")?;
    match mount["mountPropagation"].as_str() {
        None => writeln!(script, "mount --make-rprivate .{to}")?,
        Some("HostToContainer") => writeln!(script, "mount --make-rslave .{to}")?,
        Some(other) => bail!("{to} has propagation {other}"),
    }
    if mount["readOnly"] == true {
        writeln!(script, "mount -o remount,bind,ro .{to}")?;
    }
    Ok(())
}
