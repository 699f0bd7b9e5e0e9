//! Pulls by paused time, read from memory.

use futures_util::FutureExt as _;
use rootstock_core::bandwidth::Stamp;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::task::JoinSet;

use super::*;

const KIB: u64 = 1 << 10;

fn pulls() -> Pulls {
    Pulls::with_clock(7, Clock::Runtime(Instant::now()))
}

fn blob() -> Digest {
    Digest::of(b"a blob")
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A controller's side of one pull.
struct Leader<'a> {
    pulls: &'a Pulls,
    sequence: u64,
    /// The latest request of each pull.
    asked: Vec<Request>,
}

impl<'a> Leader<'a> {
    fn new(pulls: &'a Pulls) -> Self {
        pulls.controller(true);
        Self { pulls, sequence: 0, asked: Vec::new() }
    }

    /// What the agent says now: what it asks for is kept.
    fn hear(&mut self) -> Vec<Shrunk> {
        let mut shrunk = Vec::new();
        for word in self.pulls.says() {
            match word {
                Word::Asks(request) => {
                    self.asked.retain(|asked| asked.id != request.id);
                    self.asked.push(request);
                }
                Word::Shrunk(word) => shrunk.push(word),
            }
        }
        shrunk
    }

    fn grant(&mut self, id: u64, rate: u64) -> Option<Shrunk> {
        let asked = self.asked.iter().find(|asked| asked.id == id).unwrap();
        self.sequence += 1;
        self.pulls.heard(&Grant {
            id,
            round: asked.round,
            sequence: self.sequence,
            blob: asked.blob,
            source: Arc::clone(&asked.source),
            rate: Rate::new(rate),
            burst: u64::MAX,
            lifetime: ms(2500),
        })
    }
}

/// A source that always has more.
fn source(tasks: &mut JoinSet<()>) -> DuplexStream {
    let (near, mut far) = tokio::io::duplex(1 << 20);
    tasks.spawn(async move { while far.write_all(&[7; 64 << 10]).await.is_ok() {} });
    near
}

/// Reads as fast as it may, and says how much came by when.
async fn read_for(stream: &mut Paced<DuplexStream>, time: Duration) -> Vec<(Instant, u64)> {
    let (end, mut reads) = (Instant::now() + time, Vec::new());
    let mut buffer = vec![0; 400 << 10];
    while let Ok(read) = tokio::time::timeout_at(end, stream.read(&mut buffer)).await {
        reads.push((Instant::now(), read.unwrap() as u64));
    }
    reads
}

fn sum(reads: &[(Instant, u64)]) -> u64 {
    reads.iter().map(|(_, bytes)| bytes).sum()
}

#[tokio::test(start_paused = true)]
async fn in_any_window_no_more_than_the_rate_and_a_burst_comes() {
    let (pulls, mut tasks) = (pulls(), JoinSet::new());
    let (_stream, _) = pulls.connect();
    let mut leader = Leader::new(&pulls);
    let pull = pulls.begin(blob(), "r", 1 << 30).await;
    let slot = Slot::new(&pulls);
    slot.put(&pull);
    let mut stream = Paced::new(source(&mut tasks), slot);
    assert_eq!(read_for(&mut stream, ms(500)).await, [], "there is no grant");
    let mut reads = Vec::new();
    for (rate, window) in [(10_000 * KIB, 2000), (100 * KIB, 1000), (5000 * KIB, 2000)] {
        leader.hear();
        let before = pull.rate().get();
        // A lowered rate is kept to before it is told.
        let told = leader.grant(7, rate);
        assert_eq!(told.map(|told| told.rate), (rate < before).then_some(Rate::new(rate)));
        let came = read_for(&mut stream, ms(window)).await;
        let (due, burst) = (rate * window / 1000, (rate / 100).max(64 * KIB));
        assert!(sum(&came) >= due - 64 * KIB, "{rate}: {} of {due}", sum(&came));
        for (first, (from, _)) in came.iter().enumerate() {
            let mut total = 0;
            for (at, bytes) in &came[first..] {
                total += bytes;
                let passed = u64::try_from(at.duration_since(*from).as_micros()).unwrap();
                let most = burst + rate * (passed + 1) / 1_000_000 + 1;
                assert!(total <= most, "{rate}: {total} of {most}");
            }
        }
        reads.extend(came);
    }
    // And across the changes: the largest rate over the whole, and no burst for each.
    assert!(sum(&reads) <= (20_000 + 100 + 10_000) * KIB + 100 * KIB + 64 * KIB);
}

