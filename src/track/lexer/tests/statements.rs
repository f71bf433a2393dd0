//! What each statement leaves, and what several leave together.

use super::{assert_all, assert_state, assert_transient};
use crate::track::lexer::{Effect, StateKind};

fn deallocate(name: &str) -> Effect {
    Effect::Deallocate(name.as_bytes().to_vec())
}

#[test]
fn nothing_leaves_nothing() {
    assert_transient(&[
        "",
        " ",
        ";",
        " ; ;\n",
        "-- only a comment",
        "/* and /* another */ */",
        "\u{c}\t\r\n",
    ]);
}

#[test]
fn queries_and_changes_are_transient() {
    assert_transient(&[
        "SELECT 1",
        "select * from users where id = $1;",
        "\n\tSeLeCt 1 ; ",
        "SELECT'a'",
        "SELECT\"id\"FROM\"User\"",
        "SELECT 1; SELECT 2; INSERT INTO t VALUES (1)",
        "INSERT INTO temp VALUES (1)",
        "INSERT INTO temporary (a) SELECT 1",
        "UPDATE t SET a = 1 WHERE b = 'x;y'",
        "DELETE FROM set_configs",
        "MERGE INTO temp USING x ON true WHEN MATCHED THEN DELETE",
        "WITH a AS (SELECT 1) SELECT * FROM a",
        "VALUES (1)",
        "TABLE users",
        "(SELECT 1) UNION (SELECT 2)",
        "((WITH x AS (SELECT 1) TABLE x))",
        "SELECT 1 INTO local",
        "WITH a AS (INSERT INTO global VALUES (1)) SELECT 1",
        "SELECT 1 INTO plain",
        "SELECT 1 INTO TABLE plain",
        "SELECT 1 INTO UNLOGGED plain",
        "SELECT temp, temperature INTO \"temp\" FROM templates WHERE attempts > 1",
        "COPY t FROM STDIN",
        "COPY (SELECT 1) TO STDOUT",
        "SELECT a/b, a-b, a - -b, $1::int, 1.5e10, 0x1F, 1_000 FROM t",
    ]);
}

#[test]
fn functions_that_keep_something_in_c_are_known_by_name() {
    assert_state(StateKind::Unknown, &["SELECT set_limit(0.5)", "SELECT exts.\"set_limit\"($1)"]);
    assert_state(
        StateKind::Indelible,
        &[
            "SELECT dblink_connect('c', 'host=x')",
            "SELECT exts.DBLINK_CONNECT_U($1)",
            "SELECT \"dblink_connect\"('c')",
            "SELECT isn_weak(true)",
            "SELECT * FROM \"isn_weak\"()",
        ],
    );
    assert_transient(&[
        "SELECT link_count, isn_number, set_size FROM links",
        "SELECT dblink('c', 'SELECT 1')",
    ]);
}

#[test]
fn transactions_and_definitions_are_transient() {
    assert_transient(&[
        "BEGIN",
        "begin isolation level serializable; select 1; commit",
        "START TRANSACTION READ ONLY",
        "COMMIT PREPARED 'x'",
        "ROLLBACK TO SAVEPOINT a",
        "PREPARE TRANSACTION 'x'",
        "PREPARE TRANSACTION $$x$$",
        "CREATE TABLE temp (a int)",
        "CREATE TABLE t (temporary int)",
        "CREATE OR REPLACE VIEW temp AS SELECT 1",
        "CREATE FUNCTION f() RETURNS void LANGUAGE plpgsql SET search_path = x AS 'begin set x = 1; end'",
        "CREATE FUNCTION f() RETURNS void AS $$;SET x = 1;$$ LANGUAGE sql",
        "CREATE FUNCTION f() RETURNS void AS $body$;SET x = 1;$$;$body$ LANGUAGE sql",
        "CREATE FUNCTION f() RETURNS void BEGIN ATOMIC INSERT INTO t VALUES (1); SELECT 1; END",
        "CREATE TRIGGER t AFTER INSERT ON x EXECUTE FUNCTION f()",
        "ALTER ROLE x SET search_path = y",
        "GRANT EXECUTE ON FUNCTION f TO x",
        "NOTIFY a, 'b'",
        "VACUUM (ANALYZE) t",
        "ANALYZE; CHECKPOINT",
        "CLOSE ALL; FETCH 1 FROM c; MOVE c",
        "DECLARE c CURSOR FOR SELECT 1",
        "DECLARE c CURSOR WITHOUT HOLD FOR SELECT 1",
        "DISCARD PLANS",
        "DISCARD SEQUENCES; DISCARD TEMP",
    ]);
}

