//! The agent's DaemonSet: one for a shoot, on every node that has a runtime of
//! the catalog or that the controller has marked.

use std::collections::BTreeSet;

use rootstock_core::assign::{AGENT_LABEL, CRI_CONTAINERD, CRI_LABEL, RUNTIME_LABEL_PREFIX};
use rootstock_core::name::RuntimeType;
use rootstock_core::path::BinaryRoots;
use serde_json::{Map, Value, json};

use super::agent::{AGENT, CA_KEY, ENDPOINT_KEY, NAMESPACE};
use super::proxy::Proxy;

/// Where the agent serves its health, on the node's loopback: the Pod is in
/// the node's network. Below the range of NodePorts and of outgoing
/// connections, and no port that Kubernetes or Gardener use on nodes.
pub(crate) const ADMIN_PORT: u16 = 19187;
/// Whom the agent's token is for.
const AUDIENCE: &str = "rootstock";
/// How long its token lasts; the kubelet renews it at four fifths. It is read
/// only to enrol, so a short one costs nothing.
const TOKEN_SECONDS: u32 = 3600;
/// Where the node's root is in the Pod.
const HOST_ROOT: &str = "/host";
/// Where endpoint and authorities are in the Pod.
const CONFIG_DIR: &str = "/etc/rootstock";
const TOKEN_DIR: &str = "/var/run/secrets/rootstock";
/// One heap for all threads, and what is free goes back soon. glibc would raise
/// both thresholds by itself, unless they are set.
const MALLOC: &str = "glibc.malloc.arena_max=1:glibc.malloc.mmap_threshold=65536:glibc.malloc.trim_threshold=16384:glibc.malloc.top_pad=4096";

/// A folder of the node that the agent works in. Always a folder and never a
/// socket in it: a mounted socket goes stale when its owner restarts.
struct HostFolder {
    name: &'static str,
    path: &'static str,
    kind: &'static str,
    read_only: bool,
    propagation: Option<&'static str>,
}

/// The node's folders beside the binary roots.
const FOLDERS: [HostFolder; 7] = [
    HostFolder::written("containerd-config", "/etc/containerd"),
    HostFolder::written("state", "/var/lib/rootstock"),
    // containerd's socket, and what it keeps of every sandbox. Its mounts of
    // pods come and go: a private copy of them would hold their disks.
    HostFolder {
        propagation: Some("HostToContainer"),
        ..HostFolder::read("containerd", "/run/containerd")
    },
    // The system bus, over which containerd is restarted.
    HostFolder::read("dbus", "/run/dbus"),
    // systemd's own state.
    HostFolder::read("systemd", "/run/systemd"),
    // Whether the node has the devices and the kernel modules that a bundle
    // needs: to look at, for nothing lets the agent use a device. What is
    // mounted below comes and goes.
    HostFolder { propagation: Some("HostToContainer"), ..HostFolder::read("devices", "/dev") },
    // Not on every node: a kernel may have no modules.
    HostFolder { kind: "DirectoryOrCreate", ..HostFolder::read("modules", "/lib/modules") },
];

impl HostFolder {
    const fn written(name: &'static str, path: &'static str) -> Self {
        Self { name, path, kind: "DirectoryOrCreate", read_only: false, propagation: None }
    }

    /// A folder that is there where the node works; a read-only one still
    /// lets the sockets in it be used.
    const fn read(name: &'static str, path: &'static str) -> Self {
        Self { name, path, kind: "Directory", read_only: true, propagation: None }
    }
}

/// The agent's DaemonSet, where nodes need no proxy.
pub fn agent_daemonset(image: &str, roots: &BinaryRoots, types: &BTreeSet<RuntimeType>) -> Value {
    render(image, roots, types, &Proxy::default())
}

/// Renders the DaemonSet.
///
/// Its template has nothing that changes with endpoint or authorities: the
/// agent reads both again before each connection, and a new one must not
/// restart agents. So there is no checksum of the ConfigMap.
pub(crate) fn render(
    image: &str,
    roots: &BinaryRoots,
    types: &BTreeSet<RuntimeType>,
    proxy: &Proxy,
) -> Value {
    let labels = labels();
    json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet",
        "metadata": {"name": AGENT, "namespace": NAMESPACE, "labels": labels},
        "spec": {
            // Immutable: nothing is ever added here.
            "selector": {"matchLabels": {"app.kubernetes.io/name": AGENT}},
            "revisionHistoryLimit": 2,
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "10%"}},
            "template": {
                "metadata": {"labels": labels},
                "spec": pod(image, roots, types, proxy),
            },
        },
    })
}

/// The same on both levels: only then Gardener holds back pods until the
/// agent on a new node is ready.
fn labels() -> Value {
    json!({
        "app.kubernetes.io/name": AGENT,
        "app.kubernetes.io/part-of": "rootstock",
        "gardener.cloud/role": "container-runtime",
        "node.gardener.cloud/critical-component": "true",
    })
}

fn pod(image: &str, roots: &BinaryRoots, types: &BTreeSet<RuntimeType>, proxy: &Proxy) -> Value {
    json!({
        "serviceAccountName": AGENT,
        "automountServiceAccountToken": false,
        // What the agent brings is needed before the shoot's network and DNS are.
        "hostNetwork": true,
        "dnsPolicy": "Default",
        "priorityClassName": "system-node-critical",
        "tolerations": [
            {"operator": "Exists", "effect": "NoSchedule"},
            {"operator": "Exists", "effect": "NoExecute"},
        ],
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": node_selector_terms(types),
        }}},
        // The agent ends in 5 s; a step that it is in is journaled.
        "terminationGracePeriodSeconds": 15,
        "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container(image, roots, proxy)],
        "volumes": volumes(roots),
    })
}

