//! What nodes should have, made once for all that should have the same.

use std::ops::Deref;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use jiff::Timestamp;
use rootstock_core::desired::{DesiredContent, Generation};
use rootstock_core::digest::Digest;
use rootstock_proto::{desired, v1};

/// A desired content with its hash, and the message that it becomes. It is
/// shared by ten thousand nodes.
#[derive(Debug)]
pub struct Content {
    desired: DesiredContent,
    hash: Digest,
    message: OnceLock<v1::Desired>,
}

/// What one node should have.
#[derive(Clone, Debug, PartialEq)]
pub struct Offered {
    /// The node's own number of it.
    pub generation: Generation,
    /// All of it.
    pub content: Arc<Content>,
    /// Its permission to restart containerd for it, if it has one.
    pub slot: Option<Slot>,
}

/// A node's permission to restart containerd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Until when.
    pub until: Timestamp,
    /// Whether the node is to forget before what it failed with.
    pub again: bool,
}

/// The longest that a node is told at once that it has a slot: one that is out
/// of reach, so that nothing can be taken back from it, has it for no longer.
/// What lasts longer is said anew in between.
const LONGEST: Duration = Duration::from_secs(60 * 60);

impl Slot {
    /// Of a node that nothing runs on yet.
    pub const JOINING: Self = Self { until: Timestamp::MAX, again: false };

    /// How much of it is left, as the node is told: at most an hour.
    pub fn left(&self, now: Timestamp) -> Duration {
        self.whole(now).min(LONGEST)
    }

    /// When it is said anew, where it is told now and that is not all of it:
    /// at half of what is told, so that the node always has enough of it left.
    pub fn anew(&self, now: Timestamp) -> Option<Duration> {
        (self.whole(now) > LONGEST).then_some(LONGEST / 2)
    }

    fn whole(&self, now: Timestamp) -> Duration {
        Duration::try_from(self.until.duration_since(now)).unwrap_or_default()
    }
}

impl Content {
    /// The hash by which a node tells whether it holds this.
    pub fn hash(&self) -> Digest {
        self.hash
    }
}

impl From<DesiredContent> for Content {
    fn from(desired: DesiredContent) -> Self {
        let hash = desired::content_hash(&desired);
        Self { desired, hash, message: OnceLock::new() }
    }
}

impl PartialEq for Content {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash
    }
}

impl Deref for Content {
    type Target = DesiredContent;

    fn deref(&self) -> &DesiredContent {
        &self.desired
    }
}

impl Offered {
    /// The message to the node.
    pub fn message(&self) -> v1::Desired {
        let content = &self.content;
        let message = content.message.get_or_init(|| desired::message(content, content.hash));
        v1::Desired { generation: self.generation.0, ..message.clone() }
    }
}

#[cfg(test)]
mod tests {
    use rootstock_core::desired::Desired;

    use super::*;

    #[test]
    fn the_message_is_the_one_of_that_generation() {
        let content =
            DesiredContent { keep: ["kata".parse().unwrap()].into(), ..Default::default() };
        let shared = Arc::new(Content::from(content.clone()));
        for generation in [3, 5].map(Generation) {
            let offered = Offered { generation, content: Arc::clone(&shared), slot: None };
            let alone = Desired { generation, content: content.clone() };
            assert_eq!(offered.message(), v1::Desired::from(&alone));
        }
    }
}
