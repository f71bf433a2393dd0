// node-pg does what applications do; exit code 0 if all of it goes as with Postgres itself.
'use strict';

const assert = require('node:assert/strict');
const fs = require('node:fs');
const net = require('node:net');
const { createRequire } = require('node:module');

const { Client, Pool } = createRequire(`${process.env.TENANTRY_NODE_BASE}/`)('pg');

const tenant = process.env.TENANTRY_TENANT;
const ca = process.env.PGSSLROOTCERT;
const config = {
  host: 'localhost',
  port: Number(process.env.PGPORT),
  user: process.env.PGUSER,
  password: process.env.PGPASSWORD,
  database: process.env.PGDATABASE,
  ssl: ca ? { ca: fs.readFileSync(ca, 'utf8'), servername: 'localhost' } : false,
};

async function connect(extra = {}) {
  const client = new Client({ ...config, ...extra });
  await client.connect();
  return client;
}

async function one(client, text, values) {
  const { rows } = await client.query({ text, values, rowMode: 'array' });
  return rows[0][0];
}

async function ownRows(client) {
  const { rows } = await client.query('SELECT DISTINCT owner FROM things');
  assert.deepEqual(rows, [{ owner: tenant }]);
  assert.equal(await one(client, 'SELECT current_schema'), `schema_${tenant}`);
}

async function preparedStatements(client) {
  const other = await connect();
  for (let number = 0; number < 20; number += 1) {
    for (const each of [client, other]) {
      const named = { name: 'by-id', text: 'SELECT owner || $1::text AS text FROM things WHERE id = 1', values: [number] };
      assert.equal((await each.query(named)).rows[0].text, `${tenant}${number}`);
    }
    await client.query('BEGIN');
    await client.query({ name: 'in-transaction', text: 'SELECT $1::int + id FROM things WHERE id = 2', values: [number] });
    await client.query('COMMIT');
  }
  await other.end();
}

async function queued(client) {
  const answers = await Promise.all(Array.from({ length: 50 }, (_, number) => one(client, 'SELECT $1::int', [number])));
  assert.deepEqual(answers, Array.from({ length: 50 }, (_, number) => number));
}

async function cancel(client) {
  const running = client.query('SELECT pg_sleep(60)');
  const outcome = assert.rejects(running, { code: '57014' });
  await new Promise((resolve) => setTimeout(resolve, 300));
  const request = Buffer.alloc(16);
  request.writeInt32BE(16, 0);
  request.writeInt32BE(80877102, 4);
  request.writeInt32BE(client.processID, 8);
  request.writeInt32BE(client.secretKey, 12);
  net.connect(config.port, config.host).end(request);
  await outcome;
  assert.equal(await one(client, "SELECT 'after'"), 'after');
}

async function settings(client) {
  const before = await one(client, 'SHOW statement_timeout');
  await client.query('BEGIN');
  await client.query("SET LOCAL statement_timeout = '77s'");
  assert.equal(await one(client, 'SHOW statement_timeout'), '77s');
  await client.query('COMMIT');
  assert.equal(await one(client, 'SHOW statement_timeout'), before);
  const other = await connect({ application_name: 'driver', options: '-c TimeZone=Asia/Tokyo' });
  assert.equal(await one(other, 'SHOW application_name'), 'driver');
  assert.equal(await one(other, 'SHOW TimeZone'), 'Asia/Tokyo');
  await other.end();
}

async function largeRows(client) {
  assert.equal((await one(client, "SELECT repeat('x', 5000000)")).length, 5000000);
  assert.equal(await one(client, 'SELECT length($1)', ['x'.repeat(5000000)]), 5000000);
}

async function notices(client) {
  const heard = [];
  client.on('notice', (notice) => heard.push(notice.message));
  await client.query("DO $$ BEGIN RAISE NOTICE 'hear'; END $$");
  assert.deepEqual(heard, ['hear']);
}

async function errors(client) {
  await assert.rejects(client.query("INSERT INTO things VALUES (1, 'twice', '')"), { code: '23505' });
  await client.query('BEGIN');
  await assert.rejects(client.query('SELECT * FROM no_such_table'), { code: '42P01' });
  await assert.rejects(client.query('SELECT 1'), { code: '25P02' });
  await client.query('ROLLBACK');
  await ownRows(client);
}

async function aPool() {
  const pool = new Pool({ ...config, max: 8 });
  await Promise.all(Array.from({ length: 16 }, async (_, number) => {
    for (let round = 0; round < 10; round += 1) {
      const client = await pool.connect();
      try {
        await client.query('BEGIN');
        await ownRows(client);
        assert.equal(await one(client, 'SELECT $1::int', [number]), number);
        await client.query('COMMIT');
      } finally {
        client.release();
      }
    }
  }));
  await pool.end();
}

async function main() {
  const client = await connect();
  for (const check of [ownRows, preparedStatements, queued, cancel, settings, largeRows, notices, errors, aPool]) {
    console.log(check.name);
    await check(client);
  }
  await client.end();
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
