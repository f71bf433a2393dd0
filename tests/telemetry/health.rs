//! Goal: probes answer the truth at once, whatever else hangs; and nobody can hang the server.

use std::sync::Arc;
use std::time::Duration;

use tenantry::telemetry::Phase;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::fake::{Fake, readiness, report};
use crate::http::Server;
use crate::promtool;

#[tokio::test]
async fn readiness_follows_the_phase_and_the_clusters() {
    let fake = Arc::new(Fake::new(report(Vec::new())));
    let server = Server::start(fake.clone()).await;
    let cases = [
        (Phase::Starting, &[true, true][..], 503),
        (Phase::Serving, &[true, true], 200),
        (Phase::Serving, &[false, true], 200),
        (Phase::Serving, &[false, false], 503),
        (Phase::Draining, &[true, true], 503),
    ];
    for (phase, reachable, status) in cases {
        *fake.readiness.lock() = readiness(phase, reachable);
        let ready = server.get("/readyz").await;
        assert_eq!(ready.status, status, "{phase:?} {reachable:?}");
        assert_eq!(ready.body, if status == 200 { "ready\n" } else { "not ready\n" });
        assert_eq!(server.get("/livez").await.status, 200, "{phase:?}");
    }
}

#[tokio::test]
async fn verbose_readiness_lists_every_check() {
    let fake = Arc::new(Fake::new(report(Vec::new())));
    *fake.readiness.lock() = readiness(Phase::Draining, &[true, false]);
    let ready = Server::start(fake).await.get("/readyz?verbose").await;
    let expected = "[-] phase: draining\n[+] cluster c0: reachable\n[-] cluster c1: unreachable\nnot ready\n";
    assert_eq!((ready.status, ready.body.as_str()), (503, expected));
}

#[tokio::test]
async fn everything_else_is_not_found() {
    let server = Server::start(Arc::new(Fake::new(report(Vec::new())))).await;
    for target in ["/", "/metrics/", "/metrics/tenants/acme", "/api", "/livez/../metrics"] {
        assert_eq!(server.get(target).await.status, 404, "{target}");
    }
    assert_eq!(server.request("POST", "/metrics", "Content-Length: 0\r\n").await.status, 405);
    let head = server.request("HEAD", "/metrics", "").await;
    assert_eq!((head.status, head.body.len()), (200, 0));
    // What was asked for never becomes a label.
    let page = promtool::parse(&server.get("/metrics").await.body);
    let requests = &page["tenantry_http_requests_total"];
    assert_eq!(requests.value(&[("page", "other"), ("code", "404")]), 5.0);
    assert_eq!(requests.value(&[("page", "/metrics"), ("code", "405")]), 1.0);
}

#[tokio::test]
async fn workers_that_do_not_answer_fail_the_scrape_and_not_the_probes() {
    let mut fake = Fake::new(report(Vec::new()));
    fake.report = None;
    let server = Arc::new(Server::start(Arc::new(fake)).await);
    let scraper = server.clone();
    let scrape = tokio::spawn(async move { scraper.get("/metrics").await.status });
    for target in ["/livez", "/readyz"] {
        assert_eq!(server.get(target).await.status, 200);
    }
    assert_eq!(scrape.await.unwrap(), 503);
}

#[tokio::test]
async fn a_request_that_is_too_long_ends_the_connection() {
    let server = Server::start(Arc::new(Fake::new(report(Vec::new())))).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(b"GET /livez HTTP/1.1\r\nHost: test\r\n").await.unwrap();
    let header = format!("X-Long: {}\r\n", "x".repeat(1_000));
    for _ in 0..1_000 {
        if stream.write_all(header.as_bytes()).await.is_err() {
            break;
        }
    }
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP/1.1 200"));
    assert_eq!(server.get("/livez").await.status, 200);
}

#[tokio::test]
async fn requests_that_never_end_do_not_hold_a_probe_up() {
    let server = Arc::new(Server::start(Arc::new(Fake::new(report(Vec::new())))).await);
    let mut half_open = JoinSet::new();
    for _ in 0..HALF_OPEN {
        let address = server.address;
        half_open.spawn(async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            // One that was closed already cannot be written to; it has done what it could.
            let _ = stream.write_all(b"GET /metrics HTTP/1.1\r\nX:").await;
            stream
        });
    }
    // Spawned as well, so that it comes behind all of them.
    let probes = tokio::spawn(async move {
        for target in ["/livez", "/readyz", "/metrics"] {
            let probe = tokio::time::timeout(PROBE, server.get(target)).await;
            assert_eq!(probe.expect("a probe gets through").status, 200, "{target}");
        }
    });
    probes.await.unwrap();
    half_open.shutdown().await;
}

#[tokio::test]
async fn requests_that_are_not_answered_do_not_hold_a_probe_up() {
    let mut fake = Fake::new(report(Vec::new()));
    fake.report = None;
    let server = Server::start(Arc::new(fake)).await;
    let mut waiting = Vec::new();
    for _ in 0..HALF_OPEN / 4 {
        waiting.push(server.send("GET", "/metrics", "").await);
    }
    let probe = tokio::time::timeout(PROBE, server.get("/livez")).await;
    assert_eq!(probe.expect("a probe gets through").status, 200);
}

#[tokio::test]
async fn nonsense_is_not_a_request() {
    let server = Server::start(Arc::new(Fake::new(report(Vec::new())))).await;
    for nonsense in [
        &b"\0\0\0\x08\x04\xd2\x16\x2f"[..],
        b"\x16\x03\x01\x02\x00",
        b"GET\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(nonsense).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        assert!(!answer.starts_with(b"HTTP/1.1 200"), "{nonsense:?}");
    }
    assert_eq!(server.get("/livez").await.status, 200);
}

#[tokio::test]
async fn idle_connections_do_not_keep_the_server_from_stopping() {
    let server = Server::start(Arc::new(Fake::new(report(Vec::new())))).await;
    let _silent = TcpStream::connect(server.address).await.unwrap();
    let mut kept = TcpStream::connect(server.address).await.unwrap();
    kept.write_all(b"GET /livez HTTP/1.1\r\nHost: test\r\n\r\n").await.unwrap();
    let mut first = [0; 15];
    kept.read_exact(&mut first).await.unwrap();
    server.shutdown.cancel();
    tokio::time::timeout(Duration::from_secs(10), server.task).await.expect("it stops").unwrap().unwrap();
}

/// Many more than there are places.
const HALF_OPEN: usize = 600;

/// What a kubelet gives a probe; also when a connection that the kernel did not take is tried again.
const PROBE: Duration = Duration::from_secs(1);
