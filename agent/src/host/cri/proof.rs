//! The proof that a handler works: a pod sandbox of our own, started through
//! CRI and taken away again.
//!
//! containerd lists a handler also where its shim is missing or broken; only a
//! sandbox tells. Whatever becomes of the attempt, the sandbox goes by its
//! label, and what a killed agent left goes with the next attempt.

use std::collections::HashMap;
use std::time::Duration;

use rootstock_core::name::HandlerName;
use serde_json::Value;

use super::message::{
    EndPodSandboxRequest, EndPodSandboxResponse, ImageSpec, ImageStatusRequest,
    ImageStatusResponse, LinuxPodSandboxConfig, LinuxSandboxSecurityContext, ListPodSandboxRequest,
    ListPodSandboxResponse, NamespaceOption, PodSandboxConfig, PodSandboxFilter,
    PodSandboxMetadata, RunPodSandboxRequest, RunPodSandboxResponse, StatusRequest, StatusResponse,
};
use super::{CallError, Cri, RUNTIME};
use crate::host::{HostError, Proof};
use crate::rootfs::random;

/// The label of our own sandboxes.
const LABEL: &str = "rootstock.gardener.cloud/proof";
const IMAGES: &str = "runtime.v1.ImageService";
/// How long a sandbox may take to start: kata with an emulated CPU needs 3 s,
/// and a pause image may have to be pulled first.
const LIMIT: Duration = Duration::from_secs(60);
/// How long all of ours may take to go away: their CNI plugins run again.
const END: Duration = Duration::from_secs(20);
/// How long containerd may take to notice that nobody waits for a sandbox any
/// more: it was seen to do so in milliseconds.
const SETTLE: Duration = Duration::from_secs(2);
/// The most of an error that is passed on, in bytes: shims answer with whole logs.
const MAX_SAID: usize = 1000;

/// Parts of what containerd says when the node lacks what no runtime brings.
/// All are containerd's own words around an error, from 1.6 to 2.x.
const NOT_POSSIBLE: [&str; 5] = [
    "failed to get sandbox image",
    "failed to pull image",
    "failed to setup network for sandbox",
    "failed to set up network for sandbox",
    "cni plugin not initialized",
];

/// Whether these are the labels of one of our own sandboxes.
pub(super) fn is_proof(labels: &HashMap<String, String>) -> bool {
    labels.contains_key(LABEL)
}

impl Cri {
    /// Starts a pod sandbox with a handler and takes it away again.
    pub(in crate::host) async fn prove(&self, handler: &HandlerName) -> Result<Proof, HostError> {
        self.tidy().await;
        let status: StatusResponse = self.call("Status", StatusRequest { verbose: true }).await?;
        if let Some(why) = network_missing(&status) {
            return Ok(Proof::NotPossible(why));
        }
        let image = sandbox_image(&status);
        let pulled = match &image {
            Some(image) => self.has_image(image).await?,
            // Where containerd does not say which image it takes, its error does.
            None => true,
        };
        let parent = self.cgroup_parent(&status).await;
        let ask = request(handler, parent);
        let answer: Result<RunPodSandboxResponse, _> =
            self.try_call(RUNTIME, "RunPodSandbox", ask, LIMIT).await;
        if let Err(CallError::Late(_)) = &answer {
            // Only when its own clean-up ends does containerd list what is left.
            tokio::time::sleep(SETTLE).await;
        }
        // Also after a failure: what timed out may have started since.
        self.tidy().await;
        match answer {
            Ok(started) => {
                tracing::debug!(%handler, sandbox = started.pod_sandbox_id, "a sandbox started");
                Ok(Proof::Started)
            }
            Err(CallError::Late(limit)) if !pulled => Ok(Proof::NotPossible(format!(
                "the pause image {} is not on the node and was not pulled within {limit:?}",
                image.unwrap_or_default()
            ))),
            Err(CallError::Late(limit)) => {
                Ok(Proof::Failed(format!("no pod sandbox started within {limit:?}")))
            }
            Err(CallError::Refused(status)) if ended(status.code()) => {
                Err(self.unavailable("RunPodSandbox", CallError::Refused(status)))
            }
            Err(CallError::Refused(status)) => Ok(judge(status.message())),
            Err(error @ CallError::Socket(_)) => Err(self.unavailable("RunPodSandbox", error)),
        }
    }

