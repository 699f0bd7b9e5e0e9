//! Objects of the API as nobody should write them. One that can't be read is
//! an error of its watch, and none may end a task.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Cluster, ContainerRuntime, Lean};

const CLUSTER: [&str; 10] = [
    "/metadata",
    "/metadata/annotations",
    "/spec",
    "/spec/seed/spec/ingress/domain",
    "/spec/shoot",
    "/spec/shoot/metadata/annotations",
    "/spec/shoot/metadata/deletionTimestamp",
    "/spec/shoot/spec/hibernation/enabled",
    "/spec/shoot/status",
    "/spec/shoot/status/lastOperation/state",
];
const RUNTIME: [&str; 9] = [
    "/metadata/annotations",
    "/metadata/deletionTimestamp",
    "/spec",
    "/spec/type",
    "/spec/binaryPath",
    "/spec/providerConfig",
    "/spec/workerPool/selector",
    "/spec/workerPool/selector/matchExpressions",
    "/status/lastOperation",
];

fn cluster() -> Value {
    json!({
        "apiVersion": "extensions.gardener.cloud/v1alpha1", "kind": "Cluster",
        "metadata": {"name": "shoot--a--b", "annotations": {"a": "b"}},
        "spec": {
            "seed": {"spec": {"ingress": {"domain": "seed.test"}}},
            "shoot": {
                "metadata": {"annotations": {}, "deletionTimestamp": null},
                "spec": {"hibernation": {"enabled": true}},
                "status": {"isHibernated": true, "lastOperation": {"state": "Failed"}},
            },
        },
    })
}

fn runtime() -> Value {
    json!({
        "apiVersion": "extensions.gardener.cloud/v1alpha1", "kind": "ContainerRuntime",
        "metadata": {"name": "gvisor-a", "namespace": "shoot--a--b", "annotations": {}, "deletionTimestamp": null},
        "spec": {
            "type": "gvisor", "binaryPath": "/var/bin/containerruntimes", "providerConfig": {},
            "workerPool": {"name": "a", "selector": {"matchLabels": {"a": "b"}, "matchExpressions": []}},
        },
        "status": {"lastOperation": {
            "description": "", "lastUpdateTime": "2026-01-01T00:00:00Z", "progress": 100,
            "state": "Succeeded", "type": "Create",
        }},
    })
}

fn values() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "(true|Failed|2026-01-01T00:00:00Z|\\PC{0,9})".prop_map(Value::from),
        Just(json!([])),
        Just(json!([{"key": "a", "operator": "In", "values": [1]}])),
        Just(json!({})),
        ("\\PC{0,5}", "\\PC{0,5}").prop_map(|(key, value)| json!({key: value})),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn any_cluster_is_read_or_refused_and_the_lean_one_says_the_same(
        place in prop::sample::select(&CLUSTER[..]), value in values(), noise in "\\PC{0,20}",
    ) {
        prop_assert!(serde_json::from_value::<Lean>(cluster()).is_ok(), "it is one before");
        let _ = serde_json::from_str::<Lean>(&noise);
        let mut object = cluster();
        *object.pointer_mut(place).unwrap() = value;
        let text = object.to_string();
        let (Ok(lean), Ok(full)) =
            (serde_json::from_str::<Lean>(&text), serde_json::from_str::<Cluster>(&text))
        else {
            return Ok(());
        };
        let name = "shoot--a--b".parse().unwrap();
        let says = |cluster: &Cluster| {
            let states = [
                cluster.is_hibernated(), cluster.is_failed(), cluster.is_deleting(),
                cluster.is_force_deleted(),
            ];
            (states, cluster.endpoint_host(&name, None))
        };
        prop_assert_eq!(says(&lean.0), says(&full));
    }

    #[test]
    fn any_container_runtime_is_read_or_refused(
        place in prop::sample::select(&RUNTIME[..]), value in values(), noise in "\\PC{0,20}",
    ) {
        prop_assert!(serde_json::from_value::<ContainerRuntime>(runtime()).is_ok(), "it is one before");
        let _ = serde_json::from_str::<ContainerRuntime>(&noise);
        let mut object = runtime();
        *object.pointer_mut(place).unwrap() = value;
        if let Ok(read) = serde_json::from_str::<ContainerRuntime>(&object.to_string()) {
            let _ = (read.asked(), read.last_operation().is_some());
            // What was read is written as something that can be read again.
            let written = serde_json::to_value(&read).unwrap();
            prop_assert_eq!(serde_json::from_value::<ContainerRuntime>(written).unwrap().spec, read.spec);
        }
    }
}
