//! From the server to the client: which answers have come, and which of them are the client's.
//!
//! Owns the pass over a server's bytes. Answers to messages of the proxy's own are swallowed, answers that the proxy
//! gives itself are put in their place, ParameterStatus is noted for both sides.

use std::rc::Rc;

use super::exchange::Exchange;
use super::expect::Expect;
use super::forbid::allows_path;
use super::lexer::Traces;
use super::names_in_errors::is_of_a_statement;
use super::naming::FOREIGN_PREFIX;
use super::prepared::SERVER_NAME_PREFIX;
use super::renaming::UNNAMED;
use super::sink::Sink;
use super::state::{ClientState, ServerState, TxStatus};
use super::statement::ClientStatements;
use crate::wire::frame::{self, HEADER_BYTES, Header};
use crate::wire::messages::parse_error_fields;

/// How far a server's bytes were understood.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Turn {
    /// Bytes of the input that are done with; the rest is the beginning of a message.
    pub consumed: usize,
    /// ReadyForQuery messages for the client.
    pub queries: u32,
    /// Of those, how many ended a transaction.
    pub transactions: u32,
    /// The next message has to wait until the tenant's listener has told everything.
    pub waits: bool,
}

/// Why a server cannot be used any longer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServerFault {
    /// It broke the protocol.
    #[error("the server sent what the protocol does not allow (message type 0x{0:02x})")]
    Protocol(u8),
    /// A query of the proxy's own failed; the body of the server's ErrorResponse.
    #[error("a query of the proxy's own failed")]
    OwnQueryFailed(Box<[u8]>),
}

/// Messages that are looked into must be whole; they are small.
const MAX_INSPECTED_BYTES: usize = 64 * 1024;
/// So must answers to our own queries; the longest is that to a question about settings.
const MAX_OWN_BYTES: usize = 4 * 1024 * 1024;

impl Turn {
    /// One more request has been answered.
    fn count(&mut self, status: TxStatus) {
        self.queries = self.queries.saturating_add(1);
        if status == TxStatus::Idle {
            self.transactions = self.transactions.saturating_add(1);
        }
    }
}

/// Whether a command of that tag may have drawn from a sequence, by a default of a column.
fn may_use_a_sequence(tag: &[u8]) -> bool {
    tag.starts_with(b"INSERT") || tag.starts_with(b"COPY") || tag.starts_with(b"MERGE")
}

/// Whether a command of that tag may have taken something away that keeps its client.
fn may_end_a_pin(tag: &[u8]) -> bool {
    const TAGS: [&[u8]; 6] = [b"UNLISTEN", b"CLOSE CURSOR", b"DROP ", b"DISCARD", b"DEALLOCATE", b"ROLLBACK"];
    TAGS.iter().any(|verb| tag.starts_with(verb))
}

