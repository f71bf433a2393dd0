//! Durations with a unit: `"5s"`, `"250ms"`, `"1h 30m"`.
//!
//! Owns the reading of such a text; a plain number is refused, because nobody remembers whether it meant seconds or
//! milliseconds.

use std::fmt;
use std::time::Duration;

use serde::de::{self, Deserialize, Deserializer, Visitor};

/// A duration as the file says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DurationText(pub(super) Duration);

impl<'de> Deserialize<'de> for DurationText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(DurationVisitor)
    }
}

/// Reads the text, refuses numbers.
struct DurationVisitor;

impl Visitor<'_> for DurationVisitor {
    type Value = DurationText;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a duration with its unit, such as \"5s\" or \"250ms\"")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<DurationText, E> {
        let duration = humantime::parse_duration(text)
            .map_err(|error| E::custom(format_args!("`{text}` is not a duration: {error}")))?;
        if duration > LONGEST {
            return Err(E::custom(format_args!("`{text}` is more than a year")));
        }
        Ok(DurationText(duration))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<DurationText, E> {
        Err(no_unit(number))
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<DurationText, E> {
        Err(no_unit(number))
    }
}

/// The error for a plain number.
fn no_unit<E: de::Error>(number: impl fmt::Display) -> E {
    E::custom(format_args!(
        "a duration needs its unit: write \"{number}s\" for seconds or \"{number}ms\" for milliseconds"
    ))
}

/// Longer spans are mistakes, and would overflow sums with the time of day.
const LONGEST: Duration = Duration::from_secs(366 * 86_400);
