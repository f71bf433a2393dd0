"""Other clients of the same tenants: short transactions and settings of their own, without end.

They see to it that servers change hands between the transactions of the script that is being watched: a server goes back to
the client that had it last if nobody else wants it meanwhile, so they have to be more than the servers.
"""

import asyncio
import random
import sys

import asyncpg

CLIENTS = 6
MESS = [
    "SET statement_timeout = '{}s'", "SET work_mem = '{}kB'", "SET lock_timeout = '{}s'", "SET DateStyle = 'ISO, YMD'",
    "SET TimeZone = 'Asia/Kathmandu'", "SET application_name = 'crowd {}'", "SET extra_float_digits = 0", "RESET ALL",
    "BEGIN; SET LOCAL work_mem = '{}kB'; COMMIT", "SET bytea_output = 'escape'", "SET client_min_messages = error",
    "SET default_transaction_isolation = 'repeatable read'",
]


async def client(url):
    dice = random.Random(url)
    while True:
        try:
            connection = await asyncpg.connect(url, timeout=20)
            while True:
                await connection.execute("BEGIN; SELECT count(*) FROM things; SELECT pg_sleep(0.003); COMMIT")
                if dice.random() < 0.2:
                    await connection.execute(dice.choice(MESS).format(dice.randrange(900, 2000)))
                await asyncio.sleep(dice.random() * 0.1)
        except Exception:  # a drain, most likely, which asyncpg reports in many ways
            await asyncio.sleep(0.1)


async def main():
    await asyncio.gather(*(client(url) for url in sys.argv[1:] for _ in range(CLIENTS)))


if __name__ == "__main__":
    asyncio.run(main())
