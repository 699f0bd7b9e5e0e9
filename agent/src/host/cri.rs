//! The few calls of CRI that the agent makes, with the fields that it reads.
//!
//! Messages are written by hand: the whole of CRI is ten thousand generated
//! lines, and protobuf passes over fields that are not named here.

mod message;
mod proof;
#[cfg(test)]
mod real;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::Uri;
use http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use rootstock_core::layout::HandlerTable;
use rootstock_core::name::HandlerName;
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::net::UnixStream;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;
use tower_service::Service;

use super::{HostError, Sandbox};
use message::{
    ContainerFilter, ListContainersRequest, ListContainersResponse, ListPodSandboxRequest,
    ListPodSandboxResponse, PodSandbox, PodSandboxMetadata, PodSandboxStatusRequest,
    PodSandboxStatusResponse, StatusRequest, StatusResponse, VersionRequest, VersionResponse,
};

/// How long containerd may take to answer: it does so in milliseconds, but a
/// node under load takes its time.
const PATIENCE: Duration = Duration::from_secs(10);
/// The service that nearly every call belongs to.
const RUNTIME: &str = "runtime.v1.RuntimeService";
/// The largest answer, in bytes: kubelet's own limit.
const MAX_ANSWER: usize = 16 << 20;

/// containerd's CRI, over its socket. Each call makes a connection of its own:
/// one that is kept goes stale when containerd restarts.
#[derive(Debug)]
pub(super) struct Cri {
    socket: PathBuf,
}

type Handlers = BTreeMap<HandlerName, Option<HandlerTable>>;

impl Cri {
    pub(super) fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// containerd's version.
    pub(super) async fn version(&self) -> Result<String, HostError> {
        let ask = VersionRequest { version: "v1".to_owned() };
        let answer: VersionResponse = self.call("Version", ask).await?;
        Ok(answer.runtime_version)
    }

    /// The handlers that containerd lists, with the tables that it started with.
    pub(super) async fn handlers(&self) -> Result<Handlers, HostError> {
        let answer: StatusResponse = self.call("Status", StatusRequest { verbose: true }).await?;
        Ok(handlers(&answer))
    }

    /// All pod sandboxes but our own.
    pub(super) async fn sandboxes(&self) -> Result<Vec<Sandbox>, HostError> {
        let answer: ListPodSandboxResponse =
            self.call("ListPodSandbox", ListPodSandboxRequest::default()).await?;
        let sandbox = |item: PodSandbox| {
            let PodSandbox { id, metadata, runtime_handler, .. } = item;
            let PodSandboxMetadata { name, namespace, .. } = metadata.unwrap_or_default();
            // A handler that is no name of ours can't be one of ours.
            Sandbox {
                id,
                pod: format!("{namespace}/{name}"),
                handler: runtime_handler.parse().ok(),
            }
        };
        let pods = answer.items.into_iter().filter(|item| !proof::is_proof(&item.labels));
        Ok(pods.map(sandbox).collect())
    }

    /// The containers of a sandbox, those that ended too.
    pub(super) async fn containers_of(&self, id: &str) -> Result<Vec<String>, HostError> {
        let filter = ContainerFilter { pod_sandbox_id: id.to_owned() };
        let ask = ListContainersRequest { filter: Some(filter) };
        let answer: ListContainersResponse = self.call("ListContainers", ask).await?;
        Ok(answer.containers.into_iter().map(|container| container.id).collect())
    }

