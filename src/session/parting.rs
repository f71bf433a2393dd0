//! The end of a lease: what becomes of the server, and what the client is told.
//!
//! Owns both ends, the normal one and the abnormal ones. What goes over a lease is `leased`'s.

use std::task::Context;

use super::leased::{Leased, Stop, stays};
use super::life::{Phase, Session, Step};
use super::overdue::overdue;
use super::registry::Whereabouts;
use crate::error::{ClientError, Fault, SqlState};
use crate::pool::{Lease, Leftover};
use crate::tenant::PoolMode;
use crate::track::{ServerFault, TxStatus, pinning};
use crate::wire::messages;

/// What becomes of a server whose lease ends well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It goes back to the pool.
    Returned,
    /// It becomes the listener of its tenant.
    Listener,
}

impl Session {
    /// The normal end: the server goes back, the client is parked.
    pub(super) fn end_lease(&mut self, cx: &mut Context<'_>) -> Step {
        self.part(cx, Fate::Returned)
    }

    /// The same, with what becomes of the server.
    pub(super) fn part(&mut self, cx: &mut Context<'_>, fate: Fate) -> Step {
        let Phase::Leased(Leased { mut lease, talk, paused, held, leaving }) =
            std::mem::replace(&mut self.phase, Phase::Parked)
        else {
            return Step::Again;
        };
        if leaving {
            self.phase = Phase::Leased(Leased { lease, talk, paused, held, leaving });
            return self.stop(cx, Stop::ClientGone);
        }
        let mut leftover = Leftover::Nothing;
        let mut lost_settings = false;
        if let Some(server) = lease.server() {
            if stays(self.mode, &server.state) || server.state.limits_others() {
                leftover = Leftover::State;
            }
            assert!(
                talk.exchange.is_over(&server.state),
                "a server is handed on only with nothing outstanding"
            );
            if std::mem::take(&mut server.state.settings_changed) {
                self.cell.tenant.intern(&mut server.state.settings.params);
                self.client.settings.params = server.state.settings.params.clone();
            }
        }
        if let Some(server) = lease.server() {
            lost_settings = server.state.lost_settings;
        }
        match fate {
            Fate::Returned => lease.give_back(leftover),
            Fate::Listener => self.found_listener(cx, lease),
        }
        self.leave_switch();
        self.floor.put_conversation(talk);
        if lost_settings {
            return self.fail(cx, &settings_lost());
        }
        self.carry_is_fresh = !self.carry.is_empty();
        self.park();
        Step::Again
    }

    /// An abnormal end: the server is cleaned or closed, the client told if it can be.
    pub(super) fn stop(&mut self, cx: &mut Context<'_>, stop: Stop) -> Step {
        let Phase::Leased(Leased { mut lease, talk, .. }) = std::mem::replace(&mut self.phase, Phase::Over)
        else {
            return Step::Again;
        };
        let quiet = talk.exchange.is_quiet() && talk.to_server.is_empty();
        let mid_message = talk.exchange.server_is_mid_message();
        let said_why = talk.exchange.ended_in_error();
        let leftover = match &stop {
            Stop::ClientGone | Stop::CutOff | Stop::Overdue(_) | Stop::Beyond | Stop::Client(_) if quiet => {
                leftover_of(&mut lease, self.mode)
            }
            Stop::ClientGone
            | Stop::CutOff
            | Stop::Overdue(_)
            | Stop::Beyond
            | Stop::Client(_)
            | Stop::ServerGone
            | Stop::Server(_) => Leftover::Work,
        };
        let kept_by = lease.server().and_then(|server| server.state.left_behind).and_then(pinning);
        lease.give_back(leftover);
        let may_be_kept = self.floor.pool.pins_left(&self.cell.tenant).of;
        self.floor.put_conversation(talk);
        self.cell.set_whereabouts(Whereabouts::Parked);
        let error = match stop {
            Stop::ClientGone => return self.end(),
            Stop::CutOff if mid_message => return self.end(),
            Stop::CutOff => return self.say_goodbye(cx),
            Stop::Overdue(limit) => {
                self.count_overdue(limit);
                overdue(limit, self.tenant().time_limits().of(limit), kept_by)
            }
            Stop::Beyond => {
                self.audit("pin_limit");
                kept_beyond(may_be_kept)
            }
            Stop::Client(error) => *error,
            Stop::ServerGone => {
                self.count_lost();
                if said_why {
                    self.phase = Phase::closing();
                    return Step::Again;
                }
                server_lost()
            }
            Stop::Server(ServerFault::OwnQueryFailed(body)) => {
                let mut words = Vec::new();
                messages::put_server_error_as_fatal(&mut words, &body);
                return self.fail_with(cx, &words);
            }
            Stop::Server(fault @ ServerFault::Protocol(_)) => {
                self.count_lost();
                let (name, request_id) = (&self.tenant().tenant().name, self.cell.request_id);
                tracing::warn!(customer_id = %name, request_id, reason = "server_protocol", %fault, "server closed");
                server_lost()
            }
        };
        if mid_message {
            // An error in the middle of a message would be taken for a part of it.
            self.log_end(error.reason);
            self.phase = Phase::closing();
            return Step::Again;
        }
        self.fail(cx, &error)
    }

