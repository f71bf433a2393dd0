//! sqlx does what applications do; exit code 0 if all of it goes as with Postgres itself.

use std::future::Future;
use std::sync::LazyLock;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection, PgListener, PgPoolCopyExt, PgPoolOptions};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, Row as _};
use tenantry_matrix::{LARGE, Session, TENANT, URL, fails, portable, report, same};
use tokio::runtime::Runtime;

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());

async fn connect() -> PgConnection {
    PgConnection::connect(&URL).await.unwrap()
}

struct Connection(PgConnection);

impl Session for Connection {
    fn run(&mut self, sql: &str) -> Result<(), String> {
        let sql = AssertSqlSafe(sql.to_owned());
        RUNTIME.block_on(self.0.execute(sqlx::raw_sql(sql))).map(|_| ()).map_err(|error| error.to_string())
    }

    fn one(&mut self, sql: &str) -> Result<String, String> {
        let sql = AssertSqlSafe(sql.to_owned());
        RUNTIME.block_on(sqlx::query_scalar(sql).fetch_one(&mut self.0)).map_err(|error| error.to_string())
    }
}

/// sqlx prepares every text under a name, and keeps it.
async fn prepared_statements() {
    let (mut first, mut second) = (connect().await, connect().await);
    for number in 0..20 {
        for connection in [&mut first, &mut second] {
            let query = sqlx::query_scalar::<_, String>("SELECT owner || $1::text FROM things WHERE id = 1");
            let text = query.bind(number.to_string()).fetch_one(connection).await.unwrap();
            same(text, format!("{}{number}", *TENANT));
        }
        let mut transaction = first.begin().await.unwrap();
        let query = sqlx::query_scalar::<_, i32>("SELECT id + $1 FROM things WHERE id = 2").bind(number);
        same(query.fetch_one(&mut *transaction).await.unwrap(), number + 2);
        transaction.commit().await.unwrap();
    }
    // A small cache: statements are closed and prepared again.
    let options: PgConnectOptions = URL.parse().unwrap();
    let mut third = PgConnection::connect_with(&options.statement_cache_capacity(2)).await.unwrap();
    for number in 0..20 {
        let sql = AssertSqlSafe(format!("SELECT {}::int + $1", number % 5));
        let found: i32 = sqlx::query_scalar(sql).bind(number).fetch_one(&mut third).await.unwrap();
        same(found, number % 5 + number);
    }
}

async fn copy() {
    let pool = PgPoolOptions::new().max_connections(2).connect(&URL).await.unwrap();
    pool.execute(sqlx::raw_sql("CREATE TABLE IF NOT EXISTS copied_sqlx (n int, text text)")).await.unwrap();
    pool.execute(sqlx::raw_sql("TRUNCATE copied_sqlx")).await.unwrap();
    let lines: String = (0..5_000).map(|number| format!("{number}\t{}\n", "x".repeat(100))).collect();
    let mut copy = pool.copy_in_raw("COPY copied_sqlx FROM STDIN").await.unwrap();
    copy.send(lines.as_bytes()).await.unwrap();
    same(copy.finish().await.unwrap(), 5_000);
    let mut copy = pool.copy_in_raw("COPY copied_sqlx FROM STDIN").await.unwrap();
    copy.send(&b"not a number\tx\n"[..]).await.unwrap();
    fails(copy.finish().await, "22P02");
    let copy = pool.copy_in_raw("COPY copied_sqlx FROM STDIN").await.unwrap();
    let _ = copy.abort("the application gives up").await;
    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM copied_sqlx").fetch_one(&pool).await.unwrap();
    same(count, 5_000);
}

