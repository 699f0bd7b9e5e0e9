//! The rendered objects at a real API server. Skipped without one.

use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kube::{Api, discovery};
use rootstock_playground::kube::{Cluster, Options, RealControlPlane};
use serde_json::{Value, json};

use super::support::{Helm, LOCAL, NAMESPACE, seed_values};

#[tokio::test]
async fn an_api_server_takes_every_object_as_it_is() {
    let (Some(helm), Some(assets)) = (Helm::find(), RealControlPlane::assets()) else { return };
    let dir = tempfile::tempdir().unwrap();
    let plane = RealControlPlane::start(&assets, dir.path()).await.unwrap();
    let options = Options { name: "chart".to_owned(), dir: dir.path().to_owned(), crds: vec![] };
    let cluster = Cluster::real(&plane, options).await.unwrap();
    let namespace =
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    apply(&cluster, &namespace, false).await;
    let seed = helm.template_file(&seed_values()).unwrap();
    for object in seed.iter().chain(&helm.template(LOCAL).unwrap()) {
        // The autoscaler's definition is Gardener's.
        if object["kind"] != "VerticalPodAutoscaler" {
            apply(&cluster, object, true).await;
        }
    }
}

async fn apply(cluster: &Cluster, object: &Value, dry_run: bool) {
    let parsed: DynamicObject = serde_json::from_value(object.clone()).unwrap();
    let types = parsed.types.clone().unwrap();
    let kind = GroupVersionKind::try_from(&types).unwrap();
    let (resource, _): (ApiResource, _) =
        discovery::pinned_kind(&cluster.client(), &kind).await.unwrap();
    let api: Api<DynamicObject> = match &parsed.metadata.namespace {
        Some(namespace) => Api::namespaced_with(cluster.client(), namespace, &resource),
        None => Api::all_with(cluster.client(), &resource),
    };
    let mut how = PatchParams::apply("chart").validation_strict();
    how.dry_run = dry_run;
    let name = parsed.metadata.name.clone().unwrap();
    let applied = api.patch(&name, &how, &Patch::Apply(&parsed)).await;
    applied.unwrap_or_else(|error| panic!("{}: {error}", kind.kind));
}
