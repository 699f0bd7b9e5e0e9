//! The demo: a world with two shoots, watched until every node is ready.
//!
//! ```text
//!  args ─▶ dir ─▶ world ─▶ run: poll the status page ─▶ step ─▶ progress (stderr)
//!                                └─ nothing is missing any more ─▶ report (stdout)
//! ```

mod args;
mod dir;
mod progress;
mod report;
mod run;
mod samples;
mod step;
mod tables;

use std::process::ExitCode;
use std::sync::Arc;

use rootstock_daemon::error::Chain;

use crate::host::SimulatedHost;
use crate::seed::processes::end_with_parent;
use args::Command;

/// Reads the command line and does what it says.
pub fn main() -> ExitCode {
    // An error means that it was installed before, which is as good.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    match args::parse().command {
        Command::Up(args) => on(tokio::runtime::Builder::new_multi_thread(), run::up(args)),
        Command::Controller(program) => {
            leash(program.leash);
            let work = async { rootstock_controller::run(program.args).await.map(|()| 0) };
            // As the controller's own program runs.
            on(rootstock_controller::runtime(), work)
        }
        Command::Agent(program) => {
            leash(program.leash);
            let run = program.args.run;
            let host = Arc::new(SimulatedHost::new(&run.host_root));
            let work = async { rootstock_agent::run(run, host).await.map(|()| 0) };
            // As the agent's own program runs.
            on(tokio::runtime::Builder::new_current_thread(), work)
        }
    }
}

fn leash(wanted: bool) {
    if wanted {
        end_with_parent();
    }
}

fn on(
    mut runtime: tokio::runtime::Builder,
    work: impl Future<Output = anyhow::Result<u8>>,
) -> ExitCode {
    let done = match runtime.enable_all().build() {
        Ok(runtime) => runtime.block_on(work),
        Err(error) => Err(error.into()),
    };
    done.map(ExitCode::from).unwrap_or_else(|error| {
        progress::say(&format!("error: {}", Chain(error.as_ref())));
        ExitCode::FAILURE
    })
}
