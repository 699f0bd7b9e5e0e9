//! Writing a shoot's route and taking it away.
//!
//! ```text
//!  GET Gateway kube-apiserver ─▶ GET ours ─▶ as it should be: done, nothing was written
//!                                   └─▶ POST or PUT, over the version that was read
//! ```

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use kube::api::{DynamicObject, PostParams};
use kube::{Api, Client};
use rootstock_core::name::ShootName;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::recent::Basis;
use super::route::{self, API_SERVER, Backend, Kind, NAME};
use super::withdraw::delete;
use super::write::{TRIES, WriteError};
use super::{Objects, ObjectsError};
use crate::api::{is_not_found, is_not_served};

/// The seed's Istio, through which agents come.
#[derive(Debug)]
pub(crate) struct Istio {
    backend: Backend,
    /// Whether it was said that there is none: the same is true for every shoot.
    missed: AtomicBool,
}

/// What is there under a name.
enum Found {
    Object(Box<DynamicObject>),
    Nothing,
    /// The seed has no such kind.
    NotServed,
}

impl Istio {
    /// Routes to this Service.
    pub(crate) fn new(backend: Backend) -> Self {
        Self { backend, missed: AtomicBool::new(false) }
    }

    /// Makes a shoot's route lead from this host to the controller. Nothing is
    /// written where it does so already. A seed without Istio is no failure:
    /// everything else works there, and agents may have another way.
    pub(super) async fn put(
        &self,
        client: &Client,
        shoot: &ShootName,
        host: &str,
    ) -> Result<(), WriteError> {
        let gateways = api(client, shoot, Kind::Gateway);
        let api_server = match find(&gateways, Kind::Gateway, API_SERVER).await? {
            Found::Object(gateway) => Some(gateway),
            Found::Nothing => None,
            Found::NotServed => {
                self.say_missing();
                return Ok(());
            }
        };
        let selector = route::selector(api_server.as_deref());
        // Neither needs the other.
        let puts = Kind::ALL.map(|kind| {
            let spec = kind.spec(host, &selector, &self.backend);
            async move { self.put_one(&api(client, shoot, kind), kind, &spec).await }
        });
        futures_util::future::try_join_all(puts).await?;
        Ok(())
    }

    async fn put_one(
        &self,
        api: &Api<DynamicObject>,
        kind: Kind,
        spec: &Value,
    ) -> Result<(), WriteError> {
        let mut tries = 1;
        loop {
            match self.try_put(api, kind, spec).await {
                Err(error) if error.is_race() && tries < TRIES => tries += 1,
                done => return done,
            }
        }
    }

    async fn try_put(
        &self,
        api: &Api<DynamicObject>,
        kind: Kind,
        spec: &Value,
    ) -> Result<(), WriteError> {
        let there = match find(api, kind, NAME).await? {
            Found::Object(there) => there,
            Found::Nothing => {
                let mut object = DynamicObject::new(NAME, &kind.resource());
                object.metadata.labels = Some(route::labels());
                object.data = json!({"spec": spec});
                api.create(&PostParams::default(), &object).await.map_err(at(kind, NAME))?;
                tracing::debug!(kind = kind.name(), "made a part of the agents' route");
                return Ok(());
            }
            Found::NotServed => {
                self.say_missing();
                return Ok(());
            }
        };
        if there.metadata.deletion_timestamp.is_some() {
            return Err(WriteError::Terminating { kind: kind.name(), name: NAME.to_owned() });
        }
        if let Some(object) = difference(*there, spec) {
            // As a whole: a patch would leave labels in a selector.
            let replaced = api.replace(NAME, &PostParams::default(), &object).await;
            replaced.map_err(|error| at(kind, NAME)(error).if_it_was_there())?;
            tracing::debug!(kind = kind.name(), "changed a part of the agents' route");
        }
        Ok(())
    }

    /// Takes a shoot's route away; one that is not there is fine.
    pub(super) async fn withdraw(
        &self,
        client: &Client,
        shoot: &ShootName,
    ) -> Result<(), WriteError> {
        for kind in Kind::ALL {
            delete(&api(client, shoot, kind), NAME, None).await.map_err(at(kind, NAME))?;
        }
        Ok(())
    }

    fn say_missing(&self) {
        if !self.missed.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "this seed has no Istio: agents need another way to the controller (--ingress none says so)"
            );
        }
    }
}

impl Objects {
    /// Makes a shoot's route, where there is something to make it with.
    pub(super) async fn put_route(
        &self,
        shoot: &ShootName,
        asked: Instant,
        basis: &Basis,
    ) -> Result<(), ObjectsError> {
        let (Some(ingress), Some(host)) = (&self.ingress, &basis.host) else { return Ok(()) };
        let recent = self.recent.of(shoot, NAME);
        let mut seen = recent.lock().await;
        if seen.is_since(asked, basis) {
            return Ok(());
        }
        let begun = Instant::now();
        ingress.put(&self.client, shoot, host).await.map_err(ObjectsError::Route)?;
        seen.note(begun, basis);
        Ok(())
    }

    /// Takes it away.
    pub(super) async fn withdraw_route(&self, shoot: &ShootName) -> Result<(), ObjectsError> {
        let Some(ingress) = &self.ingress else { return Ok(()) };
        ingress.withdraw(&self.client, shoot).await.map_err(ObjectsError::Route)
    }
}

fn api(client: &Client, shoot: &ShootName, kind: Kind) -> Api<DynamicObject> {
    Api::namespaced_with(client.clone(), shoot.as_str(), &kind.resource())
}

fn at(kind: Kind, name: &str) -> impl FnOnce(kube::Error) -> WriteError {
    move |source| WriteError::Api { kind: kind.name(), name: name.to_owned(), source }
}

async fn find(api: &Api<DynamicObject>, kind: Kind, name: &str) -> Result<Found, WriteError> {
    match api.get(name).await {
        Ok(object) => Ok(Found::Object(Box::new(object))),
        Err(error) if is_not_served(&error) => Ok(Found::NotServed),
        Err(error) if is_not_found(&error) => Ok(Found::Nothing),
        Err(error) => Err(at(kind, name)(error)),
    }
}

/// The object as it should be; none where it is so. What others wrote beside
/// the spec stays.
fn difference(mut there: DynamicObject, spec: &Value) -> Option<DynamicObject> {
    let labels = there.metadata.labels.get_or_insert_with(BTreeMap::new);
    let wanted = route::labels();
    let has_labels = wanted.iter().all(|(key, value)| labels.get(key) == Some(value));
    if has_labels && there.data["spec"] == *spec {
        return None;
    }
    labels.extend(wanted);
    there.data["spec"] = spec.clone();
    Some(there)
}
