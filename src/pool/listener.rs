//! The server that listens for all clients of a tenant.
//!
//! Owns its lease and its task: what it is asked, what it tells, and getting another one when it is lost. Who hears what is
//! in `listening`.
//!
//! ```text
//!            a client's server            nobody hears anything
//!   off ───────────────────────► on ──────────────────────────────► off (server cleaned)
//!                                │ ▲
//!               lost, login      ▼ │ leased, or a client's: LISTEN to everything, then
//!               changed         lost   clients are told that notifications may be missing
//! ```

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, SystemTime};

use tokio::task::spawn_local;

use super::desk::{Acquired, Pool};
use super::lease::{Lease, Leftover, Ticket};
use super::listening::{Book, Stage};
use super::tenant::TenantState;
use crate::error::{ClientError, Fault, SqlState};
use crate::ids::ClientId;
use crate::track::{Channel, Channels, ClientState, Exchange, Hearing, Sink, frames, quoted};
use crate::wire::frame;
use crate::wire::messages;

impl Pool {
    /// A client's server, which listens to the marker, becomes the listener of its tenant, which has none.
    pub fn found_listener(&self, tenant: &Rc<TenantState>, mut lease: Lease, hearing: &mut Hearing) {
        let Some(server) = lease.server() else { return };
        let channels = std::mem::take(&mut server.state.listened);
        let wanted = hearing.missing(&channels);
        hearing.channels.extend(wanted.iter().cloned());
        let mut book = tenant.listening.book.borrow_mut();
        book.found(hearing.place, &wanted);
        book.make_ready();
        let listened: Channels = channels.into_iter().filter(|channel| *channel != hearing.marker).collect();
        match book.stage {
            Stage::Off => {
                book.set_listened(listened);
                book.stage = Stage::On;
                let (pool, tenant) = (self.clone(), tenant.clone());
                spawn_local(async move { Listener::new(pool, tenant).run(lease).await });
            }
            Stage::Lost => {
                book.set_listened(listened);
                book.stage = Stage::Offered(lease);
                tenant.listening.changed();
            }
            Stage::Offered(_) | Stage::On => debug_assert!(false, "a tenant has one listener"),
        }
    }
}

struct Listener {
    pool: Pool,
    tenant: Rc<TenantState>,
    marker: Channel,
    exchange: Exchange,
    /// When the last one was lost, if its clients have not been told yet.
    lost_at: Option<SystemTime>,
    /// This one has listened: Postgres lets it.
    has_listened: bool,
}

/// What a listening server was woken by.
enum Event {
    Read(std::io::Result<usize>),
    Changed,
}

/// Why a server listens no more.
enum End {
    Unwanted,
    Lost,
}

impl Listener {
    fn new(pool: Pool, tenant: Rc<TenantState>) -> Self {
        let marker = tenant.listening.marker();
        Self { pool, tenant, marker, exchange: Exchange::default(), lost_at: None, has_listened: false }
    }

    async fn run(mut self, lease: Lease) {
        let mut next = Some((lease, false));
        let mut pause = FIRST_PAUSE;
        let mut unrestored = 0_u32;
        while let Some((mut lease, is_foreign)) = next {
            self.exchange = Exchange::default();
            self.has_listened = false;
            match self.serve(&mut lease, is_foreign).await {
                End::Unwanted => {
                    self.close(&mut self.tenant.listening.book.borrow_mut());
                    lease.give_back(Leftover::State);
                    return;
                }
                End::Lost => {}
            }
            let had_restored = self.lost_at.is_none();
            self.lost_at.get_or_insert_with(SystemTime::now);
            tracing::warn!(
                customer_id = %self.tenant.tenant().name, reason = "listener_lost", "the listener was lost"
            );
            {
                let mut counters = self.tenant.counters.borrow_mut();
                counters.listeners_lost = counters.listeners_lost.saturating_add(1);
            }
            self.tenant.listening.book.borrow_mut().lose();
            lease.give_back(Leftover::Work);
            // One that took over everything is sought again at once; of those that did not, a few are.
            unrestored = if had_restored { 0 } else { unrestored.saturating_add(1) };
            if self.has_listened && unrestored < MANY_LOSSES {
                pause = FIRST_PAUSE;
            } else {
                // One that logs in and cannot listen (a standby) is not tried again and again without a pause.
                tokio::time::sleep(pause).await;
                pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
            }
            next = self.regain().await;
        }
    }

