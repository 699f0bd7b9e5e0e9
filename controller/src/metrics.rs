//! `/metrics`: what is counted, in the text form that Prometheus reads.
//!
//! All of it is gauges of what is known at this moment, so there is nothing to
//! count up and nothing to lose with a restart.

use std::fmt::{Display, Write as _};

use rootstock_core::rollout::Progress;
use rootstock_core::runtime_status::RolloutPhase;

use crate::bandwidth;
use crate::index::Gauges;

/// The type of what is served.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// One page.
#[derive(Default)]
struct Page(String);

type Labels<'a> = &'a [(&'a str, &'a dyn Display)];

impl Page {
    /// A gauge, with a line for each of its values.
    fn gauge<T>(
        &mut self,
        name: &str,
        help: &str,
        of: impl IntoIterator<Item = T>,
        say: impl Fn(&mut Line<'_>, T),
    ) {
        let _ = write!(self.0, "# HELP rootstock_{name} {help}\n# TYPE rootstock_{name} gauge\n");
        for one in of {
            say(&mut Line { page: &mut self.0, name }, one);
        }
    }
}

struct Line<'a> {
    page: &'a mut String,
    name: &'a str,
}

impl Line<'_> {
    fn say(&mut self, labels: Labels<'_>, value: impl Display) {
        let _ = write!(self.page, "rootstock_{}", self.name);
        for (at, (name, label)) in labels.iter().enumerate() {
            let label = label.to_string().replace('\\', "\\\\").replace('"', "\\\"");
            let label = label.replace('\n', "\\n");
            let open = if at == 0 { '{' } else { ',' };
            let _ = write!(self.page, "{open}{name}=\"{label}\"");
        }
        let close = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.page, "{close} {value}");
    }
}

/// What one number of a rollout is called, means, and is.
type Number<Of, N> = (&'static str, &'static str, fn(&Of) -> N);

const RESOURCE: [Number<Gauges, u64>; 4] = [
    ("agents_connected", "Nodes whose agent is connected.", |of| of.connected as u64),
    ("bytes_pulled", "Bytes that came over the network for what nodes have.", |of| of.bytes_pulled),
    ("sandboxes", "Pods' sandboxes that run on their node's bundle.", |of| of.sandboxes),
    ("sandboxes_outdated", "Pods' sandboxes that run on an earlier bundle.", |of| {
        of.outdated_sandboxes
    }),
];

const ROLLOUT: [Number<Progress, usize>; 8] = [
    ("rollout_nodes", "Nodes of the resource.", |rollout| rollout.nodes),
    ("rollout_have", "Nodes that have the bundle which is tried.", |rollout| rollout.have),
    ("rollout_left", "Nodes that could have it and do not yet.", |rollout| rollout.left),
    ("rollout_in_flight", "Nodes that may restart containerd now.", |rollout| rollout.in_flight),
    ("rollout_away", "Nodes that are not connected.", |rollout| rollout.away),
    ("rollout_failed", "Nodes that failed with it.", |rollout| {
        rollout.failures.iter().filter(|failure| !failure.excused).count()
    }),
    ("rollout_budget", "Nodes that may fail before it stops.", |rollout| rollout.budget),
    ("rollout_held", "Nodes that something else is in the way of.", |rollout| rollout.held),
];

/// The page.
pub(crate) fn page(all: &[Gauges], bandwidth: Option<bandwidth::View>) -> String {
    let mut page = Page::default();
    let leads = u8::from(bandwidth.is_some());
    page.gauge("leads", "Whether this controller leads.", [leads], |line, leads| {
        line.say(&[], leads);
    });
    page.gauge("nodes", "Nodes by the phase of the bundle they are to have.", all, |line, of| {
        for (phase, count) in &of.phases {
            line.say(&of.labels(&[("phase", phase)]), count);
        }
    });
    page.gauge("nodes_stopped", "Nodes that something stops, by why.", all, |line, of| {
        for (reason, count) in &of.reasons {
            line.say(&of.labels(&[("reason", reason)]), count);
        }
    });
    for (name, help, value) in RESOURCE {
        page.gauge(name, help, all, |line, of| line.say(&of.labels(&[]), value(of)));
    }
    let rollouts = || all.iter().filter_map(|of| Some((of, of.rollout.as_ref()?)));
    page.gauge(
        "rollout_phase",
        "Where the rollout is: one is 1.",
        rollouts(),
        |line, (of, rollout)| {
            line.say(&of.labels(&[("phase", &RolloutPhase::from(rollout.phase))]), 1);
        },
    );
    for (name, help, value) in ROLLOUT {
        page.gauge(name, help, rollouts(), |line, (of, rollout)| {
            line.say(&of.labels(&[]), value(rollout));
        });
    }
    for (name, help, value) in bandwidth.iter().flat_map(bandwidth::View::numbers) {
        page.gauge(name, help, [value], |line, value| line.say(&[], value));
    }
    page.0
}

impl Gauges {
    /// What tells it from others, and more.
    fn labels<'a>(
        &'a self,
        more: &[(&'a str, &'a dyn Display)],
    ) -> Vec<(&'a str, &'a dyn Display)> {
        let mut labels: Vec<(&str, &dyn Display)> =
            vec![("shoot", &self.key.shoot), ("name", &self.key.name), ("type", &self.runtime)];
        labels.extend(more);
        labels
    }
}

#[cfg(test)]
mod tests {
    use rootstock_core::status::Phase;

    use super::*;
    use crate::index::RuntimeKey;

    #[test]
    fn what_is_counted_is_said_with_what_it_is_of() {
        let key = RuntimeKey {
            shoot: "shoot--garden--one".parse().unwrap(),
            name: "gvisor-a".to_owned(),
        };
        let gauges = Gauges {
            key,
            runtime: "gv\"isor".to_owned(),
            phases: [(Phase::Proven, 3), (Phase::Pulling, 1)].into(),
            reasons: [].into(),
            connected: 4,
            bytes_pulled: 7,
            sandboxes: 2,
            outdated_sandboxes: 1,
            rollout: None,
        };
        let page = page(&[gauges], None);
        let of = r#"{shoot="shoot--garden--one",name="gvisor-a",type="gv\"isor""#;
        for line in [
            "rootstock_leads 0".to_owned(),
            format!(r#"rootstock_nodes{of},phase="Proven"}} 3"#),
            format!("rootstock_agents_connected{of}}} 4"),
            format!("rootstock_sandboxes_outdated{of}}} 1"),
        ] {
            assert!(page.lines().any(|of_page| of_page == line), "{line}\n{page}");
        }
        assert!(page.lines().all(|line| line.starts_with("# ") || line.starts_with("rootstock_")));
    }
}
