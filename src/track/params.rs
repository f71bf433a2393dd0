//! Settings that follow a client from server to server.
//!
//! Owns what Postgres reports ([`Params`], from ParameterStatus) and what it does not report but a client asked for at
//! startup ([`Extras`]), and the SQL that turns one server's settings into one client's. Equal sets share one
//! allocation, so that the usual comparison is of two pointers.

use std::rc::Rc;

use super::lexer::{MAX_NAME_BYTES, is_temp_schema, split_path};

/// Reported settings that a session may change. The others (`server_version`, ...) describe the server.
pub const SETTABLE: [&str; 9] = [
    "client_encoding",
    "application_name",
    "DateStyle",
    "IntervalStyle",
    "TimeZone",
    "standard_conforming_strings",
    "default_transaction_read_only",
    "scram_iterations",
    "search_path",
];

const ENCODING: &str = "client_encoding";

/// Whether Postgres reports the setting and a session may change it. Names of settings ignore case.
#[must_use]
pub fn is_settable_reported(name: &str) -> bool {
    SETTABLE.iter().any(|known| known.eq_ignore_ascii_case(name))
}

/// The reported settings of a server, as a client last saw them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Params {
    values: Vec<(Box<str>, Box<str>)>,
}

impl Params {
    /// From (name, value) pairs.
    #[must_use]
    pub fn new(mut values: Vec<(Box<str>, Box<str>)>) -> Self {
        values.sort();
        Self { values }
    }

    /// All pairs, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.values.iter().map(|(name, value)| (&**name, &**value))
    }

    /// The value of a setting; names ignore case.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<&str> {
        self.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// Takes over one reported value.
    pub fn set(&mut self, name: &str, value: &str) {
        match self.values.iter_mut().find(|(known, _)| known.eq_ignore_ascii_case(name)) {
            Some((_, old)) => *old = value.into(),
            None => {
                self.values.push((name.into(), value.into()));
                self.values.sort();
            }
        }
    }
}

/// Whether what is made without saying where is a temporary object: by the place of `pg_temp` in the search_path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MadeTemp {
    /// It is not there.
    No,
    /// Others come before it, but who knows whether they are there and may be used.
    IfNothingElse,
    /// It is the first, apart from the one that may not exist.
    First,
}

/// Settings that Postgres does not report, as (name, value), sorted by name.
pub type Extras = Vec<(Box<str>, Box<str>)>;

/// The settings of one session or one server.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Reported.
    pub params: Rc<Params>,
    /// Not reported.
    pub extras: Rc<Extras>,
}

impl Settings {
    /// Whether a server with these settings serves a client with those without any change.
    #[must_use]
    pub fn serves(&self, client: &Self) -> bool {
        (Rc::ptr_eq(&self.params, &client.params) || self.same_settable(&client.params))
            && (Rc::ptr_eq(&self.extras, &client.extras) || self.extras == client.extras)
    }

