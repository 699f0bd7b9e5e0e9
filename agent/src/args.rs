//! The agent's flags. Each is an environment variable too.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use rootstock_core::path::{BinaryPath, BinaryRoots};
use rootstock_daemon::telemetry;

use crate::link::EndpointSource;

const EXAMPLES: &str = "\
Examples:
  # As the DaemonSet runs it
  rootstock-agent run --endpoint /etc/rootstock/endpoint --ca-file /etc/rootstock/ca.crt \\
      --token-file /var/run/secrets/rootstock/token

  # On a node by hand, with its own root
  rootstock-agent run --host-root / --endpoint https://rs-garden--one.ingress.example \\
      --ca-file ca.crt --token-file token

HTTPS_PROXY=http://[user:password@]host[:port] is the proxy for the endpoint and
for https registries, and NO_PROXY=host,.domain,… is what is reached without it.";

const PREFLIGHT_EXAMPLES: &str = "\
Examples:
  # On a node by hand
  rootstock-agent preflight --host-root /

  # In the agent's Pod, for a program to read
  kubectl -n kube-system exec AGENT-POD -- rootstock-agent preflight --output json

Ends with 0 where everything is supported, and with 1 where something is not.";

const PLAN_EXAMPLES: &str = "\
Examples:
  # In the agent's Pod
  kubectl -n kube-system exec ds/rootstock-agent -- /rootstock-agent plan

  # On a node by hand
  rootstock-agent plan --host-root / --output json";

const REPORT_EXAMPLES: &str = "\
Examples:
  kubectl -n kube-system exec rootstock-agent-x2k4f -- /rootstock-agent report > node.json";

/// Puts container runtimes onto this node, as Rootstock's controller has it.
#[derive(Debug, Parser)]
#[command(name = "rootstock-agent", version)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Hold a stream to the controller and make the node what it says, until SIGTERM.
    #[command(after_help = EXAMPLES)]
    Run(RunArgs),
    /// Say what is on this node and whether its runtimes can work here; change nothing.
    #[command(after_help = PREFLIGHT_EXAMPLES)]
    Preflight(NodeArgs),
    /// Print what would change on this node now, and change nothing.
    #[command(after_help = PLAN_EXAMPLES)]
    Plan(NodeArgs),
    /// Print what a support case needs of this node, as JSON without secrets.
    #[command(after_help = REPORT_EXAMPLES)]
    Report(NodeArgs),
}

/// How something is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Text,
    /// For scripts.
    Json,
}

/// The flags of what only looks at a node.
#[derive(Clone, Debug, Args)]
pub struct NodeArgs {
    /// Where the node's root is for this process.
    #[arg(long, env = "ROOTSTOCK_HOST_ROOT", value_name = "DIR", default_value = "/host")]
    pub host_root: PathBuf,

    /// The agent's own folder, by its path on the node.
    #[arg(
        long,
        env = "ROOTSTOCK_STATE_DIR",
        value_name = "DIR",
        default_value = "/var/lib/rootstock"
    )]
    pub state_dir: BinaryPath,

    /// The folders on the node below which a binaryPath may lie, with commas
    /// between them.
    #[arg(
        long,
        env = "ROOTSTOCK_BINARY_ROOTS",
        value_name = "DIR,…",
        value_delimiter = ',',
        default_values = ["/var/bin", "/opt/rootstock"]
    )]
    pub binary_roots: Vec<BinaryPath>,

    /// How it is printed.
    #[arg(long, short, env = "ROOTSTOCK_OUTPUT", value_enum, default_value = "text")]
    pub output: Output,
}

impl NodeArgs {
    /// The folders below which a binaryPath may lie.
    pub fn roots(&self) -> BinaryRoots {
        BinaryRoots::new(self.binary_roots.clone())
    }
}

/// The flags of `run`.
#[derive(Clone, Debug, Args)]
pub struct RunArgs {
    /// The controller's URL, or the path of a file that holds it.
    ///
    /// The URL begins with https://, and its host picks the shoot. A file is
    /// read again before each connection, and looked at while there is one.
    #[arg(long, env = "ROOTSTOCK_ENDPOINT", value_name = "URL|FILE")]
    pub endpoint: EndpointSource,

