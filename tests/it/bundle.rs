//! Bundles through the registry, by our client and by others'.

mod credential;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::StatusCode;
use rootstock_bundle::{Built, Client, ResolveError, Resolved, Tag, Version};
use rootstock_core::bundle::MAX_CONFIG_SIZE;
use rootstock_core::desired::{self, Credential};
use rootstock_core::digest::Digest;
use rootstock_core::name::Architecture::{self, Amd64, Arm64};
use rootstock_core::status::Reason;
use rootstock_playground::registry::{Fault, Registry, Target};
use rootstock_playground::samples::tiny::Tiny;
use rootstock_playground::samples::{self, Places};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

const REPOSITORY: &str = "rootstock/gvisor";

/// A registry, a client of it, and a folder for both.
struct World {
    dir: tempfile::TempDir,
    registry: Registry,
    client: Client,
}

impl World {
    async fn start() -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let dir = tempfile::tempdir().unwrap();
        let registry = Registry::start(&dir.path().join("registry")).await.unwrap();
        let client = Client::new(&registry.as_desired("main")).unwrap();
        Self { dir, registry, client }
    }

    fn work(&self) -> PathBuf {
        self.dir.path().join("work")
    }

    async fn tiny(&self) -> Built {
        Tiny::new("gvisor", "1").on(Amd64).build(&self.work()).await.unwrap()
    }

    async fn push(&self, platforms: &[Built]) -> rootstock_bundle::Pushed {
        let (repository, tag) = (REPOSITORY.parse().unwrap(), "1".parse().unwrap());
        self.client.push(&repository, &tag, platforms).await.unwrap()
    }

    async fn resolve(
        &self,
        version: &Version,
        architecture: Architecture,
    ) -> Result<Resolved, ResolveError> {
        self.client.resolve(&REPOSITORY.parse().unwrap(), version, architecture).await
    }

    /// Resolves the tag and expects it to fail.
    async fn refusal(&self) -> ResolveError {
        self.resolve(&tag("1"), Amd64).await.unwrap_err()
    }
}

fn tag(name: &str) -> Version {
    Version::Tag(name.parse::<Tag>().unwrap())
}

/// The message says which bundle of which registry, and the reason fits.
#[track_caller]
fn expect(world: &World, error: &ResolveError, reason: Reason, text: &str) {
    let message = error.to_string();
    assert_eq!(error.reason(), reason, "{message}");
    assert!(message.contains("main/rootstock/gvisor"), "{message}");
    assert!(message.contains(&world.registry.url()), "{message}");
    assert!(message.contains(text), "{message}");
}

#[tokio::test]
async fn what_is_pushed_is_resolved_for_each_platform() {
    let world = World::start().await;
    let amd = world.tiny().await;
    let arm = Tiny::new("gvisor", "1").on(Arm64).build(&world.work()).await.unwrap();
    let pushed = world.push(&[amd.clone(), arm.clone()]).await;
    assert_eq!(pushed.manifests, [(Some(Amd64), amd.digest()), (Some(Arm64), arm.digest())]);

    for version in [tag("1"), Version::Digest(pushed.digest)] {
        let resolved = world.resolve(&version, Arm64).await.unwrap();
        assert_eq!(resolved.digest, pushed.digest);
        assert_eq!(resolved.manifest, arm.digest());
        assert_eq!(resolved.config.json().as_bytes(), arm.config());
    }
    // A manifest without an index is a bundle too, for its own architecture.
    let bare = Version::Digest(amd.digest());
    let resolved = world.resolve(&bare, Amd64).await.unwrap();
    assert_eq!((resolved.digest, resolved.manifest), (amd.digest(), amd.digest()));
    let error = world.resolve(&bare, Arm64).await.unwrap_err();
    expect(&world, &error, Reason::ArchitectureMismatch, "nothing for arm64, only for linux/amd64");
}

