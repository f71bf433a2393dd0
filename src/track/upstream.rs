//! From the client to the server: which answers each message will bring.
//!
//! Owns the pass over a client's bytes. Headers are looked at, bodies only where a name or a statement's text
//! matters (`renaming`); what does not differ is not copied (`Sink`).
//!
//! | message | answer expected | what may differ |
//! |---|---|---|
//! | Query | ReadyForQuery | EXECUTE, PREPARE and DEALLOCATE of a statement that came by Parse (`by_sql`) |
//! | Parse | ParseComplete | named: prepared under our name, or answered by us if the server has it |
//! | Bind, Describe S | BindComplete, RowDescription | our name; preceded by a Parse of ours if the server lacks it |
//! | Close S | CloseComplete | answered by us: the text stays prepared for others |
//! | Execute, Describe P | as the manual says | of an unnamed portal that was never bound: a Close before it |
//! | Close P, FunctionCall, Sync | as the manual says | nothing |
//! | Flush, CopyData, CopyDone, CopyFail | none | nothing |

use std::rc::Rc;

use super::exchange::Exchange;
use super::expect::Expect;
use super::functions::Says;
use super::lexer::{self, Effect, Names, Skim, StateKind, Traces, classify};
use super::reading::Read;
use super::reading::put_run;
use super::sink::Sink;
use super::state::{ClientState, ServerState, TxStatus};
use super::statement::StatementCache;
use super::unread::Unread;
use super::violation::{
    MAX_ASSEMBLED_BYTES, MAX_INSPECTED_BYTES, MAX_LOOKED_AT_BYTES, Violation, checked_header, whole_body,
};
use crate::error::ClientError;
use crate::wire::frame::{self, HEADER_BYTES, Header};

/// How far a client's bytes were understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fed {
    /// Bytes of the input that are done with; the rest is the beginning of a message, or more (`paused`).
    pub consumed: usize,
    /// The pass ended early, because it made so much of the input: it goes on when that has been written.
    pub paused: bool,
    /// The pass ended early, because what comes next depends on answers that are outstanding: it goes on behind them.
    pub held: bool,
    /// The client said Terminate.
    pub terminated: bool,
}

/// What the parties to one pass are.
pub(super) struct Parties<'a> {
    pub(super) client: &'a mut ClientState,
    pub(super) server: &'a mut ServerState,
    pub(super) cache: &'a mut StatementCache,
    /// The body behind the name of an unnamed Parse of this pass.
    pub(super) unnamed: Option<&'a [u8]>,
    /// It has been bound: unlikely to be needed again.
    pub(super) unnamed_is_bound: bool,
}

/// What was found in a text.
pub(super) struct Looked<'t> {
    /// The text.
    pub(super) read: Read<'t>,
    /// It is what applications usually say: nothing stays behind it.
    pub(super) is_plain: bool,
    pub(super) says: Says,
}