    /// The paths that the options of a sandbox's runtime name.
    pub(super) async fn paths_of(&self, id: &str) -> Result<BTreeSet<String>, HostError> {
        let ask = PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose: true };
        let answer: PodSandboxStatusResponse = self.call("PodSandboxStatus", ask).await?;
        Ok(option_paths(&answer.info))
    }

    async fn call<A, B>(&self, method: &'static str, ask: A) -> Result<B, HostError>
    where
        A: prost::Message + Send + Sync + 'static,
        B: prost::Message + Default + Send + Sync + 'static,
    {
        let answer = self.try_call(RUNTIME, method, ask, PATIENCE).await;
        answer.map_err(|error| self.unavailable(method, error))
    }

    /// A call whose failure may be an answer in itself.
    async fn try_call<A, B>(
        &self,
        service: &'static str,
        method: &'static str,
        ask: A,
        limit: Duration,
    ) -> Result<B, CallError>
    where
        A: prost::Message + Send + Sync + 'static,
        B: prost::Message + Default + Send + Sync + 'static,
    {
        let work = async {
            let channel = connect(&self.socket).await?;
            let mut grpc = Grpc::new(channel).max_decoding_message_size(MAX_ANSWER);
            grpc.ready().await?;
            let path = PathAndQuery::try_from(format!("/{service}/{method}"))
                .map_err(|error| CallError::Refused(tonic::Status::internal(error.to_string())))?;
            let codec = ProstCodec::<A, B>::default();
            let answer = grpc.unary(tonic::Request::new(ask), path, codec).await?;
            Ok(answer.into_inner())
        };
        tokio::time::timeout(limit, work).await.unwrap_or(Err(CallError::Late(limit)))
    }

    fn unavailable(&self, method: &str, error: CallError) -> HostError {
        let what = format!("ask containerd ({}, {method})", self.socket.display());
        HostError::Unavailable { what, source: Box::new(error) }
    }
}

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
enum CallError {
    #[error("its socket does not answer")]
    Socket(#[from] tonic::transport::Error),
    #[error("{}", .0.message())]
    Refused(#[from] tonic::Status),
    #[error("no answer within {0:?}")]
    Late(Duration),
}

async fn connect(socket: &Path) -> Result<Channel, tonic::transport::Error> {
    // A URL that is never looked at: the socket is what counts.
    let endpoint = Endpoint::from_static("http://containerd");
    endpoint.connect_with_connector(Connector(socket.to_owned())).await
}

struct Connector(PathBuf);

impl Service<Uri> for Connector {
    type Response = TokioIo<UnixStream>;
    type Error = io::Error;
    type Future = std::pin::Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let socket = self.0.clone();
        Box::pin(async move { Ok(TokioIo::new(UnixStream::connect(socket).await?)) })
    }
}

/// What `info["config"]` of a verbose status says of runtimes.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Config {
    containerd: Option<ConfigContainerd>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ConfigContainerd {
    runtimes: Option<BTreeMap<String, ConfigRuntime>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ConfigRuntime {
    #[serde(rename = "runtimeType")]
    runtime_type: String,
    #[serde(rename = "runtimePath")]
    runtime_path: String,
    #[serde(rename = "PodAnnotations")]
    pod_annotations: Option<Vec<String>>,
    #[serde(rename = "privileged_without_host_devices")]
    privileged_without_host_devices: bool,
    options: Option<Map<String, Value>>,
}

fn handlers(answer: &StatusResponse) -> Handlers {
    let config = answer.info.get("config").map(|text| serde_json::from_str::<Config>(text));
    let config = match config {
        Some(Ok(config)) => config,
        Some(Err(error)) => {
            tracing::debug!(%error, "containerd's own configuration can't be read");
            Config::default()
        }
        None => Config::default(),
    };
    let runtimes = config.containerd.and_then(|c| c.runtimes).unwrap_or_default();
    let mut tables: Handlers = runtimes
        .into_iter()
        .filter_map(|(name, runtime)| Some((name.parse().ok()?, Some(table(runtime)))))
        .collect();
    // containerd before 1.7 lists none; then its configuration has to do.
    if !answer.runtime_handlers.is_empty() {
        let listed = answer.runtime_handlers.iter().filter_map(|handler| handler.name.parse().ok());
        tables = listed
            .map(|name| {
                let table = tables.remove(&name).flatten();
                (name, table)
            })
            .collect();
    }
    tables
}

/// What `info["info"]` of a sandbox's verbose status says of its runtime.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct SandboxInfo {
    runtime_options: Value,
}

fn option_paths(info: &HashMap<String, String>) -> BTreeSet<String> {
    let info = info.get("info").map(|text| serde_json::from_str::<SandboxInfo>(text));
    let options = match info {
        Some(Ok(info)) => info.runtime_options,
        Some(Err(error)) => {
            tracing::debug!(%error, "what containerd tells of a sandbox can't be read");
            Value::Null
        }
        None => Value::Null,
    };
    let mut paths = BTreeSet::new();
    collect_paths(&options, &mut paths);
    paths
}

fn collect_paths(value: &Value, into: &mut BTreeSet<String>) {
    match value {
        Value::String(text) if text.starts_with('/') => {
            into.insert(text.clone());
        }
        Value::Array(items) => items.iter().for_each(|item| collect_paths(item, into)),
        Value::Object(map) => map.values().for_each(|item| collect_paths(item, into)),
        Value::String(_) | Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn table(runtime: ConfigRuntime) -> HandlerTable {
    HandlerTable {
        runtime_type: runtime.runtime_type,
        runtime_path: runtime.runtime_path,
        options: runtime.options.unwrap_or_default(),
        pod_annotations: runtime.pod_annotations.unwrap_or_default(),
        privileged_without_host_devices: runtime.privileged_without_host_devices,
    }
}

#[cfg(test)]
mod tests {
    use super::message::RuntimeHandler;
    use super::*;

    /// As containerd 2.1 says it, without what is of no interest here.
    const INFO: &str = r#"{"containerd":{"defaultRuntimeName":"runc","runtimes":{
        "runc":{"runtimeType":"io.containerd.runc.v2","runtimePath":"","PodAnnotations":null,"options":{"SystemdCgroup":true}},
        "runsc":{"runtimeType":"io.containerd.runsc.v1","runtimePath":"/x/shim","PodAnnotations":["a"],"ContainerAnnotations":null,
                 "options":{"TypeUrl":"t","ConfigPath":"/x/runsc.toml"},"privileged_without_host_devices":true,"sandboxer":"podsandbox"}}}}"#;

