#!/usr/bin/env bash
# psql does what people do with it; exit code 0 if all of it goes as with Postgres itself.
set -euo pipefail
# shellcheck source=tests/drivers/checks.sh
source "$(dirname "$0")/checks.sh"

run() { psql -X -q -A -t -v ON_ERROR_STOP=1 "$@"; }
tenant=$TENANTRY_TENANT
# A client of the same tenant that comes between, inside a session: \! $other
export other='psql -XAtq -o /dev/null -c "SET work_mem = 9999" -c "SET DateStyle = German" -c "SELECT 1"'

own_rows() {
    equal "own rows" "$(run -c 'SELECT DISTINCT owner FROM things')" "$tenant"
    equal "own schema" "$(run -c 'SELECT current_schema')" "schema_$tenant"
    equal "one transaction" "$(run -1 -c 'SELECT 1' -c 'SELECT 2')" $'1\n2'
    equal "one message" "$(run -c 'SELECT 1; SELECT 2')" $'1\n2'
}

# Meta-commands ask the catalog.
meta_commands() {
    run -c '\d things' | grep -q owner
    run -c '\dt' | grep -q things
    run -c '\conninfo' >/dev/null
    equal "gexec" "$(printf "SELECT 'SELECT 7' \\\\gexec\n" | run)" 7
    equal "gdesc" "$(printf 'SELECT 1 AS one \\gdesc\n' | run)" 'one|integer'
}

# Both ways, and through files.
copy() {
    local file
    file=$(mktemp)
    # shellcheck disable=SC2064 # the name of this file, now
    trap "rm -f '$file'" EXIT
    run -c 'CREATE TABLE IF NOT EXISTS copied_psql (n int, text text); TRUNCATE copied_psql'
    seq 1 5000 | sed 's/$/\tx/' | run -c 'COPY copied_psql FROM STDIN'
    equal "copy in" "$(run -c 'SELECT count(*), sum(n) FROM copied_psql')" "5000|12502500"
    run -c "\\copy copied_psql TO '$file'"
    equal "copy out" "$(wc -l <"$file" | tr -d ' ')" 5000
    if printf 'not a number\tx\n' | run -c 'COPY copied_psql FROM STDIN' 2>/dev/null; then
        echo "a bad row was accepted"
        return 1
    fi
    equal "after a bad row" "$(run -c 'SELECT count(*) FROM copied_psql')" 5000
}

set_local() {
    equal "set local" "$(run <<'SQL'
BEGIN;
SET LOCAL statement_timeout = '77s';
SHOW statement_timeout;
COMMIT;
\! eval "$other"
SHOW statement_timeout;
BEGIN;
SET work_mem = '6666kB';
ROLLBACK;
\! eval "$other"
SHOW work_mem;
SQL
    )" $'77s\n0\n4MB'
}

reported_settings() {
    equal "application_name" "$(PGAPPNAME=driver run -c 'SHOW application_name')" driver
    equal "options" "$(PGOPTIONS='-c TimeZone=Asia/Tokyo' run -c 'SHOW TimeZone')" Asia/Tokyo
    equal "settings" "$(run <<'SQL'
SET DateStyle = 'SQL, DMY';
SET TimeZone = 'Asia/Tokyo';
\! eval "$other"
SELECT timestamptz '2001-02-03 04:05:06+00';
BEGIN;
SHOW TimeZone;
COMMIT;
\! eval "$other"
RESET ALL;
\! eval "$other"
SELECT timestamptz '2001-02-03 04:05:06+00' AT TIME ZONE 'UTC';
SQL
    )" $'03/02/2001 13:05:06 JST\nAsia/Tokyo\n2001-02-03 04:05:06'
}

unreported_settings() {
    equal "options" "$(PGOPTIONS='-c work_mem=8888kB' run -c 'SHOW work_mem')" 8888kB
    equal "settings" "$(run <<'SQL'
SET work_mem = '1111kB';
SET custom.key = 'mine';
\! eval "$other"
SHOW work_mem;
BEGIN;
SHOW custom.key;
COMMIT;
\! eval "$other"
SELECT set_config('work_mem', '2222kB', false);
\! eval "$other"
SHOW work_mem;
RESET work_mem;
\! eval "$other"
SHOW work_mem;
SHOW custom.key;
DISCARD ALL;
\! eval "$other"
SELECT coalesce(current_setting('custom.key', true), '');
SQL
    )" $'1111kB\nmine\n2222kB\n2222kB\n4MB\nmine'
}

errors() {
    equal "savepoints" "$(run 2>/dev/null <<'SQL'
BEGIN;
SAVEPOINT a;
\set ON_ERROR_STOP off
SELECT broken;
SELECT 'skipped';
\echo :LAST_ERROR_SQLSTATE
\set ON_ERROR_STOP on
ROLLBACK TO a;
SELECT 'alive';
COMMIT;
SQL
    )" $'25P02\nalive'
    equal "rollback on error" "$(run -v ON_ERROR_ROLLBACK=on -v ON_ERROR_STOP=0 \
        -c 'BEGIN' -c 'SELECT 1/0' -c 'SELECT 5' -c 'COMMIT' 2>&1 | tail -n 1)" 5
    own_rows
}

