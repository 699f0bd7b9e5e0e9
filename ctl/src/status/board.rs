//! What a watch has shown so far.

use std::collections::BTreeMap;
use std::time::Duration;

use kube::api::DynamicObject;
use kube::runtime::watcher::Event;
use tokio::time::Instant;

use crate::error::Error;
use crate::runtime::Runtime;

/// A watch that fails is begun again within 30 seconds, and a server that does
/// not answer takes ten: one that has not failed for so long works. It says so
/// by nothing but the next change.
const TROUBLED: Duration = Duration::from_secs(60);

/// All runtimes that are watched, by namespace and name.
#[derive(Debug, Default)]
pub(super) struct Board {
    runtimes: BTreeMap<String, Runtime>,
    /// What a list that is not complete has shown.
    listing: BTreeMap<String, Runtime>,
    listed: bool,
    /// Why the watch failed last, and when.
    trouble: Option<(Instant, Error)>,
}

/// What became of one runtime.
#[derive(Debug)]
pub(super) enum Change {
    /// It is there, or is another one.
    Shown(Box<Runtime>),
    /// It is gone.
    Gone(Box<Runtime>),
}

impl Board {
    /// Takes in one event, and says what changed by it.
    pub(super) fn hear(
        &mut self,
        event: Result<Event<DynamicObject>, Error>,
        now: Instant,
    ) -> Vec<Change> {
        let event = match event {
            Ok(event) => event,
            Err(error) => {
                self.trouble = Some((now, error));
                return Vec::new();
            }
        };
        // A list that begins has heard nothing yet.
        if !matches!(event, Event::Init) {
            self.trouble = None;
        }
        match event {
            Event::Init => self.listing.clear(),
            Event::InitApply(object) => {
                let runtime = Runtime::read(&object);
                self.listing.insert(runtime.path(), runtime);
            }
            Event::InitDone => return self.relisted(),
            Event::Apply(object) => {
                let runtime = Runtime::read(&object);
                self.runtimes.insert(runtime.path(), runtime.clone());
                return vec![Change::Shown(Box::new(runtime))];
            }
            Event::Delete(object) => {
                let gone = self.runtimes.remove(&Runtime::read(&object).path());
                return gone.map(|gone| Change::Gone(Box::new(gone))).into_iter().collect();
            }
        }
        Vec::new()
    }

    fn relisted(&mut self) -> Vec<Change> {
        let listing = std::mem::take(&mut self.listing);
        let before = std::mem::replace(&mut self.runtimes, listing);
        self.listed = true;
        let gone = before.into_iter().filter(|(path, _)| !self.runtimes.contains_key(path));
        let gone: Vec<_> = gone.map(|(_, gone)| Change::Gone(Box::new(gone))).collect();
        let shown = self.runtimes.values().cloned().map(|one| Change::Shown(Box::new(one)));
        shown.chain(gone).collect()
    }

    /// Whether it is known what there is.
    pub(super) fn is_listed(&self) -> bool {
        self.listed
    }

    /// Why it may be out of date.
    pub(super) fn trouble(&self, now: Instant) -> Option<&Error> {
        let (at, why) = self.trouble.as_ref()?;
        (now < *at + TROUBLED).then_some(why)
    }

    /// Until when it is if nothing happens.
    pub(super) fn troubled_until(&self, now: Instant) -> Option<Instant> {
        let (at, _) = self.trouble.as_ref()?;
        Some(*at + TROUBLED).filter(|until| now < *until)
    }

    pub(super) fn runtimes(&self) -> Vec<Runtime> {
        self.runtimes.values().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::runtime::tests::object;

    fn names(board: &Board) -> Vec<String> {
        board.runtimes().into_iter().map(|runtime| runtime.name).collect()
    }

    #[test]
    fn a_list_that_is_not_complete_takes_nothing_away() {
        let mut board = Board::default();
        let now = Instant::now();
        let hear = |board: &mut Board, event| board.hear(Ok(event), now).len();
        let runtime = |name| object(name, json!({}));
        assert_eq!(hear(&mut board, Event::Init), 0);
        assert_eq!(hear(&mut board, Event::InitApply(runtime("a"))), 0);
        assert!(!board.is_listed() && names(&board).is_empty());
        assert_eq!(hear(&mut board, Event::InitDone), 1);
        assert_eq!(hear(&mut board, Event::Apply(runtime("b"))), 1);
        assert_eq!(hear(&mut board, Event::Init), 0);
        assert_eq!(hear(&mut board, Event::InitApply(runtime("c"))), 0);
        assert_eq!((board.is_listed(), names(&board)), (true, vec!["a".into(), "b".into()]));
        // One is there, two are gone.
        assert_eq!(hear(&mut board, Event::InitDone), 3);
        assert_eq!(names(&board), ["c"]);
        assert_eq!(hear(&mut board, Event::Delete(runtime("c"))), 1);
        assert_eq!(hear(&mut board, Event::Delete(runtime("c"))), 0);
    }

    #[test]
    fn trouble_is_over_with_the_next_change_or_when_none_came_for_a_minute() {
        let begun = Instant::now();
        let at = |second| begun + Duration::from_secs(second);
        let mut board = Board::default();
        let fail = |board: &mut Board, second| {
            let error = Error::Pointless("it fails".to_owned());
            board.hear(Err(error), at(second));
        };
        fail(&mut board, 100);
        assert!(board.trouble(at(100)).is_some() && board.trouble(at(159)).is_some());
        assert_eq!(board.troubled_until(at(159)), Some(at(160)));
        assert!(board.trouble(at(160)).is_none() && board.troubled_until(at(160)).is_none());
        fail(&mut board, 200);
        // It lists again, and has not heard an answer.
        board.hear(Ok(Event::Init), at(201));
        assert!(board.trouble(at(201)).is_some());
        board.hear(Ok(Event::Apply(object("a", json!({})))), at(202));
        assert!(board.trouble(at(202)).is_none());
    }
}
