//! One runtime in full.

use jiff::Timestamp;
use rootstock_core::rollout::record::Digests;
use rootstock_core::runtime_status::{Rollout, RuntimeStatus};
use rootstock_core::status::Reason;

use super::overview;
use crate::args::Connection;
use crate::runtime::{Condition, Runtime};
use crate::table::table;
use crate::text::{Line, Tone, hanging, wrapped};
use crate::words::{self, ahead, bytes, quoted, span};

/// The bar's cells.
const BAR: usize = 30;
/// Below a label's values, and below what a text of its own is indented by.
const BELOW: &str = "              ";
const DEEPER: &str = "    ";
/// How many digits of a digest tell it from others that people compare.
const DIGITS: usize = 12;

/// The page.
pub(super) fn lines(
    runtime: &Runtime,
    connection: &Connection,
    now: Timestamp,
    width: Option<usize>,
) -> Vec<Line> {
    let title = format!("{} in {}", runtime.name, runtime.namespace);
    let mut page = vec![Line::new(Tone::Strong, &title)];
    page.extend(head(runtime, now, width));
    let status = runtime.status.as_ref();
    if let Some(rollout) = status.and_then(|status| status.rollout.as_ref()) {
        page.extend(title_of("Rollout"));
        page.extend(self::rollout(rollout, now, width));
        page.extend(section("Failed nodes", failed_nodes(rollout, now, width)));
        page.extend(section("Held-up nodes", held_nodes(rollout, width)));
    }
    if let Some(status) = status {
        page.extend(section("Nodes without it for longest", slow_nodes(status, now)));
        let passed_over = status.passed_over.iter().flat_map(|one| wrapped(one, "  ", width));
        page.extend(section("Of the providerConfig, nobody knows", passed_over.collect()));
    }
    page.extend(section("Conditions", conditions(runtime, now, width)));
    page.extend(section("What can be asked of the rollout", commands(runtime, connection, width)));
    page
}

fn head(runtime: &Runtime, now: Timestamp, width: Option<usize>) -> Vec<Line> {
    let mut head = Vec::new();
    let mut add = |name: &str, value: &str| {
        head.extend(hanging(label(name), BELOW, value, width));
    };
    add("type", &format!("{} in pool {}", runtime.kind, runtime.pool));
    let status = runtime.status.as_ref();
    if runtime.deleting {
        let asked = "nodes are asked to take it away";
        add("deleting", if status.is_some() { asked } else { "it is to go" });
    }
    if let Some(status) = status {
        if let Some(bundle) = &status.bundle {
            add("bundle", &format!("{} ({})", bundle.version, bundle.reference));
            add("", &digests(&bundle.digests));
        }
        add("promoted", &digests(&status.promoted));
    }
    if let Some(operation) = &runtime.operation {
        let when = operation.at.map(|at| format!(", {} ago", span(at, now))).unwrap_or_default();
        add("operation", &format!("{} {}{when}", operation.kind, operation.state));
        if operation.state != "Succeeded" {
            add("", &operation.description);
        }
    }
    // The operation's own words may have it already.
    let described = runtime.operation.as_ref().map_or("", |operation| &operation.description);
    if let Some(error) = runtime.last_error.as_ref().filter(|error| !described.contains(*error)) {
        add("error", error);
    }
    let Some(status) = status else {
        add("status", runtime.unsaid());
        return head;
    };
    let nodes = &status.nodes;
    let phases = nodes.phases.iter().map(|(phase, count)| format!("{count} {phase}"));
    let reasons = nodes.reasons.iter().map(|(reason, count)| format!("{count} {reason}"));
    let more = |list: Vec<String>| match list.is_empty() {
        true => String::new(),
        false => format!("; {}", list.join(", ")),
    };
    let (phases, reasons) = (more(phases.collect()), more(reasons.collect()));
    add("nodes", &format!("{} of {} ready{phases}{reasons}", nodes.ready, nodes.selected));
    head
}

