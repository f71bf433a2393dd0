//! From the client to the server: which answers each message will bring, and the names it must carry.
//!
//! Owns the pass over a client's bytes. Headers are looked at, bodies only where a name or a statement's text
//! matters; what does not differ is not copied (`Sink`).
//!
//! | message | answer expected | what may differ |
//! |---|---|---|
//! | Query | ReadyForQuery | a lone DEALLOCATE gets the server's name of the statement |
//! | Parse | ParseComplete | named: prepared under our name, or answered by us if the server has it |
//! | Bind, Describe S | BindComplete, RowDescription | our name; preceded by a Parse of ours if the server lacks it |
//! | Close S | CloseComplete | answered by us: the text stays prepared for others |
//! | Execute, Close P, Describe P, FunctionCall, Sync | as the manual says | nothing |
//! | Flush, CopyData, CopyDone, CopyFail | none | nothing |

use super::exchange::{ClientState, Exchange, ServerState, TxStatus};
use super::expect::Expect;
use super::lexer::{Effect, StateKind, classify};
use super::sink::Sink;
use super::statement::{
    ClientStatements, Statement, StatementCache, leaves, put_close, put_parse, put_server_name,
};
use crate::error::{ClientError, ClientFacing, Fault, SqlState};
use crate::wire::frame::{self, HEADER_BYTES, Header};

/// How far a client's bytes were understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fed {
    /// Bytes of the input that are done with; the rest is the beginning of a message.
    pub consumed: usize,
    /// The client said Terminate.
    pub terminated: bool,
    /// The client asked for what is there already (Flush): answers of ours must not wait for the server's.
    pub flush: bool,
}

/// What no well-behaved client sends.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A length that no message can have.
    #[error("invalid message length")]
    Length(#[from] frame::BadLength),
    /// A type that a client must not send now.
    #[error("invalid frontend message type {0}")]
    Type(u8),
    /// A message longer than its type allows.
    #[error("message of type {0} is too long")]
    TooLong(u8),
    /// A body that does not have the shape of its type.
    #[error("invalid message format")]
    Malformed(u8),
    /// A named statement's text beyond what is kept.
    #[error("prepared statement of {0} bytes is too long")]
    StatementTooLong(usize),
    /// More named statements than a client may have.
    #[error("too many prepared statements")]
    TooManyStatements(usize),
}

impl ClientFacing for Violation {
    fn to_client(&self) -> ClientError {
        let (code, reason) = match self {
            Self::Length(_) | Self::Type(_) | Self::Malformed(_) => {
                (SqlState::PROTOCOL_VIOLATION, "protocol_violation")
            }
            Self::TooLong(_) | Self::StatementTooLong(_) => {
                (SqlState::PROGRAM_LIMIT_EXCEEDED, "message_too_large")
            }
            Self::TooManyStatements(_) => (SqlState::CONFIGURATION_LIMIT_EXCEEDED, "too_many_statements"),
        };
        let error = ClientError::fatal(code, Fault::Client, reason, self.to_string());
        match self {
            Self::StatementTooLong(_) => error
                .with_detail(format!("A named statement may have {MAX_NAMED_PARSE_BYTES} bytes."))
                .with_hint("Use the unnamed statement for texts this long."),
            Self::TooManyStatements(max) => error
                .with_detail(format!("A client may hold {max} named prepared statements."))
                .with_hint("Close statements that are not needed, or raise max_client_statements."),
            Self::Length(_) | Self::Type(_) | Self::TooLong(_) | Self::Malformed(_) => error,
        }
    }
}

/// A simple query or an unnamed Parse up to this size is read whole before it is forwarded.
pub(super) const MAX_INSPECTED_BYTES: usize = 16 * 1024;
/// A named Parse is kept, so it has an end.
pub(super) const MAX_NAMED_PARSE_BYTES: usize = 8 * 1024 * 1024;

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

/// What the parties to one pass are.
struct Parties<'a> {
    client: &'a mut ClientState,
    server: &'a mut ServerState,
    cache: &'a mut StatementCache,
}

/// What to do with one message.
enum Next {
    /// `len` bytes were dealt with, all of which are in the input.
    Done(usize),
    /// The message's beginning is not enough.
    Wait,
}

