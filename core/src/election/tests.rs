//! Replicas whose clocks differ, which are stopped and cut off, against an API
//! that answers late, or not at all.

use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn times() -> Times {
    Times::of(15 * SECOND)
}

fn record(version: &str, holder: &str, transitions: u64) -> Record {
    let (version, holder) = (version.to_owned(), holder.to_owned());
    Record { version, holder, transitions, duration: 15 * SECOND }
}

/// Carries a write out at once.
fn write(election: &mut Election, now: Duration) -> Write {
    let Act::Write(write) = election.act(now) else { panic!("nothing is written: {election:?}") };
    election.wrote(&write, format!("{now:?}"), now, now);
    write
}

#[test]
fn the_times_are_those_of_the_contract() {
    let want = Times { duration: 15 * SECOND, renew: 2 * SECOND, give_up: 10 * SECOND };
    assert_eq!(times(), want);
}

#[test]
fn a_lease_is_taken_when_nobody_has_it() {
    let table = [
        (None, 0, true, "there is none"),
        (Some(record("1", "", 6)), 0, true, "it was released"),
        (Some(record("1", "me", 6)), 0, true, "an earlier life had it"),
        (Some(record("1", "other", 6)), 14, false, "its holder may live"),
        (Some(record("1", "other", 6)), 15, true, "its holder was silent"),
    ];
    for (seen, after, taken, why) in table {
        let mut election = Election::new("me".to_owned(), times());
        assert_eq!(election.act(SECOND), Act::Read);
        election.saw(seen.clone(), SECOND);
        let now = SECOND * (1 + after);
        // Whoever waits goes on looking, and sees the same.
        if election.act(now) == Act::Read {
            election.saw(seen.clone(), now);
        }
        let Act::Write(write) = election.act(now) else {
            assert!(!taken, "{why}");
            continue;
        };
        assert!(taken, "{why}");
        assert_eq!(write.over, seen.as_ref().map(|seen| seen.version.clone()), "{why}");
        let before = seen.map_or(0, |seen| seen.transitions);
        assert_eq!((write.transitions, write.begins), (before + 1, true), "{why}");
    }
}

#[test]
fn each_change_of_it_is_a_sign_of_life() {
    let mut election = Election::new("me".to_owned(), times());
    for second in 0..60 {
        let now = SECOND * second;
        if election.act(now) == Act::Read {
            election.saw(Some(record(&(second / 14).to_string(), "other", 1)), now);
        }
        assert!(!matches!(election.act(now), Act::Write(_)), "{second}");
    }
}

#[test]
fn a_leader_renews_and_gives_up_in_time() {
    let mut election = Election::new("me".to_owned(), times());
    election.saw(None, Duration::ZERO);
    assert!(write(&mut election, Duration::ZERO).begins);
    assert_eq!(election.term(SECOND), Some(Term { epoch: 1, until: 10 * SECOND }));
    assert_eq!(election.act(SECOND), Act::Wait(2 * SECOND));
    let renewal = write(&mut election, 2 * SECOND);
    assert_eq!((renewal.transitions, renewal.begins), (1, false));
    assert_eq!(renewal.holder, "me");
    // From here on nothing comes through.
    let (mut now, mut tries) = (4 * SECOND, 0);
    while election.term(now).is_some() {
        match election.act(now) {
            Act::Wait(then) => now = then,
            Act::Read | Act::Write(_) => {
                tries += 1;
                election.failed(now);
            }
        }
    }
    assert_eq!(now, 12 * SECOND);
    assert!(tries >= 5, "{tries} tries");
    // Its own Lease is taken up again, as another term.
    election.saw(Some(record("7", "me", 1)), now);
    assert_eq!(write(&mut election, now).transitions, 2);
}

#[test]
fn what_others_write_into_it_ends_no_term_but_another_holder_does() {
    let mut election = Election::new("me".to_owned(), times());
    election.saw(None, Duration::ZERO);
    write(&mut election, Duration::ZERO);
    let now = 2 * SECOND;
    election.refused(now);
    assert_eq!(election.act(now), Act::Read);
    election.saw(Some(record("labelled", "me", 1)), now);
    assert_eq!(write(&mut election, now).over.as_deref(), Some("labelled"));
    election.refused(now);
    election.saw(Some(record("8", "other", 2)), now);
    assert_eq!(election.term(now), None);
    // It is deleted: the other may not know yet. The next term is a later one.
    election.refused(now);
    election.saw(None, now);
    let (wait, then) = (election.act(now + 14 * SECOND), now + 15 * SECOND);
    assert!(!matches!(wait, Act::Write(_)), "{wait:?}");
    assert_eq!(write(&mut election, then).transitions, 3);
}

