//! Who gets which rate, at the controller.
//!
//! ```text
//!  event ─▶ what has died is free ─▶ what it says ─▶ whoever is next, while there is room ─▶ grants
//! ```
//!
//! * `event`: what it is told, and what it says
//! * `pull`: one pull, and what its agent may be using by all that it was sent
//! * `tree`: the budgets' levels, what is used of each, and who is next
//! * `want`: how fast a pull should go
//! * `learning`: what a new leader does not know yet

mod arena;
mod event;
mod learning;
mod pull;
#[cfg(test)]
mod tests;
mod tree;
mod want;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::message::{KNOWN_PER_NODE, LEAST, LONGEST_SOURCE, SLICE, at_most};
use super::{Budgets, Class, Held, Node, Puller, Rate, Request, Shrunk};
use arena::Arena;
pub use event::{Action, Event, Usage};
use learning::Learning;
use pull::Pull;
use tree::{Room, Tree, Wish};

/// Gives rates to those who ask, within the budgets.
///
/// * At each level the rates of all leases that are not provably dead are not
///   more than its budget, and their number not more than there may be. When
///   budgets are lowered, leases are shrunk at once, what is used does not
///   grow before it fits again, and it fits after [`super::LIFETIME`] and its margin
///   at the latest.
/// * A lowered rate is free when its agent has said that it keeps to it, or
///   when the lease has ended.
/// * After each step no request waits that there is room for.
/// * A lease for whose rate or place others wait ends after 30 s, and its pull
///   goes on behind them. Where `n` pulls run at a time, a request before
///   which `p` others are served begins within `p / n + 1` times 30 s and four
///   lifetimes.
///
/// A step costs O(log n) for n pulls, and as much for each grant that it
/// makes; one with other budgets O(n log n). A node has at most eight pulls
/// here, and what it asks is worth at most its node's budget.
#[derive(Debug)]
pub struct Allocator {
    tree: Tree,
    pulls: Arena<Pull>,
    numbers: BTreeMap<(Node, u64), usize>,
    /// When something of a pull is dead.
    ends: BTreeSet<(Duration, usize)>,
    learning: Option<Learning>,
    /// The latest moment that was told.
    now: Duration,
    /// How many have come to wait.
    ages: u64,
    /// How many grants were sent.
    sequence: u64,
    waiting: usize,
}

/// A pull that goes as fast as any may is over soon after it begins, wherever
/// that is; one on a slow link takes as long as the link does. So the former
/// lets so many later ones go first whose link may be slow, and these do not
/// end long after all others. It takes nothing from the others' bytes: their
/// sum is what there is to wait for.
const LETS_PASS: u64 = 4096;

impl Allocator {
    /// A leader that begins at this moment. The one before it, if there was
    /// any, sends nothing more.
    pub fn new(budgets: Budgets, now: Duration) -> Self {
        Self {
            tree: Tree::new(budgets),
            pulls: Arena::new(),
            numbers: BTreeMap::new(),
            ends: BTreeSet::new(),
            learning: Some(Learning::new(now)),
            now,
            ages: 0,
            sequence: 0,
            waiting: 0,
        }
    }

    /// Something has happened. What is to be sent, in this order.
    pub fn step(&mut self, event: Event, now: Duration) -> Vec<Action> {
        let now = self.now.max(now);
        self.now = now;
        let mut actions = Vec::new();
        self.expire(now);
        let asked = match event {
            Event::Request { puller, class, request } => self.ask(&puller, class, request, now),
            Event::Shrunk { node, shrunk } => {
                self.shrunk(&node, shrunk);
                None
            }
            Event::Connected { puller, held } => {
                self.connect(&puller, &held, now);
                None
            }
            Event::Disconnected { node } => {
                self.disconnect(&node);
                None
            }
            Event::Expected(nodes) => {
                if let Some(learning) = &mut self.learning {
                    learning.expect(nodes);
                }
                None
            }
            Event::Budgets(budgets) => {
                self.tree.set(budgets);
                self.refit(&mut actions);
                None
            }
            Event::Tick => None,
        };
        // What is taken from a lease is taken before anything is given.
        let lowered = asked.filter(|pull| self.review(*pull, now));
        if let Some(pull) = lowered {
            self.grant(pull, self.pulls[pull].granted, now, &mut actions);
        }
        self.serve(now, &mut actions);
        if let Some(pull) = asked.filter(|pull| !self.pulls[*pull].is_answered()) {
            self.grant(pull, self.pulls[pull].granted, now, &mut actions);
        }
        actions
    }

