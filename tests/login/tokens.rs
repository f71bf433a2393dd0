//! Tokens: by OAUTHBEARER and as a password, good and bad, and what strangers see of it.

use std::sync::{Arc, LazyLock};
use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::{EncodingKey, Header, encode};
use rcgen::KeyPair;
use rustls::ClientConfig;
use serde_json::{Value, json};
use tenantry::auth::scram_client::Binding;
use tenantry::config::settings::{Settings, TlsMode};
use tenantry::front::LoginResult;
use tenantry::tenant::issuer::{Algorithm, Issuer, KeySet, TokenAs};
use tenantry::wire::messages::{put_sasl_initial_response, put_sasl_response};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_postgres::config::SslMode;
use tokio_postgres_rustls::MakeRustlsConnect;
use tokio_rustls::client::TlsStream;

use crate::papers::Papers;
use crate::raw::{Raw, Refused, startup};
use crate::rig::Rig;
use crate::tls::secured;

static PAIR: LazyLock<KeyPair> = LazyLock::new(|| KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap());

fn with_issuer(settings: &mut Settings, token_as: TokenAs) {
    let algorithms = vec![Algorithm::EdDSA];
    settings.issuer = Some(Arc::new(Issuer {
        name: "https://id.test".into(),
        audiences: vec!["tenantry".into()],
        scopes: vec!["db".into()],
        keys: KeySet::parse(&PAIR.public_key_pem(), &algorithms).unwrap(),
        algorithms,
        tenant_claim: "tenant".into(),
        user_claim: "sub".into(),
        leeway_s: 5,
        token_as,
        ends_sessions: false,
    }));
}

/// A rig with TLS that takes tokens, and a client's TLS.
fn rig(token_as: TokenAs) -> (Rig, ClientConfig) {
    let papers = Papers::new();
    let rig = Rig::with(|settings| {
        settings.listen.tls = papers.listen(TlsMode::Prefer);
        with_issuer(settings, token_as);
    });
    (rig, papers.client(None))
}

fn token_of(tenant: &str, user: &str, expires_in: i64) -> String {
    let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap();
    let claims = json!({
        "iss": "https://id.test", "aud": "tenantry", "scope": "db", "tenant": tenant, "sub": user,
        "exp": now + expires_in,
    });
    let key = EncodingKey::from_ed_pem(PAIR.serialize_pem().as_bytes()).unwrap();
    encode(&Header::new(Algorithm::EdDSA), &claims, &key).unwrap()
}

fn good() -> String {
    token_of("mint", "mint", 60)
}

async fn connect(rig: &Rig, tls: &ClientConfig, parameters: &[(&str, &str)]) -> Raw<TlsStream<TcpStream>> {
    let mut client = secured(rig, tls.clone(), "localhost").await.unwrap();
    client.send(&startup(parameters)).await;
    client
}

fn initial(token: &str) -> Vec<u8> {
    let bearer = if token.is_empty() { String::new() } else { format!("Bearer {token}") };
    let mut out = Vec::new();
    put_sasl_initial_response(&mut out, "OAUTHBEARER", format!("n,,\x01auth={bearer}\x01\x01").as_bytes());
    out
}

fn response(data: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    put_sasl_response(&mut out, data);
    out
}

/// A token that is refused: the challenge, and the error after it was acknowledged.
async fn refused<S: AsyncRead + AsyncWrite + Unpin>(client: &mut Raw<S>, token: &str) -> (Value, Refused) {
    assert_eq!(client.offered().await, ["OAUTHBEARER"]);
    let (tag, body) = client.send(&initial(token)).await.message().await;
    assert_eq!((char::from(tag), &body[..4]), ('R', &[0, 0, 0, 11][..]));
    let told = serde_json::from_slice(&body[4..]).unwrap();
    (told, client.send(&response(b"\x01")).await.refused().await)
}

/// As a password: `None` if it was right.
async fn password<S: AsyncRead + AsyncWrite + Unpin>(client: &mut Raw<S>, token: &str) -> Option<Refused> {
    assert_eq!(client.message().await, (b'R', vec![0, 0, 0, 3]), "a password in clear is asked for");
    client.send(&response(format!("{token}\0").as_bytes())).await;
    let (tag, body) = client.message().await;
    if tag == b'R' {
        assert_eq!(body, [0; 4]);
        client.greeted().await;
        return None;
    }
    Some(Refused { code: String::new(), message: String::new(), bytes: body })
}

