#!/usr/bin/env bash
# pgbench in its three protocols, with its own tables in the tenant's schema.
set -euo pipefail

# One thread per client: a pgbench thread that waits for the answer to one client's PREPARE does not read the others', which
# may hold the very servers that the first one waits for.
pgbench -i -s 1 -q >/dev/null 2>&1
for mode in simple extended prepared; do
    output=$(pgbench -n -M "$mode" -c 6 -j 6 -t 60 2>&1) || {
        printf '%s\n' "$output" >&2
        exit 1
    }
    grep -q 'number of transactions actually processed: 360/360' <<<"$output" || {
        printf '%s: %s\n' "$mode" "$output" >&2
        exit 1
    }
    pgbench -n -S -M "$mode" -c 6 -j 6 -t 100 >/dev/null 2>&1
done
# What the branches hold is what the history says: nothing was lost or done twice.
psql -X -A -t -c 'SELECT (SELECT sum(bbalance) FROM pgbench_branches) = (SELECT sum(delta) FROM pgbench_history)' | grep -qx t
