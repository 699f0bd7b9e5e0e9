//! A leader, its agents, and all that lies between them.
//!
//! Time goes in ticks. Agents are real [`Holder`]s with clocks of their own,
//! the leader is a real [`Allocator`], and every message has a fate: when it
//! comes, and how often.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::bandwidth::*;
use crate::digest::Digest;

pub(super) const TICK: Duration = Duration::from_millis(20);

/// What becomes of a message: one copy for each number, after so many ticks.
pub(super) type Fate = Vec<u32>;

pub(super) struct Network {
    pub(super) tick: u32,
    pub(super) leader: Allocator,
    pub(super) term: u32,
    pub(super) agents: Vec<Agent>,
    pub(super) messages: u64,
    /// When the leader began, or last heard of a lease that it may not know of.
    pub(super) heard: u32,
    /// Whose Hello it has heard.
    said: BTreeSet<Node>,
    /// Whether the leader says nothing: it has stopped, and no other has begun.
    pub(super) silent: bool,
    fates: Vec<Fate>,
    wire: BTreeMap<(u32, u64), Message>,
    /// Whether everything the leader knows is reckoned anew after each step.
    audited: bool,
}

enum Message {
    ToLeader(u32, Box<Event>),
    ToAgent(usize, Grant),
}

pub(super) struct Agent {
    pub(super) puller: Puller,
    pub(super) class: Class,
    pub(super) holder: Holder,
    /// What its link carries, bytes per second.
    pub(super) link: u64,
    pub(super) pulls: Vec<Pull>,
    /// Bytes of the pulls that it has not begun to want.
    pub(super) jobs: Vec<u64>,
    pub(super) at_a_time: usize,
    /// Whether its pulls go on with further jobs.
    pub(super) goes_on: bool,
    pub(super) finished: u32,
    pub(super) finished_at: u32,
    /// Whether it tells what its link carries.
    pub(super) knows_link: bool,
    /// In thousandths of true time.
    pub(super) clock: u32,
    /// Whom it talks to.
    term: u32,
    stopped: u32,
    cut_off: u32,
    inbox: Vec<Grant>,
    /// Nothing happens before this tick, while nothing comes.
    asleep: u32,
    lives: u64,
}

pub(super) struct Pull {
    pub(super) id: u64,
    pub(super) left: u64,
    /// Parts of a byte that came, in bytes times nanoseconds.
    part: u128,
}

/// What befalls somebody.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fault {
    /// The agent does nothing for so many ticks; its clock goes on.
    Stop(usize, u32),
    /// Nothing reaches it or comes from it.
    CutOff(usize, u32),
    /// Its stream ends and it comes back at once.
    Reconnect(usize),
    /// Its process dies, and another one begins.
    Restart(usize),
    /// It no longer wants its first pull.
    Cancel(usize),
    /// The leader stops, and after so many ticks another one begins, which is
    /// told who there is, or not. Agents find it one after the other.
    NewLeader(u32, bool),
    /// Other budgets, by their number.
    Budgets(usize),
}

impl Agent {
    pub(super) fn new(number: usize, shoot: &str, pool: &str, link: u64) -> Self {
        let name = format!("node-{number}").parse().unwrap();
        let node = Node::new(shoot.parse().unwrap(), name);
        let puller = Puller { node, pool: pool.into() };
        Self {
            puller,
            class: Class::Regular,
            holder: Holder::new(1),
            link,
            pulls: Vec::new(),
            jobs: Vec::new(),
            at_a_time: 1,
            goes_on: false,
            finished: 0,
            finished_at: 0,
            knows_link: false,
            clock: 1000,
            term: 0,
            stopped: 0,
            cut_off: 0,
            inbox: Vec::new(),
            asleep: 0,
            lives: 1,
        }
    }

    /// Its own time: another origin, another pace.
    pub(super) fn now(&self, tick: u32) -> Duration {
        Duration::from_secs(1000) + TICK * tick * self.clock / 1000
    }

    pub(super) fn allowed(&self, tick: u32) -> impl Iterator<Item = Rate> {
        let now = self.now(tick);
        let live = self.pulls.iter().filter_map(move |p| self.holder.allowance(p.id, now));
        live.map(|allowance| allowance.rate)
    }

    pub(super) fn is_done(&self) -> bool {
        self.jobs.is_empty() && self.pulls.is_empty()
    }

