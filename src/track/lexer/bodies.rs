//! What the body of a function may leave behind on a server, as far as its words tell.
//!
//! Owns the look into functions in SQL and PL/pgSQL that clients call by name only. What cannot be read may set anything.

use std::collections::BTreeSet;

use super::path::{self, MakesTemp};
use super::settings::{self, Changes, Names};
use super::skim::{Skim, custom_names};
use super::tokens::{Statements, Token, Tokens, after_blanks, is};
use super::verdict;

/// What functions may leave behind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// Settings that they change for longer than the transaction.
    pub settings: Names,
    /// They may take what keeps a client at its server: a lock of the session, a temporary object, LISTEN.
    pub pins: bool,
    /// Whether they make functions, or what runs functions unseen.
    pub makes: Made,
    /// Custom settings that they name: where they may set anything, what those are is in no view of the server's.
    pub custom: BTreeSet<Box<str>>,
}

/// What a function makes of functions, views and the like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Made {
    /// Nothing.
    #[default]
    Nothing,
    /// New ones, perhaps.
    New,
    /// It changes those that are there.
    Anew,
}

impl Left {
    /// Everything.
    #[must_use]
    pub const fn anything() -> Self {
        Self { settings: Names::Any, pins: true, makes: Made::New, custom: BTreeSet::new() }
    }

    /// Whether it is nothing.
    #[must_use]
    pub const fn is_nothing(&self) -> bool {
        self.settings.is_none() && !self.pins && matches!(self.makes, Made::Nothing)
    }

    /// Takes the other in.
    pub fn merge(&mut self, other: &Self) {
        self.settings.merge(&other.settings);
        self.pins |= other.pins;
        self.makes = self.makes.max(other.makes);
        self.custom.extend(other.custom.iter().cloned());
    }
}

