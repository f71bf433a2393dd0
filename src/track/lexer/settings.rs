//! Which settings a text may change for longer than its transaction, and which of them it sends back to their defaults.
//!
//! Owns the grammar of SET, RESET and of a `set_config` call, as far as names go. What the values are, and whether the
//! statement succeeds, the server is asked afterwards (`settle`). In doubt every setting may have changed.

use std::collections::BTreeSet;

use super::tokens::{Statements, Token, Tokens, is};
use super::verdict::{self, is_local_call};

/// Names of settings, in small letters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Names {
    /// None.
    #[default]
    None,
    /// These.
    These(BTreeSet<Box<str>>),
    /// Nobody knows which.
    Any,
}

impl Names {
    /// Whether there is none.
    #[must_use]
    pub const fn is_none(&self) -> bool {
        matches!(self, Self::None)
    }

    /// Takes those names in.
    pub fn add(&mut self, names: impl IntoIterator<Item = Box<str>>) {
        for name in names {
            match self {
                Self::Any => return,
                Self::None => *self = Self::These(BTreeSet::from([name])),
                Self::These(known) => drop(known.insert(name)),
            }
        }
    }

    /// Whether one of those may be among them; their case does not matter.
    #[must_use]
    pub fn has_any_of(&self, names: &[&str]) -> bool {
        match self {
            Self::None => false,
            Self::Any => true,
            Self::These(known) => {
                names.iter().any(|name| known.iter().any(|known| known.eq_ignore_ascii_case(name)))
            }
        }
    }

    /// Takes all of `other` in.
    pub fn merge(&mut self, other: &Self) {
        match other {
            Self::None => {}
            Self::Any => *self = Self::Any,
            Self::These(names) => self.add(names.iter().cloned()),
        }
    }
}

/// What a text does to settings for longer than its transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Those that may have another value behind it.
    pub touched: Names,
    /// Those of them that go back to the value they had at the login.
    pub reset: Names,
}

impl Changes {
    /// That all settings may change.
    #[must_use]
    pub const fn anything() -> Self {
        Self { touched: Names::Any, reset: Names::None }
    }

    /// What a lone `DISCARD ALL` does.
    #[must_use]
    pub const fn discard_all() -> Self {
        Self { touched: Names::None, reset: Names::Any }
    }
}

/// Reads a text that is UTF-8 without zero bytes.
#[must_use]
pub(super) fn changes(sql: &[u8]) -> Changes {
    let mut found = Changes::default();
    let mut statements = Statements::of(sql);
    while let Some((token, is_first)) = statements.next() {
        let tokens = &mut statements.tokens;
        match token {
            Token::Word(word) if is_first && is(word, b"set") => set(tokens, &mut found),
            Token::Word(word) if is_first && is(word, b"reset") => reset(tokens, &mut found),
            Token::Word(word) | Token::Name(word) if is(word, b"set_config") => call(tokens, &mut found),
            Token::Doubt => return Changes::anything(),
            Token::Word(_) | Token::Name(_) | Token::Text | Token::Number | Token::Symbol(_) => {}
        }
    }
    found
}

/// Whether a text may change one of these settings, if only for its transaction; it may be anything.
#[must_use]
pub fn may_change(sql: &[u8], names: &[&str]) -> bool {
    let mut found = Changes::default();
    let mut statements = Statements::of(sql);
    while let Some((token, is_first)) = statements.next() {
        let tokens = &mut statements.tokens;
        match token {
            Token::Word(word) if is_first && is(word, b"set") => {
                let mut ahead = tokens.clone();
                if ahead.eat_word(&[b"local"]) && !is_assignment(ahead.peek()) {
                    *tokens = ahead;
                }
                set(tokens, &mut found);
            }
            Token::Word(word) if is_first && is(word, b"reset") => reset(tokens, &mut found),
            Token::Word(word) if is_first && is(word, b"discard") => return true,
            Token::Word(word) | Token::Name(word) if is(word, b"set_config") => {
                call_for_any_time(tokens, &mut found);
            }
            Token::Doubt => return true,
            Token::Word(_) | Token::Name(_) | Token::Text | Token::Number | Token::Symbol(_) => {}
        }
    }
    found.touched.has_any_of(names) || found.reset == Names::Any
}