    /// What it pulls in a tick, and what it says of that.
    fn pull(&mut self, tick: u32, say: &mut Vec<Event>) -> u64 {
        let now = self.now(tick);
        let node = &self.puller.node;
        let running = self.allowed(tick).count().max(1);
        let mut total = 0;
        for pull in &mut self.pulls {
            let Some(allowance) = self.holder.allowance(pull.id, now) else { continue };
            let rate = allowance.rate.get().min(self.link / running as u64);
            pull.part += u128::from(rate) * TICK.as_nanos();
            let came = u64::try_from(pull.part / 1_000_000_000).unwrap().min(pull.left);
            pull.part -= u128::from(came) * 1_000_000_000;
            pull.left -= came;
            total += came;
            self.holder.came(pull.id, came, now);
            if pull.left == 0
                && let Some(next) = self.jobs.pop_if(|_| self.goes_on)
            {
                let blob = Digest::from_bytes([8; 32]);
                self.holder.goes_on(pull.id, blob, next, now);
                (pull.left, pull.part) = (next, 0);
                (self.finished, self.finished_at) = (self.finished + 1, tick);
            } else if pull.left == 0 {
                let shrunk = self.holder.done(pull.id).unwrap();
                say.push(Event::Shrunk { node: node.clone(), shrunk });
            }
        }
        let before = self.pulls.len();
        self.pulls.retain(|pull| pull.left > 0);
        self.finished += u32::try_from(before - self.pulls.len()).unwrap();
        self.finished_at = if before > self.pulls.len() { tick } else { self.finished_at };
        total
    }

    /// What it does in a tick.
    fn live(&mut self, tick: u32, say: &mut Vec<Event>) -> u64 {
        let now = self.now(tick);
        let node = self.puller.node.clone();
        for grant in std::mem::take(&mut self.inbox) {
            let shrunk = self.holder.heard(&grant, now);
            say.extend(shrunk.map(|shrunk| Event::Shrunk { node: node.clone(), shrunk }));
        }
        let came = self.pull(tick, say);
        while self.pulls.len() < self.at_a_time
            && let Some(bytes) = self.jobs.pop()
        {
            let useful = self.knows_link.then(|| Rate::new(self.link));
            let blob = Digest::from_bytes([7; 32]);
            let id = self.holder.request(blob, Arc::from("main"), bytes, useful, now).unwrap();
            self.pulls.push(Pull { id, left: bytes, part: 0 });
        }
        for request in self.holder.asks(now) {
            let (puller, class) = (self.puller.clone(), self.class);
            say.push(Event::Request { puller, class, request });
        }
        let wait = self.holder.due().map_or(Duration::from_secs(60), |due| due.saturating_sub(now));
        let ticks = u32::try_from(wait.as_millis() / TICK.as_millis()).unwrap();
        self.asleep = if self.allowed(tick).next().is_some() { 0 } else { tick + ticks };
        came
    }
}

impl Network {
    /// A leader with these budgets, which knows that nobody was before it, and
    /// agents that have just found it.
    pub(super) fn new(budgets: Budgets, agents: Vec<Agent>, fates: Vec<Fate>) -> Self {
        let audited = agents.len() < 100;
        let leader = Allocator::new(budgets, Duration::ZERO);
        let (tick, term, messages, heard) = (0, 0, 0, 0);
        let (said, silent, wire) = (BTreeSet::new(), false, BTreeMap::new());
        let mut network = Self {
            tick,
            leader,
            term,
            agents,
            messages,
            heard,
            said,
            silent,
            fates,
            wire,
            audited,
        };
        for agent in 0..network.agents.len() {
            network.connect(agent);
        }
        network
    }

    /// The leader's own time; each has another origin.
    fn leaders_now(&self) -> Duration {
        Duration::from_secs(u64::from(self.term) * 7) + TICK * self.tick
    }

    pub(super) fn connect(&mut self, agent: usize) {
        let now = self.agents[agent].now(self.tick);
        let Agent { puller, holder, .. } = &mut self.agents[agent];
        let (held, puller) = (holder.hello(now), puller.clone());
        (self.agents[agent].term, self.agents[agent].asleep) = (self.term, 0);
        self.say(agent, vec![Event::Connected { puller, held }]);
    }

    fn say(&mut self, agent: usize, events: Vec<Event>) {
        let (term, cut_off) = (self.agents[agent].term, self.agents[agent].cut_off > 0);
        for event in events.into_iter().filter(|_| !cut_off) {
            self.send(|| Message::ToLeader(term, Box::new(event.clone())));
        }
    }

    fn send(&mut self, message: impl Fn() -> Message) {
        let fate = (self.messages % self.fates.len() as u64) as usize;
        for (copy, after) in self.fates[fate].iter().enumerate() {
            let at = (self.tick + after, self.messages * 4 + copy as u64);
            self.wire.insert(at, message());
        }
        self.messages += 1;
    }

