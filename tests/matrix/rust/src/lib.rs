//! What the Rust programs have in common: how checks are run and reported, and those that need nothing but SQL.

use std::fmt::Debug;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::sync::LazyLock;

/// Letters of a large value.
pub const LARGE: usize = 8_000_000;
/// The tenant that the script logs in as.
pub static TENANT: LazyLock<String> = LazyLock::new(|| variable("TENANTRY_TENANT"));
/// Where it connects.
pub static URL: LazyLock<String> = LazyLock::new(|| variable("TENANTRY_URL"));

/// One connection of a driver; errors as text.
pub trait Session {
    /// Sends a statement without values.
    fn run(&mut self, sql: &str) -> Result<(), String>;
    /// The first value of the first row, which is a text.
    fn one(&mut self, sql: &str) -> Result<String, String>;
}

/// Opens a session.
pub type Connect = fn() -> Box<dyn Session>;
/// A name and what is checked.
pub type Check = (&'static str, Box<dyn Fn()>);

/// A variable of the environment.
pub fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set"))
}

/// Ends the server, or Tenantry, behind all connections that are open.
pub fn drain() {
    assert!(Command::new(variable("TENANTRY_DRAIN")).status().unwrap().success());
}

/// Fails with both values.
pub fn same<A: ToString, B: ToString>(found: A, wanted: B) {
    let (found, wanted) = (found.to_string(), wanted.to_string());
    assert!(found == wanted, "expected {wanted}, got {}", found.chars().take(200).collect::<String>());
}

/// Fails unless there is an error that says `what`.
pub fn fails<T, E: Debug>(outcome: Result<T, E>, what: &str) {
    match outcome {
        Ok(_) => panic!("no error, expected: {what}"),
        Err(error) => {
            let text = format!("{error:?}");
            assert!(text.contains(what), "expected {what}, got {text}");
        }
    }
}

/// Runs all checks, says which failed, and ends the process.
pub fn report(driver: &str, version: &str, checks: Vec<Check>) -> ! {
    std::panic::set_hook(Box::new(|_| {}));
    println!("driver {driver} {version}");
    let mut failed = 0;
    for (name, check) in &checks {
        match catch_unwind(AssertUnwindSafe(check)) {
            Ok(()) => println!("ok {name}"),
            Err(trouble) => {
                failed += 1;
                let text = trouble.downcast_ref::<String>().cloned();
                let text = text.or_else(|| trouble.downcast_ref::<&str>().map(|text| (*text).to_owned()));
                println!("FAILED {name}: {}", text.unwrap_or_default().replace('\n', " "));
            }
        }
    }
    if failed > 0 {
        println!("failed {failed} of {} checks", checks.len());
        std::process::exit(1);
    }
    println!("ok {} checks", checks.len());
    std::process::exit(0)
}

fn show(session: &mut dyn Session, name: &str) -> String {
    session.one(&format!("SELECT current_setting('{name}')")).unwrap()
}

/// The tenant sees its own rows.
pub fn own_rows(session: &mut dyn Session) {
    same(session.one("SELECT string_agg(DISTINCT owner, ',') FROM things").unwrap(), &*TENANT);
    same(session.one("SELECT current_schema::text").unwrap(), format!("schema_{}", *TENANT));
}

/// The checks that need nothing but SQL.
pub fn portable(connect: Connect) -> Vec<Check> {
    vec![
        ("own_rows", Box::new(move || own_rows(&mut *connect()))),
        ("reported_settings", Box::new(move || reported_settings(connect))),
        ("unreported_settings", Box::new(move || unreported_settings(connect))),
        ("set_local", Box::new(move || set_local(connect))),
        ("large_rows", Box::new(move || large_rows(connect))),
        ("errors", Box::new(move || errors(connect))),
        ("temp_tables", Box::new(move || temp_tables(connect))),
        ("advisory_locks", Box::new(move || advisory_locks(connect))),
        ("sequences", Box::new(move || sequences(connect))),
        ("reconnect_after_drain", Box::new(move || reconnect_after_drain(connect))),
    ]
}

/// Three clients, each with its own settings, whichever servers they get.
fn follow(connect: Connect, names: [&str; 3], values: [[&str; 3]; 3]) -> Vec<Box<dyn Session>> {
    let mut all: Vec<Box<dyn Session>> = (0..3).map(|_| connect()).collect();
    for (session, mine) in all.iter_mut().zip(values) {
        for (name, value) in names.iter().zip(mine) {
            session.run(&format!("SET {name} = '{value}'")).unwrap();
        }
    }
    let check = |all: &mut Vec<Box<dyn Session>>, at: usize| {
        for (name, value) in names.iter().zip(values[at]) {
            same(show(&mut *all[at], name), value);
        }
    };
    for turn in 0..4 {
        let [first, second, third] = [0, 1, 2].map(|at| (at + turn) % 3);
        for at in [first, second, third] {
            check(&mut all, at);
        }
        // Two transactions at once, begun and ended crosswise: the servers change hands.
        all[first].run("BEGIN").unwrap();
        all[second].run("BEGIN").unwrap();
        check(&mut all, second);
        check(&mut all, first);
        all[first].run("COMMIT").unwrap();
        all[second].run("ROLLBACK").unwrap();
    }
    all
}

