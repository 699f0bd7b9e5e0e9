use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{Patch, PatchParams};
use rootstock_daemon::{Readiness, Shutdown};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::*;
use crate::scripted::{self, Calls, SILENCE, merge, refusal};

const LEASE: Duration = Duration::from_secs(15);
const NAME: &str = "/apis/coordination.k8s.io/v1/namespaces/home/leases/rootstock-controller";

/// An API with one Lease. A code in place of 200 is what it says to everything.
struct Server {
    lease: Arc<Mutex<Option<Value>>>,
    code: Arc<AtomicU16>,
    /// Whether writes are carried out and not answered.
    deaf: Arc<AtomicBool>,
    client: kube::Client,
    calls: Calls,
}

impl Server {
    fn new(lease: Option<Value>) -> Self {
        let lease = Arc::new(Mutex::new(lease));
        let code = Arc::new(AtomicU16::new(200));
        let deaf = Arc::new(AtomicBool::new(false));
        let (stored, said, unheard) = (Arc::clone(&lease), Arc::clone(&code), Arc::clone(&deaf));
        let (client, calls) = scripted::client(move |call| {
            let mut lease = stored.lock().unwrap();
            let code = said.load(Ordering::Relaxed);
            if code != 200 {
                return refusal(code, "no");
            }
            let version = |lease: &Value| lease["metadata"]["resourceVersion"].clone();
            match (call.method.as_str(), lease.as_mut()) {
                ("GET", Some(lease)) => (200, lease.clone()),
                ("GET", None) => refusal(404, "NotFound"),
                ("POST", None) => {
                    let mut made = call.body.clone();
                    made["metadata"]["resourceVersion"] = json!("1");
                    *lease = Some(made.clone());
                    (201, made)
                }
                ("PATCH", Some(lease)) if version(lease) == version(&call.body) => {
                    let next: u64 = version(lease).as_str().unwrap().parse::<u64>().unwrap() + 1;
                    merge(lease, &call.body);
                    lease["metadata"]["resourceVersion"] = json!(next.to_string());
                    let code = if unheard.load(Ordering::Relaxed) { SILENCE } else { 200 };
                    (code, lease.clone())
                }
                ("PATCH" | "POST", _) => refusal(409, "Conflict"),
                (other, _) => panic!("{other} of a Lease"),
            }
        });
        Self { lease, code, deaf, client, calls }
    }

    /// A candidate that runs, and what it says.
    fn stand(&self, tasks: &mut JoinSet<anyhow::Result<()>>) -> Candidacy {
        self.stand_for(LEASE, tasks)
    }

    /// The same, for a Lease that lasts so long.
    fn stand_for(&self, lease: Duration, tasks: &mut JoinSet<anyhow::Result<()>>) -> Candidacy {
        let (terms, standing) = Standing::new();
        let (left, shutdown, readiness) =
            (CancellationToken::new(), Shutdown::new(), Readiness::new());
        let who = ("me".to_owned(), lease);
        let candidate = Candidate::new(
            self.client.clone(),
            "home",
            who,
            terms,
            left.clone(),
            readiness.clone(),
        );
        tasks.spawn(candidate.run(shutdown.clone()));
        Candidacy { standing, left, shutdown, readiness }
    }

    fn spec(&self) -> Value {
        self.lease.lock().unwrap().as_ref().unwrap()["spec"].clone()
    }
}

struct Candidacy {
    standing: Standing,
    left: CancellationToken,
    shutdown: Shutdown,
    readiness: Readiness,
}

fn held(by: &str) -> Option<Value> {
    let spec = json!({"holderIdentity": by, "leaseDurationSeconds": 15, "leaseTransitions": 4});
    Some(json!({"metadata": {"name": "rootstock-controller", "resourceVersion": "9",
        "labels": {"kept": "yes"}}, "spec": spec}))
}

/// Lets the paused clock run.
async fn pass(time: Duration) {
    tokio::time::sleep(time).await;
}