fn rollout(rollout: &Rollout, now: Timestamp, width: Option<usize>) -> Vec<Line> {
    let (tone, phase) = words::phase(rollout);
    let since = format!(", for {}", span(rollout.since, now));
    let mut lines = vec![label("phase").and(tone, &phase).plain(&since)];
    if rollout.phase.is_none() {
        return lines;
    }
    let counts = [(rollout.in_flight, "in flight"), (rollout.left, "left")];
    let others = [(rollout.away, "away"), (rollout.awaited, "not heard of yet")];
    let counts = counts.iter().chain(&others).filter(|(count, _)| *count > 0);
    let counts: Vec<_> = counts.map(|(count, word)| format!("{count} {word}")).collect();
    if rollout.total > 0 && !rollout.candidate.is_empty() {
        let have = format!("{} of {}", rollout.have, rollout.total);
        let have = [vec![have], counts].concat().join(", ");
        let bar = label("tried on").then(bar(rollout.have, rollout.total)).plain(" ");
        lines.extend(hanging(bar, BELOW, &have, width));
    } else if !counts.is_empty() {
        // Nothing is tried: nodes get what was promoted.
        lines.extend(hanging(label("nodes"), BELOW, &counts.join(", "), width));
    }
    if !rollout.candidate.is_empty() {
        let candidate = digests(&rollout.candidate);
        lines.extend(hanging(label("candidate"), BELOW, &candidate, width));
        let tone = if rollout.failed > 0 { Tone::Bad } else { Tone::Plain };
        let most = format!(", at most {}", rollout.budget);
        lines.push(label("failed").and(tone, &rollout.failed.to_string()).plain(&most));
    }
    if rollout.held > 0 {
        let held = format!("{}, at most {}", rollout.held, rollout.most_held);
        lines.push(field("held up", &held));
    }
    if let Some(pull) = &rollout.pull {
        let done = format!("{} of {}", bytes(pull.bytes_done), bytes(pull.bytes_total));
        let rate = overview::rate(pull).map(|rate| format!(" at {rate}")).unwrap_or_default();
        let end = pull.estimated_end.map(|end| format!(", done {}", ahead(end, now)));
        let pulled = format!("{done}{rate}{}", end.unwrap_or_default());
        lines.extend(hanging(label("pulled"), BELOW, &pulled, width));
    }
    if let Some(next) = rollout.next {
        lines.push(field("looks again", &ahead(next, now)));
    }
    lines.extend(wrapped(&rollout.message, "  ", width));
    lines
}

fn failed_nodes(rollout: &Rollout, now: Timestamp, width: Option<usize>) -> Vec<Line> {
    let row = |node: &rootstock_core::runtime_status::FailedNode| {
        vec![
            Line::plainly("  ").plain(&node.node),
            Line::new(Tone::Bad, word(node.reason)),
            Line::plainly(&format!("{} ago", span(node.at, now))),
            Line::plainly(&node.message),
        ]
    };
    let rows: Vec<_> = rollout.failures.iter().map(row).collect();
    let unnamed = rollout.failed.saturating_sub(rollout.failures.len());
    let mut lines = rows_below(&["  NODE", "REASON", "WHEN", "MESSAGE"], &rows);
    if !fit(&lines, width) {
        // Each message has lines of its own below its node.
        let heads: Vec<_> = rows.iter().map(|row| row[..3].to_vec()).collect();
        let mut heads = rows_below(&["  NODE", "REASON", "WHEN"], &heads).into_iter();
        lines = heads.next().into_iter().collect();
        for (head, node) in heads.zip(&rollout.failures) {
            lines.push(head);
            lines.extend(wrapped(&node.message, DEEPER, width));
        }
    }
    if unnamed > 0 {
        lines.push(Line::plainly(&format!("  and {unnamed} more")));
    }
    let reasons = rollout.failures.iter().filter_map(|node| node.reason);
    lines.extend(advice(reasons, width));
    lines
}

fn held_nodes(rollout: &Rollout, width: Option<usize>) -> Vec<Line> {
    let row = |node: &rootstock_core::runtime_status::HeldNode| {
        vec![Line::plainly("  ").plain(&node.node), Line::new(Tone::Busy, word(node.reason))]
    };
    let rows: Vec<_> = rollout.held_nodes.iter().map(row).collect();
    let unnamed = rollout.held.saturating_sub(rollout.held_nodes.len());
    let mut lines = rows_below(&["  NODE", "REASON"], &rows);
    if unnamed > 0 {
        lines.push(Line::plainly(&format!("  and {unnamed} more")));
    }
    lines.extend(advice(rollout.held_nodes.iter().filter_map(|node| node.reason), width));
    lines
}

fn slow_nodes(status: &RuntimeStatus, now: Timestamp) -> Vec<Line> {
    let row = |node: &rootstock_core::runtime_status::SlowNode| {
        vec![
            Line::plainly("  ").plain(&node.name),
            Line::plainly(node.phase.as_str()),
            node.reason.map(|reason| Line::new(Tone::Busy, reason.as_str())).unwrap_or_default(),
            Line::plainly(&span(node.since, now)),
        ]
    };
    let rows: Vec<_> = status.slowest_nodes.iter().map(row).collect();
    rows_below(&["  NODE", "PHASE", "REASON", "FOR"], &rows)
}

