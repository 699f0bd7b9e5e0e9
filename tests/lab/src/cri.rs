//! Pods through containerd's CRI, as the kubelet starts them.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use prost::Message;
use tokio::net::UnixStream;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic_prost::ProstCodec;

use crate::images::TEST;

/// How long a call may take; a first start of gVisor on a busy machine takes seconds.
const PATIENCE: Duration = Duration::from_secs(90);

#[derive(Clone, PartialEq, Message)]
struct Metadata {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    uid: String,
    #[prost(string, tag = "3")]
    namespace: String,
}

#[derive(Clone, PartialEq, Message)]
struct SandboxConfig {
    #[prost(message, optional, tag = "1")]
    metadata: Option<Metadata>,
    #[prost(string, tag = "2")]
    hostname: String,
    #[prost(message, optional, tag = "8")]
    linux: Option<LinuxSandbox>,
}

#[derive(Clone, PartialEq, Message)]
struct LinuxSandbox {}

#[derive(Clone, PartialEq, Message)]
struct RunPodSandbox {
    #[prost(message, optional, tag = "1")]
    config: Option<SandboxConfig>,
    #[prost(string, tag = "2")]
    handler: String,
}

/// An answer or a question of one text: an ID.
#[derive(Clone, PartialEq, Message)]
struct Id {
    #[prost(string, tag = "1")]
    id: String,
}

#[derive(Clone, PartialEq, Message)]
struct ContainerName {
    #[prost(string, tag = "1")]
    name: String,
}

#[derive(Clone, PartialEq, Message)]
struct ContainerConfig {
    #[prost(message, optional, tag = "1")]
    metadata: Option<ContainerName>,
    #[prost(message, optional, tag = "2")]
    image: Option<Id>,
    #[prost(string, repeated, tag = "3")]
    command: Vec<String>,
    #[prost(message, optional, tag = "15")]
    linux: Option<LinuxSandbox>,
}

#[derive(Clone, PartialEq, Message)]
struct CreateContainer {
    #[prost(string, tag = "1")]
    sandbox: String,
    #[prost(message, optional, tag = "2")]
    config: Option<ContainerConfig>,
    #[prost(message, optional, tag = "3")]
    pod: Option<SandboxConfig>,
}

#[derive(Clone, PartialEq, Message)]
struct ExecSync {
    #[prost(string, tag = "1")]
    container: String,
    #[prost(string, repeated, tag = "2")]
    command: Vec<String>,
    #[prost(int64, tag = "3")]
    timeout: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Executed {
    #[prost(bytes = "vec", tag = "1")]
    stdout: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    stderr: Vec<u8>,
    #[prost(int32, tag = "3")]
    code: i32,
}

#[derive(Clone, PartialEq, Message)]
struct Nothing {}

/// containerd's CRI in a node.
#[derive(Clone, Debug)]
pub(crate) struct Cri(pub(crate) PathBuf);

/// A pod with one container.
#[derive(Debug)]
pub(crate) struct Pod {
    sandbox: String,
    container: String,
    config: SandboxConfig,
    cri: Cri,
}

impl Cri {
    /// Starts a pod with a handler and a container in it.
    pub(crate) async fn pod(&self, name: &str, handler: &str) -> anyhow::Result<Pod> {
        let now = SystemTime::UNIX_EPOCH.elapsed()?.as_nanos();
        let metadata = Metadata {
            name: name.to_owned(),
            uid: format!("{name}-{now}"),
            namespace: "default".to_owned(),
        };
        let config = SandboxConfig {
            metadata: Some(metadata),
            hostname: name.to_owned(),
            linux: Some(LinuxSandbox {}),
        };
        let ask = RunPodSandbox { config: Some(config.clone()), handler: handler.to_owned() };
        let sandbox: Id = self.call("RunPodSandbox", ask).await?;
        let (cri, sandbox) = (self.clone(), sandbox.id);
        let mut pod = Pod { sandbox, container: String::new(), config, cri };
        pod.container = pod.start("first").await?;
        Ok(pod)
    }

