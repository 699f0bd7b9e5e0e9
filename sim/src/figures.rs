//! The worst of all runs, each beside its goal.

use std::time::Duration;

use serde_json::{Value, json};

use crate::outcome::Outcome;

/// The worst of each figure.
#[derive(Clone, Debug, Default)]
pub(crate) struct Figures {
    makespan_ratio: Option<f64>,
    cap_use: Option<f64>,
    bytes_over: f64,
    fits_after: Option<f64>,
    /// Of the run that went furthest beyond what may break, or else the most.
    broken: (usize, usize),
    slots_twice: u64,
    wall: Duration,
    runs: u64,
    bad: u64,
}

impl Figures {
    /// One more run.
    pub(crate) fn add(&mut self, of: &Outcome, wall: Duration) {
        let worse =
            |old: Option<f64>, new: Option<f64>, worse: fn(f64, f64) -> f64| match (old, new) {
                (Some(old), Some(new)) => Some(worse(old, new)),
                (old, new) => old.or(new),
            };
        self.makespan_ratio = worse(self.makespan_ratio, of.makespan_ratio, f64::max);
        self.cap_use = worse(self.cap_use, of.cap_use, f64::min);
        self.bytes_over = self.bytes_over.max(of.bytes_over);
        let fits = of.fits_after.map(|fits| fits.as_secs_f64());
        self.fits_after = worse(self.fits_after, fits, f64::max);
        let beyond = |(broken, may): (usize, usize)| (broken.saturating_sub(may), broken, may);
        if beyond((of.broken, of.may_break)) > beyond(self.broken) {
            self.broken = (of.broken, of.may_break);
        }
        self.slots_twice += of.slots_twice;
        self.wall = self.wall.max(wall);
        self.runs += 1;
        self.bad += u64::from(!of.is_good());
    }

    /// Whether every law held in every run.
    pub(crate) fn is_good(&self) -> bool {
        self.bad == 0
    }

    fn all(&self) -> Vec<(&'static str, f64, &'static str, String)> {
        let (broken, may) = self.broken;
        let makespan =
            self.makespan_ratio.map(|x| ("sim_makespan_ratio", x, "x", "<= 1.10".to_owned()));
        let cap_use = self.cap_use.map(|used| ("sim_cap_use", used, "%", ">= 95".to_owned()));
        let others = [
            ("sim_bytes_over", self.bytes_over, "B", "<= 0".to_owned()),
            ("sim_nodes_broken", broken as f64, "nodes", format!("<= {may}")),
            ("sim_slots_twice", self.slots_twice as f64, "slots", "<= 0".to_owned()),
            ("sim_runs_bad", self.bad as f64, "runs", "<= 0".to_owned()),
            ("sim_wall", self.wall.as_secs_f64(), "s", "<= 60".to_owned()),
        ];
        let fits =
            self.fits_after.map(|fits| ("sim_lowered_fits", fits, "s", "<= 2.55".to_owned()));
        makespan.into_iter().chain(cap_use).chain(fits).chain(others).collect()
    }

    /// One line for each: `figure NAME VALUE UNIT goal <= GOAL`.
    pub(crate) fn lines(&self) -> impl Iterator<Item = String> {
        let all = self.all().into_iter();
        all.map(|(name, value, unit, goal)| format!("figure {name} {value:.3} {unit} goal {goal}"))
    }

    /// As JSON.
    pub(crate) fn json(&self) -> Value {
        let all = self.all().into_iter();
        let all = all.map(|(name, value, unit, goal)| {
            (name.to_owned(), json!({"value": value, "unit": unit, "goal": goal}))
        });
        Value::Object(all.collect())
    }
}
