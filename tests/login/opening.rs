//! The first packets: requests for encryption, cancel requests, startup packets good and bad.

use tenantry::auth::scram_client::Binding;
use tenantry::front::LoginResult;
use tenantry::tenant::PoolMode;
use tenantry::wire::messages::put_sasl_initial_response;
use tenantry::wire::startup::{put_cancel_request, put_gss_enc_request, put_ssl_request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::raw::{answer, scram, startup, startup_of};
use crate::rig::Rig;

fn request(put: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    put(&mut out);
    out
}

/// A packet with any code and body.
fn packet(code: u32, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 8).unwrap();
    [&length.to_be_bytes()[..], &code.to_be_bytes(), body].concat()
}

#[tokio::test]
async fn an_admitted_client_brings_all_it_asked_for() {
    let mut rig = Rig::plain();
    let parameters = [
        ("user", "reader.acme"),
        ("database", "alias"),
        ("application_name", "till"),
        ("options", "-c statement_timeout=5s"),
    ];
    rig.connect().await.log_in(&parameters, "pencil").await;
    let guest = rig.guest().await;
    assert_eq!((&*guest.tenant, &*guest.user, &*guest.database), ("acme", "reader", "alias"));
    assert_eq!((guest.mode, guest.protocol_minor), (PoolMode::Session, 0));
    assert!(guest.peer.unwrap().ip().is_loopback());
    let settings = [("statement_timeout", "5s"), ("application_name", "till")];
    assert_eq!(guest.parameters, settings.map(|(name, value)| (name.to_owned(), value.to_owned())));
    assert_eq!(guest.unread, b"");
    rig.counted(LoginResult::Ok, 1).await;
    rig.stop().await;
}

#[tokio::test]
async fn a_login_works_however_the_bytes_are_cut() {
    let mut rig = Rig::plain();
    let mut client = rig.connect().await;
    for byte in startup(&[("user", "acme")]) {
        client.send(&[byte]).await;
    }
    client.offered().await;
    client.prove("SCRAM-SHA-256", "pencil", Binding::None).await;
    client.greeted().await;
    assert_eq!(rig.guest().await.database, "main", "who names no database gets the tenant's own");
}

#[tokio::test]
async fn encryption_is_declined_and_the_login_goes_on_in_plain() {
    let mut rig = Rig::plain();
    for requests in [vec![0], vec![1], vec![0, 1], vec![1, 0]] {
        let mut client = rig.connect().await;
        for which in requests {
            let bytes = request(if which == 0 { put_ssl_request } else { put_gss_enc_request });
            assert_eq!(client.send(&bytes).await.byte().await, b'N');
        }
        client.log_in(&[("user", "acme")], "pencil").await;
        rig.guest().await;
    }
}

#[tokio::test]
async fn encryption_may_be_requested_only_once() {
    let rig = Rig::plain();
    for put in [put_ssl_request, put_gss_enc_request] {
        let mut client = rig.connect().await;
        client.send(&request(put)).await.byte().await;
        assert_eq!(client.send(&request(put)).await.refused().await.code, "08P01");
    }
    rig.counted(LoginResult::ProtocolViolation, 2).await;
}

#[tokio::test]
async fn bytes_behind_a_request_for_encryption_are_a_violation() {
    let mut rig = Rig::plain();
    for put in [put_ssl_request, put_gss_enc_request] {
        let mut client = rig.connect().await;
        let smuggled = [request(put), startup(&[("user", "acme")])].concat();
        let refused = client.send(&smuggled).await.refused().await;
        assert_eq!(refused.code, "08P01");
        assert!(refused.message.contains("unencrypted data"), "{refused:?}");
    }
    rig.expect_nobody();
}

