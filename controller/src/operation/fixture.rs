//! A seed in a few lines: a scripted API server that keeps what it is sent,
//! and the operations, fed by its every change.

mod server;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kube::Client;
use rootstock_core::assign::Resolution;
use rootstock_core::catalog::Catalog;
use rootstock_core::name::ShootName;
use rootstock_core::path::BinaryRoots;
use rootstock_daemon::{Readiness, Shutdown};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;

use self::server::{Refusal, Server, serve};
use super::{Operations, Triggers};
use crate::api::{Cluster, ContainerRuntime, OPERATION};
use crate::args::Types;
use crate::events::{Events, Publish};
use crate::grpc::ShootEndpoint;
use crate::home::Home;
use crate::identity::authorities::Authorities;
use crate::identity::ca::ShootCa;
use crate::index::{Index, RuntimeKey};
use crate::objects::proxy::Proxy;
use crate::objects::{AgentSettings, Objects, Place, Recent};
use crate::scripted::merge;
use crate::seed::{Clusters, Scope, Seed, Store};
use crate::shoot::Endpoints;
use crate::shoot::authorities::ByShoot;
use crate::shoot::secrets::authority;

pub(super) const SHOOT: &str = "shoot--garden--one";

pub(super) fn key() -> RuntimeKey {
    key_of("gvisor-a")
}

pub(super) fn key_of(name: &str) -> RuntimeKey {
    RuntimeKey { shoot: SHOOT.parse().unwrap(), name: name.to_owned() }
}

/// A ContainerRuntime, with this more in its metadata.
pub(super) fn object(metadata: Value, status: Value) -> ContainerRuntime {
    serde_json::from_value(resource("gvisor-a", "gvisor", metadata, status)).unwrap()
}

fn resource(name: &str, kind: &str, metadata: Value, status: Value) -> Value {
    let mut object = json!({
        "apiVersion": "extensions.gardener.cloud/v1alpha1", "kind": "ContainerRuntime",
        "metadata": {"name": name, "namespace": SHOOT, "uid": format!("uid-{name}"), "generation": 1},
        "spec": {"type": kind, "binaryPath": "/var/bin/containerruntimes",
                 "workerPool": {"name": "a", "selector": {"matchLabels": {"pool": "a"}}}},
    });
    merge(&mut object["metadata"], &metadata);
    if !status.is_null() {
        object["status"] = status;
    }
    object
}

/// A seed with the operations running in it. Time is paused.
pub(super) struct World {
    server: Arc<Mutex<Server>>,
    seed: Arc<Seed>,
    pub(super) index: Arc<Index>,
    pub(super) endpoints: Arc<Endpoints>,
    client: Client,
    clusters: Arc<Clusters>,
    _publish: Publish,
    _catalog: watch::Sender<Arc<Catalog>>,
    /// What the watch of authorities shows.
    authorities: watch::Sender<ByShoot>,
    shutdown: Shutdown,
    tasks: JoinSet<anyhow::Result<()>>,
}

impl World {
    pub(super) fn start() -> Self {
        Self::with(false)
    }

