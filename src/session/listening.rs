//! A session that listens: how it gives its server up for the tenant's listener, and when it is told what that hears.
//!
//! Owns the steps between session and listener (`track::Hearing` has the picture), and the moments at which a notification
//! may be written: between two transactions of the client, as Postgres does it.

use std::task::{Context, Poll};

use super::leased::{Leased, Stop};
use super::life::{Phase, Session, Step};
use super::outbox::Outbox;
use super::parting::Fate;
use super::registry::Wish;
use crate::error::{ClientError, Fault, SqlState};
use crate::pool::Lease;
use crate::tenant::PoolMode;
use crate::track::{MAX_UNREAD_BYTES, Return, Switch};

/// The next step of a client on its way to the listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Move {
    /// Its server becomes the listener: there is none.
    Found,
    /// Its server is asked to listen to the marker.
    Mark,
    /// The listener is asked to take its channels over.
    Join,
    /// It has come over.
    Complete,
    /// Its server is asked to listen no more.
    Quit,
    /// It stays with its server for now.
    Abort,
}

impl Session {
    /// What a client that holds a server can do now to go on listening without it.
    pub(super) fn next_move(&mut self) -> Option<Move> {
        let Phase::Leased(Leased { lease, talk, leaving, .. }) = &mut self.phase else { return None };
        let listening = &self.cell.tenant.listening;
        let is_current = lease.is_current();
        let server = lease.server()?;
        let hearing = self.client.hearing.as_deref();
        let switch = hearing.map_or(&Switch::Idle, |hearing| &hearing.switch);
        if *switch == Switch::Idle && !server.state.pinned || self.mode != PoolMode::Transaction || *leaving {
            return None;
        }
        let lost = hearing.is_some_and(|hearing| hearing.mailbox.borrow().switch_lost);
        let is_quiet = talk.exchange.is_over(&server.state)
            && talk.to_server.is_empty()
            && server.carry.is_empty()
            && !server.state.is_unsettled()
            && !server.state.suspect
            && !server.state.condemned
            && self.cell.wish() == Wish::Nothing;
        let may_found = || self.floor.pool.pins_left(&self.cell.tenant).listens;
        match switch {
            Switch::Through => Some(Move::Complete),
            Switch::Missed => Some(Move::Abort),
            Switch::Asked { .. } if lost => Some(Move::Abort),
            Switch::Asked { .. } | Switch::Returning => None,
            Switch::Marking if !is_quiet => None,
            Switch::Marking if !server.state.is_passing() || !is_current => Some(Move::Abort),
            Switch::Marking if listening.is_on() => Some(Move::Join),
            Switch::Marking if may_found() => Some(Move::Found),
            Switch::Marking => Some(Move::Abort),
            Switch::Idle if hearing.is_some_and(|hearing| hearing.awaits.is_some()) => None,
            Switch::Idle if !is_quiet || !server.state.is_passing() || !is_current => None,
            Switch::Idle => {
                let listened = &server.state.listened;
                let misses = hearing.is_none_or(|hearing| !hearing.missing(listened).is_empty());
                if !misses {
                    Some(Move::Quit)
                } else {
                    (listening.is_on() || may_found()).then_some(Move::Mark)
                }
            }
        }
    }

    /// Takes the step. Returns what is left to do for this poll, if the lease is over.
    pub(super) fn move_to_listener(&mut self, cx: &mut Context<'_>, step: Move) -> Option<Step> {
        let tenant = self.cell.tenant.clone();
        if step == Move::Found {
            return Some(self.part(cx, Fate::Listener));
        }
        let Phase::Leased(Leased { lease, talk, .. }) = &mut self.phase else { return None };
        let is_current = lease.is_current();
        let server = lease.server()?;
        let hearing = self.client.hearing.get_or_insert_with(|| Box::new(tenant.listening.enter(cx.waker())));
        let mut sql = Vec::new();
        match step {
            Move::Found => {}
            Move::Mark => {
                sql = [b"LISTEN \"", &*hearing.marker, b"\""].concat();
                hearing.mailbox.borrow_mut().switch_lost = false;
                hearing.switch = Switch::Marking;
            }
            Move::Join => {
                let channels = hearing.missing(&server.state.listened);
                let number = tenant.listening.join(hearing.place, &channels);
                hearing.switch = Switch::Asked { number, channels };
            }
            Move::Complete => {
                tenant.listening.complete(hearing.place);
                hearing.switch = Switch::Idle;
            }
            Move::Quit => {
                sql = b"UNLISTEN *".to_vec();
                server.state.hears_no_more();
                hearing.switch = Switch::Idle;
            }
            Move::Abort => {
                tenant.listening.abort(hearing.place);
                hearing.mailbox.borrow_mut().switch_lost = false;
                hearing.switch = Switch::Idle;
                let may_go_on = tenant.listening.is_on() || self.floor.pool.pins_left(&tenant).listens;
                // Nothing would make it try again: it stays, and counts.
                server.state.can_pass &= may_go_on && is_current;
            }
        }
        if !sql.is_empty() {
            let mut out = self.floor.take_assembly();
            talk.exchange.own_query(&sql, &mut out);
            // A simple query destroys the unnamed statement.
            server.state.unnamed_of = None;
            if talk.to_server.send(&mut server.stream, cx, &out).is_err() {
                // The next read tells.
                talk.to_server = Outbox::default();
            }
            self.floor.put_assembly(out);
        }
        if matches!(step, Move::Mark | Move::Quit | Move::Abort) {
            lease.count_pin();
        }
        None
    }

