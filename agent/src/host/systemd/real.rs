//! Against a real systemd and containerd, where a test runs on a node of its
//! own (`$ROOTSTOCK_NODE` is the node's root; in nspawn it is `/`).

use super::*;

fn node() -> Option<SystemdHost> {
    std::env::var_os("ROOTSTOCK_NODE").map(|root| SystemdHost::new(Path::new(&root)))
}

#[tokio::test]
async fn the_node_is_asked_and_its_programs_run_in_units_of_their_own() {
    let Some(host) = node() else { return };
    let found = host.find().await.unwrap();
    assert_eq!(found.kill_mode, "process");
    let before = host.unit().await.unwrap();
    assert!(before.active && !before.start.is_empty());
    let dump = host.dump(&found.config).await.unwrap();
    assert!(dump.contains("plugins"), "{dump}");
    dump.parse::<toml_edit::DocumentMut>().unwrap();
    host.restart_containerd().await.unwrap();
    let after = host.unit().await.unwrap();
    assert_ne!(after.start, before.start);
    let journal = host.journal().await.unwrap();
    assert!(!journal.is_empty() && journal.len() <= JOURNAL_LINES);
}

#[tokio::test]
async fn what_a_program_says_and_how_it_ends_comes_back() {
    let Some(host) = node() else { return };
    let fine = host.run(&["/usr/bin/printf", "%s|", "a b", "$c", "%d"]).await.unwrap();
    assert_eq!((fine.failed, fine.stdout.as_str()), (None, "a b|$c|%d|"));
    let bad = host.run(&["/usr/bin/ls", "/nowhere"]).await.unwrap();
    assert_eq!(bad.failed.as_deref(), Some("job failed, result exit-code, exit status 2"));
    assert!(bad.stderr.contains("/nowhere"), "{bad:?}");
    let none = host.run(&["/nowhere/program"]).await.unwrap();
    assert!(none.failed.is_some(), "{none:?}");
    let long = host.run(&["/usr/bin/seq", "200000"]).await.unwrap();
    assert!(long.stdout.ends_with("\n200000\n"), "{}", long.stdout.len());
    let error = host.run(&["/usr/bin/seq", "2000000"]).await.unwrap_err();
    let error = rootstock_daemon::error::Chain(&error).to_string();
    assert!(error.contains("more than 4194304 bytes"), "{error}");
    // Nothing stays behind.
    let all = ["/usr/bin/systemctl", "list-units", "--all", "--plain", "rootstock-*.service"];
    let left = host.run(&all).await.unwrap();
    assert!(left.stdout.contains("1 loaded units"), "{}", left.stdout);
}

#[tokio::test]
async fn a_handler_is_proven_and_nothing_of_the_proof_stays() {
    let (Some(host), Ok(handler)) = (node(), std::env::var("ROOTSTOCK_NODE_HANDLER")) else {
        return;
    };
    assert_eq!(host.prove(&handler.parse().unwrap()).await.unwrap(), Proof::Started);
    let proof = host.prove(&"no-such-handler".parse().unwrap()).await.unwrap();
    assert!(matches!(proof, Proof::Failed(_)), "{proof:?}");
    // Also those that are hidden from the count of pods.
    let proof = host.prove(&handler.parse().unwrap()).await.unwrap();
    assert_eq!((proof, host.sandboxes().await.unwrap()), (Proof::Started, vec![]));
    assert!(std::fs::read_dir(&host.tasks).unwrap().next().is_none(), "a task is left");
}
