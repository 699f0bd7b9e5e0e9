//! A node's kubelet, as far as the agent's Pod needs it: projects its token and
//! its ConfigMap into files, keeps its program running and stops it with the Pod.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, ServiceAccount};
use kube::ResourceExt as _;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::runtime::watcher;
use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::follow::Follow;
use super::objects::{Access, is_not_found, typed};
use super::processes::{LEASH, Process, Processes};
use super::resource_manager::{AGENT, NAMESPACE};
use super::retry::Retry;

/// Whom the agent's token is for.
const AUDIENCE: &str = "rootstock";
/// What the kubelet asks for by default; it renews at four fifths of it.
const TOKEN_LIFETIME: Duration = Duration::from_secs(3600);

/// What one node's kubelet works with.
#[derive(Clone, Debug)]
pub struct Machine {
    /// The Node's name.
    pub node: String,
    /// The node's root.
    pub root: PathBuf,
    /// Where volumes are projected to.
    pub volumes: PathBuf,
    /// The name of the agent's program among the processes.
    pub process: String,
    /// Flags for the agent beside those that every agent gets.
    pub agent_flags: Vec<String>,
}

/// The kubelet of one node.
#[derive(Debug)]
pub struct Kubelet {
    client: Access,
    machine: Machine,
    processes: Processes,
    pods: Follow<Pod>,
    config_maps: Follow<ConfigMap>,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    pod: String,
    uid: String,
    process: Process,
    renew_token: Instant,
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("ask the shoot's API")]
    Api(#[from] kube::Error),
    #[error("project a volume or start the program")]
    Io(#[from] io::Error),
    #[error("get a token: the answer has none")]
    NoToken,
}

impl Kubelet {
    /// Serves the agent's Pod on one node.
    pub fn new(client: Access, machine: Machine, processes: Processes) -> Self {
        let all = watcher::Config::default();
        Self {
            pods: Follow::new(client.within(NAMESPACE), all.clone()),
            config_maps: Follow::new(client.within(NAMESPACE), all),
            client,
            machine,
            processes,
            running: None,
        }
    }

    /// Runs until shut down; the program is left to whoever stops all programs.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut retry = Retry::new("kubelet");
        loop {
            // A followed set keeps what it has received; the others are timers and flags.
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.pods.changed() => {}
                () = self.config_maps.changed() => {}
                () = retry.due() => {}
            }
            if self.pods.synced() && self.config_maps.synced() {
                let result = self.reconcile().await;
                retry.after(result.map_err(|error| format!("{error:?}")));
                if let Some(running) = &self.running {
                    retry.again_in(running.renew_token.saturating_duration_since(Instant::now()));
                }
            }
        }
    }

    async fn reconcile(&mut self) -> Result<(), Error> {
        let mine: Vec<Pod> = self.pods.objects().filter(|pod| self.is_mine(pod)).cloned().collect();
        let (ending, wanted): (Vec<_>, Vec<_>) =
            mine.into_iter().partition(|pod| pod.metadata.deletion_timestamp.is_some());
        let wanted = wanted.into_iter().next();
        let uid = wanted.as_ref().and_then(Pod::uid);
        if let Some(running) = self.running.take_if(|running| Some(&running.uid) != uid.as_ref()) {
            tracing::debug!(pod = running.pod, "stops");
            running.process.stop().await;
        }
        for pod in ending {
            self.confirm_end(&pod).await?;
        }
        match wanted {
            Some(pod) => self.keep(&pod).await,
            None => Ok(()),
        }
    }

    fn is_mine(&self, pod: &Pod) -> bool {
        let spec = pod.spec.as_ref();
        spec.and_then(|spec| spec.node_name.as_ref()) == Some(&self.machine.node)
            && spec.and_then(|spec| spec.service_account_name.as_deref()) == Some(AGENT)
    }

    /// Starts the Pod, or refreshes what was projected into it.
    async fn keep(&mut self, pod: &Pod) -> Result<(), Error> {
        let Some(data) = self.config_maps.named(AGENT).and_then(|map| map.data.clone()) else {
            // The Pod stays in ContainerCreating until its ConfigMap is there.
            return Ok(());
        };
        let volumes = &self.machine.volumes;
        tokio::fs::create_dir_all(volumes).await?;
        for (key, value) in &data {
            project(volumes, key, value.as_bytes()).await?;
        }
        let now = Instant::now();
        if let Some(running) = &mut self.running {
            if running.renew_token > now {
                return Ok(());
            }
            let lifetime = project_token(&self.client, pod, volumes).await?;
            running.renew_token = now + lifetime * 4 / 5;
            return Ok(());
        }
        let lifetime = project_token(&self.client, pod, volumes).await?;
        let process = self.processes.start(&self.machine.process, self.arguments())?;
        self.running = Some(Running {
            pod: pod.name_any(),
            uid: pod.uid().unwrap_or_default(),
            process,
            renew_token: now + lifetime * 4 / 5,
        });
        self.report_running(pod).await
    }

    fn arguments(&self) -> Vec<String> {
        let machine = &self.machine;
        let path = |path: PathBuf| path.display().to_string();
        let mut arguments = ["agent", "--simulated", LEASH].map(str::to_owned).to_vec();
        for (flag, value) in [
            ("--endpoint", path(machine.volumes.join("endpoint"))),
            ("--ca-file", path(machine.volumes.join("ca.crt"))),
            ("--token-file", path(machine.volumes.join("token"))),
            ("--host-root", path(machine.root.clone())),
            // Nothing that is simulated crashes a while after it came up.
            ("--settle-seconds", "0".to_owned()),
        ] {
            arguments.extend([flag.to_owned(), value]);
        }
        arguments.extend(machine.agent_flags.iter().cloned());
        arguments
    }

    async fn report_running(&self, pod: &Pod) -> Result<(), Error> {
        let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let condition =
            |kind: &str| json!({"type": kind, "status": "True", "lastTransitionTime": now});
        let conditions = ["PodScheduled", "Initialized", "ContainersReady", "Ready"].map(condition);
        let status = json!({"status": {
            "phase": "Running", "startTime": now, "conditions": conditions,
            "containerStatuses": [{
                "name": "agent", "image": "rootstock-agent:playground", "imageID": "",
                "ready": true, "started": true, "restartCount": 0,
                "state": {"running": {"startedAt": now}},
            }],
        }});
        let api = self.client.within::<Pod>(NAMESPACE);
        api.patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Merge(status)).await?;
        Ok(())
    }

    /// Tells the API that nothing of the Pod runs any more, so that it can go.
    async fn confirm_end(&self, pod: &Pod) -> Result<(), Error> {
        let api = self.client.within::<Pod>(NAMESPACE);
        let parameters = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
        match api.delete(&pod.name_any(), &parameters).await {
            Err(error) if !is_not_found(&error) => Err(error.into()),
            _ => Ok(()),
        }
    }
}

