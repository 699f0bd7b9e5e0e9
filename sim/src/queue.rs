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
    Budgets(Box<Budgets>),
    /// What was granted by earlier budgets has ended.
    Fits,
    /// Somebody looks at all of it.
    Sample,
}

/// A bucket of the wheel is 2^20 ns long, about a millisecond.
const BUCKET: u32 = 20;
/// How many buckets the wheel has: four seconds ahead, in which nearly all lies
/// that messages and agents note.
const BUCKETS: u64 = 4096;

/// Events by time; those of one moment in the order in which they were noted.
///
/// ```text
///  far (a heap) ─▶ wheel: a bucket for each millisecond, unsorted ─▶ near (a small heap) ─▶ next
/// ```
///
/// With ten thousand nodes so much is noted that one heap of all of it would
/// be out of reach of the processor's caches.
#[derive(Debug)]
pub(crate) struct Queue {
    /// What lies in the bucket that is gone through.
    near: BinaryHeap<Reverse<Entry>>,
    /// The buckets after it, each at its number modulo [`BUCKETS`].
    wheel: Vec<Vec<Entry>>,
    /// What lies beyond the wheel.
    far: BinaryHeap<Reverse<Entry>>,
    /// The number of the bucket that is gone through.
    bucket: u64,
    /// How many events are in the wheel.
    in_wheel: usize,
    noted: u64,
}

/// An event by its moment, in nanoseconds, and its number.
#[derive(Debug)]
struct Entry(u64, u64, Event);

impl Entry {
    fn bucket(&self) -> u64 {
        self.0 >> BUCKET
    }
}

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

impl Default for Queue {
    fn default() -> Self {
        let wheel = std::iter::repeat_with(Vec::new).take(BUCKETS as usize).collect();
        let (near, far) = (BinaryHeap::new(), BinaryHeap::new());
        Self { near, wheel, far, bucket: 0, in_wheel: 0, noted: 0 }
    }
}

impl Queue {
    /// Notes an event. One of the past comes at once.
    pub(crate) fn at(&mut self, at: Duration, event: Event) {
        self.noted += 1;
        // What is centuries ahead is as good as never.
        let nanos = u64::try_from(at.as_nanos()).unwrap_or(u64::MAX);
        self.put(Entry(nanos, self.noted, event));
    }

    fn put(&mut self, entry: Entry) {
        let bucket = entry.bucket();
        if bucket <= self.bucket {
            self.near.push(Reverse(entry));
        } else if bucket - self.bucket < BUCKETS {
            self.wheel[place(bucket)].push(entry);
            self.in_wheel += 1;
        } else {
            self.far.push(Reverse(entry));
        }
    }

    /// The next event, and when.
    pub(crate) fn next(&mut self) -> Option<(Duration, Event)> {
        while self.near.is_empty() {
            self.turn()?;
        }
        self.near.pop().map(|Reverse(Entry(at, _, event))| (Duration::from_nanos(at), event))
    }

    /// Turns the wheel to its next bucket, or to the first of what lies beyond
    /// it where it is empty. None where nothing is noted at all.
    fn turn(&mut self) -> Option<()> {
        let beyond = self.far.peek().map(|Reverse(entry)| entry.bucket());
        self.bucket = if self.in_wheel > 0 { self.bucket + 1 } else { beyond? };
        while let Some(Reverse(entry)) = self.far.peek()
            && entry.bucket() < self.bucket + BUCKETS
            && let Some(Reverse(entry)) = self.far.pop()
        {
            self.put(entry);
        }
        let bucket = &mut self.wheel[place(self.bucket)];
        self.in_wheel -= bucket.len();
        self.near.extend(bucket.drain(..).map(Reverse));
        Some(())
    }
}

/// Where a bucket is in the wheel.
fn place(bucket: u64) -> usize {
    (bucket % BUCKETS) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    #[test]
    fn events_come_by_time_and_those_of_one_moment_in_their_order() {
        let mut rng = Rng::new(1);
        let (mut queue, mut want) = (Queue::default(), Vec::new());
        let mut now = Duration::ZERO;
        for number in 0..20_000_usize {
            // Of this moment, of this bucket, of the wheel, and far beyond it.
            let ahead = match number % 8 {
                0 => Duration::ZERO,
                1 => Duration::from_nanos(rng.range(0..2_000_000)),
                2 => rng.millis(4_200..4_400),
                3 => rng.millis(0..40_000_000),
                _ => rng.millis(0..4_000),
            };
            queue.at(now + ahead, Event::Wake(number));
            want.push((now + ahead, number));
            if number % 3 == 0 {
                let (at, event) = queue.next().unwrap();
                want.sort();
                let (due, first) = want.remove(0);
                assert_eq!(at, due);
                assert!(matches!(event, Event::Wake(of) if of == first), "{event:?} {first}");
                now = at;
            }
        }
        want.sort();
        for (due, first) in want {
            let (at, event) = queue.next().unwrap();
            assert_eq!(at, due);
            assert!(matches!(event, Event::Wake(of) if of == first), "{event:?} {first}");
        }
        assert!(queue.next().is_none());
    }
}
