//! Who pulls how fast in a term: the allocator of `core`, and the way to it.
//!
//! ```text
//!  Session ─▶ Line: ask, keep ──┐                         ┌─▶ Mailbox of a stream ─▶ Line: grant ─▶ Session
//!  Follow: the time, budgets ───┤ Allocator, one lock ────┤
//!  Hello ─▶ Bandwidth::connect ─┤                         └─▶ View: the page of the admin listener
//!  rollouts ─▶ set_canaries ────┘
//! ```
//!
//! There is one lock and no task between a request and its grant. A step takes
//! microseconds, and with 10,000 nodes those that pull ask for one some thousand
//! times a second: a queue would cost a wake-up for each of them, and would
//! need a rule for when it is full. The lock is never held over an await, and
//! each stream has a mailbox of its own, so none waits for another's network.
//!
//! A stream over which nothing was asked has no mailbox, and is not known here.
//!
//! * `line`: one stream's side; `mailbox`: what waits to be sent on it
//! * `follow`: time passes, and budgets change
//! * `view`: what people see

mod follow;
mod line;
mod mailbox;
#[cfg(test)]
mod tests;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rootstock_core::bandwidth::{
    Action, Allocator, Budgets, Class, Event, Held, Node, Puller, Request, Shrunk,
};
use rootstock_core::name::{NodeName, ShootName};
use tokio::sync::Notify;
use tokio::time::Instant;

pub(crate) use follow::Follow;
pub use line::Line;
use mailbox::Mailbox;
pub(crate) use view::{Current, View};

/// The bandwidth of one term: a later leader makes another one, which grants
/// nothing before the leases of the one before it have ended.
#[derive(Debug)]
pub struct Bandwidth {
    desk: Mutex<Desk>,
    /// Moments are told from here on.
    began: Instant,
    /// A step is due before the one that is waited for.
    sooner: Notify,
}

#[derive(Debug)]
struct Desk {
    allocator: Allocator,
    budgets: Budgets,
    /// Where a node last asked.
    mailboxes: BTreeMap<Node, Arc<Mailbox>>,
    /// The nodes for which rollouts wait.
    canaries: BTreeMap<ShootName, BTreeSet<NodeName>>,
    /// When the next step is made if nothing happens before.
    alarm: Option<Duration>,
}

impl Bandwidth {
    /// The bandwidth of a term that begins at this moment.
    pub fn new(budgets: Budgets) -> Self {
        let allocator = Allocator::new(budgets, Duration::ZERO);
        let (mailboxes, canaries) = (BTreeMap::new(), BTreeMap::new());
        let desk = Desk { allocator, budgets, mailboxes, canaries, alarm: None };
        Self { desk: Mutex::new(desk), began: Instant::now(), sooner: Notify::new() }
    }

    /// A stream of a node begins, whose Hello names these leases. An earlier
    /// stream of it is sent nothing more.
    pub fn connect(self: &Arc<Self>, puller: Puller, held: Vec<Held>) -> Line {
        let mut desk = self.desk();
        desk.mailboxes.remove(&puller.node);
        self.step(desk, Event::Connected { puller, held });
        Line::new(Arc::clone(self))
    }

    /// From now on a shoot's rollouts wait for these nodes and no others: their
    /// pulls go before all others of the seed. To be said before they are
    /// offered the bundle; a pull that waits already goes first when it asks
    /// again, within 8 s.
    pub fn set_canaries(&self, shoot: &ShootName, nodes: BTreeSet<NodeName>) {
        let canaries = &mut self.desk().canaries;
        if nodes.is_empty() {
            canaries.remove(shoot);
        } else {
            canaries.insert(shoot.clone(), nodes);
        }
    }

    /// A node asks, and is answered in this mailbox.
    fn ask(&self, puller: &Puller, mailbox: &Arc<Mailbox>, request: Request) {
        let mut desk = self.desk();
        if !desk.answers(&puller.node, mailbox) {
            desk.mailboxes.insert(puller.node.clone(), Arc::clone(mailbox));
        }
        let (puller, class) = (puller.clone(), desk.class(&puller.node));
        self.step(desk, Event::Request { puller, class, request });
    }

    /// A node keeps to a lowered rate.
    fn keep(&self, node: &Node, shrunk: Shrunk) {
        self.step(self.desk(), Event::Shrunk { node: node.clone(), shrunk });
    }

    /// The stream of a mailbox has ended.
    fn hang_up(&self, node: &Node, mailbox: &Arc<Mailbox>) {
        let mut desk = self.desk();
        // Another stream of the node may have taken over.
        if desk.answers(node, mailbox) {
            desk.mailboxes.remove(node);
            self.step(desk, Event::Disconnected { node: node.clone() });
        }
    }

    /// These budgets count from now on.
    fn set(&self, budgets: Budgets) {
        let mut desk = self.desk();
        if desk.budgets != budgets {
            tracing::info!(?budgets, "budgets changed");
            desk.budgets = budgets;
            self.step(desk, Event::Budgets(budgets));
        }
    }

    /// Time has passed. When that is to be said again at the latest.
    fn tick(&self) -> Option<Instant> {
        let mut desk = self.desk();
        desk.step(Event::Tick, self.began.elapsed());
        desk.alarm = desk.allocator.due();
        desk.alarm.and_then(|due| self.began.checked_add(due))
    }

    fn step(&self, mut desk: MutexGuard<'_, Desk>, event: Event) {
        // The time is read under the lock: it goes on from event to event.
        desk.step(event, self.began.elapsed());
        let due = desk.allocator.due();
        if due.is_some_and(|due| desk.alarm.is_none_or(|alarm| due < alarm)) {
            desk.alarm = due;
            self.sooner.notify_one();
        }
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        // As everywhere in the controller: a panic ends one stream, not all.
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Desk {
    fn step(&mut self, event: Event, now: Duration) {
        for Action::Grant { node, grant } in self.allocator.step(event, now) {
            // What is for nobody is as good as lost on its way: it counts until its end.
            if let Some(mailbox) = self.mailboxes.get(&node) {
                mailbox.put(grant);
            }
        }
    }

    fn class(&self, node: &Node) -> Class {
        let canaries = self.canaries.get(node.shoot());
        match canaries.is_some_and(|canaries| canaries.contains(node.name())) {
            true => Class::Canary,
            false => Class::Regular,
        }
    }

    fn answers(&self, node: &Node, mailbox: &Arc<Mailbox>) -> bool {
        self.mailboxes.get(node).is_some_and(|known| Arc::ptr_eq(known, mailbox))
    }
}
