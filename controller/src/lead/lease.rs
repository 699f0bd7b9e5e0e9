//! The requests about the Lease.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use rootstock_core::election::{Record, Write};
use serde_json::{Value, json};

use crate::api::{is_conflict, is_not_found};

/// One Lease.
pub(super) struct LeaseApi {
    api: Api<Lease>,
    name: &'static str,
    /// How long it says that it lasts.
    duration: Duration,
}

/// What became of a write.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// It made this version.
    Done(String),
    /// The Lease is another one than was read.
    Refused,
}

impl LeaseApi {
    pub(super) fn new(
        client: Client,
        namespace: &str,
        name: &'static str,
        duration: Duration,
    ) -> Self {
        Self { api: Api::namespaced(client, namespace), name, duration }
    }

    /// The Lease, where there is one.
    pub(super) async fn read(&self) -> Result<Option<Record>, kube::Error> {
        let there = self.api.get_opt(self.name).await?;
        Ok(there.filter(|lease| lease.metadata.deletion_timestamp.is_none()).map(record))
    }

    /// Writes it over the version that was read, and over no other.
    pub(super) async fn write(&self, write: &Write) -> Result<Written, kube::Error> {
        let spec = self.spec(write);
        let written = match &write.over {
            // What others keep there stays.
            Some(version) => {
                let metadata = json!({"resourceVersion": version});
                let patch = Patch::Merge(json!({"metadata": metadata, "spec": spec}));
                self.api.patch(self.name, &PatchParams::default(), &patch).await
            }
            None => {
                let lease = json!({"metadata": {"name": self.name}, "spec": spec});
                let lease = serde_json::from_value(lease).map_err(kube::Error::SerdeError)?;
                self.api.create(&PostParams::default(), &lease).await
            }
        };
        match written {
            Ok(lease) => Ok(Written::Done(lease.resource_version().unwrap_or_default())),
            Err(error) if is_conflict(&error) => Ok(Written::Refused),
            // It was deleted; where it is to be created, its namespace is not there.
            Err(error) if is_not_found(&error) && write.over.is_some() => Ok(Written::Refused),
            Err(error) => Err(error),
        }
    }

    fn spec(&self, write: &Write) -> Value {
        let now = MicroTime(Timestamp::now());
        let holder = Some(&write.holder).filter(|holder| !holder.is_empty());
        let mut spec = json!({
            // The API takes no empty name: null is nobody.
            "holderIdentity": holder,
            "leaseDurationSeconds": self.duration.as_secs().max(1),
            "leaseTransitions": write.transitions,
            "renewTime": now,
        });
        if write.begins {
            spec["acquireTime"] = json!(now);
        }
        spec
    }
}

fn record(lease: Lease) -> Record {
    let version = lease.resource_version().unwrap_or_default();
    let spec = lease.spec.unwrap_or_default();
    let seconds = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
    Record {
        version,
        holder: spec.holder_identity.unwrap_or_default(),
        transitions: spec.lease_transitions.and_then(|n| u64::try_from(n).ok()).unwrap_or_default(),
        duration: Duration::from_secs(seconds.unwrap_or_default()),
    }
}
