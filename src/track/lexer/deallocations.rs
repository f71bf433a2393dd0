//! Where a text says `DEALLOCATE name`.
//!
//! Owns the places, so that something else can be put there. In doubt there is none.

use super::Effect;
use super::tokens::{Statements, Token, Tokens, is};
use super::verdict::deallocate;

/// One `DEALLOCATE [PREPARE] name`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deallocation {
    /// Where it begins in the text.
    pub start: usize,
    /// Where it ends: before the `;` or the end of the text.
    pub end: usize,
    /// The name as Postgres looks it up.
    pub name: Vec<u8>,
}

/// Finds them, in order; none in a text that prepares statements too, or cannot be read.
#[must_use]
pub fn deallocations(sql: &[u8]) -> Vec<Deallocation> {
    let mut found = Vec::new();
    let mut statements = Statements::of(sql);
    while let Some((token, is_first)) = statements.next() {
        let tokens = &mut statements.tokens;
        match token {
            Token::Doubt => return Vec::new(),
            Token::Word(word) if is_first && is(word, b"prepare") => return Vec::new(),
            Token::Word(word) if is_first && is(word, b"deallocate") => {
                let start = sql.len().saturating_sub(tokens.left()).saturating_sub(word.len());
                let mut ahead = tokens.clone();
                if let Some(Effect::Deallocate(name)) = deallocate(&mut ahead).if_alone {
                    found.push(Deallocation { start, end: end_of(tokens, sql), name });
                }
            }
            Token::Word(_) | Token::Name(_) | Token::Text | Token::Number | Token::Symbol(_) => {}
        }
    }
    found
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
        for Deallocation { start, end, name } in deallocations(sql.as_bytes()) {
            out.push_str(&sql[at..start]);
            out.push_str(&format!("[{}]", name.escape_ascii()));
            at = end;
        }
        out + &sql[at..]
    }

    #[test]
    fn each_has_its_place_and_its_name() {
        for (sql, expected) in [
            ("DEALLOCATE a", "[a]"),
            ("SAVEPOINT s;DEALLOCATE \"_PLAN0x1\";RELEASE s", "SAVEPOINT s;[_PLAN0x1];RELEASE s"),
            ("deallocate prepare A ; DEALLOCATE prepare /* x */;", "[a] ; [prepare] /* x */;"),
            (
                "DEALLOCATE ALL; DEALLOCATE a b; DEALLOCATE 'a'",
                "DEALLOCATE ALL; DEALLOCATE a b; DEALLOCATE 'a'",
            ),
            ("SELECT 'DEALLOCATE a'; SELECT deallocate a", "SELECT 'DEALLOCATE a'; SELECT deallocate a"),
            ("PREPARE a AS SELECT 1; DEALLOCATE a", "PREPARE a AS SELECT 1; DEALLOCATE a"),
        ] {
            assert_eq!(replaced(sql), expected);
        }
        assert_eq!(deallocations(b"DEALLOCATE a; SELECT 'open"), []);
    }
}
