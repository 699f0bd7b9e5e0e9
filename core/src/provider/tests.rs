use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::bundle::{BundleConfig, MAX_SETTINGS};
use crate::digest::Digest;
use crate::name::RuntimeType;

fn gvisor() -> RuntimeType {
    "gvisor".parse().unwrap()
}

fn kata() -> RuntimeType {
    "kata".parse().unwrap()
}

fn bundle(runtime: &str, settings: Value) -> BundleConfig {
    let blob = Digest::of(b"x");
    let config = json!({
        "type": runtime, "version": "1",
        "files": [{"path": "shim", "mode": "0755", "size": 1, "sha256": blob.hex(), "blob": blob,
                   "blobSize": 1}],
        "handlers": [{"name": runtime, "runtimeType": "io.containerd.x.v1", "shim": "shim"}],
        "configs": [{"name": "c.toml", "format": "toml", "template": {"c": {}}}],
        "settings": settings,
    });
    BundleConfig::parse(config.to_string().as_bytes()).unwrap()
}

/// gVisor's four flags.
fn declared() -> BundleConfig {
    bundle(
        "gvisor",
        json!([
            {"name": "net-raw", "kind": "bool", "config": "c.toml", "key": "c.net-raw", "as": "string"},
            {"name": "debug", "kind": "bool", "config": "c.toml", "key": "c.debug", "as": "string",
             "also": {"c.debug-log": "/var/log/x"}, "omitFalse": true},
            {"name": "nvproxy", "kind": "bool", "config": "c.toml", "key": "c.nvproxy", "as": "string",
             "omitFalse": true},
            {"name": "panic-signal", "kind": "int", "config": "c.toml", "key": "c.panic-signal",
             "as": "string"},
        ]),
    )
}

fn flags(flags: Value) -> Value {
    json!({"apiVersion": GVISOR_API, "kind": GVISOR_KIND, "configFlags": flags})
}

fn settings(settings: Value) -> Value {
    json!({"apiVersion": RUNTIME_API, "kind": RUNTIME_KIND, "settings": settings})
}

fn given(config: &Value, how: How) -> Given {
    read(Some(config), &gvisor(), how).unwrap()
}

fn refused(config: &Value, runtime: &RuntimeType, how: How) -> String {
    read(Some(config), runtime, how).unwrap_err().to_string()
}

#[test]
fn nothing_asks_for_nothing() {
    for runtime in [gvisor(), kata()] {
        for config in [None, Some(Value::Null), Some(json!({}))] {
            let given = read(config.as_ref(), &runtime, How::Strict).unwrap();
            assert_eq!(given, Given::default());
        }
    }
    for config in [
        flags(Value::Null),
        flags(json!({})),
        json!({"apiVersion": GVISOR_API, "kind": GVISOR_KIND, "testImageTag": null}),
        settings(Value::Null),
        settings(json!({})),
    ] {
        let given = given(&config, How::Strict);
        assert!(given.settings.is_empty() && given.passed_over.is_empty(), "{config}");
        assert_eq!(given.check(&declared()).unwrap(), Checked::default());
    }
}

