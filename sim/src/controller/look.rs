//! One look at a shoot: first what is recorded, then what nodes are sent.

use std::time::Duration;

use rootstock_core::rollout::view::{Link, Node, OnNode, Said, Track, View};
use rootstock_core::rollout::{NodeStep, step};

use super::{AWAITED, Controller, Effect, Known, POOL, Settings, TRACK, Turn};
use crate::api::{Answer, Body, Key};
use crate::bundle::AMD64;
use crate::clock;
use crate::message::{Desired, Down};

/// How long it waits after a write that failed.
const PAUSE: Duration = Duration::from_millis(500);

impl Controller {
    /// Looks at a shoot, if it still means to at this moment.
    pub(crate) fn look(&mut self, shoot: usize, turn: &mut Turn<'_>) {
        let awaited = self.begun + AWAITED;
        let now = turn.now;
        let shoot_of = &mut self.shoots[shoot];
        let due = shoot_of.due.is_some_and(|due| due <= now) || now == awaited;
        if !self.listed || !due || shoot_of.held_back.is_some() {
            shoot_of.changed |= due;
            return;
        }
        (shoot_of.due, shoot_of.last) = (None, Some(now));
        let step =
            step(&self.view(turn.of, shoot, now), &self.shoots[shoot].states, clock::wall(now));
        let numbers = self.shoots[shoot].nodes.iter().copied();
        let steps: Vec<(usize, NodeStep)> = numbers.zip(step.nodes).collect();
        let shoot_of = &mut self.shoots[shoot];
        if let Some(next) = step.next.map(clock::at).filter(|next| *next > now) {
            shoot_of.due = Some(next);
            turn.effects.push(Effect::Look(shoot, next));
        }
        match step.states.into_values().next() {
            Some(state) => {
                if turn.of.hasty {
                    self.send(&steps, turn);
                }
                let shoot_of = &mut self.shoots[shoot];
                shoot_of.held_back = Some((state.clone(), steps));
                let (key, version) = (Key::Shoot(shoot), shoot_of.version);
                turn.effects.push(Effect::Write(key, version, Body::State(Box::new(state))));
            }
            None => self.send(&steps, turn),
        }
    }

    fn view<'a>(&'a self, of: &'a Settings, shoot: usize, now: Duration) -> View<'a> {
        let track = Track {
            runtime: &of.runtime,
            strategy: &of.strategy,
            target: [(AMD64, self.target)].into(),
            command: None,
            deleting: false,
            seed: self.shoots[shoot].seed.as_ref(),
        };
        let late = now >= self.begun + AWAITED;
        let nodes = self.shoots[shoot].nodes.iter().filter_map(|node| self.known[*node].as_ref());
        View {
            complete: true,
            frozen: false,
            maintenance: None,
            tracks: [(TRACK, track)].into(),
            nodes: nodes.map(|known| known.seen(late)).collect(),
        }
    }

    fn send(&mut self, steps: &[(usize, NodeStep)], turn: &mut Turn<'_>) {
        for (number, step) in steps {
            let Some(known) = self.known[*number].as_mut() else { continue };
            let (Some(stream), Some(runtime)) = (known.stream, step.runtimes.first()) else {
                continue;
            };
            known.first = step.first;
            let desired =
                Desired { give: runtime.give, prefetch: runtime.prefetch, permit: step.permit };
            // A step speaks of a node that was there: one that has come since
            // is looked at again.
            if known.link == Link::Here && known.sent != Some(desired) {
                known.sent = Some(desired);
                turn.effects.push(Effect::Send(*number, stream, Down::Desired(desired)));
            }
        }
    }

    /// A write was answered.
    pub(crate) fn answered(&mut self, answer: &Answer, turn: &mut Turn<'_>) {
        let Key::Shoot(shoot) = answer.key else {
            return self.rings_answered(answer, turn);
        };
        let Some((state, steps)) = self.shoots[shoot].held_back.take() else { return };
        let shoot_of = &mut self.shoots[shoot];
        match answer.version {
            Some(version) => {
                shoot_of.version = version;
                shoot_of.states.insert(TRACK.to_owned(), state);
                let changed = std::mem::take(&mut shoot_of.changed);
                self.send(&steps, turn);
                // A look that came meanwhile was put off.
                let put_off = self.shoots[shoot].due.is_some_and(|due| due <= turn.now);
                if changed || put_off {
                    self.shoots[shoot].due = None;
                    self.changed(shoot, turn);
                }
            }
            None => {
                shoot_of.changed = false;
                // No look comes sooner than the pause lets one.
                shoot_of.last = Some(turn.now + PAUSE.saturating_sub(turn.of.pace));
                shoot_of.due = None;
                self.read(answer.key, turn);
            }
        }
    }
}

impl Known {
    fn seen(&self, late: bool) -> Node<'_> {
        let link = match self.link {
            Link::Awaited if late => Link::Away { was_ready: !self.joining },
            link @ (Link::Awaited | Link::Here | Link::Away { .. }) => link,
        };
        let report = self.word.map(|word| Said {
            digest: word.digest,
            phase: word.phase,
            reason: word.reason,
            message: "containerd.service: main process exited, status 1",
        });
        let on = OnNode {
            track: TRACK,
            report,
            fetched: self.word.and_then(|word| word.fetched),
            restart: true,
            sandboxes: self.word.map(|word| word.sandboxes).unwrap_or_default(),
        };
        Node {
            name: &self.who.name,
            uid: &self.who.uid,
            pool: POOL,
            architecture: Some(AMD64),
            ready: self.ready,
            joining: self.joining,
            leaving: false,
            link,
            runtimes: vec![on],
        }
    }
}
