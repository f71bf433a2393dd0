//! What SQL says of statements that came by Parse: EXECUTE, PREPARE, DEALLOCATE and DISCARD ALL.
//!
//! On a server such a statement has another name, and serves other clients too. So in EXECUTE and PREPARE stands the name
//! that it has there, prepared before if the server lacks it; and in the place of each `DEALLOCATE name` what has the same
//! answer in any state of the transaction, and the client alone forgets its name.
//! Owns the text that goes out instead, and what is taken back if it fails.

use std::rc::Rc;

use super::exchange::Exchange;
use super::expect::Expect;
use super::lexer::{self, Mention, Mentioned, StateKind};
use super::naming::Name;
use super::notes::{Everything, Note};
use super::renaming::{NOTHING, UNNAMED};
use super::sink::Sink;
use super::state::ServerState;
use super::statement::{Named, Statement};
use super::upstream::{Next, Parties};
use crate::wire::frame::{self, Header};

/// A name and what it meant.
type Gone = (Box<[u8]>, Rc<Named>);

/// What the DEALLOCATEs of one text take away.
#[derive(Debug, Default)]
pub(super) struct Deallocated {
    /// For each of them in order; `None` for a name that did not come by Parse.
    names: Vec<Option<Gone>>,
    /// How many of them have been carried out.
    done: usize,
}

impl Deallocated {
    pub(super) fn bytes(&self) -> usize {
        self.names.iter().flatten().map(|(name, _)| name.len()).sum()
    }

    pub(super) fn changes(&self, name: &[u8]) -> bool {
        self.names.iter().flatten().any(|(gone, _)| **gone == *name)
    }

    /// A name of a statement, if it is among those.
    pub(super) fn name_of(&self, is_it: impl Fn(&Statement) -> bool) -> Option<&[u8]> {
        let gone = self.names.iter().flatten().find(|(_, named)| is_it(&named.statement));
        gone.map(|(name, _)| &**name)
    }

    /// What was not carried out.
    pub(super) fn rest(self) -> impl Iterator<Item = Gone> {
        self.names.into_iter().skip(self.done).flatten()
    }
}

/// A text that names statements which came by Parse.
pub(super) struct Rewritten {
    /// What goes to the server.
    pub(super) text: Vec<u8>,
    /// The text without DEALLOCATEs of them.
    pub(super) rest: Vec<u8>,
    /// All DEALLOCATEs, if one of them is of such a name.
    pub(super) gone: Vec<Mention>,
}

/// Prepares and deallocates a statement of its own: its answer is PREPARE, which is swallowed, and DEALLOCATE.
const STAND_IN: &[u8] = b"PREPARE tenantry_0 AS SELECT 1; DEALLOCATE tenantry_0";

/// The same where a text can have one statement only: a statement without a text, and the body of the Parse of one that
/// deallocates it.
const GONE: &[u8] = b"tenantry_gone";
const DEALLOCATE_GONE: &[u8] = b"DEALLOCATE tenantry_gone\0\0\0";

/// The number that [`GONE`] does not have.
const GONE_ID: u64 = u64::MAX;

impl Exchange {
    /// The text as it goes to the server, if it names statements that came by Parse; `Err` if it depends on answers that
    /// are outstanding whether it does. What the server lacks of them is prepared by the way.
    pub(super) fn rewrite(
        &mut self,
        parties: &mut Parties<'_>,
        text: &[u8],
        sink: &mut Sink<'_>,
    ) -> Result<Option<Rewritten>, ()> {
        let mut found = lexer::mentions(text);
        if found.iter().any(|mention| self.is_undecided(&mention.name, parties.server)) {
            return Err(());
        }
        let prepares = found.iter().any(|mention| mention.what == Mentioned::Prepare);
        // Whose PREPARE an answer is could not be told.
        found.retain(|mention| !prepares || mention.what != Mentioned::Deallocate);
        let mut gone: Vec<Mention> = Vec::new();
        let mut places: Vec<(u64, u32)> = Vec::new();
        let mut rewritten = Rewritten { text: Vec::new(), rest: Vec::new(), gone: Vec::new() };
        let (mut at, mut is_other, mut deallocates) = (0, false, false);
        for mention in found {
            let named = parties.named(&mention.name);
            let is_gone = || gone.iter().any(|gone| gone.name == mention.name);
            let before = text.get(at..mention.start).unwrap_or_default();
            match (mention.what, named) {
                (Mentioned::Deallocate, Some(_)) => {
                    rewritten.text.extend_from_slice(before);
                    rewritten.text.extend_from_slice(STAND_IN);
                    rewritten.rest.extend_from_slice(before);
                    (is_other, deallocates, at) = (true, true, mention.end);
                }
                (what @ (Mentioned::Execute | Mentioned::Prepare), Some(named)) if !is_gone() => {
                    let statement = match what {
                        // Any will do, the name is taken; but whose error it is must be known.
                        Mentioned::Prepare if self.expect.has_only_own() => {
                            self.taken.get_or_insert(mention.name.as_slice().into());
                            parties.statement(NOTHING)
                        }
                        _ => named.statement.clone(),
                    };
                    let id = statement.id;
                    let known = places.iter().find(|place| place.0 == id).map(|place| place.1);
                    let serial = match known {
                        Some(serial) => Some(serial),
                        // One more would take the place of another that the text names, again and again.
                        None if places.len() >= parties.server.statements.max() => None,
                        None => self.prepare_before(parties, &statement, sink)?,
                    };
                    let Some(serial) = serial else { continue };
                    named.use_at(parties.server.statements.clock());
                    if known.is_none() {
                        places.push((id, serial));
                    }
                    rewritten.text.extend_from_slice(before);
                    parties.server.statements.put_name(&mut rewritten.text, serial);
                    rewritten.rest.extend_from_slice(text.get(at..mention.end).unwrap_or_default());
                    (is_other, at) = (true, mention.end);
                }
                (Mentioned::Deallocate | Mentioned::Execute | Mentioned::Prepare, _) => {}
            }
            if mention.what == Mentioned::Deallocate {
                gone.push(mention);
            }
        }
        let behind = text.get(at..).unwrap_or_default();
        rewritten.text.extend_from_slice(behind);
        rewritten.rest.extend_from_slice(behind);
        if deallocates {
            rewritten.gone = gone;
        }
        Ok(is_other.then_some(rewritten))
    }

