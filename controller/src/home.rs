//! Where the controller is at home: in a Gardener seed, or in a plain cluster
//! that is its own and only shoot.
//!
//! What differs between the two is asked here, and nowhere else:
//!
//! | | seed | plain cluster |
//! |---|---|---|
//! | ContainerRuntimes | all namespaces | the controller's own namespace |
//! | shoot | the namespace | `local` |
//! | Cluster | Gardener's | made here |
//! | the shoot's API | kubeconfig and token from Secrets | the controller's own |
//! | what asks for a runtime on a node | the worker pool's labels | the resource's selector |
//! | objects | ManagedResources | applied |

mod definition;

use k8s_openapi::NamespaceResourceScope;
use kube::{Api, Client, Resource, ResourceExt as _};
use rootstock_core::assign::AskedBy;
use rootstock_core::name::ShootName;
use serde_json::json;

use crate::api::{Cluster, ClusterSpec, ContainerRuntime};
use crate::args::{Args, ClusterKind};
use crate::index::RuntimeKey;

pub(crate) use definition::bring;

/// The name of a plain cluster as a shoot.
const LOCAL: &str = "local";
/// How the names of shoots' namespaces begin, and no others.
const SHOOTS: &str = "shoot-";

/// Where the controller is at home.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Home {
    /// In a Gardener seed.
    #[default]
    Seed,
    /// In a plain cluster, with ContainerRuntimes in this namespace.
    Plain {
        /// The controller's own namespace.
        namespace: String,
    },
}

/// Flags that don't go together.
#[derive(Debug, thiserror::Error)]
#[error(
    "--namespace {0:?} begins as the namespace of a shoot does: choose another for --cluster local"
)]
pub(crate) struct HomeError(String);

impl Home {
    pub(crate) fn new(args: &Args) -> Result<Self, HomeError> {
        match args.cluster {
            ClusterKind::Seed => Ok(Self::Seed),
            ClusterKind::Local if args.namespace.starts_with(SHOOTS) => {
                Err(HomeError(args.namespace.clone()))
            }
            ClusterKind::Local => Ok(Self::Plain { namespace: args.namespace.clone() }),
        }
    }

    /// The ContainerRuntimes that are looked at.
    pub(crate) fn resources(&self, client: &Client) -> Api<ContainerRuntime> {
        match self {
            Self::Seed => Api::all(client.clone()),
            Self::Plain { namespace } => Api::namespaced(client.clone(), namespace),
        }
    }

    /// The key of a ContainerRuntime. `None` where its namespace can't be that
    /// of a shoot.
    ///
    /// In a seed any namespace may be one, as for Gardener's own controllers: what
    /// makes it one is the Cluster of the same name.
    pub(crate) fn key(&self, object: &ContainerRuntime) -> Option<RuntimeKey> {
        let shoot = match self {
            Self::Seed => object.namespace()?.parse().ok()?,
            Self::Plain { .. } => LOCAL.parse().ok()?,
        };
        Some(RuntimeKey { shoot, name: object.name_any() })
    }

    /// The one Cluster, where Gardener has none: a shoot that never sleeps, and
    /// whose endpoint is `rs-local.<namespace>.svc`, a Service.
    pub(crate) fn cluster(&self) -> Option<Cluster> {
        let Self::Plain { namespace } = self else { return None };
        let seed = json!({"spec": {"ingress": {"domain": format!("{namespace}.svc")}}});
        let spec = ClusterSpec { seed: Some(seed), ..ClusterSpec::default() };
        Some(Cluster::new(LOCAL, spec))
    }

    /// What asks for a runtime on a node.
    pub(crate) fn asked_by(&self) -> AskedBy {
        match self {
            Self::Seed => AskedBy::Labels,
            Self::Plain { .. } => AskedBy::Selector,
        }
    }
}

/// Objects beside a shoot's ContainerRuntimes. A plain cluster's client has the
/// controller's namespace as its own.
pub(crate) fn beside<K>(client: &Client, shoot: &ShootName) -> Api<K>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
{
    match shoot.as_str() {
        LOCAL => Api::default_namespaced(client.clone()),
        namespace => Api::namespaced(client.clone(), namespace),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(namespace: &str) -> ContainerRuntime {
        let object = json!({
            "apiVersion": "extensions.gardener.cloud/v1alpha1", "kind": "ContainerRuntime",
            "metadata": {"name": "x", "namespace": namespace},
            "spec": {"type": "gvisor", "binaryPath": "/", "workerPool": {"name": "", "selector": {}}},
        });
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn each_home_has_its_own_resources() {
        let plain = Home::Plain { namespace: "rootstock".to_owned() };
        let shoot_of = |home: &Home, namespace| {
            home.key(&resource(namespace)).map(|key| key.shoot.to_string()).unwrap_or_default()
        };
        for namespace in ["shoot--garden--one", "garden"] {
            assert_eq!(shoot_of(&Home::Seed, namespace), namespace);
        }
        assert_eq!(shoot_of(&plain, "rootstock"), "local");
        let cluster = plain.cluster().unwrap();
        let name = LOCAL.parse().unwrap();
        assert_eq!(cluster.endpoint_host(&name, None).unwrap(), "rs-local.rootstock.svc");
        assert_eq!(cluster.endpoint_host(&name, Some("a.test")).unwrap(), "rs-local.a.test");
        assert!(!cluster.is_hibernated() && !cluster.is_failed() && !cluster.is_deleting());
        assert!(Home::Seed.cluster().is_none());
    }
}
