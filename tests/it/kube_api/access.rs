//! Who one is and what one may do.

use k8s_openapi::api::{
    authentication::v1::{TokenRequest, TokenReview},
    core::v1::{ConfigMap, Node, Pod, ServiceAccount},
    rbac::v1::{ClusterRole, ClusterRoleBinding},
};
use kube::{
    Api,
    api::{DeleteParams, ListParams, PostParams},
};
use rootstock_playground::kube::Cluster;
use serde_json::{Value, json};

use super::support::{from, namespace, node, pod, refused, runtimes};

async fn account(cluster: &Cluster, ns: &str, name: &str) -> Api<ServiceAccount> {
    let api: Api<ServiceAccount> = Api::namespaced(cluster.client(), ns);
    let account = from(json!({"metadata": {"name": name}}));
    api.create(&PostParams::default(), &account).await.unwrap();
    api
}

async fn token(api: &Api<ServiceAccount>, name: &str, spec: Value) -> kube::Result<String> {
    let request: TokenRequest = from(json!({"metadata": {}, "spec": spec}));
    let answer = api.create_token_request(name, &PostParams::default(), &request).await?;
    Ok(answer.status.unwrap().token)
}

/// The status of a review, as JSON.
async fn review(cluster: &Cluster, token: &str, audiences: &[&str]) -> Value {
    let api: Api<TokenReview> = Api::all(cluster.client());
    let review: TokenReview =
        from(json!({"metadata": {}, "spec": {"token": token, "audiences": audiences}}));
    let answer = api.create(&PostParams::default(), &review).await.unwrap();
    serde_json::to_value(answer.status.unwrap()).unwrap()
}

pub(super) async fn tokens_of_pods(cluster: &Cluster) {
    let ns = namespace(cluster, "tokens").await;
    let accounts = account(cluster, &ns, "agent").await;
    let nodes: Api<Node> = Api::all(cluster.client());
    let node = nodes.create(&PostParams::default(), &node("token-node")).await.unwrap();
    let pods: Api<Pod> = Api::namespaced(cluster.client(), &ns);
    let made =
        pods.create(&PostParams::default(), &pod("p", Some("token-node"), "agent")).await.unwrap();
    pods.create(&PostParams::default(), &pod("q", None, "other")).await.unwrap();
    let spec = |pod: &str, uid: Option<&str>| {
        json!({"audiences": ["rootstock"], "expirationSeconds": 600,
            "boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": pod, "uid": uid}})
    };
    let uid = made.metadata.uid.as_deref();
    let bound = token(&accounts, "agent", spec("p", uid)).await.unwrap();

    let status = review(cluster, &bound, &["rootstock", "other"]).await;
    assert_eq!(status["authenticated"], true);
    assert_eq!(status["audiences"], json!(["rootstock"]));
    let user = &status["user"];
    assert_eq!(user["username"], "system:serviceaccount:tokens:agent");
    assert_eq!(user["uid"], json!(accounts.get("agent").await.unwrap().metadata.uid));
    assert_eq!(
        user["groups"],
        json!(["system:serviceaccounts", "system:serviceaccounts:tokens", "system:authenticated"])
    );
    let extra = |what: &str| user["extra"][format!("authentication.kubernetes.io/{what}")].clone();
    assert_eq!(extra("pod-name"), json!(["p"]));
    assert_eq!(extra("pod-uid"), json!([uid]));
    assert_eq!(extra("node-name"), json!(["token-node"]));
    assert_eq!(extra("node-uid"), json!([node.metadata.uid]));
    assert!(extra("credential-id")[0].as_str().unwrap().starts_with("JTI="));

    // The claims can be read without asking.
    use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
    let payload = BASE64_URL_SAFE_NO_PAD.decode(bound.split('.').nth(1).unwrap()).unwrap();
    let claims: Value = serde_json::from_slice(&payload).unwrap();
    assert_eq!(claims["aud"], json!(["rootstock"]));
    assert_eq!(claims["kubernetes.io"]["node"]["name"], "token-node");
    assert!(claims["exp"].is_i64() && claims["iss"].is_string());

    // Bound to what is not so: refused.
    for (pod, uid, code) in [("absent", None, 404), ("p", Some("other"), 409), ("q", None, 400)] {
        let answer = token(&accounts, "agent", spec(pod, uid)).await;
        assert_eq!(refused(answer).0, code, "{pod}");
    }
    assert_eq!(refused(token(&accounts, "absent", json!({"audiences": []})).await).0, 404);
    let short = json!({"audiences": ["rootstock"], "expirationSeconds": 5});
    assert_eq!(refused(token(&accounts, "agent", short).await).0, 422);

    // The Pod gone, its token is nothing; another Pod of that name does not help.
    pods.delete("p", &DeleteParams::default().grace_period(0)).await.unwrap();
    gone(cluster, &bound).await;
    pods.create(&PostParams::default(), &pod("p", Some("token-node"), "agent")).await.unwrap();
    gone(cluster, &bound).await;
    nodes.delete("token-node", &DeleteParams::default()).await.unwrap();
}

