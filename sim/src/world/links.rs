//! The network between nodes and the controller: late, in order, and at times not there.

use std::time::Duration;

use super::World;
use crate::message::{Down, Up};
use crate::queue::Event;

/// After so long without an answer either side takes a stream for dead.
const KEEPALIVE: Duration = Duration::from_secs(10);

impl World {
    /// A node tries to reach the controller.
    pub(super) fn connect(&mut self, number: usize) {
        let node = &self.nodes[number];
        if node.dead || node.stream.is_some() {
            return;
        }
        if self.controller.is_none() || self.notes[number].cut {
            self.connect_later(number);
            return;
        }
        self.streams += 1;
        let stream = self.streams;
        // Two round trips for the handshakes.
        let latency = node.traits.latency * 4;
        let note = &mut self.notes[number];
        note.tries = 0;
        (note.up, note.down) = (self.now + latency, self.now + latency);
        let hello = self.nodes[number].hello(stream, self.now);
        self.send_up(number, stream, hello);
        self.live(number);
    }

    fn connect_later(&mut self, number: usize) {
        let tries = &mut self.notes[number].tries;
        *tries = (*tries + 1).min(3);
        let longest = if *tries == 1 { 500 } else { 1_000 };
        let pause = self.rng.millis(100..longest);
        self.queue.at(self.now + pause, Event::Connect(number));
    }

    /// A node finds that its stream has ended.
    pub(super) fn dropped(&mut self, number: usize, stream: u64) {
        let node = &mut self.nodes[number];
        if node.stream != Some(stream) {
            return;
        }
        node.disconnected();
        self.live(number);
        self.connect_later(number);
    }

    pub(super) fn send_up(&mut self, number: usize, stream: u64, up: Up) {
        if self.notes[number].cut {
            return;
        }
        let arrives = self.arrives(number);
        let note = &mut self.notes[number];
        note.up = note.up.max(arrives);
        self.queue.at(note.up, Event::ToController(number, stream, Box::new(up)));
    }

    pub(super) fn send_down(&mut self, number: usize, stream: u64, down: Down) {
        if self.notes[number].cut {
            return;
        }
        let arrives = self.arrives(number);
        let note = &mut self.notes[number];
        note.down = note.down.max(arrives);
        self.queue.at(note.down, Event::ToNode(number, stream, Box::new(down)));
    }

    /// When a message that is sent now is there: one in two hundred is lost on
    /// the way and sent again by the network.
    fn arrives(&mut self, number: usize) -> Duration {
        let latency = self.nodes[number].traits.latency;
        let jitter = self.rng.millis(0..3);
        let again = if self.rng.chance(5) { self.rng.millis(200..400) } else { Duration::ZERO };
        self.now + latency + jitter + again
    }

    pub(super) fn arrive_up(&mut self, number: usize, stream: u64, up: Up) {
        if self.notes[number].cut {
            return;
        }
        let mut known = true;
        self.control(|controller, turn| {
            known = controller.hear((number, stream), up, turn);
        });
        if !known && self.nodes[number].stream == Some(stream) {
            self.queue
                .at(self.now + self.nodes[number].traits.latency, Event::Dropped(number, stream));
        }
    }

    /// A node says nothing more: the controller finds out.
    pub(super) fn fell_silent(&mut self, number: usize) {
        if let Some(stream) = self.nodes[number].stream {
            self.queue.at(self.now + KEEPALIVE, Event::Lost(number, stream));
        }
    }

    pub(super) fn cut(&mut self, number: usize) {
        self.notes[number].cut = true;
        if let Some(stream) = self.nodes[number].stream {
            self.queue.at(self.now + KEEPALIVE, Event::Dropped(number, stream));
            self.queue.at(self.now + KEEPALIVE, Event::Lost(number, stream));
        }
    }

    pub(super) fn heal(&mut self, number: usize) {
        self.notes[number].cut = false;
        // What was sent meanwhile is lost, and with it the stream.
        if let Some(stream) = self.nodes[number].stream {
            self.queue.at(self.now, Event::Dropped(number, stream));
            self.queue.at(self.now, Event::Lost(number, stream));
        }
    }
}
