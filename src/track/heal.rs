//! A request that fails because a server's prepared statement has gone bad is made once more, where nobody can tell.
//!
//! A statement that a server prepared long ago, for whomever, may be of no use when the next client comes to it: the
//! schema has changed the type of its rows, or something out of sight has deallocated it. The client did nothing that
//! would have failed on a connection of its own. So a request of named statements that begins outside a transaction is
//! kept until it is answered; if it fails in that way the error and its ReadyForQuery are swallowed, and what was not
//! answered is fed again, which prepares the statements anew.
//!
//! Owns the copy, and whether it may be used: not where the client goes by a description of rows from before (`rows`),
//! has heard more than ParseComplete and CloseComplete, or has sent more behind the request.

use super::exchange::Exchange;
use super::state::{ServerState, TxStatus};
use crate::wire::frame;

/// The request that may be made once more.
#[derive(Debug, Default)]
pub(super) struct Retry {
    /// The client's messages up to their Sync; empty if it cannot be made again.
    request: Vec<u8>,
    /// How many of them have been answered, from the first one on.
    answered: usize,
    /// Its client goes by a description from before.
    pub(super) by_memory: bool,
    /// It uses named statements.
    pub(super) is_named: bool,
    /// It has failed in that way, and is fed again now.
    due: bool,
    /// What is being answered is fed for the second time.
    is_second: bool,
}

impl Retry {
    pub(super) const fn is_due(&self) -> bool {
        self.due
    }

    /// Nothing is kept any more.
    pub(super) fn clear(&mut self) {
        self.request.clear();
        self.request.shrink_to(MAX_RETRY_BYTES);
        *self = Self { request: std::mem::take(&mut self.request), ..Self::default() };
    }

    /// The client has heard an answer.
    pub(super) fn heard(&mut self, tag: u8) {
        match tag {
            b'N' | b'A' | b'S' => {}
            b'1' | b'3' => self.answered = self.answered.saturating_add(1),
            _ => self.request.clear(),
        }
    }
}

impl Exchange {
    /// A pass over bytes of the client begins. Returns whether a request that begins with it may be kept.
    pub(super) fn begin_request(&mut self, server: &ServerState) -> bool {
        let (is_second, by_memory, is_named) = if std::mem::take(&mut self.retry.due) {
            (true, false, false)
        } else if self.unsynced {
            (self.retry.is_second, self.retry.by_memory, self.retry.is_named)
        } else {
            (false, false, false)
        };
        self.retry.clear();
        (self.retry.is_second, self.retry.by_memory, self.retry.is_named) = (is_second, by_memory, is_named);
        let begins = !self.unsynced && !self.ignoring && !self.copy_in && self.client_rest == 0;
        begins && !is_second && server.status == TxStatus::Idle && self.expect.has_only_own()
    }

    /// A Sync has ended the request.
    pub(super) fn keep_request(&mut self, request: &[u8]) {
        let keeps = self.retry.is_named && !self.retry.by_memory && self.expect.is_one_request();
        if keeps && request.len() <= MAX_RETRY_BYTES && self.client_rest == 0 {
            self.retry.request.extend_from_slice(request);
        }
    }

    /// A statement on the server has gone bad. Returns whether the request is made once more.
    pub(super) fn heals(&mut self) -> bool {
        let Retry { request, answered, .. } = &mut self.retry;
        if request.is_empty() || !self.expect.is_one_request() {
            return false;
        }
        let mut at = 0_usize;
        let mut left = *answered;
        while left > 0 {
            let Ok(Some(header)) = frame::peek(request.get(at..).unwrap_or_default()) else { return false };
            at = at.saturating_add(header.total_len());
            // Flush and leftovers of a COPY bring no answer.
            left = left.saturating_sub(usize::from(!matches!(header.tag, b'H' | b'd' | b'c' | b'f')));
        }
        request.drain(..at.min(request.len()));
        self.retry.due = true;
        true
    }

    /// The request that is to be fed again, in front of whatever the client has said since.
    pub fn take_retry(&mut self) -> Option<Vec<u8>> {
        let is_ready = self.retry.due && self.expect.is_empty();
        is_ready.then(|| std::mem::take(&mut self.retry.request)).filter(|request| !request.is_empty())
    }
}

