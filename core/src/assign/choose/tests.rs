use serde_json::json;

use super::super::tests::{bundles, claim, config, kept, node, registries, resolved, types};
use super::super::{Assignment, Created, assign};
use super::*;
use crate::digest::Digest;
use crate::name::{Architecture, RuntimeType};
use crate::provider::{self, How};

fn gvisor() -> RuntimeType {
    "gvisor".parse().unwrap()
}

fn given(settings: Value, how: How) -> Result<Given, Problem> {
    let config = json!({"apiVersion": provider::RUNTIME_API, "kind": provider::RUNTIME_KIND,
                        "settings": settings});
    provider::read(Some(&config), &gvisor(), how).map_err(|error| invalid(&error.to_string()))
}

/// A claim on pool a for gvisor with settings.
fn asks(name: &str, created: i64, settings: Value) -> Claim {
    let mut claim = claim(name, "gvisor", "a");
    claim.created = Some(Created(created));
    claim.ask.as_mut().unwrap().settings = given(settings, How::Strict);
    claim
}

fn decide(claims: &[Claim]) -> Assignment {
    decide_with(claims, &bundles())
}

fn decide_with(claims: &[Claim], bundles: &BTreeMap<RuntimeType, Resolution>) -> Assignment {
    let node = node("a", "containerd", &["gvisor"]);
    let assignment = assign(&node, claims, bundles, &registries());
    let reversed: Vec<_> = claims.iter().rev().cloned().collect();
    assert_eq!(assign(&node, &reversed, bundles, &registries()), assignment);
    assignment
}

fn settings(assignment: &Assignment) -> Value {
    Value::Object(assignment.content.bundles[0].settings.clone())
}

fn is_wanted(assignment: &Assignment, name: &str) -> bool {
    matches!(assignment.verdicts[name], Verdict::Wanted(_))
}

fn held<'a>(assignment: &'a Assignment, name: &str) -> (Reason, &'a str) {
    match &assignment.verdicts[name] {
        Verdict::Held(problem) => (problem.reason, &problem.message),
        Verdict::Wanted(_) => panic!("{name} is wanted"),
    }
}

#[test]
fn the_older_resource_decides_and_the_younger_one_hears_of_it() {
    let assignment =
        decide(&[asks("new", 20, json!({"on": false})), asks("old", 10, json!({"on": true}))]);
    assert_eq!((types(&assignment), kept(&assignment)), (vec!["gvisor"], vec![]));
    assert_eq!(settings(&assignment), json!({"on": true}));
    assert!(is_wanted(&assignment, "old"));
    assert_eq!(
        held(&assignment, "new"),
        (
            Reason::SettingsConflict,
            "old and new both select node n, and the older one, old, decides: it has setting on true, not false"
        )
    );
}

#[test]
fn of_one_second_the_name_decides_and_a_known_time_before_an_unknown_one() {
    let table = [
        (Some(10), Some(10), "a"),
        (Some(20), Some(10), "b"),
        (None, Some(99), "b"),
        (Some(99), None, "a"),
        (None, None, "a"),
    ];
    for (first, second, want) in table {
        let mut claims = [asks("a", 0, json!({"on": true})), asks("b", 0, json!({"on": false}))];
        claims[0].created = first.map(Created);
        claims[1].created = second.map(Created);
        let assignment = decide(&claims);
        assert!(is_wanted(&assignment, want), "{first:?} {second:?}");
        assert_eq!(settings(&assignment), json!({"on": want == "a"}));
    }
}

#[test]
fn another_folder_is_a_conflict_too_and_a_third_one_may_agree() {
    let mut claims = [asks("a", 1, json!({})), asks("b", 2, json!({})), asks("c", 3, json!({}))];
    claims[1].ask.as_mut().unwrap().binary_path = "/opt/rootstock".parse().unwrap();
    let assignment = decide(&claims);
    assert!(is_wanted(&assignment, "a") && is_wanted(&assignment, "c"));
    let (reason, message) = held(&assignment, "b");
    assert_eq!(reason, Reason::SettingsConflict);
    assert!(
        message.ends_with("it has binaryPath /var/bin/containerruntimes, not /opt/rootstock"),
        "{message}"
    );
    assert_eq!(assignment.content.bundles[0].binary_path.as_str(), "/var/bin/containerruntimes");
}

#[test]
fn who_asks_for_the_same_in_other_words_agrees() {
    let mut texts = asks("texts", 2, json!({}));
    let config = json!({"apiVersion": provider::GVISOR_API, "kind": provider::GVISOR_KIND,
                        "configFlags": {"on": "true", "quiet": "false"}});
    let given = provider::read(Some(&config), &gvisor(), How::Strict).unwrap();
    texts.ask.as_mut().unwrap().settings = Ok(given);
    let assignment = decide(&[asks("values", 1, json!({"on": true})), texts]);
    assert!(is_wanted(&assignment, "values") && is_wanted(&assignment, "texts"));
    assert_eq!(settings(&assignment), json!({"on": true}));
}

