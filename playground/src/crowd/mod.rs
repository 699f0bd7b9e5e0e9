//! Many agents in one process: real certificates, TLS and streams, and no node
//! behind them.
//!
//! ```text
//!  Crowd ─ n × agent: connect ─ Hello ─▶ controller
//!            ▲ pauses as real agents do      │ Desired
//!            └── what it holds ◀─────────────┘ ─▶ Accept, Report (all is proven)
//!            └── Download, where they pull: the agent's own fetcher, by real grants
//!  Relay: a port that leads to another one, or into silence, as a network does
//! ```
//!
//! What a node would do with a desired state is not here; what a controller
//! sees of ten thousand nodes is.

mod agent;
mod download;
mod relay;

use std::net::SocketAddr;
use std::ops::Range;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};

use rootstock_agent::pull::Pulls;
use rootstock_controller::identity::ca::ShootCa;
use rustls::RootCertStore;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

use agent::{Agent, Node};
use download::Download;
pub use download::{Done, Downloads};
pub use relay::{Leads, Relay};

/// What the agents of a crowd connect to.
#[derive(Clone, Debug)]
pub struct Place {
    /// Where that is at a moment; none where nobody is there, as with a
    /// Service without a Pod.
    pub address: watch::Receiver<Option<SocketAddr>>,
    /// The host that is called, and that the certificate has to name.
    pub host: String,
}

/// What a crowd has seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// How many have a stream at this moment.
    pub connected: usize,
    /// How many streams there were.
    pub streams: u64,
    /// How many of them the controller ended with a goodbye.
    pub goodbyes: u64,
    /// How many desired states came.
    pub desired: u64,
    /// How many of them were what the agent had said that it holds.
    pub repeated: u64,
    /// The highest term that any agent has heard of.
    pub epoch: u64,
    /// What no agent should ever see, in words.
    pub wrong: Vec<String>,
}

/// Agents that run until this is dropped.
#[derive(Debug)]
pub struct Crowd {
    shared: Arc<Shared>,
    nodes: Vec<Arc<Mutex<Node>>>,
    waiting: Vec<Agent>,
    agents: JoinSet<()>,
    /// Those that pull, by their numbers, and what they pull.
    pulling: Vec<Pulling>,
    downloads: Option<Arc<Downloads>>,
}

/// An agent that pulls.
#[derive(Debug)]
struct Pulling {
    agent: Agent,
    /// Whether it stands still.
    held: watch::Sender<bool>,
    tasks: [AbortHandle; 2],
}

/// What all agents of a crowd share.
#[derive(Debug)]
struct Shared {
    place: Place,
    roots: RootCertStore,
    seen: watch::Sender<Seen>,
    /// Whether nodes take time over what they are sent.
    at_work: watch::Sender<bool>,
    /// How often all were to renew their certificates.
    renewals: watch::Sender<u64>,
}

impl Crowd {
    /// One agent for each node, with a certificate that the authority signs
    /// now. None of them has begun.
    ///
    /// # Errors
    /// When a certificate can't be made.
    pub fn new(
        place: Place,
        ca: &ShootCa,
        nodes: impl IntoIterator<Item = rootstock_controller::identity::NodeId>,
    ) -> anyhow::Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(ca.cert_der().clone())?;
        let (seen, at_work, renewals) = Default::default();
        let shared = Arc::new(Shared { place, roots, seen, at_work, renewals });
        let (mut waiting, mut held) = (Vec::new(), Vec::new());
        for id in nodes {
            let node = Arc::new(Mutex::new(Node::default()));
            held.push(Arc::clone(&node));
            waiting.push(Agent::new(ca, &id, node, Arc::clone(&shared))?);
        }
        let (agents, pulling) = (JoinSet::new(), Vec::new());
        Ok(Self { shared, nodes: held, waiting, agents, pulling, downloads: None })
    }

    /// The same whose agents pull what they should have. They have yet to begin.
    #[must_use]
    pub fn with_downloads(self, downloads: Arc<Downloads>) -> Self {
        Self { downloads: Some(downloads), ..self }
    }

    /// Lets all agents begin at once.
    pub fn begin(&mut self) {
        for agent in std::mem::take(&mut self.waiting) {
            if let Some(downloads) = self.downloads.clone() {
                let pulling = self.start(agent, downloads, self.pulling.len());
                self.pulling.push(pulling);
            } else {
                self.agents.spawn(agent.run());
            }
        }
    }

    /// The agents with these numbers die, and others begin in their places,
    /// with what was on the node's disk.
    pub fn kill(&mut self, numbers: Range<usize>) {
        let Some(downloads) = self.downloads.clone() else { return };
        for number in numbers {
            let pulling = &self.pulling[number];
            pulling.tasks.iter().for_each(AbortHandle::abort);
            let agent = pulling.agent.clone();
            self.pulling[number] = self.start(agent, Arc::clone(&downloads), number);
        }
    }

    /// Whether the agents with these numbers stand still from now on, as
    /// stopped processes do: nothing of them is done, and time goes on.
    pub fn hold(&self, numbers: Range<usize>, held: bool) {
        for pulling in &self.pulling[numbers] {
            pulling.held.send_replace(held);
        }
    }

    fn start(&mut self, agent: Agent, downloads: Arc<Downloads>, number: usize) -> Pulling {
        let agent = agent.with_pulls(Pulls::granted());
        let (wanted, pulls) = (agent.wanted.subscribe(), agent.pulls.clone());
        let download = Download { number, downloads, wanted, pulls };
        let held = watch::Sender::new(false);
        let tasks = [
            self.agents.spawn(unless_held(held.subscribe(), agent.clone().run())),
            self.agents.spawn(unless_held(held.subscribe(), download.run())),
        ];
        Pulling { agent, held, tasks }
    }

    /// From here on, whether nodes are at work on what they are sent: they take
    /// it, and report that all of it is proven when they no longer are.
    pub fn set_at_work(&self, at_work: bool) {
        self.shared.at_work.send_replace(at_work);
    }

    /// All that have a stream renew their certificates by its connection, and
    /// come back at once with what they were given: real agents do so when the
    /// file with the authorities has changed.
    pub fn renew_all(&self) {
        self.shared.renewals.send_modify(|count| *count += 1);
    }

    /// Whether each agent that has yet to begin gets its certificate renewed.
    ///
    /// # Errors
    /// When nobody answers.
    pub async fn renew(&self) -> anyhow::Result<Vec<Result<(), tonic::Status>>> {
        let mut answers = Vec::new();
        for agent in &self.waiting {
            answers.push(agent.renew().await?);
        }
        Ok(answers)
    }

    /// What it has seen, from here on.
    pub fn seen(&self) -> watch::Receiver<Seen> {
        self.shared.seen.subscribe()
    }

    /// How many agents hold the bundle with this version.
    pub fn with_version(&self, version: &str) -> usize {
        let holds = |node: &&Arc<Mutex<Node>>| {
            node.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .bundles
                .iter()
                .any(|b| b.version == version)
        };
        self.nodes.iter().filter(holds).count()
    }
}

/// Does the work while it is not held.
async fn unless_held(mut held: watch::Receiver<bool>, work: impl Future<Output = ()>) {
    let mut work = pin!(work);
    // The sender ends with the crowd, and with it all of this.
    while held.wait_for(|held| !held).await.is_ok() {
        tokio::select! {
            biased;
            // Cancel-safe, both: the one waits, the other goes on where it was.
            _ = held.wait_for(|held| *held) => {}
            () = &mut work => return,
        }
    }
}
