//! What was seen of a run, second by second, for pictures.

use std::time::Duration;

use crate::node::Lane;

/// How many nodes are in each lane.
pub(crate) type Lanes = [u32; Lane::ALL.len()];

/// One second.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// When it ended.
    pub(crate) at: Duration,
    /// Bytes that had come by then.
    pub(crate) moved: f64,
    /// The budget, bytes per second.
    pub(crate) cap: f64,
    /// Where nodes are.
    pub(crate) lanes: Lanes,
}

/// All of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Series {
    /// In order.
    pub(crate) samples: Vec<Sample>,
    /// Where nodes are now.
    pub(crate) lanes: Lanes,
}

impl Series {
    /// A node came.
    pub(crate) fn came(&mut self, lane: Lane) {
        self.lanes[lane as usize] += 1;
    }

    /// A node moved.
    pub(crate) fn moved(&mut self, from: Lane, to: Lane) {
        self.lanes[from as usize] -= 1;
        self.lanes[to as usize] += 1;
    }

    /// Nodes in a lane now.
    pub(crate) fn of(&self, lane: Lane) -> usize {
        self.lanes[lane as usize] as usize
    }

    /// A second has passed.
    pub(crate) fn note(&mut self, at: Duration, moved: f64, cap: f64) {
        self.samples.push(Sample { at, moved, cap, lanes: self.lanes });
    }
}
