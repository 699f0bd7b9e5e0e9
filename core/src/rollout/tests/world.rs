//! A shoot whose agents do what a step tells them, as far as they hear of it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;

use crate::digest::Digest;
use crate::name::{Architecture, NodeName, RuntimeType, Uid};
use crate::rollout::record::Command;
use crate::rollout::strategy::{Strategy, StrategySpec};
use crate::rollout::view::{Link, Node, OnNode, Rate, Said, Sandboxes, Seed, Track, View};
use crate::rollout::window::{Weekly, WindowChoice};
use crate::rollout::{Give, Permit, Step, step};
use crate::state::State;
use crate::status::{Phase, Reason};

pub(super) const AMD: Architecture = Architecture::Amd64;

pub(super) fn digest(name: &str) -> Digest {
    Digest::of(name.as_bytes())
}

/// What becomes of a node that activates a bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Works,
    /// It works, and is proven three minutes later than others.
    Slowly,
    RollsBack,
    Degrades,
    /// It works, and pods' sandboxes do not start.
    FailsPods,
    /// The node is never heard of again.
    Silences,
    /// It is still at it when the slot ends.
    Hangs,
    /// Its bytes don't come.
    Unreachable,
}

/// One ContainerRuntime.
#[derive(Clone, Debug)]
pub(super) struct Resource {
    pub(super) runtime: RuntimeType,
    pub(super) pool: String,
    pub(super) strategy: Strategy,
    pub(super) target: Option<Digest>,
    pub(super) command: Option<Command>,
    pub(super) deleting: bool,
    pub(super) seed: Option<Seed>,
}

/// One runtime on one node.
#[derive(Clone, Debug, Default)]
pub(super) struct Installed {
    pub(super) works: Option<Digest>,
    pub(super) desired: Option<Digest>,
    pub(super) fetched: Option<Digest>,
    pub(super) report: Option<(Digest, Phase, Option<Reason>)>,
    pub(super) started: u64,
    pub(super) failing: bool,
    /// For how many minutes it has been at it.
    pub(super) busy: u32,
    /// With what it failed, and does not try again by itself.
    pub(super) refused: BTreeSet<Digest>,
}

#[derive(Clone, Debug)]
pub(super) struct Machine {
    pub(super) name: NodeName,
    pub(super) uid: Uid,
    pub(super) pool: String,
    pub(super) ready: bool,
    pub(super) joining: bool,
    pub(super) leaving: bool,
    pub(super) connected: bool,
    /// Whether the controller has heard of it since it started.
    pub(super) heard: bool,
    pub(super) permit: Option<Timestamp>,
    /// How often containerd was restarted.
    pub(super) restarts: u32,
    pub(super) runtimes: BTreeMap<RuntimeType, Installed>,
}

pub(super) struct World {
    pub(super) now: Timestamp,
    pub(super) frozen: bool,
    pub(super) complete: bool,
    pub(super) maintenance: Option<Weekly>,
    pub(super) resources: BTreeMap<String, Resource>,
    pub(super) nodes: BTreeMap<u32, Machine>,
    pub(super) states: BTreeMap<String, State>,
    pub(super) fates: BTreeMap<Digest, Fate>,
    /// Nodes that fare otherwise with every bundle.
    pub(super) unlucky: BTreeMap<u32, Fate>,
    /// Whether pods use the runtime.
    pub(super) pods: bool,
    /// Each activation: the node and the digest.
    pub(super) activated: Vec<(u32, Digest)>,
    pub(super) made: u32,
    pub(super) last: Step,
}

pub(super) fn kind(name: &str) -> RuntimeType {
    name.parse().unwrap()
}

/// A world in which the first node works with `new`, and the others wait.
pub(super) fn soaking(nodes: u32) -> World {
    let mut world = World::new(nodes);
    world.run(5);
    let phase = world.phase();
    assert!(matches!(phase, crate::rollout::progress::Phase::Soaking { .. }), "{phase:?}");
    world
}

