//! All runtimes: one line for each.

use jiff::Timestamp;
use rootstock_core::runtime_status::{Pull, Rollout, RuntimeStatus};

use crate::runtime::Runtime;
use crate::table::table;
use crate::text::{Line, Tone};
use crate::words;

/// Without a value.
const NONE: &str = "-";

const TITLES: [&str; 12] = [
    "NAMESPACE",
    "NAME",
    "TYPE",
    "POOL",
    "VERSION",
    "NODES",
    "ROLLOUT",
    "TRIED",
    "FAILED",
    "RATE",
    "END",
    "REASON",
];
/// What a terminal that is too narrow for all goes without, the first first.
const SPARE: [&str; 6] = ["VERSION", "TYPE", "POOL", "TRIED", "RATE", "END"];
/// So much of a reason has to be seen; it is the last column, and cut.
const REASON: usize = 12;

/// The table. Columns that say nothing of any runtime are left out.
pub(super) fn lines(
    runtimes: &[Runtime],
    namespaces: bool,
    now: Timestamp,
    width: Option<usize>,
) -> Vec<Line> {
    let mut rows: Vec<_> = runtimes.iter().map(|runtime| row(runtime, namespaces, now)).collect();
    for spare in SPARE {
        if width.is_none_or(|width| needed(&rows) <= width) {
            break;
        }
        for row in &mut rows {
            let cells = row.iter_mut().zip(TITLES).filter(|(_, title)| *title == spare);
            cells.for_each(|(cell, _)| *cell = Line::default());
        }
    }
    table(&TITLES, &rows)
}

/// How wide the table is at least.
fn needed(rows: &[Vec<Line>]) -> usize {
    let bounded = |row: &Vec<Line>| {
        let cell = |(cell, title): (&Line, &str)| match title {
            "REASON" => cell.clone().cut(REASON),
            _ => cell.clone(),
        };
        row.iter().zip(TITLES).map(cell).collect()
    };
    let rows: Vec<Vec<Line>> = rows.iter().map(bounded).collect();
    table(&TITLES, &rows).iter().map(Line::width).max().unwrap_or(0)
}

fn row(runtime: &Runtime, namespaces: bool, now: Timestamp) -> Vec<Line> {
    let status = runtime.status.as_ref();
    let rollout = status.and_then(|status| status.rollout.as_ref());
    let pull = rollout.and_then(|rollout| rollout.pull.as_ref());
    let version = status.and_then(|status| status.bundle.as_ref()).map(|b| b.version.as_str());
    vec![
        Line::plainly(if namespaces { &runtime.namespace } else { "" }),
        Line::plainly(&runtime.name),
        Line::plainly(&runtime.kind),
        Line::plainly(&runtime.pool),
        Line::plainly(version.unwrap_or(NONE)),
        status.map_or_else(|| Line::plainly(NONE), nodes),
        phase(runtime),
        rollout.map(tried).unwrap_or_default(),
        rollout.map(failed).unwrap_or_default(),
        pull.and_then(rate).map(|rate| Line::plainly(&rate)).unwrap_or_default(),
        pull.map(|pull| end(pull, now)).unwrap_or_default(),
        reason(runtime),
    ]
}

/// One runtime on one line without columns: for a log, and after a command.
pub(crate) fn summary(runtime: &Runtime, now: Timestamp) -> Line {
    let mut line = Line::new(Tone::Strong, &runtime.path()).plain(": ");
    let mut parts = Vec::new();
    if let Some(status) = &runtime.status {
        parts.push(nodes(status).plain(" nodes ready"));
        if let Some(rollout) = &status.rollout {
            let of = |what: Line, word: &str| {
                (what.width() > 0).then(|| Line::plainly(word).plain(" ").then(what))
            };
            parts.extend(of(phase(runtime), "rollout"));
            parts.extend(of(tried(rollout), "tried on"));
            parts.extend(of(failed(rollout), "failed"));
            if let Some(pull) = &rollout.pull {
                parts.extend(rate(pull).map(|rate| Line::plainly(&format!("pulls {rate}"))));
                parts.extend(of(end(pull, now), "done"));
            }
        } else {
            parts.push(Line::plainly("no rollout under way"));
        }
    } else {
        parts.push(Line::plainly(runtime.unsaid()));
    }
    let without = runtime.status.as_ref().is_none_or(|status| status.rollout.is_none());
    if let Some(asked) = runtime.asked.as_ref().filter(|_| without) {
        parts.push(Line::new(Tone::Busy, &format!("{asked} asked")));
    }
    parts.push(reason(runtime));
    parts.retain(|part| part.width() > 0);
    for (at, part) in parts.into_iter().enumerate() {
        line = line.plain(if at > 0 { ", " } else { "" }).then(part);
    }
    line
}

fn nodes(status: &RuntimeStatus) -> Line {
    let nodes = &status.nodes;
    let tone = if nodes.ready >= nodes.selected { Tone::Good } else { Tone::Busy };
    Line::new(tone, &format!("{}/{}", nodes.ready, nodes.selected))
}

/// Where its rollout is, and what was asked of it.
fn phase(runtime: &Runtime) -> Line {
    let rollout = runtime.status.as_ref().and_then(|status| status.rollout.as_ref());
    let line = match rollout {
        Some(rollout) => {
            let (tone, words) = words::phase(rollout);
            Line::new(tone, &words)
        }
        None => Line::plainly(NONE),
    };
    match &runtime.asked {
        Some(asked) => line.and(Tone::Busy, &format!(" ({asked} asked)")),
        None => line,
    }
}

fn tried(rollout: &Rollout) -> Line {
    match rollout.total {
        total if total > 0 && !rollout.candidate.is_empty() => {
            Line::plainly(&format!("{}/{total}", rollout.have))
        }
        _ => Line::default(),
    }
}

/// How many failed, of how many that may.
fn failed(rollout: &Rollout) -> Line {
    if rollout.phase.is_none() || rollout.candidate.is_empty() {
        return Line::default();
    }
    let tone = if rollout.failed > 0 { Tone::Bad } else { Tone::Plain };
    Line::new(tone, &format!("{}/{}", rollout.failed, rollout.budget))
}

/// How fast it comes, and which part of its budget that is; nothing where nothing comes.
pub(super) fn rate(pull: &Pull) -> Option<String> {
    let rate = pull.bytes_per_second?;
    let share = pull.budget_share.and_then(words::percent);
    let share = share.map(|share| format!(" ({share})")).unwrap_or_default();
    Some(format!("{}/s{share}", words::bytes(rate)))
}

fn end(pull: &Pull, now: Timestamp) -> Line {
    pull.estimated_end.map(|end| Line::plainly(&words::ahead(end, now))).unwrap_or_default()
}

fn reason(runtime: &Runtime) -> Line {
    let failing = runtime.conditions.iter().any(|condition| condition.status == "False");
    let tone = if failing { Tone::Bad } else { Tone::Busy };
    Line::new(tone, &runtime.trouble().join(", "))
}
