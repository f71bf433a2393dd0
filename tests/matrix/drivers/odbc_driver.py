"""psqlODBC, used through pyodbc, does what applications do; exit code 0 if all of it goes as with Postgres itself."""

import os
import threading

import checks
import pyodbc
from checks import TENANT, same

ADDRESS = (
    f"DRIVER={{PostgreSQL Unicode}};SERVER={os.environ['PGHOST']};PORT={os.environ['PGPORT']};"
    f"DATABASE={os.environ['PGDATABASE']};UID={os.environ['PGUSER']};PWD={os.environ['PGPASSWORD']};SSLmode=disable;"
    "MaxLongVarcharSize=10000000;MaxVarcharSize=10000000;UseServerSidePrepare=1;BoolsAsChar=0;"
)


class Adaptor:
    """Connections that commit for themselves. `protocol` -2 is the driver's default: a savepoint before each statement."""

    def __init__(self, protocol):
        self.address = f"{ADDRESS}Protocol={protocol};"

    def connect(self):
        connection = pyodbc.connect(self.address, autocommit=True)
        connection.setencoding("utf-8")
        return connection

    def close(self, connection):
        connection.close()

    def run(self, connection, sql):
        connection.execute(sql)

    def one(self, connection, sql, *values):
        return connection.execute(sql, *values).fetchone()[0]

    def code(self, error):
        return error.args[0]


db = Adaptor("7.4-2")
# After an error the transaction is aborted, as the portable checks expect it.
portable = checks.Portable(Adaptor("7.4-0"))


def prepared_statements():
    first, second = db.connect(), db.connect()
    for number in range(10):
        for connection in (first, second):
            same(db.one(connection, "SELECT id + ? FROM things WHERE id = 1", number), number + 1)
        first.autocommit = False
        same(db.one(first, "SELECT owner FROM things WHERE id = ?", number + 1), TENANT)
        first.commit()
        first.autocommit = True
    portable.close([first, second])


def transactions():
    connection = db.connect()
    connection.autocommit = False
    connection.execute("CREATE TABLE IF NOT EXISTS odbc_rows (n int)")
    connection.execute("TRUNCATE odbc_rows")
    connection.cursor().executemany("INSERT INTO odbc_rows VALUES (?)", [(number,) for number in range(50)])
    connection.commit()
    connection.execute("DELETE FROM odbc_rows")
    connection.rollback()
    same(db.one(connection, "SELECT count(*) FROM odbc_rows"), 50)
    connection.close()


def cancel():
    connection = db.connect()
    cursor = connection.cursor()
    timer = threading.Timer(0.5, cursor.cancel)
    timer.start()
    try:
        cursor.execute("SELECT pg_sleep(60)")
    except pyodbc.Error as error:
        assert "cancel" in str(error).lower(), error
    else:
        raise AssertionError("not cancelled")
    timer.join()
    same(db.one(connection, "SELECT 'after'"), "after")
    connection.close()


def catalog():
    connection = db.connect()
    columns = connection.cursor().columns(table="things", schema=f"schema_{TENANT}")
    same([row.column_name for row in columns], ["id", "owner", "body"])
    connection.close()


def types():
    connection = db.connect()
    sql = "SELECT ?::text, '{1,2}'::int[]::text, 1.5::float8, ?::int, '\\x00ff'::bytea"
    row = connection.execute(sql, "text", 7).fetchone()
    same(tuple(row), ("text", "{1,2}", 1.5, 7, b"\x00\xff"))
    connection.close()


connection = db.connect()
version = connection.getinfo(pyodbc.SQL_DRIVER_VER)
connection.close()
checks.main("psqlODBC", version, [prepared_statements, transactions, cancel, catalog, types, *portable.all()])
