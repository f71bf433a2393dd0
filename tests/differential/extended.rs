//! The extended protocol: statements with and without names, portals, pipelines, Flush.
//!
//! Owns the statements with parameters. Must not know settings.

use crate::author::{Author, NAMES, Prepared};
use crate::script::{Format, Talk, Value};
use crate::simple;

fn format(author: &mut Author) -> Format {
    if author.one_in(3) { Format::Binary } else { Format::Text }
}

/// A statement with parameters.
fn statement(author: &mut Author) -> Prepared {
    let (place, k) = (author.place, author.below(6));
    let int = |author: &mut Author| Value::int(i32::try_from(author.below(30)).unwrap());
    let (sql, values) = match author.below(15) {
        0 | 1 => (format!("SELECT $1::int + {k}"), vec![int(author)]),
        2 => (format!("SELECT id, word FROM box_{place} WHERE id = $1"), vec![int(author)]),
        3 | 4 => (format!("SELECT $1::text || '-{k}'"), vec![Value::text("caf\u{e9}")]),
        5 => (
            format!("INSERT INTO box_{place} (id, word) VALUES ($1, $2) RETURNING id, word"),
            vec![int(author), Value::text("bound")],
        ),
        6 => (
            format!("UPDATE box_{place} SET num = num + $1::int WHERE id = $2 RETURNING num, data"),
            vec![int(author), int(author)],
        ),
        7 => (format!("DELETE FROM box_{place} WHERE id = $1"), vec![int(author)]),
        8 => (
            "SELECT '2024-02-29 12:00+00'::timestamptz + $1::int * interval '1 hour', interval '1 day 2:03'"
                .to_owned(),
            vec![int(author)],
        ),
        9 => ("SELECT current_setting('TimeZone'), $1::text".to_owned(), vec![Value::text("zone")]),
        10 => (format!("SELECT id, num FROM box_{place} ORDER BY id"), Vec::new()),
        11 => (format!("SELECT g, repeat('y', g % 50) FROM generate_series(1, {}) g", 20 + k), Vec::new()),
        // Not `10 / $1`: that is computed by Bind or by Execute, as the plan happens to be made for the value or for all.
        // Nor per row of a table: how many rows come before the error depends on the plan.
        12 => (format!("SELECT 10 / (count(*) - $1) FROM box_{place} WHERE id < 12"), vec![int(author)]),
        13 => (
            "SELECT date '01/02/2020', timestamptz '2020-05-05 12:00', 'caf\u{e9} \\''".to_owned(),
            Vec::new(),
        ),
        _ => (
            match author.below(8) {
                0 => String::new(),
                1 => simple::failing(author),
                2 => "SHOW DateStyle".to_owned(),
                3 => "SAVEPOINT bound".to_owned(),
                4 => "SELECT 1; SELECT 2".to_owned(),
                5 => simple::change(author),
                _ => simple::select(author),
            },
            Vec::new(),
        ),
    };
    Prepared { sql, values }
}

/// New values for a statement.
fn values(author: &mut Author, prepared: &Prepared) -> Vec<Value> {
    let mut values = prepared.values.clone();
    if author.one_in(2)
        && let Some(first) = values.first_mut()
        && first.binary.len() == 4
        && first.text.parse::<i32>().is_ok()
    {
        *first = Value::int(i32::try_from(author.below(30)).unwrap());
    }
    values
}

/// Bind, perhaps Describe, Execute.
fn run(author: &mut Author, talk: Talk, name: &str, prepared: &Prepared) -> Talk {
    let (format, results) = (format(author), format(author));
    let values = values(author, prepared);
    let portal = if author.one_in(5) { "p" } else { "" };
    let mut talk = talk.bind_as((portal, name), &values, format, results);
    if author.one_in(2) {
        talk = talk.describe_portal(portal);
    }
    talk = talk.execute_rows(portal, if author.one_in(5) { 2 } else { 0 });
    if !portal.is_empty() {
        talk = talk.close_portal(portal);
    }
    talk
}

fn run_unnamed(author: &mut Author, mut talk: Talk) -> Talk {
    let prepared = statement(author);
    talk = talk.parse("", &prepared.sql);
    if author.one_in(4) {
        talk = talk.describe_statement("");
    }
    run(author, talk, "", &prepared)
}

