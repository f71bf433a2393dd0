"""asyncpg does what applications do; exit code 0 if all of it goes as with Postgres itself."""

import asyncio
import io
import os

import asyncpg

URL = os.environ["TENANTRY_URL"]
TENANT = os.environ["TENANTRY_TENANT"]


async def own_rows(connection):
    rows = await connection.fetch("SELECT DISTINCT owner FROM things")
    assert [row["owner"] for row in rows] == [TENANT], rows
    assert await connection.fetchval("SELECT current_schema") == f"schema_{TENANT}"


async def prepared_statements(connection):
    statement = await connection.prepare("SELECT owner || $1::text FROM things WHERE id = $2")
    other = await asyncpg.connect(URL)
    for number in range(20):
        assert await statement.fetchval(str(number), 1) == f"{TENANT}{number}"
        async with connection.transaction():
            assert await statement.fetchval("x", 2) == f"{TENANT}x"
        assert await other.fetchval("SELECT $1::int + id FROM things WHERE id = 1", number) == number + 1
    await other.close()


async def many_executions_in_one_go(connection):
    await connection.execute("CREATE TABLE IF NOT EXISTS counted (n int)")
    await connection.execute("TRUNCATE counted")
    await connection.executemany("INSERT INTO counted VALUES ($1)", [(number,) for number in range(1000)])
    assert await connection.fetchval("SELECT sum(n) FROM counted") == 499500


async def cursors(connection):
    async with connection.transaction():
        seen = 0
        async for row in connection.cursor("SELECT n FROM generate_series(1, 1000) n", prefetch=17):
            seen += row["n"]
        assert seen == 500500


async def copy(connection):
    await connection.execute("CREATE TABLE IF NOT EXISTS copied_async (n int, text text)")
    await connection.execute("TRUNCATE copied_async")
    records = [(number, "x" * 100) for number in range(5000)]
    await connection.copy_records_to_table("copied_async", records=records)
    assert await connection.fetchval("SELECT count(*) FROM copied_async") == 5000
    out = io.BytesIO()
    await connection.copy_from_query("SELECT * FROM copied_async", output=out)
    assert len(out.getvalue()) > 500000
    try:
        await connection.copy_to_table("copied_async", source=io.BytesIO(b"not a number\tx\n" * 1000))
    except asyncpg.InvalidTextRepresentationError:
        pass
    assert await connection.fetchval("SELECT count(*) FROM copied_async") == 5000


async def cancel(connection):
    for _ in range(3):
        try:
            await asyncio.wait_for(connection.fetchval("SELECT pg_sleep(60)"), 0.3)
        except asyncio.TimeoutError:
            pass
        else:
            raise AssertionError("not cancelled")
        assert await connection.fetchval("SELECT 'after'") == "after"


async def settings(connection):
    before = await connection.fetchval("SHOW statement_timeout")
    async with connection.transaction():
        await connection.execute("SET LOCAL statement_timeout = '77s'")
        assert await connection.fetchval("SHOW statement_timeout") == "77s"
    assert await connection.fetchval("SHOW statement_timeout") == before
    other = await asyncpg.connect(URL, server_settings={"TimeZone": "Asia/Tokyo", "application_name": "driver"})
    assert await other.fetchval("SHOW TimeZone") == "Asia/Tokyo"
    assert await other.fetchval("SHOW application_name") == "driver"
    await other.close()


async def large_rows(connection):
    assert len(await connection.fetchval("SELECT repeat('x', 5000000)")) == 5_000_000
    assert await connection.fetchval("SELECT length($1)", "x" * 5_000_000) == 5_000_000


async def notices(connection):
    heard = []
    connection.add_log_listener(lambda _, notice: heard.append(notice.message))
    await connection.execute("DO $$ BEGIN RAISE NOTICE 'hear'; END $$")
    await asyncio.sleep(0)
    assert heard == ["hear"], heard


async def errors(connection):
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


async def types_of_ones_own(connection):
    await connection.execute("DROP TYPE IF EXISTS mood")
    await connection.execute("CREATE TYPE mood AS ENUM ('sad', 'happy')")
    assert await connection.fetchval("SELECT $1::mood", "happy") == "happy"
    assert await connection.fetchval("SELECT array['sad', 'happy']::mood[]") == ["sad", "happy"]


async def a_pool(_):
    async with asyncpg.create_pool(URL, min_size=1, max_size=8) as pool:

        async def work(number):
            for _ in range(10):
                async with pool.acquire() as connection, connection.transaction():
                    await own_rows(connection)
                    assert await connection.fetchval("SELECT $1::int", number) == number

        await asyncio.gather(*(work(number) for number in range(16)))


CHECKS = [
    own_rows, prepared_statements, many_executions_in_one_go, cursors, copy, cancel, settings, large_rows, notices,
    errors, types_of_ones_own, a_pool,
]


async def main():
    connection = await asyncpg.connect(URL)
    for check in CHECKS:
        print(check.__name__, flush=True)
        await check(connection)
    await connection.close()


if __name__ == "__main__":
    asyncio.run(main())
