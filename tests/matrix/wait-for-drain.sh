#!/bin/sh
# Called by a script that has an idle connection open: returns when that connection's server, or Tenantry, was ended and is
# there again. See `Lane.wait` in run.
touch "$TENANTRY_DRAIN_FILE.ready"
while [ ! -e "$TENANTRY_DRAIN_FILE.done" ]; do
    sleep 0.05
done