/// A longer request is not kept.
const MAX_RETRY_BYTES: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::super::fixture::{BOUND, DONE, EXECUTE, PARSED, READY, SYNC, Talk, messages};

    const PARSE: (u8, &[u8]) = (b'P', b"s\0SELECT a FROM t\0\0\0");
    const BIND: (u8, &[u8]) = (b'B', b"\0s\0\0\0\0\0\0\0");
    const GONE_BAD: (u8, &[u8]) = (b'E', b"SERROR\0C0A000\0RRevalidateCachedQuery\0\0");
    const IN_BLOCK: (u8, &[u8]) = (b'Z', b"T");

    fn prepared() -> Talk {
        let mut talk = Talk::new(9);
        talk.say(&messages(&[PARSE, SYNC]));
        talk.answer(&messages(&[PARSED, READY]));
        talk
    }

    /// What is fed again, if anything is.
    fn fed_again(talk: &mut Talk) -> Option<Vec<u8>> {
        let request = talk.exchange.take_retry()?;
        assert!(!talk.is_over(), "the lease does not end in between");
        Some(talk.say(&request))
    }

    #[test]
    fn a_request_that_meets_a_statement_gone_bad_is_made_once_more() {
        let mut talk = prepared();
        talk.say(&messages(&[BIND, EXECUTE, SYNC]));
        assert_eq!(talk.answer(&messages(&[GONE_BAD, READY])), b"", "nobody can tell");
        let sent = fed_again(&mut talk).unwrap();
        assert!(sent.starts_with(b"C") && sent.contains(&b'P'), "closed, and prepared anew");
        let answers = messages(&[BOUND, DONE, READY]);
        assert_eq!(
            talk.answer(&[&messages(&[super::super::fixture::CLOSED, PARSED]), &*answers].concat()),
            answers
        );
        assert!(talk.is_over());
    }

    #[test]
    fn the_second_time_the_error_is_the_clients() {
        let mut talk = prepared();
        talk.say(&messages(&[BIND, EXECUTE, SYNC]));
        talk.answer(&messages(&[GONE_BAD, READY]));
        fed_again(&mut talk).unwrap();
        let heard = talk.answer(&messages(&[GONE_BAD, READY]));
        assert_eq!(heard, messages(&[GONE_BAD, READY]));
        assert!(fed_again(&mut talk).is_none() && talk.is_over());
    }

    #[test]
    fn what_was_answered_is_not_made_again() {
        let mut talk = prepared();
        let again = (b'P', b"t\0SELECT a FROM t\0\0\0".as_slice());
        let bind = (b'B', b"\0t\0\0\0\0\0\0\0".as_slice());
        talk.say(&messages(&[again, bind, EXECUTE, SYNC]));
        assert_eq!(talk.heard, messages(&[PARSED]), "the server has it");
        talk.answer(&messages(&[GONE_BAD, READY]));
        let sent = fed_again(&mut talk).unwrap();
        assert_eq!(sent.iter().filter(|byte| **byte == b'P').count(), 1, "{}", sent.escape_ascii());
        assert_eq!(talk.heard, b"");
    }

    #[test]
    fn what_brings_no_answer_is_not_taken_for_answered() {
        let mut talk = prepared();
        let again = (b'P', b"t\0SELECT a FROM t\0\0\0".as_slice());
        let bind = (b'B', b"\0t\0\0\0\0\0\0\0".as_slice());
        talk.say(&messages(&[(b'H', b""), again, bind, EXECUTE, SYNC]));
        assert_eq!(talk.heard, messages(&[PARSED]), "the server has it");
        talk.answer(&messages(&[GONE_BAD, READY]));
        let sent = fed_again(&mut talk).unwrap();
        assert_eq!(sent.iter().filter(|byte| **byte == b'P').count(), 1, "{}", sent.escape_ascii());
        let answers = messages(&[BOUND, DONE, READY]);
        let rest = messages(&[super::super::fixture::CLOSED, PARSED]);
        assert_eq!(talk.answer(&[&rest, &*answers].concat()), answers);
        assert!(talk.is_over());
    }

    #[test]
    fn nothing_is_made_again_where_it_could_be_noticed() {
        let mut in_block = prepared();
        in_block.say(&messages(&[(b'Q', b"BEGIN\0")]));
        in_block.answer(&messages(&[DONE, IN_BLOCK]));
        let mut with_rows = prepared();
        let mut ahead = prepared();
        for talk in [&mut in_block, &mut with_rows, &mut ahead] {
            talk.say(&messages(&[BIND, EXECUTE, BIND, EXECUTE, SYNC]));
        }
        with_rows.answer(&messages(&[BOUND, DONE]));
        ahead.say(&messages(&[BIND, EXECUTE, SYNC]));
        for talk in [&mut in_block, &mut with_rows, &mut ahead] {
            assert!(talk.answer(&messages(&[GONE_BAD, READY])).starts_with(b"E"));
            assert!(fed_again(talk).is_none());
        }
    }

    #[test]
    fn who_goes_by_a_description_from_before_is_told() {
        let mut talk = prepared();
        talk.say(&messages(&[(b'D', b"Ss\0"), SYNC]));
        talk.answer(&messages(&[(b't', b"\0\0"), (b'n', b""), READY]));
        talk.say(&messages(&[BIND, EXECUTE, SYNC]));
        assert_eq!(talk.answer(&messages(&[GONE_BAD, READY])), messages(&[GONE_BAD, READY]));
        talk.say(&messages(&[(b'D', b"Ss\0"), SYNC]));
        talk.answer(&messages(&[GONE_BAD, READY]));
        assert!(fed_again(&mut talk).is_some(), "a new description does no harm");
    }
}
