use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

use super::world::{AMD, digest, kind};
use crate::name::ShootName;
use crate::rollout::record::Digests;
use crate::rollout::rings::{
    InShoot, Observed, Presence, RingsConfig, RingsRecord, TypeRecord, rings,
};
use crate::rollout::view::Standing;
use crate::status::Reason;

fn shoot(number: usize) -> ShootName {
    format!("shoot--it--{number}").parse().unwrap()
}

fn bundle(name: &str) -> Digests {
    [(AMD, digest(name))].into()
}

fn here() -> Presence {
    Presence::Here(InShoot::default())
}

struct Seed {
    config: RingsConfig,
    record: RingsRecord,
    seen: Observed,
    now: Timestamp,
}

impl Seed {
    /// A hundred shoots, the first two opted in, with `old` promoted and `new` as the target.
    fn new() -> Self {
        let config =
            RingsConfig { opted_in: [shoot(0), shoot(1)].into(), ..RingsConfig::default() };
        let mut record = RingsRecord::default();
        let of = TypeRecord { promoted: bundle("old"), ..TypeRecord::default() };
        record.types.insert(kind("gvisor"), of);
        let mut seen = Observed::default();
        seen.targets.insert(kind("gvisor"), bundle("new"));
        for number in 0..100 {
            seen.shoots.insert((kind("gvisor"), shoot(number)), here());
        }
        Self { config, record, seen, now: "2026-07-01T10:00:00Z".parse().unwrap() }
    }

    fn of(&self) -> &TypeRecord {
        &self.record.types[&kind("gvisor")]
    }

    fn is(&mut self, number: usize, presence: Presence) {
        self.seen.shoots.insert((kind("gvisor"), shoot(number)), presence);
    }

    /// What a shoot says; one that was not there comes.
    fn says(&mut self, number: usize) -> &mut InShoot {
        let presence = self.seen.shoots.get_mut(&(kind("gvisor"), shoot(number))).unwrap();
        if !matches!(presence, Presence::Here(_)) {
            *presence = here();
        }
        let Presence::Here(says) = presence else { unreachable!() };
        says
    }

    /// A controller begins, and has looked at no shoot.
    fn new_term(&mut self) {
        self.seen.shoots.values_mut().for_each(|presence| *presence = Presence::Awaited);
    }

    fn look(&mut self, minutes: i64) -> Option<Timestamp> {
        self.now = self.now.checked_add(SignedDuration::from_mins(minutes)).unwrap();
        let found = rings(&self.config, &self.record, &self.seen, self.now);
        let again = rings(&self.config, &found.record, &self.seen, self.now);
        assert_eq!(again, found, "the same look again changes nothing");
        let text = serde_json::to_string(&found.record).unwrap();
        assert_eq!(serde_json::from_str::<RingsRecord>(&text).unwrap(), found.record);
        self.record = found.record;
        found.next
    }

    fn standing(&self, number: usize, of: &str) -> Standing {
        self.of().seed(&self.config, &shoot(number)).digests[&digest(of)]
    }

    fn open(&self) -> Vec<usize> {
        (0..100).filter(|number| self.standing(*number, "new") == Standing::Open).collect()
    }

    /// Every shoot that may has started sandboxes.
    fn use_it(&mut self) {
        for number in self.open() {
            *self.says(number) = InShoot { started: 6, ready: 1, halted: BTreeSet::new() };
        }
    }
}

#[test]
fn a_bundle_opens_ring_by_ring() {
    let mut seed = Seed::new();
    seed.look(0);
    assert_eq!(seed.open(), [0, 1]);
    assert_eq!(seed.standing(50, "old"), Standing::Open);
    seed.look(10_000);
    assert_eq!(seed.open(), [0, 1], "nobody used it");
    seed.says(0).started = 50;
    seed.look(1);
    assert_eq!(seed.of().opening.as_ref().unwrap().used, None, "one shoot is not enough");
    seed.use_it();
    let next = seed.look(1);
    assert_eq!(next, Some(seed.now.checked_add(SignedDuration::from_hours(1)).unwrap()));
    seed.look(59);
    assert_eq!(seed.open().len(), 2, "it soaks");
    seed.look(1);
    let tenth = seed.open();
    assert!((5..20).contains(&tenth.len()), "{tenth:?}");
    // The ring that is open now has to prove it anew, and what it needs is there already.
    seed.look(60);
    assert_eq!(seed.open().len(), 100);
    seed.use_it();
    seed.look(0);
    seed.look(60);
    assert_eq!(seed.of().promoted, bundle("new"));
    assert_eq!(seed.of().opening, None);
}

#[test]
fn one_shoot_stops_itself_alone() {
    let mut seed = Seed::new();
    seed.look(0);
    seed.says(0).halted.insert(Reason::ProofFailed);
    seed.says(1).halted.insert(Reason::HandlerMissing);
    seed.look(1);
    assert_eq!(seed.open(), [0, 1], "two classes");
    assert!(seed.of().stopped.is_empty());
}

