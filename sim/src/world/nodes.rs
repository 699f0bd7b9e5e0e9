//! What nodes do, and what the laws and the meter see of it.

use std::sync::Arc;
use std::time::Duration;

use rootstock_core::bandwidth::Puller;
use rootstock_core::name::NodeName;

use super::{Note, World};
use crate::clock::Clock;
use crate::controller::{POOL, Seen};
use crate::laws::Law;
use crate::message::{Down, Up};
use crate::meter::Flow;
use crate::node::{Deed, Lane, Node, Traits, Who};
use crate::queue::Event;

/// One link in ten is slow.
const SLOW: u32 = 100;
/// What a link carries that is not: 1 Gbit/s.
const FAST: u64 = 125_000_000;

impl World {
    /// A node comes into being, and its agent begins within so long.
    pub(super) fn join(&mut self, within: Duration) {
        let number = self.nodes.len();
        let (faults, rng) = (self.plan.faults.clone(), &mut self.rng);
        let flaky = rng.chance(faults.flaky_nodes);
        let of = |permille| if flaky { permille } else { 0 };
        let slow = rng.chance(SLOW);
        let link = if slow { rng.range(4_000_000..12_000_000) } else { FAST };
        let settled = self.plan.settled && !self.grown && self.now.is_zero();
        let (Ok(name), Ok(uid)) =
            (format!("node-{number}").parse::<NodeName>(), format!("uid-{number}").parse())
        else {
            unreachable!("a name of lower-case letters and digits")
        };
        let shoots = &self.plan.settings.shoots;
        let shoot = number % shoots.len();
        let node = rootstock_core::bandwidth::Node::new(shoots[shoot].clone(), name.clone());
        let puller = Puller { node, pool: POOL.into() };
        self.of_shoot[shoot] += 1;
        let traits = Traits {
            who: Arc::new(Who { name, uid, puller }),
            shoot,
            link,
            latency: rng.millis(1..40),
            // Within one percent of true time: what leases allow for.
            clock: Clock::new(rng.millis(0..1_000_000), rng.range(990_000..1_010_001)),
            pull_breaks: of(faults.pull_breaks),
            host_fails: of(faults.host_fails),
        };
        self.laws.know(traits.who.uid.clone(), number);
        let works = self.plan.old.filter(|_| settled);
        let node = Node::new(traits, works);
        let within = u64::try_from(within.as_millis()).unwrap_or(u64::MAX);
        let at = self.now.max(self.plan.nodes_at) + self.rng.millis(100..within.max(101));
        self.queue.at(at, Event::Join(number));
        let seen = self.now + self.rng.millis(20..200);
        self.queue.at(seen, Event::Seen(number));
        if self.rng.chance(faults.cuts) {
            let within = u64::try_from(faults.cuts_within.as_millis()).unwrap_or(u64::MAX);
            let begin = self.now + self.rng.millis(5_000..within.max(5_001));
            let end = begin + self.rng.millis(1_000..400_000);
            self.queue.at(begin, Event::Cut(number));
            self.queue.at(end, Event::Heal(number));
        }
        self.notes.push(Note {
            flow: Flow::default(),
            lane: Lane::Before,
            wakes: None,
            cut: false,
            up: Duration::ZERO,
            down: Duration::ZERO,
            tries: 0,
            with_slot: false,
            ready: true,
            joining: node.joining,
            gone: false,
        });
        self.series.came(Lane::Before);
        self.nodes.push(node);
    }

    /// A node does what is due.
    pub(super) fn live(&mut self, number: usize) {
        let mut say = Vec::new();
        let node = &mut self.nodes[number];
        let deeds = node.live(self.now, &self.plan.bundles, &mut self.rng, &mut say);
        for deed in deeds {
            self.deed(number, deed);
        }
        self.after(number, say);
    }

    /// A message reaches a node.
    pub(super) fn arrive_down(&mut self, number: usize, stream: u64, down: Down) {
        let node = &mut self.nodes[number];
        if node.dead || node.stream != Some(stream) || self.notes[number].cut {
            return;
        }
        let mut say = Vec::new();
        node.hear(down, self.now, &mut say);
        let deeds = node.live(self.now, &self.plan.bundles, &mut self.rng, &mut say);
        for deed in deeds {
            self.deed(number, deed);
        }
        self.after(number, say);
    }

