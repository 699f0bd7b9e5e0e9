use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use serde_json::Value;

use super::*;
use crate::scripted::{self, Call, refusal};

const NAMESPACE: &str = "shoot--garden--one";

/// A seed's API that has ManagedResources and Secrets.
#[derive(Clone, Default)]
struct Seed(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Value>,
    asked: Vec<String>,
    /// Requests until it breaks off.
    left: Option<usize>,
}

impl Seed {
    /// With what the gVisor extension wrote for these pools.
    fn with_pools(pools: &[&str]) -> Self {
        let seed = Self::default();
        seed.put("extension-runtime-gvisor", &json!(null));
        for pool in pools {
            seed.put(&format!("{PREFIX}{pool}"), &json!(null));
        }
        seed
    }

    fn put(&self, name: &str, keep: &Value) {
        let secret = format!("managedresource-{name}-0");
        let resource = json!({
            "metadata": {"name": name, "uid": name, "labels": {"origin": "extension-runtime-gvisor"},
                         "finalizers": ["resources.gardener.cloud/gardener-resource-manager"]},
            "spec": {"secretRefs": [{"name": secret}], "keepObjects": keep},
        });
        let mut state = self.0.lock().unwrap();
        state.objects.insert(format!("managedresources/{name}"), resource);
        state.objects.insert(format!("secrets/{secret}"), json!({"metadata": {"name": secret}}));
    }

    async fn take_over(&self, runtime: &str) -> Result<TakenOver, WriteError> {
        let seed = self.clone();
        let (client, _) = scripted::client(move |call| seed.answer(call));
        take_over(&client, &NAMESPACE.parse().unwrap(), &runtime.parse().unwrap()).await
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap().asked)
    }

    fn names(&self) -> Vec<String> {
        self.0.lock().unwrap().objects.keys().cloned().collect()
    }

    /// What the resource manager does in the end.
    fn let_go(&self) {
        let gone =
            |_: &String, object: &mut Value| object["metadata"]["deletionTimestamp"].is_null();
        self.0.lock().unwrap().objects.retain(gone);
    }

    fn answer(&self, call: &Call) -> (u16, Value) {
        let mut state = self.0.lock().unwrap();
        let (method, sent) = (call.method.as_str(), &call.body);
        let short = call.path.split_once(&format!("/{NAMESPACE}/")).unwrap().1.to_owned();
        if let Some(left) = &mut state.left {
            if *left == 0 {
                return refusal(503, "Scripted");
            }
            *left -= 1;
        }
        state.asked.push(format!("{method} {short}"));
        if short == "managedresources" {
            assert_eq!(call.query, "&labelSelector=origin%3Dextension-runtime-gvisor");
            let is_one = |(path, _): &(&String, &Value)| path.starts_with("managedresources/");
            let items: Vec<_> =
                state.objects.iter().filter(is_one).map(|(_, o)| o.clone()).collect();
            return (200, json!({"metadata": {}, "items": items}));
        }
        let Some(mut object) = state.objects.get(&short).cloned() else {
            return refusal(404, "Scripted");
        };
        match method {
            "PATCH" => object["spec"]["keepObjects"] = sent["spec"]["keepObjects"].clone(),
            "DELETE" if object["metadata"]["finalizers"].is_array() => {
                assert_ne!(object["spec"]["keepObjects"], true);
                object["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            }
            "DELETE" => {
                state.objects.remove(&short);
                return (200, json!({"kind": "Status", "metadata": {}, "status": "Success"}));
            }
            _ => {}
        }
        state.objects.insert(short, object.clone());
        (200, object)
    }
}

#[tokio::test]
async fn installers_go_with_their_secrets_and_the_classes_stay() {
    let seed = Seed::with_pools(&["a", "b"]);
    let taken = seed.take_over("gvisor").await.unwrap();
    assert_eq!(taken.begun.len(), 2);
    assert_eq!(taken.left.len(), 2, "nobody waits: {taken:?}");
    let note = taken.note().unwrap();
    assert_eq!(note, "The gVisor extension's installation of worker pool a, b is taken over");
    seed.let_go();
    assert_eq!(
        seed.names(),
        [
            "managedresources/extension-runtime-gvisor",
            "secrets/managedresource-extension-runtime-gvisor-0"
        ]
    );
    seed.asked();
    let taken = seed.take_over("gvisor").await.unwrap();
    assert_eq!((taken.note(), taken), (None, TakenOver::default()));
    assert_eq!(seed.asked(), ["GET managedresources"], "one list where there is nothing");
    seed.take_over("kata").await.unwrap();
    assert_eq!(seed.asked(), [""; 0], "nothing at all for another type");
}

#[tokio::test]
async fn it_is_said_once_while_the_resource_manager_takes_its_time() {
    let seed = Seed::with_pools(&["a"]);
    assert!(seed.take_over("gvisor").await.unwrap().note().is_some());
    for _ in 0..3 {
        let taken = seed.take_over("gvisor").await.unwrap();
        assert_eq!(taken.note(), None);
        assert_eq!(taken.left.len(), 1);
        assert!(
            !seed
                .asked()
                .iter()
                .any(|asked| asked.contains("DELETE managed") && taken.note().is_some())
        );
    }
}

#[tokio::test]
async fn what_is_kept_by_mistake_goes_too() {
    let seed = Seed::with_pools(&[]);
    seed.put(&format!("{PREFIX}a"), &json!(true));
    seed.take_over("gvisor").await.unwrap();
    seed.let_go();
    assert_eq!(seed.names().len(), 2);
}

#[tokio::test]
async fn a_controller_that_dies_at_any_request_loses_nothing() {
    for requests in 0.. {
        let seed = Seed::with_pools(&["a", "b"]);
        seed.0.lock().unwrap().left = Some(requests);
        let first = seed.take_over("gvisor").await;
        let whole = first.is_ok();
        if let Err(error) = &first {
            assert!(error.is_transient(), "{error:?}");
        }
        seed.0.lock().unwrap().left = None;
        seed.take_over("gvisor").await.unwrap();
        seed.let_go();
        // A Secret may be left to the resource manager, a DaemonSet may not.
        let left = seed.names().into_iter().filter(|name| name.starts_with("managed")).count();
        assert_eq!(left, 1, "after {requests} requests");
        if whole {
            break;
        }
    }
}

#[test]
fn only_installers_are_deleted() {
    let table = [
        ("extension-runtime-gvisor-installation-a", true),
        ("extension-runtime-gvisor-installation-", false),
        ("extension-runtime-gvisor", false),
        ("x-extension-runtime-gvisor-installation-a", false),
    ];
    for (name, want) in table {
        assert_eq!(is_installer(name), want, "{name}");
    }
}
