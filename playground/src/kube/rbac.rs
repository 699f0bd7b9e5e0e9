//! Who may do what, from the stored ClusterRoles and ClusterRoleBindings. Pure.

use serde_json::Value;

/// Someone whose token or certificate was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct User {
    pub(super) name: String,
    pub(super) groups: Vec<String>,
}

/// The administrators' group, which may do everything.
pub(super) const MASTERS: &str = "system:masters";

/// What a request is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Attributes<'a> {
    pub(super) verb: &'a str,
    pub(super) group: &'a str,
    /// `plural` or `plural/subresource`.
    pub(super) resource: &'a str,
    pub(super) name: Option<&'a str>,
}

/// Whether a binding gives the user a role with a rule that covers the request.
pub(super) fn allowed<'a>(
    user: &User,
    request: Attributes<'_>,
    roles: impl Iterator<Item = &'a Value> + Clone,
    mut bindings: impl Iterator<Item = &'a Value>,
) -> bool {
    if user.groups.iter().any(|group| group == MASTERS) {
        return true;
    }
    bindings.any(|binding| {
        let bound = items(&binding["subjects"]).any(|subject| is(subject, user));
        let role = &binding["roleRef"]["name"];
        bound
            && role.is_string()
            && roles
                .clone()
                .filter(|candidate| candidate["metadata"]["name"] == *role)
                .any(|role| items(&role["rules"]).any(|rule| covers(rule, request)))
    })
}

fn is(subject: &Value, user: &User) -> bool {
    let name = subject["name"].as_str().unwrap_or_default();
    match subject["kind"].as_str() {
        Some("User") => user.name == name,
        Some("Group") => user.groups.iter().any(|group| group == name),
        Some("ServiceAccount") => {
            let namespace = subject["namespace"].as_str().unwrap_or_default();
            user.name == format!("system:serviceaccount:{namespace}:{name}")
        }
        _ => false,
    }
}

fn covers(rule: &Value, request: Attributes<'_>) -> bool {
    let has = |field: &str, wanted: &str| {
        items(&rule[field]).any(|item| item == "*" || item.as_str() == Some(wanted))
    };
    // `*/status` is a subresource of any resource.
    let subresource = request.resource.split_once('/').is_some_and(|(_, sub)| {
        items(&rule["resources"]).any(|item| item.as_str() == Some(&format!("*/{sub}")))
    });
    let names = &rule["resourceNames"];
    has("verbs", request.verb)
        && has("apiGroups", request.group)
        && (has("resources", request.resource) || subresource)
        && (items(names).next().is_none()
            || items(names).any(|item| item.is_string() && item.as_str() == request.name))
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rules_and_bindings() {
        let roles = [
            json!({"metadata": {"name": "nodes"}, "rules": [
                {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "list"]},
                {"apiGroups": ["x.io"], "resources": ["*/status"], "verbs": ["patch"]},
                {"apiGroups": [""], "resources": ["secrets"], "verbs": ["*"], "resourceNames": ["mine"]},
            ]}),
            json!({"metadata": {"name": "unbound"}, "rules": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]}),
        ];
        let bindings = [json!({"roleRef": {"kind": "ClusterRole", "name": "nodes"},
            "subjects": [{"kind": "ServiceAccount", "namespace": "kube-system", "name": "agent"}]})];
        let user = |name: &str| User { name: name.into(), groups: vec![] };
        let agent = user("system:serviceaccount:kube-system:agent");
        let may = |user: &User, verb, group, resource, name| {
            let request = Attributes { verb, group, resource, name };
            allowed(user, request, roles.iter(), bindings.iter())
        };
        for (verb, group, resource, name, expected) in [
            ("list", "", "nodes", None, true),
            ("get", "", "nodes", Some("n"), true),
            ("patch", "", "nodes", Some("n"), false),
            ("list", "apps", "nodes", None, false),
            ("get", "", "nodes/status", Some("n"), false),
            ("patch", "x.io", "things/status", Some("t"), true),
            ("patch", "x.io", "things", Some("t"), false),
            ("get", "", "secrets", Some("mine"), true),
            ("get", "", "secrets", Some("other"), false),
            ("list", "", "secrets", None, false),
        ] {
            assert_eq!(may(&agent, verb, group, resource, name), expected, "{verb} {resource}");
        }
        assert!(!may(&user("other"), "list", "", "nodes", None));
        let admin = User { name: "admin".into(), groups: vec![MASTERS.into()] };
        assert!(may(&admin, "delete", "any", "thing", None));
    }
}
