use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};

use tokio::task::JoinSet;

use super::*;
use crate::scripted::{self, Calls, merge, refusal};

const INTERVAL: Duration = Duration::from_secs(30);

/// A server with one Lease, or none, that refuses everything with a code where it has one.
struct Server {
    lease: Arc<Mutex<Option<Value>>>,
    code: Arc<AtomicU16>,
    calls: Calls,
    _task: JoinSet<anyhow::Result<()>>,
}

fn serve(lease: Option<Value>, quicker: bool) -> Server {
    let lease = Arc::new(Mutex::new(lease));
    let code = Arc::new(AtomicU16::new(0));
    let (stored, refuse) = (Arc::clone(&lease), Arc::clone(&code));
    let (client, calls) = scripted::client(move |call| {
        let mut lease = stored.lock().unwrap();
        match (refuse.load(Ordering::Relaxed), call.method.as_str()) {
            (0, "PATCH") => match lease.as_mut() {
                Some(lease) => {
                    merge(lease, &call.body);
                    (200, lease.clone())
                }
                None => refusal(404, "NotFound"),
            },
            (0, "POST") if quicker => {
                *lease = Some(json!({"metadata": {"name": NAME}}));
                refusal(409, "AlreadyExists")
            }
            (0, "POST") => {
                *lease = Some(call.body.clone());
                (201, call.body.clone())
            }
            (0, other) => panic!("{other} of a Lease"),
            (code, _) => refusal(code, "no"),
        }
    });
    let mut task = JoinSet::new();
    let heartbeat =
        Heartbeat { client, namespace: "extension-rootstock".into(), interval: INTERVAL };
    task.spawn(heartbeat.run(Shutdown::new()));
    Server { lease, code, calls, _task: task }
}

/// Lets the paused clock run.
async fn pass(time: Duration) {
    tokio::time::sleep(time).await;
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_made_once_and_renewed_in_its_time() {
    let server = serve(None, false);
    pass(INTERVAL * 3 + Duration::from_secs(1)).await;
    let calls = server.calls.all();
    let methods: Vec<_> = calls.iter().map(|call| call.method.as_str()).collect();
    assert_eq!(methods, ["PATCH", "POST", "PATCH", "PATCH", "PATCH"]);
    let path = "/apis/coordination.k8s.io/v1/namespaces/extension-rootstock/leases";
    assert_eq!(calls[1].path, path);
    assert_eq!(calls[4].at - calls[3].at, INTERVAL);
    let lease = server.lease.lock().unwrap().clone().unwrap();
    assert_eq!(lease["metadata"]["name"], "gardener-extension-heartbeat");
    assert_eq!(lease["spec"]["holderIdentity"], "rootstock");
    assert_eq!(lease["spec"]["leaseDurationSeconds"], 30);
    let renewed: MicroTime = serde_json::from_value(lease["spec"]["renewTime"].clone()).unwrap();
    assert!(Timestamp::now().duration_since(renewed.0).as_secs() < 60);
}

#[tokio::test(start_paused = true)]
async fn what_others_keep_there_stays() {
    let theirs = json!({"metadata": {"name": NAME, "labels": {"a": "b"}},
        "spec": {"leaseTransitions": 7, "holderIdentity": "someone"}});
    let server = serve(Some(theirs), false);
    pass(Duration::from_secs(1)).await;
    assert_eq!(server.calls.all().len(), 1);
    let lease = server.lease.lock().unwrap().clone().unwrap();
    assert_eq!(
        (&lease["spec"]["leaseTransitions"], &lease["metadata"]["labels"]["a"]),
        (&json!(7), &json!("b"))
    );
    assert_eq!(lease["spec"]["holderIdentity"], "rootstock");
}

#[tokio::test(start_paused = true)]
async fn another_replica_may_be_quicker() {
    let server = serve(None, true);
    pass(Duration::from_secs(1)).await;
    assert_eq!(server.calls.all().len(), 3);
    assert_eq!(
        server.lease.lock().unwrap().as_ref().unwrap()["spec"]["holderIdentity"],
        "rootstock"
    );
}

#[tokio::test(start_paused = true)]
async fn trouble_is_never_fatal() {
    let server = serve(Some(json!({"metadata": {"name": NAME}})), false);
    server.code.store(403, Ordering::Relaxed);
    pass(RETRY * 4 + Duration::from_secs(1)).await;
    assert_eq!(server.calls.all().len(), 5, "tried again soon, and not at once");
    server.code.store(0, Ordering::Relaxed);
    pass(RETRY).await;
    assert!(server.lease.lock().unwrap().as_ref().unwrap()["spec"]["renewTime"].is_string());
}
