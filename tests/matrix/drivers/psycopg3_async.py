"""psycopg 3's asynchronous connections do what applications do; exit code 0 if all of it goes as with Postgres itself."""

import asyncio

import checks
import psycopg
from checks import TENANT, URL, same

loop = asyncio.new_event_loop()


async def connect(**options):
    return await psycopg.AsyncConnection.connect(URL, autocommit=True, **options)


async def one(connection, sql, *values):
    return (await (await connection.execute(sql, values or None)).fetchone())[0]


class Adaptor:
    """psycopg's asynchronous side for checks that know no async."""

    def connect(self):
        return loop.run_until_complete(connect())

    def close(self, connection):
        loop.run_until_complete(connection.close())

    def run(self, connection, sql):
        loop.run_until_complete(connection.execute(sql))

    def one(self, connection, sql):
        return loop.run_until_complete(one(connection, sql))

    def code(self, error):
        return error.sqlstate


def waited(check):
    """A check that is a coroutine and gets a connection of its own."""

    async def with_connection():
        async with await connect() as connection:
            await check(connection)

    def run():
        loop.run_until_complete(with_connection())

    run.__name__ = check.__name__
    return run


async def prepared_statements(connection):
    async with await connect(prepare_threshold=0) as other:
        connection.prepare_threshold = 0
        for number in range(20):
            for each in (connection, other):
                same(await one(each, "SELECT owner || %s::text FROM things WHERE id = 1", number), f"{TENANT}{number}")
            async with connection.transaction():
                same(await one(connection, "SELECT id + %s::int FROM things WHERE id = 2", number), 2 + number)


async def pipelining(connection):
    async with connection.pipeline() as pipeline:
        asked = []
        for number in range(30):
            asked.append(await connection.execute("SELECT %s::int", (number,)))
            if number % 10 == 9:
                await pipeline.sync()
        same([(await cursor.fetchone())[0] for cursor in asked], list(range(30)))
    try:
        async with connection.pipeline():
            await connection.execute("SELECT 1")
            await connection.execute("SELECT 1 / 0")
            await connection.execute("SELECT 2")
    except psycopg.errors.DivisionByZero:
        pass
    else:
        raise AssertionError("the error was lost")
    same(await one(connection, "SELECT 'after'"), "after")


async def copy(connection):
    async with connection.cursor() as cursor:
        await cursor.execute("CREATE TABLE IF NOT EXISTS copied_3 (n int, text text)")
        await cursor.execute("TRUNCATE copied_3")
        async with cursor.copy("COPY copied_3 FROM STDIN (FORMAT BINARY)") as stream:
            stream.set_types(["int4", "text"])
            for number in range(5000):
                await stream.write_row((number, "x" * 100))
        size = 0
        async with cursor.copy("COPY copied_3 TO STDOUT") as stream:
            async for block in stream:
                size += len(block)
        assert size > 500000, size
        try:
            async with cursor.copy("COPY copied_3 FROM STDIN") as stream:
                for _ in range(1000):
                    await stream.write(b"not a number\tx\n")
        except psycopg.errors.InvalidTextRepresentation:
            pass
        same(await one(connection, "SELECT count(*) FROM copied_3"), 5000)


async def cancel(connection):
    for _ in range(2):
        task = asyncio.ensure_future(connection.execute("SELECT pg_sleep(60)"))
        await asyncio.sleep(0.3)
        await connection.cancel_safe()
        try:
            await task
        except psycopg.errors.QueryCanceled:
            pass
        else:
            raise AssertionError("not cancelled")
        same(await one(connection, "SELECT 'after'"), "after")


async def listen(connection):
    async with await connect() as other:
        await connection.execute(f"LISTEN news_{TENANT}")
        for number in range(3):
            await other.execute(f"NOTIFY news_{TENANT}, 'item {number}'")
        heard = [notify.payload async for notify in connection.notifies(timeout=5, stop_after=3)]
        same(heard, ["item 0", "item 1", "item 2"])


async def types(connection):
    values = [[1, 2, 3], ["a", None, 'b"c'], b"\x00\xff" * 100, 1.5, None, True]
    async with connection.cursor(binary=True) as cursor:
        await cursor.execute("SELECT %b::int[], %b::text[], %b::bytea, %b::float8, %b::text, %b::bool", values)
        same(list(await cursor.fetchone()), values)


async def cursors(connection):
    async with connection.transaction(), connection.cursor("portal") as cursor:
        await cursor.execute("SELECT n FROM generate_series(1, 1000) n")
        same(sum([row[0] async for row in cursor]), 500500)


async def notices(connection):
    heard = []
    connection.add_notice_handler(lambda notice: heard.append(notice.message_primary))
    await connection.execute("DO $$ BEGIN RAISE NOTICE 'hear'; END $$")
    same(heard, ["hear"])


async def many_at_once(_):
    async def work(number):
        async with await connect() as connection:
            for _ in range(10):
                async with connection.transaction():
                    same(await one(connection, "SELECT string_agg(DISTINCT owner, ',') FROM things"), TENANT)
                    same(await one(connection, "SELECT %s::int", number), number)

    await asyncio.gather(*(work(number) for number in range(10)))


OWN = [prepared_statements, pipelining, copy, cancel, listen, types, cursors, notices, many_at_once]
checks.main("psycopg-async", psycopg.__version__, [waited(check) for check in OWN] + checks.Portable(Adaptor()).all())
