//! What was seen to be as it should be, and when.
//!
//! Gardener asks for all resources of a shoot at one time, and most of what
//! they need is the same: whoever comes second waits for the first and finds
//! that it was looked at after he was asked. Whatever he would have read could
//! have been read in that moment as well.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use rootstock_core::catalog::Catalog;
use rootstock_core::name::ShootName;
use tokio::time::Instant;

use crate::identity::rotation::Rotation;

/// What was written, by shoot and by the name of the ManagedResource.
#[derive(Debug, Default)]
pub(crate) struct Recent(Mutex<BTreeMap<ShootName, Parts>>);

type Parts = BTreeMap<String, Arc<tokio::sync::Mutex<Seen>>>;

/// When it was seen to be as it should be, if it was.
#[derive(Debug, Default)]
pub(super) struct Seen(Option<(Instant, Basis)>);

/// What the objects were made of, but what stays as long as the process.
#[derive(Clone, Debug)]
pub(super) struct Basis {
    pub(super) catalog: Arc<Catalog>,
    /// The endpoint's host.
    pub(super) host: Option<String>,
    /// Where Gardener is with the shoot's authorities.
    pub(super) rotation: Rotation,
}

impl Recent {
    /// What was seen of a shoot's ManagedResource. Whoever writes it holds its lock.
    pub(super) fn of(&self, shoot: &ShootName, name: &str) -> Arc<tokio::sync::Mutex<Seen>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let parts = all.entry(shoot.clone()).or_default();
        Arc::clone(parts.entry(name.to_owned()).or_default())
    }

    /// A shoot's objects are taken away.
    pub(super) fn forget(&self, shoot: &ShootName) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(shoot);
    }
}

impl Seen {
    /// Whether it was looked at since then, and made of the same.
    pub(super) fn is_since(&self, asked: Instant, basis: &Basis) -> bool {
        self.0.as_ref().is_some_and(|(begun, of)| {
            *begun >= asked
                && Arc::ptr_eq(&of.catalog, &basis.catalog)
                && of.host == basis.host
                && of.rotation == basis.rotation
        })
    }

    /// It is as it should be: it was looked at from `begun` on.
    pub(super) fn note(&mut self, begun: Instant, basis: &Basis) {
        self.0 = Some((begun, basis.clone()));
    }
}