    /// One with or without `--ignore-operation-annotation`.
    pub(super) fn with(freely: bool) -> Self {
        let server = Arc::new(Mutex::new(Server { version: 10, ..Server::default() }));
        let catalog: Catalog = serde_json::from_value(json!({
            "registries": [{"name": "main", "url": "http://r"}],
            "runtimes": [
                {"type": "gvisor", "bundle": "main/gvisor:1",
                 "runtimeClasses": [{"name": "gvisor", "handler": "runsc"}]},
                {"type": "kata", "bundle": "main/kata:1",
                 "runtimeClasses": [{"name": "kata", "handler": "kata"}]},
            ],
        }))
        .unwrap();
        let (sender, catalog) = watch::channel(Arc::new(catalog));
        let scope = Scope {
            home: Home::Seed,
            types: Types::Configured,
            classes: vec!["shoot".into()],
            catalog,
        };
        let index = Arc::new(Index::new(BinaryRoots::default()).at_once());
        let pending = ["gvisor", "kata"].map(|t| (t.parse().unwrap(), Resolution::Pending));
        index.put_bundles(BTreeMap::new(), pending.into(), BTreeMap::new());
        index.seed_listed(&[]);
        let (store, clusters) = (Arc::new(Store::default()), Arc::new(Clusters::default()));
        let (endpoints, triggers) =
            (Arc::new(Endpoints::default()), Arc::new(Triggers::new(freely)));

        // The server tells the watch before it answers: the hardest order.
        let fed: Arc<Mutex<Option<Arc<Seed>>>> = Arc::default();
        let (state, watched) = (Arc::clone(&server), Arc::clone(&fed));
        let service = tower::service_fn(move |request| {
            let (state, watched) = (Arc::clone(&state), Arc::clone(&watched));
            async move { Ok::<_, std::io::Error>(serve(&state, &watched, request).await) }
        });
        let client = Client::new(service, "default");
        let (events, publish) = Events::new(client.clone());
        let seed = Arc::new(Seed {
            client: client.clone(),
            store: Arc::clone(&store),
            index: Arc::clone(&index),
            triggers: Arc::clone(&triggers),
            scope: scope.clone(),
            readiness: Readiness::new(),
        });
        *fed.lock().unwrap() = Some(Arc::clone(&seed));
        let objects = Objects {
            client: client.clone(),
            catalog: scope.catalog.clone(),
            agent: AgentSettings {
                image: "agent".into(),
                roots: BinaryRoots::default(),
                domain: Some("seed.example".into()),
                port: 443,
                proxy: Proxy::default(),
            },
            place: Place::Managed,
            ingress: None,
            recent: Recent::default(),
        };
        let (authorities, authorities_seen) = watch::channel(Default::default());
        let operations = Operations {
            client: client.clone(),
            store,
            clusters: Arc::clone(&clusters),
            triggers,
            index: Arc::clone(&index),
            endpoints: Arc::clone(&endpoints),
            objects: Arc::new(objects),
            authorities: authorities_seen,
            events,
            scope,
            deletion_timeout: Duration::from_secs(120),
            at_once: 5,
        };
        let shutdown = Shutdown::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(operations.run(shutdown.clone()));
        let world = Self {
            server,
            seed,
            index,
            endpoints,
            client,
            clusters,
            _publish: publish,
            _catalog: sender,
            authorities,
            shutdown,
            tasks,
        };
        world.put_cluster(json!({}));
        world
    }

    pub(super) async fn stop(mut self) {
        self.shutdown.begin();
        self.tasks.join_next().await.unwrap().unwrap().unwrap();
    }

    /// The shoot's Cluster, with this Shoot.
    pub(super) fn put_cluster(&self, shoot: Value) {
        let cluster = json!({
            "apiVersion": "extensions.gardener.cloud/v1alpha1", "kind": "Cluster",
            "metadata": {"name": SHOOT}, "spec": {"shoot": shoot},
        });
        let cluster: Cluster = serde_json::from_value(cluster).unwrap();
        self.clusters.replace(&[(SHOOT.parse().unwrap(), Arc::new(cluster))].into());
    }

    /// Agents are let in.
    pub(super) fn open_endpoint(&self, host: &str) {
        let name: ShootName = SHOOT.parse().unwrap();
        let now = jiff::Timestamp::now();
        let ca = ShootCa::generate(&name, now).unwrap();
        let tls = ca.server_config(&[host.to_owned()], now).unwrap();
        let client = self.client.clone();
        let authorities = Authorities::one(Arc::new(ca));
        let endpoint = ShootEndpoint { name, authorities, tls, client };
        self.endpoints.put(host.to_owned(), endpoint);
    }

    pub(super) fn remove_cluster(&self) {
        self.clusters.replace(&BTreeMap::new());
    }

    /// gardenlet asks for an operation on a resource, which is made where it is not there.
    pub(super) fn deploy(&self, name: &str, operation: &str) {
        let kind = name.split('-').next().unwrap();
        let annotations = json!({OPERATION: operation, "gardener.cloud/timestamp": "t"});
        self.put(&resource(name, kind, json!({"annotations": annotations}), Value::Null));
    }

    /// Changes a resource as somebody else would.
    pub(super) fn put(&self, change: &Value) {
        let name = change["metadata"]["name"].as_str().unwrap();
        let path = path_of(name);
        let mut server = self.server.lock().unwrap();
        let mut object = server.objects.get(&path).cloned().unwrap_or_else(|| json!({}));
        merge(&mut object, change);
        let event = server.store(&path, object);
        drop(server);
        feed(&self.seed, event);
    }