#[test]
fn the_same_failure_in_two_shoots_stops_it_for_the_seed() {
    let mut seed = Seed::new();
    seed.look(0);
    seed.says(0).halted.insert(Reason::ProofFailed);
    seed.look(1);
    // It says so no more, and it was so.
    seed.says(0).halted.clear();
    seed.says(1).halted.insert(Reason::ProofFailed);
    seed.look(1);
    assert_eq!(seed.standing(0, "new"), Standing::Stopped);
    assert_eq!(seed.of().stopped[0].shoots, [shoot(0), shoot(1)].into());
    seed.look(10_000);
    assert_eq!(seed.standing(50, "new"), Standing::Stopped);
    assert_eq!(seed.standing(50, "old"), Standing::Open);
    // Another bundle is another matter, and the stopped one stays so.
    seed.says(1).halted.clear();
    seed.seen.targets.insert(kind("gvisor"), bundle("next"));
    seed.look(1);
    assert_eq!(seed.standing(0, "next"), Standing::Open);
    seed.seen.targets.insert(kind("gvisor"), bundle("new"));
    seed.look(1);
    assert_eq!(seed.standing(0, "new"), Standing::Stopped);
    seed.seen.cleared.insert(kind("gvisor"));
    seed.look(1);
    assert_eq!(seed.open(), [0, 1]);
}

#[test]
fn a_canary_shoot_stops_it_alone() {
    let mut seed = Seed::new();
    seed.config.canaries.insert(shoot(7));
    seed.look(0);
    assert_eq!(seed.open(), [0, 1, 7]);
    seed.says(7).halted.insert(Reason::CrashLoop);
    seed.look(1);
    assert_eq!(seed.standing(0, "new"), Standing::Stopped);
}

#[test]
fn a_ring_without_shoots_is_passed_over() {
    let mut seed = Seed::new();
    seed.config.opted_in.clear();
    seed.look(0);
    assert!((2..20).contains(&seed.open().len()), "{:?}", seed.open());
    seed.seen.shoots.clear();
    seed.look(1);
    assert_eq!(seed.of().opening.as_ref().unwrap().ring, 2);
    seed.look(100_000);
    assert_eq!(seed.of().promoted, bundle("old"), "a seed without shoots promotes nothing");
}

#[test]
fn a_ring_without_pods_is_over_after_a_while() {
    let mut seed = Seed::new();
    seed.look(0);
    seed.says(0).ready = 3;
    seed.look(10_000);
    assert_eq!(seed.open(), [0, 1], "it could be tried only now");
    let patience = seed.now.checked_add(SignedDuration::from_hours(72)).unwrap();
    assert_eq!(seed.look(1), Some(patience));
    seed.look(72 * 60 - 1);
    assert!(seed.open().len() > 2);
    let mut seed = Seed::new();
    seed.look(0);
    seed.says(0).ready = 3;
    seed.says(1).halted.insert(Reason::ProofFailed);
    seed.look(100_000);
    assert_eq!(seed.open().len(), 2, "one failed");
}

#[test]
fn what_sleeps_or_was_not_looked_at_stays_in_its_ring() {
    for absent in [Presence::Awaited, Presence::Away] {
        let mut seed = Seed::new();
        seed.look(0);
        seed.is(0, absent.clone());
        seed.is(1, absent.clone());
        // The next ring would open a second later, and all of them with a
        // tenth that is absent too.
        for _ in 0..100 {
            seed.look(1);
        }
        assert_eq!(seed.open(), [0, 1], "{absent:?}");
        // One of two does not prove what two are to prove.
        seed.says(0).started = 50;
        seed.look(1);
        seed.look(120);
        assert_eq!(seed.open(), [0, 1], "{absent:?}");
    }
}

#[test]
fn no_other_ring_opens_before_every_shoot_was_looked_at() {
    let mut seed = Seed::new();
    seed.new_term();
    seed.look(0);
    assert_eq!(seed.open(), [0, 1], "the first ring needs nobody's word");
    seed.look(100_000);
    assert_eq!(seed.open(), [0, 1], "others may have broken with it before");
    (0..100).for_each(|number| seed.is(number, here()));
    seed.look(0);
    seed.use_it();
    seed.look(0);
    // The leader goes, and the soak ends before the next one has looked around.
    seed.new_term();
    (0..99).for_each(|number| seed.is(number, here()));
    seed.use_it();
    seed.look(60);
    assert_eq!(seed.open(), [0, 1]);
    seed.is(99, here());
    seed.look(1);
    assert!(seed.open().len() > 2);
}

