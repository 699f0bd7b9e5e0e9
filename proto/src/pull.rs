//! Who may pull how fast: requests, grants, and what is held.
//!
//! What can't be read is refused; what makes no sense beyond that (a source
//! that is too long) is for who decides.

use rootstock_core::bandwidth::{Grant, Held, Rate, Request, Shrunk, Stamp};

use crate::desired::digest;
use crate::error::Invalid;
use crate::v1;

impl From<&Request> for v1::PullRequest {
    fn from(request: &Request) -> Self {
        Self {
            id: request.id,
            blob: request.blob.as_bytes().to_vec(),
            source: request.source.as_ref().to_owned(),
            bytes: request.bytes,
            useful_rate: request.useful_rate.map_or(0, Rate::get),
            round: request.round,
            used: request.used.map_or(0, Rate::get),
        }
    }
}

impl TryFrom<v1::PullRequest> for Request {
    type Error = Invalid;

    fn try_from(wire: v1::PullRequest) -> Result<Self, Invalid> {
        if wire.round == 0 {
            return Err(Invalid::Missing { field: "round" });
        }
        Ok(Self {
            id: wire.id,
            round: wire.round,
            blob: digest("blob", &wire.blob)?,
            source: wire.source.into(),
            bytes: wire.bytes,
            useful_rate: known(wire.useful_rate),
            used: known(wire.used),
        })
    }
}

impl From<&Grant> for v1::PullGrant {
    fn from(grant: &Grant) -> Self {
        Self {
            id: grant.id,
            blob: grant.blob.as_bytes().to_vec(),
            source: grant.source.as_ref().to_owned(),
            rate: grant.rate.get(),
            burst: grant.burst,
            lifetime: Some(duration(grant.lifetime)),
            round: grant.round,
            sequence: grant.sequence,
        }
    }
}

impl TryFrom<v1::PullGrant> for Grant {
    type Error = Invalid;

    fn try_from(wire: v1::PullGrant) -> Result<Self, Invalid> {
        Ok(Self {
            id: wire.id,
            round: wire.round,
            sequence: wire.sequence,
            blob: digest("blob", &wire.blob)?,
            source: wire.source.into(),
            rate: Rate::new(wire.rate),
            burst: wire.burst,
            lifetime: read("lifetime", wire.lifetime)?,
        })
    }
}

impl From<&Shrunk> for v1::GrantShrunk {
    fn from(shrunk: &Shrunk) -> Self {
        let Stamp { round, sequence } = shrunk.stamp;
        Self { id: shrunk.id, rate: shrunk.rate.get(), round, sequence }
    }
}

impl TryFrom<v1::GrantShrunk> for Shrunk {
    type Error = Invalid;

    /// Any message is one; it may fail like the others, so that all are read alike.
    fn try_from(wire: v1::GrantShrunk) -> Result<Self, Invalid> {
        let stamp = Stamp { round: wire.round, sequence: wire.sequence };
        Ok(Self { id: wire.id, rate: Rate::new(wire.rate), stamp })
    }
}

impl From<&Held> for v1::HeldGrant {
    fn from(held: &Held) -> Self {
        let remaining = Some(duration(held.remaining));
        Self { id: held.id, rate: held.rate.get(), remaining }
    }
}

impl TryFrom<v1::HeldGrant> for Held {
    type Error = Invalid;

    fn try_from(wire: v1::HeldGrant) -> Result<Self, Invalid> {
        let remaining = read("remaining", wire.remaining)?;
        Ok(Self { id: wire.id, rate: Rate::new(wire.rate), remaining })
    }
}

/// A rate of which 0 says that nobody knows it.
fn known(rate: u64) -> Option<Rate> {
    (rate > 0).then_some(Rate::new(rate))
}

/// A duration; more than the wire can say is its longest.
fn duration(duration: std::time::Duration) -> prost_types::Duration {
    let seconds = i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    // Fewer than a billion.
    let nanos = i32::try_from(duration.subsec_nanos()).unwrap_or(i32::MAX);
    prost_types::Duration { seconds, nanos }
}

