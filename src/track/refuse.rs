//! A request that gets no server: which of the client's bytes belonged to it.
//!
//! Owns the rule by which an error of ours ends a request as one of Postgres' would: a simple query fails alone, an
//! extended one takes everything up to its Sync with it.

use super::violation::{Violation, checked_header};

/// What was skipped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Skipped {
    /// Bytes of the input that are done with.
    pub consumed: usize,
    /// Bytes still to come of the last skipped message.
    pub discard: usize,
    /// The request has ended: ReadyForQuery is due. Otherwise its Sync is still to come.
    pub ended: bool,
}

/// Skips the first request in `input`.
///
/// # Errors
/// If it is no message a client may send.
pub fn skip_request(input: &[u8]) -> Result<Skipped, Violation> {
    let mut skipped = Skipped::default();
    while let Some(message) = input.get(skipped.consumed..) {
        let Some(header) = checked_header(message)? else { break };
        if header.tag == b'X' {
            break;
        }
        let here = header.total_len().min(message.len());
        let simple = matches!(header.tag, b'Q' | b'F') && skipped.consumed == 0;
        skipped.consumed = skipped.consumed.saturating_add(here);
        skipped.discard = header.total_len().saturating_sub(here);
        if simple || header.tag == b'S' {
            skipped.ended = true;
            break;
        }
    }
    Ok(skipped)
}

/// Skips to the Sync that ends a request which was refused before.
///
/// # Errors
/// If it is no message a client may send.
pub fn skip_to_sync(input: &[u8]) -> Result<Skipped, Violation> {
    let mut skipped = Skipped::default();
    while let Some(message) = input.get(skipped.consumed..) {
        let Some(header) = checked_header(message)? else { break };
        if header.tag == b'X' {
            break;
        }
        let here = header.total_len().min(message.len());
        skipped.consumed = skipped.consumed.saturating_add(here);
        skipped.discard = header.total_len().saturating_sub(here);
        if header.tag == b'S' {
            skipped.ended = true;
            break;
        }
    }
    Ok(skipped)
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUERY: &[u8] = b"Q\0\0\0\x06a\0";
    const BIND: &[u8] = b"B\0\0\0\x06a\0";
    const SYNC: &[u8] = b"S\0\0\0\x04";

    #[test]
    fn a_simple_query_fails_alone() {
        let input = [QUERY, QUERY].concat();
        assert_eq!(skip_request(&input), Ok(Skipped { consumed: QUERY.len(), discard: 0, ended: true }));
    }

    #[test]
    fn half_a_query_is_ended_and_its_rest_thrown_away() {
        assert_eq!(skip_request(b"Q\0\0\0\x08a"), Ok(Skipped { consumed: 6, discard: 3, ended: true }));
    }

    #[test]
    fn an_extended_request_ends_at_its_sync() {
        let input = [BIND, BIND, QUERY, SYNC, QUERY].concat();
        let ended = BIND.len() * 2 + QUERY.len() + SYNC.len();
        assert_eq!(skip_request(&input), Ok(Skipped { consumed: ended, discard: 0, ended: true }));
        assert_eq!(skip_request(BIND), Ok(Skipped { consumed: BIND.len(), discard: 0, ended: false }));
        let input = [QUERY, SYNC].concat();
        assert_eq!(skip_to_sync(&input), Ok(Skipped { consumed: input.len(), discard: 0, ended: true }));
    }
}