/// A statement under one of the names, prepared first if it is not believed to be.
fn run_named(author: &mut Author, mut talk: Talk) -> Talk {
    let index = author.below(NAMES.len());
    if author.prepared[index].is_none() || author.one_in(12) {
        talk = prepare_as(author, talk, index);
    }
    let Some(prepared) = author.prepared[index].clone() else { return talk };
    if author.one_in(6) {
        talk = talk.describe_statement(NAMES[index]);
    }
    run(author, talk, NAMES[index], &prepared)
}

fn prepare_as(author: &mut Author, mut talk: Talk, index: usize) -> Talk {
    let prepared = statement(author);
    // Without that it fails where the name is taken.
    if !author.one_in(8) {
        talk = talk.close_statement(NAMES[index]);
    }
    let talk = talk.parse(NAMES[index], &prepared.sql);
    author.prepared[index] = Some(prepared);
    author.prepares_a_name = true;
    talk
}

pub(crate) fn unnamed(author: &mut Author) -> Talk {
    run_unnamed(author, Talk::new()).sync()
}

/// The unnamed statement, whatever it is by now, or prepared with other messages in between.
pub(crate) fn unnamed_later(author: &mut Author) -> Talk {
    if author.one_in(2) && author.promises.unnamed_statement_is_kept {
        // It may be a COPY, which waits for data; whatever else it is, CopyFail is ignored.
        return Talk::new().bind("", "", &[]).execute("").copy_fail("no data").sync();
    }
    let prepared = statement(author);
    let talk = Talk::new().parse("", &prepared.sql).sync().wait();
    let talk = match author.below(4) {
        0 => run_named(author, talk).sync().wait(),
        1 => talk.query("SELECT 1").wait(),
        2 => talk.close_statement("").sync().wait(),
        _ => talk,
    };
    let talk = run(author, talk, "", &prepared).sync();
    if author.one_in(2) && author.promises.unnamed_statement_is_kept {
        return run(author, talk.wait(), "", &prepared).sync();
    }
    talk
}

pub(crate) fn named(author: &mut Author) -> Talk {
    run_named(author, Talk::new()).sync()
}

/// One value too many. Not in a failed transaction: what is refused there first depends on what is prepared.
pub(crate) fn wrong_values(author: &mut Author) -> Talk {
    author.in_transaction = false;
    let index = author.below(NAMES.len());
    let talk = prepare_as(author, Talk::new().query("ROLLBACK"), index);
    talk.bind("", NAMES[index], &[Value::int(1), Value::int(2), Value::int(3)]).execute("").sync()
}

pub(crate) fn prepare(author: &mut Author) -> Talk {
    let index = author.below(NAMES.len());
    let talk = prepare_as(author, Talk::new(), index);
    if author.one_in(2) { talk.describe_statement(NAMES[index]).sync() } else { talk.sync() }
}

pub(crate) fn close(author: &mut Author) -> Talk {
    let index = author.below(NAMES.len());
    author.prepared[index] = None;
    let talk = Talk::new().close_statement(NAMES[index]);
    if author.one_in(3) { talk.bind("", NAMES[index], &[]).execute("").sync() } else { talk.sync() }
}

pub(crate) fn deallocate(author: &mut Author) -> Talk {
    let index = author.below(NAMES.len());
    let sql = match author.below(5) {
        0 => {
            author.prepared = Default::default();
            "DEALLOCATE ALL".to_owned()
        }
        1 => "DEALLOCATE nothing_of_that_name".to_owned(),
        // If it has no such statement, it would hit somebody else's.
        _ if NAMES[index].starts_with("tenantry") && !author.promises.server_names_are_hidden => {
            "SELECT 1".to_owned()
        }
        _ => {
            author.prepared[index] = None;
            let name = NAMES[index];
            match author.below(3) {
                0 => format!("SELECT 1; DEALLOCATE \"{name}\"; SELECT 2"),
                _ => format!("DEALLOCATE \"{name}\""),
            }
        }
    };
    Talk::new().query(&sql)
}

