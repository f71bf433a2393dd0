//! The mixed load: every tenant's clients over real sockets, each looking at whose rows it gets.
//!
//! Owns one client's life: log in, then transactions of several kinds with pauses. An error of the server's that was
//! not asked for ends the client and is reported.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::task::JoinSet;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage, Statement};

use super::clock::now;
use super::plan::{Habit, Member};
use super::provision::{DATABASE, ROWS};
use super::tally::Tally;

/// What all clients share: the order to stop, and counters for the live line.
#[derive(Debug, Default)]
pub(super) struct Live {
    /// Set when the load is to end.
    pub(super) stop: AtomicBool,
    /// Transactions so far.
    pub(super) transactions: AtomicU64,
    /// Queue timeouts so far.
    pub(super) timeouts: AtomicU64,
}

/// Clients that are logged in and wait for the start.
pub(super) struct Crowd {
    clients: Vec<Visitor>,
}

impl Crowd {
    /// Logs every tenant's clients in.
    pub(super) async fn gather(members: &[Member], address: SocketAddr, live: &Arc<Live>) -> Result<Self> {
        let mut logins = JoinSet::new();
        let mut seed = 1;
        for member in members {
            let member = Arc::new(member.clone());
            for _ in 0..member.habit.clients() {
                seed += 1;
                logins.spawn(Visitor::log_in(Arc::clone(&member), address, Arc::clone(live), Random(seed)));
            }
        }
        let mut clients = Vec::with_capacity(logins.len());
        while let Some(login) = logins.join_next().await {
            clients.push(login.context("a login failed")??);
        }
        Ok(Self { clients })
    }

    /// How many clients there are.
    pub(super) const fn len(&self) -> usize {
        self.clients.len()
    }

    /// Lets all of them work until told to stop; returns one tally per [`Habit`].
    pub(super) async fn work(self) -> Result<[Tally; 4]> {
        let mut tasks = JoinSet::new();
        for client in self.clients {
            tasks.spawn(client.work());
        }
        let mut tallies: [Tally; 4] = Default::default();
        while let Some(ended) = tasks.join_next().await {
            let (habit, tally) = ended.context("a client's task failed")?;
            if let Some(sum) = tallies.get_mut(habit.index()) {
                sum.add(tally);
            }
        }
        Ok(tallies)
    }
}

/// One client.
struct Visitor {
    member: Arc<Member>,
    client: Client,
    live: Arc<Live>,
    random: Random,
    /// The prepared statement, made at its first use.
    prepared: Option<Statement>,
}

impl Visitor {
    async fn log_in(
        member: Arc<Member>,
        address: SocketAddr,
        live: Arc<Live>,
        random: Random,
    ) -> Result<Self> {
        let mut config = tokio_postgres::Config::new();
        config.host(address.ip().to_string()).port(address.port()).dbname(DATABASE);
        config.user(&member.name).password(&member.password).application_name("tenantry demo");
        let login = config.connect(NoTls).await;
        let (client, connection) = login.with_context(|| format!("logging in as {}", member.name))?;
        tokio::spawn(async move {
            // Its end shows as an error of the client's next statement.
            let _ = connection.await;
        });
        Ok(Self { member, client, live, random, prepared: None })
    }

    async fn work(mut self) -> (Habit, Tally) {
        let mut tally = Tally { clients: 1, ..Tally::default() };
        let habit = self.member.habit;
        while !self.live.stop.load(Ordering::Relaxed) {
            let pause = self.random.around(habit.pause());
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
            match self.transaction(&mut tally).await {
                Ok(()) => {
                    tally.transactions += 1;
                    self.live.transactions.fetch_add(1, Ordering::Relaxed);
                }
                Err(error) if error.code() == Some(&SqlState::TOO_MANY_CONNECTIONS) => {
                    tally.timeouts += 1;
                    self.live.timeouts.fetch_add(1, Ordering::Relaxed);
                }
                Err(error) => {
                    tally.errors.push(format!("{}: {error:?}", self.member.name));
                    break;
                }
            }
        }
        (habit, tally)
    }

    /// One transaction of a kind chosen by chance.
    async fn transaction(&mut self, tally: &mut Tally) -> Result<(), tokio_postgres::Error> {
        let start = now();
        if self.member.habit == Habit::Noisy {
            return self.slow(start, tally).await;
        }
        match self.random.below(20) {
            0..12 => self.look(start, tally).await,
            12..16 => self.prepared(start, tally).await,
            16..19 => self.change(start, tally).await,
            _ => self.mistake(start, tally).await,
        }
    }

