//! Where a text names prepared statements: `DEALLOCATE name`, `EXECUTE name` and `PREPARE name`.
//!
//! Owns the places, so that something else can be put there. In doubt there is none.

use super::Effect;
use super::tokens::{Statements, Token, Tokens, is};
use super::verdict::{Case, deallocate, identifier};

/// What a text does with a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mentioned {
    /// `DEALLOCATE [PREPARE] name`: the place is the whole statement, without the `;`.
    Deallocate,
    /// `EXECUTE name ..`, also behind EXPLAIN and CREATE TABLE AS: the place is the name.
    Execute,
    /// `PREPARE name ..`: the place is the name.
    Prepare,
}

/// One name of a prepared statement in a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mention {
    /// What the text does with it.
    pub what: Mentioned,
    /// Where the place begins in the text.
    pub start: usize,
    /// Where it ends.
    pub end: usize,
    /// The name as Postgres looks it up.
    pub name: Vec<u8>,
}

/// Finds them, in order; none in a text that cannot be read.
#[must_use]
pub fn mentions(sql: &[u8]) -> Vec<Mention> {
    let mut found = Vec::new();
    let mut statements = Statements::of(sql);
    let (mut verb, mut before): (&[u8], &[u8]) = (b"", b"");
    let mut is_explained = false;
    while let Some((token, is_first)) = statements.next() {
        let tokens = &mut statements.tokens;
        let Token::Word(word) = token else {
            if token == Token::Doubt {
                return Vec::new();
            }
            before = b"";
            // The options of EXPLAIN are in parentheses.
            continue;
        };
        if is_first {
            verb = word;
            is_explained = is(word, b"explain");
        }
        let executes = is(word, b"execute");
        let may_execute = is_first || is_explained || is(verb, b"create") && is(before, b"as");
        if is_first && is(word, b"deallocate") {
            let start = sql.len().saturating_sub(tokens.left()).saturating_sub(word.len());
            let mut ahead = tokens.clone();
            if let Some(Effect::Deallocate(name)) = deallocate(&mut ahead).if_alone {
                let end = end_of(tokens, sql);
                found.push(Mention { what: Mentioned::Deallocate, start, end, name });
            }
        } else if executes && may_execute {
            found.extend(name_ahead(Mentioned::Execute, tokens, sql));
        } else if is_first && is(word, b"prepare") {
            let mut ahead = tokens.clone();
            let is_two_phase = ahead.eat_word(&[b"transaction"]) && ahead.peek() == Some(Token::Text);
            if !is_two_phase {
                found.extend(name_ahead(Mentioned::Prepare, tokens, sql));
            }
        }
        is_explained &= is_first || EXPLAINING.iter().any(|option| is(word, option));
        before = word;
    }
    found
}

/// Words that may stand between EXPLAIN and what it explains, in parentheses or not.
const EXPLAINING: [&[u8]; 18] = [
    b"analyze",
    b"analyse",
    b"verbose",
    b"costs",
    b"settings",
    b"generic_plan",
    b"buffers",
    b"serialize",
    b"wal",
    b"timing",
    b"summary",
    b"memory",
    b"format",
    b"on",
    b"off",
    b"true",
    b"false",
    b"json",
];

/// The name that is the next token.
fn name_ahead(what: Mentioned, tokens: &Tokens<'_>, sql: &[u8]) -> Option<Mention> {
    let mut ahead = tokens.clone();
    let name = match ahead.next() {
        Some(Token::Word(word)) => identifier(word, Case::Folded),
        Some(Token::Name(name)) if !name.is_empty() => identifier(name, Case::Kept),
        _ => return None,
    };
    let end = sql.len().saturating_sub(ahead.left());
    let written = sql.get(sql.len().saturating_sub(tokens.left())..end)?;
    let blanks = written.len().saturating_sub(super::tokens::after_blanks(written)?.len());
    Some(Mention { what, start: end.saturating_sub(written.len()).saturating_add(blanks), end, name })
}

/// The end of the statement whose name is to come.
fn end_of(tokens: &mut Tokens<'_>, sql: &[u8]) -> usize {
    let mut end = sql.len();
    while let Some(token) = tokens.peek().filter(|token| *token != Token::Symbol(b';')) {
        tokens.next();
        debug_assert!(matches!(token, Token::Word(_) | Token::Name(_)), "a name, perhaps behind PREPARE");
        end = sql.len().saturating_sub(tokens.left());
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The text with each of them replaced by its name in brackets.
    fn replaced(sql: &str) -> String {
        let (mut out, mut at) = (String::new(), 0);
        for Mention { what, start, end, name } in mentions(sql.as_bytes()) {
            out.push_str(&sql[at..start]);
            let sign = match what {
                Mentioned::Deallocate => "-",
                Mentioned::Execute => "!",
                Mentioned::Prepare => "+",
            };
            out.push_str(&format!("[{sign}{}]", String::from_utf8_lossy(&name)));
            at = end;
        }
        out + &sql[at..]
    }

    #[test]
    fn each_has_its_place_and_its_name() {
        for (sql, expected) in [
            ("DEALLOCATE a", "[-a]"),
            ("SAVEPOINT s;DEALLOCATE \"_PLAN0x1\";RELEASE s", "SAVEPOINT s;[-_PLAN0x1];RELEASE s"),
            ("deallocate prepare A ; DEALLOCATE prepare /* x */;", "[-a] ; [-prepare] /* x */;"),
            (
                "DEALLOCATE ALL; DEALLOCATE a b; DEALLOCATE 'a'",
                "DEALLOCATE ALL; DEALLOCATE a b; DEALLOCATE 'a'",
            ),
            ("SELECT 'DEALLOCATE a'; SELECT deallocate a", "SELECT 'DEALLOCATE a'; SELECT deallocate a"),
            ("PREPARE a AS SELECT 1; DEALLOCATE a", "PREPARE [+a] AS SELECT 1; [-a]"),
            ("execute /* x */ \"A\"\"b\"(1, 2);EXECUTE c", "execute /* x */ [!A\"b](1, 2);EXECUTE [!c]"),
            ("EXPLAIN (ANALYZE, COSTS off) EXECUTE a(1)", "EXPLAIN (ANALYZE, COSTS off) EXECUTE [!a](1)"),
            ("explain analyze verbose execute a", "explain analyze verbose execute [!a]"),
            ("CREATE TEMP TABLE t AS EXECUTE a (1)", "CREATE TEMP TABLE t AS EXECUTE [!a] (1)"),
            (
                "PREPARE t (int) AS SELECT $1; PREPARE TRANSACTION 'x'",
                "PREPARE [+t] (int) AS SELECT $1; PREPARE TRANSACTION 'x'",
            ),
            ("PREPARE transaction AS SELECT 1", "PREPARE [+transaction] AS SELECT 1"),
            ("SELECT 1 AS execute, execute FROM a", "SELECT 1 AS execute, execute FROM a"),
            ("EXPLAIN SELECT execute a", "EXPLAIN SELECT execute a"),
            (
                "CREATE TRIGGER t AFTER INSERT ON x EXECUTE FUNCTION f()",
                "CREATE TRIGGER t AFTER INSERT ON x EXECUTE FUNCTION f()",
            ),
        ] {
            assert_eq!(replaced(sql), expected);
        }
        assert_eq!(mentions(b"DEALLOCATE a; SELECT 'open"), []);
    }
}