impl World {
    /// So many nodes of pool `a` with bundle `old`, promoted, and `new` as the target.
    pub(super) fn new(nodes: u32) -> Self {
        let mut world = Self {
            now: "2026-07-01T10:00:00Z".parse().unwrap(),
            frozen: false,
            complete: true,
            maintenance: None,
            resources: BTreeMap::new(),
            nodes: BTreeMap::new(),
            states: BTreeMap::new(),
            fates: BTreeMap::new(),
            unlucky: BTreeMap::new(),
            pods: true,
            activated: Vec::new(),
            made: 0,
            last: Step::default(),
        };
        world.resource("gvisor", "a", Some("old"), "new");
        for _ in 0..nodes {
            world.old_node("a");
        }
        world
    }

    pub(super) fn resource(&mut self, of: &str, pool: &str, old: Option<&str>, new: &str) {
        let resource = Resource {
            runtime: kind(of),
            pool: pool.to_owned(),
            strategy: Strategy { window: WindowChoice::None, ..Strategy::default() },
            target: Some(digest(new)),
            command: None,
            deleting: false,
            seed: None,
        };
        let promoted = old.map(|old| (AMD, digest(old))).into_iter().collect();
        let name = format!("{of}-{pool}");
        self.resources.insert(name.clone(), resource);
        self.states.insert(name, State { promoted, ..State::default() });
    }

    pub(super) fn gvisor(&mut self) -> &mut Resource {
        self.resources.get_mut("gvisor-a").unwrap()
    }

    pub(super) fn strategy(&mut self, spec: serde_json::Value) {
        let spec: StrategySpec = serde_json::from_value(spec).unwrap();
        for resource in self.resources.values_mut() {
            resource.strategy = spec.over(&resource.strategy);
        }
    }

    pub(super) fn state(&self) -> &State {
        &self.states["gvisor-a"]
    }

    pub(super) fn phase(&self) -> crate::rollout::progress::Phase {
        self.last.progress["gvisor-a"].phase
    }

    /// A node that just came.
    pub(super) fn new_node(&mut self, pool: &str) -> u32 {
        self.made += 1;
        let number = self.made;
        let node = Machine {
            name: format!("node-{number}").parse().unwrap(),
            uid: format!("uid-{number}").parse().unwrap(),
            pool: pool.to_owned(),
            ready: true,
            joining: true,
            leaving: false,
            connected: true,
            heard: true,
            permit: None,
            restarts: 0,
            runtimes: BTreeMap::new(),
        };
        self.nodes.insert(number, node);
        number
    }

    /// A node that works with what is promoted.
    pub(super) fn old_node(&mut self, pool: &str) -> u32 {
        let number = self.new_node(pool);
        let node = self.nodes.get_mut(&number).unwrap();
        node.joining = false;
        for (name, resource) in self.resources.iter().filter(|(_, r)| r.pool == pool) {
            if let Some(old) = self.states[name].promoted.get(&AMD) {
                node.runtimes.insert(resource.runtime.clone(), Installed::with(*old));
            }
        }
        number
    }

    pub(super) fn node(&mut self, number: u32) -> &mut Machine {
        self.nodes.get_mut(&number).unwrap()
    }

    pub(super) fn with(&self, name: &str) -> Vec<u32> {
        self.with_of("gvisor", name)
    }

    pub(super) fn with_of(&self, of: &str, name: &str) -> Vec<u32> {
        let has = |node: &Machine| node.runtimes.get(&kind(of)).and_then(|on| on.works);
        let nodes = self.nodes.iter().filter(|(_, node)| has(node) == Some(digest(name)));
        nodes.map(|(number, _)| *number).collect()
    }

    /// The nodes that ever activated a bundle, each as often as it did.
    pub(super) fn tried(&self, name: &str) -> Vec<u32> {
        let of = self.activated.iter().filter(|(_, of)| *of == digest(name));
        of.map(|(node, _)| *node).collect()
    }