#[tokio::test]
async fn a_token_by_oauthbearer_logs_in() {
    let (mut rig, tls) = rig(TokenAs::OauthBearer);
    let mut client = connect(&rig, &tls, &[("user", "mint")]).await;
    assert_eq!(client.offered().await, ["OAUTHBEARER"]);
    client.send(&initial(&good())).await;
    assert_eq!(client.message().await, (b'R', vec![0; 4]), "no SASLFinal: AuthenticationOk comes at once");
    client.greeted().await;
    let guest = rig.guest().await;
    assert_eq!((&*guest.tenant, &*guest.user, &*guest.unread), ("mint", "mint", &b""[..]));
    // The first message may come late, and a Unix socket is as good as TLS.
    let mut client = rig.connect_unix().await;
    client.send(&startup(&[("user", "both.mint"), ("tenantry.auth", "oauthbearer")])).await;
    assert_eq!(client.offered().await, ["OAUTHBEARER"]);
    client.send(b"p\0\0\0\x14OAUTHBEARER\0\xff\xff\xff\xff").await;
    assert_eq!(client.message().await, (b'R', vec![0, 0, 0, 11]));
    let message = format!("n,,\x01auth=Bearer {}\x01\x01", token_of("mint", "both", 60));
    client.send(&response(message.as_bytes())).await.greeted().await;
    assert_eq!(rig.guest().await.user, "both");
    rig.counted(LoginResult::Ok, 2).await;
}

#[tokio::test]
async fn a_token_as_password_logs_in() {
    let (mut rig, tls) = rig(TokenAs::Password);
    let mut config = tokio_postgres::Config::new();
    config.user("mint").password(good()).port(rig.port).host("localhost").ssl_mode(SslMode::Require);
    config.hostaddr("127.0.0.1".parse().unwrap());
    let connected = config.connect(MakeRustlsConnect::new(tls.clone())).await.unwrap();
    assert_eq!(rig.guest().await.user, "mint");
    drop(connected);
    // Whatever the configuration says, a client may choose.
    let mut client =
        connect(&rig, &tls, &[("user", "mint"), ("options", "-c tenantry.auth=oauthbearer")]).await;
    assert_eq!(client.offered().await, ["OAUTHBEARER"]);
    client.send(&initial(&good())).await.greeted().await;
    let guest = rig.guest().await;
    assert_eq!(guest.parameters, [], "the wish is consumed");
    let mut wrong = connect(&rig, &tls, &[("user", "mint")]).await;
    assert!(password(&mut wrong, "pencil").await.is_some());
    rig.counted(LoginResult::BadPassword, 1).await;
}

#[tokio::test]
async fn who_has_both_may_use_either() {
    let (mut rig, tls) = rig(TokenAs::OauthBearer);
    let user = [("user", "both.mint")];
    let mut client = connect(&rig, &tls, &user).await;
    assert_eq!(client.offered().await, ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "OAUTHBEARER"]);
    client.prove("SCRAM-SHA-256", "pencil", Binding::None).await;
    client.greeted().await;
    let mut client = connect(&rig, &tls, &user).await;
    client.offered().await;
    client.send(&initial(&token_of("mint", "both", 60))).await.greeted().await;
    let mut client = connect(&rig, &tls, &[user[0], ("tenantry.auth", "password")]).await;
    assert!(password(&mut client, &token_of("mint", "both", 60)).await.is_none());
    let mut client = connect(&rig, &tls, &[user[0], ("tenantry.auth", "scram")]).await;
    assert_eq!(client.offered().await, ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"]);
    for _ in 0..3 {
        assert_eq!(rig.guest().await.user, "both");
    }
    // A message of SCRAM is not longer because a token might have come.
    let mut client = connect(&rig, &tls, &user).await;
    client.offered().await;
    let mut long = Vec::new();
    put_sasl_initial_response(&mut long, "SCRAM-SHA-256", &[b'a'; 2000]);
    assert_eq!(client.send(&long).await.refused().await.code, "08P01");
}

