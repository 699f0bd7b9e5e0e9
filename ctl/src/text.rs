//! Lines that a terminal may see: clean, wrapped or cut to its width, coloured by
//! meaning.

use unicode_width::UnicodeWidthChar as _;

/// What a text means, and so its colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    Plain,
    /// As it should be.
    Good,
    /// On its way, or waiting.
    Busy,
    /// Somebody should look.
    Bad,
    /// A title.
    Strong,
    /// Less important.
    Faint,
}

impl Tone {
    /// What a terminal is told before the text (ECMA-48, SGR).
    fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Good => "\x1b[32m",
            Self::Busy => "\x1b[33m",
            Self::Bad => "\x1b[31m",
            Self::Strong => "\x1b[1m",
            Self::Faint => "\x1b[2m",
        }
    }
}

const RESET: &str = "\x1b[0m";
const ELLIPSIS: char = '…';
/// With this at its end a shell takes a line and the next one for one.
const BROKEN: &str = " \\";

/// One line. All text that comes into it is clean from then on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Line {
    parts: Vec<(Tone, String)>,
    /// Whether it is for a shell, so that it must not be cut; each part is a word.
    command: bool,
}

impl Line {
    pub(crate) fn new(tone: Tone, text: &str) -> Self {
        Self::default().and(tone, text)
    }

    pub(crate) fn plainly(text: &str) -> Self {
        Self::new(Tone::Plain, text)
    }

    /// A line for a shell: it is shown in full, however narrow the terminal is.
    pub(crate) fn command(indent: &str, words: &[String]) -> Self {
        let word = |(at, word): (usize, &String)| match at {
            0 => format!("{indent}{word}"),
            _ => format!(" {word}"),
        };
        let parts = words.iter().enumerate().map(word).map(|word| (Tone::Plain, clean(&word)));
        Self { parts: parts.collect(), command: true }
    }

    /// What to do about something that went wrong.
    pub(crate) fn advice(what: &str) -> Self {
        Self::plainly(&format!("what to do: {what}"))
    }

    #[must_use]
    pub(crate) fn and(mut self, tone: Tone, text: &str) -> Self {
        self.parts.push((tone, clean(text)));
        self
    }

    #[must_use]
    pub(crate) fn plain(self, text: &str) -> Self {
        self.and(Tone::Plain, text)
    }

    /// Another line behind this one.
    #[must_use]
    pub(crate) fn then(mut self, other: Self) -> Self {
        self.parts.extend(other.parts);
        self
    }

    /// How many columns it takes.
    pub(crate) fn width(&self) -> usize {
        self.parts.iter().map(|(_, text)| columns_of(text)).sum()
    }

    /// At least so wide.
    #[must_use]
    pub(crate) fn padded(self, width: usize) -> Self {
        let missing = width.saturating_sub(self.width());
        if missing == 0 { self } else { self.plain(&" ".repeat(missing)) }
    }

    /// At most so wide; what was cut ends with an ellipsis.
    #[must_use]
    pub(crate) fn cut(self, width: usize) -> Self {
        if self.width() <= width {
            return self;
        }
        let (mut kept, mut room) = (Self::default(), width.saturating_sub(columns(ELLIPSIS)));
        for (tone, text) in self.parts {
            let mut part = String::new();
            for c in text.chars() {
                if columns(c) > room {
                    part.extend((width > 0).then_some(ELLIPSIS));
                    kept.parts.push((tone, part));
                    return kept;
                }
                room -= columns(c);
                part.push(c);
            }
            kept.parts.push((tone, part));
        }
        kept
    }

    /// At most so wide, but for a command: a terminal breaks it, and it stays one
    /// line for whoever copies it.
    #[must_use]
    pub(crate) fn fitted(self, width: usize) -> Self {
        if self.command { self } else { self.cut(width) }
    }

    /// The rows of a picture that it takes, each at most so wide. A command is
    /// broken between its words as a shell takes it: half of a command may be
    /// another one.
    pub(crate) fn rows(self, width: usize) -> Vec<Self> {
        if !self.command || self.width() <= width {
            return vec![self.cut(width)];
        }
        let room = width.saturating_sub(BROKEN.len());
        let (mut rows, mut row) = (Vec::new(), Self::default());
        for (tone, word) in self.parts {
            if !row.parts.is_empty() && row.width() + columns_of(&word) > room {
                rows.push(row.plain(BROKEN).cut(width));
                row = Self::plainly("   ");
            }
            row.parts.push((tone, word));
        }
        rows.push(row.cut(width));
        rows
    }

