use std::sync::Mutex;
use std::time::Duration;

use kube::runtime::watcher::Event;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::super::View;
use super::super::board::Board;
use super::super::watch::picture;
use super::{busy, halted, lines, resource};
use crate::Error;
use crate::api::Scope;
use crate::args::Connection;
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
    let (said, notes) = watched(&client, "rootstock status gvisor-a --watch").await;
    assert_eq!(
        lines(&said),
        [
            "2026-01-01T01:00:00Z shoot--garden--one/gvisor-a: 38/40 nodes ready, rollout wave 2/5, \
             tried on 23/40, failed 1/2, pulls 35.1 MiB/s (70%), done in 2m, RollingOut",
            "2026-01-01T01:00:00Z shoot--garden--one/gvisor-a: 38/40 nodes ready, rollout halted: canary failed",
            "2026-01-01T01:00:00Z shoot--garden--one/gvisor-a: gone",
        ]
    );
    let trouble = "2026-01-01T01:00:00Z not up to date: failed to watch ContainerRuntimes in \
        namespace shoot--garden--one: etcd is away";
    assert_eq!(lines(&notes), [trouble, "2026-01-01T01:00:00Z up to date again"]);
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_may_not_go_on_says_so_once() {
    let (client, _) = scripted::client(move |call| match call.query.contains("watch=true") {
        false => list(&[resource("gvisor-a", busy())]),
        true => refusal(403, "user cannot watch", ""),
    });
    for output in ["table", "json"] {
        let line = format!("rootstock status gvisor-a --watch -o {output}");
        let (said, notes) = watched(&client, &line).await;
        assert_eq!(lines(&said).len(), 1, "{said}");
        let trouble = "2026-01-01T01:00:00Z not up to date: failed to watch ContainerRuntimes in \
            namespace shoot--garden--one: user cannot watch; what to do: you need get, list, ";
        assert!(notes.starts_with(trouble) && notes.lines().count() == 1, "{notes}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_watch_says_when_the_api_goes_away_and_when_it_is_there_again() {
    let calls = Mutex::new((0, 0));
    let (client, _) = scripted::client(move |call| {
        let (lists, watches) = &mut *calls.lock().unwrap();
        if call.query.contains("watch=true") {
            *watches += 1;
            let old = refusal(410, "too old resource version", "").1;
            return match *watches {
                1 => (200, json!([{"type": "ERROR", "object": old}])),
                2 => refusal(500, "it begins", ""),
                // It works, and nothing changes.
                _ => (SILENCE, Value::Null),
            };
        }
        *lists += 1;
        match *lists {
            2..5 => refusal(401, "Unauthorized", ""),
            _ => list(&[resource("gvisor-a", busy())]),
        }
    });
    let (said, notes) = watched(&client, "rootstock status --watch -o json").await;
    assert_eq!(lines(&said).len(), 1, "{said}");
    let words: Vec<_> = notes.lines().map(|note| note.split_once("Z ").unwrap().1).collect();
    let doing = |doing| {
        format!(
            "not up to date: failed to {doing} ContainerRuntimes in namespace shoot--garden--one"
        )
    };
    let (watch, listing) = (doing("watch"), doing("list"));
    let want = [
        format!("{watch}: too old resource version"),
        // Another thing to do, which is said once.
        format!("{listing}: Unauthorized; what to do: log in again"),
        "up to date again".to_owned(),
        format!("{watch}: it begins"),
        "up to date again".to_owned(),
    ];
    assert_eq!(words.len(), want.len(), "{notes}");
    for (word, want) in words.iter().zip(&want) {
        assert!(word.starts_with(want), "{notes}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_watch_of_what_is_not_there_fails() {
    let (client, _) = scripted::client(|call| match call.query.contains("watch=true") {
        false => list(&[]),
        true => (SILENCE, Value::Null),
    });
    for line in ["rootstock status a --watch", "rootstock status a --watch -o json"] {
        let (said, ended) = scripted::run(&client, line).await;
        assert!(matches!(ended, Err(Error::NotFound { .. })), "{ended:?}");
        assert_eq!(said, "");
    }
    // What has no name may come later.
    let (said, notes) = watched(&client, "rootstock status --watch").await;
    assert_eq!((said.as_str(), notes.as_str()), ("", ""));
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

/// What a watch prints into a pipe in three minutes, and what it notes.
async fn watched(client: &kube::Client, line: &str) -> (String, String) {
    let watch = async {
        use crate::screen::{Screen, Style};
        let (mut out, mut notes) = (Vec::new(), Vec::new());
        let mut screen = Screen::new(&mut out, Style::default()).with_notes(&mut notes);
        let args = clap::Parser::parse_from(line.split_whitespace());
        let watch = crate::run(&args, client, &mut screen, now);
        tokio::time::timeout(Duration::from_secs(180), watch).await.unwrap_err();
        drop(screen);
        (out, notes)
    };
    let (out, notes) = watch.await;
    (String::from_utf8(out).unwrap(), String::from_utf8(notes).unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_picture_begins_with_why_it_is_not_up_to_date() {
    let scope = Scope::All;
    let view = View { name: None, scope: &scope, connection: &Connection::default() };
    let mut board = Board::default();
    board.hear(Ok(Event::InitDone), Instant::now());
    let (doing, message) = ("watch ContainerRuntimes".to_owned(), "user cannot watch".to_owned());
    board.hear(Err(Error::Forbidden { doing, message }), Instant::now());
    let shown = || -> Vec<String> {
        let (lines, last) = picture(&view, &board, now(), Some(50));
        lines.into_iter().chain([last]).map(|line| line.paint(false)).collect()
    };
    assert_eq!(
        shown(),
        [
            "not up to date: failed to watch ContainerRuntimes:",
            "  user cannot watch",
            "what to do: you need get, list, watch and patch of",
            "  containerruntimes.extensions.gardener.cloud",
            "",
            "no ContainerRuntimes in any namespace",
            "",
            "2026-01-01T01:00:00Z, not up to date",
        ]
    );
    tokio::time::advance(Duration::from_secs(60)).await;
    assert_eq!(
        shown(),
        ["no ContainerRuntimes in any namespace", "", "2026-01-01T01:00:00Z, Ctrl-C ends it"]
    );
}
