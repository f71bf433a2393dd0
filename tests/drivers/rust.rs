//! tokio-postgres: the same list as the scripts.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_postgres::binary_copy::BinaryCopyInWriter;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;
use tokio_postgres::{AsyncMessage, Client, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::support::Stage;
use crate::{TENANTS, plan};

/// A session and what it hears besides answers.
struct Session {
    client: Client,
    heard: mpsc::UnboundedReceiver<String>,
    tls: Option<MakeRustlsConnect>,
}

async fn session(stage: &Stage, tenant: &str, tls: &str) -> Session {
    let mut config = stage.tokio_config(tenant);
    if tls == "disable" {
        let (client, connection) = config.connect(NoTls).await.unwrap();
        return Session { client, heard: listen(connection), tls: None };
    }
    config.ssl_mode(tokio_postgres::config::SslMode::Require);
    config.channel_binding(tokio_postgres::config::ChannelBinding::Require);
    let connector = MakeRustlsConnect::new(rustls::ClientConfig::clone(&stage.tls_client()));
    let (client, connection) = config.connect(connector.clone()).await.unwrap();
    Session { client, heard: listen(connection), tls: Some(connector) }
}

/// Drives a connection and passes its notices on.
fn listen<S, T>(mut connection: tokio_postgres::Connection<S, T>) -> mpsc::UnboundedReceiver<String>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (sender, receiver) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(Ok(message)) = std::future::poll_fn(|context| connection.poll_message(context)).await {
            if let AsyncMessage::Notice(notice) = message {
                let _ = sender.send(notice.message().to_owned());
            }
        }
    });
    receiver
}

async fn own_rows(client: &Client, tenant: &str) {
    let rows = client.query("SELECT DISTINCT owner, current_schema::text FROM things", &[]).await.unwrap();
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].get::<_, &str>(0), tenant);
    assert_eq!(rows[0].get::<_, &str>(1), format!("schema_{tenant}"));
}

async fn prepared_statements(client: &mut Client, tenant: &str) {
    let statement = client.prepare("SELECT owner || $1 FROM things WHERE id = $2").await.unwrap();
    for number in 0..20 {
        let row = client.query_one(&statement, &[&number.to_string(), &1]).await.unwrap();
        assert_eq!(row.get::<_, String>(0), format!("{tenant}{number}"));
        let transaction = client.transaction().await.unwrap();
        assert_eq!(transaction.query(&statement, &[&"x", &2]).await.unwrap().len(), 1);
        transaction.commit().await.unwrap();
    }
}

/// tokio-postgres pipelines what is polled at the same time.
async fn pipelining(client: &Client) {
    let statement = client.prepare("SELECT $1::int").await.unwrap();
    let ask = async |number: i32| client.query_one(&statement, &[&number]).await.unwrap().get::<_, i32>(0);
    let (a, b, c, d) = tokio::join!(ask(1), ask(2), ask(3), ask(4));
    assert_eq!([a, b, c, d], [1, 2, 3, 4]);
    let (good, bad, after) = tokio::join!(
        client.query_one("SELECT 1", &[]),
        client.query_one("SELECT 1 / 0", &[]),
        client.query_one("SELECT 2", &[])
    );
    assert!(good.is_ok() && after.is_ok());
    assert_eq!(bad.unwrap_err().code(), Some(&SqlState::DIVISION_BY_ZERO));
}

