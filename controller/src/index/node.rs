//! One node in the index: what it should have, what it says, who is connected.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rootstock_core::assign::Verdict;
use rootstock_core::desired::{DesiredContent, Generation};
use rootstock_core::digest::Digest;
use rootstock_core::name::{NodeName, RuntimeType, ShootName};
use rootstock_core::rollout::Permit;
use rootstock_core::rollup::Connection;
use rootstock_core::status::{BundleReport, Phase, Reason};
use tokio::sync::watch;

use super::alike::Assigned;
use super::missed::Before;
use super::object::NodeObject;
use super::rollout::Course;
use super::sandboxes::Failures;
use super::{Index, State};
use crate::content::{Offered, Slot};
use crate::grpc::Refused;
use crate::identity::NodeId;

/// How long an agent that is away is expected back: twice its longest pause
/// when its controller was away. A new controller knows no agent at first, and
/// agents change their stream now and then.
pub(super) const RETURN: Duration = Duration::from_secs(30);

/// How long a node's agent may take to come for the first time, once the node
/// is marked for it: the image is pulled, and a node starts, in less.
pub(super) const ARRIVAL: Duration = Duration::from_secs(600);

#[derive(Debug)]
pub(super) struct Node {
    pub(super) object: NodeObject,
    pub(super) assigned: Arc<Assigned>,
    /// What its rollouts let it have and do; none until they were looked at.
    pub(super) course: Option<Course>,
    /// What the node is sent; nothing until enough is known.
    desired: watch::Sender<Option<Offered>>,
    /// What the node's ledger held when it last said so.
    held: Option<(Generation, Digest)>,
    pub(super) connection: Connection,
    /// Since when no agent is connected, where none is; where none ever was,
    /// since when it is expected.
    away_since: Instant,
    /// Since when one is, where one is.
    here_since: Instant,
    /// Whether its agent was missed before this term.
    missed: bool,
    /// What it last said of each bundle; none before its first word.
    pub(super) reports: Option<Vec<BundleReport>>,
    /// The generation that its reports are about.
    reported: Generation,
    pub(super) refused: Option<(Reason, String)>,
    /// Since when there is such a Node.
    pub(super) known_since: Instant,
    /// Whether it was there with the agent's mark when its shoot was first
    /// listed: another controller may have known its agent.
    inherited: bool,
    /// The sandboxes that could not be started, by type.
    pub(super) failures: BTreeMap<RuntimeType, Failures>,
}

impl Node {
    pub(super) fn new(object: NodeObject) -> Self {
        let (desired, _) = watch::channel(None);
        let now = Instant::now();
        Self {
            object,
            assigned: Arc::default(),
            course: None,
            desired,
            held: None,
            connection: Connection::Never,
            away_since: now,
            here_since: now,
            missed: false,
            reports: None,
            reported: Generation::default(),
            refused: None,
            known_since: now,
            inherited: false,
            failures: BTreeMap::new(),
        }
    }

    /// Takes what the node should have and publishes it, if enough is known.
    pub(super) fn assign(&mut self, assigned: Arc<Assigned>, known: bool) {
        self.assigned = assigned;
        // A bundle that is being looked up will be there in a moment; until
        // then a node that holds something keeps it without being told so.
        let pending = self.assigned.verdicts.values().any(|verdict| {
            matches!(verdict, Verdict::Held(problem) if problem.reason == Reason::BundlePending)
        });
        // So with a type whose rollout is looked at in a moment.
        let unseen = |course: &Course| {
            self.assigned.tracks.keys().any(|runtime| !course.turns.contains_key(runtime))
        };
        let waits = (pending || self.course.as_ref().is_none_or(unseen)) && {
            let desired = self.desired.borrow();
            desired.as_ref().is_none_or(|desired| self.content().only_keeps(&desired.content))
        };
        // The label keeps the agent on the node until it has cleaned up, so it
        // is there before there is anything to clean up.
        let content = self.content();
        let nothing = content.bundles.is_empty() && content.prefetch.is_empty();
        let labelled = self.object.has_agent_label() || nothing;
        let directed = self.course.is_some() || self.assigned.tracks.is_empty();
        if known && directed && labelled && !waits {
            self.publish();
        }
    }

