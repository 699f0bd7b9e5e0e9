//! A node that loses power at each effect, and boots without its controller.

use std::io;
use std::sync::{Arc, Mutex};

use futures_util::{StreamExt as _, stream};
use rootstock_agent::rootfs::{Effect, Watcher};
use rootstock_playground::host::SimulatedHost;

use super::Changes;
use super::disk::Disk;
use super::kill::{At, Killer, effects, mixed};
use super::node::{Life, Node};
use super::sound;

/// Keeps book of what is sure to be on the disk until the power is cut.
#[derive(Debug)]
struct Plug {
    killer: Arc<Killer>,
    disk: Mutex<Disk>,
}

impl Watcher for Plug {
    fn before(&self, effect: &Effect) -> io::Result<()> {
        self.killer.before(effect)
    }

    fn after(&self, effect: &Effect) {
        self.disk.lock().unwrap().note(effect);
        self.killer.after(effect);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_loses_power_at_any_effect_converges_after_its_boot() {
    let changes = Changes::new().await;
    // After a boot no pod uses anything.
    for change in changes.all.iter().filter(|change| change.name != "upgrade beside a pod") {
        let effects = effects(change).await.len();
        // Nothing that was not sure is there, and two mixtures.
        let tries = (0..effects * 3).map(|at| async move {
            let (nth, mixture) = (at / 3, at % 3);
            let node = Node::new(change);
            let (life, eye) = (Life::new(), node.eye());
            let killer = Killer::new(At::After(nth), &life, &eye);
            let disk = Mutex::new(Disk::new(&node.root()));
            let plug = Arc::new(Plug { killer, disk });
            node.live(Arc::clone(&plug) as Arc<dyn Watcher>, &life).await;
            let mut count = at * 1000;
            plug.disk.lock().unwrap().cut(&mut |possible| {
                count += 1;
                if mixture == 0 { 0 } else { mixed(count) % possible }
            });
            *node.story.lock().unwrap() = format!("{nth}.{mixture} {:?}", plug.killer.end);
            SimulatedHost::restart(&node.root()).await.unwrap();
            let wrong = sound::sound(&node.root(), &change.known);
            assert_eq!(wrong, Ok(()), "{}: {mixture} {:?}", change.name, plug.killer.end);
            node.recover().await;
        });
        stream::iter(tries).buffer_unordered(4).collect::<Vec<()>>().await;
    }
}
