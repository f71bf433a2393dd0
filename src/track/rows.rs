//! Of what type the rows of a prepared statement are: what its client was told, and what a server gives.
//!
//! In Postgres the type of a prepared statement's rows is fixed when it is prepared: if the schema changes it, the
//! statement is of no use any more (0A000, `cached plan must not change result type`). A statement that is prepared again
//! on another server would have the new type, and a client that goes by a description from before would read its rows
//! wrongly. So what the descriptions say is remembered, for the client's name and for the server's statement, and the two
//! are compared before a client that goes by memory gets rows.
//!
//! Owns the descriptions that are remembered and those that the proxy asks for itself.

use std::hash::{BuildHasher, Hasher};
use std::rc::Rc;

use super::downstream::ServerFault;
use super::exchange::Exchange;
use super::expect::Expect;
use super::prepared::Place;
use super::state::{ServerState, TxStatus};
use super::statement::Named;
use crate::error::{ClientError, Fault, RESULT_TYPE_CHANGED, SqlState};
use crate::wire::frame::{self, HEADER_BYTES, Header};

/// The type of a statement's rows, as a number that only equal ones share (near enough); the default is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct RowType(u64);

impl RowType {
    pub(super) const fn is_known(self) -> bool {
        self.0 != 0
    }

    /// From NoData, or the body of a RowDescription: names and types of the columns, as Postgres compares them. Where a
    /// column comes from and its format do not matter. `None` if it is torn.
    fn of(tag: u8, body: &[u8]) -> Option<Self> {
        if tag == b'n' {
            return Some(Self(1));
        }
        let mut hasher = foldhash::fast::FixedState::default().build_hasher();
        let (count, mut rest) = body.split_first_chunk::<2>()?;
        for _ in 0..u16::from_be_bytes(*count) {
            let (name, tail) = frame::split_cstr(rest)?;
            // Table, column there; type, its length, its modifier; format.
            let (column, tail) = tail.split_first_chunk::<18>()?;
            hasher.write(name);
            hasher.write(column.get(6..16)?);
            rest = tail;
        }
        Some(Self(hasher.finish().max(2)))
    }
}

/// A description that is on its way.
#[derive(Debug)]
pub(super) struct Learning {
    place: Place,
    /// Whom it is told to.
    named: Option<Rc<Named>>,
}

/// A portal that was bound from a named statement.
#[derive(Debug)]
pub(super) struct Bound {
    pub(super) portal: Box<[u8]>,
    pub(super) named: Rc<Named>,
    pub(super) place: Place,
}

impl Exchange {
    /// Takes note of a Describe whose answer is to be remembered. Returns what to expect of it.
    pub(super) fn learn(&mut self, expect: Expect, place: Place, named: Option<Rc<Named>>) -> Expect {
        self.learning.push_back(Learning { place, named });
        expect
    }

    /// The client describes a portal.
    pub(super) fn expect_description_of_portal(&mut self, portal: &[u8], server: &ServerState) {
        let bound = self.bound.as_ref().filter(|bound| *bound.portal == *portal);
        let news = bound.filter(|bound| {
            let rows = server.statements.rows(bound.place);
            !rows.is_known() || rows != bound.named.told.get()
        });
        let expect = match news.map(|bound| (bound.place, bound.named.clone())) {
            Some((place, named)) => self.learn(Expect::Learn, place, Some(named)),
            None => Expect::Describe,
        };
        self.expect_extended(expect);
    }

    /// Whether the rows that the server will give are of the type that the client was told; `None` if the server has to be
    /// asked first, which it has been then.
    pub(super) fn agrees(
        &mut self,
        named: &Named,
        place: Place,
        server: &ServerState,
        out: &mut Vec<u8>,
    ) -> Option<bool> {
        let told = named.told.get();
        let refuses_anyway = server.status == TxStatus::Failed;
        let may_never_answer = self.copy_in || server.suspect;
        if !named.is_told() || refuses_anyway || may_never_answer {
            return Some(true);
        }
        let rows = server.statements.rows(place);
        if rows.is_known() {
            return Some(rows == told);
        }
        if !self.learning.iter().any(|learning| learning.place == place) {
            frame::put(out, b'D', |out| {
                out.push(b'S');
                server.statements.put_name(out, place.serial);
                out.push(0);
            });
            let expect = self.learn(Expect::OwnDescribe, place, None);
            self.expect_extended(expect);
        }
        None
    }