    /// The number of a statement on the server, prepared there by a request of its own if it lacks it. `None` where that
    /// cannot be said in front of a simple query; `Err` if it can when what was asked before has been answered.
    fn prepare_before(
        &mut self,
        parties: &mut Parties<'_>,
        statement: &Statement,
        sink: &mut Sink<'_>,
    ) -> Result<Option<u32>, ()> {
        if let Some(place) = self.place_of(parties, statement) {
            return Ok(Some(place.serial));
        }
        if self.unsynced || self.copy_in || parties.server.suspect {
            return Ok(None);
        }
        if !self.expect.has_only_own() {
            // Of what fails before the server may skip all up to the next Sync, which must not be ours.
            return Err(());
        }
        let id = parties.id_now(statement);
        let reading = self.reading_of(parties, statement);
        let out = sink.insert();
        self.make_room(parties.server, id, out);
        reading.as_ref().inspect(|reading| reading.put_give(&parties.server.statements, out));
        let serial = self.put_parse(parties.server, id, &statement.body, out);
        reading.as_ref().inspect(|reading| reading.put_take(&parties.server.statements, out));
        frame::put(out, b'S', |_| ());
        // The closing of others, if there is one to make room, is answered before.
        self.unsynced = false;
        self.segment = self.segment.saturating_add(1);
        self.expect.push(Expect::OwnPrepare { id, serial });
        Ok(Some(serial))
    }

    /// An answer to what was prepared in front of a simple query.
    pub(super) fn own_prepare_answered(
        &mut self,
        (id, serial): (u64, u32),
        (tag, body): (u8, &[u8]),
        server: &mut ServerState,
    ) -> bool {
        match tag {
            b'1' => server.statements.confirm(id, serial),
            // Of the queries that give it the settings of then.
            b'2' | b'D' | b'C' | b'3' => {}
            b'E' => {
                server.statements.failed(id, serial);
                self.not_prepared = Some(body.into());
            }
            _ => return false,
        }
        true
    }

    /// Binds what stands in for a DEALLOCATE, in the place of the client's statement that says it.
    pub(super) fn bind_deallocation(
        &mut self,
        parties: &mut Parties<'_>,
        (header, message): (Header, &[u8]),
        (portal, name): (&[u8], &[u8]),
        gone: &[u8],
        sink: &mut Sink<'_>,
    ) -> Next {
        let out = sink.insert();
        // One may be there whose DEALLOCATE was bound and not executed.
        frame::put(out, b'C', |out| {
            out.push(b'S');
            out.extend_from_slice(GONE);
            out.push(0);
        });
        self.expect_extended(Expect::OwnClose { serial: UNNAMED });
        frame::put(out, b'P', |out| {
            out.extend_from_slice(GONE);
            out.extend_from_slice(&[0; 4]);
        });
        self.expect_extended(Expect::OwnParse { id: GONE_ID, serial: UNNAMED });
        let statement = parties.statement(DEALLOCATE_GONE);
        let place = self.prepare_here(parties, &statement, sink.insert());
        self.rename(parties.client, gone, None);
        let name = (portal, name, Name::Ours(place.serial));
        self.bind_under((header, message), name, parties.server, (Expect::BindDeallocate, sink))
    }

    /// The client's names are gone now, so that what it prepares behind this is not hit by its answer.
    pub(super) fn deallocate(&mut self, parties: &mut Parties<'_>, gone: Vec<Mention>) -> Expect {
        let mut names = Vec::new();
        for Mention { name, .. } in gone {
            let meaning = parties.client.statements.find(&name).cloned();
            parties.client.statements.set(&name, None);
            names.push(meaning.map(|named| (name.into_boxed_slice(), named)));
        }
        self.note(Note::Deallocated(Deallocated { names, done: 0 }));
        Expect::Deallocate
    }

    /// One of the DEALLOCATEs of a text has been carried out.
    pub(super) fn deallocated(&mut self) {
        if let Some(Note::Deallocated(deallocated)) = self.notes.front_mut() {
            deallocated.done = deallocated.done.saturating_add(1);
        }
    }

    /// All names are given up now, so that those prepared behind this are not hit by its answer.
    pub(super) fn deallocate_all(
        &mut self,
        parties: &mut Parties<'_>,
        left: (Option<StateKind>, bool),
    ) -> Expect {
        self.note(Note::All(Box::new(Everything {
            bytes: parties.client.statements.bytes(),
            names: std::mem::take(&mut parties.client.statements),
            prepared: parties.server.statements.take_all(),
            left,
        })));
        Expect::DeallocateAll
    }
}
