# shellcheck shell=bash
# What the shell scripts have in common: checks are functions, each runs in its own shell with -e.

checks_run=0
checks_failed=0

# check NAME: runs the function of that name.
check() {
    local output status
    checks_run=$((checks_run + 1))
    set +e
    output=$(set -euo pipefail; "$1" 2>&1)
    status=$?
    set -e
    if [ $status = 0 ]; then
        printf 'ok %s\n' "$1"
    else
        checks_failed=$((checks_failed + 1))
        printf 'FAILED %s: %s\n' "$1" "$(printf '%s' "$output" | tail -n 3 | tr '\n' ' ')"
    fi
}

# The exit code of the script is the last command's: that of this one.
checks_end() {
    if [ "$checks_failed" = 0 ]; then
        printf 'ok %s checks\n' "$checks_run"
    else
        printf 'failed %s of %s checks\n' "$checks_failed" "$checks_run"
        return 1
    fi
}

equal() {
    [ "$2" = "$3" ] || {
        printf '%s: expected %q, got %q\n' "$1" "$3" "$2"
        return 1
    }
}