#[tokio::test]
async fn a_bundle_for_every_architecture_is_found_for_each() {
    let world = World::start().await;
    let any = Tiny { architecture: None, ..Tiny::new("gvisor", "1") };
    let built = any.build(&world.work()).await.unwrap();
    world.push(std::slice::from_ref(&built)).await;
    for architecture in [Amd64, Arm64] {
        let resolved = world.resolve(&tag("1"), architecture).await.unwrap();
        assert_eq!(resolved.manifest, built.digest());
    }
}

#[tokio::test]
async fn a_second_push_uploads_nothing() {
    let world = World::start().await;
    let built = world.tiny().await;
    let first = world.push(std::slice::from_ref(&built)).await;
    assert_eq!(first.uploaded, built.blobs().len() + 1);
    let uploads = world.registry.uploads();

    let second = world.push(std::slice::from_ref(&built)).await;
    assert_eq!((second.uploaded, second.uploaded_bytes), (0, 0));
    assert_eq!(second.digest, first.digest);
    assert_eq!(world.registry.uploads(), uploads);
}

#[tokio::test]
async fn a_registry_keeps_what_it_has_over_a_restart() {
    let world = World::start().await;
    let pushed = world.push(&[world.tiny().await]).await;
    let again = Registry::start(&world.dir.path().join("registry")).await.unwrap();
    let client = Client::new(&again.as_desired("main")).unwrap();
    let resolved = client.resolve(&REPOSITORY.parse().unwrap(), &tag("1"), Amd64).await.unwrap();
    assert_eq!(resolved.digest, pushed.digest);
}

#[tokio::test]
async fn the_same_files_make_the_same_bundle() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let sample = Tiny::new("gvisor", "1").sample(one.path()).await.unwrap();
    let mut source = sample.source();
    let a = rootstock_bundle::build(source.clone(), &one.path().join("blobs")).await.unwrap();
    source.files.reverse();
    let b = rootstock_bundle::build(source, &two.path().join("other")).await.unwrap();
    assert_eq!(a.digest(), b.digest());
    assert_eq!(a.config(), b.config());
    for (blob, file) in a.blobs().iter().zip(&sample.files) {
        let compressed = std::fs::read(&blob.at).unwrap();
        assert_eq!(Digest::of(&compressed), blob.digest);
        let plain = zstd::decode_all(compressed.as_slice()).unwrap();
        assert_eq!(Digest::of(&plain), file.sha256, "{}", file.path);
    }
}

#[tokio::test]
async fn what_the_registry_lacks_is_named() {
    let world = World::start().await;
    expect(&world, &world.refusal().await, Reason::BundleNotFound, "does not have");
    let pushed = world.push(&[world.tiny().await]).await;
    let other = world.resolve(&Version::Digest(Digest::of(b"other")), Amd64).await.unwrap_err();
    expect(&world, &other, Reason::BundleNotFound, "@sha256:");
    // The tag is there, what it stands for is not.
    world.registry.remove_blob(&pushed.manifests[0].1).await.unwrap();
    expect(&world, &world.refusal().await, Reason::BundleNotFound, "manifest sha256:");
    world.registry.remove_tag(REPOSITORY, "1").await.unwrap();
    expect(&world, &world.refusal().await, Reason::BundleNotFound, ":1");
}

#[tokio::test]
async fn a_registry_that_is_down_comes_back() {
    let world = World::start().await;
    let pushed = world.push(&[world.tiny().await]).await;
    world.registry.go_down().await;
    expect(&world, &world.refusal().await, Reason::RegistryUnreachable, "does not answer");
    world.registry.come_up().await.unwrap();
    assert_eq!(world.resolve(&tag("1"), Amd64).await.unwrap().digest, pushed.digest);
}

