//! When containerd may be restarted.
//!
//! A window begins at a time of the day in its zone, on some days of the week,
//! and may end on the day after. Where the clock is put forward over its
//! beginning it begins when the clock goes on, and lasts no shorter for it;
//! an hour that is there twice counts from its first on.

use std::fmt;
use std::str::FromStr;

use jiff::civil::{Date, Time, Weekday};
use jiff::tz::{Offset, TimeZone, TimeZoneDatabase};
use jiff::{SignedDuration, Timestamp};
use serde::de::value::MapAccessDeserializer;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::name::cut;

/// How many days ahead a beginning is looked for: a week, and a day that a zone left out.
const AHEAD: usize = 9;

/// When containerd may be restarted, as a strategy says it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum WindowChoice {
    /// `none`: at any time.
    None,
    /// `shoot`: in the shoot's maintenance window, or at any time where it has none.
    #[default]
    Shoot,
    /// At times of its own.
    Weekly(Weekly),
}

impl WindowChoice {
    /// The window that is meant, for a shoot with this maintenance window.
    pub fn resolve<'a>(&'a self, maintenance: Option<&'a Weekly>) -> Option<&'a Weekly> {
        match self {
            Self::None => None,
            Self::Shoot => maintenance,
            Self::Weekly(weekly) => Some(weekly),
        }
    }
}

/// A window on some days of the week.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Weekly {
    /// The days on which it begins.
    days: Vec<Day>,
    #[serde(serialize_with = "minutes")]
    begin: Time,
    #[serde(serialize_with = "minutes")]
    end: Time,
    zone: Zone,
}

/// A window that can't be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidWindow {
    /// A time of the day.
    #[error("invalid time of the day {0:?}: want one as 22:00")]
    Time(String),
    /// A time of the day with its zone, as Gardener writes it.
    #[error("invalid time {0:?} of a maintenance window: want one as 220000+0100")]
    Maintenance(String),
    /// A zone.
    #[error("invalid zone {0:?}: want a name as Europe/Berlin, UTC, or an offset as +01:00")]
    Zone(String),
    /// It has no length.
    #[error("a window can't begin and end at the same time of the day")]
    Empty,
}

impl Weekly {
    /// A window on these days, or each day where none is named.
    ///
    /// # Errors
    /// When it has no length.
    pub fn new(days: &[Day], begin: Time, end: Time, zone: Zone) -> Result<Self, InvalidWindow> {
        if begin == end {
            return Err(InvalidWindow::Empty);
        }
        let mut days = if days.is_empty() { Day::ALL.to_vec() } else { days.to_vec() };
        days.sort();
        days.dedup();
        Ok(Self { days, begin, end, zone })
    }

    /// A shoot's `maintenance.timeWindow`, as `220000+0100` and `230000+0100`.
    ///
    /// # Errors
    /// When one of them is not of this form, or they are the same.
    pub fn maintenance(begin: &str, end: &str) -> Result<Self, InvalidWindow> {
        let ((begin, zone), (end, other)) = (gardener(begin)?, gardener(end)?);
        // The window's zone is that of its beginning.
        let shift = SignedDuration::from_secs((zone.seconds() - other.seconds()).into());
        let end = end.wrapping_add(shift);
        Self::new(&[], begin, end, Zone { name: zone.to_string(), zone: TimeZone::fixed(zone) })
    }

    /// Whether it is open.
    pub fn open_at(&self, now: Timestamp) -> bool {
        self.closing(now).is_some()
    }

    /// When it closes, if it is open.
    pub fn closing(&self, now: Timestamp) -> Option<Timestamp> {
        let yesterday = self.today(now).yesterday().ok()?;
        let spans = yesterday.series(jiff::Span::new().days(1)).take(2);
        let open =
            spans.filter_map(|day| self.span(day)).filter(|span| span.0 <= now && now < span.1);
        open.map(|span| span.1).max()
    }

    /// When it opens next, after `now`.
    pub fn next_opening(&self, now: Timestamp) -> Option<Timestamp> {
        let days = self.today(now).series(jiff::Span::new().days(1)).take(AHEAD);
        days.filter_map(|day| self.span(day)).map(|span| span.0).find(|begin| *begin > now)
    }

    fn today(&self, now: Timestamp) -> Date {
        now.to_zoned(self.zone.zone.clone()).date()
    }

    /// From when to when it is open, if it begins on this day.
    fn span(&self, day: Date) -> Option<(Timestamp, Timestamp)> {
        if !self.days.contains(&Day::of(day.weekday())) {
            return None;
        }
        let last = if self.end > self.begin { day } else { day.tomorrow().ok()? };
        let (from, to) = (day.to_datetime(self.begin), last.to_datetime(self.end));
        let length: SignedDuration = from.duration_until(to);
        let at = |moment| self.zone.zone.to_ambiguous_timestamp(moment).compatible().ok();
        let (begin, end) = (at(from)?, at(to)?);
        // The clock may have been put forward over all of it.
        Some((begin, if end > begin { end } else { begin.checked_add(length).ok()? }))
    }
}

