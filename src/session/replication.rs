//! A replication connection: a client and a server of its own, from login to end.
//!
//! Owns how it is opened (a lease whose server is given up for one that is logged in for replication), the relay, and its
//! end. Nothing is tracked but where messages begin and end, and whether a COPY runs: what the server is told is between
//! the two, and the server serves nobody afterwards. Must not know who may replicate (`front`).
//!
//! | server | asked to leave | time limits |
//! |---|---|---|
//! | idle | told, closed | as for a client that keeps its server |
//! | answers | when it has answered | as in a transaction |
//! | streams WAL or changes (COPY both ways) | told at the next message, closed | none: Postgres has its own |
//! | sends a base backup (COPY) | when it is sent | none |

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use super::arrival::Arrival;
use super::clocks::Keeps;
use super::greet::NotGreeted;
use super::life::{Phase, Session, Step, goodbye};
use super::outbox::Outbox;
use super::overdue::overdue;
use super::registry::{Whereabouts, Wish};
use crate::backend::{FailureClass, LoginError};
use crate::error::{ClientError, ClientFacing, Fault, Severity, SqlState};
use crate::pool::{Lease, Leftover, TenantState};
use crate::tenant::{Replication, TimeLimit};
use crate::track::{Extras, PinsLeft};
use crate::wire::walk::{Seen, Walk};

/// A client and its server.
#[derive(Debug)]
pub(super) struct Relay {
    lease: Lease,
    to_server: Outbox,
    /// What the client said before there was a session.
    early: Vec<u8>,
    from_client: Walk,
    from_server: Walk,
    state: State,
    _counted: Counted,
}

/// One replication connection of the tenant, for as long as this is there.
#[derive(Debug)]
struct Counted(Rc<TenantState>);

/// What is known of the conversation.
#[derive(Debug)]
struct State {
    /// Requests that end with a ReadyForQuery still to come.
    outstanding: u32,
    /// Requests that have been answered since somebody looked.
    answered: u32,
    copy: Copy,
    /// The transaction status of the last ReadyForQuery.
    status: u8,
    /// The newest message of the server.
    last: u8,
    /// The client has said Terminate.
    terminated: bool,
}

/// A COPY that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Copy {
    None,
    OneWay,
    BothWays,
}

/// Why it is over.
#[derive(Debug)]
enum End {
    ClientGone,
    ServerGone,
    Leaves,
    CutOff,
    Overdue(TimeLimit),
    /// One side claims a message of an impossible length.
    BadClient,
    BadServer,
}

/// A server for this client alone, logged in for replication with its settings. It counts as one that a client keeps.
pub(super) async fn open(
    arrival: &mut Arrival,
    kind: Replication,
    wishes: &Extras,
) -> Result<Lease, NotGreeted> {
    let (pool, tenant) = (arrival.admission.floor.pool.clone(), arrival.admission.cell.tenant.clone());
    let full = || {
        let mut counters = tenant.counters.borrow_mut();
        counters.refused_pins = counters.refused_pins.saturating_add(1);
        NotGreeted::Told(Box::new(no_room(pool.pins_left(&tenant))))
    };
    may_replicate(&tenant)?;
    if pool.pins_left(&tenant).left == 0 {
        return Err(full());
    }
    let mut lease = arrival.lease().await?;
    // Others may have come first while this one waited.
    if !lease.keep() {
        lease.give_back(Leftover::Nothing);
        return Err(full());
    }
    let mut relogin = lease.log_in_anew(tenant.profile().for_replication(&tenant.tenant(), kind, wishes));
    let logged_in = poll_fn(|cx| match Pin::new(&mut relogin).poll(cx) {
        Poll::Ready(Ok(Ok(lease))) => Poll::Ready(Ok(lease)),
        Poll::Ready(Ok(Err(error))) => Poll::Ready(Err(NotGreeted::Told(Box::new(not_logged_in(&error))))),
        Poll::Ready(Err(_)) => Poll::Ready(Err(NotGreeted::Gone)),
        Poll::Pending => arrival.poll_leaves(cx).map(Err),
    });
    // Two servers take part: one that goes, and one that comes.
    let lease = logged_in.await?;
    may_replicate(&tenant)?;
    let cell = &arrival.admission.cell;
    let (name, request_id) = (&tenant.tenant().name, cell.request_id);
    tracing::info!(customer_id = %name, request_id, replication = kind.as_str(), "replication connection opened");
    Ok(lease)
}

