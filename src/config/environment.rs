//! Overrides from the environment: `TENANTRY_POOL__QUEUE_TIMEOUT=2s` is `pool.queue_timeout = "2s"`.
//!
//! Owns the names of the variables and how their text becomes a TOML value. Tenants cannot be overridden. A variable that
//! is spelled like an override (`TENANTRY_`, and `__` somewhere) and overrides nothing is an error, as an unknown key is.

use std::collections::BTreeSet;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::Problem;
use super::fields::all_keys;
use super::read::Table;

/// One variable that is set.
pub(super) struct Override {
    /// Its name.
    pub(super) variable: String,
    /// Sections on the way to the key.
    path: Vec<String>,
    /// The same as a line of TOML: `queue_timeout = "2s"`.
    pub(super) line: String,
}

/// All overrides that are set, for the clusters that the file names.
pub(super) fn overrides(table: &Table<'_>, env: &dyn Fn(&str) -> Option<String>) -> Vec<Override> {
    paths(table).into_iter().filter_map(|path| one(path, env)).collect()
}

/// A problem for each variable among `names` that is spelled like an override and overrides nothing.
pub(super) fn strangers(table: &Table<'_>, names: &[String]) -> Vec<Problem> {
    let known: BTreeSet<String> = paths(table).iter().map(|path| variable(path)).collect();
    let spelled_so = |name: &&String| name.starts_with(PREFIX) && name.contains(SEPARATOR);
    let strangers = names.iter().filter(spelled_so).filter(|name| !known.contains(*name));
    strangers
        .map(|name| {
            let title = format!("the environment variable `{name}` overrides nothing: there is no such key");
            Problem::nowhere(title).help(format!(
                "{}; a variable of your own, for a secret say, is spelled without `{SEPARATOR}`",
                instead(name, &known)
            ))
        })
        .collect()
}

/// Puts an override's value into the table, in place of what the file says.
pub(super) fn apply<'t>(base: &mut Table<'t>, line: Table<'t>, path: &[String]) {
    let span = line.span();
    let mut table = base.get_mut();
    for section in path {
        if !table.contains_key(section.as_str()) {
            let key = Spanned::new(span.clone(), section.clone().into());
            table.insert(key, Spanned::new(span.clone(), DeValue::Table(DeTable::new())));
        }
        // A section that is no table is an error of the file, which its reader reports.
        let Some(DeValue::Table(inner)) = table.get_mut(section.as_str()).map(Spanned::get_mut) else {
            return;
        };
        table = inner;
    }
    for (key, value) in line.into_inner() {
        table.remove(&key);
        table.insert(key, value);
    }
}

impl Override {
    /// Sections on the way to the key.
    pub(super) fn path(&self) -> &[String] {
        &self.path
    }
}

/// The paths of everything that can be overridden.
fn paths(table: &Table<'_>) -> Vec<Vec<String>> {
    let keys = all_keys();
    let keys = keys.iter().filter(|key| !key.starts_with("tenant."));
    keys.flat_map(|key| expand(key, table)).collect()
}

/// The variable that overrides what is at a path.
fn variable(path: &[String]) -> String {
    let name = path.join(SEPARATOR).to_ascii_uppercase().replace(['-', '.'], "_");
    format!("{PREFIX}{name}")
}

/// What can be overridden near a name that nobody knows: the keys of its section, or the sections.
fn instead(name: &str, known: &BTreeSet<String>) -> String {
    let parts: Vec<&str> = name.split(SEPARATOR).collect();
    if parts.first().is_some_and(|first| *first == "TENANTRY_TENANT") {
        return "tenants cannot be overridden".to_owned();
    }
    let sections = (0..parts.len()).rev().filter_map(|count| parts.get(..count));
    for section in sections {
        let section =
            if section.is_empty() { PREFIX.to_owned() } else { section.join(SEPARATOR) + SEPARATOR };
        let inside = known.iter().filter_map(|name| name.strip_prefix(section.as_str()));
        let inside: BTreeSet<String> = inside
            .map(|rest| match rest.split_once(SEPARATOR) {
                Some((inner, _)) => format!("`{section}{inner}{SEPARATOR}...`"),
                None => format!("`{section}{rest}`"),
            })
            .collect();
        if !inside.is_empty() {
            return format!("there are {}", inside.into_iter().collect::<Vec<_>>().join(", "));
        }
    }
    "nothing can be overridden".to_owned()
}

/// The paths that a key of the model stands for: `NAME` becomes each tier, or each cluster in the file.
fn expand(key: &str, table: &Table<'_>) -> Vec<Vec<String>> {
    let names: Vec<String> = match key.split('.').next() {
        Some("tier") => ["hot", "warm", "cold"].map(str::to_owned).into(),
        Some("cluster") => match table.get_ref().get("cluster").map(Spanned::get_ref) {
            Some(DeValue::Table(clusters)) => {
                clusters.keys().map(|name| name.get_ref().to_string()).collect()
            }
            _ => Vec::new(),
        },
        _ => vec![String::new()],
    };
    let part = |part: &str, name: &String| if part == "NAME" { name.clone() } else { part.to_owned() };
    names.iter().map(|name| key.split('.').map(|text| part(text, name)).collect()).collect()
}

/// The override of one path, if its variable is set.
fn one(mut path: Vec<String>, env: &dyn Fn(&str) -> Option<String>) -> Option<Override> {
    let variable = variable(&path);
    let text = env(&variable)?;
    let key = path.pop()?;
    let line = format!("{key} = {}", toml_value(&key, &text));
    Some(Override { variable, path, line })
}

/// The text as a TOML value: itself if it is one, otherwise as a string.
fn toml_value(key: &str, text: &str) -> String {
    let text = text.trim();
    let structured = text.starts_with(['{', '[', '"', '\'']);
    let text_only = TEXT_KEYS.contains(&key) && !structured;
    if !text_only && !text.contains(['\n', '#']) && DeValue::parse(text).is_ok() {
        return text.to_owned();
    }
    toml::Value::String(text.to_owned()).to_string()
}

/// How the names of all variables begin.
const PREFIX: &str = "TENANTRY_";

/// What stands for a dot in the names of variables.
const SEPARATOR: &str = "__";

/// Keys whose value is a text even if it looks like a number.
const TEXT_KEYS: [&str; 6] = ["password", "min_version", "filter", "url", "user", "database"];