/// Statements without a wait, over the ends of transactions.
pub(crate) fn pipeline(author: &mut Author) -> Talk {
    let mut talk = Talk::new();
    for _ in 0..author.below(8) + 2 {
        talk = match author.below(12) {
            0 => talk.parse("", "BEGIN").bind("", "", &[]).execute(""),
            1 => talk.parse("", "COMMIT").bind("", "", &[]).execute(""),
            2 => talk.parse("", "ROLLBACK").bind("", "", &[]).execute(""),
            _ if author.prepares_a_name && !author.promises.names_may_be_used_at_once => {
                run_named(author, talk)
            }
            3 => talk.sync().query(&simple::select(author)),
            4 => talk.sync().query(&simple::change(author)),
            5 if author.one_in(2) => {
                let sql = simple::failing(author);
                talk.parse("", &sql).bind("", "", &[]).execute("")
            }
            6 | 7 => run_named(author, talk),
            8 => talk.sync(),
            9 => {
                let index = author.below(NAMES.len());
                prepare_as(author, talk, index)
            }
            _ => run_unnamed(author, talk),
        };
    }
    talk.sync()
}

/// Answers without a Sync.
pub(crate) fn flush(author: &mut Author) -> Talk {
    let mut talk = Talk::new();
    for _ in 0..author.below(3) + 1 {
        talk = if author.one_in(2) { run_named(author, talk) } else { run_unnamed(author, talk) };
        if author.one_in(2) {
            talk = talk.flush();
        }
    }
    if author.one_in(2) {
        let talk = talk.parse("", "SELECT generate_series(1, 9)").bind("", "", &[]).flush();
        return talk.execute_rows("", 4).flush().execute_rows("", 2).flush().execute("").sync();
    }
    talk.sync()
}

/// Portals that live for a transaction, with other things in between.
pub(crate) fn portals(author: &mut Author) -> Talk {
    author.in_transaction = false;
    let place = author.place;
    let talk = Talk::new().query("ROLLBACK").query("BEGIN").wait();
    let talk = talk.parse("", &format!("SELECT id, word FROM box_{place} ORDER BY id"));
    let results = format(author);
    let mut talk = talk.bind_as(("p1", ""), &[], Format::Text, results).execute_rows("p1", 3).sync().wait();
    for _ in 0..author.below(5) {
        talk = match author.below(6) {
            0 => run_named(author, talk).sync().wait(),
            1 => talk.describe_portal("p1").execute_rows("p1", 2).sync().wait(),
            2 => talk.query("FETCH 1 FROM p1").wait(),
            3 => talk.close_portal("p1").sync().wait(),
            4 => talk.execute_rows("p1", 1).flush().execute_rows("p1", 1).sync().wait(),
            _ => talk.execute_rows("p1", 4).sync().wait(),
        };
    }
    let end = author.pick(&["COMMIT", "ROLLBACK"]);
    talk.query(end).wait().execute_rows("p1", 1).sync()
}

/// Types of parameters, NULLs, a format for each.
pub(crate) fn formats(author: &mut Author) -> Talk {
    let (int, text, bytes) = (Value::int(7), Value::text("seven"), Value::text("bytes"));
    let types: &[u32] =
        author.pick(&[[INT4, TEXT, BYTEA].as_slice(), &[INT4], &[0, 0, BYTEA], &[], &[TEXT, TEXT, TEXT]]);
    let talk = Talk::new().parse_typed("", "SELECT $1::int4, $2::text, $3::bytea, 1.5::numeric", types);
    let mut values = Vec::new();
    for value in [int, text, bytes] {
        let value = if author.one_in(4) { None } else { Some(value) };
        values.push((value, format(author)));
    }
    let results: Vec<Format> = (0..author.pick(&[0, 1, 4, 4, 3])).map(|_| format(author)).collect();
    talk.bind_each(&values, &results).describe_portal("").execute("").sync()
}

/// Statements and portals that are not there. Not the unnamed portal: after a failed simple query in a transaction
/// Postgres 15 has one, whose statements are freed, and crashes.
pub(crate) fn unknown_names(author: &mut Author) -> Talk {
    let name = author.pick(&["unknown", "tenantry_0"]);
    let talk = Talk::new();
    match author.below(6) {
        0 => talk.bind("", "unknown", &[]).execute("").sync(),
        1 => talk.describe_statement("unknown").sync(),
        2 => talk.describe_portal(name).sync(),
        3 => talk.close_statement("unknown").close_portal("unknown").sync(),
        4 => talk.execute("unknown").sync().sync(),
        _ => talk.execute_rows(name, 5).sync(),
    }
}

