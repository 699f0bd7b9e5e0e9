//! Counts, percentages and lengths of time, as an operator writes them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::name::cut;

/// The longest time that a strategy may name: what waits longer is forgotten.
pub const MAX_TIME: Duration = Duration::from_secs(30 * 24 * 3600);

/// A number of nodes: a count, or a percentage of some.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount {
    /// So many.
    Count(u32),
    /// So many of a hundred, at most 100.
    Percent(u8),
}

impl Amount {
    /// How many of `all`, rounded down as Kubernetes does for `maxUnavailable`.
    pub fn down(self, all: usize) -> usize {
        match self {
            Self::Count(count) => count as usize,
            Self::Percent(percent) => all.saturating_mul(percent.into()) / 100,
        }
    }

    /// How many of `all`, rounded up as Kubernetes does for `maxSurge`.
    pub fn up(self, all: usize) -> usize {
        match self {
            Self::Count(count) => count as usize,
            Self::Percent(percent) => all.saturating_mul(percent.into()).div_ceil(100),
        }
    }

    /// Whether it is none of any number.
    pub fn is_zero(self) -> bool {
        matches!(self, Self::Count(0) | Self::Percent(0))
    }
}

/// A text that is not an amount.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid amount {0:?}: want a count as 2, or a percentage of 0% to 100%")]
pub struct InvalidAmount(String);

impl FromStr for Amount {
    type Err = InvalidAmount;

    fn from_str(text: &str) -> Result<Self, InvalidAmount> {
        let refused = || InvalidAmount(cut(text));
        let (digits, percent) = match text.strip_suffix('%') {
            Some(digits) => (digits, true),
            None => (text, false),
        };
        // `parse` alone would take a sign.
        if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(refused());
        }
        let number: u32 = digits.parse().map_err(|_| refused())?;
        match u8::try_from(number) {
            Ok(number @ 0..=100) if percent => Ok(Self::Percent(number)),
            _ if percent => Err(refused()),
            _ => Ok(Self::Count(number)),
        }
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => write!(f, "{count}"),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Count(count) => serializer.serialize_u32(*count),
            Self::Percent(_) => serializer.collect_str(self),
        }
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl de::Visitor<'_> for Visitor {
            type Value = Amount;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a count as 2, or a percentage as \"10%\"")
            }

            fn visit_u64<E: de::Error>(self, count: u64) -> Result<Amount, E> {
                let refused = |_| E::custom(InvalidAmount(count.to_string()));
                u32::try_from(count).map(Amount::Count).map_err(refused)
            }

            fn visit_i64<E: de::Error>(self, count: i64) -> Result<Amount, E> {
                let refused = |_| E::custom(InvalidAmount(count.to_string()));
                u32::try_from(count).map(Amount::Count).map_err(refused)
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Amount, E> {
                text.parse().map_err(E::custom)
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

/// An amount that must be at least one, for with none nothing would ever go on.
pub(super) fn some<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Amount>, D::Error> {
    match Option::<Amount>::deserialize(deserializer)? {
        Some(zero) if zero.is_zero() => Err(de::Error::custom(format!(
            "invalid amount {zero}: want at least 1, or no rollout would go on"
        ))),
        amount => Ok(amount),
    }
}

/// A length of time as `10m`, for serde.
pub(super) mod time {
    use super::*;

    pub(in crate::rollout) fn serialize<S: Serializer>(
        time: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match time {
            Some(time) => serializer.collect_str(&humantime::format_duration(*time)),
            None => serializer.serialize_none(),
        }
    }

    pub(in crate::rollout) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        let Some(text) = Option::<String>::deserialize(deserializer)? else {
            return Ok(None);
        };
        let refused = |why: &str| {
            let text = cut(&text);
            de::Error::custom(format!("invalid time {text:?}: {why}, want one as 90s, 10m or 1h"))
        };
        let time = humantime::parse_duration(&text).map_err(|why| refused(&why.to_string()))?;
        if time > MAX_TIME {
            return Err(refused("it is longer than 30 days"));
        }
        Ok(Some(time))
    }
}
