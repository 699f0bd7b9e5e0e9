//! `rootstock-controller`: see `--help`.

use std::process::ExitCode;

use clap::Parser as _;
use rootstock_controller::Args;

fn main() -> ExitCode {
    let args = Args::parse();
    let ended = rootstock_controller::runtime()
        .build()
        .map_err(Into::into)
        .and_then(|runtime| runtime.block_on(rootstock_controller::run(args)));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
