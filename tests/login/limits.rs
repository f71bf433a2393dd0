//! Limits: the deadline, logins in progress, clients in all, and the end of the front.

use std::sync::Arc;
use std::time::Duration;

use tenantry::front::LoginResult;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout};

use crate::papers::Papers;
use crate::raw::startup;
use crate::rig::Rig;

const DEADLINE: Duration = Duration::from_millis(200);

fn hurried() -> Rig {
    Rig::with(|settings| settings.listen.login_timeout = DEADLINE)
}

#[tokio::test]
async fn a_login_that_dawdles_is_closed_at_the_deadline_at_every_stage() {
    let papers = Papers::new();
    let mut rig = Rig::with(|settings| {
        settings.listen.login_timeout = DEADLINE;
        settings.listen.tls = papers.listen(tenantry::config::settings::TlsMode::Prefer);
    });
    let whole = startup(&[("user", "acme")]);
    let tls = [0x16, 3, 1, 0, 200];
    for sent in [&b""[..], &whole[..2], &whole[..9], &whole, &tls] {
        let start = Instant::now();
        let mut client = rig.connect().await;
        client.send(sent).await;
        let mut rest = Vec::new();
        let _ = timeout(Duration::from_secs(10), client.stream.read_to_end(&mut rest)).await.expect("closed");
        assert!(start.elapsed() >= DEADLINE - Duration::from_millis(20), "{:?}", start.elapsed());
    }
    rig.counted(LoginResult::Timeout, 5).await;
    assert_eq!((rig.front.clients(), rig.front.half_open()), (0, 0));
    rig.expect_nobody();
}

#[tokio::test]
async fn trickling_bytes_do_not_move_the_deadline() {
    let rig = hurried();
    let mut client = rig.connect().await;
    let start = Instant::now();
    let mut buf = [0; 1];
    for byte in startup(&[("user", "acme"), ("application_name", &"x".repeat(500))]) {
        if client.stream.write_all(&[byte]).await.is_err() {
            break;
        }
        // Waiting for an answer that does not come is the pace.
        match timeout(Duration::from_millis(10), client.stream.read(&mut buf)).await {
            Err(_) => {}
            Ok(read) => {
                assert!(matches!(read, Ok(0) | Err(_)));
                break;
            }
        }
    }
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    rig.counted(LoginResult::Timeout, 1).await;
}

#[tokio::test]
async fn logins_beyond_the_limit_wait_in_the_backlog_and_come_in_later() {
    let mut rig = Rig::with(|settings| settings.listen.max_half_open = 2);
    let (first, second) = (rig.connect().await, rig.connect().await);
    while rig.front.half_open() < 2 {
        tokio::task::yield_now().await;
    }
    let mut third = rig.connect().await;
    third.send(&startup(&[("user", "acme")])).await;
    let mut buf = [0; 1];
    let unanswered = timeout(Duration::from_millis(50), third.stream.peek(&mut buf)).await;
    assert!(unanswered.is_err(), "the third is not even accepted");
    assert_eq!(rig.front.half_open(), 2);
    drop((first, second));
    assert_eq!(third.offered().await, ["SCRAM-SHA-256"]);
    rig.expect_nobody();
}

#[tokio::test]
async fn an_admitted_client_is_no_login_in_progress() {
    let mut rig = Rig::with(|settings| settings.listen.max_half_open = 1);
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut client = rig.connect().await;
        client.log_in(&[("user", "acme")], "pencil").await;
        clients.push(client);
        rig.guest().await;
    }
    assert_eq!((rig.front.clients(), rig.front.half_open()), (3, 0));
}

#[tokio::test]
async fn clients_in_all_are_limited_and_their_places_come_back() {
    let mut rig = Rig::with(|settings| settings.listen.max_clients = 1);
    let mut first = rig.connect().await;
    first.log_in(&[("user", "acme")], "pencil").await;
    rig.guest().await;
    let mut second = rig.connect().await;
    let refused = second.send(&startup(&[("user", "acme")])).await.refused().await;
    assert_eq!((&*refused.code, &*refused.message), ("53300", "sorry, too many clients already"));
    assert!(String::from_utf8_lossy(&refused.bytes).contains("1 clients in all (listen.max_clients)"));
    rig.counted(LoginResult::TooManyClients, 1).await;
    drop(first);
    while rig.front.clients() > 0 {
        tokio::task::yield_now().await;
    }
    rig.connect().await.log_in(&[("user", "acme")], "pencil").await;
    rig.guest().await;
}

#[tokio::test]
async fn a_failed_login_gives_its_place_back() {
    let rig = Rig::with(|settings| settings.listen.max_clients = 1);
    for _ in 0..2 {
        let mut client = rig.connect().await;
        client.send(&startup(&[("user", "acme")])).await.offered().await;
        assert_eq!(client.send(b"Q\0\0\0\x04").await.refused().await.code, "08P01");
    }
    rig.counted(LoginResult::TooManyClients, 0).await;
}

#[tokio::test]
async fn a_reload_is_seen_by_the_next_client() {
    let mut rig = Rig::plain();
    let mut changed = (*rig.settings.load_full()).clone();
    changed.listen.max_clients = 0;
    rig.settings.store(Arc::new(changed));
    let mut client = rig.connect().await;
    assert_eq!(client.send(&startup(&[("user", "acme")])).await.refused().await.code, "53300");
    rig.expect_nobody();
}

#[tokio::test]
async fn stopping_tells_those_who_are_logging_in_and_refuses_new_ones() {
    let rig = Rig::plain();
    let mut client = rig.connect().await;
    client.send(&startup(&[("user", "acme")])).await.offered().await;
    let port = rig.port;
    let counters = rig.counters.clone();
    let stopping = tokio::spawn(rig.stop());
    assert_eq!(client.refused().await.code, "57P03");
    drop(client);
    stopping.await.unwrap();
    assert_eq!(counters.of(LoginResult::ShuttingDown), 1);
    assert!(tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err());
}
