//! What takes time: logging servers in, cleaning them, cancelling, closing, and looking after idle ones.
//!
//! Owns the tasks. Each of them ends by telling the scheduler; a permit that a task holds is given back only when
//! Postgres has let the server go.

use std::rc::Rc;
use std::time::Duration;

use tokio::task::spawn_local;

use super::desk::Shared;
use super::replicas;
use super::server::Server;
use super::table::Place;
use super::tenant::TenantState;
use super::tiers;
use crate::backend::{self, CancelHandle, FailureClass, Farewell, LoginError};
use crate::budget::{Condition, Input, OpenFailure, Permit};
use crate::error::ClientFacing;
use crate::ids::{ClientId, ClusterId, ServerId};
use crate::time::Moment;
use crate::trace::Asked;
use crate::track::{ClientState, Exchange, Params, ServerState, Settings, Sink, TxStatus};

/// Logs a server in as this tenant.
pub(super) fn open(shared: &Rc<Shared>, tenant: Rc<TenantState>, permit: Permit) {
    let shared = shared.clone();
    spawn_local(async move {
        let started = shared.clock.now();
        let epoch = tenant.epoch();
        let mut login = backend::login(&tenant.profile()).await;
        for _ in 0..RETRIES_OF_SHOT_LOGINS {
            // An operator ended this one backend; the server is well. Its slot is free again, so the permit still holds.
            if !matches!(&login, Err(error) if error.sqlstate() == Some("57P01")) {
                break;
            }
            login = backend::login(&tenant.profile()).await;
        }
        match login {
            Ok(server) => opened(&shared, &tenant, server, permit, (epoch, started)),
            Err(error) => open_failed(&shared, &tenant, &error, permit),
        }
    });
}

fn opened(
    shared: &Rc<Shared>,
    tenant: &Rc<TenantState>,
    login: backend::Server,
    permit: Permit,
    (epoch, started): (u32, Moment),
) {
    let now = shared.clock.now();
    if epoch != tenant.epoch() {
        // The tenant has changed while this login was under way; whoever waits gets a new one.
        close_stale(shared, tenant, login, permit);
        return;
    }
    {
        let mut counters = tenant.counters.borrow_mut();
        counters.server_logins = counters.server_logins.saturating_add(1);
        counters.server_login_us = counters.server_login_us.saturating_add(now.micros_since(started));
    }
    if shared.tape.is_on() {
        shared.tape.note_login(tenant, now.micros_since(started), now);
    }
    let state = state_of(shared, tenant, login.parameters).on_replica(tenant.replayed());
    tenant.set_base(&state.settings.params);
    tenant.clear_login_error();
    let id = permit.server();
    let server = Box::new(Server {
        id,
        stream: login.stream,
        state,
        carry: Vec::new(),
        pid: login.pid,
        permit,
        epoch,
        opened_at: now,
        since: now,
        asked: Asked::default(),
    });
    let Some(mut desk) = shared.desk(tenant.cluster()) else { return };
    desk.unavailable = None;
    if let Some(slot) = desk.table.slot(id) {
        slot.cancel = Some(login.cancel);
        slot.place = Place::Idle(server);
    }
    desk.handle(shared, now, Input::Opened { server: id });
}

/// The state of a server that has reported this at its login.
pub(super) fn state_of(
    shared: &Shared,
    tenant: &TenantState,
    reported: Vec<(Box<str>, Box<str>)>,
) -> ServerState {
    let mut params = Rc::new(Params::new(reported));
    tenant.intern(&mut params);
    let settings = Settings { params, extras: Rc::default() };
    ServerState::new(settings, shared.limits.get().max_prepared_statements).marked(mark())
}

/// What the names of a server's prepared statements are marked with. Should the system have no random bytes, the names can
/// be guessed, as all poolers' names can.
fn mark() -> u64 {
    let mut bytes = [0; 8];
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    u64::from_ne_bytes(bytes)
}

