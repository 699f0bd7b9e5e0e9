//! Against a real containerd, where the machine has one (`$ROOTSTOCK_PARTS/bin`)
//! and lets it run: that it takes our edits, and tells them back.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::json;

use super::*;
use crate::containerd::edit;

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn binary() -> Option<PathBuf> {
    let parts = std::env::var_os("ROOTSTOCK_PARTS")?;
    let binary = Path::new(&parts).join("bin/containerd");
    // It keeps its state with mounts, which only root may make.
    (binary.exists() && rustix::process::geteuid().is_root()).then_some(binary)
}

fn table() -> HandlerTable {
    HandlerTable {
        runtime_type: "io.containerd.runsc.v1".to_owned(),
        runtime_path: "/var/bin/c/.rootstock/gvisor/0/containerd-shim-runsc-v1".to_owned(),
        options:
            json!({"TypeUrl": "io.containerd.runsc.v1.options", "ConfigPath": "/x/runsc.toml"})
                .as_object()
                .unwrap()
                .clone(),
        pod_annotations: vec!["dev.gvisor.*".to_owned()],
        privileged_without_host_devices: true,
    }
}

#[tokio::test]
async fn containerd_starts_with_our_tables_and_tells_them_back() {
    let Some(binary) = binary() else { return };
    let name: HandlerName = "runsc".parse().unwrap();
    for version in [2, 3] {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name).display().to_string();
        let socket = at("containerd.sock");
        let text = format!(
            "version = {version}\nroot = {:?}\nstate = {:?}\n\n[grpc]\naddress = {socket:?}\n\
             [ttrpc]\naddress = {:?}\n",
            at("root"),
            at("state"),
            at("ttrpc.sock"),
        );
        let edited = edit(&text, &[(name.clone(), table())].into(), &BTreeSet::new()).unwrap();
        let config = tempfile::NamedTempFile::new_in(dir.path()).unwrap();
        std::io::Write::write_all(&mut config.as_file(), edited.as_bytes()).unwrap();
        let child = Command::new(&binary)
            .arg("--config")
            .arg(config.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let _running = Running(child.unwrap());
        let cri = Cri::new(socket.into());
        let asked = async {
            loop {
                match cri.handlers().await {
                    Ok(handlers) if !handlers.is_empty() => break handlers,
                    // It is not up yet.
                    Ok(_) | Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                }
            }
        };
        let handlers = tokio::time::timeout(Duration::from_secs(60), asked).await.unwrap();
        assert_eq!(handlers.get(&name), Some(&Some(table())), "version {version}");
        assert!(handlers.keys().any(|handler| handler.as_str() == "runc"), "{handlers:?}");
        assert!(!cri.version().await.unwrap().is_empty());
        assert_eq!(cri.sandboxes().await.unwrap(), []);
    }
}
