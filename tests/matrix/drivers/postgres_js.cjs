// postgres.js does what applications do; exit code 0 if all of it goes as with Postgres itself.
'use strict';

const assert = require('node:assert/strict');
const { Readable } = require('node:stream');
const { pipeline } = require('node:stream/promises');

const { drain, installed, main, portable, tenant } = require('../../drivers/checks.cjs');

const postgres = installed('postgres');

function pool(options = {}) {
  return postgres({
    host: process.env.PGHOST,
    port: Number(process.env.PGPORT),
    user: process.env.PGUSER,
    password: process.env.PGPASSWORD,
    database: process.env.PGDATABASE,
    ssl: false,
    onnotice: () => {},
    ...options,
  });
}

const db = {
  connect: async (options = {}) => pool({ max: 1, idle_timeout: 0, ...options }),
  close: (sql) => sql.end(),
  run: (sql, text) => sql.unsafe(text),
  one: async (sql, text) => Object.values((await sql.unsafe(text))[0])[0],
  code: (error) => error.code,
};
const { ownRows, all } = portable(db);
// This driver connects again by itself.
const others = all.filter((check) => check.name !== 'reconnect_after_drain');

async function prepared_statements() {
  const [first, second] = [pool({ max: 1 }), pool({ max: 1 })];
  for (let number = 0; number < 20; number += 1) {
    for (const sql of [first, second]) {
      const [{ text }] = await sql`SELECT owner || ${String(number)}::text AS text FROM things WHERE id = 1`;
      assert.equal(text, `${tenant}${number}`);
    }
    const [{ id }] = await first.begin(async (sql) => sql`SELECT id + ${number}::int AS id FROM things WHERE id = 2`);
    assert.equal(id, number + 2);
  }
  await first.end();
  await second.end();
}

/** The driver sends queries without waiting for answers. */
async function pipelining() {
  const sql = pool({ max: 1, max_pipeline: 100 });
  const answers = await Promise.all(Array.from({ length: 50 }, (_, number) => sql`SELECT ${number}::int AS n`));
  assert.deepEqual(answers.map((rows) => rows[0].n), Array.from({ length: 50 }, (_, number) => number));
  const [good, bad, after] = await Promise.allSettled([sql`SELECT 1 AS n`, sql`SELECT 1 / 0`, sql`SELECT 2 AS n`]);
  assert.equal(good.value[0].n, 1);
  assert.equal(bad.reason.code, '22012');
  assert.equal(after.value[0].n, 2);
  const within = await sql.begin((each) => [each`SELECT 1 AS n`, each`SELECT 2 AS n`]);
  assert.deepEqual(within.map((rows) => rows[0].n), [1, 2]);
  await sql.end();
}

async function copy() {
  const sql = pool({ max: 1 });
  await sql.unsafe('CREATE TABLE IF NOT EXISTS copied_js (n int, text text); TRUNCATE copied_js').simple();
  const lines = Array.from({ length: 5000 }, (_, number) => `${number}\t${'x'.repeat(100)}\n`);
  await pipeline(Readable.from(lines), await sql`COPY copied_js FROM STDIN`.writable());
  assert.equal((await sql`SELECT count(*)::int AS n FROM copied_js`)[0].n, 5000);
  let length = 0;
  for await (const block of await sql`COPY copied_js TO STDOUT`.readable()) length += block.length;
  assert.ok(length > 500000, String(length));
  await sql.end();
}

async function cancel() {
  const sql = pool({ max: 1 });
  const query = sql`SELECT pg_sleep(60)`.execute();
  setTimeout(() => query.cancel(), 300);
  await assert.rejects(query, { code: '57014' });
  assert.equal((await sql`SELECT 'after' AS text`)[0].text, 'after');
  await sql.end();
}

async function startup_settings() {
  const sql = pool({ max: 1, connection: { application_name: 'driver', TimeZone: 'Asia/Tokyo', work_mem: '8888kB' } });
  for (const [name, value] of [['application_name', 'driver'], ['TimeZone', 'Asia/Tokyo'], ['work_mem', '8888kB']]) {
    assert.equal(await db.one(sql, `SELECT current_setting('${name}')`), value);
  }
  assert.equal(sql.parameters.TimeZone, 'Asia/Tokyo');
  await sql.end();
}

async function listen() {
  const sql = pool({ max: 2 });
  const heard = [];
  let enough;
  const three = new Promise((resolve) => { enough = resolve; });
  await sql.listen(`news_${tenant}`, (payload) => heard.push(payload) === 3 && enough());
  for (let number = 0; number < 3; number += 1) await sql.notify(`news_${tenant}`, `item ${number}`);
  await Promise.race([three, new Promise((resolve) => { setTimeout(resolve, 5000); })]);
  assert.deepEqual(heard, ['item 0', 'item 1', 'item 2']);
  await sql.end();
}

async function types() {
  const sql = pool({ max: 1 });
  const [row] = await sql`SELECT ${[1, 2]}::int[] AS a, ${['a', 'b"c']}::text[] AS b, ${Buffer.from([0, 255])}::bytea AS c,
    ${true}::bool AS d, ${null}::text AS e, ${sql.json({ f: 1 })}::jsonb AS f`;
  assert.deepEqual({ ...row }, { a: [1, 2], b: ['a', 'b"c'], c: Buffer.from([0, 255]), d: true, e: null, f: { f: 1 } });
  await sql.end();
}

async function cursors() {
  const sql = pool({ max: 1 });
  let sum = 0;
  for await (const rows of sql`SELECT n FROM generate_series(1, 1000) n`.cursor(100)) {
    for (const { n } of rows) sum += n;
  }
  assert.equal(sum, 500500);
  await sql.end();
}

async function notices() {
  const heard = [];
  const sql = pool({ max: 1, onnotice: (notice) => heard.push(notice.message) });
  await sql`DO $$ BEGIN RAISE NOTICE 'hear'; END $$`;
  assert.deepEqual(heard, ['hear']);
  await sql.end();
}

async function savepoints() {
  const sql = pool({ max: 1 });
  const [{ text }] = await sql.begin(async (outer) => {
    await assert.rejects(outer.savepoint((inner) => inner`SELECT * FROM no_such_table`), { code: '42P01' });
    return outer`SELECT 'alive' AS text`;
  });
  assert.equal(text, 'alive');
  await sql.end();
}

async function many_at_once() {
  const sql = pool({ max: 8 });
  await Promise.all(Array.from({ length: 16 }, async (_, number) => {
    for (let round = 0; round < 10; round += 1) {
      await sql.begin(async (within) => {
        await ownRows(within);
        assert.equal((await within`SELECT ${number}::int AS n`)[0].n, number);
      });
    }
  }));
  await sql.end();
}

async function reconnect_after_drain() {
  const sql = pool({ max: 1 });
  await ownRows(sql);
  drain();
  let failures = 0;
  for (let tries = 0; tries < 20; tries += 1) await ownRows(sql).catch(() => { failures += 1; });
  assert.ok(failures <= 3, `${failures} of 20 queries failed`);
  await ownRows(sql);
  await sql.end();
}

const own = [
  prepared_statements, pipelining, copy, cancel, startup_settings, listen, types, cursors, notices, savepoints, many_at_once,
];
if (process.env.TENANTRY_DRAIN) own.push(reconnect_after_drain);
main('postgres.js', 'postgres', [...own, ...others]);
