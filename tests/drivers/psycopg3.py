"""psycopg 3 does what applications do; exit code 0 if all of it goes as with Postgres itself.

The list, which the other drivers follow as far as they can: checks.py, and prepared statements across transactions,
pipelining, COPY in and out, cancel, LISTEN, cursors, binary formats and arrays, notices, settings at startup, many at once.
"""

import concurrent.futures
import threading

import checks
import psycopg
from checks import TENANT, URL, same


class Adaptor:
    """Connections that commit for themselves."""

    def connect(self, **options):
        return psycopg.connect(URL, autocommit=True, **options)

    def close(self, connection):
        connection.close()

    def run(self, connection, sql):
        connection.execute(sql)

    def one(self, connection, sql, *values):
        return connection.execute(sql, values or None).fetchone()[0]

    def code(self, error):
        return error.sqlstate


db = Adaptor()
portable = checks.Portable(db)
connect, one = db.connect, db.one


def prepared_statements():
    with connect(prepare_threshold=0) as first, connect(prepare_threshold=0) as second:
        for number in range(20):
            for connection in (first, second):
                same(one(connection, "SELECT owner || %s::text FROM things WHERE id = 1", number), f"{TENANT}{number}")
            with first.transaction():
                same(one(first, "SELECT id + %s::int FROM things WHERE id = 2", number), 2 + number)
        assert first.prepared_max and first._prepared._names, "psycopg prepared nothing"


def pipelining():
    with connect() as connection:
        with connection.pipeline():
            cursors = [connection.execute("SELECT %s::int", (number,)) for number in range(50)]
            same([cursor.fetchone()[0] for cursor in cursors], list(range(50)))
        try:
            with connection.pipeline():
                connection.execute("SELECT 1")
                connection.execute("SELECT 1 / 0")
                connection.execute("SELECT 2")
        except psycopg.errors.DivisionByZero:
            pass
        else:
            raise AssertionError("the error was lost")
        with connection.pipeline() as pipeline, connection.transaction():
            for number in range(5):
                connection.execute("SET LOCAL work_mem = '7777kB'")
                same(one(connection, "SHOW work_mem"), "7777kB")
                pipeline.sync()
        same(one(connection, "SELECT 'after'"), "after")


def copy():
    with connect() as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE IF NOT EXISTS copied (n int, text text)")
        cursor.execute("TRUNCATE copied")
        with cursor.copy("COPY copied FROM STDIN") as stream:
            for number in range(5000):
                stream.write_row((number, "x" * 100))
        same(cursor.execute("SELECT count(*), sum(n) FROM copied").fetchone(), (5000, 12497500))
        with cursor.copy("COPY copied TO STDOUT (FORMAT BINARY)") as stream:
            assert sum(len(block) for block in stream) > 500000
        try:
            with cursor.copy("COPY copied FROM STDIN") as stream:
                stream.write_row((1, "kept?"))
                raise KeyError("the application gives up")
        except KeyError:
            pass
        try:
            with cursor.copy("COPY copied FROM STDIN") as stream:
                for _ in range(1000):
                    stream.write(b"not a number\tx\n")
        except psycopg.errors.InvalidTextRepresentation:
            pass
        same(cursor.execute("SELECT count(*) FROM copied").fetchone(), (5000,))


def cancel():
    with connect() as connection:
        for way in (connection.cancel, getattr(connection, "cancel_safe", connection.cancel)):
            timer = threading.Timer(0.3, way)
            timer.start()
            try:
                connection.execute("SELECT pg_sleep(60)")
            except psycopg.errors.QueryCanceled:
                pass
            else:
                raise AssertionError("not cancelled")
            timer.join()
            same(one(connection, "SELECT 'after'"), "after")


def startup_settings():
    with connect(options="-c TimeZone=Asia/Tokyo -c work_mem=8888kB", application_name="driver") as other:
        same(one(other, "SHOW TimeZone"), "Asia/Tokyo")
        same(one(other, "SHOW work_mem"), "8888kB")
        same(one(other, "SHOW application_name"), "driver")
        same(other.info.parameter_status("TimeZone"), "Asia/Tokyo")
        other.execute("SET TimeZone = 'Europe/Rome'")
        same(other.info.parameter_status("TimeZone"), "Europe/Rome")


def protocol_3_2():
    """Long cancel keys; an older Postgres answers with 3.0."""
    with connect(max_protocol_version="3.2") as connection:
        portable.own_rows(connection)
        timer = threading.Timer(0.3, connection.cancel_safe)
        timer.start()
        portable.fails(connection, "SELECT pg_sleep(60)", "57014")
        timer.join()
        portable.own_rows(connection)


def listen():
    with connect() as connection, connect() as other:
        # Channels belong to the database: a name of this tenant's own.
        connection.execute(f"LISTEN news_{TENANT}")
        for number in range(3):
            with other.transaction():
                other.execute(f"NOTIFY news_{TENANT}, 'item {number}'")
            one(connection, "SELECT 1")
        heard, coming = [], connection.notifies()
        for notify in coming:
            heard.append(notify.payload)
            if len(heard) == 3:
                coming.close()
        same(heard, ["item 0", "item 1", "item 2"])
        connection.execute("UNLISTEN *")


def types():
    with connect() as connection:
        for binary in (False, True):
            with connection.cursor(binary=binary) as cursor:
                values = [[1, 2, 3], ["a", None, 'b"c'], b"\x00\xff" * 100, 1.5, None, True]
                row = cursor.execute(
                    "SELECT %b::int[], %b::text[], %b::bytea, %b::float8, %b::text, %b::bool" if binary else
                    "SELECT %s::int[], %s::text[], %s::bytea, %s::float8, %s::text, %s::bool", values).fetchone()
                same(list(row), values)


def cursors():
    with connect() as connection, connection.transaction(), connection.cursor("portal") as cursor:
        cursor.execute("SELECT n FROM generate_series(1, 10000) n")
        same(len(cursor.fetchmany(100)), 100)
        same(len(cursor.fetchall()), 9900)


def notices():
    with connect() as connection:
        heard = []
        connection.add_notice_handler(lambda notice: heard.append(notice.message_primary))
        connection.execute("DO $$ BEGIN RAISE NOTICE 'hear'; END $$")
        same(heard, ["hear"])


def nested_transactions():
    with connect() as connection:
        try:
            with connection.transaction():
                connection.execute("INSERT INTO things VALUES (1, 'twice', '')")
        except psycopg.errors.UniqueViolation:
            pass
        with connection.transaction():
            try:
                with connection.transaction():
                    connection.execute("SELECT * FROM no_such_table")
            except psycopg.errors.UndefinedTable:
                pass
            assert one(connection, "SELECT 'the outer one lives'")
        portable.own_rows(connection)


def many_at_once():
    def work(number):
        with connect() as connection:
            for _ in range(10):
                portable.own_rows(connection)
                with connection.transaction():
                    same(one(connection, "SELECT %s::int", number), number)

    with concurrent.futures.ThreadPoolExecutor(10) as pool:
        list(pool.map(work, range(10)))


if __name__ == "__main__":
    checks.main("psycopg", psycopg.__version__, [
        prepared_statements, pipelining, copy, cancel, startup_settings, listen, types, cursors, notices,
        nested_transactions, many_at_once, *portable.all(),
        *([protocol_3_2] if psycopg.pq.version() >= 180000 else []),
    ])