/// What follows SET.
pub(super) fn set(tokens: &mut Tokens<'_>, found: &mut Changes) {
    let mut ahead = tokens.clone();
    if ahead.eat_word(&[b"local", b"transaction", b"constraints"]) && !is_assignment(ahead.peek()) {
        return;
    }
    let mut ahead = tokens.clone();
    if ahead.eat_word(&[b"session"]) && !is_assignment(ahead.peek()) {
        *tokens = ahead;
    }
    if let Some(names) = special(tokens) {
        let to_default = tokens.peek().is_none_or(|token| match token {
            Token::Word(word) => is(word, b"default") || is(word, b"local"),
            Token::Symbol(symbol) => symbol == b';',
            Token::Name(_) | Token::Text | Token::Number | Token::Doubt => false,
        });
        note(found, names, to_default);
        return;
    }
    let Some(name) = name(tokens) else {
        found.touched = Names::Any;
        return;
    };
    let _ = tokens.eat_word(&[b"to"]) || tokens.eat_symbol(b'=');
    let to_default = tokens.eat_word(&[b"default"]);
    if !is_of_transaction(&name) {
        note(found, [name], to_default);
    }
}

/// What follows RESET.
pub(super) fn reset(tokens: &mut Tokens<'_>, found: &mut Changes) {
    if tokens.eat_word(&[b"all"]) {
        found.reset = Names::Any;
        return;
    }
    match special(tokens).or_else(|| name(tokens).map(|name| vec![name])) {
        Some(names) => note(found, names, true),
        None => found.touched = Names::Any,
    }
}

fn note(found: &mut Changes, names: impl IntoIterator<Item = Box<str>> + Clone, to_default: bool) {
    if to_default {
        found.reset.add(names.clone());
    }
    found.touched.add(names);
}

fn is_assignment(token: Option<Token<'_>>) -> bool {
    match token {
        Some(Token::Symbol(b'=' | b'.')) => true,
        Some(Token::Word(word)) => word.eq_ignore_ascii_case(b"to"),
        Some(Token::Name(_) | Token::Text | Token::Number | Token::Symbol(_) | Token::Doubt) | None => false,
    }
}

/// The names behind a notation of its own, such as TIME ZONE.
fn special(tokens: &mut Tokens<'_>) -> Option<Vec<Box<str>>> {
    let mut ahead = tokens.clone();
    let mut two = |first: &[u8], second: &[u8]| {
        let mut here = ahead.clone();
        let both = here.eat_word(&[first]) && here.eat_word(&[second]);
        if both {
            ahead = here;
        }
        both
    };
    let names: &[&str] = if two(b"time", b"zone") {
        &["timezone"]
    } else if two(b"session", b"authorization") {
        &["session_authorization", "role"]
    } else if two(b"characteristics", b"as") {
        &["default_transaction_isolation", "default_transaction_read_only", "default_transaction_deferrable"]
    } else if two(b"xml", b"option") {
        &["xmloption"]
    } else {
        return one_word(tokens);
    };
    *tokens = ahead;
    Some(names.iter().map(|name| (*name).into()).collect())
}

/// `SET SESSION` has been read already: AUTHORIZATION, NAMES, SCHEMA and ROLE stand alone.
fn one_word(tokens: &mut Tokens<'_>) -> Option<Vec<Box<str>>> {
    const SINGLE: [(&[u8], &[&str]); 4] = [
        (b"authorization", &["session_authorization", "role"]),
        (b"names", &["client_encoding"]),
        (b"schema", &["search_path"]),
        (b"role", &["role"]),
    ];
    for (word, names) in SINGLE {
        let mut ahead = tokens.clone();
        if ahead.eat_word(&[word]) && !is_assignment(ahead.peek()) {
            *tokens = ahead;
            return Some(names.iter().map(|name| (*name).into()).collect());
        }
    }
    None
}

/// A name, which may have a class: `class.name`.
fn name(tokens: &mut Tokens<'_>) -> Option<Box<str>> {
    let mut whole = String::new();
    loop {
        let part = match tokens.next() {
            Some(Token::Word(part) | Token::Name(part)) => part,
            Some(Token::Text | Token::Number | Token::Symbol(_) | Token::Doubt) | None => return None,
        };
        let part = std::str::from_utf8(part).ok().filter(|part| part.is_ascii() && !part.contains('"'))?;
        // Postgres cuts a longer one.
        whole.push_str(&part.get(..MAX_NAME_BYTES).unwrap_or(part).to_ascii_lowercase());
        if !tokens.eat_symbol(b'.') {
            return Some(whole.into());
        }
        whole.push('.');
    }
}

/// NAMEDATALEN - 1 (`src/include/pg_config_manual.h`).
pub const MAX_NAME_BYTES: usize = 63;

/// Settings whose value ends with the transaction in any case; the seed of `random()` cannot be asked for.
fn is_of_transaction(name: &str) -> bool {
    matches!(name, "transaction_isolation" | "transaction_read_only" | "transaction_deferrable" | "seed")
}

