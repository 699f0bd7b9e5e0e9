//! One number that two runs share if they were the same.

use std::time::Duration;

use rootstock_core::state::State;

use crate::queue::Event;

/// FNV-1a over all that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Trace(u64);

impl Default for Trace {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Trace {
    /// The number.
    pub(crate) fn get(self) -> u64 {
        self.0
    }

    /// Something happens.
    pub(crate) fn event(&mut self, at: Duration, event: &Event) {
        let (kind, number) = code(event);
        let nanos = u64::try_from(at.as_nanos()).unwrap_or(u64::MAX);
        for word in [nanos, kind, number] {
            self.word(word);
        }
    }

    /// A state is recorded.
    pub(crate) fn state(&mut self, state: &State) {
        // Writing a state that is in memory cannot fail.
        let text = serde_json::to_string(state).unwrap_or_default();
        text.bytes().for_each(|byte| self.word(byte.into()));
    }

    fn word(&mut self, word: u64) {
        self.0 = (self.0 ^ word).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23);
    }
}

fn code(event: &Event) -> (u64, u64) {
    let number = |number: &usize| *number as u64;
    match event {
        Event::Wake(node) => (1, number(node)),
        Event::Connect(node) => (2, number(node)),
        Event::ToController(node, ..) => (3, number(node)),
        Event::ToNode(node, ..) => (4, number(node)),
        Event::Dropped(node, _) => (5, number(node)),
        Event::Lost(node, _) => (6, number(node)),
        Event::Cut(node) => (7, number(node)),
        Event::Heal(node) => (8, number(node)),
        Event::Join(node) => (9, number(node)),
        Event::Seen(node) => (10, number(node)),
        Event::Begin => (11, 0),
        Event::Kill => (12, 0),
        Event::Listed(term) => (13, u64::from(*term)),
        Event::Look(_, shoot) => (14, number(shoot)),
        Event::Rings(term) => (15, u64::from(*term)),
        Event::Tick(term) => (16, u64::from(*term)),
        Event::Land(write) => (17, write.version),
        Event::Answer(answer) => (18, answer.version.unwrap_or(0)),
        Event::Target => (19, 0),
        Event::Budgets(_) => (20, 0),
        Event::Fits => (21, 0),
        Event::Sample => (22, 0),
        Event::Gone(node) => (23, number(node)),
    }
}
