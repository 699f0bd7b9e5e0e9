//! The registry that everything comes from, and what is counted of it.

use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use rootstock_bundle::Client;
use rootstock_core::desired::Registry as Desired;
use rootstock_playground::registry::{Counts, Gauge, Registry};
use rootstock_playground::samples::tiny::Tiny;
use serde_json::json;

use crate::windows::Watch;
use crate::{BUDGETS, PULLS};

/// Debian's name of the reference implementation of the OCI distribution spec.
const PROGRAM: &str = "docker-registry";

/// A registry behind a gauge.
pub(crate) struct Source {
    /// As one would push to it.
    near: Desired,
    /// As nodes see it: through the gauge.
    pub(crate) far: Desired,
    counts: Arc<Counts>,
    /// Kept for their end alone; one of them is there.
    _registry: (Option<Process>, Option<Registry>),
}

/// A child that is killed when this is dropped.
struct Process(Child);

impl Source {
    /// `ip` is where nodes reach it.
    pub(crate) async fn start(dir: &Path, ip: Ipv4Addr) -> Self {
        std::fs::create_dir_all(dir).unwrap();
        let (registry, address, ca) = match real(dir, ip) {
            Some((process, address, ca)) => ((Some(process), None), address, ca),
            None => {
                eprintln!("no {PROGRAM} here: the playground's registry, without TLS");
                let registry = Registry::start(dir).await.unwrap();
                let address = registry.address();
                ((None, Some(registry)), address, String::new())
            }
        };
        let scheme = if ca.is_empty() { "http" } else { "https" };
        let desired = |address: SocketAddr| Desired {
            name: "main".to_owned(),
            url: format!("{scheme}://{address}"),
            mirrors: Vec::new(),
            ca_bundle: ca.clone(),
            credential: None,
        };
        let (gauge, counts) = gauge(ip, address);
        Self { near: desired(address), far: desired(gauge), counts, _registry: registry }
    }

    /// Pushes a bundle with so much data in it, and writes the configuration
    /// that wants it, with the budgets.
    pub(crate) async fn offer(&self, version: &str, data: usize, work: &Path, catalog: &Path) {
        let built = Tiny::new("gvisor", version).with_data(data).build(work).await.unwrap();
        let client = Client::new(&self.near).unwrap();
        let (name, tag) = ("rootstock/gvisor".parse().unwrap(), version.parse().unwrap());
        let pushed = client.push(&name, &tag, &[built]).await.unwrap();
        let text = json!({
            "registries": [{"name": "main", "url": self.far.url, "caBundle": self.far.ca_bundle}],
            "budgets": {"seed": BUDGETS, "concurrentPulls": PULLS},
            "runtimes": [{
                "type": "gvisor",
                "bundle": format!("main/rootstock/gvisor@{}", pushed.digest),
                "runtimeClasses": [{"name": "gvisor", "handler": "gvisor"}],
            }],
        });
        std::fs::write(catalog, format!("{text:#}\n")).unwrap();
    }

    /// Looks at the gauge from here on.
    pub(crate) fn watch(&self) -> Watch {
        Watch::start(Arc::clone(&self.counts))
    }
}

/// A gauge with a thread of its own: the agents' own work must not slow it.
fn gauge(ip: Ipv4Addr, registry: SocketAddr) -> (SocketAddr, Arc<Counts>) {
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let gauge = Gauge::start_at(ip, registry).await.unwrap();
            tell.send((gauge.address, gauge.counts())).unwrap();
            std::future::pending::<()>().await;
        });
    });
    told.recv().unwrap()
}

/// The real registry where it is installed, with TLS; its address and its CA.
fn real(dir: &Path, ip: Ipv4Addr) -> Option<(Process, SocketAddr, String)> {
    let key = rcgen::KeyPair::generate().unwrap();
    let params =
        rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned(), ip.to_string()]).unwrap();
    let ca = params.self_signed(&key).unwrap().pem();
    let [config, data, certificate, private] =
        ["config.yml", "data", "registry.crt", "registry.key"].map(|name| dir.join(name));
    std::fs::write(&certificate, &ca).unwrap();
    std::fs::write(&private, key.serialize_pem()).unwrap();
    let text = json!({
        "version": "0.1",
        "log": {"level": "info"},
        "http": {"addr": "127.0.0.1:0", "tls": {"certificate": certificate, "key": private}},
        "storage": {"filesystem": {"rootdirectory": data}},
    });
    std::fs::write(&config, text.to_string()).unwrap();
    let mut child = Command::new(PROGRAM)
        .arg("serve")
        .arg(&config)
        // REGISTRY_* would go before what is in the file.
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .ok()?;
    let log = child.stderr.take().unwrap();
    let process = Process(child);
    let (tell, told) = mpsc::channel();
    // It reads to the end: a pipe that nobody reads would hold the registry up.
    std::thread::spawn(move || {
        let lines = BufReader::new(log).lines().map_while(Result::ok);
        // Nobody listens any more once the address is known.
        lines.for_each(|line| drop(tell.send(line)));
    });
    let mut said = Vec::new();
    while let Ok(line) = told.recv_timeout(Duration::from_secs(20)) {
        let address = line.split("listening on ").nth(1);
        let address = address.and_then(|at| at.split([',', '"', ' ']).next());
        if let Some(address) = address.and_then(|address| address.parse().ok()) {
            return Some((process, address, ca));
        }
        said.push(line);
    }
    panic!("it does not listen: {}", said.join("\n"));
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
