//! Desired states as they go over the wire: written once for all nodes that
//! should have the same.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use rootstock_core::desired::{Desired, Generation};
use rootstock_core::digest::Digest;
use rootstock_proto::v1;

/// How many contents are remembered: a change of a runtime reaches the pools of
/// many shoots at one time, and most of them have the same.
const DRAFTS: usize = 16;

/// What was sent last, without the generation, which is each node's own.
#[derive(Debug, Default)]
pub(super) struct Drafts(Mutex<VecDeque<Arc<Draft>>>);

#[derive(Debug)]
pub(super) struct Draft {
    desired: Arc<Desired>,
    message: v1::Desired,
}

impl Drafts {
    /// The draft of a desired state.
    pub(super) fn of(&self, desired: &Arc<Desired>) -> Arc<Draft> {
        let known = |draft: &&Arc<Draft>| draft.desired.content == desired.content;
        let drafts = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(draft) = drafts().iter().find(known) {
            return Arc::clone(draft);
        }
        // Without the lock: two that write the same are better than all that wait.
        let draft = Arc::new(Draft { desired: Arc::clone(desired), message: (&**desired).into() });
        let mut drafts = drafts();
        drafts.truncate(DRAFTS - 1);
        drafts.push_front(Arc::clone(&draft));
        draft
    }
}

impl Draft {
    /// The message to one node.
    pub(super) fn message(&self, generation: Generation) -> v1::Desired {
        v1::Desired { generation: generation.0, ..self.message.clone() }
    }

    /// Whether a node that holds this has the content.
    pub(super) fn is(&self, content: &Digest) -> bool {
        self.message.content_hash == content.as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use rootstock_core::desired::DesiredContent;
    use rootstock_proto::desired::content_hash;

    use super::*;

    fn desired(generation: u64, keep: &str) -> Arc<Desired> {
        let keep = [keep.parse().unwrap()].into();
        let content = DesiredContent { keep, ..DesiredContent::default() };
        Arc::new(Desired { generation: Generation(generation), content })
    }

    #[test]
    fn the_same_content_is_written_once() {
        let drafts = Drafts::default();
        let first = drafts.of(&desired(1, "a"));
        assert!(Arc::ptr_eq(&first, &drafts.of(&desired(9, "a"))));
        assert_eq!(first.message(Generation(9)), (&*desired(9, "a")).into());
        assert!(first.is(&content_hash(&desired(3, "a").content)));
        assert!(!first.is(&content_hash(&desired(1, "b").content)));
        for n in 0..100 {
            drafts.of(&desired(1, &format!("x{n}")));
        }
        assert_eq!(drafts.0.lock().unwrap().len(), DRAFTS);
        assert!(!Arc::ptr_eq(&first, &drafts.of(&desired(1, "a"))), "it was long ago");
    }
}
