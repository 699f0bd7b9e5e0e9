//! The controller's flags. Each is an environment variable too.

use std::collections::BTreeSet;
use std::hash::{BuildHasher as _, RandomState};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use clap::Parser;
use rootstock_core::path::BinaryPath;
use rootstock_core::provider::How;
use rootstock_daemon::telemetry;

use crate::objects::proxy::ProxyUrl;

const EXAMPLES: &str = "\
Examples:
  # In a seed, with the chart's configuration
  rootstock-controller --config /etc/rootstock/config.yaml --namespace extension-rootstock

  # On a laptop, against the cluster of the current kubeconfig, for every type
  rootstock-controller --config config.yaml --kubeconfig ~/.kube/config \\
      --listen 127.0.0.1:8443 --admin-listen 127.0.0.1:8080 --types '*'

A configuration names registries, and a bundle for each runtime type:
  registries: [{name: main, url: https://registry.example}]
  runtimes:
    - {type: gvisor, bundle: \"main/rootstock/gvisor:20260905.0\",
       runtimeClasses: [{name: gvisor, handler: runsc}]}";

/// Brings container runtimes to the nodes of many clusters: reconciles
/// ContainerRuntime resources and tells each node's agent what it should have.
#[derive(Clone, Debug, Parser)]
#[command(name = "rootstock-controller", version, after_help = EXAMPLES)]
pub struct Args {
    /// The configuration: registries and runtime types, as YAML.
    ///
    /// It is read again when it changes; one that can't be read is reported
    /// and the last good one stays in use.
    #[arg(long, env = "ROOTSTOCK_CONFIG", value_name = "FILE")]
    pub config: PathBuf,

    /// The kubeconfig of the seed. In a Pod the ServiceAccount is used instead.
    #[arg(long, env = "ROOTSTOCK_KUBECONFIG", value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// The controller's own namespace, where the registries' credentials are.
    #[arg(
        long,
        env = "ROOTSTOCK_NAMESPACE",
        value_name = "NAME",
        default_value = "extension-rootstock"
    )]
    pub namespace: String,

    /// The runtime types to look after, separated by commas: the types of the
    /// configuration where none is named, every type with '*'.
    ///
    /// ContainerRuntimes of other types belong to other extensions and are
    /// left alone. Where no type is named, one that was worked on is not given
    /// up when its type leaves the configuration: its nodes keep what they have.
    #[arg(
        long,
        env = "ROOTSTOCK_TYPES",
        value_name = "TYPES",
        default_value = "",
        hide_default_value = true
    )]
    pub types: Types,

    /// The extension classes to look after, separated by commas. A resource
    /// without a class has the class 'shoot'.
    #[arg(
        long,
        env = "ROOTSTOCK_CLASSES",
        value_name = "CLASSES",
        value_delimiter = ',',
        default_value = "shoot"
    )]
    pub classes: Vec<String>,

    /// Which clusters are looked after: the shoots of a Gardener 'seed', or the
    /// 'local' cluster alone, which needs no Gardener. There ContainerRuntimes
    /// are created by people, in the controller's own namespace.
    #[arg(
        long,
        env = "ROOTSTOCK_CLUSTER",
        value_name = "KIND",
        default_value = "seed",
        value_enum
    )]
    pub cluster: ClusterKind,

    /// Reconcile when a resource or its Cluster changes, and do not wait for
    /// Gardener's annotation gardener.cloud/operation.
    #[arg(long, env = "ROOTSTOCK_IGNORE_OPERATION_ANNOTATION", num_args = 0..=1,
        default_value_t = false, default_missing_value = "true", value_name = "BOOL",
        action = clap::ArgAction::Set)]
    pub ignore_operation_annotation: bool,

    /// What becomes of a providerConfig with fields or flags that the runtime
    /// does not know: 'strict' refuses it, 'warn' passes over them and says so.
    #[arg(
        long,
        env = "ROOTSTOCK_PROVIDER_CONFIG",
        value_name = "HOW",
        default_value = "strict",
        value_enum
    )]
    pub provider_config: ProviderConfig,

    /// The namespace of the Lease by which Gardener sees that this extension
    /// lives; the controller's own where it is not set.
    #[arg(long, env = "ROOTSTOCK_HEARTBEAT_NAMESPACE", value_name = "NAME")]
    pub heartbeat_namespace: Option<String>,

    /// How often that Lease is renewed. Gardener wants it every five minutes at least.
    #[arg(
        long, env = "ROOTSTOCK_HEARTBEAT_RENEW_INTERVAL", value_name = "DURATION",
        default_value = "30s", value_parser = humantime::parse_duration
    )]
    pub heartbeat_renew_interval: std::time::Duration,

    /// The image of the agent that shoots get.
    #[arg(
        long,
        env = "ROOTSTOCK_AGENT_IMAGE",
        value_name = "IMAGE",
        default_value = concat!("rootstock-agent:", env!("CARGO_PKG_VERSION"))
    )]
    pub agent_image: String,

    /// The proxy by which agents reach the endpoint and https registries:
    /// `http://[user:password@]host[:port]`.
    ///
    /// It becomes HTTPS_PROXY of the agent's container, a password included.
    #[arg(long, env = "ROOTSTOCK_AGENT_PROXY", value_name = "URL", hide_env_values = true)]
    pub agent_proxy: Option<ProxyUrl>,

    /// What agents reach without it, separated by commas: hosts, and domains
    /// with all below them. It becomes NO_PROXY.
    #[arg(long, env = "ROOTSTOCK_AGENT_NO_PROXY", value_name = "LIST")]
    pub agent_no_proxy: Option<String>,

    /// The port under which agents reach the endpoint from outside.
    #[arg(long, env = "ROOTSTOCK_ENDPOINT_PORT", value_name = "PORT", default_value_t = 443)]
    pub endpoint_port: u16,

    /// The address for agents (gRPC over TLS).
    #[arg(long, env = "ROOTSTOCK_LISTEN", value_name = "ADDRESS", default_value = "[::]:8443")]
    pub listen: SocketAddr,

    /// The address for /healthz, /readyz and /status (plain HTTP; keep it inside the cluster).
    #[arg(
        long,
        env = "ROOTSTOCK_ADMIN_LISTEN",
        value_name = "ADDRESS",
        default_value = "127.0.0.1:8080"
    )]
    pub admin_listen: SocketAddr,

    /// The domain below which shoots' endpoints lie, in place of the seed's ingress domain.
    #[arg(long, env = "ROOTSTOCK_ENDPOINT_DOMAIN", value_name = "DOMAIN")]
    pub endpoint_domain: Option<String>,

    /// How agents come in from outside of a seed: 'istio' gives each shoot a
    /// route through the seed's Istio, 'none' leaves that to somebody else.
    ///
    /// In a plain cluster agents need no route and get none.
    #[arg(
        long,
        env = "ROOTSTOCK_INGRESS",
        value_name = "HOW",
        default_value = "istio",
        value_enum
    )]
    pub ingress: Ingress,

    /// The Service in the controller's namespace that routes lead to.
    #[arg(
        long,
        env = "ROOTSTOCK_SERVICE_NAME",
        value_name = "NAME",
        default_value = "rootstock-controller"
    )]
    pub service_name: String,

    /// The port of that Service.
    #[arg(long, env = "ROOTSTOCK_SERVICE_PORT", value_name = "PORT", default_value_t = 8443)]
    pub service_port: u16,

    /// The folders below which a binaryPath may lie, separated by commas.
    #[arg(
        long,
        env = "ROOTSTOCK_BINARY_ROOTS",
        value_name = "PATHS",
        value_delimiter = ',',
        default_value = "/var/bin,/opt/rootstock"
    )]
    pub binary_roots: Vec<BinaryPath>,

    /// The namespace of the Lease rootstock-controller, by which one of several
    /// controllers leads; the controller's own where it is not set.
    #[arg(long, env = "ROOTSTOCK_LEADER_ELECTION_NAMESPACE", value_name = "NAME")]
    pub leader_election_namespace: Option<String>,

    /// How long a leader that is silent is respected. It renews its Lease after
    /// 2/15 of that time and stops acting after 2/3.
    #[arg(
        long, env = "ROOTSTOCK_LEASE_DURATION", value_name = "DURATION", default_value = "15s",
        value_parser = lease_duration
    )]
    pub lease_duration: std::time::Duration,

    /// The Pod that this process runs in: it is marked while it serves agents,
    /// so that the Service finds it. Without a Pod nothing is marked.
    #[arg(long, env = "ROOTSTOCK_POD", value_name = "NAME")]
    pub pod: Option<String>,

    /// The name under which the controller stands for election: the Pod's where
    /// it is not set, else one that is made up at each start.
    ///
    /// A process takes a Lease of its own name over at once, so no two that may
    /// run at one time share it.
    #[arg(long, env = "ROOTSTOCK_IDENTITY", value_name = "NAME")]
    pub identity: Option<String>,

    /// How many ContainerRuntimes are reconciled at once.
    #[arg(
        long, env = "ROOTSTOCK_MAX_CONCURRENT_RECONCILES", value_name = "COUNT", default_value_t = 5,
        value_parser = clap::value_parser!(u16).range(1..=1000)
    )]
    pub max_concurrent_reconciles: u16,

    /// How long the deletion of a ContainerRuntime waits for nodes to confirm
    /// that the runtime is gone. Gardener itself waits three minutes.
    #[arg(
        long, env = "ROOTSTOCK_DELETION_TIMEOUT", value_name = "DURATION", default_value = "2m",
        value_parser = humantime::parse_duration
    )]
    pub deletion_timeout: std::time::Duration,

    /// Where and how logs go.
    #[command(flatten)]
    pub telemetry: telemetry::Args,
}