#[tokio::test(start_paused = true)]
async fn it_leads_renews_and_gives_the_lease_back() {
    let server = Server::new(None);
    let mut tasks = JoinSet::new();
    let mut one = server.stand(&mut tasks);
    assert!(!one.readiness.missing().is_empty(), "it is not ready before it has read the Lease");
    let term = one.standing.term().await;
    assert_eq!((term.epoch(), one.readiness.missing().as_str()), (1, ""));
    pass(LEASE * 4).await;
    assert!(term.holds(), "it is renewed");
    let spec = server.spec();
    assert_eq!(spec["holderIdentity"], "me");
    assert_eq!(spec["leaseTransitions"], 1);
    let writes = server.calls.all().iter().filter(|call| call.method != "GET").count();
    assert!((28..=32).contains(&writes), "{writes} in a minute");

    // While something is still done in its name it is kept.
    one.shutdown.begin();
    pass(LEASE).await;
    assert!(term.holds());
    one.left.cancel();
    tasks.join_next().await.unwrap().unwrap().unwrap();
    assert!(!term.holds());
    assert_eq!(server.spec()["holderIdentity"], Value::Null);
    let last = server.calls.all().pop().unwrap();
    assert_eq!(last.path, NAME);
}

/// The answer to its last renewal is lost: the version that it would write
/// over is not the one that there is.
#[tokio::test(start_paused = true)]
async fn it_gives_a_lease_back_that_it_has_renewed_without_hearing_of_it() {
    let server = Server::new(None);
    let mut tasks = JoinSet::new();
    let mut one = server.stand(&mut tasks);
    one.standing.term().await;
    // Carried out, and not answered; and one that somebody else has changed since.
    for lost in [true, false] {
        server.deaf.store(lost, Ordering::Relaxed);
        if lost {
            pass(Duration::from_secs(3)).await;
            server.deaf.store(false, Ordering::Relaxed);
        } else {
            let mut lease = server.lease.lock().unwrap();
            lease.as_mut().unwrap()["metadata"]["resourceVersion"] = json!("1000");
        }
        one.shutdown.begin();
        one.left.cancel();
        tasks.join_next().await.unwrap().unwrap().unwrap();
        assert_eq!(server.spec()["holderIdentity"], Value::Null, "{lost}");
        one = server.stand(&mut tasks);
        one.standing.term().await;
    }
    // One that is another's by now stays so.
    *server.lease.lock().unwrap() = held("other");
    one.shutdown.begin();
    one.left.cancel();
    tasks.join_next().await.unwrap().unwrap().unwrap();
    assert_eq!(server.spec()["holderIdentity"], "other");
}