    /// When a step is due at the latest, if nothing happens before.
    pub fn due(&self) -> Option<Duration> {
        let end = self.ends.first().map(|(end, _)| *end);
        let learned = self.learning.as_ref().map(Learning::until);
        end.into_iter().chain(learned).min()
    }

    /// What is in use.
    pub fn usage(&self) -> Usage {
        let (rate, pulls) = self.tree.used();
        Usage { rate, pulls, waiting: self.waiting }
    }

    /// Takes a request down. The pull that it is of, where that has a lease.
    fn ask(
        &mut self,
        puller: &Puller,
        class: Class,
        request: Request,
        now: Duration,
    ) -> Option<usize> {
        if request.source.len() > LONGEST_SOURCE {
            return None;
        }
        let pull = match self.numbers.get(&(puller.node.clone(), request.id)) {
            Some(pull) if request.round <= self.pulls[*pull].round() => return None,
            Some(pull) => *pull,
            None => self.add(puller, request.id, class, request.useful_rate)?,
        };
        // Its class, and with it the list where it waits, may be another one.
        self.pulls[pull].ask(request, class, now);
        self.settle(pull);
        self.pulls[pull].started.map(|_| pull)
    }

    /// What a renewed lease gets, which is noted as granted where it is less
    /// than before. Whether it is.
    fn review(&mut self, pull: usize, now: Duration) -> bool {
        let (level, granted) = (self.pulls[pull].level, self.pulls[pull].granted);
        let asked = self.pulls[pull].asked.as_ref();
        let (useful, used) = asked.map_or((None, None), |asked| (asked.useful_rate, asked.used));
        let class = self.pulls[pull].class;
        let waited_for = self.is_granting() && self.tree.is_waited_for(level, class);
        let (limit, lowest) = (self.tree.limit(level), self.tree.lowest(level));
        let most = if waited_for {
            // Whether a link carries more than is known is tried when nobody waits.
            let link = useful.map_or(Rate::MAX, |useful| useful.max(granted));
            want::most(limit, lowest).min(link)
        } else {
            limit.rate()
        };
        let want = match lowest {
            // Nobody is served by what is taken from it.
            Rate::MAX => Rate::MAX,
            _ => want::next(self.pulls[pull].want, granted, used, most),
        };
        let started = self.pulls[pull].started.unwrap_or(now);
        let old = now.saturating_sub(started) >= SLICE;
        let over = old && waited_for && self.tree.may_end(level, class);
        let fits = worth(self.tree.fits(level, granted), granted);
        let rate = if over { Rate::ZERO } else { granted.min(want).min(fits) };
        (self.pulls[pull].want, self.pulls[pull].granted) = (want, rate);
        self.settle(pull);
        rate < granted
    }

    fn shrunk(&mut self, node: &Node, shrunk: Shrunk) {
        let Some(pull) = self.numbers.get(&(node.clone(), shrunk.id)).copied() else { return };
        let ended = self.pulls[pull].shrunk(shrunk);
        let waits = self.pulls[pull].started.is_none();
        if shrunk.stamp.round >= self.pulls[pull].round() && (ended || waits) {
            // It was not asked again since.
            if shrunk.rate == Rate::ZERO {
                self.remove(pull);
            }
        } else if ended {
            self.wait(pull);
        } else {
            self.settle(pull);
        }
    }

