//! How much the kernel takes in before anybody reads it.

use std::time::Duration;

use rootstock_core::bandwidth::Rate;
use rustix::net::sockopt::{set_socket_recv_buffer_size, socket_recv_buffer_size};

use super::Tcp;

/// Bytes: what Linux gives to everyone (`net.core.rmem_max`). It keeps twice as
/// much, for its own bookkeeping beside the payload.
const MOST: usize = 212_992;

/// A packet of a loopback, and more than a read is on any other network.
const LEAST: usize = 64 << 10;

/// How much more than is under way at the rate: a lease may double and double
/// again while a connection lasts.
const ROOM: u64 = 4;

/// What a kernel takes in of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Buffer {
    /// Bytes that it may hold before anybody reads them. One that is the
    /// kernel's to grow may hold more later.
    pub(crate) holds: u64,
    /// The rate that the connection carries at most; none where the buffer is
    /// the kernel's to grow.
    pub(crate) carries: Option<Rate>,
}

/// Whether a connection looks so far that more is held of it than of those that
/// are near.
pub(crate) fn looks_far(tcp: &Tcp, rate: Rate) -> bool {
    buffer(tcp.round_trip, rate) > LEAST
}

/// Whether a connection is so near that a little buffer carries the rate.
fn is_near(tcp: &Tcp, rate: Rate) -> bool {
    let carries = carried(buffer(tcp.round_trip, rate), tcp.round_trip);
    carries.is_some_and(|most| rate.get() <= most.get() / 2)
}

/// Bounds what the kernel takes in ahead of a reader that keeps to a rate: it
/// has left the registry, whatever becomes of the lease. Only of a connection
/// that is near, for such a bound can't be lifted again.
pub(crate) fn hold_little(tcp: &Tcp, rate: Rate) -> Buffer {
    let mut carries = None;
    if is_near(tcp, rate) {
        let buffer = buffer(tcp.round_trip, rate);
        match set_socket_recv_buffer_size(&tcp.stream, buffer) {
            Ok(()) => carries = carried(buffer, tcp.round_trip),
            Err(error) => {
                tracing::debug!(%error, "a receive buffer stays as large as the kernel likes");
            }
        }
    }
    let holds = socket_recv_buffer_size(&tcp.stream).unwrap_or_else(|error| {
        tracing::debug!(%error, "how much a receive buffer holds is not known");
        2 * MOST
    });
    Buffer { holds: holds as u64, carries }
}

/// Room for what a round trip brings at a rate.
fn buffer(round_trip: Duration, rate: Rate) -> usize {
    let under_way = u128::from(rate.get()).saturating_mul(round_trip.as_nanos()) / 1_000_000_000;
    let room = under_way.saturating_mul(u128::from(ROOM));
    let room = usize::try_from(room).unwrap_or(usize::MAX);
    room.clamp(LEAST, MOST)
}

/// What a buffer carries: itself once in a round trip. None where that is no limit.
fn carried(buffer: usize, round_trip: Duration) -> Option<Rate> {
    let in_a_second = (buffer as u128) * 1_000_000_000;
    let rate = in_a_second.checked_div(round_trip.as_nanos())?;
    u64::try_from(rate).ok().map(Rate::new)
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    #[tokio::test]
    async fn a_buffer_is_small_only_where_it_does_not_slow_a_pull_down() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let before = socket_recv_buffer_size(&stream).unwrap();
        let mut tcp = Tcp { stream, round_trip: Duration::from_millis(10) };
        let slow = Rate::new(21_299_200);
        for rate in [Rate::MAX, slow, Rate::new(10_649_601)] {
            let untouched = Buffer { holds: before as u64, carries: None };
            assert_eq!(hold_little(&tcp, rate), untouched, "{rate}");
        }
        tcp.round_trip = Duration::ZERO;
        assert_eq!(hold_little(&tcp, Rate::new(1)).carries, None);
        assert_eq!(socket_recv_buffer_size(&tcp.stream).unwrap(), before);
        tcp.round_trip = Duration::from_millis(10);
        let held = hold_little(&tcp, Rate::new(10_649_600));
        let after = socket_recv_buffer_size(&tcp.stream).unwrap();
        assert!(after <= 2 * MOST && after != before, "{before} {after}");
        assert_eq!(held, Buffer { holds: after as u64, carries: Some(slow) });
    }

    #[test]
    fn a_buffer_is_as_large_as_its_way_is_long() {
        let cases = [
            (0, 1 << 20, LEAST),
            (50, 25_000_000, LEAST),
            (600, 25_000_000, LEAST),
            (1000, 25_000_000, 100_000),
            (10_000, 25_000_000, MOST),
            (10_000, 100_000, LEAST),
            (u64::MAX, u64::MAX, MOST),
        ];
        for (micros, rate, bytes) in cases {
            let (way, rate) = (Duration::from_micros(micros), Rate::new(rate));
            assert_eq!(buffer(way, rate), bytes, "{way:?} {rate}");
        }
        assert_eq!(carried(MOST, Duration::ZERO), None);
    }

    #[tokio::test]
    async fn what_holds_no_more_than_the_least_does_not_look_far() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let mut tcp = Tcp { stream, round_trip: Duration::from_micros(600) };
        let rate = Rate::new(25_000_000);
        assert!(!looks_far(&tcp, rate));
        tcp.round_trip = Duration::from_millis(1);
        assert!(looks_far(&tcp, rate) && is_near(&tcp, rate), "near, and a guess too much");
    }
}
