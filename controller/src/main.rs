//! `rootstock-controller`: see `--help`.

use std::process::ExitCode;

use clap::Parser as _;
use rootstock_controller::Args;

#[tokio::main]
async fn main() -> ExitCode {
    match rootstock_controller::run(Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