/// Every flag with every value, beside what the gVisor extension writes of it.
#[test]
fn every_flag_and_value_of_gvisor() {
    let table: [(&str, &str, Option<Value>); 20] = [
        ("net-raw", "true", Some(json!({"net-raw": true}))),
        ("net-raw", "false", Some(json!({"net-raw": false}))),
        ("net-raw", "yes", None),
        ("net-raw", "", None),
        ("net-raw", "True", None),
        ("debug", "true", Some(json!({"debug": true}))),
        // It writes nothing, as there.
        ("debug", "false", Some(json!({}))),
        ("debug", "1", None),
        ("nvproxy", "true", Some(json!({"nvproxy": true}))),
        ("nvproxy", "false", Some(json!({}))),
        ("nvproxy", "on", None),
        ("panic-signal", "6", Some(json!({"panic-signal": 6}))),
        ("panic-signal", "-1", Some(json!({"panic-signal": -1}))),
        ("panic-signal", "SIGABRT", None),
        ("panic-signal", "6.0", None),
        ("panic-signal", " 6", None),
        ("panic-signal", "99999999999999999999", None),
        ("platform", "kvm", None),
        ("Net-Raw", "true", None),
        ("net\u{2011}raw", "true", None),
    ];
    for (flag, value, want) in table {
        let config = flags(json!({flag: value}));
        let field = format!("spec.providerConfig.configFlags[{flag:?}]");
        let strict = given(&config, How::Strict).check(&declared());
        let warn = given(&config, How::Warn).check(&declared()).unwrap();
        match want {
            Some(want) => {
                let strict = strict.unwrap();
                assert_eq!(Value::Object(strict.settings.clone()), want, "{flag}={value}");
                assert_eq!(strict, warn);
            }
            None => {
                let error = strict.unwrap_err().to_string();
                assert!(error.starts_with(&format!("{field} is {value:?}: ")), "{error}");
                let allowed = ["true or false", "a whole number", "net-raw, debug, nvproxy"];
                assert!(allowed.iter().any(|allowed| error.contains(allowed)), "{error}");
                assert!(warn.settings.is_empty());
                assert_eq!((warn.passed_over.len(), &warn.passed_over[0].field), (1, &field));
            }
        }
    }
}

#[test]
fn what_is_right_is_kept_beside_what_is_passed_over() {
    let config =
        flags(json!({"net-raw": "true", "overlay2": "none", "debug": "maybe", "nvproxy": "true"}));
    let checked = given(&config, How::Warn).check(&declared()).unwrap();
    assert_eq!(Value::Object(checked.settings), json!({"net-raw": true, "nvproxy": true}));
    let names: Vec<_> = checked.passed_over.iter().map(ToString::to_string).collect();
    assert_eq!(
        names,
        [
            r#"spec.providerConfig.configFlags["debug"] is "maybe": want true or false, in quotes"#,
            r#"spec.providerConfig.configFlags["overlay2"] is "none": gvisor 1 has no such setting, it has: net-raw, debug, nvproxy, panic-signal"#,
        ]
    );
    // In strict, all of it is named at once.
    let error = given(&config, How::Strict).check(&declared()).unwrap_err().to_string();
    assert_eq!(error, names.join("; "));
}

#[test]
fn both_forms_come_to_the_same() {
    let texts = flags(json!({"panic-signal": "6", "net-raw": "false", "debug": "true"}));
    let values = settings(json!({"debug": true, "net-raw": false, "panic-signal": 6}));
    let check = |config| given(config, How::Strict).check(&declared()).unwrap();
    assert_eq!(check(&texts), check(&values));
    // A text is no number in the form that has numbers.
    let error = given(&settings(json!({"panic-signal": "6"})), How::Strict).check(&declared());
    let error = error.unwrap_err().to_string();
    assert_eq!(
        error,
        r#"spec.providerConfig.settings["panic-signal"] is "6": want a whole number"#
    );
}

