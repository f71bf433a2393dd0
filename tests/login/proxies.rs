//! Load balancers that say where their clients are: PROXY protocol headers, from those who are trusted and from others.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tenantry::auth::scram_client::Binding;
use tenantry::config::settings::{Settings, TlsMode, TrustedProxies};
use tenantry::front::LoginResult;
use tenantry::net::tls::ALPN;
use tenantry::wire::startup::{put_cancel_request, put_ssl_request};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use crate::papers::Papers;
use crate::passwords::guess_as;
use crate::raw::{Raw, startup};
use crate::rig::Rig;

const V1: &[u8] = b"PROXY TCP4 192.0.2.1 198.51.100.7 51234 5432\r\n";
/// PROXY over TCP and IPv6, with a TLV of three bytes behind the addresses.
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x21\0\x2a\
    \x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x02\xc8\x22\x15\x38\
    \x04\0\x03abc";
const V2_LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

fn trust_loopback(settings: &mut Settings) {
    settings.listen.trusted_proxies = TrustedProxies(vec!["127.0.0.0/8".parse().unwrap()]);
}

fn behind_a_balancer() -> Rig {
    Rig::with(trust_loopback)
}

/// A connection that begins with these bytes.
async fn connect(rig: &Rig, header: &[u8]) -> Raw<TcpStream> {
    let mut client = rig.connect().await;
    client.send(header).await;
    client
}

fn address(text: &str) -> Option<SocketAddr> {
    Some(text.parse().unwrap())
}

#[tokio::test]
async fn a_client_is_where_the_header_says() {
    let mut rig = behind_a_balancer();
    for (header, client) in [(V1, "192.0.2.1:51234"), (V2, "[2001:db8::1]:51234")] {
        connect(&rig, header).await.log_in(&[("user", "acme")], "pencil").await;
        assert_eq!(rig.guest().await.peer, address(client));
    }
    for header in [V2_LOCAL, b"PROXY UNKNOWN\r\n"] {
        let mut client = connect(&rig, header).await;
        let own = client.stream.local_addr().unwrap();
        client.log_in(&[("user", "acme")], "pencil").await;
        assert_eq!(rig.guest().await.peer, Some(own), "without an address the balancer's counts");
    }
    rig.counted(LoginResult::Ok, 4).await;
}

#[tokio::test]
async fn a_header_may_be_cut_anywhere_and_run_into_what_follows() {
    let mut rig = behind_a_balancer();
    for header in [V1, V2] {
        let mut client = rig.connect().await;
        for byte in [header, &startup(&[("user", "acme")])].concat() {
            client.send(&[byte]).await;
            // Whoever reads gets a turn, so that most bytes arrive one by one.
            tokio::task::yield_now().await;
        }
        assert_eq!(client.offered().await, ["SCRAM-SHA-256"]);
        for cut in 0..=header.len() {
            let mut client = connect(&rig, header.get(..cut).unwrap()).await;
            tokio::task::yield_now().await;
            client.send(&[header.get(cut..).unwrap(), &startup(&[("user", "acme")])].concat()).await;
            assert_eq!(client.offered().await, ["SCRAM-SHA-256"], "cut at {cut}");
        }
        let mut whole = connect(&rig, &[header, &startup(&[("user", "acme")])].concat()).await;
        whole.offered().await;
        whole.prove("SCRAM-SHA-256", "pencil", Binding::None).await;
        whole.greeted().await;
        assert_eq!(rig.guest().await.unread, b"");
    }
}

#[tokio::test]
async fn encryption_and_cancel_requests_come_behind_the_header() {
    let papers = Papers::new();
    let mut rig = Rig::with(|settings| {
        trust_loopback(settings);
        settings.listen.tls = papers.listen(TlsMode::Require);
    });
    let mut config = papers.client(None);
    config.alpn_protocols = vec![ALPN.to_vec()];
    let connector = TlsConnector::from(Arc::new(config));
    let mut request = Vec::new();
    put_ssl_request(&mut request);
    for header in [V1, V2] {
        // Direct TLS: the handshake follows in the next packet, or the same one.
        let mut requested = connect(&rig, &[header, &request].concat()).await;
        assert_eq!(requested.byte().await, b'S');
        for client in [requested, connect(&rig, header).await] {
            let name = "localhost".try_into().unwrap();
            let mut client = Raw::new(connector.connect(name, client.stream).await.unwrap());
            client.send(&startup(&[("user", "acme")])).await.offered().await;
            client.prove("SCRAM-SHA-256", "pencil", Binding::None).await;
            client.greeted().await;
            assert_eq!(rig.guest().await.peer.unwrap().port(), 51_234);
        }
        let mut cancel = header.to_vec();
        put_cancel_request(&mut cancel, 7, b"1234");
        let mut client = connect(&rig, &cancel).await;
        assert_eq!(rig.cancelled().await.pid, 7);
        assert_eq!(client.rest().await, b"");
    }
    let mut plain = connect(&rig, &[V1, &startup(&[("user", "acme")])].concat()).await;
    assert_eq!(plain.refused().await.code, "28000", "TLS is required as before");
}

