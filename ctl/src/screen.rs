//! Where lines go: a terminal, a file, a pipe.

use std::fmt;
use std::io::{self, IsTerminal as _, Write};

use crate::text::{Line, clean_json};

/// How lines are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Style {
    /// Whether it is a terminal, which can be redrawn. Lines are as wide as it is.
    pub terminal: bool,
    /// Whether there are colours.
    pub colors: bool,
}

/// A terminal's columns and rows.
type Size = Option<(usize, usize)>;

/// Where lines go.
pub struct Screen<'a> {
    out: Box<dyn Write + 'a>,
    style: Style,
    /// It is asked at every picture: windows change.
    size: fn() -> Size,
    drawn: bool,
    /// Where notes go; none for the process's own output for errors.
    notes: Option<Box<dyn Write + 'a>>,
}

impl fmt::Debug for Screen<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Screen").field("style", &self.style).finish_non_exhaustive()
    }
}

impl<'a> Screen<'a> {
    /// The process's own output.
    pub fn of_stdout() -> Self {
        let size = || size_of(io::stdout());
        Self::of_stream(io::stdout(), io::stdout().is_terminal(), size)
    }

    /// The process's own output for errors.
    pub fn of_stderr() -> Self {
        let size = || size_of(io::stderr());
        Self::of_stream(io::stderr(), io::stderr().is_terminal(), size)
    }

    fn of_stream(out: impl Write + 'a, terminal: bool, size: fn() -> Size) -> Self {
        // https://no-color.org: set and not empty. A dumb terminal knows no codes at all.
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let terminal = terminal && !dumb;
        let style = Style { terminal, colors: terminal && !no_color };
        Self { out: Box::new(out), style, size, drawn: false, notes: None }
    }

    /// Another place, of no known size.
    pub fn new(out: impl Write + 'a, style: Style) -> Self {
        Self { out: Box::new(out), style, size: || None, drawn: false, notes: None }
    }

    /// The same, with another place for notes than the process's output for errors.
    #[must_use]
    pub fn with_notes(self, notes: impl Write + 'a) -> Self {
        Self { notes: Some(Box::new(notes)), ..self }
    }

    /// Whether it can be redrawn.
    pub fn is_terminal(&self) -> bool {
        self.style.terminal
    }

    /// How wide lines may be.
    pub(crate) fn width(&self) -> Option<usize> {
        (self.size)().filter(|_| self.style.terminal).map(|(columns, _)| columns)
    }

    /// Appends lines. They may be longer than the terminal is wide: it breaks them.
    pub(crate) fn print(&mut self, lines: &[Line]) -> io::Result<()> {
        for line in lines {
            writeln!(self.out, "{}", line.paint(self.style.colors))?;
        }
        self.out.flush()
    }

    /// Appends lines, each cut to the width, commands excepted.
    pub(crate) fn print_cut(&mut self, lines: Vec<Line>) -> io::Result<()> {
        let width = self.width().unwrap_or(usize::MAX);
        let lines: Vec<_> = lines.into_iter().map(|line| line.fitted(width)).collect();
        self.print(&lines)
    }

    /// Says something beside the output, which a script may read: what fails
    /// while a command goes on.
    pub(crate) fn note(&mut self, lines: &[Line]) {
        // There is nowhere left to say that it could not be said.
        let _ = match &mut self.notes {
            Some(notes) => Screen::new(notes, Style::default()).print(lines),
            None => Screen::of_stderr().print(lines),
        };
    }

    /// Appends JSON.
    pub(crate) fn print_json(&mut self, json: &str) -> io::Result<()> {
        writeln!(self.out, "{}", clean_json(json))?;
        self.out.flush()
    }

