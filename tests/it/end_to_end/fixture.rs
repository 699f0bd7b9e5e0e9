//! A world with small bundles, and what tests ask of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kube::api::{DeleteParams, Patch, PatchParams};
use rootstock_core::digest::Digest;
use rootstock_playground::host::{HostFaults, SimulatedHost};
use rootstock_playground::samples::Sample;
use rootstock_playground::samples::tiny::Tiny;
use rootstock_playground::seed::catalog::Offer;
use rootstock_playground::seed::disk;
use rootstock_playground::seed::landscape::Shoot;
use rootstock_playground::seed::snapshot::{Document, Node, NodeRuntime};
use rootstock_playground::seed::world::{ApiKind, Options, World};
use serde_json::{Value, json};

/// How long anything may take on a busy machine with debug builds.
pub(super) const LIMIT: Duration = Duration::from_secs(60);

pub(super) const ONE: &str = "shoot--garden--one";
pub(super) const TWO: &str = "shoot--garden--two";

/// A world and the folder that it is in.
pub(super) struct Fixture {
    world: World,
    samples: BTreeMap<String, Sample>,
    blobs: BTreeSet<Digest>,
    _dir: tempfile::TempDir,
}

/// What a world is made of, while it is put together.
pub(super) struct Plan {
    dir: tempfile::TempDir,
    shoots: Vec<Shoot>,
    api: ApiKind,
    offers: Vec<Offer>,
    samples: BTreeMap<String, Sample>,
}

impl Plan {
    pub(super) fn new(shoots: Vec<Shoot>) -> Self {
        // An error means that another test has installed it.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let dir = tempfile::Builder::new().prefix("rs-").tempdir().unwrap();
        let api = ApiKind::Embedded;
        Self { dir, shoots, api, offers: Vec::new(), samples: BTreeMap::new() }
    }

    pub(super) fn on(mut self, api: ApiKind) -> Self {
        self.api = api;
        self
    }

    /// Where bundles are built.
    pub(super) fn work(&self) -> PathBuf {
        self.dir.path().join("bundles")
    }

    /// Offers tiny bundles of these types.
    pub(super) async fn tiny(mut self, runtimes: &[&str]) -> Self {
        for runtime in runtimes {
            // Each type has data of its own: a fault of one blob is not another's.
            let own: usize = runtime.bytes().map(usize::from).sum();
            self = self.bundle(Tiny::new(runtime, "1.0.0").with_data((64 << 10) + own)).await;
        }
        self
    }

    /// Offers one tiny bundle.
    pub(super) async fn bundle(mut self, tiny: Tiny<'_>) -> Self {
        let work = self.work();
        let sample = tiny.sample(&work).await.unwrap();
        let built = sample.build(&work.join("blobs")).await.unwrap();
        self.samples.insert(tiny.runtime.to_owned(), sample);
        self.offer(tiny.runtime, vec![built])
    }

    /// Offers whatever was built; nothing for a bundle that the registry lacks.
    pub(super) fn offer(mut self, runtime: &str, platforms: Vec<rootstock_bundle::Built>) -> Self {
        self.offers.push(Offer {
            runtime: runtime.to_owned(),
            version: "1.0.0".to_owned(),
            platforms,
            classes: vec![(runtime.to_owned(), runtime.to_owned())],
        });
        self
    }

    /// Makes a node whose disk has no room.
    pub(super) async fn without_room(self, shoot: &str, node: &str) -> Self {
        let root = self.dir.path().join("nodes").join(shoot).join(node);
        SimulatedHost::prepare(&root).await.unwrap();
        let faults = HostFaults { free_space: Some(0), ..HostFaults::default() };
        SimulatedHost::set_faults(&root, &faults).await.unwrap();
        self
    }

    /// The digests of the blobs that were built for a type, with their titles.
    pub(super) fn blobs(&self, runtime: &str) -> Vec<rootstock_bundle::build::Blob> {
        let offer = self.offers.iter().find(|offer| offer.runtime == runtime).unwrap();
        offer.platforms[0].blobs().to_vec()
    }