impl Exchange {
    /// Passes over bytes from the client: what is for the server goes to `sink`, answers that the proxy gives itself
    /// to `to_client`.
    ///
    /// # Errors
    /// If the client breaks the protocol or a limit. What was understood before that is in `sink`.
    pub fn client_bytes(
        &mut self,
        (client, server, cache): (&mut ClientState, &mut ServerState, &mut StatementCache),
        input: &[u8],
        sink: &mut Sink<'_>,
        to_client: &mut Vec<u8>,
    ) -> Result<Fed, Violation> {
        let mut parties = Parties { client, server, cache };
        let mut fed = Fed { consumed: 0, terminated: false, flush: false };
        let mut unnamed: Option<&[u8]> = None;
        let rest = self.client_rest.min(input.len());
        sink.keep(rest);
        self.client_rest = self.client_rest.saturating_sub(rest);
        fed.consumed = rest;
        while let Some(message) = input.get(fed.consumed..).filter(|bytes| !bytes.is_empty()) {
            let Some(header) = checked_header(message)? else { break };
            match header.tag {
                b'X' => {
                    fed.terminated = true;
                    break;
                }
                b'H' => fed.flush = true,
                b'P' if message.get(HEADER_BYTES) == Some(&0) => {
                    unnamed = message.get(HEADER_BYTES.saturating_add(1)..header.total_len());
                }
                b'B' => unnamed = None,
                _ => {}
            }
            match self.client_message(&mut parties, header, message, sink)? {
                Next::Done(len) => fed.consumed = fed.consumed.saturating_add(len),
                Next::Wait => break,
            }
        }
        if let Some(body) = unnamed.filter(|_| !self.ignoring) {
            parties.client.unnamed = Some(body.into());
        }
        self.put_due_answers(to_client);
        Ok(fed)
    }

    fn client_message(
        &mut self,
        parties: &mut Parties<'_>,
        header: Header,
        message: &[u8],
        sink: &mut Sink<'_>,
    ) -> Result<Next, Violation> {
        if self.ignoring && header.tag != b'S' {
            // The server throws it away, so it brings no answer and leaves nothing behind.
            return Ok(self.forward(header, message, sink));
        }
        match header.tag {
            b'Q' => return self.query(parties, header, message, sink),
            b'P' => return self.parse(parties, header, message, sink),
            b'B' => return self.bind(parties, header, message, sink),
            b'D' => return self.describe(parties, header, message, sink),
            b'C' => return self.close(parties, header, message, sink),
            b'E' => self.expect_extended(Expect::Execute),
            b'F' => self.expect.push(Expect::Query),
            b'S' if !self.copy_in => {
                self.expect.push(Expect::Sync);
                self.unsynced = false;
                self.ignoring = false;
            }
            b'c' | b'f' => self.copy_in = false,
            // A Sync in copy-in mode, Flush and CopyData bring no answer.
            _ => {}
        }
        Ok(self.forward(header, message, sink))
    }

    fn query(
        &mut self,
        parties: &mut Parties<'_>,
        header: Header,
        message: &[u8],
        sink: &mut Sink<'_>,
    ) -> Result<Next, Violation> {
        let Some(body) = whole_body(header, message) else {
            if header.body_len <= MAX_INSPECTED_BYTES {
                return Ok(Next::Wait);
            }
            parties.leave_behind(StateKind::Unknown);
            self.expect.push(Expect::Query);
            self.unsynced = false;
            return Ok(self.forward(header, message, sink));
        };
        let Some((text, [])) = frame::split_cstr(body) else { return Err(Violation::Malformed(b'Q')) };
        let effect = classify(text);
        self.unsynced = false;
        // A simple query destroys the unnamed statement.
        parties.server.unnamed_of = None;
        parties.client.unnamed = None;
        if let Effect::Deallocate(name) = &effect
            && let Some(statement) = parties.client.statement(name).cloned()
        {
            return Ok(self.deallocate(parties, header, name, &statement, sink));
        }
        match effect {
            Effect::Transient => {}
            Effect::SessionState(kind) => parties.leave_behind(kind),
            Effect::Deallocate(_) | Effect::DeallocateAll | Effect::DiscardAll => {}
        }
        self.expect.push(Expect::Query);
        Ok(self.forward(header, message, sink))
    }

