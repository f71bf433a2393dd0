//! SCRAM: the right password, and everybody else, who all look the same.

use std::time::Duration;

use tenantry::auth::scram_client::Binding;
use tenantry::config::settings::TenantSource;
use tenantry::front::LoginResult;
use tenantry::wire::messages::{put_sasl_initial_response, put_sasl_response};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_postgres::NoTls;

use crate::raw::{Raw, answer, scram, startup};
use crate::rig::{ALL_SOURCES, Rig};

#[tokio::test]
async fn tokio_postgres_logs_in_over_tcp_and_unix() {
    let mut rig = Rig::plain();
    let mut config = tokio_postgres::Config::new();
    config.user("acme").password("pencil").dbname("main").port(rig.port).host("127.0.0.1");
    let (client, connection) = config.connect(NoTls).await.unwrap();
    assert_eq!(&*rig.guest().await.tenant, "acme");
    drop((client, connection));
    let mut config = tokio_postgres::Config::new();
    config.user("reader").password("brush").port(5432).host_path(rig.socket_dir());
    config.options("-c tenantry.tenant=beta");
    let (client, connection) = config.connect(NoTls).await.unwrap();
    assert_eq!(&*rig.guest().await.tenant, "beta");
    drop((client, connection));
    config.password("pencil");
    let error = config.connect(NoTls).await.err().unwrap();
    assert_eq!(error.code().unwrap().code(), "28P01");
    rig.counted(LoginResult::Ok, 2).await;
    rig.counted(LoginResult::BadPassword, 1).await;
}

#[tokio::test]
async fn each_way_to_name_a_tenant_works() {
    let mut rig = Rig::plain();
    for (parameters, password, tenant) in [
        (vec![("user", "acme")], "pencil", "acme"),
        (vec![("user", "reader.beta")], "brush", "beta"),
        (vec![("user", "reader"), ("tenantry.tenant", "beta")], "brush", "beta"),
        (vec![("user", "reader"), ("options", "-c tenantry.tenant=acme")], "pencil", "acme"),
        (vec![("user", "reader"), ("database", "beta")], "brush", "beta"),
        (vec![("user", "acme"), ("database", "acme")], "pencil", "acme"),
    ] {
        rig.connect().await.log_in(&parameters, password).await;
        assert_eq!(rig.guest().await.tenant, tenant, "{parameters:?}");
    }
}

/// All answers to a login that fails, in bytes, without what is random: salt and nonce of the challenge.
async fn failure(rig: &Rig, parameters: &[(&str, &str)], password: &str) -> Vec<Vec<u8>> {
    let mut client = rig.connect().await;
    client.send(&startup(parameters)).await;
    let offer = client.message().await;
    assert_eq!(offer.0, b'R');
    let mut answers = client.prove("SCRAM-SHA-256", password, Binding::None).await;
    assert_eq!(client.rest().await, b"");
    let (verdict, mut challenge) = (answers.pop().unwrap().1, answers.pop().unwrap().1);
    let text = String::from_utf8_lossy(&challenge).into_owned();
    assert!(text.ends_with(",i=4096"), "{text}");
    challenge.fill(b'?');
    vec![offer.1, challenge, verdict]
}

#[tokio::test]
async fn everybody_who_may_not_come_in_gets_the_same_bytes() {
    let mut rig = Rig::plain();
    let user = ("user", "app");
    let named = |tenant| vec![user, ("tenantry.tenant", tenant)];
    let wrong_password = failure(&rig, &named("acme"), "wrong").await;
    for (why, parameters) in [
        ("unknown tenant", named("nobody")),
        ("unknown user", named("beta")),
        ("certificate wanted", named("shop")),
        ("no tenant named", vec![user]),
        ("another tenant's password", named("acme")),
        ("a database of another", vec![user, ("database", "nobody"), ("tenantry.tenant", "acme")]),
    ] {
        assert_eq!(failure(&rig, &parameters, "brush").await, wrong_password, "{why}");
    }
    let disagreeing = failure(&rig, &[("user", "acme"), ("tenantry.tenant", "beta")], "pencil").await;
    let unknown = failure(&rig, &[("user", "acme"), ("tenantry.tenant", "nobody")], "pencil").await;
    assert_eq!(disagreeing, unknown);
    let text = String::from_utf8_lossy(&wrong_password[2]).into_owned();
    assert!(text.contains("C28P01\0Mpassword authentication failed for user \"app\"\0"), "{text}");
    rig.counted(LoginResult::BadPassword, 9).await;
    rig.expect_nobody();
}

