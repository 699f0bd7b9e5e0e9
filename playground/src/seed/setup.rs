//! The parts of a world that are there before anything runs in it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Namespace;
use serde_json::json;

use super::catalog;
use super::landscape::Shoot;
use super::objects::{Access, ensure, typed};
use super::processes::LEASH;
use super::world::{ApiKind, CONTROLLER, Options, WorldError};
use crate::kube::{Cluster, Options as ClusterOptions, RealControlPlane, StartError};

/// The namespace that the controller's chart would be installed in.
const HOME: &str = "extension-rootstock";

/// The seed, and each shoot with its API.
type Clusters = (Cluster, Vec<(Arc<Shoot>, Cluster)>);

/// Starts all APIs, side by side.
pub(super) async fn start_clusters(options: &Options) -> Result<Clusters, WorldError> {
    let plane = match &options.api {
        ApiKind::Embedded => None,
        ApiKind::Real(assets) => {
            Some(RealControlPlane::start(assets, &options.dir.join("etcd")).await?)
        }
    };
    let definitions = catalog::definitions()?;
    let start = async |name: &str, crds| {
        let options =
            ClusterOptions { name: name.to_owned(), dir: options.dir.join("kubeconfigs"), crds };
        match &plane {
            Some(plane) => Cluster::real(plane, options).await,
            None => Cluster::embedded(options).await,
        }
    };
    let shoots = options.shoots.iter().map(async |shoot| {
        let cluster = start(&shoot.technical_id, Vec::new()).await?;
        Ok::<_, StartError>((Arc::new(shoot.clone()), cluster))
    });
    let shoots = futures_util::future::try_join_all(shoots);
    let (seed, shoots) = tokio::try_join!(start("seed", definitions), shoots)?;
    make_home(&seed).await.map_err(|source| {
        let shoot = "the seed".to_owned();
        WorldError::Gardener { shoot, source: Box::new(source) }
    })?;
    Ok((seed, shoots))
}

/// The controller's own namespace, where its Leases are.
async fn make_home(seed: &Cluster) -> kube::Result<()> {
    let namespace = typed(json!({"metadata": {"name": HOME}}))?;
    ensure(&Access::new(seed.client()).all::<Namespace>(), &namespace).await.map(drop)
}

/// The command line of the controller.
pub(super) fn controller_arguments(
    catalog: &Path,
    seed: &Cluster,
    listen: SocketAddr,
    admin: SocketAddr,
    options: &Options,
) -> Vec<String> {
    [
        ("--config", catalog.display().to_string()),
        ("--kubeconfig", seed.kubeconfig_path().display().to_string()),
        ("--listen", listen.to_string()),
        ("--endpoint-port", listen.port().to_string()),
        ("--admin-listen", admin.to_string()),
        // One that is started again follows itself at once.
        ("--identity", CONTROLLER.to_owned()),
        // Every type: also one that the catalog lacks is answered.
        ("--types", "*".to_owned()),
        ("--log-level", options.log_level.clone()),
    ]
    .into_iter()
    .fold(vec![CONTROLLER.to_owned(), LEASH.to_owned()], |mut all, (flag, value)| {
        all.extend([flag.to_owned(), value]);
        all
    })
}

/// Ports that were free a moment ago. The controller has to come back on the same ones,
/// so they can't be left to the system each time.
pub(super) fn free_ports<const N: usize>() -> io::Result<[SocketAddr; N]> {
    let mut listeners = Vec::with_capacity(N);
    let mut addresses = [SocketAddr::from((Ipv4Addr::LOCALHOST, 0)); N];
    for address in &mut addresses {
        let listener = TcpListener::bind(*address)?;
        *address = listener.local_addr()?;
        // All stay bound until the last is found, so that they differ.
        listeners.push(listener);
    }
    Ok(addresses)
}
