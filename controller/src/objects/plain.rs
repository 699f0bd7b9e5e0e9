//! The objects in a plain cluster: the same as in a shoot, applied by the
//! controller itself.
//!
//! Nobody labels nodes there as Gardener's worker pools are labelled, so the
//! mark that the controller sets on them decides where the agent and its pods
//! go; and the controller has a role already.

use std::fmt::Debug;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{ConfigMap, ServiceAccount};
use k8s_openapi::api::node::v1::RuntimeClass;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, Client, ResourceExt as _};
use rootstock_core::assign::{AGENT_LABEL, RUNTIME_LABEL_PREFIX};
use rootstock_core::catalog::Catalog;
use rootstock_core::name::{RuntimeType, ShootName};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::agent::{self, AGENT, NAMESPACE};
use super::{Gone, Objects, ObjectsError, classes};
use crate::api::{Cluster, is_transient};
use crate::shoot::secrets::authority;

/// Whose fields they are.
pub(crate) const MANAGER: &str = "rootstock-controller";
/// The type that a RuntimeClass belongs to.
const TYPE_LABEL: &str = "rootstock.gardener.cloud/type";

/// An object that is not as it should be.
#[derive(Debug, thiserror::Error)]
#[error("the API refused {kind} {name}")]
pub(crate) struct PlainError {
    kind: String,
    name: String,
    #[source]
    source: kube::Error,
}

impl PlainError {
    /// Whether it passes by itself.
    pub(super) fn is_transient(&self) -> bool {
        is_transient(&self.source)
    }
}

/// Applies and removes objects.
#[derive(Clone)]
pub(crate) struct Plain(Client);

impl Debug for Plain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Plain")
    }
}

impl Objects {
    /// What [`Objects::put`] does, in a plain cluster.
    pub(super) async fn put_plain(
        &self,
        plain: &Plain,
        shoot: &ShootName,
        cluster: &Cluster,
        runtime: &RuntimeType,
    ) -> Result<(), ObjectsError> {
        let catalog = std::sync::Arc::clone(&self.catalog.borrow());
        let entry = catalog.runtime(runtime);
        let said = entry.map_or(&[][..], |entry| entry.runtime_classes.as_slice());
        plain.put_classes(runtime, classes::render(runtime, said)).await?;
        self.put_agent_plain(plain, shoot, cluster, &catalog).await
    }

    /// The agent's part of it, with the authorities that it trusts.
    pub(super) async fn put_agent_plain(
        &self,
        plain: &Plain,
        shoot: &ShootName,
        cluster: &Cluster,
        catalog: &Catalog,
    ) -> Result<(), ObjectsError> {
        let wish = self.wish(cluster);
        let authorities = authority::keep(&self.client, shoot, wish, Timestamp::now()).await?;
        let host = cluster.endpoint_host(shoot, self.agent.domain.as_deref());
        let endpoint = host.map(|host| agent::endpoint_url(&host, self.agent.port));
        let types = catalog.runtimes.iter().map(|entry| entry.runtime.clone()).collect();
        let objects = agent::render(&self.agent, &types, endpoint.as_deref(), &authorities);
        Ok(plain.put_agent(objects).await?)
    }
}

impl Plain {
    pub(crate) fn new(client: Client) -> Self {
        Self(client)
    }

    /// Applies the RuntimeClasses of a type. Those that are there and are not
    /// named any more stay as long as the type does.
    pub(super) async fn put_classes(
        &self,
        runtime: &RuntimeType,
        classes: Vec<Value>,
    ) -> Result<(), PlainError> {
        let api: Api<RuntimeClass> = Api::all(self.0.clone());
        for class in classes {
            let class = marked(class, runtime);
            match apply(&api, &class).await {
                // A handler can't be changed in place.
                Err(error) if is_invalid(&error.source) => {
                    delete(&api, &name(&class)).await?;
                    apply(&api, &class).await?;
                }
                done => done?,
            }
        }
        Ok(())
    }

    /// Applies the agent's objects.
    pub(super) async fn put_agent(&self, objects: Vec<Value>) -> Result<(), PlainError> {
        for object in objects {
            match object["kind"].as_str() {
                Some("ServiceAccount") => {
                    apply(&Api::<ServiceAccount>::namespaced(self.0.clone(), NAMESPACE), &object)
                        .await?;
                }
                Some("ConfigMap") => {
                    apply(&Api::<ConfigMap>::namespaced(self.0.clone(), NAMESPACE), &object)
                        .await?;
                }
                Some("DaemonSet") => {
                    let api: Api<DaemonSet> = Api::namespaced(self.0.clone(), NAMESPACE);
                    apply(&api, &where_marked(object)).await?;
                }
                // The role and its binding, which the controller has.
                Some(_) | None => {}
            }
        }
        Ok(())
    }

