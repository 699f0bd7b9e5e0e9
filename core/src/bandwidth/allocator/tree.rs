//! The levels of the budgets, what is used at each, and who is next.
//!
//! ```text
//!  seed ─▶ shoots ─▶ pools ─▶ nodes ─▶ pulls
//!       by share    by share   by age  by age
//! ```
//!
//! A level is listed with the level above it while it has room and somebody
//! below it wants some: what is listed all the way up can be served. Each
//! change of a pull walks the four levels above it once, and at each the
//! ordered lists of the level: O(log n) for n levels and pulls.

#[cfg(test)]
mod audit;
mod level;
mod room;

use std::collections::BTreeMap;

pub(super) use level::{Weight, Wish};
pub(super) use room::Room;

use super::arena::Arena;
use crate::bandwidth::message::PULLS_PER_NODE;
use crate::bandwidth::{Budgets, Class, Limit, Node, Puller, Rate};
use level::{Level, Name, Place};

/// The number of the seed's level.
const SEED: usize = 0;

#[derive(Debug)]
pub(super) struct Tree {
    levels: Arena<Level>,
    numbers: BTreeMap<Name, usize>,
    budgets: Budgets,
    served: u64,
}

impl Tree {
    pub(super) fn new(budgets: Budgets) -> Self {
        let (levels, numbers) = (Arena::new(), BTreeMap::new());
        let mut tree = Self { levels, numbers, budgets, served: 0 };
        tree.level(Name::Seed, None);
        // The seed's level never goes.
        tree.levels[SEED].below += 1;
        tree
    }

    /// The level of a node, made where there is none, for one pull more. A node
    /// that changes its pool does so when its last pull has ended.
    pub(super) fn join(&mut self, puller: &Puller) -> usize {
        let node = match self.node(&puller.node) {
            Some(node) => node,
            None => {
                let shoot = self.level(Name::Shoot(puller.node.shoot().clone()), Some(SEED));
                let pool = self.level(Name::Pool(shoot, puller.pool.clone()), Some(shoot));
                self.level(Name::Node(puller.node.clone()), Some(pool))
            }
        };
        self.levels[node].below += 1;
        node
    }

    /// The level of a node that has pulls.
    pub(super) fn node(&self, node: &Node) -> Option<usize> {
        self.numbers.get(&Name::Node(node.clone())).copied()
    }

    /// A pull of the node is gone; it weighs and wishes nothing.
    pub(super) fn leave(&mut self, node: usize) {
        let mut number = node;
        loop {
            self.levels[number].below -= 1;
            let above = self.levels[number].above;
            let Some(above) = above.filter(|_| self.levels[number].below == 0) else { return };
            self.numbers.remove(&self.levels[number].name);
            self.levels.release(number);
            number = above;
        }
    }

    /// A pull of the node weighs something else than before.
    pub(super) fn weigh(&mut self, node: usize, before: Weight, after: Weight) {
        if before == after {
            return;
        }
        let add = |sum: u128, before: Rate, after: Rate| {
            sum + u128::from(after.get()) - u128::from(before.get())
        };
        for number in self.path(node) {
            let level = &mut self.levels[number];
            level.counted = add(level.counted, before.counted, after.counted);
            level.granted = add(level.granted, before.granted, after.granted);
            level.pulls = level.pulls + after.pulls() - before.pulls();
            level.ending = level.ending + after.ending() - before.ending();
        }
        self.list(node);
    }

    /// A pull of the node, which asked at `age`, wants something else than before.
    pub(super) fn wish(
        &mut self,
        node: usize,
        pull: usize,
        age: u64,
        before: Option<Wish>,
        after: Option<Wish>,
    ) {
        if before == after {
            return;
        }
        let place = Place { share: 0, age, number: pull };
        if let Some(wish) = before {
            self.levels[node].wishes[wish.index()].remove(&place);
        }
        if let Some(wish) = after {
            self.levels[node].wishes[wish.index()].insert(place);
        }
        self.list(node);
    }

