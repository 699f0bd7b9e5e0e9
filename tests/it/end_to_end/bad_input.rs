//! Each says what is wrong with whom, and the rest goes on.

use rootstock_core::name::Architecture;
use rootstock_playground::host::{HostFaults, SimulatedHost};
use rootstock_playground::registry::{Fault, Target};
use rootstock_playground::samples::tiny::Tiny;
use rootstock_playground::seed::landscape::{Shoot, this_architecture};
use rootstock_playground::seed::world::World;
use serde_json::json;

use super::fixture::{Fixture, ONE, Plan, configured_handlers};

fn other_architecture() -> Architecture {
    if this_architecture() == "amd64" { Architecture::Arm64 } else { Architecture::Amd64 }
}

/// A pool for each fault, named after it, with one node; and one without fault.
fn shoot() -> Shoot {
    Shoot::new("garden", "one")
        .pool("good", &["gvisor"], 1)
        .pool("unknown", &["nonsense"], 1)
        .pool("missing", &["absent"], 1)
        .pool("corrupt", &["corrupt"], 1)
        .pool("truncated", &["truncated"], 1)
        .pool("larger", &["larger"], 1)
        .pool("escape", &["escape"], 1)
        .pool("foreign", &["foreign"], 1)
        .pool("outside", &["gvisor"], 1)
        .with(|pool| pool.binary_path = "/etc/rootstock".to_owned())
        .pool("full", &["gvisor"], 1)
        .pool("selector", &["gvisor"], 1)
}