#[test]
fn types_that_come_together_open_together() {
    let mut seed = Seed::new();
    seed.seen.targets.insert(kind("kata"), bundle("kata"));
    // Nobody of the first ring has it, and one shoot is out of reach.
    seed.seen.shoots.insert((kind("kata"), shoot(7)), here());
    seed.is(1, Presence::Awaited);
    seed.look(0);
    let ring = |of: &str| seed.record.types[&kind(of)].opening.as_ref().map(|of| of.ring);
    assert_eq!(ring("gvisor"), Some(0));
    assert!(ring("kata").is_some_and(|ring| ring > 0));
}

#[test]
fn what_broke_shoots_is_stopped_whoever_was_not_looked_at() {
    let mut seed = Seed::new();
    // What was recorded is lost.
    seed.record = RingsRecord::default();
    seed.new_term();
    seed.says(7).halted.insert(Reason::ProofFailed);
    seed.look(0);
    seed.says(8).halted.insert(Reason::ProofFailed);
    seed.look(0);
    assert_eq!(seed.standing(0, "new"), Standing::Stopped);
}

#[test]
fn a_ring_that_sleeps_for_days_is_over() {
    let mut seed = Seed::new();
    (0..2).for_each(|number| seed.is(number, Presence::Away));
    let hours = |now: Timestamp, hours| now.checked_add(SignedDuration::from_hours(hours)).unwrap();
    assert_eq!(seed.look(0), Some(hours(seed.now, 72)));
    // Who sleeps at night is there again in the morning.
    seed.look(71 * 60);
    seed.is(1, here());
    seed.look(30);
    seed.is(1, Presence::Away);
    assert_eq!(seed.look(30), Some(hours(seed.now, 72)));
    // A new leader does not know yet who sleeps, and begins no new count.
    seed.new_term();
    seed.look(60);
    (2..100).for_each(|number| seed.is(number, here()));
    (0..2).for_each(|number| seed.is(number, Presence::Away));
    assert_eq!(seed.look(0), Some(hours(seed.now, 71)));
    seed.look(71 * 60);
    assert!((5..20).contains(&seed.open().len()), "{:?}", seed.open());

    // It proves nothing that all of them sleep.
    let mut seed = Seed::new();
    (0..100).for_each(|number| seed.is(number, Presence::Away));
    for _ in 0..10 {
        seed.look(100_000);
    }
    assert_eq!(seed.of().promoted, bundle("old"));
}

#[test]
fn a_ring_that_fell_asleep_with_a_bundle_does_not_say_that_it_works() {
    let mut seed = Seed::new();
    seed.look(0);
    seed.use_it();
    seed.look(0);
    (0..2).for_each(|number| seed.is(number, Presence::Away));
    seed.look(60);
    assert_eq!(seed.open(), [0, 1]);
    seed.says(0).ready = 1;
    seed.look(60);
    assert!(seed.open().len() > 2);
}

#[test]
fn the_first_bundle_of_a_type_opens_ring_by_ring() {
    let mut seed = Seed::new();
    // A new seed, or one whose record is lost.
    seed.record = RingsRecord::default();
    seed.look(0);
    assert_eq!(seed.open(), [0, 1]);
    assert_eq!(seed.standing(50, "new"), Standing::First);
    seed.seen.targets.insert(kind("gvisor"), bundle("next"));
    seed.look(600);
    assert_eq!(seed.standing(0, "next"), Standing::Open);
    assert_eq!(seed.standing(50, "next"), Standing::First, "all have what came before it");
}

#[test]
fn what_is_not_known_changes_nothing() {
    let mut seed = Seed::new();
    seed.look(0);
    let before = seed.record.clone();
    seed.seen.targets.clear();
    seed.look(100_000);
    seed.seen.targets.insert(kind("gvisor"), Digests::new());
    seed.look(1);
    assert_eq!(seed.record, before);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// A shoot that may try a bundle may go on until it is stopped, none may
    /// while one was not looked at, and the record does not grow with what
    /// shoots say.
    #[test]
    fn a_ring_never_closes(
        says in prop::collection::vec(
            (0..12_usize, 0..20_u64, 0..40_usize, 0..60_usize, 0..200_i64),
            1..60,
        ),
    ) {
        let mut seed = Seed::new();
        seed.look(0);
        for (number, started, class, presence, minutes) in says {
            let before = seed.open();
            seed.says(number).started += started;
            if let Some(reason) = [Reason::ProofFailed, Reason::CrashLoop].get(class) {
                seed.says(number).halted.insert(*reason);
            }
            if let Some(absent) = [Presence::Awaited, Presence::Away].get(presence) {
                seed.is(number, absent.clone());
            }
            seed.look(minutes);
            let stopped = seed.standing(0, "new") == Standing::Stopped;
            let open = seed.open();
            prop_assert!(stopped || before.iter().all(|number| open.contains(number)));
            let awaited = seed.seen.shoots.values().any(|shoot| *shoot == Presence::Awaited);
            prop_assert!(!awaited || open.len() <= before.len());
            prop_assert!(serde_json::to_string(&seed.record).unwrap().len() < 1500);
        }
    }
}
