//! What is going to happen, in the order of virtual time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use rootstock_core::bandwidth::Budgets;

use crate::api::{Answer, Write};
use crate::message::{Down, Up};

/// Something that happens at a moment.
#[derive(Debug)]
pub(crate) enum Event {
    /// A node has something to do.
    Wake(usize),
    /// A node tries to reach the controller.
    Connect(usize),
    /// A message reaches the controller.
    ToController(usize, u64, Box<Up>),
    /// A message reaches a node.
    ToNode(usize, u64, Box<Down>),
    /// A node finds that its stream has ended.
    Dropped(usize, u64),
    /// The controller finds that a stream has ended.
    Lost(usize, u64),
    /// A node is cut off from the controller.
    Cut(usize),
    /// It is no longer.
    Heal(usize),
    /// A node comes into being.
    Join(usize),
    /// The controller sees what the API says of a node by now.
    Seen(usize),
    /// A node that is silent is replaced.
    Gone(usize),
    /// A controller begins.
    Begin,
    /// It ends, without a word.
    Kill,
    /// A controller of that term has listed what there is.
    Listed(u32),
    /// It looks at a shoot, if it still means to at this moment.
    Look(u32, usize),
    /// It looks at the rings.
    Rings(u32),
    /// Its allocator has something to do.
    Tick(u32),
    /// A write reaches the API.
    Land(Box<Write>),
    /// Its answer reaches the controller.
    Answer(Box<Answer>),
    /// The catalog names the new bundle.
    Target,
    /// Other budgets are in force.
    Budgets(Budgets),
    /// What was granted by earlier budgets has ended.
    Fits,
    /// Somebody looks at all of it.
    Sample,
}

/// Events by time; those of one moment in the order in which they were noted.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    heap: BinaryHeap<Reverse<Entry>>,
    noted: u64,
}

#[derive(Debug)]
struct Entry(Duration, u64, Event);

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        (self.0, self.1) == (other.0, other.1)
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.0, self.1).cmp(&(other.0, other.1))
    }
}

impl Queue {
    /// Notes an event.
    pub(crate) fn at(&mut self, at: Duration, event: Event) {
        self.noted += 1;
        self.heap.push(Reverse(Entry(at, self.noted, event)));
    }

    /// The next event, and when.
    pub(crate) fn next(&mut self) -> Option<(Duration, Event)> {
        self.heap.pop().map(|Reverse(Entry(at, _, event))| (at, event))
    }
}
