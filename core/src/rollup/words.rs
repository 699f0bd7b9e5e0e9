//! How nodes are put into words that stay readable for a thousand of them.

use std::fmt::Write as _;

use crate::name::NodeName;

/// How many nodes a message names for one reason.
const NAMED: usize = 5;
/// The longest name that is written out, in bytes. Kubernetes allows 253, and
/// five of those would fill a message.
const MAX_NAME: usize = 63;

/// Cuts a text at a character.
pub(super) fn bounded(mut text: String, most: usize) -> String {
    const ELLIPSIS: char = '…';
    if text.len() > most {
        let room = most.saturating_sub(ELLIPSIS.len_utf8());
        text.truncate(text.floor_char_boundary(room));
        text.push(ELLIPSIS);
    }
    text
}

pub(super) fn count(nodes: usize) -> String {
    if nodes == 1 { "1 node".to_owned() } else { format!("{nodes} nodes") }
}

/// The first few names, and how many more there are.
pub(super) fn names(nodes: &[&NodeName]) -> String {
    let first = nodes.iter().take(NAMED);
    let first: Vec<_> = first.map(|name| bounded(name.as_str().to_owned(), MAX_NAME)).collect();
    let mut text = first.join(", ");
    if nodes.len() > NAMED {
        let _ = write!(text, " and {} more", nodes.len() - NAMED);
    }
    text
}
