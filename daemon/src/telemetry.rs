//! Logs, on stderr.

use std::io::IsTerminal as _;

use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::layer;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

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
    let filter = filter(args, quiet)?;
    let ansi = std::io::stderr().is_terminal();
    let lines = match args.log_format {
        Format::Text => layer().with_writer(std::io::stderr).with_ansi(ansi).boxed(),
        Format::Json => layer().with_writer(std::io::stderr).json().flatten_event(true).boxed(),
    };
    // It fails only where a subscriber is there already, as in tests.
    let _ = tracing_subscriber::registry().with(lines.with_filter(filter)).try_init();
    Ok(())
}

/// What is logged: `info`, without what is quiet, and then what the user says.
fn filter(args: &Args, quiet: &[&str]) -> anyhow::Result<Targets> {
    let filters = ["info"].iter().chain(quiet).copied().chain([args.log_level.as_str()]);
    let filters: Vec<&str> = filters.filter(|filter| !filter.is_empty()).collect();
    filters
        .join(",")
        .parse()
        .map_err(|error| anyhow::anyhow!("--log-level {:?}: {error}", args.log_level))
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn the_users_words_come_last() {
        let of = |level: &str| {
            let args = Args { log_level: level.to_owned(), log_format: Format::Text };
            filter(&args, &["noisy=warn"])
        };
        let table = [
            ("info", "noisy::inside", Level::INFO, false),
            ("info", "rootstock", Level::INFO, true),
            ("rootstock=debug", "other", Level::INFO, true),
            ("rootstock=debug", "rootstock::inside", Level::DEBUG, true),
            ("warn", "rootstock", Level::INFO, false),
            ("debug,noisy=trace", "noisy", Level::TRACE, true),
            ("", "rootstock", Level::INFO, true),
        ];
        for (level, target, at, enabled) in table {
            assert_eq!(of(level).unwrap().would_enable(target, &at), enabled, "{level} {target}");
        }
        let error = of("rootstock=loud").unwrap_err().to_string();
        assert!(error.contains("--log-level \"rootstock=loud\""), "{error}");
    }
}
