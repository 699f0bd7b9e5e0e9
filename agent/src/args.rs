//! The agent's flags. Each is an environment variable too.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
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
      --ca-file ca.crt --token-file token";

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
}

/// The flags of `run`.
#[derive(Clone, Debug, Args)]
pub struct RunArgs {
    /// The controller's URL, or the path of a file that holds it.
    ///
    /// The URL begins with https://, and its host picks the shoot. A file is
    /// read again before each connection.
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
        let run = command.find_subcommand("run").unwrap();
        for arg in run.get_arguments().filter(|arg| arg.get_id() != "help") {
            assert!(arg.get_help().is_some(), "{} has no help", arg.get_id());
            let env = arg.get_env().unwrap_or_else(|| panic!("{} is no variable", arg.get_id()));
            assert!(env.to_str().unwrap().starts_with("ROOTSTOCK_"));
        }
    }
}
