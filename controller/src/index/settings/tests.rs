use rootstock_core::assign::{Resolution, Verdict};
use rootstock_core::path::BinaryRoots;
use rootstock_core::provider::{GVISOR_API, GVISOR_KIND, How, RUNTIME_API, RUNTIME_KIND};
use rootstock_core::rollup::ConditionStatus;
use rootstock_core::status::Reason;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::super::RuntimeKey;
use super::super::tests::{bundle, gvisor, id, key, node, pool_a, put_bundle, runtime, shoot};
use super::*;
use crate::content::Offered;

fn resolved(names: &[&str]) -> Resolution {
    let settings = names.iter().map(|name| {
        json!({"name": name, "kind": "bool", "config": "runsc.toml", "as": "string",
               "key": format!("runsc_config.{name}")})
    });
    let configs =
        json!([{"name": "runsc.toml", "format": "toml", "template": {"runsc_config": {}}}]);
    bundle(b"gvisor", &json!({"configs": configs, "settings": settings.collect::<Vec<_>>()}))
}

fn with(config: Value) -> ContainerRuntime {
    let mut object = runtime(pool_a(), false);
    object.spec.provider_config = Some(config);
    object
}

fn flags(flags: Value) -> ContainerRuntime {
    with(json!({"apiVersion": GVISOR_API, "kind": GVISOR_KIND, "configFlags": flags}))
}

fn ready(how: How, object: &ContainerRuntime) -> Index {
    let index = Index::new(BinaryRoots::default()).at_once().with_provider_config(how);
    put_bundle(&index, resolved(&["net-raw", "debug"]));
    index.seed_listed(&[object.clone().into()]);
    index.nodes_listed(&shoot(), &[node("1", true)]);
    index
}

fn desired(index: &Index) -> watch::Receiver<Option<Offered>> {
    index.connect(&id("1"), None).unwrap()
}

fn settings(desired: &watch::Receiver<Option<Offered>>) -> Value {
    let desired = desired.borrow();
    Value::Object(desired.as_ref().unwrap().content.bundles[0].settings.clone())
}

fn nodes_ready(index: &Index) -> (ConditionStatus, String, String) {
    let [_, nodes, _] = index.summary(&key()).unwrap().conditions;
    (nodes.status, nodes.reason, nodes.message)
}

#[test]
fn a_node_is_sent_the_settings_as_the_bundle_takes_them() {
    let index = ready(How::Strict, &flags(json!({"net-raw": "false", "debug": "true"})));
    assert_eq!(settings(&desired(&index)), json!({"debug": true, "net-raw": false}));
    assert_eq!(index.problem(&flags(json!({"net-raw": "false"}))), None);
    assert!(index.passed_over(&flags(json!({}))).is_empty());
}

