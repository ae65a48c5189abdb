//! How are results shown: a markdown table for people, JSON for programs?

use crate::scenario::Scenario;
use crate::stats::Estimate;
use serde::Serialize;
use std::fmt::Write;

/// The results of one scenario.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Its name.
    pub scenario: &'static str,
    /// What was asked of whom.
    pub what: &'static str,
    /// Headings.
    pub columns: Vec<&'static str>,
    /// One row for each entrant.
    pub rows: Vec<Vec<Cell>>,
    /// What a reader must know.
    pub notes: Vec<String>,
}

/// A value of a row.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Cell {
    /// A name.
    Text(String),
    /// A count.
    Count(u64),
    /// A number shown with so many digits after the point.
    Number(f64, usize),
    /// Median and least, in the same unit.
    MedianLeast(f64, f64),
    /// A ratio with its interval.
    Ratio(Estimate),
    /// Not measured.
    Nothing,
}

impl Cell {
    fn shown(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Count(count) => count.to_string(),
            Self::Number(number, digits) => format!("{number:.digits$}"),
            Self::MedianLeast(median, least) => format!("{median:.1} [{least:.1}]"),
            Self::Ratio(ratio) => format!("{:.2} ({:.2}-{:.2})", ratio.median, ratio.low, ratio.high),
            Self::Nothing => "-".to_owned(),
        }
    }
}

impl Report {
    /// Of a scenario that could not be measured.
    pub fn failed(scenario: &Scenario, what: String) -> Self {
        let notes = vec![format!("NOT MEASURED: {what}")];
        Self { scenario: scenario.name, what: scenario.what, columns: Vec::new(), rows: Vec::new(), notes }
    }

    /// As markdown.
    pub fn markdown(&self) -> String {
        let mut text = format!("### {}\n\n{}\n\n", self.scenario, self.what);
        if self.rows.is_empty() {
            return text + &self.notes.join("\n") + "\n";
        }
        let row = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
        text += &row(self.columns.iter().map(|&column| column.to_owned()).collect());
        text += &row(self
            .columns
            .iter()
            .enumerate()
            .map(|(at, _)| if at < 2 { "---" } else { "--:" }.to_owned())
            .collect());
        for cells in &self.rows {
            text += &row(cells.iter().map(Cell::shown).collect());
        }
        text.push('\n');
        for note in &self.notes {
            writeln!(text, "- {note}").expect("a string takes all");
        }
        text
    }
}