    fn answer(listed: &[&str], info: &[(&str, &str)]) -> StatusResponse {
        StatusResponse {
            info: info.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            runtime_handlers: listed
                .iter()
                .map(|name| RuntimeHandler { name: (*name).to_owned() })
                .collect(),
            ..StatusResponse::default()
        }
    }

    #[test]
    fn handlers_come_with_the_tables_that_containerd_started_with() {
        let seen = handlers(&answer(&["", "runc", "runsc", "other"], &[("config", INFO)]));
        let names: Vec<_> = seen.keys().map(HandlerName::as_str).collect();
        assert_eq!(names, ["other", "runc", "runsc"]);
        assert_eq!(seen[&"other".parse().unwrap()], None);
        let runsc = seen[&"runsc".parse().unwrap()].clone().unwrap();
        assert_eq!(runsc.runtime_path, "/x/shim");
        assert_eq!(runsc.options["ConfigPath"], "/x/runsc.toml");
        assert!(runsc.privileged_without_host_devices);
        assert_eq!(runsc.pod_annotations, ["a"]);
    }

    #[test]
    fn a_sandbox_tells_what_its_options_name() {
        let info = r#"{"pid":7,"runtimeHandler":"runsc","runtimeType":"io.containerd.runsc.v1",
            "runtimeOptions":{"type_url":"io.containerd.runsc.v1.options","config_path":"/etc/containerd/runsc.toml"},
            "config":{"log_directory":"/var/log/pods/x"}}"#;
        let of = |text: &str| option_paths(&[("info".to_owned(), text.to_owned())].into());
        assert_eq!(of(info), ["/etc/containerd/runsc.toml".to_owned()].into());
        for text in ["{}", "{", r#"{"runtimeOptions":null}"#] {
            assert!(of(text).is_empty(), "{text}");
        }
    }

    #[test]
    fn an_old_containerd_or_one_that_says_nothing_is_no_error() {
        assert_eq!(handlers(&answer(&[], &[("config", INFO)])).len(), 2);
        assert_eq!(handlers(&answer(&["runc"], &[])), [("runc".parse().unwrap(), None)].into());
        assert_eq!(handlers(&answer(&["runc"], &[("config", "{")])).len(), 1);
    }
}