/// Terms are alternatives, the expressions of one term must all hold. The
/// Worker takes a runtime's label away when the runtime is dropped, and the
/// agent must outlive that to clean up: so the controller's own mark.
fn node_selector_terms(types: &BTreeSet<RuntimeType>) -> Vec<Value> {
    let marks = types.iter().map(|runtime| format!("{RUNTIME_LABEL_PREFIX}{runtime}"));
    let is = |key: &str, value: &str| json!({"key": key, "operator": "In", "values": [value]});
    let term = |mark: String| json!({"matchExpressions": [is(CRI_LABEL, CRI_CONTAINERD), is(&mark, "true")]});
    marks.chain([AGENT_LABEL.to_owned()]).map(term).collect()
}

fn container(image: &str, roots: &BinaryRoots, proxy: &Proxy) -> Value {
    let roots_flag = roots.iter().map(|root| root.as_str()).collect::<Vec<_>>().join(",");
    // Large buffers go back when they are free. glibc would keep the zstd window
    // of the first pull for the next one, 10 MB that an idle agent never uses.
    let mut env = vec![json!({"name": "GLIBC_TUNABLES", "value": MALLOC})];
    env.extend(proxy.env());
    json!({
        "name": "agent",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        // The image's entry point is the agent.
        "args": [
            "run",
            format!("--endpoint={CONFIG_DIR}/{ENDPOINT_KEY}"),
            format!("--ca-file={CONFIG_DIR}/{CA_KEY}"),
            format!("--token-file={TOKEN_DIR}/token"),
            format!("--host-root={HOST_ROOT}"),
            format!("--binary-roots={roots_flag}"),
            format!("--admin-listen=127.0.0.1:{ADMIN_PORT}"),
        ],
        "env": env,
        // An 83 MB binary is streamed: its blob's zstd window (8 MiB) and the
        // buffers of a few pulls side by side stay far below the limit; the
        // rest is room for the page cache of what is written. No CPU limit: an
        // agent that is slowed down holds up the node.
        "resources": {
            "requests": {"cpu": "10m", "memory": "32Mi"},
            "limits": {"memory": "256Mi"},
        },
        "securityContext": {
            // Not privileged: uid 0 in the node's own user namespace owns the
            // folders that are mounted, and both containerd's socket and
            // systemd (over the bus) let it in by its uid. No capability is
            // needed for that. AppArmor's profile for containers refuses the
            // system bus, so there is none. This makes the agent as strong as
            // root on its node all the same.
            "runAsUser": 0,
            "runAsGroup": 0,
            "privileged": false,
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"]},
            "appArmorProfile": {"type": "Unconfined"},
        },
        // Two minutes for a start on a busy node, and as much before one that
        // hangs is started again: that helps rarely, and never in a hurry.
        "startupProbe": probe("/healthz", 2, 60),
        "livenessProbe": probe("/healthz", 20, 6),
        "readinessProbe": probe("/readyz", 5, 3),
        "volumeMounts": mounts(roots),
    })
}

fn probe(path: &str, period: u32, failures: u32) -> Value {
    json!({
        "httpGet": {"host": "127.0.0.1", "port": ADMIN_PORT, "path": path, "scheme": "HTTP"},
        "periodSeconds": period, "timeoutSeconds": 5, "failureThreshold": failures,
    })
}

fn volumes(roots: &BinaryRoots) -> Vec<Value> {
    let host = |name: String, path: &str, kind: &str| json!({"name": name, "hostPath": {"path": path, "type": kind}});
    let roots = roots.iter().enumerate();
    let roots = roots.map(|(at, root)| host(root_volume(at), root.as_str(), "DirectoryOrCreate"));
    let folders =
        FOLDERS.iter().map(|folder| host(folder.name.to_owned(), folder.path, folder.kind));
    let own = [
        json!({"name": "config", "configMap": {"name": AGENT, "defaultMode": 0o444}}),
        json!({"name": "token", "projected": {"defaultMode": 0o400, "sources": [
            {"serviceAccountToken": {
                "audience": AUDIENCE, "expirationSeconds": TOKEN_SECONDS, "path": "token",
            }},
        ]}}),
    ];
    own.into_iter().chain(roots).chain(folders).collect()
}

fn mounts(roots: &BinaryRoots) -> Vec<Value> {
    let own = |name: &str, path: &str| json!({"name": name, "mountPath": path, "readOnly": true});
    let root = |(at, root): (usize, &_)| json!({"name": root_volume(at), "mountPath": format!("{HOST_ROOT}{root}")});
    let folder = |folder: &HostFolder| {
        let mut mount = Map::new();
        mount.insert("name".to_owned(), json!(folder.name));
        mount.insert("mountPath".to_owned(), json!(format!("{HOST_ROOT}{}", folder.path)));
        if folder.read_only {
            mount.insert("readOnly".to_owned(), json!(true));
        }
        if let Some(propagation) = folder.propagation {
            mount.insert("mountPropagation".to_owned(), json!(propagation));
        }
        Value::Object(mount)
    };
    [own("config", CONFIG_DIR), own("token", TOKEN_DIR)]
        .into_iter()
        .chain(roots.iter().enumerate().map(root))
        .chain(FOLDERS.iter().map(folder))
        .collect()
}

fn root_volume(at: usize) -> String {
    format!("binaries-{at}")
}
