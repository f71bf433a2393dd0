//! A client and a server for the tests of one case, and messages to write it with.

use std::rc::Rc;

use super::exchange::Exchange;
use super::params::Settings;
use super::state::{ClientState, ServerState};
use super::statement::StatementCache;
use super::upstream::Fed;
use super::violation::Violation;
use super::{ServerFault, Sink};
use crate::ids::ClientId;
use crate::wire::frame;

/// A conversation and all that it needs.
pub(super) struct Talk {
    pub(super) exchange: Exchange,
    pub(super) client: ClientState,
    pub(super) server: ServerState,
    pub(super) cache: StatementCache,
    /// What the client has got since it was last asked for.
    pub(super) heard: Vec<u8>,
    carry: Vec<u8>,
    server_carry: Vec<u8>,
}

impl Talk {
    /// A new client on a new server that keeps this many statements.
    pub(super) fn new(statements_max: usize) -> Self {
        Self {
            exchange: Exchange::default(),
            client: ClientState::new(ClientId(1), Settings::default(), 4),
            server: ServerState::new(Settings::default(), statements_max),
            cache: StatementCache::default(),
            heard: Vec::new(),
            carry: Vec::new(),
            server_carry: Vec::new(),
        }
    }

    /// The client says something. Returns what goes to the server.
    pub(super) fn say(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.try_say(bytes).unwrap().0
    }

    pub(super) fn try_say(&mut self, bytes: &[u8]) -> Result<(Vec<u8>, Fed), Violation> {
        let mut input = std::mem::take(&mut self.carry);
        input.extend_from_slice(bytes);
        let mut out = Vec::new();
        let mut sink = Sink::new(&input, &mut out);
        let parties = (&mut self.client, &mut self.server, &mut self.cache);
        let fed = self.exchange.client_bytes(parties, &input, &mut sink, &mut self.heard)?;
        let sent = sink.finish().to_vec();
        self.carry = input.split_off(fed.consumed);
        Ok((sent, fed))
    }

    /// The server answers. Returns everything that the client has got since it was last asked for.
    pub(super) fn answer(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.try_answer(bytes).unwrap()
    }

    pub(super) fn try_answer(&mut self, bytes: &[u8]) -> Result<Vec<u8>, ServerFault> {
        let mut input = std::mem::take(&mut self.server_carry);
        input.extend_from_slice(bytes);
        let mut out = Vec::new();
        let mut sink = Sink::new(&input, &mut out);
        let turn = self.exchange.server_bytes(&mut self.client, &mut self.server, &input, &mut sink)?;
        self.heard.extend_from_slice(sink.finish());
        self.server_carry = input.split_off(turn.consumed);
        Ok(std::mem::take(&mut self.heard))
    }

    pub(super) fn is_over(&self) -> bool {
        self.exchange.is_over(&self.server)
    }

    /// The lease has ended; another client has the server. Returns what it is begun with.
    pub(super) fn next_client(&mut self, client: ClientId) -> Vec<u8> {
        assert!(self.is_over(), "a lease ends when nothing is outstanding");
        self.client = ClientState::new(client, Settings::default(), 4);
        self.begin()
    }

    /// The client goes on with another server. Returns the one it had.
    pub(super) fn next_server(&mut self, server: ServerState) -> ServerState {
        assert!(self.is_over(), "a lease ends when nothing is outstanding");
        let former = std::mem::replace(&mut self.server, server);
        assert_eq!(self.begin(), b"");
        former
    }

    fn begin(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        self.exchange.clear();
        self.exchange.begin(&self.client, &mut self.server, &mut out);
        out
    }
}

/// A server without any state.
pub(super) fn fresh_server() -> ServerState {
    ServerState::new(Settings { params: Rc::default(), extras: Rc::default() }, 9)
}

/// Messages: a tag and a body each.
pub(super) fn messages(parts: &[(u8, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (tag, body) in parts {
        frame::put(&mut out, *tag, |out| out.extend_from_slice(body));
    }
    out
}

pub(super) const SYNC: (u8, &[u8]) = (b'S', b"");
pub(super) const EXECUTE: (u8, &[u8]) = (b'E', b"\0\0\0\0\0");
pub(super) const READY: (u8, &[u8]) = (b'Z', b"I");
pub(super) const PARSED: (u8, &[u8]) = (b'1', b"");
pub(super) const BOUND: (u8, &[u8]) = (b'2', b"");
pub(super) const CLOSED: (u8, &[u8]) = (b'3', b"");
pub(super) const DONE: (u8, &[u8]) = (b'C', b"SELECT 1\0");
pub(super) const FAILED: (u8, &[u8]) = (b'E', b"SERROR\0C22012\0\0");
