//! The command line.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};

const EXAMPLES: &str = "\
Examples:
  cargo demo                          look around, Ctrl-C to end
  cargo demo --once --output json     for scripts: one document, then the end
  cargo demo --dir /tmp/seed          keep the nodes; the next start finds them
  cargo demo --gvisor ~/gvisor/bin    with your own runsc";

/// A whole Gardener seed with two shoots on this machine, and Rootstock in it.
#[derive(Debug, Parser)]
#[command(name = "rootstock-playground", version, about, max_term_width = 100)]
pub(super) struct Cli {
    #[command(subcommand)]
    pub(super) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Bring gVisor and Kata Containers onto the nodes of two shoots, and stay until Ctrl-C.
    ///
    /// Starts a Kubernetes API for a seed and for each shoot, a registry, the
    /// controller and one agent per node, all on loopback and without root, and
    /// shows how ContainerRuntimes reach their nodes.
    #[command(after_help = EXAMPLES)]
    Up(UpArgs),

    /// The controller, as `up` starts it.
    #[command(hide = true)]
    Controller(Box<Leashed<rootstock_controller::Args>>),

    /// An agent on a simulated host, as `up` starts it.
    #[command(hide = true)]
    Agent(Box<Leashed<AgentArgs>>),
}

/// A program that can be made to end with its parent.
#[derive(Debug, clap::Args)]
pub(super) struct Leashed<A: clap::Args> {
    /// End when standard input ends.
    #[arg(long, hide = true)]
    pub(super) leash: bool,

    #[command(flatten)]
    pub(super) args: A,
}

/// The flags of an agent on a simulated host.
#[derive(Debug, clap::Args)]
pub(super) struct AgentArgs {
    /// Simulate the node's service manager and containerd; there is nothing else here.
    #[arg(long, required = true)]
    simulated: bool,

    #[command(flatten)]
    pub(super) run: rootstock_agent::RunArgs,
}

/// `up`'s flags.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct UpArgs {
    /// End as soon as everything is ready: exit code 0, or 1 if it is not in time.
    #[arg(long)]
    pub(super) once: bool,

    /// How long everything may take to be ready.
    #[arg(long, value_name = "DURATION", default_value = "120s", value_parser = duration)]
    pub(super) timeout: Duration,

    /// Keep the state in this folder: new, empty, or of an earlier `up`.
    ///
    /// Without it the state is in a temporary folder that goes at the end.
    #[arg(long, value_name = "DIR", value_parser = state_dir)]
    pub(super) dir: Option<PathBuf>,

    /// What is printed on standard output; progress goes to standard error.
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = Output::Text)]
    pub(super) output: Output,

    /// The folder with the real `runsc` and `containerd-shim-runsc-v1`.
    ///
    /// Without it they are looked for in $ROOTSTOCK_PARTS/bin and then in PATH;
    /// where they are not found a sample takes their place.
    #[arg(long, value_name = "DIR", value_parser = gvisor_dir)]
    pub(super) gvisor: Option<PathBuf>,

    /// How much the controller and the agents write to their logs, in `logs/`.
    #[arg(long, value_name = "FILTER", default_value = "info", hide_short_help = true)]
    pub(super) log_level: String,
}

/// The form of the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    /// Tables for people.
    Text,
    /// One JSON document.
    Json,
}

/// Reads the command line. `cargo demo -- --help` is what hands used to cargo
/// type; the alias has its own `--` before `up`, so the second one is passed over.
pub(super) fn parse() -> Cli {
    let mut args: Vec<_> = std::env::args_os().collect();
    if args.get(1).is_some_and(|arg| arg == "up") && args.get(2).is_some_and(|arg| arg == "--") {
        args.remove(2);
    }
    Cli::parse_from(args)
}

fn duration(text: &str) -> Result<Duration, String> {
    let duration =
        humantime::parse_duration(text).map_err(|_| "want a duration like 90s or 2m".to_owned())?;
    if duration.is_zero() {
        return Err("must be longer than nothing".to_owned());
    }
    Ok(duration)
}

fn state_dir(text: &str) -> Result<PathBuf, String> {
    super::dir::check(Path::new(text)).map_err(|error| error.to_string())
}

fn gvisor_dir(text: &str) -> Result<PathBuf, String> {
    let dir = PathBuf::from(text);
    for name in ["runsc", "containerd-shim-runsc-v1"] {
        if !dir.join(name).is_file() {
            return Err(format!("there is no {name} in it"));
        }
    }
    Ok(dir)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn bad_values_are_refused_with_the_reason() {
        for (flags, reason) in [
            (["--timeout", "soon"], "want a duration like 90s"),
            (["--timeout", "0s"], "longer than nothing"),
            (["--gvisor", "/nonexistent"], "there is no runsc in it"),
            (["--output", "yaml"], "possible values: text, json"),
            (["--dir", "/etc"], "neither empty"),
        ] {
            let error = Cli::try_parse_from(["x", "up"].into_iter().chain(flags)).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().contains(reason), "{error}");
        }
    }
}
