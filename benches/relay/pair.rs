//! Two columns of samples, ours and PgBouncer's, and the rows made of them.
//!
//! Owns which way a limit counts. Must not know what is measured.

use crate::median::{median, median_ratio};
use crate::table::{number, ratio};

/// Samples of both sides, taken side by side.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pair {
    ours: Vec<f64>,
    theirs: Vec<f64>,
}

impl Pair {
    pub(crate) fn push(&mut self, ours: f64, theirs: f64) {
        self.ours.push(ours);
        self.theirs.push(theirs);
    }

    /// Both medians.
    pub(crate) fn medians(&self) -> [String; 2] {
        [number(median(&self.ours)), number(median(&self.theirs))]
    }

    /// Our median with a mark where it is above `limit`, and theirs.
    pub(crate) fn medians_within(&self, limit: f64) -> [String; 2] {
        [at_most(median(&self.ours), limit), number(median(&self.theirs))]
    }

    /// The ratio, with a mark if it is above `limit`.
    pub(crate) fn ratio(&self, limit: f64) -> String {
        ratio(median_ratio(&self.ours, &self.theirs), limit)
    }

    /// The ratio, with a mark if it is below `limit`.
    pub(crate) fn ratio_at_least(&self, limit: f64) -> String {
        match median_ratio(&self.ours, &self.theirs) {
            Some(value) if value <= limit - 0.005 => format!("**{value:.2}** (wanted {limit})"),
            value => number(value),
        }
    }
}

/// A number, with a mark if it is above the limit.
pub(crate) fn at_most(value: Option<f64>, limit: f64) -> String {
    match value {
        Some(above) if above > limit => format!("**{}** (limit {limit})", number(value)),
        value => number(value),
    }
}
