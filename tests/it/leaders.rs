//! Three controllers, of which one acts: killed, stopped and cut off in turns,
//! with 200 agents and changes all the time.
//!
//! `ROOTSTOCK_LEADERS_SECONDS=180` makes it three minutes of that.

pub(crate) mod replicas;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kube::ResourceExt as _;
use kube::runtime::watcher;
use rootstock_controller::api::ContainerRuntime;
use rootstock_playground::crowd::Leads;
use rootstock_playground::kube::Audited;
use rootstock_playground::seed::follow::Follow;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::Instant;

use replicas::{Replicas, Size};

const NODES: usize = 200;
const LEASE: Duration = Duration::from_secs(3);
/// What a leader waits for before its word stands for what the one before it
/// knew, with room.
const LIMIT: Duration = Duration::from_secs(90);

/// The states of a condition in the order in which they were written: status,
/// reason, and since when.
type History = Arc<Mutex<Vec<(String, String, String)>>>;

/// What befalls a leader.
#[derive(Clone, Copy, Debug)]
enum Fault {
    Killed,
    Stopped,
    CutOff,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_acts_whatever_befalls_it() {
    let seconds = std::env::var("ROOTSTOCK_LEADERS_SECONDS").ok().and_then(|s| s.parse().ok());
    let time = Duration::from_secs(seconds.unwrap_or(20));
    let program = Path::new(env!("CARGO_BIN_EXE_rootstock-playground"));
    let size = Size { controllers: 3, nodes: NODES, lease: "3s", limit: LIMIT };
    let replicas = Replicas::start(program, size).await;
    replicas.cluster.start_audit();
    let mut crowd = replicas.crowd().await;
    crowd.begin();
    replicas.until("all have it", async || replicas.says("1").await).await;
    let mut watches = JoinSet::new();
    let history = record(&replicas, &mut watches);

    let (begun, mut version, mut leaders) = (Instant::now(), 1, BTreeSet::new());
    let faults = [Fault::Killed, Fault::Stopped, Fault::CutOff];
    for fault in faults.into_iter().cycle() {
        if begun.elapsed() > time {
            break;
        }
        let leader =
            replicas.until("somebody leads", async || replicas.leader().await.ok_or(())).await;
        version += 1;
        // The change and its end fall into one another.
        replicas.offer(&version.to_string()).await;
        befall(&replicas, &leader, fault).await;
        let text = version.to_string();
        replicas
            .until("all nodes are told", async || match crowd.with_version(&text) {
                NODES => Ok(()),
                count => Err((count, crowd.seen().borrow().clone())),
            })
            .await;
        leaders.insert(leader);
    }
    let version = version.to_string();
    replicas.until("all is said", async || replicas.says(&version).await).await;

    let seen = crowd.seen().borrow().clone();
    assert_eq!((seen.connected, &seen.wrong, seen.repeated), (NODES, &Vec::new(), 0));
    assert!(leaders.len() > 1 && seen.epoch > 3, "{leaders:?} {seen:?}");
    let audited = replicas.cluster.audited();
    assert_eq!(written_out_of_turn(&audited), Vec::<&Audited>::new());
    let history = history.lock().unwrap().clone();
    assert_eq!(disorder(&history), None, "{history:#?}");
    replicas.stop().await;
}

async fn befall(replicas: &Replicas, leader: &str, fault: Fault) {
    let controller = &replicas.controllers[leader];
    let pid = || Pid::from_raw(i32::try_from(controller.process.pid()?).ok()?);
    match fault {
        Fault::Killed => controller.process.kill().await,
        Fault::Stopped => {
            let Some(pid) = pid() else { return };
            kill_process(pid, Signal::STOP).unwrap();
            tokio::time::sleep(2 * LEASE).await;
            kill_process(pid, Signal::CONT).unwrap();
        }
        Fault::CutOff => {
            let Leads::To(api) = controller.api.leads() else { return };
            controller.api.lead(Leads::Silence);
            tokio::time::sleep(2 * LEASE).await;
            controller.api.lead(Leads::To(api));
        }
    }
}

/// Writes by somebody who was not the last to write the Lease: in the order of
/// the API, so that no clock is asked.
fn written_out_of_turn(audited: &[Audited]) -> Vec<&Audited> {
    let mut holder = None;
    let mut wrong = Vec::new();
    for write in audited.iter().filter(|write| write.user.contains(":controller-")) {
        let own = |write: &Audited| {
            let pod = write.user.rsplit(':').next().unwrap_or_default();
            write.what == "patch pods" && write.object.ends_with(pod)
        };
        if write.what.ends_with(" leases") {
            // A plain cluster has no heartbeat: there is one Lease.
            holder = Some(&write.user);
        } else if write.what.ends_with(" customresourcedefinitions") || own(write) {
            // Each process brings the definition when it begins, and takes its mark off.
        } else if holder.is_some_and(|holder| *holder != write.user) {
            wrong.push(write);
        }
    }
    wrong
}

/// Follows what is written of NodesReady.
fn record(replicas: &Replicas, watches: &mut JoinSet<()>) -> History {
    let history = History::default();
    let mut follow: Follow<ContainerRuntime> =
        Follow::new(replicas.resources(), watcher::Config::default());
    let written = Arc::clone(&history);
    watches.spawn(async move {
        loop {
            follow.changed().await;
            for object in follow.objects().filter(|object| object.name_any() == "gvisor") {
                let status = serde_json::to_value(&object.status).unwrap();
                let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
                let ready = conditions.iter().find(|c| c["type"] == "NodesReady").cloned();
                let text = |field: &str| {
                    let value = ready.as_ref().map(|ready| &ready[field]);
                    value.and_then(Value::as_str).unwrap_or_default().to_owned()
                };
                let state = (text("status"), text("reason"), text("lastTransitionTime"));
                let mut written = written.lock().unwrap();
                if written.last() != Some(&state) {
                    written.push(state);
                }
            }
        }
    });
    history
}

/// What should not be in a history: the same status since another time is one
/// transition told twice; and nodes are never said to be lost because their
/// controller was.
fn disorder(history: &[(String, String, String)]) -> Option<String> {
    for pair in history.windows(2) {
        let ((was, _, since), (is, _, then)) = (&pair[0], &pair[1]);
        if (was == is) != (since == then) {
            return Some(format!("{:?}, then {:?}", pair[0], pair[1]));
        }
        if since > then {
            return Some(format!("back in time: {:?}, then {:?}", pair[0], pair[1]));
        }
    }
    let lost = ["NodeUnreachable", "AgentMissing"];
    history.iter().find(|state| lost.contains(&state.1.as_str())).map(|state| format!("{state:?}"))
}
