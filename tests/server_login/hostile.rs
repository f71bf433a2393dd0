//! Servers that lie, stop, babble or hang: a login always ends, in time, with the right reason.

use std::time::Duration;

use tenantry::backend::{
    Connector, FailureClass, LoginError, LoginFailure, Profile, Server, Stage, close, login,
};
use tenantry::config::settings::{Endpoint, ListenTls, SslMode, TargetSessionAttrs, TlsMode, TlsVersion};
use tenantry::net::tls::{ServerTls, Start};
use tokio::time::Instant;

use crate::fake::{Fake, Step, authentication, error, greeting, tagged};
use crate::fixtures::*;

/// Longest time a login with `TIMEOUT` may take: the attempt and the wait for the server's end.
const LIMIT: Duration = Duration::from_secs(10);
const TIMEOUT: Duration = Duration::from_millis(400);

async fn login_at(endpoint: Endpoint) -> Result<Server, LoginError> {
    let connector = Connector::new(&cluster(endpoint), &servers(TIMEOUT)).unwrap();
    let profile = Profile::new(&connector, &tenant("acme"));
    tokio::time::timeout(LIMIT, login(&profile)).await.unwrap()
}

async fn login_to(fake: &Fake) -> Result<Server, LoginError> {
    login_at(endpoint(vec![tcp("127.0.0.1", fake.port())])).await
}

/// Logs in at a server that reads the startup packet, sends this and closes.
async fn answered(bytes: Vec<u8>) -> Result<Server, LoginError> {
    login_to(&Fake::start(vec![Step::Packet, Step::Send(bytes)])).await
}

fn listen_tls() -> ListenTls {
    ListenTls {
        mode: TlsMode::Require,
        identity: Some(PAPERS.identity("server")),
        client_ca: None,
        min_version: TlsVersion::V1_3,
    }
}

fn sasl() -> Vec<u8> {
    authentication(10, b"SCRAM-SHA-256\0\0")
}

#[tokio::test]
async fn every_truncated_greeting_is_a_closed_connection() {
    let whole = greeting(&[("server_version", "17.0"), ("in_hot_standby", "off")]);
    for cut in 0..whole.len() {
        let error = answered(whole[..cut].to_vec()).await.unwrap_err();
        assert_eq!(error.reason(), "server_closed_in_login", "cut at {cut}: {error}");
    }
    let server = answered(whole).await.unwrap();
    assert_eq!((server.pid, reported(&server, "server_version")), (7, Some("17.0")));
}

#[tokio::test]
async fn a_greeting_with_any_byte_changed_never_hangs_or_panics() {
    let whole = greeting(&[("server_version", "17.0")]);
    for at in 0..whole.len() {
        for byte in [0x00, 0x7f, 0xff, b'E', b'Z'] {
            let mut changed = whole.clone();
            changed[at] = byte;
            let _ = answered(changed).await;
        }
    }
}

#[tokio::test]
async fn oversized_and_impossible_messages_are_protocol_violations() {
    let header = |tag: u8, length: u32| [&[tag][..], &length.to_be_bytes()].concat();
    let many: Vec<u8> = (0..300).flat_map(|n| tagged(b'S', format!("p{n}\0v\0").as_bytes())).collect();
    let flood: Vec<u8> = tagged(b'N', &[0; 60_000]).repeat(20);
    for (name, bytes) in [
        ("a huge message", header(b'R', u32::MAX / 4)),
        ("a negative length", header(b'R', u32::MAX)),
        ("a length below four", header(b'R', 3)),
        ("an answer that is not R", tagged(b'D', b"\0\0")),
        ("a short R", tagged(b'R', b"\0")),
        ("SASLFinal out of order", authentication(12, b"v=")),
        ("SASL without terminator", authentication(10, b"SCRAM-SHA-256")),
        ("an error without code", tagged(b'E', b"Mno\0\0")),
        ("a bad ParameterStatus", [authentication(0, b""), tagged(b'S', b"name")].concat()),
        ("a short key", [authentication(0, b""), tagged(b'K', b"\0\0\0\x07\x01")].concat()),
        ("a long key", [authentication(0, b""), tagged(b'K', &[7; 300])].concat()),
        ("ready in a transaction", [authentication(0, b""), tagged(b'Z', b"T")].concat()),
        ("a row before ready", [authentication(0, b""), tagged(b'D', b"\0\0")].concat()),
        ("a row after ready", [greeting(&[]), tagged(b'D', b"\0\0")].concat()),
        ("too many parameters", [authentication(0, b""), many].concat()),
        ("a flood of notices", [authentication(0, b""), flood].concat()),
    ] {
        let error = answered(bytes).await.unwrap_err();
        assert_eq!(
            (error.reason(), error.class()),
            ("server_protocol", FailureClass::Unavailable),
            "{name}: {error}"
        );
    }
}

