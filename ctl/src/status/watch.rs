//! `--watch`: a picture that is drawn again, or a line for each change.

use std::collections::{BTreeMap, BTreeSet};
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
use crate::api::{self, Scope};
use crate::args::Output;
use crate::error::Error;
use crate::runtime::Runtime;
use crate::screen::Screen;
use crate::text::{Line, Tone, hanging};

/// A picture is drawn again so often, for its times; changes show then.
const REDRAW: Duration = Duration::from_millis(500);

/// Goes on until the process is ended, or nothing can be printed or asked, or
/// what is named is not there at the beginning.
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
    let begun = Instant::now();
    loop {
        let calm = board.troubled_until(Instant::now());
        tokio::select! {
            // Cancel-safe: a stream gives an event or nothing.
            event = events.next() => {
                let Some(event) = event else { return Ok(Outcome::Done) };
                let listed = board.is_listed();
                let event = match event {
                    // What fails at once is a wrong address or a missing right.
                    Err(error @ watcher::Error::InitialListFailed(_)) if !listed => {
                        return Err(failure(view.scope, error));
                    }
                    event => event.map_err(|error| failure(view.scope, error)),
                };
                let changes = board.hear(event, Instant::now());
                if let (Some(name), Scope::Namespace(namespace)) = (view.name, view.scope)
                    && !listed && board.is_listed() && changes.is_empty()
                {
                    let (namespace, name) = (namespace.clone(), name.to_owned());
                    return Err(Error::NotFound { namespace, name });
                }
                if !draws {
                    said.changes(changes, output, screen, clock())?;
                    said.trouble(&board, screen, clock());
                }
            }
            // Cancel-safe: it is a point in time.
            () = tokio::time::sleep_until(calm.unwrap_or(begun)), if !draws && calm.is_some() => {
                said.trouble(&board, screen, clock());
            }
            // Cancel-safe: a tick that is not awaited comes later.
            _ = tick.tick(), if draws => {
                let (lines, last) = picture(view, &board, clock(), screen.width());
                screen.redraw(lines, last)?;
            }
            // Cancel-safe: it is a point in time.
            () = tokio::time::sleep_until(begun + api::PATIENCE), if !board.is_listed() => {
                let (doing, seconds) = (api::listing(view.scope), api::PATIENCE.as_secs());
                return Err(Error::Silent { doing, seconds });
            }
        }
    }
}

/// What went wrong, as other commands say it.
fn failure(scope: &Scope, error: watcher::Error) -> Error {
    let watching = || format!("watch ContainerRuntimes {}", scope.in_words());
    match error {
        watcher::Error::InitialListFailed(error) => Error::of_request(api::listing(scope), error),
        watcher::Error::WatchStartFailed(error) | watcher::Error::WatchFailed(error) => {
            Error::of_request(watching(), error)
        }
        watcher::Error::WatchError(status) => {
            Error::of_request(watching(), kube::Error::Api(status))
        }
        watcher::Error::NoResourceVersion => {
            Error::Refused { doing: watching(), message: error.to_string() }
        }
    }
}

/// The lines, and the one below them.
pub(super) fn picture(
    view: &View<'_>,
    board: &Board,
    now: Timestamp,
    width: Option<usize>,
) -> (Vec<Line>, Line) {
    let at = Timestamp::from_second(now.as_second()).unwrap_or(now);
    let (mut lines, last) = match board.trouble(Instant::now()) {
        Some(error) => {
            // It comes first: what is below the window is not seen.
            let why = Line::new(Tone::Bad, "not up to date: ");
            let mut lines = hanging(why, "  ", &error.chain(), width);
            if let Some(advice) = error.advice() {
                lines.extend(hanging(Line::plainly("what to do: "), "  ", advice, width));
            }
            lines.push(Line::default());
            (lines, Line::new(Tone::Bad, &format!("{at}, not up to date")))
        }
        None => (Vec::new(), Line::new(Tone::Faint, &format!("{at}, Ctrl-C ends it"))),
    };
    if !board.is_listed() {
        lines.push(Line::new(Tone::Faint, "asking the API …"));
        return (lines, last);
    }
    lines.extend(view.lines(&board.runtimes(), now, width));
    lines.push(Line::default());
    (lines, last)
}

/// What was said so far.
#[derive(Debug, Default)]
struct Said {
    /// What was printed of each runtime: the same is not printed again.
    runtimes: BTreeMap<String, String>,
    /// What there was to do about the trouble that it is in: a kind that comes
    /// to it is said too, once. Empty where it is in none.
    troubles: BTreeSet<Option<&'static str>>,
}

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
                    self.runtimes.remove(&runtime.path());
                    let mut json = runtime.to_json();
                    json["gone"] = Value::Bool(true);
                    screen.print_json(&json.to_string())?;
                }
                (Change::Gone(runtime), Output::Table) => {
                    self.runtimes.remove(&runtime.path());
                    let gone = format!("{}: gone", runtime.path());
                    screen.print(&[stamped(now).plain(&gone)])?;
                }
            }
        }
        Ok(())
    }

    /// Notes where trouble begins, and where it is over.
    fn trouble(&mut self, board: &Board, screen: &mut Screen<'_>, now: Timestamp) {
        match board.trouble(Instant::now()) {
            Some(error) if self.troubles.insert(error.advice()) => {
                let what = format!("not up to date: {}", error.chain());
                let advice = error.advice().map(|advice| format!("; what to do: {advice}"));
                let line = stamped(now).and(Tone::Bad, &what);
                screen.note(&[line.plain(&advice.unwrap_or_default())]);
            }
            None if !self.troubles.is_empty() => {
                self.troubles.clear();
                screen.note(&[stamped(now).plain("up to date again")]);
            }
            Some(_) | None => {}
        }
    }

    fn is_new(&mut self, runtime: &Runtime, text: String) -> bool {
        self.runtimes.get(&runtime.path()) != Some(&text) && {
            self.runtimes.insert(runtime.path(), text);
            true
        }
    }
}

fn stamped(now: Timestamp) -> Line {
    let at = Timestamp::from_second(now.as_second()).unwrap_or(now);
    Line::plainly(&format!("{at} "))
}