    /// Listens for as long as it is wanted. Not cancel-safe: a server whose query was dropped halfway must be closed.
    async fn serve(&mut self, lease: &mut Lease, is_foreign: bool) -> End {
        lease.become_listener();
        let tenant = self.tenant.clone();
        let mut nobody = ClientState::nobody(ClientId(0));
        let mut out = Vec::new();
        let Some(server) = lease.server() else { return End::Lost };
        if is_foreign {
            self.exchange.reset(&mut server.state, &mut out);
        }
        self.exchange.own_query(&self.preparation(), &mut out);
        (server.state.pinned, server.state.can_pass) = (true, false);
        let mut buffer = vec![0_u8; READ_BYTES];
        loop {
            let is_current = lease.is_current();
            let Some(server) = lease.server() else { return End::Lost };
            if out.is_empty() && self.exchange.is_over(&server.state) {
                self.has_listened = true;
                let mut book = tenant.listening.book.borrow_mut();
                book.make_ready();
                if !book.is_wanted() {
                    return End::Unwanted;
                }
                if !is_current {
                    return End::Lost;
                }
                if let Some(sql) = book.batch(&quoted(&self.marker)) {
                    self.exchange.own_query(&sql, &mut out);
                }
            }
            if !out.is_empty() && server.stream.write_all(&out).await.is_err() {
                return End::Lost;
            }
            out.clear();
            let mut changed = pin!(tenant.listening.changed.notified());
            let event = poll_fn(|cx| {
                if let Poll::Ready(read) = server.stream.poll_read(cx, &mut buffer) {
                    return Poll::Ready(Event::Read(read));
                }
                changed.as_mut().poll(cx).map(|()| Event::Changed)
            });
            match event.await {
                Event::Changed => continue,
                Event::Read(Ok(read @ 1..)) => {
                    server.carry.extend_from_slice(buffer.get(..read).unwrap_or_default());
                }
                Event::Read(_) => return End::Lost,
            }
            let input = std::mem::take(&mut server.carry);
            let mut told = Vec::new();
            let mut sink = Sink::new(&input, &mut told);
            match self.exchange.server_bytes(&mut nobody, &mut server.state, &input, &mut sink) {
                Ok(turn) => server.carry.extend_from_slice(input.get(turn.consumed..).unwrap_or_default()),
                Err(_) => return End::Lost,
            }
            self.dispatch(sink.finish());
            if self.exchange.is_over(&server.state) {
                tenant.listening.book.borrow_mut().answered();
            }
            // The clients come first: what they have been told is written before more is read.
            tokio::task::yield_now().await;
        }
    }

    /// What makes a server fit to be the listener: no limit of the client that had it ends it, and its texts are those of
    /// the database.
    fn preparation(&self) -> Vec<u8> {
        let mut sql =
            b"SELECT pg_catalog.set_config(name,'0',false) FROM pg_catalog.pg_settings WHERE name \
            OPERATOR(pg_catalog.=) ANY('{statement_timeout,lock_timeout,idle_session_timeout,transaction_timeout}'\
            ::pg_catalog.text[]);\
            SELECT pg_catalog.set_config('application_name','tenantry listener',false),\
            pg_catalog.set_config('client_encoding',pg_catalog.getdatabaseencoding(),false);LISTEN "
                .to_vec();
        sql.extend_from_slice(&quoted(&self.marker));
        sql
    }

