//! The Pods of one shoot that wait for their sandbox, and for how long.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rootstock_core::name::{NodeName, Uid};
use tokio::time::Instant;

/// How long a sandbox may take. The slowest that works, a virtual machine on a
/// busy node, needs seconds; but a kubelet waits for a Pod's volumes before, and
/// says so only after two minutes (`podAttachAndMountTimeout`, 2 min 3 s).
pub(super) const PATIENCE: Duration = Duration::from_secs(180);
/// The Pods that are remembered. What is beyond is seen when it changes, or is
/// listed, and there is room.
const MAX_PODS: usize = 4096;

/// A Pod with a node and no sandbox that is known of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pod {
    pub(super) uid: Uid,
    pub(super) namespace: String,
    pub(super) node: NodeName,
    /// Its RuntimeClass.
    pub(super) class: String,
}

/// The Pods that wait.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    pods: BTreeMap<Uid, Wait>,
    /// What the list has, while one is under way.
    listing: Option<BTreeSet<Uid>>,
}

#[derive(Debug)]
struct Wait {
    pod: Pod,
    /// When it was first seen to, or was told last.
    since: Instant,
    /// From when on it is to be told. None where it waits for something else.
    due: Option<Instant>,
}

impl Waiting {
    /// A list begins; what it does not have waits no more.
    pub(super) fn begin(&mut self) {
        self.listing = Some(BTreeSet::new());
    }

    /// The list is whole.
    pub(super) fn listed(&mut self) {
        if let Some(listed) = self.listing.take() {
            self.pods.retain(|uid, _| listed.contains(uid));
        }
    }

    /// A Pod waits, now and maybe before.
    pub(super) fn put(&mut self, pod: Pod, now: Instant) {
        let uid = pod.uid.clone();
        if !self.pods.contains_key(&uid) {
            if self.pods.len() >= MAX_PODS {
                return;
            }
            let wait = Wait { pod, since: now, due: Some(now + PATIENCE) };
            self.pods.insert(uid.clone(), wait);
        }
        if let Some(listing) = &mut self.listing {
            listing.insert(uid);
        }
    }

    /// A Pod has its sandbox, or is gone.
    pub(super) fn forget(&mut self, uid: &Uid) {
        self.pods.remove(uid);
    }

    /// The Pod that is to be told first, and since when it waits.
    pub(super) fn due(&self, now: Instant) -> Option<(Pod, Instant)> {
        let due = |wait: &&Wait| wait.due.is_some_and(|due| due <= now);
        let first = self.pods.values().filter(due).min_by_key(|wait| wait.due)?;
        Some((first.pod.clone(), first.since))
    }

    /// A Pod was told. It is told again when it has waited as long once more, as
    /// a kubelet tries again.
    pub(super) fn told(&mut self, uid: &Uid, now: Instant) {
        if let Some(wait) = self.pods.get_mut(uid) {
            (wait.since, wait.due) = (now, Some(now + PATIENCE));
        }
    }

    /// A Pod waits for something else: it is not told any more.
    pub(super) fn leave(&mut self, uid: &Uid) {
        if let Some(wait) = self.pods.get_mut(uid) {
            wait.due = None;
        }
    }

    /// A Pod is to be told later, if it waits then.
    pub(super) fn put_off(&mut self, uid: &Uid, until: Instant) {
        if let Some(wait) = self.pods.get_mut(uid) {
            wait.due = Some(until);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uid(name: &str) -> Uid {
        name.parse().unwrap()
    }

    fn pod(name: &str) -> Pod {
        let (namespace, class) = ("default".to_owned(), "sandboxed".to_owned());
        Pod { uid: uid(name), namespace, node: "n1".parse().unwrap(), class }
    }

    /// What is seen, each at a second.
    enum Step {
        Put(&'static str),
        Gone(&'static str),
        List(&'static [&'static str]),
        /// One that breaks off.
        Part(&'static [&'static str]),
        /// Puts off by a minute what is due.
        Later,
        /// What is due waits for something else.
        Leave,
        /// What is told, and since which second it waits.
        Tell(&'static [(&'static str, u64)]),
    }

