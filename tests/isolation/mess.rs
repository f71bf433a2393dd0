//! What a session can leave behind.
//!
//! Owns the list. Statements only: what is left half-said on the wire is in `visitor`.

/// One way to leave something behind, as one simple query.
pub(crate) struct Mess {
    pub(crate) sql: &'static str,
    /// Whether the client itself may see the remains later: then it looks at nothing that could show them, and leaves.
    pub(crate) own: bool,
}

const fn mess(sql: &'static str) -> Mess {
    Mess { sql, own: true }
}

/// Ended by its own transaction: nothing remains even for the client itself.
const fn passing(sql: &'static str) -> Mess {
    Mess { sql, own: false }
}

pub(crate) const MESSES: [Mess; 35] = [
    mess("SET work_mem = '77MB'"),
    mess("SET SESSION work_mem = '77MB'"),
    mess("/* a comment first */ set work_mem to '77MB'"),
    mess("SELECT set_config('work_mem', '77MB', false)"),
    mess("SELECT 1; SET work_mem = '77MB'; SELECT 2"),
    mess("DO $$ BEGIN SET work_mem = '77MB'; END $$"),
    mess("DO $$ BEGIN PERFORM set_config('search_path', 'public', false); END $$"),
    mess("SET search_path = public"),
    mess("SET search_path TO DEFAULT"),
    mess("SELECT set_config('search_path', 'schema_acme', false)"),
    mess("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY"),
    mess("SET default_transaction_read_only = on"),
    mess("SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE"),
    mess("RESET ALL"),
    mess("SET row_security = off"),
    mess("SET statement_timeout = '1h'"),
    mess("SET ROLE NONE"),
    mess("CREATE TEMP TABLE things (id int, owner text, body text)"),
    mess("CREATE TEMPORARY TABLE IF NOT EXISTS remains (x int)"),
    mess("SELECT 1 AS x INTO TEMP remains"),
    mess("CREATE TEMP VIEW remains AS SELECT 1"),
    mess("DO $$ BEGIN CREATE TEMP TABLE remains (x int); EXCEPTION WHEN OTHERS THEN NULL; END $$"),
    mess("SELECT pg_advisory_lock(pg_backend_pid())"),
    mess("SELECT pg_try_advisory_lock_shared(7)"),
    mess("LISTEN remains"),
    mess("DECLARE remains CURSOR WITH HOLD FOR SELECT 1"),
    mess("BEGIN; DECLARE remains CURSOR WITH HOLD FOR SELECT generate_series(1, 3); COMMIT"),
    mess("PREPARE remains AS SELECT 'remains'"),
    mess("SELECT setseed(0.5)"),
    mess("LOAD 'plpgsql'"),
    passing("BEGIN; SET work_mem = '77MB'; CREATE TEMP TABLE remains (x int); ROLLBACK"),
    passing("BEGIN; SET LOCAL work_mem = '77MB'; SET LOCAL search_path = public; COMMIT"),
    passing(
        "BEGIN; SELECT pg_advisory_xact_lock(pg_backend_pid()); DECLARE remains CURSOR FOR SELECT 1; COMMIT",
    ),
    passing("BEGIN; CREATE TEMP TABLE remains (x int) ON COMMIT DROP; COMMIT"),
    passing("BEGIN; LISTEN remains; ROLLBACK"),
];
