//! What a user writes into providerConfig reaches the node, or is refused by name.

use std::path::{Path, PathBuf};

use rootstock_core::provider::{GVISOR_API, GVISOR_KIND};
use rootstock_playground::samples::{Places, gvisor};
use rootstock_playground::seed::landscape::Shoot;
use rootstock_playground::seed::world::World;
use serde_json::{Value, json};

use super::fixture::{Fixture, ONE, Plan, containerd_config};

const RUNTIME: &str = "gvisor-a";

/// The config file that containerd's table for runsc leads to, on the node.
fn runsc_config(root: &Path) -> Option<PathBuf> {
    let config = containerd_config(root);
    let plugins = config.get("plugins")?.as_table_like()?;
    let paths = plugins.iter().filter_map(|(_, plugin)| {
        let runsc = plugin.get("containerd")?.get("runtimes")?.get("runsc")?;
        let path = runsc.get("options")?.get("ConfigPath")?.as_str()?;
        Some(root.join(path.trim_start_matches('/')))
    });
    paths.last()
}

/// Gives the resource flags, and asks for a reconcile as gardenlet does.
async fn configure(world: &Fixture, flags: Value) {
    let patch = json!({
        "metadata": {"annotations": {"gardener.cloud/operation": "reconcile"}},
        "spec": {"providerConfig": {"apiVersion": GVISOR_API, "kind": GVISOR_KIND,
                                    "configFlags": flags}},
    });
    world.edit(ONE, RUNTIME, patch).await;
}

/// Waits until runsc is told these lines and no others.
async fn until_told(world: &Fixture, lines: &str) -> PathBuf {
    let root = world.shoot(ONE).root("a-1");
    world
        .until(&format!("runsc is told {lines:?}"), async |_: &World| {
            let path = runsc_config(&root).ok_or_else(|| "no table".to_owned())?;
            let text = std::fs::read_to_string(&path).map_err(|error| error.to_string())?;
            let told = text.split_once("[runsc_config]\n").map(|(_, told)| told.to_owned());
            if told.as_deref() == Some(lines) { Ok(path) } else { Err(text) }
        })
        .await
}

async fn until_operation(world: &Fixture, fits: impl Fn(&Value) -> bool) -> Value {
    world
        .until("the operation has ended", async |world: &World| {
            let resources = world.seed().container_runtimes(Some(ONE));
            let resource = resources.get(RUNTIME).await.map_err(|error| error.to_string())?;
            let status = resource.data["status"].clone();
            if fits(&status) { Ok(status) } else { Err(format!("{status:#}")) }
        })
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_reach_the_node_or_are_refused_by_name() {
    let plan = Plan::new(vec![Shoot::new("garden", "one").pool("a", &["gvisor"], 1)]);
    let work = plan.work();
    let sample = gvisor(&Places::nowhere(), &work).await.unwrap();
    let built = sample.build(&work.join("blobs")).await.unwrap();
    let world = plan.offer("gvisor", vec![built]).start().await;
    world.node_has(ONE, "a-1", &["gvisor"]).await;
    let plain = until_told(&world, "").await;

    configure(&world, json!({"panic-signal": "12", "net-raw": "true"})).await;
    let told = "net-raw = \"true\"\npanic-signal = \"12\"\n";
    let path = until_told(&world, told).await;
    assert_ne!(plain, path, "a pod that runs keeps the file that it was started with");
    world.healthy().await;

    configure(&world, json!({"net-raw": "maybe"})).await;
    let failed = |status: &Value| status["lastOperation"]["state"] == "Error";
    let status = until_operation(&world, failed).await;
    assert_eq!(status["lastError"]["codes"], json!(["ERR_CONFIGURATION_PROBLEM"]), "{status:#}");
    let why = status["lastError"]["description"].as_str().unwrap();
    let want = r#"spec.providerConfig.configFlags["net-raw"] is "maybe": want true or false"#;
    assert!(why.contains(want), "{why}");
    world.complains(RUNTIME, "ConfigurationInvalid", &[want]).await;
    assert_eq!(until_told(&world, told).await, path, "the last good state stays");

    // Null takes a flag out of what was there, as `kubectl patch` does.
    configure(&world, json!({"debug": "true", "net-raw": "false", "panic-signal": null})).await;
    until_told(
        &world,
        "debug = \"true\"\ndebug-log = \"/var/log/runsc/%ID%/gvisor-%COMMAND%.log\"\nnet-raw = \"false\"\n",
    )
    .await;
    let status = until_operation(&world, |s| s["lastOperation"]["state"] == "Succeeded").await;
    assert_eq!(status["lastError"], Value::Null);
    world.healthy().await;
    world.stop().await;
}
