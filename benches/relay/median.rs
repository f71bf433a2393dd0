//! Medians, and ratios of runs that were made side by side.
//!
//! Owns the arithmetic. Must not know what the numbers mean.

/// The median; the mean of the middle two if their number is even; `None` of nothing.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = *sorted.get(sorted.len() / 2)?;
    let lower = *sorted.get(sorted.len().checked_sub(1)? / 2)?;
    Some(f64::midpoint(lower, upper))
}

/// The median of `ours[i] / theirs[i]`: each ratio compares two runs made one after the other, so that a slow minute
/// of the machine hits both.
pub(crate) fn median_ratio(ours: &[f64], theirs: &[f64]) -> Option<f64> {
    let ratios: Vec<f64> = ours
        .iter()
        .zip(theirs)
        .filter(|(_, theirs)| **theirs > 0.0)
        .map(|(ours, theirs)| ours / theirs)
        .collect();
    median(&ratios)
}

/// The value below which `per_mille` of 1,000 lie (nearest rank); `None` of nothing.
pub(crate) fn percentile(values: &mut [u64], per_mille: usize) -> Option<u64> {
    let last = values.len().checked_sub(1)?;
    values.sort_unstable();
    values.get((values.len() * per_mille / 1_000).min(last)).copied()
}
