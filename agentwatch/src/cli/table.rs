//! Tables of text: as wide as their content, or as the terminal allows.

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

/// A column: its title and its manner.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// Above it.
    pub title: &'static str,
    /// How its cells are set.
    pub set: Set,
}

/// How cells are set in their column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Set {
    /// To the left.
    Left,
    /// To the right, as numbers are.
    Right,
    /// To the left, and cut first where the terminal is narrow.
    Cut,
}

/// Cells of columns that are cut keep this many columns of the terminal.
const LEAST_WIDTH: usize = 10;
const BETWEEN: &str = "  ";

/// Writes a table of cells that are safe for a terminal already. With a `width` it fits in where cutting
/// allows that; what is cut ends in `…`.
#[must_use]
pub fn table(columns: &[Column], rows: &[Vec<String>], width: Option<usize>) -> String {
    let widths = widths(columns, rows, width);
    let titles = columns.iter().map(|column| column.title);
    let mut text = line(columns, &widths, titles);
    for row in rows {
        text.push_str(&line(columns, &widths, row.iter().map(String::as_str)));
    }
    text
}

fn widths(columns: &[Column], rows: &[Vec<String>], width: Option<usize>) -> Vec<usize> {
    let cells = |index: usize| {
        rows.iter().filter_map(move |row: &Vec<String>| row.get(index)).map(|cell: &String| cell.width())
    };
    let mut widths: Vec<usize> = columns
        .iter()
        .enumerate()
        .map(|(index, column)| cells(index).max().unwrap_or(0).max(column.title.width()))
        .collect();
    let total = widths.iter().sum::<usize>() + BETWEEN.len() * widths.len().saturating_sub(1);
    let mut excess = width.map_or(0, |width| total.saturating_sub(width));
    for (column, width) in columns.iter().zip(&mut widths).rev() {
        if column.set == Set::Cut {
            let cut = excess.min(width.saturating_sub(LEAST_WIDTH.max(column.title.width())));
            *width -= cut;
            excess -= cut;
        }
    }
    widths
}

fn line<'a>(columns: &[Column], widths: &[usize], cells: impl Iterator<Item = &'a str>) -> String {
    let mut line = String::new();
    for ((column, &width), cell) in columns.iter().zip(widths).zip(cells) {
        let cell = cut(cell, width);
        let space = " ".repeat(width.saturating_sub(cell.width()));
        let (before, after) =
            if column.set == Set::Right { (space.as_str(), "") } else { ("", space.as_str()) };
        for part in [before, &cell, after, BETWEEN] {
            line.push_str(part);
        }
    }
    line.truncate(line.trim_end().len());
    line.push('\n');
    line
}

/// The text, or as much of it as fits in `width` columns with `…` behind it.
#[must_use]
pub fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut left = width.saturating_sub(1);
    let fits = |character: &char| {
        let rest = left.checked_sub(character.width().unwrap_or(0));
        left = rest.unwrap_or(left);
        rest.is_some()
    };
    let mut kept: String = text.chars().take_while(fits).collect();
    kept.push('…');
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: &[Column] = &[
        Column { title: "NAME", set: Set::Left },
        Column { title: "WHY", set: Set::Cut },
        Column { title: "COUNT", set: Set::Right },
    ];

    fn rows() -> Vec<Vec<String>> {
        let row =
            |name: &str, why: &str, count: &str| vec![name.to_owned(), why.to_owned(), count.to_owned()];
        vec![row("aä", "exec **/some/long/pattern", "7"), row("日本", "-", "12345678")]
    }

    #[test]
    fn without_a_terminal_nothing_is_cut() {
        let wanted = "NAME  WHY                           COUNT\n\
                      aä    exec **/some/long/pattern         7\n\
                      日本  -                          12345678\n";
        assert_eq!(table(COLUMNS, &rows(), None), wanted);
        assert_eq!(table(COLUMNS, &rows(), Some(200)), wanted);
    }

    #[test]
    fn on_a_narrow_terminal_the_patient_columns_are_cut() {
        let wanted = "NAME  WHY            COUNT\n\
                      aä    exec **/s…         7\n\
                      日本  -           12345678\n";
        assert_eq!(table(COLUMNS, &rows(), Some(26)), wanted);
        assert_eq!(table(COLUMNS, &rows(), Some(3)), wanted, "no further than this");
    }

    #[test]
    fn a_text_is_cut_between_characters() {
        assert_eq!(cut("日本語", 5), "日本…");
        assert_eq!(cut("日本語", 4), "日…");
        assert_eq!(cut("abc", 3), "abc");
        assert_eq!(cut("abc", 0), "…");
    }
}
