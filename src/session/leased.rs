//! The relay: a client and the server it holds.
//!
//! Owns the two directions and the end of a lease. Each pass reads one side into the worker's scratch buffer, lets
//! `track` look at the headers, and writes to the other side from where the bytes are; what a short write leaves over
//! stops the reading of that direction. A transaction costs four data syscalls: read client, write server, read
//! server, write client.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

use super::clocks::Keeps;
use super::life::{MAX_WAITING_BYTES, Phase, Session, Step};
use super::outbox::Outbox;
use super::registry::{Whereabouts, Wish};
use crate::error::{ClientError, ClientFacing};
use crate::pool::Lease;
use crate::tenant::{PoolMode, TimeLimit};
use crate::track::{Exchange, ServerFault, ServerState, Sink, Turn, Violation};

/// What a lease needs besides the server; kept by the floor between leases.
#[derive(Debug, Default)]
pub(super) struct Conversation {
    pub(super) exchange: Exchange,
    pub(super) to_server: Outbox,
    /// How long the server is still kept for a client that may ask what a sequence gave it; made when that begins.
    linger: Option<Linger>,
}

impl Conversation {
    pub(super) fn clear(&mut self) {
        self.exchange.clear();
        self.to_server = Outbox::default();
        self.linger = None;
    }
}

/// Until when a client is expected to ask what a sequence gave it.
#[derive(Debug)]
struct Linger {
    sleep: Pin<Box<Sleep>>,
    /// Behind which draw.
    behind: u32,
    /// Since when others wait for a client that draws all the time, and behind which question.
    since: (Instant, u32),
}

impl Linger {
    /// Behind the last draw; `earlier` if others waited behind an earlier one already.
    fn new(server: &ServerState, earlier: Option<Self>) -> Self {
        let since = earlier.map_or((Instant::now(), server.asks), |earlier| earlier.since);
        Self { sleep: Box::pin(sleep(LINGER)), behind: server.draws, since }
    }

    /// A client that draws all the time must not keep its server from others for ever. It loses it behind a question, if
    /// it asks any that can be seen to stand behind a draw: what it was given is asked for once.
    fn is_over(&self, server: &ServerState, others_wait: bool) -> bool {
        let (now, (since, asks)) = (Instant::now(), self.since);
        let may_end = server.has_asked || server.asks == asks;
        let longest = if may_end { LONGEST_LINGER } else { 2 * LONGEST_LINGER };
        self.sleep.deadline() <= now || others_wait && now.duration_since(since) >= longest
    }
}

/// A lease at work.
#[derive(Debug)]
pub(super) struct Leased {
    pub(super) lease: Lease,
    pub(super) talk: Box<Conversation>,
    /// There are whole messages in `carry`: they are dealt with when the server has been sent what came before.
    pub(super) paused: bool,
    /// What is in `carry` is dealt with when the server has answered more.
    pub(super) held: bool,
    /// The client has said Terminate while answers were outstanding: they are waited for, then it ends.
    pub(super) leaving: bool,
}

/// What one direction did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moved {
    Some,
    Nothing,
}

/// Why a lease cannot go on.
#[derive(Debug)]
pub(super) enum Stop {
    /// The client is gone, or has said Terminate.
    ClientGone,
    /// The proxy does not wait any longer.
    CutOff,
    /// The client is over a limit.
    Overdue(TimeLimit),
    /// The client keeps the server, and too many are kept.
    Beyond,
    /// The client broke the protocol.
    Client(Box<ClientError>),
    /// The server is gone.
    ServerGone,
    /// The server broke the protocol, or could not be prepared for the client.
    Server(ServerFault),
}

impl Session {
    /// Takes a lease and forwards what the client has said.
    pub(super) fn begin_lease(&mut self, cx: &mut Context<'_>, mut lease: Lease, input: &[u8]) -> Step {
        let mut talk = self.floor.take_conversation();
        let mut out = self.floor.take_assembly();
        let (cluster, is_home) = (lease.tenant().cluster(), Rc::ptr_eq(lease.tenant(), self.tenant()));
        if let Some(server) = lease.server() {
            self.cell.set_whereabouts(Whereabouts::Leasing(cluster, server.id));
            if is_home {
                self.last_server = Some(server.id);
            } else {
                let mut counters = self.cell.tenant.counters.borrow_mut();
                counters.replica_leases = counters.replica_leases.saturating_add(1);
            }
            if talk.exchange.begin(&self.client, &mut server.state, &mut out) {
                let mut counters = self.cell.tenant.counters.borrow_mut();
                counters.resets = counters.resets.saturating_add(1);
            }
        }
        self.phase = Phase::Leased(Leased { lease, talk, paused: false, held: false, leaving: false });
        let fed = self.feed(cx, input, &mut out);
        self.floor.put_assembly(out);
        match fed {
            // It would begin again for ever. In session mode a lease begins with the login.
            Ok(0) if self.mode == PoolMode::Transaction && !self.is_held() => {
                self.stop(cx, Stop::Client(Box::new(not_dealt_with(input))))
            }
            Ok(consumed) => {
                self.carry.extend_from_slice(input.get(consumed..).unwrap_or_default());
                Step::Again
            }
            Err(stop) => self.stop(cx, stop),
        }
    }