    fn connect(&mut self, puller: &Puller, held: &[Held], now: Duration) {
        // It asks again for what it still wants.
        self.disconnect(&puller.node);
        let Some(learning) = &mut self.learning else { return };
        let until = learning.until();
        if !learning.saw(&puller.node) {
            // What it holds by now is of this leader, and known. What else such
            // a Hello tells of is long dead: it came late, or once more.
            return;
        }
        for held in held.iter().take(KNOWN_PER_NODE) {
            // Of what is known more is counted here than it can hold.
            let known = self.numbers.contains_key(&(puller.node.clone(), held.id));
            let dead = now.saturating_add(at_most(held.remaining)).min(until);
            if known || held.rate == Rate::ZERO || dead <= now {
                continue;
            }
            if let Some(pull) = self.add(puller, held.id, Class::Regular, None) {
                let credible = self.credible(self.pulls[pull].level, held.rate);
                self.pulls[pull].hold(held.rate, credible, dead, now);
                self.waiting -= 1;
                self.settle(pull);
            }
        }
    }

    /// How much of a lease that only its node tells of goes on when it is
    /// renewed: what the levels below the seed have for it. All of it counts,
    /// for all of it may be in use; but the others' renewals make way for no
    /// more than this, so a lie takes no more from them.
    fn credible(&self, level: usize, held: Rate) -> Rate {
        let lowest = self.tree.lowest(level);
        let most = want::most(self.tree.limit(level), lowest).min(lowest);
        worth(held.min(most).min(self.tree.own(level)), held)
    }

    /// Nothing is sent to the node until it asks again.
    fn disconnect(&mut self, node: &Node) {
        let of_node = self.numbers.range((node.clone(), 0)..=(node.clone(), u64::MAX));
        let pulls: Vec<_> = of_node.map(|(_, pull)| *pull).collect();
        for pull in pulls {
            if self.pulls[pull].started.is_none() {
                self.remove(pull);
            } else {
                self.pulls[pull].reachable = false;
                self.settle(pull);
            }
        }
    }

    /// Shrinks what does not fit any more, the youngest first, and the
    /// canaries last.
    fn refit(&mut self, actions: &mut Vec<Action>) {
        let leases = self.numbers.values().copied();
        let mut leases: Vec<_> = leases.filter(|p| self.pulls[*p].started.is_some()).collect();
        leases.sort_by_key(|pull| (self.pulls[*pull].class, self.pulls[*pull].age));
        let mut room = Room::default();
        for pull in leases {
            let Pull { level, granted, reachable, .. } = self.pulls[pull];
            let rate = room.keep(&self.tree, level, granted, |fits| worth(fits, granted));
            if rate < granted && reachable {
                self.grant(pull, rate, self.now, actions);
            }
        }
    }

    /// Gives what is free to whoever is next.
    fn serve(&mut self, now: Duration, actions: &mut Vec<Action>) {
        if !self.is_granting() {
            return;
        }
        self.learning = self.learning.take().filter(|learning| now < learning.until());
        while let Some((pull, wish)) = self.tree.next() {
            let level = self.pulls[pull].level;
            let left = self.tree.left(level);
            let rate = match wish {
                Wish::Start(_) if self.pulls[pull].is_stale(now) => {
                    self.remove(pull);
                    continue;
                }
                Wish::Start(_) => {
                    let most = want::most(self.tree.limit(level), self.tree.lowest(level));
                    let asked = self.pulls[pull].asked.as_ref();
                    let (useful, bytes) = asked.map_or((None, 0), |a| (a.useful_rate, a.bytes));
                    self.pulls[pull].want = want::first(useful, bytes, most);
                    self.waiting -= 1;
                    self.pulls[pull].want.min(left)
                }
                Wish::More(_) => {
                    let counted = self.pulls[pull].counted().get();
                    let most = Rate::new(counted.saturating_add(left.get()));
                    self.pulls[pull].want.min(most)
                }
            };
            self.grant(pull, rate, now, actions);
            self.tree.served(level);
        }
    }

