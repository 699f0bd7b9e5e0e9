mod watch;

use serde_json::{Value, json};

use super::overview;
use crate::Outcome;
use crate::runtime::Runtime;
use crate::runtime::tests::{object, provider, rollout};
use crate::scripted::{self, SILENCE, list, now, refusal};
use crate::text::Line;

const BASE: &str = "/apis/extensions.gardener.cloud/v1alpha1";

fn resource(name: &str, status: Value) -> Value {
    serde_json::to_value(object(name, status)).unwrap()
}

fn lines(text: &str) -> Vec<&str> {
    text.lines().collect()
}

/// A rollout with a bit of everything.
fn busy() -> Value {
    let digest = format!("sha256:{}", "ab".repeat(32));
    let mut status = provider(rollout(
        "Wave",
        json!({
            "candidate": {"amd64": digest}, "wave": 2, "waves": 5, "total": 40, "have": 23,
            "left": 15, "inFlight": 2, "away": 1, "failed": 1, "budget": 2, "held": 6, "mostHeld": 8,
            "failures": [{"node": "node-7", "reason": "ProofFailed", "at": "2026-01-01T00:30:00Z",
                "message": "exec \u{1b}[2Jformat error"}],
            "heldNodes": [{"node": "node-9", "reason": "NoSpace"}],
            "next": "2026-01-01T01:03:00Z", "can": ["pause", "abort"],
            "message": "the rollout brings the bundle to the other nodes",
            "pull": {"bytesDone": 1_288_490_188_u64, "bytesTotal": 4_294_967_296_u64,
                "bytesPerSecond": 36_900_000, "budgetShare": 0.7,
                "estimatedEnd": "2026-01-01T01:02:00Z"},
        }),
    ));
    status["bundle"] = json!({"reference": "main/rootstock/gvisor:20260905.0",
        "version": "20260905.0", "digests": {"amd64": digest}});
    status["nodes"]["phases"] = json!({"Proven": 38, "Blocked": 2});
    status["nodes"]["reasons"] = json!({"NoSpace": 2});
    status["slowestNodes"] = json!([
        {"name": "node-9", "phase": "Blocked", "reason": "NoSpace", "since": "2026-01-01T00:58:30Z"},
    ]);
    let condition = |kind: &str, status: &str, reason: &str, message: &str| {
        json!({"type": kind, "status": status, "reason": reason, "message": message,
            "lastTransitionTime": "2026-01-01T00:50:00Z", "lastUpdateTime": "2026-01-01T00:50:00Z"})
    };
    json!({
        "lastOperation": {"type": "Reconcile", "state": "Succeeded", "description": "",
            "progress": 100, "lastUpdateTime": "2025-12-31T22:00:00Z"},
        "conditions": [
            condition("BundleResolved", "True", "BundleResolved", "20260905.0"),
            condition("NodesReady", "Progressing", "RollingOut", "38 of 40 nodes ready"),
            condition("SystemComponentsHealthy", "Progressing", "RollingOut", "on its way"),
        ],
        "providerStatus": status,
    })
}

fn halted() -> Value {
    let more = json!({"halt": "CanaryFailed", "can": ["retry", "abort"]});
    json!({"providerStatus": provider(rollout("Halted", more))})
}

#[tokio::test(start_paused = true)]
async fn all_runtimes_are_one_table() {
    let (client, calls) = scripted::client(|_| {
        list(&[
            resource("kata-a", halted()),
            resource("gvisor-a", busy()),
            resource("new", json!({})),
        ])
    });
    let (said, ended) = scripted::run(&client, "rootstock status -A").await;
    assert_eq!(ended.unwrap(), Outcome::Done);
    assert_eq!(
        lines(&said),
        [
            "NAMESPACE            NAME       TYPE     POOL   VERSION      NODES   ROLLOUT                 TRIED   FAILED   RATE               END     REASON",
            "shoot--garden--one   gvisor-a   gvisor   a      20260905.0   38/40   wave 2/5                23/40   1/2      35.1 MiB/s (70%)   in 2m   RollingOut",
            "shoot--garden--one   kata-a     gvisor   a      -            38/40   halted: canary failed",
            "shoot--garden--one   new        gvisor   a      -            -       -",
        ]
    );
    assert_eq!(calls.all()[0].path, format!("{BASE}/containerruntimes"));
    let (said, _) = scripted::run(&client, "rootstock status").await;
    assert!(said.starts_with("NAME "), "{said}");
    let namespaced = format!("{BASE}/namespaces/shoot--garden--one/containerruntimes");
    assert_eq!(calls.all()[1].path, namespaced);
}

