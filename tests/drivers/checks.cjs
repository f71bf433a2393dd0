// What the Node scripts have in common: how checks are run and reported, and those that every driver can make.
//
// A driver comes as an adaptor of promises: connect(), close(connection), run(connection, sql), one(connection, sql) (the
// first value of the first row) and code(error) (SQLSTATE or nothing). A connection is one session, not a pool.
'use strict';

const assert = require('node:assert/strict');
const { execFileSync } = require('node:child_process');
const { existsSync, readFileSync } = require('node:fs');
const { createRequire } = require('node:module');

const tenant = process.env.TENANTRY_TENANT;
const large = 8000000;
const reported = [
  { application_name: 'one', DateStyle: 'ISO, DMY', TimeZone: 'Asia/Tokyo' },
  { application_name: 'two', DateStyle: 'ISO, YMD', TimeZone: 'America/Lima' },
  { application_name: 'three', DateStyle: 'ISO, MDY', TimeZone: 'Europe/Rome' },
];
const unreported = [
  { statement_timeout: '61s', work_mem: '1111kB', 'custom.key': 'one' },
  { statement_timeout: '62s', work_mem: '2222kB', 'custom.key': 'two' },
  { statement_timeout: '63s', work_mem: '3333kB', 'custom.key': 'three' },
];

/** `require` for what is installed for the tests. */
const installed = createRequire(`${process.env.TENANTRY_NODE_BASE}/`);

/** The version of an installed package, or nothing. Many packages do not export their package.json. */
function version(name) {
  const files = installed.resolve.paths(name).map((place) => `${place}/${name}/package.json`);
  files.push(`${process.env.TENANTRY_NODE_BASE}/${name}/package.json`);
  const file = files.find((each) => existsSync(each));
  return file && JSON.parse(readFileSync(file, 'utf8')).version;
}

/** Runs them all, says which failed, and ends the process. */
async function main(driver, name, checks) {
  console.log(`driver ${driver} ${version(name)}`);
  let failed = 0;
  for (const check of checks) {
    try {
      await check();
      console.log(`ok ${check.name}`);
    } catch (error) {
      failed += 1;
      console.log(`FAILED ${check.name}: ${String(error?.message ?? error).split('\n').join(' ')}`);
      console.error(error);
    }
  }
  console.log(failed ? `failed ${failed} of ${checks.length} checks` : `ok ${checks.length} checks`);
  process.exit(failed ? 1 : 0);
}

