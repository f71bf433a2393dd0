//! The answers a server still owes, in order (PostgreSQL manual, "Message Flow").
//!
//! Owns the queue. One entry per message that makes the server answer, removed by the message that ends its answer.

use std::collections::VecDeque;

/// One answer that is still to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expect {
    /// A simple query or a function call: ends with ReadyForQuery.
    Query,
    /// A simple query in which a PREPARE and a DEALLOCATE of ours stand in for each `DEALLOCATE name`. Has a note.
    Deallocate,
    /// A simple query that is one `DEALLOCATE ALL` or `DISCARD ALL`. Has a note.
    DeallocateAll,
    /// A simple query of the proxy's own: everything up to ReadyForQuery is swallowed.
    Own,
    /// A stand-in for a simple query that is refused. Has a note.
    RefusedQuery,
    /// A stand-in for a message of the extended protocol that is refused. Has a note.
    Refused,
    /// A query of the proxy's own behind a request that sends settings back to those of the login: gives the client its
    /// startup settings again. The request's ReadyForQuery waits for it.
    Restore,
    /// A question of the proxy's own: the values of settings that were named.
    AskSettings,
    /// A question of the proxy's own: all settings.
    AskAllSettings,
    /// A question of the proxy's own: whether something keeps the client at this server.
    AskPins,
    /// A question of the proxy's own: whether there are functions but Postgres' own.
    AskNewest,
    /// A question of the proxy's own: which functions leave something behind.
    AskFunctions,
    /// A question of the proxy's own: what runs those functions without naming them.
    AskReach,
    /// A question of the proxy's own: whether functions were made out of sight.
    AskMade,
    /// Sync: ends with ReadyForQuery.
    Sync,
    /// ParseComplete for the client, of the unnamed statement.
    Parse {
        /// Which of the client's unnamed statements.
        version: u32,
    },
    /// An error for the client: it prepares under a name that it has given already. Has a note.
    ParseAgain,
    /// ParseComplete for the client, of a named statement. Has a note.
    NamedParse {
        /// Statement id.
        id: u64,
        /// Its number on the server.
        serial: u32,
    },
    /// ParseComplete for a statement the proxy prepared by itself: swallowed.
    OwnParse {
        /// Statement id, 0 for the unnamed statement.
        id: u64,
        /// Its number on the server.
        serial: u32,
    },
    /// ParseComplete and the ReadyForQuery of its own Sync, for a statement that the proxy prepared by itself before a
    /// simple query that names it: swallowed.
    OwnPrepare {
        /// Statement id.
        id: u64,
        /// Its number on the server.
        serial: u32,
    },
    /// BindComplete.
    Bind,
    /// The same, of a query of the proxy's own: swallowed.
    OwnBind,
    /// BindComplete of a statement that stands in for a DEALLOCATE. Has a note.
    BindDeallocate,
    /// RowDescription or NoData.
    Describe,
    /// The same, to be remembered: that of a named statement, or of a portal bound from one.
    Learn,
    /// The same, asked by the proxy: swallowed.
    OwnDescribe,
    /// CommandComplete, EmptyQueryResponse or PortalSuspended.
    Execute,
    /// The same and the rows before it, of a query of the proxy's own: swallowed.
    OwnExecute,
    /// CloseComplete for the client.
    Close,
    /// CloseComplete for a statement the proxy closed by itself: swallowed.
    OwnClose {
        /// Its number on the server.
        serial: u32,
    },
    /// ParseComplete that the proxy itself answers. Has a note.
    SynthParse,
    /// CloseComplete that the proxy itself answers. Has a note.
    SynthClose,
    /// No answer, a place in the order: CopyDone or CopyFail was sent before the server said that it reads COPY data.
    CopyEnd,
}

impl Expect {
    /// Whether its answer ends with ReadyForQuery for the client.
    pub(super) const fn is_request(self) -> bool {
        self.is_simple() || matches!(self, Self::Sync)
    }

    /// Whether it is the client's and may change which unnamed statement there is: a simple query destroys it.
    pub(super) const fn may_change_unnamed(self) -> bool {
        matches!(
            self,
            Self::Parse { .. }
                | Self::Close
                | Self::Query
                | Self::Deallocate
                | Self::DeallocateAll
                | Self::RefusedQuery
        )
    }

