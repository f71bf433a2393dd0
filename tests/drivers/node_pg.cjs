// node-pg does what applications do; exit code 0 if all of it goes as with Postgres itself.
'use strict';

const assert = require('node:assert/strict');
const fs = require('node:fs');
const net = require('node:net');
const { once } = require('node:events');

const { installed, main, portable, tenant, version } = require('./checks.cjs');

const { Client, Pool } = installed('pg');

const ca = process.env.PGSSLROOTCERT;
const config = {
  host: process.env.PGHOST,
  port: Number(process.env.PGPORT),
  user: process.env.PGUSER,
  password: process.env.PGPASSWORD,
  database: process.env.PGDATABASE,
  ssl: ca ? { ca: fs.readFileSync(ca, 'utf8'), servername: 'localhost' } : false,
};

const db = {
  async connect(extra = {}) {
    const client = new Client({ ...config, ...extra });
    // An error between two queries, as a drain makes it.
    client.on('error', (error) => { client.farewell = error; });
    await client.connect();
    return client;
  },
  close: (client) => client.end(),
  run: (client, text) => client.query(text),
  async one(client, text, values) {
    if (client.farewell) throw client.farewell;
    const { rows } = await client.query({ text, values, rowMode: 'array' });
    return rows[0][0];
  },
  code: (error) => error.code,
};
const { connect, one } = db;
const { ownRows, all } = portable(db);

async function prepared_statements() {
  const [client, other] = [await connect(), await connect()];
  for (let number = 0; number < 20; number += 1) {
    for (const each of [client, other]) {
      const named = { name: 'by-id', text: 'SELECT owner || $1::text AS text FROM things WHERE id = 1', values: [number] };
      assert.equal((await each.query(named)).rows[0].text, `${tenant}${number}`);
    }
    await client.query('BEGIN');
    await client.query({ name: 'in-transaction', text: 'SELECT $1::int + id FROM things WHERE id = 2', values: [number] });
    await client.query('COMMIT');
  }
  await client.end();
  await other.end();
}

async function queued() {
  const client = await connect();
  const answers = await Promise.all(Array.from({ length: 50 }, (_, number) => one(client, 'SELECT $1::int', [number])));
  assert.deepEqual(answers, Array.from({ length: 50 }, (_, number) => number));
  await client.end();
}

async function cancel() {
  const client = await connect();
  const running = client.query('SELECT pg_sleep(60)');
  const outcome = assert.rejects(running, { code: '57014' });
  await new Promise((resolve) => { setTimeout(resolve, 300); });
  const request = Buffer.alloc(16);
  request.writeInt32BE(16, 0);
  request.writeInt32BE(80877102, 4);
  request.writeInt32BE(client.processID, 8);
  request.writeInt32BE(client.secretKey, 12);
  net.connect(config.port, config.host).end(request);
  await outcome;
  assert.equal(await one(client, "SELECT 'after'"), 'after');
  await client.end();
}

async function startup_settings() {
  const other = await connect({ application_name: 'driver', options: '-c TimeZone=Asia/Tokyo -c work_mem=8888kB' });
  assert.equal(await one(other, 'SHOW application_name'), 'driver');
  assert.equal(await one(other, 'SHOW TimeZone'), 'Asia/Tokyo');
  assert.equal(await one(other, 'SHOW work_mem'), '8888kB');
  await other.end();
}

async function listen() {
  const [client, other] = [await connect(), await connect()];
  const heard = [];
  client.on('notification', (message) => heard.push(message.payload));
  // Channels belong to the database: a name of this tenant's own.
  await client.query(`LISTEN news_${tenant}`);
  for (let number = 0; number < 3; number += 1) {
    await other.query(`NOTIFY news_${tenant}, 'item ${number}'`);
    await one(client, 'SELECT 1');
  }
  while (heard.length < 3) await once(client, 'notification', { signal: AbortSignal.timeout(5000) });
  assert.deepEqual(heard, ['item 0', 'item 1', 'item 2']);
  await client.end();
  await other.end();
}

async function types() {
  const client = await connect();
  const values = [[1, 2], ['a', null, 'b"c'], Buffer.from([0, 255, 1]), true, null];
  const text = 'SELECT $1::int[], $2::text[], $3::bytea, $4::bool, $5::text';
  for (const binary of [false, true]) {
    const { rows } = await client.query({ text, values, rowMode: 'array', binary: false });
    assert.deepEqual(rows[0], values);
    // What the driver decodes correctly of the binary format.
    const numbers = await client.query({ text: 'SELECT $1::int AS a, $2::text AS b', values: [7, 'x'], binary });
    assert.deepEqual(numbers.rows, [{ a: 7, b: 'x' }]);
  }
  await client.end();
}

async function notices() {
  const client = await connect();
  const heard = [];
  client.on('notice', (notice) => heard.push(notice.message));
  await client.query("DO $$ BEGIN RAISE NOTICE 'hear'; END $$");
  assert.deepEqual(heard, ['hear']);
  await client.end();
}

async function many_at_once() {
  const pool = new Pool({ ...config, max: 8 });
  await Promise.all(Array.from({ length: 16 }, async (_, number) => {
    for (let round = 0; round < 10; round += 1) {
      const client = await pool.connect();
      try {
        await client.query('BEGIN');
        await ownRows({ query: (query) => client.query(query) });
        assert.equal(await one(client, 'SELECT $1::int', [number]), number);
        await client.query('COMMIT');
      } finally {
        client.release();
      }
    }
  }));
  await pool.end();
}

/** With pg-copy-streams, where it is installed. */
async function copy() {
  const { from, to } = installed('pg-copy-streams');
  const { pipeline } = require('node:stream/promises');
  const { Readable } = require('node:stream');
  const client = await connect();
  await client.query('CREATE TABLE IF NOT EXISTS copied_node (n int, text text); TRUNCATE copied_node');
  const lines = Array.from({ length: 5000 }, (_, number) => `${number}\t${'x'.repeat(100)}\n`);
  await pipeline(Readable.from(lines), client.query(from('COPY copied_node FROM STDIN')));
  assert.equal(await one(client, 'SELECT count(*)::int FROM copied_node'), 5000);
  let length = 0;
  for await (const block of client.query(to('COPY copied_node TO STDOUT'))) length += block.length;
  assert.ok(length > 500000, String(length));
  const bad = pipeline(Readable.from(['not a number\tx\n']), client.query(from('COPY copied_node FROM STDIN')));
  await assert.rejects(bad, { code: '22P02' });
  assert.equal(await one(client, 'SELECT count(*)::int FROM copied_node'), 5000);
  await client.end();
}

const own = [prepared_statements, queued, cancel, startup_settings, listen, types, notices, many_at_once];
main('node-pg', 'pg', [...own, ...(version('pg-copy-streams') ? [copy] : []), ...all]);
