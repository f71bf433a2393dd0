//! What differs between two configurations, in words.
//!
//! Owns the layout. Tenants that change in the same way share a line, so that a changed tier of 10,000 tenants is a few
//! lines. Pure: settings in, text out.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::listing::{self, Listing, Value};
use super::some_of;
use crate::config::Settings;
use crate::config::reload::restart_needed;

/// What a reload of `new` would change; at most `most` lines of each list, and as many names.
pub(super) fn text(old: &Settings, new: &Settings, most: usize) -> String {
    let mut text = String::new();
    settings(&mut text, old, new);
    clusters(&mut text, old, new);
    tenants(&mut text, old, new, most);
    if text.is_empty() {
        text.push_str("nothing changes\n");
    }
    text
}

/// All but clusters and tenants.
fn settings(text: &mut String, old: &Settings, new: &Settings) {
    let restart: BTreeSet<&str> = restart_needed(old, new).into_iter().collect();
    let changes = changes(&listing::process(old), &listing::process(new));
    let note = |key: &str| if restart.contains(key) { RESTART } else { "" };
    section(text, "settings", changes.iter().map(|(key, change)| format!("{key}  {change}{}", note(key))));
}

fn clusters(text: &mut String, old: &Settings, new: &Settings) {
    let mut lines = Vec::new();
    for cluster in &new.clusters {
        let before = old.clusters.iter().find(|before| before.name == cluster.name);
        let Some(before) = before else {
            lines.push(format!("{}  is new", cluster.name));
            continue;
        };
        for (key, change) in changes(&listing::cluster(old, before), &listing::cluster(new, cluster)) {
            lines.push(format!("{}  {key}  {change}", cluster.name));
        }
    }
    section(text, "clusters", lines);
}

fn tenants(text: &mut String, old: &Settings, new: &Settings, most: usize) {
    let names = |settings: &Settings| -> BTreeSet<String> {
        settings.catalog.iter().map(|tenant| tenant.name.to_string()).collect()
    };
    let (before, after) = (names(old), names(new));
    let (added, removed) =
        (after.difference(&before).collect::<Vec<_>>(), before.difference(&after).collect::<Vec<_>>());
    // Tenants by what changes of them.
    let mut alike: BTreeMap<(String, String), Vec<&str>> = BTreeMap::new();
    let mut changed = BTreeSet::new();
    for name in before.intersection(&after) {
        let (Some(one), Some(other)) = (old.catalog.by_name(name), new.catalog.by_name(name)) else {
            continue;
        };
        for change in changes(&listing::tenant(old, one), &listing::tenant(new, other)) {
            alike.entry(change).or_default().push(name);
            changed.insert(name);
        }
    }
    if added.is_empty() && removed.is_empty() && changed.is_empty() {
        return;
    }
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "tenants ({} -> {}: {} added, {} removed, {} changed)",
        before.len(),
        after.len(),
        added.len(),
        removed.len(),
        changed.len()
    );
    let names = |names: &[&String]| some_of(names.iter().map(|name| name.as_str()), most);
    if !added.is_empty() {
        let _ = writeln!(text, "  added  {}", names(&added));
    }
    if !removed.is_empty() {
        let _ = writeln!(text, "  removed, and their clients told to go (57P01)  {}", names(&removed));
    }
    // What concerns most comes first.
    let mut alike: Vec<_> = alike.into_iter().collect();
    alike.sort_by_key(|(_, names)| std::cmp::Reverse(names.len()));
    for ((key, change), names) in alike.iter().take(most) {
        let names = some_of(names.iter().copied(), most.min(NAMES));
        let _ = writeln!(text, "  {key}  {change}{}: {names}", effect(key));
    }
    if let Some(more @ 1..) = alike.len().checked_sub(most) {
        let _ = writeln!(text, "  and {more} more kinds of changes");
    }
    text.push('\n');
}

/// What comes of a tenant's change besides the change itself.
fn effect(key: &str) -> &'static str {
    match key {
        "cluster" => " (clients are told to connect again)",
        "database" | "role" | "search_path" | "server_auth" => LOGS_IN_ANEW,
        setting if setting.starts_with("settings.") => LOGS_IN_ANEW,
        _ => "",
    }
}

fn section(text: &mut String, name: &str, lines: impl IntoIterator<Item = String>) {
    let lines: Vec<String> = lines.into_iter().collect();
    if lines.is_empty() {
        return;
    }
    let _ = writeln!(text, "{name} ({} changed)", lines.len());
    for line in lines {
        let _ = writeln!(text, "  {line}");
    }
    text.push('\n');
}

/// Keys whose values differ, with the difference in words.
fn changes(old: &Listing, new: &Listing) -> Vec<(String, String)> {
    let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    keys.into_iter()
        .filter(|key| old.get(*key) != new.get(*key))
        .map(|key| (key.clone(), words(old.get(key), new.get(key))))
        .collect()
}

fn words(old: Option<&Value>, new: Option<&Value>) -> String {
    let word = |value: Option<&Value>| value.map_or_else(|| "none".to_owned(), ToString::to_string);
    match (old, new) {
        (Some(Value::Secret(_)), Some(Value::Secret(_))) => "another secret".to_owned(),
        (old, new) => format!("{} -> {}", word(old), word(new)),
    }
}

const RESTART: &str = "  (needs a restart: a reload leaves it as it is)";
const LOGS_IN_ANEW: &str = " (servers log in anew)";
/// Names of tenants that change alike.
const NAMES: usize = 5;