fn reported_settings(connect: Connect) {
    let names = ["application_name", "DateStyle", "TimeZone"];
    let values = [
        ["one", "ISO, DMY", "Asia/Tokyo"],
        ["two", "ISO, YMD", "America/Lima"],
        ["three", "ISO, MDY", "Europe/Rome"],
    ];
    let mut all = follow(connect, names, values);
    all[0].run("RESET TimeZone").unwrap();
    same(show(&mut *all[0], "TimeZone"), show(&mut *connect(), "TimeZone"));
    same(show(&mut *all[1], "TimeZone"), "America/Lima");
}

fn unreported_settings(connect: Connect) {
    let names = ["statement_timeout", "work_mem", "custom.key"];
    let values = [["61s", "1111kB", "one"], ["62s", "2222kB", "two"], ["63s", "3333kB", "three"]];
    let mut all = follow(connect, names, values);
    all[0].run("RESET work_mem").unwrap();
    all[1].run("RESET ALL").unwrap();
    all[2].one("SELECT set_config('work_mem', '4444kB', false)").unwrap();
    for (session, value) in all.iter_mut().zip(["4MB", "4MB", "4444kB"]) {
        same(show(&mut **session, "work_mem"), value);
    }
    same(show(&mut *all[0], "statement_timeout"), "61s");
}

fn set_local(connect: Connect) {
    let (mut client, mut other) = (connect(), connect());
    client.run("BEGIN").unwrap();
    client.run("SET LOCAL statement_timeout = '77s'").unwrap();
    same(show(&mut *client, "statement_timeout"), "77s");
    client.run("COMMIT").unwrap();
    same(show(&mut *other, "statement_timeout"), "0");
    same(show(&mut *client, "statement_timeout"), "0");
    for (end, value) in [("COMMIT", "5555kB"), ("ROLLBACK", "6666kB")] {
        client.run("BEGIN").unwrap();
        client.run(&format!("SET work_mem = '{value}'")).unwrap();
        client.run(end).unwrap();
        other.one("SELECT '1'::text").unwrap();
        same(show(&mut *client, "work_mem"), "5555kB");
    }
}

fn large_rows(connect: Connect) {
    let mut session = connect();
    same(session.one(&format!("SELECT repeat('x', {LARGE})")).unwrap().len(), LARGE);
    session.run(&format!("SELECT '{}'", "x".repeat(LARGE))).unwrap();
    own_rows(&mut *session);
}

fn errors(connect: Connect) {
    let mut session = connect();
    fails(session.run("INSERT INTO things VALUES (1, 'twice', '')"), "duplicate key");
    session.run("BEGIN").unwrap();
    fails(session.run("SELECT 1 / 0"), "division by zero");
    fails(session.run("SELECT 1"), "current transaction is aborted");
    session.run("ROLLBACK").unwrap();
    session.run("BEGIN").unwrap();
    session.run("SAVEPOINT here").unwrap();
    fails(session.run("SELECT * FROM no_such_table"), "does not exist");
    session.run("ROLLBACK TO here").unwrap();
    same(session.one("SELECT 'alive'::text").unwrap(), "alive");
    session.run("COMMIT").unwrap();
}

fn temp_tables(connect: Connect) {
    let (mut client, mut other) = (connect(), connect());
    client.run("CREATE TEMP TABLE kept (n int)").unwrap();
    for number in 0..3 {
        client.run("BEGIN").unwrap();
        client.run(&format!("INSERT INTO kept VALUES ({number})")).unwrap();
        client.run("COMMIT").unwrap();
        fails(other.run("SELECT * FROM kept"), "does not exist");
    }
    same(client.one("SELECT sum(n)::text FROM kept").unwrap(), "3");
}

fn advisory_locks(connect: Connect) {
    let (mut client, mut other) = (connect(), connect());
    // One number space per database: a number of this tenant's own.
    let key = format!("hashtext('{}')", *TENANT);
    client.one(&format!("SELECT pg_advisory_lock({key})::text")).unwrap();
    same(other.one(&format!("SELECT pg_try_advisory_lock({key})::text")).unwrap(), "false");
    same(client.one(&format!("SELECT pg_advisory_unlock({key})::text")).unwrap(), "true");
    same(other.one(&format!("SELECT pg_try_advisory_lock({key})::text")).unwrap(), "true");
}

/// currval and lastval are what this client drew last.
fn sequences(connect: Connect) {
    let (mut client, mut other) = (connect(), connect());
    client.run("CREATE TABLE IF NOT EXISTS drawn (id serial)").unwrap();
    for _ in 0..3 {
        let mine = client.one("SELECT nextval('drawn_id_seq')::text").unwrap();
        same(client.one("SELECT currval('drawn_id_seq')::text").unwrap(), mine);
        let others = other.one("SELECT nextval('drawn_id_seq')::text").unwrap();
        same(other.one("SELECT lastval()::text").unwrap(), others);
    }
}

fn reconnect_after_drain(connect: Connect) {
    let mut session = connect();
    own_rows(&mut *session);
    drain();
    assert!(session.one("SELECT '1'::text").is_err(), "the connection outlived the drain");
    own_rows(&mut *connect());
}