    /// Whether the message is a part of a description that is read, so that it must be whole.
    pub(super) fn is_read(&self, tag: u8) -> bool {
        match self.expect.head() {
            Some(Expect::Learn) => tag == b'T',
            Some(Expect::OwnDescribe) => matches!(tag, b'T' | b't' | b'N'),
            Some(head) => head.is_swallowed() && matches!(tag, b'D' | b'N'),
            None => false,
        }
    }

    /// RowDescription or NoData. Returns whether it is the client's.
    pub(super) fn description(
        &mut self,
        tag: u8,
        body: &[u8],
        server: &mut ServerState,
    ) -> Result<bool, ServerFault> {
        let head = self.expect.head();
        match head {
            Some(Expect::Describe) => {}
            Some(Expect::Learn | Expect::OwnDescribe) => {
                let rows = RowType::of(tag, body).ok_or(ServerFault::Protocol(tag))?;
                if let Some(Learning { place, named }) = self.learning.pop_front() {
                    server.statements.learn(place, rows);
                    if let Some(named) = named {
                        named.told.set(rows);
                    }
                }
            }
            Some(head) if tag == b'T' && head.is_simple() => return Ok(true),
            _ => return Err(ServerFault::Protocol(tag)),
        }
        self.expect.pop();
        Ok(head != Some(Expect::OwnDescribe))
    }
}

/// Whether the message behind this Bind describes the portal, so that its client need not go by memory.
pub(super) fn is_described_next(message: &[u8], bind: Header, portal: &[u8]) -> bool {
    let Some(next) = message.get(bind.total_len()..) else { return false };
    let Ok(Some(header)) = frame::peek(next) else { return false };
    let Some(body) = next.get(HEADER_BYTES..header.total_len()).filter(|_| header.tag == b'D') else {
        return false;
    };
    matches!(body.split_first(), Some((b'P', name)) if name.strip_suffix(b"\0") == Some(portal))
}

