//! diesel, over libpq, does what applications do; exit code 0 if all of it goes as with Postgres itself.

use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::result::Error;
use diesel::sql_types::{Array, Binary, Double, Integer, Nullable, Text};
use tenantry_matrix::{LARGE, Session, TENANT, URL, fails, portable, report, same};

diesel::table! {
    things (id) {
        id -> Integer,
        owner -> Text,
        body -> Text,
    }
}

diesel::table! {
    copied_diesel (n) {
        n -> Integer,
        text -> Text,
    }
}

#[derive(QueryableByName)]
struct Value {
    #[diesel(sql_type = Text)]
    value: String,
}

struct Client(PgConnection);

impl Session for Client {
    fn run(&mut self, sql: &str) -> Result<(), String> {
        self.0.batch_execute(sql).map_err(|error| error.to_string())
    }

    fn one(&mut self, sql: &str) -> Result<String, String> {
        let query = diesel::sql_query(format!("SELECT ({sql}) AS value"));
        query.get_result::<Value>(&mut self.0).map(|row| row.value).map_err(|error| error.to_string())
    }
}

fn connect() -> PgConnection {
    PgConnection::establish(&URL).unwrap()
}

/// diesel prepares what its query builder makes under a name, and keeps it.
fn prepared_statements() {
    let (mut first, mut second) = (connect(), connect());
    for number in 1..=20 {
        for connection in [&mut first, &mut second] {
            let owner: String = things::table.find(number).select(things::owner).first(connection).unwrap();
            same(owner, &*TENANT);
        }
        let count = first.transaction(|within| {
            things::table.filter(things::id.le(number)).count().get_result::<i64>(within)
        });
        same(count.unwrap(), number);
    }
}

fn transactions() {
    let mut connection = connect();
    let outcome = connection.transaction::<(), Error, _>(|outer| {
        let inner =
            outer.transaction::<(), Error, _>(|inner| inner.batch_execute("SELECT * FROM no_such_table"));
        fails(inner, "no_such_table");
        same(things::table.count().get_result::<i64>(outer)?, 20);
        diesel::delete(things::table).execute(outer)?;
        Err(Error::RollbackTransaction)
    });
    fails(outcome, "RollbackTransaction");
    same(things::table.count().get_result::<i64>(&mut connection).unwrap(), 20);
    let mut serializable = connection.build_transaction().serializable().read_only();
    let level = |within: &mut PgConnection| {
        let query = diesel::sql_query("SELECT current_setting('transaction_isolation') AS value");
        query.get_result::<Value>(within).map(|row| row.value)
    };
    same(serializable.run::<_, Error, _>(level).unwrap(), "serializable");
    same(level(&mut connection).unwrap(), "read committed");
}

fn copy() {
    let mut connection = connect();
    let table =
        "CREATE TABLE IF NOT EXISTS copied_diesel (n int PRIMARY KEY, text text); TRUNCATE copied_diesel";
    connection.batch_execute(table).unwrap();
    let rows: String = (0..5_000).map(|number| format!("{number}\t{}\n", "x".repeat(100))).collect();
    let copied = diesel::copy_from(copied_diesel::table)
        .from_raw_data(copied_diesel::table, |out| {
            out.write_all(rows.as_bytes()).map_err(|error| Error::SerializationError(Box::new(error)))
        })
        .execute(&mut connection);
    same(copied.unwrap(), 5_000);
    let mut size = 0;
    {
        use std::io::Read;
        let mut text = String::new();
        let mut out = diesel::copy_to(copied_diesel::table).load_raw(&mut connection).unwrap();
        out.read_to_string(&mut text).unwrap();
        size += text.len();
    }
    assert!(size > 500_000, "{size}");
    same(copied_diesel::table.count().get_result::<i64>(&mut connection).unwrap(), 5_000);
}

fn listen() {
    let (mut connection, mut other) = (connect(), connect());
    connection.batch_execute(&format!("LISTEN news_{}", *TENANT)).unwrap();
    for number in 0..3 {
        other.batch_execute(&format!("NOTIFY news_{}, 'item {number}'", *TENANT)).unwrap();
    }
    let (end, mut heard) = (Instant::now() + Duration::from_secs(5), Vec::new());
    while heard.len() < 3 && Instant::now() < end {
        heard.extend(connection.notifications_iter().map(|each| each.unwrap().payload));
    }
    same(heard.join("|"), "item 0|item 1|item 2");
}

fn types() {
    let mut connection = connect();
    let numbers = diesel::dsl::sql::<Array<Integer>>("SELECT ").bind::<Array<Integer>, _>(vec![1, 2]);
    same(format!("{:?}", numbers.get_result::<Vec<i32>>(&mut connection).unwrap()), "[1, 2]");
    let texts = diesel::dsl::sql::<Array<Nullable<Text>>>("SELECT ");
    let texts = texts.bind::<Array<Nullable<Text>>, _>(vec![Some("b\"c"), None]);
    let found = texts.get_result::<Vec<Option<String>>>(&mut connection).unwrap();
    same(format!("{found:?}"), "[Some(\"b\\\"c\"), None]");
    let blob = diesel::dsl::sql::<Binary>("SELECT ").bind::<Binary, _>(vec![0_u8, 255]);
    same(format!("{:?}", blob.get_result::<Vec<u8>>(&mut connection).unwrap()), "[0, 255]");
    let number = diesel::dsl::sql::<Double>("SELECT ").bind::<Double, _>(1.5);
    same(number.get_result::<f64>(&mut connection).unwrap(), 1.5);
}

fn large_values() {
    let mut connection = connect();
    let query = diesel::dsl::sql::<Integer>("SELECT length(").bind::<Text, _>("x".repeat(LARGE)).sql(")");
    same(query.get_result::<i32>(&mut connection).unwrap(), LARGE);
}

fn cursors() {
    let mut connection = connect();
    let rows =
        things::table.select(things::id).load_iter::<i32, diesel::pg::PgRowByRowLoadingMode>(&mut connection);
    same(rows.unwrap().map(Result::unwrap).sum::<i32>(), 210);
}

fn many_at_once() {
    let threads: Vec<_> = (0..8)
        .map(|_| {
            std::thread::spawn(|| {
                let mut connection = connect();
                for _ in 0..10 {
                    let owners = connection.transaction(|within| {
                        things::table.select(things::owner).distinct().load::<String>(within)
                    });
                    same(owners.unwrap().join(","), &*TENANT);
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
}

fn main() {
    let mut checks: Vec<tenantry_matrix::Check> = vec![
        ("prepared_statements", Box::new(prepared_statements)),
        ("transactions", Box::new(transactions)),
        ("copy", Box::new(copy)),
        ("listen", Box::new(listen)),
        ("types", Box::new(types)),
        ("large_values", Box::new(large_values)),
        ("cursors", Box::new(cursors)),
        ("many_at_once", Box::new(many_at_once)),
    ];
    checks.extend(portable(|| Box::new(Client(connect()))));
    report("diesel", env!("VERSION_DIESEL"), checks)
}
