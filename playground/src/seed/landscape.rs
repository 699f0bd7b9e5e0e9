//! Which shoots, pools and nodes there are.

/// The label with the name of a node's container runtime interface.
pub const CRI_NAME: &str = "worker.gardener.cloud/cri-name";
/// What comes before the type in the label of a node's runtime.
pub const RUNTIME_LABEL_PREFIX: &str = "containerruntime.worker.gardener.cloud/";
/// The labels with the name of a node's pool: today's, and the deprecated one.
pub const POOL_LABELS: [&str; 2] =
    ["worker.gardener.cloud/pool", "worker.garden.sapcloud.io/group"];
/// The controller's own mark on a node that an agent must stay on.
pub const AGENT_LABEL: &str = "rootstock.gardener.cloud/agent";

/// One shoot, as its owner asked for it.
#[derive(Clone, Debug)]
pub struct Shoot {
    /// The namespace of its control plane: `shoot--<project>--<name>`.
    pub technical_id: String,
    /// Its worker pools.
    pub pools: Vec<Pool>,
}

/// One worker pool.
#[derive(Clone, Debug)]
pub struct Pool {
    /// Its name.
    pub name: String,
    /// The runtime types that it asks for.
    pub runtimes: Vec<String>,
    /// Where its runtimes' binaries go.
    pub binary_path: String,
    /// The names of its nodes.
    pub nodes: Vec<Node>,
}

/// One worker node.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its container runtime interface.
    pub cri: String,
    /// Its architecture, by Kubernetes' names.
    pub architecture: String,
}

impl Shoot {
    /// A shoot without pools.
    pub fn new(project: &str, name: &str) -> Self {
        Self { technical_id: format!("shoot--{project}--{name}"), pools: Vec::new() }
    }

    /// The same with one more pool of containerd nodes.
    #[must_use]
    pub fn pool(mut self, name: &str, runtimes: &[&str], nodes: usize) -> Self {
        let nodes = (1..=nodes).map(|number| Node {
            name: format!("{name}-{number}"),
            cri: "containerd".to_owned(),
            architecture: this_architecture().to_owned(),
        });
        self.pools.push(Pool {
            name: name.to_owned(),
            runtimes: runtimes.iter().map(|runtime| (*runtime).to_owned()).collect(),
            binary_path: "/var/bin/containerruntimes".to_owned(),
            nodes: nodes.collect(),
        });
        self
    }

    /// The same with its last pool changed.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut Pool)) -> Self {
        if let Some(pool) = self.pools.last_mut() {
            change(pool);
        }
        self
    }

    /// The shoot's project and its name in that project.
    pub fn project_and_name(&self) -> (&str, &str) {
        let id = self.technical_id.strip_prefix("shoot--").unwrap_or(&self.technical_id);
        id.split_once("--").unwrap_or(("", id))
    }

    /// All nodes with their pools.
    pub fn nodes(&self) -> impl Iterator<Item = (&Pool, &Node)> {
        self.pools.iter().flat_map(|pool| pool.nodes.iter().map(move |node| (pool, node)))
    }

    /// The host name of the controller for this shoot's agents.
    pub fn endpoint_host(&self, domain: &str) -> String {
        let id = self.technical_id.strip_prefix("shoot--").unwrap_or(&self.technical_id);
        format!("rs-{id}.{domain}")
    }
}

impl Pool {
    /// The runtimes that a node of this pool should end up with.
    pub fn runtimes_for(&self, node: &Node) -> &[String] {
        if node.cri == "containerd" { &self.runtimes } else { &[] }
    }
}

/// The landscape of the demo: four ContainerRuntimes on four nodes of one shoot,
/// two nodes beside them that must stay as they are, and a second shoot.
pub fn demo() -> Vec<Shoot> {
    let one = Shoot::new("garden", "one")
        .pool("a", &["gvisor", "kata"], 2)
        .pool("b", &["gvisor", "kata"], 2)
        .with(|pool| {
            pool.nodes.push(Node {
                name: "b-other-cri".to_owned(),
                cri: "docker".to_owned(),
                architecture: this_architecture().to_owned(),
            });
        })
        .pool("plain", &[], 1);
    let two = Shoot::new("garden", "two").pool("a", &["gvisor"], 1);
    vec![one, two]
}

/// This machine's architecture, by Kubernetes' names.
pub fn this_architecture() -> &'static str {
    rootstock_core::name::Architecture::of_this_machine()
        .map_or(std::env::consts::ARCH, |a| a.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_demo_has_four_selected_nodes_and_two_others_in_shoot_one() {
        let [one, two] = demo().try_into().unwrap();
        let selected = one.nodes().filter(|(pool, node)| !pool.runtimes_for(node).is_empty());
        assert_eq!(selected.count(), 4);
        assert_eq!(one.nodes().count(), 6);
        assert_eq!(two.nodes().count(), 1);
        assert_eq!(one.project_and_name(), ("garden", "one"));
        assert_eq!(one.endpoint_host("seed.localhost"), "rs-garden--one.seed.localhost");
    }
}