    /// One look with what is known now; nothing is written or sent.
    pub(super) fn look(&self) -> Step {
        let tracks = self.resources.iter().map(|(name, resource)| {
            let track = Track {
                runtime: &resource.runtime,
                strategy: &resource.strategy,
                target: resource.target.map(|digest| (AMD, Some(digest))).into_iter().collect(),
                command: resource.command,
                deleting: resource.deleting,
                seed: resource.seed.as_ref(),
            };
            (name.as_str(), track)
        });
        let view = View {
            complete: self.complete,
            frozen: self.frozen,
            maintenance: self.maintenance.as_ref(),
            tracks: tracks.collect(),
            nodes: self.nodes.values().map(|node| self.seen(node)).collect(),
        };
        step(&view, &self.states, self.now)
    }

    fn seen<'a>(&'a self, node: &'a Machine) -> Node<'a> {
        let of_pool = self.resources.iter().filter(|(_, resource)| resource.pool == node.pool);
        let runtimes = of_pool.map(|(name, resource)| {
            let on = node.runtimes.get(&resource.runtime);
            let report = on.and_then(|on| on.report).filter(|_| node.heard);
            let rate = |count| Rate { count, seconds: 600 };
            OnNode {
                track: name,
                report: report.map(|(digest, phase, reason)| Said {
                    digest: Some(digest),
                    phase,
                    reason,
                    message: "what the node says",
                }),
                fetched: on.and_then(|on| on.fetched).filter(|_| node.heard),
                restart: true,
                sandboxes: Sandboxes {
                    started: on.map_or(0, |on| on.started),
                    failed: rate(if on.is_some_and(|on| on.failing) { 9 } else { 0 }),
                    failed_before: rate(1),
                },
            }
        });
        Node {
            name: &node.name,
            uid: &node.uid,
            pool: &node.pool,
            architecture: Some(AMD),
            ready: node.ready,
            joining: node.joining,
            leaving: node.leaving,
            link: match (node.connected, node.heard) {
                (true, true) => Link::Here,
                (_, false) => Link::Awaited,
                (false, true) => Link::Away { was_ready: true },
            },
            runtimes: runtimes.collect(),
        }
    }

    /// Looks and writes what is new. The same look again changes nothing.
    pub(super) fn write(&mut self) -> Step {
        let step = self.look();
        self.states.extend(step.states.clone());
        let again = self.look();
        assert_eq!(again.states, std::collections::BTreeMap::new(), "after {:#?}", self.states);
        // Whose bytes go first is by who has a slot by now.
        let told = |step: &Step| {
            let nodes = step.nodes.iter();
            nodes.map(|node| (node.permit, node.runtimes.clone())).collect::<Vec<_>>()
        };
        assert!(told(&again) == told(&step), "{:#?}\n{:#?}", again.nodes, step.nodes);
        self.last = step.clone();
        step
    }

    /// Looks, writes what is new, and sends it to whoever hears.
    pub(super) fn turn(&mut self) {
        let step = self.write();
        for ((number, node), sent) in self.nodes.iter_mut().zip(&step.nodes) {
            if !node.connected || !node.heard {
                continue;
            }
            node.permit = match sent.permit {
                Some(Permit::Joining) => Some(Timestamp::MAX),
                Some(Permit::Slot { until, .. }) => Some(until),
                None => None,
            };
            let of_pool = self.resources.values().filter(|resource| resource.pool == node.pool);
            for (resource, sent_of) in of_pool.zip(&sent.runtimes) {
                let on = node.runtimes.entry(resource.runtime.clone()).or_default();
                let fate = |digest| fate(&self.fates, &self.unlucky, *number, digest);
                match sent_of.give {
                    // What the node has stays, so there is nothing pending.
                    Give::Stay => {
                        let queued = on.report.is_some_and(|report| report.1 == Phase::Queued);
                        on.desired = on.works.or_else(|| on.desired.filter(|_| !queued));
                        on.report = on.report.filter(|_| !queued);
                    }
                    Give::Promoted(digest) | Give::Candidate(digest) => on.desired = Some(digest),
                }
                if let Some(digest) = sent_of.prefetch
                    && fate(digest) != Fate::Unreachable
                {
                    on.fetched = Some(digest);
                }
                if matches!(sent.permit, Some(Permit::Slot { again: true, .. })) {
                    on.refused.clear();
                }
            }
        }
    }

