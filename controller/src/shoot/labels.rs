//! The label that keeps the agent on a node until it has cleaned up.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use rootstock_core::assign::AGENT_LABEL;
use rootstock_core::name::{NodeName, ShootName};
use rootstock_daemon::error::Chain;
use serde_json::json;
use tokio::time::Instant;

use super::client::Link;
use super::trouble::{self, Pauses};
use crate::index::{Index, LabelChange};
use crate::lead::{Standing, Term};

/// How many Nodes of one shoot are changed at once: 10,000 new ones take
/// seconds where one takes 5 ms.
pub(super) const AT_ONCE: usize = 16;
/// Changes are gathered for so long: nodes report several times a second while they pull.
pub(super) const GATHER: Duration = Duration::from_millis(50);
/// How long a change may take until the watch shows it; until then it is not
/// made again.
const SHOWN: Duration = Duration::from_secs(5);

/// Keeps the labels as the index wants them, while this controller leads.
/// Does not end by itself.
///
/// Cancel-safe: what was not done is still wanted.
pub(super) async fn keep(
    client: Client,
    link: Arc<Link>,
    shoot: ShootName,
    index: Arc<Index>,
    mut standing: Standing,
) -> std::convert::Infallible {
    let api: Api<Node> = Api::all(client);
    loop {
        let term = standing.term().await;
        // Cancel-safe, as this is.
        tokio::select! {
            never = keep_in_term(&api, &link, &shoot, &index, &term) => match never {},
            () = term.over() => {}
        }
    }
}

async fn keep_in_term(
    api: &Api<Node>,
    link: &Link,
    shoot: &ShootName,
    index: &Index,
    term: &Term,
) -> std::convert::Infallible {
    let mut changes = index.changes();
    let mut made = Made::default();
    let mut pauses = Pauses::default();
    loop {
        changes.borrow_and_update();
        let seen = index.change_of(shoot);
        let due = made.due(index.label_changes(shoot), Instant::now());
        let failure = apply_all(api, due, &mut made, shoot, term).await;
        if let Some(error) = failure {
            tokio::time::sleep(pauses.next(trouble::kind(&error), link.take_hold())).await;
        } else {
            pauses = Pauses::default();
            // Cancel-safe: a change is still seen by the next look.
            let changed = async {
                while index.change_of(shoot) == seen {
                    if changes.changed().await.is_err() {
                        // The index lives as long as the controller does.
                        std::future::pending::<()>().await;
                    }
                }
            };
            match made.next_look() {
                Some(at) => {
                    let _ = tokio::time::timeout_at(at, changed).await;
                }
                None => changed.await,
            }
        }
        tokio::time::sleep(GATHER).await;
    }
}

/// Makes the changes, many at once; returns the first failure. One that stands
/// in the way of all ends the round: thousands of Nodes are not asked for in vain.
async fn apply_all(
    api: &Api<Node>,
    due: Vec<LabelChange>,
    made: &mut Made,
    shoot: &ShootName,
    term: &Term,
) -> Option<kube::Error> {
    let mut failure = None;
    let mut answers = futures_util::stream::iter(due)
        // A process that was stopped and goes on is here before it is told.
        .take_while(|_| std::future::ready(term.holds()))
        .map(|change| async move { (apply(api, &change).await, change) })
        .buffer_unordered(AT_ONCE);
    while let Some((answer, change)) = answers.next().await {
        let Err(error) = answer else {
            made.note(change, Instant::now());
            continue;
        };
        tracing::debug!(%shoot, node = %change.node, error = %Chain(&error), "labelling");
        let ends = concerns_all(&error);
        failure.get_or_insert(error);
        if ends {
            break;
        }
    }
    failure
}

async fn apply(api: &Api<Node>, change: &LabelChange) -> Result<(), kube::Error> {
    let value = if change.set { json!("true") } else { json!(null) };
    let patch = json!({"metadata": {"labels": {AGENT_LABEL: value}}});
    let name = change.node.as_str();
    match api.patch_metadata(name, &PatchParams::default(), &Patch::Merge(patch)).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(error),
    }
}

/// Whether what stands in the way of one label stands in the way of all.
fn concerns_all(error: &kube::Error) -> bool {
    let kube::Error::Api(status) = error else { return true };
    matches!(status.code, 401 | 403 | 429 | 500..)
}

/// The changes that were made and have not come back by the watch yet.
#[derive(Debug, Default)]
struct Made(BTreeMap<NodeName, (bool, Instant)>);

impl Made {
    /// What of it is to be done now.
    fn due(&mut self, wanted: Vec<LabelChange>, now: Instant) -> Vec<LabelChange> {
        let mut before = std::mem::take(&mut self.0);
        let mut due = Vec::new();
        for change in wanted {
            match before.remove_entry(&change.node) {
                Some((node, (set, until))) if set == change.set && now < until => {
                    self.0.insert(node, (set, until));
                }
                Some(_) | None => due.push(change),
            }
        }
        due
    }

    fn note(&mut self, change: LabelChange, now: Instant) {
        self.0.insert(change.node, (change.set, now + SHOWN));
    }

    /// When a change that never came back is made again.
    fn next_look(&self) -> Option<Instant> {
        self.0.values().map(|(_, until)| *until).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_not_made_again_while_it_is_on_its_way() {
        let change = |set| LabelChange { node: "n".parse().unwrap(), set };
        let now = Instant::now();
        let mut made = Made::default();
        assert_eq!(made.due(vec![change(true)], now), [change(true)]);
        made.note(change(true), now);
        assert_eq!(made.due(vec![change(true)], now), []);
        assert_eq!(made.next_look(), Some(now + SHOWN));
        assert_eq!(made.due(vec![change(false)], now), [change(false)], "it is another change");
        made.note(change(true), now);
        assert_eq!(made.due(vec![change(true)], now + SHOWN), [change(true)], "it did not hold");
        made.note(change(true), now);
        assert_eq!(made.due(Vec::new(), now), []);
        assert_eq!(made.next_look(), None, "the watch has shown it");
    }
}
