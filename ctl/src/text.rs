//! Lines that a terminal may see: clean, cut to its width, coloured by meaning.

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

/// One line. All text that comes into it is clean from then on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Line(Vec<(Tone, String)>);

impl Line {
    pub(crate) fn new(tone: Tone, text: &str) -> Self {
        Self::default().and(tone, text)
    }

    pub(crate) fn plainly(text: &str) -> Self {
        Self::new(Tone::Plain, text)
    }

    #[must_use]
    pub(crate) fn and(mut self, tone: Tone, text: &str) -> Self {
        self.0.push((tone, clean(text)));
        self
    }

    #[must_use]
    pub(crate) fn plain(self, text: &str) -> Self {
        self.and(Tone::Plain, text)
    }

    /// Another line behind this one.
    #[must_use]
    pub(crate) fn then(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// How many columns it takes.
    pub(crate) fn width(&self) -> usize {
        self.0.iter().flat_map(|(_, text)| text.chars()).map(columns).sum()
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
        let (mut kept, mut room) = (Vec::new(), width.saturating_sub(columns(ELLIPSIS)));
        for (tone, text) in self.0 {
            let mut part = String::new();
            for c in text.chars() {
                if columns(c) > room {
                    part.extend((width > 0).then_some(ELLIPSIS));
                    kept.push((tone, part));
                    return Self(kept);
                }
                room -= columns(c);
                part.push(c);
            }
            kept.push((tone, part));
        }
        Self(kept)
    }

    /// The text, with colours or without.
    pub(crate) fn paint(&self, colors: bool) -> String {
        let paint = |(tone, text): &(Tone, String)| match tone.code() {
            code if colors && !code.is_empty() && !text.is_empty() => {
                format!("{code}{text}{RESET}")
            }
            _ => text.clone(),
        };
        let painted: String = self.0.iter().map(paint).collect();
        // Nobody sees what pads the last column.
        if colors { painted } else { painted.trim_end().to_owned() }
    }
}

/// Lines of at most `width` columns, broken between words, each after `indent`.
pub(crate) fn wrapped(text: &str, indent: &str, width: Option<usize>) -> Vec<Line> {
    let text = clean(text);
    let room = width.map_or(usize::MAX, |width| width.saturating_sub(indent.len()).max(20));
    let (mut lines, mut line, mut taken) = (Vec::new(), String::new(), 0_usize);
    for word in text.split_whitespace() {
        let wide: usize = word.chars().map(columns).sum();
        if taken > 0 && taken.saturating_add(1 + wide) > room {
            lines.push(Line::plainly(&format!("{indent}{line}")));
            (line, taken) = (String::new(), 0);
        }
        if taken > 0 {
            line.push(' ');
            taken += 1;
        }
        line.push_str(word);
        taken += wide;
    }
    if taken > 0 {
        lines.push(Line::plainly(&format!("{indent}{line}")));
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
    fn words_are_wrapped_and_kept_whole() {
        let wrap = |text: &str, width| -> Vec<String> {
            wrapped(text, "  ", width).iter().map(|line| line.paint(false)).collect()
        };
        let text = "one two three four five six seven";
        assert_eq!(wrap(text, None), ["  one two three four five six seven"]);
        assert_eq!(wrap(text, Some(24)), ["  one two three four", "  five six seven"]);
        let long = "x".repeat(30);
        assert_eq!(wrap(&format!("a {long}"), Some(24)), ["  a", &format!("  {long}")]);
        assert!(wrap("", None).is_empty());
    }

    #[test]
    fn padding_counts_columns_and_is_not_printed_at_the_end() {
        let line = Line::plainly("漢").padded(4);
        assert_eq!(line.width(), 4);
        assert_eq!(line.clone().plain("|").paint(false), "漢  |");
        assert_eq!(line.paint(false), "漢");
    }
}
