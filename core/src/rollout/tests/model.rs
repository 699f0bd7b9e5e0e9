//! Whatever happens to a shoot, and in whatever order.

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::json;

use super::world::{AMD, Fate, World, digest};
use crate::digest::Digest;
use crate::name::Uid;
use crate::rollout::progress::Phase;
use crate::rollout::record::{Command, Why};
use crate::status;

/// What may happen.
#[derive(Clone, Debug)]
enum Event {
    Minutes(u64),
    Join,
    /// The taint of nodes that came goes.
    Joined,
    Scale(u32),
    Leave(usize),
    Gone(usize),
    Cut(usize),
    Back(usize),
    Unready(usize),
    Ready(usize),
    /// Another controller begins, and hears of the nodes later.
    Restart,
    Hear,
    /// What was recorded is not given: the controller dies in between.
    Crash,
    Command(Command),
    Target(usize),
    Unlucky(usize, Fate),
    Frozen(bool),
    Unknown,
}

const BUNDLES: [&str; 4] = ["old", "one", "two", "three"];

fn fates() -> impl Strategy<Value = Fate> {
    prop_oneof![
        6 => Just(Fate::Works),
        1 => Just(Fate::RollsBack),
        1 => Just(Fate::Degrades),
        1 => Just(Fate::FailsPods),
        1 => Just(Fate::Silences),
        1 => Just(Fate::Hangs),
        1 => Just(Fate::Unreachable),
    ]
}

fn events() -> impl Strategy<Value = Event> {
    let node = || 0..1000_usize;
    prop_oneof![
        20 => (1..20_u64).prop_map(Event::Minutes),
        2 => Just(Event::Join),
        2 => Just(Event::Joined),
        1 => (5..30_u32).prop_map(Event::Scale),
        1 => node().prop_map(Event::Leave),
        2 => node().prop_map(Event::Gone),
        2 => node().prop_map(Event::Cut),
        3 => node().prop_map(Event::Back),
        1 => node().prop_map(Event::Unready),
        2 => node().prop_map(Event::Ready),
        2 => Just(Event::Restart),
        3 => Just(Event::Hear),
        2 => Just(Event::Crash),
        3 => prop::sample::select(&Command::ALL[..]).prop_map(Event::Command),
        2 => (0..BUNDLES.len()).prop_map(Event::Target),
        2 => (node(), fates()).prop_map(|(node, fate)| Event::Unlucky(node, fate)),
        1 => any::<bool>().prop_map(Event::Frozen),
        1 => Just(Event::Unknown),
    ]
}

struct Model {
    world: World,
    /// What it held before the last turn.
    before: BTreeSet<(String, Uid, Digest)>,
    /// Of those, whose node was seen to fall silent and not to come back.
    silent: BTreeSet<(String, Uid, Digest)>,
}

impl Model {
    fn new(nodes: u32, canary: u32, unavailable: u8, fates: [Fate; 3], first: bool) -> Self {
        let mut world = World::new(0);
        world.gvisor().target = Some(digest("one"));
        world.resource("kata", "a", Some("kata-old"), "kata-new");
        if first {
            world.states.values_mut().for_each(|state| state.promoted.clear());
        }
        for _ in 0..nodes {
            world.old_node("a");
        }
        world.strategy(json!({
            "canary": canary, "maxUnavailable": format!("{unavailable}%"), "soak": "5m",
            "deadlines": {"activate": "10m", "pull": "10m", "firstSandbox": "10m"},
        }));
        for (bundle, fate) in ["one", "two", "three"].into_iter().zip(fates) {
            world.fates.insert(digest(bundle), fate);
        }
        Self { world, before: BTreeSet::new(), silent: BTreeSet::new() }
    }

    fn held(&self) -> BTreeSet<(String, Uid, Digest)> {
        let states = self.world.states.iter();
        states
            .flat_map(|(name, state)| {
                state.slots.iter().map(|s| (name.clone(), s.node.clone(), s.digest))
            })
            .collect()
    }

    /// Looks, holds what follows against every law, and carries it out.
    fn turn(&mut self, sends: bool) {
        let world = &mut self.world;
        self.before = BTreeSet::new();
        for (name, state) in &world.states {
            self.before
                .extend(state.slots.iter().map(|s| (name.clone(), s.node.clone(), s.digest)));
        }
        if sends {
            world.turn();
        } else {
            world.write();
        }
        self.check();
        self.check_silence();
    }