#[test]
fn a_third_runtime_needs_no_code() {
    let bundle = bundle(
        "wasm",
        json!([
            {"name": "engine", "kind": "string", "allowed": ["wasmtime", "wasmer"], "config": "c.toml", "key": "c.engine"},
            {"name": "memory", "kind": "int", "min": 16, "max": 4096, "config": "c.toml", "key": "c.memory"},
            {"name": "later", "kind": "duration", "config": "c.toml", "key": "c.later"},
        ]),
    );
    let runtime: RuntimeType = "wasm".parse().unwrap();
    let check =
        |value: Value| read(Some(&settings(value)), &runtime, How::Strict).unwrap().check(&bundle);
    let checked = check(json!({"engine": "wasmer", "memory": 4096})).unwrap();
    assert_eq!(Value::Object(checked.settings), json!({"engine": "wasmer", "memory": 4096}));
    for (value, want) in [
        (json!({"engine": "v8"}), r#"want one of "wasmtime", "wasmer""#),
        (json!({"memory": 15}), "want a whole number from 16 to 4096"),
        (json!({"memory": 4097}), "want a whole number from 16 to 4096"),
        (json!({"later": "5m"}), "a value of kind duration, which this version does not know"),
    ] {
        let error = check(value).unwrap_err().to_string();
        assert!(error.ends_with(want), "{error}");
    }
}

#[test]
fn a_form_that_is_none_is_refused_by_name_in_any_mode() {
    let internal = "gvisor.runtime.extensions.config.gardener.cloud/__internal";
    let of = |api: Value, kind: Value| json!({"apiVersion": api, "kind": kind, "configFlags": {}});
    let table = [
        (
            gvisor(),
            of(json!(internal), json!(GVISOR_KIND)),
            "spec.providerConfig.apiVersion is \"gvisor",
        ),
        (
            gvisor(),
            of(json!("v1"), json!(GVISOR_KIND)),
            "spec.providerConfig.apiVersion is \"v1\": want kind GVisor",
        ),
        (
            gvisor(),
            of(json!(GVISOR_API), json!("Other")),
            "spec.providerConfig.kind is \"Other\": want kind GVisor",
        ),
        (
            gvisor(),
            of(json!(RUNTIME_API), json!(GVISOR_KIND)),
            "spec.providerConfig.kind is \"GVisor",
        ),
        (gvisor(), of(json!(1), json!(GVISOR_KIND)), "spec.providerConfig.apiVersion is 1: want"),
        (
            kata(),
            of(json!(GVISOR_API), json!(GVISOR_KIND)),
            "for kata want kind RuntimeConfiguration of rootstock",
        ),
        (
            kata(),
            of(Value::Null, json!(RUNTIME_KIND)),
            "spec.providerConfig.apiVersion is missing: want kind Runtime",
        ),
        (
            kata(),
            of(json!(RUNTIME_API), json!("")),
            "spec.providerConfig.kind is missing: want kind Runtime",
        ),
        (gvisor(), json!([]), "spec.providerConfig is a list: want an object"),
        (gvisor(), json!("net-raw"), "spec.providerConfig is a text: want an object"),
        (gvisor(), json!(true), "spec.providerConfig is true or false: want an object"),
    ];
    for (runtime, config, want) in table {
        for how in [How::Strict, How::Warn] {
            let error = refused(&config, &runtime, how);
            assert!(error.contains(want), "{config}: {error}");
        }
    }
}

/// The gVisor extension's decoder takes what names no form for its own.
#[test]
fn a_form_that_is_not_named_is_gvisors_only_where_that_is_said() {
    let config = json!({"configFlags": {"net-raw": "true"}});
    let error = refused(&config, &gvisor(), How::Strict);
    assert!(
        error.contains("spec.providerConfig.apiVersion is missing: want kind GVisor"),
        "{error}"
    );
    assert!(error.contains("spec.providerConfig.kind is missing"), "{error}");
    let given = given(&config, How::Warn);
    assert_eq!(Value::Object(given.settings), json!({"net-raw": "true"}));
    let fields: Vec<_> = given.passed_over.iter().map(|one| one.field.as_str()).collect();
    assert_eq!(fields, ["spec.providerConfig.apiVersion", "spec.providerConfig.kind"]);
    assert!(refused(&config, &kata(), How::Warn).contains("apiVersion is missing"));
}

#[test]
fn known_fields_without_effect_and_unknown_ones_are_refused_or_passed_over() {
    let mut tagged = flags(json!({"net-raw": "true"}));
    tagged["testImageTag"] = "pr-1".into();
    let mut odd = flags(json!({"net-raw": "true"}));
    odd["configflags"] = json!({"net-raw": "false"});
    let mut named = settings(json!({"net-raw": true}));
    named["a \"b\"\n"] = json!(1);
    for (config, want) in [
        (tagged, r#"spec.providerConfig.testImageTag is "pr-1": it has no effect"#),
        (odd, r#"spec.providerConfig.configflags is {"net-raw":"false"}: no such field"#),
        (
            named,
            r#"spec.providerConfig["a \"b\"\n"] is 1: no such field, want settings or strategy"#,
        ),
        (
            flags(json!({"net-raw": "true", "debug": null})),
            r#"configFlags["debug"] is null: want a text"#,
        ),
        (
            settings(json!({"net-raw": true, "x": null})),
            r#"settings["x"] is null: want true or false, a"#,
        ),
        (settings(json!({"net-raw": true, "x": 1.5})), r#"settings["x"] is 1.5: want"#),
        (settings(json!({"net-raw": true, "x": [1]})), r#"settings["x"] is [1]: want"#),
        (
            settings(json!({"net-raw": true, "x": u64::MAX})),
            r#"settings["x"] is 18446744073709551615: "#,
        ),
    ] {
        let error = refused(&config, &gvisor(), How::Strict);
        assert!(error.contains(want), "{error}");
        let given = given(&config, How::Warn);
        assert!(given.passed_over[0].to_string().contains(want));
        let checked = given.check(&declared()).unwrap();
        assert_eq!(Value::Object(checked.settings), json!({"net-raw": true}));
    }
}

/// Such a flag would be turned off by passing it over; the extension's own
/// decoder refuses it too, so that what is on the nodes stays.
#[test]
fn what_the_extension_does_not_decode_is_refused_in_any_mode() {
    let mut tag = flags(json!({}));
    tag["testImageTag"] = json!(1);
    for (config, want) in [
        (
            flags(json!({"net-raw": true})),
            r#"configFlags["net-raw"] is true: want a text in quotes"#,
        ),
        (
            flags(json!({"panic-signal": 6})),
            r#"configFlags["panic-signal"] is 6: want a text in quotes"#,
        ),
        (
            flags(json!({"a": {"b": {"c": []}}})),
            r#"configFlags["a"] is {"b":{"c":[]}}: want a text"#,
        ),
        (flags(json!(["net-raw"])), "configFlags is a list: want an object of texts"),
        (flags(json!("net-raw")), "configFlags is a text: want an object of texts"),
        (tag, "testImageTag is 1: want a text"),
        (settings(json!([1])), "settings is a list: want an object"),
    ] {
        for how in [How::Strict, How::Warn] {
            let error = refused(&config, &gvisor(), how);
            assert!(error.starts_with("spec.providerConfig.") && error.contains(want), "{error}");
        }
    }
}

#[test]
fn what_is_too_large_is_refused_and_what_is_said_of_it_is_short() {
    let many: Map<_, _> = (0..10_000).map(|n| (format!("f{n}"), json!("true"))).collect();
    let some: Map<_, _> = (0..=MAX_SETTINGS).map(|n| (format!("f{n}"), json!("t"))).collect();
    let huge = "ü".repeat(MAX_SIZE);
    let mut fields = flags(json!({}));
    fields.as_object_mut().unwrap().extend(some.clone());
    for (config, want) in [
        (flags(many.into()), "at most 65536 bytes"),
        (
            flags(some.clone().into()),
            "spec.providerConfig.configFlags is an object of 257 entries: at most 256",
        ),
        (settings(some.into()), "spec.providerConfig.settings is an object of 257 entries"),
        (fields, "spec.providerConfig is an object of"),
        (flags(json!({"net-raw": huge})), "spec.providerConfig is too large"),
        (json!({"apiVersion": huge, "kind": GVISOR_KIND}), "spec.providerConfig is too large"),
    ] {
        for how in [How::Strict, How::Warn] {
            let error = refused(&config, &gvisor(), how);
            assert!(error.contains(want) && error.len() < 2_000, "{error}");
        }
    }
    // What still fits is passed over like any other.
    let long = "\u{202e}\"\n".repeat(2_000);
    for config in
        [flags(json!({"net-raw": long})), flags(json!({long: "true"})), settings(json!({"": true}))]
    {
        assert!(refused(&config, &gvisor(), How::Strict).len() < 2_000);
        let given = given(&config, How::Warn);
        assert!(given.settings.is_empty());
        assert_eq!(given.passed_over.len(), 1);
    }
    let wrong: Map<_, _> = (0..200).map(|n| (format!("f{n:03}"), json!("x".repeat(200)))).collect();
    let error =
        given(&flags(wrong.into()), How::Strict).check(&declared()).unwrap_err().to_string();
    let named = error.matches(" is ").count();
    assert!(named > 1 && error.len() < 1_100, "{error}");
    assert!(error.ends_with(&format!("; and {} more", 200 - named)), "{error}");
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "(true|false|6|[\\PC\n]{0,8})".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        let name = prop_oneof![
            "(apiVersion|kind|configFlags|settings|testImageTag|net-raw|debug|panic-signal)",
            "\\PC{0,6}",
        ];
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map(name, inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    /// Whatever is written there, the answer is settings that the bundle takes
    /// or an error that names a field; and nothing is lost without a word.
    #[test]
    fn nothing_is_lost_without_a_word(mut config in any_json(), form in 0..3_usize, warn in any::<bool>()) {
        if let Some(map) = config.as_object_mut() {
            let names = [(GVISOR_API, GVISOR_KIND), (RUNTIME_API, RUNTIME_KIND)];
            if let Some((api, kind)) = names.get(form) {
                map.insert("apiVersion".into(), (*api).into());
                map.insert("kind".into(), (*kind).into());
            }
        }
        let how = if warn { How::Warn } else { How::Strict };
        let named = |error: Refused| {
            !error.0.is_empty() && error.0.iter().all(|one| one.field.starts_with("spec.providerConfig"))
        };
        match read(Some(&config), &gvisor(), how) {
            Err(error) => prop_assert!(named(error)),
            Ok(given) => {
                let asked = if given.form == Form::GVisor { "configFlags" } else { "settings" };
                for name in config.get(asked).and_then(Value::as_object).into_iter().flat_map(Map::keys) {
                    let field = given.form.field(name);
                    let passed_over = given.passed_over.iter().any(|one| one.field == field);
                    prop_assert!(given.settings.contains_key(name) != passed_over, "{}", field);
                }
                prop_assert!(warn || given.passed_over.is_empty());
                match given.check(&declared()) {
                    Err(error) => prop_assert!(!warn && named(error)),
                    Ok(checked) => {
                        for (name, value) in &checked.settings {
                            prop_assert!(declared().setting(name).unwrap().takes(value));
                        }
                        let omitted = given.settings.iter().filter(|(name, value)| {
                            let of = |text: &str| **value == json!(text) || **value == json!(text == "true");
                            (*name == "debug" || *name == "nvproxy") && of("false")
                        });
                        prop_assert_eq!(
                            checked.settings.len() + checked.passed_over.len() + omitted.count(),
                            given.settings.len()
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn a_strategy_stands_over_the_catalogs() {
    let config = |strategy: Value| json!({"apiVersion": RUNTIME_API, "kind": RUNTIME_KIND, "strategy": strategy});
    let read = |strategy: Value, how| {
        read(Some(&config(strategy)), &"kata".parse().unwrap(), how).map(|given| given.strategy)
    };
    let given = read(json!({"canary": "5%"}), How::Strict).unwrap().unwrap();
    assert_eq!(given.canary, Some(crate::rollout::Amount::Percent(5)));
    assert_eq!(read(Value::Null, How::Strict), Ok(None));
    // A typing error is refused also where others are passed over.
    for how in [How::Strict, How::Warn] {
        let refused = read(json!({"canry": 5}), how).unwrap_err().to_string();
        assert!(refused.contains("spec.providerConfig.strategy"), "{refused}");
        assert!(refused.contains("canry"), "{refused}");
        assert!(read(json!("fast"), how).is_err());
    }
}