#[tokio::test]
async fn what_comes_with_ready_for_query_is_taken_too() {
    let late = tagged(b'S', b"server_version\x0018.1\0");
    let server = answered([greeting(&[("server_version", "17.0")]), late, tagged(b'N', b"\0")].concat())
        .await
        .unwrap();
    assert_eq!(reported(&server, "server_version"), Some("18.1"), "the newest value counts");
    let error = answered([greeting(&[]), error("57P01")].concat()).await.unwrap_err();
    assert_eq!((error.sqlstate(), error.class()), (Some("57P01"), FailureClass::Unavailable));
}

#[tokio::test]
async fn a_silent_server_costs_the_timeout_at_each_step() {
    let tls = Endpoint { ssl_mode: SslMode::Require, ..endpoint(Vec::new()) };
    let plain = endpoint(Vec::new());
    for (base, script, stage, reason) in [
        (&plain, vec![], Stage::Login, "server_login_timeout"),
        (&plain, vec![Step::Packet], Stage::Login, "server_login_timeout"),
        (&plain, vec![Step::Packet, Step::Send(sasl()), Step::Message], Stage::Login, "server_login_timeout"),
        (
            &plain,
            vec![Step::Packet, Step::Send(authentication(0, b""))],
            Stage::Login,
            "server_login_timeout",
        ),
        (&tls, vec![Step::Packet], Stage::Tls, "server_login_timeout"),
        (&tls, vec![Step::Packet, Step::Send(b"S".to_vec())], Stage::Tls, "server_login_timeout"),
    ] {
        let fake = Fake::start([script.clone(), vec![Step::AwaitEnd]].concat());
        let started = Instant::now();
        let error = login_at(Endpoint { hosts: vec![tcp("127.0.0.1", fake.port())], ..base.clone() })
            .await
            .unwrap_err();
        let took = started.elapsed();
        assert!(took >= TIMEOUT && took < TIMEOUT + Duration::from_secs(1), "{script:?}: {took:?}");
        assert!(
            matches!(error.failure(), LoginFailure::Timeout { stage: at, .. } if *at == stage),
            "{error}"
        );
        assert_eq!((error.reason(), error.class()), (reason, FailureClass::Unavailable));
    }
}

#[tokio::test]
async fn a_server_that_never_closes_is_left_after_two_seconds() {
    let fake = Fake::start(vec![Step::Packet, Step::Send(error("28P01")), Step::Hang]);
    let started = Instant::now();
    let error = login_to(&fake).await.unwrap_err();
    assert_eq!(error.sqlstate(), Some("28P01"));
    let took = started.elapsed();
    assert!(took >= Duration::from_secs(2) && took < Duration::from_secs(5), "{took:?}");
}

#[tokio::test]
async fn a_failed_login_waits_for_the_servers_end() {
    let fake = Fake::start(vec![Step::Packet, Step::Send(error("28P01")), Step::AwaitEnd]);
    login_to(&fake).await.unwrap_err();
    assert_eq!(fake.ended(), 1, "the server had seen the end before the login returned");
}

