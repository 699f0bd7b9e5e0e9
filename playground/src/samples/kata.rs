//! Kata Containers: a sample tree of the real one's shape.

use std::path::Path;

use rootstock_core::bundle::FileMode;
use serde_json::json;

use super::{Chosen, SAMPLE_VERSION, Sample, SampleError, noise, script, this_machine, write};

const SHIM: &str = "containerd-shim-kata-v2";
const CONFIG: &str = "configuration.toml";
const KERNEL: &str = "share/kata/vmlinux.container";
const IMAGE: &str = "share/kata/kata.img";
/// A tenth of the real sizes, and as little to compress.
const KERNEL_SIZE: usize = 3 << 20;
const IMAGE_SIZE: usize = 2 << 20;

/// Kata for this machine's architecture, written into `work`. It is never
/// real: no machine has its parts in one known place.
pub async fn kata(work: &Path) -> Result<Sample, SampleError> {
    let folder = work.join("kata");
    let parts = [
        (SHIM, FileMode::PROGRAM, script(SHIM).into_bytes()),
        (KERNEL, FileMode::DATA, noise(1, KERNEL_SIZE)),
        (IMAGE, FileMode::DATA, noise(2, IMAGE_SIZE)),
    ];
    let mut chosen = Vec::new();
    for (path, mode, bytes) in parts {
        let from = folder.join(path);
        write(&from, &bytes).await?;
        chosen.push(Chosen { path: path.to_owned(), from, mode });
    }
    // A real one needs /dev/kvm and vhost_vsock; a sample needs nothing.
    let description = json!({
        "type": "kata",
        "version": SAMPLE_VERSION,
        "architecture": this_machine()?,
        "minContainerd": "1.7.0",
        "files": [],
        "entryPoints": [SHIM],
        "handlers": [{
            "name": "kata",
            "runtimeType": "io.containerd.kata.v2",
            "shim": SHIM,
            "podAnnotations": ["io.katacontainers.*"],
            "privilegedWithoutHostDevices": true,
            "config": CONFIG,
        }],
        "configs": [{
            "name": CONFIG,
            "format": "toml",
            "template": {
                "hypervisor": {"qemu": {
                    "kernel": format!("{{bundle}}/{KERNEL}"),
                    "image": format!("{{bundle}}/{IMAGE}"),
                    "default_vcpus": 1,
                    "default_memory": 256,
                }},
                "agent": {"kata": {}},
                "runtime": {"internetworking_model": "tcfilter"},
            },
        }],
        "settings": [
            {
                "name": "default_vcpus", "kind": "int", "min": 1, "max": 240, "config": CONFIG,
                "key": "hypervisor.qemu.default_vcpus",
            },
            {
                "name": "default_memory", "kind": "int", "min": 128, "max": 1 << 20,
                "config": CONFIG, "key": "hypervisor.qemu.default_memory",
            },
            {
                "name": "internetworking_model", "kind": "string", "config": CONFIG,
                "allowed": ["tcfilter", "macvtap", "none"],
                "key": "runtime.internetworking_model",
            },
            {
                "name": "enable_debug", "kind": "bool", "config": CONFIG, "omitFalse": true,
                "key": "runtime.enable_debug",
                "also": {"hypervisor.qemu.enable_debug": true, "agent.kata.enable_debug": true},
            },
        ],
    });
    let origin = "a sample tree".to_owned();
    Sample::of(description, chosen, false, origin).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_sample_is_the_same_every_time() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (a, b) = (kata(one.path()).await.unwrap(), kata(two.path()).await.unwrap());
        let digests = |sample: &Sample| -> Vec<_> {
            sample.files.iter().map(|file| (file.path.clone(), file.sha256)).collect()
        };
        assert_eq!(digests(&a), digests(&b));
        assert_eq!(a.files.len(), 3);
        let built = a.build(&one.path().join("blobs")).await.unwrap();
        assert_eq!(built.digest(), b.build(&two.path().join("blobs")).await.unwrap().digest());
    }
}