    /// Whether its answer is not the client's.
    pub(super) const fn is_own(self) -> bool {
        matches!(self, Self::Own | Self::OwnPrepare { .. } | Self::Restore) || self.is_question()
    }

    /// Whether it answers a message of the proxy's own within a request of the client's.
    pub(super) const fn is_swallowed(self) -> bool {
        matches!(
            self,
            Self::OwnParse { .. }
                | Self::OwnBind
                | Self::OwnDescribe
                | Self::OwnExecute
                | Self::OwnClose { .. }
        )
    }

    /// Whether it is a question of the proxy's own.
    pub(super) const fn is_question(self) -> bool {
        matches!(
            self,
            Self::AskSettings
                | Self::AskAllSettings
                | Self::AskPins
                | Self::AskNewest
                | Self::AskFunctions
                | Self::AskReach
                | Self::AskMade
        )
    }

    /// Whether it is a simple query (or function call) of the client's.
    pub(super) const fn is_simple(self) -> bool {
        matches!(self, Self::Query | Self::Deallocate | Self::DeallocateAll | Self::RefusedQuery)
    }

    /// What the proxy itself answers in its place.
    pub(super) const fn own_answer(self) -> Option<OwnAnswer> {
        match self {
            Self::SynthParse => Some(OwnAnswer::Message(b'1')),
            Self::SynthClose => Some(OwnAnswer::Message(b'3')),
            Self::CopyEnd => Some(OwnAnswer::Nothing),
            Self::Query
            | Self::Deallocate
            | Self::DeallocateAll
            | Self::Own
            | Self::RefusedQuery
            | Self::Refused
            | Self::Restore
            | Self::AskSettings
            | Self::AskAllSettings
            | Self::AskPins
            | Self::AskNewest
            | Self::AskFunctions
            | Self::AskReach
            | Self::AskMade
            | Self::Sync
            | Self::Parse { .. }
            | Self::ParseAgain
            | Self::NamedParse { .. }
            | Self::OwnParse { .. }
            | Self::OwnPrepare { .. }
            | Self::Bind
            | Self::OwnBind
            | Self::BindDeallocate
            | Self::Describe
            | Self::Learn
            | Self::OwnDescribe
            | Self::Execute
            | Self::OwnExecute
            | Self::Close
            | Self::OwnClose { .. } => None,
        }
    }

    /// Whether something changed when it was sent that must be taken back if the server refuses it.
    pub(super) const fn has_note(self) -> bool {
        matches!(
            self,
            Self::Deallocate
                | Self::DeallocateAll
                | Self::RefusedQuery
                | Self::Refused
                | Self::ParseAgain
                | Self::NamedParse { .. }
                | Self::BindDeallocate
                | Self::SynthParse
                | Self::SynthClose
        )
    }
}

/// What the proxy itself answers.
pub(super) enum OwnAnswer {
    /// One without a body.
    Message(u8),
    Nothing,
}

/// The queue.
#[derive(Debug, Default)]
pub(super) struct Expectations {
    queue: VecDeque<Expect>,
    requests: usize,
}

impl Expectations {
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    /// How many ReadyForQuery for the client are still to come.
    pub(super) const fn requests(&self) -> usize {
        self.requests
    }

    pub(super) fn head(&self) -> Option<Expect> {
        self.queue.front().copied()
    }

    /// Whether the head's ReadyForQuery waits for the client's startup settings.
    pub(super) fn head_is_held(&self) -> bool {
        self.queue.get(1) == Some(&Expect::Restore)
    }

    /// Whether nothing is to come but answers to the proxy's own queries.
    pub(super) fn are_own(&self) -> bool {
        self.queue.iter().all(|expect| expect.is_own())
    }

    /// Whether nothing but Syncs comes after the head.
    pub(super) fn only_syncs_behind_head(&self) -> bool {
        self.queue.iter().skip(1).all(|expect| *expect == Expect::Sync)
    }

    /// Whether none of them is the client's.
    pub(super) fn has_only_own(&self) -> bool {
        self.queue.iter().all(|expect| expect.is_own())
    }

