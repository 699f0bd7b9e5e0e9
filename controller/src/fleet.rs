//! The index and the shoots' endpoints, as the gRPC server asks for them.

use std::sync::Arc;

use rootstock_core::bandwidth::{Node, Puller};
use rootstock_core::desired::Generation;
use rootstock_core::name::Uid;
use rootstock_core::status::BundleReport;

use crate::bandwidth::Bandwidth;
use crate::grpc::{Connected, Directory, Hello, Refused, RefusedItem, ShootEndpoint};
use crate::identity::NodeId;
use crate::index::Index;
use crate::shoot::Endpoints;

/// What agents meet.
#[derive(Debug)]
pub(crate) struct Fleet {
    pub(crate) index: Arc<Index>,
    pub(crate) endpoints: Arc<Endpoints>,
    pub(crate) bandwidth: Arc<Bandwidth>,
}

impl Directory for Fleet {
    fn shoot_by_host(&self, host: &str) -> Option<Arc<ShootEndpoint>> {
        self.endpoints.get(host)
    }

    fn connect(&self, node: &NodeId, hello: Hello) -> Result<Connected, Refused> {
        let held = hello.content.map(|content| (hello.generation, content));
        tracing::debug!(%node, agent = hello.agent_version, generation = hello.generation.0, "hello");
        let desired = self.index.connect(node, held)?;
        let line = self.bandwidth.connect(self.puller(node), hello.leases);
        Ok(Connected { desired, line })
    }

    fn puller(&self, node: &NodeId) -> Puller {
        // Nodes without a pool are a pool of their own.
        let pool = self.index.pool(node).unwrap_or_default();
        Puller { node: Node::new(node.shoot.clone(), node.name.clone()), pool }
    }

    fn report(&self, node: &NodeId, generation: Generation, reports: Vec<BundleReport>) {
        self.index.report(node, generation, reports);
    }

    fn accepted(&self, node: &NodeId, generation: Generation) {
        self.index.accepted(node, generation);
    }

    fn refused(&self, node: &NodeId, generation: Generation, items: Vec<RefusedItem>) {
        for item in items {
            let of = item.runtime.map(|runtime| format!("{runtime}: ")).unwrap_or_default();
            let message = format!("{of}{}", item.message);
            self.index.refused(node, generation, item.reason, message);
        }
    }

    fn vouch(&self, node: &NodeId, pod: &Uid) {
        self.index.vouch(node, pod);
    }

    fn lacks_agent(&self, node: &NodeId) -> bool {
        self.index.lacks_agent(node)
    }

    fn disconnect(&self, node: &NodeId) {
        self.index.disconnect(node);
    }
}
