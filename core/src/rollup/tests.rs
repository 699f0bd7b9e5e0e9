use proptest::prelude::*;

use super::*;
use crate::digest::Digest;
use crate::name::RuntimeType;
use crate::status::Phase;

fn wanted() -> Verdict {
    Verdict::Wanted(Digest::of(b"wanted"))
}

fn report(phase: Phase, reason: Option<Reason>, digest: &[u8]) -> BundleReport {
    let runtime: RuntimeType = "gvisor".parse().unwrap();
    let message = if reason.is_some() { "blob x".to_owned() } else { String::new() };
    BundleReport {
        digest: Some(Digest::of(digest)),
        reason,
        message,
        ..BundleReport::new(runtime, phase)
    }
}

type Row = (Verdict, Connection, Option<BundleReport>);

/// The nodes' condition, which is also the summary.
fn of_nodes(nodes: &[NodeState<'_>]) -> Condition {
    let (bundle, shoot) = (Ok("main/x:1"), Shoot::Known);
    let input = Input { bundle, invalid: None, shoot, nodes, rollout: None, unlabelled: &[] };
    let [_, nodes, system] = rollup(&input).conditions;
    assert_eq!((nodes.status, &nodes.reason), (system.status, &system.reason));
    nodes
}

fn with_states<T>(rows: &[Row], look: impl FnOnce(&[NodeState<'_>]) -> T) -> T {
    let names: Vec<NodeName> = (0..rows.len()).map(|i| format!("n{i}").parse().unwrap()).collect();
    let nodes: Vec<_> = names
        .iter()
        .zip(rows)
        .map(|(name, (verdict, connection, report))| NodeState {
            name,
            verdict,
            connection: *connection,
            report: report.as_ref(),
            refused: None,
        })
        .collect();
    look(&nodes)
}

fn of(rows: &[Row]) -> Condition {
    with_states(rows, of_nodes)
}

fn tally_of<T>(rows: &[Row], look: impl FnOnce(Tally<'_>) -> T) -> T {
    with_states(rows, |nodes| look(Tally::of(nodes)))
}

#[test]
fn one_node() {
    use ConditionStatus::{False, Progressing, True};
    use Connection::{Lost, Missing, Never, Open};
    let held = |reason| Verdict::Held(Problem::new(reason, "why"));
    let table: Vec<(Row, ConditionStatus, &str)> = vec![
        ((wanted(), Never, None), Progressing, "RollingOut"),
        ((wanted(), Open, None), Progressing, "RollingOut"),
        ((wanted(), Lost, None), False, "NodeUnreachable"),
        ((wanted(), Missing, None), False, "AgentMissing"),
        ((held(Reason::BundlePending), Missing, None), Progressing, "RollingOut"),
        ((wanted(), Open, Some(report(Phase::Loaded, None, b"wanted"))), True, "AllNodesReady"),
        ((wanted(), Open, Some(report(Phase::Proven, None, b"wanted"))), True, "AllNodesReady"),
        // Its agent is away, its runtime is not.
        ((wanted(), Lost, Some(report(Phase::Loaded, None, b"wanted"))), True, "AllNodesReady"),
        // Ready, but with another bundle.
        ((wanted(), Open, Some(report(Phase::Loaded, None, b"old"))), Progressing, "RollingOut"),
        ((wanted(), Lost, Some(report(Phase::Pulling, None, b"wanted"))), False, "NodeUnreachable"),
        (
            (wanted(), Open, Some(report(Phase::Failed, Some(Reason::NoSpace), b"wanted"))),
            False,
            "NoSpace",
        ),
        // A reason that does not stop it is no failure.
        (
            (
                wanted(),
                Open,
                Some(report(Phase::Pulling, Some(Reason::RegistryUnreachable), b"wanted")),
            ),
            Progressing,
            "RollingOut",
        ),
        ((held(Reason::BundlePending), Open, None), Progressing, "RollingOut"),
        ((held(Reason::ArchitectureMismatch), Never, None), False, "ArchitectureMismatch"),
    ];
    for (row, status, reason) in table {
        let condition = of(std::slice::from_ref(&row));
        assert_eq!((condition.status, condition.reason.as_str()), (status, reason), "{row:?}");
    }
}

#[test]
fn a_failure_names_nodes_reason_and_advice() {
    let bad = (
        wanted(),
        Connection::Open,
        Some(report(Phase::Failed, Some(Reason::DigestMismatch), b"wanted")),
    );
    let good = (wanted(), Connection::Open, Some(report(Phase::Loaded, None, b"wanted")));
    let condition = of(&[good, bad]);
    assert_eq!(
        condition.message,
        format!(
            "1 of 2 nodes ready; DigestMismatch on 1 node (n1): blob x; what to do: {}",
            Reason::DigestMismatch.advice()
        )
    );
}

#[test]
fn who_is_away_or_lacks_a_label_is_named() {
    let ready = (wanted(), Connection::Lost, Some(report(Phase::Loaded, None, b"wanted")));
    assert_eq!(of(&[ready]).message, "1 of 1 node ready; 1 by its last word, not connected (n0)");
    let plain: NodeName = "plain".parse().unwrap();
    let input = Input {
        bundle: Ok("x"),
        invalid: None,
        shoot: Shoot::Known,
        nodes: &[],
        rollout: None,
        unlabelled: &[&plain],
    };
    let [_, nodes, _] = rollup(&input).conditions;
    assert!(nodes.message.contains("=true (plain)"), "{}", nodes.message);
}

#[test]
fn what_is_wrong_with_the_resource_comes_before_its_nodes() {
    let problem = Problem::new(Reason::SelectorInvalid, "selector operator \"Near\" is unknown");
    let input = Input {
        bundle: Ok("main/x:1"),
        invalid: Some(&problem),
        shoot: Shoot::Known,
        nodes: &[],
        rollout: None,
        unlabelled: &[],
    };
    let [bundle, nodes, system] = rollup(&input).conditions;
    assert_eq!(bundle.status, ConditionStatus::True);
    assert_eq!(
        (nodes.reason.as_str(), system.reason.as_str()),
        ("SelectorInvalid", "SelectorInvalid")
    );
    assert!(system.message.contains("spec.workerPool.selector"), "{}", system.message);
    assert_eq!((nodes.codes, system.codes), (CONFIGURATION_PROBLEM, CONFIGURATION_PROBLEM));
}

#[test]
fn the_summary_is_what_a_shoot_should_show() {
    use ConditionStatus::{False, Progressing, True, Unknown};
    let missing = Problem::new(Reason::BundleNotFound, "main/x:1 is not there");
    let pending = Problem::new(Reason::BundlePending, "it is being looked up");
    let wrong = Problem::new(Reason::ConfigurationInvalid, "spec.providerConfig.a: no");
    let name: NodeName = "n1".parse().unwrap();
    let loaded = report(Phase::Loaded, None, b"wanted");
    let wanted = wanted();
    let (connection, refused) = (Connection::Open, None);
    let one =
        [NodeState { name: &name, verdict: &wanted, connection, report: Some(&loaded), refused }];
    let away = Shoot::Unreachable("refused");
    let table = [
        // No nodes: nothing is broken, whatever the registry says.
        (Shoot::Known, &[][..], Ok("x"), None, (True, "NoNodes"), (True, "NoNodes")),
        (Shoot::Known, &[], Err(&missing), None, (True, "NoNodes"), (True, "NoNodes")),
        (
            Shoot::Known,
            &[],
            Ok("x"),
            Some(&wrong),
            (False, "ConfigurationInvalid"),
            (False, "ConfigurationInvalid"),
        ),
        (
            Shoot::Unknown,
            &[],
            Ok("x"),
            None,
            (Progressing, "ListingNodes"),
            (Progressing, "ListingNodes"),
        ),
        (
            Shoot::Unknown,
            &[],
            Err(&missing),
            None,
            (Progressing, "ListingNodes"),
            (False, "BundleNotFound"),
        ),
        (
            away,
            &[],
            Ok("x"),
            None,
            (Unknown, "ShootUnreachable"),
            (Progressing, "ShootUnreachable"),
        ),
        // Asleep: nothing else counts.
        (Shoot::Hibernated, &[], Ok("x"), None, (True, "Hibernated"), (True, "Hibernated")),
        (Shoot::Hibernated, &[], Err(&missing), None, (True, "Hibernated"), (True, "Hibernated")),
        (Shoot::Hibernated, &[], Ok("x"), Some(&wrong), (True, "Hibernated"), (True, "Hibernated")),
        // Agents are heard while the shoot's API is away.
        (away, &one, Ok("x"), None, (True, "AllNodesReady"), (True, "AllNodesReady")),
        (Shoot::Known, &one, Ok("x"), None, (True, "AllNodesReady"), (True, "AllNodesReady")),
        (
            Shoot::Known,
            &one,
            Err(&missing),
            None,
            (True, "AllNodesReady"),
            (False, "BundleNotFound"),
        ),
        (
            Shoot::Known,
            &one,
            Err(&pending),
            None,
            (True, "AllNodesReady"),
            (Progressing, "BundlePending"),
        ),
    ];
    for (shoot, nodes, bundle, invalid, want_nodes, want_system) in table {
        let input = Input { bundle, invalid, shoot, nodes, rollout: None, unlabelled: &[] };
        let [_, nodes, system] = rollup(&input).conditions;
        assert_eq!((nodes.status, nodes.reason.as_str()), want_nodes, "{input:?}");
        assert_eq!((system.status, system.reason.as_str()), want_system, "{input:?}");
    }
}

#[test]
fn a_configuration_is_accepted_passed_over_in_part_or_refused() {
    let wrong = Problem::new(Reason::ConfigurationInvalid, "spec.providerConfig.a: no");
    let passed = ["configFlags.debug2".to_owned(), "configFlags.x".to_owned()];
    let accepted = |invalid, passed_over| {
        let accepted = configuration_accepted(invalid, passed_over);
        (accepted.status, accepted.reason, accepted.message, accepted.codes)
    };
    let (status, reason, _, codes) = accepted(None, &[]);
    assert_eq!((status, reason.as_str(), codes.len()), (ConditionStatus::True, "Accepted", 0));
    let (status, reason, message, _) = accepted(None, &passed);
    assert_eq!((status, reason.as_str()), (ConditionStatus::True, "PassedOver"));
    assert!(message.ends_with("configFlags.debug2, configFlags.x"), "{message}");
    let (status, reason, _, codes) = accepted(Some(&wrong), &passed);
    assert_eq!((status, reason.as_str()), (ConditionStatus::False, "ConfigurationInvalid"));
    assert_eq!(codes, ["ERR_CONFIGURATION_PROBLEM"]);
}

#[test]
fn thousands_of_broken_nodes_stay_readable() {
    let reasons: Vec<_> = Reason::ALL.iter().copied().take(30).collect();
    for (nodes, reasons, long) in
        [(1_000, &reasons[..1], false), (1_000, &reasons, true), (10_000, &reasons, true)]
    {
        let names: Vec<NodeName> = (0..nodes)
            .map(|i| {
                if long {
                    format!("{0}.{0}.{0}.n{i:05}", "n".repeat(60))
                } else {
                    format!("n{i:05}")
                }
            })
            .map(|name| name.parse().unwrap())
            .collect();
        let reports: Vec<_> = (0..nodes)
            .map(|i| {
                let message = "ä".repeat(if long { 512 } else { 10 });
                let reason = Some(reasons[i * i % reasons.len()]);
                BundleReport { message, ..report(Phase::Failed, reason, b"wanted") }
            })
            .collect();
        let wanted = wanted();
        let states: Vec<_> = names
            .iter()
            .zip(&reports)
            .map(|(name, report)| NodeState {
                name,
                verdict: &wanted,
                connection: Connection::Open,
                report: Some(report),
                refused: None,
            })
            .collect();
        let condition = of_nodes(&states);
        let text = &condition.message;
        assert!(text.len() <= MAX_MESSAGE, "{}", text.len());
        assert!(text.starts_with(&format!("0 of {nodes} nodes ready; ")), "{text}");
        assert!(text.contains(" and ") && text.contains(" more)"), "{text}");
        assert!(!text.ends_with('…'), "whole sentences: {text}");
        assert_eq!(text.contains("more reasons on "), reasons.len() > 1, "{text}");
    }
}

#[test]
fn nodes_are_counted_by_phase_and_reason() {
    let rows = [
        (wanted(), Connection::Open, Some(report(Phase::Proven, None, b"wanted"))),
        (wanted(), Connection::Open, Some(report(Phase::Pulling, None, b"wanted"))),
        (wanted(), Connection::Open, Some(report(Phase::Failed, Some(Reason::NoSpace), b"wanted"))),
        (wanted(), Connection::Lost, None),
    ];
    let complete = |rows: &[Row]| tally_of(rows, |tally| tally.complete);
    tally_of(&rows, |tally| {
        assert_eq!((tally.selected, tally.ready), (4, 1));
        let (failed, proven) = ((Phase::Failed, 1), (Phase::Proven, 1));
        let want = [(Phase::Waiting, 1), (Phase::Pulling, 1), proven, failed].into();
        assert_eq!(tally.phases, want);
        let unready: Vec<_> =
            tally.unready.iter().map(|n| (n.name.as_str(), n.phase, n.reason)).collect();
        let away = Some(Reason::NodeUnreachable);
        assert_eq!(unready[0], ("n1", Phase::Pulling, None));
        assert_eq!(unready[2], ("n3", Phase::Waiting, away));
        let stopped: Vec<_> = tally.stopped().collect();
        assert_eq!(stopped[0], (Reason::NoSpace, 1, "n2".to_owned()));
    });
    assert!(complete(&rows));
    assert!(!complete(&[(wanted(), Connection::Never, None)]), "it may be back in a moment");
    let held = Verdict::Held(Problem::new(Reason::ArchitectureMismatch, "why"));
    assert!(complete(&[(held, Connection::Never, None)]), "nobody comes from it");
}

proptest! {
    #[test]
    fn messages_are_bounded_and_true_means_all(
        rows in proptest::collection::vec((0..15usize, 0..3usize, "[a-zäß ]{0,1500}"), 0..12),
    ) {
        let rows: Vec<Row> = rows.into_iter().map(|(phase, connection, message)| {
            let mut report = report(Phase::ALL[phase], Some(Reason::Internal), b"wanted");
            report.message = message;
            let connection = [Connection::Never, Connection::Open, Connection::Lost][connection];
            (wanted(), connection, Some(report))
        }).collect();
        let condition = of(&rows);
        prop_assert!(condition.message.len() <= MAX_MESSAGE);
        let all = rows.iter().all(|(_, _, report)| report.as_ref().unwrap().phase.is_ready());
        prop_assert_eq!(condition.status == ConditionStatus::True, all);
    }
}

#[test]
fn a_node_that_refuses_what_it_is_sent_says_why() {
    let name: NodeName = "n1".parse().unwrap();
    let told = |report: Option<BundleReport>| {
        let node = NodeState {
            name: &name,
            verdict: &wanted(),
            connection: Connection::Open,
            report: report.as_ref(),
            refused: Some((Reason::BundleInvalid, "a later form")),
        };
        of_nodes(&[node])
    };
    let condition = told(None);
    assert_eq!(condition.reason, "BundleInvalid");
    assert!(condition.message.contains("n1): a later form; what to do: "), "{condition:?}");
    // What it has already is not affected.
    assert_eq!(told(Some(report(Phase::Loaded, None, b"wanted"))).reason, "AllNodesReady");
}
