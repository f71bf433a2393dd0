//! Settings, and looks at what a session may see of itself.
//!
//! Owns which settings are used. None of them changes how fast or in what order answers come.

use crate::arena::TENANTS;
use crate::author::Author;
use crate::script::Talk;

/// Settings that Postgres reports, with values.
const REPORTED: [(&str, [&str; 4]); 7] = [
    ("TimeZone", ["'Asia/Tokyo'", "'America/Lima'", "'UTC'", "INTERVAL '+02:30' HOUR TO MINUTE"]),
    ("DateStyle", ["'SQL, DMY'", "'ISO'", "'Postgres, MDY'", "'German'"]),
    ("IntervalStyle", ["'iso_8601'", "'postgres'", "'sql_standard'", "'postgres_verbose'"]),
    ("application_name", ["'one'", "'it''s two'", "''", "'caf\u{e9}'"]),
    ("client_encoding", ["'UTF8'", "'LATIN1'", "'SQL_ASCII'", "'UTF8'"]),
    ("default_transaction_read_only", ["on", "off", "off", "off"]),
    ("standard_conforming_strings", ["on", "off", "on", "on"]),
];

/// Settings that it does not report.
const UNREPORTED: [(&str, [&str; 4]); 8] = [
    ("work_mem", ["'7MB'", "'8MB'", "'65kB'", "12345"]),
    ("statement_timeout", ["'1h'", "'2h'", "7200001", "0"]),
    ("extra_float_digits", ["0", "3", "-2", "1"]),
    ("bytea_output", ["'escape'", "'hex'", "escape", "hex"]),
    ("enable_seqscan", ["off", "on", "off", "on"]),
    ("my.setting", ["'a'", "'b c'", "''", "'it''s'"]),
    ("client_min_messages", ["'warning'", "'notice'", "'error'", "'log'"]),
    ("default_transaction_isolation", ["'serializable'", "'read committed'", "'repeatable read'", "DEFAULT"]),
];

fn reported(author: &mut Author) -> (&'static str, &'static str) {
    let (name, values) = author.pick(&REPORTED);
    (name, author.pick(&values))
}

fn unreported(author: &mut Author) -> (&'static str, &'static str) {
    let (name, values) = author.pick(&UNREPORTED);
    (name, author.pick(&values))
}

/// As a simple query or by the extended protocol.
fn say(author: &mut Author, sql: &str) -> Talk {
    if author.one_in(2) {
        return Talk::new().query(sql);
    }
    Talk::new().parse("", sql).bind("", "", &[]).describe_portal("").execute("").sync()
}

pub(crate) fn set_reported(author: &mut Author) -> Talk {
    let (name, value) = reported(author);
    let sql = format!("SET {name} = {value}");
    // Its value is no word: SET knows it, set_config does not.
    if author.one_in(4) && value.starts_with('\'') {
        return say(author, &format!("SELECT set_config('{name}', {value}, false)"));
    }
    say(author, &sql)
}

pub(crate) fn set_unreported(author: &mut Author) -> Talk {
    let (name, value) = unreported(author);
    let sql = match author.below(4) {
        0 if value.starts_with('\'') => format!("SELECT set_config('{name}', {value}, false)"),
        1 => format!("SET SESSION {name} TO {value}"),
        2 => format!("SELECT 1; SET {name} = {value}; SELECT 2"),
        _ => format!("SET {name} = {value}"),
    };
    if sql.contains(';') { Talk::new().query(&sql) } else { say(author, &sql) }
}

/// Within the tenant's own schema and what everybody has.
pub(crate) fn search_path(author: &mut Author) -> Talk {
    let own = format!("schema_{}", TENANTS[author.tenant]);
    let sql = match author.below(5) {
        0 => format!("SET search_path = pg_catalog, {own}"),
        1 if author.promises.unreadable_statements_fail_alike => "SET search_path = pg_catalog".to_owned(),
        2 => format!("SELECT set_config('search_path', '{own}, pg_catalog', false)"),
        _ => format!("SET search_path TO {own}"),
    };
    say(author, &sql)
}

