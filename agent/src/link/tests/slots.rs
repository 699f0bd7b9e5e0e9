//! Slots that come over a stream, and what a new stream makes of them.

use std::time::Duration;

use rootstock_core::desired::Generation;
use rootstock_proto::v1;

use super::super::Ended;
use super::controller::{Said, World};

fn slot(generation: u64, seconds: i64) -> Said {
    let mut slot = v1::Slot { generation, activate_within: None };
    slot.activate_within.get_or_insert_default().seconds = seconds;
    Said::Slot(slot)
}

/// Opens a stream on which the controller says that, and goodbye.
async fn hears(world: &mut World, mut says: Vec<Said>) {
    says.push(Said::Goodbye(v1::Goodbye::default()));
    world.controller.says(says);
    let ended = world.link.stream().await.unwrap();
    assert!(matches!(ended, Ended::Goodbye(Duration::ZERO)), "{ended:?}");
}

#[tokio::test]
async fn a_slot_counts_as_long_as_it_is_said_on_each_stream() {
    let mut world = World::start().await;
    let slots = world.files.slots().clone();
    let open = || slots.is_open(Generation(7));
    hears(&mut world, vec![slot(7, 600)]).await;
    assert!(open(), "between two streams it still counts");
    hears(&mut world, vec![slot(7, 500)]).await;
    assert!(open());
    // It was taken back while there was no stream on which to say so.
    hears(&mut world, Vec::new()).await;
    assert!(!open());
}

#[tokio::test]
async fn a_slot_that_ends_or_is_none_opens_nothing() {
    for (generation, seconds) in [(7, 0), (7, -1), (6, 600)] {
        let mut world = World::start().await;
        hears(&mut world, vec![slot(7, 600), slot(generation, seconds)]).await;
        assert!(!world.files.slots().is_open(Generation(7)), "{generation}, {seconds} s");
    }
}
