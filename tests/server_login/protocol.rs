//! Versions of the protocol towards servers: new ones with long keys, older ones that negotiate, others that refuse.

use std::time::Duration;

use tenantry::backend::{Connector, FailureClass, LoginError, Profile, Server, login};
use tenantry::config::settings::{Endpoint, MaxProtocol};
use tenantry::wire::messages::put_negotiate_protocol_version;
use tenantry::wire::startup::put_cancel_request;

use crate::fake::{Fake, Step, authentication, error, greeting, greeting_with_key, tagged};
use crate::fixtures::*;

const V3_0: [u8; 4] = [0, 3, 0, 0];
const V3_2: [u8; 4] = [0, 3, 0, 2];

async fn login_with(fake: &Fake, max_protocol: MaxProtocol) -> Result<Server, LoginError> {
    let endpoint = Endpoint { max_protocol, ..endpoint(vec![tcp("127.0.0.1", fake.port())]) };
    let connector = Connector::new(&cluster(endpoint), &servers(Duration::from_secs(5))).unwrap();
    login(&Profile::new(&connector, &tenant("acme"))).await
}

/// A server that hears a startup packet, sends this, and hears a cancel request.
fn server(bytes: Vec<u8>) -> Fake {
    Fake::start_in_turn(vec![vec![Step::Packet, Step::Send(bytes), Step::AwaitEnd]], vec![Step::Packet])
}

fn negotiate(newest_minor: u32, unknown: &[&str]) -> Vec<u8> {
    let mut out = Vec::new();
    put_negotiate_protocol_version(&mut out, newest_minor, unknown);
    out
}

#[tokio::test]
async fn a_cancel_key_of_any_length_comes_back_in_the_cancel() {
    for length in [4, 32, 256] {
        let secret: Vec<u8> = (0..length).map(|at| u8::try_from(at % 251).unwrap()).collect();
        let fake = server(greeting_with_key(&[("server_version", "18.0")], &secret));
        let server = login_with(&fake, MaxProtocol::V3_2).await.unwrap();
        server.cancel.send().await.unwrap();
        let packets = fake.packets();
        assert!(packets[0].starts_with(&V3_2), "3.2 is asked for");
        let mut request = Vec::new();
        put_cancel_request(&mut request, 7, &secret);
        assert_eq!(packets[1], request[4..], "{length} bytes");
    }
}

#[tokio::test]
async fn an_older_server_negotiates_and_the_login_goes_on() {
    let notice = tagged(b'N', b"SNOTICE\0\0");
    for before in [negotiate(0, &[]), [negotiate(0, &[]), notice].concat()] {
        let fake = server([before, greeting(&[("server_version", "15.18")])].concat());
        let server = login_with(&fake, MaxProtocol::V3_2).await.unwrap();
        assert_eq!(reported(&server, "server_version"), Some("15.18"));
        server.cancel.send().await.unwrap();
        assert!(fake.packets()[1].ends_with(&[0, 0, 0, 7, 1, 2, 3, 4]));
    }
    // An error after it is the server's own, and so is a demand.
    let full = server([negotiate(0, &[]), error("53300")].concat());
    let failure = login_with(&full, MaxProtocol::V3_2).await.unwrap_err();
    assert_eq!(failure.class(), FailureClass::ServerFull);
    let password = server([negotiate(0, &[]), authentication(3, b"")].concat());
    assert_eq!(login_with(&password, MaxProtocol::V3_2).await.unwrap_err().reason(), "server_auth_method");
}

#[tokio::test]
async fn a_negotiation_that_makes_no_sense_ends_the_login() {
    let fine = greeting(&[]);
    for (name, bytes) in [
        ("not below what we asked for", negotiate(2, &[])),
        ("above it", negotiate(3, &[])),
        ("an option that we did not send", negotiate(0, &["_pq_.x"])),
        ("twice", negotiate(0, &[]).repeat(2)),
        ("another protocol", tagged(b'v', &[0, 4, 0, 0, 0, 0, 0, 0])),
        ("too short", tagged(b'v', &[0, 3, 0, 0, 0, 0, 0])),
        ("more names than it says", tagged(b'v', b"\0\x03\0\0\0\0\0\0x\0")),
        ("fewer names than it says", tagged(b'v', b"\0\x03\0\0\0\0\0\x01")),
        ("a name without an end", tagged(b'v', b"\0\x03\0\0\0\0\0\x01x")),
        ("too late", [authentication(10, b"SCRAM-SHA-256\0\0"), negotiate(0, &[])].concat()),
        ("later still", [authentication(0, b""), negotiate(0, &[])].concat()),
    ] {
        let failure =
            login_with(&server([bytes, fine.clone()].concat()), MaxProtocol::V3_2).await.unwrap_err();
        // Where the server sends more than it may, SCRAM has found no password before.
        assert!(matches!(failure.reason(), "server_protocol" | "server_no_password"), "{name}: {failure}");
    }
    let uncalled = server([negotiate(0, &[]), fine].concat());
    assert_eq!(login_with(&uncalled, MaxProtocol::V3_0).await.unwrap_err().reason(), "server_protocol");
}

#[tokio::test]
async fn a_server_that_refuses_is_asked_for_3_0_only_if_the_url_says_so() {
    let refusing = server(error("0A000"));
    let failure = login_with(&refusing, MaxProtocol::V3_2).await.unwrap_err();
    assert_eq!((failure.class(), failure.sqlstate()), (FailureClass::Rejected, Some("0A000")));
    let old = server(greeting(&[]));
    login_with(&old, MaxProtocol::V3_0).await.unwrap();
    assert!(old.packets()[0].starts_with(&V3_0));
}
