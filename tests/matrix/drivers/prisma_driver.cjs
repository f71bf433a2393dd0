// Prisma's client, over its adapter for node-pg, does what applications do; exit code 0 if all of it goes as with Postgres
// itself. Prisma has a pool and no sessions: what needs a session runs in interactive transactions.
'use strict';

const assert = require('node:assert/strict');

const { drain, installed, main, tenant } = require('../../drivers/checks.cjs');

const { PrismaPg } = installed('@prisma/adapter-pg');
const { PrismaClient } = installed(`${process.env.TENANTRY_NODE_BASE}/prisma-client/generated`);

const connectionString = process.env.TENANTRY_URL.replace('?sslmode=disable', '');

function client(options = {}) {
  return new PrismaClient({ adapter: new PrismaPg({ connectionString, ...options }, { schema: `schema_${tenant}` }) });
}

const prisma = client({ max: 5 });

async function ownRows(on) {
  const rows = await on.$queryRaw`SELECT DISTINCT owner, current_schema::text AS schema FROM things`;
  assert.deepEqual(rows, [{ owner: tenant, schema: `schema_${tenant}` }]);
}

async function own_rows() {
  await ownRows(prisma);
}

async function objects() {
  await prisma.$executeRawUnsafe('DROP TABLE IF EXISTS tags_prisma, notes_prisma');
  await prisma.$executeRawUnsafe(
    'CREATE TABLE notes_prisma (id serial PRIMARY KEY, text text UNIQUE NOT NULL, numbers int[], data jsonb NOT NULL, '
    + 'blob bytea NOT NULL, at timestamp(3) NOT NULL DEFAULT current_timestamp)',
  );
  await prisma.$executeRawUnsafe(
    'CREATE TABLE tags_prisma (id serial PRIMARY KEY, name text NOT NULL, note_id int NOT NULL REFERENCES notes_prisma)',
  );
  const row = (n) => ({ text: `note ${n}`, numbers: [n], data: { n }, blob: Buffer.from([n]) });
  const rows = Array.from({ length: 100 }, (_, n) => row(n));
  await prisma.note.createMany({ data: rows });
  assert.equal(await prisma.note.count(), 100);
  const note = await prisma.note.findUnique({ where: { text: 'note 7' } });
  assert.deepEqual([note.numbers, note.data, Buffer.from(note.blob)], [[7], { n: 7 }, Buffer.from([7])]);
  await prisma.note.update({ where: { id: note.id }, data: { tags: { create: [{ name: 'a' }, { name: 'b' }] } } });
  const found = await prisma.note.findMany({ where: { tags: { some: { name: 'b' } } }, include: { tags: true } });
  assert.deepEqual(found.map((each) => each.tags.map((tag) => tag.name)), [['a', 'b']]);
  await prisma.note.upsert({ where: { text: 'note 7' }, update: { data: {} }, create: rows[7] });
}

async function transactions() {
  const [count] = await prisma.$transaction([prisma.note.count(), prisma.note.findFirst()]);
  assert.equal(count, 100);
  await prisma.$transaction(async (within) => {
    await within.note.create({ data: { text: 'new', numbers: [], data: {}, blob: Buffer.from([]) } });
    await ownRows(within);
    assert.equal(await within.note.count(), 101);
  }, { isolationLevel: 'Serializable' });
  await assert.rejects(prisma.$transaction(async (within) => {
    await within.note.delete({ where: { text: 'new' } });
    throw new Error('the application gives up');
  }), /gives up/);
  assert.equal(await prisma.note.count(), 101);
}

async function errors() {
  const twice = { text: 'note 1', numbers: [], data: {}, blob: Buffer.from([]) };
  await assert.rejects(prisma.note.create({ data: twice }), { code: 'P2002' });
  await assert.rejects(prisma.$transaction(async (within) => {
    await assert.rejects(within.$queryRaw`SELECT 1 / 0`, /22012|division by zero/);
    await within.$queryRaw`SELECT 1`;
  }), /25P02|current transaction is aborted/);
  await ownRows(prisma);
}

async function set_local() {
  for (let number = 0; number < 5; number += 1) {
    await prisma.$transaction(async (within) => {
      const value = `${1000 + number}kB`;
      await within.$executeRawUnsafe(`SET LOCAL work_mem = '${value}'`);
      assert.deepEqual(await within.$queryRaw`SELECT current_setting('work_mem') AS value`, [{ value }]);
    });
    assert.deepEqual(await prisma.$queryRaw`SELECT current_setting('work_mem') AS value`, [{ value: '4MB' }]);
  }
}

/** Each with a single connection: what was set belongs to it. */
async function unreported_settings() {
  const [one, two] = [client({ max: 1 }), client({ max: 1 })];
  await one.$executeRawUnsafe("SET work_mem = '1111kB'");
  await two.$executeRawUnsafe("SET work_mem = '2222kB'");
  for (let number = 0; number < 5; number += 1) {
    assert.deepEqual(await one.$queryRaw`SELECT current_setting('work_mem') AS value`, [{ value: '1111kB' }]);
    assert.deepEqual(await two.$queryRaw`SELECT current_setting('work_mem') AS value`, [{ value: '2222kB' }]);
  }
  await one.$disconnect();
  await two.$disconnect();
}

async function large_rows() {
  const [{ text }] = await prisma.$queryRaw`SELECT repeat('x', 8000000) AS text`;
  assert.equal(text.length, 8000000);
  assert.deepEqual(await prisma.$queryRaw`SELECT length(${text}) AS length`, [{ length: 8000000 }]);
}

async function many_at_once() {
  await Promise.all(Array.from({ length: 16 }, async (_, number) => {
    for (let round = 0; round < 5; round += 1) {
      await prisma.$transaction(async (within) => {
        await ownRows(within);
        assert.deepEqual(await within.$queryRaw`SELECT ${number}::int AS number`, [{ number }]);
      }, { maxWait: 20000, timeout: 20000 });
    }
  }));
}

/** The pool notices by itself; at most the queries that run just then fail. */
async function reconnect_after_drain() {
  await ownRows(prisma);
  drain();
  let failures = 0;
  for (let tries = 0; tries < 20; tries += 1) {
    try {
      await ownRows(prisma);
    } catch {
      failures += 1;
    }
  }
  assert.ok(failures < 10, `${failures} of 20 queries failed`);
  await ownRows(prisma);
}

const checks = [own_rows, objects, transactions, errors, set_local, unreported_settings, large_rows, many_at_once];
if (process.env.TENANTRY_DRAIN) checks.push(reconnect_after_drain);
main('Prisma', '@prisma/client', checks);