#[tokio::test]
async fn a_dropped_login_closes_its_connection() {
    let fake = Fake::start(vec![Step::Packet, Step::AwaitEnd]);
    let connector =
        Connector::new(&cluster(endpoint(vec![tcp("127.0.0.1", fake.port())])), &servers(LIMIT)).unwrap();
    let profile = Profile::new(&connector, &tenant("acme"));
    tokio::time::timeout(Duration::from_millis(50), login(&profile)).await.unwrap_err();
    let started = Instant::now();
    while fake.ended() == 0 {
        assert!(started.elapsed() < LIMIT, "the server never saw the end");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_server_must_prove_that_it_knows_the_verifier() {
    let challenge = Step::ServerFirst("more,s=c2FsdA==,i=1");
    let begin = || vec![Step::Packet, Step::Send(sasl()), challenge.clone(), Step::Message];
    let wrong = authentication(12, b"v=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=");
    for (last, reason) in [
        (wrong, "server_signature"),
        (greeting(&[]), "server_signature"),
        (authentication(12, b"e=other-error"), "server_scram"),
        (authentication(12, b"\xff"), "server_scram"),
        (tagged(b'Z', b"I"), "server_protocol"),
    ] {
        let error = login_to(&Fake::start([begin(), vec![Step::Send(last)]].concat())).await.unwrap_err();
        assert_eq!(error.reason(), reason, "{error}");
    }
}

#[tokio::test]
async fn bad_challenges_end_the_exchange_before_anything_is_proven() {
    for (rest, reason) in [
        (",s=c2FsdA==,i=4096", "server_scram"),
        ("more,s=%,i=4096", "server_scram"),
        ("more,s=c2FsdA==,i=2000000000", "server_scram"),
        ("more,s=c2FsdA==,i=0", "server_scram"),
    ] {
        let script = vec![Step::Packet, Step::Send(sasl()), Step::ServerFirst(rest), Step::AwaitEnd];
        let error = login_to(&Fake::start(script)).await.unwrap_err();
        assert_eq!((error.reason(), error.class()), (reason, FailureClass::Rejected), "{rest}: {error}");
    }
}

#[tokio::test]
async fn unknown_methods_are_refused_by_name() {
    for (request, reason) in [
        (authentication(10, b"OAUTHBEARER\0\0"), "server_scram"),
        (authentication(7, b""), "server_auth_method"),
        (authentication(99, b""), "server_auth_method"),
    ] {
        let error = answered(request).await.unwrap_err();
        assert_eq!((error.reason(), error.class()), (reason, FailureClass::Rejected), "{error}");
    }
}

#[tokio::test]
async fn a_server_that_is_starting_makes_way_and_one_that_is_full_does_not() {
    let good = Fake::start(vec![Step::Packet, Step::Send(greeting(&[])), Step::AwaitEnd]);
    for (code, moves_on) in [("57P03", true), ("53200", true), ("53300", false), ("28P01", false)] {
        let bad = Fake::start(vec![Step::Packet, Step::Send(error(code))]);
        let hosts = vec![tcp("127.0.0.1", bad.port()), tcp("127.0.0.1", good.port())];
        assert_eq!(login_at(endpoint(hosts)).await.is_ok(), moves_on, "{code}");
    }
}

#[tokio::test]
async fn a_standby_is_told_from_a_primary() {
    use TargetSessionAttrs::{Any, PreferStandby, Primary, ReadOnly, ReadWrite, Standby};
    let kind = |standby: &str, version: &str| {
        let parameters = [
            ("server_version", version),
            ("in_hot_standby", standby),
            ("default_transaction_read_only", "off"),
        ];
        Fake::start(vec![Step::Packet, Step::Send(greeting(&parameters)), Step::AwaitEnd])
    };
    let (primary, standby) = (kind("off", "primary"), kind("on", "standby"));
    let both = vec![tcp("127.0.0.1", primary.port()), tcp("127.0.0.1", standby.port())];
    let only = vec![tcp("127.0.0.1", primary.port())];
    for (attrs, hosts, expected) in [
        (Any, &both, Some("primary")),
        (Primary, &both, Some("primary")),
        (ReadWrite, &both, Some("primary")),
        (Standby, &both, Some("standby")),
        (ReadOnly, &both, Some("standby")),
        (PreferStandby, &both, Some("standby")),
        (PreferStandby, &only, Some("primary")),
        (Standby, &only, None),
    ] {
        let result = login_at(Endpoint { target_session_attrs: attrs, ..endpoint(hosts.clone()) }).await;
        let got = result.as_ref().ok().and_then(|server| reported(server, "server_version"));
        assert_eq!(got, expected, "{attrs:?}");
    }
}

#[tokio::test]
async fn an_old_server_is_asked_what_it_is() {
    let answer = |value: &str| {
        let length = u32::try_from(value.len()).unwrap().to_be_bytes();
        let row = [&[0, 1][..], &length, value.as_bytes()].concat();
        [tagged(b'T', b"\0\0"), tagged(b'D', &row), tagged(b'C', b"SHOW\0"), tagged(b'Z', b"I")].concat()
    };
    for (attrs, value, passes) in [
        (TargetSessionAttrs::ReadWrite, "off", true),
        (TargetSessionAttrs::ReadWrite, "on", false),
        (TargetSessionAttrs::Primary, "f", true),
        (TargetSessionAttrs::Standby, "f", false),
    ] {
        let fake = Fake::start(vec![
            Step::Packet,
            Step::Send(greeting(&[("server_version", "13.4")])),
            Step::Message,
            Step::Send(answer(value)),
            Step::AwaitEnd,
        ]);
        let hosts = vec![tcp("127.0.0.1", fake.port())];
        let result = login_at(Endpoint { target_session_attrs: attrs, ..endpoint(hosts) }).await;
        assert_eq!(result.is_ok(), passes, "{attrs:?} {value}");
    }
}

#[tokio::test]
async fn a_server_without_tls_is_taken_or_refused_as_sslmode_says() {
    let fake = Fake::start(vec![
        Step::Packet,
        Step::Send(b"N".to_vec()),
        Step::Packet,
        Step::Send(greeting(&[])),
        Step::AwaitEnd,
    ]);
    let with = |ssl_mode| Endpoint { ssl_mode, ..endpoint(vec![tcp("127.0.0.1", fake.port())]) };
    assert!(login_at(with(SslMode::Prefer)).await.is_ok());
    assert_eq!(login_at(with(SslMode::Require)).await.unwrap_err().reason(), "server_tls_not_offered");
    for (reply, reason) in [
        (error("XX000"), "server_protocol"),
        (b"?".to_vec(), "server_protocol"),
        (vec![], "server_closed_in_login"),
    ] {
        let fake = Fake::start(vec![Step::Packet, Step::Send(reply)]);
        let endpoint =
            Endpoint { ssl_mode: SslMode::Require, ..endpoint(vec![tcp("127.0.0.1", fake.port())]) };
        assert_eq!(login_at(endpoint).await.unwrap_err().reason(), reason);
    }
}

#[tokio::test]
async fn words_in_the_clear_after_the_s_are_not_taken_for_encrypted_ones() {
    let injected = [b"S".to_vec(), greeting(&[])].concat();
    let fake = Fake::start(vec![Step::Packet, Step::Send(injected), Step::AwaitEnd]);
    let endpoint = Endpoint { ssl_mode: SslMode::Require, ..endpoint(vec![tcp("127.0.0.1", fake.port())]) };
    assert_eq!(login_at(endpoint).await.unwrap_err().reason(), "server_tls_failed");
}

#[tokio::test]
async fn tls_can_start_directly() {
    let tls = ServerTls::load(&listen_tls()).unwrap();
    let script = vec![Step::Tls(tls, Start::Direct), Step::Packet, Step::Send(greeting(&[])), Step::AwaitEnd];
    let fake = Fake::start(script);
    let endpoint = Endpoint {
        ssl_mode: SslMode::VerifyFull,
        ssl_root_cert: Some(PAPERS.path("ca.pem")),
        ssl_direct: true,
        ..endpoint(vec![tcp("localhost", fake.port())])
    };
    assert!(login_at(endpoint).await.unwrap().stream.is_tls());
}

#[tokio::test]
async fn close_takes_what_the_server_still_says_before_it_goes() {
    let words = Step::Send(vec![7; 10_000_000]);
    let fake = Fake::start(vec![Step::Packet, Step::Send(greeting(&[])), Step::AwaitEnd, words]);
    let server = login_to(&fake).await.unwrap();
    close(server.stream).await;
    assert_eq!(fake.ended(), 1, "the server was still at it");
}

#[tokio::test]
async fn a_cancel_of_an_encrypted_session_is_encrypted_too() {
    let tls = ServerTls::load(&listen_tls()).unwrap();
    let encrypted = Step::Tls(tls, Start::Requested);
    let fake = Fake::start(vec![
        Step::Packet,
        Step::Send(b"S".to_vec()),
        encrypted,
        Step::Packet,
        Step::Send(greeting(&[])),
    ]);
    let endpoint = Endpoint { ssl_mode: SslMode::Require, ..endpoint(vec![tcp("127.0.0.1", fake.port())]) };
    let server = login_at(endpoint).await.unwrap();
    server.cancel.send().await.unwrap();
    assert_eq!(fake.ended(), 2, "a request in the clear would not have come to the script's end");
}

#[tokio::test]
async fn a_login_that_cannot_be_written_down_is_refused_without_connecting() {
    let fake = Fake::start(vec![Step::AwaitEnd]);
    let connector =
        Connector::new(&cluster(endpoint(vec![tcp("127.0.0.1", fake.port())])), &servers(TIMEOUT)).unwrap();
    let tenant = tenantry::tenant::Tenant { settings: settings(&[("a", "b\0c")]), ..tenant("acme") };
    let error = login(&Profile::new(&connector, &tenant)).await.unwrap_err();
    assert_eq!((error.reason(), error.class()), ("server_startup_packet", FailureClass::Rejected));
    assert_eq!(fake.ended(), 0);
}