/// The real server looks at Pods through a watch of its own, which is a moment late, and
/// remembers for ten seconds whom it knew.
async fn gone(cluster: &Cluster, token: &str) {
    for _ in 0..300 {
        let status = review(cluster, token, &["rootstock"]).await;
        if status["authenticated"] != true {
            assert!(status["error"].as_str().is_some_and(|error| !error.is_empty()));
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    panic!("the token still counts");
}

pub(super) async fn tokens_and_audiences(cluster: &Cluster) {
    let ns = namespace(cluster, "audiences").await;
    let accounts = account(cluster, &ns, "agent").await;
    let spec = json!({"audiences": ["rootstock"]});
    let rootstock = token(&accounts, "agent", spec).await.unwrap();
    let own = token(&accounts, "agent", json!({"audiences": []})).await.unwrap();
    for (token, audiences, known) in [
        (rootstock.as_str(), vec!["rootstock"], true),
        (&rootstock, vec!["other"], false),
        (&rootstock, vec![], false),
        (&own, vec![], true),
        (&own, vec!["rootstock"], false),
        ("nonsense", vec!["rootstock"], false),
    ] {
        let status = review(cluster, token, &audiences).await;
        assert_eq!(status["authenticated"] == true, known, "{audiences:?}: {status}");
        assert_eq!(status["error"].is_string(), !known, "{status}");
    }
    let forged = format!("{}x", &rootstock[..rootstock.len() - 2]);
    assert_ne!(review(cluster, &forged, &["rootstock"]).await["authenticated"], true);

    // A token for others is none for the API itself.
    let client = cluster.client_with_token(&rootstock).await.unwrap();
    let answer = Api::<Node>::all(client).list(&ListParams::default()).await;
    assert_eq!(refused(answer), (401, "Unauthorized".into()));
}

pub(super) async fn roles(cluster: &Cluster) {
    let ns = namespace(cluster, "roles").await;
    let accounts = account(cluster, &ns, "reader").await;
    let own = token(&accounts, "reader", json!({"audiences": []})).await.unwrap();
    let client = cluster.client_with_token(&own).await.unwrap();
    let nodes: Api<Node> = Api::all(client.clone());
    assert_eq!(refused(nodes.list(&ListParams::default()).await), (403, "Forbidden".into()));

    let roles: Api<ClusterRole> = Api::all(cluster.client());
    let role: ClusterRole = from(json!({"metadata": {"name": "test:reader"}, "rules": [
        {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "list", "watch"]},
        {"apiGroups": ["extensions.gardener.cloud"], "resources": ["containerruntimes/status"], "verbs": ["patch"]}]}));
    roles.create(&PostParams::default(), &role).await.unwrap();
    let bindings: Api<ClusterRoleBinding> = Api::all(cluster.client());
    let binding: ClusterRoleBinding = from(json!({"metadata": {"name": "test:reader"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "test:reader"},
        "subjects": [{"kind": "ServiceAccount", "name": "reader", "namespace": ns}]}));
    bindings.create(&PostParams::default(), &binding).await.unwrap();

    // The real server learns of roles by a watch of its own.
    let mut allowed = false;
    for _ in 0..300 {
        allowed = nodes.list(&ListParams::default()).await.is_ok();
        if allowed {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert!(allowed, "the role does not count");
    let deletion = nodes.delete("any", &DeleteParams::default()).await;
    assert_eq!(refused(deletion), (403, "Forbidden".into()));
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), &ns);
    assert_eq!(refused(maps.get("m").await), (403, "Forbidden".into()));
    let runtimes = runtimes(client, &ns);
    let patch = kube::api::Patch::Merge(json!({"status": {}}));
    let status = runtimes.patch_status("absent", &kube::api::PatchParams::default(), &patch).await;
    assert_eq!(refused(status), (404, "NotFound".into()), "allowed, but not there");
    bindings.delete("test:reader", &DeleteParams::default()).await.unwrap();
    roles.delete("test:reader", &DeleteParams::default()).await.unwrap();
}

pub(super) async fn strangers(cluster: &Cluster) {
    let client = cluster.client_with_token("nobody").await.unwrap();
    let answer = Api::<Node>::all(client.clone()).list(&ListParams::default()).await;
    assert_eq!(refused(answer), (401, "Unauthorized".into()));
    assert_eq!(refused(client.apiserver_version().await).0, 401);
}

pub(super) async fn discovery(cluster: &Cluster) {
    let client = cluster.client();
    assert_eq!(client.apiserver_version().await.unwrap().major, "1");
    let discovery = kube::Discovery::new(client.clone()).run().await.unwrap();
    for (group, kind, plural) in [
        ("", "Node", "nodes"),
        ("apps", "DaemonSet", "daemonsets"),
        ("coordination.k8s.io", "Lease", "leases"),
        ("authentication.k8s.io", "TokenReview", "tokenreviews"),
        ("extensions.gardener.cloud", "ContainerRuntime", "containerruntimes"),
    ] {
        let group = discovery.get(group).unwrap();
        let found = group.recommended_kind(kind);
        assert_eq!(found.unwrap().0.plural, plural);
    }
    let text = |path: &str| client.request_text(http::Request::get(path).body(vec![]).unwrap());
    for path in ["/healthz", "/livez", "/readyz"] {
        assert_eq!(text(path).await.unwrap(), "ok");
    }
    assert_eq!(refused(text("/apis/absent.io/v1/things").await).0, 404);
}
