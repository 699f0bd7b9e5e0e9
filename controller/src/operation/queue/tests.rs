use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn version(generation: i64) -> Version {
    Version { uid: None, generation: Some(generation) }
}

fn pops(queue: &mut Queue<&'static str>, now: Instant) -> Vec<&'static str> {
    std::iter::from_fn(|| queue.pop(now).map(|turn| turn.key)).collect()
}

#[test]
fn an_object_is_run_once_however_often_it_is_asked_for() {
    let now = Instant::now();
    let mut queue = Queue::new(5);
    for key in ["b", "a", "b", "b"] {
        queue.ask(&key, version(1));
    }
    assert_eq!(pops(&mut queue, now), ["b", "a"], "first come, first served");
    // Asked while it runs: once more afterwards, and not before.
    queue.ask(&"a", version(1));
    queue.ask(&"a", version(1));
    assert_eq!(queue.pop(now), None);
    assert_eq!(queue.done(&"a", Outcome::Done, now), Some(Duration::ZERO));
    assert_eq!(pops(&mut queue, now), ["a"]);
    assert_eq!(queue.done(&"a", Outcome::Done, now), None);
    assert_eq!(queue.done(&"b", Outcome::Done, now), None);
    assert_eq!((queue.pop(now), queue.next_due()), (None, None));
    assert!(queue.objects.is_empty(), "nothing is left of what is done");
}

#[test]
fn only_so_many_run_at_once() {
    let now = Instant::now();
    let mut queue = Queue::new(2);
    for key in ["a", "b", "c"] {
        queue.ask(&key, version(1));
    }
    assert_eq!(pops(&mut queue, now), ["a", "b"]);
    queue.done(&"a", Outcome::Done, now);
    assert_eq!(pops(&mut queue, now), ["c"]);
}

#[test]
fn failures_are_left_alone_for_longer_and_longer() {
    let mut now = Instant::now();
    let mut queue = Queue::new(1);
    queue.ask(&"a", version(1));
    let mut pauses = Vec::new();
    for _ in 0..20 {
        let turn = queue.pop(now).unwrap();
        assert_eq!(turn.asked, pauses.is_empty(), "it comes back by itself");
        let pause = queue.done(&"a", Outcome::Failed, now).unwrap();
        assert_eq!(queue.pop(now), None);
        now += pause;
        pauses.push(pause);
    }
    assert_eq!(pauses[..3], [FIRST, FIRST * 2, FIRST * 4]);
    assert_eq!((pauses[17], pauses[18]), (FIRST * (1 << 17), LAST));
    // Somebody who asks does not wait; the next failure goes on from there.
    queue.ask(&"a", version(1));
    assert!(queue.pop(now).unwrap().asked);
    assert_eq!(queue.done(&"a", Outcome::Failed, now), Some(LAST));
    // Another spec is tried at once and begins anew.
    queue.changed(&"a", version(1));
    assert_eq!(queue.pop(now), None, "that is no other one");
    queue.changed(&"a", version(2));
    assert_eq!(pops(&mut queue, now), ["a"]);
    assert_eq!(queue.done(&"a", Outcome::Failed, now), Some(FIRST));
    // What passes by itself is looked for sooner.
    for _ in 0..20 {
        queue.wake(&"a");
        queue.pop(now).unwrap();
        assert!(queue.done(&"a", Outcome::Passing, now).unwrap() <= LAST_PASSING);
    }
}

#[test]
fn a_changed_spec_is_no_trigger_by_itself() {
    let now = Instant::now();
    let mut queue = Queue::new(1);
    queue.changed(&"a", version(2));
    assert_eq!(queue.pop(now), None);
    queue.ask(&"a", version(2));
    pops(&mut queue, now);
    queue.done(&"a", Outcome::After(SECOND), now);
    queue.changed(&"a", version(3));
    assert_eq!(queue.pop(now), None, "it waits, and did not fail");
}

#[test]
fn who_waits_is_woken_or_comes_back_in_time() {
    let now = Instant::now();
    let mut queue = Queue::new(1);
    queue.ask(&"a", version(1));
    pops(&mut queue, now);
    queue.done(&"a", Outcome::After(60 * SECOND), now);
    assert_eq!(queue.next_due(), Some(now + 60 * SECOND));
    assert_eq!(queue.pop(now + 59 * SECOND), None);
    queue.wake(&"a");
    assert_eq!(queue.next_due(), None);
    assert_eq!(queue.pop(now), Some(Turn { key: "a", asked: false }));
    queue.done(&"a", Outcome::After(60 * SECOND), now);
    assert_eq!(pops(&mut queue, now + 60 * SECOND), ["a"]);
    let mut soon = Vec::new();
    for _ in 0..8 {
        soon.push(queue.done(&"a", Outcome::Soon, now).unwrap());
        queue.wake(&"a");
        pops(&mut queue, now);
    }
    assert_eq!((soon[0], soon[1], soon[7]), (FIRST_LOOK, FIRST_LOOK * 2, LAST_LOOK));
    // Waking one that runs, or that is not there, does nothing.
    queue.wake(&"a");
    queue.wake(&"b");
    queue.done(&"a", Outcome::Done, now);
    assert_eq!(queue.pop(now), None);
}

#[test]
fn nothing_is_left_of_an_object_that_is_gone() {
    let now = Instant::now();
    let mut queue = Queue::new(1);
    for key in ["runs", "ready"] {
        queue.ask(&key, version(1));
    }
    assert_eq!(pops(&mut queue, now), ["runs"]);
    queue.ask(&"runs", version(1));
    queue.forget(&"runs");
    queue.forget(&"ready");
    queue.done(&"runs", Outcome::Done, now);
    assert_eq!((queue.pop(now), queue.objects.len()), (None, 0));
}
