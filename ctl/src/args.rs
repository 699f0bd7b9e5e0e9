//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use rootstock_core::rollout::record::Command as Verb;

const EXAMPLES: &str = "\
Examples:
  # All runtimes of a seed, and how far their rollouts are
  rootstock status -A

  # One of them in full, redrawn as it changes
  rootstock status gvisor-a -n shoot--garden--one --watch

  # Stop a rollout, and wait until the controller has done so
  rootstock rollout pause gvisor-a -n shoot--garden--one --wait

Exit codes: 0 done; 1 it failed; 2 the command line is wrong; 3 `status NAME` of
a rollout that does not go on by itself.

As `kubectl rootstock`: link it as kubectl-rootstock into a folder of your PATH.";

const STATUS_EXAMPLES: &str = "\
Examples:
  # The runtimes of the kubeconfig's namespace
  rootstock status

  # Of all namespaces, redrawn as they change
  rootstock status -A --watch

  # One in full: conditions, failed nodes, what can be asked for
  rootstock status gvisor-a -n shoot--garden--one

  # For scripts: one document, or one line for each change
  rootstock status -A -o json
  rootstock status -A -o json --watch

`status NAME` exits with 3 where the rollout does not go on by itself: it is
halted, it is stopped because the bundle broke other shoots, or the promoted
bundle fails.";

const ROLLOUT_EXAMPLES: &str = "\
Examples:
  # Let no other node begin, and go on later
  rootstock rollout pause gvisor-a -n shoot--garden--one
  rootstock rollout resume gvisor-a -n shoot--garden--one

  # Try again what failed, and wait two minutes at most until that is taken up
  rootstock rollout retry gvisor-a -n shoot--garden--one --wait=120

  # Do not wait for the first nodes to go on working
  rootstock rollout promote gvisor-a -n shoot--garden--one

  # Back to the promoted bundle
  rootstock rollout abort gvisor-a -n shoot--garden--one

  # Pause everything in a seed; see first what would be done
  rootstock rollout pause --all -A --dry-run
  rootstock rollout pause --all -A";

/// Shows what container runtimes and their rollouts are doing, and tells
/// rollouts what to do.
#[derive(Clone, Debug, Parser)]
#[command(name = "rootstock", version, after_help = EXAMPLES)]
pub struct Args {
    /// Which cluster.
    #[command(flatten)]
    pub connection: Connection,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Which cluster: a Gardener seed, or a plain cluster with Rootstock in it.
#[derive(Clone, Debug, Default, ClapArgs)]
pub struct Connection {
    /// The kubeconfig; $KUBECONFIG or ~/.kube/config where it is not set.
    #[arg(long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// The kubeconfig's context; its current one where it is not set.
    #[arg(long, global = true, value_name = "NAME")]
    pub context: Option<String>,
}

/// What to do.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Show runtimes: how many nodes have them, and how far rollouts are.
    #[command(after_help = STATUS_EXAMPLES)]
    Status(StatusArgs),
    /// Tell a rollout what to do.
    #[command(after_help = ROLLOUT_EXAMPLES)]
    Rollout {
        /// What.
        #[command(subcommand)]
        verb: RolloutVerb,
    },
}

/// What to show.
#[derive(Clone, Debug, Default, ClapArgs)]
pub struct StatusArgs {
    /// The ContainerRuntime to show in full.
    pub name: Option<String>,

    /// Its namespace; the context's where it is not set.
    #[arg(short, long, value_name = "NAME")]
    pub namespace: Option<String>,

    /// Those of all namespaces.
    #[arg(short = 'A', long, conflicts_with_all = ["namespace", "name"])]
    pub all_namespaces: bool,

    /// Go on until Ctrl-C: redraw on a terminal, else print what changes.
    #[arg(short, long)]
    pub watch: bool,

    /// In which form.
    #[arg(short, long, value_enum, default_value = "table")]
    pub output: Output,
}

/// A form of output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    #[default]
    Table,
    /// For scripts.
    Json,
}

