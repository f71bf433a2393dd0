#!/usr/bin/env bash
# pgbench in its three protocols and with pipelines, with its own tables in the tenant's schema.
set -euo pipefail
# shellcheck source=tests/drivers/checks.sh
source "$(dirname "$0")/checks.sh"

# One thread per client: a pgbench thread that waits for the answer to one client's PREPARE does not read the others', which
# may hold the very servers that the first one waits for.
bench() { pgbench -n -c 6 -j 6 "$@" 2>&1; }
processed() {
    grep -q "number of transactions actually processed: $1" || {
        echo "not all transactions were processed"
        return 1
    }
}

# The server's own COPY fills the tables.
initialize() { pgbench -i -s 1 -q; }
simple() { bench -M simple -t 60 | processed 360/360 && bench -S -M simple -t 100 | processed 600/600; }
extended() { bench -M extended -t 60 | processed 360/360 && bench -S -M extended -t 100 | processed 600/600; }
prepared_statements() { bench -M prepared -t 60 | processed 360/360 && bench -S -M prepared -t 100 | processed 600/600; }

pipelining() {
    cat >"$scratch/pipeline.sql" <<'SQL'
\startpipeline
BEGIN;
UPDATE pgbench_branches SET filler = 'x' WHERE bid = 1;
SELECT abalance FROM pgbench_accounts WHERE aid = 7;
COMMIT;
\endpipeline
SELECT 1;
SQL
    bench -M extended -f "$scratch/pipeline.sql" -t 40 | processed 240/240
    bench -M prepared -f "$scratch/pipeline.sql" -t 40 | processed 240/240
}

reconnecting() { bench -C -S -t 10 | processed 60/60; }

# What the branches hold is what the history says: nothing was lost or done twice.
sums() {
    equal "branches and history" "$(psql -X -A -t -c \
        'SELECT (SELECT sum(bbalance) FROM pgbench_branches) = (SELECT sum(delta) FROM pgbench_history)')" t
}

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
printf 'driver pgbench %s\n' "$(pgbench --version | cut -d' ' -f3)"
for name in initialize simple extended prepared_statements pipelining reconnecting sums; do
    check "$name"
done
checks_end
