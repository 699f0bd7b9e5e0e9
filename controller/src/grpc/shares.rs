//! How many connections one shoot may have: its owner decides how many nodes
//! there are, and must not decide over what is left for others.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rootstock_core::name::ShootName;

/// Counts the connections of each shoot.
#[derive(Debug)]
pub(super) struct Shares {
    most: usize,
    taken: Mutex<BTreeMap<ShootName, Taken>>,
}

#[derive(Debug, Default)]
struct Taken {
    count: usize,
    /// Whether it was said that there is no more room.
    said: bool,
}

/// One connection of a shoot, until it is dropped.
#[derive(Debug)]
pub(super) struct Share {
    shoot: ShootName,
    shares: Arc<Shares>,
}

impl Shares {
    /// Each shoot may have so many.
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, taken: Mutex::default() })
    }

    /// Room for one more connection of a shoot, if it has not all that it may have.
    pub(super) fn take(self: &Arc<Self>, shoot: &ShootName) -> Option<Share> {
        let mut all = self.taken();
        let taken = all.entry(shoot.clone()).or_default();
        if taken.count < self.most {
            taken.count += 1;
            return Some(Share { shoot: shoot.clone(), shares: Arc::clone(self) });
        }
        if !std::mem::replace(&mut taken.said, true) {
            tracing::warn!(%shoot, most = self.most, "the shoot has all connections that it may have");
        }
        None
    }

    fn taken(&self) -> MutexGuard<'_, BTreeMap<ShootName, Taken>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut all = self.shares.taken();
        let Some(taken) = all.get_mut(&self.shoot) else { return };
        taken.count -= 1;
        // One connection more or less is no news.
        taken.said &= taken.count > self.shares.most / 2;
        if taken.count == 0 {
            all.remove(&self.shoot);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whoever comes and goes: a shoot has what it has not given back, up to
        /// its bound, whatever others have, and nothing is kept of one that has none.
        #[test]
        fn each_shoot_has_its_own_bound(steps in prop::collection::vec((0..3_usize, any::<bool>()), 0..200)) {
            const MOST: usize = 5;
            let shares = Shares::new(MOST);
            let names = ["one", "two", "three"].map(|name| name.parse::<ShootName>().unwrap());
            let mut held: [Vec<Share>; 3] = Default::default();
            for (shoot, comes) in steps {
                if comes {
                    let share = shares.take(&names[shoot]);
                    prop_assert_eq!(share.is_some(), held[shoot].len() < MOST);
                    held[shoot].extend(share);
                } else {
                    held[shoot].pop();
                }
                let known = shares.taken().len();
                prop_assert_eq!(known, held.iter().filter(|held| !held.is_empty()).count());
            }
        }
    }
}
