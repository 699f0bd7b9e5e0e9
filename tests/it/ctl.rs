//! The command line against a Kubernetes API, by a kubeconfig.

use std::time::Duration;

use clap::Parser as _;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use rootstock_controller::api::ContainerRuntime;
use rootstock_core::rollout::record::Command;
use rootstock_core::runtime_status::{Rollout, RolloutPhase, RuntimeStatus};
use rootstock_ctl::{Args, Error, Outcome, Screen, Style};
use rootstock_playground::kube::{Cluster, Options, RealControlPlane};
use serde_json::json;

const LIMIT: Duration = Duration::from_secs(60);
const NAMESPACE: &str = "shoot--garden--one";
const ANNOTATION: &str = "rootstock.gardener.cloud/rollout";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn embedded() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::embedded(options(&dir)).await.unwrap();
    a_rollout_is_shown_and_paused(&cluster).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real() {
    let Some(assets) = RealControlPlane::assets() else {
        eprintln!("skipped: KUBEBUILDER_ASSETS is not set");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let plane = RealControlPlane::start(&assets, dir.path()).await.unwrap();
    let cluster = Cluster::real(&plane, options(&dir)).await.unwrap();
    a_rollout_is_shown_and_paused(&cluster).await;
    cluster.stop().await;
}

fn options(dir: &tempfile::TempDir) -> Options {
    let own = rootstock_controller::api::definitions();
    let crds = own.iter().map(|crd| serde_json::to_value(crd).unwrap()).collect();
    Options { name: "seed".to_owned(), dir: dir.path().to_owned(), crds }
}

async fn a_rollout_is_shown_and_paused(cluster: &Cluster) {
    let runtimes = furnish(cluster).await;

    let (said, ended) = rootstock(cluster, "status -A").await;
    assert_eq!(ended.unwrap(), Outcome::Done);
    assert!(said.contains(NAMESPACE) && said.contains("wave 2/5"), "{said}");
    let (_, ended) = rootstock(cluster, "rollout resume gvisor-a").await;
    assert!(matches!(ended, Err(Error::NotFound { .. })), "{ended:?}");
    let (_, ended) = rootstock(cluster, &format!("rollout resume gvisor-a -n {NAMESPACE}")).await;
    assert!(matches!(ended, Err(Error::Pointless(_))), "{ended:?}");

    // The API checks a dry run, and keeps nothing of it.
    let pause = format!("rollout pause gvisor-a -n {NAMESPACE}");
    rootstock(cluster, &format!("{pause} --dry-run")).await.1.unwrap();
    let before = runtimes.get("gvisor-a").await.unwrap();
    assert!(!before.annotations().contains_key(ANNOTATION));

    let taking = async {
        let asked = until_asked(&runtimes).await;
        let mut annotations = before.annotations().clone();
        annotations.insert(ANNOTATION.to_owned(), "pause".to_owned());
        assert_eq!(*asked.annotations(), annotations, "one annotation more");
        assert_eq!((&asked.spec, &asked.status), (&before.spec, &before.status));
        let paused = Rollout { phase: Some(RolloutPhase::Paused), ..Rollout::default() };
        say(&runtimes, Rollout { can: vec![Command::Resume], ..paused }).await;
        let taken = json!({"metadata": {"annotations": {ANNOTATION: null}}});
        let params = PatchParams::default();
        runtimes.patch("gvisor-a", &params, &Patch::Merge(taken)).await.unwrap();
    };
    let pause = format!("{pause} --wait=60");
    let ((said, ended), ()) = tokio::join!(rootstock(cluster, &pause), taking);
    assert_eq!(ended.unwrap(), Outcome::Done);
    assert!(said.ends_with("rollout paused\n"), "{said}");

    // Goes on until it is stopped: here by time.
    let mut seen = Vec::new();
    let watch = command(cluster, "status -A --watch", &mut seen);
    assert!(tokio::time::timeout(Duration::from_secs(2), watch).await.is_err());
    let seen = String::from_utf8(seen).unwrap();
    assert!(seen.contains("rollout paused"), "{seen}");
}

/// A ContainerRuntime in the middle of a rollout.
async fn furnish(cluster: &Cluster) -> Api<ContainerRuntime> {
    let namespace = serde_json::from_value(json!({"metadata": {"name": NAMESPACE}})).unwrap();
    let namespaces: Api<Namespace> = Api::all(cluster.client());
    namespaces.create(&PostParams::default(), &namespace).await.unwrap();
    let runtimes: Api<ContainerRuntime> = Api::namespaced(cluster.client(), NAMESPACE);
    let runtime = json!({
        "apiVersion": "extensions.gardener.cloud/v1alpha1", "kind": "ContainerRuntime",
        "metadata": {"name": "gvisor-a", "annotations": {"theirs": "1"}},
        "spec": {"type": "gvisor", "binaryPath": "/var/bin/containerruntimes",
            "workerPool": {"name": "a", "selector": {}}},
    });
    let runtime = serde_json::from_value(runtime).unwrap();
    runtimes.create(&PostParams::default(), &runtime).await.unwrap();
    let wave = Rollout {
        phase: Some(RolloutPhase::Wave),
        wave: Some(2),
        waves: Some(5),
        can: vec![Command::Pause, Command::Abort],
        ..Rollout::default()
    };
    say(&runtimes, wave).await;
    runtimes
}

/// Writes a rollout as the controller does.
async fn say(runtimes: &Api<ContainerRuntime>, rollout: Rollout) {
    let status = RuntimeStatus { rollout: Some(rollout), ..RuntimeStatus::new() };
    let patch = Patch::Merge(json!({"status": {"providerStatus": status}}));
    runtimes.patch_status("gvisor-a", &PatchParams::default(), &patch).await.unwrap();
}

async fn until_asked(runtimes: &Api<ContainerRuntime>) -> ContainerRuntime {
    let asked = |object: Option<&ContainerRuntime>| {
        object.is_some_and(|object| object.annotations().contains_key(ANNOTATION))
    };
    let waiting = kube::runtime::wait::await_condition(runtimes.clone(), "gvisor-a", asked);
    tokio::time::timeout(LIMIT, waiting).await.unwrap().unwrap().unwrap()
}

/// What a person's line prints, and how it ends.
async fn rootstock(cluster: &Cluster, line: &str) -> (String, Result<Outcome, Error>) {
    let mut out = Vec::new();
    let ended = tokio::time::timeout(LIMIT, command(cluster, line, &mut out)).await.unwrap();
    (String::from_utf8(out).unwrap(), ended)
}

async fn command(cluster: &Cluster, line: &str, out: &mut Vec<u8>) -> Result<Outcome, Error> {
    let path = cluster.kubeconfig_path().to_str().unwrap();
    let line = format!("rootstock --kubeconfig {path} {line}");
    let args = Args::parse_from(line.split_whitespace());
    let client: Client = rootstock_ctl::client(&args.connection).await?;
    let mut screen = Screen::new(out, Style::default());
    rootstock_ctl::run(&args, &client, &mut screen, Timestamp::now).await
}