    /// Hands out what was told. Once everything is listened to again, those who heard through the listener that was lost
    /// are told of that: before what they hear through this one.
    fn dispatch(&mut self, told: &[u8]) {
        let mut count = 0_u64;
        for (tag, body) in frames(told).filter(|(tag, _)| *tag == b'A') {
            let mut message = Vec::with_capacity(body.len().saturating_add(frame::HEADER_BYTES));
            frame::put(&mut message, tag, |out| out.extend_from_slice(body));
            let mut book = self.tenant.listening.book.borrow_mut();
            count = count.saturating_add(book.dispatch(&message, &self.marker));
            if book.is_restored()
                && let Some(since) = self.lost_at.take()
            {
                book.tell_behind(&may_be_lost(since));
            }
        }
        let mut counters = self.tenant.counters.borrow_mut();
        counters.notifications = counters.notifications.saturating_add(count);
    }

    /// Nobody wants a listener any more. Those are told of a loss who are still there: what they went back with may lack it.
    fn close(&self, book: &mut Book) {
        if let Some(since) = self.lost_at {
            book.tell_behind(&may_be_lost(since));
        }
        book.close();
    }

    /// Another server, once there is one; `None` if none is wanted any more. With it comes whether it was leased, not a
    /// client's.
    async fn regain(&self) -> Option<(Lease, bool)> {
        let mut pause = FIRST_PAUSE;
        loop {
            let mut ticket = None;
            match self.pool.acquire_exempt(&self.tenant, self.tenant.patience()) {
                Acquired::Now(lease) => return self.took(lease),
                Acquired::Queued(queued) => ticket = Some(queued),
                Acquired::Refused(_) => {}
            }
            let mut wait = pin!(tokio::time::sleep(pause));
            loop {
                {
                    let mut book = self.tenant.listening.book.borrow_mut();
                    if matches!(book.stage, Stage::Offered(_)) {
                        if let Stage::Offered(lease) = std::mem::replace(&mut book.stage, Stage::On) {
                            return Some((lease, false));
                        }
                    } else if !book.is_wanted() {
                        self.close(&mut book);
                        return None;
                    }
                }
                match self.news(&mut ticket, wait.as_mut()).await {
                    News::Leased(lease) => return self.took(lease),
                    News::Changed => {}
                    News::Refused => ticket = None,
                    News::Again => break,
                }
            }
            pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
        }
    }

    /// A lease has come; so may have a client's server meanwhile, which is the better one.
    fn took(&self, lease: Lease) -> Option<(Lease, bool)> {
        let mut book = self.tenant.listening.book.borrow_mut();
        match std::mem::replace(&mut book.stage, Stage::On) {
            Stage::Offered(offered) => {
                drop(book);
                lease.give_back(Leftover::State);
                Some((offered, false))
            }
            Stage::Off | Stage::Lost | Stage::On => Some((lease, true)),
        }
    }

    /// The next thing to look at while there is no server. The pause runs only while no lease is waited for.
    async fn news(&self, ticket: &mut Option<Ticket>, mut pause: Pin<&mut tokio::time::Sleep>) -> News {
        let mut changed = pin!(self.tenant.listening.changed.notified());
        poll_fn(|cx| {
            if changed.as_mut().poll(cx).is_ready() {
                return Poll::Ready(News::Changed);
            }
            match ticket {
                Some(ticket) => ticket.poll(cx).map(|outcome| outcome.map_or(News::Refused, News::Leased)),
                None => pause.as_mut().poll(cx).map(|()| News::Again),
            }
        })
        .await
    }
}

enum News {
    Leased(Lease),
    Refused,
    Changed,
    Again,
}

fn may_be_lost(since: SystemTime) -> Vec<u8> {
    let warning = ClientError::error(
        SqlState::WARNING,
        Fault::Server,
        "notifications_lost",
        "notifications may have been lost: the server that listened for this session was lost",
    )
    .with_detail(format!(
        "Notifications between {} and {} did not come, or not all of them.",
        humantime::format_rfc3339_millis(since),
        humantime::format_rfc3339_millis(SystemTime::now())
    ))
    .with_hint("Look at what they would have told. The session listens to its channels again.");
    let mut out = Vec::new();
    messages::put_notice(&mut out, &warning);
    out
}

const READ_BYTES: usize = 16 * 1024;
/// So many listeners may be lost one behind the other before they had taken over, until the next one has to wait.
const MANY_LOSSES: u32 = 10;
/// Pauses between two tries to get a server.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
