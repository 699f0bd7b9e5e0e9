//! The controller's process: it begins, is killed, and begins again.

use std::time::Duration;

use super::World;
use crate::api::{Answer, Body, Key, Mishap, Write};
use crate::controller::{Controller, Effect, Turn};
use crate::laws::Law;
use crate::plan::KillAt;
use crate::queue::Event;

impl World {
    /// The controller that there is does something.
    pub(super) fn control(&mut self, what: impl FnOnce(&mut Controller, &mut Turn<'_>)) {
        let Some(controller) = &mut self.controller else { return };
        let (of, api, now) = (&self.plan.settings, &self.api, self.now);
        let mut turn = Turn { of, api, now, effects: Vec::new() };
        what(controller, &mut turn);
        let effects = turn.effects;
        let (term, tick) = (controller.term, controller.tick_due());
        for effect in effects {
            match effect {
                Effect::Send(node, stream, down) => self.send_down(node, stream, down),
                Effect::Write(key, version, body) => self.write(term, key, version, body),
                Effect::Look(shoot, at) => self.queue.at(at, Event::Look(term, shoot)),
                Effect::Rings(at) => self.queue.at(at, Event::Rings(term)),
            }
        }
        if let Some(at) = tick.map(|at| at.max(self.now))
            && self.ticks.is_none_or(|ticks| at < ticks || ticks <= self.now)
        {
            self.ticks = Some(at);
            self.queue.at(at, Event::Tick(term));
        }
    }

    /// The same, if it is still the one of that term.
    pub(super) fn control_of(
        &mut self,
        term: u32,
        what: impl FnOnce(&mut Controller, &mut Turn<'_>),
    ) {
        if self.controller.as_ref().is_some_and(|controller| controller.term == term) {
            self.control(what);
        }
    }

    pub(super) fn begin(&mut self) {
        self.term += 1;
        self.ticks = None;
        let controller = Controller::new(self.term, &self.plan.settings, self.budgets, self.now);
        self.controller = Some(controller);
        let listed = self.now + self.rng.millis(100..500);
        self.queue.at(listed, Event::Listed(self.term));
        if let Some(every) = self.plan.faults.kill_every
            && self.now + every < self.plan.faults.kills_until
        {
            self.queue.at(self.now + every, Event::Kill);
        }
    }

    /// It ends between two events, without a word; its streams end with it.
    pub(super) fn kill(&mut self) {
        if self.controller.take().is_none() {
            return;
        }
        self.kills += 1;
        for number in 0..self.nodes.len() {
            let node = &self.nodes[number];
            if let Some(stream) = node.stream {
                // What was sent before comes before.
                let reset = self.notes[number].down.max(self.now + node.traits.latency);
                self.queue.at(reset, Event::Dropped(number, stream));
            }
        }
        let begins = self.now + self.rng.millis(300..1_500);
        self.queue.at(begins, Event::Begin);
    }

    pub(super) fn listed(&mut self, term: u32) {
        let exist = (0..self.nodes.len()).filter(|number| !self.notes[*number].gone);
        let nodes: Vec<_> = exist.map(|number| (number, self.facts(number))).collect();
        let target = if self.aimed { Some(self.plan.target) } else { self.plan.old };
        self.control_of(term, |controller, turn| {
            controller.listed(nodes.into_iter(), target, turn);
        });
    }

    pub(super) fn seen(&mut self, number: usize) {
        if self.notes[number].gone {
            return;
        }
        let facts = self.facts(number);
        self.control(|controller, turn| {
            controller.saw(number, facts, turn);
        });
    }

    fn write(&mut self, term: u32, key: Key, version: u64, body: Body) {
        let mishap = self
            .rng
            .chance(self.plan.faults.writes_fail)
            .then(|| if self.rng.chance(500) { Mishap::Lost } else { Mishap::Unanswered });
        let lands = self.now + self.rng.millis(3..30);
        self.queue.at(lands, Event::Land(Box::new(Write { term, key, version, body, mishap })));
    }

    pub(super) fn land(&mut self, write: Write) {
        let (term, key, mishap) = (write.term, write.key, write.mishap);
        let number = self.api.writes + 1;
        let due = self.plan.faults.kill_at_write;
        if due == Some(KillAt::Before(number)) && self.kills == 0 {
            self.kill();
            return;
        }
        let version = if mishap == Some(Mishap::Lost) { None } else { self.record(write) };
        if due == Some(KillAt::After(number)) && self.kills == 0 {
            self.kill();
            return;
        }
        let version = version.filter(|_| mishap.is_none());
        let answers = self.now + self.rng.millis(1..15);
        self.queue.at(answers, Event::Answer(Box::new(Answer { term, key, version })));
    }

    fn record(&mut self, write: Write) -> Option<u64> {
        let key = write.key;
        let before = match key {
            Key::Shoot(shoot) => Some(self.api.shoots[shoot].1.clone()),
            Key::Rings => None,
        };
        let version = self.api.record(write)?;
        if let (Key::Shoot(shoot), Some(before)) = (key, before) {
            let after = &self.api.shoots[shoot].1;
            self.laws.recorded(&before, after, self.now);
            self.trace.state(after);
            let size = after.size();
            if size > rootstock_core::state::MAX_STATE {
                self.laws.broke(Law::Converged, self.now, format!("a state of {size} bytes"));
            }
            if !after.slots.is_empty() && self.plan.growth > 0 && !self.grown {
                self.grown = true;
                for _ in 0..self.plan.growth {
                    self.join(Duration::from_secs(30));
                }
            }
        }
        Some(version)
    }

    pub(super) fn answer(&mut self, answer: &Answer) {
        self.control_of(answer.term, |controller, turn| {
            controller.answered(answer, turn);
        });
    }
}
