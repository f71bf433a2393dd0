//! Simple queries.
//!
//! Owns their texts. Whatever comes in an order has ORDER BY: the twins' tables may lie differently.

use crate::author::Author;
use crate::script::Talk;

pub(crate) fn query(author: &mut Author) -> Talk {
    Talk::new().query(&select(author))
}

/// A query that reads.
pub(crate) fn select(author: &mut Author) -> String {
    let (place, k) = (author.place, author.below(20) + 1);
    match author.below(12) {
        0 => format!("SELECT id, word, num, data FROM box_{place} ORDER BY id LIMIT {k}"),
        1 => "SELECT '2024-02-29 12:00+00'::timestamptz, interval '1 day 02:03:04', date '2020-01-31'".into(),
        2 => format!("SELECT generate_series(1, {k})"),
        3 => format!("SELECT count(*), sum(num), max(id) FROM box_{place}"),
        4 => format!("VALUES ({k}, 'a'), (2, NULL)"),
        5 => format!("TABLE box_{place} ORDER BY id LIMIT 3"),
        6 => format!("SELECT 1.1::float8 * {k}, 0.1::float4, '\\xdead'::bytea, 'caf\u{e9}' || {k}"),
        7 => format!("WITH x AS (SELECT {k} AS n) SELECT n, n * 2 AS twice FROM x"),
        8 => format!("/* a comment; BEGIN */ SELECT ';' || '{k}' -- and; another"),
        9 => format!("SELECT id FROM box_{place} WHERE word = 'word {k}' FOR UPDATE"),
        10 => format!("EXPLAIN (COSTS OFF) SELECT {k}"),
        _ => format!("SELECT $$a 'quoted' {k}$$, E'\\'', \"box_{place}\".id FROM box_{place} WHERE id = {k}"),
    }
}

pub(crate) fn failing_query(author: &mut Author) -> Talk {
    Talk::new().query(&failing(author))
}

/// A query that fails.
pub(crate) fn failing(author: &mut Author) -> String {
    let (place, k) = (author.place, author.below(20) + 1);
    match author.below(9) {
        0 => format!("SELECT {k} / 0"),
        1 => format!("SELECT 1 / (n - {k}) FROM generate_series(1, 20) n"),
        2 => "SELEKT 1".into(),
        3 => format!("SELECT nope FROM box_{place}"),
        4 => "SELECT * FROM missing_table".into(),
        5 => "SELECT 'x'::int".into(),
        6 => format!("INSERT INTO box_{place} (id) VALUES (1), (1)"),
        7 => "SELECT say('error', 'as asked')".into(),
        _ => "CREATE TABLE pg_catalog.mine (a int)".into(),
    }
}

pub(crate) fn write(author: &mut Author) -> Talk {
    Talk::new().query(&change(author))
}

/// A statement that writes.
pub(crate) fn change(author: &mut Author) -> String {
    let (place, k) = (author.place, author.below(60) + 1);
    match author.below(7) {
        0 => format!("INSERT INTO box_{place} (id, word) VALUES ({k}, 'new') RETURNING id, word, num"),
        1 => format!(
            "INSERT INTO box_{place} (id, word) VALUES ({k}, 'x') ON CONFLICT (id) DO UPDATE SET word = 'y'"
        ),
        2 => format!("UPDATE box_{place} SET num = num + 1 WHERE id = {k} RETURNING num"),
        3 => format!("UPDATE box_{place} SET word = upper(word) WHERE id < {k}"),
        4 => format!("DELETE FROM box_{place} WHERE id = {k}"),
        // Found at the end of the transaction only.
        5 => format!("INSERT INTO box_{place} (id, once) VALUES ({}, {k})", k + 100),
        _ => format!("SELECT nextval('seq_{place}'), lastval()"),
    }
}

pub(crate) fn begin(author: &mut Author) -> Talk {
    author.in_transaction = true;
    let sql = match author.below(6) {
        // Behind a Parse that the proxy has answered by itself only Postgres has a snapshot, and refuses the level.
        0 => "COMMIT; START TRANSACTION ISOLATION LEVEL REPEATABLE READ",
        1 => "BEGIN READ ONLY",
        2 => "BEGIN; SELECT 1",
        _ => "BEGIN",
    };
    Talk::new().query(sql)
}