#[tokio::test]
async fn no_token_is_asked_for_where_others_could_read_it() {
    let (mut rig, _) = rig(TokenAs::OauthBearer);
    for parameters in [vec![("user", "mint")], vec![("user", "both.mint")], vec![("user", "nobody")]] {
        let mut client = rig.connect().await;
        client.send(&startup(&parameters)).await;
        assert_eq!(client.offered().await, ["SCRAM-SHA-256"], "{parameters:?}");
        if parameters[0].1 != "both.mint" {
            let answers = client.prove("SCRAM-SHA-256", "pencil", Binding::None).await;
            assert_eq!(answers.last().unwrap().0, b'E');
        }
    }
    for wish in ["oauthbearer", "password"] {
        for user in ["mint", "nobody"] {
            let mut client = rig.connect().await;
            let refused =
                client.send(&startup(&[("user", user), ("tenantry.auth", wish)])).await.refused().await;
            assert_eq!((&*refused.code, &*refused.message), ("28000", "a token is accepted only over TLS"));
        }
    }
    rig.counted(LoginResult::TlsRequired, 4).await;
    rig.counted(LoginResult::BadPassword, 2).await;
    rig.expect_nobody();
}

#[tokio::test]
async fn every_refusal_looks_the_same() {
    let (mut rig, tls) = rig(TokenAs::OauthBearer);
    let user = ("user", "mint");
    let wish = ("tenantry.auth", "oauthbearer");
    let mut faces = Vec::new();
    for (parameters, token) in [
        (vec![user], token_of("mint", "mint", -60)),
        (vec![user], token_of("mint", "both", 60)),
        (vec![user], token_of("acme", "mint", 60)),
        (vec![user], format!("{}A", good())),
        (vec![user], "nonsense".to_owned()),
        (vec![user, wish, ("tenantry.tenant", "nobody")], good()),
        (vec![user, wish, ("tenantry.tenant", "acme")], good()),
        (vec![user, wish, ("tenantry.tenant", "shop")], good()),
    ] {
        let mut client = connect(&rig, &tls, &parameters).await;
        let (told, refused) = refused(&mut client, &token).await;
        assert_eq!(told["openid-configuration"], "https://id.test/.well-known/openid-configuration");
        faces.push((told, refused));
    }
    assert!(faces.windows(2).all(|pair| pair[0] == pair[1]), "{faces:?}");
    let text = "password authentication failed for user \"mint\"";
    assert_eq!((&*faces[0].1.code, &*faces[0].1.message), ("28P01", text));
    // As a password: the same error, whoever it is.
    for parameters in
        [vec![user], vec![user, ("tenantry.tenant", "acme")], vec![user, ("tenantry.tenant", "x")]]
    {
        let parameters = [parameters, vec![("tenantry.auth", "password")]].concat();
        let mut client = connect(&rig, &tls, &parameters).await;
        let refused = password(&mut client, "nonsense").await.unwrap();
        assert_eq!(refused.bytes, faces[0].1.bytes, "{parameters:?}");
    }
    rig.counted(LoginResult::BadPassword, 11).await;
    rig.expect_nobody();
}

#[tokio::test]
async fn a_client_without_a_token_is_told_where_to_get_one() {
    let (mut rig, tls) = rig(TokenAs::OauthBearer);
    for _ in 0..6 {
        let mut client = connect(&rig, &tls, &[("user", "mint")]).await;
        let start = tokio::time::Instant::now();
        let (told, refused) = refused(&mut client, "").await;
        let discovery = "https://id.test/.well-known/openid-configuration";
        assert_eq!(
            told,
            json!({ "status": "invalid_token", "scope": "db", "openid-configuration": discovery })
        );
        assert_eq!(refused.code, "28P01");
        assert!(start.elapsed().as_secs() < 1, "asking is no failure that slows down");
    }
    rig.counted(LoginResult::Discovery, 6).await;
    rig.counted(LoginResult::BadPassword, 0).await;
    // Who leaves in the middle is counted by what it had shown.
    let mut client = connect(&rig, &tls, &[("user", "mint")]).await;
    client.offered().await;
    client.send(&initial("nonsense")).await.message().await;
    drop(client);
    rig.counted(LoginResult::BadPassword, 1).await;
    rig.expect_nobody();
}