    /// Whether they are the very same sets, without a look at the values.
    pub(super) fn is_identical(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.params, &other.params) && Rc::ptr_eq(&self.extras, &other.extras)
    }

    /// Whether what is made without saying where is temporary.
    pub(super) fn make_temp(&self) -> MadeTemp {
        let silent = self.extras.iter().find(|(name, _)| &**name == "search_path").map(|(_, value)| &**value);
        let Some(path) = silent.or_else(|| self.params.value("search_path")) else { return MadeTemp::No };
        if memchr::memmem::find(path.as_bytes(), b"pg_temp").is_none() {
            return MadeTemp::No;
        }
        let Some(path) = split_path(path) else { return MadeTemp::First };
        match path.iter().filter(|schema| *schema != "$user").position(|schema| is_temp_schema(schema)) {
            None => MadeTemp::No,
            Some(0) => MadeTemp::First,
            Some(_) => MadeTemp::IfNothingElse,
        }
    }

    /// Appends SQL statements, each ended by `;`, that give a server with these settings those of `client`.
    fn put_changes(&self, client: &Self, sql: &mut String) {
        for name in SETTABLE {
            match (self.params.value(name), client.params.value(name)) {
                (Some(mine), Some(wanted)) if mine != wanted => put_set(sql, name, wanted),
                _ => {}
            }
        }
        if Rc::ptr_eq(&self.extras, &client.extras) {
            return;
        }
        let gone =
            |(name, _): &&(Box<str>, Box<str>)| !client.extras.iter().any(|(wanted, _)| wanted == name);
        for (name, _) in by_rank(&self.extras).into_iter().rev().filter(gone) {
            put_reset(sql, name);
        }
        for (name, value) in by_rank(&client.extras) {
            if !self.extras.iter().any(|mine| mine.0 == *name && mine.1 == *value) {
                put_set(sql, name, value);
            }
        }
    }

    /// Queries that give a server with these settings those of `client`; after a `reset` it is not known what it has.
    ///
    /// Postgres reads a whole query in the client encoding that holds when it comes. So a query with more than ASCII in it,
    /// whose values are the server's bytes as in a startup packet, goes in the server's own encoding.
    #[must_use]
    pub fn queries(&self, client: &Self, reset: bool) -> Vec<String> {
        let mut sql = String::new();
        if reset {
            Self::put_all(client, &mut sql);
        } else {
            self.put_changes(client, &mut sql);
        }
        if sql.is_empty() {
            return Vec::new();
        }
        let Some(raw) = client.params.value("server_encoding").filter(|_| !sql.is_ascii()) else {
            return vec![sql];
        };
        let mut first = String::new();
        put_set(&mut first, ENCODING, raw);
        // Within the query this changes nothing; behind it, everything.
        put_set(&mut sql, ENCODING, client.params.value(ENCODING).unwrap_or(raw));
        vec![first, sql]
    }

    /// Appends SQL that writes all settings of `client`, whatever the server has.
    fn put_all(client: &Self, sql: &mut String) {
        for name in SETTABLE {
            if let Some(wanted) = client.params.value(name) {
                put_set(sql, name, wanted);
            }
        }
        for (name, value) in by_rank(&client.extras) {
            put_set(sql, name, value);
        }
    }

    fn same_settable(&self, other: &Params) -> bool {
        SETTABLE.iter().all(|name| match (self.params.value(name), other.value(name)) {
            (Some(mine), Some(wanted)) => mine == wanted,
            _ => true,
        })
    }
}

/// Where a setting comes in the order in which settings are made: who one is comes last, because another role may not be
/// allowed to make the others.
pub(super) fn rank(name: &str) -> u8 {
    match name {
        "session_authorization" => 1,
        "role" => 2,
        _ => 0,
    }
}

fn by_rank(extras: &Extras) -> Vec<&(Box<str>, Box<str>)> {
    let mut all: Vec<_> = extras.iter().collect();
    all.sort_by_key(|(name, _)| rank(name));
    all
}

/// Appends SQL that gives a setting a value for the session.
///
/// By `set_config`, because a list (`DateStyle`, `search_path`) in quotes would be one element to SET.
pub fn put_set(sql: &mut String, name: &str, value: &str) {
    sql.push_str("SELECT pg_catalog.set_config(");
    put_literal(sql, name);
    sql.push(',');
    put_literal(sql, value);
    sql.push_str(",false);");
}

/// The same by SET, which does not count as the first query of a transaction.
pub(super) fn put_assignment(sql: &mut String, name: &str, value: &str, letters: Letters) {
    sql.push_str("SET ");
    put_name(sql, name);
    sql.push_str(" TO ");
    match split_path(value) {
        Some(elements) if IS_QUOTED_LIST.contains(&name) && !elements.is_empty() => {
            for (i, element) in elements.iter().enumerate() {
                sql.push_str(if i > 0 { "," } else { "" });
                put_literal_as(sql, element, letters);
            }
        }
        _ => put_literal_as(sql, value, letters),
    }
    sql.push(';');
}

/// Settings whose value is a list of quoted names (Postgres' `GUC_LIST_QUOTE`), among those a session may change.
const IS_QUOTED_LIST: [&str; 4] =
    ["search_path", "temp_tablespaces", "local_preload_libraries", "session_preload_libraries"];

fn put_reset(sql: &mut String, name: &str) {
    if name.split('.').any(|part| part.len() > MAX_NAME_BYTES) {
        // As a name in a text it would be cut.
        sql.push_str(&format!("SELECT pg_catalog.set_config({},NULL,false);", literal(name)));
        return;
    }
    sql.push_str("RESET ");
    put_name(sql, name);
    sql.push(';');
}

fn put_name(sql: &mut String, name: &str) {
    // A custom setting is written `class.name`: each part is an identifier of its own.
    for (i, part) in name.split('.').enumerate() {
        if i > 0 {
            sql.push('.');
        }
        sql.push('"');
        sql.push_str(&part.replace('"', "\"\""));
        sql.push('"');
    }
}

