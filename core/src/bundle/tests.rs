use proptest::prelude::*;
use serde_json::json;

use super::*;

fn gvisor() -> Value {
    let digest = Digest::of(b"x");
    json!({
        "type": "gvisor", "version": "20260905.0", "minContainerd": "1.7.0",
        "files": [
            {"path": "runsc", "mode": "0755", "size": 3, "sha256": digest.hex(), "blob": digest, "blobSize": 2},
            {"path": "containerd-shim-runsc-v1", "mode": "0755", "size": 3, "sha256": digest.hex(), "blob": digest, "blobSize": 2},
            {"path": "gvisor-bin/gvisor_sentry", "mode": "0755", "size": 3, "sha256": digest.hex(), "blob": digest, "blobSize": 2},
        ],
        "entryPoints": ["runsc", "containerd-shim-runsc-v1"],
        "handlers": [{"name": "runsc", "runtimeType": "io.containerd.runsc.v1", "shim": "containerd-shim-runsc-v1",
                      "podAnnotations": [], "config": "runsc.toml",
                      "options": {"TypeUrl": "io.containerd.runsc.v1.options"}}],
        "configs": [{"name": "runsc.toml", "format": "toml",
                     "template": {"binary_name": "{bundle}/runsc", "runsc_config": {}}}],
        "settings": [{"name": "net-raw", "kind": "bool", "config": "runsc.toml", "key": "runsc_config.net-raw", "as": "string"}],
        "needs": [{"device": "/dev/kvm"}, {"module": "vhost_vsock"}],
    })
}

fn parse(value: &Value) -> Result<BundleConfig, InvalidBundle> {
    BundleConfig::parse(value.to_string().as_bytes())
}

#[test]
fn the_documented_form_is_read() {
    let bundle = parse(&gvisor()).unwrap();
    assert_eq!(bundle.runtime.as_str(), "gvisor");
    assert_eq!(bundle.files[0].mode, FileMode::PROGRAM);
    assert_eq!(bundle.needs[1], Need::Module("vhost_vsock".to_owned()));
    assert_eq!((bundle.blob_bytes(), bundle.plain_bytes()), (6, 9));
    let again = parse(&serde_json::to_value(&bundle).unwrap()).unwrap();
    assert_eq!(bundle, again);
}

#[test]
fn fields_of_a_later_version_are_passed_over() {
    let mut value = gvisor();
    value["later"] = json!({"a": 1});
    value["files"][0]["later"] = json!(1);
    parse(&value).unwrap();
}

#[test]
fn what_contradicts_itself_is_refused_with_its_reason() {
    let table: [(&str, Value, Reason, &str); 16] = [
        ("/files/0/path", json!("/etc/passwd"), Reason::PathRefused, "absolute"),
        ("/files/0/path", json!("../runsc"), Reason::PathRefused, "'..'"),
        ("/files/0/path", json!("gvisor-bin"), Reason::PathRefused, "leads through gvisor-bin"),
        ("/files/0/path", json!("gvisor-bin/gvisor_sentry"), Reason::PathRefused, "twice"),
        ("/files/0/mode", json!("4755"), Reason::BundleInvalid, "mode"),
        ("/files/0/size", json!(MAX_FILE_SIZE + 1), Reason::BundleInvalid, "more than"),
        ("/files/0/sha256", json!("abc"), Reason::BundleInvalid, "digest"),
        ("/entryPoints/0", json!("nothing"), Reason::BundleInvalid, "entry point nothing"),
        ("/entryPoints/0", json!("gvisor-bin/gvisor_sentry"), Reason::BundleInvalid, "entry point"),
        ("/entryPoints/0", json!("containerd-shim-runsc-v1"), Reason::BundleInvalid, "twice"),
        ("/entryPoints/0", json!("runc"), Reason::BundleInvalid, "belongs to the node"),
        ("/handlers/0/name", json!("runc"), Reason::BundleInvalid, "belongs to the node"),
        ("/handlers/0/shim", json!("nothing"), Reason::BundleInvalid, "shim nothing"),
        ("/handlers/0/config", json!("other.toml"), Reason::BundleInvalid, "config other.toml"),
        ("/settings/0/config", json!("other.toml"), Reason::BundleInvalid, "setting net-raw"),
        ("/handlers", json!([]), Reason::BundleInvalid, "no handlers"),
    ];
    for (at, wrong, reason, text) in table {
        let mut value = gvisor();
        *value.pointer_mut(at).unwrap() = wrong;
        let error = parse(&value).unwrap_err();
        assert_eq!(error.reason(), reason, "{at}: {error}");
        assert!(error.to_string().contains(text), "{at}: {error}");
    }
}

