//! Markdown tables.
//!
//! Owns the pipes and the rounding. Must not know what a column means.

use std::fmt::Write as _;

/// A table under construction.
pub(crate) struct Table {
    text: String,
}

impl Table {
    /// Starts with a header; the first column is text, the others are numbers.
    pub(crate) fn new<const N: usize>(header: [&str; N]) -> Self {
        let mut table = Self { text: String::new() };
        table.row(header.map(str::to_owned));
        table.text.push_str("|---|");
        table.text.push_str(&"---:|".repeat(N.saturating_sub(1)));
        table.text.push('\n');
        table
    }

    /// Further rows, to stand behind another table.
    pub(crate) const fn rows() -> Self {
        Self { text: String::new() }
    }

    /// Adds a row.
    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        for cell in cells {
            // Writing to a String cannot fail.
            let _ = write!(self.text, "| {cell} ");
        }
        self.text.push_str("|\n");
    }

    /// The finished text.
    pub(crate) fn finish(self) -> String {
        self.text
    }
}

/// Three significant digits, or a dash.
pub(crate) fn number(value: Option<f64>) -> String {
    match value {
        None => "–".to_owned(),
        Some(value) if value >= 100.0 => format!("{value:.0}"),
        Some(value) if value >= 10.0 => format!("{value:.1}"),
        Some(value) => format!("{value:.2}"),
    }
}

/// A ratio, with a mark if it is above the limit.
pub(crate) fn ratio(value: Option<f64>, limit: f64) -> String {
    match value {
        None => "–".to_owned(),
        // What rounds to the limit is at the limit.
        Some(value) if value >= limit + 0.005 => format!("**{value:.2}** (limit {limit})"),
        Some(value) => format!("{value:.2}"),
    }
}