    /// Whether what the client says next waits for answers of the server.
    const fn is_held(&self) -> bool {
        matches!(self.phase, Phase::Leased(Leased { held: true, .. }))
    }

    pub(super) fn poll_leased(&mut self, cx: &mut Context<'_>) -> Step {
        match self.cell.wish() {
            Wish::Nothing | Wish::CancelQueued | Wish::Leave => {}
            Wish::Overdue(limit) => return self.stop(cx, Stop::Overdue(limit)),
            Wish::LeaveNow => return self.stop(cx, Stop::CutOff),
        }
        for _ in 0..MAX_PASSES {
            let moved = match self.pass(cx) {
                Ok(moved) => moved,
                Err(stop) => return self.stop(cx, stop),
            };
            if let Some(due) = self.next_move() {
                if let Some(step) = self.move_to_listener(cx, due) {
                    return step;
                }
                continue;
            }
            if self.is_beyond() {
                return self.stop(cx, Stop::Beyond);
            }
            if self.is_over() {
                return self.end_lease(cx);
            }
            if moved == Moved::Nothing {
                return self.poll_linger(cx);
            }
        }
        Step::GiveWay
    }

    /// Waits for the end of a lease that lingers.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Step {
        let Phase::Leased(Leased { talk, .. }) = &mut self.phase else { return Step::Wait };
        let is_over = talk.linger.as_mut().is_some_and(|linger| linger.sleep.as_mut().poll(cx).is_ready());
        if is_over && self.is_over() { self.end_lease(cx) } else { Step::Wait }
    }

    /// One pass over both directions.
    fn pass(&mut self, cx: &mut Context<'_>) -> Result<Moved, Stop> {
        let mut moved = Moved::Nothing;
        if let Phase::Leased(Leased { lease, talk, .. }) = &mut self.phase
            && let Some(server) = lease.server()
            && talk.to_server.has_more(&server.stream)
        {
            match talk.to_server.poll_drain(&mut server.stream, cx) {
                Poll::Ready(Ok(())) => moved = Moved::Some,
                // The server may have said why; what it said is read below.
                Poll::Ready(Err(_)) => talk.to_server = Outbox::default(),
                Poll::Pending => {}
            }
        }
        if self.client_takes_more(cx)? {
            self.fetch_notifications();
            self.resume_answer(cx)?;
            let mut scratch = self.floor.take_scratch();
            let read = self.read_server(cx, &mut scratch);
            self.floor.put_scratch(scratch);
            if read? == Moved::Some {
                moved = Moved::Some;
            }
        }
        if self.is_beyond() || self.is_over() || self.next_move().is_some() {
            return Ok(Moved::Some);
        }
        let mut scratch = self.floor.take_scratch();
        let read = self.read_client(cx, &mut scratch);
        self.floor.put_scratch(scratch);
        if read? == Moved::Some {
            moved = Moved::Some;
        }
        Ok(moved)
    }

    /// Writes to the client what waits for it. Returns whether all of it went.
    fn client_takes_more(&mut self, cx: &mut Context<'_>) -> Result<bool, Stop> {
        if self.to_client.is_empty() {
            return Ok(true);
        }
        match self.to_client.poll_drain(&mut self.stream, cx) {
            Poll::Ready(Ok(())) => Ok(true),
            Poll::Ready(Err(_)) => Err(Stop::ClientGone),
            Poll::Pending => Ok(false),
        }
    }

    fn read_server(&mut self, cx: &mut Context<'_>, scratch: &mut [u8]) -> Result<Moved, Stop> {
        let Phase::Leased(Leased { lease, .. }) = &mut self.phase else { return Ok(Moved::Nothing) };
        let Some(server) = lease.server() else { return Err(Stop::ServerGone) };
        let read = match server.stream.poll_read(cx, scratch) {
            Poll::Pending => return Ok(Moved::Nothing),
            Poll::Ready(Ok(0) | Err(_)) => return Err(Stop::ServerGone),
            Poll::Ready(Ok(read)) => scratch.get(..read).unwrap_or_default(),
        };
        if server.carry.is_empty() {
            self.server_says(cx, read)?;
        } else {
            let mut bytes = std::mem::take(&mut server.carry);
            bytes.extend_from_slice(read);
            self.server_says(cx, &bytes)?;
        }
        Ok(Moved::Some)
    }

    /// Bytes from the server: to the client.
    pub(super) fn server_says(&mut self, cx: &mut Context<'_>, input: &[u8]) -> Result<(), Stop> {
        let mut out = self.floor.take_assembly();
        let forwarded = self.forward_to_client(cx, input, &mut out);
        self.floor.put_assembly(out);
        let turn = forwarded?;
        let Phase::Leased(Leased { lease, talk, paused, held, .. }) = &mut self.phase else { return Ok(()) };
        *paused |= std::mem::take(held);
        if let Some(mut request) = talk.exchange.take_retry() {
            request.append(&mut self.carry);
            (self.carry, *paused) = (request, true);
        }
        if let Some(server) = lease.server()
            && let Some(rest @ [_, ..]) = input.get(turn.consumed..)
        {
            server.carry.extend_from_slice(rest);
        }
        if turn.waits {
            self.wait_for_listener();
        }
        if turn.queries > 0 {
            self.cell.note_answers(turn.queries);
            if turn.transactions > 0 {
                self.cell.note_transaction();
            }
            let mut counters = self.cell.tenant.counters.borrow_mut();
            counters.queries = counters.queries.saturating_add(u64::from(turn.queries));
            counters.transactions = counters.transactions.saturating_add(u64::from(turn.transactions));
        }
        self.note_channels_left();
        self.settle(cx);
        Ok(())
    }

    /// Asks the server what must be known of it before anybody else gets it.
    fn settle(&mut self, cx: &mut Context<'_>) {
        let Phase::Leased(Leased { lease, talk, .. }) = &mut self.phase else { return };
        let is_outdated = !lease.is_current();
        let Some(server) = lease.server() else { return };
        server.state.is_outdated = is_outdated;
        let strayed = std::mem::take(&mut server.state.strayed);
        let asks = self.mode == PoolMode::Transaction && server.state.is_unsettled();
        if asks || talk.exchange.owes_repair() {
            let mut out = self.floor.take_assembly();
            talk.exchange.settle(&self.client, &mut server.state, &mut out);
            if !out.is_empty() && talk.to_server.send(&mut server.stream, cx, &out).is_err() {
                // The next read tells.
                talk.to_server = Outbox::default();
            }
            self.floor.put_assembly(out);
        }
        if self.mode == PoolMode::Transaction {
            lease.count_pin();
        }
        if strayed {
            self.audit("outside_tenant");
        }
    }

    fn forward_to_client(
        &mut self,
        cx: &mut Context<'_>,
        input: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Turn, Stop> {
        let Phase::Leased(Leased { lease, talk, .. }) = &mut self.phase else { return Ok(Turn::default()) };
        let Some(server) = lease.server() else { return Err(Stop::ServerGone) };
        let mut sink = Sink::new(input, out);
        let turn = talk
            .exchange
            .server_bytes(&mut self.client, &mut server.state, input, &mut sink)
            .map_err(Stop::Server)?;
        let more_comes = talk.exchange.outstanding() > 0;
        self.cell.set_busy(more_comes);
        let bytes = sink.finish();
        if bytes.is_empty() {
            return Ok(turn);
        }
        let said = if more_comes { self.say_now(cx, bytes) } else { self.say(cx, bytes) };
        if said.is_err() {
            return Err(Stop::ClientGone);
        }
        Ok(turn)
    }

    fn read_client(&mut self, cx: &mut Context<'_>, scratch: &mut [u8]) -> Result<Moved, Stop> {
        let is_single = self.is_for_one_transaction();
        let Phase::Leased(Leased { lease, talk, paused, held, leaving }) = &mut self.phase else {
            return Ok(Moved::Nothing);
        };
        // What it says next is another lease's if the server is wanted: a client that says something behind each question
        // would keep it for ever.
        let gives_way =
            talk.exchange.owes_only_itself() && (self.cell.wish() != Wish::Nothing || lease.is_wanted());
        let gives_way = gives_way && lease.server().is_some_and(|server| !stays(self.mode, &server.state));
        if *held
            || gives_way
            || !talk.to_server.is_empty()
            || self.to_client.len() > MAX_UNREAD_BYTES
            || *leaving
            || talk.exchange.is_full()
        {
            return Ok(Moved::Nothing);
        }
        if is_single && talk.exchange.is_between_requests() {
            return self.read_ahead(cx, scratch);
        }
        if std::mem::take(paused) {
            self.feed_carry(cx, &[])?;
            return Ok(Moved::Some);
        }
        let read = match self.stream.poll_read(cx, scratch) {
            Poll::Pending => return Ok(Moved::Nothing),
            Poll::Ready(Ok(0) | Err(_)) => {
                // It has all its answers: the one to our question is at hand.
                *leaving = talk.exchange.owes_only_itself();
                return if *leaving { Ok(Moved::Nothing) } else { Err(Stop::ClientGone) };
            }
            Poll::Ready(Ok(read)) => scratch.get(..read).unwrap_or_default(),
        };
        self.count_in(read.len());
        if !self.carry.is_empty() {
            self.feed_carry(cx, read)?;
            return Ok(Moved::Some);
        }
        let mut out = self.floor.take_assembly();
        let fed = self.feed(cx, read, &mut out);
        self.floor.put_assembly(out);
        if let Some(rest @ [_, ..]) = read.get(fed?..) {
            self.carry.extend_from_slice(rest);
        }
        Ok(Moved::Some)
    }

    /// Notices a client that goes away while its request is answered. What else it says is for later, up to a limit.
    fn read_ahead(&mut self, cx: &mut Context<'_>, scratch: &mut [u8]) -> Result<Moved, Stop> {
        let Phase::Leased(Leased { paused, .. }) = &mut self.phase else { return Ok(Moved::Nothing) };
        if self.carry.len() >= MAX_WAITING_BYTES {
            return Ok(Moved::Nothing);
        }
        let read = match self.stream.poll_read(cx, scratch) {
            Poll::Pending => return Ok(Moved::Nothing),
            Poll::Ready(Ok(0) | Err(_)) => return Err(Stop::ClientGone),
            Poll::Ready(Ok(read)) => scratch.get(..read).unwrap_or_default(),
        };
        self.carry.extend_from_slice(read);
        *paused = true;
        self.count_in(read.len());
        Ok(Moved::Some)
    }

    /// Forwards what was kept of the client's bytes, and `read` behind it.
    fn feed_carry(&mut self, cx: &mut Context<'_>, read: &[u8]) -> Result<(), Stop> {
        let mut bytes = std::mem::take(&mut self.carry);
        bytes.extend_from_slice(read);
        let mut out = self.floor.take_assembly();
        let fed = self.feed(cx, &bytes, &mut out);
        self.floor.put_assembly(out);
        // What is left is kept where it is: a long message that comes in small pieces is not copied again for each.
        bytes.drain(..fed?);
        // An idle client owns no buffer.
        self.carry = if bytes.is_empty() { Vec::new() } else { bytes };
        Ok(())
    }

    /// Bytes from the client: to the server, behind what `out` holds already. Returns how many of them are done with.
    fn feed(&mut self, cx: &mut Context<'_>, whole: &[u8], out: &mut Vec<u8>) -> Result<usize, Stop> {
        let is_single = self.is_for_one_transaction();
        let mut input = whole;
        let Phase::Leased(Leased { lease, talk, paused, held, leaving, .. }) = &mut self.phase else {
            return Ok(input.len());
        };
        if self.mode == PoolMode::Transaction {
            // Behind its transaction the client goes elsewhere: nothing may keep it here.
            let none = crate::track::PinsLeft::new(0, 0);
            let left = if is_single { none } else { self.floor.pool.pins_left(lease.tenant()) };
            talk.exchange.pins_left = Some(left);
        }
        if is_single {
            // What comes behind its end is another lease's.
            input = whole.get(..talk.exchange.request_end(whole)).unwrap_or(whole);
        }
        let Some(server) = lease.server() else { return Err(Stop::ServerGone) };
        let mut answers = Vec::new();
        let mut sink = Sink::new(input, out);
        let fed = {
            let mut texts = self.cell.tenant.statements.borrow_mut();
            talk.exchange
                .client_bytes(
                    (&mut self.client, &mut server.state, &mut texts),
                    input,
                    &mut sink,
                    &mut answers,
                )
                .map_err(|violation| Stop::Client(Box::new(violation.to_client())))?
        };
        self.cell.set_busy(talk.exchange.outstanding() > 0);
        let bytes = sink.finish();
        if !bytes.is_empty() && talk.to_server.send(&mut server.stream, cx, bytes).is_err() {
            // The server may have said why before it went: the next read tells.
            talk.to_server = Outbox::default();
        }
        // The end of a message that the server throws away may come behind the last answer.
        let is_due = server.state.is_unsettled() && talk.exchange.is_quiet();
        let refused = talk.exchange.take_refused();
        *paused = fed.paused || input.len() < whole.len();
        *held = fed.held;
        if fed.terminated {
            *leaving = true;
            if talk.exchange.is_exhausted(&server.state) {
                return Err(Stop::ClientGone);
            }
        }
        if self.mode == PoolMode::Transaction {
            lease.count_pin();
        }
        if let Some(reason) = refused {
            self.audit(reason);
        }
        if !answers.is_empty() {
            self.say(cx, &answers).map_err(|_| Stop::ClientGone)?;
        }
        if is_due {
            self.settle(cx);
        }
        Ok(if fed.terminated { whole.len() } else { fed.consumed })
    }

    /// Whether the client is to be sent away here, because what it left behind keeps one server too many.
    fn is_beyond(&mut self) -> bool {
        let Phase::Leased(Leased { lease, talk, leaving, .. }) = &mut self.phase else { return false };
        if !lease.is_beyond() || *leaving {
            return false;
        }
        let is_sent = talk.to_server.is_empty();
        lease.server().is_some_and(|server| {
            talk.exchange.is_over(&server.state) && is_sent && !server.state.is_unsettled()
        })
    }

    /// Whether the lease can end here.
    fn is_over(&mut self) -> bool {
        let Phase::Leased(Leased { lease, talk, leaving, .. }) = &mut self.phase else { return false };
        let Some(server) = lease.server() else { return true };
        let over =
            talk.exchange.is_over(&server.state) && talk.to_server.is_empty() && server.carry.is_empty();
        let over = over && !(self.mode == PoolMode::Transaction && server.state.is_unsettled());
        let keeps = if self.mode == PoolMode::Transaction && server.state.pinned {
            Keeps::Pin
        } else {
            Keeps::Nothing
        };
        self.cell.set_keeps(over.then_some(keeps));
        let may_linger = over && self.cell.wish() == Wish::Nothing && !*leaving;
        if may_linger && server.state.may_ask && lingers(lease, talk) {
            return false;
        }
        let Some(server) = lease.server() else { return true };
        if stays(self.mode, &server.state) {
            *leaving && talk.exchange.is_exhausted(&server.state) || over && self.cell.wish() == Wish::Leave
        } else {
            over || *leaving && talk.exchange.is_exhausted(&server.state)
        }
    }
}