#[test]
fn a_huge_blob_is_not_even_read() {
    let error = BundleConfig::parse(&vec![b' '; MAX_CONFIG_SIZE + 1]).unwrap_err();
    assert_eq!(error.reason(), Reason::SizeExceeded);
}

#[test]
fn a_config_blob_keeps_its_bytes() {
    let text = format!("{}\n", gvisor());
    let blob = ConfigBlob::parse(text.as_bytes()).unwrap();
    assert_eq!(blob.json(), text);
    let through_serde: ConfigBlob =
        serde_json::from_str(&serde_json::to_string(&blob).unwrap()).unwrap();
    assert_eq!(through_serde, blob);
}

#[test]
fn an_entry_point_does_not_take_over_the_node() {
    let mut value = gvisor();
    value["files"][0]["path"] = json!("containerd-shim-runc-v2");
    value["entryPoints"] = json!(["containerd-shim-runc-v2"]);
    value["handlers"][0]["shim"] = json!("containerd-shim-runc-v2");
    let error = parse(&value).unwrap_err().to_string();
    assert!(error.contains("belongs to the node"), "{error}");
    value["entryPoints"] = json!([]);
    parse(&value).unwrap();
}

fn setting(change: Value) -> Value {
    let mut setting = json!({"name": "debug", "kind": "bool", "config": "runsc.toml",
                             "key": "runsc_config.debug", "as": "string"});
    setting.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
    setting
}

#[test]
fn settings_say_what_they_take_and_what_they_write() {
    let mut value = gvisor();
    let more = [
        setting(json!({"also": {"runsc_config.debug-log": "/var/log/x"}, "omitFalse": true})),
        setting(json!({"name": "cpus", "kind": "int", "key": "cpus", "min": 1, "max": 8})),
        setting(
            json!({"name": "p", "kind": "string", "key": "binary_name", "allowed": ["a", "b"]}),
        ),
        // Of a later version: no value is taken, and the rest goes on.
        setting(json!({"name": "later", "kind": "duration", "key": "later", "allowed": ["5m"]})),
    ];
    value["settings"].as_array_mut().unwrap().extend(more);
    let bundle = parse(&value).unwrap();
    let again = parse(&serde_json::to_value(&bundle).unwrap()).unwrap();
    assert_eq!(bundle, again);
    let table = [
        ("debug", json!(true), true),
        ("debug", json!("true"), false),
        ("cpus", json!(8), true),
        ("cpus", json!(9), false),
        ("cpus", json!(0), false),
        ("cpus", json!(1.0), false),
        ("p", json!("b"), true),
        ("p", json!("c"), false),
        ("later", json!("5m"), false),
    ];
    for (name, value, takes) in table {
        assert_eq!(bundle.setting(name).unwrap().takes(&value), takes, "{name} {value}");
    }
    assert!(bundle.setting("debug").unwrap().omits(&json!(false)));
    assert!(!bundle.setting("net-raw").unwrap().omits(&json!(false)));
    assert_eq!(bundle.setting("cpus").unwrap().read("+7"), Some(json!(7)));
    assert_eq!(bundle.setting("later").unwrap().read("7"), None);
}