    /// Whatever has happened on a node: others see it now.
    pub(super) fn after(&mut self, number: usize, say: Vec<Up>) {
        let node = &self.nodes[number];
        let (allowed, rate) = node.rates();
        let flow = Flow { allowed, rate, waits: node.waits_for_bytes() };
        let lane = node.lane(self.target());
        let (ready, joining, shoot) = (node.is_ready(), node.joining, node.traits.shoot);
        let (stream, due) = (node.stream, node.due());
        let note = &mut self.notes[number];
        let before = std::mem::replace(&mut note.flow, flow);
        self.series.moved(note.lane, lane);
        note.lane = lane;
        if (note.ready, note.joining) != (ready, joining) {
            (note.ready, note.joining) = (ready, joining);
            let seen = self.now + self.rng.millis(20..200);
            self.queue.at(seen, Event::Seen(number));
        }
        if let Some(due) = due.map(|due| due.max(self.now))
            && note.wakes.is_none_or(|wakes| due < wakes)
        {
            note.wakes = Some(due);
            self.queue.at(due, Event::Wake(number));
        }
        if before != flow
            && let Some(what) = self.meter.change(shoot, before, flow)
        {
            self.laws.broke(Law::Bytes, self.now, what);
        }
        if let Some(stream) = stream {
            for up in say {
                self.send_up(number, stream, up);
            }
        }
    }

    fn target(&self) -> Option<rootstock_core::digest::Digest> {
        Some(self.plan.target).filter(|_| self.aimed)
    }

    fn deed(&mut self, number: usize, deed: Deed) {
        let node = &mut self.nodes[number];
        let shoot = node.traits.shoot;
        match deed {
            Deed::Began(digest, slot) => {
                if !slot {
                    return;
                }
                self.notes[number].with_slot = true;
                let (_, recorded) = &self.api.shoots[shoot];
                let who = Arc::clone(&node.traits.who);
                self.laws.began(&who.uid, digest, recorded, self.now);
                self.laws.activating[shoot] += 1;
                let most = self.plan.settings.strategy.max_unavailable(self.of_shoot[shoot]);
                let at_once = self.laws.activating[shoot];
                if at_once > most {
                    let what = format!("{at_once} nodes restart at once, {most} may");
                    self.laws.broke(Law::Unavailable, self.now, what);
                }
                return;
            }
            Deed::Worked(digest) => {
                // The taint goes once every runtime is settled.
                node.joining = false;
                if self.notes[number].with_slot {
                    self.laws.tried(number, digest);
                }
            }
            Deed::Broke(digest) => {
                node.joining = false;
                if self.notes[number].with_slot {
                    self.laws.tried(number, digest);
                }
                self.broke(number);
            }
            Deed::WasHeld => {}
            Deed::Died => {
                self.broke(number);
                self.fell_silent(number);
                if let Some(after) = self.plan.faults.replaced {
                    self.queue.at(self.now + after, Event::Gone(number));
                }
            }
        }
        if std::mem::take(&mut self.notes[number].with_slot) {
            self.laws.activating[shoot] -= 1;
        }
    }

    /// The API knows a node no more, and another one comes.
    pub(super) fn replace(&mut self, number: usize) {
        self.notes[number].gone = true;
        self.control(|controller, turn| controller.gone(number, turn));
        self.join(Duration::from_secs(30));
    }

    fn broke(&mut self, number: usize) {
        self.laws.broken.insert(number);
        let (broken, may) = (self.laws.broken.len(), self.plan.may_break);
        let added = self.plan.growth > 0 && number >= self.plan.nodes;
        if broken > may || added || !self.plan.first_ring(self.nodes[number].traits.shoot) {
            let also = if added { ", and this one came meanwhile" } else { "" };
            let what = format!("node-{number} is the {broken}. that breaks, {may} may{also}");
            self.laws.broke(Law::Broken, self.now, what);
        }
    }

    /// What the API says of a node.
    pub(super) fn facts(&self, number: usize) -> Seen {
        let node = &self.nodes[number];
        Seen {
            who: Arc::clone(&node.traits.who),
            shoot: node.traits.shoot,
            joining: node.joining,
            ready: node.is_ready(),
        }
    }
}
