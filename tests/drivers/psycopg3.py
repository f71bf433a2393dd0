"""psycopg 3 does what applications do; exit code 0 if all of it goes as with Postgres itself.

The list, which the other drivers follow as far as they can: own rows, prepared statements across transactions,
pipelining, COPY in and out, cancel, SET LOCAL, large rows, notices, an error inside a transaction, many at once.
"""

import concurrent.futures
import os
import threading

import psycopg

URL = os.environ["TENANTRY_URL"]
TENANT = os.environ["TENANTRY_TENANT"]


def connect(**options):
    return psycopg.connect(URL, autocommit=True, **options)


def one(connection, sql, *values):
    return connection.execute(sql, values).fetchone()[0]


def own_rows(connection):
    owners = connection.execute("SELECT DISTINCT owner FROM things").fetchall()
    assert owners == [(TENANT,)], owners
    assert one(connection, "SELECT current_schema") == f"schema_{TENANT}"
    assert one(connection, "SELECT current_user") == f"role_{TENANT}"


def prepared_statements(_):
    with connect(prepare_threshold=0) as first, connect(prepare_threshold=0) as second:
        for number in range(20):
            for connection in (first, second):
                assert one(connection, "SELECT owner || %s::text FROM things WHERE id = 1", number) == f"{TENANT}{number}"
            with first.transaction():
                assert one(first, "SELECT id + %s::int FROM things WHERE id = 2", number) == 2 + number
        assert first.prepared_max and first._prepared._names, "psycopg prepared nothing"


def pipelining(connection):
    with connection.pipeline():
        cursors = [connection.execute("SELECT %s::int", (number,)) for number in range(50)]
        assert [cursor.fetchone()[0] for cursor in cursors] == list(range(50))
    try:
        with connection.pipeline():
            connection.execute("SELECT 1")
            connection.execute("SELECT 1 / 0")
            connection.execute("SELECT 2")
    except psycopg.errors.DivisionByZero:
        pass
    else:
        raise AssertionError("the error was lost")
    assert one(connection, "SELECT 'after'") == "after"


def copy(connection):
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE IF NOT EXISTS copied (n int, text text)")
        cursor.execute("TRUNCATE copied")
        with cursor.copy("COPY copied FROM STDIN") as stream:
            for number in range(5000):
                stream.write_row((number, "x" * 100))
        assert cursor.execute("SELECT count(*), sum(n) FROM copied").fetchone() == (5000, 12497500)
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
        assert cursor.execute("SELECT count(*) FROM copied").fetchone() == (5000,)


def cancel(connection):
    timer = threading.Timer(0.3, connection.cancel)
    timer.start()
    try:
        connection.execute("SELECT pg_sleep(60)")
    except psycopg.errors.QueryCanceled:
        pass
    else:
        raise AssertionError("not cancelled")
    timer.join()
    assert one(connection, "SELECT 'after'") == "after"


def settings(connection):
    before = one(connection, "SHOW statement_timeout")
    with connection.transaction():
        connection.execute("SET LOCAL statement_timeout = '77s'")
        assert one(connection, "SHOW statement_timeout") == "77s"
    assert one(connection, "SHOW statement_timeout") == before
    with connect(options="-c TimeZone=Asia/Tokyo", application_name="driver") as other:
        assert one(other, "SHOW TimeZone") == "Asia/Tokyo"
        assert one(other, "SHOW application_name") == "driver"
        assert other.info.parameter_status("TimeZone") == "Asia/Tokyo"


def large_rows(connection):
    text = "x" * 5_000_000
    assert one(connection, "SELECT repeat('x', 5000000)") == text
    assert one(connection, "SELECT length(%s)", text) == 5_000_000
    with connection.transaction(), connection.cursor("portal") as cursor:
        cursor.execute("SELECT n FROM generate_series(1, 10000) n")
        assert len(cursor.fetchmany(100)) == 100
        assert len(cursor.fetchall()) == 9900


def notices(connection):
    heard = []
    connection.add_notice_handler(lambda notice: heard.append(notice.message_primary))
    connection.execute("DO $$ BEGIN RAISE NOTICE 'hear'; END $$")
    assert heard == ["hear"], heard


def errors(connection):
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
    try:
        connection.execute("SELECT * FROM schema_other.things")
    except (psycopg.errors.InvalidSchemaName, psycopg.errors.UndefinedTable):
        pass
    own_rows(connection)


def many_at_once(_):
    def work(number):
        with connect() as connection:
            for _ in range(10):
                own_rows(connection)
                with connection.transaction():
                    assert one(connection, "SELECT %s::int", number) == number

    with concurrent.futures.ThreadPoolExecutor(10) as pool:
        list(pool.map(work, range(10)))


CHECKS = [
    own_rows, prepared_statements, pipelining, copy, cancel, settings, large_rows, notices, errors, many_at_once,
]

if __name__ == "__main__":
    with connect() as shared:
        for check in CHECKS:
            print(check.__name__, flush=True)
            check(shared)
