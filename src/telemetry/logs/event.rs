//! One event, one line.
//!
//! Owns the order of a line. A text line is for people, and yet nothing a client sends can break it: whatever is not
//! plain is quoted as in JSON, line breaks and terminal commands included.

use std::fmt;

use jiff::Timestamp;
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormattedFields};
use tracing_subscriber::registry::LookupSpan;

use super::fields::{Fields, Stored, json};
use crate::config::settings::LogFormat;

/// Writes events in a format.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line {
    /// JSON or text.
    pub(super) format: LogFormat,
}

impl<S> FormatEvent<S, Stored> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, Stored>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut fields = Fields::default();
        for span in context.event_scope().into_iter().flat_map(|scope| scope.from_root()) {
            if let Some(stored) = span.extensions().get::<FormattedFields<Stored>>() {
                fields.add_stored(stored);
            }
        }
        event.record(&mut fields);
        let metadata = event.metadata();
        let head = Head {
            timestamp: timestamp(Timestamp::now()),
            level: metadata.level().as_str(),
            message: fields.take("message").unwrap_or_else(|| json("")),
            // Events of the `log` crate carry where they come from as fields.
            target: fields.take("log.target").unwrap_or_else(|| json(metadata.target())),
        };
        for name in ["log.module_path", "log.file", "log.line"] {
            fields.take(name);
        }
        match self.format {
            LogFormat::Json => write_json(&mut writer, &head, &fields),
            LogFormat::Text => write_text(&mut writer, &head, &fields),
        }
    }
}

/// What every line begins with. `message` and `target` are JSON strings.
struct Head {
    timestamp: String,
    level: &'static str,
    message: String,
    target: String,
}

/// UTC with milliseconds, always of the same length.
pub(super) fn timestamp(now: Timestamp) -> String {
    format!("{now:.3}")
}

fn write_json(writer: &mut Writer<'_>, head: &Head, fields: &Fields) -> fmt::Result {
    let Head { timestamp, level, message, target } = head;
    write!(writer, r#"{{"timestamp":"{timestamp}","level":"{level}","message":{message},"target":{target}"#)?;
    for (name, value) in fields.iter() {
        write!(writer, ",{}:{value}", json(name))?;
    }
    writer.write_str("}\n")
}

fn write_text(writer: &mut Writer<'_>, head: &Head, fields: &Fields) -> fmt::Result {
    let Head { timestamp, level, .. } = head;
    write!(writer, "{timestamp} {level:>5} {}: {}", unquoted(&head.target), unquoted(&head.message))?;
    for (name, value) in fields.iter() {
        let value = if value.contains([' ', '=']) { value } else { unquoted(value) };
        write!(writer, " {name}={value}")?;
    }
    writer.write_char('\n')
}

/// A JSON string without its quotes if nothing in it needed escaping, or the value as it is.
fn unquoted(value: &str) -> &str {
    match value.strip_prefix('"').and_then(|value| value.strip_suffix('"')) {
        Some(plain) if !plain.is_empty() && !plain.contains('\\') => plain,
        _ => value,
    }
}