    /// One row by a simple query.
    async fn look(&mut self, start: Instant, tally: &mut Tally) -> Result<(), tokio_postgres::Error> {
        let id = self.random.below(ROWS) + 1;
        let messages = self.client.simple_query(&format!("{WHOSE} WHERE id = {id}")).await?;
        tally.waited(start.elapsed());
        self.judge_rows(&messages, tally);
        Ok(())
    }

    /// One row by a statement that is prepared once and survives every change of server.
    async fn prepared(&mut self, start: Instant, tally: &mut Tally) -> Result<(), tokio_postgres::Error> {
        let statement = match &self.prepared {
            Some(statement) => statement.clone(),
            None => {
                let statement = self.client.prepare(&format!("{WHOSE} WHERE id = $1")).await?;
                self.prepared.insert(statement).clone()
            }
        };
        let id = i32::try_from(self.random.below(ROWS) + 1).unwrap_or(1);
        let row = self.client.query_one(&statement, &[&id]).await?;
        tally.waited(start.elapsed());
        self.judge([row.try_get(0)?, row.try_get(1)?, row.try_get(2)?], tally);
        Ok(())
    }

    /// A transaction of several statements that writes.
    async fn change(&mut self, start: Instant, tally: &mut Tally) -> Result<(), tokio_postgres::Error> {
        let id = self.random.below(ROWS) + 1;
        self.client.batch_execute("BEGIN").await?;
        tally.waited(start.elapsed());
        let update = format!("UPDATE notes SET body = 'seen by ' || current_user WHERE id = {id}");
        self.client.batch_execute(&update).await?;
        let messages = self.client.simple_query(&format!("{WHOSE} WHERE id = {id}")).await?;
        self.judge_rows(&messages, tally);
        self.client.batch_execute("COMMIT").await
    }

    /// An error inside a transaction: the server must come back clean for the next client.
    async fn mistake(&mut self, start: Instant, tally: &mut Tally) -> Result<(), tokio_postgres::Error> {
        self.client.batch_execute("BEGIN; SET LOCAL search_path = pg_catalog").await?;
        tally.waited(start.elapsed());
        match self.client.batch_execute("SELECT 1 / 0").await {
            Err(error) if error.code() == Some(&SqlState::DIVISION_BY_ZERO) => {}
            Err(error) => return Err(error),
            Ok(()) => tally.errors.push(format!("{}: a division by zero succeeded", self.member.name)),
        }
        self.client.batch_execute("ROLLBACK").await
    }

    /// What the noisy tenant does: it keeps its server for a while, without using a CPU.
    async fn slow(&mut self, start: Instant, tally: &mut Tally) -> Result<(), tokio_postgres::Error> {
        self.client.batch_execute("BEGIN").await?;
        tally.waited(start.elapsed());
        let messages = self.client.simple_query(&format!("{WHOSE} WHERE id = 1")).await?;
        self.judge_rows(&messages, tally);
        self.client.batch_execute("SELECT pg_sleep(0.02)").await?;
        self.client.batch_execute("COMMIT").await
    }

    fn judge_rows(&self, messages: &[SimpleQueryMessage], tally: &mut Tally) {
        let mut rows = 0;
        for message in messages {
            if let SimpleQueryMessage::Row(row) = message {
                rows += 1;
                self.judge([row.get(0), row.get(1), row.get(2)], tally);
            }
        }
        if rows != 1 {
            tally.errors.push(format!("{}: {rows} rows instead of 1", self.member.name));
        }
    }

    /// Compares what an answer says about itself with who asked.
    fn judge(&self, answer: [Option<&str>; 3], tally: &mut Tally) {
        let role = self.member.role();
        if answer == [self.member.name.as_str(), &role, &role].map(Some) {
            tally.answers += 1;
        } else {
            tally.foreign.push(format!("{} was answered as {answer:?}", self.member.name));
        }
    }
}

/// A small generator (xorshift64): the same load in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// From 0 to `limit - 1`.
    fn below(&mut self, limit: u32) -> u32 {
        // The remainder is smaller than a u32.
        u32::try_from((self.next() >> 16) % u64::from(limit.max(1))).unwrap_or(0)
    }

    /// From half to one and a half of `mean`.
    fn around(&mut self, mean: Duration) -> Duration {
        mean * (50 + self.below(101)) / 100
    }
}

/// Asks a row whose it is, and the server whom it takes the client for.
const WHOSE: &str = "SELECT owner, current_user::text, current_schema()::text FROM notes";
