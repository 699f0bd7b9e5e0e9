use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn grant(id: u64, round: u64, sequence: u64, rate: u64) -> Grant {
    let (blob, source) = (Digest::from_bytes([1; 32]), Arc::from("main"));
    let (rate, lifetime) = (Rate::new(rate), ms(2500));
    Grant { id, round, sequence, blob, source, rate, burst: u64::MAX, lifetime }
}

/// An agent that is connected and has asked once, at zero.
fn asked() -> Holder {
    let mut holder = Holder::new(7);
    assert_eq!(holder.hello(Duration::ZERO), []);
    let blob = Digest::from_bytes([1; 32]);
    let id = holder.request(blob, "main".into(), 1000, Some(Rate::new(5)), Duration::ZERO);
    assert_eq!((id, holder.due()), (Some(7), Some(Duration::ZERO)));
    let asks = holder.asks(Duration::ZERO);
    let [Request { id: 7, round: 1, bytes: 1000, used: None, .. }] = asks[..] else {
        panic!("{asks:?}")
    };
    assert_eq!(asks[0].useful_rate, Some(Rate::new(5)));
    holder
}

fn rate(holder: &Holder, now: Duration) -> u64 {
    holder.allowance(7, now).map_or(0, |allowance| allowance.rate.get())
}

#[test]
fn a_lease_counts_from_when_it_was_asked_for() {
    let mut holder = asked();
    assert_eq!(holder.allowance(7, ms(100)), None);
    assert_eq!(holder.heard(&grant(7, 1, 1, 100), ms(2000)), None);
    let lease = Allowance { rate: Rate::new(100), burst: 64 << 10, until: ms(2500) };
    assert_eq!(holder.allowance(7, ms(2499)), Some(lease));
    assert_eq!(holder.allowance(7, ms(2500)), None);
    // One that comes after its end is given back, and asked for again.
    let mut holder = asked();
    let stamp = Stamp { round: 1, sequence: 1 };
    let back = Shrunk { id: 7, rate: Rate::ZERO, stamp };
    assert_eq!(holder.heard(&grant(7, 1, 1, 100), ms(2500)), Some(back));
    assert_eq!((rate(&holder, ms(2500)), holder.due()), (0, Some(ms(2500))));
}

#[test]
fn a_lease_is_renewed_three_times_before_it_ends() {
    let mut holder = asked();
    holder.heard(&grant(7, 1, 1, 100), ms(10));
    let mut asks = Vec::new();
    while let Some(due) = holder.due().filter(|due| rate(&holder, *due) > 0) {
        let ask = holder.asks(due);
        asks.push((due.as_millis(), ask[0].round));
    }
    assert_eq!(asks, [(210, 2), (410, 3), (810, 4), (1610, 5), (2410, 6)]);
    // An answer to any of them goes on from there.
    assert_eq!(holder.heard(&grant(7, 4, 2, 100), ms(2600)), None);
    assert_eq!(holder.allowance(7, ms(2600)).unwrap().until, ms(3310));
}

#[test]
fn who_waits_asks_ever_more_seldom() {
    let (mut holder, mut asks) = (asked(), Vec::new());
    while let Some(due) = holder.due().filter(|due| *due < SECOND * 40) {
        assert_eq!(holder.asks(due - ms(1)), []);
        holder.asks(due);
        asks.push(due.as_secs());
    }
    assert_eq!(asks, [1, 3, 7, 15, 23, 31, 39]);
    holder.disconnected();
    assert_eq!((holder.due(), holder.asks(SECOND * 99)), (None, vec![]));
}

#[test]
fn a_shrink_is_answered_and_what_is_older_is_not_heard() {
    let mut holder = asked();
    holder.heard(&grant(7, 1, 2, 100), ms(10));
    let kept = |rate, sequence| {
        let (rate, stamp) = (Rate::new(rate), Stamp { round: 1, sequence });
        Some(Shrunk { id: 7, rate, stamp })
    };
    assert_eq!(holder.heard(&grant(7, 1, 5, 40), ms(20)), kept(40, 5));
    // Late, repeated, of a round that never was.
    for late in [grant(7, 1, 3, 100), grant(7, 1, 5, 40), grant(7, 9, 9, 100)] {
        assert_eq!((holder.heard(&late, ms(30)), rate(&holder, ms(30))), (None, 40));
    }
    assert_eq!(holder.heard(&grant(7, 1, 6, 60), ms(40)), None);
    assert_eq!(rate(&holder, ms(40)), 60);
    // Taken away: it is asked for again at once.
    assert_eq!(holder.heard(&grant(7, 1, 7, 0), ms(50)), kept(0, 7));
    assert_eq!((rate(&holder, ms(50)), holder.due()), (0, Some(ms(50))));
    // What nobody wants here goes back for good.
    let unknown = Shrunk { id: 8, rate: Rate::ZERO, stamp: Stamp::LAST };
    assert_eq!(holder.heard(&grant(8, 1, 8, 100), ms(60)), Some(unknown));
    let ended = Shrunk { id: 7, rate: Rate::ZERO, stamp: Stamp::LAST };
    assert_eq!((holder.done(7), holder.done(7)), (Some(ended), None));
    assert_eq!((rate(&holder, ms(60)), holder.due()), (0, None));
}

