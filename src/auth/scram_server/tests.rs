//! Goal: real clients succeed, everybody else fails in a way that says nothing. Method: `postgres-protocol`'s client as
//! the other side, and messages by hand.

use std::sync::Arc;

use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};
use proptest::prelude::*;

use super::*;
use crate::auth::fixtures::tenant;
use crate::tenant::User;

const NONCE: &str = "3rfcNHYJY1ZVvWVs7j";

fn identity(auth: ClientAuth) -> Result<Identity, Refusal> {
    Ok(Identity::new(Arc::new(tenant("acme", &[])), User { name: "acme".into(), auth, mode: None }))
}

fn with_password(password: &str) -> Result<Identity, Refusal> {
    let verifier = Verifier::from_password(password, b"0123456789abcdef", DEFAULT_ITERATIONS);
    identity(ClientAuth::Scram(verifier.to_string().into()))
}

fn exchange(claim: Result<Identity, Refusal>, end_point: Option<&[u8]>) -> Exchange {
    Exchange::new(claim, ("acme", "acme"), &MockSecret::new([7; 32]), end_point.map(<[u8]>::to_vec))
}

/// Runs a whole exchange with somebody else's client.
fn run(
    exchange: Exchange,
    mechanism: &str,
    password: &str,
    binding: ChannelBinding,
) -> Result<Authenticated, ScramError> {
    let mut client = ScramSha256::new(password.as_bytes(), binding);
    let (challenge, server_first) = exchange.begin(mechanism.as_bytes(), client.message(), NONCE)?;
    client.update(server_first.as_bytes()).unwrap();
    let (authenticated, server_final) = challenge.finish(client.message())?;
    client.finish(server_final.as_bytes()).expect("the client believes the server");
    Ok(authenticated)
}

#[test]
fn the_right_password_proves_the_identity() {
    let proved =
        run(exchange(with_password("pencil"), None), SCRAM_SHA_256, "pencil", ChannelBinding::unsupported());
    assert_eq!(format!("{:?}", proved.unwrap()), "Authenticated(acme of acme)");
    let normalized =
        run(exchange(with_password("IX"), None), SCRAM_SHA_256, "\u{2168}", ChannelBinding::unsupported());
    assert!(normalized.is_ok());
}

#[test]
fn the_exchange_binds_to_the_channel() {
    let end_point = Some(&b"our certificate"[..]);
    let bound = |to: &[u8]| {
        let binding = ChannelBinding::tls_server_end_point(to.to_vec());
        run(exchange(with_password("pencil"), end_point), SCRAM_SHA_256_PLUS, "pencil", binding)
    };
    assert!(bound(b"our certificate").is_ok());
    assert_eq!(bound(b"another's").unwrap_err(), ScramError::ChannelMismatch);
    let plain = |binding| run(exchange(with_password("pencil"), end_point), SCRAM_SHA_256, "pencil", binding);
    assert!(plain(ChannelBinding::unsupported()).is_ok(), "a client that cannot bind may come in");
    assert_eq!(plain(ChannelBinding::unrequested()).unwrap_err(), ScramError::Downgraded);
    let without =
        run(exchange(with_password("pencil"), None), SCRAM_SHA_256, "pencil", ChannelBinding::unrequested());
    assert!(without.is_ok(), "nothing was offered, nothing was taken away");
}

#[test]
fn plus_is_offered_and_taken_only_where_there_is_something_to_bind_to() {
    assert_eq!(exchange(with_password("x"), None).mechanisms(), [SCRAM_SHA_256]);
    assert_eq!(exchange(with_password("x"), Some(b"c")).mechanisms(), [SCRAM_SHA_256_PLUS, SCRAM_SHA_256]);
    for (mechanism, end_point) in [(SCRAM_SHA_256_PLUS, None), ("SCRAM-SHA-1", Some(&b"c"[..])), ("", None)] {
        let begun =
            exchange(with_password("x"), end_point).begin(mechanism.as_bytes(), b"n,,n=,r=abc", NONCE);
        assert_eq!(begun.err(), Some(ScramError::UnknownMechanism), "{mechanism}");
    }
}

#[test]
fn everybody_else_is_refused_at_the_proof_and_not_before() {
    let certificate = ClientAuth::Certificate { common_name: "acme".into() };
    for (claim, refusal) in [
        (with_password("other"), Refusal::WrongPassword),
        (Err(Refusal::UnknownUser), Refusal::UnknownUser),
        (Err(Refusal::NoTenantNamed), Refusal::NoTenantNamed),
        (identity(certificate), Refusal::NoCertificate),
        (identity(ClientAuth::Scram("broken".into())), Refusal::BadVerifier),
    ] {
        let unbound = ChannelBinding::unsupported();
        assert_eq!(
            run(exchange(claim, None), SCRAM_SHA_256, "pencil", unbound).unwrap_err(),
            ScramError::Refused(refusal)
        );
    }
}