impl Args {
    /// The name under which the controller stands for election.
    pub(crate) fn identity(&self) -> String {
        let named = self.identity.as_ref().or(self.pod.as_ref());
        named.cloned().unwrap_or_else(|| {
            let host = std::env::var("HOSTNAME").unwrap_or_else(|_| "controller".to_owned());
            // Each is seeded anew by the system.
            format!("{host}_{:016x}", RandomState::new().hash_one(&host))
        })
    }
}

/// Whole seconds, which is what a Lease can say; shorter ones would end for a
/// slow API server.
fn lease_duration(text: &str) -> Result<std::time::Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    match duration.as_secs() {
        seconds @ 3..=300 if duration.subsec_nanos() == 0 => {
            Ok(std::time::Duration::from_secs(seconds))
        }
        _ => Err("want whole seconds from 3s to 5m".to_owned()),
    }
}

/// Which clusters are looked after.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum ClusterKind {
    /// The shoots of a Gardener seed.
    Seed,
    /// The cluster that the controller runs in.
    Local,
}

/// How agents come in from outside of a seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Ingress {
    /// Through the seed's Istio.
    Istio,
    /// By a way that somebody else makes.
    None,
}

/// What becomes of what a runtime does not know in a providerConfig.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum ProviderConfig {
    /// It is refused.
    Strict,
    /// It is passed over, and named in an Event and a condition.
    Warn,
}

