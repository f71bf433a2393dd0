//! Which schemas a text puts into search_path.
//!
//! Owns the notations: SET, SET LOCAL, SET SCHEMA and `set_config` with constants. What is computed is not seen.

use super::tokens::{Statements, Token, Tokens, is};
use super::verdict::{Case, identifier};

/// What a text makes of search_path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Path {
    /// Nothing, or what it was at the login, or something that the text does not show.
    Kept,
    /// It names these schemas.
    To(Vec<String>),
}

/// Whether a text makes `pg_temp` the schema in which tables are made, if only for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MakesTemp {
    /// As far as its words show it does not.
    No,
    /// If a parameter says so.
    ByParameter,
    /// It names it, or computes the search_path.
    Maybe,
}

/// What a text makes of search_path; it may be anything.
#[must_use]
pub fn path(sql: &[u8]) -> Path {
    let found = read(sql);
    if found.schemas.is_empty() { Path::Kept } else { Path::To(found.schemas) }
}

/// Whether a text makes `pg_temp` the first schema; it may be anything.
#[must_use]
pub fn makes_temp(sql: &[u8]) -> MakesTemp {
    let found = read(sql);
    if found.schemas.iter().any(|schema| is_temp_schema(schema)) { MakesTemp::Maybe } else { found.unread }
}

/// Whether that is the session's schema for temporary objects: `pg_temp`, or by its number `pg_temp_3`.
#[must_use]
pub fn is_temp_schema(name: &str) -> bool {
    name.strip_prefix("pg_temp").is_some_and(|number| number.is_empty() || number.starts_with('_'))
}

/// What has been read of a text.
struct Found {
    schemas: Vec<String>,
    /// What is not known of the values.
    unread: MakesTemp,
}

fn read(sql: &[u8]) -> Found {
    let mut found = Found { schemas: Vec::new(), unread: MakesTemp::No };
    let mut statements = Statements::of(sql);
    while let Some((token, is_first)) = statements.next() {
        let tokens = &mut statements.tokens;
        match token {
            Token::Word(word) if is_first && is(word, b"set") => set(tokens, &mut found),
            Token::Word(word) | Token::Name(word) if is(word, b"set_config") => call(tokens, &mut found),
            Token::Word(_)
            | Token::Name(_)
            | Token::Text
            | Token::Number
            | Token::Symbol(_)
            | Token::Doubt => {}
        }
    }
    found
}

/// The schemas in a value of search_path, as Postgres' `SplitIdentifierString` (`src/backend/utils/adt/varlena.c`) reads it:
/// what has no quotes goes to the next comma or blank, whatever is in it. `None` if it cannot be read.
#[must_use]
pub fn split_path(value: &str) -> Option<Vec<String>> {
    // A blank since Postgres 16, and before it part of a name.
    if value.contains('\u{b}') {
        return None;
    }
    let is_blank = |letter: char| matches!(letter, ' ' | '\t' | '\n' | '\r' | '\u{c}');
    let mut schemas = Vec::new();
    let mut rest = value.trim_start_matches(is_blank);
    if rest.is_empty() {
        return Some(schemas);
    }
    loop {
        let (name, behind) = match rest.strip_prefix('"') {
            Some(inside) => {
                let (name, behind) = split_quoted(inside)?;
                (identifier(name.as_bytes(), Case::Kept), behind)
            }
            None => {
                let len = rest.find(|letter| letter == ',' || is_blank(letter)).unwrap_or(rest.len());
                let (name, behind) = rest.split_at_checked(len).filter(|(name, _)| !name.is_empty())?;
                (identifier(name.as_bytes(), Case::Folded), behind)
            }
        };
        schemas.push(String::from_utf8(name).ok()?);
        let behind = behind.trim_start_matches(is_blank);
        if behind.is_empty() {
            return Some(schemas);
        }
        rest = behind.strip_prefix(',')?.trim_start_matches(is_blank);
    }
}

