// TypeORM, over node-pg, does what applications do; exit code 0 if all of it goes as with Postgres itself.
'use strict';

const assert = require('node:assert/strict');

const { installed, main, portable, tenant } = require('../../drivers/checks.cjs');

installed('reflect-metadata');
const { DataSource, EntitySchema, In } = installed('typeorm');

const Note = new EntitySchema({
  name: 'notes_typeorm',
  columns: {
    id: { type: Number, primary: true, generated: true },
    text: { type: String, unique: true },
    numbers: { type: 'int', array: true },
    data: { type: 'jsonb' },
    blob: { type: 'bytea' },
  },
});
const options = {
  type: 'postgres',
  host: process.env.PGHOST,
  port: Number(process.env.PGPORT),
  username: process.env.PGUSER,
  password: process.env.PGPASSWORD,
  database: process.env.PGDATABASE,
  schema: `schema_${tenant}`,
  poolSize: 8,
  entities: [Note],
  installExtensions: false,
  extra: { idleTimeoutMillis: 0 },
  poolErrorHandler: () => {},
};
const source = new DataSource(options);

/** A query runner is a session; each comes from a pool of one. */
const db = {
  async connect() {
    const runner = (await new DataSource({ ...options, poolSize: 1 }).initialize()).createQueryRunner();
    await runner.connect();
    return runner;
  },
  close: async (runner) => {
    await runner.release();
    await runner.connection.destroy();
  },
  run: (runner, text) => runner.query(text),
  one: async (runner, text) => Object.values((await runner.query(text))[0])[0],
  code: (error) => error.code ?? error.driverError?.code,
};
const { all, ownRows } = portable(db);

async function objects() {
  await source.synchronize();
  const notes = source.getRepository(Note);
  await notes.clear();
  const row = (n) => ({ text: `note ${n}`, numbers: [n], data: { n }, blob: Buffer.from([n]) });
  await notes.insert(Array.from({ length: 100 }, (_, n) => row(n)));
  assert.equal(await notes.count(), 100);
  const note = await notes.findOneByOrFail({ text: 'note 7' });
  assert.deepEqual([note.numbers, note.data, note.blob], [[7], { n: 7 }, Buffer.from([7])]);
  await notes.save({ ...note, text: 'changed' });
  assert.equal((await notes.find({ where: { text: In(['changed', 'note 8']) } })).length, 2);
}

async function transactions() {
  await assert.rejects(source.transaction('SERIALIZABLE', async (manager) => {
    await manager.delete(Note, { text: 'changed' });
    throw new Error('the application gives up');
  }), /gives up/);
  assert.equal(await source.getRepository(Note).countBy({ text: 'changed' }), 1);
  // Savepoints within.
  await source.transaction(async (outer) => {
    await assert.rejects(outer.transaction((inner) => inner.query('SELECT * FROM no_such_table')), { code: '42P01' });
    assert.equal((await outer.query("SELECT 'alive' AS text"))[0].text, 'alive');
  });
}

async function many_at_once() {
  await Promise.all(Array.from({ length: 16 }, async (_, number) => {
    for (let round = 0; round < 10; round += 1) {
      await source.transaction(async (manager) => {
        await ownRows(manager);
        assert.deepEqual(await manager.query('SELECT $1::int AS number', [number]), [{ number }]);
      });
    }
  }));
}

source.initialize().then(() => main('TypeORM', 'typeorm', [objects, transactions, many_at_once, ...all]));