#[tokio::test]
async fn cancel_requests_are_passed_on_and_answered_by_closing() {
    let mut rig = Rig::plain();
    for secret in [&b"1234"[..], &[7; 32], &[9; 256]] {
        let mut client = rig.connect().await;
        client.send(&request(|out| put_cancel_request(out, 5, secret))).await;
        let (key, done) = rig.cancelling().await;
        assert_eq!((key.pid, &key.secret[..]), (5, secret));
        // The front has served another connection to its end meanwhile: a close that came too early would be here.
        let mut other = rig.connect().await;
        other.send(&request(|out| put_cancel_request(out, 6, secret))).await;
        drop(rig.cancelled().await);
        assert_eq!(other.rest().await, b"");
        assert!(client.is_open().await, "closed before the request was carried out");
        drop(done);
        assert_eq!(client.rest().await, b"");
    }
    let mut bad = rig.connect().await;
    bad.send(&packet((1234 << 16) | 5678, &[0; 300])).await;
    assert_eq!(bad.rest().await, b"", "a bad one looks the same");
    rig.counted(LoginResult::CancelRequest, 6).await;
    rig.counted(LoginResult::ProtocolViolation, 1).await;
}

#[tokio::test]
async fn newer_minor_versions_and_unknown_options_are_negotiated() {
    let mut rig = Rig::plain();
    let option = [("user", "acme"), ("_pq_.shiny", "1")];
    let plain = [("user", "acme")];
    let grease = [("user", "acme"), ("_pq_.test_protocol_negotiation", "")];
    for (minor, parameters, answer, spoken) in [
        (2, &plain[..], None, 2),
        (2, &option, Some(&b"\0\x03\0\x02\0\0\0\x01_pq_.shiny\0"[..]), 2),
        (0, &option, Some(b"\0\x03\0\0\0\0\0\x01_pq_.shiny\0"), 0),
        (1, &plain, Some(b"\0\x03\0\0\0\0\0\0"), 0),
        (9999, &plain, Some(b"\0\x03\0\x02\0\0\0\0"), 2),
        // What libpq sends to find out who does not negotiate ("grease").
        (9999, &grease, Some(b"\0\x03\0\x02\0\0\0\x01_pq_.test_protocol_negotiation\0"), 2),
    ] {
        let mut client = rig.connect().await;
        client.send(&startup_of(minor, parameters)).await;
        if let Some(answer) = answer {
            assert_eq!(client.message().await, (b'v', answer.to_vec()), "minor {minor}");
        }
        client.offered().await;
        client.prove("SCRAM-SHA-256", "pencil", Binding::None).await;
        client.greeted().await;
        assert_eq!(rig.guest().await.protocol_minor, spoken);
    }
}

#[tokio::test]
async fn what_is_not_a_startup_packet_is_refused_with_its_code() {
    let rig = Rig::plain();
    let v3 = 3 << 16;
    for (bytes, code) in [
        (packet(2 << 16, b"user\0acme\0\0"), "0A000"),
        (packet(4 << 16, b"user\0acme\0\0"), "0A000"),
        (packet(v3, b"user\0acme\0"), "08P01"),
        (packet(v3, b"user\0acme\0\0\0"), "08P01"),
        (packet(v3, b"user\0\xff\0\0"), "08P01"),
        (packet(v3, b"user\0acme\0user\0beta\0\0"), "08P01"),
        (packet(v3, &[b'x'; 20_000]), "08P01"),
        (packet((1234 << 16) | 5679, b"more"), "08P01"),
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), "08P01"),
        (vec![0; 64], "08P01"),
        (startup(&[("database", "app")]), "28000"),
        (startup(&[("user", "")]), "28000"),
        (startup(&[("user", "acme"), ("replication", "maybe")]), "22023"),
        (startup(&[("user", "acme"), ("options", "-d 5")]), "22023"),
        (
            startup(&[("user", "acme"), ("tenantry.tenant", "a"), ("options", "-c tenantry.tenant=b")]),
            "08P01",
        ),
    ] {
        let mut client = rig.connect().await;
        let refused = client.send(&bytes).await.refused().await;
        assert_eq!(refused.code, code, "{}: {refused:?}", bytes[..bytes.len().min(60)].escape_ascii());
    }
    rig.counted(LoginResult::Unsupported, 2).await;
    rig.counted(LoginResult::BadParameter, 5).await;
    rig.counted(LoginResult::ProtocolViolation, 8).await;
}

