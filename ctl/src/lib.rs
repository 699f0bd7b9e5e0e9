//! `rootstock`: what runtimes and their rollouts are doing, and what they are told.
//!
//! ```text
//!  status    list, watch ─▶ Runtime ─▶ overview, page ─▶ lines ─▶ Screen
//!  rollout   get ─▶ Runtime ─▶ decide ─▶ one annotation ─▶ get, until it is taken off
//! ```
//!
//! It talks to the Kubernetes API alone, by the user's own kubeconfig and with
//! his rights: a controller need not be reachable from where he sits. What is
//! shown is what the controller wrote into ContainerRuntimes.
//!
//! * [`args`](Args): the flags
//! * `runtime`: one ContainerRuntime, read from whatever version wrote it
//! * `text`, `table`: lines that a terminal may see, as wide as it is. All text
//!   goes through them, so nothing from a cluster can move a cursor.
//! * `screen`: where lines go, and notes beside them
//! * `status`, `rollout`: the commands; what they show and decide is pure

mod api;
mod args;
mod error;
mod rollout;
mod runtime;
mod screen;
#[cfg(test)]
mod scripted;
mod status;
mod table;
mod text;
mod words;

use std::io;
use std::process::ExitCode;

use jiff::Timestamp;
use kube::Client;

pub use api::client;
pub use args::{Args, Command, Connection, RolloutArgs, StatusArgs};
pub use error::Error;
pub use screen::{Screen, Style};

use text::{Line, Tone};

/// What a command ends with where it did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It did what it was asked to: exit code 0.
    Done,
    /// The rollout that was asked about does not go on by itself: exit code 3.
    Stands,
}

/// Carries out what the command line says, for a process's `main`.
pub fn main(args: &Args) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let ended = runtime.map_err(Error::Output).and_then(|runtime| {
        let mut screen = Screen::of_stdout();
        runtime.block_on(async {
            let client = client(&args.connection).await?;
            run(args, &client, &mut screen, Timestamp::now).await
        })
    });
    match ended {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Stands) => ExitCode::from(3),
        // `rootstock status | head`: whoever reads has what he wants.
        Err(Error::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            let mut lines = vec![Line::new(Tone::Bad, "error: ").plain(&error.chain())];
            lines.extend(error.advice().map(Line::advice));
            // There is nowhere left to say that it could not be said.
            let _ = Screen::of_stderr().print(&lines);
            ExitCode::FAILURE
        }
    }
}

/// Carries out what the command line says.
///
/// # Errors
/// When the API can't be asked, or what is asked for can't be done.
pub async fn run(
    args: &Args,
    client: &Client,
    screen: &mut Screen<'_>,
    clock: fn() -> Timestamp,
) -> Result<Outcome, Error> {
    match &args.command {
        Command::Status(status) => {
            status::run(status, &args.connection, client, screen, clock).await
        }
        Command::Rollout { verb } => {
            rollout::run(verb.command(), verb.args(), client, screen, clock).await
        }
    }
}
