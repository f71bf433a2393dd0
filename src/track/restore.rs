//! RESET and DISCARD ALL: the settings go back to those the client started with, not to those of the server's login.
//!
//! Owns the query of ours behind such a request, and the ReadyForQuery that waits for it. To the client it looks as if
//! its own startup settings were the server's defaults, as on a connection of its own.

use std::rc::Rc;

use super::downstream::ServerFault;
use super::exchange::Exchange;
use super::expect::Expect;
use super::lexer::Names;
use super::params::{Letters, is_settable_reported, put_assignment, rank};
use super::state::{ClientState, ServerState, TxStatus};
use crate::wire::frame;
use crate::wire::messages;

impl Exchange {
    /// Appends, behind a request that makes these settings go back, what makes them the client's startup settings. Returns
    /// whether that is something.
    pub(super) fn put_restore(&mut self, reset: &Names, client: &ClientState, out: &mut Vec<u8>) -> bool {
        let mut due: Vec<_> = client.startup.iter().filter(|(name, _)| is_among(name, reset)).collect();
        if due.is_empty() {
            return false;
        }
        due.sort_by_key(|(name, _)| rank(name));
        let mut sql = String::new();
        // Under the client_encoding of the moment a letter could be read as something else, a backslash as half of one.
        let letters = match client.settings.params.value("server_encoding") {
            Some("SQL_ASCII") => Letters::AsTheyAre,
            _ => Letters::ByNumber,
        };
        due.into_iter().for_each(|(name, value)| put_assignment(&mut sql, name, value, letters));
        frame::put(out, b'Q', |body| {
            body.extend_from_slice(sql.as_bytes());
            body.push(0);
        });
        self.expect.push(Expect::Restore);
        true
    }

    /// The ReadyForQuery of our query: what the client is told instead, behind the answer to its own request.
    pub(super) fn restored(
        &mut self,
        (client, server): (&mut ClientState, &mut ServerState),
        out: &mut Vec<u8>,
    ) -> Result<(), ServerFault> {
        self.forgets_earlier &= self.expect.requests() > 0;
        if !self.expect.has_unnamed_parse() {
            // A simple query destroys the unnamed statement.
            server.unnamed_of = None;
        }
        // In a failed transaction ours fails as well, and the rollback undoes both.
        if let Some(error) = self.own_error.take().filter(|_| server.status != TxStatus::Failed) {
            return Err(ServerFault::OwnQueryFailed(error));
        }
        self.settle_channels(client, server.status, self.expect.requests() == 0);
        if server.status == TxStatus::Idle && self.expect.requests() == 0 && !self.unsynced {
            server.has_run_all(&client.functions);
        }
        if std::mem::take(&mut self.request_failed) && server.status != TxStatus::Failed {
            // The settings that the client had stand, and ours was one too many. What it sent behind this in advance sees
            // its startup settings: a reset that fails in the middle of a pipeline is that rare.
            self.repair_due = true;
        } else {
            for (name, value) in server.settings.params.iter() {
                if client.settings.params.value(name) != Some(value) {
                    messages::put_parameter_status(out, name, value);
                }
            }
            client.settings.params = server.settings.params.clone();
        }
        messages::put_ready_for_query(out, server.status.as_byte());
        Ok(())
    }

    /// Appends what gives the client its settings again after a reset that failed.
    pub(super) fn put_repair(&mut self, client: &ClientState, server: &ServerState, out: &mut Vec<u8>) {
        if std::mem::take(&mut self.repair_due) {
            for sql in server.settings.queries(&client.settings, true) {
                self.own_query(sql.as_bytes(), out);
            }
        }
    }

    /// Whether [`Exchange::settle`] has something to say whatever the mode.
    #[must_use]
    pub const fn owes_repair(&self) -> bool {
        self.repair_due
    }

    /// DISCARD ALL has been carried out, outside a transaction: what the client and the server have now.
    pub(super) fn discarded_all(&self, client: &mut ClientState, server: &mut ServerState) {
        server.touch_custom(client);
        server.settings.extras = Rc::default();
        let reported = &server.settings.params;
        let silent = client
            .startup
            .iter()
            .filter(|(name, _)| !is_settable_reported(name) || reported.value(name).is_none());
        let extras: Vec<_> = silent.cloned().collect();
        client.settings.extras = if extras.is_empty() { Rc::default() } else { Rc::new(extras) };
        if self.expect.head_is_held() {
            server.settings.extras = client.settings.extras.clone();
        }
    }
}

fn is_among(name: &str, names: &Names) -> bool {
    match names {
        Names::None => false,
        Names::Any => true,
        Names::These(names) => names.iter().any(|among| among.eq_ignore_ascii_case(name)),
    }
}