fn conditions(runtime: &Runtime, now: Timestamp, width: Option<usize>) -> Vec<Line> {
    let about = |condition: &Condition| {
        let tone = match condition.status.as_str() {
            "True" => Tone::Good,
            "False" => Tone::Bad,
            _ => Tone::Busy,
        };
        let since = condition.since.map(|since| format!(", for {}", span(since, now)));
        let title = Line::plainly("  ").plain(&condition.kind).plain(" ");
        let title = title.and(tone, &condition.status).plain(" ").plain(&condition.reason);
        let mut lines = vec![title.and(Tone::Faint, &since.unwrap_or_default())];
        // One that says the same as another is not read twice.
        let same = |other: &&Condition| {
            !condition.message.is_empty() && other.message == condition.message
        };
        let first =
            runtime.conditions.iter().find(same).filter(|other| other.kind != condition.kind);
        let as_first = first.map(|first| format!("as {}", first.kind));
        lines.extend(wrapped(as_first.as_ref().unwrap_or(&condition.message), DEEPER, width));
        lines
    };
    runtime.conditions.iter().flat_map(about).collect()
}

/// The exact command lines.
fn commands(runtime: &Runtime, connection: &Connection, width: Option<usize>) -> Vec<Line> {
    if let Some(asked) = &runtime.asked {
        let waits = format!("{asked} was asked for, and the controller has not taken it up yet");
        return wrapped(&waits, "  ", width);
    }
    let file = connection.kubeconfig.as_ref().map(|path| path.display().to_string());
    let row = |verb: rootstock_core::rollout::record::Command| {
        let mut words: Vec<_> = ["rootstock", "rollout", verb.as_str()].map(str::to_owned).into();
        words.extend([quoted(&runtime.name), "-n".to_owned(), quoted(&runtime.namespace)]);
        for (flag, value) in [("--kubeconfig", &file), ("--context", &connection.context)] {
            words.extend(value.iter().flat_map(|value| [flag.to_owned(), quoted(value)]));
        }
        vec![Line::command("  ", &words), Line::new(Tone::Faint, words::effect(verb))]
    };
    let rows: Vec<_> = runtime.can().unwrap_or_default().into_iter().map(row).collect();
    let lines: Vec<_> = table(&["", ""], &rows).into_iter().skip(1).collect();
    if fit(&lines, width) {
        return lines;
    }
    let below = |row: Vec<Line>| {
        let indented = |(at, cell)| if at == 0 { cell } else { Line::plainly(DEEPER).then(cell) };
        row.into_iter().enumerate().map(indented)
    };
    rows.into_iter().flat_map(below).collect()
}

/// What to do about each reason, said once.
fn advice(reasons: impl Iterator<Item = Reason>, width: Option<usize>) -> Vec<Line> {
    let mut known: Vec<_> = reasons.collect();
    known.sort();
    known.dedup();
    let about = |reason: &Reason| {
        hanging(Line::plainly("  "), DEEPER, &format!("{reason}: {}", reason.advice()), width)
    };
    known.iter().flat_map(about).collect()
}

/// Whether no line would be cut.
fn fit(lines: &[Line], width: Option<usize>) -> bool {
    width.is_none_or(|width| lines.iter().all(|line| line.width() <= width))
}

fn rows_below(titles: &[&str], rows: &[Vec<Line>]) -> Vec<Line> {
    if rows.is_empty() { Vec::new() } else { table(titles, rows) }
}

/// Lines below a title; nothing where there are none.
fn section(title: &str, lines: Vec<Line>) -> Vec<Line> {
    if lines.is_empty() {
        return lines;
    }
    title_of(title).into_iter().chain(lines).collect()
}

fn title_of(title: &str) -> [Line; 2] {
    [Line::default(), Line::new(Tone::Strong, title)]
}

fn label(name: &str) -> Line {
    Line::new(Tone::Faint, &format!("  {name:<12}"))
}

fn field(name: &str, value: &str) -> Line {
    label(name).plain(value)
}

fn bar(have: usize, total: usize) -> Line {
    let full = (have.min(total) * BAR).checked_div(total).unwrap_or(0);
    let (done, rest) = ("#".repeat(full), ".".repeat(BAR - full));
    Line::plainly("[").and(Tone::Good, &done).and(Tone::Faint, &rest).plain("]")
}

fn digests(digests: &Digests) -> String {
    let short = |digest: &rootstock_core::digest::Digest| digest.hex()[..DIGITS].to_owned();
    let all = digests.iter().map(|(of, digest)| format!("{of} sha256:{}…", short(digest)));
    all.collect::<Vec<_>>().join(", ")
}

fn word(reason: Option<Reason>) -> &'static str {
    // A newer controller has a word that this version does not know.
    reason.map_or("(unknown)", Reason::as_str)
}