    /// Takes away every sandbox that carries our label, as far as that goes:
    /// one that hangs, of whatever handler, keeps no other from being proven.
    async fn tidy(&self) {
        let error = match tokio::time::timeout(END, self.sweep()).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => rootstock_daemon::error::Chain(&error).to_string(),
            Err(_) => format!("not within {END:?}"),
        };
        tracing::warn!(
            error,
            "the sandbox of a proof can't be removed; the next proof tries again"
        );
    }

    /// As `tidy`, with what is in the way.
    async fn sweep(&self) -> Result<(), HostError> {
        let filter = PodSandboxFilter { label_selector: labels() };
        let ask = ListPodSandboxRequest { filter: Some(filter) };
        let answer: ListPodSandboxResponse = self.call("ListPodSandbox", ask).await?;
        let ours = answer.items.into_iter().filter(|item| is_proof(&item.labels));
        for id in ours.map(|item| item.id) {
            let ask = EndPodSandboxRequest { pod_sandbox_id: id };
            // Remove stops by force what Stop could not, so only its word counts.
            let stopped: Result<EndPodSandboxResponse, _> =
                self.try_call(RUNTIME, "StopPodSandbox", ask.clone(), END).await;
            if let Err(error) = stopped {
                tracing::debug!(%error, sandbox = ask.pod_sandbox_id, "a proof's sandbox does not stop");
            }
            let removed: Result<EndPodSandboxResponse, _> =
                self.try_call(RUNTIME, "RemovePodSandbox", ask, END).await;
            removed.map_err(|error| self.unavailable("RemovePodSandbox", error))?;
        }
        Ok(())
    }

    async fn has_image(&self, image: &str) -> Result<bool, HostError> {
        let ask = ImageStatusRequest { image: Some(ImageSpec { image: image.to_owned() }) };
        let answer: Result<ImageStatusResponse, _> =
            self.try_call(IMAGES, "ImageStatus", ask, super::PATIENCE).await;
        let answer = answer.map_err(|error| self.unavailable("ImageStatus", error))?;
        Ok(answer.image.is_some_and(|image| !image.id.is_empty()))
    }

    /// The parent of the sandbox's control group, in the form that runtimes on
    /// this node are made for: a runtime with systemd's driver refuses a path,
    /// and pods of the kubelet show which form it takes.
    async fn cgroup_parent(&self, status: &StatusResponse) -> &'static str {
        if systemd_cgroups(status) {
            return SLICE;
        }
        let pods = match self.sandboxes().await {
            Ok(pods) => pods,
            Err(error) => {
                tracing::debug!(%error, "pods can't be listed; control groups as without them");
                return "";
            }
        };
        // One pod is enough: the kubelet treats all alike.
        let Some(pod) = pods.first() else { return "" };
        let ask = super::PodSandboxStatusRequest { pod_sandbox_id: pod.id.clone(), verbose: true };
        let answer: Result<super::PodSandboxStatusResponse, _> =
            self.call("PodSandboxStatus", ask).await;
        match answer {
            Ok(answer) if in_a_slice(&answer.info) => SLICE,
            Ok(_) => "",
            Err(error) => {
                tracing::debug!(%error, "a pod went while it was looked at");
                ""
            }
        }
    }
}

/// A slice that every node with systemd has.
const SLICE: &str = "system.slice";

fn labels() -> HashMap<String, String> {
    [(LABEL.to_owned(), "true".to_owned())].into()
}

fn request(handler: &HandlerName, cgroup_parent: &str) -> RunPodSandboxRequest {
    let name = format!("rootstock-proof-{handler}");
    // A DNS label has 63 bytes at most, and with them a host name.
    let hostname = name.chars().take(63).collect::<String>();
    let config = PodSandboxConfig {
        metadata: Some(PodSandboxMetadata {
            name,
            uid: format!("rootstock-{:016x}", random()),
            namespace: "kube-system".to_owned(),
        }),
        hostname: hostname.trim_end_matches(['-', '.']).to_owned(),
        labels: labels(),
        linux: Some(LinuxPodSandboxConfig {
            cgroup_parent: cgroup_parent.to_owned(),
            // In a network of its own: gVisor refuses the node's.
            security_context: Some(LinuxSandboxSecurityContext {
                namespace_options: Some(NamespaceOption {}),
            }),
        }),
    };
    RunPodSandboxRequest { config: Some(config), runtime_handler: handler.to_string() }
}

/// Whether containerd itself went away during the call.
fn ended(code: tonic::Code) -> bool {
    matches!(code, tonic::Code::Unavailable | tonic::Code::Cancelled | tonic::Code::Unimplemented)
}

/// What containerd's error on a sandbox says.
fn judge(said: &str) -> Proof {
    let text = shorten(said);
    if NOT_POSSIBLE.iter().any(|part| said.contains(part)) {
        Proof::NotPossible(text)
    } else {
        Proof::Failed(text)
    }
}

/// One line, with beginning and end where it is long: the beginning says which
/// step failed, the end what the runtime said.
fn shorten(said: &str) -> String {
    let line = said.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.len() <= MAX_SAID {
        return line;
    }
    let head = line.floor_char_boundary(MAX_SAID / 2);
    let tail = line.ceil_char_boundary(line.len() - MAX_SAID / 2);
    format!("{} … {}", &line[..head], &line[tail..])
}

