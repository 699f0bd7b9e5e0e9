use serde_json::json;

use super::*;
use crate::name::Uid;
use crate::rollout::Progress;
use crate::rollout::progress::Phase as At;
use crate::rollout::record::{Command, Course, Digests, Evidence, Failure, Why};

const UID: &str = "0b4a7f0e-0000-4000-8000-000000000001";

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn digests(word: &str) -> Digests {
    Digests::from([(Architecture::Amd64, Digest::of(word.as_bytes()))])
}

fn progress(phase: At) -> Progress {
    Progress {
        phase,
        course: Course::Forwards,
        candidate: digests("new"),
        since: Some(at(100)),
        nodes: 10,
        have: 3,
        left: 6,
        in_flight: 2,
        away: 0,
        awaited: 0,
        failures: Vec::new(),
        budget: 2,
        held: 0,
        most_held: 1,
        held_nodes: Vec::new(),
        next: None,
        acted: None,
        can: Vec::new(),
    }
}

fn failure(uid: &str, excused: bool, name: Option<&str>) -> Failure {
    let evidence = name.map(|name| Evidence {
        name: name.parse().unwrap(),
        message: "exec format error".to_owned(),
    });
    let node = uid.parse().unwrap();
    Failure { node, reason: Reason::ProofFailed, at: at(150), excused, evidence }
}

#[test]
fn only_its_own_form_is_read() {
    let empty = serde_json::to_value(RuntimeStatus::new()).unwrap();
    assert_eq!(
        empty,
        json!({"apiVersion": API_VERSION, "kind": KIND, "nodes": {"selected": 0, "ready": 0}})
    );
    assert_eq!(RuntimeStatus::read(Some(&empty)), Some(RuntimeStatus::new()));
    assert_eq!(RuntimeStatus::read(None), None);
    for other in [
        json!({"apiVersion": "gvisor/v1", "kind": KIND}),
        json!({"apiVersion": API_VERSION, "kind": KIND, "nodes": 5}),
        json!("text"),
    ] {
        assert_eq!(RuntimeStatus::read(Some(&other)), None, "{other}");
    }
}

#[test]
fn what_a_newer_controller_added_is_passed_over() {
    let since = "1970-01-01T00:01:40Z";
    let read = RuntimeStatus::read(Some(&json!({
        "apiVersion": API_VERSION, "kind": KIND, "mood": "good",
        "promoted": {"riscv64": "sha256:0", "amd64": Digest::of(b"old")},
        "nodes": {
            "selected": 4, "ready": 1,
            "phases": {"Proven": 1, "Dreaming": 3}, "reasons": {"NoSpace": 2, "Tired": 1},
        },
        "rollout": {
            "since": since, "nodes": 3, "phase": "Dreaming", "course": "sideways",
            "halt": "Tired", "can": ["pause", "wake"],
            "failures": [
                {"node": "a", "reason": "Tired", "at": since}, {"node": "b"},
            ],
        },
        "slowestNodes": [
            {"name": "a", "phase": "Dreaming", "since": since},
            {"name": "b", "phase": "Blocked", "reason": "Tired", "since": since},
        ],
    })))
    .unwrap();
    assert_eq!(read.promoted, Digests::from([(Architecture::Amd64, Digest::of(b"old"))]));
    assert_eq!(read.nodes.phases, BTreeMap::from([(Phase::Proven, 1)]));
    assert_eq!(read.nodes.reasons, BTreeMap::from([(Reason::NoSpace, 2)]));
    let slow =
        SlowNode { name: "b".to_owned(), phase: Phase::Blocked, reason: None, since: at(100) };
    assert_eq!(read.slowest_nodes, [slow]);
    let rollout = read.rollout.unwrap();
    assert_eq!(rollout.phase, Some(RolloutPhase::Other("Dreaming".to_owned())));
    assert_eq!(serde_json::to_value(&rollout.phase).unwrap(), json!("Dreaming"));
    assert_eq!((rollout.course, rollout.halt), (Course::Forwards, None));
    assert_eq!(rollout.can, [Command::Pause]);
    let failed =
        FailedNode { node: "a".to_owned(), reason: None, message: String::new(), at: at(100) };
    assert_eq!(rollout.failures, [failed]);
}

#[test]
fn every_phase_is_one_word_and_read_back() {
    let phases = [
        At::Unread,
        At::Deleting,
        At::Unknown,
        At::Idle,
        At::Canary,
        At::Soaking { runs: true },
        At::Wave { number: 1, of: 2 },
        At::Halted(Why::BudgetSpent),
        At::Stopped,
        At::Paused,
        At::Frozen,
        At::WaitingForRing,
        At::WaitingForWindow,
        At::WaitingForNodes,
        At::Blocked,
        At::PromotedFails,
    ];
    assert_eq!(phases.map(RolloutPhase::from), RolloutPhase::KNOWN);
    for known in RolloutPhase::KNOWN {
        let json = serde_json::to_value(&known).unwrap();
        assert_eq!(json, json!(format!("{known:?}")));
        assert_eq!(serde_json::from_value::<RolloutPhase>(json).unwrap(), known);
    }
    for why in
        [Why::CanaryFailed, Why::CanaryLost, Why::WaveFailed, Why::BudgetSpent, Why::NothingBefore]
    {
        let halt = HaltReason::from(why);
        assert_eq!(serde_json::to_value(halt).unwrap(), json!(format!("{why:?}")));
        assert_eq!(halt.as_str(), format!("{why:?}"));
    }
}

