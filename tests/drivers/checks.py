"""What the Python scripts have in common: how checks are run and reported, and those that every driver can make.

A driver comes as an adaptor: `connect()`, `close(connection)`, `run(connection, sql)`, `one(connection, sql)` (the first
value of the first row) and `code(error)` (SQLSTATE or nothing). SQL is sent outside transactions unless it says BEGIN.
"""

import os
import subprocess
import sys
import traceback

TENANT = os.environ["TENANTRY_TENANT"]
URL = os.environ["TENANTRY_URL"]
LARGE = 8_000_000
# Three clients' own values; settings that Postgres reports to clients, and settings that it does not.
REPORTED = [
    {"application_name": "one", "DateStyle": "ISO, DMY", "TimeZone": "Asia/Tokyo"},
    {"application_name": "two", "DateStyle": "ISO, YMD", "TimeZone": "America/Lima"},
    {"application_name": "three", "DateStyle": "ISO, MDY", "TimeZone": "Europe/Rome"},
]
UNREPORTED = [
    {"statement_timeout": "61s", "work_mem": "1111kB", "custom.key": "one"},
    {"statement_timeout": "62s", "work_mem": "2222kB", "custom.key": "two"},
    {"statement_timeout": "63s", "work_mem": "3333kB", "custom.key": "three"},
]


def main(driver, version, checks):
    """Runs them all, says which failed, and ends the process."""
    print(f"driver {driver} {version}", flush=True)
    failed = 0
    for check in checks:
        name = getattr(check, "__name__", None) or check.func.__name__
        try:
            check()
            print(f"ok {name}", flush=True)
        except Exception as error:  # whatever it is, the next check runs
            failed += 1
            print(f"FAILED {name}: {type(error).__name__}: {str(error) or where(error)}".replace("\n", " "), flush=True)
            traceback.print_exc()
    print(f"failed {failed} of {len(checks)} checks" if failed else f"ok {len(checks)} checks", flush=True)
    sys.stdout.flush()
    os._exit(1 if failed else 0)


def where(error):
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"line {frame.lineno}: {frame.line}"


def same(found, wanted):
    assert found == wanted, f"expected {wanted!r}, got {found!r}"


def drain():
    """Ends the server, or Tenantry, behind all connections that are open."""
    subprocess.run([os.environ["TENANTRY_DRAIN"]], check=True)


