//! How often pods' sandboxes could not be started on a node, before its present
//! bundle was activated and since.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use rootstock_core::digest::Digest;
use rootstock_core::name::{NodeName, RuntimeType, ShootName};
use rootstock_core::rollout::view::{Rate, Sandboxes};
use rootstock_core::status::BundleReport;

use super::Index;
use super::node::Node;

/// How far back what was before counts.
const PAST: Duration = Duration::from_secs(3600);
/// Failures of so long are counted as one number.
const BUCKET: Duration = Duration::from_secs(300);
/// The buckets of [`PAST`], the one that has begun included.
const BUCKETS: usize = 13;

/// The failures of one type on one node.
#[derive(Debug, Default)]
pub(super) struct Failures {
    /// Since when, and how many, oldest first: at most [`BUCKETS`].
    past: VecDeque<(Instant, u32)>,
    /// The bundle that was ready last.
    ready: Option<Digest>,
    /// None where that bundle was there when the node was first heard of:
    /// nobody saw it activated, so there is no before and after.
    activated: Option<Activated>,
}

#[derive(Debug)]
struct Activated {
    at: Instant,
    failed: u32,
    before: Rate,
}

impl Failures {
    /// So many failed at that time.
    fn failed(&mut self, count: u32, at: Instant) {
        // What was seen earlier and is told late belongs to before.
        if let Some(activated) = self.activated.as_mut().filter(|activated| activated.at <= at) {
            activated.failed = activated.failed.saturating_add(count);
        }
        match self.past.back_mut() {
            Some((begun, failed)) if at.saturating_duration_since(*begun) < BUCKET => {
                *failed = failed.saturating_add(count);
            }
            Some(_) | None => self.past.push_back((at, count)),
        }
        while self.past.len() > BUCKETS {
            self.past.pop_front();
        }
    }

    /// The node says that it works with a bundle; failures are seen since `watched`.
    fn ready(&mut self, digest: Digest, watched: Instant, now: Instant) {
        if self.ready == Some(digest) {
            return;
        }
        let before = self.before(watched, now);
        self.ready = Some(digest);
        self.activated = Some(Activated { at: now, failed: 0, before });
    }

    /// The same of a node that was not heard of before.
    fn found(&mut self, digest: Option<Digest>) {
        (self.ready, self.activated) = (digest, None);
    }

    fn before(&self, watched: Instant, now: Instant) -> Rate {
        // A bucket that is in part older counts as a whole: rather too often before than since.
        let recent = |begun: &Instant| now.saturating_duration_since(*begun) < PAST + BUCKET;
        let recent = self.past.iter().filter(|(begun, _)| recent(begun));
        let count = recent.fold(0_u32, |sum, (_, count)| sum.saturating_add(*count));
        Rate { count, seconds: seconds(now.saturating_duration_since(watched).min(PAST)) }
    }

    /// What is counted on a bundle. Nothing on one that is not the last that was ready.
    fn on(&self, digest: Option<Digest>, now: Instant) -> Sandboxes {
        let Some(activated) = self.activated.as_ref().filter(|_| self.ready == digest) else {
            return Sandboxes::default();
        };
        let since = seconds(now.saturating_duration_since(activated.at));
        let failed = Rate { count: activated.failed, seconds: since };
        Sandboxes { failed, failed_before: activated.before, ..Sandboxes::default() }
    }
}

fn seconds(span: Duration) -> u32 {
    u32::try_from(span.as_secs()).unwrap_or(u32::MAX)
}

impl Node {
    /// Takes in what a report says of activations. The `first` after nothing
    /// was known tells what is there, not that it has just come.
    pub(super) fn note_activations(
        &mut self,
        reports: &[BundleReport],
        watched: Option<Instant>,
        first: bool,
        now: Instant,
    ) {
        if first {
            self.failures.values_mut().for_each(|failures| failures.found(None));
        }
        // Where nobody watched there was no time in which something was seen.
        let watched = watched.map_or(now, |watched| watched.max(self.known_since));
        for report in reports.iter().filter(|report| report.phase.is_ready()) {
            let Some(digest) = report.digest else { continue };
            let failures = self.failures.entry(report.runtime.clone()).or_default();
            if first {
                failures.found(Some(digest));
            } else {
                failures.ready(digest, watched, now);
            }
        }
        // What was removed begins anew when it comes again; what failed until
        // then goes with it.
        let reported = |runtime: &RuntimeType| reports.iter().any(|r| r.runtime == *runtime);
        let assigned = &self.assigned.tracks;
        self.failures.retain(|runtime, _| reported(runtime) || assigned.contains_key(runtime));
    }

    /// What became of sandboxes of a type, on the bundle that the report names.
    pub(super) fn sandboxes(
        &self,
        runtime: &RuntimeType,
        report: Option<&BundleReport>,
        now: Instant,
    ) -> Sandboxes {
        let digest = report.and_then(|report| report.digest);
        let failures = self.failures.get(runtime).filter(|_| digest.is_some());
        failures.map(|failures| failures.on(digest, now)).unwrap_or_default()
    }
}

