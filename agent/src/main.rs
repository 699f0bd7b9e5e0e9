//! `rootstock-agent`: see `--help`.

use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser as _;
use rootstock_agent::args::{Cli, Command};
use rootstock_agent::host::systemd::SystemdHost;

// One thread is enough: hashing and files have threads of their own.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let Command::Run(args) = Cli::parse().command;
    let host = Arc::new(SystemdHost::new(&args.host_root));
    match rootstock_agent::run(args, host).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
