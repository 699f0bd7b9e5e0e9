use super::*;

#[tokio::test]
async fn containerd_knows_what_it_started_with() {
    let root = tempfile::tempdir().unwrap();
    SimulatedHost::prepare(root.path()).await.unwrap();
    let host = SimulatedHost::new(root.path()).with_start(Duration::ZERO);
    let runc: HandlerName = "runc".parse().unwrap();
    let first = host.containerd().await.unwrap();
    assert_eq!(first.handlers.keys().collect::<Vec<_>>(), [&runc]);
    let config = tokio::fs::read_to_string(config_path(root.path())).await.unwrap();
    tokio::fs::write(config_path(root.path()), config.replace("runtimes.runc", "runtimes.other"))
        .await
        .unwrap();
    assert_eq!(host.containerd().await.unwrap(), first, "it has not started again");
    host.restart_containerd().await.unwrap();
    let second = SimulatedHost::new(root.path()).containerd().await.unwrap();
    assert_ne!(second.start, first.start);
    assert_eq!(second.handlers.keys().map(HandlerName::as_str).collect::<Vec<_>>(), ["other"]);
    assert_eq!(SimulatedHost::restarts(root.path()).await.unwrap(), 1);
    SimulatedHost::prepare(root.path()).await.unwrap();
    assert_eq!(SimulatedHost::restarts(root.path()).await.unwrap(), 1, "a node stays");
}

#[tokio::test]
async fn faults_befall_it() {
    let root = tempfile::tempdir().unwrap();
    SimulatedHost::prepare(root.path()).await.unwrap();
    let host = SimulatedHost::new(root.path()).with_start(Duration::ZERO);
    let faults = HostFaults { start_fails: true, free_space: Some(7), ..HostFaults::default() };
    SimulatedHost::set_faults(root.path(), &faults).await.unwrap();
    assert_eq!(host.free_space(root.path()).await.unwrap(), 7);
    assert!(host.restart_containerd().await.is_err());
    assert!(host.containerd().await.is_err());
    SimulatedHost::set_faults(root.path(), &HostFaults::default()).await.unwrap();
    host.restart_containerd().await.unwrap();
    assert!(host.containerd().await.is_ok());
    assert!(host.free_space(root.path()).await.unwrap() > 0);
}