    /// Logs and counts a statement that was refused, or a path that was found outside the tenant.
    pub(super) fn audit(&self, reason: &'static str) {
        let (name, request_id) = (&self.tenant().tenant().name, self.cell.request_id);
        tracing::warn!(customer_id = %name, request_id, reason, "statement refused");
        let mut counters = self.cell.tenant.counters.borrow_mut();
        let counter = match reason {
            "pin_limit" => &mut counters.refused_pins,
            "outside_tenant" => &mut counters.refused_outside,
            _ => return,
        };
        *counter = counter.saturating_add(1);
    }

    fn count_lost(&self) {
        let mut counters = self.cell.tenant.counters.borrow_mut();
        counters.servers_lost = counters.servers_lost.saturating_add(1);
    }
}

/// What a client that goes away between two messages leaves behind.
fn leftover_of(lease: &mut Lease, mode: PoolMode) -> Leftover {
    match lease.server() {
        Some(server)
            if server.state.status == TxStatus::Idle
                && !stays(mode, &server.state)
                && !server.state.limits_others() =>
        {
            Leftover::Nothing
        }
        Some(_) => Leftover::State,
        None => Leftover::Work,
    }
}

/// What keeps its client at a server was found when its transaction was over, and is gone with the session.
fn kept_beyond(may_be_kept: u32) -> ClientError {
    ClientError::fatal(
        SqlState::CONFIGURATION_LIMIT_EXCEEDED,
        Fault::Client,
        "pin_limit",
        "terminating connection because it keeps a server, and too many are kept already",
    )
    .with_detail(format!(
        "A block, a function or a long setting left behind what works on one server only. Transactions that have ended are \
         not affected. In transaction mode {may_be_kept} servers of this tenant may be kept by clients."
    ))
    .with_hint("Use session mode for this user, end what keeps other clients, or raise the tenant's ceiling.")
}

fn server_lost() -> ClientError {
    ClientError::fatal(
        SqlState::CONNECTION_FAILURE,
        Fault::Server,
        "server_lost",
        "the connection to the database server was lost",
    )
    .with_detail("Whether the running transaction was committed is not known if COMMIT had been sent.")
    .with_hint("Connect again and check what the transaction did.")
}

fn settings_lost() -> ClientError {
    ClientError::fatal(
        SqlState::CONNECTION_FAILURE,
        Fault::Server,
        "settings_lost",
        "the settings of this session are lost",
    )
    .with_detail("The server that had them could not be asked for them, and was closed.")
    .with_hint("Connect again. What was committed is committed.")
}