    /// Publishes what the node should have, under a number that the node takes.
    fn publish(&mut self) {
        let hash = self.assigned.content.hash();
        let unchanged = self.desired.borrow().as_ref().is_some_and(|d| d.content.hash() == hash);
        let own = self.generation();
        let generation = match self.held {
            // The node has exactly this already: its number stays, whatever
            // other states this controller thought of meanwhile.
            Some((held, content)) if content == hash => held,
            // The node is ahead, as after a restored control plane.
            Some((held, _)) if held >= own => own.after(held),
            Some(_) | None if unchanged => own,
            Some((held, _)) => own.after(held),
            None => own.after(Generation::default()),
        };
        let slot = self.slot();
        if unchanged && generation == own {
            self.desired.send_if_modified(|desired| {
                let Some(desired) = desired.as_mut().filter(|d| d.slot != slot) else {
                    return false;
                };
                desired.slot = slot;
                true
            });
            return;
        }
        let content = Arc::clone(&self.assigned.content);
        self.desired.send_replace(Some(Offered { generation, content, slot }));
        // What it said that it holds is over with the first other state that
        // it is sent: a way back has a number of its own.
        self.held = self.held.filter(|(held, _)| *held == generation);
    }

    fn slot(&self) -> Option<Slot> {
        match self.course.as_ref()?.permit? {
            Permit::Joining => Some(Slot::JOINING),
            Permit::Slot { until, again } => Some(Slot { until, again }),
        }
    }

    pub(super) fn generation(&self) -> Generation {
        self.desired.borrow().as_ref().map(|desired| desired.generation).unwrap_or_default()
    }

    pub(super) fn content(&self) -> &DesiredContent {
        &self.assigned.content
    }

    /// Whether the node has confirmed that it has nothing of what it was sent to lose.
    fn is_clean(&self) -> bool {
        let content = self.content();
        let nothing_asked = content.bundles.is_empty() && content.keep.is_empty();
        let nothing_left = self.reports.as_ref().is_some_and(|reports| reports.iter().all(is_gone));
        let generation = self.generation();
        nothing_asked
            && nothing_left
            && generation > Generation::default()
            && self.reported >= generation
    }

    /// Whether a node still has to confirm that a type is gone: one that has an
    /// agent, if that is connected or was away for less than [`RETURN`].
    pub(super) fn owes(&self, runtime: &RuntimeType, now: Instant) -> bool {
        if self.is_asked(runtime) {
            return false;
        }
        if self.connection != Connection::Open {
            let away = now.saturating_duration_since(self.away_since);
            return self.object.has_agent_label() && away < RETURN;
        }
        self.reported < self.generation() || !self.said_gone(runtime)
    }

    /// Whether its agent is here, and how long it may yet take where it never was.
    pub(super) fn arrival(&self, now: Instant) -> (Connection, Option<Duration>) {
        if self.connection != Connection::Never || !self.object.has_agent_label() {
            return (self.connection, None);
        }
        // Who was missed before is not expected anew, but may be on its way back.
        let patience = if self.missed { RETURN } else { ARRIVAL };
        match patience.checked_sub(now.saturating_duration_since(self.away_since)) {
            Some(left) if !left.is_zero() => (Connection::Never, Some(left)),
            Some(_) | None => (Connection::Missing, None),
        }
    }

    /// Whether it has a stream, and has said nothing over it of what it has
    /// while any agent would: whoever looks at its node hangs.
    pub(super) fn is_mute(&self, now: Instant) -> bool {
        self.connection == Connection::Open
            && self.reports.is_none()
            && now.saturating_duration_since(self.here_since) >= RETURN
    }

    /// It was there when its shoot was first listed.
    pub(super) fn inherit(&mut self) {
        self.inherited = self.object.has_agent_label();
    }

