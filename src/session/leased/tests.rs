//! What a lease costs, looked at from inside.

use std::future::{Future, poll_fn};
use std::path::Path;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, LocalOptions};

use super::*;
use crate::backend::{Connector, Profile};
use crate::budget::BudgetConfig;
use crate::config::load_text;
use crate::ids::WorkerId;
use crate::net::{self, Listener};
use crate::pool::{Acquired, Clock, Pool, PoolLimits, TenantState};
use crate::session::closing::LAST_WORDS_TIMEOUT;
use crate::session::{Admission, CancelKeys, Floor, Registry, SessionWishes, greet};
use crate::wire::frame::{self, HEADER_BYTES};

#[test]
fn a_lease_at_work_is_small() {
    assert!(size_of::<Leased>() <= 48, "{}", size_of::<Leased>());
    assert!(size_of::<Session>() <= 320, "{}", size_of::<Session>());
}

/// What a long message that comes in small pieces costs is seen by how often what has come of it is moved: each move
/// copies all of it.
#[test]
fn a_long_message_that_drips_in_is_not_copied_for_each_drop() {
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).unwrap();
    runtime.block_on(async {
        let (mut session, mut client) = session().await;
        client.write_all(b"Q\0\0\0\x0aBEGIN\0").await.unwrap();
        drive(&mut session, |session| matches!(session.phase, Phase::Leased(_))).await;
        // A named Parse is kept until it is there to its end.
        client.write_all(b"P\0\x01\0\0s\0").await.unwrap();
        let (mut moves, mut place, mut len) = (0, std::ptr::null(), b"P\0\x01\0\0s\0".len());
        for _ in 0..DROPS {
            client.write_all(&[b'x'; DROP_BYTES]).await.unwrap();
            len += DROP_BYTES;
            drive(&mut session, |session| session.carry.len() == len).await;
            moves += usize::from(session.carry.as_ptr() != place);
            place = session.carry.as_ptr();
        }
        assert!(moves <= 2 * DROPS.ilog2() as usize, "moved {moves} times by {DROPS} drops");
    });
}

#[test]
fn what_a_client_says_behind_our_question_waits_for_the_next_lease_if_others_do() {
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).unwrap();
    runtime.block_on(async {
        let (mut session, mut client) = asked().await;
        let (pool, tenant) = (session.floor.pool.clone(), session.cell.tenant.clone());
        let Acquired::Queued(ticket) = pool.acquire(&tenant, None, Duration::from_secs(5)) else {
            panic!("the tenant has one server");
        };
        client.write_all(SELECT).await.unwrap();
        for _ in 0..100 {
            tokio::task::yield_now().await;
            poll_fn(|cx| Poll::Ready(Pin::new(&mut session).poll(cx).is_ready())).await;
            assert_eq!(outstanding(&session), 1, "it is read while others wait");
        }
        drop(ticket);
        drive(&mut session, |session| outstanding(session) == 2).await;
    });
}

#[test]
fn what_a_client_says_behind_our_question_waits_while_the_proxy_wants_it_to_leave() {
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).unwrap();
    runtime.block_on(async {
        let (mut session, mut client) = asked().await;
        session.floor.registry.ask_to_leave(|_| true);
        client.write_all(SELECT).await.unwrap();
        for _ in 0..100 {
            tokio::task::yield_now().await;
            poll_fn(|cx| Poll::Ready(Pin::new(&mut session).poll(cx).is_ready())).await;
            assert_eq!(outstanding(&session), 1, "it is read though it is to leave");
        }
    });
}

/// A lease that could not deal with it would end at once, and another begin, for ever.
#[test]
fn a_named_statement_that_has_not_come_whole_waits_without_a_server() {
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).unwrap();
    runtime.block_on(async {
        for (parse, behind) in [(20_000_u32, vec![b'x'; 17_000]), (16_382, vec![b'x'; 16_381])] {
            let (mut session, mut client) = session().await;
            let mut bytes = vec![b'P'];
            bytes.extend_from_slice(&(parse + 4).to_be_bytes());
            bytes.extend_from_slice(b"s\0");
            bytes.extend_from_slice(behind.get(2..).unwrap());
            client.write_all(&bytes).await.unwrap();
            drive(&mut session, |session| session.carry.len() == bytes.len()).await;
            let wakes = std::sync::Arc::new(Wakes::default());
            let waker = std::task::Waker::from(wakes.clone());
            for _ in 0..3 {
                assert!(Pin::new(&mut session).poll(&mut Context::from_waker(&waker)).is_pending());
                assert!(matches!(session.phase, Phase::Parked), "{:?}", session.phase);
            }
            assert_eq!(wakes.0.load(std::sync::atomic::Ordering::Relaxed), 0, "it is polled for ever");
            // The rest.
            client.write_all(&vec![b'x'; parse as usize + HEADER_BYTES - bytes.len()]).await.unwrap();
            drive(&mut session, |session| !matches!(session.phase, Phase::Parked)).await;
        }
    });
}