/// A message for which a server was asked was not dealt with when the server was there.
fn not_dealt_with(input: &[u8]) -> ClientError {
    Violation::Malformed(input.first().copied().unwrap_or_default()).to_client()
}

/// Whether a client still keeps its server because it may ask what a sequence gave it.
fn lingers(lease: &mut Lease, talk: &mut Conversation) -> bool {
    let others_wait = lease.others_wait();
    let Some(server) = lease.server() else { return false };
    let state = &mut server.state;
    let linger = match talk.linger.take() {
        // Drivers say something in between, such as DEALLOCATE; that makes it no longer.
        Some(linger) if linger.behind == state.draws => linger,
        earlier => Linger::new(state, earlier.filter(|_| others_wait)),
    };
    let linger = talk.linger.insert(linger);
    state.may_ask = !linger.is_over(state, others_wait);
    state.may_ask
}

/// Whether a client keeps its server between transactions.
pub(super) fn stays(mode: PoolMode, server: &ServerState) -> bool {
    mode == PoolMode::Session || server.pinned
}

/// How long a client keeps its server to ask what a sequence gave it. Drivers ask at once.
const LINGER: Duration = Duration::from_millis(100);
/// The same behind a row of draws, if others wait: for shorter than those have patience.
const LONGEST_LINGER: Duration = Duration::from_secs(1);
/// Passes of one poll over a lease: a megabyte each way, which takes about half a millisecond.
const MAX_PASSES: usize = 16;
/// Answers of ours that a client may leave unread before it is not read any more.
const MAX_UNREAD_BYTES: usize = 256 * 1024;

#[cfg(test)]
mod tests;