    /// Every agent does its next thing.
    pub(super) fn work(&mut self) {
        let pods = self.pods;
        for (number, node) in &mut self.nodes {
            let permitted = node.permit.is_some_and(|until| until > self.now);
            let (mut silenced, mut restarted) = (false, false);
            for on in node.runtimes.values_mut() {
                let Some(digest) = on.desired else { continue };
                let fate = fate(&self.fates, &self.unlucky, *number, digest);
                let activating =
                    matches!(on.report, Some((of, Phase::Activating, _)) if of == digest);
                on.report = Some(
                    if on.works == Some(digest) && on.report.is_none_or(|r| r.1 != Phase::Degraded)
                    {
                        on.started += u64::from(pods);
                        on.failing = fate == Fate::FailsPods;
                        (digest, Phase::Proven, None)
                    } else if on.refused.contains(&digest) {
                        (digest, Phase::RolledBack, Some(Reason::ContainerdStartFailed))
                    } else if activating {
                        on.busy += 1;
                        match fate {
                            Fate::Slowly if on.busy <= 3 => (digest, Phase::Activating, None),
                            Fate::Works | Fate::Slowly | Fate::FailsPods => {
                                (on.works, on.started, on.failing) = (Some(digest), 0, false);
                                (digest, Phase::Proven, None)
                            }
                            Fate::RollsBack => {
                                on.refused.insert(digest);
                                (digest, Phase::RolledBack, Some(Reason::ContainerdStartFailed))
                            }
                            Fate::Degrades => {
                                (digest, Phase::Degraded, Some(Reason::ContainerdStartFailed))
                            }
                            Fate::Silences => {
                                silenced = true;
                                (digest, Phase::Activating, None)
                            }
                            Fate::Hangs | Fate::Unreachable => (digest, Phase::Activating, None),
                        }
                    } else if fate == Fate::Unreachable {
                        (digest, Phase::Blocked, Some(Reason::RegistryUnreachable))
                    } else if permitted {
                        self.activated.push((*number, digest));
                        (restarted, on.busy) = (true, 0);
                        (digest, Phase::Activating, None)
                    } else {
                        (digest, Phase::Queued, None)
                    },
                );
            }
            node.restarts += u32::from(restarted);
            if silenced {
                (node.connected, node.ready) = (false, false);
            }
        }
    }

    pub(super) fn pass(&mut self, minutes: u64) {
        self.now = self.now.checked_add(Duration::from_secs(minutes * 60)).unwrap();
    }

    /// Turns, works and lets a minute pass, so often.
    pub(super) fn run(&mut self, minutes: u32) {
        for _ in 0..minutes {
            self.turn();
            self.work();
            self.pass(1);
        }
        self.turn();
    }

    /// Writes a command on the resource, and takes it off when it was carried out.
    pub(super) fn command(&mut self, command: Command) {
        self.gvisor().command = Some(command);
        self.turn();
        assert_eq!(self.last.progress["gvisor-a"].acted, Some(command));
        self.gvisor().command = None;
        self.turn();
    }

    /// Another controller begins with what is recorded.
    pub(super) fn restart(&mut self) {
        for node in self.nodes.values_mut() {
            node.heard = false;
        }
    }

    /// Who is connected has said what it has.
    pub(super) fn hear(&mut self) {
        for node in self.nodes.values_mut() {
            node.heard |= node.connected;
        }
    }

    /// The nodes with a slot of any resource.
    pub(super) fn slots(&self) -> BTreeSet<Uid> {
        self.states.values().flat_map(|state| &state.slots).map(|slot| slot.node.clone()).collect()
    }
}

impl Installed {
    pub(super) fn with(digest: Digest) -> Self {
        let report = Some((digest, Phase::Proven, None));
        Self { works: Some(digest), desired: Some(digest), report, ..Self::default() }
    }
}

fn fate(
    fates: &BTreeMap<Digest, Fate>,
    unlucky: &BTreeMap<u32, Fate>,
    number: u32,
    digest: Digest,
) -> Fate {
    let own = unlucky.get(&number).or_else(|| fates.get(&digest));
    own.copied().unwrap_or(Fate::Works)
}