    /// The text, with colours or without.
    pub(crate) fn paint(&self, colors: bool) -> String {
        let paint = |(tone, text): &(Tone, String)| match tone.code() {
            code if colors && !code.is_empty() && !text.is_empty() => {
                format!("{code}{text}{RESET}")
            }
            _ => text.clone(),
        };
        let painted: String = self.parts.iter().map(paint).collect();
        // Nobody sees what pads the last column.
        if colors { painted } else { painted.trim_end().to_owned() }
    }
}

/// Lines of at most `width` columns, broken between words, each after `indent`.
pub(crate) fn wrapped(text: &str, indent: &str, width: Option<usize>) -> Vec<Line> {
    hanging(Line::plainly(indent), indent, text, width)
}

/// Lines of at most `width` columns, broken between words: one after `first`,
/// the others after `indent`. A word that is longer than a line is broken, for
/// nothing of a text may be lost. None where the text is empty.
pub(crate) fn hanging(first: Line, indent: &str, text: &str, width: Option<usize>) -> Vec<Line> {
    let text = clean(text);
    let most = |taken: usize| width.map_or(usize::MAX, |width| width.saturating_sub(taken).max(2));
    let (mut room, further) = (most(first.width()), most(columns_of(indent)));
    let (mut lines, mut start, mut line, mut taken) = (Vec::new(), first, String::new(), 0_usize);
    let mut end = |line: &mut String| {
        let start = std::mem::replace(&mut start, Line::plainly(indent));
        lines.push(start.plain(&std::mem::take(line)));
    };
    for word in text.split_whitespace() {
        let wide = columns_of(word);
        if taken > 0 && wide < room.saturating_sub(taken) {
            line.push(' ');
            taken += 1;
        } else if taken > 0 || wide > room && room < further {
            end(&mut line);
            (room, taken) = (further, 0);
        }
        for c in word.chars() {
            if taken + columns(c) > room {
                end(&mut line);
                (room, taken) = (further, 0);
            }
            line.push(c);
            taken += columns(c);
        }
    }
    if taken > 0 {
        end(&mut line);
    }
    lines
}

/// A text in which nothing speaks to the terminal, or shows another order of
/// letters than is there: one visible character stands for each that would.
pub(crate) fn clean(text: &str) -> String {
    let clean = |c: char| match c {
        '\n' | '\r' | '\t' => ' ',
        c if is_unseen(c) => char::REPLACEMENT_CHARACTER,
        c => c,
    };
    text.chars().map(clean).collect()
}

/// JSON in which the same characters are written as escapes: it says what it
/// said. They can be in strings only.
pub(crate) fn clean_json(json: &str) -> String {
    use std::fmt::Write as _;
    json.chars().fold(String::with_capacity(json.len()), |mut out, c| {
        if is_unseen(c) && c != '\n' {
            // All of them are in the basic plane. Writing to a String cannot fail.
            let _ = write!(out, "\\u{:04x}", u32::from(c));
        } else {
            out.push(c);
        }
        out
    })
}

/// Control characters, and what has no width and changes what is seen:
/// directions, joiners, separators, the byte order mark.
fn is_unseen(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{00ad}' | '\u{061c}' | '\u{180e}' | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
}

fn columns_of(text: &str) -> usize {
    text.chars().map(columns).sum()
}