/// A duration that is there, is not negative, and has its one form: prost's own
/// conversion overflows on the least of all durations.
fn read(
    field: &'static str,
    wire: Option<prost_types::Duration>,
) -> Result<std::time::Duration, Invalid> {
    let wire = wire.ok_or(Invalid::Missing { field })?;
    let seconds = u64::try_from(wire.seconds).ok();
    let nanos = u32::try_from(wire.nanos).ok().filter(|nanos| *nanos < 1_000_000_000);
    match (seconds, nanos) {
        (Some(seconds), Some(nanos)) => Ok(std::time::Duration::new(seconds, nanos)),
        _ => Err(Invalid::field(field, "want a duration that is not negative")),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use prost::Message;
    use rootstock_core::digest::Digest;

    use super::*;

    /// Any number, and often one at an edge.
    fn number() -> impl Strategy<Value = u64> {
        prop_oneof![Just(0), Just(1), Just(u64::MAX), any::<u64>()]
    }

    fn blob() -> impl Strategy<Value = Digest> {
        any::<[u8; 32]>().prop_map(Digest::from_bytes)
    }

    fn lasts() -> impl Strategy<Value = Duration> {
        let seconds = prop_oneof![Just(0), Just(i64::MAX.unsigned_abs()), 0..100_u64];
        (seconds, 0..1_000_000_000_u32).prop_map(|(s, n)| Duration::new(s, n))
    }

    fn requests() -> impl Strategy<Value = Request> {
        let rates = (number().prop_map(known), number().prop_map(known));
        (number(), 1..=u64::MAX, blob(), "\\PC{0,20}", number(), rates).prop_map(
            |(id, round, blob, source, bytes, (useful_rate, used))| {
                let source = source.into();
                Request { id, round, blob, source, bytes, useful_rate, used }
            },
        )
    }

    fn grants() -> impl Strategy<Value = Grant> {
        let stamp = (number(), number());
        let rate = (number().prop_map(Rate::new), number());
        (number(), stamp, blob(), "\\PC{0,20}", rate, lasts()).prop_map(
            |(id, (round, sequence), blob, source, (rate, burst), lifetime)| {
                let source = source.into();
                Grant { id, round, sequence, blob, source, rate, burst, lifetime }
            },
        )
    }

    /// Over the wire as bytes and back.
    fn sent<W, T>(value: &T) -> T
    where
        W: Message + Default + for<'a> From<&'a T>,
        T: TryFrom<W, Error = Invalid>,
    {
        W::decode(&W::from(value).encode_to_vec()[..]).unwrap().try_into().unwrap()
    }

    proptest! {
        #[test]
        fn what_is_said_arrives(
            request in requests(), grant in grants(), remaining in lasts(),
            (id, rate, round, sequence) in (number(), number(), number(), number()),
        ) {
            prop_assert_eq!(&sent::<v1::PullRequest, _>(&request), &request);
            prop_assert_eq!(&sent::<v1::PullGrant, _>(&grant), &grant);
            let (rate, stamp) = (Rate::new(rate), Stamp { round, sequence });
            let shrunk = Shrunk { id, rate, stamp };
            prop_assert_eq!(sent::<v1::GrantShrunk, _>(&shrunk), shrunk);
            let held = Held { id, rate, remaining };
            prop_assert_eq!(sent::<v1::HeldGrant, _>(&held), held);
        }

        /// Whatever comes is read to what says the same, or refused.
        #[test]
        fn what_comes_is_read_or_refused(
            (numbers, length) in (prop::array::uniform7(number()), 31..34_usize),
            (seconds, nanos) in (
                prop_oneof![Just(i64::MIN), Just(i64::MAX), -2..9_i64],
                prop_oneof![any::<i32>(), 0..1_000_000_000],
            ),
            there: bool,
        ) {
            let [id, bytes, useful_rate, round, used, rate, sequence] = numbers;
            let (blob, source) = (vec![7; length], "r".to_owned());
            let wire = v1::PullRequest {
                id, blob: blob.clone(), source: source.clone(), bytes, useful_rate, round, used,
            };
            match Request::try_from(wire.clone()) {
                Ok(request) => prop_assert_eq!(v1::PullRequest::from(&request), wire),
                Err(_) => prop_assert!(length != 32 || round == 0),
            }
            let lasts = there.then_some(prost_types::Duration { seconds, nanos });
            let good = there && seconds >= 0 && (0..1_000_000_000).contains(&nanos);
            let (burst, lifetime) = (bytes, lasts);
            let wire = v1::PullGrant { id, blob, source, rate, burst, lifetime, round, sequence };
            match Grant::try_from(wire.clone()) {
                Ok(grant) => prop_assert_eq!(v1::PullGrant::from(&grant), wire),
                Err(_) => prop_assert!(length != 32 || !good),
            }
            let wire = v1::HeldGrant { id, rate, remaining: lasts };
            match Held::try_from(wire) {
                Ok(held) => prop_assert_eq!(v1::HeldGrant::from(&held), wire),
                Err(_) => prop_assert!(!good),
            }
        }
    }

    #[test]
    fn what_is_unknown_or_without_limit_has_its_number() {
        let request = Request {
            id: 1,
            round: 1,
            blob: Digest::of(b"x"),
            source: "https://r:443".into(),
            bytes: 9,
            useful_rate: None,
            used: Some(Rate::new(1)),
        };
        let wire = v1::PullRequest::from(&request);
        assert_eq!((wire.useful_rate, wire.used), (0, 1));
        let ended = Shrunk { id: 1, rate: Rate::ZERO, stamp: Stamp::LAST };
        let wire = v1::GrantShrunk::from(&ended);
        assert_eq!((wire.rate, wire.round, wire.sequence), (0, u64::MAX, u64::MAX));
        let held = Held { id: 1, rate: Rate::MAX, remaining: Duration::MAX };
        let wire = v1::HeldGrant::from(&held);
        assert_eq!(wire.rate, u64::MAX);
        assert_eq!(wire.remaining.unwrap().seconds, i64::MAX);
    }
}