#[tokio::test]
async fn who_may_not_replicate_is_told_so_after_the_proof_and_no_sooner() {
    let rig = Rig::plain();
    for (password, code) in [("wrong", "28P01"), ("pencil", "0A000")] {
        let mut client = rig.connect().await;
        client.send(&startup(&[("user", "acme"), ("replication", "database")])).await.offered().await;
        let answers = client.prove("SCRAM-SHA-256", password, Binding::None).await;
        let verdict = &answers.last().unwrap().1;
        if verdict.windows(5).any(|part| part == b"28P01") {
            assert_eq!(code, "28P01");
        } else {
            assert_eq!(client.refused().await.code, code);
        }
    }
    rig.counted(LoginResult::Unsupported, 1).await;
}

#[tokio::test]
async fn a_packet_as_large_as_postgres_allows_is_read() {
    let mut rig = Rig::plain();
    let overhead = startup(&[("user", "acme"), ("application_name", "")]).len() - 4;
    let name = "x".repeat(10_000 - overhead);
    rig.connect().await.log_in(&[("user", "acme"), ("application_name", &name)], "pencil").await;
    assert_eq!(rig.guest().await.parameters[0].1.len(), name.len());
    let mut client = rig.connect().await;
    let too_large = startup(&[("user", "acme"), ("application_name", &format!("{name}x"))]);
    assert_eq!(client.send(&too_large).await.refused().await.code, "08P01");
}

#[tokio::test]
async fn what_follows_the_login_reaches_the_worker() {
    let mut rig = Rig::plain();
    let mut client = rig.connect().await;
    client.send(&startup(&[("user", "acme")])).await.offered().await;
    let scram = scram(Binding::None);
    let mut out = Vec::new();
    put_sasl_initial_response(&mut out, "SCRAM-SHA-256", scram.first_message().as_bytes());
    let challenge = client.send(&out).await.message().await.1;
    let (mut out, _) = answer(scram, &challenge, "pencil");
    out.extend_from_slice(b"Q\0\0\0\x0dSELECT 1\0");
    client.send(&out).await;
    assert_eq!(rig.guest().await.unread, b"Q\0\0\0\x0dSELECT 1\0");
}

#[tokio::test]
async fn a_client_that_leaves_is_forgotten_at_every_stage() {
    let mut rig = Rig::plain();
    let whole = startup(&[("user", "acme")]);
    for sent in [&b""[..], &whole[..3], &whole[..12], &whole] {
        let mut client = rig.connect().await;
        client.send(sent).await;
        client.stream.shutdown().await.unwrap();
        let mut rest = Vec::new();
        client.stream.read_to_end(&mut rest).await.unwrap();
        assert!(!rest.contains(&b'E'), "nobody is there to be told");
    }
    rig.counted(LoginResult::Disconnected, 4).await;
    assert_eq!((rig.front.clients(), rig.front.half_open()), (0, 0));
    rig.expect_nobody();
}

#[tokio::test]
async fn a_unix_socket_takes_logins_and_declines_tls() {
    let mut rig = Rig::plain();
    let mut client = rig.connect_unix().await;
    assert_eq!(client.send(&request(put_ssl_request)).await.byte().await, b'N');
    client.log_in(&[("user", "acme")], "pencil").await;
    assert_eq!(rig.guest().await.peer, None);
    let mut tls = rig.connect_unix().await;
    assert_eq!(tls.send(&[0x16, 3, 1, 0, 0, 0, 0, 0]).await.refused().await.code, "08P01");
}