    /// Removes a type's RuntimeClasses.
    pub(super) async fn withdraw_classes(&self, runtime: &RuntimeType) -> Result<Gone, PlainError> {
        let api: Api<RuntimeClass> = Api::all(self.0.clone());
        let ours = ListParams::default().labels(&format!("{TYPE_LABEL}={runtime}"));
        let classes = api.list_metadata(&ours).await;
        for class in classes.map_err(at("RuntimeClasses of", runtime.as_str()))? {
            delete(&api, &class.name_any()).await?;
        }
        Ok(Gone::Yes)
    }

    /// Removes the agent.
    pub(super) async fn withdraw_agent(&self) -> Result<Gone, PlainError> {
        delete(&Api::<DaemonSet>::namespaced(self.0.clone(), NAMESPACE), AGENT).await?;
        delete(&Api::<ConfigMap>::namespaced(self.0.clone(), NAMESPACE), AGENT).await?;
        delete(&Api::<ServiceAccount>::namespaced(self.0.clone(), NAMESPACE), AGENT).await?;
        Ok(Gone::Yes)
    }
}

/// A RuntimeClass that is known by its type, and whose pods go to nodes that
/// the controller has marked.
fn marked(mut class: Value, runtime: &RuntimeType) -> Value {
    class["metadata"]["labels"][TYPE_LABEL] = json!(runtime);
    let selector = class.pointer_mut("/scheduling/nodeSelector").and_then(Value::as_object_mut);
    if let Some(selector) = selector
        && selector.remove(&format!("{RUNTIME_LABEL_PREFIX}{runtime}")).is_some()
    {
        selector.insert(AGENT_LABEL.to_owned(), json!("true"));
    }
    class
}

/// A DaemonSet on the nodes that the controller has marked, which resolves the
/// names of Services: the endpoint is one where no domain is given.
fn where_marked(mut daemon_set: Value) -> Value {
    let pod = &mut daemon_set["spec"]["template"]["spec"];
    let is_marked = json!({"key": AGENT_LABEL, "operator": "In", "values": ["true"]});
    pod["affinity"] = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
        "nodeSelectorTerms": [{"matchExpressions": [is_marked]}],
    }}});
    pod["dnsPolicy"] = json!("ClusterFirstWithHostNet");
    daemon_set
}

async fn apply<K>(api: &Api<K>, object: &Value) -> Result<(), PlainError>
where
    K: Clone + DeserializeOwned + Debug,
{
    let name = name(object);
    let params = PatchParams::apply(MANAGER).force();
    let kind = object["kind"].as_str().unwrap_or_default();
    api.patch(&name, &params, &Patch::Apply(object)).await.map_err(at(kind, &name))?;
    Ok(())
}

async fn delete<K>(api: &Api<K>, name: &str) -> Result<(), PlainError>
where
    K: Clone + DeserializeOwned + Debug + kube::Resource<DynamicType = ()>,
{
    match api.delete(name, &DeleteParams::background()).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(at(&K::kind(&()), name)(error)),
    }
}

fn name(object: &Value) -> String {
    object["metadata"]["name"].as_str().unwrap_or_default().to_owned()
}

fn is_invalid(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 422)
}

fn at(kind: &str, name: &str) -> impl FnOnce(kube::Error) -> PlainError {
    let (kind, name) = (kind.to_owned(), name.to_owned());
    move |source| PlainError { kind, name, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_controllers_mark_decides_where_pods_go() {
        let gvisor: RuntimeType = "gvisor".parse().unwrap();
        let label = format!("{RUNTIME_LABEL_PREFIX}gvisor");
        let class =
            json!({"metadata": {"labels": {}}, "scheduling": {"nodeSelector": {label: "true"}}});
        let made = marked(class, &gvisor);
        assert_eq!(made["scheduling"]["nodeSelector"], json!({AGENT_LABEL: "true"}));
        assert_eq!(made["metadata"]["labels"], json!({TYPE_LABEL: "gvisor"}));
        // What the catalog says itself is left alone.
        let own = json!({"metadata": {"labels": {}}, "scheduling": {"nodeSelector": {"a": "b"}}});
        assert_eq!(marked(own, &gvisor)["scheduling"]["nodeSelector"], json!({"a": "b"}));
        let made = where_marked(json!({"spec": {"template": {"spec": {"hostNetwork": true}}}}));
        assert!(!made.to_string().contains("worker.gardener.cloud"), "{made}");
    }
}
