//! Comments, quotes and bytes: where they end, and what cannot be told.

use super::{assert_state, assert_transient};
use crate::track::lexer::{Effect, StateKind, classify};

#[test]
fn comments_hide_no_statement() {
    assert_state(
        StateKind::Settings,
        &[
            "/* SELECT 1 */ SET x = 1",
            "/**/SET/**/x/**/=/**/1",
            "-- SELECT 1\nSET x = 1",
            "--\rSET x = 1",
            "SELECT 1 --\r; SET x = 1",
            "/* /* */ ; */ SELECT 1; /*/**/*/ SET x = 1",
            "SELECT 1 /*/ */; SET x = 1",
            "SELECT 1 +/* ' */ 2; SET x = 1 /* ' */",
            "SELECT 1 --'\n; SET x = 1 --'",
            "SELECT 2 */* */ 3; SET x = 1",
        ],
    );
    assert_transient(&[
        "SELECT 1 -- ; SET x = 1",
        "SELECT 1 /* ; SET x = 1 */",
        "/*/*/**/*/;SET x = 1*/SELECT 1",
        "/* app='x',route='/a%20b' */ SELECT 1 /* traceparent='00-1-2' */",
    ]);
}

#[test]
fn strings_hide_everything_and_end_where_postgres_ends_them() {
    assert_transient(&[
        "SELECT ';SET x = 1'",
        "SELECT ''';SET x = 1'",
        "SELECT E'\\';SET x = 1;--'",
        "SELECT e'\\\\', 'x'",
        "SELECT $$;SET x = 1$$",
        "SELECT $a$;SET x = 1;$$;$b$;$a$",
        "SELECT $é$;SET x = 1;$é$",
        "SELECT U&'\\0041;SET x = 1'",
        "SELECT \";SET x = 1\"",
        "SELECT \"a\"\";SET x = 1\"",
        "SELECT 'c:\\dir\\x;', '\\d+', 'a\\\\'",
        "SELECT B'01', x'1F', N'x;'",
        "SELECT 'a'\n'b;SET x = 1'",
        "SELECT a$b$ FROM t; SELECT c$b$",
    ]);
    assert_state(
        StateKind::Settings,
        &[
            "SELECT E'\\\\';SET x = 1;--'",
            "SELECT a$b$;SET x = 1;SELECT c$b$",
            "SELECT xE'\\\\';SET x = 1",
            "SELECT $1$$;$$;SET x = 1",
            "SELECT $a$$b$$a$;SET x = 1",
            "SELECT u&'\\0041';SET x = 1",
            "SELECT '$$';SET x = 1;SELECT '$$'",
            "SELECT \"'\";SET x = 1;SELECT '\"'",
            "SELECT E'''';SET x = 1",
        ],
    );
}

#[test]
fn what_can_be_read_in_two_ways_is_unknown() {
    assert_state(
        StateKind::Unknown,
        &[
            "SELECT 'a\\'",
            "SELECT 1 INTO\u{b}TEMP x",
            "\u{b}",
            "SELECT '\\';SET x = 1;--'",
            "SELECT E'a'\n'\\';SET x = 1;--'",
            "SELECT U&\"\\0073et_config\"('a', 'b', false)",
            "SELECT u&\"a\"",
            "SELECT 1_0$a$;SET x = 1;SELECT 1_0$a$",
        ],
    );
}

#[test]
fn what_does_not_end_is_unknown() {
    assert_state(
        StateKind::Unknown,
        &[
            "SELECT '",
            "SELECT '''",
            "SELECT \"",
            "SELECT \"a\"\"",
            "SELECT $$ $",
            "SELECT $a$ $$ $A$",
            "SELECT E'\\'",
            "SELECT E'\\",
            "SELECT U&'",
            "SELECT /*",
            "SELECT /* /* */",
            "/*",
            "DEALLOCATE a; '",
            "SELECT 1; \"",
        ],
    );
}

#[test]
fn what_is_not_utf8_or_has_a_zero_byte_is_unknown() {
    let texts: [&[u8]; 4] = [b"SELECT '\xff'", b"SELECT 1 -- \xc3", b"SELECT 1\0", b"SELECT '\0'"];
    for text in texts {
        assert_eq!(classify(text), Effect::SessionState(StateKind::Unknown));
    }
    assert_transient(&["SELECT 'é', \"ß\", naïve FROM été -- 日本"]);
}

#[test]
fn hostile_lengths_take_linear_time_and_no_stack() {
    for fragment in
        ["set_config(", "(", "/*", "/* */", "$a", "$a$b", "''", "\\'", "EXPLAIN (", "DEALLOCATE ", ";", "1_$"]
    {
        let _ = classify(fragment.repeat(50_000).as_bytes());
        let _ = classify(format!("SELECT {}", fragment.repeat(50_000)).as_bytes());
    }
}
