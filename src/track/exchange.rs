//! One session's conversation with one server: what was asked, what is still to come.
//!
//! Owns what both directions share. `upstream` and `downstream` move it; this file creates it, asks it and prepares a
//! server for the next client. What outlives a conversation is `state`'s.

use std::collections::VecDeque;
use std::rc::Rc;

use super::expect::{Expect, Expectations, OwnAnswer};
use super::forbid::PinsLeft;
use super::heal::Retry;
use super::lexer::{ChannelStep, Names};
use super::notes::Note;
use super::rows::{Bound, Learning};
use super::settle::Asked;
use super::state::{ClientState, ServerState, TxStatus};
use super::unread::Unread;
use crate::wire::frame;

/// A conversation. Made once and used again for every lease.
#[derive(Debug, Default)]
pub struct Exchange {
    pub(super) expect: Expectations,
    /// What the expected messages changed when they were sent, in order.
    pub(super) notes: VecDeque<Note>,
    /// How many of the newest belong to the segment that is being sent.
    pub(super) notes_here: usize,
    /// What the notes keep.
    noted_bytes: usize,
    /// Bytes of a client message that have not come yet; its beginning has been forwarded.
    pub(super) client_rest: usize,
    /// They are thrown away.
    pub(super) drops_rest: bool,
    /// This segment may make the server forget any statement, in a way that cannot be foretold.
    pub(super) forgets_here: bool,
    /// An earlier one may, and is not answered.
    pub(super) forgets_earlier: bool,
    /// How many more clients of the tenant may keep their servers; `None`: any number.
    pub pins_left: Option<PinsLeft>,
    /// Why a message was refused that nobody has asked about yet.
    pub(super) refused: Option<&'static str>,
    /// Bytes of a server message that have not come yet; its beginning has been forwarded.
    pub(super) server_rest: usize,
    /// What the message is whose rest has not come, if it is looked through as it comes.
    pub(super) unread: Option<Box<Unread>>,
    /// An extended-protocol message was sent behind the last Sync.
    pub(super) unsynced: bool,
    /// A Flush of ours was sent behind the last of them.
    pub(super) flushed: bool,
    /// Number of the segment: what is sent up to the next Sync shares its fate in case of an error.
    pub(super) segment: u64,
    /// This segment prepares the unnamed statement.
    pub(super) unnamed_here: bool,
    /// An error was answered: the server ignores everything up to the next Sync.
    pub(super) ignoring: bool,
    /// The server reads COPY data.
    pub(super) copy_in: bool,
    /// A Sync was sent that the server ignores while it reads COPY data. If the COPY fails, it may not have read it yet.
    pub(super) copy_syncs: bool,
    /// The newest thing the server said was an error: if it goes now, it has said why.
    pub(super) last_was_error: bool,
    /// Settings that this segment sends back to their defaults.
    pub(super) reset_here: Names,
    /// The request that is being answered has failed.
    pub(super) request_failed: bool,
    /// A failed request was followed by a query of ours that gave the client its startup settings: those it had are due.
    pub(super) repair_due: bool,
    /// The request that may be made once more.
    pub(super) retry: Retry,
    /// What our questions are about.
    pub(super) asked: VecDeque<Asked>,
    /// How many questions in a row were cancelled.
    pub(super) asked_in_vain: u8,
    /// What the descriptions that are to be remembered are of, in order.
    pub(super) learning: VecDeque<Learning>,
    /// The unnamed portal has been bound, behind the last simple query.
    pub(super) has_portal: bool,
    /// What the newest Bind of this segment has bound, if it was a named statement.
    pub(super) bound: Option<Bound>,
    /// Requests of the client that have been answered.
    pub(super) requests_answered: usize,
    /// LISTENs and UNLISTENs that are not committed, each with the number of its request.
    pub(super) channel_steps: Vec<(usize, ChannelStep)>,
    /// The numbers of requests that may notify.
    pub(super) notifying: Vec<usize>,
    /// Bytes of prepared statements that were read once more since the client was read.
    pub(super) looked_at: usize,
    /// A query of our own failed: the error's body.
    pub(super) own_error: Option<Box<[u8]>>,
    /// Why a statement could not be prepared that the next simple query names.
    pub(super) not_prepared: Option<Box<[u8]>>,
    /// The name that the next simple query gives by PREPARE, if it came by Parse before.
    pub(super) taken: Option<Box<[u8]>>,
}

impl Exchange {
    /// Whether the server has answered everything, to the end of the transaction, and no message is half sent.
    #[must_use]
    pub fn is_over(&self, server: &ServerState) -> bool {
        self.is_quiet() && server.status == TxStatus::Idle
    }

