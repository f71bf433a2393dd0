//! What a client without a server may say: whether it needs one, and what needs none.

use super::violation::{MAX_INSPECTED_BYTES, Violation, checked_header};
use crate::wire::frame;

/// Whether the first message in `bytes` is there far enough for a lease to be worth asking for.
///
/// # Errors
/// If it is no message a client may send.
pub fn is_worth_a_lease(bytes: &[u8]) -> Result<bool, Violation> {
    let Some(header) = checked_header(bytes)? else { return Ok(false) };
    Ok(bytes.len() >= header.total_len().min(MAX_INSPECTED_BYTES))
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
}
