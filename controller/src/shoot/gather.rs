//! A listing as one piece: until it is whole, what was known before counts.

use kube::runtime::watcher::Event;

/// What a watch says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Seen<T> {
    /// These are all.
    All(Vec<T>),
    /// This one is there, or has changed.
    Put(T),
    /// This one is gone.
    Gone(T),
}

/// Gathers what a watch lists.
#[derive(Debug)]
pub(super) struct Gather<T>(Vec<T>);

impl<T> Default for Gather<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Gather<T> {
    /// Takes an event; `read` makes what is kept of an object, if anything is.
    pub(super) fn take<K>(
        &mut self,
        event: Event<K>,
        read: impl Fn(K) -> Option<T>,
    ) -> Option<Seen<T>> {
        match event {
            Event::Apply(object) => read(object).map(Seen::Put),
            Event::Delete(object) => read(object).map(Seen::Gone),
            Event::Init => {
                self.0.clear();
                None
            }
            Event::InitApply(object) => {
                self.0.extend(read(object));
                None
            }
            Event::InitDone => Some(Seen::All(std::mem::take(&mut self.0))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_that_was_cut_off_says_nothing() {
        let mut gather = Gather::default();
        let mut take = |event| gather.take(event, |n: i32| (n > 0).then_some(n));
        assert_eq!(take(Event::Init), None);
        assert_eq!(take(Event::InitApply(1)), None);
        assert_eq!(take(Event::Init), None);
        assert_eq!(take(Event::InitApply(2)), None);
        assert_eq!(take(Event::InitApply(-3)), None);
        assert_eq!(take(Event::InitDone), Some(Seen::All(vec![2])));
        assert_eq!(take(Event::Apply(4)), Some(Seen::Put(4)));
        assert_eq!(take(Event::Delete(4)), Some(Seen::Gone(4)));
        assert_eq!(take(Event::Apply(-1)), None);
    }
}
