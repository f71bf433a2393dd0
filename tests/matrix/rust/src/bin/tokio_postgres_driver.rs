//! tokio-postgres does what applications do; exit code 0 if all of it goes as with Postgres itself.

use std::future::Future;
use std::sync::LazyLock;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, TryStreamExt};
use tenantry_matrix::{LARGE, Session, TENANT, URL, fails, portable, report, same};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio_postgres::binary_copy::BinaryCopyInWriter;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;
use tokio_postgres::{AsyncMessage, Client, NoTls, SimpleQueryMessage};

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());

/// A client and what it hears besides answers.
async fn listening(options: &str) -> (Client, mpsc::UnboundedReceiver<String>) {
    let (client, mut connection) =
        tokio_postgres::connect(&format!("{}{options}", *URL), NoTls).await.unwrap();
    let (sender, receiver) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(Ok(message)) = std::future::poll_fn(|context| connection.poll_message(context)).await {
            let _ = match message {
                AsyncMessage::Notice(notice) => sender.send(notice.message().to_owned()),
                AsyncMessage::Notification(notification) => sender.send(notification.payload().to_owned()),
                _ => Ok(()),
            };
        }
    });
    (client, receiver)
}

async fn connect() -> Client {
    listening("").await.0
}

struct Connection(Client);

impl Session for Connection {
    fn run(&mut self, sql: &str) -> Result<(), String> {
        RUNTIME.block_on(self.0.batch_execute(sql)).map_err(|error| format!("{error:?}"))
    }

    fn one(&mut self, sql: &str) -> Result<String, String> {
        let messages = RUNTIME.block_on(self.0.simple_query(sql)).map_err(|error| format!("{error:?}"))?;
        let row = messages.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or_default().to_owned()),
            _ => None,
        });
        row.ok_or_else(|| "no row".to_owned())
    }
}

async fn prepared_statements() {
    let (mut first, second) = (connect().await, connect().await);
    let mine = first.prepare("SELECT owner || $1 FROM things WHERE id = 1").await.unwrap();
    let others = second.prepare("SELECT owner || $1 FROM things WHERE id = 2").await.unwrap();
    for number in 0..20 {
        for (client, statement) in [(&first, &mine), (&second, &others)] {
            let row = client.query_one(statement, &[&number.to_string()]).await.unwrap();
            same(row.get::<_, String>(0), format!("{}{number}", *TENANT));
        }
        let transaction = first.transaction().await.unwrap();
        same(transaction.query(&mine, &[&"x"]).await.unwrap().len(), 1);
        transaction.commit().await.unwrap();
    }
}

/// tokio-postgres pipelines what is polled at the same time.
async fn pipelining() {
    let client = connect().await;
    let statement = client.prepare("SELECT $1::int").await.unwrap();
    let ask = async |number: i32| client.query_one(&statement, &[&number]).await.unwrap().get::<_, i32>(0);
    let (a, b, c, d) = tokio::join!(ask(1), ask(2), ask(3), ask(4));
    same(format!("{:?}", [a, b, c, d]), "[1, 2, 3, 4]");
    let (good, bad, after) = tokio::join!(
        client.query_one("SELECT 1", &[]),
        client.query_one("SELECT 1 / 0", &[]),
        client.query_one("SELECT 2", &[])
    );
    assert!(good.is_ok() && after.is_ok());
    same(bad.unwrap_err().code().unwrap().code(), "22012");
}

async fn copy() {
    let client = connect().await;
    let table = "CREATE TABLE IF NOT EXISTS copied_rust (n int, text text); TRUNCATE copied_rust";
    client.batch_execute(table).await.unwrap();
    let sink = client.copy_in("COPY copied_rust FROM STDIN BINARY").await.unwrap();
    let mut writer = Box::pin(BinaryCopyInWriter::new(sink, &[Type::INT4, Type::TEXT]));
    for number in 0..5_000 {
        writer.as_mut().write(&[&number, &"x".repeat(100)]).await.unwrap();
    }
    same(writer.as_mut().finish().await.unwrap(), 5_000);
    let blocks: Vec<Bytes> =
        client.copy_out("COPY copied_rust TO STDOUT").await.unwrap().try_collect().await.unwrap();
    assert!(blocks.iter().map(Bytes::len).sum::<usize>() > 500_000);
    // Dropped without an end: the driver sends CopyFail.
    drop(client.copy_in::<_, Bytes>("COPY copied_rust FROM STDIN").await.unwrap());
    let mut sink = Box::pin(client.copy_in("COPY copied_rust FROM STDIN").await.unwrap());
    let _ = sink.send(Bytes::from_static(b"not a number\tx\n")).await;
    fails(sink.as_mut().finish().await, "22P02");
    same(client.query_one("SELECT count(*) FROM copied_rust", &[]).await.unwrap().get::<_, i64>(0), 5_000);
}