/// What to do with one message.
pub(super) enum Next {
    /// `len` bytes were dealt with, all of which are in the input.
    Done(usize),
    /// The message's beginning is not enough.
    Wait,
    /// What it means depends on an answer to an earlier request.
    Hold,
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
        let mut parties = Parties { client, server, cache, unnamed: None, unnamed_is_bound: false };
        let begins = self.begin_request(parties.server);
        self.looked_at = 0;
        let rest = self.client_rest.min(input.len());
        if self.drops_rest {
            sink.drop_input(rest);
            self.drops_rest = rest < self.client_rest;
        } else {
            sink.keep(rest);
        }
        self.client_rest = self.client_rest.saturating_sub(rest);
        self.pass_on(input.get(..rest).unwrap_or_default(), &mut parties);
        let mut fed = Fed { consumed: rest, paused: false, held: false, terminated: false };
        while let Some(message) = input.get(fed.consumed..).filter(|bytes| !bytes.is_empty()) {
            let Some(header) = checked_header(message)? else { break };
            if header.tag == b'X' {
                self.terminate(sink);
                fed.terminated = true;
                break;
            }
            match self.client_message(&mut parties, header, message, sink)? {
                Next::Done(len) => {
                    fed.consumed = fed.consumed.saturating_add(len);
                    if header.tag == b'S' && begins && fed.consumed == input.len() {
                        self.keep_request(input);
                    }
                }
                Next::Wait => break,
                Next::Hold => {
                    fed.held = true;
                    break;
                }
            }
            if sink.assembled() > MAX_ASSEMBLED_BYTES || self.looked_at > MAX_LOOKED_AT_BYTES {
                // Short messages may each make us read a long statement again, or prepare it.
                fed.paused = true;
                break;
            }
        }
        // Our questions will destroy the unnamed statement, so it may be needed again after all.
        let is_kept = !parties.unnamed_is_bound || parties.client.functions.binds_unnamed_again.get();
        if (is_kept || parties.server.is_unsettled())
            && let Some(body) = parties.unnamed
        {
            parties.client.unnamed = Some(Box::new(body.into()));
        }
        if (self.is_full() || fed.held) && self.unsynced && !self.ignoring && !self.flushed {
            // The Sync that would bring the answers is behind what is not read.
            frame::put(sink.insert(), b'H', |_| ());
            self.flushed = true;
        }
        // Not into the middle of a message: then behind it, by `server_bytes`.
        if self.server_rest == 0 {
            self.put_due_answers(to_client);
        }
        Ok(fed)
    }

    fn client_message<'a>(
        &mut self,
        parties: &mut Parties<'a>,
        header: Header,
        message: &'a [u8],
        sink: &mut Sink<'_>,
    ) -> Result<Next, Violation> {
        if self.ignoring && header.tag != b'S' {
            // The server throws it away, so it brings no answer and leaves nothing behind.
            return Ok(self.forward(header, message, sink));
        }
        if self.notifies_itself(parties.client) && !matches!(header.tag, b'd' | b'c' | b'f' | b'H') {
            return Ok(Next::Hold);
        }
        match header.tag {
            b'Q' => return self.query(parties, header, message, sink),
            b'P' => return self.parse(parties, header, message, sink),
            b'B' => return self.bind(parties, header, message, sink),
            b'D' => return self.describe(parties, header, message, sink),
            b'C' => return self.close(parties, header, message, sink),
            b'E' => {
                if header.body_len == 0 {
                    return Err(Violation::Malformed(b'E'));
                }
                let Some(first) = message.get(HEADER_BYTES) else { return Ok(Next::Wait) };
                self.close_stale_portal(*first == 0, sink);
                self.expect_extended(Expect::Execute);
            }
            b'F' => {
                // A function by its number: nobody can tell what it does.
                parties.leave_behind(&Traces::unknown());
                self.expect.push(Expect::Query);
                self.unsynced = false;
            }
            b'S' => return Ok(self.sync(parties, header, message, sink)),
            b'c' | b'f' => self.end_copy_data(),
            // Flush and CopyData bring no answer.
            _ => {}
        }
        Ok(self.forward(header, message, sink))
    }

    fn sync(
        &mut self,
        parties: &mut Parties<'_>,
        header: Header,
        message: &[u8],
        sink: &mut Sink<'_>,
    ) -> Next {
        if self.copy_in {
            self.copy_syncs = true;
            return self.forward(header, message, sink);
        }
        self.expect.push(Expect::Sync);
        self.unsynced = false;
        self.ignoring = false;
        self.segment = self.segment.saturating_add(1);
        self.unnamed_here = false;
        self.bound = None;
        self.notes_here = 0;
        self.forgets_earlier |= std::mem::take(&mut self.forgets_here);
        let reset = std::mem::take(&mut self.reset_here);
        let next = self.forward(header, message, sink);
        if !reset.is_none()
            && self.client_rest == 0
            && self.put_restore(&reset, parties.client, sink.insert())
        {
            // A simple query destroys the unnamed statement.
            parties.server.unnamed_of = None;
        }
        next
    }

    /// CopyDone or CopyFail.
    fn end_copy_data(&mut self) {
        if self.copy_in {
            self.copy_in = false;
        } else if !self.expect.is_empty() {
            // It may belong to a COPY that the server has not come to yet.
            self.expect.push(Expect::CopyEnd);
        }
    }

    /// The client is leaving and will not send a Sync. What it has asked for before is still answered.
    fn terminate(&self, sink: &mut Sink<'_>) {
        if self.unsynced && !self.ignoring {
            frame::put(sink.insert(), b'H', |_| ());
        }
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
            parties.leave_behind(&Traces::unknown());
            self.forgets_earlier = true;
            self.pass_unread(Unread::Query(Skim::default()), message);
            return Ok(self.forward_query(parties, Expect::Query, header, message, sink));
        };
        let Some((text, [])) = frame::split_cstr(body) else { return Err(Violation::Malformed(b'Q')) };
        let looked = match self.look_through(parties, text, false, sink) {
            Ok(looked) => looked,
            Err(None) => return Ok(Next::Hold),
            Err(Some(error)) => return Ok(self.refuse_query(parties, header, error, sink)),
        };
        self.note_channels(parties, text, sink);
        let effect = if looked.is_plain { Effect::Transient } else { looked.read.effect() };
        // Not one of which nobody knows where its words are.
        let is_rewritten = effect != Effect::Transient && looked.read.text().is_some();
        let rewritten = if is_rewritten { self.rewrite(parties, text, sink) } else { Ok(None) };
        let Ok(rewritten) = rewritten else { return Ok(Next::Hold) };
        let (text, effect) = match &rewritten {
            Some(rewritten) => (&*rewritten.rest, classify(&rewritten.rest)),
            None => (looked.read.text().unwrap_or(text), effect),
        };
        let mut reset = Names::None;
        let mut expect = Expect::Query;
        match effect {
            Effect::Transient | Effect::Deallocate(_) => {}
            Effect::SessionState(kind) => {
                let traces = Traces::of(text, kind);
                if let Some(error) = self.pin_refusal(parties, &traces) {
                    return Ok(self.refuse_query(parties, header, error, sink));
                }
                parties.leave_behind(&traces);
                self.forgets_earlier |= traces.may_forget();
                reset = traces.changes.reset;
            }
            Effect::DeallocateAll | Effect::DiscardAll if rewritten.is_some() => {
                // Not alone in its text.
                parties.leave_behind(&Traces::unknown());
                self.forgets_earlier = true;
            }
            Effect::DeallocateAll => expect = self.deallocate_all(parties, (None, false)),
            Effect::DiscardAll => {
                let left = (parties.server.left_behind.take(), std::mem::take(&mut parties.server.pinned));
                reset = Names::Any;
                expect = self.deallocate_all(parties, left);
            }
        }
        let next = match rewritten {
            Some(rewritten) => {
                sink.drop_input(header.total_len());
                frame::put(sink.insert(), b'Q', |out| {
                    out.extend_from_slice(&rewritten.text);
                    out.push(0);
                });
                if !rewritten.gone.is_empty() {
                    expect = self.deallocate(parties, rewritten.gone);
                }
                self.expect_query(parties, expect);
                Next::Done(header.total_len())
            }
            None => self.forward_query(parties, expect, header, message, sink),
        };
        // It ends the segment in front of it.
        reset.merge(&std::mem::take(&mut self.reset_here));
        if !reset.is_none() {
            self.put_restore(&reset, parties.client, sink.insert());
        }
        Ok(next)
    }

    fn forward_query(
        &mut self,
        parties: &mut Parties<'_>,
        expect: Expect,
        header: Header,
        message: &[u8],
        sink: &mut Sink<'_>,
    ) -> Next {
        self.expect_query(parties, expect);
        self.forward(header, message, sink)
    }

    /// What a text that is run as it comes may do. `Err`: it is refused for this reason, or held until what was asked before
    /// has been answered.
    pub(super) fn look_through<'t>(
        &mut self,
        parties: &mut Parties<'_>,
        text: &'t [u8],
        is_extended: bool,
        sink: &mut Sink<'_>,
    ) -> Result<Looked<'t>, Option<ClientError>> {
        let read = self.read(parties, text);
        let is_plain = read.is_plain();
        if !is_plain {
            if let Some(error) = Self::text_refusal(parties, &read, text) {
                return Err(Some(error));
            }
            if self.look_for_sequences(parties, text, is_extended, sink) {
                return Err(None);
            }
            parties.look_for_ends(text);
        }
        let says = parties.look_for_functions((&read, text), is_plain);
        Ok(Looked { read, is_plain, says })
    }

    /// A text as the server reads it. The settings that this needs are reported: they are known when everything is answered.
    pub(super) fn read<'t>(&self, parties: &Parties<'_>, text: &'t [u8]) -> Read<'t> {
        if parties.server.reencodes && !self.is_answered() {
            Read::in_doubt(text)
        } else {
            Read::under(&parties.client.settings, text)
        }
    }

    /// A text that asks what a sequence gave last must not be told what it gave another client. From the first such text of
    /// a tenant on a server forgets it when it changes hands; what was given before that is forgotten now. Returns whether
    /// that can only be said when what was asked before has been answered.
    pub(super) fn look_for_sequences(
        &mut self,
        parties: &mut Parties<'_>,
        text: &[u8],
        is_extended: bool,
        sink: &mut Sink<'_>,
    ) -> bool {
        let read = self.read(parties, text);
        let mut sequences = lexer::sequences(read.text().unwrap_or(text));
        sequences.may_ask |= read.text().is_none();
        if sequences.asks {
            parties.client.functions.reads_sequences.set(true);
            parties.server.is_asked_for_numbers();
        }
        if (sequences.asks || sequences.may_ask)
            && self.forget_sequences(parties, (is_extended, sequences.may_commit), sink)
        {
            return true;
        }
        if sequences.draws {
            parties.server.has_drawn = true;
            parties.server.is_drawn_by(parties.client);
            if parties.server.status == TxStatus::Idle {
                parties.server.has_given();
            }
        }
        false
    }

    /// Makes the server forget what its sequences gave other clients, if they did. Returns whether that has to wait.
    fn forget_sequences(
        &mut self,
        parties: &mut Parties<'_>,
        (is_extended, may_commit): (bool, bool),
        sink: &mut Sink<'_>,
    ) -> bool {
        // Nobody knows how a suspect one stands.
        let is_refused = parties.server.status == TxStatus::Failed
            || self.ignoring
            || self.copy_in
            || parties.server.suspect;
        if !parties.server.sequences_mixed || parties.server.has_drawn || is_refused {
            return false;
        }
        if self.expect.requests() > 0 {
            // In a transaction that has failed by then it must not be said.
            return true;
        }
        // Behind others in a segment a procedure could not commit. Else one is better: a simple query destroys the unnamed
        // statement.
        let in_segment = self.unsynced || is_extended && !may_commit;
        if in_segment {
            put_run("DISCARD SEQUENCES", &parties.server.statements, sink.insert());
            self.expect_run();
        } else {
            self.discard_sequences(parties.server, sink.insert());
        }
        parties.server.sequences_mixed = false;
        false
    }

    pub(super) fn expect_query(&mut self, parties: &mut Parties<'_>, expect: Expect) {
        self.expect.push(expect);
        self.unsynced = false;
        self.notes_here = 0;
        // A simple query destroys the unnamed statement.
        parties.change_unnamed(None, None);
        self.unnamed_here = false;
        self.bound = None;
        self.has_portal = false;
    }

    pub(super) fn expect_extended(&mut self, expect: Expect) {
        self.expect.push(expect);
        self.unsynced = true;
        self.flushed = false;
    }

    /// Lets as much of the message through as there is.
    pub(super) fn forward(&mut self, header: Header, message: &[u8], sink: &mut Sink<'_>) -> Next {
        let len = header.total_len().min(message.len());
        sink.keep(len);
        self.client_rest = header.total_len().saturating_sub(len);
        Next::Done(len)
    }
}