impl Exchange {
    /// Passes over bytes from the server: what is for the client goes to `sink`.
    ///
    /// # Errors
    /// If the server breaks the protocol, or cannot be made the client's. It must be closed then.
    pub fn server_bytes(
        &mut self,
        client: &mut ClientState,
        server: &mut ServerState,
        input: &[u8],
        sink: &mut Sink<'_>,
    ) -> Result<Turn, ServerFault> {
        let rest = self.server_rest.min(input.len());
        sink.keep(rest);
        self.server_rest = self.server_rest.saturating_sub(rest);
        let mut turn = Turn { consumed: rest, ..Turn::default() };
        self.answer_behind(sink);
        while let Some(message) = input.get(turn.consumed..) {
            let rows = self.rows(message);
            if rows > 0 {
                self.retry.heard(b'D');
                sink.keep(rows);
                turn.consumed = turn.consumed.saturating_add(rows);
                continue;
            }
            let Some(header) = frame::peek(message).map_err(|bad| ServerFault::Protocol(bad.tag))? else {
                break;
            };
            let own = self.expect.head().filter(|head| head.is_own());
            let body = message.get(HEADER_BYTES..header.total_len());
            let refused = header.tag == b'E'
                && matches!(self.expect.head(), Some(Expect::Refused | Expect::RefusedQuery));
            let long = own.is_some() || self.is_read(header.tag);
            let is_error = header.tag == b'E' && header.body_len <= MAX_INSPECTED_BYTES;
            if body.is_none() && (long || refused || is_error || is_inspected(header.tag)) {
                let most = if long { MAX_OWN_BYTES } else { MAX_INSPECTED_BYTES };
                if header.body_len > most {
                    return Err(ServerFault::Protocol(header.tag));
                }
                break;
            }
            let here = header.total_len().min(message.len());
            let part = message.get(HEADER_BYTES..here).unwrap_or_default();
            let ends = own.is_none() && header.tag == b'Z' && body == Some(b"I");
            if ends && !self.ends_transaction(client, sink) {
                turn.waits = true;
                break;
            }
            if let Some(own) = own {
                sink.drop_input(here);
                self.own_answer(
                    own,
                    (header.tag, body.unwrap_or_default()),
                    (client, server),
                    sink,
                    &mut turn,
                )?;
            } else if refused && body.is_some_and(|body| self.is_refusal(body)) {
                sink.drop_input(here);
                self.put_refusal(sink.insert());
                self.error(body.unwrap_or_default(), client, server);
            } else if header.tag == b'A'
                && !Self::is_for_client(body.unwrap_or_default(), (client, server), sink)
            {
                sink.drop_input(here);
            } else if let Some(body) = body.filter(|body| header.tag == b'E' && is_of_a_statement(body)) {
                sink.drop_input(here);
                let error = self.in_clients_words(body, (client, server));
                if self.error(body, client, server) {
                    // A name that it had before what was skipped is its name again.
                    let error = error.or_else(|| self.in_clients_words(body, (client, server)));
                    let error = error.as_deref().unwrap_or(body);
                    frame::put(sink.insert(), b'E', |out| out.extend_from_slice(error));
                    self.retry.heard(header.tag);
                }
            } else if self.answer(header, body.unwrap_or(part), (client, server), &mut turn)? {
                self.retry.heard(header.tag);
                sink.keep(here);
                self.server_rest = header.total_len().saturating_sub(here);
            } else {
                sink.drop_input(here);
                debug_assert!(header.total_len() == here, "a swallowed answer is whole");
            }
            turn.consumed = turn.consumed.saturating_add(here);
            self.answer_behind(sink);
        }
        Ok(turn)
    }

    /// How many bytes of `input` are whole rows for the client, or data of a COPY: most of what servers say, and nothing in
    /// them is of interest here, nor do they change whose answer is next.
    fn rows(&self, input: &[u8]) -> usize {
        if !matches!(input.first(), Some(b'D' | b'd'))
            || self.expect.head().is_some_and(|head| head.is_own() || head.is_swallowed())
        {
            return 0;
        }
        let mut rest = input;
        while let Ok(Some(header @ Header { tag: b'D' | b'd', .. })) = frame::peek(rest)
            && let Some((_, behind)) = rest.split_at_checked(header.total_len())
        {
            rest = behind;
        }
        input.len().saturating_sub(rest.len())
    }

    /// Puts the answers of ours that are due behind what has been forwarded, unless that is half a message.
    fn answer_behind(&mut self, sink: &mut Sink<'_>) {
        if self.server_rest == 0 && self.answer_is_due() {
            self.put_due_answers(sink.insert());
        }
    }