    pub(super) async fn start(self) -> Fixture {
        let options = Options {
            dir: self.dir.path().to_owned(),
            program: env!("CARGO_BIN_EXE_rootstock-playground").into(),
            api: self.api,
            shoots: self.shoots,
            offers: self.offers,
            log_level: "info,rootstock_controller=debug,rootstock_agent=debug".to_owned(),
            agent_flags: Vec::new(),
        };
        let built = options.offers.iter().flat_map(|offer| &offer.platforms);
        let blobs = built.flat_map(|built| built.blobs().iter().map(|blob| blob.digest)).collect();
        let world = World::start(options).await.unwrap();
        Fixture { world, samples: self.samples, blobs, _dir: self.dir }
    }
}

impl Deref for Fixture {
    type Target = World;

    fn deref(&self) -> &World {
        &self.world
    }
}

impl Fixture {
    /// Waits until it is so, or fails with what was last seen and the ends of the logs.
    pub(super) async fn until<T, S: Debug>(
        &self,
        what: &str,
        look: impl AsyncFnMut(&World) -> Result<T, S>,
    ) -> T {
        match self.world.wait_until(what, LIMIT, look).await {
            Ok(value) => value,
            Err(error) => panic!("{error}\n{}", self.logs()),
        }
    }

    /// Waits until nothing is missing any more.
    pub(super) async fn ready(&self) -> Document {
        self.until("everything is ready", async |world: &World| {
            let page = world.page().await;
            let missing =
                world.missing(&page).await.map_err(|e| vec![("API".into(), e.to_string())])?;
            if missing.is_empty() { Ok(()) } else { Err(missing) }
        })
        .await;
        self.world.snapshot().await.unwrap()
    }

    /// Waits until all ContainerRuntimes that are there are healthy.
    pub(super) async fn healthy(&self) -> Document {
        self.until("all ContainerRuntimes are healthy", async |world: &World| {
            let resources =
                world.container_runtimes().await.map_err(|e| (e.to_string(), vec![]))?;
            let (well, ill): (Vec<_>, Vec<_>) = resources.into_iter().partition(|r| r.is_healthy());
            if ill.is_empty() { Ok(()) } else { Err((format!("{} healthy", well.len()), ill)) }
        })
        .await;
        self.world.snapshot().await.unwrap()
    }

    /// Bytes of bundles' files that left the registry.
    pub(super) fn bytes_of_files(&self) -> u64 {
        self.blobs.iter().map(|blob| self.world.registry().served_of(blob)).sum()
    }

    /// Waits until a node has exactly these runtimes, each of them ready.
    pub(super) async fn node_has(&self, shoot: &str, node: &str, runtimes: &[&str]) {
        let what = format!("{shoot}/{node} has {runtimes:?}");
        self.until(&what, async |world: &World| {
            let page = world.page().await;
            let bundles =
                page.node(shoot, node).map(|node| node.bundles.clone()).unwrap_or_default();
            let ready: Vec<_> = bundles.iter().filter(|bundle| bundle.is_ready()).collect();
            let mut names: Vec<_> = ready.iter().map(|bundle| bundle.runtime.as_str()).collect();
            names.sort_unstable();
            if names == runtimes { Ok(()) } else { Err(bundles) }
        })
        .await;
    }

    /// Waits until a ContainerRuntime has a condition that is not well for this
    /// reason, and whose message has all these words.
    pub(super) async fn complains(&self, name: &str, reason: &str, words: &[&str]) {
        self.until(&format!("{name} complains of {reason}"), async |world: &World| {
            let resources = world.container_runtimes().await.map_err(|e| e.to_string())?;
            let resource = resources.into_iter().find(|resource| resource.name == name);
            let resource = resource.ok_or("it is not there")?;
            let fits = resource.conditions.iter().any(|condition| {
                condition.status != "True"
                    && condition.reason == reason
                    && words.iter().all(|word| condition.message.contains(word))
            });
            if fits { Ok(()) } else { Err(format!("{:#?}", resource.conditions)) }
        })
        .await;
    }

