//! The exposition's text: families, samples, labels, numbers.
//!
//! Owns the two dialects and the escaping; every series of the proxy is written here, so that one rule holds for
//! all. Must not know what is measured.

use std::fmt::Write as _;

use crate::stats::{WAIT_BOUNDS_US, WaitHistogram};

/// Which text the scraper asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::telemetry) enum Dialect {
    /// Prometheus text format 0.0.4.
    Prometheus,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Dialect {
    /// The media type of a response.
    pub(in crate::telemetry) const fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// What kind of numbers a family holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Only rises; its name ends in `_total`.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Always 1, the labels carry the fact; its name ends in `_info`.
    Info,
    /// Buckets, sum and count.
    Histogram,
}

/// A metric family. The name is that of its samples (for a histogram, without the suffixes).
#[derive(Clone, Copy, Debug)]
pub(super) struct Family {
    /// Name of the samples.
    pub(super) name: &'static str,
    /// Kind.
    pub(super) kind: Kind,
    /// One sentence without a line break.
    pub(super) help: &'static str,
}

impl Family {
    /// A counter.
    pub(super) const fn counter(name: &'static str, help: &'static str) -> Self {
        Self { name, kind: Kind::Counter, help }
    }

    /// A gauge.
    pub(super) const fn gauge(name: &'static str, help: &'static str) -> Self {
        Self { name, kind: Kind::Gauge, help }
    }
}

/// A sample's value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Value {
    /// A whole number.
    Count(u64),
    /// Microseconds, printed as seconds without rounding.
    Micros(u64),
    /// Any other number.
    Number(f64),
}

impl Value {
    /// Whether nothing has been counted.
    pub(super) const fn is_zero(&self) -> bool {
        match self {
            Self::Count(count) | Self::Micros(count) => *count == 0,
            Self::Number(number) => *number == 0.0,
        }
    }
}

impl From<bool> for Value {
    fn from(holds: bool) -> Self {
        Self::Count(u64::from(holds))
    }
}

/// Labels of a sample, in the order printed.
pub(super) type Labels<'a> = &'a [(&'a str, &'a str)];

/// Appends families and samples to a text.
#[derive(Debug)]
pub(super) struct TextWriter {
    dialect: Dialect,
    out: String,
}

impl TextWriter {
    /// An empty text.
    pub(super) const fn new(dialect: Dialect) -> Self {
        Self { dialect, out: String::new() }
    }

    /// How many bytes wait to be taken.
    pub(super) const fn len(&self) -> usize {
        self.out.len()
    }

    /// Begins a family; its samples follow without another family between them.
    pub(super) fn family(&mut self, family: &Family) {
        self.header(family.name, family.kind, family.help);
    }

    /// Begins a family whose texts are not known at compile time.
    pub(super) fn header(&mut self, name: &str, kind: Kind, help: &str) {
        let (name, word) = match (self.dialect, kind) {
            (Dialect::OpenMetrics, Kind::Counter) => (name.strip_suffix("_total").unwrap_or(name), "counter"),
            (Dialect::OpenMetrics, Kind::Info) => (name.strip_suffix("_info").unwrap_or(name), "info"),
            (Dialect::Prometheus, Kind::Counter) => (name, "counter"),
            (Dialect::Prometheus, Kind::Info) | (_, Kind::Gauge) => (name, "gauge"),
            (_, Kind::Histogram) => (name, "histogram"),
        };
        for part in ["# HELP ", name, " ", help, "\n# TYPE ", name, " ", word, "\n"] {
            self.out.push_str(part);
        }
    }

    /// One sample of the family begun last.
    pub(super) fn sample(&mut self, name: &str, labels: Labels<'_>, value: Value) {
        self.out.push_str(name);
        self.labels(labels);
        self.out.push(' ');
        self.value(value);
        self.out.push('\n');
    }

    /// A family with one sample and no labels.
    pub(super) fn single(&mut self, family: &Family, value: Value) {
        self.family(family);
        self.sample(family.name, &[], value);
    }

    /// The samples of one wait histogram.
    pub(super) fn wait_histogram(&mut self, name: &str, label: (&str, &str), histogram: &WaitHistogram) {
        let bucket = format!("{name}_bucket");
        let mut cumulative = 0_u64;
        for (index, count) in histogram.counts.iter().enumerate() {
            cumulative = cumulative.saturating_add(*count);
            let bound =
                WAIT_BOUNDS_US.get(index).map_or_else(|| "+Inf".to_owned(), |bound| bound_text(*bound));
            self.sample(&bucket, &[label, ("le", &bound)], Value::Count(cumulative));
        }
        self.sample(&format!("{name}_sum"), &[label], Value::Micros(histogram.sum_us));
        self.sample(&format!("{name}_count"), &[label], Value::Count(cumulative));
    }

    /// What was written since the last time; the writer goes on.
    pub(super) fn take(&mut self) -> String {
        std::mem::take(&mut self.out)
    }

    /// Ends the exposition.
    pub(super) fn end(&mut self) {
        if self.dialect == Dialect::OpenMetrics {
            self.out.push_str("# EOF\n");
        }
    }