pub(crate) fn end(author: &mut Author) -> Talk {
    author.in_transaction = false;
    let sql = match author.below(8) {
        0 => "ROLLBACK",
        1 => "ABORT",
        2 => "END",
        3 => "COMMIT AND CHAIN",
        4 => "SELECT 1; COMMIT",
        _ => "COMMIT",
    };
    author.in_transaction = sql.ends_with("CHAIN");
    Talk::new().query(sql)
}

pub(crate) fn savepoint(author: &mut Author) -> Talk {
    let name = author.pick(&["a", "b"]);
    let sql = match author.below(5) {
        0 | 1 => format!("SAVEPOINT {name}"),
        2 => format!("RELEASE {name}"),
        _ => format!("ROLLBACK TO {name}"),
    };
    Talk::new().query(&sql)
}

/// Statements in one message, commands about transactions between them.
pub(crate) fn several(author: &mut Author) -> Talk {
    let mut texts = Vec::new();
    for _ in 0..author.below(4) + 2 {
        texts.push(match author.below(9) {
            0 => "BEGIN".to_owned(),
            1 => author.pick(&["COMMIT", "ROLLBACK", "COMMIT AND CHAIN"]).to_owned(),
            2 => "SAVEPOINT several".to_owned(),
            3 => "ROLLBACK TO several".to_owned(),
            4 => change(author),
            5 if author.one_in(2) => failing(author),
            6 => " ".to_owned(),
            _ => select(author),
        });
    }
    // A comment to the end of the line would hide the rest.
    Talk::new().query(&texts.join("\n;"))
}

pub(crate) fn empty(author: &mut Author) -> Talk {
    Talk::new().query(author.pick(&["", ";", " ", "-- nothing", ";;\n;", "/* nothing */"]))
}

pub(crate) fn large(author: &mut Author) -> Talk {
    let (rows, bytes) = author.pick(&[(1, 300_000), (3, 70_000), (2_000, 20), (200, 1_000), (1, 65_536)]);
    let letter = author.pick(&["x", "yz", "\u{e9}"]);
    let sql = format!("SELECT g, repeat('{letter}', {bytes}) FROM generate_series(1, {rows}) g");
    if author.one_in(2) {
        return Talk::new().query(&sql);
    }
    Talk::new().parse("", &sql).bind("", "", &[]).describe_portal("").execute("").sync()
}

pub(crate) fn notices(author: &mut Author) -> Talk {
    let (level, k) = (author.pick(&["notice", "warning", "info", "error"]), author.below(9));
    match author.below(4) {
        0 => {
            Talk::new().query(&format!("SELECT say('{level}', 'number ' || n) FROM generate_series(1, 3) n"))
        }
        1 => Talk::new().query("DROP TABLE IF EXISTS nowhere; SELECT 1; DROP TABLE IF EXISTS nowhere"),
        2 => Talk::new().query("COMMIT; BEGIN; BEGIN; COMMIT; ROLLBACK"),
        _ => Talk::new()
            .parse("", "SELECT say($1, $2)")
            .bind(
                "",
                "",
                &[crate::script::Value::text(level), crate::script::Value::int(i32::try_from(k).unwrap())],
            )
            .execute("")
            .sync(),
    }
}

/// Code whose effect the text does not show.
pub(crate) fn block(author: &mut Author) -> Talk {
    let place = author.place;
    Talk::new().query(&match author.below(3) {
        0 => "DO $$ BEGIN RAISE NOTICE 'in a block'; END $$".to_owned(),
        1 => format!("DO $$ BEGIN UPDATE box_{place} SET word = 'block' WHERE id = 3; END $$"),
        _ => "DO $$ BEGIN PERFORM 1 / 0; EXCEPTION WHEN division_by_zero THEN RAISE WARNING 'caught'; END $$"
            .to_owned(),
    })
}

/// Tables that come and go; statements that know them by name keep their result's type.
pub(crate) fn tables(author: &mut Author) -> Talk {
    let place = author.place;
    let sql = match author.below(6) {
        0 | 1 => format!("CREATE TABLE side_{place} (a int, b text)"),
        2 => format!("DROP TABLE side_{place}"),
        3 => format!("INSERT INTO side_{place} VALUES (1, 'one'), (2, 'two')"),
        4 => format!("CREATE INDEX IF NOT EXISTS side_{place}_a ON side_{place} (a)"),
        _ => format!("ALTER TABLE box_{place} ALTER COLUMN num SET DEFAULT {}.5", author.below(9)),
    };
    Talk::new().query(&sql)
}
