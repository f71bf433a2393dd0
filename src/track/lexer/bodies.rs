//! What the body of a function may leave behind on a server, as far as its words tell.
//!
//! Owns the look into functions in SQL and PL/pgSQL that clients call by name only. What cannot be read may set anything.

use super::settings::{self, Changes, Names};
use super::tokens::{Statements, Token, Tokens, is};

/// What functions may leave behind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// Settings that they change for longer than the transaction.
    pub settings: Names,
    /// They may take what keeps a client at its server: a lock of the session, a temporary object, LISTEN.
    pub pins: bool,
}

impl Left {
    /// Everything.
    #[must_use]
    pub const fn anything() -> Self {
        Self { settings: Names::Any, pins: true }
    }

    /// Whether it is nothing.
    #[must_use]
    pub const fn is_nothing(&self) -> bool {
        self.settings.is_none() && !self.pins
    }

    /// Takes the other in.
    pub fn merge(&mut self, other: &Self) {
        self.settings.merge(&other.settings);
        self.pins |= other.pins;
    }
}

/// Reads a body.
#[must_use]
pub fn left_by_body(body: &[u8]) -> Left {
    let small = body.to_ascii_lowercase();
    let says = |what: &[u8]| memchr::memmem::find(&small, what).is_some();
    let mut left = Left { settings: Names::None, pins: says(b"advisory_lock") };
    let mut changes = Changes::default();
    let mut tokens = Tokens::new(body);
    let (mut is_first, mut runs_texts, mut calls) = (true, false, 0_usize);
    while let Some(token) = tokens.next() {
        let word = match token {
            Token::Word(word) => word,
            Token::Doubt => return Left::anything(),
            Token::Name(name) => {
                if is(name, b"set_config") {
                    settings::call(&tokens, &mut changes);
                    calls = calls.saturating_add(1);
                }
                b""
            }
            Token::Symbol(b';') => {
                is_first = true;
                continue;
            }
            Token::Text | Token::Number | Token::Symbol(_) => b"",
        };
        if is_first && is(word, b"set") {
            settings::set(&mut tokens, &mut changes);
        } else if is_first && is(word, b"reset") {
            settings::reset(&mut tokens, &mut changes);
        } else if is(word, b"set_config") {
            settings::call(&tokens, &mut changes);
            calls = calls.saturating_add(1);
        }
        runs_texts |= is(word, b"execute");
        left.pins |= is_first && is(word, b"listen") || is(word, b"temp") || is(word, b"temporary");
        is_first = STARTS.iter().any(|start| is(word, start));
    }
    left.settings.merge(&changes.touched);
    if !changes.reset.is_none() {
        left.settings.merge(&changes.reset);
    }
    // Those that are not calls are in texts that the function puts together and runs.
    let hidden_calls = memchr::memmem::find_iter(&small, b"set_config").count() > calls;
    let hidden_sets =
        runs_texts && [b"'set ".as_slice(), b"'reset ", b"'discard "].iter().any(|verb| says(verb));
    if hidden_calls || hidden_sets {
        left.settings = Names::Any;
    }
    left
}

/// Words of PL/pgSQL behind which a statement begins.
const STARTS: [&[u8]; 4] = [b"begin", b"then", b"else", b"loop"];

/// Whether a text makes functions or triggers; or, if some that leave something behind are there, anything that may run
/// them (a view, a policy, an operator).
#[must_use]
pub fn makes_functions(sql: &[u8], are_there: bool) -> bool {
    let is_alter = || sql.get(..5).is_some_and(|start| is(start, b"alter"));
    if !are_there && super::is_plain(sql) && !is_alter() {
        return false;
    }
    let mut statements = Statements::of(sql);
    while let Some((token, is_first)) = statements.next() {
        let tokens = &mut statements.tokens;
        if let Token::Word(word) = token
            && is_first
            && is(word, b"do")
        {
            // A block may make some.
            let small = sql.to_ascii_lowercase();
            let says = |what: &&[u8]| memchr::memmem::find(&small, what).is_some();
            return MADE.iter().any(says)
                || says(&b"execute".as_slice())
                || are_there && (says(&b"create".as_slice()) || says(&b"alter".as_slice()));
        }
        if let Token::Word(word) = token
            && is_first
            && (is(word, b"create") || is(word, b"alter"))
        {
            while tokens.eat_word(&[b"or", b"replace", b"constraint"]) {}
            if are_there || tokens.eat_word(&MADE) {
                return true;
            }
        }
    }
    false
}

