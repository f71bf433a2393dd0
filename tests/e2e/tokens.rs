//! Logins by token whose sessions end with it, or do not.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use rcgen::KeyPair;
use rustls::ClientConfig;
use serde_json::json;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, Config, Error};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::support::{PATIENCE, Plan, Stage, TenantPlan};

/// A proxy that takes tokens, and the key that signs them.
async fn stage(ends_sessions: bool) -> (Stage, KeyPair) {
    let pair = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let plan =
        Plan::of(vec![TenantPlan::new("acme").line("client_auth = { jwt = \"worker\" }")]).tls("require");
    let mut stage = Stage::without_proxy(plan).await;
    let keys = stage.dir.path().join("keys.pem");
    std::fs::write(&keys, pair.public_key_pem()).unwrap();
    let plan = [
        ("issuer", "\"https://id.test\"".to_owned()),
        ("audience", "\"tenantry\"".to_owned()),
        ("keys", format!("\"{}\"", keys.display())),
        ("token_as", "\"password\"".to_owned()),
        ("leeway", "\"0s\"".to_owned()),
        ("ends_sessions", ends_sessions.to_string()),
    ];
    for (key, value) in plan {
        stage.plan = stage.plan.clone().set("jwt", key, &value);
    }
    stage.start_proxy().await;
    (stage, pair)
}

/// Logs in with a token that is good for so many seconds.
async fn log_in(stage: &Stage, pair: &KeyPair, seconds: u64) -> (Client, JoinHandle<Result<(), Error>>) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let claims = json!({
        "iss": "https://id.test", "aud": "tenantry", "tenant": "acme", "sub": "worker", "exp": now + seconds,
    });
    let key = EncodingKey::from_ed_pem(pair.serialize_pem().as_bytes()).unwrap();
    let token = encode(&Header::new(Algorithm::EdDSA), &claims, &key).unwrap();
    let mut config = Config::new();
    config.host("localhost").port(stage.address().port()).user("acme").password(token).dbname("app");
    config.ssl_mode(tokio_postgres::config::SslMode::Require).connect_timeout(PATIENCE);
    let tls = MakeRustlsConnect::new(ClientConfig::clone(&stage.tls_client()));
    let (client, connection) = config.connect(tls).await.unwrap();
    (client, tokio::spawn(connection))
}

async fn ended(connection: JoinHandle<Result<(), Error>>) {
    let ended = tokio::time::timeout(PATIENCE, connection).await.expect("the session does not end").unwrap();
    let error = ended.unwrap_err();
    let error = error.as_db_error().expect("an error of the server");
    assert_eq!((error.severity(), error.code().code()), ("FATAL", "57P01"));
    assert!(error.message().contains("has expired"), "{error:?}");
    assert!(error.detail().unwrap().contains("jwt.ends_sessions"), "{error:?}");
}

#[tokio::test]
async fn the_proxy_ends_a_session_with_its_token() {
    let (stage, pair) = stage(true).await;
    let begun = tokio::time::Instant::now();
    let (long, _connection) = log_in(&stage, &pair, 60).await;
    let (client, connection) = log_in(&stage, &pair, 3).await;
    client.simple_query("SELECT 1").await.unwrap();
    ended(connection).await;
    let lasted = begun.elapsed();
    assert!(lasted > Duration::from_millis(1_900) && lasted < Duration::from_secs(6), "{lasted:?}");
    assert!(client.simple_query("SELECT 1").await.is_err());
    long.simple_query("SELECT 1").await.unwrap();
}

#[tokio::test]
async fn the_proxy_lets_a_transaction_finish_when_its_token_expires() {
    let (stage, pair) = stage(true).await;
    let (client, connection) = log_in(&stage, &pair, 2).await;
    client.simple_query("BEGIN; UPDATE things SET body = 'done' WHERE id = 1").await.unwrap();
    client.simple_query("SELECT pg_sleep(4)").await.unwrap();
    client.simple_query("COMMIT").await.unwrap();
    ended(connection).await;
    let rows =
        stage.postgres.psql_in("app", "SELECT body FROM schema_acme.things WHERE id = 1").await.unwrap();
    assert_eq!(rows[0][0].as_deref(), Some("done"));
}

#[tokio::test]
async fn the_proxy_asks_for_a_token_once_unless_told_otherwise() {
    let (stage, pair) = stage(false).await;
    let (client, _connection) = log_in(&stage, &pair, 2).await;
    client.simple_query("SELECT pg_sleep(4)").await.unwrap();
    client.simple_query("SELECT 1").await.unwrap();
}
