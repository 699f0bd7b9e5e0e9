//! Which requests a route makes.

use serde_json::{Value, json};
use tokio::time::Instant;

use super::seed::{NAMESPACE, Seed};
use super::written::objects;
use crate::api::{Cluster, ClusterSpec};
use crate::objects::istio::Istio;
use crate::objects::route::Backend;
use crate::objects::{Gone, Keep, Objects, ObjectsError};

const API_SERVER: &str = "gateways/kube-apiserver";
const GATEWAY: &str = "gateways/rootstock-agent";
const SERVICE: &str = "virtualservices/rootstock-agent";

/// Objects of a seed with Istio, and the seed.
fn with_istio() -> (Seed, Objects) {
    let seed = Seed::default();
    let (mut objects, _catalog) = objects(&seed);
    let backend = Backend::new("rootstock-controller", "extension-rootstock", 8443);
    objects.ingress = Some(Istio::new(backend));
    objects.agent.domain = None;
    (seed, objects)
}

async fn put(objects: &Objects, domain: &str) -> Result<(), ObjectsError> {
    let seed = Some(json!({"spec": {"ingress": {"domain": domain}}}));
    let cluster = Cluster::new(NAMESPACE, ClusterSpec { seed, ..ClusterSpec::default() });
    let (shoot, runtime) = (NAMESPACE.parse().unwrap(), "gvisor".parse().unwrap());
    objects.put(&shoot, &cluster, &runtime, Instant::now()).await.map(drop)
}

/// What was asked about Istio's kinds.
fn asked(seed: &Seed) -> Vec<String> {
    let mut asked = seed.asked();
    asked.retain(|request| request.contains("gateways/") || request.contains("virtualservices/"));
    // Those of the two kinds are made side by side.
    asked.sort_by_key(|request| request.contains("virtualservices/"));
    asked
}

fn requests(lines: &[(&str, &str)]) -> Vec<String> {
    lines.iter().map(|(method, path)| format!("{method} {path}")).collect()
}

fn hosts(seed: &Seed) -> [Value; 3] {
    let (gateway, service) = (seed.object(GATEWAY).unwrap(), seed.object(SERVICE).unwrap());
    let sni = service["spec"]["tls"][0]["match"][0]["sniHosts"].clone();
    [gateway["spec"]["servers"][0]["hosts"].clone(), service["spec"]["hosts"].clone(), sni]
}

#[tokio::test]
async fn a_route_is_made_once_and_follows_the_domain() {
    let (seed, objects) = with_istio();
    put(&objects, "a.example").await.unwrap();
    let made = [
        ("GET", API_SERVER),
        ("GET", GATEWAY),
        ("POST", GATEWAY),
        ("GET", SERVICE),
        ("POST", SERVICE),
    ];
    assert_eq!(asked(&seed), requests(&made));
    assert_eq!(hosts(&seed), [(); 3].map(|()| json!(["rs-garden--one.a.example"])));
    let gateway = seed.object(GATEWAY).unwrap();
    assert_eq!(gateway["metadata"]["labels"]["app.kubernetes.io/part-of"], "rootstock");
    assert_eq!(gateway["apiVersion"], "networking.istio.io/v1beta1");

    put(&objects, "a.example").await.unwrap();
    let looked = [("GET", API_SERVER), ("GET", GATEWAY), ("GET", SERVICE)];
    assert_eq!(asked(&seed), requests(&looked));

    put(&objects, "b.example").await.unwrap();
    let changed = [
        ("GET", API_SERVER),
        ("GET", GATEWAY),
        ("PUT", GATEWAY),
        ("GET", SERVICE),
        ("PUT", SERVICE),
    ];
    assert_eq!(asked(&seed), requests(&changed));
    assert_eq!(hosts(&seed), [(); 3].map(|()| json!(["rs-garden--one.b.example"])));
}