/// Reads a body.
#[must_use]
pub fn left_by_body(body: &[u8]) -> Left {
    let small = body.to_ascii_lowercase();
    let says = |what: &[u8]| memchr::memmem::find(&small, what).is_some();
    // A search_path that is put together may begin with it, if only for the transaction.
    let makes_temp = says(b"search_path") && path::makes_temp(body) != MakesTemp::No;
    let pins = says(b"advisory_lock") || says(b"pg_temp") || makes_temp;
    let makes = made_by_body(&small);
    let mut left = Left { settings: Names::None, pins, makes, custom: custom_names(body) };
    let mut changes = Changes::default();
    let mut tokens = Tokens::new(body);
    let (mut is_first, mut runs_texts, mut calls) = (true, false, 0_usize);
    while let Some(token) = tokens.next() {
        let word = match token {
            Token::Word(word) => word,
            Token::Doubt => {
                let makes = left.makes.max(Made::New);
                return Left { custom: left.custom, makes, ..Left::anything() };
            }
            Token::Name(name) => {
                if verdict::runs_texts(name) {
                    left.merge(&Left::anything());
                }
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
        if verdict::runs_texts(word) {
            left.merge(&Left::anything());
        }
        if is(word, b"execute") {
            runs_texts = true;
            left.merge(&left_by_text(tokens.clone()));
        }
        let keeps = is_first && FIRST_KEEPING.iter().any(|verb| is(word, verb));
        left.pins |= keeps || KEEPING.iter().any(|kept| is(word, kept));
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
    // The view sets what is updated in it.
    let updates = says(b"pg_settings") && says(b"update");
    if hidden_calls || hidden_sets || updates {
        left.settings = Names::Any;
    }
    left
}

/// What a body makes by its own words, or by those of the texts in it.
fn made_by_body(small: &[u8]) -> Made {
    let is_letter = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_' || !byte.is_ascii();
    let mut words = small.split(|byte| !is_letter(byte)).filter(|word| !word.is_empty());
    let mut made = Made::Nothing;
    while let Some(word) = words.next() {
        let mut behind = words.clone();
        if word == b"alter" {
            if behind.next().is_some_and(|what| MADE.contains(&what) || RUNNING.contains(&what)) {
                return Made::Anew;
            }
        } else if word == b"create" {
            let mut is_anew = false;
            let what = behind.find(|word| {
                is_anew |= *word == b"replace";
                !BEFORE.contains(word)
            });
            match what {
                Some(what) if HARMLESS.contains(&what) => {}
                _ if is_anew => return Made::Anew,
                _ => made = Made::New,
            }
        }
    }
    made
}

/// What the text leaves that EXECUTE runs: one that is written there whole, or put together of names and constants.
fn left_by_text(mut after: Tokens<'_>) -> Left {
    let is_formatted = after.eat_word(&[b"format"]) && after.eat_symbol(b'(');
    if is_of_a_trigger(after.clone()) {
        return Left::default();
    }
    let Some(text) = after.text() else { return Left::anything() };
    if is_formatted {
        if !matches!(after.peek(), Some(Token::Symbol(b',' | b')'))) {
            return Left::anything();
        }
        // What follows the call may be put behind the text as well.
        let mut open = 1_usize;
        while open > 0 {
            match after.next() {
                Some(Token::Symbol(b'(')) => open = open.saturating_add(1),
                Some(Token::Symbol(b')')) => open = open.saturating_sub(1),
                Some(Token::Doubt) | None => return Left::anything(),
                Some(Token::Word(_) | Token::Name(_) | Token::Text | Token::Number | Token::Symbol(_)) => {}
            }
        }
    }
    let goes_on = match after.peek() {
        None | Some(Token::Symbol(b';')) => false,
        Some(Token::Word(word)) => ![b"using".as_slice(), b"into", b"loop"].iter().any(|end| is(word, end)),
        Some(_) => true,
    };
    if goes_on {
        return Left::anything();
    }
    if !is_formatted {
        return left_by_body(text);
    }
    match filled(text) {
        Some(text) => left_by_body(&text),
        None => Left::anything(),
    }
}

/// Whether what follows EXECUTE is that of a trigger that is made here, `FUNCTION name(..)`, and no variable.
fn is_of_a_trigger(mut after: Tokens<'_>) -> bool {
    after.eat_word(&[b"function", b"procedure"])
        && match after.next() {
            Some(Token::Word(word)) => ![b"using".as_slice(), b"into"].iter().any(|next| is(word, next)),
            Some(Token::Name(_)) => true,
            Some(Token::Text | Token::Number | Token::Symbol(_) | Token::Doubt) | None => false,
        }
        && matches!(after.peek(), Some(Token::Symbol(b'(' | b'.')))
}

/// A text for `format` with something in the place of each name and constant; `None` if what stands there may be more, or
/// decides what the text does.
fn filled(text: &[u8]) -> Option<Vec<u8>> {
    const DECIDING: [&[u8]; 7] = [b"set", b"reset", b"discard", b"listen", b"call", b"do", b"execute"];
    let Some(Token::Word(verb)) = Tokens::new(text).next() else { return None };
    if DECIDING.iter().any(|word| is(verb, word)) || memchr::memchr(b';', text).is_some() {
        return None;
    }
    // A name before a parenthesis may be a function's, unless columns are listed there.
    let lists = [b"create".as_slice(), b"alter"].iter().any(|word| is(verb, word));
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((byte, tail)) = rest.split_first() {
        rest = tail;
        if *byte != b'%' {
            out.push(*byte);
            continue;
        }
        // `%I`, `%1$I`
        let (_, tail) =
            rest.split_at_checked(rest.iter().take_while(|byte| byte.is_ascii_digit()).count())?;
        let tail = tail.strip_prefix(b"$").unwrap_or(tail);
        rest = match tail {
            [b'I', tail @ ..] if !tail.trim_ascii_start().starts_with(b"(") || lists => {
                out.extend_from_slice(b"x");
                tail
            }
            [b'L', tail @ ..] => {
                out.extend_from_slice(b"'x'");
                tail
            }
            [b'%', tail @ ..] => {
                out.push(b'%');
                tail
            }
            _ => return None,
        };
    }
    Some(out)
}

/// What keeps a client where it has said that, or lets it go, at the beginning of a statement.
const FIRST_KEEPING: [&[u8]; 3] = [b"listen", b"prepare", b"deallocate"];

/// The same anywhere: temporary objects, held cursors.
const KEEPING: [&[u8]; 3] = [b"temp", b"temporary", b"hold"];

/// Words of PL/pgSQL behind which a statement begins.
const STARTS: [&[u8]; 4] = [b"begin", b"then", b"else", b"loop"];

/// Whether a text makes functions or triggers; or, if some that leave something behind are there, anything that may run
/// them (a view, a policy, an operator). Of the [plain](super::is_plain) ones, which are one statement, only ALTER may.
#[must_use]
pub fn makes_functions(sql: &[u8], is_plain: bool, are_there: bool) -> bool {
    let first = || after_blanks(sql).map(|rest| rest.first().map(u8::to_ascii_lowercase));
    if is_plain && first().is_some_and(|first| first != Some(b'a')) {
        return false;
    }
    let mut statements = Statements::of(sql);
    while let Some((token, is_first)) = statements.next() {
        let tokens = &mut statements.tokens;
        if token == Token::Doubt {
            return says_make(sql);
        }
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

/// Whether a text that cannot be read may make functions, or what runs them.
#[must_use]
pub fn says_make(sql: &[u8]) -> bool {
    let mut skim = Skim::default();
    skim.feed(sql);
    skim.makes()
}

/// What functions and triggers come with.
const MADE: [&[u8]; 6] = [b"function", b"procedure", b"routine", b"trigger", b"extension", b"schema"];

/// What runs functions without naming them.
const RUNNING: [&[u8]; 6] = [b"view", b"rule", b"policy", b"operator", b"domain", b"aggregate"];

/// What may stand between CREATE and what is made.
const BEFORE: [&[u8]; 11] = [
    b"or",
    b"replace",
    b"temp",
    b"temporary",
    b"global",
    b"local",
    b"unlogged",
    b"unique",
    b"foreign",
    b"constraint",
    b"recursive",
];

/// What is made often, and runs no function that was not run before.
const HARMLESS: [&[u8]; 7] = [b"table", b"index", b"sequence", b"statistics", b"role", b"user", b"type"];

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
    fn texts_that_are_run_are_read_where_they_are_written() {
        for body in [
            "BEGIN EXECUTE what; END",
            "BEGIN EXECUTE format(what); END",
            "BEGIN EXECUTE format('SELECT %s', what); END",
            "BEGIN EXECUTE format('SELECT %I(1)', what); END",
            "BEGIN EXECUTE 'UPDATE t SET a = ' || what; END",
            "BEGIN FOR r IN EXECUTE TG_ARGV[0] LOOP NULL; END LOOP; END",
            "BEGIN EXECUTE format('SET %I = 1', what); END",
            "BEGIN EXECUTE format('SELECT 1; SET %I = 1', what); END",
            "BEGIN EXECUTE format('SELECT %L ', lower(what)) || what; END",
            "BEGIN EXECUTE format('SELECT %L' || what, what); END",
        ] {
            assert_eq!(settings(body), Names::Any, "{body}");
        }
        for body in [
            "BEGIN EXECUTE 'DELETE FROM t WHERE a = $1' USING b; END",
            "BEGIN EXECUTE format('ALTER TABLE %I.%1$I ADD COLUMN a int DEFAULT %L', b, c); END",
            "BEGIN EXECUTE format('CREATE TABLE %I (a int)', b); END",
        ] {
            assert!(left_by_body(body.as_bytes()).is_nothing(), "{body}");
        }
        let trigger = left_by_body(b"BEGIN CREATE TRIGGER t AFTER INSERT ON x EXECUTE FUNCTION f(); END");
        assert_eq!(trigger, Left { makes: Made::New, ..Left::default() });
        for variable in ["EXECUTE function", "EXECUTE procedure USING (a)", "EXECUTE function || b"] {
            assert_eq!(
                left_by_body(format!("BEGIN {variable}; END").as_bytes()).settings,
                Names::Any,
                "{variable}"
            );
        }
        assert_eq!(settings("BEGIN EXECUTE 'SET my.a = 1'; END"), Names::Any);
    }

    #[test]
    fn functions_that_make_others_are_found() {
        let made = |body: &str| left_by_body(body.as_bytes()).makes;
        for body in [
            "BEGIN CREATE TABLE t (created_at date); create temp table u (a int); END",
            "BEGIN EXECUTE 'CREATE UNIQUE INDEX ON t (a)'; ALTER TABLE t ADD b int; END",
            "SELECT created, alternative FROM t",
        ] {
            assert_eq!(made(body), Made::Nothing, "{body}");
        }
        for body in [
            "BEGIN CREATE VIEW v AS SELECT 1; END",
            "BEGIN EXECUTE 'CREATE ' || what; END",
            "BEGIN EXECUTE format('create recursive view %I AS ..', a); END",
            "BEGIN EXECUTE what; END",
        ] {
            assert_eq!(made(body), Made::New, "{body}");
        }
        for body in [
            "BEGIN CREATE OR REPLACE VIEW v AS SELECT 1; END",
            "BEGIN EXECUTE 'create or replace function ' || what; END",
            "BEGIN ALTER FUNCTION f() RENAME TO g; CREATE VIEW v AS SELECT 1; END",
            "BEGIN ALTER POLICY p ON t USING (f()); END",
        ] {
            assert_eq!(made(body), Made::Anew, "{body}");
        }
    }

    #[test]
    fn where_anything_may_be_set_the_names_are_kept() {
        let mut left = left_by_body(b"BEGIN SET my.a = '1'; END");
        left.merge(&left_by_body(b"BEGIN PERFORM set_config('app.' || k, v, false); END"));
        assert_eq!(left.settings, Names::Any);
        assert!(left.custom.contains("my.a"));
    }

    #[test]
    fn a_body_that_updates_the_view_of_settings_may_set_any() {
        for body in [
            "UPDATE pg_settings SET setting = '64kB' WHERE name = 'work_mem'",
            "BEGIN EXECUTE 'update pg_catalog.pg_settings set setting = $1'; END",
        ] {
            assert_eq!(left_by_body(body.as_bytes()).settings, Names::Any, "{body}");
        }
        assert!(left_by_body(b"SELECT setting FROM pg_settings").is_nothing());
    }

    #[test]
    fn what_keeps_a_client_is_found() {
        for body in [
            "BEGIN CREATE TABLE pg_temp.t (a int); END",
            "BEGIN PERFORM pg_advisory_lock(1); END",
            "BEGIN CREATE TEMP TABLE t (a int); END",
            "BEGIN LISTEN a; END",
        ] {
            assert!(left_by_body(body.as_bytes()).pins, "{body}");
        }
    }

    /// What the tokens say; the shortcut for plain texts says the same.
    fn makes(sql: &str, are_there: bool) -> bool {
        let (sql, is_plain) = (sql.as_bytes(), super::super::is_plain(sql.as_bytes()));
        let by_tokens = makes_functions(sql, false, are_there);
        assert_eq!(makes_functions(sql, is_plain, are_there), by_tokens, "{}", sql.escape_ascii());
        by_tokens
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
            " /* moved */ ALTER FUNCTION f() SET SCHEMA b",
            r"INSERT INTO paths VALUES ('C:\'); CREATE OR REPLACE FUNCTION f() RETURNS int AS 'SELECT 1'",
        ] {
            assert!(makes(sql, false), "{sql}");
        }
        for sql in [
            "CREATE TABLE function (a int)",
            "SELECT 'CREATE FUNCTION'",
            "DROP FUNCTION f",
            "COMMIT",
            r"SELECT '\'",
        ] {
            assert!(!makes(sql, false), "{sql}");
        }
        for sql in [
            "CREATE VIEW v AS SELECT f()",
            "BEGIN; ALTER TABLE t ALTER a SET DEFAULT f()",
            "-- a\n alter table t alter a set default f()",
        ] {
            assert!(!makes(sql, false) && makes(sql, true), "{sql}");
        }
    }
}
