use std::sync::Mutex;

use serde_json::{Value, json};

use crate::runtime::tests::{object, provider, rollout};
use crate::scripted::{self, Call, Calls, list, refusal};
use crate::{Error, Outcome};

const ONE: &str =
    "/apis/extensions.gardener.cloud/v1alpha1/namespaces/shoot--garden--one/containerruntimes";
const ANNOTATION: &str = "/metadata/annotations/rootstock.gardener.cloud~1rollout";

fn runtime(name: &str, phase: &str, can: &[&str]) -> Value {
    let more = json!({"can": can, "message": format!("the rollout of {name} is {phase}")});
    let status = json!({"providerStatus": provider(rollout(phase, more))});
    serde_json::to_value(object(name, status)).unwrap()
}

/// An API with these runtimes, whose controller takes up what is asked after so
/// many looks at it.
fn api(runtimes: Vec<Value>, looks: usize) -> (kube::Client, Calls) {
    let state = Mutex::new((runtimes, looks));
    scripted::client(move |call: &Call| {
        let (runtimes, left) = &mut *state.lock().unwrap();
        let name = call.path.strip_prefix(ONE).map(|rest| rest.trim_start_matches('/'));
        let Some(name) = name.filter(|name| !name.is_empty()) else { return list(runtimes) };
        let Some(runtime) = runtimes.iter_mut().find(|one| one["metadata"]["name"] == name) else {
            return refusal(404, "not found", name);
        };
        if call.method == "PATCH" {
            let annotations = &call.body["metadata"]["annotations"];
            let mut changed = runtime.clone();
            changed["metadata"]["annotations"] = annotations.clone();
            if !call.query.contains("dryRun=All") {
                *runtime = changed.clone();
            }
            return (200, changed);
        }
        if runtime.pointer(ANNOTATION).is_some() {
            if *left == 0 {
                runtime["metadata"]["annotations"] = json!({});
                runtime["status"]["providerStatus"] = provider(rollout("Paused", json!({})));
            }
            *left = left.saturating_sub(1);
        }
        (200, runtime.clone())
    })
}

#[tokio::test(start_paused = true)]
async fn one_annotation_is_written_and_nothing_else() {
    for verb in ["pause", "resume", "retry", "promote", "abort"] {
        let (client, calls) = api(vec![runtime("a", "Canary", &[verb])], 9);
        let (said, ended) = scripted::run(&client, &format!("rootstock rollout {verb} a")).await;
        assert_eq!(ended.unwrap(), Outcome::Done);
        assert_eq!(said, format!("shoot--garden--one/a: {verb} is asked for\n"));
        let writes = calls.writes();
        assert_eq!(writes.len(), 1);
        assert_eq!(writes[0].method, "PATCH");
        assert_eq!(writes[0].path, format!("{ONE}/a"));
        assert_eq!(writes[0].content_type, "application/merge-patch+json");
        let annotations = json!({"rootstock.gardener.cloud/rollout": verb});
        assert_eq!(writes[0].body, json!({"metadata": {"annotations": annotations}}));
    }
}

