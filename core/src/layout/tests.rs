use serde_json::json;

use toml_edit::DocumentMut;

use super::*;
use crate::bundle::ConfigBlob;

fn bundle(settings: Value) -> DesiredBundle {
    let blob = Digest::of(b"x");
    let config = json!({
        "type": "gvisor", "version": "1",
        "files": [
            {"path": "runsc", "mode": "0755", "size": 1, "sha256": blob.hex(), "blob": blob, "blobSize": 1},
            {"path": "shim", "mode": "0755", "size": 1, "sha256": blob.hex(), "blob": blob, "blobSize": 1},
        ],
        "entryPoints": ["runsc"],
        "handlers": [{"name": "runsc", "runtimeType": "io.containerd.runsc.v1", "shim": "shim",
                      "podAnnotations": ["dev.gvisor.*"], "config": "runsc.toml",
                      "options": {"TypeUrl": "io.containerd.runsc.v1.options"}}],
        "configs": [
            {"name": "runsc.toml", "format": "toml",
             "template": {"binary_name": "{bundle}/runsc", "z": ["{config}", {"b": 1, "a": "{other}"}],
                          "runsc_config": {"deep": {"on": true}}, "a \"quoted\" key": 1.5}},
            {"name": "c.json", "format": "json", "template": {"b": "{binaryPath}", "a": 1}},
            {"name": "c.txt", "format": "text", "template": "in {bundle}\n"},
        ],
        "settings": [
            {"name": "net-raw", "kind": "bool", "config": "runsc.toml", "key": "runsc_config.net-raw", "as": "string"},
            {"name": "debug", "kind": "bool", "config": "c.json", "key": "x.debug"},
            {"name": "memory", "kind": "int", "config": "runsc.toml", "key": "new.memory"},
            {"name": "platform", "kind": "string", "allowed": ["kvm", "systrap"], "config": "runsc.toml", "key": "runsc_config.platform"},
            {"name": "log", "kind": "bool", "config": "c.json", "key": "log.on", "omitFalse": true,
             "also": {"log.to": "{config}/%ID%.log", "log.level": 2}},
            {"name": "note", "kind": "string", "config": "runsc.toml", "key": "note"},
        ],
    });
    DesiredBundle {
        digest: Digest::of(b"manifest"),
        binary_path: "/var/bin/containerruntimes".parse().unwrap(),
        registry: "main".into(),
        repository: "r".into(),
        config: ConfigBlob::parse(config.to_string().as_bytes()).unwrap(),
        settings: settings.as_object().unwrap().clone(),
    }
}

fn file(layout: &Layout, name: &str) -> String {
    layout.rendered.as_ref().unwrap().1[&name.parse().unwrap()].clone()
}

#[test]
fn everything_is_reached_by_digest() {
    let layout = Layout::of(&bundle(json!({}))).unwrap();
    let tree =
        format!("/var/bin/containerruntimes/.rootstock/gvisor/{}", Digest::of(b"manifest").hex());
    let rendered = format!("{tree}-{}", settings_hash(&Map::new()));
    let table = &layout.tables[&"runsc".parse().unwrap()];
    assert_eq!(layout.tree.absolute(), tree);
    assert_eq!(table.runtime_path, format!("{tree}/shim"));
    assert_eq!(table.options["ConfigPath"], format!("{rendered}/runsc.toml"));
    assert_eq!(table.options["TypeUrl"], "io.containerd.runsc.v1.options");
    assert_eq!(table.pod_annotations, ["dev.gvisor.*"]);
    assert!(layout.tree.holds(&table.runtime_path));
    assert!(!layout.tree.holds(&format!("{rendered}/runsc.toml")));
    assert!(layout.rendered.as_ref().unwrap().0.holds(&format!("{rendered}/runsc.toml")));
    let links: Vec<_> = layout.links.iter().map(|(l, t)| (&*l.name, &**t)).collect();
    let target = format!(".rootstock/gvisor/{}/runsc", Digest::of(b"manifest").hex());
    assert_eq!(links, [("runsc", &*target)]);
}