#[test]
fn an_answer_that_comes_too_late_begins_nothing() {
    let mut election = Election::new("me".to_owned(), times());
    election.saw(None, Duration::ZERO);
    let Act::Write(first) = election.act(Duration::ZERO) else { panic!("a claim") };
    election.wrote(&first, "1".to_owned(), Duration::ZERO, 10 * SECOND);
    assert_eq!(election.term(10 * SECOND), None);

    election.saw(Some(record("1", "me", 1)), 10 * SECOND);
    write(&mut election, 10 * SECOND);
    let Act::Write(renewal) = election.act(12 * SECOND) else { panic!("a renewal") };
    // Whoever worked in the term's name has stopped at 20 s.
    election.wrote(&renewal, "3".to_owned(), 12 * SECOND, 21 * SECOND);
    assert_eq!(election.term(21 * SECOND), None);
    assert_eq!(election.act(21 * SECOND), Act::Read);
}

#[test]
fn who_leaves_lets_go() {
    let mut election = Election::new("me".to_owned(), times());
    assert_eq!(election.release(Duration::ZERO), None);
    election.saw(None, Duration::ZERO);
    write(&mut election, Duration::ZERO);
    let Some(Act::Write(release)) = election.release(SECOND) else { panic!("it is its own") };
    assert_eq!((release.holder.as_str(), release.transitions), ("", 1));
    assert_eq!(election.term(SECOND), None);
    assert_eq!(election.release(SECOND), None, "once");
}

#[test]
fn who_leaves_after_a_lost_answer_looks_whose_it_is() {
    let lost = |begins: bool| {
        let mut election = Election::new("me".to_owned(), times());
        election.saw(None, Duration::ZERO);
        if !begins {
            write(&mut election, Duration::ZERO);
        }
        // It was carried out, or was not: nobody has heard.
        election.failed(2 * SECOND);
        election
    };
    for begins in [true, false] {
        let mut election = lost(begins);
        assert_eq!(election.release(3 * SECOND), Some(Act::Read), "{begins}");
        assert_eq!(election.term(3 * SECOND), None);
        let table = [
            (Some(record("renewed", "me", 1)), Some("renewed"), "its own"),
            (Some(record("8", "other", 2)), None, "another's"),
            (Some(record("8", "", 1)), None, "released already"),
            (None, None, "gone"),
        ];
        for (there, over, why) in table {
            let write = election.release_what(there);
            assert_eq!(write.as_ref().and_then(|write| write.over.as_deref()), over, "{why}");
            assert!(write.is_none_or(|write| write.holder.is_empty() && write.transitions == 1));
        }
    }
    // Its term is over, and its Lease goes on for a while.
    let mut election = lost(false);
    assert_eq!(election.release(11 * SECOND), Some(Act::Read));
}

/// What befalls a replica, or all of them, at a moment.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// It does nothing for so many tenths of a second; what it has sent goes on.
    Stop(u32),
    /// Nothing comes through for so long.
    CutOff(u32),
    /// What it asks is done, but it is not told.
    Deaf(u32),
    /// It dies and lives again under the same name.
    Restart,
    /// Somebody else changes something of the Lease.
    Touch,
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        (1..400_u32).prop_map(Fault::Stop),
        (1..400_u32).prop_map(Fault::CutOff),
        (1..400_u32).prop_map(Fault::Deaf),
        Just(Fault::Restart),
        Just(Fault::Touch),
    ]
}

/// One replica and its surroundings. Ticks are tenths of a second of true time.
struct Replica {
    name: String,
    election: Election,
    /// How many thousandths of true time its clock runs.
    rate: u32,
    stopped: u32,
    cut_off: u32,
    deaf: u32,
    /// How many requests it has made.
    requests: u32,
    /// What has not reached the API yet, and at which tick it does.
    under_way: Vec<(u32, Act, u32)>,
    /// What it waits for: the request's number, and when it was sent by its own clock.
    asked: Option<(u32, Act, Duration)>,
    /// Answers by number, and the tick at which they are there.
    answers: Vec<(u32, Answer, u32)>,
}

enum Answer {
    Read(Option<Record>),
    Wrote(String),
    Refused,
}

#[derive(Default)]
struct Lease {
    record: Option<Record>,
    version: u64,
}

impl Lease {
    fn carry_out(&mut self, act: &Act) -> Answer {
        let Act::Write(write) = act else { return Answer::Read(self.record.clone()) };
        if write.over != self.record.as_ref().map(|record| record.version.clone()) {
            return Answer::Refused;
        }
        self.version += 1;
        let version = self.version.to_string();
        self.record = Some(record(&version, &write.holder, write.transitions));
        Answer::Wrote(version)
    }
}

impl Replica {
    fn new(index: usize, rate: u32) -> Self {
        let name = format!("replica-{index}");
        let election = Election::new(name.clone(), times());
        let (stopped, cut_off, deaf, requests, asked) = (0, 0, 0, 0, None);
        let (under_way, answers) = (Vec::new(), Vec::new());
        Self { name, election, rate, stopped, cut_off, deaf, requests, under_way, asked, answers }
    }

