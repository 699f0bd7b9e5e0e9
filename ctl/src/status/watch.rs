//! `--watch`: a picture that is drawn again, or a line for each change.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::StreamExt as _;
use jiff::Timestamp;
use kube::Client;
use kube::runtime::{WatchStreamExt as _, watcher};
use serde_json::Value;
use tokio::time::Instant;

use super::board::{Board, Change};
use super::{View, overview};
use crate::Outcome;
use crate::api;
use crate::args::Output;
use crate::error::Error;
use crate::runtime::Runtime;
use crate::screen::Screen;
use crate::text::{Line, Tone};

/// A picture is drawn again so often, for its times; changes show then.
const REDRAW: Duration = Duration::from_millis(500);

/// Goes on until the process is ended, or nothing can be printed or asked.
pub(super) async fn run(
    view: &View<'_>,
    output: Output,
    client: &Client,
    screen: &mut Screen<'_>,
    clock: fn() -> Timestamp,
) -> Result<Outcome, Error> {
    let mut config = watcher::Config::default();
    if let Some(name) = view.name {
        config = config.fields(&format!("metadata.name={name}"));
    }
    // After an error the stream goes on by itself, later and later.
    let events = watcher::watcher(view.scope.runtimes(client), config).default_backoff();
    let mut events = std::pin::pin!(events);
    let mut board = Board::default();
    let mut said = Said::default();
    let draws = screen.is_terminal() && output == Output::Table;
    let mut tick = tokio::time::interval(REDRAW);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let patience = Instant::now() + api::PATIENCE;
    loop {
        tokio::select! {
            // Cancel-safe: a stream gives an event or nothing.
            event = events.next() => {
                let Some(event) = event else { return Ok(Outcome::Done) };
                // What fails at once is a wrong address or a missing right.
                let event = match event {
                    Err(watcher::Error::InitialListFailed(error)) if !board.is_listed() => {
                        return Err(Error::of_request(api::listing(view.scope), error));
                    }
                    event => event,
                };
                let changes = board.hear(event, clock());
                if !draws {
                    said.changes(changes, output, screen, clock())?;
                }
            }
            // Cancel-safe: a tick that is not awaited comes later.
            _ = tick.tick(), if draws => {
                let (lines, last) = picture(view, &board, clock(), screen.width());
                screen.redraw(lines, last)?;
            }
            // Cancel-safe: it is a point in time.
            () = tokio::time::sleep_until(patience), if !board.is_listed() => {
                let (doing, seconds) = (api::listing(view.scope), api::PATIENCE.as_secs());
                return Err(Error::Silent { doing, seconds });
            }
        }
    }
}

/// The lines, and the one below them.
fn picture(
    view: &View<'_>,
    board: &Board,
    now: Timestamp,
    width: Option<usize>,
) -> (Vec<Line>, Line) {
    let at = Timestamp::from_second(now.as_second()).unwrap_or(now);
    let last = match board.trouble(now) {
        Some(trouble) => Line::new(Tone::Bad, &format!("{at}, not up to date: {trouble}")),
        None => Line::new(Tone::Faint, &format!("{at}, Ctrl-C ends it")),
    };
    if !board.is_listed() {
        return (vec![Line::new(Tone::Faint, "asking the API …")], last);
    }
    let mut lines = view.lines(&board.runtimes(), now, width);
    lines.push(Line::default());
    (lines, last)
}

/// What was printed of each runtime: the same is not printed again.
#[derive(Debug, Default)]
struct Said(BTreeMap<String, String>);

impl Said {
    fn changes(
        &mut self,
        changes: Vec<Change>,
        output: Output,
        screen: &mut Screen<'_>,
        now: Timestamp,
    ) -> Result<(), Error> {
        for change in changes {
            match (change, output) {
                (Change::Shown(runtime), Output::Json) => {
                    let json = runtime.to_json().to_string();
                    if self.is_new(&runtime, json.clone()) {
                        screen.print_json(&json)?;
                    }
                }
                (Change::Shown(runtime), Output::Table) => {
                    let summary = overview::summary(&runtime, now);
                    if self.is_new(&runtime, summary.paint(false)) {
                        screen.print(&[stamped(now).then(summary)])?;
                    }
                }
                (Change::Gone(runtime), Output::Json) => {
                    self.0.remove(&runtime.path());
                    let mut json = runtime.to_json();
                    json["gone"] = Value::Bool(true);
                    screen.print_json(&json.to_string())?;
                }
                (Change::Gone(runtime), Output::Table) => {
                    self.0.remove(&runtime.path());
                    let gone = format!("{}: gone", runtime.path());
                    screen.print(&[stamped(now).plain(&gone)])?;
                }
            }
        }
        Ok(())
    }

    fn is_new(&mut self, runtime: &Runtime, text: String) -> bool {
        self.0.get(&runtime.path()) != Some(&text) && {
            self.0.insert(runtime.path(), text);
            true
        }
    }
}

fn stamped(now: Timestamp) -> Line {
    let at = Timestamp::from_second(now.as_second()).unwrap_or(now);
    Line::plainly(&format!("{at} "))
}
