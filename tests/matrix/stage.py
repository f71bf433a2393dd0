"""One throwaway Postgres of a given version with tenants in it, and Tenantry before it.

The same tenants live in two databases: `app`, which Tenantry serves, and `direct`, which the scripts log in to themselves.
"""

import base64
import hashlib
import hmac
import os
import pathlib
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request

import install

TENANTS = ["acme", "bolt", "cosmo"]
# The ceilings add up to less than there are clients: the clients of a tenant share. Half of the budget may be kept by clients.
BUDGET, CEILING = 24, 4
THINGS = 20
PATIENCE = 30


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def verifier(password):
    salt, rounds = os.urandom(16), 4096
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, rounds)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    text = [base64.b64encode(part).decode() for part in (salt, stored, hmac.digest(salted, b"Server Key", "sha256"))]
    return f"SCRAM-SHA-256${rounds}:{text[0]}${text[1]}:{text[2]}"


def eventually(what, question):
    end = time.monotonic() + PATIENCE
    while not question():
        if time.monotonic() > end:
            raise TimeoutError(what)
        time.sleep(0.02)


class Postgres:
    """A server on a free port, its superuser trusted on its Unix socket."""

    def __init__(self, major, logs):
        self.bin = install.server(major)
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix=f"matrix-{major}-"))
        self.port, self.log = free_port(), logs / "postgres.log"
        self.process = None
        self.account = self.find_account()
        if self.account:
            os.chown(self.dir, self.account.pw_uid, self.account.pw_gid)
        os.chmod(self.dir, 0o700)

    @staticmethod
    def find_account():
        """Postgres refuses root."""
        if os.geteuid() != 0:
            return None
        for name in ("postgres", "nobody"):
            try:
                return pwd.getpwnam(name)
            except KeyError:
                pass
        install.fail("no user postgres or nobody to run servers as")

    def as_account(self):
        if not self.account:
            return {}
        return {"user": self.account.pw_uid, "group": self.account.pw_gid, "extra_groups": []}

    def start(self):
        data = self.dir / "data"
        install.sh(self.bin / "initdb", "-D", data, "-U", "postgres", "-E", "UTF8", "--locale=C", "--no-sync",
                   "--auth-local=trust", "--auth-host=scram-sha-256", cwd=self.dir, **self.as_account())
        options = {
            "port": self.port, "listen_addresses": "127.0.0.1", "unix_socket_directories": self.dir, "fsync": "off",
            "full_page_writes": "off", "max_connections": 80, "shared_buffers": "64MB", "timezone": "UTC",
            "password_encryption": "scram-sha-256",
        }
        words = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [self.bin / "postgres", "-D", data, *words], cwd=self.dir, stdin=subprocess.DEVNULL, stdout=log,
                stderr=log, start_new_session=True, **self.as_account())
        eventually("Postgres answers", lambda: self.psql("SELECT 1", check=False).returncode == 0)

    def psql(self, sql, database="postgres", check=True):
        done = subprocess.run(
            ["psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-h", self.dir, "-p", str(self.port), "-U", "postgres", database],
            input=sql, capture_output=True, text=True)
        if check and done.returncode != 0:
            raise RuntimeError(done.stderr)
        return done

    def version(self):
        return self.psql("SHOW server_version").stdout.split()[0]

    def make_tenants(self):
        for tenant in TENANTS:
            self.psql(f"CREATE ROLE role_{tenant} LOGIN NOINHERIT PASSWORD 'db-{tenant}'")
        for database in ("app", "direct"):
            self.psql(f"CREATE DATABASE {database}")
        for database in ("app", "direct"):
            self.psql(f"REVOKE ALL ON DATABASE {database} FROM PUBLIC; REVOKE ALL ON SCHEMA public FROM PUBLIC;", database)
            for tenant in TENANTS:
                role, schema = f"role_{tenant}", f"schema_{tenant}"
                self.psql(f"""
                    GRANT CONNECT, TEMPORARY ON DATABASE {database} TO {role};
                    CREATE SCHEMA {schema} AUTHORIZATION {role};
                    CREATE TABLE {schema}.things AS
                        SELECT n AS id, '{tenant}'::text AS owner, repeat('x', 50) AS body
                        FROM generate_series(1, {THINGS}) n;
                    ALTER TABLE {schema}.things ADD PRIMARY KEY (id);
                    ALTER TABLE {schema}.things OWNER TO {role};
                    ALTER ROLE {role} IN DATABASE direct SET search_path = {schema};
                """, database)

    def end_sessions(self, database):
        self.psql(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'")

    def servers(self):
        """What Postgres says of each server that a proxy has logged in."""
        sql = """SELECT pid, usename, backend_type, state, backend_start, translate(left(query, 60), E'\\n', ' ') FROM pg_stat_activity
                 WHERE datname = 'app' AND backend_type = 'client backend'"""
        return self.psql(sql).stdout.splitlines()

    def stop(self):
        if self.process:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(PATIENCE)
        shutil.rmtree(self.dir, ignore_errors=True)


class Proxy:
    """Tenantry in transaction mode, which can be drained and started again."""

    def __init__(self, binary, postgres, logs):
        self.binary, self.log = binary, logs / "tenantry.log"
        self.port, self.http = free_port(), free_port()
        self.config = logs / "tenantry.toml"
        self.config.write_text(self.toml(postgres))
        self.process = None

    def toml(self, postgres):
        text = f"""
[listen]
address = "127.0.0.1:{self.port}"
[http]
address = "127.0.0.1:{self.http}"
[threads]
front = 1
workers = 1
[pool]
mode = "transaction"
queue_timeout = "15s"
[tier.hot]
floor = 1
share = 4
ceiling = {CEILING}
[cluster.main]
url = "postgres://127.0.0.1:{postgres.port}/app"
max_connections = {BUDGET}
"""
        for tenant in TENANTS:
            text += f"""
[[tenant]]
name = "{tenant}"
role = "role_{tenant}"
schema = "schema_{tenant}"
uses_lastval = true
tier = "hot"
client_auth = {{ scram = "{verifier('app-' + tenant)}" }}
server_auth = {{ password = "db-{tenant}" }}
"""
        return text

    def start(self):
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [self.binary, "serve", "--config", self.config], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True)
        eventually("Tenantry is ready", self.is_ready)

    def is_ready(self):
        if self.process.poll() is not None:
            install.fail(f"Tenantry ended at its start, see {self.log}")
        try:
            return urllib.request.urlopen(f"http://127.0.0.1:{self.http}/readyz", timeout=5).status == 200
        except OSError:
            return False

    def drain(self):
        """As a deployment does it: SIGTERM, and a new process at the same address."""
        self.stop()
        self.start()

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(45)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                raise