/// What functions and triggers come with.
const MADE: [&[u8]; 6] = [b"function", b"procedure", b"routine", b"trigger", b"extension", b"schema"];

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Names {
        let mut all = Names::None;
        all.add(names.iter().map(|name| (*name).into()));
        all
    }

    fn settings(body: &str) -> Names {
        left_by_body(body.as_bytes()).settings
    }

    #[test]
    fn settings_that_a_body_changes_are_found() {
        assert_eq!(
            settings("BEGIN PERFORM set_config('app.user', id::text, false); END"),
            names(&["app.user"])
        );
        assert_eq!(settings("SELECT pg_catalog.set_config('app.user', $1, false)"), names(&["app.user"]));
        assert_eq!(settings("BEGIN IF x THEN SET work_mem = '5MB'; END IF; END"), names(&["work_mem"]));
        assert_eq!(settings("BEGIN RESET work_mem; SET ROLE a; END"), names(&["role", "work_mem"]));
        assert_eq!(settings("BEGIN RESET ALL; END"), Names::Any);
    }

    #[test]
    fn what_ends_with_the_transaction_is_not_among_them() {
        for body in [
            "BEGIN PERFORM set_config('app.user', 'x', true); UPDATE t SET a = 1 WHERE b; END",
            "BEGIN SET LOCAL work_mem = 5; PERFORM pg_advisory_xact_lock(1); EXECUTE 'SELECT 1'; END",
            "INSERT INTO t VALUES (1) ON CONFLICT DO UPDATE SET a = 2",
        ] {
            assert!(left_by_body(body.as_bytes()).is_nothing(), "{body}");
        }
    }

    #[test]
    fn what_is_put_together_may_be_anything() {
        for body in [
            "BEGIN EXECUTE 'SET ' || name || ' = 1'; END",
            "BEGIN EXECUTE format('select set_config(%L, %L, false)', a, b); END",
            "BEGIN PERFORM set_config(name, value, false); END",
            "BEGIN SELECT 'open",
        ] {
            assert_eq!(settings(body), Names::Any, "{body}");
        }
    }

    #[test]
    fn what_keeps_a_client_is_found() {
        for body in [
            "BEGIN PERFORM pg_advisory_lock(1); END",
            "BEGIN CREATE TEMP TABLE t (a int); END",
            "BEGIN LISTEN a; END",
        ] {
            assert!(left_by_body(body.as_bytes()).pins, "{body}");
        }
    }

    #[test]
    fn texts_that_make_functions_are_told_apart() {
        for sql in [
            "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
            "begin; create or replace procedure p() language sql as ''",
            "ALTER FUNCTION f() RENAME TO g",
            "DO $$ BEGIN CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'; END $$",
            "CREATE EXTENSION tablefunc",
            "CREATE CONSTRAINT TRIGGER t AFTER INSERT ON x EXECUTE FUNCTION f()",
        ] {
            assert!(makes_functions(sql.as_bytes(), false), "{sql}");
        }
        for sql in
            ["CREATE TABLE function (a int)", "SELECT 'CREATE FUNCTION'", "DROP FUNCTION f", "SELECT 1"]
        {
            assert!(!makes_functions(sql.as_bytes(), false), "{sql}");
        }
        for sql in ["CREATE VIEW v AS SELECT f()", "BEGIN; ALTER TABLE t ALTER a SET DEFAULT f()"] {
            assert!(
                !makes_functions(sql.as_bytes(), false) && makes_functions(sql.as_bytes(), true),
                "{sql}"
            );
        }
    }
}