    /// `DEALLOCATE name` as a simple query, for a name that the client prepared by Parse: the server knows the
    /// statement by our name, if at all.
    fn deallocate(
        &mut self,
        parties: &mut Parties<'_>,
        header: Header,
        name: &[u8],
        statement: &Statement,
        sink: &mut Sink<'_>,
    ) -> Next {
        sink.drop_input(header.total_len());
        let failed = parties.server.status == TxStatus::Failed;
        if !failed {
            if !parties.server.statements.touch(statement.id) {
                // Something of that name must be there to be deallocated. Not the statement itself: should preparing
                // it fail, the server would skip the query that follows.
                let mut sql = b"PREPARE ".to_vec();
                put_server_name(&mut sql, statement.id);
                sql.extend_from_slice(b" AS SELECT 1");
                self.own_query(&sql, sink.insert());
            }
            parties.server.statements.remove(statement.id);
            parties.client.forget_statement(name);
        }
        frame::put(sink.insert(), b'Q', |out| {
            out.extend_from_slice(b"DEALLOCATE ");
            put_server_name(out, statement.id);
            out.push(0);
        });
        self.expect.push(Expect::Query);
        Next::Done(header.total_len())
    }

    fn parse(
        &mut self,
        parties: &mut Parties<'_>,
        header: Header,
        message: &[u8],
        sink: &mut Sink<'_>,
    ) -> Result<Next, Violation> {
        let body = whole_body(header, message);
        let Some(first) = message.get(HEADER_BYTES) else { return wait_or_malformed(header) };
        if *first == 0 {
            return self.parse_unnamed(parties, header, body, message, sink);
        }
        if header.body_len > MAX_NAMED_PARSE_BYTES {
            return Err(Violation::StatementTooLong(header.body_len));
        }
        let Some(body) = body else { return Ok(Next::Wait) };
        let Some((name, body)) = frame::split_cstr(body) else { return Err(Violation::Malformed(b'P')) };
        let max = parties.client.max_statements;
        let statements = parties.client.statements.get_or_insert_with(Box::<ClientStatements>::default);
        if statements.len() >= max {
            return Err(Violation::TooManyStatements(max));
        }
        let statement = parties.cache.intern(body);
        sink.drop_input(header.total_len());
        if statements.find(name).is_some() {
            // The name is taken: let the server say so, by preparing what it has prepared.
            self.prepare_here(parties.server, &statement, sink.insert());
            put_parse(sink.insert(), statement.id, body);
            self.expect_extended(Expect::Parse);
            return Ok(Next::Done(header.total_len()));
        }
        statements.insert(name, statement.clone());
        if parties.server.statements.touch(statement.id) {
            self.expect_extended(Expect::SynthParse);
        } else {
            self.make_room(parties.server, statement.id, sink.insert());
            put_parse(sink.insert(), statement.id, body);
            self.parses.push_back((statement.id, name.into()));
            self.expect_extended(Expect::NamedParse);
        }
        Ok(Next::Done(header.total_len()))
    }

    fn parse_unnamed(
        &mut self,
        parties: &mut Parties<'_>,
        header: Header,
        body: Option<&[u8]>,
        message: &[u8],
        sink: &mut Sink<'_>,
    ) -> Result<Next, Violation> {
        let left = match body {
            Some(body) => {
                let text = body.get(1..).and_then(frame::split_cstr).ok_or(Violation::Malformed(b'P'))?.0;
                leaves(&classify(text))
            }
            None if header.body_len <= MAX_INSPECTED_BYTES => return Ok(Next::Wait),
            None => Some(StateKind::Unknown),
        };
        if let Some(kind) = left {
            parties.leave_behind(kind);
        }
        parties.server.unnamed_of = Some(parties.client.id);
        parties.client.unnamed = None;
        self.expect_extended(Expect::Parse);
        Ok(self.forward(header, message, sink))
    }

