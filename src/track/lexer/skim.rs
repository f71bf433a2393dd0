//! Custom settings that a text may set, found without reading it.
//!
//! Owns what can be told of a text that is too long to be kept, or that cannot be read: wherever it says SET or
//! `set_config`, in a string or a comment too, the name behind that. A name too many costs nothing, because the server is
//! asked for its value and has none; one that is missed is a value that does not follow its client.

use std::collections::BTreeSet;

use super::settings::{Changes, Names, call, set};
use super::tokens::{Tokens, is_word_byte};

/// The names of custom settings that a text may set.
#[must_use]
pub fn custom_names(sql: &[u8]) -> BTreeSet<Box<str>> {
    let mut skim = Skim::default();
    skim.find(sql);
    skim.names
}

/// A text that comes in pieces.
#[derive(Debug, Default)]
pub struct Skim {
    /// The end of what has come: a name may go on in the next piece.
    tail: Vec<u8>,
    names: BTreeSet<Box<str>>,
    makes: bool,
}

impl Skim {
    /// The text goes on with this piece.
    pub fn feed(&mut self, piece: &[u8]) {
        let mut joint = std::mem::take(&mut self.tail);
        joint.extend_from_slice(piece.get(..NEAR_BYTES).unwrap_or(piece));
        self.find(&joint);
        if piece.len() > NEAR_BYTES {
            self.find(piece);
            joint.clear();
            joint.extend_from_slice(piece);
        }
        joint.drain(..joint.len().saturating_sub(NEAR_BYTES));
        joint.shrink_to(NEAR_BYTES);
        self.tail = joint;
    }

    /// Whether the words CREATE or ALTER have been found: it may make or change functions, and what runs them.
    #[must_use]
    pub const fn makes(&self) -> bool {
        self.makes
    }

    /// The names that have been found.
    #[must_use]
    pub fn into_names(self) -> BTreeSet<Box<str>> {
        self.names
    }

    fn find(&mut self, sql: &[u8]) {
        self.makes = self.makes || says(sql, b"create", 0) || says(sql, b"alter", 1);
        if self.names.len() > MAX_NAMES {
            return;
        }
        for at in memchr::memchr2_iter(b's', b'S', sql) {
            let begins =
                at.checked_sub(1).and_then(|before| sql.get(before)).is_none_or(|b| !is_word_byte(*b));
            let Some(behind) = sql.get(at..).filter(|_| begins).and_then(|word| after(word, b"set")) else {
                continue;
            };
            let near = behind.get(..NEAR_BYTES).unwrap_or(behind);
            // No name of a custom setting is without; most texts that say "set" mean something else.
            if memchr::memchr(b'.', near).is_none() {
                continue;
            }
            let mut found = Changes::default();
            match after(near, b"_config") {
                Some(behind) => call(&Tokens::new(behind.strip_prefix(b"\"").unwrap_or(behind)), &mut found),
                None if near.first().is_none_or(|byte| !is_word_byte(*byte)) => {
                    set(&mut Tokens::new(near), &mut found);
                }
                None => {}
            }
            if let Names::These(names) = found.touched {
                self.names.extend(names.into_iter().filter(|name| name.contains('.')));
            }
        }
    }
}

/// Whether a word is there, in any case; `rarest` is the place of its rarest letter.
fn says(sql: &[u8], word: &[u8], rarest: usize) -> bool {
    let Some(letter) = word.get(rarest) else { return false };
    memchr::memchr2_iter(*letter, letter.to_ascii_uppercase(), sql)
        .filter_map(|at| sql.split_at_checked(at.checked_sub(rarest)?))
        .filter(|(before, _)| before.last().is_none_or(|byte| !is_word_byte(*byte)))
        .filter_map(|(_, here)| after(here, word))
        .any(|behind| behind.first().is_none_or(|byte| !is_word_byte(*byte)))
}

/// What follows a word, in any case.
fn after<'a>(text: &'a [u8], word: &[u8]) -> Option<&'a [u8]> {
    let (begin, rest) = text.split_at_checked(word.len())?;
    begin.eq_ignore_ascii_case(word).then_some(rest)
}

/// So much behind the word SET is looked at.
const NEAR_BYTES: usize = 512;
/// Behind a piece with which there are more no others are looked for.
pub const MAX_NAMES: usize = 500;

#[cfg(test)]
mod tests {
    use super::*;

    fn names(sql: &str) -> Vec<String> {
        custom_names(sql.as_bytes()).into_iter().map(String::from).collect()
    }

    #[test]
    fn names_are_found_wherever_they_stand() {
        for sql in [
            "SET my.e = ''",
            "SELECT 1;set/* x */session \"my\" . e TO 5",
            "SELECT pg_catalog.\"set_config\"( 'My.E', 'x', false)",
            "DO $$ BEGIN PERFORM set_config('my.e', 'x', false); END $$",
            "DO $$ BEGIN EXECUTE 'SET my.e = 1'; END $$",
            "SELECT 'an unterminated text; SET my.e = 1",
        ] {
            assert_eq!(names(sql), ["my.e"], "{sql}");
        }
        for sql in
            ["RESET my.e", "SET LOCAL my.e = 1", "SET work_mem = 1", "UPDATE t SET a = b.c", "offset a.b"]
        {
            assert!(names(sql).is_empty(), "{sql}");
        }
    }

    #[test]
    fn what_makes_functions_is_found_wherever_it_stands() {
        let makes = |pieces: &[&str]| {
            let mut skim = Skim::default();
            pieces.iter().for_each(|piece| skim.feed(piece.as_bytes()));
            skim.makes()
        };
        let long = "x ".repeat(2_000);
        for text in ["CREATE FUNCTION f()", "x;cReAtE\nor", "ALTER POLICY p", "; alter\tdomain"] {
            for at in 0..text.len() {
                assert!(makes(&[&long, &text[..at], &text[at..], &long]), "{text} at {at}");
            }
        }
        let insert = format!("INSERT INTO t (created_at, x_create, alternative, balter) VALUES {long}");
        assert!(!makes(&[&long, &insert]));
    }

    #[test]
    fn a_name_is_found_however_the_text_is_cut() {
        let sql = format!(
            "{}; SET my.first = 1; {}; SELECT set_config('my.last', 'x', false)\0",
            "x".repeat(700),
            "y".repeat(600)
        );
        for cut in 0..sql.len() {
            let (one, two) = sql.as_bytes().split_at(cut);
            let mut skim = Skim::default();
            skim.feed(one);
            skim.feed(two);
            let names = skim.into_names();
            assert!(names.contains("my.first") && names.contains("my.last"), "{cut}: {names:?}");
        }
        let mut skim = Skim::default();
        sql.bytes().for_each(|byte| skim.feed(&[byte]));
        assert!(skim.into_names().contains("my.last"));
    }
}