#[tokio::test]
async fn errors_of_the_registry_have_their_reasons() {
    let world = World::start().await;
    world.push(&[world.tiny().await]).await;
    for (status, reason) in [
        (StatusCode::INTERNAL_SERVER_ERROR, Reason::RegistryUnreachable),
        (StatusCode::TOO_MANY_REQUESTS, Reason::RegistryUnreachable),
        (StatusCode::UNAUTHORIZED, Reason::RegistryUnauthorized),
        (StatusCode::FORBIDDEN, Reason::RegistryUnauthorized),
        (StatusCode::NOT_FOUND, Reason::BundleNotFound),
    ] {
        for target in [Target::Everything, Target::Manifests, Target::Blobs] {
            world.registry.faults().set(target, Fault::Status(status));
            expect(&world, &world.refusal().await, reason, "");
            world.registry.faults().clear_all();
        }
    }
    let cut = Fault::Truncate { after: 10 };
    for target in [Target::Manifests, Target::Blobs] {
        world.registry.faults().set_times(target, cut, 1);
        expect(&world, &world.refusal().await, Reason::RegistryUnreachable, "");
        world.resolve(&tag("1"), Amd64).await.unwrap();
    }
}

#[tokio::test]
async fn other_bytes_than_the_digest_says_are_refused() {
    let world = World::start().await;
    let built = world.tiny().await;
    let pushed = world.push(std::slice::from_ref(&built)).await;
    for digest in [pushed.digest, built.digest(), Digest::of(built.config())] {
        for version in [tag("1"), Version::Digest(pushed.digest)] {
            world.registry.faults().set(Target::Digest(digest), Fault::Corrupt);
            let error = world.resolve(&version, Amd64).await.unwrap_err();
            expect(&world, &error, Reason::DigestMismatch, "other bytes");
            world.registry.faults().clear_all();
        }
    }
}

#[tokio::test]
async fn more_bytes_than_declared_are_refused() {
    let world = World::start().await;
    let built = world.tiny().await;
    world.push(std::slice::from_ref(&built)).await;
    let faults = world.registry.faults();
    faults.set(Target::Blobs, Fault::Oversize { extra: 1 });
    expect(&world, &world.refusal().await, Reason::SizeExceeded, "config blob");
    faults.clear_all();
    // No index is larger than that, and no more of it is read.
    faults.set(Target::Manifests, Fault::Oversize { extra: 1 << 40 });
    expect(&world, &world.refusal().await, Reason::SizeExceeded, "4194304 bytes");
}

#[tokio::test]
async fn an_oversized_config_blob_is_not_even_fetched() {
    let world = World::start().await;
    let tiny = Tiny::new("gvisor", "1").on(Amd64);
    let built = tiny
        .hostile(&world.work(), |config| config["padding"] = json!("x".repeat(MAX_CONFIG_SIZE)))
        .await
        .unwrap();
    world.push(&[built]).await;
    let served = world.registry.served_bytes();
    expect(&world, &world.refusal().await, Reason::SizeExceeded, "262144 bytes");
    assert_eq!(world.registry.served_bytes(), served);
}

#[tokio::test]
async fn a_bundle_for_another_architecture_says_for_which() {
    let world = World::start().await;
    let arm = Tiny::new("gvisor", "1").on(Arm64).build(&world.work()).await.unwrap();
    world.push(&[arm]).await;
    let error = world.refusal().await;
    expect(&world, &error, Reason::ArchitectureMismatch, "nothing for amd64, only for linux/arm64");
}

#[tokio::test]
async fn a_hostile_config_blob_is_refused() {
    let world = World::start().await;
    let table = [
        ("/files/0/path", json!("/etc/passwd"), Reason::PathRefused, "absolute"),
        ("/files/0/path", json!("../../etc/passwd"), Reason::PathRefused, "'..'"),
        ("/files/0/path", json!("share"), Reason::PathRefused, "leads through share"),
        ("/handlers/0/name", json!("runc"), Reason::BundleInvalid, "belongs to the node"),
        ("/files/0/blob", json!(Digest::of(b"x")), Reason::BundleInvalid, "not among its layers"),
        ("/files/0/blobSize", json!(1), Reason::BundleInvalid, "its layer"),
        ("/files/0/mode", json!("4755"), Reason::BundleInvalid, "mode"),
        ("/version", json!(1), Reason::BundleInvalid, "can't be read"),
    ];
    for (at, wrong, reason, text) in table {
        let tiny = Tiny::new("gvisor", "1").on(Amd64);
        let hostile = tiny
            .hostile(&world.work(), |config| *config.pointer_mut(at).unwrap() = wrong)
            .await
            .unwrap();
        world.push(&[hostile]).await;
        expect(&world, &world.refusal().await, reason, text);
    }
}

