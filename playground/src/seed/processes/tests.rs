use super::*;

#[test]
fn usage_is_read_from_proc() {
    let stat = "42 (a) b (c) S 1 42 42 0 -1 4194560 100 0 0 0 150 25 0 0 20 0 1 0 5 6 7";
    assert_eq!(cpu_seconds(stat), Some(1.75));
    assert_eq!(peak_memory("Name:\tx\nVmHWM:\t    2048 kB\n"), Some(2 << 20));
    assert!(read_usage(std::process::id()).is_some_and(|(_, peak)| peak > 0));
}

fn sleepers() -> (tempfile::TempDir, Processes) {
    let logs = tempfile::tempdir().unwrap();
    let processes = Processes::new("/bin/sh".into(), logs.path().to_owned());
    (logs, processes)
}

fn script(text: &str) -> Vec<String> {
    vec!["-c".to_owned(), text.to_owned()]
}

#[tokio::test]
async fn a_killed_program_comes_back_unless_it_is_held() {
    let (logs, processes) = sleepers();
    let process = processes.start("sleeper", script("echo up; exec sleep 60")).unwrap();
    process.wait(|state| state.pid.is_some()).await;
    let first = process.pid();
    process.kill().await;
    process.wait(|state| state.pid.is_some()).await;
    assert_ne!(process.pid(), first);
    process.hold().await;
    assert_eq!(process.pid(), None);
    process.release();
    process.wait(|state| state.pid.is_some()).await;
    assert_eq!(process.usage().starts, 3);
    process.stop().await;
    assert_eq!(process.pid(), None);
    assert!(logs.path().join("sleeper.log").exists());
}

#[tokio::test]
async fn a_leash_holds_as_long_as_the_handle() {
    let (logs, processes) = sleepers();
    let text = "echo up; read line; echo let go >&2";
    let process = processes.start("leashed", script(text)).unwrap();
    let log = logs.path().join("leashed.log");
    while !std::fs::read_to_string(&log).unwrap().contains("up") {
        tokio::task::yield_now().await;
    }
    assert_eq!(process.usage().starts, 1, "its input is open: {process:?}");
    process.stop().await;
    assert!(!std::fs::read_to_string(&log).unwrap().contains("let go"));
}

#[tokio::test]
async fn a_program_that_ignores_sigterm_is_killed_in_the_end() {
    let (logs, processes) = sleepers();
    let text = "trap '' TERM; echo deaf; while :; do sleep 60; done";
    let process = processes.start("deaf", script(text)).unwrap();
    let log = logs.path().join("deaf.log");
    while !std::fs::read_to_string(&log).unwrap().contains("deaf") {
        tokio::task::yield_now().await;
    }
    timeout(GRACE * 3, processes.stop_all()).await.unwrap();
    assert_eq!(process.pid(), None);
}