    /// Puts lines in place of what the terminal shows, and `last` below them.
    /// Lines that have no room are left out, and said to be.
    pub(crate) fn redraw(&mut self, lines: Vec<Line>, last: Line) -> io::Result<()> {
        let (columns, rows) = (self.size)().unwrap_or((usize::MAX, usize::MAX));
        // One row is for the last line, one for the cursor.
        let room = rows.saturating_sub(2).max(2);
        let mut lines: Vec<_> = lines.into_iter().flat_map(|line| line.rows(columns)).collect();
        if lines.len() > room {
            let hidden = lines.len() - (room - 1);
            lines.truncate(room - 1);
            lines.push(Line::plainly(&format!("… {hidden} lines more: make the window higher")));
        }
        lines.push(last);
        // Home; each line clears what was behind it, the end what was below.
        // Only the first picture clears everything, so that nothing flickers.
        let start = if self.drawn { "\x1b[H" } else { "\x1b[2J\x1b[H" };
        let mut picture = start.to_owned();
        for line in lines {
            let line = line.cut(columns);
            picture.push_str(&line.paint(self.style.colors));
            // Behind a full line there is nothing to clear, and the cursor still
            // stands on its last letter.
            let clear = if line.width() < columns { "\x1b[K" } else { "" };
            picture.push_str(clear);
            picture.push('\n');
        }
        picture.push_str("\x1b[J");
        self.drawn = true;
        self.out.write_all(picture.as_bytes())?;
        self.out.flush()
    }
}

fn size_of(stream: impl std::os::fd::AsFd) -> Size {
    let size = rustix::termios::tcgetwinsize(stream).ok()?;
    (size.ws_col > 0 && size.ws_row > 0).then(|| (size.ws_col.into(), size.ws_row.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::Tone;

    fn shown(style: Style, size: fn() -> Size, show: impl Fn(&mut Screen<'_>)) -> String {
        let mut out = Vec::new();
        let mut screen = Screen { size, ..Screen::new(&mut out, style) };
        show(&mut screen);
        drop(screen);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_pipe_sees_whole_lines_without_colours() {
        let line = || Line::new(Tone::Bad, "a long line");
        let style = Style::default();
        let said = shown(style, || Some((4, 4)), |s| s.print_cut(vec![line()]).unwrap());
        assert_eq!(said, "a long line\n");
        let style = Style { terminal: true, colors: true };
        let said = shown(style, || Some((4, 4)), |s| s.print_cut(vec![line()]).unwrap());
        assert_eq!(said, "\x1b[31ma l…\x1b[0m\n");
    }

    #[test]
    fn a_picture_is_put_over_the_last_one_and_fits() {
        let style = Style { terminal: true, colors: false };
        let last = || Line::plainly("last");
        let lines = || (0..9).map(|n| Line::plainly(&format!("line {n}"))).collect();
        let said = shown(
            style,
            || Some((40, 5)),
            |screen| {
                screen.redraw(lines(), last()).unwrap();
                screen.redraw(vec![Line::plainly("one")], last()).unwrap();
            },
        );
        let first = "\x1b[2J\x1b[Hline 0\x1b[K\nline 1\x1b[K\n";
        let rest = "… 7 lines more: make the window higher\x1b[K\nlast\x1b[K\n\x1b[J";
        assert_eq!(said, format!("{first}{rest}\x1b[Hone\x1b[K\nlast\x1b[K\n\x1b[J"));
    }

    #[test]
    fn a_full_line_keeps_its_last_letter_and_a_command_all_of_its_words() {
        let style = Style { terminal: true, colors: false };
        let words = ["one", "two", "three"].map(str::to_owned);
        let lines = || vec![Line::plainly("123456789"), Line::command("", &words)];
        let said = shown(
            style,
            || Some((9, 9)),
            |screen| screen.redraw(lines(), Line::plainly("last")).unwrap(),
        );
        let picture = "123456789\none two \\\n    three\nlast\x1b[K\n\x1b[J";
        assert_eq!(said, format!("\x1b[2J\x1b[H{}", picture));
        let said = shown(style, || Some((9, 9)), |s| s.print_cut(lines()).unwrap());
        assert_eq!(said, "123456789\none two three\n");
    }

    #[test]
    fn notes_go_beside_the_output() {
        let (mut out, mut notes) = (Vec::new(), Vec::new());
        let mut screen = Screen::new(&mut out, Style::default()).with_notes(&mut notes);
        screen.note(&[Line::new(Tone::Bad, "a note")]);
        screen.print(&[Line::plainly("a line")]).unwrap();
        drop(screen);
        assert_eq!((&out[..], &notes[..]), (&b"a line\n"[..], &b"a note\n"[..]));
    }
}
