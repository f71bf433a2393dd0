//! Prepared statements on their way to the server: the names they get there, and those the server lacks.
//!
//! Owns Parse, Bind, Describe and Close. A named statement has the server's own name for its text; the unnamed one is
//! prepared again where the server has somebody else's.

use std::rc::Rc;

use super::exchange::Exchange;
use super::expect::Expect;
use super::functions::Says;
use super::lexer::{Names, Skim, Traces};
use super::naming::Name;
use super::notes::Note;
use super::prepared::Place;
use super::reading::{RUN_ANSWERS, Reading, reading};
use super::rows::{self, Bound};
use super::sink::Sink;
use super::state::{ClientState, ServerState, TxStatus};
use super::statement::{Named, Statement, put_parse_unnamed, traces};
use super::unread::Unread;
use super::upstream::{Next, Parties};
use super::violation::{MAX_INSPECTED_BYTES, MAX_NAME_BYTES, MAX_NAMED_PARSE_BYTES, Violation, whole_body};
use crate::wire::frame::{self, HEADER_BYTES, Header};

impl Exchange {
    pub(super) fn parse<'a>(
        &mut self,
        parties: &mut Parties<'a>,
        header: Header,
        message: &'a [u8],
        sink: &mut Sink<'_>,
    ) -> Result<Next, Violation> {
        let body = whole_body(header, message);
        if header.body_len == 0 {
            return Err(Violation::Malformed(b'P'));
        }
        let Some(first) = message.get(HEADER_BYTES) else { return Ok(Next::Wait) };
        if *first == 0 {
            return self.parse_unnamed(parties, header, body, message, sink);
        }
        if header.body_len > MAX_NAMED_PARSE_BYTES {
            let refusal = Violation::StatementTooLong(header.body_len).to_refusal();
            return Ok(self.refuse_extended(header, message, refusal, sink));
        }
        let Some(body) = body else { return Ok(Next::Wait) };
        let Some((name, body)) = frame::split_cstr(body) else { return Err(Violation::Malformed(b'P')) };
        let max = usize::try_from(parties.client.max_statements).unwrap_or(usize::MAX);
        let beyond = if parties.client.statements.len() >= max {
            Some(Violation::TooManyStatements(max))
        } else if name.len() > MAX_NAME_BYTES {
            Some(Violation::NameTooLong(name.len()))
        } else if !parties.cache.has_room_for(body) {
            Some(Violation::StatementsTooLong)
        } else {
            None
        };
        if let Some(violation) = beyond {
            return Ok(self.refuse_extended(header, message, violation.to_refusal(), sink));
        }
        // What was asked before this segment is answered whatever becomes of it.
        let is_awaited = parties.server.asking || self.expect.requests() > 0;
        let may_never_come = self.copy_in || parties.server.suspect;
        let is_unread = parties.server.reads_otherwise && is_awaited && !may_never_come;
        if is_unread || self.is_undecided(name, parties.server) {
            return Ok(Next::Hold);
        }
        if let Some((text, _)) = frame::split_cstr(body) {
            if let Some(error) = Self::text_refusal(parties, &self.read(parties, text), text) {
                return Ok(self.refuse_extended(header, message, error, sink));
            }
            if self.look_for_sequences(parties, text, true, sink) {
                return Ok(Next::Hold);
            }
            self.prepare_channels(parties, (name, text), sink);
        }
        sink.drop_input(header.total_len());
        let statement = parties.statement(body);
        self.parse_named(parties, name, statement, sink.insert());
        Ok(Next::Done(header.total_len()))
    }

    fn parse_named(
        &mut self,
        parties: &mut Parties<'_>,
        name: &[u8],
        statement: Rc<Statement>,
        out: &mut Vec<u8>,
    ) {
        if parties.client.statements.find(name).is_some() {
            // The name is taken: let the server say so, by preparing under a name that it has given.
            let taken = parties.statement(NOTHING);
            let Place { serial, .. } = self.prepare_here(parties, &taken, out);
            self.note(Note::Taken { name: name.into(), statement: taken });
            parties.server.statements.put_parse(out, serial, &statement.body);
            self.expect_extended(Expect::ParseAgain);
            return;
        }
        // In a failed transaction Postgres refuses to prepare, so it is asked where that is possible.
        let may_be_refused = parties.server.status == TxStatus::Failed || self.expect.requests() > 0;
        let segment = self.this_segment();
        if !may_be_refused && parties.server.statements.touch(statement.id, segment).is_some() {
            self.expect_extended(Expect::SynthParse);
        } else {
            let serial = self.send_parse(parties.server, statement.id, &statement.body, out);
            self.expect_extended(Expect::NamedParse { id: statement.id, serial });
        }
        self.rename(parties.client, name, Some(Named::new(statement)));
    }

    fn parse_unnamed<'a>(
        &mut self,
        parties: &mut Parties<'a>,
        header: Header,
        body: Option<&'a [u8]>,
        message: &[u8],
        sink: &mut Sink<'_>,
    ) -> Result<Next, Violation> {
        let body = body.and_then(|body| body.get(1..));
        let mut says = Says::anything();
        let left = match body {
            Some(body) => {
                let text = frame::split_cstr(body).ok_or(Violation::Malformed(b'P'))?.0;
                let looked = match self.look_through(parties, text, true, sink) {
                    Ok(looked) => looked,
                    Err(None) => return Ok(Next::Hold),
                    Err(Some(error)) => return Ok(self.refuse_extended(header, message, error, sink)),
                };
                says = looked.says;
                self.prepare_channels(parties, (b"", text), sink);
                if looked.is_plain { None } else { traces(&looked.read, text) }
            }
            None if header.body_len <= MAX_INSPECTED_BYTES => return Ok(Next::Wait),
            None => {
                self.pass_unread(Unread::Parse(Skim::default()), message);
                Some(Rc::new(Traces::unknown()))
            }
        };
        parties.change_unnamed(body, left);
        parties.client.unnamed_says = says;
        self.unnamed_here = true;
        self.expect_extended(Expect::Parse { version: parties.client.unnamed_version });
        Ok(self.forward(header, message, sink))
    }

    pub(super) fn bind(
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
        if self.is_held(parties, name) {
            return Ok(Next::Hold);
        }
        if name.is_empty() {
            self.read_unnamed_again(parties);
        }
        let traces = if name.is_empty() && !self.unnamed_here && self.expect.has_unnamed_change() {
            // If the Parse or the Close before the last Sync is skipped, this binds the one before it.
            Some(Rc::new(Traces::unknown()))
        } else if name.is_empty() {
            parties.client.unnamed_leaves.clone()
        } else {
            parties.client.statements.find(name).and_then(|named| named.statement.leaves.clone())
        };
        if let Some(error) = traces.as_deref().and_then(|traces| self.pin_refusal(parties, traces)) {
            return Ok(self.refuse_extended(header, message, error, sink));
        }
        let gone = traces.as_deref().and_then(|traces| traces.deallocates.as_deref());
        if gone.is_some_and(|gone| self.is_undecided(gone, parties.server)) {
            return Ok(Next::Hold);
        }
        let names_len = portal.len().saturating_add(name.len()).saturating_add(2);
        let (values, is_whole) =
            (available.get(names_len..).unwrap_or_default(), available.len() == header.body_len);
        parties.look_for_path(values, is_whole);
        if traces.as_deref().is_some_and(|traces| traces.changes.touched == Names::Any) {
            self.look_for_names(parties, values, is_whole);
        }
        self.bound = None;
        self.has_portal |= portal.is_empty();
        if let Some(gone) = gone
            && parties.client.statements.find(gone).is_some()
        {
            return Ok(self.bind_deallocation(parties, (header, message), (portal, name), gone, sink));
        }
        if name.is_empty() && !self.unnamed_here && parties.unnamed_is_gone() {
            parties.client.functions.binds_unnamed_again.set(true);
        }
        if name.is_empty() && self.unnamed_is_at_hand(parties, sink) {
            self.note_unnamed_channels(parties);
            parties.unnamed_is_bound = true;
            parties.runs_unnamed();
            // Not only when it is prepared: it outlives a DISCARD ALL that is not a simple query, and what that took away
            // is left behind anew.
            if let Some(traces) = traces {
                self.leaves(parties, &traces);
            }
            self.expect_extended(Expect::Bind);
            return Ok(self.forward(header, message, sink));
        }
        let new_name = match parties.named(name) {
            Some(named) => {
                let place = self.prepare_here(parties, &named.statement, sink.insert());
                named.use_at(parties.server.statements.clock());
                if !rows::is_described_next(message, header, portal) {
                    self.retry.by_memory |= named.is_told();
                    match self.agrees(&named, place, parties.server, sink.insert()) {
                        Some(true) => {}
                        Some(false) => {
                            return Ok(self.refuse_extended(header, message, rows::changed(), sink));
                        }
                        None => return Ok(Next::Hold),
                    }
                }
                self.runs_named(parties, &named.statement, sink);
                self.bound = Some(Bound { portal: portal.into(), named, place });
                Name::Ours(place.serial)
            }
            None => {
                let name = self.foreign(parties, name, sink);
                if matches!(name, Name::Own(_)) {
                    // As EXECUTE does.
                    self.leaves(parties, &Traces::unknown());
                    parties.server.blind = true;
                }
                name
            }
        };
        let names = (portal, name, new_name);
        Ok(self.bind_under((header, message), names, parties.server, (Expect::Bind, sink)))
    }

    /// An unnamed statement of an earlier lease is prepared again, under other settings perhaps.
    fn read_unnamed_again(&self, parties: &mut Parties<'_>) {
        let is_here = self.unnamed_here || parties.server.unnamed_of == Some(parties.client.unnamed_now());
        if !is_here
            && let Some(body) = parties.client.unnamed.as_deref()
            && let Some((text, _)) = frame::split_cstr(body)
        {
            parties.client.unnamed_leaves = traces(&self.read(parties, text), text);
        }
    }

    /// A statement that leaves this is about to be run.
    fn leaves(&mut self, parties: &mut Parties<'_>, traces: &Traces) {
        parties.leave_behind(traces);
        self.forgets_here |= traces.may_forget();
        self.reset_here.merge(&traces.changes.reset);
    }

    /// A named statement is about to be run.
    fn runs_named(&mut self, parties: &mut Parties<'_>, statement: &Statement, sink: &mut Sink<'_>) {
        if let Some(traces) = &statement.leaves {
            self.leaves(parties, traces);
        }
        if statement.asks {
            parties.server.is_asked_for_numbers();
        }
        let text = statement.text();
        self.looked_at = self.looked_at.saturating_add(text.len());
        parties.look_for_ends(text);
        parties.look_for_functions_of(statement);
        self.note_channels(parties, text, sink);
    }

    /// Forwards a Bind with another statement name. Its parameters may still be on their way.
    pub(super) fn bind_under(
        &mut self,
        (header, message): (Header, &[u8]),
        (portal, old_name, name): (&[u8], &[u8], Name<'_>),
        server: &ServerState,
        (expect, sink): (Expect, &mut Sink<'_>),
    ) -> Next {
        let old_names = portal.len().saturating_add(old_name.len()).saturating_add(2);
        let head = HEADER_BYTES.saturating_add(old_names);
        sink.drop_input(head);
        let out = sink.insert();
        let length_at = out.len().saturating_add(1);
        out.extend_from_slice(&[b'B', 0, 0, 0, 0]);
        out.extend_from_slice(portal);
        out.push(0);
        name.put(server, out);
        out.push(0);
        let new_names = out.len().saturating_sub(length_at).saturating_sub(4);
        let length = header.body_len.saturating_sub(old_names).saturating_add(new_names).saturating_add(4);
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        if let Some(field) = out.get_mut(length_at..).and_then(|tail| tail.first_chunk_mut::<4>()) {
            *field = length.to_be_bytes();
        }
        self.expect_extended(expect);
        let tail = header.total_len().min(message.len()).saturating_sub(head);
        sink.keep(tail);
        let done = head.saturating_add(tail);
        self.client_rest = header.total_len().saturating_sub(done);
        Next::Done(done)
    }

    pub(super) fn describe(
        &mut self,
        parties: &mut Parties<'_>,
        header: Header,
        message: &[u8],
        sink: &mut Sink<'_>,
    ) -> Result<Next, Violation> {
        let Some(body) = whole_body(header, message) else { return Ok(Next::Wait) };
        let Some((kind, name)) = kind_and_name(body) else { return Err(Violation::Malformed(b'D')) };
        if kind == b'S' && self.is_held(parties, name) {
            return Ok(Next::Hold);
        }
        if kind == b'P' {
            self.close_stale_portal(name.is_empty(), sink);
            self.expect_description_of_portal(name, parties.server);
            return Ok(self.forward(header, message, sink));
        }
        if name.is_empty() && self.unnamed_is_at_hand(parties, sink) {
            self.expect_extended(Expect::Describe);
            return Ok(self.forward(header, message, sink));
        }
        sink.drop_input(header.total_len());
        let (name, expect) = match parties.named(name) {
            Some(named) => {
                let place = self.prepare_here(parties, &named.statement, sink.insert());
                named.use_at(parties.server.statements.clock());
                let expect = self.learn(Expect::Learn, place, Some(named));
                (Name::Ours(place.serial), expect)
            }
            None => (self.foreign(parties, name, sink), Expect::Describe),
        };
        frame::put(sink.insert(), b'D', |out| {
            out.push(kind);
            name.put(parties.server, out);
            out.push(0);
        });
        self.expect_extended(expect);
        Ok(Next::Done(header.total_len()))
    }

    pub(super) fn close(
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
                parties.change_unnamed(None, None);
            }
            self.expect_extended(Expect::Close);
            return Ok(self.forward(header, message, sink));
        }
        if self.is_undecided(name, parties.server) {
            return Ok(Next::Hold);
        }
        if parties.client.statements.find(name).is_none() && parties.may_have_prepared(name) {
            parties.server.doubted = true;
            self.expect_extended(Expect::Close);
            return Ok(self.forward(header, message, sink));
        }
        sink.drop_input(header.total_len());
        self.rename(parties.client, name, None);
        self.expect_extended(Expect::SynthClose);
        Ok(Next::Done(header.total_len()))
    }

    /// Gives a client's name another meaning, noted in case the server does not come to it.
    pub(super) fn rename(&mut self, client: &mut ClientState, name: &[u8], after: Option<Rc<Named>>) {
        let before = client.statements.find(name).cloned();
        client.statements.set(name, after.clone());
        self.note(Note::Name { name: name.into(), before, after });
    }

    /// Whether what this name means depends on answers to earlier segments.
    fn is_held(&self, parties: &Parties<'_>, name: &[u8]) -> bool {
        if !name.is_empty() {
            return self.is_undecided(name, parties.server);
        }
        // What the server has by then is right where it has kept step with the client.
        !self.copy_in
            && !parties.server.suspect
            && !self.unnamed_here
            && parties.server.unnamed_of != Some(parties.client.unnamed_now())
            && self.expect.has_unnamed_parse()
    }

    /// A name that leads to nothing: the server is to say so, in its own words where that is possible.
    fn foreign<'n>(&mut self, parties: &mut Parties<'_>, name: &'n [u8], sink: &mut Sink<'_>) -> Name<'n> {
        if name.is_empty() {
            // Somebody else's unnamed statement may be there.
            frame::put(sink.insert(), b'C', |out| out.extend_from_slice(b"S\0"));
            self.expect_extended(Expect::OwnClose { serial: UNNAMED });
            parties.server.unnamed_of = None;
        }
        if parties.may_have_prepared(name) { Name::Own(name) } else { Name::Foreign(name) }
    }

    /// An unnamed portal that the client cannot have bound is closed before it is used: it would be one that a simple query
    /// left behind, and Postgres is not made for that.
    pub(super) fn close_stale_portal(&mut self, is_unnamed: bool, sink: &mut Sink<'_>) {
        if is_unnamed && !self.has_portal {
            frame::put(sink.insert(), b'C', |out| out.extend_from_slice(b"P\0"));
            self.expect_extended(Expect::OwnClose { serial: UNNAMED });
        }
    }

    /// Whether the server's unnamed statement is this client's, after preparing it again if that is needed.
    ///
    /// One that was prepared in this segment is: if that fails, what follows is skipped. One of an earlier segment is
    /// only if the server has said so, or somebody else's could be there still.
    fn unnamed_is_at_hand(&mut self, parties: &mut Parties<'_>, sink: &mut Sink<'_>) -> bool {
        if self.unnamed_here || parties.server.unnamed_of == Some(parties.client.unnamed_now()) {
            return true;
        }
        let Some(body) = parties.unnamed.or(parties.client.unnamed.as_deref().map(|body| &**body)) else {
            return false;
        };
        put_parse_unnamed(sink.insert(), body);
        self.expect_extended(Expect::OwnParse { id: 0, serial: 0 });
        self.unnamed_here = true;
        true
    }

    /// Prepares a statement if the server lacks it. Returns where it is there.
    pub(super) fn prepare_here(
        &mut self,
        parties: &mut Parties<'_>,
        statement: &Statement,
        out: &mut Vec<u8>,
    ) -> Place {
        self.retry.is_named = true;
        if let Some(place) = self.place_of(parties, statement) {
            return place;
        }
        let id = parties.id_now(statement);
        let reading = self.reading_of(parties, statement);
        self.make_room(parties.server, id, out);
        if let Some(reading) = &reading {
            reading.put_give(&parties.server.statements, out);
            self.expect_run();
        }
        let serial = self.put_parse(parties.server, id, &statement.body, out);
        self.expect_extended(Expect::OwnParse { id, serial });
        if let Some(reading) = &reading {
            reading.put_take(&parties.server.statements, out);
            self.expect_run();
        }
        Place { id, serial }
    }

    /// The answers to a query of the proxy's own by the extended protocol (`put_run`).
    pub(super) fn expect_run(&mut self) {
        RUN_ANSWERS.into_iter().for_each(|answer| self.expect_extended(answer));
    }

    /// Where a statement is on the server, if it is there.
    pub(super) fn place_of(&self, parties: &mut Parties<'_>, statement: &Statement) -> Option<Place> {
        let segment = self.this_segment();
        if let Some(serial) = parties.server.statements.touch(statement.id, segment) {
            return Some(Place { id: statement.id, serial });
        }
        let id = parties.id_now(statement);
        let serial = parties.server.statements.touch(id, segment).filter(|_| id != statement.id)?;
        Some(Place { id, serial })
    }

    /// How a statement that the server lacks is read as it was read first.
    pub(super) fn reading_of(&self, parties: &Parties<'_>, statement: &Statement) -> Option<Reading> {
        if parties.server.status == TxStatus::Failed {
            return None;
        }
        let now = (!parties.server.reads_otherwise).then_some(&parties.client.settings);
        reading(statement.text(), &statement.settings, now)
    }

    /// Prepares a statement under a new number, after closing what must go for that. The caller expects the answer.
    pub(super) fn send_parse(
        &mut self,
        server: &mut ServerState,
        id: u64,
        body: &[u8],
        out: &mut Vec<u8>,
    ) -> u32 {
        self.make_room(server, id, out);
        self.put_parse(server, id, body, out)
    }

    /// Closes what must go before a statement is prepared.
    pub(super) fn make_room(&mut self, server: &mut ServerState, id: u64, out: &mut Vec<u8>) {
        while let Some(victim) = server.statements.victim_for(id) {
            server.statements.put_close(out, victim);
            self.expect_extended(Expect::OwnClose { serial: victim });
        }
    }

    /// Prepares a statement that there is room for. The caller expects the answer.
    pub(super) fn put_parse(&self, server: &mut ServerState, id: u64, body: &[u8], out: &mut Vec<u8>) -> u32 {
        let serial = server.statements.insert((id, body), self.this_segment());
        server.statements.put_parse(out, serial, body);
        serial
    }

    /// Number of the segment that is being sent; never 0.
    const fn this_segment(&self) -> u64 {
        self.segment.saturating_add(1)
    }
}

/// Stands for the number that the unnamed statement does not have.
pub(super) const UNNAMED: u32 = 0;

/// The body of a Parse that never fails: what is under a name only because it is taken.
pub(super) const NOTHING: &[u8] = &[0; 3];

fn kind_and_name(body: &[u8]) -> Option<(u8, &[u8])> {
    let (kind @ (b'S' | b'P'), rest) = body.split_first()? else { return None };
    match frame::split_cstr(rest)? {
        (name, []) => Some((*kind, name)),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