/// Renewals of a Lease that lasts for ten minutes may take minutes.
#[tokio::test(start_paused = true)]
async fn giving_back_takes_seconds_however_long_the_lease_lasts() {
    // Between two renewals, and while one is under way.
    for after in [0, 81] {
        let server = Server::new(None);
        let mut tasks = JoinSet::new();
        let mut one = server.stand_for(LEASE * 40, &mut tasks);
        one.standing.term().await;
        server.code.store(SILENCE, Ordering::Relaxed);
        pass(Duration::from_secs(after)).await;
        let begun = Instant::now();
        one.shutdown.begin();
        one.left.cancel();
        tasks.join_next().await.unwrap().unwrap().unwrap();
        assert!(begun.elapsed() < Duration::from_secs(6), "{after}: {:?}", begun.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn it_waits_for_another_as_long_as_that_lives() {
    let server = Server::new(held("other"));
    let mut tasks = JoinSet::new();
    let mut one = server.stand(&mut tasks);
    let waited = tokio::time::timeout(LEASE - Duration::from_secs(1), one.standing.term()).await;
    assert!(waited.is_err());
    let term = one.standing.term().await;
    assert_eq!(term.epoch(), 5);
    let lease = server.lease.lock().unwrap().clone().unwrap();
    assert_eq!(lease["metadata"]["labels"]["kept"], "yes");
    // Somebody else takes it, whoever that may be: no clock is waited for.
    let mut taken = held("other").unwrap();
    taken["metadata"]["resourceVersion"] = json!("100");
    taken["spec"]["leaseTransitions"] = json!(6);
    *server.lease.lock().unwrap() = Some(taken);
    tokio::time::timeout(Duration::from_secs(3), term.over()).await.expect("it gives way");
}

#[tokio::test(start_paused = true)]
async fn a_term_ends_in_time_where_the_api_is_away_or_silent() {
    for code in [500, SILENCE, 403] {
        let server = Server::new(None);
        let mut tasks = JoinSet::new();
        let mut one = server.stand(&mut tasks);
        let term = one.standing.term().await;
        server.code.store(code, Ordering::Relaxed);
        let begun = Instant::now();
        term.over().await;
        // It was renewed within the last two seconds.
        let after = begun.elapsed().as_secs();
        assert!((7..=10).contains(&after), "{code}: {after} s");
        assert!(one.standing.now().is_none());
        server.code.store(200, Ordering::Relaxed);
        assert_eq!(one.standing.term().await.epoch(), 2, "{code}");
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_written_but_in_a_term() {
    let (client, calls) = scripted::client(|call| match call.method.as_str() {
        "GET" => (200, json!({"metadata": {"name": "x"}})),
        _ if call.path.ends_with("/slow") => (SILENCE, Value::Null),
        _ => (200, json!({"metadata": {"name": "x"}})),
    });
    let term = Term::until(1, CancellationToken::new());
    term.renew(Instant::now());
    let maps: Api<ConfigMap> = Api::namespaced(fenced(&client, &term), "home");
    let patch = Patch::Merge(json!({"data": {"a": "b"}}));
    let params = PatchParams::default();
    maps.get("x").await.unwrap();
    let refused = maps.patch("x", &params, &patch).await.unwrap_err();
    assert!(crate::api::is_transient(&refused), "{refused}");
    assert!(rootstock_daemon::error::Chain(&refused).to_string().contains("does not lead"));
    assert_eq!(calls.all().len(), 1, "it did not leave the house");

    term.renew(Instant::now() + LEASE);
    maps.patch("x", &params, &patch).await.unwrap();
    // A process that was stopped and goes on: nobody has told it yet.
    term.renew(Instant::now());
    assert!(!term.0.over.is_cancelled());
    maps.patch("x", &params, &patch).await.unwrap_err();
    assert_eq!(calls.all().len(), 2);
    // A request that is under way at the end is not waited for.
    term.renew(Instant::now() + LEASE);
    let end = term.0.over.clone();
    let slow = maps.patch("slow", &params, &patch);
    let ended = async {
        tokio::task::yield_now().await;
        end.cancel();
    };
    let (slow, ()) = tokio::join!(slow, ended);
    slow.unwrap_err();
    // The process leads again: what is left of its earlier term writes nothing.
    let next = Term::until(2, CancellationToken::new());
    let before = calls.all().len();
    maps.patch("x", &params, &patch).await.unwrap_err();
    assert_eq!(calls.all().len(), before);
    let maps: Api<ConfigMap> = Api::namespaced(fenced(&client, &next), "home");
    maps.patch("x", &params, &patch).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_leader_marks_its_pod_and_no_other_stays_marked() {
    let marks = Arc::new(Mutex::new(std::collections::BTreeMap::from([
        ("me".to_owned(), false),
        ("old".to_owned(), true),
    ])));
    let stored = Arc::clone(&marks);
    let (client, _) = scripted::client(move |call| {
        let mut marks = stored.lock().unwrap();
        let object = |name: &str| {
            json!({"apiVersion": "meta.k8s.io/v1",
            "kind": "PartialObjectMetadata", "metadata": {"name": name}})
        };
        if call.method == "GET" {
            assert!(call.query.contains("serving%3Dtrue"), "{}", call.query);
            let marked = marks.iter().filter(|(_, on)| **on).map(|(name, _)| object(name));
            return (
                200,
                json!({"apiVersion": "meta.k8s.io/v1", "metadata": {},
                "kind": "PartialObjectMetadataList", "items": marked.collect::<Vec<_>>()}),
            );
        }
        let name = call.path.rsplit('/').next().unwrap().to_owned();
        let on = call.body["metadata"]["labels"][mark::SERVING] == "true";
        let answer = object(&name);
        marks.insert(name, on);
        (200, answer)
    });
    let mark = Mark::new(client, "home", "me");
    let term = Term::until(1, CancellationToken::new());
    let on = || {
        let marks = marks.lock().unwrap();
        let marked = marks.iter().filter(|(_, on)| **on).map(|(name, _)| name.clone());
        marked.collect::<Vec<_>>()
    };
    let end = Shutdown::new();
    let mut tasks = JoinSet::new();
    tasks.spawn(mark.clone().keep(term, end.clone()));
    pass(Duration::from_secs(1)).await;
    assert_eq!(on(), ["me"]);
    end.begin();
    tasks.join_next().await.unwrap().unwrap().unwrap();
    assert_eq!(on(), Vec::<String>::new());
    marks.lock().unwrap().insert("me".to_owned(), true);
    mark.clear().await;
    assert_eq!(on(), Vec::<String>::new());
}
