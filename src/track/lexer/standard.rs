//! Texts of which is known that a backslash in an ordinary string escapes nothing (`standard_conforming_strings` is on).
//!
//! Owns another notation of such strings, which reads in one way whatever the setting: `'C:\'` becomes `E'C:\\'`. The text
//! is for reading only; Postgres gets what the client wrote.

use super::tokens::{Token, Tokens, after_blanks};

/// The text in that notation; `None` if nothing in it depends on the setting, or if it cannot be read either way.
#[must_use]
pub fn in_one_way(sql: &[u8]) -> Option<Vec<u8>> {
    memchr::memmem::find(sql, br"\'")?;
    let (mut out, mut done) = (Vec::new(), 0);
    let mut tokens = Tokens::standard(sql);
    // What stands behind an `E'..'` may go on with it.
    let mut is_behind_escapes = false;
    loop {
        let from = sql.len().checked_sub(tokens.left())?;
        let Some(token) = tokens.next() else { break };
        let to = sql.len().checked_sub(tokens.left())?;
        let written = after_blanks(sql.get(from..to)?)?;
        is_behind_escapes = match (token, written) {
            (Token::Doubt, _) => break,
            (Token::Text, [b'e' | b'E', ..]) => true,
            (Token::Text, [b'\'', inside @ .., b'\'']) => {
                if is_behind_escapes {
                    return None;
                }
                if Tokens::new(written).next() == Some(Token::Doubt) {
                    out.extend_from_slice(sql.get(done..to.checked_sub(written.len())?)?);
                    // What stands in front of it may be a letter.
                    out.extend_from_slice(b" E'");
                    for &byte in inside {
                        out.extend((byte == b'\\').then_some(byte));
                        out.push(byte);
                    }
                    out.push(b'\'');
                    done = to;
                }
                false
            }
            _ => false,
        };
    }
    (done > 0).then(|| [out.as_slice(), sql.get(done..).unwrap_or_default()].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(sql: &str) -> Option<String> {
        in_one_way(sql.as_bytes()).map(|sql| String::from_utf8(sql).unwrap())
    }

    #[test]
    fn strings_that_end_with_a_backslash_are_written_in_another_way() {
        for (sql, expected) in [
            (r"SELECT a LIKE $1 ESCAPE '\'", r"SELECT a LIKE $1 ESCAPE  E'\\'"),
            (r"SELECT replace(x,'\','/'), 'a\b'", r"SELECT replace(x, E'\\','/'), 'a\b'"),
            (r"SELECT 'it''s C:\''\'; SET a = 1", r"SELECT  E'it''s C:\\''\\'; SET a = 1"),
            (r"SELECT LIKE'\' /* \' */", r"SELECT LIKE E'\\' /* \' */"),
        ] {
            assert_eq!(rewritten(sql).as_deref(), Some(expected), "{sql}");
        }
    }

    #[test]
    fn what_reads_in_one_way_stays() {
        for sql in [
            r"SELECT '\\'",
            r"SELECT E'\''",
            r"SELECT $$\'$$",
            r"-- \'",
            "SELECT 1",
            r"SELECT E'a'
'\'; SET x = 1 --'",
        ] {
            assert_eq!(rewritten(sql), None, "{sql}");
        }
    }
}
