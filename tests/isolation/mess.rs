//! What a session can leave behind, and what it may then expect to see itself.
//!
//! Owns the list of what every tenant's clients can say; what needs functions is in `hidden`. Statements only: what is left
//! half-said on the wire is in `visitor`. `{id}` is a number that no other session has, `{odd}` an odd one above 10,000 (so
//! that no unit of a setting swallows digits of it).

use crate::kind::Kind;

/// What a statement does to one kind of state.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Then {
    /// The client itself goes on seeing this.
    Own(Kind, &'static str),
    /// It may see this or nothing; nobody else sees it.
    Maybe(Kind, &'static str),
    Clean(Kind),
    /// Settings but the role are as at the beginning.
    CleanSettings,
    /// All is as at the beginning.
    CleanAll,
}

/// One way to leave something behind.
pub(crate) struct Mess {
    /// Left in a request before; others may have been on the server in between.
    pub(crate) before: Option<&'static Self>,
    pub(crate) sql: &'static str,
    /// Bound to the parameters; without any, it may be a simple query.
    pub(crate) values: &'static [&'static str],
    pub(crate) then: &'static [Then],
}

pub(crate) const fn mess(sql: &'static str, then: &'static [Then]) -> Mess {
    Mess { before: None, sql, values: &[], then }
}

