//! From a providerConfig to the file on the node, by what the bundles declare.

use rootstock_core::bundle::ConfigBlob;
use rootstock_core::desired::DesiredBundle;
use rootstock_core::layout::{Layout, settings_hash};
use rootstock_core::provider::{self, GVISOR_API, GVISOR_KIND, How, RUNTIME_API, RUNTIME_KIND};
use serde_json::{Value, json};
use toml_edit::DocumentMut;

use super::gvisor::Places;
use super::{Sample, gvisor, kata};

/// The one config file that a sample renders, and the hash of the settings.
async fn render(sample: &Sample, config: &Value) -> Result<(String, String), String> {
    let work = tempfile::tempdir().unwrap();
    let built = sample.build(work.path()).await.unwrap();
    let blob = ConfigBlob::parse(built.config()).unwrap();
    let given = provider::read(Some(config), &sample.runtime, How::Strict);
    let checked = given.and_then(|given| given.check(blob.config())).map_err(|e| e.to_string())?;
    let desired = DesiredBundle {
        digest: built.digest(),
        binary_path: "/var/bin/containerruntimes".parse().unwrap(),
        registry: "main".into(),
        repository: "r".into(),
        config: blob,
        settings: checked.settings,
    };
    let layout = Layout::of(&desired).unwrap();
    let (_, files) = layout.rendered.unwrap();
    assert_eq!(files.len(), 1);
    Ok((files.into_values().next().unwrap(), settings_hash(&desired.settings)))
}

fn flags(flags: &Value) -> Value {
    json!({"apiVersion": GVISOR_API, "kind": GVISOR_KIND, "configFlags": flags})
}

fn settings(settings: &Value) -> Value {
    json!({"apiVersion": RUNTIME_API, "kind": RUNTIME_KIND, "settings": settings})
}

/// The lines below `[runsc_config]`, beside what the gVisor extension writes.
#[tokio::test]
async fn runsc_is_configured_as_by_the_gvisor_extension() {
    let work = tempfile::tempdir().unwrap();
    let sample = gvisor(&Places::nowhere(), work.path()).await.unwrap();
    let debug = "debug = \"true\"\ndebug-log = \"/var/log/runsc/%ID%/gvisor-%COMMAND%.log\"\n";
    let table = [
        (json!(null), String::new()),
        (json!({}), String::new()),
        (json!({"net-raw": "true"}), "net-raw = \"true\"\n".to_owned()),
        (json!({"net-raw": "false"}), "net-raw = \"false\"\n".to_owned()),
        (json!({"debug": "true"}), debug.to_owned()),
        (json!({"debug": "false", "nvproxy": "false"}), String::new()),
        (json!({"nvproxy": "true"}), "nvproxy = \"true\"\n".to_owned()),
        (json!({"panic-signal": "12"}), "panic-signal = \"12\"\n".to_owned()),
        (
            json!({"panic-signal": "-1", "nvproxy": "true", "net-raw": "false", "debug": "true"}),
            format!("{debug}net-raw = \"false\"\nnvproxy = \"true\"\npanic-signal = \"-1\"\n"),
        ),
    ];
    for (given, want) in table {
        let (text, _) = render(&sample, &flags(&given)).await.unwrap();
        let (top, lines) = text.split_once("[runsc_config]\n").unwrap();
        assert_eq!(lines, want, "{given}");
        // runsc itself is found by this bundle's digest.
        assert!(top.starts_with("binary_name = \"/var/bin/containerruntimes/.rootstock/gvisor/"));
        let read: DocumentMut = text.parse().unwrap();
        let table = read["runsc_config"].as_table().unwrap();
        assert!(table.iter().all(|(_, value)| value.is_str()), "runsc takes texts alone: {text}");
    }
}

#[tokio::test]
async fn the_same_settings_are_the_same_bytes() {
    let work = tempfile::tempdir().unwrap();
    let sample = gvisor(&Places::nowhere(), work.path()).await.unwrap();
    let of = async |config: &str| {
        let config: Value = serde_json::from_str(config).unwrap();
        render(&sample, &config).await.unwrap()
    };
    let one = of(&flags(&json!({"debug": "true", "net-raw": "true"})).to_string()).await;
    let other = format!(
        r#"{{"configFlags": {{"nvproxy": "false", "net-raw": "true", "debug": "true"}},
             "kind": "{GVISOR_KIND}", "apiVersion": "{GVISOR_API}"}}"#
    );
    assert_eq!(of(&other).await, one);
    let generic = settings(&json!({"net-raw": true, "debug": true})).to_string();
    assert_eq!(of(&generic).await, one);
    assert_ne!(of(&flags(&json!({"debug": "true"})).to_string()).await, one);
}

#[tokio::test]
async fn kata_is_configured_by_what_its_bundle_declares() {
    let work = tempfile::tempdir().unwrap();
    let sample = kata(work.path()).await.unwrap();
    let given = json!({"default_memory": 512, "default_vcpus": 2, "enable_debug": true});
    let (text, _) = render(&sample, &settings(&given)).await.unwrap();
    let read: DocumentMut = text.parse().unwrap();
    let qemu = &read["hypervisor"]["qemu"];
    assert_eq!(qemu["default_vcpus"].as_integer(), Some(2));
    assert_eq!(qemu["default_memory"].as_integer(), Some(512));
    for part in [qemu, &read["agent"]["kata"], &read["runtime"]] {
        assert_eq!(part["enable_debug"].as_bool(), Some(true), "{text}");
    }
    assert_eq!(read["runtime"]["internetworking_model"].as_str(), Some("tcfilter"));

    let (text, _) = render(&sample, &json!({})).await.unwrap();
    assert!(!text.contains("enable_debug") && text.contains("default_vcpus = 1\n"), "{text}");
    for (given, want) in [
        (json!({"default_vcpus": 0}), "want a whole number from 1 to 240"),
        (
            json!({"internetworking_model": "bridge"}),
            "want one of \"tcfilter\", \"macvtap\", \"none\"",
        ),
        (json!({"net-raw": true}), "has no such setting, it has: default_vcpus, default_memory"),
    ] {
        let error = render(&sample, &settings(&given)).await.unwrap_err();
        assert!(error.contains(want), "{error}");
    }
    // gVisor's form is for gVisor.
    let error = render(&sample, &flags(&json!({}))).await.unwrap_err();
    assert!(error.contains("for kata want kind RuntimeConfiguration"), "{error}");
}