    /// Takes note of one answer. Returns whether it is the client's.
    fn answer(
        &mut self,
        header: Header,
        body: &[u8],
        (client, server): (&mut ClientState, &mut ServerState),
        turn: &mut Turn,
    ) -> Result<bool, ServerFault> {
        match header.tag {
            b'D' | b'N' if self.expect.head().is_some_and(Expect::is_swallowed) => return Ok(false),
            b'D' | b'd' | b'c' | b'N' | b'A' | b'V' | b'H' => {}
            b'1' => return self.parse_complete(client, server),
            b'2' => match self.pop() {
                Some(Expect::Bind | Expect::BindDeallocate) => {}
                Some(Expect::OwnBind) => return Ok(false),
                _ => return Err(ServerFault::Protocol(header.tag)),
            },
            b'3' => match self.expect.pop() {
                Some(Expect::Close) => {}
                Some(Expect::OwnClose { .. }) => return Ok(false),
                _ => return Err(ServerFault::Protocol(header.tag)),
            },
            b'T' | b'n' => return self.description(header.tag, body, server),
            b't' => return Ok(self.expect.head() != Some(Expect::OwnDescribe)),
            b'C' | b'I' | b's' => return self.command_complete(body, client, server),
            b'E' => return Ok(self.error(body, client, server)),
            b'G' => self.copy_begins()?,
            b'S' => {
                let (name, value) = parameter(body).ok_or(ServerFault::Protocol(header.tag))?;
                // PostgreSQL 18 reports it. What no text showed, a block or a function did: the client goes on without it.
                if name == "search_path" && !allows_path(client, value) {
                    server.stray();
                    return Ok(!self.expect.head_is_held());
                }
                Rc::make_mut(&mut server.settings.params).set(name, value);
                server.settings_changed = true;
                if self.expect.head_is_held() {
                    return Ok(false);
                }
                client.settings.params = server.settings.params.clone();
                if name == "search_path" {
                    server.look_at_path(client);
                }
            }
            b'Z' => return self.ready(body, (client, server), turn),
            tag => return Err(ServerFault::Protocol(tag)),
        }
        Ok(true)
    }

    fn parse_complete(
        &mut self,
        client: &ClientState,
        server: &mut ServerState,
    ) -> Result<bool, ServerFault> {
        match self.pop() {
            // Whatever was sent since keeps the server in step with the client.
            Some(Expect::Parse { .. }) => {
                server.unnamed_of = Some(client.unnamed_now());
                Ok(true)
            }
            Some(Expect::OwnParse { id: 0, .. }) => {
                server.unnamed_of = Some(client.unnamed_now());
                Ok(false)
            }
            // The name is given out twice on this server: somebody has closed it behind our back.
            Some(Expect::ParseAgain) => {
                server.suspect = true;
                Ok(true)
            }
            Some(Expect::NamedParse { id, serial }) => {
                server.statements.confirm(id, serial);
                Ok(true)
            }
            Some(Expect::OwnParse { id, serial }) => {
                server.statements.confirm(id, serial);
                Ok(false)
            }
            _ => Err(ServerFault::Protocol(b'1')),
        }
    }

    /// Returns whether it is the client's.
    fn command_complete(
        &mut self,
        tag: &[u8],
        client: &mut ClientState,
        server: &mut ServerState,
    ) -> Result<bool, ServerFault> {
        let head = self.expect.head();
        // Before the head is gone: what is behind it was sent behind this statement.
        let is_last = tag == b"DISCARD ALL\0" && self.expect.only_syncs_behind_head();
        match head {
            Some(Expect::Execute) => {
                self.expect.pop();
            }
            Some(Expect::OwnExecute) => {
                self.expect.pop();
                return Ok(false);
            }
            Some(Expect::Deallocate) if tag == b"PREPARE\0" => return Ok(false),
            Some(Expect::Deallocate) if tag == b"DEALLOCATE\0" => self.deallocated(),
            Some(Expect::Query | Expect::Deallocate | Expect::DeallocateAll) => {}
            _ => return Err(ServerFault::Protocol(b'C')),
        }
        self.copy_syncs = false;
        let was_foretold = head == Some(Expect::DeallocateAll);
        if may_use_a_sequence(tag) {
            server.is_drawn_by(client);
            if client.functions.reads_sequences.get() && server.status == TxStatus::Idle {
                server.has_given();
            }
        }
        self.look_for_channels(tag, client);
        if server.pinned && may_end_a_pin(tag) {
            server.doubted = true;
        }
        if tag == b"DISCARD ALL\0" {
            self.discarded_all(client, server);
            server.forget_held();
            if !was_foretold && is_last {
                server.left_behind = None;
                server.pinned = false;
            }
        }
        if !was_foretold && matches!(tag, b"DEALLOCATE ALL\0" | b"DISCARD ALL\0") {
            server.statements.clear();
            client.statements = ClientStatements::default();
            for note in &self.notes {
                note.redo(client);
            }
        }
        Ok(true)
    }

