//! Columns, as kubectl sets them.

use crate::text::{Line, Tone};

/// Between two columns.
const GAP: usize = 3;

/// Rows below their titles. A column in which no row says anything is left out;
/// the last one is cut by whoever knows how wide the terminal is.
pub(crate) fn table(titles: &[&str], rows: &[Vec<Line>]) -> Vec<Line> {
    let width = |at: usize| rows.iter().filter_map(|row| row.get(at)).map(Line::width).max();
    let shown: Vec<_> = titles
        .iter()
        .enumerate()
        .filter_map(|(at, title)| Some((at, *title, width(at).filter(|width| *width > 0)?)))
        .map(|(at, title, width)| (at, title, width.max(title.len())))
        .collect();
    let set = |cell: &dyn Fn(usize, &str) -> Line| {
        shown.iter().enumerate().fold(Line::default(), |line, (place, (at, title, width))| {
            // Nothing stands behind the last one.
            let width = if place + 1 == shown.len() { 0 } else { width + GAP };
            line.then(cell(*at, title).padded(width))
        })
    };
    let head = set(&|_, title| Line::new(Tone::Strong, title));
    let body = rows.iter().map(|row| set(&|at, _| row.get(at).cloned().unwrap_or_default()));
    std::iter::once(head).chain(body).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_what_is_in_them_and_empty_ones_are_left_out() {
        let row = |cells: [&str; 3]| cells.iter().map(|cell| Line::plainly(cell)).collect();
        let rows: Vec<Vec<Line>> = vec![row(["a", "", "漢字"]), row(["long name", "", "x"])];
        let lines: Vec<_> =
            table(&["NAME", "NONE", "LAST"], &rows).iter().map(|line| line.paint(false)).collect();
        assert_eq!(lines, ["NAME        LAST", "a           漢字", "long name   x"]);
    }
}
