//! The embedded Kubernetes API and the real one, held to the same answers.
//!
//! Each case below is a test of its own on the embedded API. Where
//! `KUBEBUILDER_ASSETS` names a folder with etcd and kube-apiserver, `real` runs
//! all of them there too: what fails there is a wrong case, what fails only on the
//! embedded API is a wrong API.

mod access;
mod kubectl;
mod lifecycle;
mod objects;
mod patches;
mod support;
mod watches;

use rootstock_playground::kube::{Cluster, RealControlPlane};
use support::options;

macro_rules! conformance {
    ($($module:ident :: $case:ident),* $(,)?) => {
        mod embedded {
            $(
                #[tokio::test]
                async fn $case() {
                    let dir = tempfile::tempdir().unwrap();
                    let cluster = super::Cluster::embedded(super::options(&dir)).await.unwrap();
                    super::$module::$case(&cluster).await;
                    cluster.stop().await;
                }
            )*
        }

        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn real() {
            let Some(assets) = RealControlPlane::assets() else {
                eprintln!("skipped: KUBEBUILDER_ASSETS is not set");
                return;
            };
            let dir = tempfile::tempdir().unwrap();
            let plane = RealControlPlane::start(&assets, dir.path()).await.unwrap();
            let cluster = Cluster::real(&plane, options(&dir)).await.unwrap();
            let cluster = std::sync::Arc::new(cluster);
            let mut failed = Vec::new();
            $({
                eprintln!("real: {}", stringify!($case));
                let cluster = std::sync::Arc::clone(&cluster);
                let mut task = tokio::task::JoinSet::new();
                task.spawn(async move { $module::$case(&cluster).await });
                if task.join_next().await.is_none_or(|ended| ended.is_err()) {
                    failed.push(stringify!($case));
                }
            })*
            std::sync::Arc::try_unwrap(cluster).unwrap().stop().await;
            assert!(failed.is_empty(), "failed on the real API server: {failed:?}");
        }
    };
}

conformance!(
    objects::create_read_update_delete,
    objects::names_and_namespaces,
    objects::generated_names,
    objects::generation_and_status,
    objects::nodes_keep_status_apart,
    objects::schema_of_a_crd,
    objects::finalizers_hold_back,
    objects::preconditions,
    objects::lists_in_pages_and_selections,
    objects::deletes_many,
    objects::secrets_and_leases,
    objects::pods_end_with_grace,
    objects::events_have_two_faces,
    patches::merge,
    patches::json,
    patches::strategic,
    patches::apply,
    patches::optimistic_lock,
    watches::sees_everything_in_order,
    watches::selections_add_and_delete,
    watches::bookmarks,
    watches::initial_events,
    watches::too_old,
    watches::kube_watcher,
    watches::metadata_alone,
    access::tokens_of_pods,
    access::tokens_and_audiences,
    access::roles,
    access::strangers,
    access::discovery,
    kubectl::gets_tables,
    kubectl::describes,
    kubectl::changes,
    kubectl::applies,
    kubectl::deletes_and_waits,
);
