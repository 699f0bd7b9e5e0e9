use serde_json::{Value, json};

use super::*;
use crate::identity::fixtures::{NODE, POD, Script, ScriptedApi, request};

fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

fn ca() -> ShootCa {
    ShootCa::generate(&"one".parse().unwrap(), now()).unwrap()
}

fn owner(script: &mut Script) -> &mut Value {
    &mut script.pod.as_mut().unwrap()["metadata"]["ownerReferences"][0]
}

#[tokio::test]
async fn the_agent_s_pod_gets_a_certificate_for_its_node() {
    let (api, ca, (_, request)) = (ScriptedApi::new(), ca(), request());
    let enrolled = Enroller::new().enrol(&ca, &api.client(), "opaque", &request, now()).await;
    let Enrolled { node, pod, issued } = enrolled.unwrap();
    assert_eq!(pod.as_str(), "pod-uid-1");
    assert_eq!(node.to_spiffe(), "spiffe://one/node/node-1/node-uid-1");
    assert_eq!(issued.not_after.as_second(), now().as_second() + 24 * 60 * 60);

    // Kubernetes 1.30 has no claim for the Node's UID yet.
    api.change(|script| {
        script.review["user"]["extra"].as_object_mut().unwrap().remove(&format!("{EXTRA}node-uid"));
    });
    let enrolled = Enroller::new().enrol(&ca, &api.client(), "opaque", &request, now()).await;
    assert_eq!(enrolled.unwrap().node.uid.as_str(), "node-uid-1");
}

#[tokio::test]
async fn everyone_else_gets_none() {
    type Change = fn(&mut Script);
    let table: [(&str, Change, &str); 23] = [
        ("bad token", |s| s.review = json!({"error": "invalid"}), "does not accept the token"),
        ("no status", |s| s.review = Value::Null, "does not accept the token"),
        ("audience", |s| s.review["audiences"] = json!(["other"]), "for audience rootstock"),
        ("no audience", |s| s.review["audiences"] = Value::Null, "for audience rootstock"),
        (
            "ServiceAccount",
            |s| s.review["user"]["username"] = json!("system:serviceaccount:default:x"),
            "is of \"system:serviceaccount:default:x\"",
        ),
        ("a person", |s| s.review["user"]["username"] = json!("admin"), "is of \"admin\""),
        ("no user", |s| s.review["user"] = Value::Null, "does not accept the token"),
        ("unbound", |s| s.review["user"]["extra"] = Value::Null, "does not name its pod-name"),
        ("no node", |s| *s.extra("node-name") = json!([]), "does not name its node-name"),
        ("two nodes", |s| *s.extra("node-name") = json!(["a", "b"]), "not name its node-name"),
        ("a path", |s| *s.extra("pod-name") = json!(["../../x"]), "does not name its pod-name"),
        ("Pod gone", |s| s.pod = None, "does not exist any more"),
        (
            "Pod made anew",
            |s| s.pod.as_mut().unwrap()["metadata"]["uid"] = json!("pod-uid-2"),
            "does not exist any more",
        ),
        (
            "Pod terminating",
            |s| {
                s.pod.as_mut().unwrap()["metadata"]["deletionTimestamp"] =
                    json!("2026-01-01T00:00:00Z");
            },
            "is terminating",
        ),
        (
            "Pod elsewhere",
            |s| s.pod.as_mut().unwrap()["spec"]["nodeName"] = json!("node-2"),
            "does not run on node node-1",
        ),
        (
            "Pod of nobody",
            |s| s.pod.as_mut().unwrap()["metadata"]["ownerReferences"] = json!([]),
            "does not belong to DaemonSet",
        ),
        ("other owner", |s| owner(s)["name"] = json!("other"), "does not belong to DaemonSet"),
        ("other kind", |s| owner(s)["kind"] = json!("ReplicaSet"), "not belong to DaemonSet"),
        ("not controlled", |s| owner(s)["controller"] = json!(false), "not belong to DaemonSet"),
        ("Node gone", |s| s.node = None, "node node-1 does not exist any more"),
        (
            "Node made anew",
            |s| s.node.as_mut().unwrap()["metadata"]["uid"] = json!("node-uid-2"),
            "node node-1 is another one",
        ),
        ("no role yet", |s| s.broken = Some(403), "may not review tokens in the shoot yet"),
        ("API broken", |s| s.broken = Some(500), "could not review tokens"),
    ];
    let (ca, (_, request)) = (ca(), request());
    for (name, change, want) in table {
        let api = ScriptedApi::new();
        api.change(change);
        let enrolled = Enroller::new().enrol(&ca, &api.client(), "opaque", &request, now()).await;
        let error = enrolled.unwrap_err().to_string();
        assert!(error.contains(want), "{name}: {error}");
    }
}

#[tokio::test]
async fn the_api_is_not_asked_about_what_can_t_be() {
    let (api, ca, (_, request)) = (ScriptedApi::new(), ca(), request());
    let enroller = Enroller::new();
    let table: [(&str, &[u8], &str); 4] = [
        ("", &request, "the token is not one"),
        ("two words", &request, "the token is not one"),
        // {"exp":1}
        ("e30.eyJleHAiOjF9.x", &request, "expired"),
        ("opaque", b"nothing", "certificate request can't be read"),
    ];
    for (token, request, want) in table {
        let enrolled = enroller.enrol(&ca, &api.client(), token, request, now()).await;
        let error = enrolled.unwrap_err().to_string();
        assert!(error.contains(want), "{error}");
    }
    assert_eq!(api.asked(), Vec::<String>::new());
}

#[tokio::test]
async fn who_repeats_itself_is_slowed_down_alone() {
    let (api, ca, (_, request)) = (ScriptedApi::new(), ca(), request());
    let (client, enroller) = (api.client(), Enroller::new());
    for _ in 0..TOKEN_BURST {
        enroller.enrol(&ca, &client, "busy", &request, now()).await.unwrap();
    }
    let limited = enroller.enrol(&ca, &client, "busy", &request, now()).await;
    assert!(matches!(limited, Err(EnrolError::RateLimited)));
    enroller.enrol(&ca, &client, "other", &request, now()).await.unwrap();
}

#[test]
fn made_up_tokens_use_up_one_shoot_alone() {
    let enroller = Enroller::new();
    let (one, two) = ("one".parse().unwrap(), "two".parse().unwrap());
    for n in 0..KEYS {
        let _ = enroller.pass(&one, &format!("made-up-{n}"));
    }
    assert!(matches!(enroller.pass(&one, "real"), Err(EnrolError::RateLimited)));
    enroller.pass(&two, "real").unwrap();
}

#[tokio::test]
async fn a_node_is_renewed_while_it_exists() {
    let (api, ca, (_, request)) = (ScriptedApi::new(), ca(), request());
    let enroller = Enroller::new();
    let node = NodeId::from_spiffe("spiffe://one/node/node-1/node-uid-1").unwrap();
    enroller.renew(&ca, &api.client(), &node, &request, now()).await.unwrap();
    assert_eq!(api.asked(), [NODE], "the token's Pod {POD} may be another one by now");

    let other = NodeId::from_spiffe("spiffe://one/node/node-1/node-uid-0").unwrap();
    let renewed = enroller.renew(&ca, &api.client(), &other, &request, now()).await;
    assert!(matches!(renewed, Err(EnrolError::NodeReplaced { .. })));
    api.change(|script| script.node = None);
    let renewed = enroller.renew(&ca, &api.client(), &node, &request, now()).await;
    assert!(matches!(renewed, Err(EnrolError::NodeGone { .. })));
}
