//! Live progress on standard error: a bar for each node on a terminal, lines elsewhere.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal as _, Write as _};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::Instant;

use super::step::{Mebibytes, Step};

const BAR: &str = "  {prefix:.bold} {bar:8.green/dim} {wide_msg}";

/// What was last shown of each node.
#[derive(Debug)]
pub(super) struct Progress {
    started: Instant,
    width: usize,
    terminal: Option<MultiProgress>,
    nodes: BTreeMap<String, Shown>,
}

#[derive(Debug)]
struct Shown {
    step: Step,
    bar: ProgressBar,
    /// When the node's bytes began to move, and how many were there then.
    pulling_since: Option<(Instant, u64)>,
}

impl Progress {
    /// Shows the nodes of these names, in this order.
    pub(super) fn new(names: &[String]) -> Self {
        let terminal = io::stderr()
            .is_terminal()
            .then(|| MultiProgress::with_draw_target(ProgressDrawTarget::stderr()));
        let width = names.iter().map(String::len).max().unwrap_or_default();
        let style = ProgressStyle::with_template(BAR)
            .map(|style| style.progress_chars("━╸─"))
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        let nodes = names.iter().map(|name| {
            let bar = match &terminal {
                Some(all) => all.add(ProgressBar::new(1)),
                None => ProgressBar::hidden(),
            };
            bar.set_style(style.clone());
            bar.set_prefix(format!("{name:width$}"));
            let shown = Shown { step: Step::Queued, bar, pulling_since: None };
            (name.clone(), shown)
        });
        let nodes = nodes.collect();
        Self { started: Instant::now(), width, terminal, nodes }
    }

    /// Shows where a node is.
    pub(super) fn show(&mut self, name: &str, step: Step) {
        let Some(shown) = self.nodes.get_mut(name) else { return };
        let changed = shown.step.differs(&step);
        let text = shown.update(&step);
        shown.step = step;
        if self.terminal.is_none() && changed {
            let elapsed = self.started.elapsed().as_secs_f64();
            say(&format!("{elapsed:6.1}s  {name:width$}  {text}", width = self.width));
        }
    }

    /// Takes the bars away; what was printed as lines stays.
    pub(super) fn finish(&self) {
        for shown in self.nodes.values() {
            shown.bar.abandon();
        }
        if self.terminal.is_some() {
            // The last bar has left the cursor behind it.
            say("");
        }
    }

    /// Takes the bars away without a trace.
    pub(super) fn clear(&self) {
        if let Some(all) = &self.terminal {
            // A terminal that is gone needs no clearing.
            let _ = all.clear();
        }
    }
}

impl Shown {
    fn update(&mut self, step: &Step) -> String {
        let mut text = step.to_string();
        match step {
            Step::Pulling { done, total, .. } => {
                let (since, before) =
                    *self.pulling_since.get_or_insert_with(|| (Instant::now(), *done));
                let seconds = since.elapsed().as_secs_f64();
                if seconds > 0.1 {
                    let rate = per_second(done.saturating_sub(before), seconds);
                    text.push_str(&format!(" {} MiB/s", Mebibytes(rate)));
                }
                self.bar.set_length(*total);
                self.bar.set_position(*done);
            }
            Step::Verifying | Step::Queued | Step::Installing | Step::Restarting | Step::Ready => {
                let whole = self.bar.length().unwrap_or_default().max(1);
                self.bar.set_length(whole);
                self.bar.set_position(whole);
            }
            Step::Resolving | Step::WaitingForNode | Step::Failed { .. } => {}
        }
        self.bar.set_message(text.clone());
        text
    }
}

/// A rate in whole bytes a second.
pub(super) fn per_second(bytes: u64, seconds: f64) -> u64 {
    if seconds > 0.0 { (bytes as f64 / seconds) as u64 } else { 0 }
}

/// Writes a line for people to standard error.
pub(super) fn say(line: &str) {
    // Nobody is left to read it: no reason to end.
    let _ = writeln!(io::stderr().lock(), "{line}");
}