#[test]
fn who_does_not_exist_has_a_salt_of_the_usual_shape_that_never_changes() {
    let mock = MockSecret::new([7; 32]);
    let first_for = |mock: &MockSecret, claimed| {
        let exchange = Exchange::new(Err(Refusal::UnknownUser), claimed, mock, None);
        exchange.begin(SCRAM_SHA_256.as_bytes(), b"n,,n=,r=abc", NONCE).map(|(_, text)| text).unwrap()
    };
    let made_up = first_for(&mock, ("acme", "x"));
    assert_eq!(made_up, first_for(&mock, ("acme", "x")));
    assert_ne!(made_up, first_for(&mock, ("acme", "y")));
    assert_ne!(made_up, first_for(&mock, ("acm", "ex")), "names do not run together");
    assert_ne!(made_up, first_for(&MockSecret::new([8; 32]), ("acme", "x")));
    let (_, real) =
        exchange(with_password("x"), None).begin(SCRAM_SHA_256.as_bytes(), b"n,,n=,r=abc", NONCE).unwrap();
    assert_eq!(made_up.len(), real.len());
    assert!(made_up.ends_with(",i=4096"));
    assert_eq!(format!("{mock:?}"), "MockSecret(..)");
}

#[test]
fn malformed_first_messages_are_named() {
    let error =
        |message: &[u8]| exchange(with_password("x"), None).begin(b"SCRAM-SHA-256", message, NONCE).err();
    assert_eq!(error(b"n,,n=,r=abc"), None);
    assert_eq!(error(b"n,,n=acme,r=abc,x=future"), None, "extensions are ignored");
    assert_eq!(error(b"p=tls-unique,,n=,r=abc"), Some(ScramError::Unsupported("this channel binding type")));
    assert_eq!(error(b"n,a=root,n=,r=abc"), Some(ScramError::Unsupported("an authorization identity")));
    assert_eq!(error(b"n,,m=must,n=,r=abc"), Some(ScramError::Unsupported("a mandatory extension")));
    for bad in [
        &b""[..],
        b"n",
        b"n,",
        b"x,,n=,r=abc",
        b"n,,",
        b"n,,r=abc",
        b"n,,n=",
        b"n,,n=,r=",
        b"n,,n=,r=a\x7f",
        b"n,,n=,r=a b",
        b"n,b,n=,r=abc",
        b"n,,n=,r=abc,",
        b"n,,n=\xff,r=abc",
        b"n,,n=\0,r=abc",
        b"p=tls-server-end-point,,n=,r=abc",
    ] {
        assert!(matches!(error(bad), Some(ScramError::Malformed(_))), "{}", bad.escape_ascii());
    }
}

#[test]
fn malformed_last_messages_are_named() {
    let finish = |message: &str| {
        let (challenge, _) =
            exchange(with_password("x"), None).begin(b"SCRAM-SHA-256", b"n,,n=,r=abc", NONCE).unwrap();
        challenge.finish(message.as_bytes()).err().unwrap()
    };
    let proof = STANDARD.encode([0; 32]);
    assert_eq!(
        finish(&format!("c=biws,r=abc{NONCE},p={proof}")),
        ScramError::Refused(Refusal::WrongPassword)
    );
    assert_eq!(finish(&format!("c=eSws,r=abc{NONCE},p={proof}")), ScramError::ChannelMismatch);
    for bad in [
        String::new(),
        format!("c=biws,r=abc{NONCE}"),
        format!("r=abc{NONCE},c=biws,p={proof}"),
        format!("c=biws,r=abc,p={proof}"),
        format!("c=biws,r=abd{NONCE},p={proof}"),
        format!("c=biws,r=abc{NONCE},p={proof}junk"),
        format!("c=biws,r=abc{NONCE},p={proof},x=y"),
        format!("c=biws,r=abc{NONCE},p=AAAA"),
        format!("c=biws,r=abc{NONCE},junk,p={proof}"),
        format!("c=!,r=abc{NONCE},p={proof}"),
    ] {
        assert!(matches!(finish(&bad), ScramError::Malformed(_)), "{bad}");
    }
}

fn any_first() -> impl Strategy<Value = Vec<u8>> {
    let almost_right = "[nyp],[a=,]?n=,r=[ -~]{0,9}".prop_map(String::into_bytes);
    prop_oneof![prop::collection::vec(any::<u8>(), 0..40), almost_right]
}

fn any_last() -> impl Strategy<Value = Vec<u8>> {
    let almost_right = "c=biws,r=[!-+]{0,3}[ -~]{0,30},p=[A-Za-z/+]{43}=".prop_map(String::into_bytes);
    prop_oneof![prop::collection::vec(any::<u8>(), 0..80), almost_right]
}

proptest! {
    #[test]
    fn arbitrary_messages_never_panic_and_never_prove(first in any_first(), last in any_last()) {
        let nobody = || exchange(Err(Refusal::UnknownUser), None);
        if let Ok((challenge, _)) = nobody().begin(b"SCRAM-SHA-256", &first, NONCE) {
            prop_assert!(challenge.finish(&last).is_err());
        }
        let (challenge, _) = nobody().begin(b"SCRAM-SHA-256", b"n,,n=,r=abc", NONCE).unwrap();
        prop_assert!(challenge.finish(&last).is_err());
    }
}