    /// gardenlet deletes a resource.
    pub(super) fn delete(&self, name: &str) {
        let metadata =
            json!({"name": name, "deletionTimestamp": "2026-01-01T00:00:00Z", "generation": 2});
        self.put(&json!({"metadata": metadata}));
    }

    /// The token requestor gives the controller a token of the shoot's API.
    pub(super) fn let_in(&self) {
        let path = format!("/api/v1/namespaces/{SHOOT}/secrets/shoot-access-rootstock");
        let mut server = self.server.lock().unwrap();
        let mut secret = server.objects.get(&path).cloned().unwrap();
        merge(&mut secret, &json!({"data": {"token": "dG9rZW4="}}));
        server.store(&path, secret);
    }

    /// A resource as it is, or `Null`.
    pub(super) fn get(&self, name: &str) -> Value {
        self.object(&path_of(name))
    }

    /// A ManagedResource as it is, or `Null`.
    pub(super) fn managed(&self, name: &str) -> Value {
        let group = "/apis/resources.gardener.cloud/v1alpha1";
        self.object(&format!("{group}/namespaces/{SHOOT}/managedresources/{name}"))
    }

    /// The names of the shoot's own Secrets that are there.
    pub(super) fn secrets(&self) -> Vec<String> {
        let folder = format!("/api/v1/namespaces/{SHOOT}/secrets/");
        let server = self.server.lock().unwrap();
        let names = server.objects.keys().filter_map(|path| path.strip_prefix(&folder));
        let others = ["managedresource-", "ca-rootstock-bundle-"];
        names
            .filter(|name| !others.iter().any(|other| name.starts_with(other)))
            .map(str::to_owned)
            .collect()
    }

    pub(super) fn delete_secret(&self, name: &str) {
        let path = format!("/api/v1/namespaces/{SHOOT}/secrets/{name}");
        self.server.lock().unwrap().objects.remove(&path).unwrap();
    }

    /// The watch of authorities shows what is there.
    pub(super) fn show_authorities(&self) {
        let shoot: ShootName = SHOOT.parse().unwrap();
        let folder = format!("/api/v1/namespaces/{SHOOT}/secrets/");
        let server = self.server.lock().unwrap();
        let secrets = server.objects.iter().filter(|(path, object)| {
            path.starts_with(&folder) && object["metadata"]["labels"]["name"] == "ca-rootstock"
        });
        let read = |object: &Value| {
            let secret = serde_json::from_value(object.clone()).unwrap();
            let authority = authority::read(&shoot, &secret).unwrap().unwrap();
            (authority.kept.name.clone(), Arc::new(authority))
        };
        let of_shoot: BTreeMap<_, _> = secrets.map(|(_, object)| read(object)).collect();
        let all = (!of_shoot.is_empty()).then_some((shoot.clone(), of_shoot));
        self.authorities.send_replace(all.into_iter().collect());
    }

    fn object(&self, path: &str) -> Value {
        self.server.lock().unwrap().objects.get(path).cloned().unwrap_or_default()
    }

    /// Whether ManagedResources that are deleted stay, as if nobody let go.
    pub(super) fn linger(&self, lingering: bool) {
        let mut server = self.server.lock().unwrap();
        server.lingering = lingering;
        if !lingering {
            server.objects.retain(|_, object| {
                object["metadata"]["deletionTimestamp"].is_null()
                    || object["kind"] == "ContainerRuntime"
            });
        }
    }

    /// Answers with a code in place of a request whose line has this in it.
    pub(super) fn refuse(&self, of: &'static str, code: u16, times: usize) {
        self.server.lock().unwrap().refusals.push(Refusal { of, code, times });
    }

    /// What was asked of the server since the last call, once all is quiet.
    pub(super) async fn requests(&self) -> Vec<String> {
        self.requests_within(Duration::from_secs(4)).await
    }

    pub(super) async fn requests_within(&self, time: Duration) -> Vec<String> {
        // Time is paused: it goes on when nobody has anything to do.
        tokio::time::sleep(time).await;
        std::mem::take(&mut self.server.lock().unwrap().log)
    }
}

fn path_of(name: &str) -> String {
    format!("/apis/extensions.gardener.cloud/v1alpha1/namespaces/{SHOOT}/containerruntimes/{name}")
}

fn feed(seed: &Seed, (object, gone): (Value, bool)) {
    if object["kind"] != "ContainerRuntime" {
        return;
    }
    let object = serde_json::from_value(object).unwrap();
    if gone { seed.remove(&object) } else { seed.apply(object) }
}
