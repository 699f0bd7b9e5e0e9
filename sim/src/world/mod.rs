//! Everything together: nodes, the network, the API server, and one controller at a time.

mod controller;
mod end;
mod links;
mod nodes;

use std::time::Duration;

use rootstock_core::bandwidth::{Budgets, LIFETIME};

use crate::api::Api;
use crate::controller::Controller;
use crate::laws::{Law, Laws};
use crate::meter::{Flow, Meter};
use crate::node::{Lane, Node};
use crate::plan::Plan;
use crate::queue::{Event, Queue};
use crate::rng::Rng;
use crate::series::Series;
use crate::trace::Trace;

/// A run while it goes on.
#[derive(Debug)]
pub(crate) struct World {
    /// What it is.
    pub(crate) plan: Plan,
    now: Duration,
    rng: Rng,
    queue: Queue,
    nodes: Vec<Node>,
    /// How many have come into being, by shoot.
    of_shoot: Vec<usize>,
    /// What of each node others have to know without asking it.
    notes: Vec<Note>,
    api: Api,
    controller: Option<Controller>,
    term: u32,
    streams: u64,
    /// When the allocator is next looked after.
    ticks: Option<Duration>,
    budgets: Budgets,
    aimed: bool,
    grown: bool,
    /// When it was first as it should be.
    good_since: Option<Duration>,
    /// What flows.
    pub(crate) meter: Meter,
    /// What must hold.
    pub(crate) laws: Laws,
    /// What was seen of it, second by second.
    pub(crate) series: Series,
    /// A hash of all that happened.
    pub(crate) trace: Trace,
    /// How many events there were.
    pub(crate) events: u64,
    /// How many controllers were killed.
    pub(crate) kills: u64,
}

/// What of a node others have to know.
#[derive(Clone, Copy, Debug)]
struct Note {
    flow: Flow,
    lane: Lane,
    /// When it wakes.
    wakes: Option<Duration>,
    /// Whether it is cut off.
    cut: bool,
    /// When the last message of each direction arrives: a stream keeps its order.
    up: Duration,
    down: Duration,
    /// How often it tried to connect since it last was.
    tries: u32,
    /// Whether it activates with a slot.
    with_slot: bool,
    ready: bool,
    joining: bool,
    /// Whether the API knows it no more.
    gone: bool,
}

/// A lease of earlier budgets has ended after its lifetime and the margin for clocks.
const FITS_AFTER: Duration = match LIFETIME.checked_mul(51) {
    Some(time) => match time.checked_div(50) {
        Some(time) => time,
        None => LIFETIME,
    },
    None => LIFETIME,
};

impl World {
    /// A run that has not begun.
    pub(crate) fn new(plan: Plan) -> Self {
        let shoots = plan.settings.shoots.len();
        let mut world = Self {
            now: Duration::ZERO,
            rng: Rng::new(plan.seed),
            queue: Queue::default(),
            nodes: Vec::new(),
            of_shoot: vec![0; shoots],
            notes: Vec::new(),
            api: Api::new(plan.states(), plan.rings.clone()),
            controller: None,
            term: 0,
            streams: 0,
            ticks: None,
            budgets: plan.budgets,
            aimed: plan.target_at.is_zero(),
            grown: false,
            good_since: None,
            meter: Meter::new(plan.budgets, shoots),
            laws: Laws::new(shoots),
            series: Series::default(),
            trace: Trace::default(),
            events: 0,
            kills: 0,
            plan,
        };
        world.queue.at(Duration::ZERO, Event::Begin);
        world.queue.at(Duration::ZERO, Event::Sample);
        for _ in 0..world.plan.nodes {
            world.join(Duration::from_secs(3));
        }
        let faults = world.plan.faults.clone();
        if !world.aimed {
            world.queue.at(world.plan.target_at, Event::Target);
        }
        if let Some((at, budgets)) = faults.budgets {
            world.queue.at(at, Event::Budgets(Box::new(budgets)));
        }
        world
    }

    /// Runs until it is as it should be for a while, or its time is over.
    pub(crate) fn run(&mut self) {
        while let Some((at, event)) = self.queue.next() {
            if at > self.plan.horizon {
                self.now = self.plan.horizon;
                let what = self.what_is_left();
                self.laws.broke(Law::Converged, self.now, what);
                return;
            }
            self.now = at;
            self.events += 1;
            self.trace.event(at, &event);
            self.meter.pass(at);
            if matches!(event, Event::Sample) {
                if self.sample() {
                    return;
                }
            } else {
                self.happen(event);
            }
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Wake(node) => {
                if self.notes[node].wakes.is_some_and(|wakes| wakes <= self.now) {
                    self.notes[node].wakes = None;
                    self.live(node);
                }
            }
            Event::Connect(node) => self.connect(node),
            Event::ToController(node, stream, up) => self.arrive_up(node, stream, *up),
            Event::ToNode(node, stream, down) => self.arrive_down(node, stream, *down),
            Event::Dropped(node, stream) => self.dropped(node, stream),
            Event::Lost(node, stream) => {
                self.control(|controller, turn| {
                    controller.lost(node, stream, turn);
                });
            }
            Event::Cut(node) => self.cut(node),
            Event::Heal(node) => self.heal(node),
            Event::Join(node) => self.queue.at(self.now, Event::Connect(node)),
            Event::Seen(node) => self.seen(node),
            Event::Gone(node) => self.replace(node),
            Event::Begin => self.begin(),
            Event::Kill => self.kill(),
            Event::Listed(term) => self.listed(term),
            Event::Look(term, shoot) => {
                self.control_of(term, |controller, turn| {
                    controller.look(shoot, turn);
                });
            }
            Event::Rings(term) => {
                self.control_of(term, |controller, turn| {
                    controller.look_at_rings(turn);
                });
            }
            Event::Tick(term) => {
                self.control_of(term, |controller, turn| {
                    if controller.tick_due().is_some_and(|due| due <= turn.now) {
                        let tick = rootstock_core::bandwidth::Event::Tick;
                        controller.tell(tick, turn);
                    }
                });
            }
            Event::Land(write) => self.land(*write),
            Event::Answer(answer) => self.answer(&answer),
            Event::Target => {
                self.aimed = true;
                let target = self.plan.target;
                self.control(|controller, turn| {
                    controller.aim(target, turn);
                });
            }
            Event::Budgets(budgets) => {
                let budgets = *budgets;
                self.budgets = budgets;
                self.meter.set(budgets);
                self.queue.at(self.now + FITS_AFTER, Event::Fits);
                self.control(|controller, turn| {
                    let told = rootstock_core::bandwidth::Event::Budgets(budgets);
                    controller.tell(told, turn);
                });
            }
            Event::Fits => {
                if let Some(what) = self.meter.fits() {
                    self.laws.broke(Law::Bytes, self.now, what);
                }
            }
            Event::Sample => {}
        }
    }

    /// The moment that it has come to.
    pub(crate) fn now(&self) -> Duration {
        self.now
    }

    /// Its nodes, as far as the API knows them.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = &Node> {
        let all = self.nodes.iter().zip(&self.notes);
        all.filter(|(_, note)| !note.gone).map(|(node, _)| node)
    }

    /// What is recorded.
    pub(crate) fn api(&self) -> &Api {
        &self.api
    }
}
