//! Bytes per second, and limits of them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::name::cut;

/// Payload bytes per second.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(try_from = "String", into = "String")]
pub struct Rate(u64);

/// The most that may be used at one level of the budgets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Limit {
    /// Whatever is asked for.
    #[default]
    Unlimited,
    /// Not more than this.
    At(Rate),
}

/// A text that is not a rate, or not one that limits anything.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRate {
    /// It has another form.
    #[error(
        "invalid rate {0:?}: want a number and B/s, kB/s, MB/s, GB/s, TB/s, KiB/s, MiB/s, GiB/s or TiB/s, such as 200MiB/s, or unlimited"
    )]
    Form(String),
    /// It is no whole number of bytes.
    #[error("invalid rate {0:?}: it is no whole number of bytes per second")]
    Fraction(String),
    /// It is more than can be counted.
    #[error("invalid rate {0:?}: it is more than 18446744073709551614B/s; want less, or unlimited")]
    TooHigh(String),
    /// A limit of nothing would stop every pull for good.
    #[error("invalid limit {0:?}: nothing could ever be pulled; want more than 0, or unlimited")]
    Zero(String),
}

/// How [`Rate::MAX`] and [`Limit::Unlimited`] are written.
const UNLIMITED: &str = "unlimited";

/// Units by name, the largest first.
const UNITS: [(&str, u64); 10] = [
    ("TiB/s", 1 << 40),
    ("TB/s", 1_000_000_000_000),
    ("GiB/s", 1 << 30),
    ("GB/s", 1_000_000_000),
    ("MiB/s", 1 << 20),
    ("MB/s", 1_000_000),
    ("KiB/s", 1 << 10),
    ("kB/s", 1000),
    ("KB/s", 1000),
    ("B/s", 1),
];

impl Rate {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// No limit: what a lease says where no budget is set at any level.
    pub const MAX: Self = Self(u64::MAX);

    /// So many bytes per second.
    pub const fn new(bytes_per_second: u64) -> Self {
        Self(bytes_per_second)
    }

    /// Bytes per second.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// `numerator` such rates, divided by `denominator`; at most [`Self::MAX`].
    pub(super) fn scaled(self, numerator: u64, denominator: u64) -> Self {
        let scaled = u128::from(self.0) * u128::from(numerator) / u128::from(denominator);
        Self::saturating(scaled)
    }

    /// So many bytes per second, or [`Self::MAX`] where there are more.
    pub(super) fn saturating(bytes_per_second: u128) -> Self {
        Self(u64::try_from(bytes_per_second).unwrap_or(u64::MAX))
    }
}

impl Limit {
    /// What is left of it where so much is used. [`Rate::MAX`] without a limit.
    pub(super) fn left(self, used: u128) -> Rate {
        match self {
            Self::Unlimited => Rate::MAX,
            Self::At(most) => Rate::saturating(u128::from(most.get()).saturating_sub(used)),
        }
    }

    /// The limit as a rate; [`Rate::MAX`] without one.
    pub fn rate(self) -> Rate {
        match self {
            Self::Unlimited => Rate::MAX,
            Self::At(most) => most,
        }
    }
}

impl FromStr for Rate {
    type Err = InvalidRate;

    fn from_str(text: &str) -> Result<Self, InvalidRate> {
        if text == UNLIMITED {
            return Ok(Self::MAX);
        }
        let form = || InvalidRate::Form(cut(text));
        let unit = UNITS.iter().find_map(|(name, unit)| Some((text.strip_suffix(name)?, *unit)));
        let (number, unit) = unit.ok_or_else(form)?;
        let (whole, part) = match number.split_once('.') {
            Some((whole, part)) if !part.is_empty() => (whole, part),
            Some(_) => return Err(form()),
            None => (number, ""),
        };
        if whole.is_empty() || !whole.bytes().chain(part.bytes()).all(|b| b.is_ascii_digit()) {
            return Err(form());
        }
        // Zeros at the end of a fraction say nothing.
        let part = part.trim_end_matches('0');
        let places = u32::try_from(part.len()).unwrap_or(u32::MAX);
        let Some(scale) = 10_u128.checked_pow(places) else {
            return Err(InvalidRate::Fraction(cut(text)));
        };
        let too_high = || InvalidRate::TooHigh(cut(text));
        let whole = whole.trim_start_matches('0');
        if whole.len() > 20 {
            return Err(too_high());
        }
        let whole = if whole.is_empty() { 0 } else { whole.parse::<u128>().map_err(|_| form())? };
        let part = if part.is_empty() { 0 } else { part.parse::<u128>().map_err(|_| form())? };
        let part = part.checked_mul(u128::from(unit)).filter(|part| part % scale == 0);
        let Some(part) = part else {
            return Err(InvalidRate::Fraction(cut(text)));
        };
        let bytes = u64::try_from(whole * u128::from(unit) + part / scale).ok();
        bytes.filter(|bytes| *bytes < u64::MAX).map(Self).ok_or_else(too_high)
    }
}