    use Step::{Gone, Later, Leave, List, Part, Put, Tell};

    #[test]
    fn a_pod_is_told_each_time_that_it_has_waited() {
        type Case = (&'static str, &'static [(u64, Step)]);
        let table: [Case; 10] = [
            ("not before", &[(0, Put("a")), (179, Tell(&[])), (180, Tell(&[("a", 0)]))]),
            (
                "and again, as long after that",
                &[
                    (0, Put("a")),
                    (190, Tell(&[("a", 0)])),
                    (200, Put("a")),
                    (369, Tell(&[])),
                    (370, Tell(&[("a", 190)])),
                ],
            ),
            (
                "for something else",
                &[(0, Put("a")), (180, Leave), (190, Put("a")), (900, Tell(&[]))],
            ),
            ("it changes and waits on", &[(0, Put("a")), (90, Put("a")), (181, Tell(&[("a", 0)]))]),
            ("it is gone", &[(0, Put("a")), (90, Gone("a")), (500, Tell(&[]))]),
            (
                "it begins anew",
                &[
                    (0, Put("a")),
                    (90, Gone("a")),
                    (100, Put("a")),
                    (190, Tell(&[])),
                    (280, Tell(&[("a", 100)])),
                ],
            ),
            (
                "those that wait longest first",
                &[(0, Put("b")), (5, Put("a")), (9, Put("c")), (186, Tell(&[("b", 0), ("a", 5)]))],
            ),
            (
                "a later list",
                &[
                    (0, List(&["a", "b", "c"])),
                    (180, Tell(&[("a", 0), ("b", 0), ("c", 0)])),
                    (190, List(&["a", "d"])),
                    (200, Put("b")),
                    (380, Tell(&[("a", 180), ("d", 190), ("b", 200)])),
                ],
            ),
            (
                "a list that breaks off",
                &[(0, Put("a")), (10, Part(&["b"])), (190, Tell(&[("a", 0), ("b", 10)]))],
            ),
            ("put off", &[(0, Put("a")), (180, Later), (210, Tell(&[])), (240, Tell(&[("a", 0)]))]),
        ];
        for (name, steps) in table {
            let begun = Instant::now();
            let mut all = Waiting::default();
            for (second, step) in steps {
                let now = begun + Duration::from_secs(*second);
                match step {
                    Put(name) => all.put(pod(name), now),
                    Gone(name) => all.forget(&uid(name)),
                    List(names) | Part(names) => {
                        all.begin();
                        names.iter().for_each(|name| all.put(pod(name), now));
                        if matches!(step, List(_)) {
                            all.listed();
                        }
                    }
                    Later => {
                        let (first, _) = all.due(now).unwrap();
                        all.put_off(&first.uid, now + Duration::from_secs(60));
                    }
                    Leave => all.leave(&all.due(now).unwrap().0.uid),
                    Tell(wanted) => {
                        let mut told = Vec::new();
                        while let Some((pod, since)) = all.due(now) {
                            all.told(&pod.uid, now);
                            told.push((pod.uid.to_string(), (since - begun).as_secs()));
                        }
                        let wanted =
                            wanted.iter().map(|(name, since)| ((*name).to_owned(), *since));
                        assert_eq!(told, wanted.collect::<Vec<_>>(), "{name} at {second}");
                    }
                }
            }
        }
    }

    #[test]
    fn no_more_pods_than_that_are_remembered() {
        let (mut all, now) = (Waiting::default(), Instant::now());
        all.begin();
        for n in 0..MAX_PODS + 3 {
            all.put(pod(&format!("p{n}")), now);
        }
        assert_eq!(all.listing.as_ref().map(BTreeSet::len), Some(MAX_PODS));
        all.listed();
        assert_eq!(all.pods.len(), MAX_PODS);
        // There is room again.
        all.forget(&uid("p7"));
        all.put(pod("x"), now);
        assert!(all.pods.contains_key(&uid("x")));
    }
}
