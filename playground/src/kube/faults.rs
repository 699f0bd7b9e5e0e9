//! Requests that fail because it was arranged.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use http::StatusCode;

use super::{
    failure::Failure,
    rbac::{MASTERS, User},
    request::{Target, Verb},
};

/// What fails next, by `verb resource`.
#[derive(Debug, Default)]
pub(super) struct Faults(Mutex<Arranged>);

#[derive(Debug, Default)]
struct Arranged {
    /// Status codes in the order in which they come.
    codes: BTreeMap<String, VecDeque<StatusCode>>,
    met: u64,
}

impl Faults {
    /// The next `times` such requests fail with `code`. One that is no code is an error
    /// of the server.
    pub(super) fn arrange(&self, what: &str, code: u16, times: u32) {
        let code = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut arranged = self.lock();
        let codes = arranged.codes.entry(what.to_owned()).or_default();
        codes.extend((0..times).map(|_| code));
    }

    /// How many requests have failed.
    pub(super) fn met(&self) -> u64 {
        self.lock().met
    }

    /// Fails if that was arranged. The administrator is spared: he is the one who tests.
    pub(super) fn meet(&self, user: &User, target: &Target, verb: Verb) -> Result<(), Failure> {
        if user.groups.iter().any(|group| group == MASTERS) {
            return Ok(());
        }
        let what = format!("{} {}", verb.as_str(), target.resource());
        let mut arranged = self.lock();
        let Some(code) = arranged.codes.get_mut(&what).and_then(VecDeque::pop_front) else {
            return Ok(());
        };
        arranged.met += 1;
        Err(Failure::trouble(code))
    }

    fn lock(&self) -> MutexGuard<'_, Arranged> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