#[tokio::test]
async fn a_trusted_address_without_a_header_is_refused() {
    let mut rig = behind_a_balancer();
    let mut request = Vec::new();
    put_ssl_request(&mut request);
    let twice = [V1, V1].concat();
    for (bytes, message) in [
        (&startup(&[("user", "acme")])[..], "expected a PROXY protocol header from this address"),
        (&request, "expected a PROXY protocol header from this address"),
        (b"PROXY TCP4 localhost localhost 1 2\r\n", "expected a PROXY protocol header from this address"),
        (&[b'P'; 3000], "expected a PROXY protocol header from this address"),
        (&twice, "invalid length of startup packet"),
    ] {
        let refused = connect(&rig, bytes).await.refused().await;
        assert_eq!((&*refused.code, &*refused.message), ("08P01", message));
    }
    rig.counted(LoginResult::ProtocolViolation, 5).await;
    // A TLS client sees the end of the connection.
    let mut hello = connect(&rig, &[0x16, 3, 1, 0, 200]).await;
    hello.rest().await;
    rig.counted(LoginResult::ProtocolViolation, 6).await;
    // One that only connects, as health checks do.
    drop(rig.connect().await);
    rig.counted(LoginResult::Disconnected, 1).await;
    // A Unix socket has no address that could be trusted.
    rig.connect_unix().await.log_in(&[("user", "acme")], "pencil").await;
    assert_eq!(rig.guest().await.peer, None);
    rig.expect_nobody();
}

#[tokio::test]
async fn a_header_from_others_is_a_violation() {
    let mut rig = Rig::with(|settings| {
        settings.listen.trusted_proxies = TrustedProxies(vec!["192.0.2.0/24".parse().unwrap()]);
    });
    for header in [V1, V2] {
        let mut client = connect(&rig, &[header, &startup(&[("user", "acme")])].concat()).await;
        let refused = client.refused().await;
        assert_eq!((&*refused.code, &*refused.message), ("08P01", "invalid length of startup packet"));
    }
    rig.connect().await.log_in(&[("user", "acme")], "pencil").await;
    rig.guest().await;
    // A reload trusts the address; the next connection needs a header.
    let mut changed = (*rig.settings.load_full()).clone();
    trust_loopback(&mut changed);
    rig.settings.store(Arc::new(changed));
    connect(&rig, V1).await.log_in(&[("user", "acme")], "pencil").await;
    assert_eq!(rig.guest().await.peer, address("192.0.2.1:51234"));
    rig.expect_nobody();
}

#[tokio::test]
async fn guessing_is_slow_for_the_client_and_not_for_its_neighbours() {
    let rig = behind_a_balancer();
    let guess = async |address: &str| {
        let header = format!("PROXY TCP4 {address} 198.51.100.7 51234 5432\r\n");
        guess_as(connect(&rig, header.as_bytes()).await, "acme").await
    };
    for _ in 0..4 {
        guess("192.0.2.1").await;
    }
    let took = guess("192.0.2.1").await;
    assert!(took >= Duration::from_millis(200), "{took:?}");
    // The quickest of several, because the machine may be busy.
    let mut quickest = Duration::MAX;
    for last in 2..5 {
        quickest = quickest.min(guess(&format!("192.0.2.{last}")).await);
    }
    assert!(quickest < Duration::from_millis(200), "{quickest:?}");
}

#[tokio::test]
async fn a_header_that_dawdles_is_closed_at_the_deadline() {
    let deadline = Duration::from_millis(200);
    let rig = Rig::with(|settings| {
        trust_loopback(settings);
        settings.listen.login_timeout = deadline;
    });
    for sent in [&b""[..], b"PROXY ", &V2[..20]] {
        let start = Instant::now();
        let mut client = connect(&rig, sent).await;
        let mut rest = Vec::new();
        let closed = tokio::time::timeout(Duration::from_secs(10), client.stream.read_to_end(&mut rest));
        let _ = closed.await.expect("closed");
        assert!(rest.is_empty() && start.elapsed() >= deadline - Duration::from_millis(20));
    }
    rig.counted(LoginResult::Timeout, 3).await;
}