async fn copy(client: &Client) {
    client
        .batch_execute("CREATE TABLE IF NOT EXISTS copied_rust (n int, text text); TRUNCATE copied_rust")
        .await
        .unwrap();
    let sink = client.copy_in("COPY copied_rust FROM STDIN BINARY").await.unwrap();
    let mut writer = Box::pin(BinaryCopyInWriter::new(sink, &[Type::INT4, Type::TEXT]));
    for number in 0..5_000 {
        writer.as_mut().write(&[&number, &"x"]).await.unwrap();
    }
    assert_eq!(writer.as_mut().finish().await.unwrap(), 5_000);
    // Dropped without an end: the driver sends CopyFail.
    drop(client.copy_in::<_, &'static [u8]>("COPY copied_rust FROM STDIN").await);
    let count: i64 = client.query_one("SELECT count(*) FROM copied_rust", &[]).await.unwrap().get(0);
    assert_eq!(count, 5_000);
}

async fn cancel(session: &Session) {
    let token = session.client.cancel_token();
    let mut query = std::pin::pin!(session.client.batch_execute("SELECT pg_sleep(60)"));
    let outcome = loop {
        // A cancel that comes before the query runs is lost, as with Postgres: ask again until it has ended.
        if let Ok(outcome) = tokio::time::timeout(Duration::from_millis(200), &mut query).await {
            break outcome;
        }
        match &session.tls {
            Some(tls) => token.cancel_query(tls.clone()).await.unwrap(),
            None => token.cancel_query(NoTls).await.unwrap(),
        }
    };
    assert_eq!(outcome.unwrap_err().code(), Some(&SqlState::QUERY_CANCELED));
    session.client.batch_execute("SELECT 1").await.unwrap();
}

async fn settings_and_errors(client: &mut Client) {
    let show = async |client: &Client| {
        client.query_one("SHOW statement_timeout", &[]).await.unwrap().get::<_, String>(0)
    };
    let before = show(client).await;
    client.batch_execute("BEGIN; SET LOCAL statement_timeout = '77s'").await.unwrap();
    assert_eq!(show(client).await, "77s");
    client.batch_execute("COMMIT").await.unwrap();
    assert_eq!(show(client).await, before);
    let transaction = client.transaction().await.unwrap();
    let error = transaction.execute("INSERT INTO things VALUES (1, 'twice', '')", &[]).await.unwrap_err();
    assert_eq!(error.code(), Some(&SqlState::UNIQUE_VIOLATION));
    let error = transaction.execute("SELECT 1", &[]).await.unwrap_err();
    assert_eq!(error.code(), Some(&SqlState::IN_FAILED_SQL_TRANSACTION));
    drop(transaction);
    client.batch_execute("SELECT 1").await.unwrap();
}

async fn large_rows(client: &mut Client) {
    let text: String = client.query_one("SELECT repeat('x', 5000000)", &[]).await.unwrap().get(0);
    assert_eq!(text.len(), 5_000_000);
    let length: i32 = client.query_one("SELECT length($1)", &[&text]).await.unwrap().get(0);
    assert_eq!(length, 5_000_000);
    let transaction = client.transaction().await.unwrap();
    let portal = transaction.bind("SELECT n FROM generate_series(1, 1000) n", &[]).await.unwrap();
    assert_eq!(transaction.query_portal(&portal, 100).await.unwrap().len(), 100);
    assert_eq!(transaction.query_portal(&portal, 0).await.unwrap().len(), 900);
    transaction.commit().await.unwrap();
}

async fn notices(session: &mut Session) {
    session.client.batch_execute("DO $$ BEGIN RAISE NOTICE 'hear'; END $$").await.unwrap();
    assert_eq!(session.heard.recv().await.unwrap(), "hear");
}

async fn everything(tls: &'static str) {
    let stage = Arc::new(Stage::start(plan(tls)).await);
    let mut tasks = Vec::new();
    for tenant in TENANTS {
        for _ in 0..3 {
            let stage = stage.clone();
            tasks.push(tokio::spawn(async move {
                let mut session = session(&stage, tenant, tls).await;
                own_rows(&session.client, tenant).await;
                prepared_statements(&mut session.client, tenant).await;
                pipelining(&session.client).await;
                cancel(&session).await;
                settings_and_errors(&mut session.client).await;
                large_rows(&mut session.client).await;
                notices(&mut session).await;
                own_rows(&session.client, tenant).await;
            }));
        }
        copy(&session(&stage, tenant, tls).await.client).await;
    }
    for task in tasks {
        task.await.unwrap();
    }
}

#[tokio::test]
async fn tokio_postgres_plain() {
    everything("disable").await;
}

#[tokio::test]
async fn tokio_postgres_over_tls() {
    everything("require").await;
}