class Portable:
    """Checks that need nothing but SQL."""

    def __init__(self, adaptor):
        self.db = adaptor

    def all(self):
        checks = [
            self.own_rows, self.reported_settings, self.unreported_settings, self.set_local, self.temp_tables,
            self.advisory_locks, self.held_cursors, self.sql_prepare, self.sequences, self.large_rows, self.errors,
        ]
        # Only the matrix can drain.
        return checks + ([self.reconnect_after_drain] if "TENANTRY_DRAIN" in os.environ else [])

    def fails(self, connection, sql, code):
        try:
            self.db.run(connection, sql)
        except Exception as error:
            same(self.db.code(error), code)
        else:
            raise AssertionError(f"no error: {sql}")

    def clients(self, count):
        return [self.db.connect() for _ in range(count)]

    def close(self, clients):
        for client in clients:
            self.db.close(client)

    def own_rows(self, connection=None):
        mine = connection or self.db.connect()
        same(self.db.one(mine, "SELECT string_agg(DISTINCT owner, ',') FROM things"), TENANT)
        same(self.db.one(mine, "SELECT current_schema::text"), f"schema_{TENANT}")
        same(self.db.one(mine, "SELECT current_user::text"), f"role_{TENANT}")
        if connection is None:
            self.db.close(mine)

    def follow(self, settings):
        """Each client has its own settings, whichever server it gets."""
        clients = self.clients(3)
        for client, mine in zip(clients, settings):
            for name, value in mine.items():
                self.db.run(client, f"SET {name} = '{value}'")
        for turn in range(4):
            order = list(zip(clients, settings))[turn % 3:] + list(zip(clients, settings))[:turn % 3]
            for client, mine in order:
                for name, value in mine.items():
                    same(self.db.one(client, f"SELECT current_setting('{name}')"), value)
            # Two transactions at once, begun and ended crosswise: the servers change hands.
            (first, its), (second, others), _ = order
            self.db.run(first, "BEGIN")
            self.db.run(second, "BEGIN")
            for client, mine in ((second, others), (first, its)):
                for name, value in mine.items():
                    same(self.db.one(client, f"SELECT current_setting('{name}')"), value)
            self.db.run(first, "COMMIT")
            self.db.run(second, "ROLLBACK")
        return clients

    def reported_settings(self):
        clients = self.follow(REPORTED)
        plain = self.db.connect()
        default = self.db.one(plain, "SELECT current_setting('TimeZone')")
        self.db.run(clients[0], "RESET TimeZone")
        same(self.db.one(clients[0], "SELECT current_setting('TimeZone')"), default)
        same(self.db.one(clients[1], "SELECT current_setting('TimeZone')"), REPORTED[1]["TimeZone"])
        self.close([*clients, plain])

    def unreported_settings(self):
        plain = self.db.connect()
        default = self.db.one(plain, "SELECT current_setting('work_mem')")
        clients = self.follow(UNREPORTED)
        first, second, third = clients
        same(self.db.one(plain, "SELECT current_setting('work_mem')"), default)
        self.db.run(first, "RESET work_mem")
        self.db.run(second, "RESET ALL")
        self.db.one(third, "SELECT set_config('work_mem', '4444kB', false)")
        for client, value in ((first, default), (second, default), (third, "4444kB"), (plain, default)):
            same(self.db.one(client, "SELECT current_setting('work_mem')"), value)
        same(self.db.one(first, "SELECT current_setting('statement_timeout')"), "61s")
        self.close([*clients, plain])

    def set_local(self):
        client, other = self.clients(2)
        before = self.db.one(client, "SELECT current_setting('statement_timeout')")
        for end, after in (("COMMIT", before), ("ROLLBACK", before)):
            self.db.run(client, "BEGIN")
            self.db.run(client, "SET LOCAL statement_timeout = '77s'")
            same(self.db.one(client, "SELECT current_setting('statement_timeout')"), "77s")
            self.db.run(client, end)
            same(self.db.one(other, "SELECT current_setting('statement_timeout')"), before)
            same(self.db.one(client, "SELECT current_setting('statement_timeout')"), after)
        # SET in a transaction lasts if the transaction does, and not otherwise.
        for end, after in (("COMMIT", "5555kB"), ("ROLLBACK", "5555kB")):
            self.db.run(client, "BEGIN")
            self.db.run(client, f"SET work_mem = '{'5555' if end == 'COMMIT' else '6666'}kB'")
            self.db.run(client, end)
            self.db.one(other, "SELECT 1")
            same(self.db.one(client, "SELECT current_setting('work_mem')"), after)
        self.close([client, other])

    def temp_tables(self):
        client, other = self.clients(2)
        self.db.run(client, "CREATE TEMP TABLE kept (n int)")
        for number in range(3):
            self.db.run(client, "BEGIN")
            self.db.run(client, f"INSERT INTO kept VALUES ({number})")
            self.db.run(client, "COMMIT")
            self.fails(other, "SELECT * FROM kept", "42P01")
        same(self.db.one(client, "SELECT sum(n)::int FROM kept"), 3)
        self.db.close(client)
        client = self.db.connect()
        self.fails(client, "SELECT * FROM kept", "42P01")
        self.close([client, other])

    def advisory_locks(self):
        client, other = self.clients(2)
        # One number space per database: a number of this tenant's own.
        key = f"hashtext('{TENANT}')"
        self.db.one(client, f"SELECT pg_advisory_lock({key})::text")
        for _ in range(3):
            same(self.db.one(other, f"SELECT pg_try_advisory_lock({key})::text"), "false")
            self.db.one(client, "SELECT 1")
        same(self.db.one(client, f"SELECT pg_advisory_unlock({key})::text"), "true")
        same(self.db.one(other, f"SELECT pg_try_advisory_lock({key})::text"), "true")
        self.close([other, client])

    def held_cursors(self):
        client, other = self.clients(2)
        self.db.run(client, "BEGIN")
        self.db.run(client, "DECLARE held CURSOR WITH HOLD FOR SELECT n FROM generate_series(1, 100) n")
        self.db.run(client, "COMMIT")
        for number in range(1, 4):
            same(self.db.one(client, "FETCH held"), number)
            self.fails(other, "FETCH held", "34000")
        self.db.run(client, "CLOSE held")
        self.close([client, other])

    def sql_prepare(self):
        client, other = self.clients(2)
        self.db.run(client, "PREPARE mine (int) AS SELECT $1 + 1")
        self.db.run(other, "PREPARE mine (int) AS SELECT $1 + 2")
        for number in range(3):
            same(self.db.one(client, f"EXECUTE mine ({number})"), number + 1)
            same(self.db.one(other, f"EXECUTE mine ({number})"), number + 2)
        self.db.run(client, "DEALLOCATE mine")
        self.fails(client, "EXECUTE mine (1)", "26000")
        same(self.db.one(other, "EXECUTE mine (1)"), 3)
        self.close([client, other])

    def sequences(self):
        """currval and lastval are what this client drew last."""
        client, other = self.clients(2)
        self.db.run(client, "CREATE TABLE IF NOT EXISTS drawn (id serial)")
        for _ in range(3):
            mine = self.db.one(client, "SELECT nextval('drawn_id_seq')::text")
            same(self.db.one(client, "SELECT currval('drawn_id_seq')::text"), mine)
            others = self.db.one(other, "SELECT nextval('drawn_id_seq')::text")
            same(self.db.one(other, "SELECT lastval()::text"), others)
        self.close([client, other])

    def large_rows(self):
        client = self.db.connect()
        text = self.db.one(client, f"SELECT repeat('x', {LARGE})")
        assert text == "x" * LARGE, f"{len(text)} letters"
        same(self.db.one(client, f"SELECT length('{text}')"), LARGE)
        self.own_rows(client)
        self.db.close(client)

    def errors(self):
        client = self.db.connect()
        self.fails(client, "INSERT INTO things VALUES (1, 'twice', '')", "23505")
        self.db.run(client, "BEGIN")
        self.fails(client, "SELECT 1 / 0", "22012")
        self.fails(client, "SELECT 1", "25P02")
        self.db.run(client, "ROLLBACK")
        self.db.run(client, "BEGIN")
        self.db.run(client, "SAVEPOINT here")
        self.fails(client, "SELECT * FROM no_such_table", "42P01")
        self.db.run(client, "ROLLBACK TO here")
        same(self.db.one(client, "SELECT 'alive'"), "alive")
        self.db.run(client, "COMMIT")
        self.own_rows(client)
        self.db.close(client)

    def reconnect_after_drain(self):
        client = self.db.connect()
        self.own_rows(client)
        drain()
        try:
            self.db.one(client, "SELECT 1")
        except Exception as error:
            # Some drivers notice the closed connection before they read why.
            assert self.db.code(error) in ("57P01", None, "08006", "08003", "08S01"), self.db.code(error)
        else:
            raise AssertionError("the connection outlived the drain")
        try:
            self.db.close(client)
        except Exception:
            pass  # it is gone already
        self.own_rows()
