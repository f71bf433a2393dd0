//! What a client without a server may say: whether it needs one, and what needs none.

use super::lexer;
use super::violation::{MAX_INSPECTED_BYTES, MAX_NAMED_PARSE_BYTES, Violation, checked_header};
use crate::wire::frame::{self, HEADER_BYTES};

/// Whether the first message in `bytes` is there far enough for a lease to be worth asking for: a lease is certain to deal
/// with it, and does not end at once to begin anew.
///
/// # Errors
/// If it is no message a client may send.
pub fn is_worth_a_lease(bytes: &[u8]) -> Result<bool, Violation> {
    let Some(header) = checked_header(bytes)? else { return Ok(false) };
    let needs_whole = match header.tag {
        b'D' | b'C' => true,
        // A named one is kept, up to a limit; of one beyond it the name is enough to refuse it.
        b'P' => match bytes.get(HEADER_BYTES) {
            Some(first) => *first != 0 && header.body_len <= MAX_NAMED_PARSE_BYTES,
            None => true,
        },
        _ => false,
    };
    let most = if needs_whole { usize::MAX } else { HEADER_BYTES + MAX_INSPECTED_BYTES + 1 };
    Ok(bytes.len() >= header.total_len().min(most))
}

/// Whether the first request of these bytes begins a transaction that only reads, and they are all of it.
#[must_use]
pub fn begins_read_only(bytes: &[u8]) -> bool {
    let Ok(Some(header)) = checked_header(bytes) else { return false };
    let Some(body) = bytes.get(HEADER_BYTES..header.total_len()) else { return false };
    let text = match header.tag {
        b'Q' => frame::split_cstr(body),
        // Behind the name of the statement.
        b'P' => frame::split_cstr(body).and_then(|(_, rest)| frame::split_cstr(rest)),
        _ => None,
    };
    text.is_some_and(|(text, _)| lexer::begins_read_only(text))
}

/// What a client without a server sends that needs none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unleased {
    /// Bytes of the input that are done with.
    pub consumed: usize,
    /// Bytes still to come of a message that is thrown away.
    pub discard: usize,
    /// The client said Terminate.
    pub terminated: bool,
}

/// Passes over messages that a client without a server sends and that need none: leftovers of a COPY that has failed
/// (PostgreSQL manual, "COPY Operations": ignored), Flush, and a Sync, which is answered into `to_client`.
///
/// # Errors
/// If it is no message a client may send.
pub fn unleased_bytes(input: &[u8], to_client: &mut Vec<u8>) -> Result<Unleased, Violation> {
    let mut done = Unleased::default();
    while let Some(message) = input.get(done.consumed..) {
        let Some(header) = checked_header(message)? else { break };
        match header.tag {
            b'X' => {
                done.terminated = true;
                break;
            }
            b'S' => frame::put(to_client, b'Z', |body| body.push(b'I')),
            b'd' | b'c' | b'f' | b'H' => {}
            _ => break,
        }
        let here = header.total_len().min(message.len());
        done.consumed = done.consumed.saturating_add(here);
        done.discard = header.total_len().saturating_sub(here);
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sync_alone_needs_no_server() {
        let mut answers = Vec::new();
        let done = unleased_bytes(b"S\0\0\0\x04H\0\0\0\x04Q\0\0", &mut answers);
        assert_eq!(done, Ok(Unleased { consumed: 10, discard: 0, terminated: false }));
        assert_eq!(answers, b"Z\0\0\0\x05I");
    }

    #[test]
    fn the_rest_of_a_failed_copy_is_thrown_away() {
        let done = unleased_bytes(b"d\0\0\0\x08ab", &mut Vec::new());
        assert_eq!(done, Ok(Unleased { consumed: 7, discard: 2, terminated: false }));
    }

    #[test]
    fn half_a_query_is_not_worth_a_lease() {
        assert_eq!(is_worth_a_lease(b"Q\0\0\0\x06a"), Ok(false));
        assert_eq!(is_worth_a_lease(b"Q\0\0\0\x06a\0"), Ok(true));
        assert_eq!(is_worth_a_lease(b"p\0\0\0\x06a\0"), Err(Violation::Type(b'p')));
    }

    #[test]
    fn of_a_long_message_as_much_is_worth_a_lease_as_is_dealt_with() {
        let begun = |tag: u8, body: usize, first: u8, there: usize| {
            let mut bytes = vec![tag];
            bytes.extend_from_slice(&u32::try_from(body + 4).unwrap().to_be_bytes());
            bytes.push(first);
            bytes.resize(there, b'x');
            is_worth_a_lease(&bytes).unwrap()
        };
        let seen = MAX_INSPECTED_BYTES + HEADER_BYTES + 1;
        for (tag, first) in [(b'Q', b'x'), (b'P', 0), (b'B', 0)] {
            for body in [MAX_INSPECTED_BYTES, 1_000_000] {
                let enough = (body + HEADER_BYTES).min(seen);
                assert!(begun(tag, body, first, enough), "{tag} {body}");
                assert!(!begun(tag, body, first, enough - 1), "{tag} {body}");
            }
        }
        // A named one is kept, up to its limit.
        assert!(begun(b'P', 100_000, b's', 100_000 + HEADER_BYTES));
        assert!(!begun(b'P', 100_000, b's', 100_000 + HEADER_BYTES - 1));
        assert!(begun(b'P', MAX_NAMED_PARSE_BYTES + 1, b's', seen));
        assert_eq!(is_worth_a_lease(b"P\0\0\xff\xff"), Ok(false), "which it is, is not known yet");
    }
}
