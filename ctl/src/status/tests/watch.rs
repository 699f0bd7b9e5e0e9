use std::sync::Mutex;
use std::time::Duration;

use serde_json::{Value, json};

use super::{busy, halted, lines, resource};
use crate::Error;
use crate::scripted::{self, SILENCE, list, now, refusal};

#[tokio::test(start_paused = true)]
async fn a_watch_appends_what_changes_and_goes_on_after_errors() {
    let watches = Mutex::new(0);
    let (client, _) = scripted::client(move |call| {
        if !call.query.contains("watch=true") {
            assert!(
                call.query.contains("fieldSelector=metadata.name%3Dgvisor-a"),
                "{}",
                call.query
            );
            return list(&[resource("gvisor-a", busy())]);
        }
        let event = |kind: &str, object: Value| json!({"type": kind, "object": object});
        let mut watches = watches.lock().unwrap();
        *watches += 1;
        match *watches {
            // The same once more, then something else.
            1 => (
                200,
                json!([
                    event("MODIFIED", resource("gvisor-a", busy())),
                    event("MODIFIED", resource("gvisor-a", halted())),
                ]),
            ),
            2 => refusal(500, "etcd is away", ""),
            3 => (200, json!([event("DELETED", resource("gvisor-a", halted()))])),
            _ => (SILENCE, Value::Null),
        }
    });
    let said = watched(&client, "rootstock status gvisor-a --watch").await;
    assert_eq!(
        lines(&said),
        [
            "2026-01-01T01:00:00Z shoot--garden--one/gvisor-a: 38/40 nodes ready, rollout wave 2/5, \
             tried on 23/40, failed 1/2, pulls 35.1 MiB/s (70%), done in 2m, RollingOut",
            "2026-01-01T01:00:00Z shoot--garden--one/gvisor-a: 38/40 nodes ready, rollout halted: canary failed",
            "2026-01-01T01:00:00Z shoot--garden--one/gvisor-a: gone",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_can_not_begin_fails() {
    let (client, _) = scripted::client(|_| refusal(403, "user cannot list", ""));
    let (_, ended) = scripted::run(&client, "rootstock status --watch").await;
    let error = ended.unwrap_err();
    assert!(matches!(error, Error::Forbidden { .. }), "{error:?}");
    assert_eq!(
        error.chain(),
        "failed to list ContainerRuntimes in namespace shoot--garden--one: user cannot list"
    );
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_is_not_answered_ends() {
    let (client, _) = scripted::client(|_| (SILENCE, Value::Null));
    let (_, ended) = scripted::run(&client, "rootstock status --watch").await;
    assert!(matches!(ended, Err(Error::Silent { seconds: 30, .. })), "{ended:?}");
}

/// What a watch prints in a minute.
async fn watched(client: &kube::Client, line: &str) -> String {
    use crate::screen::{Screen, Style};
    let mut out = Vec::new();
    let mut screen = Screen::new(&mut out, Style::default());
    let args = clap::Parser::parse_from(line.split_whitespace());
    let watch = crate::run(&args, client, &mut screen, now);
    tokio::time::timeout(Duration::from_secs(60), watch).await.unwrap_err();
    drop(screen);
    String::from_utf8(out).unwrap()
}