/// What to tell a rollout.
#[derive(Clone, Debug, Subcommand)]
pub enum RolloutVerb {
    /// Let no other node begin: those that activate end that.
    #[command(after_help = ROLLOUT_EXAMPLES)]
    Pause(RolloutArgs),
    /// Go on after a pause.
    #[command(after_help = ROLLOUT_EXAMPLES)]
    Resume(RolloutArgs),
    /// Try again what failed, was held up or was aborted, from the canary on.
    #[command(after_help = ROLLOUT_EXAMPLES)]
    Retry(RolloutArgs),
    /// Do not wait for the first nodes to go on working.
    #[command(after_help = ROLLOUT_EXAMPLES)]
    Promote(RolloutArgs),
    /// Go back to the promoted bundle.
    #[command(after_help = ROLLOUT_EXAMPLES)]
    Abort(RolloutArgs),
}

impl RolloutVerb {
    /// The word of the annotation.
    pub fn command(&self) -> Verb {
        match self {
            Self::Pause(_) => Verb::Pause,
            Self::Resume(_) => Verb::Resume,
            Self::Retry(_) => Verb::Retry,
            Self::Promote(_) => Verb::Promote,
            Self::Abort(_) => Verb::Abort,
        }
    }

    /// Of which rollouts, and how.
    pub fn args(&self) -> &RolloutArgs {
        match self {
            Self::Pause(args)
            | Self::Resume(args)
            | Self::Retry(args)
            | Self::Promote(args)
            | Self::Abort(args) => args,
        }
    }
}

/// Which rollouts to tell, and how.
#[derive(Clone, Debug, Default, ClapArgs)]
pub struct RolloutArgs {
    /// The ContainerRuntimes.
    #[arg(value_name = "NAME", required_unless_present = "all", conflicts_with_all = ["all", "all_namespaces"])]
    pub names: Vec<String>,

    /// Their namespace; the context's where it is not set.
    #[arg(short, long, value_name = "NAME")]
    pub namespace: Option<String>,

    /// Every ContainerRuntime of the namespace that is Rootstock's, by its
    /// status, and where it would change something.
    #[arg(long)]
    pub all: bool,

    /// With --all: those of all namespaces.
    #[arg(short = 'A', long, requires = "all", conflicts_with = "namespace")]
    pub all_namespaces: bool,

    /// Wait until the controller has carried it out, for 60 seconds or as many
    /// as are given, and say what the rollout is doing then.
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, require_equals = true,
        default_missing_value = "60", value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub wait: Option<u64>,

    /// Ask also where the status says that it would change nothing, and with
    /// --all those that have no status of Rootstock's.
    #[arg(long)]
    pub force: bool,

    /// Have the API check it, and change nothing.
    #[arg(long, conflicts_with = "wait")]
    pub dry_run: bool,
}

impl RolloutArgs {
    /// How long to wait, if at all.
    pub fn patience(&self) -> Option<Duration> {
        self.wait.map(Duration::from_secs)
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn parse(line: &str) -> Result<Args, clap::Error> {
        Args::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_command_line_is_consistent_and_every_verb_has_examples() {
        Args::command().debug_assert();
        for line in ["", "status", "rollout pause", "rollout abort"] {
            let help = parse(&format!("rootstock {line} --help")).unwrap_err().to_string();
            assert!(help.contains("Examples:"), "{line}: {help}");
        }
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        for line in [
            "rootstock",
            "rootstock status a -A",
            "rootstock status -A -n b",
            "rootstock status -o yaml",
            "rootstock rollout",
            "rootstock rollout pause",
            "rootstock rollout stop a",
            "rootstock rollout pause a --all",
            "rootstock rollout pause a -A",
            "rootstock rollout pause a --wait=0",
            "rootstock rollout pause a --wait=4000",
            "rootstock rollout pause a --wait --dry-run",
        ] {
            let refused = parse(line).unwrap_err();
            // A bare word shows the help, and is wrong all the same.
            assert_eq!(refused.exit_code(), 2, "{line}: {refused}");
        }
    }

    #[test]
    fn a_wait_has_a_bound_of_its_own_or_the_usual_one() {
        for (flag, want) in [("", None), ("--wait", Some(60)), ("--wait=5", Some(5))] {
            let args = parse(&format!("rootstock rollout retry a b {flag} --context c")).unwrap();
            assert_eq!(args.connection.context.as_deref(), Some("c"));
            let Command::Rollout { verb } = args.command else { panic!("{flag}") };
            assert_eq!(verb.command(), Verb::Retry);
            assert_eq!(verb.args().names, ["a", "b"]);
            assert_eq!(verb.args().patience(), want.map(Duration::from_secs), "{flag}");
        }
    }
}
