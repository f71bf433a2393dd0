//! What keeps a session on its server, and what only looks like it.
//!
//! Owns names and numbers that no other session of the tenant uses at the same time.

use crate::author::Author;
use crate::script::Talk;

/// A cursor that ends with its transaction.
pub(crate) fn cursor(author: &mut Author) -> Talk {
    let place = author.place;
    let fetch =
        author.pick(&["FETCH 3", "FETCH ALL IN", "MOVE 5 IN", "FETCH BACKWARD 1 FROM", "FETCH 0 FROM"]);
    let declare = format!("DECLARE c SCROLL CURSOR FOR SELECT id, word FROM box_{place} ORDER BY id");
    let fetch = if fetch == "FETCH 3" { "FETCH 3 FROM".to_owned() } else { fetch.to_owned() };
    if author.one_in(3) {
        return Talk::new().query(&format!("{declare}; {fetch} c; CLOSE c"));
    }
    author.in_transaction = false;
    let talk = Talk::new().query("ROLLBACK").query("BEGIN").query(&declare).query(&format!("{fetch} c"));
    talk.parse("", "FETCH 2 FROM c").bind("", "", &[]).execute("").sync().query("COMMIT")
}

/// Advisory locks that end with their transaction.
pub(crate) fn transaction_lock(author: &mut Author) -> Talk {
    let number = lock(author);
    let count = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()";
    Talk::new().query(&format!("SELECT pg_advisory_xact_lock({number}); {count}")).query(count)
}

/// A notification that nobody of this test hears, or only this session.
pub(crate) fn notify(author: &mut Author) -> Talk {
    let (channel, k) = (channel(author), author.below(9));
    match author.below(4) {
        0 => Talk::new().query(&format!("SELECT pg_notify('{channel}', 'number {k}')")),
        1 => Talk::new().query("UNLISTEN *"),
        2 => Talk::new().parse("", &format!("NOTIFY {channel}")).bind("", "", &[]).execute("").sync(),
        _ => Talk::new().query(&format!("NOTIFY {channel}, 'number {k}'")),
    }
}

/// Something that the session keeps on its server.
pub(crate) fn pin(author: &mut Author) -> Talk {
    match author.below(5) {
        0 => prepared(author),
        1 => temp_table(author),
        2 => session_lock(author),
        3 => held_cursor(author),
        _ => listen(author),
    }
}

fn prepared(author: &mut Author) -> Talk {
    let k = author.below(5);
    Talk::new().query(&match author.below(6) {
        0 | 1 => format!("PREPARE q{k} (int) AS SELECT $1 + {k}"),
        2 | 3 => format!("EXECUTE q{k} (10)"),
        4 => format!("DEALLOCATE q{k}"),
        _ => format!("PREPARE q{k} AS SELECT broken"),
    })
}

fn temp_table(author: &mut Author) -> Talk {
    let k = author.below(2);
    Talk::new().query(&match author.below(7) {
        0 => format!("CREATE TEMP TABLE t{k} (a int)"),
        1 => format!("CREATE TEMP TABLE IF NOT EXISTS t{k} (a int) ON COMMIT DELETE ROWS"),
        2 => format!("INSERT INTO t{k} SELECT generate_series(1, 3)"),
        3 => format!("SELECT a FROM t{k} ORDER BY a"),
        4 => format!("SELECT 1 AS a INTO TEMP t{k}"),
        5 => "DISCARD TEMP".to_owned(),
        _ => format!("DROP TABLE t{k}"),
    })
}

fn session_lock(author: &mut Author) -> Talk {
    let number = lock(author);
    Talk::new().query(&match author.below(6) {
        0 => format!("SELECT pg_advisory_lock({number})"),
        1 => format!("SELECT pg_try_advisory_lock_shared({number})"),
        2 => "SELECT pg_advisory_unlock_all()".to_owned(),
        3 => "SELECT objid FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid() ORDER BY 1"
            .into(),
        _ => format!("SELECT pg_advisory_unlock({number})"),
    })
}

fn held_cursor(author: &mut Author) -> Talk {
    Talk::new().query(author.pick(&[
        "DECLARE h SCROLL CURSOR WITH HOLD FOR SELECT generate_series(1, 9)",
        "FETCH 2 FROM h",
        "FETCH BACKWARD 1 FROM h",
        "MOVE 3 FROM h",
        "CLOSE h",
        "CLOSE ALL",
    ]))
}

fn listen(author: &mut Author) -> Talk {
    let (channel, k) = (channel(author), author.below(9));
    Talk::new().query(&match author.below(5) {
        0 | 1 => format!("LISTEN {channel}"),
        2 => format!("UNLISTEN {channel}"),
        3 => format!("NOTIFY {channel}, 'to myself'; NOTIFY {channel}, 'again'"),
        _ => format!("BEGIN; NOTIFY {channel}, 'number {k}'; COMMIT"),
    })
}

/// A pin with its end, in one step.
pub(crate) fn pin_briefly(author: &mut Author) -> Talk {
    author.in_transaction = false;
    let (number, channel) = (lock(author), channel(author));
    let talk = Talk::new().query("ROLLBACK");
    match author.below(5) {
        0 => talk
            .query(&format!("SELECT pg_advisory_lock({number})"))
            .wait()
            .query(&format!("SELECT pg_advisory_unlock({number})")),
        1 => talk
            .query(&format!("LISTEN {channel}"))
            .wait()
            .query(&format!("NOTIFY {channel}"))
            .query("UNLISTEN *"),
        2 => talk
            .query("CREATE TEMP TABLE brief (a int)")
            .wait()
            .query("TABLE brief")
            .query("DROP TABLE brief"),
        3 => talk
            .query("DECLARE brief CURSOR WITH HOLD FOR SELECT 1")
            .wait()
            .query("FETCH 1 FROM brief")
            .query("CLOSE brief"),
        _ => talk.query("PREPARE brief AS SELECT 9").wait().query("EXECUTE brief").query("DEALLOCATE brief"),
    }
}

/// One of this place's numbers. All tenants of a database share the numbers.
fn lock(author: &mut Author) -> usize {
    author.tenant * 1_000 + author.place * 10 + author.below(2)
}

fn channel(author: &Author) -> String {
    format!("channel_{}_{}", author.tenant, author.place)
}
