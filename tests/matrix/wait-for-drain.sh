#!/bin/sh
# Called by a script that has an idle connection open: returns when that connection's server, or Tenantry, was ended and is
# there again. See `Lane.wait` in run.
touch "$TENANTRY_DRAIN_FILE.ready"
tries=0
while [ ! -e "$TENANTRY_DRAIN_FILE.done" ]; do
    tries=$((tries + 1))
    [ $tries -lt 2000 ] || exit 1
    sleep 0.05
done
