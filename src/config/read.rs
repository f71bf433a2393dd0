//! From TOML to the model: as many errors as possible in one run.
//!
//! Owns the walk over the top level and the repair that lets reading go on after an error: the entry at fault is
//! reported, taken out, and the table read again. Must not know defaults.

use std::ops::Range;

use serde::de::Deserialize;
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue, ValueDeserializer};

use super::error::{Problem, Problems};
use super::model::{Model, Section, TierModel};
use super::source::Span;
use crate::tenant::Tier;

/// A table of a parsed text, its spans in the common numbering.
pub(super) type Table<'t> = Spanned<DeTable<'t>>;

/// Parses a text whose first byte has number `base`. Syntax errors are reported; what could be read is returned.
pub(super) fn parse<'t>(text: &'t str, base: usize, problems: &mut Problems) -> Table<'t> {
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        let span = error.span().unwrap_or_default();
        let problem = Problem::at(shift(&span, base), error.message(), "");
        // A bare word after `=` is read as the beginning of `true` or `false`.
        let word = error.message().starts_with("invalid boolean");
        problems.error(if word { problem.help("texts are written in quotes") } else { problem });
    }
    shift_table(table, base)
}

/// Reads the main file.
pub(super) fn main_file(table: Table<'_>, model: &mut Model, problems: &mut Problems) {
    for (key, value) in table.into_inner() {
        match key.get_ref().as_ref() {
            "tenants_dir" => model.tenants_dir = value_of(value, problems).map(Some).unwrap_or_default(),
            "listen" => model.listen = section(value, problems).value,
            "http" => model.http = section(value, problems).value,
            "threads" => model.threads = section(value, problems).value,
            "pool" => model.pool = section(value, problems).value,
            "login" => model.login = section(value, problems).value,
            "jwt" => model.jwt = Some(section(value, problems)),
            "drain" => model.drain = section(value, problems).value,
            "log" => model.log = section(value, problems).value,
            "metrics" => model.metrics = section(value, problems).value,
            "trace" => model.trace = section(value, problems).value,
            "tiering" => model.tiering = section(value, problems).value,
            "tier" => tiers(value, model, problems),
            "cluster" => clusters(value, model, problems),
            "tenant" => tenants(value, model, problems),
            other => problems.error(unknown(&key.span(), other, &TOP_LEVEL)),
        }
    }
}

/// Reads a file of the tenants' directory, which may hold tenants only.
pub(super) fn tenant_file(table: Table<'_>, model: &mut Model, problems: &mut Problems) {
    for (key, value) in table.into_inner() {
        match key.get_ref().as_ref() {
            "tenant" => tenants(value, model, problems),
            other => problems.error(
                Problem::at(
                    key.span(),
                    format!("`{other}` does not belong in a tenant file"),
                    "only `[[tenant]]` does",
                )
                .help("everything else is written in the main file"),
            ),
        }
    }
}

/// `[tier.NAME]`
fn tiers(value: Spanned<DeValue<'_>>, model: &mut Model, problems: &mut Problems) {
    for (key, value) in table_of(value, "tier", problems) {
        let name = key.get_ref().as_ref();
        match Tier::ALL.into_iter().find(|tier| tier.as_str() == name) {
            Some(tier) => {
                model.tiers.insert(tier, section::<TierModel>(value, problems).value);
            }
            None => problems.error(unknown(&key.span(), name, &["hot", "warm", "cold"])),
        }
    }
}

/// `[cluster.NAME]`
fn clusters(value: Spanned<DeValue<'_>>, model: &mut Model, problems: &mut Problems) {
    for (key, value) in table_of(value, "cluster", problems) {
        let name = Spanned::new(key.span(), key.get_ref().to_string());
        model.clusters.push((name, section(value, problems)));
    }
}

/// `[[tenant]]`
fn tenants(value: Spanned<DeValue<'_>>, model: &mut Model, problems: &mut Problems) {
    let span = value.span();
    let DeValue::Array(list) = value.into_inner() else {
        problems.error(
            Problem::at(span, "`tenant` is not a list", "one tenant")
                .help("write `[[tenant]]` with two brackets"),
        );
        return;
    };
    model.tenants.extend(list.into_iter().map(|value| section(value, problems)));
}

/// The entries of a table; anything else is reported.
fn table_of<'t>(value: Spanned<DeValue<'t>>, name: &str, problems: &mut Problems) -> DeTable<'t> {
    let span = value.span();
    match value.into_inner() {
        DeValue::Table(table) => table,
        other => {
            let title = format!("`{name}` is a {} where a section is wanted", other.type_str());
            problems.error(Problem::at(span, title, format!("write `[{name}.NAME]`")));
            DeTable::new()
        }
    }
}

