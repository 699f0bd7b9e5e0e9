//! Gardener's contract with an extension, as gardenlet sees it.
//!
//! Each scenario below is a test of its own on the embedded API. Where
//! `KUBEBUILDER_ASSETS` names a folder with etcd and kube-apiserver, `real` runs all of
//! them there too, side by side on one API server. Controllers are processes that have
//! the chart's role and nothing more; gardenlet, the resource manager's token requestor
//! and the shoots are played by `support`.

mod deletion;
mod faults;
mod migration;
mod nodes;
mod objects;
mod operations;
mod rotation;
mod route;
mod scope;
mod settings;
mod status;
mod support;
mod takeover;

use std::collections::BTreeMap;
use std::sync::Arc;

use rootstock_playground::kube::RealControlPlane;
use tokio::sync::Semaphore;
use tokio::task::{JoinSet, LocalSet};

use support::record::Kind;
use support::suite::Suite;

const PROGRAM: &str = env!("CARGO_BIN_EXE_rootstock-playground");
/// Scenarios wait most of the time: so many share the real API server at once.
const AT_ONCE: usize = 12;

macro_rules! scenarios {
    ($($module:ident :: $case:ident),* $(,)?) => {
        mod embedded {
            $(
                #[tokio::test]
                async fn $case() {
                    let suite = super::Suite::start(None, super::PROGRAM, &super::Kind::ALL).await;
                    let suite = std::sync::Arc::new(suite);
                    let shared = std::sync::Arc::clone(&suite);
                    // A task of its own, so that its panic ends nothing else.
                    let local = tokio::task::LocalSet::new();
                    let case = async move { super::$module::$case(&shared).await };
                    let task = local.spawn_local(case);
                    let ended = local.run_until(task).await;
                    if ended.is_err() {
                        eprintln!("{}", suite.logs());
                    }
                    std::sync::Arc::into_inner(suite).unwrap().stop().await;
                    assert!(ended.is_ok(), "failed: see above");
                }
            )*
        }

        /// Only those whose name has `ROOTSTOCK_SCENARIO` in it, where that is set.
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn real() {
            let Some(assets) = RealControlPlane::assets() else {
                eprintln!("skipped: KUBEBUILDER_ASSETS is not set");
                return;
            };
            let only = std::env::var("ROOTSTOCK_SCENARIO").unwrap_or_default();
            let suite = Arc::new(Suite::start(Some(&assets), PROGRAM, &Kind::ALL).await);
            let permits = Arc::new(Semaphore::new(AT_ONCE));
            let local = LocalSet::new();
            let mut running = JoinSet::new();
            let mut names = BTreeMap::new();
            $(
                if stringify!($case).contains(&only) && !faults::EMBEDDED.contains(&stringify!($case)) {
                    let (suite, permits) = (Arc::clone(&suite), Arc::clone(&permits));
                    let case = async move {
                        let _permit = permits.acquire().await.unwrap();
                        $module::$case(&suite).await;
                    };
                    let handle = running.spawn_local_on(case, &local);
                    names.insert(handle.id(), stringify!($case));
                }
            )*
            let mut failed = Vec::new();
            let all = async {
                while let Some(ended) = running.join_next_with_id().await {
                    if let Err(error) = ended {
                        failed.push(names[&error.id()]);
                    }
                }
            };
            local.run_until(all).await;
            if !failed.is_empty() {
                eprintln!("{}", suite.logs());
            }
            Arc::into_inner(suite).unwrap().stop().await;
            assert!(failed.is_empty(), "failed on the real API server: {failed:?}");
        }
    };
}

scenarios!(
    operations::created_without_nodes_registry_or_shoot_api,
    operations::created_while_hibernated,
    operations::unchanged_reconcile_writes_three_times,
    operations::every_trigger_refreshes_the_time,
    operations::changed_spec_is_observed,
    operations::wait_for_state_is_left_alone,
    operations::without_a_cluster_nothing_is_written,
    operations::failed_shoots_are_left_alone,
    operations::killed_in_the_middle,
    operations::without_annotation_when_it_is_ignored,
    objects::four_at_once,
    objects::nothing_is_written_twice,
    objects::catalog_loses_a_type,
    migration::there_and_back,
    migration::twice,
    migration::to_another_seed,
    deletion::not_the_last_then_the_last,
    deletion::while_the_api_is_away,
    deletion::while_hibernated,
    deletion::by_force,
    settings::a_bad_one_is_refused_and_mended,
    settings::unknown_ones_are_passed_over,
    settings::pending_while_the_bundle_is_away,
    rotation::in_step_with_the_shoot,
    rotation::a_hundred_agents_stay,
    route::made_followed_and_taken_away,
    route::away_with_a_shoot_that_moves_and_back,
    route::somebody_elses_business,
    scope::other_classes_and_types,
    scope::a_list_of_types,
    nodes::appear_change_and_vanish,
    nodes::two_resources_disagree,
    status::conditions_have_gardeners_form,
    status::what_others_wrote_stays,
    status::heartbeat,
    takeover::of_the_gvisor_extension,
    faults::passing_errors_are_not_shown,
);