#[tokio::test(start_paused = true)]
async fn reading_ends_with_the_lease_and_goes_on_with_the_next() {
    let (pulls, mut tasks) = (pulls(), JoinSet::new());
    let (_stream, _) = pulls.connect();
    let mut leader = Leader::new(&pulls);
    let pull = pulls.begin(blob(), "r", 1 << 30).await;
    let slot = Slot::new(&pulls);
    slot.put(&pull);
    let mut stream = Paced::new(source(&mut tasks), slot.clone());
    leader.hear();
    let asked = Instant::now();
    tokio::time::advance(ms(1000)).await;
    leader.grant(7, 1000 * KIB);
    let reads = read_for(&mut stream, ms(5000)).await;
    assert!(reads.iter().all(|(at, _)| at.duration_since(asked) < ms(2500)), "{reads:?}");
    assert!((1400 * KIB..=1564 * KIB).contains(&sum(&reads)), "{}", sum(&reads));
    // All that time nothing might be read: the source has not stalled.
    assert!(pull.open() < ms(1100), "{:?}", pull.open());
    leader.hear();
    leader.grant(7, 1000 * KIB);
    assert!(sum(&read_for(&mut stream, ms(100)).await) > 50 * KIB);
    // Nothing is read for a pull that has ended, and all for the next.
    drop(pull);
    assert_eq!(read_for(&mut stream, ms(100)).await, []);
    let ended = Shrunk { id: 7, rate: Rate::ZERO, stamp: Stamp::LAST };
    assert_eq!(leader.hear(), [ended]);
    let next = pulls.begin(blob(), "r", 1).await;
    slot.put(&next);
    leader.hear();
    leader.grant(8, u64::MAX);
    assert!(sum(&read_for(&mut stream, ms(1)).await) > 100 * KIB);
}