#[test]
fn a_narrow_terminal_goes_without_what_matters_less() {
    let runtimes: Vec<_> = [("gvisor-a", busy()), ("kata-a", halted())]
        .map(|(n, s)| Runtime::read(&object(n, s)))
        .into();
    let table = |width| -> Vec<String> {
        let lines = overview::lines(&runtimes, false, now(), width);
        lines.iter().map(|line| line.paint(false)).collect()
    };
    let titles = |width| -> Vec<String> {
        table(Some(width))[0].split_whitespace().map(str::to_owned).collect()
    };
    let all = table(None)[0].clone();
    assert_eq!(table(Some(130))[0], all);
    assert_eq!(
        titles(100),
        ["NAME", "NODES", "ROLLOUT", "TRIED", "FAILED", "RATE", "END", "REASON"]
    );
    assert_eq!(
        table(Some(60)),
        [
            "NAME       NODES   ROLLOUT                 FAILED   REASON",
            "gvisor-a   38/40   wave 2/5                1/2      RollingOut",
            "kata-a     38/40   halted: canary failed",
        ]
    );
    // What is left is cut by whoever prints it.
    assert_eq!(table(Some(10)), table(Some(60)));
}

#[tokio::test(start_paused = true)]
async fn one_runtime_is_a_page() {
    let (client, _) = scripted::client(|_| (200, resource("gvisor-a", busy())));
    let line = "rootstock status gvisor-a -n shoot--garden--one --context my-seed";
    let (said, ended) = scripted::run(&client, line).await;
    assert_eq!(ended.unwrap(), Outcome::Done);
    let page = "\
gvisor-a in shoot--garden--one
  type        gvisor in pool a
  bundle      20260905.0 (main/rootstock/gvisor:20260905.0)
              amd64 sha256:abababababab…
  operation   Reconcile Succeeded, 3h ago
  nodes       38 of 40 ready; 38 Proven, 2 Blocked; 2 NoSpace

Rollout
  phase       wave 2/5, for 1h
  tried on    [#################.............] 23 of 40, 2 in flight, 15 left, 1 away
  candidate   amd64 sha256:abababababab…
  failed      1, at most 2
  held up     6, at most 8
  pulled      1.1 GiB of 4.0 GiB at 35.1 MiB/s (70%), done in 2m
  looks again in 3m
  the rollout brings the bundle to the other nodes

Failed nodes
  NODE     REASON        WHEN      MESSAGE
  node-7   ProofFailed   30m ago   exec \u{fffd}[2Jformat error
  ProofFailed: see the kubelet's and containerd's journal on the node

Held-up nodes
  NODE     REASON
  node-9   NoSpace
  and 5 more
  NoSpace: free space on the node, or give it a larger disk

Nodes without it for longest
  NODE     PHASE     REASON    FOR
  node-9   Blocked   NoSpace   1m30s

Conditions
  BundleResolved True BundleResolved, for 10m
    20260905.0
  NodesReady Progressing RollingOut, for 10m
    38 of 40 nodes ready
  SystemComponentsHealthy Progressing RollingOut, for 10m
    on its way

What can be asked of the rollout
  rootstock rollout pause gvisor-a -n shoot--garden--one --context my-seed   let no other node begin
  rootstock rollout abort gvisor-a -n shoot--garden--one --context my-seed   go back to the promoted bundle
";
    assert_eq!(lines(&said), lines(page));
}

#[tokio::test(start_paused = true)]
async fn a_page_says_what_waits_and_what_is_not_there() {
    let (client, _) = scripted::client(|call| {
        let mut object = resource("a", json!({"lastError": {"description": "no selector"}}));
        object["metadata"]["annotations"] = json!({"rootstock.gardener.cloud/rollout": "pause"});
        object["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        assert!(call.path.ends_with("/a"));
        (200, object)
    });
    let (said, _) = scripted::run(&client, "rootstock status a").await;
    let page = "\
a in shoot--garden--one
  type        gvisor in pool a
  deleting    it is to go
  error       no selector
  status      nothing of Rootstock's yet; perhaps it is another extension's

What can be asked of the rollout
  pause was asked for, and the controller has not taken it up yet
";
    assert_eq!(lines(&said), lines(page));
}

#[tokio::test(start_paused = true)]
async fn a_page_says_nothing_twice() {
    let (client, _) = scripted::client(|_| {
        let condition = |kind: &str, message: &str| {
            let (status, reason) = ("False", "Refused");
            json!({"type": kind, "status": status, "reason": reason, "message": message})
        };
        let status = json!({
            "lastOperation": {"type": "Reconcile", "state": "Error",
                "description": "Error reconciling ContainerRuntime: no such flag"},
            "lastError": {"description": "no such flag"},
            "conditions": [condition("NodesReady", "no such flag"), condition("Other", "else"),
                condition("ConfigurationAccepted", "no such flag")],
        });
        (200, resource("a", status))
    });
    let (said, _) = scripted::run(&client, "rootstock status a").await;
    let page = "\
a in shoot--garden--one
  type        gvisor in pool a
  operation   Reconcile Error
              Error reconciling ContainerRuntime: no such flag
  status      nothing of Rootstock's yet; perhaps it is another extension's

Conditions
  NodesReady False Refused
    no such flag
  Other False Refused
    else
  ConfigurationAccepted False Refused
    as NodesReady
";
    assert_eq!(lines(&said), lines(page));
}

#[tokio::test(start_paused = true)]
async fn a_rollout_that_stands_has_an_exit_code_of_its_own() {
    let (client, _) = scripted::client(|call| match call.path.ends_with("/a") {
        true => (200, resource("a", halted())),
        false => list(&[resource("a", halted())]),
    });
    for (line, want) in [
        ("rootstock status a", Outcome::Stands),
        ("rootstock status a -o json", Outcome::Stands),
        ("rootstock status", Outcome::Done),
    ] {
        assert_eq!(scripted::run(&client, line).await.1.unwrap(), want, "{line}");
    }
}

#[tokio::test(start_paused = true)]
async fn scripts_get_what_was_written() {
    let (client, _) = scripted::client(|call| match call.path.ends_with("/gvisor-a") {
        true => (200, resource("gvisor-a", busy())),
        false => list(&[resource("gvisor-a", busy()), resource("new", json!({}))]),
    });
    let one = |text: &str| -> Value { serde_json::from_str(text).unwrap() };
    let (said, _) = scripted::run(&client, "rootstock status gvisor-a -o json").await;
    assert!(!said.contains('\u{1b}'));
    let gvisor = one(&said);
    assert_eq!(gvisor["providerStatus"], busy()["providerStatus"]);
    assert_eq!(gvisor["conditions"], busy()["conditions"]);
    let (said, _) = scripted::run(&client, "rootstock status -o json").await;
    let new =
        json!({"namespace": "shoot--garden--one", "name": "new", "type": "gvisor", "pool": "a"});
    assert_eq!(one(&said), json!({"containerRuntimes": [gvisor, new]}));
}

#[tokio::test(start_paused = true)]
async fn long_lists_are_read_page_by_page() {
    let (client, calls) = scripted::client(|call| {
        let (name, more) = match call.query.contains("continue=next") {
            false => ("a", "next"),
            true => ("b", ""),
        };
        let (code, mut page) = list(&[resource(name, json!({}))]);
        page["metadata"]["continue"] = more.into();
        (code, page)
    });
    let (said, _) = scripted::run(&client, "rootstock status").await;
    assert_eq!(lines(&said).len(), 3, "{said}");
    assert_eq!(calls.all().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn where_there_is_nothing_it_says_so() {
    let (client, _) = scripted::client(|_| list(&[]));
    let none =
        "no ContainerRuntimes in namespace shoot--garden--one; -A shows those of all namespaces\n";
    assert_eq!(scripted::run(&client, "rootstock status").await.0, none);
    let none = "no ContainerRuntimes in any namespace\n";
    assert_eq!(scripted::run(&client, "rootstock status -A").await.0, none);
}

#[tokio::test(start_paused = true)]
async fn errors_name_what_where_and_what_to_do() {
    let table = [
        (
            refusal(404, "404 page not found", ""),
            "failed to read ContainerRuntime shoot--garden--one/a: this cluster has no ContainerRuntimes",
            "kubeconfig of a Gardener seed",
        ),
        (
            refusal(404, "not found", "a"),
            "no ContainerRuntime \"a\" in namespace \"shoot--garden--one\"",
            "rootstock status -A",
        ),
        (
            refusal(403, "user cannot get", "a"),
            "failed to read ContainerRuntime shoot--garden--one/a: user cannot get",
            "get, list, watch and patch",
        ),
        (
            refusal(401, "Unauthorized", "a"),
            "failed to read ContainerRuntime shoot--garden--one/a: Unauthorized",
            "log in again",
        ),
        (
            refusal(403, "", "a"),
            "failed to read ContainerRuntime shoot--garden--one/a: the API answered 403",
            "get, list, watch and patch",
        ),
        (
            refusal(429, "too many", "a"),
            "failed to read ContainerRuntime shoot--garden--one/a: too many",
            "",
        ),
        (
            (SILENCE, Value::Null),
            "failed to read ContainerRuntime shoot--garden--one/a: no answer in 30 s",
            "network path",
        ),
    ];
    for (answer, want, advice) in table {
        let (client, _) = scripted::client(move |_| answer.clone());
        for line in ["rootstock status a", "rootstock rollout pause a"] {
            let (said, ended) = scripted::run(&client, line).await;
            let error = ended.unwrap_err();
            assert_eq!(error.chain(), want, "{line}");
            assert!(error.advice().unwrap_or_default().contains(advice), "{want}");
            assert_eq!(said, "");
        }
    }
}

#[test]
fn nothing_of_a_page_is_cut_on_a_terminal() {
    let long = |word: &str| format!("{word} {}", "0123456789 ".repeat(12)) + word;
    let mut status = busy();
    status["lastOperation"]["state"] = json!("Error");
    status["lastOperation"]["description"] = json!(long("describes"));
    let rollout = &mut status["providerStatus"]["rollout"];
    let image = format!("registry.example.org/main/rootstock@sha256:{}", "0".repeat(64));
    rollout["failures"][0]["message"] = json!(long(&image));
    let runtime = Runtime::read(&object("gvisor-a", status));
    let connection = crate::args::Connection {
        kubeconfig: Some(format!("/home/somebody/{}", "folder/".repeat(9)).into()),
        context: Some("a seed".to_owned()),
    };
    let page = |width| super::page::lines(&runtime, &connection, now(), width);
    let words = |lines: &[Line]| -> String {
        let text: Vec<_> = lines.iter().map(|line| line.paint(false)).collect();
        text.concat().replace(' ', "")
    };
    let (all, command) = (words(&page(None)), " --context 'a seed'");
    for width in [200, 100, 80, 60] {
        let lines = page(Some(width));
        for line in &lines {
            assert_eq!(&line.clone().fitted(width), line, "{width}");
        }
        let mut kept = words(&lines);
        for part in ["describes0123456789", &image, "journalonthenode", "freespaceonthenode"] {
            assert_eq!(all.matches(part).count(), kept.matches(part).count(), "{width} {part}");
        }
        kept.retain(|c| "0123456789".contains(c));
        let mut digits = all.clone();
        digits.retain(|c| "0123456789".contains(c));
        assert_eq!(kept.len(), digits.len(), "{width}");
        let commands = lines.iter().map(|line| line.paint(false));
        let commands = commands.filter(|line| line.starts_with("  rootstock rollout "));
        assert_eq!(commands.filter(|line| line.contains(command)).count(), 2, "{width}");
    }
}

#[test]
fn a_page_shows_the_operation_before_there_is_anything_else() {
    let failed = json!({"type": "Reconcile", "state": "Error", "description": "no such bundle"});
    let shown = [
        "type        gvisor in pool a",
        "operation   Reconcile Error",
        "            no such bundle",
        "status      nothing of Rootstock's yet; perhaps it is another extension's",
    ];
    let foreign = json!({"apiVersion": "other/v1", "kind": "Status"});
    let another =
        "status      of another extension, or of another version of Rootstock than this command's";
    let table = [
        (json!({}), vec![shown[0], "status      no controller has said anything yet"]),
        (json!({"lastOperation": failed}), shown.to_vec()),
        (json!({"providerStatus": foreign}), vec![shown[0], another]),
    ];
    for (status, want) in table {
        let runtime = Runtime::read(&object("a", status.clone()));
        let page = super::page::lines(&runtime, &crate::args::Connection::default(), now(), None);
        let lines: Vec<_> = page.iter().map(|line| line.paint(false)).collect();
        let want: Vec<_> = want.into_iter().map(|line| format!("  {line}")).collect();
        assert_eq!(lines[1..], want, "{status}");
        let summary = overview::summary(&runtime, now()).paint(false);
        assert!(summary.contains(runtime.unsaid()), "{summary}");
    }
}