notices() {
    run -c "DO \$\$ BEGIN RAISE NOTICE 'hear'; END \$\$" 2>&1 | grep -q 'NOTICE:  hear'
}

large_statement() {
    printf "SELECT length('"
    head -c 8000000 /dev/zero | tr '\0' x
    printf "');\n"
}

# Eight megabytes, and a cursor over many rows.
large_rows() {
    equal "large rows" "$(run -c "SELECT repeat('x', 8000000)" | wc -c | tr -d ' ')" 8000001
    equal "large statement" "$(large_statement | run)" 8000000
    equal "fetch count" "$(run -v FETCH_COUNT=100 <<<'SELECT n FROM generate_series(1, 10000) n' | wc -l | tr -d ' ')" 10000
}

types() {
    equal "arrays" "$(run -c "SELECT '{1,2}'::int[], '{a,NULL}'::text[], '\\x00ff'::bytea")" '{1,2}|{a,NULL}|\x00ff'
}

temp_tables() {
    equal "temp table" "$(run <<'SQL'
CREATE TEMP TABLE kept AS SELECT 5 AS n;
\! eval "$other"
BEGIN;
INSERT INTO kept VALUES (6);
COMMIT;
\! eval "$other"
SELECT sum(n) FROM kept;
\! psql -XAtq -c 'SELECT * FROM kept' 2>&1 | grep -c 'does not exist'
DISCARD TEMP;
SELECT to_regclass('kept') IS NULL;
SQL
    )" $'11\n1\nt'
}

advisory_locks() {
    equal "advisory lock" "$(run <<SQL
SELECT pg_advisory_lock(hashtext('$tenant')) IS NULL;
SELECT 1;
\\! psql -XAtq -c "SELECT pg_try_advisory_lock(hashtext('$tenant'))"
SELECT pg_advisory_unlock(hashtext('$tenant'));
\\! psql -XAtq -c "SELECT pg_try_advisory_lock(hashtext('$tenant'))"
SQL
    )" $'f\n1\nf\nt\nt'
}

held_cursors() {
    equal "held cursor" "$(run <<'SQL'
BEGIN;
DECLARE held CURSOR WITH HOLD FOR SELECT n FROM generate_series(1, 9) n;
COMMIT;
\! eval "$other"
FETCH held;
\! eval "$other"
FETCH held;
SQL
    )" $'1\n2'
}

sql_prepare() {
    equal "prepare" "$(run <<'SQL'
PREPARE mine (int) AS SELECT $1 + 1;
\! eval "$other"
EXECUTE mine (1);
\! psql -XAtq -c 'EXECUTE mine (1)' 2>&1 | grep -c 'does not exist'
EXECUTE mine (2);
DEALLOCATE mine;
SQL
    )" $'2\n1\n3'
}

listen() {
    run >"$scratch/heard" <<SQL
LISTEN news_$tenant;
\\! psql -XAtq -c "NOTIFY news_$tenant, 'first'"
SELECT 1;
NOTIFY news_$tenant, 'second';
\\! eval "\$other"
SELECT 1;
SQL
    equal "heard" "$(grep -o 'payload "[a-z]*"' "$scratch/heard")" $'payload "first"\npayload "second"'
}

# currval is what this client drew last.
sequences() {
    run -c "SET client_min_messages = warning" -c 'CREATE TABLE IF NOT EXISTS drawn (id serial)'
    equal "own numbers" "$(run <<'SQL'
SELECT nextval('drawn_id_seq') AS mine \gset
SELECT currval('drawn_id_seq') = :mine, lastval() = :mine;
\! psql -XAtq -o /dev/null -c "SELECT nextval('drawn_id_seq')"
SQL
    )" 't|t'
}

# Ctrl-C cancels the statement. Background jobs of a script ignore SIGINT, hence the python.
cancel() {
    python3 - <<'PY'
import signal, subprocess, time
psql = subprocess.Popen(
    ["psql", "-X", "-c", "SELECT pg_sleep(60)"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
    stderr=subprocess.PIPE, text=True)
time.sleep(1)
psql.send_signal(signal.SIGINT)
output, errors = psql.communicate(timeout=30)
assert "canceling statement due to user request" in errors, errors
PY
    equal "after a cancel" "$(run -c "SELECT 'after'")" after
}

reconnect_after_drain() {
    local output status=0
    output=$(printf '%s\n' 'SELECT 1;' "\\! $TENANTRY_DRAIN" 'SELECT 2;' | run 2>&1) || status=$?
    equal "exit code" "$status" 2
    [[ $output == *"terminating connection"* ]] || {
        printf '%s\n' "$output"
        return 1
    }
    own_rows
}

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
printf 'driver psql %s\n' "$(psql --version | cut -d' ' -f3)"
for name in own_rows meta_commands copy set_local reported_settings unreported_settings errors notices large_rows types \
    temp_tables advisory_locks held_cursors sql_prepare sequences listen cancel; do
    check "$name"
done
if [ -n "${TENANTRY_DRAIN:-}" ]; then
    check reconnect_after_drain
fi
checks_end