pub(crate) fn set_local(author: &mut Author) -> Talk {
    let (name, value) = if author.one_in(2) { reported(author) } else { unreported(author) };
    let sql = match author.below(3) {
        0 if value.starts_with('\'') => format!("SELECT set_config('{name}', {value}, true)"),
        _ => format!("SET LOCAL {name} = {value}"),
    };
    say(author, &sql)
}

/// A whole transaction around a SET, with an end that keeps it or not.
pub(crate) fn set_in_transaction(author: &mut Author) -> Talk {
    let (name, value) = if author.promises.unreported_settings_follow && author.one_in(2) {
        unreported(author)
    } else {
        reported(author)
    };
    let end = author.pick(&["COMMIT", "ROLLBACK", "ROLLBACK TO before; COMMIT", "SELECT 1 / 0; COMMIT"]);
    author.in_transaction = false;
    let talk = Talk::new().query("ROLLBACK").query("BEGIN; SAVEPOINT before");
    let talk = talk.query(&format!("SET {name} = {value}")).query(end).query("ROLLBACK");
    talk.query(&format!("SHOW {}", setting_that_exists(name)))
}

pub(crate) fn show(author: &mut Author) -> Talk {
    let name = if author.one_in(2) { reported(author).0 } else { unreported(author).0 };
    let sql = match author.below(3) {
        0 => format!("SELECT current_setting('{}'), current_schema()", setting_that_exists(name)),
        _ => format!("SHOW {}", setting_that_exists(name)),
    };
    say(author, &sql)
}

/// SHOW of a custom setting fails in a session that never had it. On a server that has had it from somebody else it is
/// empty instead: Postgres has no way to forget such a name.
fn setting_that_exists(name: &'static str) -> &'static str {
    if name.contains('.') { "search_path" } else { name }
}

pub(crate) fn reset_reported(author: &mut Author) -> Talk {
    let (name, _) = reported(author);
    let sql = match author.below(3) {
        0 => format!("SET {name} TO DEFAULT"),
        _ => format!("RESET {name}"),
    };
    say(author, &sql)
}

pub(crate) fn reset_unreported(author: &mut Author) -> Talk {
    let (name, _) = unreported(author);
    let sql = match author.below(3) {
        0 => format!("SET {name} TO DEFAULT"),
        _ => format!("RESET {name}"),
    };
    say(author, &sql)
}

pub(crate) fn reset_all(author: &mut Author) -> Talk {
    say(author, "RESET ALL")
}

pub(crate) fn discard_all(author: &mut Author) -> Talk {
    author.prepared = Default::default();
    if author.one_in(4) {
        return say(author, "DISCARD ALL");
    }
    author.in_transaction = false;
    Talk::new().query("ROLLBACK").query("DISCARD ALL")
}

pub(crate) fn discard(author: &mut Author) -> Talk {
    let sql = ["DISCARD PLANS", "DISCARD SEQUENCES", "SET ROLE NONE", "DISCARD PLANS; SELECT 1"];
    Talk::new().query(author.pick(&sql))
}

/// Everything that a strange hand could have left.
pub(crate) fn look(author: &mut Author) -> Talk {
    let sql = "SELECT current_user, session_user, current_schema(), current_setting('search_path'),
        current_setting('work_mem'), current_setting('statement_timeout'), current_setting('bytea_output'),
        current_setting('default_transaction_isolation'), current_setting('TimeZone'),
        (SELECT count(*) FROM pg_class WHERE relnamespace = pg_my_temp_schema()),
        (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()),
        (SELECT string_agg(name, ',' ORDER BY name) FROM pg_cursors WHERE is_holdable),
        (SELECT string_agg(name, ',' ORDER BY name) FROM pg_prepared_statements WHERE from_sql)";
    say(author, sql)
}