/// Why pods can have no network yet.
fn network_missing(status: &StatusResponse) -> Option<String> {
    let conditions = status.status.as_ref().map(|status| status.conditions.as_slice());
    let network = conditions?.iter().find(|condition| condition.r#type == "NetworkReady")?;
    let why = || format!("no network for pods yet ({}: {})", network.reason, network.message);
    (!network.status).then(why)
}

fn config(status: &StatusResponse) -> Option<Value> {
    // What can't be read is passed over, as in `handlers`, which logs it.
    serde_json::from_str(status.info.get("config")?).ok()
}

/// The pause image that containerd takes, where it tells: 1.x does.
fn sandbox_image(status: &StatusResponse) -> Option<String> {
    let image = config(status)?.get("sandboxImage")?.as_str()?.to_owned();
    (!image.is_empty()).then_some(image)
}

/// Whether a runtime on this node asks for systemd's control groups.
fn systemd_cgroups(status: &StatusResponse) -> bool {
    let runtimes = config(status).and_then(|c| c.pointer("/containerd/runtimes").cloned());
    let runtimes = runtimes.as_ref().and_then(Value::as_object);
    runtimes.is_some_and(|runtimes| {
        let asks =
            |runtime: &Value| runtime.pointer("/options/SystemdCgroup") == Some(&Value::Bool(true));
        runtimes.values().any(asks)
    })
}

/// Whether what containerd tells of a pod says that it is in a slice.
fn in_a_slice(info: &HashMap<String, String>) -> bool {
    let info = info.get("info").and_then(|text| serde_json::from_str::<Value>(text).ok());
    let parent = info.as_ref().and_then(|info| info.pointer("/config/linux/cgroup_parent"));
    parent.and_then(Value::as_str).is_some_and(|parent| parent.ends_with(".slice"))
}

#[cfg(test)]
mod tests {
    use super::super::message::{RuntimeCondition, RuntimeStatus};
    use super::*;

    #[test]
    fn an_error_tells_whether_the_runtime_is_to_blame() {
        let not_possible = [
            r#"failed to get sandbox image "registry.k8s.io/pause:3.8": failed to pull image "registry.k8s.io/pause:3.8": failed to resolve"#,
            r#"rpc error: code = Unknown desc = failed to setup network for sandbox "ab": plugin type="calico" failed (add): stat /var/lib/calico/nodename"#,
            "failed to set up network for sandbox: cni plugin not initialized",
        ];
        for text in not_possible {
            assert_eq!(judge(text), Proof::NotPossible(text.to_owned()));
        }
        let failed = [
            r#"failed to create containerd task: failed to create shim task: OCI runtime create failed: creating container: \"x\": unknown"#,
            r#"failed to get sandbox runtime: no runtime for "runsc" is configured"#,
            r#"failed to start sandbox "ab": failed to create containerd task: failed to start shim: fork/exec /x: no such file or directory"#,
        ];
        for text in failed {
            assert_eq!(judge(text), Proof::Failed(text.to_owned()));
        }
    }

    #[test]
    fn a_long_error_keeps_both_ends() {
        let text = format!("begin {} end", "ä\n".repeat(4000));
        let Proof::Failed(said) = judge(&text) else { panic!("{text}") };
        assert!(said.starts_with("begin ") && said.ends_with(" end"), "{said}");
        assert!(said.len() < MAX_SAID + 10 && !said.contains('\n'));
    }

    #[test]
    fn a_status_tells_what_is_missing() {
        let status = |ready: bool, config: &str| StatusResponse {
            status: Some(RuntimeStatus {
                conditions: vec![RuntimeCondition {
                    r#type: "NetworkReady".to_owned(),
                    status: ready,
                    reason: "NetworkPluginNotReady".to_owned(),
                    message: "cni plugin not initialized".to_owned(),
                }],
            }),
            info: [("config".to_owned(), config.to_owned())].into(),
            ..StatusResponse::default()
        };
        assert_eq!(network_missing(&status(true, "")), None);
        let why = network_missing(&status(false, "")).unwrap();
        assert!(why.contains("cni plugin not initialized"), "{why}");
        let old = status(
            true,
            r#"{"sandboxImage":"p:3","containerd":{"runtimes":{"runc":{"options":{"SystemdCgroup":true}}}}}"#,
        );
        assert_eq!(sandbox_image(&old).as_deref(), Some("p:3"));
        assert!(systemd_cgroups(&old));
        for text in ["{}", "{", r#"{"sandboxImage":"","containerd":null}"#] {
            let new = status(true, text);
            assert_eq!((sandbox_image(&new), systemd_cgroups(&new)), (None, false), "{text}");
        }
    }

    #[test]
    fn the_form_of_control_groups_is_that_of_other_pods() {
        let info = |parent: &str| {
            let text = format!(r#"{{"config":{{"linux":{{"cgroup_parent":"{parent}"}}}}}}"#);
            [("info".to_owned(), text)].into()
        };
        assert!(in_a_slice(&info("/kubepods.slice/kubepods-podx.slice")));
        assert!(!in_a_slice(&info("/kubepods/podx")));
        assert!(!in_a_slice(&HashMap::new()));
    }

    #[test]
    fn the_pod_is_in_its_own_network_and_carries_our_label() {
        let handler: HandlerName = "runsc".parse().unwrap();
        let ask = request(&handler, SLICE);
        let config = ask.config.unwrap();
        assert!(is_proof(&config.labels));
        assert_eq!(config.metadata.unwrap().name, "rootstock-proof-runsc");
        assert_eq!(ask.runtime_handler, "runsc");
    }
}