/// What ends a wait goes with what others send; what does not has nothing to gain by waiting.
#[test]
fn answers_with_more_to_come_are_sent_at_once_and_the_last_one_with_what_others_send() {
    if net::send_in_batches().is_err() {
        // Nothing is ever kept back then, which the other tests see.
        return;
    }
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).unwrap();
    runtime.block_on(async {
        let (mut session, mut client) = session().await;
        net::send_queued();
        let mut greeting = [0; 1024];
        assert!(client.read(&mut greeting).await.unwrap() > 0);
        client.write_all(b"Q\0\0\0\x0aBEGIN\0Q\0\0\0\x0dSELECT 1\0").await.unwrap();
        drive(&mut session, |session| outstanding(session) == 2).await;
        net::send_queued();
        let mut answer = Vec::new();
        frame::put(&mut answer, b'C', |body| body.extend_from_slice(b"BEGIN\0"));
        frame::put(&mut answer, b'Z', |body| body.push(b'T'));
        let mut heard = [0; 1024];
        poll_fn(|cx| Poll::Ready(session.server_says(cx, &answer))).await.unwrap();
        assert!(has_come(&client), "it waits for others");
        assert_eq!(client.read(&mut heard).await.unwrap(), answer.len());
        poll_fn(|cx| Poll::Ready(session.server_says(cx, &answer))).await.unwrap();
        assert_eq!(outstanding(&session), 0);
        assert!(!has_come(&client), "it did not wait for others");
        net::send_queued();
        assert_eq!(client.read(&mut heard).await.unwrap(), answer.len());
    });
}

/// Whether there is something to read.
fn has_come(client: &TcpStream) -> bool {
    socket2::SockRef::from(client).peek(&mut [std::mem::MaybeUninit::uninit()]).is_ok()
}

#[derive(Default)]
struct Wakes(std::sync::atomic::AtomicU32);

impl std::task::Wake for Wakes {
    fn wake(self: std::sync::Arc<Self>) {
        self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }
}

/// A session that has its answer, and whose server is asked behind it: nothing is known of functions yet.
async fn asked() -> (Session, TcpStream) {
    let (mut session, mut client) = session().await;
    client.write_all(SELECT).await.unwrap();
    drive(&mut session, |session| outstanding(session) == 1).await;
    let mut answer = Vec::new();
    frame::put(&mut answer, b'C', |body| body.extend_from_slice(b"SELECT 1\0"));
    frame::put(&mut answer, b'Z', |body| body.push(b'I'));
    poll_fn(|cx| Poll::Ready(session.server_says(cx, &answer))).await.unwrap();
    assert_eq!(outstanding(&session), 1);
    (session, client)
}

const SELECT: &[u8] = b"Q\0\0\0\x0dSELECT 1\0";

/// Answers that the session's server owes.
fn outstanding(session: &Session) -> usize {
    match &session.phase {
        Phase::Leased(Leased { talk, .. }) => talk.exchange.outstanding(),
        _ => 0,
    }
}

/// Says more than the sockets hold to a client that does not read, and then the last words.
async fn unread(session: &mut Session) {
    poll_fn(|cx| {
        session.say(cx, &vec![0; UNREAD_BYTES]).unwrap();
        session.say_goodbye(cx);
        Poll::Ready(())
    })
    .await;
    assert!(!session.to_client.is_empty(), "the sockets hold it all");
}

const UNREAD_BYTES: usize = 32 * 1024 * 1024;

#[test]
fn a_client_that_does_not_read_its_last_words_keeps_its_place_for_seconds_only() {
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).unwrap();
    runtime.block_on(async {
        let (mut session, client) = session().await;
        unread(&mut session).await;
        let (floor, tenant) = (session.floor.clone(), session.cell.tenant.clone());
        tokio::time::pause();
        let begun = Instant::now();
        session.await;
        let lasted = begun.elapsed();
        assert!(lasted >= LAST_WORDS_TIMEOUT && lasted < 2 * LAST_WORDS_TIMEOUT, "{lasted:?}");
        assert_eq!((floor.registry.len(), tenant.clients.connected.get()), (0, 0));
        drop(client);
    });
}

#[test]
fn a_client_that_reads_in_time_gets_all_of_its_last_words() {
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).unwrap();
    runtime.block_on(async {
        let (mut session, mut client) = session().await;
        unread(&mut session).await;
        let mut heard = Vec::new();
        let ((), read) = tokio::join!(session, client.read_to_end(&mut heard));
        read.unwrap();
        assert!(heard.len() > UNREAD_BYTES && heard.ends_with(b"\0\0"));
        assert!(String::from_utf8_lossy(&heard[UNREAD_BYTES..]).contains("57P01"));
    });
}

const DROPS: usize = 500;
const DROP_BYTES: usize = 100;

/// Polls the session until that holds.
async fn drive(session: &mut Session, holds: impl Fn(&Session) -> bool) {
    poll_fn(|cx| {
        assert!(Pin::new(&mut *session).poll(cx).is_pending(), "the session has ended");
        if holds(session) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// A session that was greeted, and its client's side.
async fn session() -> (Session, TcpStream) {
    let postgres = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let state = tenant(postgres.local_addr().unwrap().port());
    tokio::spawn(serve(postgres));
    let limits = PoolLimits {
        lifetime: Duration::ZERO,
        idle_timeout: Duration::ZERO,
        cleanup_timeout: Duration::from_secs(5),
        max_prepared_statements: 10,
    };
    let pool = Pool::new(Clock::start(), limits, vec![BudgetConfig::new(2)], Box::new(|_| ()));
    pool.set_tenant(&state);
    let floor = Floor::new(pool, Registry::new(WorkerId(0), CancelKeys::new(&[7; 32])), 10);
    let listener = Listener::bind_tcp("127.0.0.1:0".parse().unwrap(), 8).unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    client.set_nodelay(true).unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    let wishes = SessionWishes {
        mode: PoolMode::Transaction,
        replication: None,
        target: crate::tenant::Target::Primary,
        ends_at: None,
        protocol_minor: 0,
        parameters: Vec::new(),
        unread: Vec::new(),
        unsent: Vec::new(),
    };
    (greet(Admission::new(Rc::new(floor), state, 1), stream, wishes).await.unwrap(), client)
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

/// A Postgres that lets one client in and answers nothing.
async fn serve(listener: TcpListener) {
    let (mut stream, _) = listener.accept().await.unwrap();
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