    /// Tells the leader, unless it has stopped.
    fn tell(&mut self, event: Event) {
        if self.silent {
            return;
        }
        if let Event::Connected { puller, held } = &event
            && self.said.insert(puller.node.clone())
            && !held.is_empty()
            && self.leader.is_learning()
        {
            self.heard = self.tick;
        }
        let now = self.leaders_now();
        let actions = self.leader.step(event, now);
        if self.audited {
            self.leader.audit();
        }
        for Action::Grant { node, grant } in actions {
            let number = node.name().as_str().trim_start_matches("node-").parse().unwrap();
            self.send(|| Message::ToAgent(number, grant.clone()));
        }
    }

    /// One tick of everybody's. Bytes that came.
    pub(super) fn step(&mut self) -> u64 {
        self.tick += 1;
        while let Some(entry) = self.wire.first_entry().filter(|e| e.key().0 <= self.tick) {
            match entry.remove() {
                // An earlier leader is not there any more to hear it.
                Message::ToLeader(term, event) if term == self.term => self.tell(*event),
                Message::ToLeader(..) => {}
                Message::ToAgent(agent, grant) => {
                    let agent = &mut self.agents[agent];
                    if agent.cut_off == 0 {
                        agent.inbox.push(grant);
                        agent.asleep = 0;
                    }
                }
            }
        }
        if self.leader.due().is_some_and(|due| due <= self.leaders_now()) {
            self.tell(Event::Tick);
        }
        let mut came = 0;
        for number in 0..self.agents.len() {
            let (tick, mut say) = (self.tick, Vec::new());
            let agent = &mut self.agents[number];
            agent.cut_off = agent.cut_off.saturating_sub(1);
            if agent.stopped > 0 {
                agent.stopped -= 1;
            } else if agent.asleep <= tick {
                came += agent.live(tick, &mut say);
            }
            self.say(number, say);
        }
        came
    }

    /// The leader sends nothing from here on.
    pub(super) fn silence(&mut self) {
        self.silent = true;
    }

    /// Another one leads; agents have to find it.
    pub(super) fn elect(&mut self, budgets: Budgets, told: bool) {
        (self.silent, self.term, self.heard) = (false, self.term + 1, self.tick);
        self.leader = Allocator::new(budgets, self.leaders_now());
        self.said.clear();
        if told {
            let nodes = self.agents.iter().map(|agent| agent.puller.node.clone()).collect();
            self.tell(Event::Expected(nodes));
        }
    }

    pub(super) fn is_connected(&self, agent: usize) -> bool {
        self.agents[agent].term == self.term
    }

    /// Whatever befalls agents, and budgets.
    pub(super) fn befall(&mut self, fault: Fault, budgets: &[Budgets]) {
        match fault {
            Fault::Stop(agent, ticks) => self.agents[agent].stopped = ticks,
            Fault::CutOff(agent, ticks) => self.agents[agent].cut_off = ticks,
            Fault::Reconnect(agent) => {
                if self.is_connected(agent) {
                    self.agents[agent].holder.disconnected();
                    let node = self.agents[agent].puller.node.clone();
                    self.tell(Event::Disconnected { node });
                    self.connect(agent);
                }
            }
            Fault::Restart(number) => {
                let agent = &mut self.agents[number];
                agent.lives += 1;
                agent.holder = Holder::new(agent.lives * 1000);
                agent.inbox.clear();
                let left = agent.pulls.drain(..).map(|pull| pull.left);
                agent.jobs.extend(left);
                self.connect(number);
            }
            Fault::Cancel(number) => {
                let agent = &mut self.agents[number];
                if agent.stopped == 0 && !agent.pulls.is_empty() {
                    let pull = agent.pulls.remove(0);
                    let shrunk = agent.holder.done(pull.id).unwrap();
                    let node = agent.puller.node.clone();
                    self.say(number, vec![Event::Shrunk { node, shrunk }]);
                }
            }
            Fault::Budgets(number) => self.tell(Event::Budgets(budgets[number])),
            Fault::NewLeader(..) => self.silence(),
        }
    }

    /// From here on everything works.
    pub(super) fn heal(&mut self) {
        self.fates = vec![vec![1]];
        for agent in 0..self.agents.len() {
            (self.agents[agent].stopped, self.agents[agent].cut_off) = (0, 0);
            self.agents[agent].asleep = 0;
            self.connect(agent);
        }
    }
}
