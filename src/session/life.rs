//! One client after its greeting: parked, waiting, leased, closing.
//!
//! Owns the state of the session and what happens while it has no server. The relay is in `leased`, and for replication in
//! `replication`.
//!
//! | state | client speaks | server speaks | asked to leave | over a time limit | client gone |
//! |---|---|---|---|---|---|
//! | parked | asks for a lease | - | 57P01, closing | 57P05, closing | ends |
//! | waiting | kept, bounded | - | 57P01, closing | - | leaves the queue, ends |
//! | leased | forwarded | forwarded | after the transaction | told, server cleaned or closed | server cleaned or closed |
//! | replicating | forwarded | forwarded | see `replication` | told, server closed | server closed |
//! | closing | thrown away, for a few seconds | - | - | - | ends |

use std::any::Any;
use std::borrow::Cow;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use super::admission::Admission;
use super::closing::Closing;
use super::expiry::token_expired;
use super::floor::Floor;
use super::leased::Leased;
use super::outbox::Outbox;
use super::registry::{ClientCell, Whereabouts, Wish};
use super::replication::Relay;
use crate::error::{ClientError, ClientFacing, Fault, Severity, SqlState};
use crate::ids::ServerId;
use crate::net::{Stream, give_way};
use crate::pool::{Acquired, Refusal, TenantState, Ticket};
use crate::tenant::{PoolMode, Target};
use crate::track::{ClientState, is_worth_a_lease, skip_request, skip_to_sync, unleased_bytes};
use crate::wire::messages;

/// A logged-in client. A future that ends when the client is gone.
#[derive(Debug)]
pub struct Session {
    pub(super) stream: Stream,
    pub(super) floor: Rc<Floor>,
    pub(super) cell: Rc<ClientCell>,
    pub(super) client: ClientState,
    pub(super) mode: PoolMode,
    /// Where it has asked its transactions to go.
    pub(super) target: Target,
    /// Bytes of the client that could not be dealt with yet: the beginning of a message, or what waits for a server.
    pub(super) carry: Vec<u8>,
    /// Nobody has looked at `carry` since the session had no server.
    pub(super) carry_is_fresh: bool,
    pub(super) to_client: Outbox,
    pub(super) phase: Phase,
    pub(super) last_server: Option<ServerId>,
    /// Bytes still to come of a message that is thrown away.
    discard: usize,
    /// The current request was refused: everything up to its Sync is thrown away.
    skipping: bool,
    /// The client's place among all clients.
    place: Option<Box<dyn Any + Send>>,
}

/// Where a session is.
#[derive(Debug)]
pub(super) enum Phase {
    Parked,
    Waiting(Ticket),
    Leased(Leased),
    Replicating(Box<Relay>),
    /// The last words are on their way.
    Closing(Closing),
    Over,
}

impl Phase {
    pub(super) fn closing() -> Self {
        Self::Closing(Closing::default())
    }
}

/// What one step of a session came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Something else is to be done now.
    Again,
    /// There is more to do, but others have waited for long enough.
    GiveWay,
    /// Nothing can be done until a waker is called.
    Wait,
}

impl Session {
    /// A session that has been greeted. `carry` is what the client said since.
    #[must_use]
    pub(super) fn new(stream: Stream, admission: Admission, client: ClientState, mode: PoolMode) -> Self {
        let (floor, cell) = admission.into_parts();
        cell.set_busy(false);
        Self {
            stream,
            floor,
            cell,
            client,
            mode,
            target: Target::Primary,
            carry: Vec::new(),
            carry_is_fresh: false,
            to_client: Outbox::default(),
            phase: Phase::Parked,
            last_server: None,
            discard: 0,
            skipping: false,
            place: None,
        }
    }

    /// Hands over what the client said behind its login. An empty buffer is not kept, however much room it has.
    #[must_use]
    pub(super) fn with_carry(mut self, carry: &[u8]) -> Self {
        self.carry_is_fresh = !carry.is_empty();
        self.carry = carry.to_vec();
        self
    }

    /// Its transactions go there.
    #[must_use]
    pub(super) const fn going_to(mut self, target: Target) -> Self {
        self.target = target;
        self
    }