#[test]
fn a_bad_configuration_keeps_the_last_good_state_on_the_nodes() {
    let index = ready(How::Strict, &flags(json!({"net-raw": "true"})));
    let desired = desired(&index);
    assert_eq!(settings(&desired), json!({"net-raw": true}));
    let bad = [
        (flags(json!({"net-raw": "maybe"})), r#"configFlags["net-raw"] is "maybe": want true or"#),
        (flags(json!({"net-row": "true"})), r#"configFlags["net-row"] is "true": gvisor 1 has no"#),
        (flags(json!({"net-raw": true})), r#"configFlags["net-raw"] is true: want a text"#),
        (with(json!({"kind": "Other"})), "spec.providerConfig.apiVersion is missing: want"),
        (with(json!([])), "spec.providerConfig is a list: want an object"),
    ];
    for (object, want) in bad {
        let problem = index.problem(&object).unwrap();
        assert_eq!(problem.reason, Reason::ConfigurationInvalid);
        assert!(problem.message.contains(want), "{}", problem.message);
        assert!(index.passed_over(&object).is_empty(), "it is refused, not passed over");

        index.put_runtime(&object);
        let content = desired.borrow().as_ref().unwrap().content.clone();
        assert_eq!((content.bundles.len(), &content.keep), (0, &[gvisor()].into()));
        let (status, reason, message) = nodes_ready(&index);
        assert_eq!((status, reason.as_str()), (ConditionStatus::False, "ConfigurationInvalid"));
        assert!(message.contains(want), "{message}");

        // A good one goes on from there.
        index.put_runtime(&flags(json!({"net-raw": "true"})));
        assert_eq!(settings(&desired), json!({"net-raw": true}));
    }
}

#[test]
fn settings_of_a_bundle_that_is_not_known_are_pending() {
    let object = flags(json!({"later": "true"}));
    let index = ready(How::Strict, &object);
    assert!(index.problem(&object).is_some());
    let failed = Problem::new(Reason::RegistryUnreachable, "no route");
    for resolution in [Resolution::Pending, Resolution::Failed(failed)] {
        put_bundle(&index, resolution);
        assert_eq!(index.problem(&object), None);
        let content = desired(&index).borrow().as_ref().unwrap().content.clone();
        assert_eq!(content.keep, [gvisor()].into());
        assert_ne!(nodes_ready(&index).1, "ConfigurationInvalid");
        // What can't be read is wrong whatever the bundle.
        assert!(index.problem(&with(json!({"a": 1}))).is_some());
    }
    put_bundle(&index, resolved(&["later"]));
    assert_eq!(index.problem(&object), None);
    assert_eq!(settings(&desired(&index)), json!({"later": true}));
}

#[test]
fn in_warn_what_is_unknown_is_left_out_and_said_once() {
    let mut object = flags(json!({"net-raw": "true", "overlay2": "none", "debug": "maybe"}));
    object.spec.provider_config.as_mut().unwrap()["testImageTag"] = "pr-1".into();
    let index = ready(How::Warn, &object);
    assert_eq!(settings(&desired(&index)), json!({"net-raw": true}));
    assert_eq!(index.problem(&object), None);
    let list = index.passed_over(&object);
    let fields: Vec<_> = list.iter().map(|one| one.split(" is ").next().unwrap()).collect();
    assert_eq!(
        fields,
        [
            r#"spec.providerConfig.configFlags["debug"]"#,
            r#"spec.providerConfig.configFlags["overlay2"]"#,
            "spec.providerConfig.testImageTag",
        ]
    );
}

#[test]
fn what_is_said_of_many_flags_stays_short() {
    let many = (0..200).map(|n| (format!("flag-{n:03}"), json!("x".repeat(300))));
    let object = flags(Value::Object(many.collect()));
    let index = ready(How::Warn, &object);
    let list = index.passed_over(&object);
    assert_eq!((list.len(), list[20].as_str()), (21, "180 more"));
}

#[test]
fn the_older_of_two_resources_decides_until_they_agree() {
    let generic = |on: bool| json!({"apiVersion": RUNTIME_API, "kind": RUNTIME_KIND, "settings": {"net-raw": on}});
    let resource = |name: &str, created: &str, on: bool| {
        let mut object = with(generic(on));
        object.metadata.name = Some(name.to_owned());
        object.metadata.creation_timestamp = Some(serde_json::from_value(json!(created)).unwrap());
        object
    };
    let old = resource("z-old", "2026-01-01T00:00:00Z", true);
    let index = ready(How::Strict, &old);
    index.put_runtime(&resource("a-new", "2026-01-02T00:00:00Z", false));
    let desired = desired(&index);
    assert_eq!(settings(&desired), json!({"net-raw": true}));
    let verdict = |name: &str| {
        let state = index.lock();
        let node = state.shoots[&shoot()].nodes.values().next().unwrap();
        node.assigned.verdicts[name].clone()
    };
    assert!(matches!(verdict("z-old"), Verdict::Wanted(_)));
    let Verdict::Held(problem) = verdict("a-new") else { panic!() };
    assert_eq!(problem.reason, Reason::SettingsConflict);
    assert!(problem.message.contains("z-old and a-new both select node n1"), "{}", problem.message);
    let summary = index.summary(&RuntimeKey { shoot: shoot(), name: "a-new".into() }).unwrap();
    assert_eq!(summary.conditions[1].reason, "SettingsConflict");

    index.put_runtime(&resource("a-new", "2026-01-02T00:00:00Z", true));
    assert!(matches!(verdict("a-new"), Verdict::Wanted(_)));
    // The older one goes: the node stays as the younger one has it.
    index.remove_runtime(&RuntimeKey { shoot: shoot(), name: "z-old".into() });
    assert_eq!(settings(&desired), json!({"net-raw": true}));
}