    /// The files that a type's bundle was made of, as a node should have them.
    pub(super) fn sources(&self, runtime: &str) -> Vec<disk::File> {
        let files = self.samples[runtime].files.iter().map(|file| disk::File {
            path: file.path.to_string(),
            size: file.size,
            sha256: disk::sha256(&file.from).unwrap(),
        });
        let mut files: Vec<_> = files.collect();
        files.sort();
        files
    }

    /// Fails unless the runtime on the node is whole.
    pub(super) fn assert_whole(&self, runtime: &NodeRuntime) {
        assert_eq!(runtime.files, self.sources(&runtime.runtime), "{runtime:#?}");
        assert!(["Proven", "Loaded"].contains(&runtime.phase.as_str()), "{runtime:#?}");
        assert_eq!(runtime.handlers, [runtime.runtime.as_str()]);
        assert_eq!(runtime.version, "1.0.0");
    }

    /// Changes a ContainerRuntime, as gardenlet does.
    pub(super) async fn edit(&self, shoot: &str, name: &str, mut patch: Value) {
        // A changed spec alone is no trigger.
        patch["metadata"] = json!({"annotations": {"gardener.cloud/operation": "reconcile"}});
        let resources = self.seed().container_runtimes(Some(shoot));
        resources.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    }

    /// Deletes a ContainerRuntime and waits until it has gone.
    pub(super) async fn delete(&self, shoot: &str, name: &str) {
        let resources = self.seed().container_runtimes(Some(shoot));
        resources.delete(name, &DeleteParams::default()).await.unwrap();
        self.until(&format!("{name} has gone"), async |world: &World| {
            let resources = world.seed().container_runtimes(Some(shoot));
            match resources.get_opt(name).await {
                Ok(None) => Ok(()),
                other => Err(other.map_err(|error| error.to_string())),
            }
        })
        .await;
    }

    pub(super) async fn stop(self) {
        self.world.stop().await;
    }

    /// The ends of all programs' logs.
    pub(super) fn logs(&self) -> String {
        let mut all = String::new();
        for entry in std::fs::read_dir(self.dir().join("logs")).unwrap().flatten() {
            let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
            let lines: Vec<_> = text.lines().collect();
            let tail = &lines[lines.len().saturating_sub(200)..];
            all += &format!("== {}\n{}\n", entry.path().display(), tail.join("\n"));
        }
        all
    }
}

/// One node of a document.
pub(super) fn node<'a>(document: &'a Document, shoot: &str, name: &str) -> &'a Node {
    let mut nodes = document.nodes.iter();
    nodes.find(|node| node.shoot == shoot && node.name == name).unwrap()
}

/// containerd's configuration on a node.
pub(super) fn containerd_config(root: &Path) -> toml_edit::DocumentMut {
    let path = root.join("etc/containerd/config.toml");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    text.parse().unwrap()
}

/// The handlers that containerd's configuration names.
pub(super) fn configured_handlers(root: &Path) -> Vec<String> {
    let config = containerd_config(root);
    let plugins = config["plugins"].as_table_like().unwrap();
    let mut handlers = Vec::new();
    for (_, plugin) in plugins.iter() {
        let runtimes = plugin.get("containerd").and_then(|containerd| containerd.get("runtimes"));
        if let Some(runtimes) = runtimes.and_then(|runtimes| runtimes.as_table_like()) {
            handlers.extend(runtimes.iter().map(|(name, _)| name.to_owned()));
        }
    }
    handlers.sort();
    handlers
}

/// Fails unless every key of `before` is in `after` with the same value.
pub(super) fn assert_keeps(path: &str, before: &toml_edit::Item, after: &toml_edit::Item) {
    if let (Some(before), Some(after)) = (before.as_table_like(), after.as_table_like()) {
        for (key, item) in before.iter() {
            let there = after.get(key).unwrap_or_else(|| panic!("{path}.{key} is gone"));
            assert_keeps(&format!("{path}.{key}"), item, there);
        }
        return;
    }
    let text = |item: &toml_edit::Item| item.to_string().trim().to_owned();
    assert_eq!(text(before), text(after), "{path} has changed");
}