/// A name as it stands between quotes, and what follows them; a quote inside is doubled.
fn split_quoted(inside: &str) -> Option<(&str, &str)> {
    let mut from = 0_usize;
    loop {
        let end = from.checked_add(inside.get(from..)?.find('"')?)?;
        let behind = inside.get(end..)?.strip_prefix('"')?;
        if !behind.starts_with('"') {
            return Some((inside.get(..end)?, behind));
        }
        from = end.checked_add(2)?;
    }
}

/// What follows SET.
fn set(tokens: &mut Tokens<'_>, found: &mut Found) {
    while tokens.eat_word(&[b"session", b"local"]) {}
    if tokens.eat_word(&[b"schema"]) {
        match tokens.constant().and_then(plain) {
            Some(schema) => found.schemas.push(schema),
            None => found.unread = MakesTemp::Maybe,
        }
        return;
    }
    let is_path = match tokens.peek() {
        Some(Token::Word(name) | Token::Name(name)) => is(name, b"search_path"),
        Some(Token::Text | Token::Number | Token::Symbol(_) | Token::Doubt) | None => false,
    };
    if !is_path {
        return;
    }
    tokens.next();
    if !(tokens.eat_word(&[b"to"]) || tokens.eat_symbol(b'=')) || tokens.eat_word(&[b"default"]) {
        return;
    }
    loop {
        if let Some(text) = tokens.constant() {
            found.schemas.extend(plain(text));
        } else {
            match tokens.next() {
                Some(Token::Word(name)) => {
                    found.schemas.extend(plain(name).map(|name| name.to_ascii_lowercase()));
                }
                Some(Token::Name(name)) => found.schemas.extend(quoted(name)),
                Some(Token::Text | Token::Number | Token::Symbol(_) | Token::Doubt) | None => {
                    found.unread = MakesTemp::Maybe;
                    return;
                }
            }
        }
        if !tokens.eat_symbol(b',') {
            return;
        }
    }
}

/// A call of `set_config`, given what follows the name.
fn call(after: &Tokens<'_>, found: &mut Found) {
    let mut ahead = after.clone();
    if !ahead.eat_symbol(b'(') {
        return;
    }
    match ahead.constant() {
        Some(name) if ahead.peek() == Some(Token::Symbol(b',')) => {
            if !is(name, b"search_path") {
                return;
            }
        }
        // Which setting it is may be in a parameter, and the value then in another.
        None if is_parameter(&mut ahead) => {}
        Some(_) | None => {
            found.unread = MakesTemp::Maybe;
            return;
        }
    }
    if !ahead.eat_symbol(b',') {
        found.unread = MakesTemp::Maybe;
    } else if let Some(value) = ahead.constant().and_then(plain) {
        found.schemas.extend(split_path(&value).unwrap_or_else(|| vec![value]));
        if !matches!(ahead.peek(), Some(Token::Symbol(b',' | b')'))) {
            found.unread = MakesTemp::Maybe;
        }
    } else {
        let unread = if is_parameter(&mut ahead) { MakesTemp::ByParameter } else { MakesTemp::Maybe };
        found.unread = found.unread.max(unread);
    }
}

/// Whether an argument is a parameter and nothing else: `$1`, `$1::text`.
fn is_parameter(ahead: &mut Tokens<'_>) -> bool {
    if ahead.next() != Some(Token::Number) {
        return false;
    }
    if ahead.eat_symbol(b':') && !(ahead.eat_symbol(b':') && matches!(ahead.next(), Some(Token::Word(_)))) {
        return false;
    }
    ahead.peek() == Some(Token::Symbol(b','))
}

fn plain(bytes: &[u8]) -> Option<String> {
    std::str::from_utf8(bytes).ok().map(str::to_owned)
}

