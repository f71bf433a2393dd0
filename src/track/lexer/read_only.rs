//! `BEGIN READ ONLY`: a transaction that begins by saying that it only reads.
//!
//! Owns the words of BEGIN and START TRANSACTION. In doubt the answer is no: a transaction that could read elsewhere reads
//! where it always did.

/// Whether this text begins a transaction that only reads, and says nothing else. A serializable one does not count: a hot
/// standby has none (PostgreSQL manual, "Hot Standby").
#[must_use]
pub fn begins_read_only(sql: &[u8]) -> bool {
    // Comments, quotes and a second statement have other characters; nearly all other texts begin with another letter.
    let Some(b'b' | b'B' | b's' | b'S' | b' ' | b'\n' | b'\t' | b'\r') = sql.first() else { return false };
    if sql.len() > LONGEST {
        return false;
    }
    let sql = sql.trim_ascii();
    let sql = sql.strip_suffix(b";").unwrap_or(sql);
    let text = String::from_utf8_lossy(sql).to_ascii_lowercase();
    let mut words = text.split([' ', '\n', '\t', '\r', ',']).filter(|word| !word.is_empty()).peekable();
    match words.next() {
        Some("begin") => {
            let _ = words.next_if(|word| matches!(*word, "work" | "transaction"));
        }
        Some("start") if words.next() == Some("transaction") => {}
        _ => return false,
    }
    let mut reads_only = false;
    while let Some(word) = words.next() {
        match (word, words.next()) {
            ("read", Some("only")) => reads_only = true,
            ("not", Some("deferrable")) => {}
            ("isolation", Some("level")) => match (words.next(), words.next()) {
                (Some("read"), Some("committed" | "uncommitted")) | (Some("repeatable"), Some("read")) => {}
                _ => return false,
            },
            _ => return false,
        }
    }
    reads_only
}

/// All of its words need no more.
const LONGEST: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_says_nothing_else_is_one() {
        for sql in [
            "BEGIN READ ONLY",
            "begin transaction read only;",
            " BEGIN WORK READ ONLY ; ",
            "START TRANSACTION READ ONLY",
            "START TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY",
            "BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY NOT DEFERRABLE",
            "\nBEGIN\nREAD\tONLY",
        ] {
            assert!(begins_read_only(sql.as_bytes()), "{sql}");
        }
        for sql in [
            "",
            "BEGIN",
            "BEGIN READ WRITE",
            "BEGIN READ ONLY READ WRITE",
            "BEGIN READ ONLY; SELECT 1",
            "BEGIN READ ONLY;;",
            "BEGIN /* x */ READ ONLY",
            "BEGIN -- READ ONLY",
            "START READ ONLY",
            "BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY",
            "BEGIN ISOLATION LEVEL SERIALIZABLE, READ ONLY, DEFERRABLE",
            "SET TRANSACTION READ ONLY",
            "SELECT 'BEGIN READ ONLY'",
            "BEGINREAD ONLY",
            "BEGIN READ ONL\u{dd}",
        ] {
            assert!(!begins_read_only(sql.as_bytes()), "{sql}");
        }
    }
}