    /// Since when an agent is expected back that may have been here before the
    /// term, which began then; none where there was none.
    pub(super) fn is_due_back_since(&self, begun: Instant) -> Option<Instant> {
        let expected = self.object.has_agent_label();
        (expected && (self.inherited || self.away_since <= begun)).then_some(self.away_since)
    }

    /// Takes over who was missed when the term began.
    pub(super) fn recall(&mut self, missed: &Before, begun: Option<Instant>) {
        self.missed = begun.is_some_and(|begun| missed.has(self, self.away_since, begun));
    }

    /// Ends its stream: who listens is told by the end of what it listens to.
    pub(super) fn hang_up(&mut self) {
        if self.connection == Connection::Open {
            let desired = self.desired.borrow().clone();
            self.desired = watch::Sender::new(desired);
        }
    }

    /// Takes a newer Node object in. The agent is expected from its mark on.
    pub(super) fn renew(&mut self, object: NodeObject) {
        if !self.object.has_agent_label() && object.has_agent_label() {
            self.away_since = Instant::now();
        }
        self.object = object;
    }

    /// Until when a node that owes a word and is away is waited for.
    pub(super) fn owes_until(&self, runtime: &RuntimeType, now: Instant) -> Option<Instant> {
        let away = self.connection != Connection::Open && self.owes(runtime, now);
        away.then(|| self.away_since + RETURN)
    }

    /// Whether a node that should lose a type is away, and may still have it.
    pub(super) fn is_away_with(&self, runtime: &RuntimeType) -> bool {
        !self.is_asked(runtime)
            && !self.said_gone(runtime)
            && self.object.has_agent_label()
            && self.connection != Connection::Open
    }

    /// Whether the node is to have or to keep a type.
    fn is_asked(&self, runtime: &RuntimeType) -> bool {
        let content = self.content();
        content.bundles.iter().any(|bundle| bundle.runtime() == runtime)
            || content.keep.contains(runtime)
    }

    /// Whether the node has said that it has nothing of a type.
    fn said_gone(&self, runtime: &RuntimeType) -> bool {
        let reports = self.reports.as_ref();
        reports.is_some_and(|all| all.iter().all(|r| r.runtime != *runtime || is_gone(r)))
    }
}

/// Whether reports say the same but for how many bytes there are.
fn differ_in_bytes(before: &[BundleReport], after: &[BundleReport]) -> bool {
    let same = |(before, after): (&BundleReport, &BundleReport)| {
        let &BundleReport { bytes_done, bytes_total, bytes_pulled, .. } = before;
        *before == BundleReport { bytes_done, bytes_total, bytes_pulled, ..after.clone() }
    };
    before.len() == after.len() && before.iter().zip(after).all(same)
}

fn is_gone(report: &BundleReport) -> bool {
    report.phase == Phase::Removed
}

/// A label that a Node should get or lose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelChange {
    /// The Node.
    pub node: NodeName,
    /// Whether it gets the label.
    pub set: bool,
}

impl Index {
    /// Nothing is known of any agent: whoever led until now had them. Each is
    /// expected from this moment on.
    pub(crate) fn forget_agents(&self) {
        let mut state = self.lock();
        let now = Instant::now();
        state.begun = Some(now);
        let State { shoots, .. } = &mut *state;
        for shoot in shoots.values_mut() {
            shoot.missed = Before::default();
            shoot.forget_courses();
        }
        for node in shoots.values_mut().flat_map(|shoot| shoot.nodes.values_mut()) {
            node.connection = Connection::Never;
            (node.away_since, node.missed) = (now, false);
            (node.held, node.reports, node.refused) = (None, None, None);
            node.reported = Generation::default();
        }
        let names: Vec<_> = shoots.keys().cloned().collect();
        for name in names {
            state.mark_dirty(&name);
        }
        state.unready.clear();
        self.raise();
    }

