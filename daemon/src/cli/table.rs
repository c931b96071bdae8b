//! Aligned columns.

/// A table with a header; columns are as wide as they must be.
#[derive(Debug)]
pub(super) struct Table {
    rows: Vec<Vec<String>>,
}

/// Between two columns.
const GAP: usize = 3;

impl Table {
    /// An empty table.
    pub(super) fn new(header: &[&str]) -> Self {
        Self {
            rows: vec![header.iter().map(|&name| name.to_owned()).collect()],
        }
    }

    /// Adds a row; an empty cell is shown as `-`.
    pub(super) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows
            .push(cells.into_iter().map(|cell| shown(&cell)).collect());
    }

    /// The text, one line per row.
    pub(super) fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                line.push_str(cell);
                let missing = width - cell.chars().count() + GAP;
                line.extend(std::iter::repeat_n(' ', missing));
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// Names come from whoever made the pod: control characters must not reach a terminal.
fn shown(cell: &str) -> String {
    if cell.is_empty() {
        return "-".to_owned();
    }
    cell.chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let mut table = Table::new(&["NAME", "STATE", "IP"]);
        table.row(["web".into(), "ready".into(), "10.88.0.2".into()]);
        table.row(["a-much-longer-name".into(), String::new(), String::new()]);
        table.row(["ünïcode".into(), "not ready".into(), "fd00::1".into()]);
        insta::assert_snapshot!(table.render(), @r"
        NAME                 STATE       IP
        web                  ready       10.88.0.2
        a-much-longer-name   -           -
        ünïcode              not ready   fd00::1
        ");
    }

    #[test]
    fn a_table_without_rows_is_its_header() {
        assert_eq!(Table::new(&["A", "B"]).render(), "A   B\n");
    }

    #[test]
    fn a_name_cannot_steer_the_terminal() {
        let mut table = Table::new(&["NAME"]);
        table.row(["a\x1b[2Jb\nc".into()]);
        assert_eq!(table.render(), "NAME\na?[2Jb?c\n");
    }
}