    fn is_granting(&self) -> bool {
        // Without budgets nothing that it does not know can be too much.
        self.tree.is_unlimited()
            || self.learning.as_ref().is_none_or(|learning| learning.is_over(self.now))
    }

    fn grant(&mut self, pull: usize, rate: Rate, now: Duration, actions: &mut Vec<Action>) {
        self.sequence += 1;
        if let Some(grant) = self.pulls[pull].grant(rate, self.sequence, now) {
            actions.push(Action::Grant { node: self.pulls[pull].node.clone(), grant });
        }
        self.settle(pull);
    }

    fn expire(&mut self, now: Duration) {
        while let Some((_, pull)) = self.ends.first().copied().filter(|(end, _)| *end <= now) {
            if self.pulls[pull].expire(now) {
                self.remove(pull);
            } else {
                self.settle(pull);
            }
        }
    }

    /// A pull that waits; none where its node has enough of them.
    fn add(
        &mut self,
        puller: &Puller,
        id: u64,
        class: Class,
        useful: Option<Rate>,
    ) -> Option<usize> {
        let of_node =
            self.numbers.range((puller.node.clone(), 0)..=(puller.node.clone(), u64::MAX));
        if of_node.count() >= KNOWN_PER_NODE {
            return None;
        }
        let level = self.tree.join(puller);
        self.ages += 1;
        let most = want::most(self.tree.limit(level), self.tree.lowest(level));
        let soon = useful.is_some_and(|useful| useful >= most);
        let age = self.ages.saturating_add(if soon { LETS_PASS } else { 0 });
        let pull = Pull::new(puller.node.clone(), level, id, class, age);
        let pull = self.pulls.insert(pull);
        self.numbers.insert((puller.node.clone(), id), pull);
        self.waiting += 1;
        Some(pull)
    }

    /// A lease ended, and its pull has asked again meanwhile.
    fn wait(&mut self, pull: usize) {
        let wish = self.pulls[pull].wish.take();
        let (level, age) = (self.pulls[pull].level, self.pulls[pull].age);
        self.tree.wish(level, pull, age, wish, None);
        self.ages += 1;
        self.waiting += 1;
        self.pulls[pull].wait(self.ages);
        self.settle(pull);
    }

    fn remove(&mut self, pull: usize) {
        self.waiting -= usize::from(self.pulls[pull].started.is_none());
        self.pulls[pull].leave();
        self.settle(pull);
        let Pull { level, id, .. } = self.pulls[pull];
        self.numbers.remove(&(self.pulls[pull].node.clone(), id));
        self.tree.leave(level);
        self.pulls.release(pull);
    }

    /// Tells the tree and the timetable what a pull is now.
    fn settle(&mut self, number: usize) {
        let pull = &mut self.pulls[number];
        let (weight, wish, ends) = (pull.weighs(), pull.wishes(), pull.next_end());
        let weight_before = std::mem::replace(&mut pull.weight, weight);
        let wish_before = std::mem::replace(&mut pull.wish, wish);
        let ends_before = std::mem::replace(&mut pull.ends, ends);
        self.tree.weigh(pull.level, weight_before, weight);
        self.tree.wish(pull.level, number, pull.age, wish_before, wish);
        if ends_before != ends {
            if let Some(before) = ends_before {
                self.ends.remove(&(before, number));
            }
            self.ends.extend(ends.map(|end| (end, number)));
        }
    }
}

/// What is left of a lease, or nothing where that is not worth a pull.
fn worth(left: Rate, of: Rate) -> Rate {
    if left < of && left < LEAST { Rate::ZERO } else { left }
}