    /// Whether the server is asked what keeps the client there.
    pub(super) fn asks_for_pins(&self) -> bool {
        self.queue.contains(&Expect::AskPins)
    }

    /// Whether they are what is left of one request that ends with a Sync.
    pub(super) fn is_one_request(&self) -> bool {
        self.requests == 1 && self.queue.back() == Some(&Expect::Sync)
    }

    /// Whether the answer to a Parse of the unnamed statement is outstanding.
    pub(super) fn has_unnamed_parse(&self) -> bool {
        self.queue.iter().any(|expect| matches!(expect, Expect::Parse { .. }))
    }

    /// Whether the Parse of that unnamed statement is outstanding.
    pub(super) fn has_unnamed_parse_of(&self, version: u32) -> bool {
        self.queue.iter().any(|expect| *expect == Expect::Parse { version })
    }

    /// Whether something outstanding changes which unnamed statement there is, if it is not skipped.
    pub(super) fn has_unnamed_change(&self) -> bool {
        self.queue.iter().any(|expect| expect.may_change_unnamed())
    }

    pub(super) fn push(&mut self, expect: Expect) {
        self.requests = self.requests.saturating_add(usize::from(expect.is_request()));
        self.queue.push_back(expect);
    }

    pub(super) fn pop(&mut self) -> Option<Expect> {
        let expect = self.queue.pop_front()?;
        self.requests = self.requests.saturating_sub(usize::from(expect.is_request()));
        Some(expect)
    }

    pub(super) fn clear(&mut self) {
        self.queue.clear();
        self.requests = 0;
    }

    /// The head's note has been dealt with: what is left of it is a simple query.
    pub(super) fn head_becomes_query(&mut self) {
        if let Some(head) = self.queue.front_mut().filter(|head| head.is_simple()) {
            *head = Expect::Query;
        }
    }

    /// The server reads COPY data, and Sync is ignored there: those sent behind the COPY and before the data's end are
    /// not answered. Returns whether there were any, and whether the end of the data has been sent already.
    pub(super) fn enter_copy(&mut self) -> (bool, bool) {
        let (mut ignored, mut ended, mut is_head) = (0_usize, false, true);
        self.queue.retain(|expect| match expect {
            Expect::Sync if !is_head && !ended => {
                ignored = ignored.saturating_add(1);
                false
            }
            Expect::CopyEnd if !ended => {
                ended = true;
                false
            }
            _ => {
                is_head = false;
                true
            }
        });
        self.requests = self.requests.saturating_sub(ignored);
        (ignored > 0, ended)
    }

    /// Gives back memory that a long pipeline took.
    pub(super) fn shrink(&mut self) {
        if self.queue.capacity() > 64 {
            self.queue.shrink_to(16);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(expected: &[Expect]) -> Expectations {
        let mut expectations = Expectations::default();
        expected.iter().for_each(|expect| expectations.push(*expect));
        expectations
    }

    #[test]
    fn copy_in_forgets_the_syncs_before_the_end_of_the_data() {
        use Expect::{CopyEnd, Execute, Sync};
        let mut expectations = queue(&[Execute, Sync, Sync]);
        assert_eq!(expectations.enter_copy(), (true, false));
        assert_eq!((expectations.len(), expectations.requests()), (1, 0));
        let mut expectations = queue(&[Execute, Sync, CopyEnd, Sync, CopyEnd]);
        assert_eq!(expectations.enter_copy(), (true, true));
        assert_eq!(expectations.queue, [Execute, Sync, CopyEnd]);
        assert_eq!(expectations.requests(), 1);
    }

    #[test]
    fn requests_are_those_that_end_with_ready_for_query() {
        let mut expectations = queue(&[Expect::Own, Expect::Query, Expect::Bind, Expect::Sync]);
        assert_eq!(expectations.requests(), 2);
        while expectations.pop().is_some() {}
        assert_eq!(expectations.requests(), 0);
    }

    #[test]
    fn an_entry_is_small() {
        assert!(size_of::<Expect>() <= 16, "{}", size_of::<Expect>());
    }
}