#[test]
fn config_files_are_written_in_one_way() {
    let settings = json!({"net-raw": true, "debug": true, "memory": 5, "platform": "kvm",
                          "note": "a \"{bundle}\"\n"});
    let layout = Layout::of(&bundle(settings)).unwrap();
    let tree = layout.tree.absolute();
    let config = layout.rendered.as_ref().unwrap().0.absolute();
    let toml = file(&layout, "runsc.toml");
    let read: DocumentMut = toml.parse().unwrap();
    assert_eq!(read["binary_name"].as_str().unwrap(), format!("{tree}/runsc"));
    assert_eq!(read["z"][0].as_str().unwrap(), config);
    assert_eq!(read["z"][1]["a"].as_str(), Some("{other}"));
    assert_eq!(read["runsc_config"]["net-raw"].as_str(), Some("true"));
    assert_eq!(read["runsc_config"]["platform"].as_str(), Some("kvm"));
    assert_eq!(read["runsc_config"]["deep"]["on"].as_bool(), Some(true));
    assert_eq!(read["new"]["memory"].as_integer(), Some(5));
    assert_eq!(read["a \"quoted\" key"].as_float(), Some(1.5));
    // What a user wrote is no placeholder.
    assert_eq!(read["note"].as_str(), Some("a \"{bundle}\"\n"));
    assert_eq!(
        file(&layout, "c.json"),
        "{\n  \"a\": 1,\n  \"b\": \"/var/bin/containerruntimes\",\n  \"x\": {\n    \"debug\": true\n  }\n}\n"
    );
    assert_eq!(file(&layout, "c.txt"), format!("in {tree}\n"));
}

#[test]
fn toml_keeps_a_fixed_form() {
    let layout = Layout::of(&bundle(json!({"net-raw": false}))).unwrap();
    let (tree, config) = (layout.tree.absolute(), layout.rendered.as_ref().unwrap().0.absolute());
    let want = format!(
        "'a \"quoted\" key' = 1.5\nbinary_name = \"{tree}/runsc\"\nz = [\"{config}\", {{ a = \"{{other}}\", b = 1 }}]\n\n\
         [runsc_config]\nnet-raw = \"false\"\n\n[runsc_config.deep]\non = true\n"
    );
    assert_eq!(file(&layout, "runsc.toml"), want);
}

#[test]
fn other_settings_live_in_another_folder() {
    let id = |settings| Layout::of(&bundle(settings)).unwrap().rendered.unwrap().0;
    assert_eq!(
        id(json!({"net-raw": true, "debug": true})),
        id(json!({"debug": true, "net-raw": true}))
    );
    assert_ne!(id(json!({"net-raw": true})), id(json!({})));
}

#[test]
fn wrong_settings_are_refused_with_the_right_ones() {
    for (settings, want) in [
        (json!({"netraw": true}), "which has: net-raw, debug"),
        (json!({"net-raw": "yes"}), "is \"yes\", want true or false"),
        (json!({"memory": 1.5}), "want a whole number"),
        (json!({"platform": "ptrace"}), "one of \"kvm\", \"systrap\""),
    ] {
        let error = Layout::of(&bundle(settings)).unwrap_err();
        assert_eq!(error.reason(), Reason::ConfigurationInvalid);
        assert!(error.to_string().contains(want), "{error}");
    }
}

#[test]
fn a_template_that_can_not_be_written_is_the_bundles_fault() {
    let mut desired = bundle(json!({}));
    let broken = desired.config.json().replace("1.5", "null");
    desired.config = ConfigBlob::parse(broken.as_bytes()).unwrap();
    let error = Layout::of(&desired).unwrap_err();
    assert_eq!(error.reason(), Reason::BundleInvalid);
    assert!(error.to_string().contains("runsc.toml"), "{error}");
}

#[test]
fn a_bool_may_write_more_when_it_is_true_and_nothing_when_it_is_false() {
    let layout = Layout::of(&bundle(json!({"log": true}))).unwrap();
    let config = layout.rendered.as_ref().unwrap().0.absolute();
    let json: Value = serde_json::from_str(&file(&layout, "c.json")).unwrap();
    let want = json!({"on": true, "to": format!("{config}/%ID%.log"), "level": 2});
    assert_eq!(json["log"], want);
    let off = Layout::of(&bundle(json!({"log": false}))).unwrap();
    let none = Layout::of(&bundle(json!({}))).unwrap();
    assert_eq!(file(&off, "c.json"), file(&none, "c.json"));
}
