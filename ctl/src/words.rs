//! Times, sizes and phases, as short as a column is.

use jiff::Timestamp;
use rootstock_core::rollout::record::{Command, Course};
use rootstock_core::runtime_status::{HaltReason, Rollout, RolloutPhase};

use crate::text::Tone;

/// How long it is from one point to a later one: its two largest units, as in
/// `3h12m`. Nothing where the clocks of two machines differ.
pub(crate) fn span(from: Timestamp, to: Timestamp) -> String {
    let seconds = to.as_second().saturating_sub(from.as_second()).max(0);
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let two = |large: i64, unit: &str, small: i64, less: &str| match small {
        0 => format!("{large}{unit}"),
        _ => format!("{large}{unit}{small}{less}"),
    };
    match seconds {
        ..60 => format!("{seconds}s"),
        60..600 => two(minutes, "m", seconds % 60, "s"),
        600..3600 => format!("{minutes}m"),
        3600..86_400 => two(hours, "h", minutes % 60, "m"),
        _ => two(days, "d", hours % 24, "h"),
    }
}

/// How far off a point is: `in 3m`, or `due` where it is over.
pub(crate) fn ahead(at: Timestamp, now: Timestamp) -> String {
    if at <= now { "due".to_owned() } else { format!("in {}", span(now, at)) }
}

/// Bytes in the unit in which they are at least one: `1.2 GiB`.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [(u64, &str); 4] =
        [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let Some((size, unit)) = UNITS.into_iter().find(|(size, _)| count >= *size) else {
        return format!("{count} B");
    };
    // Tenths, rounded down: 99.9 % is not all.
    let tenths = u128::from(count) * 10 / u128::from(size);
    format!("{}.{} {unit}", tenths / 10, tenths % 10)
}

/// A share from 0 to 1 in percent; nothing where it is no number.
pub(crate) fn percent(share: f64) -> Option<String> {
    share.is_finite().then(|| format!("{:.0}%", share.clamp(0.0, 1.0) * 100.0))
}

/// Where a rollout is, and what that means.
pub(crate) fn phase(rollout: &Rollout) -> (Tone, String) {
    let (tone, words) = match &rollout.phase {
        // An older controller says that there is one, and no more.
        None => (Tone::Busy, "under way".to_owned()),
        Some(phase) => of(phase, rollout),
    };
    match rollout.course {
        Course::Forwards => (tone, words),
        Course::Back => (tone, format!("back: {words}")),
    }
}

fn of(phase: &RolloutPhase, rollout: &Rollout) -> (Tone, String) {
    let (tone, words) = match phase {
        RolloutPhase::Unread => (Tone::Bad, "state unreadable"),
        RolloutPhase::Deleting => (Tone::Plain, "ends: deleting"),
        RolloutPhase::Unknown => (Tone::Busy, "target unknown"),
        RolloutPhase::Idle => (Tone::Busy, "settling"),
        RolloutPhase::Canary => (Tone::Busy, "canary"),
        RolloutPhase::Soaking => (Tone::Busy, "soaking"),
        RolloutPhase::Wave => {
            let number =
                |number: Option<u32>| number.map_or_else(|| "?".to_owned(), |n| n.to_string());
            let words = format!("wave {}/{}", number(rollout.wave), number(rollout.waves));
            return (Tone::Busy, words);
        }
        RolloutPhase::Halted => {
            let why = match rollout.halt {
                Some(HaltReason::CanaryFailed) => "halted: canary failed",
                Some(HaltReason::CanaryLost) => "halted: canary lost",
                Some(HaltReason::WaveFailed) => "halted: wave failed",
                Some(HaltReason::BudgetSpent) => "halted: budget spent",
                Some(HaltReason::NothingBefore) => "halted: nothing to go back to",
                None => "halted",
            };
            (Tone::Bad, why)
        }
        RolloutPhase::Stopped => (Tone::Bad, "stopped: broke other shoots"),
        RolloutPhase::Paused => (Tone::Busy, "paused"),
        RolloutPhase::Frozen => (Tone::Busy, "seed stopped"),
        RolloutPhase::WaitingForRing => (Tone::Busy, "waits for other shoots"),
        RolloutPhase::WaitingForWindow => (Tone::Busy, "waits for its window"),
        RolloutPhase::WaitingForNodes => (Tone::Bad, "waits for unavailable nodes"),
        RolloutPhase::Blocked => (Tone::Bad, "blocked"),
        RolloutPhase::PromotedFails => (Tone::Bad, "promoted bundle fails"),
        RolloutPhase::Other(word) => (Tone::Busy, word.as_str()),
    };
    (tone, words.to_owned())
}

/// What a command does, as the end of "…".
pub(crate) fn effect(command: Command) -> &'static str {
    match command {
        Command::Pause => "let no other node begin",
        Command::Resume => "go on",
        Command::Retry => "try again what failed, from the canary on",
        Command::Promote => "do not wait for the first nodes to go on working",
        Command::Abort => "go back to the promoted bundle",
    }
}

/// A text as a shell takes it for one word.
pub(crate) fn quoted(text: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || "-_./:@%+=,".contains(c);
    if !text.is_empty() && text.chars().all(bare) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn times_have_their_two_largest_units() {
        let table = [
            (-5, "0s"),
            (0, "0s"),
            (59, "59s"),
            (60, "1m"),
            (90, "1m30s"),
            (3599, "59m"),
            (3600, "1h"),
            (11_520, "3h12m"),
            (90_000, "1d1h"),
            (864_000, "10d"),
        ];
        for (seconds, want) in table {
            assert_eq!(span(at(1000), at(1000 + seconds)), want, "{seconds}");
        }
        assert_eq!(ahead(at(1000), at(1000)), "due");
        assert_eq!(ahead(at(1090), at(1000)), "in 1m30s");
    }

    #[test]
    fn sizes_have_one_decimal_and_never_say_more_than_there_is() {
        let table = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            ((1 << 30) - 1, "1023.9 MiB"),
            (5 << 30, "5.0 GiB"),
            (u64::MAX, "16777215.9 TiB"),
        ];
        for (count, want) in table {
            assert_eq!(bytes(count), want);
        }
        for (share, want) in [(0.704, Some("70%")), (1.7, Some("100%")), (f64::NAN, None)] {
            assert_eq!(percent(share).as_deref(), want);
        }
    }

    #[test]
    fn every_phase_has_words_of_its_own() {
        let words = |phase| self::phase(&Rollout { phase, ..Rollout::default() }).1;
        let mut all: Vec<_> =
            RolloutPhase::KNOWN.into_iter().map(|phase| words(Some(phase))).collect();
        all.push(words(None));
        all.sort();
        all.dedup();
        assert_eq!(all.len(), RolloutPhase::KNOWN.len() + 1, "{all:?}");
        assert_eq!(words(Some(RolloutPhase::Other("Dreaming".to_owned()))), "Dreaming");
        let wave = Rollout {
            phase: Some(RolloutPhase::Wave),
            wave: Some(2),
            waves: Some(5),
            ..Rollout::default()
        };
        assert_eq!(self::phase(&wave), (Tone::Busy, "wave 2/5".to_owned()));
        let back = Rollout { course: Course::Back, ..wave };
        assert_eq!(self::phase(&back).1, "back: wave 2/5");
    }

    #[test]
    fn a_shell_takes_a_quoted_text_for_one_word() {
        let table = [("a-b", "a-b"), ("a b", "'a b'"), ("it's", r"'it'\''s'"), ("", "''")];
        for (text, want) in table {
            assert_eq!(quoted(text), want);
        }
    }
}