#[test]
fn explain_is_what_it_explains() {
    assert_transient(&[
        "EXPLAIN SELECT 1",
        "EXPLAIN ANALYZE VERBOSE UPDATE t SET a = 1",
        "EXPLAIN (ANALYZE, FORMAT json) SELECT 1",
        "EXPLAIN (SELECT 1) UNION SELECT 2",
        "EXPLAIN ((SELECT 1))",
        "EXPLAIN (BUFFERS) (SELECT 1)",
        "EXPLAIN CREATE TABLE x AS SELECT 1",
    ]);
    assert_state(
        StateKind::TempObject,
        &["EXPLAIN ANALYZE CREATE TEMP TABLE x AS SELECT 1", "EXPLAIN ((SELECT 1 INTO TEMP x))"],
    );
    assert_state(
        StateKind::Unknown,
        &[
            "EXPLAIN EXECUTE x",
            "EXPLAIN (ANALYZE) EXECUTE x",
            "EXPLAIN",
            "EXPLAIN (ANALYZE",
            "EXPLAIN (ANALYZE;",
            "EXPLAIN EXPLAIN SELECT 1",
            "EXPLAIN DEALLOCATE a",
            "EXPLAIN DISCARD ALL",
            "EXPLAIN 'x'",
        ],
    );
}

#[test]
fn settings_stay() {
    assert_state(
        StateKind::Settings,
        &[
            "SET x = 1",
            "set search_path to a, b",
            "SET SESSION x = 1",
            "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
            "SET ROLE x",
            "SET SESSION AUTHORIZATION x",
            "SET TIME ZONE 'UTC'",
            "RESET ALL",
            "RESET x",
            "SELECT 1; SET x = 1",
            "SET x = 1; SELECT 1",
            "BEGIN; SET x = 1; ROLLBACK",
            "SET local.x = 1",
            "SET local = 1",
            "SET transaction.x = 1",
            "SET constraints . x TO 1",
            "SET local TO 1",
            "SET",
        ],
    );
}

#[test]
fn settings_of_the_transaction_do_not_stay() {
    assert_transient(&[
        "SET LOCAL x = 1",
        "SET LOCAL \"x\" = 1",
        "set local role x",
        "SET LOCAL TIME ZONE 'UTC'",
        "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE",
        "SET TRANSACTION SNAPSHOT 'x'",
        "SET CONSTRAINTS ALL DEFERRED",
        "SET CONSTRAINTS \"a\" DEFERRED",
        "BEGIN; SET LOCAL x = 1; SELECT 1; COMMIT",
        "SET/**/LOCAL--\nx = 1",
    ]);
}

