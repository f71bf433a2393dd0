//! Goal: a log line is JSON with the platform's names, and holds no secret even if somebody logs all settings.

use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use tenantry::config::{Log, LogFormat};
use tenantry::telemetry::logs;
use tenantry::tenant::Tier;

use crate::fake::{HOSTILE, settings, tenant};

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

fn logged(format: LogFormat, log: impl FnOnce()) -> String {
    let memory = Memory::default();
    let sink = memory.clone();
    let settings = Log { format, filter: "debug".into(), slow_wait: None };
    let (subscriber, _) = logs::subscriber(&settings, move || sink.clone()).unwrap();
    tracing::subscriber::with_default(subscriber, log);
    let bytes = memory.0.lock().clone();
    String::from_utf8(bytes).unwrap()
}

#[test]
fn every_line_is_json_with_utc_milliseconds() {
    let text = logged(LogFormat::Json, || {
        for (request_id, name) in (1_u64..).zip(HOSTILE) {
            let span = tracing::info_span!("client", tenant = name, request_id);
            let _inside = span.enter();
            tracing::info!(reason = "admitted", duration_ms = 1.5, "a client of {name} logged in");
        }
    });
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), HOSTILE.len());
    for (line, name) in lines.iter().zip(HOSTILE) {
        assert_eq!(line["customer_id"], name);
        assert_eq!(line["message"], format!("a client of {name} logged in"));
        let stamp = line["timestamp"].as_str().unwrap().as_bytes();
        assert_eq!((stamp.len(), stamp[10], stamp[19], stamp[23]), (24, b'T', b'.', b'Z'));
    }
}

#[test]
fn settings_can_be_logged_whole_without_a_secret() {
    let settings = settings(vec![tenant("acme", Tier::Hot)]);
    for format in [LogFormat::Json, LogFormat::Text] {
        let text = logged(format, || tracing::debug!(?settings, "loaded"));
        assert!(text.contains("acme") && text.contains("watcher"));
        assert!(!text.contains("role-password") && !text.contains("admin-password"));
    }
}