impl From<ProviderConfig> for How {
    fn from(how: ProviderConfig) -> Self {
        match how {
            ProviderConfig::Strict => Self::Strict,
            ProviderConfig::Warn => Self::Warn,
        }
    }
}

/// Which runtime types are looked after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Types {
    /// Those of the configuration.
    Configured,
    /// All of them.
    Every,
    /// These.
    Only(BTreeSet<String>),
}

impl FromStr for Types {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "" => Self::Configured,
            "*" => Self::Every,
            list => Self::Only(list.split(',').map(|name| name.trim().to_owned()).collect()),
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn every_flag_is_explained_and_an_environment_variable() {
        let command = Args::command();
        command.clone().debug_assert();
        for flag in command.get_arguments() {
            let name = flag.get_id().as_str();
            assert!(flag.get_help().is_some(), "{name} has no help");
            let variable = flag.get_env().and_then(|name| name.to_str()).unwrap_or_default();
            assert!(variable.starts_with("ROOTSTOCK_"), "{name} has no variable");
        }
    }

    #[test]
    fn a_lease_lasts_whole_seconds() {
        assert_eq!(lease_duration("15s"), Ok(std::time::Duration::from_secs(15)));
        for bad in ["2s", "1500ms", "10m", "soon", ""] {
            assert!(lease_duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_candidate_has_a_name_of_its_own() {
        let args = |more: &[&str]| {
            let fixed = ["rootstock-controller", "--config", "c"];
            Args::try_parse_from(fixed.iter().chain(more)).unwrap()
        };
        assert_ne!(args(&[]).identity(), args(&[]).identity());
        assert_eq!(args(&["--pod", "p-1"]).identity(), "p-1");
        assert_eq!(args(&["--pod", "p-1", "--identity", "me"]).identity(), "me");
    }

    #[test]
    fn types_are_named_or_all_or_the_configured_ones() {
        assert_eq!("".parse(), Ok(Types::Configured));
        assert_eq!("*".parse(), Ok(Types::Every));
        let only = ["gvisor".to_owned(), "kata".to_owned()].into();
        assert_eq!("gvisor, kata".parse(), Ok(Types::Only(only)));
    }
}