impl Index {
    /// From here on sandboxes that could not be started are seen in a shoot.
    pub(crate) fn sandboxes_watched(&self, shoot: &ShootName, now: Instant) {
        if let Some(shoot) = self.lock().shoots.get_mut(shoot) {
            shoot.sandboxes_watched.get_or_insert(now);
        }
    }

    /// So many sandboxes of a type could not be started on a node, as was seen
    /// at that time. A node that is to have nothing of the type is passed over.
    pub(crate) fn sandbox_failed(
        &self,
        name: &ShootName,
        node: &NodeName,
        runtime: &RuntimeType,
        count: u32,
        at: Instant,
    ) {
        let mut state = self.lock();
        let Some(shoot) = state.shoots.get_mut(name).filter(|shoot| !shoot.is_suspended()) else {
            return;
        };
        let Some(node) = shoot.nodes.get_mut(node) else { return };
        if !node.assigned.tracks.contains_key(runtime) {
            return;
        }
        let failures = node.failures.entry(runtime.clone()).or_default();
        failures.failed(count, at);
        if failures.activated.is_none() {
            return;
        }
        // The rollout looks at the shoot again; no status says anything of it.
        state.changes += 1;
        let changes = state.changes;
        if let Some(shoot) = state.shoots.get_mut(name) {
            shoot.changed = changes;
        }
        self.raise();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(count: u32, seconds: u32) -> Rate {
        Rate { count, seconds }
    }

    /// What happens on a node, each at a second after the watch began.
    enum Step {
        Failed(u32),
        Ready(&'static str),
        Found(Option<&'static str>),
    }

    use Step::{Failed, Found, Ready};

    /// Runs steps and tells `failed` and `failed_before` of `two` at the end.
    fn count(steps: &[(u64, Step)], end: u64) -> (Rate, Rate) {
        let begun = Instant::now();
        let at = |second: u64| begun + Duration::from_secs(second);
        let of = |name: &&str| Digest::of(name.as_bytes());
        let mut failures = Failures::default();
        for (second, step) in steps {
            match step {
                Failed(count) => failures.failed(*count, at(*second)),
                Ready(name) => failures.ready(of(name), begun, at(*second)),
                Found(name) => failures.found(name.as_ref().map(of)),
            }
            assert!(failures.past.len() <= BUCKETS);
        }
        let on = failures.on(Some(of(&"two")), at(end));
        assert_eq!(on.started, 0);
        (on.failed, on.failed_before)
    }

    #[test]
    fn failures_are_held_against_the_time_before_the_activation() {
        type Case = (&'static str, Vec<(u64, Step)>, (Rate, Rate));
        let none = (rate(0, 0), rate(0, 0));
        let table: Vec<Case> = vec![
            ("nothing is known", vec![(0, Failed(9))], none),
            ("it was there already", vec![(0, Found(Some("two"))), (10, Failed(9))], none),
            ("another runs", vec![(0, Ready("two")), (5, Ready("one")), (9, Failed(9))], none),
            (
                "before and after",
                vec![
                    (0, Found(Some("one"))),
                    (50, Failed(2)),
                    (100, Ready("two")),
                    (150, Failed(3)),
                ],
                (rate(3, 100), rate(2, 100)),
            ),
            (
                "it says so again",
                vec![(100, Ready("two")), (120, Failed(4)), (150, Ready("two"))],
                (rate(4, 100), rate(0, 100)),
            ),
            (
                "told late, seen before",
                vec![(100, Ready("two")), (99, Failed(4))],
                (rate(0, 100), rate(0, 100)),
            ),
            (
                "the leader changes",
                vec![(100, Ready("two")), (120, Failed(4)), (130, Found(Some("two")))],
                none,
            ),
            (
                "back to the one before",
                vec![(10, Ready("two")), (20, Failed(5)), (30, Ready("one")), (40, Ready("two"))],
                (rate(0, 160), rate(5, 40)),
            ),
        ];
        for (name, steps, wanted) in table {
            assert_eq!(count(&steps, 200), wanted, "{name}");
        }
    }

    #[test]
    fn no_more_than_an_hour_counts_as_before() {
        let mut steps: Vec<_> = (0..72).map(|n| (n * 150, Failed(1))).collect();
        steps.push((72 * 150, Ready("two")));
        let (failed, before) = count(&steps, 72 * 150 + 60);
        // One each 150 s.
        assert_eq!((failed, before), (rate(0, 60), rate(24, 3600)));
    }

    #[test]
    fn a_number_that_nobody_could_count_to_stays_one() {
        let steps = vec![(0, Failed(u32::MAX)), (1, Failed(9)), (2, Ready("two")), (3, Failed(7))];
        assert_eq!(count(&steps, 4), (rate(7, 2), rate(u32::MAX, 2)));
    }
}