/// Reads one section. Each entry that cannot be read is reported and left out.
fn section<T>(mut value: Spanned<DeValue<'_>>, problems: &mut Problems) -> Section<T>
where
    T: Default + for<'de> Deserialize<'de>,
{
    let span = value.span();
    let mut damaged = false;
    loop {
        let error = match T::deserialize(ValueDeserializer::from(value.clone())) {
            Ok(value) => return Section { value, span, damaged },
            Err(error) => error,
        };
        let place = error.span().unwrap_or_else(|| span.clone());
        problems.error(Problem::at(place.clone(), sentence(error.message()), ""));
        damaged = true;
        if !remove_at(&mut value, &place) {
            return Section { value: T::default(), span, damaged };
        }
    }
}

/// Reads one value.
fn value_of<T>(value: Spanned<DeValue<'_>>, problems: &mut Problems) -> Option<Spanned<T>>
where
    T: for<'de> Deserialize<'de>,
{
    let span = value.span();
    match T::deserialize(ValueDeserializer::from(value)) {
        Ok(read) => Some(Spanned::new(span, read)),
        Err(error) => {
            problems.error(Problem::at(span, sentence(error.message()), ""));
            None
        }
    }
}

/// Takes the innermost entry that holds the place out of a table or list; `false` if there is none.
fn remove_at(value: &mut Spanned<DeValue<'_>>, place: &Span) -> bool {
    match value.get_mut() {
        DeValue::Table(table) => {
            let found = table.iter_mut().find(|(key, value)| {
                contains(&key.span(), place) || contains(&value.span(), place) || is_inside(value, place)
            });
            let Some((key, inner)) = found else { return false };
            if !contains(&key.span(), place) && remove_at(inner, place) && !is_empty(inner) {
                return true;
            }
            let key = key.clone();
            table.remove(&key).is_some()
        }
        DeValue::Array(list) => remove_from_list(list, place),
        DeValue::String(_)
        | DeValue::Integer(_)
        | DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_) => false,
    }
}

/// As [`remove_at`], for a list.
fn remove_from_list(list: &mut DeArray<'_>, place: &Span) -> bool {
    let Some(index) = list.iter().position(|item| contains(&item.span(), place) || is_inside(item, place))
    else {
        return false;
    };
    if list.get_mut(index).is_some_and(|item| remove_at(item, place) && !is_empty(item)) {
        return true;
    }
    let items = std::mem::replace(list, DeArray::new());
    items.into_iter().enumerate().filter(|(at, _)| *at != index).for_each(|(_, item)| list.push(item));
    true
}

/// Whether nothing is left of a table or list. It goes, too: `{}` would be a second error about the same entry.
fn is_empty(value: &Spanned<DeValue<'_>>) -> bool {
    match value.get_ref() {
        DeValue::Table(table) => table.is_empty(),
        DeValue::Array(list) => list.is_empty(),
        DeValue::String(_)
        | DeValue::Integer(_)
        | DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_) => false,
    }
}

/// Whether the place lies in a part of the value that its own span does not cover (`[a.b]` below `[a]`).
fn is_inside(value: &Spanned<DeValue<'_>>, place: &Span) -> bool {
    let covers = |value: &Spanned<DeValue<'_>>| contains(&value.span(), place) || is_inside(value, place);
    match value.get_ref() {
        DeValue::Table(table) => {
            table.iter().any(|(key, value)| contains(&key.span(), place) || covers(value))
        }
        DeValue::Array(list) => list.iter().any(covers),
        DeValue::String(_)
        | DeValue::Integer(_)
        | DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_) => false,
    }
}

/// Whether one range holds another.
const fn contains(outer: &Range<usize>, inner: &Range<usize>) -> bool {
    outer.start <= inner.start && inner.end <= outer.end
}

/// serde's words, made a little kinder.
fn sentence(message: &str) -> String {
    let words = [
        ("invalid type: ", "wrong type: "),
        ("unknown field ", "unknown key "),
        ("unknown variant ", "unknown value "),
        ("wanted string or table", "expected a text or a table"),
        ("expected u32", "expected a whole number from 0 to 4294967295"),
    ];
    words.iter().fold(message.to_owned(), |text, (from, to)| text.replace(from, to))
}

/// The problem of a key that nobody knows.
fn unknown(span: &Span, name: &str, known: &[&str]) -> Problem {
    let list: Vec<_> = known.iter().map(|name| format!("`{name}`")).collect();
    Problem::at(span.clone(), format!("unknown key `{name}`, expected one of {}", list.join(", ")), "")
}

/// The same range in the common numbering.
const fn shift(span: &Range<usize>, base: usize) -> Span {
    span.start.saturating_add(base)..span.end.saturating_add(base)
}

/// The table with its spans in the common numbering.
fn shift_table(table: Spanned<DeTable<'_>>, base: usize) -> Spanned<DeTable<'_>> {
    if base == 0 {
        return table;
    }
    let span = shift(&table.span(), base);
    Spanned::new(span, shift_entries(table.into_inner(), base))
}

/// As [`shift_table`], for its entries.
fn shift_entries(table: DeTable<'_>, base: usize) -> DeTable<'_> {
    let entries = table.into_iter();
    entries
        .map(|(key, value)| {
            (Spanned::new(shift(&key.span(), base), key.into_inner()), shift_value(value, base))
        })
        .collect()
}

/// As [`shift_table`], for a value.
fn shift_value(value: Spanned<DeValue<'_>>, base: usize) -> Spanned<DeValue<'_>> {
    let span = shift(&value.span(), base);
    let inner = match value.into_inner() {
        DeValue::Table(table) => DeValue::Table(shift_entries(table, base)),
        DeValue::Array(list) => {
            let mut shifted = DeArray::new();
            list.into_iter().for_each(|item| shifted.push(shift_value(item, base)));
            DeValue::Array(shifted)
        }
        other => other,
    };
    Spanned::new(span, inner)
}

/// What may stand at the top level.
const TOP_LEVEL: [&str; 15] = [
    "tenants_dir",
    "listen",
    "http",
    "threads",
    "pool",
    "login",
    "jwt",
    "tiering",
    "tier",
    "cluster",
    "tenant",
    "drain",
    "log",
    "metrics",
    "trace",
];