#[test]
fn set_config_stays_unless_it_says_that_it_is_local() {
    assert_state(
        StateKind::Settings,
        &[
            "SELECT set_config('x', 'y', false)",
            "SELECT Set_Config ('x', 'y', $1)",
            "SELECT pg_catalog.set_config('x', 'y', 'f')",
            "SELECT \"set_config\"('x', 'y', false)",
            "SELECT set_config/* ( */('x', $1, false), set_config('x', 'y', true)",
            "SELECT set_config('x', set_config('x', 'y', false), true)",
            "SELECT set_config('x', 'y', (true))",
            "UPDATE t SET a = set_config('x', 'y', not true)",
            "SELECT 1set_config('x', 'y', false)",
            "SELECT set_config('x', 'y', true",
        ],
    );
    assert_state(
        StateKind::Unknown,
        &[
            "SELECT set_config($1, $2, false)",
            "SELECT set_config('x' || y, 'y', false)",
            "SELECT set_config(new_value => 'x', is_local => false, setting_name => true)",
            "INSERT INTO t SELECT set_config FROM u",
            "SELECT set_config('x' || 1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1, 'y', true)",
            "UPDATE pg_settings SET setting = '1' WHERE name = 'work_mem'",
            "WITH a AS (SELECT 1) UPDATE pg_catalog.\"pg_settings\" SET setting = '1'",
            "SELECT query_to_xml('SELECT 1', true, false, '')",
            "SELECT table_to_xml('a_view'::regclass, true, false, '')",
            "SELECT schema_to_xml_and_xmlschema('public', true, false, '')",
            "SELECT TS_STAT('SELECT 1')",
        ],
    );
    assert_transient(&[
        "SELECT * FROM pg_settings WHERE name = 'work_mem'",
        "UPDATE settings SET pg_setting = 1",
        "SELECT set_config('x', 'y', true)",
        "SELECT set_config('role', $1, TRUE), set_config('x', f($2, (1)), true)",
        "SELECT set_config('x', set_config('x', 'y', true), true)",
        "SELECT 'set_config(1)', \"Set_config\", set_configs, xset_config, set_config_, $$set_config$$",
        "SELECT 1 -- set_config('x', 'y', false)",
    ]);
}

#[test]
fn advisory_locks_of_the_session_stay() {
    assert_state(
        StateKind::AdvisoryLock,
        &[
            "SELECT pg_advisory_lock(1)",
            "SELECT pg_advisory_lock_shared(1)",
            "SELECT pg_try_advisory_lock(1)",
            "SELECT PG_TRY_ADVISORY_LOCK_SHARED (1)",
            "DELETE FROM t WHERE \"pg_catalog\".\"pg_try_advisory_lock\"(id)",
            "SELECT set_config('x', 'y', false), pg_advisory_lock(1)",
            "PREPARE a AS SELECT pg_advisory_lock(1)",
        ],
    );
    assert_transient(&[
        "SELECT pg_advisory_xact_lock(1), pg_try_advisory_xact_lock(1), pg_advisory_xact_lock_shared(1)",
        "SELECT pg_advisory_unlock(1)",
        "SELECT 'pg_advisory_lock(1)' FROM my_pg_advisory_lock",
    ]);
}

#[test]
fn temporary_objects_stay_unless_dropped_at_commit() {
    assert_state(
        StateKind::TempObject,
        &[
            "CREATE TEMP TABLE x (a int)",
            "create temporary sequence s",
            "CREATE LOCAL TEMP TABLE x (a int)",
            "CREATE GLOBAL TEMPORARY TABLE x (a int) ON COMMIT DELETE ROWS",
            "CREATE OR REPLACE TEMP VIEW v AS SELECT 1",
            "CREATE/**/TEMP/**/RECURSIVE VIEW v(a) AS SELECT 1",
            "CREATE TABLE pg_temp.x (a int)",
            "CREATE TABLE PG_TEMP_3.x (a int)",
            "CREATE FUNCTION \"pg_temp\".f() RETURNS int LANGUAGE sql AS 'select 1'",
            "SELECT 1 INTO TEMP x",
            "SELECT 1 INTO/**/TEMPORARY TABLE x",
            "SELECT 1 into local temp x",
            "WITH a AS (SELECT 1) SELECT * INTO TEMP x FROM a",
            "SELECT 1 AS insert INTO GLOBAL TEMP x",
            "SELECT 1into temp x",
            "CREATE TEMP TABLE x (a int) ON COMMIT DROP; CREATE TEMP TABLE y (a int)",
            "CREATE TEMP TABLE x (a int) ON COMMIT PRESERVE ROWS -- ON COMMIT DROP",
        ],
    );
    assert_transient(&[
        "CREATE TEMP TABLE x (a int) ON COMMIT DROP",
        "BEGIN; CREATE TEMP TABLE x ON COMMIT /* */ DROP AS SELECT 1; COMMIT",
        "SELECT * FROM pg_catalog.pg_class, pg_template, pg_type",
    ]);
}

