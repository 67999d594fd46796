//! Tables for people.

/// Rows below a heading, in columns as wide as they need; the last one runs on.
#[derive(Debug)]
pub(super) struct Table {
    rows: Vec<Vec<Cell>>,
}

/// One cell.
#[derive(Debug, Clone)]
pub(super) struct Cell {
    text: String,
    /// The SGR parameter of its colour.
    colour: Option<u8>,
}

/// The colours that mean something.
pub(super) const RED: u8 = 31;
pub(super) const GREEN: u8 = 32;
pub(super) const YELLOW: u8 = 33;

impl Cell {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self { text: plain(&text.into()), colour: None }
    }

    pub(super) fn coloured(text: impl Into<String>, colour: Option<u8>) -> Self {
        Self { colour, ..Self::new(text) }
    }

    /// The text, as wide as its column and the gap to the next one.
    fn padded(&self, width: usize, colour: bool) -> String {
        let padding = " ".repeat(width - self.text.chars().count() + 2);
        match self.colour.filter(|_| colour) {
            Some(parameter) => format!("\u{1b}[{parameter}m{}\u{1b}[0m{padding}", self.text),
            None => format!("{}{padding}", self.text),
        }
    }
}

impl Table {
    pub(super) fn new(heading: &[&str]) -> Self {
        Self { rows: vec![heading.iter().map(|word| Cell::new(*word)).collect()] }
    }

    pub(super) fn row(&mut self, cells: Vec<Cell>) {
        self.rows.push(cells);
    }

    pub(super) fn render(&self, colour: bool) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or_default();
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.text.chars().count()).max().unwrap_or_default()
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let lines = self.rows.iter().map(|row| {
            let cells = row.iter().zip(&widths).map(|(cell, width)| cell.padded(*width, colour));
            let line: String = cells.collect();
            format!("{}\n", line.trim_end())
        });
        lines.collect::<Vec<String>>().concat()
    }
}

/// A text without what a terminal would obey: what stands in a cell may come from anybody.
pub(super) fn plain(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_they_need_and_colour_is_not_counted() {
        let mut table = Table::new(&["id", "state", "note"]);
        table.row(vec![Cell::new("ä"), Cell::coloured("done", Some(GREEN)), Cell::new("")]);
        table.row(vec![Cell::new("longer"), Cell::new("failed"), Cell::new("a\u{1b}[2Jb\nc")]);
        let plain = "id      state   note\nä       done\nlonger  failed  a [2Jb c\n";
        assert_eq!(table.render(false), plain);
        let coloured = table.render(true);
        assert_eq!(
            coloured.replace("\u{1b}[32m", "").replace("\u{1b}[0m", ""),
            plain.replace("done\n", "done    \n").replace("    \n", "\n")
        );
    }
}