    fn labels(&mut self, labels: Labels<'_>) {
        let mut opening = '{';
        for (name, value) in labels {
            self.out.push(opening);
            self.out.push_str(name);
            self.out.push_str("=\"");
            self.escaped(value);
            self.out.push('"');
            opening = ',';
        }
        if !labels.is_empty() {
            self.out.push('}');
        }
    }

    /// Both dialects escape the same three characters.
    fn escaped(&mut self, value: &str) {
        let mut rest = value;
        while let Some((plain, after)) = rest.split_once(['\\', '"', '\n']) {
            self.out.push_str(plain);
            self.out.push_str(match rest.as_bytes().get(plain.len()) {
                Some(b'\\') => r"\\",
                Some(b'"') => "\\\"",
                _ => r"\n",
            });
            rest = after;
        }
        self.out.push_str(rest);
    }

    fn value(&mut self, value: Value) {
        match value {
            Value::Count(count) => self.out.push_str(itoa::Buffer::new().format(count)),
            Value::Micros(micros) => {
                self.out.push_str(itoa::Buffer::new().format(micros / MICROS));
                let fraction = micros % MICROS;
                if fraction > 0 {
                    // Writing to a String cannot fail.
                    let _ = write!(self.out, ".{fraction:06}");
                }
            }
            Value::Number(number) if number.is_nan() => self.out.push_str("NaN"),
            Value::Number(number) if number.is_infinite() => {
                self.out.push_str(if number.is_sign_positive() { "+Inf" } else { "-Inf" });
            }
            Value::Number(number) => {
                let _ = write!(self.out, "{number}");
            }
        }
    }
}

const MICROS: u64 = 1_000_000;

/// A bucket's bound in seconds, always with a decimal point: OpenMetrics wants `1.0`, and one spelling in both
/// dialects keeps a bucket one series when a scraper changes its mind.
fn bound_text(bound_us: u64) -> String {
    let fraction = format!("{:06}", bound_us % MICROS);
    let digits = fraction.trim_end_matches('0');
    format!("{}.{}", bound_us / MICROS, if digits.is_empty() { "0" } else { digits })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(dialect: Dialect, labels: Labels<'_>, value: Value) -> String {
        let mut text = TextWriter::new(dialect);
        text.sample("x", labels, value);
        text.take()
    }

    #[test]
    fn labels_are_escaped() {
        let hostile = "a\"} 1\nevil{b=\"\\";
        let line = sample(Dialect::Prometheus, &[("tenant", hostile), ("state", "é\r\t")], Value::Count(1));
        assert_eq!(line, "x{tenant=\"a\\\"} 1\\nevil{b=\\\"\\\\\",state=\"é\r\t\"} 1\n");
    }

    #[test]
    fn microseconds_are_printed_exactly() {
        let printed = |us| sample(Dialect::Prometheus, &[], Value::Micros(us));
        assert_eq!(printed(0), "x 0\n");
        assert_eq!(printed(1), "x 0.000001\n");
        assert_eq!(printed(3_000_000), "x 3\n");
        assert_eq!(printed(u64::MAX), "x 18446744073709.551615\n");
    }

    #[test]
    fn numbers_that_are_not_finite_have_their_own_spelling() {
        assert_eq!(sample(Dialect::Prometheus, &[], Value::Number(f64::NAN)), "x NaN\n");
        assert_eq!(sample(Dialect::Prometheus, &[], Value::Number(f64::NEG_INFINITY)), "x -Inf\n");
        assert_eq!(sample(Dialect::Prometheus, &[], Value::Number(0.25)), "x 0.25\n");
    }

    #[test]
    fn openmetrics_names_the_family_without_its_suffix() {
        let mut text = TextWriter::new(Dialect::OpenMetrics);
        text.single(&Family::counter("a_total", "An a."), Value::Count(2));
        text.end();
        assert_eq!(text.take(), "# HELP a An a.\n# TYPE a counter\na_total 2\n# EOF\n");
        let mut text = TextWriter::new(Dialect::Prometheus);
        text.single(&Family::counter("a_total", "An a."), Value::Count(2));
        text.end();
        assert_eq!(text.take(), "# HELP a_total An a.\n# TYPE a_total counter\na_total 2\n");
    }

    #[test]
    fn bucket_bounds_have_a_decimal_point() {
        assert_eq!(bound_text(100), "0.0001");
        assert_eq!(bound_text(1_000_000), "1.0");
        assert_eq!(bound_text(2_500_000), "2.5");
    }

    #[test]
    fn a_histogram_is_cumulative_and_ends_in_its_count() {
        let mut histogram = WaitHistogram::default();
        for wait in [50, 200, 200, 9_000_000] {
            histogram.observe(wait);
        }
        let mut text = TextWriter::new(Dialect::Prometheus);
        text.wait_histogram("w", ("tier", "hot"), &histogram);
        let text = text.take();
        assert!(text.starts_with(
            "w_bucket{tier=\"hot\",le=\"0.0001\"} 1\nw_bucket{tier=\"hot\",le=\"0.00025\"} 3\n"
        ));
        assert!(text.ends_with(
            "w_bucket{tier=\"hot\",le=\"+Inf\"} 4\nw_sum{tier=\"hot\"} 9.000450\nw_count{tier=\"hot\"} 4\n"
        ));
    }
}