async fn cancel() {
    let client = connect().await;
    let token = client.cancel_token();
    let mut query = std::pin::pin!(client.batch_execute("SELECT pg_sleep(60)"));
    let outcome = loop {
        // A cancel that comes before the query runs is lost, as with Postgres: ask again until it has ended.
        if let Ok(outcome) = tokio::time::timeout(Duration::from_millis(200), &mut query).await {
            break outcome;
        }
        token.cancel_query(NoTls).await.unwrap();
    };
    same(outcome.unwrap_err().code().unwrap().code(), SqlState::QUERY_CANCELED.code());
    client.batch_execute("SELECT 1").await.unwrap();
}

async fn startup_settings() {
    let (client, _) =
        listening("&application_name=driver&options=-c%20TimeZone%3DAsia/Tokyo%20-c%20work_mem%3D8888kB")
            .await;
    for (name, value) in [("application_name", "driver"), ("TimeZone", "Asia/Tokyo"), ("work_mem", "8888kB")]
    {
        let row = client.query_one("SELECT current_setting($1)", &[&name]).await.unwrap();
        same(row.get::<_, String>(0), value);
    }
}

async fn listen() {
    let ((client, mut heard), other) = (listening("").await, connect().await);
    client.batch_execute(&format!("LISTEN news_{}", *TENANT)).await.unwrap();
    for number in 0..3 {
        other.batch_execute(&format!("NOTIFY news_{}, 'item {number}'", *TENANT)).await.unwrap();
        let payload = tokio::time::timeout(Duration::from_secs(5), heard.recv()).await.unwrap().unwrap();
        same(payload, format!("item {number}"));
    }
}

async fn types() {
    let client = connect().await;
    let values = (vec![1, 2], vec![Some("b\"c"), None], vec![0_u8, 255], 1.5, None::<String>);
    let sql = "SELECT $1::int[], $2::text[], $3::bytea, $4::float8, $5::text";
    let row = client.query_one(sql, &[&values.0, &values.1, &values.2, &values.3, &values.4]).await.unwrap();
    let texts: Vec<Option<&str>> = row.get(1);
    let found =
        (row.get::<_, Vec<i32>>(0), texts, row.get::<_, Vec<u8>>(2), row.get::<_, f64>(3), row.get(4));
    assert_eq!(found, values);
}

async fn large_values() {
    let client = connect().await;
    let row = client.query_one("SELECT length($1)", &[&"x".repeat(LARGE)]).await.unwrap();
    same(row.get::<_, i32>(0), LARGE);
}

async fn cursors() {
    let mut client = connect().await;
    let transaction = client.transaction().await.unwrap();
    let portal = transaction.bind("SELECT n FROM generate_series(1, 1000) n", &[]).await.unwrap();
    same(transaction.query_portal(&portal, 100).await.unwrap().len(), 100);
    same(transaction.query_portal(&portal, 0).await.unwrap().len(), 900);
    transaction.commit().await.unwrap();
}

async fn notices() {
    let (client, mut heard) = listening("").await;
    client.batch_execute("DO $$ BEGIN RAISE NOTICE 'hear'; END $$").await.unwrap();
    same(heard.recv().await.unwrap(), "hear");
}

async fn many_at_once() {
    let tasks: Vec<_> = (0..10_i32)
        .map(|number| {
            tokio::spawn(async move {
                let mut client = connect().await;
                for _ in 0..10 {
                    let transaction = client.transaction().await.unwrap();
                    let sql = "SELECT string_agg(DISTINCT owner, ','), $1::int FROM things";
                    let row = transaction.query_one(sql, &[&number]).await.unwrap();
                    same(row.get::<_, &str>(0), &*TENANT);
                    same(row.get::<_, i32>(1), number);
                    transaction.commit().await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}

fn waited<F: Future<Output = ()>>(check: fn() -> F) -> Box<dyn Fn()>
where
    F: 'static,
{
    Box::new(move || RUNTIME.block_on(check()))
}

fn main() {
    let mut checks: Vec<tenantry_matrix::Check> = vec![
        ("prepared_statements", waited(prepared_statements)),
        ("pipelining", waited(pipelining)),
        ("copy", waited(copy)),
        ("cancel", waited(cancel)),
        ("startup_settings", waited(startup_settings)),
        ("listen", waited(listen)),
        ("types", waited(types)),
        ("large_values", waited(large_values)),
        ("cursors", waited(cursors)),
        ("notices", waited(notices)),
        ("many_at_once", waited(many_at_once)),
    ];
    checks.extend(portable(|| Box::new(Connection(RUNTIME.block_on(connect())))));
    report("tokio-postgres", env!("VERSION_TOKIO_POSTGRES"), checks)
}
