//! Gardener's resource manager of one shoot: keeps the objects of every
//! ManagedResource there, as the controller wrote them.
//!
//! ```text
//!  ManagedResource ─▶ its Secrets ─▶ objects
//!      take away what left, wait until it is gone ─▶ apply ─▶ status
//!      deleted: take all away (unless keepObjects) ─▶ finalizer off
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt as _;
use kube::api::{Patch, PatchParams};
use kube::runtime::watcher;
use rootstock_controller::api::ManagedResource;
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::follow::Follow;
use super::objects::Access;
use super::retry::Retry;
use super::shoot_objects::{Reference, ShootObjects};

/// The name of the agent's DaemonSet, ServiceAccount and ConfigMap.
pub const AGENT: &str = "rootstock-agent";
/// The namespace of the same.
pub const NAMESPACE: &str = "kube-system";

/// While it is on a ManagedResource, its objects may be in the shoot.
const FINALIZER: &str = "resources.gardener.cloud/gardener-resource-manager";
const MANAGED_BY: &str = "resources.gardener.cloud/managed-by";
const ORIGIN: &str = "resources.gardener.cloud/origin";
/// How often everything is applied again, whoever changed it in the shoot.
const RESYNC: Duration = Duration::from_secs(60);

/// The resource manager of one shoot.
#[derive(Debug)]
pub struct ResourceManager {
    seed: Access,
    namespace: String,
    shoot: ShootObjects,
    resources: Follow<ManagedResource>,
    secrets: Follow<Secret>,
    /// What was applied last, by ManagedResource: the same is not applied again.
    applied: BTreeMap<String, Vec<Value>>,
    resync: Instant,
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("ask an API: {0}")]
    Api(#[from] kube::Error),
    #[error("Secret {0} is not there")]
    NoSecret(String),
    #[error("Secret {name} can't be read: {why}")]
    Unreadable { name: String, why: String },
    #[error("{0} is still being deleted")]
    Pending(String),
}

impl Error {
    /// How the condition calls it.
    fn reason(&self) -> &'static str {
        match self {
            Self::Api(_) => "ApplyFailed",
            Self::NoSecret(_) => "CannotReadSecret",
            Self::Unreadable { .. } => "DecodingFailed",
            Self::Pending(_) => "DeletionPending",
        }
    }
}

impl ResourceManager {
    /// Keeps in `shoot` what the ManagedResources in `namespace` of the seed say.
    pub fn new(seed: Access, namespace: &str, shoot: Access) -> Self {
        let all = watcher::Config::default();
        Self {
            resources: Follow::new(seed.within(namespace), all.clone()),
            secrets: Follow::new(seed.within(namespace), all),
            seed,
            namespace: namespace.to_owned(),
            shoot: ShootObjects::new(shoot),
            applied: BTreeMap::new(),
            resync: Instant::now() + RESYNC,
        }
    }

