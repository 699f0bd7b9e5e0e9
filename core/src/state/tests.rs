use serde_json::json;

use super::*;
use crate::rollout::record::{
    Course, Evidence, Failure, Halt, MAX_EVIDENCE, MAX_FAILURES, MAX_HELD, MAX_NAMED, MAX_SLOTS,
    Silent, Stage, Why,
};
use crate::status::Reason;

fn promoted() -> BTreeMap<Architecture, Digest> {
    [(Architecture::Amd64, Digest::of(b"a"))].into()
}

#[test]
fn what_is_written_is_read() {
    let written = State { promoted: promoted(), ..State::default() };
    let value = serde_json::to_value(&written).unwrap();
    let digest = Digest::of(b"a").to_string();
    assert_eq!(value, json!({"version": 1, "promoted": {"amd64": digest}, "slots": []}));
    assert_eq!(State::parse(Some(&value)).unwrap(), written);
    assert_eq!(State::parse(None).unwrap(), State::default());
    assert_eq!(State::parse(Some(&Value::Null)).unwrap(), State::default());
}

#[test]
fn what_a_later_revision_added_stays() {
    let digest = Digest::of(b"a").to_string();
    let at = "2026-07-01T10:00:00Z";
    let value = json!({
        "version": 1, "promoted": {}, "rings": {"open": 2},
        "candidate": {"digests": {"amd64": digest}, "since": at, "stage": {"name": "canary"},
                      "canary": 1, "passed": 0, "colour": "red"},
        "slots": [{"node": "a", "digest": digest, "until": at, "zone": "one"}],
    });
    let state = State::parse(Some(&value)).unwrap();
    assert_eq!(state.slots[0].node.as_str(), "a");
    assert_eq!(serde_json::to_value(&state).unwrap(), value);
    let none = json!({"version": 1, "promoted": {}, "candidate": null, "slots": []});
    assert_eq!(State::parse(Some(&none)).unwrap(), State::default());
}

/// The longest names that Kubernetes allows, and as many as are kept.
fn large() -> State {
    let digests: Digests = [Architecture::Amd64, Architecture::Arm64]
        .map(|architecture| (architecture, Digest::of(b"a")))
        .into();
    let now: jiff::Timestamp = "2026-07-01T10:00:00Z".parse().unwrap();
    let uid = |number: usize| format!("{number:064}").parse().unwrap();
    let label = "x".repeat(63);
    let name = [label.as_str(); 4].join(".")[..253].parse().unwrap();
    let evidence = Evidence { name, message: "\u{1}".repeat(100) };
    let mut candidate = Candidate::new(digests.clone(), Course::Back, 1000, now);
    candidate.stage = Stage::Wave { number: 9, passed: 10_000, failed: 100 };
    (candidate.attempt, candidate.passed) = (1000, 10_000);
    candidate.halted = Some(Halt { at: now, why: Why::NothingBefore });
    candidate.failures = (0..MAX_FAILURES)
        .map(|number| Failure {
            node: uid(number),
            reason: Reason::ContainerdConfigForeignChange,
            at: now,
            excused: true,
            evidence: (number < MAX_EVIDENCE).then(|| evidence.clone()),
        })
        .collect();
    let slot = |number| Slot {
        node: uid(number),
        digest: Digest::of(b"a"),
        until: now,
        silent: Some(Silent {
            since: now,
            name: (number < MAX_NAMED).then(|| evidence.name.clone()),
        }),
        more: Map::new(),
    };
    let held = |number| Held {
        node: uid(number),
        digest: Digest::of(b"a"),
        reason: Reason::ContainerdConfigForeignChange,
        again: now,
        times: 1000,
    };
    State {
        promoted: digests.clone(),
        candidate: Some(candidate),
        slots: (0..MAX_SLOTS).map(slot).collect(),
        held: (0..MAX_HELD).map(held).collect(),
        aborted: digests,
        paused: true,
        acted: Some(Command::Promote),
        ..State::default()
    }
}

#[test]
fn the_largest_state_is_within_its_bound() {
    let mut state = large();
    let (whole, size) = (state.clone(), state.size());
    assert!(size <= MAX_STATE, "{size}");
    state.bound();
    assert_eq!(state, whole);
    let value = serde_json::to_value(&state).unwrap();
    assert_eq!(State::parse(Some(&value)).unwrap(), whole);
}

#[test]
fn a_state_that_is_too_large_loses_words_first_and_slots_never() {
    let lost = |padding: usize| {
        let mut state = large();
        state.more.insert("more".to_owned(), Value::String("x".repeat(padding)));
        state.bound();
        let failures = state.candidate.unwrap().failures;
        let words = failures.iter().filter(|failure| failure.evidence.is_some()).count();
        (words, state.held.len(), failures.len(), state.slots.len())
    };
    let (words, held, failures, slots) = (0, MAX_HELD, MAX_FAILURES, MAX_SLOTS);
    assert_eq!(lost(6_000), (words, held, failures, slots));
    let (_, held, failures, _) = lost(14_000);
    assert!(held < MAX_HELD && failures == MAX_FAILURES, "{held} {failures}");
    assert_eq!(lost(MAX_STATE), (0, 0, 0, MAX_SLOTS));
}

#[test]
fn what_can_not_be_read_is_told_apart() {
    let newer = json!({"version": 2, "promoted": "elsewhere"});
    let error = State::parse(Some(&newer)).unwrap_err();
    assert!(matches!(error, StateError::Newer(2)), "{error}");
    assert!(error.to_string().contains("version 2"), "{error}");
    let large = json!({"version": 1, "slots": ["x".repeat(MAX_STATE)]});
    assert!(matches!(State::parse(Some(&large)), Err(StateError::TooLarge(_))));
    let digest = Digest::of(b"a").to_string();
    for malformed in [
        json!("text"),
        json!([]),
        json!({}),
        json!({"version": -1}),
        json!({"version": 1, "promoted": {"amd64": "latest"}}),
        json!({"version": 1, "promoted": {"sparc": digest}}),
        json!({"version": 1, "slots": {}}),
        json!({"version": 1, "slots": [{"node": "a"}]}),
        json!({"version": 1, "candidate": {"digests": {}}}),
    ] {
        let error = State::parse(Some(&malformed)).unwrap_err();
        assert!(matches!(error, StateError::Malformed(_)), "{malformed}: {error}");
    }
}

#[test]
fn only_what_is_known_is_promoted() {
    let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
    let mut state = State::default();
    state.promote(&[(Architecture::Amd64, Some(a)), (Architecture::Arm64, Some(a))].into());
    assert_eq!(state.promoted.len(), 2);
    state.promote(&[(Architecture::Amd64, Some(b)), (Architecture::Arm64, None)].into());
    let want = [(Architecture::Amd64, b), (Architecture::Arm64, a)].into();
    assert_eq!(state.promoted, want, "what can't be resolved now stays");
    state.promote(&[(Architecture::Amd64, Some(b))].into());
    assert_eq!(state.promoted.len(), 1, "the bundle is no longer for it");
}
