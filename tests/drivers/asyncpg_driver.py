"""asyncpg does what applications do; exit code 0 if all of it goes as with Postgres itself."""

import asyncio
import io

import asyncpg
import checks
from checks import TENANT, URL, same

loop = asyncio.new_event_loop()


class Adaptor:
    """asyncpg for checks that know no async."""

    def connect(self):
        return loop.run_until_complete(asyncpg.connect(URL))

    def close(self, connection):
        loop.run_until_complete(connection.close())

    def run(self, connection, sql):
        loop.run_until_complete(connection.execute(sql))

    def one(self, connection, sql):
        return loop.run_until_complete(connection.fetchval(sql))

    def code(self, error):
        return getattr(error, "sqlstate", None)


def waited(check):
    """A check that is a coroutine and gets a connection of its own."""

    async def with_connection():
        connection = await asyncpg.connect(URL)
        try:
            await check(connection)
        finally:
            await connection.close()

    def run():
        loop.run_until_complete(with_connection())

    run.__name__ = check.__name__
    return run


async def own_rows(connection):
    rows = await connection.fetch("SELECT DISTINCT owner FROM things")
    same([row["owner"] for row in rows], [TENANT])
    same(await connection.fetchval("SELECT current_schema"), f"schema_{TENANT}")


async def prepared_statements(connection):
    statement = await connection.prepare("SELECT owner || $1::text FROM things WHERE id = $2")
    other = await asyncpg.connect(URL)
    for number in range(20):
        same(await statement.fetchval(str(number), 1), f"{TENANT}{number}")
        async with connection.transaction():
            same(await statement.fetchval("x", 2), f"{TENANT}x")
        same(await other.fetchval("SELECT $1::int + id FROM things WHERE id = 1", number), number + 1)
    await other.close()


async def pipelining(connection):
    """executemany sends all executions in one go."""
    await connection.execute("CREATE TABLE IF NOT EXISTS counted (n int)")
    await connection.execute("TRUNCATE counted")
    await connection.executemany("INSERT INTO counted VALUES ($1)", [(number,) for number in range(1000)])
    same(await connection.fetchval("SELECT sum(n) FROM counted"), 499500)
    try:
        await connection.executemany("INSERT INTO counted VALUES (1 / $1)", [(number,) for number in range(10, -1, -1)])
    except asyncpg.DivisionByZeroError:
        pass
    else:
        raise AssertionError("the error was lost")
    same(await connection.fetchval("SELECT sum(n) FROM counted"), 499500)


async def cursors(connection):
    async with connection.transaction():
        seen = 0
        async for row in connection.cursor("SELECT n FROM generate_series(1, 1000) n", prefetch=17):
            seen += row["n"]
        same(seen, 500500)


async def copy(connection):
    await connection.execute("CREATE TABLE IF NOT EXISTS copied_async (n int, text text)")
    await connection.execute("TRUNCATE copied_async")
    records = [(number, "x" * 100) for number in range(5000)]
    await connection.copy_records_to_table("copied_async", records=records)
    same(await connection.fetchval("SELECT count(*) FROM copied_async"), 5000)
    out = io.BytesIO()
    await connection.copy_from_query("SELECT * FROM copied_async", output=out)
    assert len(out.getvalue()) > 500000
    try:
        await connection.copy_to_table("copied_async", source=io.BytesIO(b"not a number\tx\n" * 1000))
    except asyncpg.InvalidTextRepresentationError:
        pass
    same(await connection.fetchval("SELECT count(*) FROM copied_async"), 5000)


async def cancel(connection):
    for _ in range(3):
        try:
            await asyncio.wait_for(connection.fetchval("SELECT pg_sleep(60)"), 0.3)
        except asyncio.TimeoutError:
            pass
        else:
            raise AssertionError("not cancelled")
        same(await connection.fetchval("SELECT 'after'"), "after")


async def startup_settings(_):
    wanted = {"TimeZone": "Asia/Tokyo", "application_name": "driver", "work_mem": "8888kB"}
    other = await asyncpg.connect(URL, server_settings=wanted)
    for name, value in wanted.items():
        same(await other.fetchval(f"SHOW {name}"), value)
    same(other.get_settings().TimeZone, "Asia/Tokyo")
    await other.close()


async def listen(connection):
    other = await asyncpg.connect(URL)
    heard = asyncio.Queue()
    # Channels belong to the database: a name of this tenant's own.
    await connection.add_listener(f"news_{TENANT}", lambda *words: heard.put_nowait(words[-1]))
    for number in range(3):
        await other.execute(f"NOTIFY news_{TENANT}, 'item {number}'")
        await connection.fetchval("SELECT 1")
    same([await asyncio.wait_for(heard.get(), 5) for _ in range(3)], ["item 0", "item 1", "item 2"])
    await connection.reset()
    await other.close()


async def large_values(connection):
    same(await connection.fetchval("SELECT length($1)", "x" * checks.LARGE), checks.LARGE)


async def notices(connection):
    heard = []
    connection.add_log_listener(lambda _, notice: heard.append(notice.message))
    await connection.execute("DO $$ BEGIN RAISE NOTICE 'hear'; END $$")
    await asyncio.sleep(0)
    same(heard, ["hear"])


async def nested_transactions(connection):
    try:
        async with connection.transaction():
            await connection.execute("INSERT INTO things VALUES (1, 'twice', '')")
    except asyncpg.UniqueViolationError:
        pass
    async with connection.transaction():
        try:
            async with connection.transaction():
                await connection.execute("SELECT * FROM no_such_table")
        except asyncpg.UndefinedTableError:
            pass
        assert await connection.fetchval("SELECT 'the outer one lives'")
    await own_rows(connection)


async def types(connection):
    """All of it in binary format."""
    values = [[1, 2, 3], ["a", None, 'b"c'], b"\x00\xff" * 100, 1.5, None, True]
    sql = "SELECT $1::int[], $2::text[], $3::bytea, $4::float8, $5::text, $6::bool"
    same(list(await connection.fetchrow(sql, *values)), values)
    await connection.execute("DROP TYPE IF EXISTS mood")
    await connection.execute("CREATE TYPE mood AS ENUM ('sad', 'happy')")
    same(await connection.fetchval("SELECT $1::mood", "happy"), "happy")
    same(await connection.fetchval("SELECT array['sad', 'happy']::mood[]"), ["sad", "happy"])


async def many_at_once(_):
    async with asyncpg.create_pool(URL, min_size=1, max_size=8) as pool:

        async def work(number):
            for _ in range(10):
                async with pool.acquire() as connection, connection.transaction():
                    await own_rows(connection)
                    same(await connection.fetchval("SELECT $1::int", number), number)

        await asyncio.gather(*(work(number) for number in range(16)))


OWN = [
    prepared_statements, pipelining, cursors, copy, cancel, startup_settings, listen, large_values, notices,
    nested_transactions, types, many_at_once,
]

if __name__ == "__main__":
    checks.main("asyncpg", asyncpg.__version__, [waited(check) for check in OWN] + checks.Portable(Adaptor()).all())
