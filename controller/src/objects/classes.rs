//! The RuntimeClasses of a type: what the catalog says, and what a shoot has
//! had before.

use rootstock_core::assign::RUNTIME_LABEL_PREFIX;
use rootstock_core::catalog::RuntimeClass;
use rootstock_core::name::RuntimeType;
use serde_json::{Map, Value, json};

const API_VERSION: &str = "node.k8s.io/v1";
const KIND: &str = "RuntimeClass";

/// Renders the RuntimeClasses of a type by their names' order.
pub(crate) fn render(runtime: &RuntimeType, classes: &[RuntimeClass]) -> Vec<Value> {
    let mut objects: Vec<_> = classes.iter().map(|class| object(runtime, class)).collect();
    sort(&mut objects);
    objects
}

/// Adds the RuntimeClasses that are there and that the catalog does not name
/// (any more): pods ask for them by name as long as a ContainerRuntime does.
/// Other objects that are there are not ours to keep.
pub(super) fn keep(mut rendered: Vec<Value>, present: Vec<Value>) -> Vec<Value> {
    for object in present {
        let is_class = object["kind"] == KIND && object["metadata"]["name"].is_string();
        if is_class && !rendered.iter().any(|known| name(known) == name(&object)) {
            rendered.push(object);
        }
    }
    sort(&mut rendered);
    rendered
}

fn sort(objects: &mut [Value]) {
    objects.sort_by(|a, b| name(a).cmp(name(b)));
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

fn object(runtime: &RuntimeType, class: &RuntimeClass) -> Value {
    let mut object = json!({
        "apiVersion": API_VERSION, "kind": KIND,
        "metadata": {
            "name": class.name,
            "labels": {"app.kubernetes.io/part-of": "rootstock"},
            // A handler can't be changed in place. Without this a catalog that
            // changes one would hold up all objects of its ManagedResource.
            "annotations": {"resources.gardener.cloud/delete-on-invalid-update": "true"},
        },
        "handler": class.handler,
        "scheduling": scheduling(runtime, class),
    });
    if let Some(overhead) = &class.overhead {
        object["overhead"] = json!(overhead);
    }
    object
}

/// Pods go where the type is, unless the catalog says otherwise.
fn scheduling(runtime: &RuntimeType, class: &RuntimeClass) -> Value {
    let said = class.scheduling.clone().unwrap_or_default();
    let own = || [(format!("{RUNTIME_LABEL_PREFIX}{runtime}"), "true".to_owned())].into();
    let mut scheduling = Map::new();
    scheduling.insert("nodeSelector".to_owned(), json!(said.node_selector.unwrap_or_else(own)));
    if !said.tolerations.is_empty() {
        scheduling.insert("tolerations".to_owned(), json!(said.tolerations));
    }
    Value::Object(scheduling)
}
