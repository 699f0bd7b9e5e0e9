//! `rootstock-agent plan`: what the agent would do on this node now.

use std::fmt::Write as _;
use std::sync::Arc;

use rootstock_core::name::Architecture;
use rootstock_core::plan::{Plan, Restart};
use rootstock_core::status::Phase;
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::args::{NodeArgs, Output};
use crate::host::Host;
use crate::reconcile::{Files, NodeReport, Reconciler, Reports};

/// Looks at the node, and says what would be done. Nothing is changed.
///
/// # Errors
/// When the node can't be looked at.
pub async fn preview(args: NodeArgs, host: Arc<dyn Host>) -> anyhow::Result<String> {
    let (root, state, roots) = (args.host_root.clone(), args.state_dir.to_string(), args.roots());
    let open = move || Files::peek(&root, &state, roots);
    let files = tokio::task::spawn_blocking(open).await??;
    let held = files.as_ref().and_then(|files| files.ledger.held());
    let (Some(files), Some(held)) = (files, held) else {
        let text = match args.output {
            Output::Text => format!("No desired state is in {}.\n", args.state_dir),
            Output::Json => format!("{}\n", json!({"generation": null, "changes": []})),
        };
        return Ok(text);
    };
    let architecture = Architecture::of_this_machine();
    let (reports, retry) = (Reports::default(), Arc::new(Notify::new()));
    let reconciler = Reconciler::new(Arc::new(files), host, architecture, reports, retry);
    let (plan, report) = reconciler.preview(&held).await.map_err(anyhow::Error::msg)?;
    let changes = changes(&plan, &report);
    Ok(match args.output {
        Output::Text => text(&report, &changes),
        Output::Json => format!("{:#}\n", document(&report, &changes)),
    })
}

/// What a support case needs of this node, as JSON: journal, plan, and which
/// tables containerd's configuration has. No secret is in it: of that file
/// only our tables are shown, and of the desired state no credential.
///
/// # Errors
/// When the node can't be looked at.
pub async fn support(args: NodeArgs, host: Arc<dyn Host>) -> anyhow::Result<String> {
    let args = NodeArgs { output: Output::Json, ..args };
    let (root, state, roots) = (args.host_root.clone(), args.state_dir.to_string(), args.roots());
    let look = move || -> anyhow::Result<_> {
        let Some(files) = Files::peek(&root, &state, roots)? else { return Ok(None) };
        Ok(Some((files.record(), files.own_tables())))
    };
    let Some((record, tables)) = tokio::task::spawn_blocking(look).await?? else {
        return preview(args, host).await;
    };
    // A node that can't be asked is one that a support case is about.
    let plan = match preview(args, host).await {
        Ok(text) => serde_json::from_str(&text)?,
        Err(error) => json!({"error": format!("{error:#}")}),
    };
    let tables = tables.unwrap_or_else(|error| json!({"error": error}));
    let version = env!("CARGO_PKG_VERSION");
    Ok(format!(
        "{:#}\n",
        json!({"agent": version, "plan": plan, "journal": record, "tables": tables})
    ))
}

/// What would be done, in order: a verb, and what it is done to.
fn changes(plan: &Plan, report: &NodeReport) -> Vec<(&'static str, String)> {
    let mut all = Vec::new();
    let mut add = |verb, what: String| all.push((verb, what));
    plan.pulls.iter().for_each(|tree| add("pull", tree.absolute()));
    plan.prefetches.iter().for_each(|tree| add("prefetch", tree.absolute()));
    plan.renders.iter().for_each(|id| add("write", id.absolute()));
    for handler in plan.remove_tables.iter().chain(&plan.restore_tables) {
        add("remove", format!("table {handler} in containerd's configuration"));
    }
    for handler in plan.set_tables.keys() {
        add("set", format!("table {handler} in containerd's configuration"));
    }
    plan.remove_files.iter().for_each(|path| add("delete", path.clone()));
    for (link, target) in &plan.set_links {
        add("link", format!("{}/{} -> {target}", link.binary_path, link.name));
    }
    for link in &plan.remove_links {
        add("delete", format!("{}/{}", link.binary_path, link.name));
    }
    match &plan.restart {
        None => {}
        Some(Restart::Unproven) => {
            add("restart", "containerd: an activation was never proven".to_owned());
        }
        Some(Restart::Handlers(handlers)) => {
            let names: Vec<&str> = handlers.iter().map(|name| name.as_str()).collect();
            let queued = report.bundles.values().any(|bundle| bundle.phase == Phase::Queued);
            let when = if queued { ", once the controller lets this node" } else { "" };
            add("restart", format!("containerd: it lacks {}{when}", names.join(", ")));
        }
    }
    plan.collect_trees.iter().for_each(|tree| add("delete", tree.absolute()));
    plan.collect_rendered.iter().for_each(|id| add("delete", id.absolute()));
    all
}

fn text(report: &NodeReport, changes: &[(&'static str, String)]) -> String {
    let mut out = format!("Desired state {}\n", report.generation.0);
    for bundle in report.bundles.values() {
        let _ = write!(out, "  {:<12} {:<14} {:<12}", bundle.runtime, bundle.version, bundle.phase);
        let reason = bundle.reason.map(|reason| reason.to_string());
        let why = [reason.unwrap_or_default(), bundle.message.clone()].join(" ");
        out.truncate(out.trim_end().len());
        let _ = writeln!(out, "{}{}", if why.trim().is_empty() { "" } else { "  " }, why.trim());
    }
    if changes.is_empty() {
        out.push_str("Nothing would change.\n");
    } else {
        out.push_str("Would change\n");
    }
    for (verb, what) in changes {
        let _ = writeln!(out, "  {verb:<8} {what}");
    }
    out
}

fn document(report: &NodeReport, changes: &[(&'static str, String)]) -> Value {
    let bundles = report.bundles.values().map(|bundle| {
        json!({
            "type": bundle.runtime, "version": bundle.version, "digest": bundle.digest,
            "phase": bundle.phase, "reason": bundle.reason, "message": bundle.message,
        })
    });
    let changes = changes.iter().map(|(verb, what)| json!({"do": verb, "what": what}));
    json!({
        "generation": report.generation.0,
        "containerd": report.containerd_version,
        "bundles": bundles.collect::<Vec<_>>(),
        "changes": changes.collect::<Vec<_>>(),
        "drift": {"repaired": report.drift.repaired, "last": report.drift.last},
    })
}