    fn clock(&self, tick: u32) -> Duration {
        Duration::from_millis(u64::from(tick) * 100) * self.rate / 1000
    }

    /// The epoch of its term, if it can act in its name.
    fn leads(&self, tick: u32) -> Option<u64> {
        let term = self.election.term(self.clock(tick)).filter(|_| self.stopped == 0);
        term.map(|term| term.epoch)
    }

    fn befall(&mut self, fault: Fault, lease: &mut Lease) {
        match fault {
            Fault::Stop(ticks) => self.stopped = ticks,
            Fault::CutOff(ticks) => self.cut_off = ticks,
            Fault::Deaf(ticks) => self.deaf = ticks,
            Fault::Restart => {
                self.election = Election::new(self.name.clone(), times());
                self.asked = None;
            }
            Fault::Touch => {
                if let Some(record) = &mut lease.record {
                    lease.version += 1;
                    record.version = lease.version.to_string();
                }
            }
        }
    }

    /// Lives for a tick. A request is under way for so long, and its answer too.
    fn live(&mut self, lease: &mut Lease, tick: u32, delay: u32) {
        let (arrived, rest) = std::mem::take(&mut self.under_way)
            .into_iter()
            .partition(|(_, _, arrives)| *arrives <= tick);
        self.under_way = rest;
        for (number, act, _) in arrived {
            if self.cut_off == 0 {
                let answer = lease.carry_out(&act);
                if self.deaf == 0 {
                    self.answers.push((number, answer, tick + delay));
                }
            }
        }
        if self.stopped == 0 {
            self.run(tick, delay);
        }
        for left in [&mut self.stopped, &mut self.cut_off, &mut self.deaf] {
            *left = left.saturating_sub(1);
        }
    }

    fn run(&mut self, tick: u32, delay: u32) {
        let now = self.clock(tick);
        let Some((number, act, sent)) = self.asked.take() else {
            match self.election.act(now) {
                Act::Wait(_) => {}
                act @ (Act::Read | Act::Write(_)) => {
                    self.requests += 1;
                    self.under_way.push((self.requests, act.clone(), tick + 1 + delay));
                    self.asked = Some((self.requests, act, now));
                }
            }
            return;
        };
        let there = self.answers.iter().position(|(n, _, at)| *n == number && *at <= tick);
        match (there.map(|index| self.answers.swap_remove(index).1), &act) {
            (Some(Answer::Read(record)), _) => self.election.saw(record, now),
            (Some(Answer::Wrote(version)), Act::Write(write)) => {
                self.election.wrote(write, version, sent, now);
            }
            (Some(Answer::Wrote(_)), Act::Read | Act::Wait(_)) => {
                panic!("nothing was to be written")
            }
            (Some(Answer::Refused), _) => self.election.refused(now),
            // What is under way may still be carried out.
            (None, _) if now >= sent + times().patience() => self.election.failed(now),
            (None, _) => self.asked = Some((number, act, sent)),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn never_two_lead_and_in_the_end_one_does(
        rates in proptest::collection::vec(900..1100_u32, 3),
        faults in proptest::collection::btree_map(0..3000_u32, (0..3_usize, fault()), 0..40),
        delays in proptest::collection::vec(0..40_u32, 64),
    ) {
        let mut lease = Lease::default();
        let replicas = rates.iter().enumerate().map(|(index, rate)| Replica::new(index, *rate));
        let mut replicas: Vec<_> = replicas.collect();
        let (mut epoch, mut leader) = (0, None);
        // All that befalls them is over at 3,400: what comes after is quick answers.
        for tick in 0..4000_u32 {
            if let Some((index, fault)) = faults.get(&tick) {
                replicas[*index].befall(*fault, &mut lease);
            }
            for (index, replica) in replicas.iter_mut().enumerate() {
                let delay = delays[(tick as usize * 3 + index) % delays.len()];
                replica.live(&mut lease, tick, if tick < 3400 { delay } else { delay / 10 });
            }
            let leading: Vec<_> =
                replicas.iter().filter_map(|r| Some((&r.name, r.leads(tick)?))).collect();
            prop_assert!(leading.len() <= 1, "at {tick}: {leading:?}");
            if let Some((name, now)) = leading.first() {
                let same = leader.as_ref() == Some(*name) && *now == epoch;
                prop_assert!(same || *now > epoch, "at {tick}: term {now} after {epoch}");
                (epoch, leader) = (*now, Some((*name).clone()));
            }
        }
        let leads = replicas.iter().any(|replica| replica.leads(3999).is_some());
        prop_assert!(leads, "nobody leads: {:?}", lease.record);
    }
}
