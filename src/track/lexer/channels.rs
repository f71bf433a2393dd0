//! The channels that a text listens to or gives up.
//!
//! Owns LISTEN and UNLISTEN as statements of a text. What is out of sight (a DO block, a text that cannot be read) is not
//! found here.

use super::tokens::{Token, Tokens, is};
use super::verdict::{Case, identifier};

/// One LISTEN or UNLISTEN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChannelStep {
    /// `LISTEN name`.
    Listen(Vec<u8>),
    /// `UNLISTEN name`.
    Unlisten(Vec<u8>),
    /// `UNLISTEN *`, or DISCARD ALL.
    UnlistenAll,
}

/// The LISTENs and UNLISTENs of a text, in order.
#[must_use]
pub fn channel_steps(sql: &[u8]) -> Vec<ChannelStep> {
    let mut steps = Vec::new();
    if !sql.windows(WORD.len()).any(|part| part.eq_ignore_ascii_case(WORD)) {
        return steps;
    }
    let mut tokens = Tokens::new(sql);
    let mut begins = true;
    while steps.len() < MAX_CHANNEL_STEPS
        && let Some(token) = tokens.next()
    {
        if begins && let Token::Word(word) = token {
            let name = tokens.peek();
            let step = if is(word, b"listen") {
                name.and_then(channel).map(ChannelStep::Listen)
            } else if !is(word, b"unlisten") {
                None
            } else if name == Some(Token::Symbol(b'*')) {
                Some(ChannelStep::UnlistenAll)
            } else {
                name.and_then(channel).map(ChannelStep::Unlisten)
            };
            steps.extend(step);
        }
        begins = token == Token::Symbol(b';');
    }
    steps
}

/// What more a text says is not seen.
pub const MAX_CHANNEL_STEPS: usize = 4 * 1024;

fn channel(token: Token<'_>) -> Option<Vec<u8>> {
    match token {
        Token::Word(word) => Some(identifier(word, Case::Folded)),
        Token::Name(name) => Some(identifier(name, Case::Kept)),
        Token::Text | Token::Number | Token::Symbol(_) | Token::Doubt => None,
    }
}

const WORD: &[u8] = b"listen";

#[cfg(test)]
mod tests {
    use super::ChannelStep::{Listen, Unlisten, UnlistenAll};
    use super::*;

    #[test]
    fn channels_are_named_as_postgres_names_them() {
        let long = "x".repeat(70);
        for (sql, steps) in [
            ("LISTEN News", vec![Listen(b"news".to_vec())]),
            ("listen \"New\"\"s\"", vec![Listen(b"New\"s".to_vec())]),
            ("/* */ UNLISTEN *; LISTEN a;", vec![UnlistenAll, Listen(b"a".to_vec())]),
            ("BEGIN; UNLISTEN \"*\"; COMMIT", vec![Unlisten(b"*".to_vec())]),
            (&format!("LISTEN {long}"), vec![Listen(b"x".repeat(63))]),
            ("SELECT 'LISTEN a', listen FROM b", vec![]),
            ("SELECT 1 -- ; LISTEN a", vec![]),
            ("LISTEN", vec![]),
        ] {
            assert_eq!(channel_steps(sql.as_bytes()), steps, "{sql}");
        }
    }
}
