//! From the server to the client: which answers have come, and which of them are the client's.
//!
//! Owns the pass over a server's bytes. Answers to messages of the proxy's own are swallowed, answers that the proxy
//! gives itself are put in their place, ParameterStatus is noted for both sides.

use std::rc::Rc;

use super::exchange::{ClientState, Exchange, ServerState, TxStatus};
use super::expect::Expect;
use super::sink::Sink;
use crate::wire::frame::{self, HEADER_BYTES, Header};

/// How far a server's bytes were understood.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Turn {
    /// Bytes of the input that are done with; the rest is the beginning of a message.
    pub consumed: usize,
    /// ReadyForQuery messages for the client.
    pub queries: u32,
    /// Of those, how many ended a transaction.
    pub transactions: u32,
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
        while let Some(message) = input.get(turn.consumed..) {
            let Some(header) = frame::peek(message).map_err(|bad| ServerFault::Protocol(bad.tag))? else {
                break;
            };
            let own = self.expect.head() == Some(Expect::Own);
            let body = message.get(HEADER_BYTES..header.total_len());
            if body.is_none() && (own || is_inspected(header.tag)) {
                if header.body_len > MAX_INSPECTED_BYTES {
                    return Err(ServerFault::Protocol(header.tag));
                }
                break;
            }
            let here = header.total_len().min(message.len());
            if own {
                self.own_answer(header, body.unwrap_or_default(), client, server)?;
                sink.drop_input(here);
            } else if self.answer(header, body.unwrap_or_default(), (client, server), &mut turn)? {
                sink.keep(here);
                self.server_rest = header.total_len().saturating_sub(here);
            } else {
                sink.drop_input(here);
                // What is swallowed whole outside our own queries has no body.
                debug_assert!(header.total_len() == here, "a swallowed answer is whole");
            }
            turn.consumed = turn.consumed.saturating_add(here);
            if self.answer_is_due() {
                self.put_due_answers(sink.insert());
            }
        }
        Ok(turn)
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
            b'D' | b'd' | b'c' | b'N' | b'A' | b't' | b'V' | b'H' => {}
            b'1' => return self.parse_complete(server),
            b'2' => self.pop_one(Expect::Bind, header.tag)?,
            b'3' => match self.expect.pop() {
                Some(Expect::Close) => {}
                Some(Expect::OwnClose) => return Ok(false),
                _ => return Err(ServerFault::Protocol(header.tag)),
            },
            b'T' | b'n' if self.expect.head() == Some(Expect::Describe) => {
                self.expect.pop();
            }
            b'T' if self.expect.head() == Some(Expect::Query) => {}
            b'C' | b'I' | b's' => self.command_complete(body, client, server)?,
            b'E' => self.error(client, server),
            b'G' => {
                self.copy_in = true;
                self.expect.drop_syncs_behind_head();
            }
            b'S' => {
                let (name, value) = parameter(body).ok_or(ServerFault::Protocol(header.tag))?;
                Rc::make_mut(&mut server.settings.params).set(name, value);
                server.settings_changed = true;
                client.settings.params = server.settings.params.clone();
            }
            b'Z' => self.ready(body, server, turn)?,
            tag => return Err(ServerFault::Protocol(tag)),
        }
        Ok(true)
    }

    fn pop_one(&mut self, expected: Expect, tag: u8) -> Result<(), ServerFault> {
        if self.expect.pop() == Some(expected) { Ok(()) } else { Err(ServerFault::Protocol(tag)) }
    }

    fn parse_complete(&mut self, server: &ServerState) -> Result<bool, ServerFault> {
        match self.expect.pop() {
            Some(Expect::Parse) => Ok(true),
            Some(Expect::NamedParse) => {
                self.parses.pop_front();
                Ok(true)
            }
            Some(Expect::OwnParse { id }) => {
                debug_assert!(
                    id == 0 || !server.statements.is_empty(),
                    "what was prepared here is known here"
                );
                Ok(false)
            }
            _ => Err(ServerFault::Protocol(b'1')),
        }
    }

    fn command_complete(
        &mut self,
        tag: &[u8],
        client: &mut ClientState,
        server: &mut ServerState,
    ) -> Result<(), ServerFault> {
        match self.expect.head() {
            Some(Expect::Execute) => {
                self.expect.pop();
            }
            Some(Expect::Query) => {}
            _ => return Err(ServerFault::Protocol(b'C')),
        }
        match tag {
            b"DEALLOCATE ALL\0" => {
                server.statements.clear();
                client.statements = None;
            }
            b"DISCARD ALL\0" => {
                server.statements.clear();
                server.left_behind = None;
                server.unnamed_of = None;
                client.statements = None;
                client.unnamed = None;
                // RESET ALL went back to the server's own login, so the client's startup settings are gone as well.
                server.settings.extras = Rc::default();
                client.settings.extras = Rc::default();
            }
            _ => {}
        }
        Ok(())
    }

    /// An ErrorResponse outside our own queries.
    fn error(&mut self, client: &mut ClientState, server: &mut ServerState) {
        self.copy_in = false;
        self.last_was_error = true;
        match self.expect.head() {
            // In a simple query ReadyForQuery follows. At a Sync the commit has failed; ReadyForQuery follows too.
            // With nothing outstanding it is a FATAL one: the end of the connection follows.
            None | Some(Expect::Query | Expect::Sync) => return,
            Some(_) => {}
        }
        let parses = &mut self.parses;
        let synced = self.expect.skip_to_sync(|skipped| match skipped {
            Expect::NamedParse => {
                if let Some((id, name)) = parses.pop_front() {
                    server.statements.remove(id);
                    client.forget_statement(&name);
                }
            }
            Expect::OwnParse { id: 0 } | Expect::Parse => server.unnamed_of = None,
            Expect::OwnParse { id } => server.statements.remove(id),
            // A statement that was to be closed for room is still there: one more than the limit, harmless.
            _ => {}
        });
        self.ignoring = !synced;
    }

    fn ready(&mut self, body: &[u8], server: &mut ServerState, turn: &mut Turn) -> Result<(), ServerFault> {
        let status = body.first().and_then(|byte| TxStatus::from_byte(*byte)).filter(|_| body.len() == 1);
        self.last_was_error = false;
        server.status = status.ok_or(ServerFault::Protocol(b'Z'))?;
        match self.expect.head() {
            Some(Expect::Query | Expect::Sync) => {
                self.expect.pop();
            }
            _ => {
                // A Sync we took for one inside COPY was answered after all (an error came in between). The client's
                // view is right, ours is not: go on, but do not hand this server to anybody else.
                server.suspect = true;
                if self.expect.skip_to_sync(|_| ()) {
                    self.expect.pop();
                }
                self.ignoring = false;
            }
        }
        turn.queries = turn.queries.saturating_add(1);
        if server.status == TxStatus::Idle {
            turn.transactions = turn.transactions.saturating_add(1);
        }
        Ok(())
    }

    /// A message of the answer to a query of the proxy's own.
    fn own_answer(
        &mut self,
        header: Header,
        body: &[u8],
        client: &mut ClientState,
        server: &mut ServerState,
    ) -> Result<(), ServerFault> {
        match header.tag {
            b'S' => {
                let (name, value) = parameter(body).ok_or(ServerFault::Protocol(header.tag))?;
                Rc::make_mut(&mut server.settings.params).set(name, value);
                server.settings_changed = true;
            }
            b'E' => self.own_error = Some(body.into()),
            b'Z' => {
                server.status =
                    body.first().and_then(|b| TxStatus::from_byte(*b)).unwrap_or(TxStatus::Failed);
                self.expect.pop();
                if let Some(error) = self.own_error.take() {
                    return Err(ServerFault::OwnQueryFailed(error));
                }
                // The server may write a value in another way than the client asked for it.
                if self.expect.head() != Some(Expect::Own) {
                    client.settings.params = server.settings.params.clone();
                }
            }
            b'T' | b'D' | b'C' | b'N' | b'A' | b'I' => {}
            tag => return Err(ServerFault::Protocol(tag)),
        }
        Ok(())
    }
}

const fn is_inspected(tag: u8) -> bool {
    matches!(tag, b'Z' | b'S' | b'C' | b'1' | b'2' | b'3')
}

fn parameter(body: &[u8]) -> Option<(&str, &str)> {
    let (name, rest) = frame::split_cstr(body)?;
    let (value, []) = frame::split_cstr(rest)? else { return None };
    Some((std::str::from_utf8(name).ok()?, std::str::from_utf8(value).ok()?))
}