    /// A node's stream begins; what it should have is none until enough is known.
    ///
    /// `held` is what the node's ledger holds.
    ///
    /// # Errors
    /// When there is no such Node, no Pod of the agent lives on it, or Nodes
    /// are not known yet.
    pub fn connect(
        &self,
        id: &NodeId,
        held: Option<(Generation, Digest)>,
    ) -> Result<watch::Receiver<Option<Offered>>, Refused> {
        let mut state = self.lock();
        let shoot = state.shoots.get(&id.shoot).filter(|shoot| shoot.nodes_listed);
        let lacks_agent = shoot.ok_or(Refused::NotSynced)?.agents.lacks(&id.name);
        let node = state.node(id).ok_or(Refused::UnknownNode)?;
        if lacks_agent {
            return Err(Refused::NoAgent);
        }
        node.held = held;
        if node.connection != Connection::Open {
            (node.connection, node.here_since) = (Connection::Open, Instant::now());
        }
        if held.is_none() {
            // It has nothing, and says so by that: it reports on what it is sent.
            node.reports.get_or_insert_default();
        }
        node.reported = Generation::default();
        // It is sent everything again, and answers again.
        node.refused = None;
        if node.desired.borrow().is_some() {
            node.publish();
        }
        let desired = node.desired.subscribe();
        state.mark_dirty(&id.shoot);
        self.raise();
        Ok(desired)
    }

    /// A node says where its bundles are, under a generation. A report replaces
    /// the one before it.
    pub fn report(&self, id: &NodeId, generation: Generation, reports: Vec<BundleReport>) {
        let mut state = self.lock();
        let watched = state.shoots.get(&id.shoot).and_then(|shoot| shoot.sandboxes_watched);
        let Some(node) = state.node(id) else { return };
        let first = node.reports.is_none();
        node.note_activations(&reports, watched, first, Instant::now());
        // While it pulls a node reports several times a second, and all that
        // is new are its bytes: nobody waits for those.
        let same = node.reported == generation
            && node.reports.as_ref().is_some_and(|before| differ_in_bytes(before, &reports));
        node.reported = generation;
        node.reports = Some(reports);
        if !same {
            state.mark_dirty(&id.shoot);
            self.raise();
        }
    }

    /// A node has a generation in its ledger.
    pub fn accepted(&self, id: &NodeId, generation: Generation) {
        tracing::debug!(node = %id, generation = generation.0, "accepted");
        // What was refused before shows in a status; that a node took what it
        // was sent does not, and ten thousand of them say it at one time.
        let mut state = self.lock();
        if state.node(id).is_some_and(|node| node.refused.take().is_some()) {
            state.mark_dirty(&id.shoot);
            self.raise();
        }
    }

    /// A node does not take a generation.
    pub fn refused(&self, id: &NodeId, generation: Generation, reason: Reason, message: String) {
        tracing::warn!(node = %id, generation = generation.0, %reason, message, "refused");
        self.with_node(id, |node| node.refused = Some((reason, message)));
    }

    /// A node's last stream has ended.
    pub fn disconnect(&self, id: &NodeId) {
        self.with_node(id, |node| {
            node.connection = Connection::Lost;
            node.away_since = Instant::now();
        });
    }

    /// The Nodes of a shoot whose agent label is not as it should be.
    pub fn label_changes(&self, shoot: &ShootName) -> Vec<LabelChange> {
        let state = self.lock();
        let Some(shoot) = state.shoots.get(shoot).filter(|_| state.seed_listed) else {
            return Vec::new();
        };
        let changes = shoot.nodes.values().filter_map(|node| {
            let has = node.object.has_agent_label();
            let set = !node.assigned.tracks.is_empty() || (has && !node.is_clean());
            (set != has).then(|| LabelChange { node: node.object.facts.name.clone(), set })
        });
        changes.collect()
    }

    fn with_node<T>(&self, id: &NodeId, change: impl FnOnce(&mut Node) -> T) -> Option<T> {
        let mut state = self.lock();
        let answer = change(state.node(id)?);
        state.mark_dirty(&id.shoot);
        self.raise();
        Some(answer)
    }
}