/// What two kernels hold of an answer has left the registry before it is read.
#[tokio::test(start_paused = true)]
async fn all_that_has_left_the_registry_was_paid_and_nothing_is_paid_twice() {
    let (total, rate) = (1024 * KIB, 1000 * KIB);
    for kernel in [0, 1, 100 * KIB, 128 * KIB, 2048 * KIB] {
        let (pulls, mut tasks) = (pulls(), JoinSet::new());
        let (_stream, _) = pulls.connect();
        let mut leader = Leader::new(&pulls);
        let pull = pulls.begin(blob(), "r", total).await;
        let slot = Slot::new(&pulls);
        slot.put(&pull);
        let mut stream = Paced::new(source(&mut tasks), slot);
        leader.hear();
        leader.grant(7, rate);
        let granted = Instant::now();
        pull.pay_ahead(kernel).await;
        // A slow pull does not wait for its first byte until a large buffer is paid.
        let holds = kernel.min(250 * KIB);
        let (mut read, mut buffer) = (0, vec![0; 16 << 10]);
        loop {
            let left = total.min(read + holds);
            let passed = u64::try_from(granted.elapsed().as_micros()).unwrap();
            let paid = 64 * KIB + rate * (passed + 1) / 1_000_000;
            assert!(left <= paid, "{kernel}: {left} have left, {paid} are paid");
            if read >= total {
                break;
            }
            if granted.elapsed() > ms(500) {
                leader.hear();
                leader.grant(7, rate);
            }
            read += stream.read(&mut buffer).await.unwrap() as u64;
        }
        // The first bytes came later for what was paid ahead, and the last ones earlier.
        let due = ms(total * 1000 / rate);
        assert!(granted.elapsed() <= due + ms(30), "{kernel}: {:?}", granted.elapsed());
        // More than was asked for is not paid yet.
        let more = sum(&read_for(&mut stream, ms(100)).await);
        assert!(more <= 64 * KIB + rate / 10 + KIB, "{kernel}: {more}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_taken_and_does_not_come_is_not_lost() {
    let pulls = pulls();
    let (_stream, _) = pulls.connect();
    let mut leader = Leader::new(&pulls);
    let pull = pulls.begin(blob(), "r", 100).await;
    let slot = Slot::new(&pulls);
    slot.put(&pull);
    let (near, mut far) = tokio::io::duplex(1 << 20);
    let mut stream = Paced::new(near, slot);
    leader.hear();
    leader.grant(7, 64 * KIB);
    tokio::time::advance(ms(1000)).await;
    // Byte by byte, many times: the burst of 64 KiB is not used up by it.
    let (begun, mut buffer) = (Instant::now(), [0; 1 << 10]);
    for _ in 0..1000 {
        assert!(stream.read(&mut buffer).now_or_never().is_none());
        far.write_all(b"x").await.unwrap();
        assert_eq!(stream.read(&mut buffer).await.unwrap(), 1);
    }
    assert_eq!(begun.elapsed(), Duration::ZERO);
    // A source that brings nothing while it might does stall.
    let open = pull.open();
    assert_eq!(read_for(&mut stream, ms(1000)).await, []);
    assert_eq!(pull.open(), open + ms(1000));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_asked_before_the_controller_says_that_it_grants() {
    let pulls = pulls();
    let pull = pulls.begin(blob(), "r", 100).await;
    let due = || tokio::time::timeout(ms(60_000), pulls.due());
    assert!(!pull.may() && due().await.is_err(), "without a stream");
    let (stream, held) = pulls.connect();
    assert_eq!(held, []);
    assert!(!pull.may() && due().await.is_err(), "before its first word");
    // One that grants nothing lets everything come, also after it has gone.
    pulls.controller(false);
    tokio::time::timeout(ms(1), pull.granted()).await.unwrap();
    assert_eq!(pull.rate(), Rate::MAX);
    assert!(due().await.is_err());
    drop(stream);
    assert!(pull.may());
    // One that grants takes that back.
    let (stream, _) = pulls.connect();
    let mut leader = Leader::new(&pulls);
    assert!(!pull.may());
    due().await.unwrap();
    assert_eq!(leader.hear(), []);
    assert_eq!((leader.asked[0].round, leader.asked[0].bytes), (1, 100));
    leader.grant(7, 1000);
    pull.came(40);
    due().await.unwrap();
    leader.hear();
    assert_eq!((leader.asked[0].round, leader.asked[0].bytes), (2, 60));
    // What is held goes on, and the next Hello tells it.
    drop(stream);
    assert!(pull.may());
    assert!(due().await.is_err(), "nobody is there to be asked");
    assert!(!pull.may(), "it has ended");
    let (_stream, _) = pulls.connect();
    leader = Leader::new(&pulls);
    leader.hear();
    leader.grant(7, 1000);
    let (_again, held) = pulls.connect();
    assert_eq!(held, [Held { id: 7, rate: Rate::new(1000), remaining: ms(2500) }]);
}

#[tokio::test(start_paused = true)]
async fn who_is_one_too_many_waits_until_another_has_ended() {
    let pulls = pulls();
    let mut held = Vec::new();
    let one_more = loop {
        let begin = pulls.begin(blob(), "r", 1);
        match tokio::time::timeout(ms(10), begin).await {
            Ok(pull) => held.push(pull),
            Err(_) => break pulls.begin(blob(), "r", 1),
        }
    };
    assert_eq!(held.len(), 8);
    let free = async {
        tokio::time::sleep(ms(10)).await;
        drop(held.pop());
    };
    let both = async { tokio::join!(one_more, free).0 };
    assert!(!tokio::time::timeout(ms(20), both).await.unwrap().may());
}

#[tokio::test(start_paused = true)]
async fn a_pull_is_lost_when_it_is_long_without_a_lease() {
    let pulls = pulls();
    let (_stream, _) = pulls.connect();
    let mut leader = Leader::new(&pulls);
    let pull = pulls.begin(blob(), "r", 1).await;
    let begun = Instant::now();
    leader.hear();
    leader.grant(7, 1000);
    pull.lost().await;
    assert!((ms(12_500)..ms(14_500)).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    let free = Pulls::unbounded().begin(blob(), "r", 1).await;
    assert!(tokio::time::timeout(ms(100_000), free.lost()).await.is_err());
}

#[test]
fn the_clock_goes_on() {
    let before = Clock::Boot.now();
    assert!(before > Duration::ZERO && Clock::Boot.now() >= before);
}
