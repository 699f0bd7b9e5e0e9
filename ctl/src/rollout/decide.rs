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

/// How it is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct How {
    /// Of all runtimes, so that nobody has named this one.
    pub(super) all: bool,
    /// Also where it would change nothing.
    pub(super) force: bool,
}

pub(super) fn decide(runtime: &Runtime, verb: Command, how: How) -> Decision {
    // What nobody took up would be carried out by a Rootstock that comes later.
    if how.all && !how.force && runtime.status.is_none() {
        let why = format!("{}; name it, or use --force", runtime.unsaid());
        return Decision::Pointless(why);
    }
    match runtime.asked.as_deref() {
        Some(asked) if asked == verb.as_str() => return Decision::Asked,
        _ if how.force => return Decision::Ask(runtime.asked.clone()),
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

    const NAMED: How = How { all: false, force: false };
    const FORCE: How = How { all: false, force: true };
    const ALL: How = How { all: true, force: false };

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
            (runtime(paused(), None, false), Resume, NAMED, ask(None)),
            (runtime(paused(), None, false), Pause, NAMED, pointless),
            (runtime(paused(), None, false), Pause, FORCE, ask(None)),
            (runtime(paused(), Some("resume"), false), Resume, NAMED, Decision::Asked),
            (runtime(paused(), Some("resume"), false), Resume, FORCE, Decision::Asked),
            // It is paused no more when that is taken up.
            (runtime(paused(), Some("resume"), false), Pause, NAMED, ask(Some("resume"))),
            (runtime(paused(), Some("dance"), false), Resume, NAMED, ask(Some("dance"))),
            (runtime(paused(), None, true), Resume, NAMED, deleted),
            (runtime(paused(), None, true), Resume, FORCE, ask(None)),
            (runtime(provider(Value::Null), None, false), Resume, NAMED, none),
            (runtime(provider(Value::Null), None, false), Pause, NAMED, ask(None)),
            (runtime(json!("unreadable"), None, false), Resume, NAMED, ask(None)),
        ];
        for (at, (runtime, verb, how, want)) in table.into_iter().enumerate() {
            assert_eq!(decide(&runtime, verb, how), want, "row {at}");
        }
    }

    /// Another extension's may become Rootstock's, which carries out what it finds.
    #[test]
    fn of_all_only_what_is_rootstocks_is_asked() {
        let foreign = json!({"apiVersion": "other/v1", "kind": "Status"});
        for (status, why) in [
            (Value::Null, "no controller has said anything yet"),
            (foreign, "of another extension, or of another version of Rootstock"),
        ] {
            for (asked, deleting) in [(None, false), (Some("abort"), false), (None, true)] {
                let runtime = runtime(status.clone(), asked, deleting);
                let decision = decide(&runtime, Command::Abort, ALL);
                let Decision::Pointless(said) = decision else { panic!("{decision:?}") };
                assert!(said.starts_with(why) && said.ends_with("or use --force"), "{said}");
            }
            let runtime = runtime(status, None, false);
            for how in [NAMED, How { all: true, force: true }] {
                assert_eq!(decide(&runtime, Command::Abort, how), Decision::Ask(None));
            }
        }
        let ours = runtime(provider(Value::Null), None, false);
        assert_eq!(decide(&ours, Command::Pause, ALL), Decision::Ask(None));
    }
}
