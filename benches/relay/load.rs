//! A load of `SELECT 1`: many lean clients on one thread, and the proxy's CPU time while they run.
//!
//! Owns the clients' loops: as many as there are requests on their way, each of which takes the client that has waited for
//! longest. With as many loops as clients, each client sends back to back. Must not know which proxy answers.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::task::{JoinSet, LocalSet};

use crate::client::{Client, Login};
use crate::clock::now;
use crate::shape::Shape;

/// What one run gave.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    pub(crate) transactions: u64,
    pub(crate) elapsed: Duration,
    /// CPU time that the probed process used meanwhile.
    pub(crate) cpu_ns: u64,
    /// Median and 99th percentile of the answer times.
    pub(crate) p50_us: u64,
    pub(crate) p99_us: u64,
}

/// When the clients stop.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Until {
    /// After a warm-up and a measured time.
    Time { warm_up: Duration, measured: Duration },
    /// After so many transactions of each loop.
    Count(u64),
}

/// Logs clients in, one after the other.
pub(crate) async fn gather(login: &Login, count: usize) -> Result<Vec<Client>> {
    let mut clients = Vec::with_capacity(count);
    for nonce in 0..count {
        clients.push(Client::login(login, u64::try_from(nonce)?).await?);
    }
    Ok(clients)
}

/// Lets all clients send `SELECT 1`, `in_flight` at a time, after what their protocol wants to be sent once. `probe` reads
/// the proxy's CPU nanoseconds.
pub(crate) async fn run(
    mut clients: Vec<Client>,
    shape: Shape,
    in_flight: usize,
    until: Until,
    probe: impl Fn() -> Result<u64>,
) -> Result<(Run, Vec<Client>)> {
    if let Some(once) = shape.once(SQL)? {
        for client in &mut clients {
            client.exchange(&once).await?;
        }
    }
    run_prepared(clients, shape, in_flight, until, probe).await
}

/// The same for clients that have been in a [`run`] of the same shape before.
pub(crate) async fn run_prepared(
    clients: Vec<Client>,
    shape: Shape,
    in_flight: usize,
    until: Until,
    probe: impl Fn() -> Result<u64>,
) -> Result<(Run, Vec<Client>)> {
    LocalSet::new().run_until(run_local(clients, shape, in_flight, until, probe)).await
}

async fn run_local(
    clients: Vec<Client>,
    shape: Shape,
    in_flight: usize,
    until: Until,
    probe: impl Fn() -> Result<u64>,
) -> Result<(Run, Vec<Client>)> {
    let shared = Rc::new(Shared { resting: RefCell::new(clients.into()), ..Shared::default() });
    let mut tasks = JoinSet::new();
    for _ in 0..in_flight {
        tasks.spawn_local(one_loop(shape, until, Rc::clone(&shared)));
    }
    let mut run = Run { transactions: 0, elapsed: Duration::ZERO, cpu_ns: 0, p50_us: 0, p99_us: 0 };
    if let Until::Time { warm_up, measured } = until {
        tokio::time::sleep(warm_up).await;
        shared.answers_us.borrow_mut().clear();
        let (start, count, cpu) = (now(), shared.transactions.get(), probe()?);
        tokio::time::sleep(measured).await;
        run.transactions = shared.transactions.get() - count;
        run.cpu_ns = probe()? - cpu;
        run.elapsed = start.elapsed();
        shared.stop.set(true);
    }
    while let Some(ended) = tasks.join_next().await {
        ended.context("a loop of clients failed")??;
    }
    if matches!(until, Until::Count(_)) {
        run.transactions = shared.transactions.get();
    }
    let mut answers = shared.answers_us.borrow_mut();
    run.p50_us = crate::median::percentile(&mut answers, 500).unwrap_or(0);
    run.p99_us = crate::median::percentile(&mut answers, 990).unwrap_or(0);
    Ok((run, shared.resting.take().into()))
}

#[derive(Default)]
struct Shared {
    /// Clients without a request on its way, that which has waited for longest in front.
    resting: RefCell<VecDeque<Client>>,
    transactions: Cell<u64>,
    stop: Cell<bool>,
    answers_us: RefCell<Vec<u64>>,
}

async fn one_loop(shape: Shape, until: Until, shared: Rc<Shared>) -> Result<()> {
    let request = shape.each(SQL)?;
    let limit = match until {
        Until::Time { .. } => u64::MAX,
        Until::Count(count) => count,
    };
    let mut sent = 0;
    while sent < limit && !shared.stop.get() {
        let mut client = shared.resting.borrow_mut().pop_front().context("more loops than clients")?;
        let start = now();
        client.exchange_many(&request, shape.transactions()).await?;
        shared.answers_us.borrow_mut().push(u64::try_from(start.elapsed().as_micros())?);
        shared.resting.borrow_mut().push_back(client);
        let transactions = u64::try_from(shape.transactions())?;
        shared.transactions.set(shared.transactions.get() + transactions);
        sent += transactions;
    }
    Ok(())
}

const SQL: &str = "SELECT 1";
