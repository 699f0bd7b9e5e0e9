//! Writing and reading objects as simply as the actors need it.

use std::fmt::{self, Debug};

use k8s_openapi::{ClusterResourceScope, NamespaceResourceScope};

use kube::api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource, ResourceExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// A client of one Kubernetes API.
#[derive(Clone)]
pub struct Access(Client);

impl Access {
    /// Access through `client`.
    pub fn new(client: Client) -> Self {
        Self(client)
    }

    /// The client itself.
    pub fn client(&self) -> Client {
        self.0.clone()
    }

    /// The objects of a kind without namespaces.
    pub fn all<K>(&self) -> Api<K>
    where
        K: Resource<Scope = ClusterResourceScope, DynamicType = ()>,
    {
        Api::all(self.client())
    }

    /// The objects of a kind in one namespace.
    pub fn within<K>(&self, namespace: &str) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client(), namespace)
    }

    /// The ContainerRuntimes of a shoot, or of all.
    pub fn container_runtimes(&self, namespace: Option<&str>) -> Api<DynamicObject> {
        let kind = extension("ContainerRuntime", "containerruntimes");
        match namespace {
            Some(namespace) => Api::namespaced_with(self.client(), namespace, &kind),
            None => Api::all_with(self.client(), &kind),
        }
    }

    /// The Clusters of a seed.
    pub fn clusters(&self) -> Api<DynamicObject> {
        Api::all_with(self.client(), &extension("Cluster", "clusters"))
    }
}

impl Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access").finish_non_exhaustive()
    }
}

/// Creates the object, or merges it into the one that is there.
///
/// # Errors
/// What the API says.
pub async fn ensure<K>(api: &Api<K>, object: &K) -> kube::Result<K>
where
    K: Resource + Clone + Serialize + DeserializeOwned + Debug,
{
    match api.create(&PostParams::default(), object).await {
        Err(error) if is_conflict(&error) => {
            api.patch(&object.name_any(), &PatchParams::default(), &Patch::Merge(object)).await
        }
        done => done,
    }
}

/// An object of a built-in kind from its JSON.
///
/// # Errors
/// The JSON is not of that kind.
pub fn typed<K: DeserializeOwned>(json: Value) -> kube::Result<K> {
    serde_json::from_value(json).map_err(kube::Error::SerdeError)
}

/// Whether the object was there before, or has changed since it was read.
pub fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}

/// Whether the object is not there.
pub fn is_not_found(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

fn extension(kind: &str, plural: &str) -> ApiResource {
    let kind = GroupVersionKind::gvk("extensions.gardener.cloud", "v1alpha1", kind);
    ApiResource::from_gvk_with_plural(&kind, plural)
}
