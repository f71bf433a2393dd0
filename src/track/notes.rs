//! What changed when a message was sent, for the case that the server refuses or skips it.
//!
//! A pipelined message is taken for granted when it is sent, so that those behind it can be understood. Owns the way
//! back: an error takes back, newest first, what the messages it hits have changed.

use std::collections::VecDeque;
use std::rc::Rc;

use super::by_sql::Deallocated;
use super::lexer::StateKind;
use super::prepared::ServerStatements;
use super::state::{ClientState, ServerState};
use super::statement::{ClientStatements, Named, Statement};
use crate::error::ClientError;

/// One change.
#[derive(Debug)]
pub(super) enum Note {
    /// A name got or lost a meaning.
    Name { name: Box<[u8]>, before: Option<Rc<Named>>, after: Option<Rc<Named>> },
    /// A statement was prepared under a name that is taken, so that the server says so.
    Taken { name: Box<[u8]>, statement: Rc<Statement> },
    /// Names were given up by DEALLOCATE.
    Deallocated(Deallocated),
    /// The message was refused, with this error.
    Refused(Box<ClientError>),
    /// All names were given up, and what the server had prepared.
    All(Box<Everything>),
}

/// What `DEALLOCATE ALL` and `DISCARD ALL` take away.
#[derive(Debug)]
pub(super) struct Everything {
    pub(super) names: ClientStatements,
    pub(super) prepared: ServerStatements,
    /// What the names had in bytes when they were given up.
    pub(super) bytes: usize,
    /// What was left behind on the server, and whether that kept it with the client.
    pub(super) left: (Option<StateKind>, bool),
}

impl Note {
    /// What it keeps, near enough; the same for as long as it lives.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Name { name, .. } | Self::Taken { name, .. } => name.len(),
            Self::Deallocated(gone) => gone.bytes(),
            Self::Refused(error) => size_of_val(&**error),
            Self::All(all) => all.bytes,
        }
    }

    /// Whether it may change what that name means.
    pub(super) fn changes(&self, name: &[u8]) -> bool {
        match self {
            Self::Name { name: changed, .. } => **changed == *name,
            Self::Deallocated(gone) => gone.changes(name),
            Self::Refused(_) | Self::Taken { .. } => false,
            Self::All(_) => true,
        }
    }

    /// A name of a statement, if it had it before this change.
    pub(super) fn name_of(&self, is_it: &impl Fn(&Statement) -> bool) -> Option<&[u8]> {
        match self {
            Self::Name { name, before, .. } => {
                before.as_ref().filter(|named| is_it(&named.statement)).map(|_| &**name)
            }
            Self::Taken { name, statement } => is_it(statement).then_some(&**name),
            Self::Deallocated(gone) => gone.name_of(is_it),
            Self::Refused(_) => None,
            Self::All(all) => all.names.name_of(is_it),
        }
    }

    /// Whether it took that number away, which was prepared from this Parse body.
    pub(super) fn took(&self, serial: u32, body: &[u8]) -> bool {
        matches!(self, Self::All(all) if all.prepared.is_of(serial, body))
    }

    /// Takes the change back, unless one of the `later` ones has come over it.
    pub(super) fn undo(self, later: &mut VecDeque<Self>, client: &mut ClientState, server: &mut ServerState) {
        // What was there when everything was given up is in that note now.
        let shelved = later.iter_mut().find_map(|note| match note {
            Self::All(all) => Some(&mut **all),
            Self::Name { .. } | Self::Taken { .. } | Self::Deallocated(_) | Self::Refused(_) => None,
        });
        let (names, prepared, left_behind, pinned) = match shelved {
            Some(all) => (&mut all.names, &mut all.prepared, &mut all.left.0, &mut all.left.1),
            None => {
                let statements = &mut server.statements;
                (&mut client.statements, statements, &mut server.left_behind, &mut server.pinned)
            }
        };
        match self {
            Self::Name { name, before, after } => {
                if names.find(&name).map(Rc::as_ptr) == after.as_ref().map(Rc::as_ptr) {
                    names.set(&name, before);
                }
            }
            Self::Deallocated(gone) => {
                for (name, named) in gone.rest() {
                    if names.find(&name).is_none() {
                        names.set(&name, Some(named));
                    }
                }
            }
            Self::Refused(_) | Self::Taken { .. } => {}
            Self::All(all) => {
                names.take_back(all.names);
                prepared.take_back(all.prepared);
                *left_behind = (*left_behind).max(all.left.0);
                *pinned |= all.left.1;
            }
        }
    }

    /// Makes the change once more, after everything was forgotten behind its back.
    pub(super) fn redo(&self, client: &mut ClientState) {
        if let Self::Name { name, after, .. } = self {
            client.statements.set(name, after.clone());
        }
    }
}
