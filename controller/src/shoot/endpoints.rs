//! Shoots by the host name under which their agents come.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use rootstock_core::name::ShootName;

use crate::grpc::ShootEndpoint;
use crate::identity::authorities::Anchor;

/// Shoots by host name.
#[derive(Debug, Default)]
pub(crate) struct Endpoints(RwLock<Hosts>);

#[derive(Debug, Default)]
struct Hosts {
    by_name: HashMap<String, Arc<ShootEndpoint>>,
    /// Whom shoots trusted when they were last served: some of their streams
    /// may be there still. One that has left meanwhile ends them when the
    /// shoot is back.
    resting: HashMap<ShootName, Vec<Anchor>>,
}

impl Endpoints {
    /// The shoot under a host name, in lower case.
    pub(crate) fn get(&self, host: &str) -> Option<Arc<ShootEndpoint>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).by_name.get(host).cloned()
    }

    /// Serves a shoot under a host name, and under no other. Streams that are
    /// there stay, but for those of an authority that is trusted no longer.
    pub(crate) fn put(&self, host: String, mut endpoint: ShootEndpoint) {
        let mut hosts = self.0.write().unwrap_or_else(PoisonError::into_inner);
        hosts.rest(&endpoint.name);
        let before = hosts.resting.remove(&endpoint.name).unwrap_or_default();
        let leaving = endpoint.authorities.succeed(&before);
        hosts.by_name.insert(host, Arc::new(endpoint));
        drop(hosts);
        for anchor in leaving {
            anchor.leave();
        }
    }

    /// Serves a shoot no longer.
    pub(crate) fn remove(&self, shoot: &ShootName) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).rest(shoot);
    }

    /// A shoot is gone for good; its streams end with its nodes.
    pub(crate) fn forget(&self, shoot: &ShootName) {
        let mut hosts = self.0.write().unwrap_or_else(PoisonError::into_inner);
        hosts.rest(shoot);
        hosts.resting.remove(shoot);
    }
}

impl Hosts {
    fn rest(&mut self, shoot: &ShootName) {
        let mut rested = Vec::new();
        self.by_name.retain(|_, endpoint| {
            let stays = endpoint.name != *shoot;
            if !stays {
                rested.extend_from_slice(endpoint.authorities.anchors());
            }
            stays
        });
        if !rested.is_empty() {
            self.resting.insert(shoot.clone(), rested);
        }
    }
}