    /// Waits until containerd answers. Its plugins come up one by one: only a
    /// question about pods says that their part is there.
    pub(crate) async fn up(&self, limit: Duration) -> anyhow::Result<()> {
        let mut last = None;
        let asking = async {
            loop {
                let answer: anyhow::Result<Nothing> = self.call("ListPodSandbox", Nothing {}).await;
                let Err(error) = answer else { return };
                last = Some(error);
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        let asked = tokio::time::timeout(limit, asking).await;
        asked.with_context(|| format!("containerd does not come up: {last:?}"))
    }

    async fn call<A, B>(&self, method: &str, ask: A) -> anyhow::Result<B>
    where
        A: Message + Send + Sync + 'static,
        B: Message + Default + Send + Sync + 'static,
    {
        let socket = self.0.clone();
        let work = async {
            let connector = tower_service_fn(socket);
            let channel: Channel = Endpoint::from_static("http://containerd")
                .connect_with_connector(connector)
                .await?;
            let mut grpc = Grpc::new(channel);
            grpc.ready().await?;
            let path = PathAndQuery::try_from(format!("/runtime.v1.RuntimeService/{method}"))?;
            let codec = ProstCodec::<A, B>::default();
            let answer = grpc.unary(tonic::Request::new(ask), path, codec).await;
            answer.map(tonic::Response::into_inner).map_err(|status| {
                anyhow::anyhow!("{method}: {:?}: {}", status.code(), status.message())
            })
        };
        tokio::time::timeout(PATIENCE, work).await.with_context(|| format!("{method} hangs"))?
    }
}

impl Pod {
    /// Starts one more container; its ID.
    pub(crate) async fn start(&self, name: &str) -> anyhow::Result<String> {
        let ask = CreateContainer {
            sandbox: self.sandbox.clone(),
            config: Some(ContainerConfig {
                metadata: Some(ContainerName { name: name.to_owned() }),
                image: Some(Id { id: TEST.to_owned() }),
                command: vec!["/bin/sleep".to_owned(), "1000000".to_owned()],
                linux: Some(LinuxSandbox {}),
            }),
            pod: Some(self.config.clone()),
        };
        let container: Id = self.cri.call("CreateContainer", ask).await?;
        let _: Nothing = self.cri.call("StartContainer", container.clone()).await?;
        Ok(container.id)
    }

    /// What a command in its first container prints.
    pub(crate) async fn exec(&self, command: &[&str]) -> anyhow::Result<String> {
        let command = command.iter().map(|part| (*part).to_owned()).collect();
        let ask = ExecSync { container: self.container.clone(), command, timeout: 30 };
        let done: Executed = self.cri.call("ExecSync", ask).await?;
        anyhow::ensure!(done.code == 0, "exec: {}", String::from_utf8_lossy(&done.stderr));
        Ok(String::from_utf8_lossy(&done.stdout).trim().to_owned())
    }

    /// The pod sandbox's ID.
    pub(crate) fn sandbox(&self) -> &str {
        &self.sandbox
    }

    /// Ends it.
    pub(crate) async fn end(self) -> anyhow::Result<()> {
        let id = Id { id: self.sandbox };
        let _: Nothing = self.cri.call("StopPodSandbox", id.clone()).await?;
        let _: Nothing = self.cri.call("RemovePodSandbox", id).await?;
        Ok(())
    }
}

/// A connector that goes to a socket, whatever the URL says.
fn tower_service_fn(
    socket: PathBuf,
) -> impl tower_service::Service<
    Uri,
    Response = TokioIo<UnixStream>,
    Error = std::io::Error,
    Future = impl Future<Output = std::io::Result<TokioIo<UnixStream>>> + Send,
> + Send
+ 'static {
    tower::service_fn(move |_: Uri| {
        let socket = socket.clone();
        async move { Ok(TokioIo::new(UnixStream::connect(socket).await?)) }
    })
}