pub(crate) const fn bound(sql: &'static str, values: &'static [&'static str], then: &'static [Then]) -> Mess {
    Mess { before: None, sql, values, then }
}

const fn behind(before: &'static Mess, sql: &'static str, then: &'static [Then]) -> Mess {
    Mess { before: Some(before), sql, values: &[], then }
}

/// Ended by its own transaction: nothing remains even for the client itself.
const fn passing(sql: &'static str) -> Mess {
    mess(sql, &[])
}

pub(crate) const fn work_mem(sql: &'static str) -> Mess {
    mess(sql, &[Then::Own(Kind::WorkMem, "{odd}kB")])
}

/// Run once in each tenant's schema before anybody comes (`{tenant}` is replaced).
pub(crate) const FIXTURE: &str = "
    CREATE ROLE role_{tenant}_aide;
    GRANT role_{tenant}_aide TO role_{tenant};
    GRANT TEMPORARY ON DATABASE app TO role_{tenant}_aide;
    SET search_path = schema_{tenant};
    SET ROLE role_{tenant};
    CREATE SEQUENCE tick;
    CREATE TABLE notes (id bigint DEFAULT nextval('schema_{tenant}.tick'), body text);";

/// Run behind all that is made.
pub(crate) const GRANTS: &str = "
    GRANT USAGE ON SCHEMA schema_{tenant} TO role_{tenant}_aide;
    GRANT ALL ON ALL TABLES IN SCHEMA schema_{tenant} TO role_{tenant}_aide;
    GRANT ALL ON ALL SEQUENCES IN SCHEMA schema_{tenant} TO role_{tenant}_aide;";

const TEMP_FIRST: Mess =
    mess("SET search_path = pg_temp, schema_{tenant}", &[Then::Own(Kind::Path, "pg_temp, schema_{tenant}")]);

pub(crate) const MESSES: &[Mess] = &[
    // One setting, in many ways.
    work_mem("SET work_mem = '{odd}kB'"),
    work_mem("SET SESSION work_mem = '{odd}kB'"),
    work_mem("/* a comment first */ set work_mem to '{odd}kB'"),
    work_mem("SELECT 1; SET work_mem = '{odd}kB'; SELECT 2"),
    work_mem("BEGIN; SET work_mem = '{odd}kB'; COMMIT"),
    work_mem("BEGIN; SAVEPOINT a; SET work_mem = '{odd}kB'; RELEASE a; COMMIT"),
    work_mem("SELECT set_config('work_mem', '{odd}kB', false)"),
    work_mem("SELECT pg_catalog.\"set_config\"('work_mem', '{odd}kB', false)"),
    work_mem("SELECT U&\"set\\005fconfig\"('work_mem', '{odd}kB', false)"),
    work_mem("WITH x AS (SELECT set_config('work_mem', '{odd}kB', false)) SELECT * FROM x"),
    work_mem("VALUES (set_config('work_mem', '{odd}kB', false))"),
    work_mem("EXPLAIN (ANALYZE, TIMING off) SELECT set_config('work_mem', '{odd}kB', false)"),
    work_mem("COPY (SELECT set_config('work_mem', '{odd}kB', false)) TO STDOUT"),
    work_mem("COPY (UPDATE pg_settings SET setting = '{odd}' WHERE name = 'work_mem') TO STDOUT"),
    work_mem("SELECT 'C:\\', set_config('work_mem', '{odd}kB', false)"),
    work_mem("DO $$ BEGIN SET work_mem = '{odd}kB'; END $$"),
    work_mem("DO $$ BEGIN PERFORM set_config('work_mem', '{odd}kB', false); END $$"),
    work_mem("DO $$ BEGIN EXECUTE 'SET work' || '_mem = ''{odd}kB'''; END $$"),
    work_mem("PREPARE p AS SELECT set_config('work_mem', $1, false); EXECUTE p('{odd}kB'); DEALLOCATE p"),
    mess("RESET work_mem", &[Then::Clean(Kind::WorkMem)]),
    mess("SET work_mem TO DEFAULT", &[Then::Clean(Kind::WorkMem)]),
    // Custom settings.
    mess("SET my.name = '{id}'", &[Then::Own(Kind::CustomBySet, "{id}")]),
    mess("SELECT set_config('my.name', '{id}', false)", &[Then::Own(Kind::CustomBySet, "{id}")]),
    mess(
        "SELECT set_config('my.name', owner || '-{id}', false) FROM schema_{tenant}.things WHERE id = 1",
        &[Then::Own(Kind::CustomBySet, "{tenant}-{id}")],
    ),
    mess("RESET my.name", &[Then::Clean(Kind::CustomBySet)]),
    mess(
        "DO $$ BEGIN PERFORM set_config('my.block', '{id}', false); END $$",
        &[Then::Maybe(Kind::CustomByDo, "{id}")],
    ),
    // Who somebody is, and where.
    mess("SET ROLE role_{tenant}_aide", &[Then::Own(Kind::Role, "role_{tenant}_aide")]),
    mess(
        "SELECT set_config('role', 'role_{tenant}_aide', false)",
        &[Then::Own(Kind::Role, "role_{tenant}_aide")],
    ),
    mess("SET ROLE NONE", &[Then::Clean(Kind::Role)]),
    mess("RESET ROLE", &[Then::Clean(Kind::Role)]),
    mess("SET SESSION AUTHORIZATION role_{tenant}", &[Then::Clean(Kind::Role)]),
    mess("RESET SESSION AUTHORIZATION", &[Then::Clean(Kind::Role)]),
    mess("SET search_path = public", &[Then::Own(Kind::Path, "public")]),
    mess("SET search_path TO DEFAULT", &[Then::Clean(Kind::Path)]),
    mess(
        "SET search_path = schema_{tenant}, pg_catalog",
        &[Then::Own(Kind::Path, "schema_{tenant}, pg_catalog")],
    ),
    mess(
        "SELECT set_config('search_path', 'pg_catalog, schema_{tenant}', false)",
        &[Then::Own(Kind::Path, "pg_catalog, schema_{tenant}")],
    ),
    mess(
        "DO $$ BEGIN PERFORM set_config('search_path', 'public', false); END $$",
        &[Then::Maybe(Kind::Path, "public")],
    ),
    // Other settings.
    mess("SET statement_timeout = '{odd}ms'", &[Then::Own(Kind::StatementTimeout, "{odd}ms")]),
    mess("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", &[Then::Own(Kind::ReadOnly, "on")]),
    mess("SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE", &[Then::Clean(Kind::ReadOnly)]),
    mess("SET default_transaction_read_only = on", &[Then::Own(Kind::ReadOnly, "on")]),
    mess(
        "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE",
        &[Then::Own(Kind::Isolation, "serializable")],
    ),
    mess(
        "SET default_transaction_isolation = 'repeatable read'",
        &[Then::Own(Kind::Isolation, "repeatable read")],
    ),
    mess("SET row_security = off", &[Then::Own(Kind::RowSecurity, "off")]),
    mess("SET TIME ZONE 'Asia/Tokyo'", &[Then::Own(Kind::TimeZone, "Asia/Tokyo")]),
    mess("SET TimeZone = 'Europe/Paris'", &[Then::Own(Kind::TimeZone, "Europe/Paris")]),
    mess("DO $$ BEGIN SET TimeZone = 'America/Lima'; END $$", &[Then::Own(Kind::TimeZone, "America/Lima")]),
    mess("SET IntervalStyle = 'iso_8601'", &[Then::Own(Kind::IntervalStyle, "iso_8601")]),
    mess("SET application_name = 'app {id}'", &[Then::Own(Kind::ApplicationName, "app {id}")]),
    mess("RESET ALL", &[Then::CleanSettings]),
    mess("DISCARD ALL", &[Then::CleanAll]),
    // What lives on one server.
    mess("CREATE TEMP TABLE things (id int, owner text, body text)", &[Then::Own(Kind::Shadow, "1")]),
    mess("DROP TABLE IF EXISTS pg_temp.things", &[Then::Clean(Kind::Shadow)]),
    mess(
        "CREATE TEMPORARY TABLE IF NOT EXISTS remains_{id} (x int)",
        &[Then::Own(Kind::TempRelation, "remains_{id}")],
    ),
    mess(
        "CREATE TABLE IF NOT EXISTS pg_temp.remains_{id} (x int)",
        &[Then::Own(Kind::TempRelation, "remains_{id}")],
    ),
    mess("SELECT 1 AS x INTO TEMP remains_{id}", &[Then::Own(Kind::TempRelation, "remains_{id}")]),
    mess("CREATE TEMP TABLE remains_{id} AS SELECT 1 AS x", &[Then::Own(Kind::TempRelation, "remains_{id}")]),
    mess("CREATE TEMP VIEW remains_{id} AS SELECT 1 AS x", &[Then::Own(Kind::TempRelation, "remains_{id}")]),
    mess("CREATE TEMP SEQUENCE remains_{id}", &[Then::Own(Kind::TempRelation, "remains_{id}")]),
    // Where the path begins with pg_temp, no word says that it is temporary.
    mess(
        "SET search_path = pg_temp, schema_{tenant}; CREATE TABLE remains_{id} (x int)",
        &[Then::Own(Kind::Path, "pg_temp, schema_{tenant}"), Then::Own(Kind::TempRelation, "remains_{id}")],
    ),
    behind(
        &TEMP_FIRST,
        "CREATE TABLE remains_{id} (x int)",
        &[Then::Own(Kind::TempRelation, "remains_{id}")],
    ),
    behind(&TEMP_FIRST, "SELECT 1 AS x INTO remains_{id}", &[Then::Own(Kind::TempRelation, "remains_{id}")]),
    behind(
        &TEMP_FIRST,
        "CREATE TABLE remains_{id} (x int); RESET search_path",
        &[Then::Own(Kind::TempRelation, "remains_{id}"), Then::Clean(Kind::Path)],
    ),
    mess(
        "SELECT set_config('search_path', 'pg_temp, schema_{tenant}', false); CREATE VIEW remains_{id} AS SELECT 1",
        &[Then::Own(Kind::Path, "pg_temp, schema_{tenant}"), Then::Own(Kind::TempRelation, "remains_{id}")],
    ),
    mess(
        "BEGIN; SET LOCAL search_path = 'pg_temp', schema_{tenant}; CREATE TABLE remains_{id} (x int); COMMIT",
        &[Then::Own(Kind::TempRelation, "remains_{id}")],
    ),
    mess(
        "BEGIN; SELECT set_config('search_path', 'pg_temp, schema_{tenant}', true); \
         CREATE TABLE remains_{id} (x int); COMMIT",
        &[Then::Own(Kind::TempRelation, "remains_{id}")],
    ),
    mess(
        "SET search_path = 'pg_temp', schema_{tenant}; CREATE TABLE remains_{id} (x int); RESET search_path",
        &[Then::Own(Kind::TempRelation, "remains_{id}"), Then::Clean(Kind::Path)],
    ),
    mess(
        r"BEGIN; SET LOCAL search_path = U&'pg\005ftemp', schema_{tenant}; CREATE TABLE remains_{id} (x int); COMMIT",
        &[Then::Own(Kind::TempRelation, "remains_{id}")],
    ),
    mess(
        "BEGIN; SET LOCAL search_path = pg_temp, schema_{tenant}; CREATE TABLE remains_{id} (x int); COMMIT",
        &[Then::Own(Kind::TempRelation, "remains_{id}")],
    ),
    mess(
        "DO $$ BEGIN CREATE TEMP TABLE remains_{id} (x int); EXCEPTION WHEN OTHERS THEN NULL; END $$",
        &[Then::Maybe(Kind::TempRelation, "remains_{id}")],
    ),
    mess(
        "CREATE OR REPLACE FUNCTION pg_temp.other_{id}() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        &[Then::Own(Kind::TempOther, "other_{id}")],
    ),
    mess("CREATE DOMAIN pg_temp.other_{id} AS int", &[Then::Own(Kind::TempOther, "other_{id}")]),
    mess(
        "DISCARD TEMP",
        &[Then::Clean(Kind::TempRelation), Then::Clean(Kind::Shadow), Then::Clean(Kind::TempOther)],
    ),
    mess("SELECT pg_advisory_lock({id})", &[Then::Own(Kind::Lock, "{id}")]),
    mess("SELECT pg_try_advisory_lock_shared({id})", &[Then::Own(Kind::Lock, "{id}")]),
    mess("DO $$ BEGIN PERFORM pg_advisory_lock({id}); END $$", &[Then::Own(Kind::Lock, "{id}")]),
    mess("SELECT pg_advisory_unlock_all()", &[Then::Clean(Kind::Lock)]),
    mess("LISTEN remains_{id}", &[Then::Maybe(Kind::Channel, "remains_{id}")]),
    mess("BEGIN; LISTEN remains_{id}; COMMIT", &[Then::Maybe(Kind::Channel, "remains_{id}")]),
    mess("UNLISTEN *", &[Then::Clean(Kind::Channel)]),
    mess(
        "DECLARE remains_{id} CURSOR WITH HOLD FOR SELECT 1",
        &[Then::Own(Kind::HeldCursor, "remains_{id}")],
    ),
    mess(
        "BEGIN; DECLARE remains_{id} CURSOR WITH HOLD FOR SELECT generate_series(1, 3); COMMIT",
        &[Then::Own(Kind::HeldCursor, "remains_{id}")],
    ),
    mess("CLOSE ALL", &[Then::Clean(Kind::HeldCursor)]),
    mess(
        "PREPARE remains AS SELECT '{id}'",
        &[Then::Own(Kind::Prepared, "PREPARE remains AS SELECT '{id}'")],
    ),
    mess("DEALLOCATE ALL", &[Then::Clean(Kind::Prepared)]),
    // What its own transaction ends.
    passing("BEGIN; SET work_mem = '77MB'; SET my.name = 'x'; CREATE TEMP TABLE remains (x int); ROLLBACK"),
    passing(
        "BEGIN; SET LOCAL work_mem = '77MB'; SET LOCAL search_path = public; SET LOCAL my.name = 'x'; COMMIT",
    ),
    passing("BEGIN; SELECT pg_advisory_xact_lock(1); DECLARE remains CURSOR FOR SELECT 1; COMMIT"),
    passing("BEGIN; CREATE TEMP TABLE remains (x int) ON COMMIT DROP; COMMIT"),
    passing("BEGIN; SET search_path = pg_temp, schema_{tenant}; CREATE TABLE remains (x int); ROLLBACK"),
    passing("BEGIN; LISTEN remains; SAVEPOINT a; SET work_mem = '77MB'; ROLLBACK TO a; ROLLBACK"),
    passing("SELECT set_config('work_mem', '77MB', false), set_config('my.name', 'x', false), 1 / 0"),
    // By functions of Postgres' own that do not look like it.
    work_mem("SELECT query_to_xml('SELECT set_config(''work_mem'', ''{odd}kB'', false)', true, false, '')"),
    work_mem(
        "SELECT query_to_xml('SELECT set' || '_config(''work_mem'', ''{odd}kB'', false)', true, false, '')",
    ),
    work_mem("UPDATE pg_settings SET setting = '{odd}' WHERE name = 'work_mem'"),
    mess("SELECT set_config('my.' || 'name', '{id}', false)", &[Then::Maybe(Kind::CustomBySet, "{id}")]),
    mess(
        "SELECT query_to_xml('SELECT pg_advisory_lock({id})', true, false, '')",
        &[Then::Own(Kind::Lock, "{id}")],
    ),
];
