//! Two images of nothing but busybox: for pod sandboxes, and for a container in one.

use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use anyhow::Context as _;
use rootstock_core::digest::Digest;
use serde_json::{Value, json};

use crate::cache::run;

/// The image of pod sandboxes.
pub(crate) const PAUSE: &str = "lab.local/pause:1";
/// The image of containers.
pub(crate) const TEST: &str = "lab.local/test:1";

/// Writes both into an archive that `ctr images import` takes.
pub(crate) fn build(to: &Path) -> anyhow::Result<()> {
    let work = tempfile::tempdir()?;
    let root = work.path().join("root");
    for folder in ["bin", "tmp", "proc", "dev", "sys", "etc"] {
        std::fs::create_dir_all(root.join(folder))?;
    }
    std::fs::copy("/bin/busybox", root.join("bin/busybox")).context("busybox-static")?;
    for name in ["sh", "sleep", "uname", "cat", "dmesg"] {
        symlink("busybox", root.join("bin").join(name))?;
    }
    let layer = work.path().join("layer.tar");
    run(Command::new("tar").arg("-C").arg(&root).arg("-cf").arg(&layer).arg("."))?;
    let oci = work.path().join("oci");
    std::fs::create_dir_all(oci.join("blobs/sha256"))?;
    let layer = blob(&oci, &std::fs::read(layer)?)?;
    let mut manifests = Vec::new();
    for name in [PAUSE, TEST] {
        let config = json!({
            "architecture": "amd64", "os": "linux", "author": name,
            "config": {"Entrypoint": ["/bin/sleep", "1000000"], "Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
        });
        let config = described(&oci, &config, "application/vnd.oci.image.config.v1+json")?;
        let mut layer = layer.clone();
        layer["mediaType"] = json!("application/vnd.oci.image.layer.v1.tar");
        let manifest = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config, "layers": [layer],
        });
        let media_type = "application/vnd.oci.image.manifest.v1+json";
        let mut manifest = described(&oci, &manifest, media_type)?;
        manifest["annotations"] = json!({"io.containerd.image.name": name});
        manifests.push(manifest);
    }
    write(&oci.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    let index = json!({"schemaVersion": 2, "manifests": manifests});
    write(&oci.join("index.json"), index.to_string().as_bytes())?;
    run(Command::new("tar").arg("-C").arg(&oci).arg("-cf").arg(to).arg("."))
}

fn described(oci: &Path, value: &Value, media_type: &str) -> anyhow::Result<Value> {
    let mut descriptor = blob(oci, value.to_string().as_bytes())?;
    descriptor["mediaType"] = json!(media_type);
    Ok(descriptor)
}

fn blob(oci: &Path, bytes: &[u8]) -> anyhow::Result<Value> {
    let digest = Digest::of(bytes);
    write(&oci.join("blobs/sha256").join(digest.hex()), bytes)?;
    Ok(json!({"digest": digest.to_string(), "size": bytes.len()}))
}

/// Writes a file of the lab's own.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let file = std::fs::File::create(path);
    let written = file.and_then(|mut file| file.write_all(bytes));
    written.with_context(|| path.display().to_string())
}