    /// The pull whose wish is to be granted next: the canaries' before any
    /// other, of the shoot and in it of the pool that has the smallest share,
    /// and there of whoever comes first by its age. It can have something.
    pub(super) fn next(&self) -> Option<(usize, Wish)> {
        [Class::Canary, Class::Regular].into_iter().find_map(|class| self.next_of(class))
    }

    fn next_of(&self, class: Class) -> Option<(usize, Wish)> {
        let mut possible = vec![Wish::More(class), Wish::Start(class)];
        let mut number = SEED;
        loop {
            let level = &self.levels[number];
            possible.retain(|wish| level.has_room(*wish));
            let first = possible.iter().filter_map(|wish| {
                Some((level.wishes[wish.index()].first()?, wish.index(), *wish))
            });
            let (place, _, wish) = first.min_by_key(|(place, index, _)| (**place, *index))?;
            if matches!(level.name, Name::Node(_)) {
                return Some((place.number, wish));
            }
            number = place.number;
        }
    }

    /// The node's levels were served: others with the same share come first.
    pub(super) fn served(&mut self, node: usize) {
        self.served += 1;
        for number in self.path(node) {
            self.levels[number].served = self.served;
        }
        self.list(node);
    }

    /// What is free at every level above a pull.
    pub(super) fn left(&self, node: usize) -> Rate {
        let left = self.path(node).map(|number| self.levels[number].left());
        left.into_iter().fold(Rate::MAX, Rate::min)
    }

    /// How much of what a pull was granted fits the budgets beside what others
    /// were granted: all of it, but where budgets were lowered.
    pub(super) fn fits(&self, node: usize, granted: Rate) -> Rate {
        let fits = self.path(node).map(|number| {
            let level = &self.levels[number];
            if level.is_crowded() {
                return Rate::ZERO;
            }
            level.limit.left(level.granted - u128::from(granted.get()))
        });
        fits.into_iter().fold(granted, Rate::min)
    }

    /// What the levels below the seed have for one lease more of the node,
    /// beside what is granted there.
    pub(super) fn own(&self, node: usize) -> Rate {
        let [node, pool, shoot, _] = self.path(node);
        let own = [node, pool, shoot].map(|number| {
            let level = &self.levels[number];
            let full = level.pulls - level.ending >= level.most_pulls;
            if full { Rate::ZERO } else { level.limit.left(level.granted) }
        });
        own.into_iter().fold(Rate::MAX, Rate::min)
    }

    /// Whether there are no budgets at all.
    pub(super) fn is_unlimited(&self) -> bool {
        self.budgets == Budgets::default()
    }

    /// What is used of the seed's budget, and by how many pulls.
    pub(super) fn used(&self) -> (Rate, u32) {
        (Rate::saturating(self.levels[SEED].counted), self.levels[SEED].pulls)
    }

    /// The node's own limit.
    pub(super) fn limit(&self, node: usize) -> Limit {
        self.levels[node].limit
    }

    /// The lowest limit of any level above a pull; [`Rate::MAX`] without any.
    pub(super) fn lowest(&self, node: usize) -> Rate {
        let limits = self.path(node).map(|number| self.levels[number].limit.rate());
        limits.into_iter().fold(Rate::MAX, Rate::min)
    }

    /// Whether somebody waits for what a pull of the node and the class has.
    pub(super) fn is_waited_for(&self, node: usize, class: Class) -> bool {
        self.path(node).into_iter().any(|number| self.levels[number].is_waited_for(class))
    }

    /// Whether one pull more may be told to end for those who wait: of a
    /// level's pulls not more than a quarter at a time, for one often is enough.
    pub(super) fn may_end(&self, node: usize, class: Class) -> bool {
        self.path(node).into_iter().any(|number| {
            let level = &self.levels[number];
            level.is_waited_for(class) && level.ending.saturating_mul(4) < level.pulls.max(4)
        })
    }