    /// A slot that came back because its node is lost stops its candidate,
    /// unless somebody works with it; and only such slots do.
    fn check_silence(&mut self) {
        let slots = self.held();
        for (name, uid, digest) in self.before.difference(&slots) {
            let Some(candidate) = self.world.states[name].candidate.as_ref() else { continue };
            let node = self.world.nodes.values().find(|node| node.uid == *uid);
            let of = (name.clone(), uid.clone(), *digest);
            let runtime = &self.world.resources[name].runtime;
            let said = |node: &super::world::Machine| {
                let on = node.runtimes.get(runtime).filter(|_| node.heard)?;
                on.report.filter(|(said, ..)| said == digest).map(|(_, phase, _)| phase)
            };
            // What it said came before its silence.
            let spoke = node.and_then(said).is_some_and(|phase| phase != status::Phase::Activating);
            let works = candidate.passed > 0
                || self.world.nodes.values().filter_map(said).any(status::Phase::is_ready);
            let back = node.is_some_and(|node| node.heard && node.connected);
            let lost = self.silent.contains(&of) && !back && !spoke && !works;
            if lost && candidate.has(*digest) {
                let why = candidate.halted.as_ref().map(|halt| halt.why);
                // Whatever had stopped it before stands.
                assert!(why.is_some(), "{uid} is lost, and {name} goes on");
            }
        }
        let now_silent = slots.into_iter().filter(|of| {
            let node = self.world.nodes.values().find(|node| node.uid == of.1);
            node.is_some_and(|node| match (node.heard, node.connected) {
                (true, true) => false,
                (true, false) => !node.leaving || self.silent.contains(of),
                (false, _) => self.silent.contains(of),
            })
        });
        self.silent = now_silent.collect();
    }

    fn check(&self) {
        let world = &self.world;
        let slots = self.held();
        let new: BTreeSet<_> = slots.difference(&self.before).collect();
        let with_slot: BTreeSet<_> = slots.iter().map(|(_, uid, _)| uid.clone()).collect();
        // Nobody has a second slot of a type while one is out, nor one of another
        // type once anything has begun.
        for (name, uid, _) in &new {
            let out = slots.iter().filter(|of| of.1 == *uid && self.before.contains(of));
            for (of, _, digest) in out {
                assert_ne!(of, name, "a second slot for {uid}");
                let node = world.nodes.values().find(|node| node.uid == *uid).unwrap();
                let on = &node.runtimes[&world.resources[of].runtime];
                let said = on.report.filter(|r| r.0 == *digest).map(|r| r.1);
                assert!(!said.is_some_and(|phase| phase.is_ready()), "{uid} had its turn");
                assert_ne!(said, Some(status::Phase::Activating), "{uid} is at work");
            }
        }
        let counted = world.nodes.values().filter(|node| !node.joining);
        let degraded = |node: &super::world::Machine| {
            node.heard
                && node
                    .runtimes
                    .values()
                    .any(|on| on.report.is_some_and(|r| r.1 == status::Phase::Degraded))
        };
        let (mut all, mut unavailable) = (0, 0);
        for node in counted {
            all += 1;
            let away = !node.connected && node.heard;
            let down = node.leaving || !node.ready || away || degraded(node);
            unavailable += usize::from(down || with_slot.contains(&node.uid));
        }
        for (name, uid, _) in new {
            let node = world.nodes.values().find(|node| node.uid == *uid).unwrap();
            assert!(
                !node.joining && !node.leaving && node.connected,
                "{uid} needs none, or is not here"
            );
            let resource = &world.resources[name];
            let most = resource.strategy.max_unavailable(all);
            assert!(
                unavailable <= most,
                "{unavailable} of {all} unavailable for {name}, {most} may be"
            );
            assert!(!world.frozen && !world.states[name].paused, "{name} is stopped");
            let slot = world.states[name].slots.iter().find(|slot| slot.node == *uid).unwrap();
            let on = &node.runtimes[&resource.runtime];
            assert!(
                on.report.is_none_or(|r| (r.0, r.1) != (slot.digest, status::Phase::Proven)),
                "{uid} has it"
            );
        }
        for (name, state) in &world.states {
            assert!(state.size() <= crate::state::MAX_STATE, "{name}");
            if let Some(candidate) = &state.candidate {
                assert!(candidate.halted.is_some() || candidate.failed() <= 2);
            }
        }
        self.check_given(&world.last);
    }

