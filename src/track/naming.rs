//! What a client's names of statements mean, and what those are called on a server.
//!
//! Owns the way from a name to a text, and from a text to the name that it has there. When which is said is `renaming`'s.

use std::rc::Rc;

use super::params::Settings;
use super::prepared::SERVER_NAME_PREFIX;
use super::reading::{have_same_path, of_a_later_analysis};
use super::state::ServerState;
use super::statement::{Known, Named, Statement};
use super::upstream::Parties;

impl Parties<'_> {
    /// The statement of a text that the client prepares now.
    ///
    /// Shared with all clients whose settings read it in the same way; with nobody as soon as this client has changed
    /// something that is not reported.
    pub(super) fn statement(&mut self, body: &[u8]) -> Rc<Statement> {
        let settings = self.client.settings.clone();
        self.statement_under(&settings, body)
    }

    fn statement_under(&mut self, settings: &Settings, body: &[u8]) -> Rc<Statement> {
        if self.server.is_in_doubt() || self.server.reads_otherwise {
            let known = if self.server.reencodes { Known::Nothing } else { Known::Encoding };
            return self.cache.alone(settings, known, body);
        }
        self.cache.intern(settings, body)
    }

    /// Whether the client may have said PREPARE with that name, to this server.
    pub(super) fn may_have_prepared(&self, name: &[u8]) -> bool {
        self.server.pinned && !name.starts_with(SERVER_NAME_PREFIX)
    }

    /// What a name of the client's means now: with another search_path than its text was read with, it is read anew, as
    /// Postgres itself does.
    pub(super) fn named(&mut self, name: &[u8]) -> Option<Rc<Named>> {
        let named = self.client.statements.find(name)?.clone();
        let (then, now) = (&named.statement.settings, &self.client.settings);
        if have_same_path(then, now) || self.server.is_asked() {
            return Some(named);
        }
        let settings = of_a_later_analysis(then, now);
        let named = named.reread(self.statement_under(&settings, &named.statement.body));
        self.client.statements.set(name, Some(named.clone()));
        Some(named)
    }

    /// What a statement is called on the server if it is prepared there now.
    pub(super) const fn id_now(&self, statement: &Statement) -> u64 {
        if matches!(statement.known, Known::All) && self.server.is_in_doubt() {
            // Nobody else meets it: the server is reset for the next client.
            statement.id | UNSHARED
        } else {
            statement.id
        }
    }
}

/// Marks the number of a statement on a server that is its client's alone.
const UNSHARED: u64 = 1 << 63;

/// How a name begins that the client does not have, on its way to the server.
pub(super) const FOREIGN_PREFIX: &[u8] = b"tenantry:";

/// The name a statement gets on its way to the server.
pub(super) enum Name<'a> {
    Ours(u32),
    /// A name that it may have prepared by SQL: on a server that it keeps, nobody else has.
    Own(&'a [u8]),
    /// A name that this client does not have. The server is to say so; it must not find somebody else's.
    Foreign(&'a [u8]),
}

impl Name<'_> {
    pub(super) fn put(&self, server: &ServerState, out: &mut Vec<u8>) {
        match self {
            Self::Ours(serial) => server.statements.put_name(out, *serial),
            Self::Own(name) => out.extend_from_slice(name),
            Self::Foreign([]) => {}
            Self::Foreign(name) => {
                out.extend_from_slice(FOREIGN_PREFIX);
                out.extend_from_slice(name);
            }
        }
    }
}