    /// Other budgets. O(n log n).
    pub(super) fn set(&mut self, budgets: Budgets) {
        self.budgets = budgets;
        let numbers: Vec<_> = self.numbers.iter().map(|(n, number)| (n.clone(), *number)).collect();
        for (name, number) in &numbers {
            (self.levels[*number].limit, self.levels[*number].most_pulls) = limits(&budgets, name);
        }
        let nodes = numbers.iter().filter(|(name, _)| matches!(name, Name::Node(_)));
        for (_, node) in nodes {
            self.list(*node);
        }
    }

    /// The node's level and those above it, up to the seed.
    pub(super) fn path(&self, node: usize) -> [usize; 4] {
        let above = |number: usize| self.levels[number].above.unwrap_or(SEED);
        let pool = above(node);
        let shoot = above(pool);
        [node, pool, shoot, SEED]
    }

    fn level(&mut self, name: Name, above: Option<usize>) -> usize {
        if let Some(number) = self.numbers.get(&name) {
            return *number;
        }
        let (limit, most_pulls) = limits(&self.budgets, &name);
        let number = self.levels.insert(Level {
            name: name.clone(),
            above,
            limit,
            most_pulls,
            counted: 0,
            granted: 0,
            pulls: 0,
            ending: 0,
            below: 0,
            served: 0,
            wishes: Default::default(),
            listed: Default::default(),
        });
        self.numbers.insert(name, number);
        if let Some(above) = above {
            self.levels[above].below += 1;
        }
        number
    }

    /// Lists the node's level, and all above it, where they belong.
    fn list(&mut self, node: usize) {
        for number in self.path(node) {
            let Some(above) = self.levels[number].above else { return };
            for wish in Wish::ALL {
                let index = wish.index();
                let level = &self.levels[number];
                let first = level.wishes[index].first().filter(|_| level.has_room(wish));
                let place = first.map(|first| self.place(number, first.age));
                let before = std::mem::replace(&mut self.levels[number].listed[index], place);
                if before == place {
                    continue;
                }
                let list = &mut self.levels[above].wishes[index];
                if let Some(before) = before {
                    list.remove(&before);
                }
                list.extend(place);
            }
        }
    }

    /// A level's place among its neighbours. `asked` is when the first of it asked.
    fn place(&self, number: usize, asked: u64) -> Place {
        let level = &self.levels[number];
        if matches!(level.name, Name::Node(_)) {
            return Place { share: 0, age: asked, number };
        }
        Place { share: self.share(number), age: level.served, number }
    }

    /// The part of the nearest limit above, or of all pulls that there may be,
    /// whichever is more, in 2^32 parts: who has many slow pulls has much, too.
    fn share(&self, number: usize) -> u64 {
        let level = &self.levels[number];
        let mut above = level.above;
        let mut of = Rate::MAX;
        while let Some(number) = above.filter(|_| of == Rate::MAX) {
            of = self.levels[number].limit.rate();
            above = self.levels[number].above;
        }
        let rate = (level.counted << 32) / u128::from(of.get()).max(1);
        let most_pulls = u64::from(self.levels[SEED].most_pulls);
        let pulls = (u64::from(level.pulls) << 32) / most_pulls.max(1);
        u64::try_from(rate).unwrap_or(u64::MAX).max(pulls)
    }
}

fn limits(budgets: &Budgets, name: &Name) -> (Limit, u32) {
    match name {
        Name::Seed => (budgets.seed, budgets.concurrent_pulls.map_or(u32::MAX, |most| most.get())),
        Name::Shoot(_) => (budgets.shoot, u32::MAX),
        Name::Pool(..) => (budgets.pool, u32::MAX),
        Name::Node(_) => (budgets.node, PULLS_PER_NODE),
    }
}
