//! The answers a server still owes, in order (PostgreSQL manual, "Message Flow").
//!
//! Owns the queue. One entry per message that makes the server answer, removed by the message that ends its answer.

use std::collections::VecDeque;

/// One answer that is still to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expect {
    /// A simple query or a function call: ends with ReadyForQuery.
    Query,
    /// A simple query of the proxy's own: everything up to ReadyForQuery is swallowed.
    Own,
    /// Sync: ends with ReadyForQuery.
    Sync,
    /// ParseComplete for the client.
    Parse,
    /// ParseComplete for the client, of a named statement registered under [`super::exchange::Exchange::parses`].
    NamedParse,
    /// ParseComplete for a statement the proxy prepared by itself: swallowed.
    OwnParse {
        /// Statement id, 0 for the unnamed statement.
        id: u64,
    },
    /// BindComplete.
    Bind,
    /// RowDescription or NoData.
    Describe,
    /// CommandComplete, EmptyQueryResponse or PortalSuspended.
    Execute,
    /// CloseComplete for the client.
    Close,
    /// CloseComplete for a statement the proxy closed by itself: swallowed.
    OwnClose,
    /// ParseComplete that the proxy itself answers.
    SynthParse,
    /// CloseComplete that the proxy itself answers.
    SynthClose,
}

impl Expect {
    /// Whether an error makes the server skip this entry on its way to the next Sync.
    const fn is_skipped_by_error(self) -> bool {
        !matches!(self, Self::Sync)
    }
}

/// The queue.
#[derive(Debug, Default)]
pub(super) struct Expectations {
    queue: VecDeque<Expect>,
}

impl Expectations {
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn head(&self) -> Option<Expect> {
        self.queue.front().copied()
    }

    pub(super) fn push(&mut self, expect: Expect) {
        self.queue.push_back(expect);
    }

    pub(super) fn pop(&mut self) -> Option<Expect> {
        self.queue.pop_front()
    }

    pub(super) fn clear(&mut self) {
        self.queue.clear();
    }

    /// An error in an extended-protocol message: the server skips everything before the next Sync. Each skipped
    /// entry is given to `skipped`. Returns whether that Sync has been sent already.
    pub(super) fn skip_to_sync(&mut self, mut skipped: impl FnMut(Expect)) -> bool {
        while let Some(head) = self.head() {
            if !head.is_skipped_by_error() {
                return true;
            }
            skipped(head);
            self.pop();
        }
        false
    }

    /// The server has gone into copy-in mode, where it ignores Sync: those sent behind the COPY are not answered.
    pub(super) fn drop_syncs_behind_head(&mut self) {
        let mut first = true;
        self.queue.retain(|expect| {
            let keep = first || *expect != Expect::Sync;
            first = false;
            keep
        });
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

    #[test]
    fn an_error_skips_to_the_next_sync() {
        let mut expectations = Expectations::default();
        for expect in
            [Expect::Parse, Expect::Bind, Expect::Execute, Expect::Query, Expect::Sync, Expect::Bind]
        {
            expectations.push(expect);
        }
        let mut skipped = 0;
        assert!(expectations.skip_to_sync(|_| skipped += 1));
        assert_eq!(skipped, 4);
        assert_eq!(expectations.head(), Some(Expect::Sync));
    }

    #[test]
    fn without_a_sync_everything_is_skipped() {
        let mut expectations = Expectations::default();
        expectations.push(Expect::Bind);
        assert!(!expectations.skip_to_sync(|_| ()));
        assert!(expectations.is_empty());
    }

    #[test]
    fn copy_in_forgets_the_sync_behind_it_but_not_itself() {
        let mut expectations = Expectations::default();
        expectations.push(Expect::Execute);
        expectations.push(Expect::Sync);
        expectations.drop_syncs_behind_head();
        assert_eq!(expectations.len(), 1);
        assert_eq!(expectations.head(), Some(Expect::Execute));
    }
}
