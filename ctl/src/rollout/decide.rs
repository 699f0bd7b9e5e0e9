//! Whether to ask something of a rollout.

use rootstock_core::rollout::record::Command;

use crate::runtime::Runtime;

/// What to do about one runtime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// Ask; with what was asked for before and not taken up, if anything.
    Ask(Option<String>),
    /// The same is asked for already.
    Asked,
    /// It would change nothing: why, as a sentence.
    Pointless(String),
}

pub(super) fn decide(runtime: &Runtime, verb: Command, force: bool) -> Decision {
    match runtime.asked.as_deref() {
        Some(asked) if asked == verb.as_str() => return Decision::Asked,
        _ if force => return Decision::Ask(runtime.asked.clone()),
        _ if runtime.deleting => {
            return Decision::Pointless("it is being deleted: its rollout has ended".to_owned());
        }
        // What was asked for before changes what may be asked.
        Some(asked) => return Decision::Ask(Some(asked.to_owned())),
        None => {}
    }
    match runtime.can() {
        // An older controller, or a status that can't be read: it is for the controller to say.
        None => Decision::Ask(None),
        Some(can) if can.contains(&verb) => Decision::Ask(None),
        Some(can) => Decision::Pointless(pointless(runtime, verb, &can)),
    }
}

fn pointless(runtime: &Runtime, verb: Command, can: &[Command]) -> String {
    let rollout = runtime.status.as_ref().and_then(|status| status.rollout.as_ref());
    let message = rollout.map(|rollout| rollout.message.as_str()).filter(|said| !said.is_empty());
    let why = message.unwrap_or("no rollout is under way");
    let can: Vec<_> = can.iter().map(|verb| verb.as_str()).collect();
    let can = if can.is_empty() { "nothing".to_owned() } else { can.join(", ") };
    format!("{verb} would change nothing: {why}. What can be asked: {can}; or use --force")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::api::ROLLOUT;
    use crate::runtime::tests::{object, provider, rollout};

    fn runtime(status: Value, asked: Option<&str>, deleting: bool) -> Runtime {
        let mut object = object("a", json!({"providerStatus": status}));
        object.metadata.annotations =
            asked.map(|asked| [(ROLLOUT.to_owned(), asked.to_owned())].into());
        if deleting {
            object.metadata.deletion_timestamp =
                serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap();
        }
        Runtime::read(&object)
    }

    #[test]
    fn what_would_change_nothing_is_not_asked() {
        use Command::{Pause, Resume};
        let paused = || {
            let more = json!({"can": ["resume", "abort"], "message": "the rollout is paused"});
            provider(rollout("Paused", more))
        };
        let ask = |before: Option<&str>| Decision::Ask(before.map(str::to_owned));
        let pointless = Decision::Pointless(
            "pause would change nothing: the rollout is paused. \
             What can be asked: resume, abort; or use --force"
                .to_owned(),
        );
        let none = Decision::Pointless(
            "resume would change nothing: no rollout is under way. \
             What can be asked: pause; or use --force"
                .to_owned(),
        );
        let deleted = Decision::Pointless("it is being deleted: its rollout has ended".to_owned());
        let table = [
            (runtime(paused(), None, false), Resume, false, ask(None)),
            (runtime(paused(), None, false), Pause, false, pointless),
            (runtime(paused(), None, false), Pause, true, ask(None)),
            (runtime(paused(), Some("resume"), false), Resume, false, Decision::Asked),
            (runtime(paused(), Some("resume"), false), Resume, true, Decision::Asked),
            // It is paused no more when that is taken up.
            (runtime(paused(), Some("resume"), false), Pause, false, ask(Some("resume"))),
            (runtime(paused(), Some("dance"), false), Resume, false, ask(Some("dance"))),
            (runtime(paused(), None, true), Resume, false, deleted),
            (runtime(paused(), None, true), Resume, true, ask(None)),
            (runtime(provider(Value::Null), None, false), Resume, false, none),
            (runtime(provider(Value::Null), None, false), Pause, false, ask(None)),
            (runtime(json!("unreadable"), None, false), Resume, false, ask(None)),
        ];
        for (at, (runtime, verb, force, want)) in table.into_iter().enumerate() {
            assert_eq!(decide(&runtime, verb, force), want, "row {at}");
        }
    }
}