    fn bind(
        &mut self,
        parties: &mut Parties<'_>,
        header: Header,
        message: &[u8],
        sink: &mut Sink<'_>,
    ) -> Result<Next, Violation> {
        let available = message.get(HEADER_BYTES..header.total_len().min(message.len())).unwrap_or_default();
        let names = frame::split_cstr(available)
            .and_then(|(portal, rest)| frame::split_cstr(rest).map(|(name, _)| (portal, name)));
        let Some((portal, name)) = names else {
            return if whole_body(header, message).is_some() || available.len() > MAX_INSPECTED_BYTES {
                Err(Violation::Malformed(b'B'))
            } else {
                Ok(Next::Wait)
            };
        };
        if name.is_empty() {
            if self.unnamed_is_at_hand(parties, sink) {
                self.expect_extended(Expect::Bind);
                return Ok(self.forward(header, message, sink));
            }
            return Ok(self.rename(header, message, portal, Name::Foreign(name), sink));
        }
        let Some(statement) = parties.client.statement(name).cloned() else {
            return Ok(self.rename(header, message, portal, Name::Foreign(name), sink));
        };
        self.prepare_here(parties.server, &statement, sink.insert());
        if let Some(kind) = statement.leaves {
            parties.leave_behind(kind);
        }
        Ok(self.rename(header, message, portal, Name::Ours(&statement), sink))
    }

    /// Forwards a Bind with another statement name. Its parameters may still be on their way.
    fn rename(
        &mut self,
        header: Header,
        message: &[u8],
        portal: &[u8],
        name: Name<'_>,
        sink: &mut Sink<'_>,
    ) -> Next {
        let old_names = portal.len().saturating_add(name.old_len(message, portal)).saturating_add(2);
        let head = HEADER_BYTES.saturating_add(old_names);
        sink.drop_input(head);
        let out = sink.insert();
        let length_at = out.len().saturating_add(1);
        out.extend_from_slice(&[b'B', 0, 0, 0, 0]);
        out.extend_from_slice(portal);
        out.push(0);
        name.put(out);
        out.push(0);
        let new_names = out.len().saturating_sub(length_at).saturating_sub(4);
        let length = header.body_len.saturating_sub(old_names).saturating_add(new_names).saturating_add(4);
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        if let Some(field) = out.get_mut(length_at..).and_then(|tail| tail.first_chunk_mut::<4>()) {
            *field = length.to_be_bytes();
        }
        self.expect_extended(Expect::Bind);
        let tail = header.total_len().min(message.len()).saturating_sub(head);
        sink.keep(tail);
        let done = head.saturating_add(tail);
        self.client_rest = header.total_len().saturating_sub(done);
        Next::Done(done)
    }

    fn describe(
        &mut self,
        parties: &mut Parties<'_>,
        header: Header,
        message: &[u8],
        sink: &mut Sink<'_>,
    ) -> Result<Next, Violation> {
        let Some(body) = whole_body(header, message) else { return Ok(Next::Wait) };
        let Some((kind, name)) = kind_and_name(body) else { return Err(Violation::Malformed(b'D')) };
        if kind == b'S' && name.is_empty() && self.unnamed_is_at_hand(parties, sink) || kind == b'P' {
            self.expect_extended(Expect::Describe);
            return Ok(self.forward(header, message, sink));
        }
        let statement = parties.client.statement(name).cloned();
        if let Some(statement) = &statement {
            self.prepare_here(parties.server, statement, sink.insert());
        }
        sink.drop_input(header.total_len());
        frame::put(sink.insert(), b'D', |out| {
            out.push(kind);
            match &statement {
                Some(statement) => put_server_name(out, statement.id),
                None => Name::Foreign(name).put(out),
            }
            out.push(0);
        });
        self.expect_extended(Expect::Describe);
        Ok(Next::Done(header.total_len()))
    }

    fn close(
        &mut self,
        parties: &mut Parties<'_>,
        header: Header,
        message: &[u8],
        sink: &mut Sink<'_>,
    ) -> Result<Next, Violation> {
        let Some(body) = whole_body(header, message) else { return Ok(Next::Wait) };
        let Some((kind, name)) = kind_and_name(body) else { return Err(Violation::Malformed(b'C')) };
        if kind == b'P' || name.is_empty() {
            if kind == b'S' {
                parties.client.unnamed = None;
                parties.server.unnamed_of = None;
            }
            self.expect_extended(Expect::Close);
            return Ok(self.forward(header, message, sink));
        }
        parties.client.forget_statement(name);
        sink.drop_input(header.total_len());
        self.expect_extended(Expect::SynthClose);
        Ok(Next::Done(header.total_len()))
    }

