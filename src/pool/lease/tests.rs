//! A place in the queue, and what can happen between the grant and its first look at it.

use std::future::poll_fn;
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, LocalOptions};
use tokio::task::spawn_local;

use super::*;
use crate::backend::{Connector, Profile};
use crate::budget::{BudgetConfig, Halt};
use crate::config::load_text;
use crate::pool::{Clock, PoolLimits};
use crate::wire::frame;

#[test]
fn a_server_of_the_old_login_is_not_handed_to_one_who_waited() {
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).unwrap();
    runtime.block_on(async {
        let (pool, state) = pool_of_one().await;
        let first = granted(&mut queue(&pool, &state)).await;
        let mut waiting = queue(&pool, &state);
        let since = waiting.since();
        first.give_back(Leftover::Nothing);
        // The server is the waiter's, which has not been polled yet.
        state.update(state.tenant(), Some(state.profile()));
        let mut lease = granted(&mut waiting).await;
        assert_eq!(lease.server().unwrap().epoch, state.epoch());
        assert_eq!(waiting.since(), since, "the wait is one wait");
        assert_eq!(state.clients.active.get(), 1);
        assert_eq!(pool.inspect(|_, scheduler, _| scheduler.used()), [1]);
    });
}

/// The halt is over, and nobody has looked yet: that the client goes is when its request is granted.
#[test]
fn who_goes_when_its_time_has_just_come_leaves_its_server_behind() {
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).unwrap();
    runtime.block_on(async {
        let (pool, state) = pool_of_one().await;
        let first = granted(&mut queue(&pool, &state)).await;
        let until = pool.clock().now() + Duration::from_millis(5);
        pool.halt(&state, Halt::Pause, until);
        first.give_back(Leftover::Nothing);
        let waiting = queue(&pool, &state);
        // No timer runs meanwhile.
        while pool.clock().now() <= until {
            std::hint::spin_loop();
        }
        drop(waiting);
        let view = pool.view(&state).unwrap();
        assert_eq!((view.busy, view.idle, view.waiters), (0, 1, 0));
        assert!(matches!(pool.acquire(&state, None, state.patience()), Acquired::Now(_)));
    });
}

fn queue(pool: &Pool, state: &Rc<TenantState>) -> Ticket {
    let Acquired::Queued(ticket) = pool.acquire(state, None, state.patience()) else {
        panic!("there is no free server")
    };
    ticket
}

async fn granted(ticket: &mut Ticket) -> Lease {
    poll_fn(|cx| ticket.poll(cx)).await.unwrap()
}

/// A pool with room for one server, and its only tenant.
async fn pool_of_one() -> (Pool, Rc<TenantState>) {
    let postgres = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let state = tenant(postgres.local_addr().unwrap().port());
    spawn_local(async move {
        while let Ok((stream, _)) = postgres.accept().await {
            spawn_local(serve(stream));
        }
    });
    let limits = PoolLimits {
        lifetime: Duration::ZERO,
        idle_timeout: Duration::ZERO,
        cleanup_timeout: Duration::from_secs(5),
        max_prepared_statements: 10,
    };
    let pool = Pool::new(Clock::start(), limits, vec![BudgetConfig::new(1)], Box::new(|_| ()));
    pool.set_tenant(&state);
    let running = pool.clone();
    spawn_local(async move { running.run().await });
    (pool, state)
}

fn tenant(postgres: u16) -> Rc<TenantState> {
    let text = format!(
        "[cluster.main]\nurl = \"postgres://127.0.0.1:{postgres}/app?sslmode=disable\"\nmax_connections = 40\n\
         [[tenant]]\nname = \"acme\"\nrole = \"acme\"\nschema = \"acme\"\nclient_auth = {{ scram = \"{VERIFIER}\" }}\n"
    );
    let settings = load_text(&text, Path::new(""), &|_| None, None).unwrap().settings;
    let connector = Connector::new(&settings.clusters[0], &settings.servers).unwrap();
    let tenant = settings.catalog.by_name("acme").unwrap().clone();
    let profile = Profile::new(&connector, &tenant);
    TenantState::new(tenant, profile)
}

const VERIFIER: &str = "SCRAM-SHA-256$4096:c2FsdA==$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:\
                        AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

/// Lets whoever comes log in, and answers nothing.
async fn serve(mut stream: TcpStream) {
    let length = stream.read_u32().await.unwrap();
    let mut rest = vec![0; length as usize - 4];
    stream.read_exact(&mut rest).await.unwrap();
    let mut greeting = Vec::new();
    frame::put(&mut greeting, b'R', |body| body.extend_from_slice(&[0; 4]));
    frame::put(&mut greeting, b'K', |body| body.extend_from_slice(&[1; 8]));
    frame::put(&mut greeting, b'Z', |body| body.push(b'I'));
    stream.write_all(&greeting).await.unwrap();
    while stream.read(&mut rest).await.is_ok_and(|read| read > 0) {}
}
