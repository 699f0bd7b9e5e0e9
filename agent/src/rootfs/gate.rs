//! The gate that every change of the node's disk goes through.
//!
//! In production it is open and costs nothing: no effect is even described.
//! Tests put a [`Watcher`] there, which counts, refuses, or plays the kill and
//! the power cut that may come between any two effects.

use std::cell::RefCell;
use std::fmt::Debug;
use std::io;
use std::sync::Arc;

/// What kind of change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A folder is made.
    MakeFolder,
    /// A temporary file is made.
    Create,
    /// A file is opened to append to it, and made where it is missing.
    Append,
    /// Bytes go into an open file, so many at most.
    Write(usize),
    /// An open file gets its mode.
    SetMode,
    /// A file's bytes are brought to disk.
    SyncFile,
    /// A folder's entries are brought to disk.
    SyncFolder,
    /// A link is made.
    Link,
    /// A name is given to what bore another one.
    Rename,
    /// Two names are exchanged.
    Exchange,
    /// A file, a link or an empty folder goes.
    Remove,
}

/// One change of the node's disk: one system call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effect {
    /// Of what kind.
    pub kind: Kind,
    /// On the node.
    pub path: String,
    /// The second path of a rename or an exchange.
    pub other: Option<String>,
}

/// Who is asked before each effect and told after it.
pub trait Watcher: Debug + Send + Sync {
    /// An error keeps the effect from happening, as if the kernel had said so.
    fn before(&self, effect: &Effect) -> io::Result<()>;

    /// The effect has happened. What the kernel refused is not told.
    fn after(&self, effect: &Effect);
}

/// Lets nothing through: for who only looks at a node.
#[derive(Debug)]
pub struct OnlyLooks;

impl Watcher for OnlyLooks {
    fn before(&self, _: &Effect) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn after(&self, _: &Effect) {}
}

/// The gate; each clone is the same one.
#[derive(Clone, Debug, Default)]
pub(super) struct Gate(Option<Arc<dyn Watcher>>);

impl Gate {
    pub(super) fn new(watcher: Arc<dyn Watcher>) -> Self {
        Self(Some(watcher))
    }

    /// The one that [`watched`] has set for this thread.
    pub(super) fn of_this_thread() -> Self {
        Self(WATCHER.with_borrow(Clone::clone))
    }

    pub(super) fn pass<T>(
        &self,
        effect: impl FnOnce() -> Effect,
        work: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        let Some(watcher) = &self.0 else { return work() };
        let effect = effect();
        watcher.before(&effect)?;
        let done = work()?;
        watcher.after(&effect);
        Ok(done)
    }
}

thread_local! {
    static WATCHER: RefCell<Option<Arc<dyn Watcher>>> = const { RefCell::new(None) };
}

/// For tests: each [`super::Rootfs`] that `work` opens in this thread has the
/// watcher, for as long as it lives and in whatever thread it is used.
pub fn watched<T>(watcher: Arc<dyn Watcher>, work: impl FnOnce() -> T) -> T {
    /// Takes it away also where `work` panics.
    struct Reset(Option<Arc<dyn Watcher>>);
    impl Drop for Reset {
        fn drop(&mut self) {
            WATCHER.set(self.0.take());
        }
    }
    let _reset = Reset(WATCHER.replace(Some(watcher)));
    work()
}