/// Asks for a token that is bound to the Pod and writes it; gives its lifetime.
async fn project_token(client: &Access, pod: &Pod, volumes: &Path) -> Result<Duration, Error> {
    let request: TokenRequest = typed(json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "metadata": {},
        "spec": {
            "audiences": [AUDIENCE],
            "expirationSeconds": TOKEN_LIFETIME.as_secs(),
            "boundObjectRef": {
                "apiVersion": "v1", "kind": "Pod", "name": pod.name_any(), "uid": pod.uid(),
            },
        },
    }))?;
    let accounts = client.within::<ServiceAccount>(NAMESPACE);
    let answer = accounts.create_token_request(AGENT, &PostParams::default(), &request).await?;
    let status = answer.status.ok_or(Error::NoToken)?;
    project(volumes, "token", status.token.as_bytes()).await?;
    let left = status.expiration_timestamp.0.duration_since(Timestamp::now());
    Ok(Duration::try_from(left).unwrap_or_default().min(TOKEN_LIFETIME))
}

/// Writes a projected file so that a reader sees the old or the new one, whole.
async fn project(volumes: &Path, name: &str, content: &[u8]) -> io::Result<()> {
    let path = volumes.join(name);
    if tokio::fs::read(&path).await.is_ok_and(|known| known == content) {
        return Ok(());
    }
    let next = volumes.join(format!(".{name}.next"));
    tokio::fs::write(&next, content).await?;
    tokio::fs::rename(&next, &path).await
}