/// A text as an SQL constant.
pub(super) fn literal(text: &str) -> String {
    let mut sql = String::new();
    put_literal(&mut sql, text);
    sql
}

fn put_literal(sql: &mut String, text: &str) {
    put_literal_as(sql, text, Letters::AsTheyAre);
}

/// How letters beyond ASCII are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Letters {
    /// As they are: the client_encoding is that of the text.
    AsTheyAre,
    /// By their numbers: whatever the client_encoding is. Not for databases in SQL_ASCII, which know no letters.
    ByNumber,
}

fn put_literal_as(sql: &mut String, text: &str, letters: Letters) {
    // E'' so that the meaning does not depend on standard_conforming_strings.
    sql.push_str("E'");
    for c in text.chars() {
        match c {
            '\'' => sql.push_str("''"),
            '\\' => sql.push_str("\\\\"),
            '\0' => {}
            _ if !c.is_ascii() && letters == Letters::ByNumber => {
                sql.push_str(&format!("\\U{:08X}", u32::from(c)));
            }
            _ => sql.push(c),
        }
    }
    sql.push('\'');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(params: &[(&str, &str)], extras: &[(&str, &str)]) -> Settings {
        let own = |pairs: &[(&str, &str)]| pairs.iter().map(|(n, v)| ((*n).into(), (*v).into())).collect();
        Settings { params: Rc::new(Params::new(own(params))), extras: Rc::new(own(extras)) }
    }

    #[test]
    fn equal_settings_need_no_change() {
        let server = settings(&[("TimeZone", "UTC"), ("server_version", "15")], &[]);
        let client = settings(&[("TimeZone", "UTC"), ("server_version", "14")], &[]);
        assert!(server.serves(&client));
        let mut sql = String::new();
        server.put_changes(&client, &mut sql);
        assert_eq!(sql, "");
    }

    #[test]
    fn differences_become_sql_with_hostile_values_quoted() {
        let server = settings(&[("TimeZone", "UTC")], &[("a.b", "1"), ("geqo", "off")]);
        let client = settings(&[("TimeZone", "x'; DROP")], &[("geqo", "o\\n")]);
        assert!(!server.serves(&client));
        let mut sql = String::new();
        server.put_changes(&client, &mut sql);
        assert_eq!(
            sql,
            "SELECT pg_catalog.set_config(E'TimeZone',E'x''; DROP',false);RESET \"a\".\"b\";\
             SELECT pg_catalog.set_config(E'geqo',E'o\\\\n',false);"
        );
    }

    #[test]
    fn an_assignment_keeps_lists_apart() {
        let mut sql = String::new();
        put_assignment(&mut sql, "my.word", "it's", Letters::AsTheyAre);
        put_assignment(&mut sql, "datestyle", "ISO, DMY", Letters::AsTheyAre);
        put_assignment(&mut sql, "search_path", "a, \"B c\"", Letters::AsTheyAre);
        assert_eq!(
            sql,
            "SET \"my\".\"word\" TO E'it''s';SET \"datestyle\" TO E'ISO, DMY';SET \"search_path\" TO E'a',E'B c';"
        );
    }

    #[test]
    fn what_is_not_ascii_is_written_in_the_servers_own_encoding() {
        let reported = [("client_encoding", "SJIS"), ("server_encoding", "UTF8")];
        let server = settings(&reported, &[]);
        let client =
            settings(&[("client_encoding", "LATIN1"), ("server_encoding", "UTF8")], &[("my.x", "caf\u{e9}")]);
        let set =
            |name: &str, value: &str| format!("SELECT pg_catalog.set_config(E'{name}',E'{value}',false);");
        let encoding = |name: &str| set("client_encoding", name);
        for reset in [false, true] {
            let queries = server.queries(&client, reset);
            let rest = [encoding("LATIN1"), set("my.x", "caf\u{e9}"), encoding("LATIN1")].concat();
            assert_eq!(queries, [encoding("UTF8"), rest]);
        }
        let plain = settings(&reported, &[("my.x", "cafe")]);
        assert_eq!(server.queries(&plain, false), [set("my.x", "cafe")]);
    }

    #[test]
    fn names_of_settings_ignore_case() {
        let mut params = Params::new(vec![("TimeZone".into(), "UTC".into())]);
        params.set("timezone", "CET");
        assert_eq!(params.iter().collect::<Vec<_>>(), [("TimeZone", "CET")]);
        assert!(is_settable_reported("datestyle"));
    }
}
