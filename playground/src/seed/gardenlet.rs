//! gardenlet: what it writes into the seed for one shoot.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::api::DynamicObject;
use serde_json::{Value, json};

use super::landscape::{POOL_LABELS, Pool, Shoot};
use super::objects::{Access, ensure, typed};

/// The Secret with the kubeconfig that all components of a shoot share; its
/// token is a file that each has to bring itself.
pub const GENERIC_KUBECONFIG: &str = "generic-token-kubeconfig";
/// The domain below which a seed serves its shoots' endpoints.
pub const INGRESS_DOMAIN: &str = "seed.localhost";

/// gardenlet, for one shoot.
#[derive(Clone, Debug)]
pub struct Gardenlet {
    /// The seed's API.
    pub seed: Access,
    /// What the shoot's owner asked for.
    pub shoot: Arc<Shoot>,
    /// The address of the shoot's API.
    pub server: String,
    /// The CA of the shoot's API, PEM in base64.
    pub certificate_authority: String,
    /// The version of the shoot's API.
    pub kubernetes_version: String,
}

impl Gardenlet {
    /// One reconciliation of the shoot, as far as container runtimes need it.
    ///
    /// Like the real one this is a flow that runs when the shoot changes, and
    /// not a watch: what somebody else changes in between stays.
    ///
    /// # Errors
    /// What the seed's API says.
    pub async fn reconcile(&self) -> kube::Result<()> {
        let namespaces = self.seed.all::<Namespace>();
        ensure(&namespaces, &typed(self.namespace())?).await?;
        let secrets = self.seed.within::<Secret>(&self.shoot.technical_id);
        ensure(&secrets, &typed(self.generic_kubeconfig())?).await?;
        ensure(&self.seed.clusters(), &typed(self.cluster())?).await?;
        let resources = self.seed.container_runtimes(Some(&self.shoot.technical_id));
        for pool in &self.shoot.pools {
            for runtime in &pool.runtimes {
                ensure(&resources, &self.container_runtime(pool, runtime)?).await?;
            }
        }
        Ok(())
    }

    fn namespace(&self) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {
                "name": self.shoot.technical_id,
                "labels": {"gardener.cloud/role": "shoot"},
            },
        })
    }

    fn generic_kubeconfig(&self) -> Value {
        let name = &self.shoot.technical_id;
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": name,
            "clusters": [{"name": name, "cluster": {
                "server": self.server, "certificate-authority-data": self.certificate_authority,
            }}],
            "users": [{"name": name, "user": {
                "tokenFile": "/var/run/secrets/gardener.cloud/shoot/generic-kubeconfig/token",
            }}],
            "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        });
        json!({
            "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
            "metadata": {"name": GENERIC_KUBECONFIG, "namespace": name},
            "data": {"kubeconfig": super::encode(kubeconfig.to_string().as_bytes())},
        })
    }

    fn cluster(&self) -> Value {
        let (project, name) = self.shoot.project_and_name();
        let workers = self.shoot.pools.iter().map(|pool| {
            let runtimes: Vec<_> = pool.runtimes.iter().map(|r| json!({"type": r})).collect();
            let architecture = pool.nodes.first().map_or("amd64", |node| &node.architecture);
            json!({
                "name": pool.name,
                "cri": {"name": "containerd", "containerRuntimes": runtimes},
                "machine": {"type": "playground", "architecture": architecture},
                "minimum": pool.nodes.len(), "maximum": pool.nodes.len(),
            })
        });
        json!({
            "apiVersion": "extensions.gardener.cloud/v1alpha1", "kind": "Cluster",
            "metadata": {
                "name": self.shoot.technical_id,
                "annotations": {
                    "generic-token-kubeconfig.secret.gardener.cloud/name": GENERIC_KUBECONFIG,
                },
            },
            "spec": {
                "cloudProfile": {
                    "apiVersion": "core.gardener.cloud/v1beta1", "kind": "CloudProfile",
                    "metadata": {"name": "playground"},
                },
                "seed": {
                    "apiVersion": "core.gardener.cloud/v1beta1", "kind": "Seed",
                    "metadata": {"name": "seed"},
                    "spec": {"ingress": {"domain": INGRESS_DOMAIN}, "provider": {"zones": ["local"]}},
                },
                "shoot": {
                    "apiVersion": "core.gardener.cloud/v1beta1", "kind": "Shoot",
                    "metadata": {"name": name, "namespace": format!("garden-{project}")},
                    "spec": {
                        "kubernetes": {"version": self.kubernetes_version},
                        "hibernation": {"enabled": false},
                        "provider": {"type": "playground", "workers": workers.collect::<Vec<_>>()},
                    },
                    "status": {
                        "technicalID": self.shoot.technical_id,
                        "isHibernated": false,
                        "lastOperation": {"type": "Create", "state": "Processing", "progress": 50},
                    },
                },
            },
        })
    }

    fn container_runtime(&self, pool: &Pool, runtime: &str) -> kube::Result<DynamicObject> {
        let labels: serde_json::Map<_, _> =
            POOL_LABELS.iter().map(|label| ((*label).to_owned(), json!(pool.name))).collect();
        typed(json!({
            "apiVersion": "extensions.gardener.cloud/v1alpha1", "kind": "ContainerRuntime",
            "metadata": {
                "name": format!("{runtime}-{}", pool.name),
                "namespace": self.shoot.technical_id,
                "annotations": {
                    "gardener.cloud/operation": "reconcile",
                    // RFC 3339 with nanoseconds, in UTC.
                    "gardener.cloud/timestamp": format!("{:.9}", Timestamp::now()),
                },
            },
            "spec": {
                "type": runtime,
                "binaryPath": pool.binary_path,
                "workerPool": {"name": pool.name, "selector": {"matchLabels": labels}},
            },
        }))
    }
}
