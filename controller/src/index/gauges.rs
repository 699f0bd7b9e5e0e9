//! What is counted of each ContainerRuntime, for metrics.

use std::collections::BTreeMap;

use rootstock_core::assign::Verdict;
use rootstock_core::rollout::Progress;
use rootstock_core::rollup::Connection;
use rootstock_core::status::{Phase, Reason};

use super::{Index, RuntimeKey};

/// The counts of one ContainerRuntime.
#[derive(Clone, Debug)]
pub(crate) struct Gauges {
    pub(crate) key: RuntimeKey,
    pub(crate) runtime: String,
    /// Its nodes, by the phase of what they are to have in the end.
    pub(crate) phases: BTreeMap<Phase, usize>,
    /// Those that something stops, by why.
    pub(crate) reasons: BTreeMap<Reason, usize>,
    pub(crate) connected: usize,
    pub(crate) bytes_pulled: u64,
    pub(crate) sandboxes: u64,
    pub(crate) outdated_sandboxes: u64,
    pub(crate) rollout: Option<Progress>,
}

impl Index {
    /// The counts of every ContainerRuntime that names a type.
    pub(crate) fn gauges(&self) -> Vec<Gauges> {
        let state = self.lock();
        let mut all = Vec::new();
        for (shoot_name, shoot) in &state.shoots {
            for (name, runtime) in &shoot.runtimes {
                let Some(kind) = &runtime.runtime else { continue };
                let mut gauges = Gauges {
                    key: RuntimeKey { shoot: shoot_name.clone(), name: name.clone() },
                    runtime: kind.to_string(),
                    phases: BTreeMap::new(),
                    reasons: BTreeMap::new(),
                    connected: 0,
                    bytes_pulled: 0,
                    sandboxes: 0,
                    outdated_sandboxes: 0,
                    rollout: shoot.progress.get(name).cloned(),
                };
                for node in shoot.nodes.values() {
                    let Some(verdict) = node.assigned.verdicts.get(name) else { continue };
                    gauges.connected += usize::from(node.connection == Connection::Open);
                    let report = node.reports.iter().flatten().find(|r| r.runtime == *kind);
                    let wanted = match verdict {
                        Verdict::Wanted(digest) => Some(*digest),
                        Verdict::Held(problem) => {
                            *gauges.reasons.entry(problem.reason).or_default() += 1;
                            None
                        }
                    };
                    let of_it = report.filter(|report| report.digest == wanted);
                    let phase = of_it.map_or(Phase::Waiting, |report| report.phase);
                    *gauges.phases.entry(phase).or_default() += 1;
                    let Some(report) = report else { continue };
                    if let Some(reason) = report.reason.filter(|_| phase.is_failure()) {
                        *gauges.reasons.entry(reason).or_default() += 1;
                    }
                    gauges.bytes_pulled += report.bytes_pulled;
                    gauges.sandboxes += u64::from(report.sandboxes);
                    gauges.outdated_sandboxes += u64::from(report.outdated_sandboxes);
                }
                all.push(gauges);
            }
        }
        all
    }
}
