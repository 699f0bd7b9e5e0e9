//! Four ContainerRuntimes reach their nodes, and leave them again.

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::api::node::v1::RuntimeClass;
use kube::ResourceExt as _;
use kube::api::{ListParams, Patch, PatchParams};
use rootstock_controller::api::ManagedResource;
use rootstock_playground::host::SimulatedHost;
use rootstock_playground::kube::RealControlPlane;
use rootstock_playground::seed::landscape;
use rootstock_playground::seed::world::{ApiKind, World};
use serde_json::json;

use super::fixture::{
    Fixture, ONE, Plan, TWO, assert_keeps, configured_handlers, containerd_config, node,
};

const SELECTED: [&str; 4] = ["a-1", "a-2", "b-1", "b-2"];
const UNTOUCHED: [&str; 2] = ["b-other-cri", "plain-1"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_the_embedded_api() {
    journey(ApiKind::Embedded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_real_api_servers() {
    match RealControlPlane::assets() {
        Some(assets) => journey(ApiKind::Real(assets)).await,
        None => eprintln!("skipped: KUBEBUILDER_ASSETS is not set"),
    }
}

async fn journey(api: ApiKind) {
    let plan = Plan::new(landscape::demo()).on(api).tiny(&["gvisor", "kata"]).await;
    let world = plan.start().await;
    everything_arrives(&world).await;
    each_shoot_has_its_objects(&world).await;
    nothing_of_one_shoot_is_in_the_other(&world).await;
    a_second_start_changes_nothing(&world).await;
    a_deleted_runtime_leaves_and_the_others_stay(&world).await;
    its_files_go_when_containerd_has_started_without_it(&world).await;
    a_lost_label_uninstalls_nothing(&world).await;
    with_the_last_runtime_go_the_shoots_objects(&world).await;
    world.stop().await;
}

async fn everything_arrives(world: &Fixture) {
    let document = world.ready().await;
    let mut names: Vec<_> = document
        .container_runtimes
        .iter()
        .map(|resource| (resource.namespace.as_str(), resource.name.as_str()))
        .collect();
    names.sort_unstable();
    let of_one = ["gvisor-a", "gvisor-b", "kata-a", "kata-b"].map(|name| (ONE, name));
    assert_eq!(names, [of_one.as_slice(), &[(TWO, "gvisor-a")]].concat());
    for resource in &document.container_runtimes {
        assert!(resource.is_healthy(), "{resource:#?}");
        for condition in ["SystemComponentsHealthy", "BundleResolved", "NodesReady"] {
            assert!(resource.condition(condition).is_some(), "{condition}: {resource:#?}");
        }
    }

    for name in SELECTED {
        let node = node(&document, ONE, name);
        assert_eq!(node.containerd_restarts, 1, "for both runtimes: {node:#?}\n{}", world.logs());
        let [gvisor, kata] = node.runtimes.as_slice() else { panic!("{node:#?}") };
        assert_eq!([&gvisor.runtime, &kata.runtime], ["gvisor", "kata"]);
        world.assert_whole(gvisor);
        world.assert_whole(kata);
    }
    let [gvisor] = node(&document, TWO, "a-1").runtimes.as_slice() else { panic!("{document:#?}") };
    assert_eq!(gvisor.runtime, "gvisor");
    world.assert_whole(gvisor);

    for name in UNTOUCHED {
        let node = node(&document, ONE, name);
        assert_eq!(node.containerd_restarts, 0, "{node:#?}");
        assert!(node.runtimes.is_empty(), "{node:#?}");
        for folder in ["var/bin", "var/lib/rootstock", "opt"] {
            assert!(!node.root.join(folder).exists(), "{folder} on {node:#?}");
        }
        assert!(world.agent(ONE, name).is_none(), "no agent on {name}");
    }

    // The untouched node has what all began with.
    let plain = &node(&document, ONE, "plain-1").root;
    let before = containerd_config(plain);
    let mut expected = configured_handlers(plain);
    expected.extend(["gvisor".to_owned(), "kata".to_owned()]);
    expected.sort();
    for name in SELECTED {
        let root = &node(&document, ONE, name).root;
        assert_eq!(configured_handlers(root), expected);
        assert_keeps("config", before.as_item(), containerd_config(root).as_item());
    }
}

/// What the controller wrote for the resource manager is in the shoots.
async fn each_shoot_has_its_objects(world: &Fixture) {
    for (shoot, classes) in [(ONE, &["gvisor", "kata"][..]), (TWO, &["gvisor"])] {
        let access = world.shoot(shoot).access();
        let mut wanted: Vec<_> =
            classes.iter().map(|class| format!("extension-runtime-{class}")).collect();
        wanted.insert(0, "extension-rootstock-agent".to_owned());
        // Nodes may be ready before the resource manager is.
        world
            .until(&format!("{shoot}'s objects are applied"), async |_: &World| {
                let resources = world.seed().within::<ManagedResource>(shoot);
                let found = resources.list(&ListParams::default()).await;
                let resources = found.map_err(|error| (error.to_string(), vec![]))?.items;
                let names: Vec<_> = resources.iter().map(|resource| resource.name_any()).collect();
                if names == wanted && resources.iter().all(applied) {
                    Ok(())
                } else {
                    Err(("not yet".to_owned(), resources))
                }
            })
            .await;
        let found = access.all::<RuntimeClass>().list(&ListParams::default()).await.unwrap();
        let names: Vec<_> = found.items.iter().map(|class| class.name_any()).collect();
        assert_eq!(names, classes);
        for class in &found.items {
            let name = class.name_any();
            assert_eq!(class.handler, name);
            let selector = class.scheduling.as_ref().unwrap().node_selector.as_ref().unwrap();
            assert_eq!(selector[&format!("{}{name}", landscape::RUNTIME_LABEL_PREFIX)], "true");
            assert_eq!(class.labels()["shoot.gardener.cloud/no-cleanup"], "true");
        }
        let agent = access.within::<DaemonSet>("kube-system").get("rootstock-agent").await.unwrap();
        assert_eq!(agent.labels()["resources.gardener.cloud/managed-by"], "gardener");
    }
}

fn applied(resource: &ManagedResource) -> bool {
    let conditions = resource.status.iter().flat_map(|status| &status.conditions);
    let mut applied = conditions.filter(|condition| condition["type"] == "ResourcesApplied");
    applied.any(|condition| condition["status"] == "True")
}

async fn nothing_of_one_shoot_is_in_the_other(world: &Fixture) {
    let page = world.page().await;
    let of_two: Vec<_> = page.nodes.iter().filter(|node| node.shoot == TWO).collect();
    assert_eq!(of_two.len(), 1, "{of_two:#?}");
    let root = world.shoot(TWO).root("a-1");
    assert_eq!(
        configured_handlers(&root).iter().filter(|handler| *handler == "kata").count(),
        0,
        "shoot two did not ask for kata"
    );
    let ledger = std::fs::read_to_string(root.join("var/lib/rootstock/ledger.json")).unwrap();
    assert!(!ledger.contains("kata") && !ledger.contains(ONE), "{ledger}");
    let authorities = [ONE, TWO].map(|shoot| {
        let volumes = world.dir().join("volumes").join(shoot).join("a-1");
        std::fs::read_to_string(volumes.join("ca.crt")).unwrap()
    });
    assert_ne!(authorities[0], authorities[1], "each shoot has a CA of its own");
}

async fn a_second_start_changes_nothing(world: &Fixture) {
    let config = world.shoot(ONE).root("a-1").join("etc/containerd/config.toml");
    let before = std::fs::metadata(&config).unwrap().modified().unwrap();
    let served = world.bytes_of_files();
    let agent = world.agent(ONE, "a-1").unwrap();
    let starts = agent.usage().starts;
    agent.kill().await;
    world
        .until("the agent is back", async |world: &World| {
            let page = world.page().await;
            let connected = page.node(ONE, "a-1").is_some_and(|node| node.connected);
            let usage = agent.usage();
            if connected && usage.starts > starts { Ok(()) } else { Err((connected, usage)) }
        })
        .await;
    world.node_has(ONE, "a-1", &["gvisor", "kata"]).await;
    let document = world.ready().await;
    assert_eq!(node(&document, ONE, "a-1").containerd_restarts, 1);
    assert_eq!(std::fs::metadata(&config).unwrap().modified().unwrap(), before);
    assert_eq!(world.bytes_of_files(), served, "nothing is pulled twice");
}

async fn a_deleted_runtime_leaves_and_the_others_stay(world: &Fixture) {
    world.delete(ONE, "kata-b").await;
    for name in ["b-1", "b-2"] {
        world.node_has(ONE, name, &["gvisor"]).await;
        let root = world.shoot(ONE).root(name);
        world
            .until("kata is not configured any more", async |_: &World| {
                let handlers = configured_handlers(&root);
                if handlers.iter().any(|handler| handler == "kata") {
                    Err(handlers)
                } else {
                    Ok(())
                }
            })
            .await;
    }
    let document = world.healthy().await;
    assert_eq!(document.container_runtimes.len(), 4);
    for (name, count) in [("a-1", 2), ("a-2", 2), ("b-1", 1), ("b-2", 1)] {
        let node = node(&document, ONE, name);
        let ready = node.runtimes.iter().filter(|runtime| !runtime.handlers.is_empty());
        let ready: Vec<_> = ready.collect();
        assert_eq!(ready.len(), count, "{node:#?}");
        for runtime in ready {
            world.assert_whole(runtime);
        }
    }
}

async fn its_files_go_when_containerd_has_started_without_it(world: &Fixture) {
    let root = world.shoot(ONE).root("b-1");
    let tree = root.join("var/bin/containerruntimes/.rootstock/kata");
    let link = root.join("var/bin/containerruntimes/containerd-shim-kata-v1");
    assert!(tree.exists(), "the running containerd may still start a kata shim");
    SimulatedHost::restart(&root).await.unwrap();
    world
        .until("kata's files have gone from b-1", async |_: &World| {
            let left = [tree.exists(), link.symlink_metadata().is_ok()];
            if left == [false, false] { Ok(()) } else { Err(left) }
        })
        .await;
    let gvisor = root.join("var/bin/containerruntimes/containerd-shim-gvisor-v1");
    assert!(gvisor.exists(), "gvisor's link leads to its file");
}

async fn a_lost_label_uninstalls_nothing(world: &Fixture) {
    let nodes = world.shoot(ONE).access().all::<k8s_openapi::api::core::v1::Node>();
    let label = format!("{}gvisor", landscape::RUNTIME_LABEL_PREFIX);
    let patch = json!({"metadata": {"labels": {label: null}}});
    nodes.patch("a-2", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    // Something that comes later is done on the same node: the label was seen before.
    world.delete(ONE, "kata-a").await;
    world.node_has(ONE, "a-2", &["gvisor"]).await;
    let root = world.shoot(ONE).root("a-2");
    assert!(configured_handlers(&root).iter().any(|handler| handler == "gvisor"));
    let document = world.snapshot().await.unwrap();
    let gvisor = &node(&document, ONE, "a-2").runtimes;
    world.assert_whole(gvisor.iter().find(|runtime| runtime.runtime == "gvisor").unwrap());
}

async fn with_the_last_runtime_go_the_shoots_objects(world: &Fixture) {
    world.delete(TWO, "gvisor-a").await;
    world
        .until("nothing of ours is in shoot two", async |world: &World| {
            let (shoot, seed) = (world.shoot(TWO).access(), world.seed());
            let look = async {
                let all = ListParams::default();
                let classes = shoot.all::<RuntimeClass>().list(&all).await?.items.len();
                let agents = shoot.within::<DaemonSet>("kube-system");
                let configs = shoot.within::<ConfigMap>("kube-system");
                let resources = seed.within::<ManagedResource>(TWO).list(&all).await?.items.len();
                let secrets = seed.within::<Secret>(TWO);
                let access = secrets.get_opt("shoot-access-rootstock").await?;
                let agent = agents.get_opt("rootstock-agent").await?;
                let config = configs.get_opt("rootstock-agent").await?;
                let here = [agent.is_some(), config.is_some()];
                Ok::<_, kube::Error>((classes, resources, here, access.is_some()))
            };
            match look.await {
                Ok((0, 0, [false, false], false)) => Ok(()),
                seen => Err(format!("{seen:?}")),
            }
        })
        .await;
    // Shoot one has what it had.
    let agents = world.shoot(ONE).access().within::<DaemonSet>("kube-system");
    assert!(agents.get_opt("rootstock-agent").await.unwrap().is_some());
}