impl<'a> Parties<'a> {
    pub(super) fn leave_behind(&mut self, traces: &Traces) {
        self.server.touch(&traces.changes, self.client);
        self.server.may_set(&traces.custom);
        if traces.changes.touched == Names::Any {
            // Settings with a class are in no view: one whose name could not be read is never known.
            self.server.left_behind = self.server.left_behind.max(Some(StateKind::Unknown));
        }
        match traces.kind {
            // What comes of it is asked for.
            StateKind::Settings => return,
            StateKind::Deallocation => {
                self.server.doubted |= self.server.pinned;
                return;
            }
            StateKind::Listen
            | StateKind::TempObject
            | StateKind::Cursor
            | StateKind::AdvisoryLock
            | StateKind::PreparedStatement => self.server.pinned = true,
            StateKind::Unknown => self.server.may_make(&self.client.functions),
            StateKind::Indelible => {
                self.server.may_make(&self.client.functions);
                self.server.condemned = true;
            }
        }
        self.server.left_behind = self.server.left_behind.max(Some(traces.kind));
        self.server.doubted = true;
    }

    /// A text that may take away what keeps the client at its server, in a way that its command tag will not show.
    pub(super) fn look_for_ends(&mut self, text: &[u8]) {
        // What is being asked may be answered before it is taken away.
        let may_keep = self.server.pinned || self.server.is_asked();
        if may_keep && memchr::memmem::find(text, b"advisory_unlock").is_some() {
            self.server.doubted = true;
        }
    }

    /// Whether the client has an unnamed statement whose text nobody has any more.
    pub(super) const fn unnamed_is_gone(&self) -> bool {
        self.unnamed.is_none() && self.client.unnamed.is_none() && self.client.unnamed_version > 0
    }

    /// The client's unnamed statement becomes another one, or none. What is sent to do that keeps a server that has the
    /// client's unnamed statement in step.
    pub(super) fn change_unnamed(&mut self, body: Option<&'a [u8]>, leaves: Option<Rc<Traces>>) {
        let in_step = self.server.unnamed_of == Some(self.client.unnamed_now());
        self.client.unnamed_version = self.client.unnamed_version.wrapping_add(1);
        self.client.unnamed = None;
        self.client.unnamed_leaves = leaves;
        self.server.unnamed_of = in_step.then(|| self.client.unnamed_now());
        self.unnamed = body;
        self.unnamed_is_bound = false;
    }
}

#[cfg(test)]
mod tests;