async fn startup_settings() {
    let options: PgConnectOptions = URL.parse().unwrap();
    let options =
        options.application_name("driver").options([("IntervalStyle", "iso_8601"), ("work_mem", "8888kB")]);
    let mut connection = PgConnection::connect_with(&options).await.unwrap();
    for (name, value) in
        [("application_name", "driver"), ("IntervalStyle", "iso_8601"), ("work_mem", "8888kB")]
    {
        let query = sqlx::query_scalar::<_, String>("SELECT current_setting($1)").bind(name);
        same(query.fetch_one(&mut connection).await.unwrap(), value);
    }
}

async fn listen() {
    let mut listener = PgListener::connect(&URL).await.unwrap();
    let channel = format!("news_{}", *TENANT);
    listener.listen(&channel).await.unwrap();
    let mut other = connect().await;
    for number in 0..3 {
        let query = sqlx::query("SELECT pg_notify($1, $2)").bind(&channel).bind(format!("item {number}"));
        query.execute(&mut other).await.unwrap();
        let heard = tokio::time::timeout(Duration::from_secs(5), listener.recv()).await.unwrap().unwrap();
        same(heard.payload(), format!("item {number}"));
    }
}

async fn types() {
    let mut connection = connect().await;
    let query = sqlx::query("SELECT $1::int[], $2::text[], $3::bytea, $4::float8, $5::text");
    let query = query.bind(vec![1, 2]).bind(vec![Some("b\"c"), None]).bind(vec![0_u8, 255]);
    let row = query.bind(1.5_f64).bind(None::<String>).fetch_one(&mut connection).await.unwrap();
    let texts: Vec<Option<String>> = row.get(1);
    let found = format!(
        "{:?} {texts:?} {:?} {}",
        row.get::<Vec<i32>, _>(0),
        row.get::<Vec<u8>, _>(2),
        row.get::<f64, _>(3)
    );
    same(found, "[1, 2] [Some(\"b\\\"c\"), None] [0, 255] 1.5");
    same(row.get::<Option<String>, _>(4).is_none(), true);
}

async fn large_values() {
    let mut connection = connect().await;
    let query = sqlx::query_scalar::<_, i32>("SELECT length($1)").bind("x".repeat(LARGE));
    same(query.fetch_one(&mut connection).await.unwrap(), LARGE);
}

async fn nested_transactions() {
    let mut connection = connect().await;
    let mut outer = connection.begin().await.unwrap();
    let mut inner = outer.begin().await.unwrap();
    fails(sqlx::query("SELECT * FROM no_such_table").execute(&mut *inner).await, "42P01");
    inner.rollback().await.unwrap();
    same(
        sqlx::query_scalar::<_, String>("SELECT 'alive'::text").fetch_one(&mut *outer).await.unwrap(),
        "alive",
    );
    // Dropped without an end: rolled back before the next use.
    drop(outer);
    same(sqlx::query_scalar::<_, i32>("SELECT 1").fetch_one(&mut connection).await.unwrap(), 1);
}

async fn many_at_once() {
    let pool = PgPoolOptions::new().max_connections(8).connect(&URL).await.unwrap();
    let tasks: Vec<_> = (0..16_i32)
        .map(|number| {
            let pool = pool.clone();
            tokio::spawn(async move {
                for _ in 0..10 {
                    let mut transaction = pool.begin().await.unwrap();
                    let sql = "SELECT string_agg(DISTINCT owner, ','), $1::int FROM things";
                    let row = sqlx::query(sql).bind(number).fetch_one(&mut *transaction).await.unwrap();
                    same(row.get::<&str, _>(0), &*TENANT);
                    same(row.get::<i32, _>(1), number);
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
        ("copy", waited(copy)),
        ("startup_settings", waited(startup_settings)),
        ("listen", waited(listen)),
        ("types", waited(types)),
        ("large_values", waited(large_values)),
        ("nested_transactions", waited(nested_transactions)),
        ("many_at_once", waited(many_at_once)),
    ];
    checks.extend(portable(|| Box::new(Connection(RUNTIME.block_on(connect())))));
    report("sqlx", env!("VERSION_SQLX"), checks)
}
