//! How long the deletion of a ContainerRuntime still waits for nodes.

use std::time::Instant;

use super::{Index, RuntimeKey};

impl Index {
    /// When a node that is away is waited for no longer: the first such time
    /// after `now`. Without one, only a node's own word ends the wait.
    pub fn removal_gives_up(&self, key: &RuntimeKey, now: Instant) -> Option<Instant> {
        let state = self.lock();
        let shoot = state.shoots.get(&key.shoot)?;
        let runtime = shoot.runtimes.get(&key.name)?.runtime.as_ref()?;
        shoot.nodes.values().filter_map(|node| node.owes_until(runtime, now)).min()
    }
}
