//! One level of the budgets.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::bandwidth::message::LEAST;
use crate::bandwidth::{Class, Limit, Node, Rate};
use crate::name::ShootName;

/// How many kinds of wishes there are.
pub(super) const WISHES: usize = 4;

/// What a pull waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::bandwidth::allocator) enum Wish {
    /// A higher rate.
    More(Class),
    /// To begin.
    Start(Class),
}

impl Wish {
    pub(super) const ALL: [Self; WISHES] = [
        Self::More(Class::Canary),
        Self::Start(Class::Canary),
        Self::More(Class::Regular),
        Self::Start(Class::Regular),
    ];

    pub(super) fn index(self) -> usize {
        match self {
            Self::More(Class::Canary) => 0,
            Self::Start(Class::Canary) => 1,
            Self::More(Class::Regular) => 2,
            Self::Start(Class::Regular) => 3,
        }
    }

    pub(super) fn is_start(self) -> bool {
        matches!(self, Self::Start(_))
    }
}

/// A place in a list: the lowest comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    /// The part of what there is that it has; the same for all that go by age.
    pub(super) share: u64,
    /// When it was last served, or when it asked.
    pub(super) age: u64,
    /// The level or the pull.
    pub(super) number: usize,
}

/// What a pull takes of each level above it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::bandwidth::allocator) struct Weight {
    /// What its agent may be using.
    pub(in crate::bandwidth::allocator) counted: Rate,
    /// What its agent was last told.
    pub(in crate::bandwidth::allocator) granted: Rate,
}

impl Weight {
    pub(super) fn pulls(self) -> u32 {
        u32::from(self.counted > Rate::ZERO)
    }

    /// It was told to stop, and may not have.
    pub(super) fn ending(self) -> u32 {
        u32::from(self.counted > Rate::ZERO && self.granted == Rate::ZERO)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Name {
    Seed,
    Shoot(ShootName),
    Pool(usize, Arc<str>),
    Node(Node),
}

#[derive(Debug)]
pub(super) struct Level {
    pub(super) name: Name,
    pub(super) above: Option<usize>,
    pub(super) limit: Limit,
    pub(super) most_pulls: u32,
    pub(super) counted: u128,
    pub(super) granted: u128,
    pub(super) pulls: u32,
    pub(super) ending: u32,
    /// Levels or pulls below it; it goes with the last of them.
    pub(super) below: usize,
    pub(super) served: u64,
    pub(super) wishes: [BTreeSet<Place>; WISHES],
    /// Where it is in the lists of the level above.
    pub(super) listed: [Option<Place>; WISHES],
}

impl Level {
    pub(super) fn left(&self) -> Rate {
        self.limit.left(self.counted)
    }

    pub(super) fn has_room(&self, wish: Wish) -> bool {
        let fits = !wish.is_start() || self.pulls < self.most_pulls;
        fits && self.left() >= LEAST.min(self.limit.rate())
    }

    /// Whether somebody of a class, or of one before it, waits for this level
    /// to have room.
    pub(super) fn is_waited_for(&self, class: Class) -> bool {
        let waits = |of: Class| {
            let start = Wish::Start(of);
            !self.wishes[start.index()].is_empty() && !self.has_room(start)
        };
        waits(Class::Canary) || class == Class::Regular && waits(Class::Regular)
    }

    /// Whether there are more pulls than there may be, not counting those that end.
    pub(super) fn is_crowded(&self) -> bool {
        self.pulls - self.ending > self.most_pulls
    }
}
