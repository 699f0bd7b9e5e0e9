//! What the API says about itself: groups, resources, and as much OpenAPI as
//! `kubectl` needs to leave checks to the server.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::kinds::{Kind, Kinds};

/// The version that is told to clients.
pub(super) const VERSION: &str = "v1.33.0";

/// Answers the paths that are not about objects; `None` for any other path.
pub(super) fn answer(kinds: &Kinds, path: &[&str]) -> Option<Value> {
    match path {
        ["version"] => Some(version()),
        ["api"] => Some(
            json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}),
        ),
        ["api", version] => resources(kinds, "", version),
        ["apis"] => {
            Some(json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups(kinds)}))
        }
        ["apis", group] => {
            groups(kinds).into_iter().find(|found| found["name"] == *group).map(|mut found| {
                found["kind"] = json!("APIGroup");
                found["apiVersion"] = json!("v1");
                found
            })
        }
        ["apis", group, version] => resources(kinds, group, version),
        ["openapi", "v3"] => Some(openapi_index(kinds)),
        ["openapi", "v3", "api", version] => openapi(kinds, "", version),
        ["openapi", "v3", "apis", group, version] => openapi(kinds, group, version),
        _ => None,
    }
}

fn version() -> Value {
    let (major, minor) = ("1", "33");
    json!({"major": major, "minor": minor, "gitVersion": VERSION, "gitCommit": "", "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z", "goVersion": "", "compiler": "rustc", "platform": "playground"})
}

fn groups(kinds: &Kinds) -> Vec<Value> {
    let mut groups: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for kind in kinds.iter().filter(|kind| !kind.group.is_empty()) {
        let versions = groups.entry(&kind.group).or_default();
        if !versions.contains(&kind.version.as_str()) {
            versions.push(&kind.version);
        }
    }
    groups
        .into_iter()
        .map(|(group, versions)| {
            let versions: Vec<_> = versions
                .into_iter()
                .map(|version| json!({"groupVersion": format!("{group}/{version}"), "version": version}))
                .collect();
            json!({"name": group, "versions": versions, "preferredVersion": versions.first()})
        })
        .collect()
}

fn resources(kinds: &Kinds, group: &str, version: &str) -> Option<Value> {
    let mut resources = Vec::new();
    for kind in of(kinds, group, version) {
        let verbs: &[&str] = if kind.review {
            &["create"]
        } else {
            &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
        };
        let mut resource = json!({"name": kind.plural, "singularName": kind.singular,
            "namespaced": kind.namespaced, "kind": kind.kind, "verbs": verbs});
        if !kind.short_names.is_empty() {
            resource["shortNames"] = json!(kind.short_names);
        }
        if !kind.categories.is_empty() {
            resource["categories"] = json!(kind.categories);
        }
        resources.push(resource);
        if kind.status {
            resources.push(json!({"name": format!("{}/status", kind.plural), "singularName": "",
                "namespaced": kind.namespaced, "kind": kind.kind, "verbs": ["get", "patch", "update"]}));
        }
        if kind.plural == "serviceaccounts" {
            resources.push(json!({"name": "serviceaccounts/token", "singularName": "", "namespaced": true,
                "group": "authentication.k8s.io", "version": "v1", "kind": "TokenRequest", "verbs": ["create"]}));
        }
    }
    let group_version =
        if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    (!resources.is_empty()).then(|| {
        json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": resources})
    })
}

fn openapi_index(kinds: &Kinds) -> Value {
    let paths: Map<_, _> = kinds
        .iter()
        .map(|kind| {
            let path = prefix(&kind.group, &kind.version);
            (path.clone(), json!({"serverRelativeURL": format!("/openapi/v3/{path}")}))
        })
        .collect();
    json!({"paths": paths})
}

/// A document that names each kind's PATCH operation with `fieldValidation`, which is
/// how `kubectl` learns that the server checks fields.
fn openapi(kinds: &Kinds, group: &str, version: &str) -> Option<Value> {
    let mut paths = Map::new();
    let mut schemas = Map::new();
    for kind in of(kinds, group, version) {
        let meaning = json!({"group": kind.group, "version": kind.version, "kind": kind.kind});
        let scope = if kind.namespaced { "namespaces/{namespace}/" } else { "" };
        let path = format!("/{}/{scope}{}/{{name}}", prefix(group, version), kind.plural);
        let parameter = |name: &str| json!({"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": true}});
        let parameters: Vec<_> =
            ["dryRun", "fieldManager", "fieldValidation"].map(parameter).into();
        paths.insert(
            path,
            json!({"patch": {"parameters": parameters, "responses": {"200": {"description": "OK"}},
                "x-kubernetes-action": "patch", "x-kubernetes-group-version-kind": meaning}}),
        );
        let mut schema = match &kind.schema {
            Some(schema) => schema.as_ref().clone(),
            None => json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}),
        };
        schema["x-kubernetes-group-version-kind"] = json!([meaning]);
        schemas.insert(format!("{}.{}.{}", kind.group, kind.version, kind.kind), schema);
    }
    (!paths.is_empty()).then(|| {
        json!({"openapi": "3.0.0", "info": {"title": "Kubernetes", "version": VERSION},
            "paths": paths, "components": {"schemas": schemas}})
    })
}

fn of<'a>(kinds: &'a Kinds, group: &'a str, version: &'a str) -> impl Iterator<Item = &'a Kind> {
    kinds.iter().filter(move |kind| kind.group == group && kind.version == version)
}

fn prefix(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}