#[test]
fn other_state_of_the_session_stays() {
    assert_state(
        StateKind::Listen,
        &["LISTEN a", "UNLISTEN *; LISTEN a", "SELECT 1; listen a", "SET x = 1; LISTEN a"],
    );
    assert_state(
        StateKind::Cursor,
        &["DECLARE c CURSOR WITH HOLD FOR SELECT 1", "declare c no scroll cursor with/**/hold for select 1"],
    );
    assert_state(
        StateKind::PreparedStatement,
        &[
            "PREPARE a AS SELECT 1",
            "prepare transaction as select 1",
            "PREPARE transaction (int) AS SELECT $1",
        ],
    );
}

#[test]
fn what_is_not_known_is_unknown() {
    assert_state(
        StateKind::Unknown,
        &[
            "DO $$ begin end $$",
            "CALL f()",
            "LOAD 'x'",
            "EXECUTE a",
            "CREATE TABLE t AS EXECUTE a",
            "SECURITY LABEL ON TABLE t IS 'x'",
            "START_REPLICATION SLOT x",
            "SELECT_ 1",
            "SELECT1",
            "sélect 1",
            "1",
            "'SELECT'",
            "\"select\"",
            ")SELECT 1",
            "(SET x = 1)",
            "(",
            "\u{feff}SELECT 1",
            "averyveryverylongfirstword",
            "DISCARD",
            "DISCARD everything",
            "SELECT 1; CALL f(); LISTEN a",
        ],
    );
}

#[test]
fn a_sole_deallocate_gives_its_name() {
    for (text, name) in [
        ("DEALLOCATE a", "a"),
        ("deallocate PREPARE S_1;", "s_1"),
        (" DEALLOCATE/**/\"S \"\"1\"\"\" ; ; -- bye", "S \"1\""),
        ("DEALLOCATE \"ALL\"", "ALL"),
        ("DEALLOCATE \"\"\"\"", "\""),
        ("DEALLOCATE prepare", "prepare"),
        ("DEALLOCATE PREPARE prepare;", "prepare"),
        ("DEALLOCATE É_Z$1", "É_z$1"),
        ("DEALLOCATE set_config", "set_config"),
    ] {
        assert_all(&deallocate(name), &[text]);
    }
    assert_all(
        &Effect::DeallocateAll,
        &["DEALLOCATE ALL", "deallocate prepare all;", "/* x */DEALLOCATE all"],
    );
    assert_all(&Effect::DiscardAll, &["DISCARD ALL", "discard all ;", "-- x\nDISCARD/**/ALL;;"]);
}

#[test]
fn a_long_name_is_cut_as_postgres_cuts_it() {
    let long = "x".repeat(62);
    assert_all(
        &deallocate(&format!("{long}y")),
        &[&format!("DEALLOCATE {long}yzzz"), &format!("DEALLOCATE {long}y")],
    );
    assert_all(&deallocate(&long), &[&format!("DEALLOCATE {long}é"), &format!("DEALLOCATE \"{long}éé\"")]);
}

#[test]
fn a_deallocate_among_others_is_no_sole_one() {
    assert_state(
        StateKind::Deallocation,
        &[
            "DEALLOCATE a; SELECT 1",
            "SELECT 1; DEALLOCATE ALL",
            "DEALLOCATE a; DEALLOCATE b",
            "DEALLOCATE a b",
            "DEALLOCATE",
            "DEALLOCATE \"\"",
            "DEALLOCATE 'a'",
            "DEALLOCATE PREPARE a b",
            "DEALLOCATE ALL; SET x = 1",
        ],
    );
    assert_state(
        StateKind::Unknown,
        &[
            "DISCARD ALL; SELECT 1",
            "SELECT 1; DISCARD ALL",
            "DISCARD ALL x",
            "DISCARD ALL; DISCARD ALL",
            "DISCARD ALL; DEALLOCATE a",
            "DISCARD \"all\"",
        ],
    );
}