#[test]
fn a_rollout_is_written_with_what_there_is_to_say() {
    let wave = Progress {
        have: 0,
        can: vec![Command::Pause, Command::Abort],
        ..progress(At::Wave { number: 2, of: 5 })
    };
    let written = serde_json::to_value(Rollout::of(&wave, None, at(200))).unwrap();
    assert_eq!(
        written,
        json!({
            "since": "1970-01-01T00:01:40Z", "nodes": 10, "phase": "Wave",
            "candidate": {"amd64": Digest::of(b"new")}, "wave": 2, "waves": 5, "total": 10,
            "left": 6, "inFlight": 2, "budget": 2, "mostHeld": 1, "can": ["pause", "abort"],
            "message": "the rollout brings the bundle to the other nodes",
        })
    );
    assert_eq!(serde_json::from_value::<Rollout>(written).unwrap().wave, Some(2));

    let halted = Progress {
        course: Course::Back,
        failures: vec![failure(UID, true, Some("a")), failure(UID, false, Some("b"))],
        held: 1,
        held_nodes: vec![(UID.parse().unwrap(), Reason::NoSpace)],
        next: Some(Timestamp::from_millisecond(300_900).unwrap()),
        ..progress(At::Halted(Why::CanaryFailed))
    };
    let halted = serde_json::to_value(Rollout::of(&halted, None, at(200))).unwrap();
    assert_eq!(halted["course"], "back");
    assert_eq!((&halted["phase"], &halted["halt"]), (&json!("Halted"), &json!("CanaryFailed")));
    // What was excused by a retry does not count.
    assert_eq!(halted["failed"], 1);
    assert_eq!(
        halted["failures"],
        json!([{
            "node": "b", "reason": "ProofFailed", "message": "exec format error",
            "at": "1970-01-01T00:02:30Z",
        }])
    );
    assert_eq!(halted["heldNodes"], json!([{"node": UID, "reason": "NoSpace"}]));
    assert_eq!(halted["next"], "1970-01-01T00:05:00Z");
    assert_eq!(
        halted["message"],
        "the rollout back to the promoted bundle was halted: none of the first nodes works; \
         correct the bundle, then retry or abort the rollout"
    );
}

#[test]
fn a_rollout_begins_goes_on_and_ends() {
    let old = Rollout { since: at(50), nodes: 8, ..Rollout::default() };
    let other = Rollout { phase: Some(RolloutPhase::Canary), nodes: 99, ..old.clone() };
    let same = Rollout { candidate: digests("new"), ..other.clone() };
    let none = Progress {
        candidate: Digests::new(),
        since: None,
        have: 0,
        left: 0,
        in_flight: 0,
        ..progress(At::Idle)
    };
    let settling = Progress { in_flight: 2, ..none.clone() };
    let starting = Progress { phase: At::Unknown, nodes: 0, ..none.clone() };
    let unknown = Progress { phase: At::Unknown, ..none.clone() };
    let canary = progress(At::Canary);
    let table = [
        ("begins", &canary, None, Some((100, 7))),
        ("goes on from an older controller", &canary, Some(&old), Some((100, 8))),
        ("goes on", &canary, Some(&same), Some((100, 99))),
        ("is another one", &canary, Some(&other), Some((100, 7))),
        ("is over", &none, Some(&same), None),
        ("gives back slots", &settling, None, Some((200, 2))),
        ("is not known yet", &starting, Some(&same), Some((50, 99))),
        ("is not known yet and was none", &starting, None, None),
        ("has no known target", &unknown, None, Some((200, 0))),
    ];
    for (case, progress, before, want) in table {
        let after = Rollout::of(progress, before, at(200));
        assert_eq!(after.map(|r| (r.since.as_second(), r.nodes)), want, "{case}");
    }
}

#[test]
fn nodes_are_named_where_their_names_are_known() {
    let (known, gone) = (UID, "0b4a7f0e-0000-4000-8000-000000000002");
    let progress = Progress {
        failures: vec![failure(gone, false, None), failure(known, false, None)],
        held_nodes: vec![(known.parse().unwrap(), Reason::NoSpace)],
        ..progress(At::Blocked)
    };
    let mut rollout = Rollout::of(&progress, None, at(200)).unwrap();
    rollout.name_nodes(|uid: &Uid| (uid.as_str() == known).then(|| "node-a".parse().unwrap()));
    let failed: Vec<_> = rollout.failures.iter().map(|failed| failed.node.as_str()).collect();
    assert_eq!(failed, [gone, "node-a"]);
    assert_eq!(rollout.held_nodes[0].node, "node-a");
}

#[test]
fn no_more_nodes_are_named_than_may_be() {
    let uid = |n: usize| format!("uid-{n}");
    let progress = Progress {
        failures: (0..20).map(|n| failure(&uid(n), false, None)).collect(),
        held_nodes: (0..20).map(|n| (uid(n).parse().unwrap(), Reason::NoSpace)).collect(),
        ..progress(At::Blocked)
    };
    let rollout = Rollout::of(&progress, None, at(200)).unwrap();
    assert_eq!(rollout.failed, 20);
    assert_eq!(rollout.failures.len(), MAX_FAILED_NODES);
    assert_eq!(rollout.held_nodes.len(), MAX_HELD_NODES);
}