    /// The client's server becomes the listener of its tenant.
    pub(super) fn found_listener(&mut self, cx: &Context<'_>, lease: Lease) {
        let tenant = self.cell.tenant.clone();
        let hearing = self.client.hearing.get_or_insert_with(|| Box::new(tenant.listening.enter(cx.waker())));
        self.floor.pool.found_listener(&tenant, lease, hearing);
    }

    /// The lease is over, wherever the client was on its way. Who hears nothing does not cost anything.
    pub(super) fn leave_switch(&mut self) {
        let Some(hearing) = &mut self.client.hearing else { return };
        let listening = &self.cell.tenant.listening;
        match std::mem::replace(&mut hearing.switch, Switch::Idle) {
            Switch::Idle | Switch::Returning => {}
            Switch::Through => listening.complete(hearing.place),
            Switch::Marking | Switch::Asked { .. } | Switch::Missed => listening.abort(hearing.place),
        }
        if hearing.channels.is_empty() && hearing.awaits.is_none() {
            self.stop_hearing();
        }
    }

    pub(super) fn stop_hearing(&mut self) {
        if let Some(hearing) = self.client.hearing.take() {
            self.cell.tenant.listening.leave(hearing.place);
        }
    }

    /// Tells the listener what the client has given up.
    pub(super) fn note_channels_left(&mut self) {
        if let Some(hearing) = &mut self.client.hearing
            && std::mem::take(&mut hearing.shrunk)
        {
            let listening = &self.cell.tenant.listening;
            if hearing.switch == Switch::Through {
                // What it has just come over with is among what it may have given up.
                listening.complete(hearing.place);
                hearing.switch = Switch::Idle;
            }
            listening.keep_only(hearing.place, &hearing.channels);
        }
    }

    /// The end of a transaction is not told before the listener has told everything: asks it.
    pub(super) fn wait_for_listener(&mut self) {
        if let Some(hearing) = &mut self.client.hearing
            && hearing.sync.is_none()
        {
            let listener = hearing.mailbox.borrow().listener;
            hearing.sync = listener.map(|listener| {
                let number = self.cell.tenant.listening.sync(hearing.place);
                Return { number, listener }
            });
        }
    }

    /// Goes on with an answer that has waited for the listener.
    pub(super) fn resume_answer(&mut self, cx: &mut Context<'_>) -> Result<(), Stop> {
        if self.client.hearing.as_ref().is_none_or(|hearing| hearing.sync.is_none()) {
            return Ok(());
        }
        let Phase::Leased(Leased { lease, .. }) = &mut self.phase else { return Ok(()) };
        let bytes = lease.server().map(|server| std::mem::take(&mut server.carry)).unwrap_or_default();
        if bytes.is_empty() { Ok(()) } else { self.server_says(cx, &bytes) }
    }

    /// Brings what has come to where the end of a transaction lets it out.
    pub(super) fn fetch_notifications(&mut self) {
        if let Some(hearing) = &mut self.client.hearing
            && hearing.fetch()
        {
            self.cell.tenant.listening.strike(hearing.place);
        }
    }

    /// Writes the notifications that have come, if the client is between two transactions. Returns what is left to do if
    /// the session cannot go on.
    pub(super) fn deliver(&mut self, cx: &mut Context<'_>) -> Option<Step> {
        let hearing = self.client.hearing.as_ref()?;
        let overflown = {
            let mut mailbox = hearing.mailbox.borrow_mut();
            mailbox.set_waker(cx.waker());
            mailbox.overflown
        };
        let is_between = match &mut self.phase {
            Phase::Parked | Phase::Waiting(_) => true,
            Phase::Leased(Leased { lease, talk, .. }) => {
                lease.server().is_some_and(|server| talk.exchange.is_over(&server.state))
            }
            Phase::Replicating(_) | Phase::Closing(_) | Phase::Over => {
                self.stop_hearing();
                return None;
            }
        };
        if overflown {
            return Some(self.end_unread(cx));
        }
        if !is_between {
            return None;
        }
        if !self.to_client.is_empty() {
            match self.to_client.poll_drain(&mut self.stream, cx) {
                Poll::Ready(Ok(())) => {}
                // Whoever reads next finds it gone.
                Poll::Ready(Err(_)) | Poll::Pending => return None,
            }
        }
        self.fetch_notifications();
        let due = self.client.hearing.as_mut().map(|hearing| std::mem::take(&mut hearing.due))?;
        if !due.is_empty() {
            let _ = self.say(cx, &due);
        }
        None
    }

    fn end_unread(&mut self, cx: &mut Context<'_>) -> Step {
        self.stop_hearing();
        let error = unread();
        if matches!(self.phase, Phase::Leased(_)) {
            return self.stop(cx, Stop::Client(Box::new(error)));
        }
        self.fail(cx, &error)
    }
}

fn unread() -> ClientError {
    ClientError::fatal(
        SqlState::CONFIGURATION_LIMIT_EXCEEDED,
        Fault::Client,
        "notifications_unread",
        "too many notifications wait for this session",
    )
    .with_detail(format!(
        "More than {MAX_UNREAD_BYTES} bytes of them came while the client did not read, or was in a transaction."
    ))
    .with_hint("Connect again, LISTEN, and look at what was missed. Read all the time, and keep transactions short.")
}
