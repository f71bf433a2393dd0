//! Fields of spans and events as JSON values.
//!
//! Owns the names under which fields appear and the form in which a span keeps them: one line per field,
//! `"name":value`. JSON has no raw line break, so lines can be told apart again.

use std::fmt;

use tracing::field::{Field, Visit};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::Writer;

/// Keeps a span's fields until its events are written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stored;

impl<'w> FormatFields<'w> for Stored {
    fn format_fields<R: RecordFields>(&self, mut writer: Writer<'w>, fields: R) -> fmt::Result {
        let mut collected = Fields::default();
        fields.record(&mut collected);
        for (name, value) in &collected.0 {
            writeln!(writer, "{}:{value}", json(name))?;
        }
        Ok(())
    }
}

/// Names and JSON values, each name once; a later value replaces an earlier one.
#[derive(Debug, Default)]
pub(super) struct Fields(Vec<(String, String)>);

impl Fields {
    /// Adds what [`Stored`] kept.
    pub(super) fn add_stored(&mut self, stored: &str) {
        for line in stored.lines() {
            // A field recorded later comes after a space.
            let Some((name, value)) = line.trim_start().split_once("\":") else { continue };
            self.put(name.strip_prefix('"').unwrap_or(name), value.to_owned());
        }
    }

    /// Takes a field out.
    pub(super) fn take(&mut self, name: &str) -> Option<String> {
        let index = self.0.iter().position(|(present, _)| present == name)?;
        Some(self.0.remove(index).1)
    }

    /// The fields in the order in which they first came.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    fn put(&mut self, name: &str, value: String) {
        match self.0.iter_mut().find(|(present, _)| present == name) {
            Some((_, present)) => *present = value,
            None => self.0.push((name.to_owned(), value)),
        }
    }

    fn record(&mut self, field: &Field, value: String) {
        match field.name() {
            // The platform's name for whom we serve.
            "tenant" => self.put("customer_id", value),
            // What the line says itself.
            name @ ("timestamp" | "level" | "target") => self.put(&format!("field_{name}"), value),
            name => self.put(name.strip_prefix("r#").unwrap_or(name), value),
        }
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON has no word for infinity.
        let value = if value.is_finite() { value.to_string() } else { json(&value.to_string()) };
        self.record(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.record(field, value.to_string());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.record(field, value.to_string());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.record(field, value.to_string());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record(field, json(value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record(field, json(&format!("{value:?}")));
    }
}

/// A JSON string without a control character: JSON itself leaves DEL and the second set (among them an eight-bit
/// escape) as they are, and a terminal obeys them.
pub(super) fn json(text: &str) -> String {
    // Serialising a string cannot fail; if it did, an empty string is still valid JSON.
    let json = serde_json::to_string(text).unwrap_or_else(|_| "\"\"".to_owned());
    if !json.contains(char::is_control) {
        return json;
    }
    json.chars().fold(String::with_capacity(json.len()), |mut clean, character| {
        if character.is_control() {
            clean.push_str(&format!("\\u{:04x}", u32::from(character)));
        } else {
            clean.push(character);
        }
        clean
    })
}
