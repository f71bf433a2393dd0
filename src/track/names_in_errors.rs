//! Errors of Postgres' that name a statement by the name it has on the server.
//!
//! Owns the way back to the name that the client gave it.

use super::exchange::Exchange;
use super::naming::FOREIGN_PREFIX;
use super::renaming::NOTHING;
use super::state::{ClientState, ServerState};
use super::statement::Statement;
use crate::wire::messages::parse_error_fields;

/// Whether the body of an ErrorResponse may name a statement of ours.
pub(super) fn is_of_a_statement(error: &[u8]) -> bool {
    memchr::memmem::find(error, b"tenantry").is_some()
}

impl Exchange {
    /// The body of an ErrorResponse in the client's words, if the server's are others.
    pub(super) fn in_clients_words(
        &mut self,
        body: &[u8],
        (client, server): (&ClientState, &ServerState),
    ) -> Option<Vec<u8>> {
        let is_unknown_name = parse_error_fields(body).code() == Some(b"26000");
        if is_unknown_name && let Some(error) = self.not_prepared.take() {
            // It is unknown because it could not be prepared there: for the same reason Postgres would refuse to run it.
            return Some(error.into_vec());
        }
        let (mut out, mut rest, mut is_other) = (Vec::new(), body, false);
        while let Some(at) = memchr::memmem::find(rest, b"tenantry") {
            let (before, found) = rest.split_at_checked(at)?;
            out.extend_from_slice(before);
            if let Some(after) = found.strip_prefix(FOREIGN_PREFIX).filter(|_| is_unknown_name) {
                (rest, is_other) = (after, true);
            } else if let Some((name, after)) = self.clients_name(found, (client, server)) {
                out.extend_from_slice(name);
                (rest, is_other) = (after, true);
            } else {
                let (first, after) = found.split_first()?;
                out.push(*first);
                rest = after;
            }
        }
        out.extend_from_slice(rest);
        is_other.then_some(out)
    }

    /// The client's name for the statement whose name on the server begins `text`, and what comes behind that.
    fn clients_name<'a, 'b>(
        &'a self,
        text: &'b [u8],
        (client, server): (&'a ClientState, &ServerState),
    ) -> Option<(&'a [u8], &'b [u8])> {
        let (serial, after) = server.statements.number_in(text)?;
        if let Some(taken) = self.taken.as_ref().filter(|_| server.statements.is_of(serial, NOTHING)) {
            return Some((taken, after));
        }
        // What was sent behind that, and is not answered, may have given the name to another, or taken all away.
        let is_it = |statement: &Statement| {
            let body = &statement.body;
            server.statements.is_of(serial, body) || self.notes.iter().any(|note| note.took(serial, body))
        };
        let before = self.notes.iter().find_map(|note| note.name_of(&is_it));
        Some((before.or_else(|| client.statements.name_of(is_it))?, after))
    }
}