    /// The server reads COPY data now.
    fn copy_begins(&mut self) -> Result<(), ServerFault> {
        let in_segment = match self.expect.head() {
            Some(Expect::Execute) => true,
            Some(head) if head.is_simple() => false,
            _ => return Err(ServerFault::Protocol(b'G')),
        };
        let (ignored, ended) = self.expect.enter_copy();
        self.forgets_earlier &= self.expect.requests() > 0;
        self.copy_in = !ended;
        self.copy_syncs |= ignored;
        // The Sync that was to end the segment does not.
        self.unsynced |= in_segment && self.expect.requests() == 0;
        self.flushed = false;
        Ok(())
    }

    /// An ErrorResponse outside our own queries; of a long one, `body` is what has come. Returns whether it is the
    /// client's.
    fn error(&mut self, body: &[u8], client: &mut ClientState, server: &mut ServerState) -> bool {
        // Whether a Sync behind the COPY was read before this or will be after it cannot be known: the client gets what
        // comes, but nobody else gets this server.
        server.suspect |= std::mem::take(&mut self.copy_syncs);
        self.copy_in = false;
        self.last_was_error = true;
        self.request_failed = true;
        let has_gone_bad = is_of_a_statement_gone_bad(body);
        let heals = has_gone_bad && body.len() <= MAX_INSPECTED_BYTES && self.heals();
        if has_gone_bad {
            server.statements.distrust();
        }
        match self.expect.head() {
            // ReadyForQuery follows. What the command was to take away is still there.
            Some(Expect::Deallocate | Expect::DeallocateAll | Expect::RefusedQuery) => {
                if let Some(note) = self.take_note() {
                    note.undo(&mut self.notes, client, server);
                }
                self.expect.head_becomes_query();
            }
            // In a simple query ReadyForQuery follows. At a Sync the commit has failed; ReadyForQuery follows too.
            // With nothing outstanding it is a FATAL one: the end of the connection follows.
            None | Some(Expect::Query | Expect::Sync) => {}
            Some(_) => self.ignoring = !self.skip_to_sync(client, server),
        }
        !heals
    }

    /// The server skips everything before the next Sync. Returns whether that Sync has been sent already.
    fn skip_to_sync(&mut self, client: &mut ClientState, server: &mut ServerState) -> bool {
        let mut skipped = Vec::new();
        let mut unnamed_may_be_back = false;
        while let Some(head) = self.expect.head().filter(|head| *head != Expect::Sync) {
            self.expect.pop();
            if head.has_note() {
                skipped.extend(self.take_note());
            }
            if matches!(head, Expect::Learn | Expect::OwnDescribe) {
                self.learning.pop_front();
            }
            match head {
                Expect::NamedParse { id, serial } | Expect::OwnParse { id, serial } => {
                    server.statements.failed(id, serial);
                }
                // It may have been to forget what sequences gave.
                Expect::OwnExecute => server.sequences_mixed = true,
                Expect::OwnClose { serial: UNNAMED } => {}
                Expect::OwnClose { serial } => server.statements.not_closed(serial),
                // Which of its unnamed statements the client has now is for the server to know.
                Expect::Parse { version } if version == client.unnamed_version => client.unnamed = None,
                _ => {}
            }
            unnamed_may_be_back |= head.may_change_unnamed();
        }
        // Unless the newest is still to come.
        if unnamed_may_be_back && !self.expect.has_unnamed_parse_of(client.unnamed_version) {
            client.unnamed_leaves = Some(Rc::new(Traces::unknown()));
        }
        for note in skipped.into_iter().rev() {
            note.undo(&mut self.notes, client, server);
        }
        !self.expect.is_empty()
    }

