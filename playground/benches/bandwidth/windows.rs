//! Looks at a gauge, and what they say of the time between them.

use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rootstock_playground::registry::{Counts, Gauge};

use crate::{CAP, PULLS};

/// What a pacer lets through at once, where 10 ms of its rate are not more.
const BURST: u64 = 64 << 10;
/// What an agent's kernel takes in ahead of its reader, over so short a way. It
/// is paid before it comes, but where a source stands still for a moment and
/// the reader does not, so much may come at once after it.
const RECEIVES: u64 = 128 << 10;

/// One look at the gauge: it was read between these moments.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look {
    before: Instant,
    bytes: u64,
    /// Connections that were there.
    open: u64,
    after: Instant,
}

/// Looks that go on until they are asked for.
pub(crate) struct Watch {
    stop: mpsc::Sender<()>,
    thread: std::thread::JoinHandle<Vec<Look>>,
}

/// What happened between two looks.
#[derive(Clone, Copy, Debug)]
struct Window {
    /// What the budget allows.
    allowed: u64,
    bytes: u64,
}

impl Watch {
    /// Looks ten times a second.
    pub(crate) fn start(counts: Arc<Counts>) -> Self {
        let (stop, stopped) = mpsc::channel();
        // A thread of its own: a busy runtime must not make windows longer.
        let thread = std::thread::spawn(move || {
            let mut looks = Vec::new();
            loop {
                let before = Instant::now();
                let (bytes, open) = (counts.passed(), counts.open());
                looks.push(Look { before, bytes, open, after: Instant::now() });
                let next = before + Duration::from_millis(100);
                let wait = next.saturating_duration_since(Instant::now());
                if stopped.recv_timeout(wait) != Err(mpsc::RecvTimeoutError::Timeout) {
                    return looks;
                }
            }
        });
        Self { stop, thread }
    }

    pub(crate) fn end(self) -> Vec<Look> {
        self.stop.send(()).unwrap();
        self.thread.join().unwrap()
    }
}

impl Window {
    fn share(self) -> f64 {
        self.bytes as f64 / self.allowed as f64 * 100.0
    }
}

/// What may come at once beyond the budget: of each pull a burst, and what two
/// kernels hold of it.
pub(crate) fn burst() -> u64 {
    PULLS * (BURST + RECEIVES + Gauge::ahead())
}

/// Bytes beyond what any time may have, however short or long: of all pairs of
/// looks the one that has most.
pub(crate) fn over(looks: &[Look]) -> u64 {
    let Some(begin) = looks.first().map(|look| look.before) else { return 0 };
    let allowed = |until: Instant| {
        let nanos = until.duration_since(begin).as_nanos();
        i128::try_from(nanos * u128::from(CAP) / 1_000_000_000).unwrap()
    };
    let (mut least, mut most) = (i128::from(looks[0].bytes), 0);
    for look in looks {
        // A time is as long as it may have been: each look has taken a moment.
        most = most.max(i128::from(look.bytes) - allowed(look.after) - least);
        least = least.min(i128::from(look.bytes) - allowed(look.before));
    }
    u64::try_from(most).unwrap().saturating_sub(burst())
}

fn windows(looks: &[Look]) -> impl Iterator<Item = Window> {
    looks.windows(2).map(|pair| {
        // As long as it may have been: each look has taken a moment.
        let nanos = pair[1].after.duration_since(pair[0].before).as_nanos();
        let allowed = u128::from(CAP) * nanos / 1_000_000_000;
        Window { allowed: u64::try_from(allowed).unwrap(), bytes: pair[1].bytes - pair[0].bytes }
    })
}

/// How much of the budget was used, in percent: from the first byte until 95 %
/// of them have left, for the last pulls are alone with what they can use.
pub(crate) fn used(looks: &[Look]) -> f64 {
    let (begin, end) = (looks.first().unwrap().bytes, looks.last().unwrap().bytes);
    let most = begin + (end - begin) / 20 * 19;
    let first = looks.iter().rposition(|look| look.bytes == begin).unwrap();
    let last = looks.iter().position(|look| look.bytes >= most).unwrap();
    let seconds = looks[last].before.duration_since(looks[first].after).as_secs_f64();
    (looks[last].bytes - begin) as f64 / seconds / CAP as f64 * 100.0
}

pub(crate) fn say(what: &str, looks: &[Look]) {
    let seconds = looks.last().unwrap().before.duration_since(looks[0].after).as_secs_f64();
    let bytes = looks.last().unwrap().bytes - looks[0].bytes;
    let mut shares: Vec<f64> = windows(looks).map(Window::share).collect();
    let pairs = shares.windows(2).map(|pair| (pair[1], pair[0]));
    let (most, before) = pairs.max_by(|a, b| a.0.total_cmp(&b.0)).unwrap_or_default();
    shares.sort_by(f64::total_cmp);
    let median = shares[shares.len() / 2];
    let beyond = shares.iter().filter(|share| **share > 100.0).count();
    let open = looks.iter().map(|look| look.open).max().unwrap_or_default();
    eprintln!(
        "{what}: {:.1} MB in {seconds:.1} s, {:.1} % of the budget used; of {} windows the median \
         has {median:.1} %, the largest {most:.1} % (after one of {before:.1} %), {beyond} are beyond 100 %; up to {open} \
         connections at a time",
        bytes as f64 / 1e6,
        used(looks),
        shares.len(),
    );
}