    /// Keeps `place` for as long as the session lives. A part of the session, because a future around it would hold the
    /// session twice.
    #[must_use]
    pub fn with_place(mut self, place: Box<dyn Any + Send>) -> Self {
        self.place = Some(place);
        self
    }

    pub(super) fn tenant(&self) -> &Rc<TenantState> {
        &self.cell.tenant
    }

    fn poll_parked(&mut self, cx: &mut Context<'_>) -> Step {
        match self.cell.wish() {
            Wish::Nothing | Wish::CancelQueued => {}
            Wish::Leave | Wish::LeaveNow => return self.say_goodbye(cx),
            Wish::Overdue(limit) => return self.end_overdue(cx, limit),
        }
        if !self.to_client.is_empty() {
            match self.to_client.poll_drain(&mut self.stream, cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return self.end(),
                Poll::Pending => return Step::Wait,
            }
        }
        let mut scratch = self.floor.take_scratch();
        let step = match self.stream.poll_read(cx, &mut scratch) {
            Poll::Pending if self.carry_is_fresh => self.take_unleased(cx, &[]),
            Poll::Pending => Step::Wait,
            Poll::Ready(Ok(0) | Err(_)) => self.end(),
            Poll::Ready(Ok(read)) => {
                self.count_in(read);
                self.take_unleased(cx, scratch.get(..read).unwrap_or_default())
            }
        };
        self.floor.put_scratch(scratch);
        step
    }

    /// Bytes from a client without a server.
    fn take_unleased(&mut self, cx: &mut Context<'_>, read: &[u8]) -> Step {
        let dropped = self.discard.min(read.len());
        self.discard = self.discard.saturating_sub(dropped);
        if self.discard > 0 {
            return Step::Again;
        }
        let read = read.get(dropped..).unwrap_or_default();
        if self.carry.is_empty() {
            return self.unleased(cx, Cow::Borrowed(read));
        }
        let mut bytes = std::mem::take(&mut self.carry);
        bytes.extend_from_slice(read);
        self.unleased(cx, Cow::Owned(bytes))
    }

    fn unleased(&mut self, cx: &mut Context<'_>, bytes: Cow<'_, [u8]>) -> Step {
        self.carry_is_fresh = false;
        let mut input = &*bytes;
        let mut answers = Vec::new();
        if self.skipping {
            match skip_to_sync(input) {
                Ok(skipped) => {
                    self.discard = skipped.discard;
                    input = input.get(skipped.consumed..).unwrap_or_default();
                    if skipped.ended {
                        self.skipping = false;
                        messages::put_ready_for_query(&mut answers, b'I');
                    }
                }
                Err(violation) => return self.fail(cx, &violation.to_client()),
            }
        }
        let (wants_lease, terminated) = if self.skipping {
            (false, input.first() == Some(&b'X'))
        } else {
            match self.look_at(&mut input, &mut answers) {
                Ok(found) => found,
                Err(error) => return self.fail(cx, &error),
            }
        };
        if !answers.is_empty() && self.say(cx, &answers).is_err() || terminated {
            return self.end();
        }
        if !wants_lease {
            let done = bytes.len().saturating_sub(input.len());
            // What is kept stays where it is: a long message that comes in small pieces is not copied again for each.
            self.carry = match bytes {
                Cow::Owned(mut bytes) => {
                    bytes.drain(..done);
                    bytes
                }
                Cow::Borrowed(_) => input.to_vec(),
            };
            return Step::Again;
        }
        self.ask_for_lease(cx, input)
    }

    /// Returns whether a server is needed, and whether the client said Terminate.
    fn look_at(&mut self, input: &mut &[u8], answers: &mut Vec<u8>) -> Result<(bool, bool), ClientError> {
        let done = unleased_bytes(input, answers).map_err(|violation| violation.to_client())?;
        self.discard = done.discard;
        *input = input.get(done.consumed..).unwrap_or_default();
        if done.terminated || input.is_empty() {
            return Ok((false, done.terminated));
        }
        let worth = is_worth_a_lease(input).map_err(|violation| violation.to_client())?;
        Ok((worth, false))
    }

    fn ask_for_lease(&mut self, cx: &mut Context<'_>, input: &[u8]) -> Step {
        let acquired = self.acquire(input);
        self.take_up(cx, acquired, input)
    }