#[tokio::test]
async fn a_stalled_answer_goes_on_when_the_fault_is_gone() {
    let world = World::start().await;
    let pushed = world.push(&[world.tiny().await]).await;
    world.registry.faults().set(Target::Blobs, Fault::Stall { after: 10 });
    let version = tag("1");
    let resolve = world.resolve(&version, Amd64);
    let release = async {
        wait_until(|| world.registry.served_bytes() == 10).await;
        world.registry.faults().clear_all();
    };
    let (resolved, ()) = tokio::join!(resolve, release);
    assert_eq!(resolved.unwrap().digest, pushed.digest);
}

#[tokio::test]
async fn a_login_is_used_where_the_registry_wants_one() {
    let world = World::start().await;
    world.registry.require_login(Some(("reader", "secret")));
    expect(&world, &world.refusal().await, Reason::RegistryUnauthorized, "credential");
    let login = |secret: &str| {
        let username = "reader".to_owned();
        let credential = Some(Credential { username, secret: secret.to_owned() });
        let registry = desired::Registry { credential, ..world.registry.as_desired("main") };
        Client::new(&registry).unwrap()
    };
    let (repository, name) = (REPOSITORY.parse().unwrap(), "1".parse().unwrap());
    let built = [world.tiny().await];
    let error = login("wrong").push(&repository, &name, &built).await.unwrap_err();
    assert_eq!(error.reason(), Reason::RegistryUnauthorized, "{error}");
    let client = login("secret");
    let pushed = client.push(&repository, &name, &built).await.unwrap();
    let resolved = client.resolve(&repository, &tag("1"), Amd64).await.unwrap();
    assert_eq!(resolved.digest, pushed.digest);
}

#[tokio::test]
async fn a_registry_of_a_private_authority_is_trusted_by_its_ca_bundle() {
    let world = World::start().await;
    let (authority, config) = authority();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut front = JoinSet::new();
    front.spawn(tls_front(listener, config, world.registry.address()));
    let client = |ca_bundle: &str| {
        let (url, ca_bundle) = (format!("https://localhost:{port}"), ca_bundle.to_owned());
        let main = world.registry.as_desired("main");
        Client::new(&desired::Registry { url, ca_bundle, ..main }).unwrap()
    };
    let (repository, name) = (REPOSITORY.parse().unwrap(), "1".parse().unwrap());
    let built = [world.tiny().await];
    let trusting = client(&authority);
    let pushed = trusting.push(&repository, &name, &built).await.unwrap();
    let resolved = trusting.resolve(&repository, &tag("1"), Amd64).await.unwrap();
    assert_eq!(resolved.digest, pushed.digest);

    let (other, _) = self::authority();
    let error = client(&other).resolve(&repository, &tag("1"), Amd64).await.unwrap_err();
    assert_eq!(error.reason(), Reason::RegistryUnreachable, "{error}");
}

/// An authority as PEM, and a server for `localhost` that it vouches for.
pub(super) fn authority() -> (String, Arc<rustls::ServerConfig>) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let root = params.self_signed(&key).unwrap();
    let issuer = rcgen::Issuer::new(params, key);
    let key = rcgen::KeyPair::generate().unwrap();
    let leaf = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let leaf = leaf.signed_by(&key, &issuer).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], key)
        .unwrap();
    (root.pem(), Arc::new(config))
}

