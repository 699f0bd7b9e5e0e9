//! Logs, on stderr.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// How a daemon logs.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub struct Args {
    /// What is logged: a level, or targets with levels.
    ///
    /// Levels are error, warn, info, debug and trace; a target is a module
    /// path, as in `info,rootstock_agent=debug`.
    #[arg(long, env = "ROOTSTOCK_LOG_LEVEL", value_name = "FILTER", default_value = "info")]
    pub log_level: String,

    /// How log lines are written.
    #[arg(long, env = "ROOTSTOCK_LOG_FORMAT", value_name = "FORMAT", default_value = "text")]
    pub log_format: Format,
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Starts logging. A second call changes nothing.
///
/// `quiet` are filters for libraries that say too much; the user's come after
/// them and win.
///
/// # Errors
/// When the filter can't be read.
pub fn init(args: &Args, quiet: &[&str]) -> anyhow::Result<()> {
    let filters: Vec<&str> = quiet.iter().copied().chain([args.log_level.as_str()]).collect();
    let filter = EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .parse(filters.join(","))
        .map_err(|error| anyhow::anyhow!("--log-level {:?}: {error}", args.log_level))?;
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // It fails only where a subscriber is there already, as in tests.
    let _ = match args.log_format {
        Format::Text => subscriber.with_ansi(std::io::stderr().is_terminal()).try_init(),
        Format::Json => subscriber.json().flatten_event(true).try_init(),
    };
    Ok(())
}
