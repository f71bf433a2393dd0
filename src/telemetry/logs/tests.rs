//! Goal: every line is one JSON object that a machine reads, whatever is in its fields.
//! Method: a subscriber that writes to memory, real events, `serde_json` as the judge.

use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::Value;
use tracing::{info, info_span, warn};

use super::*;
use crate::config::settings::LogFormat;
use crate::tenant::Secret;

#[derive(Clone, Default)]
struct Memory(Arc<Mutex<Vec<u8>>>);

impl io::Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn logged(format: LogFormat, filter: &str, log: impl FnOnce(&Filter)) -> String {
    let memory = Memory::default();
    let sink = memory.clone();
    let settings = Log { format, filter: filter.into(), slow_wait: None };
    let (subscriber, filter) = subscriber(&settings, move || sink.clone()).unwrap();
    tracing::subscriber::with_default(subscriber, || log(&filter));
    let bytes = memory.0.lock().clone();
    String::from_utf8(bytes).unwrap()
}

fn one(text: &str) -> Value {
    assert_eq!(text.matches('\n').count(), 1, "{text}");
    serde_json::from_str(text).unwrap()
}

#[test]
fn a_line_has_the_platforms_names() {
    let text = logged(LogFormat::Json, "info", |_| {
        let span = info_span!("client", tenant = "acme", request_id = 7_u64);
        let _inside = span.enter();
        warn!(reason = "queue_timeout", waited_ms = 5_000, "no server in time");
    });
    let line = one(&text);
    assert_eq!(line["customer_id"], "acme");
    assert_eq!(line["request_id"], 7);
    assert_eq!(line["reason"], "queue_timeout");
    assert_eq!(line["waited_ms"], 5_000);
    assert_eq!(line["level"], "WARN");
    assert_eq!(line["message"], "no server in time");
    assert_eq!(line["target"], module_path!());
    assert!(line.get("tenant").is_none());
    let keys: Vec<_> = ["timestamp", "level", "message", "target"].map(|key| text.find(key).unwrap()).into();
    assert!(keys.is_sorted());
}

#[test]
fn a_timestamp_is_utc_with_milliseconds() {
    let line = one(&logged(LogFormat::Json, "info", |_| info!("now")));
    let stamp = line["timestamp"].as_str().unwrap();
    assert_eq!(stamp.len(), "2026-01-31T12:00:00.123Z".len());
    assert!(stamp.ends_with('Z') && stamp.as_bytes()[19] == b'.');
    let parsed: jiff::Timestamp = stamp.parse().unwrap();
    assert!(jiff::Timestamp::now().duration_since(parsed).as_secs() < 60);
    assert_eq!(event::timestamp(jiff::Timestamp::UNIX_EPOCH), "1970-01-01T00:00:00.000Z");
}

#[test]
fn hostile_values_stay_inside_their_strings() {
    let hostile = "a\"}\n{\"level\":\"ERROR\"}\r\u{1b}[31m\u{0}\u{2028}\u{9b}2J\u{7f}\\";
    let text = logged(LogFormat::Json, "info", |_| {
        let span = info_span!("client", user = hostile);
        let _inside = span.enter();
        info!(display = %hostile, debug = ?hostile, float = f64::NAN, big = u128::MAX, "{hostile}");
    });
    let line = one(&text);
    assert_eq!(line["user"], hostile);
    assert_eq!(line["display"], hostile);
    assert_eq!(line["message"], hostile);
    assert_eq!(line["float"], "NaN");
    assert!(!text.trim_end().contains(char::is_control));
}

#[test]
fn hostile_values_cannot_break_a_text_line_either() {
    let text = logged(LogFormat::Text, "info", |_| {
        info!(tenant = "acme", user = "a\nb\u{1b}[31m", name = "two words", "one\nline");
    });
    assert_eq!(text.matches('\n').count(), 1, "{text}");
    assert!(!text.contains('\u{1b}'));
    assert!(
        text.ends_with("\"one\\nline\" customer_id=acme user=\"a\\nb\\u001b[31m\" name=\"two words\"\n"),
        "{text}"
    );
}

#[test]
fn no_key_comes_twice() {
    let text = logged(LogFormat::Json, "info", |_| {
        let outer = info_span!("outer", tenant = "a", level = 9);
        let _outer = outer.enter();
        let inner = info_span!("inner", tenant = "b", late = tracing::field::Empty);
        inner.record("late", true);
        let _inner = inner.enter();
        info!(customer_id = "c", timestamp = 1, target = "no", "said");
    });
    let line = one(&text);
    assert_eq!(line["customer_id"], "c");
    assert_eq!(line["late"], true);
    assert_eq!(line["field_level"], 9);
    for key in ["customer_id", "level", "timestamp", "target", "message"] {
        assert_eq!(text.matches(&format!("\"{key}\":")).count(), 1, "{key} in {text}");
    }
}

#[test]
fn a_secret_is_not_printed() {
    let secret = Secret::new("hunter2".into());
    let text = logged(LogFormat::Json, "info", |_| info!(password = ?secret, "logging in"));
    assert!(!text.contains("hunter2"));
}

#[test]
fn the_filter_can_be_changed_and_a_wrong_one_changes_nothing() {
    let text = logged(LogFormat::Json, "warn", |filter| {
        info!("unheard");
        filter.set("info").unwrap();
        info!("heard");
        assert!(matches!(filter.set("a=b=c=!"), Err(LogError::Filter { .. })));
        info!("still heard");
    });
    let messages: Vec<_> =
        text.lines().map(|line| one(&format!("{line}\n"))["message"].as_str().unwrap().to_owned()).collect();
    assert_eq!(messages, ["heard", "still heard"]);
}
