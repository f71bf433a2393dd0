#!/usr/bin/env bash
# psql does what people do with it; exit code 0 if all of it goes as with Postgres itself.
set -euo pipefail

run() { psql -X -q -A -t -v ON_ERROR_STOP=1 "$@"; }
equal() {
    [ "$2" = "$3" ] || {
        printf '%s: expected %q, got %q\n' "$1" "$3" "$2" >&2
        exit 1
    }
}

tenant=$TENANTRY_TENANT
equal "own rows" "$(run -c 'SELECT DISTINCT owner FROM things')" "$tenant"
equal "own schema" "$(run -c 'SELECT current_schema')" "schema_$tenant"
equal "one transaction" "$(run -1 -c 'SELECT 1' -c 'SELECT 2')" $'1\n2'

# Meta-commands ask the catalog.
run -c '\d things' | grep -q owner
run -c '\dt' | grep -q things
run -c '\conninfo' >/dev/null

# COPY both ways, and through files.
file=$(mktemp)
trap 'rm -f "$file"' EXIT
run -c 'CREATE TABLE IF NOT EXISTS copied_psql (n int, text text); TRUNCATE copied_psql'
seq 1 5000 | sed 's/$/\tx/' | run -c 'COPY copied_psql FROM STDIN'
equal "copy in" "$(run -c 'SELECT count(*), sum(n) FROM copied_psql')" "5000|12502500"
run -c "\\copy copied_psql TO '$file'"
equal "copy out" "$(wc -l <"$file" | tr -d ' ')" 5000
if printf 'not a number\tx\n' | run -c 'COPY copied_psql FROM STDIN' 2>/dev/null; then
    echo "a bad row was accepted" >&2
    exit 1
fi
equal "after a bad row" "$(run -c 'SELECT count(*) FROM copied_psql')" 5000

# Settings, notices, errors.
output=$(run <<'SQL'
BEGIN;
SET LOCAL statement_timeout = '77s';
SHOW statement_timeout;
COMMIT;
BEGIN;
SAVEPOINT a;
\set ON_ERROR_STOP off
SELECT broken;
\set ON_ERROR_STOP on
ROLLBACK TO a;
SELECT 'alive';
COMMIT;
SQL
) 2>/dev/null
equal "settings and savepoints" "$output" $'77s\nalive'
equal "application_name" "$(PGAPPNAME=driver run -c 'SHOW application_name')" driver
equal "options" "$(PGOPTIONS='-c TimeZone=Asia/Tokyo' run -c 'SHOW TimeZone')" Asia/Tokyo
run -c "DO \$\$ BEGIN RAISE NOTICE 'hear'; END \$\$" 2>&1 | grep -q 'NOTICE:  hear'

# Rows of five megabytes, and a cursor over many.
equal "large rows" "$(run -c "SELECT repeat('x', 5000000)" | wc -c | tr -d ' ')" 5000001
equal "cursor" "$(run -v FETCH_COUNT=100 -c 'SELECT count(*) FROM (SELECT n FROM generate_series(1, 10000) n) x')" 10000
equal "fetch count" "$(printf '\\set FETCH_COUNT 100\nSELECT n FROM generate_series(1, 10000) n;\n' | run | wc -l | tr -d ' ')" 10000

# Ctrl-C cancels the statement. Background jobs of a script ignore SIGINT, hence the python.
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