/// As Postgres says it, so that drivers prepare the statement again.
pub(super) fn changed() -> ClientError {
    ClientError::error(
        SqlState::FEATURE_NOT_SUPPORTED,
        Fault::Client,
        RESULT_TYPE_CHANGED,
        "cached plan must not change result type",
    )
    .with_detail("The schema has changed since this statement was described to the client.")
    .with_hint("Prepare the statement again.")
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{BOUND, DONE, EXECUTE, PARSED, READY, SYNC, Talk, fresh_server, messages};
    use super::super::state::ServerState;
    use super::*;

    /// A RowDescription of one column, from a table of this number.
    fn rows(type_oid: u32, table: u32) -> Vec<u8> {
        let mut body = b"\0\x01a\0".to_vec();
        body.extend_from_slice(&table.to_be_bytes());
        body.extend_from_slice(b"\0\x01");
        body.extend_from_slice(&type_oid.to_be_bytes());
        body.extend_from_slice(b"\0\x04\xff\xff\xff\xff\0\0");
        body
    }

    const PARSE: (u8, &[u8]) = (b'P', b"s\0SELECT a FROM t\0\0\0");
    const BIND: (u8, &[u8]) = (b'B', b"\0s\0\0\0\0\0\0\0");
    const NO_PARAMETERS: (u8, &[u8]) = (b't', b"\0\0");

    /// A client that was told that its statement gives int4, and is on another server now.
    fn told(server: ServerState) -> Talk {
        let mut talk = Talk::new(9);
        talk.say(&messages(&[PARSE, (b'D', b"Ss\0"), SYNC]));
        talk.answer(&messages(&[PARSED, NO_PARAMETERS, (b'T', &rows(23, 1)), READY]));
        talk.next_server(server);
        talk
    }

    fn tags(bytes: &[u8]) -> String {
        let (mut tags, mut rest) = (String::new(), bytes);
        while let Some(header) = frame::peek(rest).unwrap() {
            tags.push(char::from(header.tag));
            rest = &rest[header.total_len()..];
        }
        tags
    }

    #[test]
    fn the_type_of_rows_is_names_and_types_of_columns() {
        let of = |body: &[u8]| RowType::of(b'T', body).unwrap();
        assert_eq!(of(&rows(23, 1)), of(&rows(23, 2)), "the table was made anew");
        assert_ne!(of(&rows(23, 1)), of(&rows(25, 1)));
        assert_ne!(of(b"\0\0"), RowType::of(b'n', b"").unwrap());
        let whole = rows(23, 1);
        for len in 0..whole.len() {
            assert_eq!(RowType::of(b'T', &whole[..len]), None, "{len}");
        }
    }

    #[test]
    fn who_goes_by_memory_gets_rows_of_the_type_it_was_told_only() {
        for (type_oid, is_told) in [(23, true), (25, false)] {
            let mut talk = told(fresh_server());
            let sent = talk.say(&messages(&[BIND, EXECUTE, SYNC]));
            assert_eq!(tags(&sent), "PDH", "the Bind is held until the server has told");
            let heard = talk.answer(&messages(&[PARSED, NO_PARAMETERS, (b'T', &rows(type_oid, 7))]));
            assert_eq!(heard, b"", "that is not the client's");
            let sent = talk.say(b"");
            assert_eq!(tags(&sent), "BES");
            assert_eq!(sent.windows(16).any(|part| part == b"tenantry:refused"), !is_told);
            if is_told {
                assert_eq!(talk.answer(&messages(&[BOUND, DONE, READY])), messages(&[BOUND, DONE, READY]));
            } else {
                let heard = talk.answer(&messages(&[(b'E', b"SERROR\0C26000\0\0"), READY]));
                assert!(heard.windows(21).any(|part| part == b"RevalidateCachedQuery"));
            }
            assert!(talk.is_over());
        }
    }

    #[test]
    fn a_server_is_asked_once() {
        let mut talk = told(fresh_server());
        talk.say(&messages(&[BIND, EXECUTE, SYNC]));
        talk.answer(&messages(&[PARSED, NO_PARAMETERS, (b'T', &rows(23, 1))]));
        talk.say(b"");
        talk.answer(&messages(&[BOUND, DONE, READY]));
        assert_eq!(tags(&talk.say(&messages(&[BIND, EXECUTE, SYNC]))), "BES");
    }

    #[test]
    fn who_describes_each_portal_need_not_be_told_before() {
        let mut talk = told(fresh_server());
        let sent = talk.say(&messages(&[BIND, (b'D', b"P\0"), EXECUTE, SYNC]));
        assert_eq!(tags(&sent), "PBDES");
        talk.answer(&messages(&[PARSED, BOUND, (b'T', &rows(25, 1)), DONE, READY]));
        assert_eq!(tags(&talk.say(&messages(&[BIND, EXECUTE, SYNC]))), "BES", "it knows the new type now");
    }

    #[test]
    fn a_portal_of_another_statement_says_nothing_of_this_one() {
        let mut talk = told(fresh_server());
        let unnamed: [(u8, &[u8]); 2] = [(b'P', b"\0SELECT 1\0\0\0"), (b'B', b"\0\0\0\0\0\0\0\0")];
        let portal: (u8, &[u8]) = (b'D', b"P\0");
        talk.say(&messages(&[BIND, portal, unnamed[0], unnamed[1], portal, SYNC]));
        let mine = (b'T', rows(23, 1));
        let other = (b'T', rows(25, 1));
        let answers = [PARSED, BOUND, (mine.0, &mine.1), PARSED, BOUND, (other.0, &other.1), READY];
        talk.answer(&messages(&answers));
        assert_eq!(tags(&talk.say(&messages(&[BIND, EXECUTE, SYNC]))), "BES");
        assert!(talk.client.statements.find(b"s").unwrap().told.get() == RowType::of(b'T', &mine.1).unwrap());
    }

    #[test]
    fn a_question_that_the_server_skipped_is_forgotten() {
        let mut talk = told(fresh_server());
        talk.say(&messages(&[BIND, EXECUTE, SYNC]));
        let failed = messages(&[(b'E', b"SERROR\0C42P01\0\0")]);
        assert_eq!(talk.answer(&failed), failed, "the table is gone");
        assert_eq!(tags(&talk.say(b"")), "BES", "what the server throws away");
        talk.answer(&messages(&[READY]));
        assert!(talk.is_over() && talk.exchange.learning.is_empty());
        assert_eq!(tags(&talk.say(&messages(&[BIND]))), "PDH");
    }
}