    /// The CAs that sign the controller's certificate, as PEM; read again
    /// before each connection.
    #[arg(long, env = "ROOTSTOCK_CA_FILE", value_name = "FILE")]
    pub ca_file: PathBuf,

    /// The projected ServiceAccount token for audience `rootstock`; read only
    /// to enrol.
    #[arg(long, env = "ROOTSTOCK_TOKEN_FILE", value_name = "FILE")]
    pub token_file: PathBuf,

    /// Where the node's root is for this process.
    #[arg(long, env = "ROOTSTOCK_HOST_ROOT", value_name = "DIR", default_value = "/host")]
    pub host_root: PathBuf,

    /// The agent's own folder, by its path on the node.
    #[arg(
        long,
        env = "ROOTSTOCK_STATE_DIR",
        value_name = "DIR",
        default_value = "/var/lib/rootstock"
    )]
    pub state_dir: BinaryPath,

    /// The folders on the node below which a binaryPath may lie, with commas
    /// between them. The DaemonSet mounts these and no others.
    #[arg(
        long,
        env = "ROOTSTOCK_BINARY_ROOTS",
        value_name = "DIR,…",
        value_delimiter = ',',
        default_values = ["/var/bin", "/opt/rootstock"]
    )]
    pub binary_roots: Vec<BinaryPath>,

    /// The most that downloads which are not complete may take of the node's
    /// disk: bytes, or with KiB, MiB, GiB. A larger blob is fetched as one
    /// piece and can't be resumed.
    #[arg(long, env = "ROOTSTOCK_STORE_LIMIT", value_name = "SIZE", default_value = "1GiB", value_parser = size)]
    pub store_limit: u64,

    /// Pull as fast as the network is, and wait for no controller's grants: for
    /// a node that has none. No byte budget counts this node then.
    #[arg(long, env = "ROOTSTOCK_UNGRANTED_PULLS")]
    pub ungranted_pulls: bool,

    /// How long containerd has to stay up after a restart before an activation
    /// is over, in seconds.
    #[arg(long, env = "ROOTSTOCK_SETTLE_SECONDS", value_name = "SECONDS", default_value_t = 10)]
    pub settle_seconds: u32,

    /// Where health and readiness are served (`/healthz`, `/readyz`); nowhere
    /// without it.
    #[arg(long, env = "ROOTSTOCK_ADMIN_LISTEN", value_name = "ADDRESS")]
    pub admin_listen: Option<SocketAddr>,

    #[expect(missing_docs, reason = "a doc comment here would replace the flags' own help")]
    #[command(flatten)]
    pub telemetry: telemetry::Args,
}

impl RunArgs {
    /// The folders below which a binaryPath may lie.
    pub fn roots(&self) -> BinaryRoots {
        BinaryRoots::new(self.binary_roots.clone())
    }
}

/// Bytes from `512`, `512KiB`, `512MiB` or `1GiB`.
fn size(text: &str) -> Result<u64, String> {
    let units = [("GiB", 30), ("MiB", 20), ("KiB", 10), ("", 0)];
    let found = units.iter().find_map(|(unit, shift)| Some((text.strip_suffix(unit)?, shift)));
    let (number, shift) = found.unwrap_or((text, &0));
    number.trim().parse::<u64>().ok().and_then(|number| number.checked_mul(1 << shift)).ok_or_else(
        || "want a number of bytes, with KiB, MiB or GiB behind it or nothing".to_owned(),
    )
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_flags_hold_together() {
        Cli::command().debug_assert();
        for (text, want) in [("7", 7), ("2KiB", 2048), ("1 GiB", 1 << 30)] {
            assert_eq!(size(text), Ok(want));
        }
        for bad in ["", "GiB", "-1", "1GB", "99999999999GiB"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn every_flag_is_explained_and_a_variable_too() {
        let command = Cli::command();
        let arguments = command.get_subcommands().flat_map(|command| command.get_arguments());
        for arg in arguments.filter(|arg| arg.get_id() != "help") {
            assert!(arg.get_help().is_some(), "{} has no help", arg.get_id());
            let env = arg.get_env().unwrap_or_else(|| panic!("{} is no variable", arg.get_id()));
            assert!(env.to_str().unwrap().starts_with("ROOTSTOCK_"));
        }
    }
}