    /// Whether the server's unnamed statement is this client's, after preparing it again if that is needed.
    fn unnamed_is_at_hand(&mut self, parties: &mut Parties<'_>, sink: &mut Sink<'_>) -> bool {
        if parties.server.unnamed_of == Some(parties.client.id) {
            return true;
        }
        let Some(body) = parties.client.unnamed.as_deref() else { return false };
        put_parse(sink.insert(), 0, body);
        self.expect_extended(Expect::OwnParse { id: 0 });
        parties.server.unnamed_of = Some(parties.client.id);
        true
    }

    /// Prepares a statement that the server lacks.
    fn prepare_here(&mut self, server: &mut ServerState, statement: &Statement, out: &mut Vec<u8>) {
        if server.statements.touch(statement.id) {
            return;
        }
        self.make_room(server, statement.id, out);
        put_parse(out, statement.id, &statement.body);
        self.expect_extended(Expect::OwnParse { id: statement.id });
    }

    fn make_room(&mut self, server: &mut ServerState, id: u64, out: &mut Vec<u8>) {
        if let Some(victim) = server.statements.insert(id) {
            put_close(out, victim);
            self.expect_extended(Expect::OwnClose);
        }
    }

    fn expect_extended(&mut self, expect: Expect) {
        self.expect.push(expect);
        self.unsynced = true;
    }

    /// Lets as much of the message through as there is.
    fn forward(&mut self, header: Header, message: &[u8], sink: &mut Sink<'_>) -> Next {
        let len = header.total_len().min(message.len());
        sink.keep(len);
        self.client_rest = header.total_len().saturating_sub(len);
        Next::Done(len)
    }
}

impl Parties<'_> {
    fn leave_behind(&mut self, kind: StateKind) {
        self.server.left_behind = Some(kind);
    }
}

/// The name a statement gets on its way to the server.
#[derive(Clone, Copy)]
enum Name<'a> {
    Ours(&'a Statement),
    /// A name that this client does not have. The server is to say so; it must not find somebody else's.
    Foreign(&'a [u8]),
}

impl Name<'_> {
    fn put(self, out: &mut Vec<u8>) {
        match self {
            Self::Ours(statement) => put_server_name(out, statement.id),
            Self::Foreign(name) => {
                out.extend_from_slice(b"tenantry:");
                out.extend_from_slice(name);
            }
        }
    }

    /// Length of the name as the client wrote it, behind its portal name.
    fn old_len(self, message: &[u8], portal: &[u8]) -> usize {
        let at = HEADER_BYTES.saturating_add(portal.len()).saturating_add(1);
        message.get(at..).and_then(frame::split_cstr).map_or(0, |(name, _)| name.len())
    }
}

pub(super) fn checked_header(message: &[u8]) -> Result<Option<Header>, Violation> {
    let Some(tag) = message.first() else { return Ok(None) };
    let limit = frame::client_body_limit(*tag).ok_or(Violation::Type(*tag))?;
    let Some(header) = frame::peek(message)? else { return Ok(None) };
    if header.body_len > limit {
        return Err(Violation::TooLong(header.tag));
    }
    Ok(Some(header))
}

fn whole_body(header: Header, message: &[u8]) -> Option<&[u8]> {
    message.get(HEADER_BYTES..header.total_len())
}

fn wait_or_malformed(header: Header) -> Result<Next, Violation> {
    if header.body_len == 0 { Err(Violation::Malformed(header.tag)) } else { Ok(Next::Wait) }
}

fn kind_and_name(body: &[u8]) -> Option<(u8, &[u8])> {
    let (kind @ (b'S' | b'P'), rest) = body.split_first()? else { return None };
    match frame::split_cstr(rest)? {
        (name, []) => Some((*kind, name)),
        _ => None,
    }
}