fn close_stale(shared: &Rc<Shared>, tenant: &Rc<TenantState>, login: backend::Server, permit: Permit) {
    let (shared, cluster) = (shared.clone(), tenant.cluster());
    spawn_local(async move {
        backend::close_with(login.stream, Farewell::Terminate).await;
        let now = shared.clock.now();
        if let Some(mut desk) = shared.desk(cluster) {
            desk.table.remove(permit.server());
            desk.handle(&shared, now, Input::Closed { permit });
        }
    });
}

fn open_failed(shared: &Rc<Shared>, tenant: &Rc<TenantState>, error: &LoginError, permit: Permit) {
    let name = &tenant.tenant().name;
    tracing::warn!(customer_id = %name, reason = error.reason(), %error, "server login failed");
    {
        let mut counters = tenant.counters.borrow_mut();
        counters.server_login_failures = counters.server_login_failures.saturating_add(1);
    }
    let now = shared.clock.now();
    let Some(mut desk) = shared.desk(tenant.cluster()) else { return };
    let count = desk.login_failures.entry(error.reason()).or_insert(0);
    *count = count.saturating_add(1);
    let failure = match error.class() {
        FailureClass::ServerFull => OpenFailure::ServerFull,
        FailureClass::Unavailable => {
            desk.unavailable = Some(Box::new(error.to_client()));
            OpenFailure::Unavailable
        }
        FailureClass::Rejected => {
            tenant.set_login_error(error.to_client());
            OpenFailure::Rejected
        }
    };
    desk.table.remove(permit.server());
    desk.handle(shared, now, Input::OpenFailed { permit, failure });
}

/// Closes a server and gives its permit back when it is gone. A server that is at work is cancelled first.
pub(super) fn close(
    shared: &Rc<Shared>,
    tenant: &Rc<TenantState>,
    cancel: Option<CancelHandle>,
    mut server: Box<Server>,
) {
    let (shared, tenant) = (shared.clone(), tenant.clone());
    let makes_functions = server.state.takes_new_functions();
    spawn_local(async move {
        let patience = shared.limits.get().cleanup_timeout.max(Duration::from_millis(100));
        let busy = server.state.status != TxStatus::Idle || server.state.suspect;
        let Server { id, stream, permit, pid, .. } = *server;
        // Half a message may be on its way to a server that is not between two messages.
        let farewell = if busy { Farewell::EndOfStream } else { Farewell::Terminate };
        let gone = backend::close_with(stream, farewell);
        tokio::pin!(gone);
        let mut wait = if busy { Duration::ZERO } else { patience };
        // A server that does not go is counted for as long as it takes: the slot is Postgres', not ours to invent.
        while tokio::time::timeout(wait, &mut gone).await.is_err() {
            if let Some(cancel) = &cancel {
                let sent = tokio::time::timeout(patience, cancel.send()).await;
                tracing::debug!(
                    pid,
                    sent = matches!(sent, Ok(Ok(()))),
                    "cancelled what a closing server was doing"
                );
            }
            wait = patience;
        }
        if makes_functions {
            tenant.functions.forget();
        }
        let now = shared.clock.now();
        if let Some(mut desk) = shared.desk(tenant.cluster()) {
            desk.table.remove(id);
            desk.handle(&shared, now, Input::Closed { permit });
        }
    });
}

/// Rolls a server back and resets it; if that does not succeed in time, it is closed.
pub(super) fn clean_up(shared: &Rc<Shared>, tenant: &Rc<TenantState>, mut server: Box<Server>) {
    let (shared, tenant) = (shared.clone(), tenant.clone());
    spawn_local(async move {
        let patience = shared.limits.get().cleanup_timeout;
        {
            let mut counters = tenant.counters.borrow_mut();
            counters.resets = counters.resets.saturating_add(1);
        }
        let cleaned = tokio::time::timeout(patience, reset(&mut server)).await;
        let condition = if matches!(cleaned, Ok(true)) { Condition::Clean } else { Condition::Broken };
        tenant.intern(&mut server.state.settings.params);
        shared.release(&tenant, server, condition);
    });
}