fn quoted(bytes: &[u8]) -> Option<String> {
    plain(bytes).map(|name| name.replace("\"\"", "\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_notation_is_read() {
        for (sql, expected) in [
            ("SET search_path = a", ["a"].as_slice()),
            ("SET search_path TO A, \"B\", 'c d'", &["a", "B", "c d"]),
            ("set session Search_Path to 'a';select 1", &["a"]),
            ("BEGIN; SET LOCAL search_path = a, b; COMMIT", &["a", "b"]),
            ("SET SCHEMA 'a'", &["a"]),
            ("SELECT set_config('search_path', 'a, \"B\"', true), 1", &["a", "B"]),
            ("SET \"search_path\" = a", &["a"]),
            ("SET search_path = $$a$$, E'b', $x$C$x$", &["a", "b", "C"]),
            ("SELECT set_config('search_path', $$a, b$$, false)", &["a", "b"]),
            ("SET SCHEMA $$a$$", &["a"]),
        ] {
            assert_eq!(
                path(sql.as_bytes()),
                Path::To(expected.iter().map(|&name| name.into()).collect()),
                "{sql}"
            );
        }
    }

    #[test]
    fn what_does_not_name_a_path_keeps_it() {
        for sql in [
            "SET search_path TO DEFAULT",
            "RESET search_path",
            "SET work_mem = 5",
            "SELECT set_config('search_path', $1, true)",
            "SELECT 'SET search_path = a'",
            "CREATE FUNCTION f() RETURNS void LANGUAGE sql SET search_path = a AS ''",
        ] {
            assert_eq!(path(sql.as_bytes()), Path::Kept, "{sql}");
        }
    }

    #[test]
    fn a_path_that_begins_with_the_temporary_schema_is_found_or_feared() {
        use MakesTemp::{ByParameter, Maybe, No};
        for (sql, expected) in [
            ("SET LOCAL search_path = 'pg_temp', a", Maybe),
            (r"SET LOCAL search_path = U&'pg\005ftemp', a", Maybe),
            ("SET search_path = E'\\x61'", Maybe),
            ("SET search_path = a, pg_temp_3", Maybe),
            ("SELECT set_config('search_path', 'PG_TEMP, a', true)", Maybe),
            ("SELECT set_config('search_path', 'pg_' || 'temp', true)", Maybe),
            ("SELECT set_config('search' || '_path', $1, true)", Maybe),
            ("SELECT set_config('search_path', $1 || 'temp', true)", Maybe),
            ("SELECT set_config('search_path', $1, true)", ByParameter),
            ("SELECT set_config($1::text, $2, true)", ByParameter),
            ("SET LOCAL search_path = a, \"B\", 'c'", No),
            ("SET search_path TO DEFAULT", No),
            ("SELECT set_config('search_path'::text, 'pg_temp', true)", Maybe),
            ("SELECT set_config('search_path', $1::text || 'temp', true)", Maybe),
            ("SELECT set_config('my.name', 'pg_temp' || $1, true)", No),
            ("SELECT 1", No),
        ] {
            assert_eq!(makes_temp(sql.as_bytes()), expected, "{sql}");
        }
    }

    #[test]
    fn a_value_is_split_as_postgres_does() {
        assert_eq!(split_path("a, \"B c\",D"), Some(vec!["a".into(), "B c".into(), "d".into()]));
        assert_eq!(split_path("\"$user\", $user"), Some(vec!["$user".into(), "$user".into()]));
        assert_eq!(split_path(""), Some(vec![]));
        for (value, expected) in [
            ("", [].as_slice()),
            ("mine--,theirs", &["mine--", "theirs"]),
            ("mine/*,theirs,x*/", &["mine/*", "theirs", "x*/"]),
            ("Tenant-A ,550e8400", &["tenant-a", "550e8400"]),
            ("\"a\"\"b, c\",$user", &["a\"b, c", "$user"]),
            ("\"\"", &[""]),
            ("'a'", &["'a'"]),
        ] {
            assert_eq!(split_path(value).unwrap(), expected, "{value}");
        }
        for value in ["a b", "a,", ",a", "a,,b", "\"a", "\"a\"b", "a\u{b}"] {
            assert_eq!(split_path(value), None, "{value}");
        }
    }
}
