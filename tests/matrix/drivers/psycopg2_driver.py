"""psycopg2 does what applications do; exit code 0 if all of it goes as with Postgres itself."""

import io
import select
import threading

import checks
import psycopg2
import psycopg2.extensions
import psycopg2.extras
import psycopg2.pool
from checks import TENANT, URL, same


class Adaptor:
    """Connections that commit for themselves."""

    def connect(self, **options):
        connection = psycopg2.connect(URL, **options)
        connection.autocommit = True
        return connection

    def close(self, connection):
        connection.close()

    def run(self, connection, sql):
        with connection.cursor() as cursor:
            cursor.execute(sql)

    def one(self, connection, sql, *values):
        with connection.cursor() as cursor:
            cursor.execute(sql, values or None)
            return cursor.fetchone()[0]

    def code(self, error):
        return error.pgcode


db = Adaptor()
portable = checks.Portable(db)


def transactions():
    """The driver's own way: BEGIN before the first statement, until commit or rollback."""
    connection = psycopg2.connect(URL)
    for number in range(10):
        with connection, connection.cursor() as cursor:
            cursor.execute("SELECT %s + id FROM things WHERE id = 1", (number,))
            same(cursor.fetchone()[0], number + 1)
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute("SELECT 1 / 0")
    except psycopg2.errors.DivisionByZero:
        pass
    connection.set_session(isolation_level="SERIALIZABLE", readonly=True)
    with connection, connection.cursor() as cursor:
        cursor.execute("SHOW transaction_isolation")
        same(cursor.fetchone()[0], "serializable")
        cursor.execute("SHOW transaction_read_only")
        same(cursor.fetchone()[0], "on")
    connection.close()


def sql_prepared_by_the_application():
    """The driver has no protocol-level prepared statements; people use PREPARE."""
    connection = db.connect()
    db.run(connection, "PREPARE by_id (int) AS SELECT owner FROM things WHERE id = $1")
    for number in range(5):
        db.run(connection, "BEGIN")
        same(db.one(connection, "EXECUTE by_id (%s)", number + 1), TENANT)
        db.run(connection, "COMMIT")
    connection.close()


def copy():
    connection = db.connect()
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE IF NOT EXISTS copied_2 (n int, text text); TRUNCATE copied_2")
        lines = "".join(f"{number}\t{'x' * 100}\n" for number in range(5000))
        cursor.copy_expert("COPY copied_2 FROM STDIN", io.StringIO(lines))
        cursor.execute("SELECT count(*), sum(n) FROM copied_2")
        same(cursor.fetchone(), (5000, 12497500))
        out = io.BytesIO()
        cursor.copy_expert("COPY copied_2 TO STDOUT (FORMAT BINARY)", out)
        assert len(out.getvalue()) > 500000
        try:
            cursor.copy_expert("COPY copied_2 FROM STDIN", io.StringIO("not a number\tx\n" * 1000))
        except psycopg2.errors.InvalidTextRepresentation:
            pass
        cursor.execute("SELECT count(*) FROM copied_2")
        same(cursor.fetchone(), (5000,))
    connection.close()


def cancel():
    connection = db.connect()
    timer = threading.Timer(0.3, connection.cancel)
    timer.start()
    try:
        db.run(connection, "SELECT pg_sleep(60)")
    except psycopg2.errors.QueryCanceled:
        pass
    else:
        raise AssertionError("not cancelled")
    timer.join()
    same(db.one(connection, "SELECT 'after'"), "after")
    connection.close()


def startup_settings():
    connection = db.connect(options="-c TimeZone=Asia/Tokyo -c work_mem=8888kB", application_name="driver")
    for name, value in {"TimeZone": "Asia/Tokyo", "work_mem": "8888kB", "application_name": "driver"}.items():
        same(db.one(connection, f"SHOW {name}"), value)
    same(connection.get_parameter_status("TimeZone"), "Asia/Tokyo")
    connection.set_client_encoding("LATIN1")
    same(db.one(connection, "SELECT chr(233)"), "é")
    connection.close()


def listen():
    connection, other = db.connect(), db.connect()
    db.run(connection, f"LISTEN news_{TENANT}")
    for number in range(3):
        db.run(other, f"NOTIFY news_{TENANT}, 'item {number}'")
        db.one(connection, "SELECT 1")
    while len(connection.notifies) < 3:
        assert select.select([connection], [], [], 5)[0], f"heard only {connection.notifies}"
        connection.poll()
    same([notify.payload for notify in connection.notifies], ["item 0", "item 1", "item 2"])
    portable.close([connection, other])


def types():
    connection = db.connect()
    values = ([1, 2, 3], ["a", None, 'b"c'], True, None)
    with connection.cursor() as cursor:
        cursor.execute("SELECT %s::int[], %s::text[], %s, %s", values)
        same(cursor.fetchone(), values)
        cursor.execute("SELECT %s::bytea, %s::jsonb", (b"\x00\xff" * 100, psycopg2.extras.Json({"a": [1]})))
        found = cursor.fetchone()
        same((bytes(found[0]), found[1]), (b"\x00\xff" * 100, {"a": [1]}))
    connection.close()


def cursors():
    connection = psycopg2.connect(URL)
    with connection, connection.cursor("portal") as cursor:
        cursor.itersize = 100
        cursor.execute("SELECT n FROM generate_series(1, 1000) n")
        same(sum(row[0] for row in cursor), 500500)
    connection.close()


def notices():
    connection = db.connect()
    db.run(connection, "DO $$ BEGIN RAISE NOTICE 'hear'; END $$")
    same(connection.notices, ["NOTICE:  hear\n"])
    connection.close()


def async_connection():
    connection = psycopg2.connect(URL, async_=True)

    def wait():
        while (state := connection.poll()) != psycopg2.extensions.POLL_OK:
            read = [connection] if state == psycopg2.extensions.POLL_READ else []
            select.select(read, [] if read else [connection], [], 5)

    wait()
    cursor = connection.cursor()
    for number in range(5):
        cursor.execute("SELECT %s + 1", (number,))
        wait()
        same(cursor.fetchone()[0], number + 1)
    connection.close()


def many_at_once():
    pool = psycopg2.pool.ThreadedConnectionPool(1, 8, URL)
    troubles = []

    def work(number):
        connection = pool.getconn()
        try:
            for _ in range(10):
                with connection, connection.cursor() as cursor:
                    cursor.execute("SELECT string_agg(DISTINCT owner, ','), %s FROM things", (number,))
                    same(cursor.fetchone(), (TENANT, number))
        except Exception as error:
            troubles.append(error)
        finally:
            pool.putconn(connection)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    same(troubles, [])
    pool.closeall()


checks.main("psycopg2", psycopg2.__version__.split()[0], [
    transactions, sql_prepared_by_the_application, copy, cancel, startup_settings, listen, types, cursors, notices,
    async_connection, many_at_once, *portable.all(),
])
