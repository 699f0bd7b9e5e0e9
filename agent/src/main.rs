//! `rootstock-agent`: see `--help`.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser as _;
use rootstock_agent::args::{Cli, Command};
use rootstock_agent::host::Host;
use rootstock_agent::host::systemd::SystemdHost;
use rootstock_agent::{preflight, preview};

// One thread is enough: hashing and files have threads of their own.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(Cli::parse().command).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            // A daemon has a log; what a person runs has none.
            if tracing::dispatcher::has_been_set() {
                tracing::error!("{error:#}");
            } else {
                eprintln!("rootstock-agent: {error:#}");
            }
            ExitCode::FAILURE
        }
    }
}

/// Whether all is well.
async fn run(command: Command) -> anyhow::Result<bool> {
    let host = |root: &Path| -> Arc<dyn Host> { Arc::new(SystemdHost::new(root)) };
    let (text, well) = match command {
        Command::Run(args) => {
            let host = host(&args.host_root);
            return rootstock_agent::run(args, host).await.map(|()| true);
        }
        Command::Preflight(args) => {
            let survey = preflight::survey(&args, &*host(&args.host_root)).await;
            (survey.print(args.output)?, survey.supported())
        }
        Command::Plan(args) => {
            let host = host(&args.host_root);
            (preview::preview(args, host).await?, true)
        }
        Command::Report(args) => {
            let host = host(&args.host_root);
            (preview::support(args, host).await?, true)
        }
    };
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(well)
}