/// A reload may have taken it away since the client was asked for its password.
pub(super) fn may_replicate(tenant: &TenantState) -> Result<(), NotGreeted> {
    if tenant.tenant().replication { Ok(()) } else { Err(NotGreeted::Told(Box::new(no_longer()))) }
}

impl Session {
    /// Goes over to the relay. `early` is what the client said since its login.
    pub(super) fn begin_replication(&mut self, mut lease: Lease, early: Vec<u8>) {
        if let Some(server) = lease.server() {
            self.cell.set_whereabouts(Whereabouts::Replicating(server.id));
        }
        let state =
            State { outstanding: 0, answered: 0, copy: Copy::None, status: b'I', last: 0, terminated: false };
        let (from_client, from_server) = (Walk::default(), Walk::default());
        let to_server = Outbox::default();
        let _counted = Counted::new(self.cell.tenant.clone());
        let relay = Relay { lease, to_server, early, from_client, from_server, state, _counted };
        self.cell.set_keeps(relay.keeps());
        self.phase = Phase::Replicating(Box::new(relay));
    }

    pub(super) fn poll_replicating(&mut self, cx: &mut Context<'_>) -> Step {
        for _ in 0..MAX_PASSES {
            let Phase::Replicating(relay) = &mut self.phase else { return Step::Again };
            match self.cell.wish() {
                Wish::Nothing | Wish::CancelQueued => {}
                Wish::Leave if relay.may_leave() => return self.end_replication(cx, &End::Leaves),
                Wish::Leave => {}
                Wish::Overdue(limit) => return self.end_replication(cx, &End::Overdue(limit)),
                Wish::LeaveNow => return self.end_replication(cx, &End::CutOff),
            }
            let moved = self.pass_on(cx);
            self.note_replication();
            match moved {
                Ok(true) => {}
                Ok(false) => return Step::Wait,
                Err(end) => return self.end_replication(cx, &end),
            }
        }
        Step::GiveWay
    }

    /// One pass over both directions; whether anything moved.
    fn pass_on(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        let mut moved = false;
        let Phase::Replicating(relay) = &mut self.phase else { return Ok(false) };
        if let Some(server) = relay.lease.server()
            && relay.to_server.has_more(&server.stream)
        {
            match relay.to_server.poll_drain(&mut server.stream, cx) {
                Poll::Ready(Ok(())) => moved = true,
                // The server may have said why; what it said is read below.
                Poll::Ready(Err(_)) => relay.to_server = Outbox::default(),
                Poll::Pending => {}
            }
        }
        let takes_more = match self.to_client.poll_drain(&mut self.stream, cx) {
            Poll::Ready(Ok(())) => true,
            Poll::Ready(Err(_)) => return Err(End::ClientGone),
            Poll::Pending => false,
        };
        let mut scratch = self.floor.take_scratch();
        let from_server = if takes_more { self.hear_server(cx, &mut scratch) } else { Ok(false) };
        let from_client = from_server.and_then(|read| Ok(self.hear_client(cx, &mut scratch)? || read));
        self.floor.put_scratch(scratch);
        Ok(from_client? || moved)
    }

    fn hear_server(&mut self, cx: &mut Context<'_>, scratch: &mut [u8]) -> Result<bool, End> {
        let Phase::Replicating(relay) = &mut self.phase else { return Ok(false) };
        let Some(server) = relay.lease.server() else { return Err(End::ServerGone) };
        let bytes = match server.stream.poll_read(cx, scratch) {
            Poll::Pending => return Ok(false),
            Poll::Ready(Ok(0) | Err(_)) => return Err(End::ServerGone),
            Poll::Ready(Ok(read)) => scratch.get(..read).unwrap_or_default(),
        };
        let leaves = self.cell.wish() == Wish::Leave;
        let walked = relay.walk_answers(bytes, leaves).map_err(|()| End::BadServer)?;
        let heard = bytes.get(..walked).unwrap_or_default();
        self.say(cx, heard).map_err(|_| End::ClientGone)?;
        Ok(true)
    }

