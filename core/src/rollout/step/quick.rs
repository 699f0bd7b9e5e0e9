//! What makes a look at ten thousand nodes quick: no allocation for a node, no slow hash.

use std::hash::{BuildHasherDefault, Hasher};
use std::ops::Index;

/// Hashes what the API server and this process name: nobody gains by names
/// that fall together.
pub(super) type Quick = BuildHasherDefault<Words>;

/// Words are multiplied in one after the other, and mixed at the end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Words(u64);

impl Default for Words {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for Words {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        words.iter().for_each(|word| self.write_u64(u64::from_le_bytes(*word)));
        rest.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn write_usize(&mut self, number: usize) {
        self.write_u64(number as u64);
    }

    fn finish(&self) -> u64 {
        let mixed = (self.0 ^ (self.0 >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed ^ (mixed >> 32)
    }
}

/// For each node and each of its runtimes, which run decides: in one piece.
#[derive(Debug)]
pub(super) struct Decides {
    runs: Vec<Option<usize>>,
    /// Where each node's begin; one more than there are nodes.
    begins: Vec<usize>,
}

impl Decides {
    pub(super) fn new(nodes: usize) -> Self {
        let mut begins = Vec::with_capacity(nodes + 1);
        begins.push(0);
        Self { runs: Vec::with_capacity(nodes), begins }
    }

    /// The runs of the next node.
    pub(super) fn push(&mut self, of_node: impl Iterator<Item = Option<usize>>) {
        self.runs.extend(of_node);
        self.begins.push(self.runs.len());
    }
}

impl Index<usize> for Decides {
    type Output = [Option<usize>];

    fn index(&self, node: usize) -> &Self::Output {
        &self.runs[self.begins[node]..self.begins[node + 1]]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::hash::BuildHasher;

    use super::*;

    #[test]
    fn each_node_has_its_own_runs() {
        let mut decides = Decides::new(3);
        let nodes = [vec![Some(1), None], vec![], vec![Some(0)]];
        nodes.iter().for_each(|node| decides.push(node.iter().copied()));
        for (at, node) in nodes.iter().enumerate() {
            assert_eq!(decides[at], node[..]);
        }
    }

    #[test]
    fn names_that_differ_little_fall_apart() {
        let quick = Quick::default();
        let names: Vec<_> = (0..10_000)
            .map(|n| format!("0b6d1c9e-{:04x}-4f00-8000-00000000{n:04x}", n % 7))
            .collect();
        let hashes: Vec<u64> = names.iter().map(|name| quick.hash_one(name)).collect();
        assert_eq!(hashes.iter().collect::<BTreeSet<_>>().len(), names.len());
        // The bits that a table goes by: buckets by the low ones, tags by the high ones.
        let spread = |of: &dyn Fn(u64) -> u64, buckets: usize| {
            let mut counts = vec![0_usize; buckets];
            hashes.iter().for_each(|hash| counts[usize::try_from(of(*hash)).unwrap()] += 1);
            counts.into_iter().max().unwrap_or(0) * buckets
        };
        assert!(spread(&|hash| hash % 128, 128) < 2 * names.len());
        assert!(spread(&|hash| hash >> 57, 128) < 2 * names.len());
    }
}
