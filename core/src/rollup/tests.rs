use proptest::prelude::*;

use super::*;
use crate::name::RuntimeType;

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

fn of(rows: &[Row]) -> Condition {
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
    let input = Input {
        bundle: Ok("main/x:1"),
        invalid: None,
        shoot: Shoot::Known,
        nodes: &nodes,
        unlabelled: &[],
    };
    let [_, nodes, system] = rollup(&input);
    assert_eq!((nodes.status, &nodes.reason), (system.status, &system.reason));
    nodes
}

#[test]
fn one_node() {
    use ConditionStatus::{False, Progressing, True};
    use Connection::{Lost, Never, Open};
    let held = |reason| Verdict::Held(Problem::new(reason, "why"));
    let table: Vec<(Row, ConditionStatus, &str)> = vec![
        ((wanted(), Never, None), Progressing, "RollingOut"),
        ((wanted(), Open, None), Progressing, "RollingOut"),
        ((wanted(), Lost, None), False, "NodeUnreachable"),
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
        unlabelled: &[&plain],
    };
    let [_, nodes, _] = rollup(&input);
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
        unlabelled: &[],
    };
    let [bundle, nodes, system] = rollup(&input);
    assert_eq!(bundle.status, ConditionStatus::True);
    assert_eq!(
        (nodes.reason.as_str(), system.reason.as_str()),
        ("SelectorInvalid", "SelectorInvalid")
    );
    assert!(system.message.contains("spec.workerPool.selector"), "{}", system.message);
}

#[test]
fn a_bundle_that_is_not_there_is_what_the_summary_says() {
    let problem = Problem::new(Reason::BundleNotFound, "main/x:1 is not there");
    let input = Input {
        bundle: Err(&problem),
        invalid: None,
        shoot: Shoot::Known,
        nodes: &[],
        unlabelled: &[],
    };
    let [bundle, _, system] = rollup(&input);
    assert_eq!(bundle.status, ConditionStatus::False);
    assert_eq!(system.reason, "BundleNotFound");
}

#[test]
fn shoots_without_nodes() {
    use ConditionStatus::{Progressing, True, Unknown};
    for (shoot, status, reason) in [
        (Shoot::Known, True, "NoNodes"),
        (Shoot::Hibernated, True, "Hibernated"),
        (Shoot::Unknown, Progressing, "ListingNodes"),
        (Shoot::Unreachable("refused"), Unknown, "ShootUnreachable"),
    ] {
        let input = Input { bundle: Ok("x"), invalid: None, shoot, nodes: &[], unlabelled: &[] };
        let [_, nodes, _] = rollup(&input);
        assert_eq!((nodes.status, nodes.reason.as_str()), (status, reason));
    }
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
        sum_up(&[node])
    };
    let condition = told(None);
    assert_eq!(condition.reason, "BundleInvalid");
    assert!(condition.message.contains("n1): a later form; what to do: "), "{condition:?}");
    // What it has already is not affected.
    assert_eq!(told(Some(report(Phase::Loaded, None, b"wanted"))).reason, "AllNodesReady");
}