#[tokio::test(start_paused = true)]
async fn what_would_change_nothing_is_refused_unless_forced() {
    let (client, calls) = api(vec![runtime("a", "Canary", &["pause"])], 9);
    let (said, ended) = scripted::run(&client, "rootstock rollout resume a").await;
    assert_eq!(
        ended.unwrap_err().chain(),
        "shoot--garden--one/a: resume would change nothing: the rollout of a is Canary. \
         What can be asked: pause; or use --force"
    );
    assert_eq!((said.as_str(), calls.writes().len()), ("", 0));
    let (_, ended) = scripted::run(&client, "rootstock rollout resume a --force").await;
    assert_eq!(ended.unwrap(), Outcome::Done);
    assert_eq!(calls.writes().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_when_the_controller_has_taken_it_up() {
    let (client, calls) = api(vec![runtime("a", "Canary", &["pause"])], 3);
    let (said, ended) = scripted::run(&client, "rootstock rollout pause a --wait").await;
    assert_eq!(ended.unwrap(), Outcome::Done);
    let want = "shoot--garden--one/a: pause is asked for\n\
        shoot--garden--one/a: 38/40 nodes ready, rollout paused\n";
    assert_eq!(said, want);
    assert_eq!(calls.writes().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_wait_is_bounded() {
    let (client, _) = api(vec![runtime("a", "Canary", &["pause"])], usize::MAX);
    let begun = tokio::time::Instant::now();
    let (_, ended) = scripted::run(&client, "rootstock rollout pause a --wait=7").await;
    let error = ended.unwrap_err();
    assert_eq!(
        error.chain(),
        "shoot--garden--one/a: asked to pause, and the controller has not taken that up in 7 s"
    );
    assert!(error.advice().unwrap().contains("rootstock-controller"));
    assert_eq!(begun.elapsed().as_secs(), 7);
    // Whoever asks again waits for the same.
    let (said, ended) = scripted::run(&client, "rootstock rollout pause a --wait=7").await;
    assert!(matches!(ended, Err(Error::NotTaken { .. })), "{ended:?}");
    assert_eq!(said, "shoot--garden--one/a: pause is asked for already, and not taken up yet\n");
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_when_somebody_asks_for_something_else() {
    let looks = Mutex::new(0);
    let (client, _) = scripted::client(move |_| {
        let mut looks = looks.lock().unwrap();
        *looks += 1;
        let mut runtime = runtime("a", "Canary", &["pause", "abort"]);
        // It is read, then written, then looked at.
        let asked = [None, Some("pause"), Some("pause"), Some("abort")][(*looks - 1_usize).min(3)];
        runtime["metadata"]["annotations"] = asked
            .map_or_else(|| json!({}), |asked| json!({"rootstock.gardener.cloud/rollout": asked}));
        (200, runtime)
    });
    let (_, ended) = scripted::run(&client, "rootstock rollout pause a --wait").await;
    assert_eq!(
        ended.unwrap_err().chain(),
        "shoot--garden--one/a: asked to pause, and somebody else asked to abort meanwhile"
    );
}

#[tokio::test(start_paused = true)]
async fn of_all_only_those_are_asked_where_it_changes_something() {
    let all = || vec![runtime("b", "Paused", &["resume"]), runtime("a", "Canary", &["pause"])];
    let (client, calls) = api(all(), 0);
    let (said, ended) = scripted::run(&client, "rootstock rollout pause --all --dry-run").await;
    assert_eq!(ended.unwrap(), Outcome::Done);
    let left = "shoot--garden--one/b: left as it is: pause would change nothing: \
        the rollout of b is Paused. What can be asked: resume; or use --force\n";
    assert_eq!(said, format!("shoot--garden--one/a: pause would be asked for\n{left}"));
    assert!(calls.writes().iter().all(|call| call.query.contains("dryRun=All")));

    let (said, ended) = scripted::run(&client, "rootstock rollout pause --all -A --wait").await;
    assert_eq!(ended.unwrap(), Outcome::Done);
    let paused = "shoot--garden--one/a: 38/40 nodes ready, rollout paused\n";
    assert_eq!(said, format!("shoot--garden--one/a: pause is asked for\n{left}{paused}"));
}

#[tokio::test(start_paused = true)]
async fn of_several_each_failure_is_said_and_the_others_are_asked() {
    let all = vec![runtime("a", "Canary", &["pause"]), runtime("b", "Paused", &["resume"])];
    let (client, calls) = api(all, 0);
    let (said, notes, ended) = scripted::run_noted(&client, "rootstock rollout pause a b").await;
    assert_eq!(ended.unwrap_err().chain(), "1 of 2 failed");
    // The output is for those who read what was done.
    assert_eq!(said, "shoot--garden--one/a: pause is asked for\n");
    assert!(notes.starts_with("failed: shoot--garden--one/b: pause would change"), "{notes}");
    assert_eq!(notes.lines().count(), 1, "{notes}");
    assert_eq!(calls.writes().len(), 1);
    // A name that is not there is a slip: nothing is asked of anybody.
    let (_, ended) = scripted::run(&client, "rootstock rollout abort a nobody").await;
    assert!(matches!(ended, Err(Error::NotFound { .. })), "{ended:?}");
    assert_eq!(calls.writes().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_several_failures_need_is_said_once() {
    let all = vec![runtime("a", "Canary", &["pause"]), runtime("b", "Canary", &["pause"])];
    let (client, _) = scripted::client(move |call| match call.method.as_str() {
        "GET" => list(&all),
        _ => refusal(403, "user cannot patch", "any"),
    });
    let (said, notes, ended) = scripted::run_noted(&client, "rootstock rollout pause --all").await;
    assert!(matches!(ended, Err(Error::Some { failed: 2, all: 2 })), "{ended:?}");
    assert_eq!(said, "");
    let notes: Vec<_> = notes.lines().collect();
    assert_eq!(notes.len(), 3, "{notes:?}");
    for (note, name) in notes.iter().zip(["a", "b"]) {
        let failed = format!(
            "failed: failed to annotate ContainerRuntime shoot--garden--one/{name} with \
             rootstock.gardener.cloud/rollout=pause: user cannot patch"
        );
        assert_eq!(*note, failed);
    }
    assert!(notes[2].starts_with("what to do: you need get, list, watch and patch"), "{notes:?}");
}

#[tokio::test(start_paused = true)]
async fn of_all_those_of_other_extensions_are_left_as_they_are() {
    let operation = json!({"type": "Reconcile", "state": "Succeeded"});
    let foreign = object("theirs", json!({"lastOperation": operation}));
    let all = vec![runtime("ours", "Canary", &["abort"]), serde_json::to_value(foreign).unwrap()];
    let (client, calls) = api(all, 0);
    let (said, ended) = scripted::run(&client, "rootstock rollout abort --all -A").await;
    assert_eq!(ended.unwrap(), Outcome::Done);
    let left = "shoot--garden--one/theirs: left as it is: nothing of Rootstock's yet; perhaps it \
        is another extension's; name it, or use --force\n";
    assert_eq!(said, format!("shoot--garden--one/ours: abort is asked for\n{left}"));
    let paths: Vec<_> = calls.writes().into_iter().map(|call| call.path).collect();
    assert_eq!(paths, [format!("{ONE}/ours")]);
}
