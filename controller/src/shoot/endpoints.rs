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

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use serde_json::json;

    use super::*;
    use crate::identity::authorities::Authorities;
    use crate::identity::ca::ShootCa;

    const HOST: &str = "rs-one.test";

    fn put(endpoints: &Endpoints, host: &str, ca: &Arc<ShootCa>) -> Anchor {
        let authorities = Authorities::one(Arc::clone(ca));
        let tls = authorities.server_config(&[host.to_owned()], Timestamp::now()).unwrap();
        let (client, _) = crate::scripted::client(|_| (500, json!({})));
        let name = ca.shoot().clone();
        endpoints.put(host.to_owned(), ShootEndpoint { name, authorities, tls, client });
        endpoints.get(host).unwrap().authorities.anchors()[0].clone()
    }

    #[tokio::test]
    async fn an_authority_that_leaves_is_told_even_when_its_shoot_was_away() {
        let (endpoints, name) = (Endpoints::default(), "one".parse().unwrap());
        let ca = || Arc::new(ShootCa::generate(&name, Timestamp::now()).unwrap());
        let (old, new) = (ca(), ca());
        let first = put(&endpoints, HOST, &old);
        // It moves to another host, sleeps and wakes up with what it had.
        put(&endpoints, "rs-one.other", &old);
        assert!(endpoints.get(HOST).is_none());
        endpoints.remove(&name);
        endpoints.remove(&name);
        assert!(endpoints.get("rs-one.other").is_none());
        put(&endpoints, HOST, &old);
        assert!(!first.has_left());
        // And with another one.
        endpoints.remove(&name);
        put(&endpoints, HOST, &new);
        assert!(first.has_left());
        endpoints.forget(&name);
        assert!(endpoints.get(HOST).is_none());
    }
}
