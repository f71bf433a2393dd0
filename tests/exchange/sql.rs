//! The SQL of the model: a few statements, told apart by their first words, and what they do to a session.

use std::collections::BTreeMap;

/// What a statement of the model is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Sql {
    Empty,
    Begin,
    Commit,
    Rollback,
    /// `SELECT ...`: as many rows, each of them an echo.
    Rows(u32),
    /// One row of so many bytes.
    Big(usize),
    /// Does not return rows: `INSERT`.
    Insert,
    /// Keeps its session's server.
    Declare,
    /// Fails when it runs.
    Fails,
    /// Cannot be parsed.
    Broken,
    Set(String, String),
    SetLocal(String, String),
    /// `SELECT pg_catalog.set_config(...)`: the proxy's way.
    SetConfig(String, String),
    Reset(String),
    ResetAll,
    /// The proxy's question about settings of these names, or about all.
    AskSettings(Vec<String>),
    AskAllSettings,
    /// The proxy's question whether something keeps the client here.
    AskPins,
    DiscardAll,
    DeallocateAll,
    Deallocate(String),
    Prepare(String, String),
    Execute(String),
    DiscardSequences,
    CopyOut,
    CopyIn,
    /// Fails right behind CopyInResponse, as a statement trigger does.
    CopyInFails,
}

/// The statements of a text.
pub(super) fn statements(text: &str) -> Vec<&str> {
    text.split(';').map(str::trim).filter(|part| !part.is_empty()).collect()
}

pub(super) fn understand(text: &str) -> Sql {
    let words: Vec<&str> = text.split_whitespace().collect();
    match words.as_slice() {
        [] => Sql::Empty,
        ["BEGIN"] => Sql::Begin,
        ["COMMIT"] => Sql::Commit,
        ["ROLLBACK"] => Sql::Rollback,
        ["DISCARD", "ALL"] => Sql::DiscardAll,
        ["DISCARD", "SEQUENCES"] => Sql::DiscardSequences,
        ["DEALLOCATE", "ALL"] => Sql::DeallocateAll,
        ["DEALLOCATE", name] | ["DEALLOCATE", "PREPARE", name] => Sql::Deallocate(name.replace('"', "")),
        ["PREPARE", name, "AS", rest @ ..] => Sql::Prepare((*name).to_owned(), rest.join(" ")),
        ["EXECUTE", name] => Sql::Execute((*name).to_owned()),
        ["COPY", _, "TO", ..] => Sql::CopyOut,
        ["COPY", "forbidden", "FROM", ..] => Sql::CopyInFails,
        ["COPY", _, "FROM", ..] => Sql::CopyIn,
        ["SET", "LOCAL", name, "=", value] => Sql::SetLocal((*name).to_owned(), unquoted(value)),
        ["SET", name, "=", value] => Sql::Set((*name).to_owned(), unquoted(value)),
        ["SET", name, "TO", value] => {
            Sql::Set(name.replace('"', ""), unquoted(value.trim_start_matches('E')))
        }
        ["RESET", "ALL"] => Sql::ResetAll,
        ["RESET", name] => Sql::Reset(name.replace('"', "")),
        ["SELECT", call] if call.starts_with("pg_catalog.set_config(") => {
            let inside = call.split_once('(').map_or("", |(_, inside)| inside);
            let mut arguments = inside.split(',');
            let mut next = || unquoted(arguments.next().expect("two arguments").trim_start_matches('E'));
            Sql::SetConfig(next(), next())
        }
        ["SELECT", first, ..] if first.starts_with("pg_catalog.encode(") => {
            let names = text.split("current_setting(E'").skip(1).filter_map(|rest| rest.split_once('\''));
            let mut names: Vec<String> = names.map(|(name, _)| name.to_owned()).collect();
            names.dedup();
            Sql::AskSettings(names)
        }
        ["SELECT", first, ..] if first.starts_with("pg_catalog.lower(") => Sql::AskAllSettings,
        ["SELECT", first, ..] if first.starts_with("EXISTS(") => Sql::AskPins,
        ["SELECT", "1/0", ..] => Sql::Fails,
        ["SELECT", "big", ..] => Sql::Big(9_000),
        ["SELECT", "rows", count, ..] => Sql::Rows(count.parse().expect("a number of rows")),
        ["SELECT", ..] => Sql::Rows(1),
        ["INSERT", ..] => Sql::Insert,
        ["DECLARE", ..] => Sql::Declare,
        _ => Sql::Broken,
    }
}

fn unquoted(value: &str) -> String {
    value.trim_matches('\'').to_owned()
}

impl Sql {
    pub(super) const fn returns_rows(&self) -> bool {
        matches!(
            self,
            Self::Rows(_)
                | Self::Big(_)
                | Self::Fails
                | Self::SetConfig(..)
                | Self::Execute(_)
                | Self::AskSettings(_)
                | Self::AskAllSettings
                | Self::AskPins
        )
    }

    /// Whether it is allowed in a failed transaction.
    pub(super) const fn ends_transaction(&self) -> bool {
        matches!(self, Self::Commit | Self::Rollback)
    }
}

/// The run-time settings of a model session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Variables {
    login: BTreeMap<String, String>,
    now: BTreeMap<String, String>,
    /// What SET LOCAL hides, until the transaction ends.
    hidden: BTreeMap<String, Option<String>>,
}

impl Variables {
    pub(super) fn new(login: BTreeMap<String, String>) -> Self {
        Self { now: login.clone(), login, hidden: BTreeMap::new() }
    }

    pub(super) fn set(&mut self, name: &str, value: &str) {
        self.hidden.remove(name);
        self.now.insert(name.to_owned(), value.to_owned());
    }

    pub(super) fn set_local(&mut self, name: &str, value: &str) {
        let old = self.now.insert(name.to_owned(), value.to_owned());
        self.hidden.entry(name.to_owned()).or_insert(old);
    }

    pub(super) fn reset(&mut self, name: &str) {
        self.hidden.remove(name);
        match self.login.get(name) {
            Some(value) => self.now.insert(name.to_owned(), value.clone()),
            None => self.now.remove(name),
        };
    }

    pub(super) fn reset_all(&mut self) {
        self.hidden.clear();
        self.now = self.login.clone();
    }

    /// The transaction ends well: what was local ends with it.
    pub(super) fn end_transaction(&mut self) {
        for (name, old) in std::mem::take(&mut self.hidden) {
            match old {
                Some(value) => self.now.insert(name, value),
                None => self.now.remove(&name),
            };
        }
    }

    pub(super) fn value(&self, name: &str) -> Option<&str> {
        self.now.get(name).map(String::as_str)
    }

    /// What RESET makes of it; a setting that was never known stays unknown, as custom ones do in a new session.
    pub(super) fn default(&self, name: &str) -> Option<&str> {
        self.login.get(name).map(String::as_str)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.now.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The settings that Postgres reports: those without a class.
    pub(super) fn reported(&self) -> BTreeMap<String, String> {
        self.now.iter().filter(|(name, _)| !name.contains('.')).map(|(n, v)| (n.clone(), v.clone())).collect()
    }

    /// All of them in one text, for an echo.
    pub(super) fn echo(&self) -> String {
        self.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(",")
    }
}
