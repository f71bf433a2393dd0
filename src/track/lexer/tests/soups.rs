//! Random texts: the shortcut against the tokens, and texts joined.

use proptest::prelude::*;

use crate::track::lexer::tokens::{Token, Tokens, is};
use crate::track::lexer::{Effect, StateKind, classify, classify_by_tokens, is_plain};

/// What makes lexers fail, and what this one looks for.
const FRAGMENTS: &[&str] = &[
    "'",
    "''",
    "\"",
    "\\",
    "\\\\",
    "E'",
    "e'",
    "U&'",
    "u&\"",
    "b'",
    "$$",
    "$a$",
    "$1",
    "$",
    "--",
    "/*",
    "*/",
    "-",
    "/",
    "\n",
    "\r",
    " ",
    "\t",
    "\u{b}",
    ";",
    ",",
    "(",
    ")",
    ".",
    "=",
    "&",
    "1",
    "1_0",
    "a",
    "_",
    "é",
    "x$y",
    "temp",
    "TEMPORARY",
    "into",
    "INTO TEMP x",
    "SELECT ",
    "select 1",
    "WITH ",
    "INSERT INTO ",
    "UPDATE t SET ",
    "VALUES ",
    "BEGIN",
    "COMMIT",
    "SET ",
    "LOCAL ",
    "TRANSACTION ",
    "set_config",
    "set_config(",
    ", true)",
    "\"set_config\"",
    "pg_",
    "pg_temp",
    "\"pg_temp\"",
    "pg_advisory_lock(",
    "pg_try_advisory_lock",
    "pg_class",
    "DEALLOCATE ",
    "PREPARE ",
    "ALL",
    "DISCARD ",
    "EXPLAIN ",
    "CREATE ",
    "TEMP ",
    "ON COMMIT DROP",
    "DECLARE ",
    "WITH HOLD",
    "execute",
    " AS ",
    "LISTEN x",
    "user_id",
    "created_at",
    "email",
    "currval",
    "NextVal (",
    "\"lastval\"",
    "\"table_to_xml\"(",
    "\"schema_to_xml\"",
    "\"database_to_xml\"",
    "COPY (",
    "pg_settings",
    "\"setval\"(",
];

fn soup() -> impl Strategy<Value = String> {
    let start =
        prop::sample::select(&["", "SELECT ", "UPDATE ", "BEGIN", "WITH x AS (", " /* */ SELECT "][..]);
    let fragments = prop::collection::vec(prop::sample::select(FRAGMENTS), 0..14);
    (start, fragments).prop_map(|(start, fragments)| start.to_owned() + &fragments.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 20_000 } else { 300_000 }))]

    #[test]
    fn the_shortcut_answers_as_the_tokens_do(text in soup()) {
        prop_assert_eq!(classify(text.as_bytes()), classify_by_tokens(text.as_bytes()));
    }

    #[test]
    fn what_calls_a_function_of_sequences_is_no_plain_text(text in soup()) {
        let names: [&[u8]; 4] = [b"nextval", b"setval", b"currval", b"lastval"];
        let mut was_name = false;
        for token in Tokens::new(text.as_bytes()).take_while(|_| is_plain(text.as_bytes())) {
            prop_assert!(!was_name || token != Token::Symbol(b'('));
            was_name = matches!(token, Token::Word(name) | Token::Name(name) if names.iter().any(|known| is(name, known)));
        }
    }

    #[test]
    fn the_worst_statement_wins(first in soup(), second in soup()) {
        let state = |text: &str| match classify(text.as_bytes()) {
            Effect::Transient => None,
            Effect::SessionState(kind) => Some(kind),
            Effect::Deallocate(_) | Effect::DeallocateAll => Some(StateKind::Deallocation),
            Effect::DiscardAll => Some(StateKind::Unknown),
        };
        // The newline ends a last line comment. Unknown swallows what follows, and may itself end with the second text.
        if state(&first) < Some(StateKind::Unknown) {
            let both = format!("{first}\n;{second}");
            let worst = state(&first).max(state(&second));
            // The name in a lone DEALLOCATE is not looked at; beside another statement it is (`pg_temp`).
            let is_lone = |text: &str| matches!(classify(text.as_bytes()), Effect::Deallocate(_));
            if is_lone(&first) || is_lone(&second) {
                prop_assert!(state(&both) >= worst);
            } else {
                prop_assert_eq!(state(&both), worst);
            }
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = classify(&bytes);
        if let Ok(text) = std::str::from_utf8(&bytes) && !text.contains('\0') {
            prop_assert_eq!(classify(&bytes), classify_by_tokens(&bytes));
        }
    }

    #[test]
    fn a_name_deallocated_is_the_name_prepared(name in "[a-zA-Z0-9_ é\"';$-]{1,40}") {
        let quoted = format!("DEALLOCATE \"{}\"", name.replace('"', "\"\""));
        prop_assert_eq!(classify(quoted.as_bytes()), Effect::Deallocate(name.into_bytes()));
    }
}