/// A call of `set_config`, given what follows the name.
pub(super) fn call(after: &Tokens<'_>, found: &mut Changes) {
    if !is_local_call(after.clone()) {
        call_for_any_time(after, found);
    }
}

fn call_for_any_time(after: &Tokens<'_>, found: &mut Changes) {
    let mut ahead = after.clone();
    let name = if ahead.eat_symbol(b'(') { verdict::constant_argument(&mut ahead) } else { None };
    match name.and_then(|text| std::str::from_utf8(text).ok()) {
        Some(name) if name.is_ascii() && !is_of_transaction(name) => {
            found.touched.add([name.to_ascii_lowercase().into()]);
        }
        Some(_) | None => found.touched = Names::Any,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn these(names: &[&str]) -> Names {
        let mut all = Names::None;
        all.add(names.iter().map(|name| (*name).into()));
        all
    }

    fn assert_changes(sql: &str, touched: &[&str], reset: &[&str]) {
        assert_eq!(
            changes(sql.as_bytes()),
            Changes { touched: these(touched), reset: these(reset) },
            "{sql}"
        );
    }

    #[test]
    fn names_are_found_in_any_notation() {
        for sql in ["SET work_mem = 5", "set session WORK_MEM to '5MB'", "/* a */ SET\n\"work_mem\" TO 5 ;"] {
            assert_changes(sql, &["work_mem"], &[]);
        }
        assert_changes("SET my.App_user = 'x'; SELECT 1; SET geqo TO off", &["geqo", "my.app_user"], &[]);
        assert_changes("SET TIME ZONE 'UTC'", &["timezone"], &[]);
        assert_changes("SET SESSION TIME ZONE LOCAL", &["timezone"], &["timezone"]);
        assert_changes("SET NAMES 'utf8'", &["client_encoding"], &[]);
        assert_changes("SET SCHEMA 'x'", &["search_path"], &[]);
        assert_changes("SET ROLE x", &["role"], &[]);
        assert_changes("SET role TO x", &["role"], &[]);
        assert_changes("SET SESSION ROLE x", &["role"], &[]);
        assert_changes("SET SESSION AUTHORIZATION x", &["role", "session_authorization"], &[]);
        assert_changes("SET SESSION SESSION AUTHORIZATION x", &["role", "session_authorization"], &[]);
        assert_changes("SET XML OPTION DOCUMENT", &["xmloption"], &[]);
        assert_changes("SET session.x = 1", &["session.x"], &[]);
        assert_changes("SET local.x = 1", &["local.x"], &[]);
        let session = [
            "default_transaction_isolation",
            "default_transaction_read_only",
            "default_transaction_deferrable",
        ];
        assert_changes("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", &session, &[]);
    }

    #[test]
    fn what_ends_with_the_transaction_is_not_among_them() {
        for sql in [
            "SET LOCAL work_mem = 5",
            "SET TRANSACTION READ ONLY",
            "SET CONSTRAINTS ALL DEFERRED",
            "SET transaction_isolation TO serializable",
            "SELECT set_config('work_mem', '5', true)",
            "UPDATE t SET work_mem = 5",
            "SELECT 'SET work_mem = 5'",
        ] {
            assert_changes(sql, &[], &[]);
        }
    }

    #[test]
    fn what_goes_back_to_its_default_is_told_apart() {
        assert_changes("RESET work_mem", &["work_mem"], &["work_mem"]);
        assert_changes("SET work_mem TO DEFAULT", &["work_mem"], &["work_mem"]);
        assert_changes("RESET TIME ZONE", &["timezone"], &["timezone"]);
        assert_changes(
            "RESET SESSION AUTHORIZATION",
            &["role", "session_authorization"],
            &["role", "session_authorization"],
        );
        let all = changes(b"CLOSE ALL; RESET ALL");
        assert_eq!(all, Changes { touched: Names::None, reset: Names::Any });
    }

    #[test]
    fn a_call_of_set_config_names_its_setting_or_nobody_knows_it() {
        assert_changes("SELECT set_config('my.a'::text, $1::text, false)", &["my.a"], &[]);
        assert_changes("SELECT set_config('My.User', $1, false)", &["my.user"], &[]);
        assert_changes("SELECT pg_catalog.set_config( 'a.b' , x, FALSE), 1", &["a.b"], &[]);
        for sql in
            ["SELECT set_config($1, $2, false)", "SELECT set_config('a'||'b', 'x', false)", "SET 'x' = 1"]
        {
            assert_eq!(changes(sql.as_bytes()).touched, Names::Any, "{sql}");
        }
        assert_eq!(changes(b"SELECT 'abc"), Changes::anything());
    }
}