    fn hear_client(&mut self, cx: &mut Context<'_>, scratch: &mut [u8]) -> Result<bool, End> {
        let Phase::Replicating(relay) = &mut self.phase else { return Ok(false) };
        if !relay.to_server.is_empty() || relay.state.terminated {
            return Ok(false);
        }
        let early = std::mem::take(&mut relay.early);
        let bytes = if early.is_empty() {
            match self.stream.poll_read(cx, scratch) {
                Poll::Pending => return Ok(false),
                Poll::Ready(Ok(0) | Err(_)) => return Err(End::ClientGone),
                Poll::Ready(Ok(read)) => scratch.get(..read).unwrap_or_default(),
            }
        } else {
            &early
        };
        let Relay { lease, to_server, from_client, state, .. } = &mut **relay;
        from_client.along(bytes, false, |seen| state.note_request(seen)).map_err(|_| End::BadClient)?;
        let Some(server) = lease.server() else { return Err(End::ServerGone) };
        if to_server.send(&mut server.stream, cx, bytes).is_err() {
            // The server may have said why before it went: the next read tells.
            *to_server = Outbox::default();
        }
        self.count_in(bytes.len());
        Ok(true)
    }

    /// Lets the time limits, cancels and drains know what goes on.
    fn note_replication(&mut self) {
        let Phase::Replicating(relay) = &mut self.phase else { return };
        self.cell.set_busy(relay.state.outstanding > 0);
        self.cell.set_keeps(relay.keeps());
        match std::mem::take(&mut relay.state.answered) {
            0 => {}
            answered => {
                self.cell.note_answers(answered);
                if relay.state.status == b'I' {
                    self.cell.note_transaction();
                }
            }
        }
    }

    /// The server goes in any case; the client is told why if it can be.
    fn end_replication(&mut self, cx: &mut Context<'_>, end: &End) -> Step {
        let Phase::Replicating(relay) = std::mem::replace(&mut self.phase, Phase::Over) else {
            return Step::Again;
        };
        let Relay { lease, from_server, state, .. } = *relay;
        lease.give_back(Leftover::Work);
        self.cell.set_whereabouts(Whereabouts::Parked);
        let error = match end {
            End::ClientGone => return self.end(),
            End::ServerGone if state.terminated || state.last == b'E' => None,
            End::ServerGone => Some(server_ended()),
            End::Leaves | End::CutOff
                if !self.tenant().tenant().replication && !self.tenant().is_removed() =>
            {
                Some(no_longer())
            }
            End::Leaves | End::CutOff => Some(goodbye(&self.floor, &self.cell)),
            End::Overdue(limit) => {
                self.count_overdue(*limit);
                Some(overdue(
                    *limit,
                    self.tenant().time_limits().of(*limit),
                    Some("a replication connection"),
                ))
            }
            End::BadClient => Some(bad_length()),
            End::BadServer => {
                let (name, request_id) = (&self.tenant().tenant().name, self.cell.request_id);
                tracing::warn!(customer_id = %name, request_id, reason = "server_protocol", "server closed");
                None
            }
        };
        match error {
            Some(error) if from_server.is_between() => self.fail(cx, &error),
            // An error in the middle of a message would be taken for a part of it.
            told => {
                self.log_end(told.map_or("server_ended", |error| error.reason));
                self.phase = Phase::closing();
                Step::Again
            }
        }
    }
}

impl Counted {
    fn new(tenant: Rc<TenantState>) -> Self {
        let count = &tenant.clients.replicating;
        count.set(count.get().saturating_add(1));
        Self(tenant)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let count = &self.0.clients.replicating;
        count.set(count.get().saturating_sub(1));
    }
}

impl Relay {
    /// Notes what the server says. Returns how much of it the client is to hear: all, unless it `leaves` before that.
    fn walk_answers(&mut self, bytes: &[u8], leaves: bool) -> Result<usize, ()> {
        let mut at = 0;
        while at < bytes.len() && !(leaves && self.may_leave()) {
            let Self { from_server, state, .. } = self;
            let rest = bytes.get(at..).unwrap_or_default();
            // One message at a time: where one ends it may be over.
            let first_only = leaves && !from_server.is_between();
            let rest = if leaves && !first_only { rest.get(..1).unwrap_or_default() } else { rest };
            let walked = from_server.along(rest, first_only, |seen| state.note_answer(seen)).map_err(drop)?;
            at = at.saturating_add(walked);
        }
        Ok(at)
    }

