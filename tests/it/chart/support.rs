//! Helm, and the chart's files.

use std::path::PathBuf;
use std::process::{Command, Output};

use rootstock_playground::kube::RealControlPlane;
use serde_json::{Value, json};

/// The namespace of every rendered release.
pub(super) const NAMESPACE: &str = "extension-runtime-rootstock";

/// Values that a plain cluster needs.
pub(super) const LOCAL: &[&str] = &["--set", "cluster=local"];

/// A file or folder below `charts`.
pub(super) fn path(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../charts")).join(name)
}

/// A file below `charts` as text.
pub(super) fn text(name: &str) -> String {
    std::fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// All documents of a YAML text, without empty ones.
pub(super) fn documents(yaml: &str) -> Vec<Value> {
    let all: Vec<Value> = serde_saphyr::from_multiple(yaml).unwrap();
    all.into_iter().filter(|document| !document.is_null()).collect()
}

/// The manifests of `charts/registration`, by name.
pub(super) fn registrations() -> Vec<(&'static str, Vec<Value>)> {
    ["extension.yaml", "controller-registration.yaml"]
        .map(|name| (name, documents(&text(&format!("registration/{name}")))))
        .into()
}

/// The values that a registration hands to the chart.
pub(super) fn registered_values(documents: &[Value]) -> &Value {
    let extension = documents[0].pointer("/spec/deployment/extension/values");
    extension.or_else(|| documents[0].pointer("/helm/values")).unwrap()
}

/// The `helm` of this machine.
pub(super) struct Helm(PathBuf);

impl Helm {
    /// The one beside the real server, else the one in PATH.
    pub(super) fn find() -> Option<Self> {
        let beside = RealControlPlane::assets().map(|assets| assets.join("helm"));
        let program = beside.filter(|path| path.exists()).unwrap_or_else(|| "helm".into());
        match Command::new(&program).arg("version").output() {
            Ok(_) => Some(Self(program)),
            Err(_) => {
                eprintln!("skipped: there is no helm in PATH");
                None
            }
        }
    }

    pub(super) fn run(&self, args: &[&str]) -> Output {
        Command::new(&self.0).args(args).output().unwrap()
    }

    /// The objects that the chart renders with these flags of `helm template`.
    pub(super) fn template(&self, values: &[&str]) -> Result<Vec<Value>, String> {
        let chart = path("rootstock");
        let fixed = ["template", "rootstock", chart.to_str().unwrap(), "--namespace", NAMESPACE];
        let output = self.run(&[&fixed, values].concat());
        let text = |bytes| String::from_utf8(bytes).unwrap();
        if output.status.success() {
            Ok(documents(&text(output.stdout)))
        } else {
            Err(text(output.stderr))
        }
    }

    /// The same with values as a file.
    pub(super) fn template_file(&self, values: &Value) -> Result<Vec<Value>, String> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("values.yaml");
        std::fs::write(&file, values.to_string()).unwrap();
        self.template(&["--values", file.to_str().unwrap()])
    }
}

/// Values as gardenlet hands them over: a registration's, and its own knowledge.
pub(super) fn seed_values() -> Value {
    let mut values = registered_values(&registrations()[0].1).clone();
    values["gardener"] = json!({
        "version": "v1.140.0",
        "garden": {"clusterIdentity": "garden", "genericKubeconfigSecretName": "kubeconfig-1"},
        "seed": {"name": "one", "ingressDomain": "ingress.example", "spec": {"backup": null}},
        "gardenlet": {"featureGates": {}},
    });
    values
}

/// The object of this kind; there is exactly one.
pub(super) fn the<'a>(objects: &'a [Value], kind: &str) -> &'a Value {
    let found: Vec<_> = objects.iter().filter(|object| object["kind"] == kind).collect();
    assert_eq!(found.len(), 1, "{kind} in {objects:#?}");
    found[0]
}

/// The arguments of the rendered controller.
pub(super) fn args(objects: &[Value]) -> Vec<String> {
    let container = &the(objects, "Deployment")["spec"]["template"]["spec"]["containers"][0];
    serde_json::from_value(container["args"].clone()).unwrap()
}