/// A time and its offset, as `220000+0100`.
fn gardener(text: &str) -> Result<(Time, Offset), InvalidWindow> {
    let refused = || InvalidWindow::Maintenance(cut(text));
    let number = |range: std::ops::Range<usize>| -> Result<i8, InvalidWindow> {
        let digits = text.get(range).filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()));
        digits.and_then(|digits| digits.parse().ok()).ok_or_else(refused)
    };
    let sign = match text.as_bytes().get(6) {
        Some(b'+') => 1,
        Some(b'-') => -1,
        _ => return Err(refused()),
    };
    if text.len() != 11 {
        return Err(refused());
    }
    let time = Time::new(number(0..2)?, number(2..4)?, number(4..6)?, 0).map_err(|_| refused())?;
    let (hours, minutes) = (number(7..9)?, number(9..11)?);
    if hours > 14 || minutes > 59 {
        return Err(refused());
    }
    let seconds = sign * (i32::from(hours) * 60 + i32::from(minutes)) * 60;
    Ok((time, Offset::from_seconds(seconds).map_err(|_| refused())?))
}

/// A day of the week.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Day {
    /// Monday
    Mon,
    /// Tuesday
    Tue,
    /// Wednesday
    Wed,
    /// Thursday
    Thu,
    /// Friday
    Fri,
    /// Saturday
    Sat,
    /// Sunday
    Sun,
}

impl Day {
    const ALL: [Self; 7] =
        [Self::Mon, Self::Tue, Self::Wed, Self::Thu, Self::Fri, Self::Sat, Self::Sun];

    fn of(day: Weekday) -> Self {
        match day {
            Weekday::Monday => Self::Mon,
            Weekday::Tuesday => Self::Tue,
            Weekday::Wednesday => Self::Wed,
            Weekday::Thursday => Self::Thu,
            Weekday::Friday => Self::Fri,
            Weekday::Saturday => Self::Sat,
            Weekday::Sunday => Self::Sun,
        }
    }
}

/// A zone by its name, with the rules that this program was built with: what
/// the machine has installed changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Zone {
    name: String,
    zone: TimeZone,
}

impl FromStr for Zone {
    type Err = InvalidWindow;

    fn from_str(name: &str) -> Result<Self, InvalidWindow> {
        let refused = || InvalidWindow::Zone(cut(name));
        let zone = if name.starts_with(['+', '-']) {
            let digits: String = name.chars().filter(|c| *c != ':').collect();
            let (_, offset) = gardener(&format!("000000{digits}")).map_err(|_| refused())?;
            TimeZone::fixed(offset)
        } else {
            TimeZoneDatabase::bundled().get(name).map_err(|_| refused())?
        };
        Ok(Self { name: name.to_owned(), zone })
    }
}

impl TryFrom<String> for Zone {
    type Error = InvalidWindow;

    fn try_from(name: String) -> Result<Self, InvalidWindow> {
        name.parse()
    }
}

impl From<Zone> for String {
    fn from(zone: Zone) -> Self {
        zone.name
    }
}

/// A window of its own, as it is written.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Written {
    #[serde(default)]
    days: Vec<Day>,
    begin: String,
    end: String,
    zone: Zone,
}

impl<'de> Deserialize<'de> for Weekly {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let written = Written::deserialize(deserializer)?;
        let time = |text: &str| {
            let form = text.len() == 5 && text.as_bytes()[2] == b':';
            let time = Time::strptime("%H:%M", text).ok().filter(|_| form);
            time.ok_or_else(|| de::Error::custom(InvalidWindow::Time(cut(text))))
        };
        let (begin, end) = (time(&written.begin)?, time(&written.end)?);
        Self::new(&written.days, begin, end, written.zone).map_err(de::Error::custom)
    }
}

fn minutes<S: Serializer>(time: &Time, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{:02}:{:02}", time.hour(), time.minute()))
}

impl Serialize for WindowChoice {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::None => serializer.serialize_str("none"),
            Self::Shoot => serializer.serialize_str("shoot"),
            Self::Weekly(weekly) => weekly.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for WindowChoice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl<'de> de::Visitor<'de> for Visitor {
            type Value = WindowChoice;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"none\", \"shoot\", or {days: [Sat, Sun], begin: \"22:00\", end: \"04:00\", zone: \"Europe/Berlin\"}")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<WindowChoice, E> {
                match text {
                    "none" => Ok(WindowChoice::None),
                    "shoot" => Ok(WindowChoice::Shoot),
                    other => Err(E::invalid_value(de::Unexpected::Str(&cut(other)), &self)),
                }
            }

            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<WindowChoice, A::Error> {
                Weekly::deserialize(MapAccessDeserializer::new(map)).map(WindowChoice::Weekly)
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}
