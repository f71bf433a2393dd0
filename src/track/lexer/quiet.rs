//! The shortcut for the texts of a busy application: one statement, whose bytes hold nothing that could matter.
//!
//! Owns a look at every byte that answers "certainly transient" or "look closer", never anything else; the tests hold
//! it to the tokens' answer. Everything rare is left to the tokens. Half a nanosecond a byte, a quarter of theirs.

use super::tokens::{after_blanks, is_word_byte};
use super::verdict::{Verb, verb};

/// Whether the text is one statement that certainly leaves nothing behind; `false` means that nobody has looked
/// closely. The text must be UTF-8 without zero bytes.
pub(super) fn is_plainly_transient(sql: &[u8]) -> bool {
    let Some(sql) = after_blanks(sql) else { return false };
    let first_len = sql.iter().position(|byte| !byte.is_ascii_alphabetic()).unwrap_or(sql.len());
    let Some((first, rest)) = sql.split_at_checked(first_len) else { return false };
    let is_whole_word = !rest.first().is_some_and(|&byte| is_word_byte(byte));
    is_whole_word
        && matches!(verb(first), Verb::Plain | Verb::Query | Verb::Update)
        && is_quiet(sql, first_len)
}

/// Whether nothing from `at` on could end the statement, or be a word that we look for, or be read in two ways.
fn is_quiet(sql: &[u8], mut at: usize) -> bool {
    while let Some(&byte) = sql.get(at) {
        let here = at;
        at = at.wrapping_add(1);
        if !is_loud(byte) {
            continue;
        }
        let (before, after) = (sql.get(..here).unwrap_or_default(), sql.get(at..).unwrap_or_default());
        let rest = match byte {
            b'_' if !is_in_wanted_name(before, after) => continue,
            b'(' if !is_behind_val(before) => continue,
            b'm' | b'M' if !is_in_temp(before, after) => continue,
            b'$' if is_parameter(before, after) => continue,
            b'-' if after.first() != Some(&b'-') => continue,
            b'/' if after.first() != Some(&b'*') => continue,
            b'-' | b'/' if is_behind_val(before) => return false,
            b'-' | b'/' => after_blanks(sql.get(here..).unwrap_or_default()),
            b'\'' => after_simple_text(after),
            b'"' if before.last() != Some(&b'&') => after_simple_name(after),
            b';' => return after.iter().all(u8::is_ascii_whitespace),
            _ => return false,
        };
        let Some(rest) = rest else { return false };
        at = sql.len().wrapping_sub(rest.len());
    }
    true
}

fn is_loud(byte: u8) -> bool {
    LOUD.get(usize::from(byte)).copied().unwrap_or(true)
}

/// Bytes that need a second look, or that are for the tokens to judge. The names we look for have an underscore or, being
/// functions, a parenthesis behind them, and `INTO TEMP` has an m.
const LOUD: [bool; 256] = {
    let mut loud = [false; 256];
    let mut rest: &[u8] = b"_(mM$-/'\";\x0b";
    while let [byte, tail @ ..] = rest {
        loud[*byte as usize] = true;
        rest = tail;
    }
    loud
};

/// Whether an underscore is that of `set_c`, `set_l`, `pg_a`, `pg_s`, `pg_t`, `_to_x`, `ts_s`, `ts_r`, `dblink_c` or
/// `isn_w`.
const fn is_in_wanted_name(before: &[u8], after: &[u8]) -> bool {
    match before {
        [.., b's' | b'S', b'e' | b'E', b't' | b'T'] => matches!(after, [b'c' | b'C' | b'l' | b'L', ..]),
        [.., b'p' | b'P', b'g' | b'G'] => matches!(after, [b'a' | b'A' | b's' | b'S' | b't' | b'T', ..]),
        [.., b't' | b'T', b's' | b'S'] => matches!(after, [b's' | b'S' | b'r' | b'R', ..]),
        [.., b'n' | b'N', b'k' | b'K'] => matches!(after, [b'c' | b'C', b'o' | b'O', ..]),
        [.., b'i' | b'I', b's' | b'S', b'n' | b'N'] => matches!(after, [b'w' | b'W', ..]),
        _ => matches!(after, [b't' | b'T', b'o' | b'O', b'_', b'x' | b'X', ..]),
    }
}

/// Whether a parenthesis opens the arguments of `currval`, `nextval` and their like, as far as three letters tell.
fn is_behind_val(before: &[u8]) -> bool {
    matches!(before.trim_ascii_end(), [.., b'v' | b'V', b'a' | b'A', b'l' | b'L'])
}

/// Whether an m is that of the word `temp` or of a word that starts with `tempo`.
fn is_in_temp(before: &[u8], after: &[u8]) -> bool {
    let [front @ .., b't' | b'T', b'e' | b'E'] = before else { return false };
    let [b'p' | b'P', back @ ..] = after else { return false };
    let is_end = |byte: Option<&u8>| !byte.is_some_and(|&byte| is_word_byte(byte));
    is_end(front.last()) && (is_end(back.first()) || matches!(back, [b'o' | b'O', ..]))
}

/// Whether a dollar is that of `$1`, alone.
fn is_parameter(before: &[u8], after: &[u8]) -> bool {
    after.first().is_some_and(u8::is_ascii_digit) && !before.last().is_some_and(|&byte| is_word_byte(byte))
}

/// What follows a constant without backslashes, of which it does not matter whether they escape.
fn after_simple_text(inside: &[u8]) -> Option<&[u8]> {
    match inside.get(memchr::memchr2(b'\'', b'\\', inside)?..)? {
        [b'\'', rest @ ..] => Some(rest),
        _ => None,
    }
}

/// What follows a quoted name that is not one we look for.
fn after_simple_name(inside: &[u8]) -> Option<&[u8]> {
    let is_wanted = matches!(
        inside,
        [b'p', b'g', b'_', ..]
            | [b's', b'e', b't', b'_', ..]
            | [b'q', b'u', ..]
            | [b't', b's', b'_', ..]
            | [b'd', b'b', b'l', ..]
            | [b'i', b's', b'n', b'_', ..]
            | [b't', b'a', b'b', b'l', b'e', b'_', ..]
            | [b's', b'c', b'h', b'e', b'm', b'a', b'_', ..]
            | [b'd', b'a', b't', b'a', b'b', ..]
            | [b'l', b'a', b's', b't', b'v', ..]
            | [b'c', b'u', b'r', b'r', b'v', ..]
            | [b'n', b'e', b'x', b't', b'v', ..]
            | [b's', b'e', b't', b'v', ..]
    );
    if is_wanted { None } else { inside.get(memchr::memchr(b'"', inside)?.wrapping_add(1)..) }
}