    /// Whether the server owes nothing, though it may be inside a transaction.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.is_answered() && !self.repair_due
    }

    /// The same, but something of the proxy's own may be due.
    pub(super) fn is_answered(&self) -> bool {
        self.expect.is_empty()
            && !self.unsynced
            && !self.ignoring
            && !self.copy_in
            && self.client_rest == 0
            && self.server_rest == 0
            && !self.retry.is_due()
    }

    /// Whether the server owes answers to the proxy's own questions, and none to the client.
    #[must_use]
    pub fn owes_only_itself(&self) -> bool {
        let is_between = !self.unsynced && !self.ignoring && !self.copy_in && self.client_rest == 0;
        is_between && !self.expect.is_empty() && self.expect.has_only_own()
    }

    /// Answers still to come.
    #[must_use]
    pub fn outstanding(&self) -> usize {
        self.expect.len()
    }

    /// Whether the client is not to be read until more answers have come. In the middle of a message it is: the server
    /// waits for the rest.
    #[must_use]
    pub fn is_full(&self) -> bool {
        let is_long = self.expect.len() >= MAX_OUTSTANDING || self.noted_bytes >= MAX_NOTED_BYTES;
        is_long && self.client_rest == 0 || self.retry.is_due() && !self.expect.is_empty()
    }

    /// Whether a client that says nothing more has all it can get, or nobody can tell what is still to come.
    #[must_use]
    pub fn is_exhausted(&self, server: &ServerState) -> bool {
        self.expect.is_empty() || self.copy_in || server.suspect
    }

    /// Whether a server message has been forwarded in part: an error of ours cannot be put behind it.
    #[must_use]
    pub const fn server_is_mid_message(&self) -> bool {
        self.server_rest > 0
    }

    /// A lease begins: appends to `out` what makes the server this client's (nothing, for the usual case).
    /// Returns whether the server has to be reset for it.
    pub fn begin(&mut self, client: &ClientState, server: &mut ServerState, out: &mut Vec<u8>) -> bool {
        debug_assert!(self.is_quiet(), "a conversation begins with nothing outstanding");
        let same_client = server.last_client == Some(client.id);
        if server.takes_new_functions() {
            client.functions.forget();
        }
        client.functions.hear();
        // What was not asked for when the last lease ended is not known.
        let reset = server.is_in_doubt() && !same_client;
        if reset {
            self.reset(server, out);
        } else if server.last_client.is_some() && (!same_client || server.drawn != client.draws) {
            // Another client's, or its own from before it drew on another server.
            server.sequences_mixed = true;
            // Functions may ask, as long as they are not known.
            if client.functions.reads_sequences.get() || client.functions.are_unknown() {
                self.discard_sequences(server, out);
            }
        }
        server.last_client = Some(client.id);
        server.drawn = client.draws;
        (server.has_drawn, server.may_ask, server.has_asked) = (false, false, false);
        (server.reads_otherwise, server.reencodes) = (false, false);
        server.read_behind = None;
        server.blind = client.functions.are_unknown();
        if reset || !server.settings.serves(&client.settings) {
            // After a reset the server reports what it has gone back to; what differs is not known before. So all
            // settings of the client are written, not the difference.
            for sql in server.settings.queries(&client.settings, reset) {
                self.own_query(sql.as_bytes(), out);
                // A simple query destroys the unnamed statement.
                server.unnamed_of = None;
            }
            server.settings.extras = client.settings.extras.clone();
        }
        server.makes_temp = client.settings.make_temp();
        reset
    }

    /// Appends a reset of everything a session can leave behind (PostgreSQL manual, DISCARD ALL).
    pub fn reset(&mut self, server: &mut ServerState, out: &mut Vec<u8>) {
        self.own_query(b"DISCARD ALL", out);
        server.statements.clear();
        server.left_behind = None;
        (server.pinned, server.kept_otherwise) = (false, false);
        server.listened.clear();
        server.sequences_mixed = false;
        server.touched = Names::None;
        server.may_have = Vec::new();
        server.doubted = false;
        (server.blind, server.asked_of_itself) = (false, false);
        server.asking = false;
        server.forget_held();
        server.unnamed_of = None;
        server.settings.extras = Rc::default();
    }

    /// Makes the server forget what its sequences gave last.
    pub(super) fn discard_sequences(&mut self, server: &mut ServerState, out: &mut Vec<u8>) {
        self.own_query(b"DISCARD SEQUENCES", out);
        server.sequences_mixed = false;
        server.unnamed_of = None;
    }

    /// Where the request ends that these bytes of the client's go on with, or begin; behind all of them, if it does not.
    #[must_use]
    pub fn request_end(&self, input: &[u8]) -> usize {
        let mut at = self.client_rest;
        if at > 0 {
            return at.min(input.len());
        }
        while let Some(Ok(Some(header))) = input.get(at..).map(frame::peek) {
            at = at.saturating_add(header.total_len());
            if matches!(header.tag, b'Q' | b'F' | b'S') {
                break;
            }
        }
        if at == 0 { input.len() } else { at.min(input.len()) }
    }

    /// Whether what the client says next begins another request, and the one before has not been answered.
    #[must_use]
    pub fn is_between_requests(&self) -> bool {
        self.outstanding() > 0 && !self.unsynced && !self.copy_in && self.client_rest == 0
    }

    /// Appends a simple query of the proxy's own; its answer does not reach the client.
    pub fn own_query(&mut self, sql: &[u8], out: &mut Vec<u8>) {
        frame::put(out, b'Q', |body| {
            body.extend_from_slice(sql);
            body.push(0);
        });
        self.expect.push(Expect::Own);
    }

    /// The lease is over or the server is gone: forgets the conversation, gives back what it grew to.
    pub fn clear(&mut self) {
        self.expect.clear();
        self.expect.shrink();
        self.notes = VecDeque::new();
        self.noted_bytes = 0;
        self.notes_here = 0;
        self.client_rest = 0;
        self.drops_rest = false;
        self.unread = None;
        self.refused = None;
        (self.forgets_here, self.forgets_earlier) = (false, false);
        self.pins_left = None;
        self.server_rest = 0;
        (self.unsynced, self.flushed) = (false, false);
        self.ignoring = false;
        self.copy_in = false;
        self.copy_syncs = false;
        self.unnamed_here = false;
        self.own_error = None;
        self.not_prepared = None;
        self.taken = None;
        self.last_was_error = false;
        self.reset_here = Names::None;
        self.request_failed = false;
        self.repair_due = false;
        self.asked = VecDeque::new();
        self.asked_in_vain = 0;
        self.has_portal = false;
        self.learning = VecDeque::new();
        self.bound = None;
        self.retry.clear();
        self.requests_answered = 0;
        self.channel_steps = Vec::new();
        self.notifying = Vec::new();
    }

    /// Whether the server's last words were an error.
    #[must_use]
    pub const fn ended_in_error(&self) -> bool {
        self.last_was_error
    }

    /// Appends the answers of ours that are due.
    pub(super) fn put_due_answers(&mut self, out: &mut Vec<u8>) {
        while let Some(due) = self.expect.head().and_then(Expect::own_answer) {
            match due {
                OwnAnswer::Nothing => {}
                OwnAnswer::Message(tag) => {
                    frame::put(out, tag, |_| ());
                    self.retry.heard(tag);
                }
            }
            self.pop();
        }
    }

    pub(super) fn answer_is_due(&self) -> bool {
        self.expect.head().and_then(Expect::own_answer).is_some()
    }

    /// The head has been answered: what it changed stays.
    pub(super) fn pop(&mut self) -> Option<Expect> {
        let head = self.expect.pop()?;
        if head.has_note() {
            self.take_note();
        }
        Some(head)
    }

    /// Takes note of a change that the newest expected message makes.
    pub(super) fn note(&mut self, note: Note) {
        self.noted_bytes = self.noted_bytes.saturating_add(note.bytes());
        self.notes.push_back(note);
        self.notes_here = self.notes_here.saturating_add(1);
    }

    /// Whether a change of that name was sent in an earlier segment and is not answered: it may have been refused or
    /// skipped, so nobody knows what the name means now. (In the same segment it shares the fate of what depends on it.)
    ///
    /// Never where the answer may not come before the client says more: the server reads COPY data, or is suspect.
    pub(super) fn is_undecided(&self, name: &[u8], server: &ServerState) -> bool {
        let earlier = self.notes.len().saturating_sub(self.notes_here);
        let is_changed = || self.notes.iter().take(earlier).any(|note| note.changes(name));
        !self.copy_in && !server.suspect && (self.forgets_earlier || is_changed())
    }

    /// The oldest note.
    pub(super) fn take_note(&mut self) -> Option<Note> {
        let note = self.notes.pop_front()?;
        self.notes_here = self.notes_here.min(self.notes.len());
        self.noted_bytes = self.noted_bytes.saturating_sub(note.bytes());
        Some(note)
    }
}

/// Answers a client may leave outstanding before it is not read any more.
pub(super) const MAX_OUTSTANDING: usize = 16 * 1024;
/// What may be kept of names in messages that are not answered before the client is not read any more.
pub(super) const MAX_NOTED_BYTES: usize = 1024 * 1024;