/// Messages that do not fit into one read, or are longer than what the proxy looks into.
pub(crate) fn long(author: &mut Author) -> Talk {
    let length = author.pick(&[5_000, 16_380, 16_390, 20_000, 70_000, 300_000]);
    let pad = "x".repeat(length);
    let talk = Talk::new();
    match author.below(6) {
        0 => talk.query(&format!("SELECT length('{pad}')")),
        1 => talk.query(&format!("/* {pad} */ SELECT 1 / 0")),
        2 => talk.parse("", &format!("SELECT length('{pad}')")).bind("", "", &[]).execute("").sync(),
        3 => {
            let index = author.below(NAMES.len());
            let sql = format!("SELECT length('{pad}')");
            let talk = talk.close_statement(NAMES[index]).parse(NAMES[index], &sql);
            author.prepared[index] = Some(Prepared { sql, values: Vec::new() });
            author.prepares_a_name = true;
            talk.bind("", NAMES[index], &[]).execute("").sync()
        }
        4 => talk.parse("", "SELECT $1::text").bind("", "", &[Value::text(&pad)]).execute("").sync(),
        _ => run_named(
            author,
            talk.parse("", "SELECT length($1)").bind("", "", &[Value::text(&pad)]).execute(""),
        )
        .sync(),
    }
}

/// The simple query ends what came before it. That must not fail, or the query would be skipped.
pub(crate) fn without_sync(author: &mut Author) -> Talk {
    author.in_transaction = false;
    let talk = Talk::new().query("ROLLBACK").parse("", "SELECT 1").bind("", "", &[]).execute("");
    let talk = if author.one_in(2) { talk.query("SELECT 2") } else { talk.query("SELECT 1 / 0") };
    talk.parse("", "SELECT 3").bind("", "", &[]).execute("").sync()
}

/// Names that the proxy gives to statements.
pub(crate) fn guessed_names(author: &mut Author) -> Talk {
    // `tenantry_1` is a name that clients give as well, by Parse.
    let number = 2 + author.below(18);
    match author.below(3) {
        0 => Talk::new().query(&format!("EXECUTE tenantry_{number}")),
        1 => Talk::new().query(&format!("DEALLOCATE tenantry_{number}")),
        _ => Talk::new().close_statement("tenantry_2").bind("", "tenantry_2", &[]).execute("").sync(),
    }
}

/// A name that Parse gave, used by SQL, and the other way round.
pub(crate) fn shared_names(author: &mut Author) -> Talk {
    // Names of their own: Postgres ends a session that says EXECUTE to a SAVEPOINT.
    let name = author.pick(&["by sql", "by_sql"]);
    let talk = if author.one_in(2) {
        let sql = author.pick(&["SELECT 7, $$", "SELECT 7 / 0, $$", "VALUES (1, ''), (2, $$"]);
        let end = if sql.starts_with('V') { "$$)" } else { "$$" };
        author.prepares_a_name = true;
        Talk::new().close_statement(name).parse(name, &format!("{sql}{name}{end}")).sync()
    } else {
        // What it was before, or nothing.
        Talk::new()
    };
    let execute = format!("EXECUTE \"{name}\"");
    match author.below(6) {
        0 => talk.query(&execute),
        1 => talk.query(&format!("SELECT 1; {execute}; {execute}")),
        2 => talk.query(&format!("EXPLAIN (COSTS off) {execute}")),
        3 => talk.query(&format!("DEALLOCATE \"{name}\"; {execute}")),
        4 => {
            let deallocate = format!("DEALLOCATE \"{name}\"");
            let talk = talk.parse("", &deallocate).bind("", "", &[]).describe_portal("").execute("");
            if author.one_in(2) { talk.bind("", name, &[]).execute("").sync() } else { talk.sync() }
        }
        _ => {
            let talk = talk.close_statement("away").parse("away", &format!("DEALLOCATE \"{name}\""));
            talk.bind("p", "away", &[]).execute("p").sync().bind("", "away", &[]).execute("").sync()
        }
    }
}

/// What PREPARE gives a name, which keeps the session at its server, used by the protocol.
pub(crate) fn prepared_by_sql(author: &mut Author) -> Talk {
    let index = author.below(NAMES.len());
    let name = NAMES[index];
    if author.one_in(2) {
        let prepare = format!("PREPARE \"{name}\" AS SELECT 9");
        author.prepared[index] = None;
        return Talk::new().query(&prepare).wait().query(&format!("DEALLOCATE \"{name}\""));
    }
    let talk = Talk::new().query("PREPARE shared AS SELECT 8").wait();
    talk.bind("", "shared", &[]).execute("").sync().wait().query("DEALLOCATE shared")
}

const INT4: u32 = 23;
const TEXT: u32 = 25;
const BYTEA: u32 = 17;