impl fmt::Display for Rate {
    /// In the largest unit of which it is a whole number, so that it reads back the same.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::MAX {
            return f.write_str(UNLIMITED);
        }
        let whole = |unit: u64| self.0 != 0 && self.0.is_multiple_of(unit);
        let unit = UNITS.iter().find(|(_, unit)| whole(*unit));
        let (name, unit) = unit.copied().unwrap_or(("B/s", 1));
        write!(f, "{}{name}", self.0 / unit)
    }
}

impl FromStr for Limit {
    type Err = InvalidRate;

    fn from_str(text: &str) -> Result<Self, InvalidRate> {
        match text.parse()? {
            Rate::MAX => Ok(Self::Unlimited),
            Rate::ZERO => Err(InvalidRate::Zero(cut(text))),
            rate => Ok(Self::At(rate)),
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.rate().fmt(f)
    }
}

macro_rules! as_text {
    ($name:ident) => {
        impl TryFrom<String> for $name {
            type Error = InvalidRate;

            fn try_from(text: String) -> Result<Self, InvalidRate> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> String {
                value.to_string()
            }
        }
    };
}

as_text!(Rate);
as_text!(Limit);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rates_are_read_and_written() {
        let cases = [
            ("200MiB/s", 200 << 20, "200MiB/s"),
            ("50MB/s", 50_000_000, "50MB/s"),
            ("1GiB/s", 1 << 30, "1GiB/s"),
            ("1500000B/s", 1_500_000, "1500kB/s"),
            ("1.5MiB/s", 3 << 19, "1536KiB/s"),
            ("0.50GB/s", 500_000_000, "500MB/s"),
            ("1024KiB/s", 1 << 20, "1MiB/s"),
            ("1KB/s", 1000, "1kB/s"),
            ("007B/s", 7, "7B/s"),
            ("18446744073709551614B/s", u64::MAX - 1, "18446744073709551614B/s"),
        ];
        for (text, bytes, written) in cases {
            let rate: Rate = text.parse().unwrap();
            assert_eq!((rate.get(), rate.to_string().as_str()), (bytes, written), "{text}");
            assert_eq!(text.parse::<Limit>().unwrap(), Limit::At(rate));
        }
        assert_eq!("0B/s".parse::<Rate>().unwrap().to_string(), "0B/s");
        assert_eq!("unlimited".parse::<Limit>().unwrap(), Limit::Unlimited);
        assert_eq!(Limit::Unlimited.to_string(), "unlimited");
    }

    #[test]
    fn what_is_no_limit_is_refused_with_what_is() {
        let cases = [
            ("200", "want a number and B/s"),
            ("", "want a number and B/s"),
            ("fast", "want a number and B/s"),
            ("MiB/s", "want a number and B/s"),
            ("-1MiB/s", "want a number and B/s"),
            ("1 MiB/s", "want a number and B/s"),
            ("1.MiB/s", "want a number and B/s"),
            (".5MiB/s", "want a number and B/s"),
            ("1.2.3MiB/s", "want a number and B/s"),
            ("1Mib/s", "want a number and B/s"),
            ("٣MiB/s", "want a number and B/s"),
            ("Unlimited", "or unlimited"),
            ("0.3B/s", "no whole number"),
            ("1.00000000000000000000000000000000000000001TiB/s", "no whole number"),
            ("18446744073709551615B/s", "more than 1844"),
            ("99999999999999999999999999999999999999999B/s", "more than 1844"),
            ("20000000TiB/s", "more than 1844"),
            ("0MiB/s", "want more than 0, or unlimited"),
            ("0.0B/s", "want more than 0, or unlimited"),
        ];
        for (text, says) in cases {
            let error = text.parse::<Limit>().unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
        let error = "9".repeat(5000).parse::<Limit>().unwrap_err().to_string();
        assert!(error.len() < 400, "{error}");
    }

    proptest! {
        #[test]
        fn any_limit_reads_back(bytes in 1..u64::MAX, noise in "\\PC{0,30}") {
            let limit = Limit::At(Rate::new(bytes));
            prop_assert_eq!(limit.to_string().parse::<Limit>().unwrap(), limit);
            // No text makes it panic.
            let _ = (noise.parse::<Limit>(), format!("{noise}MiB/s").parse::<Limit>());
        }
    }
}
