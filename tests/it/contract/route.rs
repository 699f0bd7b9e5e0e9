//! The agents' way into the seed.

use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use super::operations::settled;
use super::support::gardenlet::until;
use super::support::record::Kind;
use super::support::shoot::{Shoot, pools};
use super::support::suite::{HOME, Suite};

/// What a route is made of.
pub(super) const ROUTE: [Kind; 2] = [Kind::Gateway, Kind::VirtualService];

/// The parts of a shoot's route, as far as they are there.
async fn route(shoot: &Shoot<'_>) -> Vec<Value> {
    let mut found = Vec::new();
    for kind in ROUTE {
        let mut all = shoot.all(kind).await;
        all.retain(|object| object["metadata"]["name"] == "rootstock-agent");
        found.extend(all);
    }
    found
}

fn specs(host: &str, selector: &Value) -> [Value; 2] {
    let service = format!("rootstock-controller.{HOME}.svc.cluster.local");
    [
        json!({
            "selector": selector,
            "servers": [{"hosts": [host], "tls": {"mode": "PASSTHROUGH"},
                         "port": {"number": 443, "name": "tls", "protocol": "TLS"}}],
        }),
        json!({
            "exportTo": ["*"], "gateways": ["rootstock-agent"], "hosts": [host],
            "tls": [{
                "match": [{"port": 443, "sniHosts": [host]}],
                "route": [{"destination": {"host": service, "port": {"number": 8443}}}],
            }],
        }),
    ]
}

async fn leads_from(shoot: &Shoot<'_>, host: &str, selector: &Value) {
    let found: Vec<_> = route(shoot).await.into_iter().map(|o| o["spec"].clone()).collect();
    assert_eq!(found, specs(host, selector));
}

/// Where no other is known.
fn usual() -> Value {
    json!({"app": "istio-ingressgateway", "istio": "ingressgateway"})
}

pub(super) async fn made_followed_and_taken_away(suite: &Suite) {
    let controller = suite.controller().await;
    let both = &["gvisor", "kata"][..];
    let mut shoot = Shoot::new(suite, &controller, "route", pools(&[("a", both)])).await;
    shoot.reconcile().await;
    leads_from(&shoot, "rs-it--route.seed.example", &usual()).await;
    // Two resources, and each part was written once.
    for object in route(&shoot).await {
        suite.record.sees(&serde_json::from_value(object).unwrap()).await;
    }
    for kind in ROUTE {
        assert_eq!(shoot.since(0, kind).len(), 1, "{kind:?}");
    }

    // gardenlet has moved the shoot to the gateway of a zone, and the seed's domain changes.
    let zone = json!({"app": "istio-ingressgateway", "istio": "ingressgateway--zone--a"});
    let gateway = json!({
        "apiVersion": "networking.istio.io/v1beta1", "kind": "Gateway",
        "metadata": {"name": "kube-apiserver"}, "spec": {"selector": zone},
    });
    let gateway: DynamicObject = serde_json::from_value(gateway).unwrap();
    let kind = Kind::Gateway.resource();
    let api: Api<DynamicObject> = Api::namespaced_with(suite.access.client(), &shoot.name, &kind);
    api.create(&PostParams::default(), &gateway).await.unwrap();
    let domain = json!({"spec": {"seed": {"spec": {"ingress": {"domain": "new.example"}}}}});
    let patch = Patch::Merge(domain);
    suite.access.clusters().patch(&shoot.name, &PatchParams::default(), &patch).await.unwrap();
    // The controller's view of a Cluster may be a moment old.
    let followed = until(async || {
        shoot.reconcile().await;
        let hosts = route(&shoot).await[1]["spec"]["hosts"].clone();
        (hosts == json!(["rs-it--route.new.example"])).then_some(())
    });
    followed.await.expect("the route follows the domain");
    leads_from(&shoot, "rs-it--route.new.example", &zone).await;

    // It stays for whoever is left, and goes with the last.
    shoot.gardenlet.workers = pools(&[("a", &["kata"])]);
    shoot.clean_up_stale().await.unwrap();
    leads_from(&shoot, "rs-it--route.new.example", &zone).await;
    shoot.destroy().await.unwrap();
    assert_eq!(route(&shoot).await, [] as [Value; 0]);
    // What is Gardener's was only read.
    assert_eq!(api.get("kube-apiserver").await.unwrap().data["spec"]["selector"], zone);
    shoot.never_failed().await;
}

pub(super) async fn away_with_a_shoot_that_moves_and_back(suite: &Suite) {
    let controller = suite.controller().await;
    let shoot = Shoot::new(suite, &controller, "reroutes", pools(&[("a", &["gvisor"])])).await;
    let shoot = shoot.with_api();
    shoot.reconcile().await;
    shoot.until("gvisor-a", "state is there", |o| o["status"]["state"]["version"] == 1).await;
    assert_eq!(route(&shoot).await.len(), 2);
    shoot.migrate().await;
    shoot.wait_migrated().await;
    assert_eq!(route(&shoot).await, [] as [Value; 0]);
    let state = shoot.save().await;
    shoot.destroy().await.unwrap();
    shoot.restore(&state).await;
    shoot.wait().await.unwrap();
    leads_from(&shoot, "rs-it--reroutes.seed.example", &usual()).await;
    shoot.never_failed().await;
}

/// `--ingress none`: what lies under the names is not looked at.
pub(super) async fn somebody_elses_business(suite: &Suite) {
    let controller = suite.own_controller("unrouted", &["--ingress", "none"]).await;
    let shoot = Shoot::new(suite, &controller, "unrouted", pools(&[("a", &["gvisor"])])).await;
    shoot.reconcile().await;
    settled(&shoot, "gvisor-a").await;
    assert_eq!(route(&shoot).await, [] as [Value; 0]);
    shoot.never_failed().await;
}
