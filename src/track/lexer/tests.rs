//! Goal: no text that leaves state behind is called transient, and no everyday text is called dirty.
//! Method: tables of texts by answer, then random soups of the fragments that make lexers fail.

mod lexical;
mod soups;
mod statements;

use super::{Effect, StateKind, classify, classify_by_tokens};

fn assert_all(expected: &Effect, texts: &[&str]) {
    for text in texts {
        assert_eq!(classify(text.as_bytes()), *expected, "{text}");
        assert_eq!(classify_by_tokens(text.as_bytes()), *expected, "by tokens: {text}");
    }
}

fn assert_state(kind: StateKind, texts: &[&str]) {
    assert_all(&Effect::SessionState(kind), texts);
}

fn assert_transient(texts: &[&str]) {
    assert_all(&Effect::Transient, texts);
}