#[test]
fn what_was_used_is_told_where_it_was_measured() {
    let mut holder = asked();
    holder.heard(&grant(7, 1, 1, 4000), ms(10));
    // It counts from the first byte on, and without that.
    assert_eq!(holder.asks(ms(210))[0].used, None);
    holder.came(7, 100, ms(210));
    holder.came(7, 500, ms(300));
    assert_eq!(holder.asks(ms(410))[0].used, Some(Rate::new(2500)));
    // Nothing is not the same as not measured.
    let ask = holder.asks(ms(810)).remove(0);
    assert_eq!((ask.used, ask.bytes), (Some(Rate::new(1)), 400));
    // A rate that has just changed was not used yet.
    holder.heard(&grant(7, 4, 2, 8000), ms(900));
    holder.came(7, 100, ms(910));
    holder.pulls.get_mut(&7).unwrap().due = ms(1000);
    assert_eq!(holder.asks(ms(1000))[0].used, None);
}

#[test]
fn a_pull_without_a_first_byte_uses_nothing_after_a_second() {
    let mut holder = asked();
    holder.heard(&grant(7, 1, 1, 4000), ms(10));
    let used = [210, 410, 810, 1610].map(|at| holder.asks(ms(at))[0].used);
    assert_eq!(used, [None, None, None, Some(Rate::new(1))]);
    // That says nothing of its link.
    holder.came(7, 0, ms(1620));
    assert_eq!(holder.asks(ms(2410))[0].useful_rate, Some(Rate::new(5)));
}

#[test]
fn what_a_link_carries_is_learnt_for_the_next_pull_of_its_source() {
    let mut holder = asked();
    holder.heard(&grant(7, 1, 1, 4000), ms(10));
    holder.came(7, 1, ms(10));
    holder.came(7, 400, ms(100));
    let ask = holder.asks(ms(210)).remove(0);
    assert_eq!((ask.used, ask.useful_rate), (Some(Rate::new(2000)), Some(Rate::new(2100))));
    holder.done(7);
    let blob = Digest::from_bytes([2; 32]);
    for (source, useful) in [("main", Some(Rate::new(2100))), ("mirror", None)] {
        holder.request(blob, source.into(), 1, None, ms(300)).unwrap();
        assert_eq!(holder.asks(ms(300))[0].useful_rate, useful, "{source}");
    }
}

#[test]
fn a_source_that_begins_anew_brings_all_of_it() {
    let mut holder = asked();
    holder.missing(7, 5000);
    holder.came(7, 1000, ms(10));
    assert_eq!(holder.asks(ms(1000))[0].bytes, 4000);
}

#[test]
fn a_new_stream_hears_nothing_from_before_and_ids_go_on() {
    let mut holder = asked();
    holder.heard(&grant(7, 1, 1, 100), ms(10));
    holder.asks(ms(210));
    holder.disconnected();
    assert_eq!(rate(&holder, ms(1000)), 100);
    let held = Held { id: 7, rate: Rate::new(100), remaining: ms(1500) };
    assert_eq!(holder.hello(ms(1000)), [held]);
    // The leader before had granted more, and its last word comes only now.
    assert_eq!(holder.heard(&grant(7, 2, 900, 500), ms(1001)), None);
    assert_eq!(rate(&holder, ms(1001)), 100);
    assert_eq!(holder.asks(ms(1002))[0].round, 3);
    // Another leader counts its grants from the beginning.
    assert_eq!(holder.heard(&grant(7, 3, 1, 500), ms(1003)), None);
    assert_eq!(rate(&holder, ms(1003)), 500);
    let blob = Digest::from_bytes([2; 32]);
    let ids = (0..9).map(|_| holder.request(blob, "main".into(), 1, None, ms(1004)));
    let ids: Vec<_> = ids.collect();
    assert_eq!((ids[0], ids[6], ids[7]), (Some(8), Some(14), None));
    // What has ended is not held.
    assert_eq!(holder.hello(ms(9000)), []);
}

#[test]
fn another_blob_goes_on_with_the_lease() {
    let mut holder = asked();
    holder.heard(&grant(7, 1, 1, 100), ms(10));
    holder.came(7, 1000, ms(100));
    let blob = Digest::from_bytes([2; 32]);
    assert_eq!((holder.due(), holder.asks(ms(390))), (None, vec![]));
    holder.goes_on(7, blob, 500, ms(400));
    assert_eq!((rate(&holder, ms(400)), holder.left(7)), (100, 500));
    // It is said at once, and not before: there was nothing to ask for. The
    // time between two answers is no measure of the link.
    assert_eq!(holder.due(), Some(ms(400)));
    let asks = holder.asks(ms(400));
    assert_eq!(asks.len(), 1);
    let Request { round, used, useful_rate, bytes, .. } = asks[0];
    assert_eq!((round, used, useful_rate, bytes), (2, None, Some(Rate::new(5)), 500));
    assert_eq!(asks[0].blob, blob);
    // Nothing of a pull that has ended.
    holder.done(7);
    holder.goes_on(7, blob, 500, ms(500));
    assert_eq!((holder.left(7), holder.due()), (0, None));
}
