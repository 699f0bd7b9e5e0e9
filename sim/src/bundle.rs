//! The bundles that there are, and what becomes of a node that activates one.

use std::collections::BTreeMap;

use rootstock_core::digest::Digest;
use rootstock_core::name::Architecture;
use rootstock_core::rollout::record::Digests;

/// What becomes of a node that activates a bundle.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It works.
    #[default]
    Works,
    /// containerd does not come up with it; what was before is put back.
    RollsBack,
    /// containerd does not come up with it, nor with what was before.
    Degrades,
    /// The agent's proof passes, and pods' sandboxes do not start.
    FailsPods,
    /// The node is never heard of again.
    Silences,
}

/// Every bundle by its digest.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bundles(BTreeMap<Digest, (u64, Fate)>);

impl Bundles {
    /// A bundle of so many bytes.
    pub(crate) fn add(&mut self, name: &str, bytes: u64, fate: Fate) -> Digest {
        let digest = Digest::of(name.as_bytes());
        self.0.insert(digest, (bytes, fate));
        digest
    }

    /// How many bytes it has.
    pub(crate) fn bytes(&self, digest: Digest) -> u64 {
        self.0.get(&digest).map_or(0, |(bytes, _)| *bytes)
    }

    /// What becomes of those that activate it.
    pub(crate) fn fate(&self, digest: Digest) -> Fate {
        self.0.get(&digest).map(|(_, fate)| *fate).unwrap_or_default()
    }
}

/// The only architecture here: what differs by it is decided alike.
pub(crate) const AMD64: Architecture = Architecture::Amd64;

/// A bundle as the catalog has it.
pub(crate) fn digests(digest: Digest) -> Digests {
    [(AMD64, digest)].into()
}
