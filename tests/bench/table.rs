//! The table: what was measured, what is to be reached, and whether it is.

use std::fmt;

/// Rows in the order in which they were measured.
#[derive(Default)]
pub(crate) struct Table {
    rows: Vec<Row>,
}

struct Row {
    measure: String,
    figure: String,
    reach: String,
    is_reached: bool,
}

impl Table {
    /// Adds a row, and shows it at once to whoever waits.
    pub(crate) fn add(
        &mut self,
        measure: impl Into<String>,
        figure: impl Into<String>,
        reach: impl Into<String>,
        is_reached: bool,
    ) {
        let row = Row {
            measure: measure.into(),
            figure: figure.into(),
            reach: reach.into(),
            is_reached,
        };
        eprintln!("{row}");
        self.rows.push(row);
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reached = match self.is_reached {
            true => "yes",
            false => "**no**",
        };
        let Row {
            measure,
            figure,
            reach,
            ..
        } = self;
        write!(f, "| {measure} | {figure} | {reach} | {reached} |")
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| measure | figure | reach | reached |")?;
        write!(f, "|---|---|---|---|")?;
        self.rows.iter().try_for_each(|row| write!(f, "\n{row}"))
    }
}

/// The value below which this part of all values lies; 0.5 gives the median.
pub(crate) fn quantile(values: &[f64], part: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let place = (part * sorted.len() as f64).ceil() as usize;
    sorted[place.clamp(1, sorted.len()) - 1]
}
