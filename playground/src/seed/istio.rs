//! The kinds of a seed's Istio by which agents come in. Nothing here routes: on
//! one machine agents find the controller by its port.

use serde_json::{Value, json};

/// Definitions of the kinds that Gardener and its extensions write.
pub fn definitions() -> [Value; 2] {
    [("Gateway", "gateways"), ("VirtualService", "virtualservices")]
        .map(|(kind, plural)| definition(kind, plural))
}

/// As much of Istio's own definition as an API server needs to keep objects.
fn definition(kind: &str, plural: &str) -> Value {
    let group = "networking.istio.io";
    let anything = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.{group}")},
        "spec": {
            "group": group, "scope": "Namespaced",
            "names": {"kind": kind, "listKind": format!("{kind}List"),
                      "plural": plural, "singular": kind.to_lowercase()},
            "versions": [{
                "name": "v1beta1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {
                    "type": "object", "properties": {"spec": anything, "status": anything},
                }},
                "subresources": {"status": {}},
            }],
        },
    })
}