/// ROLLBACK (if needed) and DISCARD ALL. Returns whether the server is as new. Not cancel-safe: a server whose reset
/// was dropped halfway must be closed.
async fn reset(server: &mut Server) -> bool {
    let mut exchange = Exchange::default();
    let mut nobody = ClientState::nobody(ClientId(0));
    let mut out = Vec::new();
    if server.state.status != TxStatus::Idle {
        exchange.own_query(b"ROLLBACK", &mut out);
    }
    exchange.reset(&mut server.state, &mut out);
    server.state.last_client = None;
    if server.stream.write_all(&out).await.is_err() {
        return false;
    }
    let mut input = std::mem::take(&mut server.carry);
    let mut buffer = vec![0_u8; 4096];
    while !exchange.is_over(&server.state) {
        let Ok(read @ 1..) = server.stream.read(&mut buffer).await else {
            return false;
        };
        input.extend_from_slice(buffer.get(..read).unwrap_or_default());
        out.clear();
        let mut sink = Sink::new(&input, &mut out);
        match exchange.server_bytes(&mut nobody, &mut server.state, &input, &mut sink) {
            Ok(turn) => drop(input.drain(..turn.consumed)),
            Err(_) => return false,
        }
    }
    input.is_empty()
}

/// Sends a cancel request for a leased server and keeps the server from being handed on until it has been delivered.
///
/// Postgres closes the cancel connection after it has sent the signal, and a backend that is reading a command ignores
/// the signal. So once the end of that connection is seen, the next client of the server cannot be hit.
///
/// A signal that comes before Postgres has read the query is ignored as well, and a loaded machine makes that likely for a
/// query that has just been forwarded. So the request is repeated for as long as `wanted` says that the very same request
/// is still unanswered, a few times.
pub(super) fn cancel(
    shared: &Rc<Shared>,
    cluster: ClusterId,
    id: ServerId,
    wanted: impl Fn() -> bool + 'static,
) {
    // Marked at once: before the task runs, the server may have been released and leased to somebody else.
    let Some(mut handle) = begin_cancel(shared, cluster, id) else { return };
    let shared = shared.clone();
    spawn_local(async move {
        let mut pauses = CANCEL_PAUSES.into_iter();
        loop {
            let delivered = handle.send().await;
            if let Err(error) = &delivered {
                tracing::warn!(reason = "cancel_failed", %error, "cancel request not delivered");
            }
            end_cancel(&shared, cluster, id, delivered.is_ok());
            let Some(pause) = pauses.next().filter(|_| delivered.is_ok()) else { return };
            let mut look = tokio::time::interval(CANCEL_LOOK);
            for _ in 0..pause {
                look.tick().await;
                if !wanted() {
                    return;
                }
            }
            let Some(again) = begin_cancel(&shared, cluster, id) else { return };
            handle = again;
        }
    });
}

/// Marks a leased server as being cancelled; `None` if it is not leased, or being cancelled already.
fn begin_cancel(shared: &Rc<Shared>, cluster: ClusterId, id: ServerId) -> Option<CancelHandle> {
    let mut desk = shared.desk(cluster)?;
    let slot = desk.table.slot(id)?;
    if slot.cancelling || !matches!(slot.place, Place::Leased) {
        return None;
    }
    let handle = slot.cancel.clone()?;
    slot.cancelling = true;
    Some(handle)
}

/// No request is being delivered any more: what becomes of a server that was released meanwhile?
fn end_cancel(shared: &Rc<Shared>, cluster: ClusterId, id: ServerId, delivered: bool) {
    let now = shared.clock.now();
    let Some(mut desk) = shared.desk(cluster) else { return };
    let Some(slot) = desk.table.slot(id) else { return };
    slot.cancelling = false;
    slot.marked |= !delivered;
    if !matches!(slot.place, Place::Held(..)) {
        return;
    }
    if let Place::Held(server, condition) = std::mem::replace(&mut slot.place, Place::Leased) {
        drop(desk);
        shared.put_back(cluster, now, server, condition);
    }
}

