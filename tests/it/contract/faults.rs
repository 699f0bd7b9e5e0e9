//! An API server that refuses now and then.

use super::support::shoot::{Shoot, pools};
use super::support::suite::Suite;

/// Faults can be arranged on the embedded API alone.
pub(super) const EMBEDDED: [&str; 1] = ["passing_errors_are_not_shown"];

/// Conflicts, limits, outages: once a wait of gardenlet's is 30 s old, it would end at
/// the first of them that it sees.
pub(super) async fn passing_errors_are_not_shown(suite: &Suite) {
    let both = &["gvisor", "kata"][..];
    let controller = suite.controller().await;
    let workers = pools(&[("a", both), ("b", both)]);
    let shoot = Shoot::new(suite, &controller, "faults", workers).await.with_api();
    for code in [409, 429, 500, 503] {
        for what in [
            "patch containerruntimes",
            "patch containerruntimes/status",
            "get containerruntimes",
            "get clusters",
            "get secrets",
            "create secrets",
            "get managedresources",
            "create managedresources",
            "patch managedresources",
            "update managedresources",
        ] {
            // Nothing that is to be created has a version that could conflict.
            if code != 409 || !what.starts_with("create") {
                suite.cluster.fail_next(what, code, 3);
            }
        }
        shoot.reconcile().await;
    }
    suite.cluster.fail_next("patch containerruntimes", 503, 3);
    suite.cluster.fail_next("delete managedresources", 503, 3);
    shoot.destroy().await.unwrap();
    shoot.never_failed().await;
    assert!(suite.cluster.faults_met() > 10, "{} faults", suite.cluster.faults_met());
}
