//! Conditions in Gardener's form, with their times.

use jiff::Timestamp;
use rootstock_core::rollup::Condition;
use serde_json::{Value, json};

/// The conditions with their times. Those of others stay as they are, and what
/// others added to ours.
pub(super) fn merge(before: &[Value], ours: &[Condition], now: Timestamp) -> Vec<Value> {
    let now = Value::from(now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
    let mut after = before.to_vec();
    for condition in ours {
        let kind = condition.kind.as_str();
        let Some(old) = after.iter_mut().find(|old| old["type"] == kind) else {
            let mut new = json!({"type": kind, "lastTransitionTime": now});
            say(&mut new, condition, &now);
            after.push(new);
            continue;
        };
        if old["status"] != condition.status.as_str() {
            old["lastTransitionTime"] = now.clone();
        }
        let mut new = old.clone();
        say(&mut new, condition, &old["lastUpdateTime"]);
        if *old != new {
            new["lastUpdateTime"] = now.clone();
            *old = new;
        }
    }
    after
}

fn say(condition: &mut Value, what: &Condition, updated: &Value) {
    condition["status"] = what.status.as_str().into();
    condition["reason"] = what.reason.clone().into();
    condition["message"] = what.message.clone().into();
    condition["lastUpdateTime"] = updated.clone();
    let Some(fields) = condition.as_object_mut() else { return };
    if what.codes.is_empty() {
        fields.remove("codes");
    } else {
        fields.insert("codes".to_owned(), what.codes.into());
    }
}

/// Whether something that was True would become Progressing.
pub(super) fn unsettles(before: &[Value], after: &[Value]) -> bool {
    let was_true =
        |kind: &Value| before.iter().any(|b| b["type"] == *kind && b["status"] == "True");
    after.iter().any(|new| new["status"] == "Progressing" && was_true(&new["type"]))
}

#[cfg(test)]
mod tests {
    use rootstock_core::rollup::{ConditionStatus, ConditionType};

    use super::*;

    fn ours(status: ConditionStatus, message: &str) -> Condition {
        let kind = ConditionType::NodesReady;
        let (reason, message) = ("R".into(), message.into());
        Condition { kind, status, reason, message, codes: &[] }
    }

    #[test]
    fn times_move_only_with_what_they_are_of() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let first = merge(&[], &[ours(ConditionStatus::True, "a")], at(1));
        let same = merge(&first, &[ours(ConditionStatus::True, "a")], at(2));
        assert_eq!(same, first);
        let message = merge(&first, &[ours(ConditionStatus::True, "b")], at(3));
        assert_eq!(message[0]["lastTransitionTime"], "1970-01-01T00:00:01Z");
        assert_eq!(message[0]["lastUpdateTime"], "1970-01-01T00:00:03Z");
        let status = merge(&message, &[ours(ConditionStatus::False, "b")], at(4));
        assert_eq!(status[0]["lastTransitionTime"], "1970-01-01T00:00:04Z");
        assert_eq!(status[0]["lastUpdateTime"], "1970-01-01T00:00:04Z");
    }

    #[test]
    fn codes_come_and_go() {
        let mut failed = ours(ConditionStatus::False, "a");
        failed.codes = &["ERR_CONFIGURATION_PROBLEM"];
        let with = merge(&[], &[failed], Timestamp::UNIX_EPOCH);
        assert_eq!(with[0]["codes"], json!(["ERR_CONFIGURATION_PROBLEM"]));
        let without = merge(&with, &[ours(ConditionStatus::True, "a")], Timestamp::UNIX_EPOCH);
        assert_eq!(without[0].get("codes"), None);
    }

    #[test]
    fn only_true_is_unsettled_by_progressing() {
        use ConditionStatus::{False, Progressing, True};
        let at = |status| merge(&[], &[ours(status, "a")], Timestamp::UNIX_EPOCH);
        assert!(unsettles(&at(True), &at(Progressing)));
        assert!(!unsettles(&at(True), &at(False)));
        assert!(!unsettles(&at(False), &at(Progressing)));
        assert!(!unsettles(&[], &at(Progressing)));
    }

    #[test]
    fn what_others_wrote_stays() {
        let mut before = merge(&[], &[ours(ConditionStatus::True, "a")], Timestamp::UNIX_EPOCH);
        before[0]["severity"] = "low".into();
        before.push(json!({"type": "Other", "status": "True", "observedGeneration": 3}));
        let after = merge(&before, &[ours(ConditionStatus::False, "b")], Timestamp::UNIX_EPOCH);
        assert_eq!(after.len(), 2);
        assert_eq!(after[1], before[1]);
        assert_eq!((&after[0]["severity"], &after[0]["status"]), (&json!("low"), &json!("False")));
    }
}