/// The challenge's salt for a user.
async fn salt(rig: &Rig, parameters: &[(&str, &str)]) -> String {
    let mut client = rig.connect().await;
    client.send(&startup(parameters)).await.offered().await;
    let mut out = Vec::new();
    put_sasl_initial_response(&mut out, "SCRAM-SHA-256", b"n,,n=,r=abc");
    let challenge = client.send(&out).await.message().await.1;
    let text = String::from_utf8_lossy(&challenge).into_owned();
    text.split(",s=").nth(1).unwrap().to_owned()
}

#[tokio::test]
async fn who_does_not_exist_keeps_its_salt_in_every_spelling() {
    let rig = Rig::plain();
    for tenant in ["acme", "nobody"] {
        let suffixed = format!("reader.{tenant}");
        let first = salt(&rig, &[("user", &suffixed)]).await;
        assert_eq!(salt(&rig, &[("user", &suffixed)]).await, first);
        assert_eq!(salt(&rig, &[("user", "reader"), ("tenantry.tenant", tenant)]).await, first);
        assert_eq!(salt(&rig, &[("user", &suffixed), ("database", "x")]).await, first);
    }
    assert_ne!(salt(&rig, &[("user", "x.nobody")]).await, salt(&rig, &[("user", "y.nobody")]).await);
    let other_process = Rig::plain();
    assert_ne!(
        salt(&rig, &[("user", "x.nobody")]).await,
        salt(&other_process, &[("user", "x.nobody")]).await
    );
}

#[tokio::test]
async fn a_database_is_looked_at_only_after_the_password() {
    let mut rig = Rig::plain();
    for (database, expected) in [("nope", "3D000"), ("beta", "3D000")] {
        let mut client = rig.connect().await;
        client.send(&startup(&[("user", "acme"), ("database", database)])).await.offered().await;
        let answers = client.prove("SCRAM-SHA-256", "pencil", Binding::None).await;
        assert_eq!(answers[1].0, b'R', "the password is right");
        let refused = client.refused().await;
        assert_eq!(refused.code, expected);
        assert_eq!(refused.message, format!("database \"{database}\" does not exist"));
    }
    rig.counted(LoginResult::UnknownDatabase, 2).await;
    rig.expect_nobody();
    assert_eq!(rig.front.clients(), 0);
}

#[tokio::test]
async fn a_tenant_option_that_is_switched_off_is_not_ignored() {
    let rig = Rig::with(|settings| {
        settings.tenant_sources =
            ALL_SOURCES.into_iter().filter(|source| *source != TenantSource::Option).collect();
    });
    let mut client = rig.connect().await;
    client.send(&startup(&[("user", "acme"), ("tenantry.tenant", "acme")])).await;
    assert_eq!(client.refused().await.code, "28000");
}

#[tokio::test]
async fn messages_that_are_no_proof_are_refused_with_their_code() {
    let rig = Rig::plain();
    let initial = |mechanism: &str, data: &[u8]| {
        let mut out = Vec::new();
        put_sasl_initial_response(&mut out, mechanism, data);
        out
    };
    let mut wrong_type = initial("SCRAM-SHA-256", b"n,,n=,r=abc");
    wrong_type[0] = b'Q';
    for (bytes, code) in [
        (b"Q\0\0\0\x0dSELECT 1\0".to_vec(), "08P01"),
        (wrong_type, "08P01"),
        (b"p\0\0\0\x03".to_vec(), "08P01"),
        (b"p\0\0\0\x05x".to_vec(), "08P01"),
        (b"p\x7f\xff\xff\xff".to_vec(), "08P01"),
        (initial("SCRAM-SHA-256", &[b'a'; 2000]), "08P01"),
        (initial("SCRAM-SHA-256-PLUS", b"p=tls-server-end-point,,n=,r=abc"), "08P01"),
        (initial("SCRAM-SHA-1", b"n,,n=,r=abc"), "08P01"),
        (initial("SCRAM-SHA-256", b""), "08P01"),
        (initial("SCRAM-SHA-256", b"n,a=root,n=,r=abc"), "0A000"),
    ] {
        for user in ["acme", "nobody"] {
            let mut client = rig.connect().await;
            client.send(&startup(&[("user", user)])).await.offered().await;
            let refused = client.send(&bytes).await.refused().await;
            assert_eq!(refused.code, code, "{user}: {}", bytes[..bytes.len().min(50)].escape_ascii());
        }
    }
    rig.counted(LoginResult::ProtocolViolation, 20).await;
}

