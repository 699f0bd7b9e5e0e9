//! What a watch has shown so far.

use std::collections::BTreeMap;

use kube::api::DynamicObject;
use kube::runtime::watcher::{self, Event};

use crate::runtime::Runtime;

/// All runtimes that are watched, by namespace and name.
#[derive(Debug, Default)]
pub(super) struct Board {
    runtimes: BTreeMap<String, Runtime>,
    /// What a list that is not complete has shown.
    listing: BTreeMap<String, Runtime>,
    listed: bool,
    trouble: Option<String>,
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
        event: Result<Event<DynamicObject>, watcher::Error>,
    ) -> Vec<Change> {
        let event = match event {
            Ok(event) => event,
            Err(error) => {
                self.trouble = Some(error.to_string());
                return Vec::new();
            }
        };
        self.trouble = None;
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
    pub(super) fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    pub(super) fn runtimes(&self) -> Vec<Runtime> {
        self.runtimes.values().cloned().collect()
    }
}
