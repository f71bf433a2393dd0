//! By which words of a text it may run functions of the tenant's that leave something behind.
//!
//! Owns those words, and the look for them. Whether functions leave anything is `bodies`' to say; what else runs them
//! (views, policies, operators) the catalog tells.

use std::collections::BTreeSet;

use super::settings::MAX_NAME_BYTES;
use super::tokens::{Statements, Token, Tokens, is};

/// What runs the functions.
#[derive(Debug, Default)]
pub struct Reach {
    /// Their names: a text calls them, or takes them for an attribute of a row (`t.f`).
    pub functions: Vocabulary,
    /// Relations that run them: a text says the name, in whatever place.
    pub relations: Vocabulary,
    /// They are run by triggers: a text changes rows.
    pub by_triggers: bool,
    /// Nobody knows, or it needs no word (an operator, a cast, a type).
    pub by_anything: bool,
}

/// Names, as the catalog has them.
#[derive(Debug, Default)]
pub struct Vocabulary {
    names: BTreeSet<Box<[u8]>>,
    /// There are names with letters beyond ASCII. How a client writes those depends on its encoding.
    has_others: bool,
}

impl Vocabulary {
    /// Adds a name; `None` if it could not be read.
    pub fn add(&mut self, name: Option<&[u8]>) {
        match name {
            Some(name) if name.is_ascii() => {
                self.names.insert(name.into());
            }
            Some(_) | None => self.has_others = true,
        }
    }

    fn has_word(&self, word: &[u8]) -> bool {
        let mut buffer = [0; MAX_NAME_BYTES];
        // Postgres cuts a longer one.
        let Some(folded) = buffer.get_mut(..word.len()) else { return !self.is_empty() };
        folded.copy_from_slice(word);
        folded.make_ascii_lowercase();
        self.names.contains(&*folded) || self.has_others && !word.is_ascii()
    }

    fn has_name(&self, name: &[u8]) -> bool {
        // A quote in a name is written twice.
        let is_otherwise = name.len() > MAX_NAME_BYTES || name.contains(&b'"');
        self.names.contains(name) || self.has_others && !name.is_ascii() || is_otherwise && !self.is_empty()
    }

    fn is_empty(&self) -> bool {
        self.names.is_empty() && !self.has_others
    }
}

impl Reach {
    /// That of functions of which nobody knows how they are run.
    #[must_use]
    pub fn anything() -> Self {
        Self { by_triggers: true, by_anything: true, ..Self::default() }
    }

    /// Whether a text may run one of the functions.
    #[must_use]
    pub fn has(&self, sql: &[u8]) -> bool {
        if self.by_anything {
            return true;
        }
        let mut statements = Statements::of(sql);
        let mut is_behind_dot = false;
        while let Some((token, is_first)) = statements.next() {
            let tokens = &statements.tokens;
            let may_call = std::mem::replace(&mut is_behind_dot, token == Token::Symbol(b'.'));
            let is_found = match token {
                Token::Doubt => true,
                Token::Word(word) => {
                    self.by_triggers && one_of(word, &CHANGING)
                        || is(word, b"execute")
                        || is_first && one_of(word, &MAINTAINING)
                        || self.relations.has_word(word)
                        || self.functions.has_word(word) && (may_call || is_call(tokens))
                }
                Token::Name(name) => {
                    self.relations.has_name(name)
                        || self.functions.has_name(name) && (may_call || is_call(tokens))
                }
                Token::Text | Token::Number | Token::Symbol(_) => false,
            };
            if is_found {
                return true;
            }
        }
        false
    }
}

const CHANGING: [&[u8]; 6] = [b"insert", b"update", b"delete", b"merge", b"copy", b"truncate"];

/// What need not name the tables that it goes to.
const MAINTAINING: [&[u8]; 4] = [b"analyze", b"vacuum", b"cluster", b"reindex"];

fn one_of(word: &[u8], words: &[&[u8]]) -> bool {
    words.iter().any(|one| is(word, one))
}

fn is_call(after: &Tokens<'_>) -> bool {
    after.peek() == Some(Token::Symbol(b'('))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reach() -> Reach {
        let mut reach = Reach::default();
        reach.functions.add(Some(b"login"));
        reach.functions.add(Some(b"Log"));
        reach.relations.add(Some(b"logins"));
        reach.relations.add(Some(b"My View"));
        reach
    }

    #[test]
    fn a_text_may_run_what_it_calls_and_what_its_changes_set_off() {
        let mut reach = reach();
        assert!(reach.has(b"SELECT a.LOGIN (5)"));
        assert!(reach.has(b"SELECT \"Log\"()"));
        assert!(reach.has(b"EXECUTE s") && reach.has(b"EXPLAIN ANALYZE EXECUTE s"));
        assert!(!reach.has(b"SELECT login, count(*) FROM log"));
        assert!(!reach.has(b"UPDATE t SET a = 1"));
        reach.by_triggers = true;
        assert!(reach.has(b"WITH x AS (UPDATE t SET a = 1) SELECT 1"));
        assert!(!reach.has(b"SELECT 'login()'"));
        reach.by_anything = true;
        assert!(reach.has(b"SELECT 1 + 1"));
    }

    #[test]
    fn a_text_may_run_what_the_relations_it_mentions_call() {
        let reach = reach();
        for sql in
            ["TABLE Logins", "SELECT * FROM public.\"logins\" x", "SELECT 1 FROM \"My View\"", "VACUUM"]
        {
            assert!(reach.has(sql.as_bytes()), "{sql}");
        }
        for sql in ["SELECT * FROM \"Logins\"", "SELECT 'logins'", "SELECT my, view FROM t"] {
            assert!(!reach.has(sql.as_bytes()), "{sql}");
        }
    }

    #[test]
    fn an_attribute_may_be_a_function() {
        let reach = reach();
        assert!(reach.has(b"SELECT t.login FROM t") && reach.has(b"SELECT (t) . \"Log\" FROM t"));
        assert!(!reach.has(b"SELECT login.a FROM login"));
    }

    #[test]
    fn names_that_are_written_in_another_way_are_taken_for_those_meant() {
        let mut reach = reach();
        let long = "x".repeat(64);
        assert!(reach.has(format!("SELECT {long}()").as_bytes()));
        assert!(reach.has(format!("SELECT \"{long}\"()").as_bytes()));
        assert!(reach.has(b"SELECT \"a\"\"b\"()"));
        assert!(!reach.has("SELECT é()".as_bytes()));
        reach.functions.add(Some("ü".as_bytes()));
        assert!(reach.has("SELECT é()".as_bytes()) && reach.has("SELECT \"é\"()".as_bytes()));
        assert!(!Reach::default().has(format!("SELECT {long}()").as_bytes()));
    }
}