    /// Whether nothing is lost, and no message cut, if it ends here.
    fn may_leave(&self) -> bool {
        let idle = self.state.is_idle() && self.from_client.is_between() && self.early.is_empty();
        self.from_server.is_between() && (idle || self.state.copy == Copy::BothWays)
    }

    fn keeps(&self) -> Option<Keeps> {
        match self.state.copy {
            Copy::BothWays | Copy::OneWay => Some(Keeps::Stream),
            Copy::None => self.state.is_idle().then_some(Keeps::Pin),
        }
    }
}

impl State {
    fn is_idle(&self) -> bool {
        self.outstanding == 0 && self.status == b'I'
    }

    fn note_request(&mut self, seen: Seen) {
        match seen.tag {
            b'Q' | b'F' | b'S' => self.outstanding = self.outstanding.saturating_add(1),
            b'X' => self.terminated = true,
            _ => {}
        }
    }

    fn note_answer(&mut self, seen: Seen) {
        self.last = seen.tag;
        match seen.tag {
            b'W' => self.copy = Copy::BothWays,
            b'G' | b'H' => self.copy = Copy::OneWay,
            b'Z' => {
                self.copy = Copy::None;
                self.outstanding = self.outstanding.saturating_sub(1);
                self.answered = self.answered.saturating_add(1);
                self.status = seen.first.unwrap_or(b'I');
            }
            _ => {}
        }
    }
}

fn no_room(limit: PinsLeft) -> ClientError {
    ClientError::fatal(
        SqlState::CONFIGURATION_LIMIT_EXCEEDED,
        Fault::Client,
        "pin_limit",
        "a replication connection would keep a server, and no more servers may be kept",
    )
    .with_detail(limit.detail())
    .with_hint(
        "End other replication connections, or what keeps other clients. Or ask the operator for a higher limit \
         (limits.ceiling of the tenant).",
    )
}

fn not_logged_in(error: &LoginError) -> ClientError {
    let told = ClientError { severity: Severity::Fatal, ..error.to_client() };
    match error.class() {
        FailureClass::Unavailable => told,
        FailureClass::ServerFull | FailureClass::Rejected => ClientError {
            message: "the database server refuses a replication connection for this tenant".into(),
            hint: Some(
                "Tell the operator: the role needs the attribute REPLICATION, pg_hba.conf a line for it, and \
                 max_wal_senders a free place."
                    .into(),
            ),
            ..told
        },
    }
}

fn no_longer() -> ClientError {
    ClientError::fatal(
        SqlState::ADMIN_SHUTDOWN,
        Fault::Proxy,
        "replication",
        "terminating connection because replication is no longer allowed for this tenant",
    )
}

fn server_ended() -> ClientError {
    ClientError::fatal(
        SqlState::CONNECTION_FAILURE,
        Fault::Server,
        "server_lost",
        "the connection to the database server was lost",
    )
    .with_detail("The server ended a replication connection.")
    .with_hint("Connect again.")
}

fn bad_length() -> ClientError {
    ClientError::fatal(
        SqlState::PROTOCOL_VIOLATION,
        Fault::Client,
        "protocol_violation",
        "invalid message length",
    )
}

/// Passes of one poll.
const MAX_PASSES: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> State {
        State { outstanding: 0, answered: 0, copy: Copy::None, status: b'I', last: 0, terminated: false }
    }

    #[test]
    fn a_stream_begins_with_the_copy_and_ends_with_ready() {
        let mut state = state();
        let seen = |tag| Seen { tag, first: Some(b'I') };
        assert!(state.is_idle());
        state.note_request(seen(b'Q'));
        assert!(!state.is_idle());
        for (tag, copy) in
            [(b'W', Copy::BothWays), (b'd', Copy::BothWays), (b'c', Copy::BothWays), (b'C', Copy::BothWays)]
        {
            state.note_answer(seen(tag));
            assert_eq!(state.copy, copy);
            state.note_request(seen(b'd'));
        }
        state.note_answer(seen(b'Z'));
        assert_eq!((state.copy, state.is_idle(), state.answered), (Copy::None, true, 1));
        state.note_request(seen(b'Q'));
        state.note_answer(Seen { tag: b'Z', first: Some(b'T') });
        assert!(!state.is_idle(), "in a transaction");
        state.note_request(Seen { tag: b'X', first: None });
        assert!(state.terminated);
    }
}