    /// Nodes that only just came never meet what nobody has tried.
    fn check_given(&self, step: &crate::rollout::Step) {
        use crate::rollout::Give;
        for (node, sent) in self.world.nodes.values().zip(&step.nodes) {
            let resources = self.world.resources.iter().filter(|(_, r)| r.pool == node.pool);
            for ((name, resource), sent) in resources.zip(&sent.runtimes) {
                let state = &self.world.states[name];
                let Give::Candidate(digest) = sent.give else { continue };
                let slot = state.slots.iter().any(|s| s.node == node.uid && s.digest == digest);
                let on = node.runtimes.get(&resource.runtime);
                let has =
                    on.is_some_and(|on| on.report.is_some_and(|r| r.0 == digest && r.1.is_ready()));
                let first = node.joining && state.promoted.is_empty();
                assert!(slot || has || first, "{} is given {digest} of {name}", node.name);
            }
        }
    }

    fn minutes(&mut self, minutes: u64) {
        for _ in 0..minutes {
            self.turn(true);
            self.world.work();
            self.world.pass(1);
        }
    }

    /// After so many minutes so many nodes come, again and again.
    fn grow(&mut self, added: Vec<(u64, u32)>) {
        for (minutes, nodes) in added {
            self.minutes(minutes);
            self.happen(&Event::Scale(nodes));
            self.minutes(2);
            self.happen(&Event::Joined);
        }
    }

    /// After so many minutes another controller leads, to which everybody comes.
    fn restart_after(&mut self, minutes: u64) {
        self.minutes(minutes);
        self.happen(&Event::Restart);
        self.happen(&Event::Hear);
    }

    fn happen(&mut self, event: &Event) {
        let world = &mut self.world;
        let keys: Vec<u32> = world.nodes.keys().copied().collect();
        let pick = |of: usize| keys.get(of % keys.len().max(1)).copied();
        match *event {
            Event::Minutes(minutes) => self.minutes(minutes),
            Event::Join => {
                world.new_node("a");
            }
            Event::Joined => world.nodes.values_mut().for_each(|node| node.joining = false),
            Event::Scale(by) if keys.len() < 60 => (0..by).for_each(|_| {
                world.new_node("a");
            }),
            Event::Scale(_) => {}
            Event::Leave(of) => pick(of).into_iter().for_each(|n| world.node(n).leaving = true),
            Event::Gone(of) => pick(of).into_iter().for_each(|n| drop(world.nodes.remove(&n))),
            Event::Cut(of) => pick(of).into_iter().for_each(|n| world.node(n).connected = false),
            Event::Back(of) => pick(of).into_iter().for_each(|n| {
                let node = world.node(n);
                (node.connected, node.heard, node.ready) = (true, true, true);
            }),
            Event::Unready(of) => pick(of).into_iter().for_each(|n| world.node(n).ready = false),
            Event::Ready(of) => pick(of).into_iter().for_each(|n| world.node(n).ready = true),
            Event::Restart => world.restart(),
            Event::Hear => world.hear(),
            Event::Crash => {
                self.turn(false);
                self.world.restart();
                self.world.hear();
            }
            Event::Command(command) => {
                world.gvisor().command = Some(command);
                self.turn(true);
                self.world.gvisor().command = None;
            }
            Event::Target(of) => world.gvisor().target = Some(digest(BUNDLES[of])),
            Event::Unlucky(of, fate) => world.unlucky.extend(pick(of).map(|n| (n, fate))),
            Event::Frozen(frozen) => world.frozen = frozen,
            Event::Unknown => {
                let target = world.gvisor().target.take();
                let before = world.states["gvisor-a"].clone();
                self.turn(true);
                let after = &self.world.states["gvisor-a"];
                let given = |s: &crate::state::State| s.slots.len();
                let back = after
                    .candidate
                    .as_ref()
                    .is_some_and(|c| c.course == crate::rollout::record::Course::Back);
                assert!(back || given(after) <= given(&before), "a slot for what nobody knows");
                assert!(back || after.promoted == before.promoted);
                self.world.gvisor().target = target;
            }
        }
        self.turn(true);
    }

