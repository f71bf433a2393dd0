//! Overrides from the environment: `TENANTRY_POOL__QUEUE_TIMEOUT=2s` is `pool.queue_timeout = "2s"`.
//!
//! Owns the names of the variables and how their text becomes a TOML value. Tenants cannot be overridden.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

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
    let keys = all_keys();
    let keys = keys.iter().filter(|key| !key.starts_with("tenant."));
    keys.flat_map(|key| expand(key, table)).filter_map(|path| one(path, env)).collect()
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
    let name = path.join("__").to_ascii_uppercase().replace(['-', '.'], "_");
    let variable = format!("TENANTRY_{name}");
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

/// Keys whose value is a text even if it looks like a number.
const TEXT_KEYS: [&str; 6] = ["password", "min_version", "filter", "url", "user", "database"];