    /// Runs until shut down.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut retry = Retry::new("resource manager");
        loop {
            // A followed set keeps what it has received; the others are timers and flags.
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.resources.changed() => {}
                () = self.secrets.changed() => {}
                () = retry.due() => {}
            }
            if !self.resources.synced() || !self.secrets.synced() {
                continue;
            }
            if self.resync <= Instant::now() {
                self.applied.clear();
                self.resync = Instant::now() + RESYNC;
            }
            retry.after(self.reconcile().await);
            retry.again_in(self.resync.saturating_duration_since(Instant::now()));
        }
    }

    async fn reconcile(&mut self) -> Result<(), Error> {
        // Those of other classes are other resource managers'.
        let ours = |resource: &&ManagedResource| {
            resource.spec.class.as_deref().unwrap_or_default().is_empty()
        };
        let resources: Vec<_> = self.resources.objects().filter(ours).cloned().collect();
        let mut failed = None;
        for resource in resources {
            // One that can't be applied does not hold up the others.
            if let Err(error) = self.reconcile_one(&resource).await {
                failed = Some(error);
            }
        }
        failed.map_or(Ok(()), Err)
    }

    async fn reconcile_one(&mut self, resource: &ManagedResource) -> Result<(), Error> {
        let had = references(resource);
        if resource.metadata.deletion_timestamp.is_some() {
            self.applied.remove(&resource.name_any());
            return self.delete(resource, &had).await;
        }
        if !resource.finalizers().iter().any(|finalizer| finalizer == FINALIZER) {
            let finalizers = [resource.finalizers(), &[FINALIZER.to_owned()]].concat();
            self.set_finalizers(resource, &finalizers).await?;
        }
        match self.apply(resource, &had).await {
            Ok(has) => self.report(resource, &has, None).await,
            Err(error) => {
                self.report(resource, &had, Some(&error)).await?;
                Err(error)
            }
        }
    }

    /// Takes away what left, and only then applies what is there.
    async fn apply(
        &mut self,
        resource: &ManagedResource,
        had: &BTreeSet<Reference>,
    ) -> Result<BTreeSet<Reference>, Error> {
        let objects = self.objects(resource)?;
        let has: BTreeSet<_> = objects.iter().map(Reference::of).collect();
        self.prune(had.difference(&has)).await?;
        let name = resource.name_any();
        if self.applied.get(&name) != Some(&objects) {
            for object in &objects {
                self.shoot.apply(object).await?;
            }
            self.applied.insert(name, objects);
        }
        Ok(has)
    }

    async fn delete(
        &mut self,
        resource: &ManagedResource,
        had: &BTreeSet<Reference>,
    ) -> Result<(), Error> {
        if resource.spec.keep_objects != Some(true)
            && let Err(error) = self.prune(had.iter()).await
        {
            self.report(resource, had, Some(&error)).await?;
            return Err(error);
        }
        let held = resource.finalizers().iter();
        let others: Vec<_> = held.filter(|finalizer| *finalizer != FINALIZER).cloned().collect();
        if others.len() < resource.finalizers().len() {
            self.set_finalizers(resource, &others).await?;
        }
        Ok(())
    }

    async fn prune(&mut self, gone: impl Iterator<Item = &Reference>) -> Result<(), Error> {
        let mut pending = None;
        for reference in gone {
            if !self.shoot.delete(reference).await? {
                pending = Some(reference.to_string());
            }
        }
        pending.map_or(Ok(()), |what| Err(Error::Pending(what)))
    }

    /// The objects in its Secrets, marked as the resource manager's.
    fn objects(&self, resource: &ManagedResource) -> Result<Vec<Value>, Error> {
        let mut objects = Vec::new();
        for reference in &resource.spec.secret_refs {
            let name = &reference.name;
            let secret = self.secrets.named(name).ok_or_else(|| Error::NoSecret(name.clone()))?;
            for value in secret.data.iter().flat_map(|data| data.values()) {
                let unreadable = |why: String| Error::Unreadable { name: name.clone(), why };
                let text = std::str::from_utf8(&value.0).map_err(|e| unreadable(e.to_string()))?;
                let documents = serde_saphyr::from_multiple::<Value>(text);
                objects.extend(documents.map_err(|e| unreadable(e.to_string()))?);
            }
        }
        let origin = format!("seed:{}/{}", self.namespace, resource.name_any());
        for object in &mut objects {
            for (key, value) in resource.spec.inject_labels.iter().flatten() {
                object["metadata"]["labels"][key] = json!(value);
            }
            object["metadata"]["labels"][MANAGED_BY] = json!("gardener");
            object["metadata"]["annotations"][ORIGIN] = json!(origin);
        }
        Ok(objects)
    }

    async fn set_finalizers(
        &self,
        resource: &ManagedResource,
        finalizers: &[String],
    ) -> kube::Result<()> {
        let patch = json!({"metadata": {"finalizers": finalizers}});
        let api = self.seed.within::<ManagedResource>(&self.namespace);
        api.patch(&resource.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await?;
        Ok(())
    }

    /// Writes what is in the shoot, and whether that is all that should be.
    async fn report(
        &self,
        resource: &ManagedResource,
        has: &BTreeSet<Reference>,
        error: Option<&Error>,
    ) -> Result<(), Error> {
        let (status, reason) =
            error.map_or(("True", "ApplySucceeded"), |error| ("False", error.reason()));
        let message =
            error.map_or_else(|| "All resources are applied.".to_owned(), ToString::to_string);
        let known = resource.status.as_ref();
        let conditions = known.map(|status| status.conditions.as_slice()).unwrap_or_default();
        let said = conditions.iter().any(|condition| {
            condition["status"] == status
                && condition["reason"] == reason
                && condition["message"] == message
        });
        let generation = resource.metadata.generation;
        let same = known.is_some_and(|status| status.observed_generation == generation);
        if said && same && references(resource) == *has {
            return Ok(());
        }
        let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let condition = json!({
            "type": "ResourcesApplied", "status": status, "reason": reason, "message": message,
            "lastTransitionTime": now, "lastUpdateTime": now,
        });
        let resources: Vec<_> = has.iter().map(Reference::to_value).collect();
        let patch = json!({"status": {
            "conditions": [condition], "observedGeneration": generation, "resources": resources,
        }});
        let api = self.seed.within::<ManagedResource>(&self.namespace);
        let (name, patch) = (resource.name_any(), Patch::Merge(patch));
        api.patch_status(&name, &PatchParams::default(), &patch).await?;
        Ok(())
    }
}

/// What its status says that is in the shoot.
fn references(resource: &ManagedResource) -> BTreeSet<Reference> {
    let known = resource.status.iter().flat_map(|status| &status.resources);
    known.map(Reference::read).collect()
}