async fn world() -> Fixture {
    let mut plan = Plan::new(vec![shoot()])
        .tiny(&["gvisor", "corrupt", "truncated", "larger", "late"])
        .await
        .offer("absent", Vec::new());
    let work = plan.work();
    let escape = Tiny::new("escape", "1.0.0");
    let hostile = escape.hostile(&work, |config| {
        config["files"][0]["path"] = json!("../../../../etc/cron.d/evil");
    });
    plan = plan.offer("escape", vec![hostile.await.unwrap()]);
    let foreign = Tiny::new("foreign", "1.0.0").on(other_architecture()).build(&work).await;
    plan = plan.offer("foreign", vec![foreign.unwrap()]);
    plan = plan.without_room(ONE, "full-1").await;
    let faults = [
        ("corrupt", Fault::Corrupt),
        ("truncated", Fault::Truncate { after: 1000 }),
        ("larger", Fault::Oversize { extra: 1 << 20 }),
    ];
    let blobs = faults.map(|(runtime, fault)| {
        let blob = plan.blobs(runtime).into_iter().find(|blob| blob.title == "share/data");
        (blob.unwrap().digest, fault)
    });
    let world = plan.start().await;
    for (digest, fault) in blobs {
        world.registry().faults().set(Target::Digest(digest), fault);
    }
    world
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn is_named_with_what_to_do_and_the_rest_goes_on() {
    let world = world().await;
    world.node_has(ONE, "good-1", &["gvisor"]).await;

    let table: [(&str, &str, &[&str]); 9] = [
        ("nonsense-unknown", "TypeUnknown", &["nonsense", "catalog"]),
        ("absent-missing", "BundleNotFound", &["rootstock/absent", "push the bundle"]),
        ("corrupt-corrupt", "DigestMismatch", &["corrupt-1", "push the bundle again"]),
        ("truncated-truncated", "Truncated", &["truncated-1", "push the bundle again"]),
        ("larger-larger", "SizeExceeded", &["larger-1", "push the bundle again"]),
        ("escape-escape", "PathRefused", &["build the bundle again"]),
        ("foreign-foreign", "ArchitectureMismatch", &["foreign-1", this_architecture()]),
        ("gvisor-outside", "BinaryPathRefused", &["/etc/rootstock", "--binary-roots"]),
        ("gvisor-full", "NoSpace", &["full-1", "free space"]),
    ];
    for (name, reason, words) in table {
        world.complains(name, reason, words).await;
    }
    nothing_is_half_done(&world);
    a_malformed_selector_is_refused_and_corrected(&world).await;
    a_registry_that_heals_needs_no_hand(&world).await;
    room_is_found_by_itself(&world).await;
    a_registry_may_be_away_for_a_while(&world).await;
    a_controller_may_start_without_the_registry(&world).await;
    world.stop().await;
}

fn nothing_is_half_done(world: &Fixture) {
    let good = configured_handlers(&world.shoot(ONE).root("good-1"));
    assert!(good.contains(&"gvisor".to_owned()), "{good:?}");
    for pool in ["corrupt", "truncated", "larger", "escape", "foreign", "outside", "full"] {
        let root = world.shoot(ONE).root(&format!("{pool}-1"));
        let handlers = configured_handlers(&root);
        assert!(!handlers.contains(&pool.to_owned()), "{pool}: {handlers:?}");
        assert!(!handlers.contains(&"gvisor".to_owned()), "{pool}: {handlers:?}");
        assert!(!root.join("etc/rootstock").exists(), "{pool}");
        assert!(!root.join("etc/cron.d").exists(), "{pool}");
    }
}

async fn a_malformed_selector_is_refused_and_corrected(world: &Fixture) {
    world.node_has(ONE, "selector-1", &["gvisor"]).await;
    let selector = |operator: &str| {
        json!({"spec": {"workerPool": {"selector": {"matchExpressions": [
            {"key": "worker.gardener.cloud/pool", "operator": operator, "values": ["selector"]},
        ]}}}})
    };
    world.edit(ONE, "gvisor-selector", selector("Near")).await;
    world.complains("gvisor-selector", "SelectorInvalid", &["Near", "selector"]).await;
    world.node_has(ONE, "selector-1", &["gvisor"]).await;
    world.edit(ONE, "gvisor-selector", selector("In")).await;
    healthy(world, "gvisor-selector").await;
}

async fn a_registry_that_heals_needs_no_hand(world: &Fixture) {
    world.registry().faults().clear_all();
    for name in ["corrupt-corrupt", "truncated-truncated", "larger-larger"] {
        healthy(world, name).await;
    }
}

async fn room_is_found_by_itself(world: &Fixture) {
    let root = world.shoot(ONE).root("full-1");
    SimulatedHost::set_faults(&root, &HostFaults::default()).await.unwrap();
    healthy(world, "gvisor-full").await;
}

async fn a_registry_may_be_away_for_a_while(world: &Fixture) {
    world.registry().go_down().await;
    let resources = world.seed().container_runtimes(Some(ONE));
    let mut late = resources.get("gvisor-good").await.unwrap();
    late.metadata = kube::api::ObjectMeta {
        name: Some("late-good".to_owned()),
        namespace: Some(ONE.to_owned()),
        ..kube::api::ObjectMeta::default()
    };
    late.data["spec"]["type"] = json!("late");
    late.data["status"] = json!(null);
    resources.create(&kube::api::PostParams::default(), &late).await.unwrap();
    let nodes = world.shoot(ONE).access().all::<k8s_openapi::api::core::v1::Node>();
    let label =
        json!({"metadata": {"labels": {"containerruntime.worker.gardener.cloud/late": "true"}}});
    let patch = kube::api::Patch::Merge(label);
    nodes.patch("good-1", &kube::api::PatchParams::default(), &patch).await.unwrap();
    world.complains("late-good", "RegistryUnreachable", &["good-1", "check the registry"]).await;
    world.node_has(ONE, "good-1", &["gvisor"]).await;
    world.registry().come_up().await.unwrap();
    world.node_has(ONE, "good-1", &["gvisor", "late"]).await;
    healthy(world, "late-good").await;
}

async fn a_controller_may_start_without_the_registry(world: &Fixture) {
    world.registry().go_down().await;
    world.controller().kill().await;
    world
        .complains(
            "gvisor-good",
            "RegistryUnreachable",
            &["rootstock/gvisor", "check the registry"],
        )
        .await;
    let root = world.shoot(ONE).root("good-1");
    assert!(configured_handlers(&root).contains(&"gvisor".to_owned()), "what is there stays");
    world.registry().come_up().await.unwrap();
    healthy(world, "gvisor-good").await;
    world.node_has(ONE, "good-1", &["gvisor", "late"]).await;
}

async fn healthy(world: &Fixture, name: &str) {
    world
        .until(&format!("{name} is healthy"), async |world: &World| {
            let resources = world.container_runtimes().await.map_err(|error| error.to_string())?;
            let resource = resources.into_iter().find(|resource| resource.name == name);
            match resource {
                Some(resource) if resource.is_healthy() => Ok(()),
                other => Err(format!("{other:#?}")),
            }
        })
        .await;
}
