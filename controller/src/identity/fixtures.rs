//! A scripted API of a shoot with one agent on one node.

use std::sync::{Arc, Mutex};

use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};

use crate::scripted::{self, Call, refusal};

pub(crate) const POD: &str = "/api/v1/namespaces/kube-system/pods/rootstock-agent-x";
pub(crate) const NODE: &str = "/api/v1/nodes/node-1";
const REVIEWS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";

/// What the API holds, and what it was asked.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    pub(crate) review: Value,
    pub(crate) pod: Option<Value>,
    pub(crate) node: Option<Value>,
    /// Every answer is this error, where it is one.
    pub(crate) broken: Option<u16>,
    pub(crate) asked: Vec<String>,
}

impl Script {
    /// A claim that the review tells of the token, by its short name.
    pub(crate) fn extra(&mut self, name: &str) -> &mut Value {
        &mut self.review["user"]["extra"][claim(name)]
    }
}

fn claim(name: &str) -> String {
    format!("authentication.kubernetes.io/{name}")
}

#[derive(Clone)]
pub(crate) struct ScriptedApi(Arc<Mutex<Script>>);

impl ScriptedApi {
    /// All is well: the agent's Pod on node-1 has the token.
    pub(crate) fn new() -> Self {
        let review = json!({
            "authenticated": true,
            "audiences": ["rootstock"],
            "user": {
                "username": "system:serviceaccount:kube-system:rootstock-agent",
                "extra": {
                    claim("pod-name"): ["rootstock-agent-x"], claim("pod-uid"): ["pod-uid-1"],
                    claim("node-name"): ["node-1"], claim("node-uid"): ["node-uid-1"],
                },
            },
        });
        let owner = json!({
            "apiVersion": "apps/v1", "kind": "DaemonSet", "name": "rootstock-agent",
            "uid": "ds-uid-1", "controller": true,
        });
        let pod = json!({
            "metadata": {
                "name": "rootstock-agent-x", "namespace": "kube-system", "uid": "pod-uid-1",
                "ownerReferences": [owner],
            },
            "spec": {"nodeName": "node-1", "containers": []},
        });
        let node = json!({"metadata": {"name": "node-1", "uid": "node-uid-1"}});
        let (pod, node) = (Some(pod), Some(node));
        Self(Arc::new(Mutex::new(Script { review, pod, node, broken: None, asked: Vec::new() })))
    }

    pub(crate) fn client(&self) -> kube::Client {
        let api = self.clone();
        scripted::client(move |call| api.answer(call)).0
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut Script)) {
        change(&mut self.0.lock().unwrap());
    }

    pub(crate) fn asked(&self) -> Vec<String> {
        self.0.lock().unwrap().asked.clone()
    }

    fn answer(&self, call: &Call) -> (u16, Value) {
        let mut script = self.0.lock().unwrap();
        script.asked.push(call.path.clone());
        let found = match call.path.as_str() {
            _ if script.broken.is_some() => None,
            REVIEWS => {
                let mut review = call.body.clone();
                assert_eq!(review["spec"]["audiences"], json!(["rootstock"]));
                review["status"] = script.review.clone();
                Some(review)
            }
            POD => script.pod.clone(),
            NODE => script.node.clone(),
            _ => None,
        };
        let code = script.broken.unwrap_or(404);
        let reason = if code == 404 { "NotFound" } else { "Other" };
        found.map_or_else(|| refusal(code, reason), |found| (200, found))
    }
}

/// A new key and a request with it, in DER.
pub(crate) fn request() -> (KeyPair, Vec<u8>) {
    let key = KeyPair::generate().unwrap();
    let request = CertificateParams::default().serialize_request(&key).unwrap();
    (key, request.der().to_vec())
}
