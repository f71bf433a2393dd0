//! Which text a scraper wants, from its `Accept` header (RFC 9110, 12.5.1).
//!
//! Owns that one choice. Plain text is the answer to anything unclear: every scraper reads it.

use crate::telemetry::metrics::Dialect;

/// The dialect to answer in.
pub(super) fn dialect(accept: Option<&str>) -> Dialect {
    let accept = accept.unwrap_or_default();
    let open_metrics = quality(accept, "application/openmetrics-text");
    if open_metrics > 0 && open_metrics >= quality(accept, "text/plain") {
        Dialect::OpenMetrics
    } else {
        Dialect::Prometheus
    }
}

/// The best quality, in thousandths, that the header gives a media type by its name; wildcards do not count.
fn quality(accept: &str, media_type: &str) -> u32 {
    let offers = accept.split(',').filter_map(|offer| {
        let mut parts = offer.split(';').map(str::trim);
        parts.next().filter(|name| name.eq_ignore_ascii_case(media_type))?;
        let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
        Some(weight.map_or(1_000, thousandths))
    });
    offers.max().unwrap_or(0)
}

/// `0`, `0.5`, `1.000`; anything else counts as nothing.
fn thousandths(weight: &str) -> u32 {
    let (whole, fraction) = weight.split_once('.').unwrap_or((weight, ""));
    let Ok(fraction) = format!("{fraction:0<3}").parse::<u32>() else { return 0 };
    match whole {
        "0" if fraction < 1_000 => fraction,
        "1" if fraction == 0 => 1_000,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prometheus_gets_what_it_prefers() {
        let two = "application/openmetrics-text;version=1.0.0;q=0.8,application/openmetrics-text;version=0.0.1;q=0.75,\
                   text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        let reversed = "text/plain;version=0.0.4;q=0.6, application/openmetrics-text; version=1.0.0 ;q=0.4";
        assert_eq!(dialect(Some(two)), Dialect::OpenMetrics);
        assert_eq!(dialect(Some(reversed)), Dialect::Prometheus);
        assert_eq!(dialect(Some("application/openmetrics-text")), Dialect::OpenMetrics);
    }

    #[test]
    fn everybody_else_gets_plain_text() {
        for accept in
            [None, Some(""), Some("*/*"), Some("text/html"), Some("application/openmetrics-text;q=0")]
        {
            assert_eq!(dialect(accept), Dialect::Prometheus, "{accept:?}");
        }
        assert_eq!(dialect(Some("application/openmetrics-text;q=99")), Dialect::Prometheus);
        assert_eq!(dialect(Some(";;;,,=q=")), Dialect::Prometheus);
    }
}