/// Ends TLS in front of a plain server.
pub(super) async fn tls_front(
    listener: TcpListener,
    config: Arc<rustls::ServerConfig>,
    to: SocketAddr,
) {
    let acceptor = tokio_rustls::TlsAcceptor::from(config);
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let acceptor = acceptor.clone();
        connections.spawn(async move {
            // A client that doesn't trust us hangs up.
            let Ok(mut tls) = acceptor.accept(stream).await else { return };
            let mut plain = TcpStream::connect(to).await.unwrap();
            let _ = tokio::io::copy_bidirectional(&mut tls, &mut plain).await;
        });
    }
}

#[tokio::test]
async fn what_leaves_the_registry_keeps_to_its_rate() {
    let world = World::start().await;
    let built = world.tiny().await;
    world.push(std::slice::from_ref(&built)).await;
    let size = built.config().len() as u64;
    // Five config blobs a second: the second one waits until the first is paid for.
    world.registry.limit(Some(size * 5));
    let begin = Instant::now();
    for _ in 0..2 {
        world.resolve(&tag("1"), Amd64).await.unwrap();
    }
    assert!(begin.elapsed() > Duration::from_millis(200), "{:?}", begin.elapsed());
}

/// 113 MB are compressed and hashed.
#[tokio::test]
#[ignore = "needs the real runsc, and several seconds"]
async fn the_real_gvisor_goes_through() {
    let world = World::start().await;
    let places = Places::of_environment(None);
    let sample = samples::gvisor(&places, &world.work()).await.unwrap();
    assert!(sample.is_real, "{}", sample.origin);
    let built = sample.build(&world.work().join("blobs")).await.unwrap();
    world.push(&[built]).await;
    let resolved = world.resolve(&tag("1"), Amd64).await.unwrap();
    assert_eq!(resolved.config.config().version, sample.version);
    assert_eq!(resolved.config.config().plain_bytes(), sample.size());
}

/// Waits until something holds; panics after ten seconds.
async fn wait_until(holds: impl Fn() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), wait).await.expect("it never came to hold");
}

/// A client that knows nothing of Rootstock.
#[tokio::test]
async fn oras_pulls_a_bundle() {
    let Some(oras) = tool("oras") else {
        eprintln!("skipped: no oras in PATH, $ROOTSTOCK_PARTS/bin or $KUBEBUILDER_ASSETS");
        return;
    };
    let world = World::start().await;
    let sample = Tiny::new("gvisor", "1").on(Amd64).sample(&world.work()).await.unwrap();
    let built = sample.build(&world.work().join("blobs")).await.unwrap();
    world.push(&[built]).await;
    let host = world.registry.address();
    let out = world.dir.path().join("out");

    let reference = format!("{host}/{REPOSITORY}:1");
    let index = run(&oras, &["manifest", "fetch", "--plain-http", &reference]).await;
    assert!(index.contains(rootstock_bundle::media::BUNDLE), "{index}");
    let out_text = out.to_str().unwrap();
    let platform = ["--platform", "linux/amd64"];
    let pull = ["pull", "--plain-http", "-o", out_text, platform[0], platform[1], &reference];
    run(&oras, &pull).await;
    for file in &sample.files {
        let compressed = std::fs::read(out.join(file.path.as_str())).unwrap();
        let plain = zstd::decode_all(compressed.as_slice()).unwrap();
        assert_eq!(plain, std::fs::read(&file.from).unwrap(), "{}", file.path);
    }
}

fn tool(name: &str) -> Option<PathBuf> {
    let parts = std::env::var_os("ROOTSTOCK_PARTS").map(|parts| Path::new(&parts).join("bin"));
    let assets = std::env::var_os("KUBEBUILDER_ASSETS").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::split_paths(&path).collect::<Vec<_>>();
    let all = parts.into_iter().chain(assets).chain(path);
    all.map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// Runs a program to its end, away from the runtime's threads.
async fn run(program: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new(program);
    command.args(arguments);
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