    /// Returns whether it is the client's.
    fn ready(
        &mut self,
        body: &[u8],
        (client, server): (&mut ClientState, &mut ServerState),
        turn: &mut Turn,
    ) -> Result<bool, ServerFault> {
        let status = body.first().and_then(|byte| TxStatus::from_byte(*byte)).filter(|_| body.len() == 1);
        self.last_was_error = false;
        server.status = status.ok_or(ServerFault::Protocol(b'Z'))?;
        if server.makes_functions && server.status == TxStatus::Idle {
            // What it has made may be there for others from here on, and its lease may go on.
            client.functions.forget();
        }
        if server.status == TxStatus::Idle {
            server.has_committed(&client.functions);
        }
        if self.expect.head_is_held() {
            self.pop();
            return Ok(false);
        }
        self.settle_channels(client, server.status, self.expect.requests() <= 1);
        self.request_failed = false;
        self.not_prepared = None;
        self.taken = None;
        if self.retry.is_due() {
            // The answer to a request that is made once more.
            self.pop();
            return Ok(false);
        }
        if self.expect.requests() <= 1 {
            self.forgets_earlier = false;
            if server.status == TxStatus::Idle && !self.unsynced {
                server.has_run_all(&client.functions);
            }
            server.reads_otherwise &= server.status != TxStatus::Idle || server.is_asked() || self.unsynced;
            server.reencodes &= server.reads_otherwise;
        }
        if self.expect.head().is_some_and(Expect::is_request) {
            self.pop();
        } else {
            // A Sync we took for one inside COPY was answered after all (an error came in between). The client's view
            // is right, ours is not: go on, but do not hand this server to anybody else.
            server.suspect = true;
            self.ignoring = false;
            self.unsynced &= !self.expect.is_empty();
        }
        turn.count(server.status);
        Ok(true)
    }

    /// A message of the answer to a query of the proxy's own.
    fn own_answer(
        &mut self,
        own: Expect,
        (tag, body): (u8, &[u8]),
        (client, server): (&mut ClientState, &mut ServerState),
        sink: &mut Sink<'_>,
        turn: &mut Turn,
    ) -> Result<(), ServerFault> {
        if let Expect::OwnPrepare { id, serial } = own
            && self.own_prepare_answered((id, serial), (tag, body), server)
        {
            return Ok(());
        }
        match tag {
            b'S' => {
                let (name, value) = parameter(body).ok_or(ServerFault::Protocol(tag))?;
                Rc::make_mut(&mut server.settings.params).set(name, value);
                server.settings_changed = true;
            }
            b'E' => self.own_error = Some(body.into()),
            b'Z' => {
                let status = body.first().and_then(|b| TxStatus::from_byte(*b)).unwrap_or(TxStatus::Failed);
                server.status = status;
                self.expect.pop();
                if own.is_question() {
                    let error = self.own_error.take();
                    self.take_answer(own, error.as_deref(), (client, server));
                    return Ok(());
                }
                if own == Expect::Restore {
                    turn.count(status);
                    return self.restored((client, server), sink.insert());
                }
                if let Some(error) = self.own_error.take() {
                    return Err(ServerFault::OwnQueryFailed(error));
                }
                // The server may write a value in another way than the client asked for it.
                if self.expect.head() != Some(Expect::Own) {
                    client.settings.params = server.settings.params.clone();
                }
            }
            b'D' if own.is_question() => self.take_row(body),
            b'D' | b'T' | b'C' | b'N' | b'I' => {}
            // It is for the client, whoever made the server speak.
            b'A' if Self::is_for_client(body, (client, server), sink) => {
                frame::put(sink.insert(), b'A', |out| out.extend_from_slice(body));
            }
            b'A' => {}
            tag => return Err(ServerFault::Protocol(tag)),
        }
        Ok(())
    }
}

/// Whether a statement that the server had prepared is of no use any more: its result has another type since the schema
/// was changed, or something that we could not see has deallocated it. Which one is not said.
fn is_of_a_statement_gone_bad(error: &[u8]) -> bool {
    let fields = parse_error_fields(error);
    match fields.code() {
        // The text is translated, the name of the function in Postgres is not.
        Some(b"0A000") => fields.field(b'R') == Some(b"RevalidateCachedQuery"),
        // Not one that the client has made up.
        Some(b"26000") => fields
            .field(b'M')
            .is_some_and(|text| contains(text, SERVER_NAME_PREFIX) && !contains(text, FOREIGN_PREFIX)),
        Some(_) | None => false,
    }
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

const fn is_inspected(tag: u8) -> bool {
    matches!(tag, b'Z' | b'S' | b'C' | b'1' | b'2' | b'3' | b'A')
}

fn parameter(body: &[u8]) -> Option<(&str, &str)> {
    let (name, rest) = frame::split_cstr(body)?;
    let (value, []) = frame::split_cstr(rest)? else { return None };
    Some((std::str::from_utf8(name).ok()?, std::str::from_utf8(value).ok()?))
}

#[cfg(test)]
mod tests;