/** The checks that need nothing but SQL. */
function portable(db) {
  const show = (client, name) => db.one(client, `SELECT current_setting('${name}')`);

  async function fails(client, sql, code) {
    await assert.rejects(db.run(client, sql), (error) => {
      assert.equal(db.code(error), code, String(error));
      return true;
    });
  }

  const clients = (count) => Promise.all(Array.from({ length: count }, () => db.connect()));
  const close = async (several) => {
    for (const each of several) await db.close(each);
  };

  async function ownRows(client) {
    assert.equal(await db.one(client, "SELECT string_agg(DISTINCT owner, ',') FROM things"), tenant);
    assert.equal(await db.one(client, 'SELECT current_schema::text'), `schema_${tenant}`);
    assert.equal(await db.one(client, 'SELECT current_user::text'), `role_${tenant}`);
  }

  /** Each client has its own settings, whichever server it gets. */
  async function follow(settings) {
    const each = await clients(3);
    const check = async (at) => {
      for (const [name, value] of Object.entries(settings[at])) assert.equal(await show(each[at], name), value);
    };
    for (const [at, mine] of settings.entries()) {
      for (const [name, value] of Object.entries(mine)) await db.run(each[at], `SET ${name} = '${value}'`);
    }
    for (let turn = 0; turn < 4; turn += 1) {
      const order = [0, 1, 2].map((at) => (at + turn) % 3);
      for (const at of order) await check(at);
      // Two transactions at once, begun and ended crosswise: the servers change hands.
      await db.run(each[order[0]], 'BEGIN');
      await db.run(each[order[1]], 'BEGIN');
      await check(order[1]);
      await check(order[0]);
      await db.run(each[order[0]], 'COMMIT');
      await db.run(each[order[1]], 'ROLLBACK');
    }
    return each;
  }

  const checks = {
    async own_rows() {
      const client = await db.connect();
      await ownRows(client);
      await db.close(client);
    },
    async reported_settings() {
      const each = await follow(reported);
      const plain = await db.connect();
      await db.run(each[0], 'RESET TimeZone');
      assert.equal(await show(each[0], 'TimeZone'), await show(plain, 'TimeZone'));
      assert.equal(await show(each[1], 'TimeZone'), reported[1].TimeZone);
      await close([...each, plain]);
    },
    async unreported_settings() {
      const plain = await db.connect();
      const standard = await show(plain, 'work_mem');
      const each = await follow(unreported);
      await db.run(each[0], 'RESET work_mem');
      await db.run(each[1], 'RESET ALL');
      await db.one(each[2], "SELECT set_config('work_mem', '4444kB', false)");
      for (const [client, value] of [[each[0], standard], [each[1], standard], [each[2], '4444kB'], [plain, standard]]) {
        assert.equal(await show(client, 'work_mem'), value);
      }
      assert.equal(await show(each[0], 'statement_timeout'), '61s');
      await close([...each, plain]);
    },
    async set_local() {
      const [client, other] = await clients(2);
      const before = await show(client, 'statement_timeout');
      for (const end of ['COMMIT', 'ROLLBACK']) {
        await db.run(client, 'BEGIN');
        await db.run(client, "SET LOCAL statement_timeout = '77s'");
        assert.equal(await show(client, 'statement_timeout'), '77s');
        await db.run(client, end);
        assert.equal(await show(other, 'statement_timeout'), before);
        assert.equal(await show(client, 'statement_timeout'), before);
      }
      // SET in a transaction lasts if the transaction does, and not otherwise.
      for (const [end, value] of [['COMMIT', '5555kB'], ['ROLLBACK', '6666kB']]) {
        await db.run(client, 'BEGIN');
        await db.run(client, `SET work_mem = '${value}'`);
        await db.run(client, end);
        await db.one(other, 'SELECT 1');
        assert.equal(await show(client, 'work_mem'), '5555kB');
      }
      await close([client, other]);
    },
    async temp_tables() {
      const [client, other] = await clients(2);
      await db.run(client, 'CREATE TEMP TABLE kept (n int)');
      for (let number = 0; number < 3; number += 1) {
        await db.run(client, 'BEGIN');
        await db.run(client, `INSERT INTO kept VALUES (${number})`);
        await db.run(client, 'COMMIT');
        await fails(other, 'SELECT * FROM kept', '42P01');
      }
      assert.equal(await db.one(client, 'SELECT sum(n)::text FROM kept'), '3');
      await db.close(client);
      const next = await db.connect();
      await fails(next, 'SELECT * FROM kept', '42P01');
      await close([next, other]);
    },
    async advisory_locks() {
      const [client, other] = await clients(2);
      // One number space per database: a number of this tenant's own.
      const key = `hashtext('${tenant}')`;
      await db.one(client, `SELECT pg_advisory_lock(${key})::text`);
      for (let number = 0; number < 3; number += 1) {
        assert.equal(await db.one(other, `SELECT pg_try_advisory_lock(${key})::text`), 'false');
        await db.one(client, 'SELECT 1');
      }
      assert.equal(await db.one(client, `SELECT pg_advisory_unlock(${key})::text`), 'true');
      assert.equal(await db.one(other, `SELECT pg_try_advisory_lock(${key})::text`), 'true');
      await close([other, client]);
    },
    async held_cursors() {
      const [client, other] = await clients(2);
      await db.run(client, 'BEGIN');
      await db.run(client, 'DECLARE held CURSOR WITH HOLD FOR SELECT n::text FROM generate_series(1, 100) n');
      await db.run(client, 'COMMIT');
      for (const number of ['1', '2', '3']) {
        assert.equal(await db.one(client, 'FETCH held'), number);
        await fails(other, 'FETCH held', '34000');
      }
      await close([client, other]);
    },
    async sql_prepare() {
      const [client, other] = await clients(2);
      await db.run(client, 'PREPARE mine (int) AS SELECT ($1 + 1)::text');
      await db.run(other, 'PREPARE mine (int) AS SELECT ($1 + 2)::text');
      for (let number = 0; number < 3; number += 1) {
        assert.equal(await db.one(client, `EXECUTE mine (${number})`), String(number + 1));
        assert.equal(await db.one(other, `EXECUTE mine (${number})`), String(number + 2));
      }
      await db.run(client, 'DEALLOCATE mine');
      await fails(client, 'EXECUTE mine (1)', '26000');
      assert.equal(await db.one(other, 'EXECUTE mine (1)'), '3');
      await close([client, other]);
    },
    /** currval and lastval are what this client drew last. */
    async sequences() {
      const [client, other] = await clients(2);
      await db.run(client, 'CREATE TABLE IF NOT EXISTS drawn (id serial)');
      for (let number = 0; number < 3; number += 1) {
        const mine = await db.one(client, "SELECT nextval('drawn_id_seq')::text");
        assert.equal(await db.one(client, "SELECT currval('drawn_id_seq')::text"), mine);
        const others = await db.one(other, "SELECT nextval('drawn_id_seq')::text");
        assert.equal(await db.one(other, 'SELECT lastval()::text'), others);
      }
      await close([client, other]);
    },
    async large_rows() {
      const client = await db.connect();
      const text = await db.one(client, `SELECT repeat('x', ${large})`);
      assert.equal(text.length, large);
      assert.equal(Number(await db.one(client, `SELECT length('${text}')`)), large);
      await ownRows(client);
      await db.close(client);
    },
    async errors() {
      const client = await db.connect();
      await fails(client, "INSERT INTO things VALUES (1, 'twice', '')", '23505');
      await db.run(client, 'BEGIN');
      await fails(client, 'SELECT 1 / 0', '22012');
      await fails(client, 'SELECT 1', '25P02');
      await db.run(client, 'ROLLBACK');
      await db.run(client, 'BEGIN');
      await db.run(client, 'SAVEPOINT here');
      await fails(client, 'SELECT * FROM no_such_table', '42P01');
      await db.run(client, 'ROLLBACK TO here');
      assert.equal(await db.one(client, "SELECT 'alive'"), 'alive');
      await db.run(client, 'COMMIT');
      await ownRows(client);
      await db.close(client);
    },
    async reconnect_after_drain() {
      const client = await db.connect();
      await ownRows(client);
      drain();
      // Some drivers notice the closed connection before they read why.
      await assert.rejects(db.one(client, 'SELECT 1'), (error) => {
        const code = db.code(error);
        assert.ok(!/^[0-9A-Z]{5}$/.test(code ?? '') || ['57P01', 'EPIPE'].includes(code), `${code}: ${error}`);
        return true;
      });
      await Promise.resolve(db.close(client)).catch(() => {});
      const next = await db.connect();
      await ownRows(next);
      await db.close(next);
    },
  };
  // Only the matrix can drain.
  if (!process.env.TENANTRY_DRAIN) delete checks.reconnect_after_drain;
  return { ownRows, all: Object.values(checks) };
}

/** Ends the server, or Tenantry, behind all connections that are open. */
function drain() {
  execFileSync(process.env.TENANTRY_DRAIN);
}

module.exports = { tenant, installed, version, main, portable, drain };
