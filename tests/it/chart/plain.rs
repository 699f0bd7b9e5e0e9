//! What can be said of the chart's files without Helm.

use std::collections::BTreeSet;

use clap::CommandFactory as _;
use k8s_openapi::api::rbac::v1::PolicyRule;
use rootstock_controller::Args;
use serde_json::{Value, json};

use super::support::{documents, path, registered_values, registrations, text};

const RULES: [&str; 5] = [
    "rules.yaml",
    "rules-own-namespace.yaml",
    "rules-local.yaml",
    "rules-local-own-namespace.yaml",
    "rules-local-kube-system.yaml",
];

fn rules(file: &str) -> Vec<PolicyRule> {
    serde_saphyr::from_str(&text(&format!("rootstock/files/{file}"))).unwrap()
}

#[test]
fn rules_name_what_they_allow_and_nothing_at_large() {
    for file in RULES {
        let rules = rules(file);
        assert!(!rules.is_empty(), "{file}");
        for rule in rules {
            let resources = rule.resources.clone().unwrap();
            let groups = rule.api_groups.clone().unwrap();
            assert!(!resources.is_empty() && !groups.is_empty(), "{file}: {rule:?}");
            let words = resources.iter().chain(&groups).chain(&rule.verbs);
            for word in words {
                assert!(!word.contains('*'), "{file}: {rule:?}");
            }
            for verb in &rule.verbs {
                let known = ["get", "list", "watch", "create", "patch", "update", "delete"]
                    .contains(&&**verb);
                assert!(known, "{file}: {verb} in {rule:?}");
            }
            // A create has no name that could match.
            let named = rule.resource_names.is_some();
            assert!(!named || !rule.verbs.iter().any(|verb| verb == "create"), "{file}: {rule:?}");
        }
    }
}

#[test]
fn in_a_seed_nothing_of_a_plain_cluster_is_allowed() {
    let allowed: BTreeSet<String> =
        rules("rules.yaml").into_iter().flat_map(|rule| rule.resources.unwrap()).collect();
    let expected = [
        "clusters",
        "containerruntimes",
        "containerruntimes/status",
        "events",
        "gateways",
        "managedresources",
        "secrets",
        "virtualservices",
    ];
    assert_eq!(allowed, expected.map(String::from).into());
}

#[test]
fn the_chart_has_the_version_of_the_workspace() {
    let chart: Value = serde_saphyr::from_str(&text("rootstock/Chart.yaml")).unwrap();
    assert_eq!(chart["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(chart["appVersion"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn every_value_is_in_the_schema_and_in_the_values() {
    let schema: Value = serde_json::from_str(&text("rootstock/values.schema.json")).unwrap();
    let values: Value = serde_saphyr::from_str(&text("rootstock/values.yaml")).unwrap();
    let keys = |value: &Value| -> BTreeSet<String> {
        value.as_object().unwrap().keys().cloned().collect()
    };
    let mut known = keys(&schema["properties"]);
    known.remove("global");
    assert_eq!(known, keys(&values));
    for section in
        ["controller", "endpoint", "agentProxy", "service", "ports", "log", "vpa", "config"]
    {
        assert_eq!(
            keys(&schema["properties"][section]["properties"]),
            keys(&values[section]),
            "{section}"
        );
    }
    closed("", &schema);
}

/// Every object of the schema refuses keys that it does not know, or says what
/// its keys hold.
fn closed(at: &str, schema: &Value) {
    let Some(object) = schema.as_object() else { return };
    if object.contains_key("properties") {
        assert_eq!(object.get("additionalProperties"), Some(&json!(false)), "{at}");
    }
    for (key, inner) in object {
        closed(&format!("{at}/{key}"), inner);
    }
}

#[test]
fn flags_of_the_template_are_flags_of_the_controller() {
    let command = Args::command();
    let known: BTreeSet<&str> = command.get_arguments().filter_map(|arg| arg.get_long()).collect();
    let template = text("rootstock/templates/deployment.yaml");
    let named: BTreeSet<&str> = template
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- --"))
        .map(|flag| flag.split('=').next().unwrap())
        .collect();
    assert!(named.is_subset(&known), "unknown: {:?}", named.difference(&known));
    // In a Pod the ServiceAccount is used, its name is the controller's, and
    // the Lease is in its own namespace.
    let left_out: Vec<_> = known.difference(&named).copied().collect();
    assert_eq!(left_out, ["identity", "kubeconfig", "leader-election-namespace"]);
}

#[test]
fn the_agent_has_one_source_which_is_not_the_chart() {
    for folder in ["rootstock/templates", "rootstock/files", "registration"] {
        for entry in std::fs::read_dir(path(folder)).unwrap() {
            let content = std::fs::read_to_string(entry.unwrap().path()).unwrap();
            assert!(!content.contains("kind: DaemonSet"), "{folder}");
        }
    }
}

#[test]
fn both_registrations_register_the_same() {
    let found = registrations();
    let [(_, operator), (_, gardener)] = &found[..] else { panic!("{found:?}") };
    assert_eq!(operator[0]["apiVersion"], "operator.gardener.cloud/v1alpha1");
    assert_eq!(operator[0]["kind"], "Extension");
    assert_eq!(gardener[0]["apiVersion"], "core.gardener.cloud/v1");
    assert_eq!(gardener[0]["kind"], "ControllerDeployment");
    assert_eq!(gardener[1]["apiVersion"], "core.gardener.cloud/v1beta1");
    assert_eq!(gardener[1]["kind"], "ControllerRegistration");
    let referred = &gardener[1]["spec"]["deployment"]["deploymentRefs"];
    assert_eq!(*referred, json!([{"name": gardener[0]["metadata"]["name"]}]));

    assert_eq!(registered_values(operator), registered_values(gardener));
    let helm = &operator[0]["spec"]["deployment"]["extension"]["helm"];
    assert_eq!(helm["ociRepository"], gardener[0]["helm"]["ociRepository"]);
    let configured = registered_values(operator)["config"]["runtimes"].as_array().unwrap();
    for manifest in [&operator[0], &gardener[1]] {
        let enforce =
            &manifest["metadata"]["annotations"]["security.gardener.cloud/pod-security-enforce"];
        assert_eq!(enforce, "baseline");
        let resources = manifest["spec"]["resources"].as_array().unwrap();
        assert_eq!(resources.len(), configured.len());
        for (resource, runtime) in resources.iter().zip(configured) {
            let expected =
                json!({"kind": "ContainerRuntime", "type": runtime["type"], "primary": true});
            assert_eq!(*resource, expected);
        }
    }
}

#[test]
fn the_readme_shows_every_value() {
    let readme = text("README.md");
    let values: Value = serde_saphyr::from_str(&text("rootstock/values.yaml")).unwrap();
    for (key, value) in values.as_object().unwrap() {
        let inner = value.as_object().filter(|inner| !inner.is_empty() && key != "resources");
        match inner {
            Some(inner) => {
                for name in inner.keys() {
                    let full = format!("`{key}.{name}`");
                    assert!(readme.contains(&full), "{full} is not in charts/README.md");
                }
            }
            None => assert!(readme.contains(&format!("`{key}`")), "{key} is not in the README"),
        }
    }
    for document in documents(&text("rootstock/values.yaml")) {
        assert!(document.is_object());
    }
}
