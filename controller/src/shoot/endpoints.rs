//! Shoots by the host name under which their agents come.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use rootstock_core::name::ShootName;

use crate::grpc::ShootEndpoint;

/// Shoots by host name.
#[derive(Debug, Default)]
pub(crate) struct Endpoints(RwLock<HashMap<String, Arc<ShootEndpoint>>>);

impl Endpoints {
    /// The shoot under a host name, in lower case.
    pub(crate) fn get(&self, host: &str) -> Option<Arc<ShootEndpoint>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(host).cloned()
    }

    /// Serves a shoot under a host name, and under no other.
    pub(crate) fn put(&self, host: String, endpoint: ShootEndpoint) {
        let mut hosts = self.0.write().unwrap_or_else(PoisonError::into_inner);
        hosts.retain(|_, other| other.name != endpoint.name);
        hosts.insert(host, Arc::new(endpoint));
    }

    /// Serves a shoot no longer.
    pub(crate) fn remove(&self, shoot: &ShootName) {
        let mut hosts = self.0.write().unwrap_or_else(PoisonError::into_inner);
        hosts.retain(|_, endpoint| endpoint.name != *shoot);
    }
}