#[tokio::test]
async fn the_gateway_follows_that_of_the_api_server_and_others_metadata_stays() {
    let (seed, objects) = with_istio();
    put(&objects, "a.example").await.unwrap();
    let zone = json!({"istio": "ingressgateway--zone--a"});
    seed.change(|state| {
        state.put(
            API_SERVER,
            json!({
                "apiVersion": "networking.istio.io/v1beta1", "kind": "Gateway",
                "metadata": {"name": "kube-apiserver"}, "spec": {"selector": zone},
            }),
        );
        state.edit(GATEWAY, &json!({"metadata": {"labels": {"theirs": "1"}, "finalizers": ["f"]}}));
    });
    seed.asked();
    put(&objects, "a.example").await.unwrap();
    let changed = [("GET", API_SERVER), ("GET", GATEWAY), ("PUT", GATEWAY), ("GET", SERVICE)];
    assert_eq!(asked(&seed), requests(&changed));
    let gateway = seed.object(GATEWAY).unwrap();
    // No label of the former selector is left.
    assert_eq!(gateway["spec"]["selector"], zone);
    assert_eq!(gateway["metadata"]["labels"]["theirs"], "1");
    assert_eq!(gateway["metadata"]["finalizers"], json!(["f"]));
}

#[tokio::test]
async fn whoever_is_first_is_no_error() {
    let (seed, objects) = with_istio();
    for path in [GATEWAY, SERVICE] {
        seed.before(&format!("POST {path}"), move |state| {
            let kind = if path == GATEWAY { "Gateway" } else { "VirtualService" };
            state.put(
                path,
                json!({
                    "apiVersion": "networking.istio.io/v1beta1", "kind": kind,
                    "metadata": {"name": "rootstock-agent"}, "spec": {},
                }),
            );
        });
    }
    put(&objects, "a.example").await.unwrap();
    assert_eq!(hosts(&seed), [(); 3].map(|()| json!(["rs-garden--one.a.example"])));
    // A change of theirs between our look and our write is seen.
    seed.before(&format!("PUT {GATEWAY}"), |state| {
        state.edit(GATEWAY, &json!({"metadata": {"labels": {"theirs": "1"}}}));
    });
    put(&objects, "b.example").await.unwrap();
    assert_eq!(seed.object(GATEWAY).unwrap()["metadata"]["labels"]["theirs"], "1");
    assert_eq!(hosts(&seed), [(); 3].map(|()| json!(["rs-garden--one.b.example"])));
}

#[tokio::test]
async fn a_seed_without_istio_gets_all_the_rest() {
    let (seed, objects) = with_istio();
    seed.change(|state| state.unknown = vec!["gateways", "virtualservices"]);
    put(&objects, "a.example").await.unwrap();
    assert_eq!(asked(&seed), requests(&[("GET", API_SERVER)]));
    assert!(seed.object("managedresources/extension-rootstock-agent").is_some());
    let shoot = NAMESPACE.parse().unwrap();
    assert_eq!(objects.withdraw_agent(&shoot, Keep::Nothing).await.unwrap(), Gone::Yes);
}

#[tokio::test]
async fn a_seed_without_a_domain_has_no_route() {
    let (seed, objects) = with_istio();
    let cluster = Cluster::new(NAMESPACE, ClusterSpec::default());
    let (shoot, runtime) = (NAMESPACE.parse().unwrap(), "gvisor".parse().unwrap());
    objects.put(&shoot, &cluster, &runtime, Instant::now()).await.unwrap();
    assert_eq!(asked(&seed), [""; 0]);
}

#[tokio::test]
async fn a_route_goes_with_the_agent_and_when_the_shoot_leaves() {
    for keep in [Keep::Nothing, Keep::Objects] {
        let (seed, objects) = with_istio();
        put(&objects, "a.example").await.unwrap();
        let held = json!({"metadata": {"finalizers": ["grm"]}});
        let agent = "managedresources/extension-rootstock-agent";
        seed.change(|state| state.edit(agent, &held));
        let shoot = NAMESPACE.parse().unwrap();
        seed.asked();
        // As long as an agent may be there it has its way.
        let gone = objects.withdraw_agent(&shoot, keep).await.unwrap();
        assert!(matches!(gone, Gone::Not(_)), "{keep:?}");
        assert_eq!(asked(&seed), [""; 0], "{keep:?}");
        seed.change(|state| drop(state.objects.remove(agent)));
        for _ in 0..2 {
            assert_eq!(objects.withdraw_agent(&shoot, keep).await.unwrap(), Gone::Yes);
            let want = requests(&[("DELETE", GATEWAY), ("DELETE", SERVICE)]);
            assert_eq!(asked(&seed), want, "{keep:?}");
        }
        assert_eq!(seed.object(GATEWAY), None);
        assert_eq!(seed.object(SERVICE), None);
    }
}
