//! DEALLOCATE and DISCARD ALL as simple queries, for names that came by Parse.
//!
//! On a server such a statement has another name, and serves other clients too. So in the place of each `DEALLOCATE name`
//! stands what has the same answer in any state of the transaction, and the client alone forgets its name.
//! Owns the text that goes out instead, and what is taken back if it fails.

use std::rc::Rc;

use super::exchange::Exchange;
use super::expect::Expect;
use super::lexer::{self, Deallocation, StateKind};
use super::notes::{Everything, Note};
use super::statement::Named;
use super::upstream::Parties;

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

    /// What was not carried out.
    pub(super) fn rest(self) -> impl Iterator<Item = Gone> {
        self.names.into_iter().skip(self.done).flatten()
    }
}

/// A text with DEALLOCATEs of names that came by Parse.
pub(super) struct Rewritten {
    /// What goes to the server.
    pub(super) text: Vec<u8>,
    /// The text without them.
    pub(super) rest: Vec<u8>,
    gone: Vec<Deallocation>,
}

/// Prepares and deallocates a statement of its own: its answer is PREPARE, which is swallowed, and DEALLOCATE.
const STAND_IN: &[u8] = b"PREPARE tenantry_0 AS SELECT 1; DEALLOCATE tenantry_0";

impl Exchange {
    /// The text as it goes to the server, if it deallocates names that came by Parse; `Err` if it depends on answers that
    /// are outstanding whether it does.
    pub(super) fn rewrite(&self, parties: &Parties<'_>, text: &[u8]) -> Result<Option<Rewritten>, ()> {
        let gone = lexer::deallocations(text);
        if gone.iter().any(|gone| self.is_undecided(&gone.name, parties.server)) {
            return Err(());
        }
        let is_known = |gone: &Deallocation| parties.client.statements.find(&gone.name).is_some();
        if !gone.iter().any(is_known) {
            return Ok(None);
        }
        let mut rewritten = Rewritten { text: Vec::new(), rest: Vec::new(), gone: Vec::new() };
        let mut at = 0;
        for deallocation in gone {
            if is_known(&deallocation) {
                let before = text.get(at..deallocation.start).unwrap_or_default();
                rewritten.text.extend_from_slice(before);
                rewritten.text.extend_from_slice(STAND_IN);
                rewritten.rest.extend_from_slice(before);
                at = deallocation.end;
            }
            rewritten.gone.push(deallocation);
        }
        let behind = text.get(at..).unwrap_or_default();
        rewritten.text.extend_from_slice(behind);
        rewritten.rest.extend_from_slice(behind);
        Ok(Some(rewritten))
    }

    /// The client's names are gone now, so that what it prepares behind this is not hit by its answer.
    pub(super) fn deallocate(&mut self, parties: &mut Parties<'_>, gone: Vec<Deallocation>) -> Expect {
        let mut names = Vec::new();
        for Deallocation { name, .. } in gone {
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

impl Rewritten {
    pub(super) fn gone(self) -> Vec<Deallocation> {
        self.gone
    }
}