/// Timers of the schedulers, and a slow sweep over idle servers.
pub(super) async fn run(shared: Rc<Shared>) {
    let mut sweep = tokio::time::interval(SWEEP);
    let mut sweeps = 0_u32;
    let mut looks = tokio::time::interval(LOOKS);
    sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let wake_at = shared.desks.borrow().iter().map(|desk| desk.wake_at).min().unwrap_or(Moment::NEVER);
        tokio::select! {
            () = tokio::time::sleep_until(shared.clock.instant(wake_at)) => tick(&shared),
            () = shared.timer.notified() => shared.look_at_needs(),
            _ = looks.tick(), if !shared.replicas.borrow().is_empty() => replicas::look_where_due(&shared),
            _ = sweep.tick() => {
                shared.tape.flush();
                sweep_idle(&shared);
                forget_functions(&shared, sweeps);
                if sweeps.is_multiple_of(TIERS_ARE_LOOKED_AT) {
                    tiers::look_around(&shared);
                }
                sweeps = sweeps.wrapping_add(1);
            }
        }
    }
}

/// What functions do is asked again now and then, for some of the tenants at a time: somebody may have changed them from
/// elsewhere.
fn forget_functions(shared: &Rc<Shared>, sweeps: u32) {
    let due = sweeps.checked_rem(FUNCTIONS_ARE_KNOWN_FOR).unwrap_or_default();
    for (nth, tenant) in (0_u32..).zip(shared.tenants.borrow().values()) {
        if nth.checked_rem(FUNCTIONS_ARE_KNOWN_FOR) == Some(due) {
            tenant.functions.forget();
        }
    }
}

fn tick(shared: &Rc<Shared>) {
    let now = shared.clock.now();
    for desk in shared.desks.borrow_mut().iter_mut().filter(|desk| desk.wake_at <= now) {
        desk.wake_at = Moment::NEVER;
        desk.handle(shared, now, Input::Tick);
    }
}

fn sweep_idle(shared: &Rc<Shared>) {
    let now = shared.clock.now();
    let limits = shared.limits.get();
    for desk in shared.desks.borrow_mut().iter_mut() {
        // What is due by now may want the very servers that are about to be closed.
        desk.handle(shared, now, Input::Tick);
        let mut retired = Vec::new();
        for slot in desk.table.iter_mut() {
            let Place::Idle(server) = &mut slot.place else { continue };
            if let Some(why) = retirement(server, &slot.tenant, &limits, now) {
                retired.push((slot.id, why));
            }
        }
        for (id, why) in retired {
            let Some(server) = desk.table.take_idle(id, Place::Closing) else { continue };
            if let Some(slot) = desk.table.slot(id) {
                tracing::debug!(customer_id = %slot.tenant.tenant().name, pid = server.pid, reason = why, "server closed");
                {
                    let mut counters = slot.tenant.counters.borrow_mut();
                    counters.closes = counters.closes.saturating_add(1);
                }
                close(shared, &slot.tenant.clone(), slot.cancel.clone(), server);
            }
            desk.handle(shared, now, Input::Lost { server: id });
        }
    }
}

/// Why an idle server is not kept.
fn retirement(
    server: &mut Server,
    tenant: &TenantState,
    limits: &super::PoolLimits,
    now: Moment,
) -> Option<&'static str> {
    if !server.is_silent() {
        Some("idle_server_lost")
    } else if server.epoch != tenant.epoch() {
        Some("login_changed")
    } else if !limits.lifetime.is_zero() && now.since(server.opened_at) >= limits.lifetime {
        Some("server_lifetime")
    } else if !limits.idle_timeout.is_zero() && now.since(server.since) >= limits.idle_timeout {
        Some("server_idle_timeout")
    } else {
        None
    }
}

/// Pauses after each try of a cancel request, in [`CANCEL_LOOK`]s.
const CANCEL_PAUSES: [u32; 4] = [5, 10, 20, 50];
/// The unit of those pauses: how often a cancel that has been delivered looks whether its request was answered.
const CANCEL_LOOK: Duration = Duration::from_millis(5);
/// A login that was ended by `pg_terminate_backend` is tried again so often.
const RETRIES_OF_SHOT_LOGINS: u32 = 2;
/// How often it is asked whether a replica is due to be looked at.
const LOOKS: Duration = Duration::from_millis(250);
const SWEEP: Duration = Duration::from_secs(1);
/// In [`SWEEP`]s.
const TIERS_ARE_LOOKED_AT: u32 = 10;
/// In [`SWEEP`]s.
const FUNCTIONS_ARE_KNOWN_FOR: u32 = 300;