#[tokio::test]
async fn strangers_are_asked_for_what_most_users_are() {
    let papers = Papers::new();
    let most_by_token = Rig::with(|settings| {
        settings.listen.tls = papers.listen(TlsMode::Prefer);
        with_issuer(settings, TokenAs::OauthBearer);
        let tenants = settings.catalog.iter().filter(|tenant| &*tenant.name == "mint");
        let mut tenants: Vec<_> = tenants.map(|tenant| (**tenant).clone()).collect();
        tenants[0].users.truncate(1);
        settings.catalog = Arc::new(settings.catalog.next(tenants).unwrap());
    });
    let tls = papers.client(None);
    for user in ["mint", "nobody"] {
        let mut client = connect(&most_by_token, &tls, &[("user", user)]).await;
        assert_eq!(client.offered().await, ["OAUTHBEARER"], "{user}");
    }
    let (most_by_password, tls) = rig(TokenAs::OauthBearer);
    for user in ["acme", "nobody"] {
        let mut client = connect(&most_by_password, &tls, &[("user", user)]).await;
        assert_eq!(client.offered().await, ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"], "{user}");
    }
}

#[tokio::test]
async fn repeated_bad_tokens_are_slowed_down() {
    let (rig, tls) = rig(TokenAs::OauthBearer);
    for delay_ms in [0, 0, 0, 100, 200] {
        let mut client = connect(&rig, &tls, &[("user", "mint")]).await;
        let start = tokio::time::Instant::now();
        refused(&mut client, "nonsense").await;
        assert!(start.elapsed().as_millis() >= delay_ms, "{:?} < {delay_ms} ms", start.elapsed());
    }
}

#[tokio::test]
async fn messages_that_hold_no_token_are_violations() {
    let (rig, tls) = rig(TokenAs::OauthBearer);
    let mut scram = Vec::new();
    put_sasl_initial_response(&mut scram, "SCRAM-SHA-256", b"n,,n=,r=abc");
    let mut authzid = Vec::new();
    put_sasl_initial_response(&mut authzid, "OAUTHBEARER", b"n,a=root,\x01auth=Bearer x\x01\x01");
    for bytes in [scram, authzid, initial(&"x".repeat(17_000)), b"Q\0\0\0\x04".to_vec()] {
        let mut client = connect(&rig, &tls, &[("user", "mint")]).await;
        client.offered().await;
        assert_eq!(client.send(&bytes).await.refused().await.code, "08P01");
    }
    let mut stubborn = connect(&rig, &tls, &[("user", "mint")]).await;
    stubborn.offered().await;
    stubborn.send(&initial("")).await.message().await;
    assert_eq!(stubborn.send(&response(b"once more")).await.refused().await.code, "08P01");
    let password = [("user", "mint"), ("tenantry.auth", "password")];
    for body in [&b"no end"[..], b"two\0ends\0", b""] {
        let mut client = connect(&rig, &tls, &password).await;
        client.message().await;
        assert_eq!(client.send(&response(body)).await.refused().await.code, "08P01");
    }
    rig.counted(LoginResult::ProtocolViolation, 8).await;
}

#[tokio::test]
async fn a_wish_that_cannot_be_met_is_not_ignored() {
    let (rig, tls) = rig(TokenAs::OauthBearer);
    let mut client = connect(&rig, &tls, &[("user", "mint"), ("tenantry.auth", "md5")]).await;
    assert_eq!(client.refused().await.code, "22023");
    let without_issuer = Rig::plain();
    for wish in ["oauthbearer", "password"] {
        let mut client = without_issuer.connect().await;
        client.send(&startup(&[("user", "acme"), ("tenantry.auth", wish)])).await;
        let refused = client.refused().await;
        assert_eq!((&*refused.code, &*refused.message), ("28000", "logins by token are not accepted here"));
    }
    let mut client = without_issuer.connect().await;
    client.log_in(&[("user", "acme"), ("tenantry.auth", "scram")], "pencil").await;
}