    /// What became of the wish for a server.
    fn take_up(&mut self, cx: &mut Context<'_>, acquired: Acquired, input: &[u8]) -> Step {
        match acquired {
            Acquired::Now(lease) => {
                self.floor.observe_wait(self.tenant(), None);
                self.begin_lease(cx, lease, input)
            }
            Acquired::Queued(ticket) => {
                self.carry = input.to_vec();
                self.cell.set_whereabouts(Whereabouts::Waiting);
                self.phase = Phase::Waiting(ticket);
                Step::Again
            }
            Acquired::Refused(refusal) => {
                self.carry = input.to_vec();
                self.refuse(cx, &refusal)
            }
        }
    }

    fn poll_waiting(&mut self, cx: &mut Context<'_>) -> Step {
        let Phase::Waiting(ticket) = &mut self.phase else { return Step::Again };
        match self.cell.wish() {
            Wish::Nothing => {}
            Wish::Leave | Wish::LeaveNow => return self.say_goodbye(cx),
            Wish::Overdue(limit) => return self.end_overdue(cx, limit),
            Wish::CancelQueued => {
                self.cell.clear_wish();
                self.park();
                return self.refuse(cx, &Refusal::Cancelled);
            }
        }
        if let Poll::Ready(outcome) = ticket.poll(cx) {
            let (tenant, since) = (ticket.tenant().clone(), ticket.since());
            let waited = self.floor.pool.clock().now().micros_since(ticket.since());
            self.floor.observe_wait(&self.cell.tenant, Some((ticket.cause(), waited)));
            self.park();
            return match outcome {
                Ok(lease) => {
                    let acquired = self.check_fitness(lease, since);
                    let input = std::mem::take(&mut self.carry);
                    match acquired {
                        Acquired::Now(lease) => self.begin_lease(cx, lease, &input),
                        other => self.take_up(cx, other, &input),
                    }
                }
                Err(refusal) => {
                    let Some(acquired) = self.acquire_instead(&tenant, &refusal, since) else {
                        return self.refuse(cx, &refusal);
                    };
                    let input = std::mem::take(&mut self.carry);
                    self.take_up(cx, acquired, &input)
                }
            };
        }
        self.listen_while_waiting(cx)
    }

    /// Notices a client that goes away while it waits. What else it says is kept, up to a limit.
    fn listen_while_waiting(&mut self, cx: &mut Context<'_>) -> Step {
        if self.carry.len() >= MAX_WAITING_BYTES {
            return Step::Wait;
        }
        let mut scratch = self.floor.take_scratch();
        let step = match self.stream.poll_read(cx, &mut scratch) {
            Poll::Pending => Step::Wait,
            Poll::Ready(Ok(0) | Err(_)) => self.end(),
            Poll::Ready(Ok(read)) => {
                self.count_in(read);
                self.carry.extend_from_slice(scratch.get(..read).unwrap_or_default());
                Step::Again
            }
        };
        self.floor.put_scratch(scratch);
        step
    }

    /// Answers the request in `carry` with an error; the session goes on unless the error is fatal.
    fn refuse(&mut self, cx: &mut Context<'_>, refusal: &Refusal) -> Step {
        self.floor.count_refusal(self.tenant(), refusal);
        let error = refusal.to_client();
        if error.severity == Severity::Fatal {
            return self.fail(cx, &error);
        }
        match skip_request(&self.carry) {
            Ok(skipped) => {
                self.carry.drain(..skipped.consumed);
                if self.carry.is_empty() {
                    self.carry = Vec::new();
                }
                self.carry_is_fresh = !self.carry.is_empty();
                self.discard = skipped.discard;
                self.skipping = !skipped.ended;
                let mut answer = Vec::new();
                messages::put_error(&mut answer, &error);
                if skipped.ended {
                    messages::put_ready_for_query(&mut answer, b'I');
                }
                if self.say(cx, &answer).is_err() { self.end() } else { Step::Again }
            }
            Err(violation) => self.fail(cx, &violation.to_client()),
        }
    }

