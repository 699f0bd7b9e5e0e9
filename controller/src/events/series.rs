//! Which Events are written: new ones, counted ones, or none.
//!
//! Pure: time is an argument. It remembers a bounded number of Events, and of
//! a resource no more than a point in time.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::Word;

/// The same words within this time of the last ones are the same Event. An API
/// server forgets Events after an hour.
const WINDOW: Duration = Duration::from_secs(600);
/// How many Events a resource may have at once, and how soon it may have one more.
const BURST: u32 = 10;
const PERIOD: Duration = Duration::from_secs(30);
/// How many Events are remembered: four for each of a thousand resources. Of
/// one that is not, the next is a new one.
const REMEMBERED: usize = 4096;

/// An Event's words, and whose they are.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Words {
    /// The resource's namespace and name, and its UID.
    pub(super) of: (String, String, String),
    pub(super) word: Word,
    pub(super) note: String,
}

/// What to do about words.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// Write an Event.
    Create,
    /// Count one more on this Event.
    Count {
        /// Its name.
        name: String,
        /// How often it was said.
        count: i32,
    },
    /// It is too much.
    Nothing,
}

#[derive(Debug)]
struct Seen {
    /// The Event's name.
    name: String,
    count: i32,
    last: Instant,
}

/// What was said not long ago.
#[derive(Debug, Default)]
pub(super) struct Series {
    seen: HashMap<Words, Seen>,
    /// When each resource's allowance is whole again; none where it is.
    spent: HashMap<(String, String, String), Instant>,
    swept: Option<Instant>,
}

impl Series {
    /// What to do about words that are said now.
    pub(super) fn say(&mut self, words: &Words, now: Instant) -> Act {
        self.sweep(now);
        let allowed = self.spend(words, now);
        let Some(seen) = self.seen.get_mut(words) else {
            return if allowed { Act::Create } else { Act::Nothing };
        };
        // What is too much to be written is in the next count.
        seen.count = seen.count.saturating_add(1);
        seen.last = now;
        if !allowed {
            return Act::Nothing;
        }
        Act::Count { name: seen.name.clone(), count: seen.count }
    }

    /// An Event was written.
    pub(super) fn created(&mut self, words: Words, name: String, now: Instant) {
        if self.seen.len() >= REMEMBERED {
            let oldest = self.seen.iter().min_by_key(|(_, seen)| seen.last);
            if let Some(oldest) = oldest.map(|(words, _)| words.clone()) {
                self.seen.remove(&oldest);
            }
        }
        self.seen.insert(words, Seen { name, count: 1, last: now });
    }

    /// An Event is no longer there.
    pub(super) fn lost(&mut self, words: &Words) {
        self.seen.remove(words);
    }

    /// Takes one from a resource's allowance, if there is one.
    fn spend(&mut self, words: &Words, now: Instant) -> bool {
        let whole = self.spent.get(&words.of).copied().map_or(now, |whole| whole.max(now));
        if whole.duration_since(now) > PERIOD * (BURST - 1) {
            return false;
        }
        self.spent.insert(words.of.clone(), whole + PERIOD);
        true
    }

    fn sweep(&mut self, now: Instant) {
        if self.swept.is_some_and(|swept| now.duration_since(swept) < PERIOD) {
            return;
        }
        self.swept = Some(now);
        self.seen.retain(|_, seen| now.duration_since(seen.last) < WINDOW);
        self.spent.retain(|_, whole| now < *whole);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(name: &str, note: &str) -> Words {
        let of = ("shoot--garden--one".to_owned(), name.to_owned(), "uid".to_owned());
        Words { of, word: Word::NodesFailed, note: note.to_owned() }
    }

    #[test]
    fn the_same_words_are_one_event() {
        let (mut series, now) = (Series::default(), Instant::now());
        let a = words("a", "NoSpace on 1 node");
        assert_eq!(series.say(&a, now), Act::Create);
        series.created(a.clone(), "a.1".to_owned(), now);
        let count = |count| Act::Count { name: "a.1".to_owned(), count };
        assert_eq!(series.say(&a, now), count(2));
        assert_eq!(series.say(&words("a", "other"), now), Act::Create);
        assert_eq!(series.say(&words("b", "NoSpace on 1 node"), now), Act::Create);
        assert_eq!(series.say(&a, now + WINDOW / 2), count(3));
        assert_eq!(series.say(&a, now + WINDOW * 3 / 2), Act::Create, "it was long ago");
        series.created(a.clone(), "a.2".to_owned(), now + WINDOW * 3 / 2);
        series.lost(&a);
        assert_eq!(series.say(&a, now + WINDOW * 3 / 2), Act::Create, "somebody deleted it");
    }

    #[test]
    fn a_resource_has_an_allowance_of_its_own() {
        let (mut series, now) = (Series::default(), Instant::now());
        let first = words("a", "0");
        assert_eq!(series.say(&first, now), Act::Create);
        series.created(first.clone(), "a.0".to_owned(), now);
        for n in 1..BURST {
            assert_eq!(series.say(&words("a", &n.to_string()), now), Act::Create, "{n}");
        }
        assert_eq!(series.say(&words("a", "more"), now), Act::Nothing);
        assert_eq!(series.say(&first, now), Act::Nothing);
        assert_eq!(series.say(&words("b", "0"), now), Act::Create, "others have theirs");
        let count = Act::Count { name: "a.0".to_owned(), count: 3 };
        assert_eq!(series.say(&first, now + PERIOD), count, "what was too much is counted");
        assert_eq!(series.say(&first, now + PERIOD), Act::Nothing);
    }

    #[test]
    fn a_bounded_number_is_remembered() {
        let (mut series, start) = (Series::default(), Instant::now());
        let at = |n: usize| start + Duration::from_millis(n as u64);
        for n in 0..REMEMBERED + 500 {
            let words = words(&n.to_string(), "x");
            assert_eq!(series.say(&words, at(n)), Act::Create);
            series.created(words, n.to_string(), at(n));
        }
        assert_eq!(series.seen.len(), REMEMBERED);
        assert!(!series.seen.contains_key(&words("0", "x")), "the oldest are forgotten");
        series.say(&words("later", "x"), at(0) + WINDOW * 2);
        assert_eq!((series.seen.len(), series.spent.len()), (0, 1));
    }
}