#[test]
fn settings_that_contradict_themselves_are_refused() {
    let table = [
        (json!({"name": ""}), "no name"),
        (json!({"name": "a\nb"}), "no name"),
        (json!({"name": "x".repeat(129)}), "no name"),
        (json!({"name": "net-raw"}), "net-raw is there twice"),
        (json!({"key": "runsc_config.net-raw"}), "which another one has too"),
        (json!({"also": {"runsc_config.net-raw": 1}}), "which another one has too"),
        (json!({"also": {"runsc_config.debug.log": 1}}), "leads through the value"),
        (json!({"also": {"": 1}}), "a key that is none"),
        (json!({"key": "a..b"}), "a key that is none"),
        (json!({"key": "runsc_config"}), "no value's"),
        (json!({"key": "binary_name.a"}), "no value's"),
        (json!({"kind": "int", "omitFalse": true}), "no bool"),
        (json!({"kind": "string", "also": {"a": 1}}), "no bool"),
        (json!({"min": 1}), "no int"),
        (json!({"kind": "int", "min": 2, "max": 1}), "above its max"),
        (json!({"kind": "int", "allowed": ["1"]}), "not of its kind"),
        (json!({"kind": "int", "max": 3, "allowed": [4]}), "not of its kind"),
        (json!({"config": "text"}), "which is a text"),
    ];
    for (change, want) in table {
        let mut value = gvisor();
        let text = json!({"name": "text", "format": "text", "template": "x"});
        value["configs"].as_array_mut().unwrap().push(text);
        value["settings"].as_array_mut().unwrap().push(setting(change.clone()));
        let error = parse(&value).unwrap_err();
        assert_eq!(error.reason(), Reason::BundleInvalid);
        assert!(error.to_string().contains(want), "{change}: {error}");
    }
    let mut value = gvisor();
    value["settings"] = (0..=MAX_SETTINGS)
        .map(|n| setting(json!({"name": format!("s{n}"), "key": format!("k{n}")})))
        .collect();
    assert!(parse(&value).unwrap_err().to_string().contains("at most 256"));
}

/// Where in [`gvisor`] something else is put.
const PLACES: [&str; 14] = [
    "/type",
    "/version",
    "/files",
    "/files/0/path",
    "/files/0/mode",
    "/files/0/size",
    "/files/0/blobSize",
    "/files/1/path",
    "/entryPoints/0",
    "/handlers/0/name",
    "/handlers/0/shim",
    "/configs/0/name",
    "/settings/0/key",
    "/needs",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Whatever a config blob says, what is taken of it lies in the bundle, is
    /// within the limits and takes nothing of the node's.
    #[test]
    fn any_config_blob_is_taken_within_limits_or_refused(
        noise in any::<Vec<u8>>(), place in prop::sample::select(&PLACES[..]),
        value in prop_oneof![
            "[./a-z]{0,9}".prop_map(Value::from), "(runc|runsc|0777|4755|\\PC{0,9})".prop_map(Value::from),
            any::<u64>().prop_map(Value::from), Just(Value::Null), Just(json!([])), Just(json!({})),
        ],
        at: prop::sample::Index, byte: u8,
    ) {
        let mut config = gvisor();
        *config.pointer_mut(place).unwrap() = value;
        let mut bytes = gvisor().to_string().into_bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        for json in [noise, config.to_string().into_bytes(), bytes] {
            let Ok(blob) = ConfigBlob::parse(&json) else { continue };
            prop_assert_eq!(blob.json().as_bytes(), &json[..], "no byte is another");
            let bundle = blob.config();
            prop_assert!(!bundle.files.is_empty() && bundle.files.len() <= MAX_FILES);
            for file in &bundle.files {
                let path = file.path.as_str();
                prop_assert!(!path.starts_with('/') && !path.split('/').any(|part| matches!(part, "" | "." | "..")));
                prop_assert!(file.mode.bits() <= 0o777 && file.size.max(file.blob_size) <= MAX_FILE_SIZE);
            }
            prop_assert!(bundle.handlers.iter().all(|handler| handler.name.as_str() != "runc"));
            prop_assert!(bundle.entry_points.iter().all(|entry| entry.is_top_level() && entry.as_str() != "runc"));
        }
    }
}
