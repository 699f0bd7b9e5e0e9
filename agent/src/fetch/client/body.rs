//! What an answer brings, and whether that is fast enough.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, HeaderMap};
use http::{Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use super::super::FetchError;
use super::Connection;
use super::patience::stalled;
use crate::pull::Pull;

/// How long a source may bring fewer than [`FLOOR`] bytes a second, while they
/// might be read: one that drips would hold a pull for days and never stall.
const SLOW: Duration = Duration::from_secs(60);
/// Bytes per second, far below any link that a node could live on.
const FLOOR: u64 = 4 << 10;
/// The payload of an answer.
pub(crate) struct Body {
    pub(super) connection: Connection,
    incoming: Incoming,
    start: u64,
    length: Option<u64>,
    pace: Pace,
}

/// How fast bytes come.
#[derive(Debug, Default)]
struct Pace {
    waited: Duration,
    came: u64,
}

impl Pace {
    /// Counts what came after a wait in which it might have come. Whether that is too slow.
    fn is_slow(&mut self, waited: Duration, bytes: u64) -> bool {
        self.waited += waited;
        self.came += bytes;
        if self.waited < SLOW {
            return false;
        }
        let Self { waited, came } = std::mem::take(self);
        came < FLOOR * waited.as_secs()
    }
}

/// The answer to a request from the byte `from` on.
pub(super) fn body(
    connection: Connection,
    response: Response<Incoming>,
    from: u64,
    url: String,
) -> Result<Body, FetchError> {
    let headers = response.headers();
    let length = number(headers, |value| value.parse().ok(), CONTENT_LENGTH);
    let start = if response.status() == StatusCode::PARTIAL_CONTENT {
        let parse = |value: &str| value.strip_prefix("bytes ")?.split('-').next()?.parse().ok();
        match number(headers, parse, CONTENT_RANGE) {
            Some(start) if start == from => start,
            _ => {
                let source = "it sends another range than was asked for".into();
                return Err(FetchError::Broken { url, early: false, source });
            }
        }
    } else {
        // The whole blob, also where a range was asked for.
        0
    };
    let (incoming, pace) = (response.into_body(), Pace::default());
    Ok(Body { connection, incoming, start, length, pace })
}

pub(super) fn number(
    headers: &HeaderMap,
    parse: impl Fn(&str) -> Option<u64>,
    name: http::HeaderName,
) -> Option<u64> {
    headers.get(name).and_then(|value| value.to_str().ok()).and_then(parse)
}

impl Body {
    /// The byte of the blob that the body begins with.
    pub(crate) fn start(&self) -> u64 {
        self.start
    }

    /// How many bytes were announced.
    pub(crate) fn length(&self) -> Option<u64> {
        self.length
    }

    /// The next bytes; none at the end.
    pub(crate) async fn next(&mut self, pull: &Pull) -> Result<Option<Bytes>, FetchError> {
        loop {
            let frame = async { self.incoming.frame().await.transpose() };
            let begun = pull.open();
            let Some(frame) = stalled(pull, &self.connection.origin, frame).await? else {
                return Ok(None);
            };
            let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
            if self.pace.is_slow(pull.open().saturating_sub(begun), bytes) {
                let url = self.connection.origin.to_string();
                let what = format!("fewer than {FLOOR} bytes a second for {SLOW:?}");
                return Err(FetchError::Stalled { url, what });
            }
            // Trailers are no payload.
            if let Ok(data) = frame.into_data() {
                return Ok(Some(data));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_that_drips_is_given_up() {
        let mut drip = Pace::default();
        let slow = (0..7).map(|_| drip.is_slow(Duration::from_secs(10), 1));
        assert_eq!(slow.filter(|slow| *slow).count(), 1, "once a minute");
        let mut fine = Pace::default();
        assert!((0..100).all(|_| !fine.is_slow(Duration::from_secs(1), 8 << 10)));
    }
}