fn columns(c: char) -> usize {
    c.width().unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_speaks_to_the_terminal() {
        let table = [
            ("plain – ünïcode 漢", "plain – ünïcode 漢"),
            ("a\nb\tc\rd", "a b c d"),
            ("\x1b[2Jgone", "\u{fffd}[2Jgone"),
            ("\u{9b}31m", "\u{fffd}31m"),
            ("bell\x07\x7f", "bell\u{fffd}\u{fffd}"),
            ("\u{202e}cba", "\u{fffd}cba"),
            ("\u{2066}a\u{2069}\u{200b}\u{feff}", "\u{fffd}a\u{fffd}\u{fffd}\u{fffd}"),
        ];
        for (text, want) in table {
            assert_eq!(Line::plainly(text).paint(false), want, "{text:?}");
            let json = clean_json(&serde_json::to_string(text).unwrap());
            assert!(!json.chars().any(is_unseen), "{json:?}");
            assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
        }
    }

    #[test]
    fn lines_are_cut_at_the_width_whatever_their_letters_are() {
        let table = [
            ("abcdef", 6, "abcdef"),
            ("abcdef", 5, "abcd…"),
            ("漢字漢字", 8, "漢字漢字"),
            ("漢字漢字", 7, "漢字漢…"),
            ("漢字漢字", 6, "漢字…"),
            ("abc", 1, "…"),
            ("abc", 0, ""),
        ];
        for (text, width, want) in table {
            let cut = Line::plainly(text).cut(width);
            assert_eq!(cut.paint(false), want, "{text} {width}");
            assert!(cut.width() <= width);
        }
        let line = Line::new(Tone::Good, "abc").and(Tone::Bad, "def").cut(5);
        assert_eq!(line.paint(true), "\x1b[32mabc\x1b[0m\x1b[31md…\x1b[0m");
    }

    #[test]
    fn words_are_wrapped_and_kept_whole_where_a_line_has_room() {
        let wrap = |text: &str, width| -> Vec<String> {
            wrapped(text, "  ", width).iter().map(|line| line.paint(false)).collect()
        };
        let text = "one two three four five six seven";
        assert_eq!(wrap(text, None), ["  one two three four five six seven"]);
        assert_eq!(wrap(text, Some(24)), ["  one two three four", "  five six seven"]);
        let long = "x".repeat(30);
        let broken = ["  a".to_owned(), format!("  {}", &long[..22]), format!("  {}", &long[22..])];
        assert_eq!(wrap(&format!("a {long}"), Some(24)), broken);
        assert_eq!(wrap("漢字漢字", Some(7)), ["  漢字", "  漢字"]);
        // However narrow: something is seen of it.
        assert_eq!(wrap("ab", Some(0)), ["  ab"]);
        assert!(wrap("", None).is_empty());
    }

    #[test]
    fn a_text_hangs_below_its_label() {
        let hang = |first: &str, text: &str, width| -> Vec<String> {
            let lines = hanging(Line::plainly(first), "    ", text, width);
            lines.iter().map(|line| line.paint(false)).collect()
        };
        assert_eq!(hang("a   ", "one two three", None), ["a   one two three"]);
        assert_eq!(hang("a   ", "one two three", Some(11)), ["a   one two", "    three"]);
        // It begins below where the label leaves less room than that.
        assert_eq!(hang("a label ", "three", Some(10)), ["a label", "    three"]);
        assert!(hang("a   ", " ", None).is_empty());
    }

    #[test]
    fn a_command_is_never_cut_and_its_rows_are_one_for_a_shell() {
        let words = ["rootstock", "rollout", "abort", "a", "--context", "b"].map(str::to_owned);
        let line = || Line::command("  ", &words);
        let whole = "  rootstock rollout abort a --context b";
        assert_eq!(line().fitted(9).paint(false), whole);
        let rows = |width| -> Vec<String> {
            line().rows(width).iter().map(|row| row.paint(false)).collect()
        };
        assert_eq!(rows(whole.len()), [whole]);
        let broken = ["  rootstock rollout \\", "    abort a \\", "    --context b"];
        assert_eq!(rows(21), broken);
        for width in 0..40 {
            let rows = line().rows(width);
            assert!(rows.iter().all(|row| row.width() <= width), "{width}: {rows:?}");
            let (last, others) = rows.split_last().unwrap();
            // A row that goes on says so, or shows that something is missing.
            let ends = |row: &Line| row.paint(false).ends_with(['\\', '…']) || width == 0;
            assert!(others.iter().all(ends), "{width}: {rows:?}");
            let joined: String =
                others.iter().map(|row| row.paint(false).replace('\\', "")).collect();
            let joined = joined + &last.paint(false);
            let joined = joined.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(joined.contains('…') || width == 0 || joined == whole.trim(), "{joined}");
        }
        let plain = Line::plainly("abcdef").rows(4);
        assert_eq!(plain, [Line::plainly("abcdef").cut(4)]);
    }

    #[test]
    fn padding_counts_columns_and_is_not_printed_at_the_end() {
        let line = Line::plainly("漢").padded(4);
        assert_eq!(line.width(), 4);
        assert_eq!(line.clone().plain("|").paint(false), "漢  |");
        assert_eq!(line.paint(false), "漢");
    }
}