#[test]
fn wrong_settings_hold_the_node_as_it_is() {
    let wrong = [json!({"on": "yes"}), json!({"off": true}), json!({"on": [1]})];
    for wrong in wrong {
        let assignment = decide(&[asks("a", 1, wrong)]);
        assert_eq!((types(&assignment), kept(&assignment)), (vec![], vec!["gvisor"]));
        let (reason, message) = held(&assignment, "a");
        assert_eq!(reason, Reason::ConfigurationInvalid);
        assert!(message.starts_with("spec.providerConfig.settings["), "{message}");
    }
    // In warn they are left out.
    let mut claim = asks("a", 1, json!({}));
    claim.ask.as_mut().unwrap().settings = given(json!({"on": true, "off": true}), How::Warn);
    assert_eq!(settings(&decide(&[claim])), json!({"on": true}));
}

#[test]
fn a_typing_error_in_the_older_one_does_not_hand_the_node_over() {
    let young = asks("young", 2, json!({"on": false}));
    let assignment = decide(&[asks("old", 1, json!({"on": "ture"})), young.clone()]);
    assert_eq!((types(&assignment), kept(&assignment)), (vec![], vec!["gvisor"]));
    assert_eq!(held(&assignment, "old").0, Reason::ConfigurationInvalid);
    let (reason, message) = held(&assignment, "young");
    assert_eq!(reason, Reason::SettingsConflict);
    assert!(message.contains("old and young") && message.contains("are refused"), "{message}");
    // One in the younger one is no business of the older one.
    let assignment = decide(&[asks("new", 3, json!({"on": "ture"})), young]);
    assert_eq!(settings(&assignment), json!({"on": false}));
    assert_eq!(held(&assignment, "new").0, Reason::ConfigurationInvalid);
}

#[test]
fn settings_are_pending_while_the_bundle_is() {
    let unknown = asks("unknown", 1, json!({"off": true}));
    let broken = asks("broken", 2, json!([]));
    let failed = Problem::new(Reason::BundleNotFound, "no such tag");
    for (resolution, reason) in [
        (Resolution::Pending, Reason::BundlePending),
        (Resolution::Failed(failed), Reason::BundleNotFound),
    ] {
        let bundles = [(gvisor(), resolution)].into();
        let assignment = decide_with(&[unknown.clone(), broken.clone()], &bundles);
        assert_eq!(kept(&assignment), ["gvisor"]);
        assert_eq!(held(&assignment, "unknown").0, reason);
        assert_eq!(held(&assignment, "broken").0, Reason::ConfigurationInvalid);
        assert!(bundles[&gvisor()].check(&gvisor(), &Given::default()).is_ok());
    }
}

#[test]
fn every_platform_has_to_take_them() {
    let of = |name: &str| ResolvedBundle {
        digest: Digest::of(name.as_bytes()),
        registry: "main".into(),
        repository: "r".into(),
        config: config("gvisor", name, name),
    };
    let Resolution::Resolved(mut resolved) = resolved("gvisor", "runsc", "runsc") else { panic!() };
    let mut lacks = of("runsc");
    let text = lacks.config.json().replace("\"on\"", "\"other\"");
    lacks.config = crate::bundle::ConfigBlob::parse(text.as_bytes()).unwrap();
    resolved.insert(Architecture::Arm64, Ok(lacks));
    let both = Resolution::Resolved(resolved);
    let check = |settings, how| both.check(&gvisor(), &given(settings, how).unwrap());

    let problem = check(json!({"on": true}), How::Strict).unwrap_err();
    assert_eq!(problem.reason, Reason::ConfigurationInvalid);
    assert!(problem.message.starts_with("for arm64, spec.providerConfig."), "{}", problem.message);
    let problem = check(json!({"none": true}), How::Strict).unwrap_err();
    assert!(problem.message.starts_with("spec.providerConfig."), "{}", problem.message);
    assert_eq!(check(json!({"on": true, "none": 1}), How::Warn).unwrap().len(), 2);
    assert!(check(json!({"quiet": true}), How::Strict).unwrap().is_empty());

    // A node of the other platform waits too, so that the settings don't fall apart.
    let bundles = [(gvisor(), both)].into();
    let assignment = decide_with(&[asks("a", 1, json!({"on": true}))], &bundles);
    assert_eq!(held(&assignment, "a").0, Reason::ConfigurationInvalid);
    let mut claim = asks("a", 1, json!({}));
    claim.ask.as_mut().unwrap().settings = given(json!({"on": true}), How::Warn);
    assert_eq!(settings(&decide_with(&[claim], &bundles)), json!({"on": true}));
}