    /// Every fault ends, and somebody looks after what was halted.
    fn mend(&mut self) {
        let world = &mut self.world;
        (world.frozen, world.pods) = (false, true);
        world.fates.clear();
        world.unlucky.clear();
        if world.nodes.is_empty() {
            world.old_node("a");
        }
        for node in world.nodes.values_mut() {
            (node.connected, node.heard, node.ready) = (true, true, true);
            (node.joining, node.leaving) = (false, false);
        }
        let target = world.gvisor().target.unwrap();
        for _ in 0..200 {
            // Somebody tells nodes that failed with the promoted bundle to try again.
            for node in self.world.nodes.values_mut() {
                node.runtimes.values_mut().for_each(|on| on.refused.clear());
            }
            self.minutes(10);
            let world = &self.world;
            let done = |(name, of): (&String, &super::world::Resource)| {
                world.states[name].promoted.get(&AMD) == of.target.as_ref()
                    && world
                        .nodes
                        .values()
                        .all(|node| node.runtimes[&of.runtime].works == of.target)
            };
            if world.resources.iter().all(done) {
                return;
            }
            for name in ["gvisor-a", "kata-a"] {
                let progress = &self.world.last.progress[name];
                let command = if progress.phase == Phase::Paused {
                    Command::Resume
                } else if progress.can.contains(&Command::Retry) {
                    Command::Retry
                } else {
                    continue;
                };
                self.world.resources.get_mut(name).unwrap().command = Some(command);
                self.turn(true);
                self.world.resources.get_mut(name).unwrap().command = None;
                self.turn(true);
            }
        }
        panic!(
            "{target} is not promoted: {:#?}\n{:#?}",
            self.world.last.progress, self.world.states
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn every_law_holds_whatever_happens_and_it_ends_well(
        nodes in 0..25_u32, canary in 1..4_u32, unavailable in 1..60_u8, first in prop::bool::weighted(0.2),
        fates in [fates(), fates(), fates()], events in prop::collection::vec(events(), 1..60),
    ) {
        let mut model = Model::new(nodes, canary, unavailable, fates, first);
        for event in &events {
            model.happen(event);
        }
        model.mend();
    }

    #[test]
    fn a_bundle_that_breaks_every_node_breaks_the_canary_and_no_node_that_was_added(
        nodes in 3..40_u32, canary in 1..4_u32, unavailable in 10..60_u8, budget in 3..9_u32,
        fate in prop::sample::select(&[Fate::RollsBack, Fate::Degrades, Fate::FailsPods][..]),
        added in prop::collection::vec((0..8_u64, 1..20_u32), 0..6), restarts in prop::collection::vec(1..9_u64, 0..4),
    ) {
        let mut model = Model::new(nodes, canary, unavailable, [fate; 3], false);
        model.world.strategy(json!({"failureBudget": budget}));
        model.grow(added);
        for minutes in restarts {
            model.restart_after(minutes);
        }
        model.minutes(200);
        let tried: BTreeSet<u32> = model.world.tried("one").into_iter().collect();
        prop_assert_eq!(tried.len(), model.world.tried("one").len(), "nobody tries it twice");
        prop_assert_eq!(tried.len() as u32, canary.min(nodes));
        // Those that may not all be unavailable at once try it one after the
        // other, and a node that came in between is one of the pool by then.
        if crate::rollout::Amount::Percent(unavailable).down(nodes as usize) >= canary as usize {
            prop_assert!(tried.iter().all(|node| *node <= nodes), "{:?} of {}", tried, nodes);
        }
    }

    #[test]
    fn a_bundle_that_silences_every_node_silences_the_canary_and_no_node_that_was_added(
        nodes in 3..40_u32, canary in 1..4_u32, unavailable in 10..60_u8, replaced in prop::option::of(1..40_u64),
        drained in any::<bool>(), added in prop::collection::vec((0..8_u64, 1..20_u32), 0..6),
        restarts in prop::collection::vec(1..9_u64, 0..4), retries in 0..3_u32,
    ) {
        let mut model = Model::new(nodes, canary, unavailable, [Fate::Silences; 3], false);
        model.grow(added);
        for minutes in restarts {
            model.restart_after(minutes);
            model.minutes(1);
            // Whoever has not come by then is away.
            model.world.nodes.values_mut().for_each(|node| node.heard = true);
        }
        for tries in 1..=retries + 1 {
            model.minutes(20);
            // Whoever looks after machines replaces those that are silent.
            if let Some(minutes) = replaced {
                model.minutes(minutes);
                model.world.nodes.values_mut().for_each(|node| node.leaving |= drained && !node.connected);
                model.minutes(1);
                let before = model.world.nodes.len();
                model.world.nodes.retain(|_, node| node.connected);
                for _ in model.world.nodes.len()..before {
                    model.world.old_node("a");
                }
            }
            model.minutes(200);
            let tried = model.world.tried("one");
            let each: BTreeSet<u32> = tried.iter().copied().collect();
            prop_assert_eq!(each.len(), tried.len(), "nobody tries it twice");
            prop_assert!(tried.len() as u32 <= canary * tries, "{:?}", tried);
            if tried.len() as u32 > canary * (tries - 1) || tries == 1 {
                prop_assert_eq!(model.world.phase(), Phase::Halted(Why::CanaryLost));
            }
            if tries <= retries {
                model.happen(&Event::Command(Command::Retry));
            }
        }
    }
}