#[tokio::test]
async fn a_client_may_send_its_first_message_late() {
    let mut rig = Rig::plain();
    let mut client = rig.connect().await;
    client.send(&startup(&[("user", "acme")])).await.offered().await;
    client.send(b"p\0\0\0\x16SCRAM-SHA-256\0\xff\xff\xff\xff").await;
    assert_eq!(client.message().await, (b'R', vec![0, 0, 0, 11]), "an empty challenge asks for it");
    let scram = scram(Binding::None);
    let mut out = Vec::new();
    put_sasl_response(&mut out, scram.first_message().as_bytes());
    let challenge = client.send(&out).await.message().await.1;
    let (out, _) = answer(scram, &challenge, "pencil");
    client.send(&out).await.greeted().await;
    rig.guest().await;
}

/// A login with a proof of nothing, which costs no computation; how long the verdict took.
async fn guess(rig: &Rig, user: &str) -> Duration {
    guess_as(rig.connect().await, user).await
}

/// As [`guess`], by a client that has connected.
pub(crate) async fn guess_as(mut client: Raw<TcpStream>, user: &str) -> Duration {
    let start = Instant::now();
    client.send(&startup(&[("user", user)])).await.offered().await;
    let mut out = Vec::new();
    put_sasl_initial_response(&mut out, "SCRAM-SHA-256", b"n,,n=,r=abc");
    let challenge = client.send(&out).await.message().await.1;
    let challenge = String::from_utf8_lossy(&challenge[4..]).into_owned();
    let nonce = challenge.split(',').next().unwrap().to_owned();
    out.clear();
    put_sasl_response(&mut out, format!("c=biws,{nonce},p={}=", "A".repeat(43)).as_bytes());
    assert_eq!(client.send(&out).await.refused().await.code, "28P01");
    start.elapsed()
}

#[tokio::test]
async fn repeated_failures_are_slowed_down_and_forgiven_by_success() {
    let mut rig = Rig::plain();
    for _ in 0..3 {
        guess(&rig, "acme").await;
    }
    for (user, delay_ms) in [("acme", 100), ("acme", 200), ("acme", 400)] {
        let took = guess(&rig, user).await;
        assert!(took >= Duration::from_millis(delay_ms), "{took:?}");
    }
    let start = Instant::now();
    rig.connect().await.log_in(&[("user", "acme")], "pencil").await;
    assert!(start.elapsed() >= Duration::from_millis(800), "the right answer is held back like a wrong one");
    rig.guest().await;
    for user in ["acme", "beta", "nobody"] {
        let took = guess(&rig, user).await;
        assert!(took < Duration::from_millis(800), "{user} is forgiven, or another: {took:?}");
    }
}

#[tokio::test]
async fn an_unknown_user_is_slowed_down_like_a_known_one() {
    let rig = Rig::plain();
    for user in ["acme", "nobody"] {
        for _ in 0..4 {
            guess(&rig, user).await;
        }
        let took = guess(&rig, user).await;
        assert!(took >= Duration::from_millis(200), "{user}: {took:?}");
    }
    // Nobody else of the same address is. The quickest of several, because the machine may be busy.
    let mut quickest = Duration::MAX;
    for user in ["beta", "another", "third"] {
        quickest = quickest.min(guess(&rig, user).await);
    }
    assert!(quickest < Duration::from_millis(200), "{quickest:?}");
}