    /// Sends a fatal error and closes.
    pub(super) fn fail(&mut self, cx: &mut Context<'_>, error: &ClientError) -> Step {
        self.log_end(error.reason);
        let mut words = Vec::new();
        messages::put_error(&mut words, error);
        self.fail_with(cx, &words)
    }

    pub(super) fn log_end(&self, reason: &'static str) {
        let (name, request_id) = (&self.tenant().tenant().name, self.cell.request_id);
        tracing::info!(customer_id = %name, request_id, reason, "session ended by the proxy");
    }

    /// Sends last words and closes.
    pub(super) fn fail_with(&mut self, cx: &mut Context<'_>, words: &[u8]) -> Step {
        self.carry = Vec::new();
        self.phase = Phase::closing();
        if self.say(cx, words).is_err() { self.end() } else { Step::Again }
    }

    pub(super) fn say_goodbye(&mut self, cx: &mut Context<'_>) -> Step {
        let error = goodbye(&self.floor, &self.cell);
        self.fail(cx, &error)
    }

    pub(super) fn say(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> std::io::Result<()> {
        self.count_out(bytes.len());
        self.to_client.send(&mut self.stream, cx, bytes)
    }

    /// As [`Self::say`], without waiting for what others say.
    pub(super) fn say_now(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> std::io::Result<()> {
        self.count_out(bytes.len());
        self.to_client.send_now(&mut self.stream, cx, bytes)
    }

    pub(super) fn park(&mut self) {
        self.cell.set_whereabouts(Whereabouts::Parked);
        self.phase = Phase::Parked;
    }

    pub(super) fn end(&mut self) -> Step {
        self.phase = Phase::Over;
        Step::Again
    }

    pub(super) fn count_in(&self, bytes: usize) {
        self.cell.note_words();
        let mut counters = self.cell.tenant.counters.borrow_mut();
        counters.bytes_in = counters.bytes_in.saturating_add(bytes as u64);
    }

    pub(super) fn count_out(&self, bytes: usize) {
        let mut counters = self.cell.tenant.counters.borrow_mut();
        counters.bytes_out = counters.bytes_out.saturating_add(bytes as u64);
    }
}

impl Future for Session {
    type Output = ();

    /// Bounded: a session that always finds something to do yields now and then.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let session = self.get_mut();
        session.cell.set_waker(cx.waker());
        session.to_client.look(&session.stream);
        for _ in 0..MAX_STEPS {
            let step = session.deliver(cx);
            let step = match session.phase {
                _ if step.is_some() => step.unwrap_or(Step::Again),
                Phase::Parked => session.poll_parked(cx),
                Phase::Waiting(_) => session.poll_waiting(cx),
                Phase::Leased(_) => session.poll_leased(cx),
                Phase::Replicating(_) => session.poll_replicating(cx),
                Phase::Closing(_) => session.poll_closing(cx),
                Phase::Over => return Poll::Ready(()),
            };
            match step {
                Step::Again => {}
                Step::Wait => return Poll::Pending,
                Step::GiveWay => break,
            }
        }
        give_way(cx);
        Poll::Pending
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.stop_hearing();
        self.floor.registry.remove(&self.cell);
    }
}

/// What a client is told that has been asked to leave.
pub(super) fn goodbye(floor: &Floor, cell: &ClientCell) -> ClientError {
    if floor.registry.is_expired(cell) {
        return token_expired();
    }
    if cell.tenant.is_removed() {
        return ClientError::fatal(
            SqlState::ADMIN_SHUTDOWN,
            Fault::Proxy,
            "tenant_removed",
            "terminating connection because the tenant was removed",
        );
    }
    if !floor.registry.is_closed() {
        return ClientError::fatal(
            SqlState::ADMIN_SHUTDOWN,
            Fault::Proxy,
            "moved",
            "terminating connection because the tenant's configuration has changed",
        )
        .with_hint("Connect again.");
    }
    ClientError::fatal(
        SqlState::ADMIN_SHUTDOWN,
        Fault::Proxy,
        "draining",
        "terminating connection because the proxy is shutting down",
    )
    .with_hint("Connect again: another instance may be up already.")
}

/// Steps of one poll.
const MAX_STEPS: usize = 32;
/// What a client may say while it waits; beyond that it is not read.
pub(super) const MAX_WAITING_BYTES: usize = 256 * 1024;
