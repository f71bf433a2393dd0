// Drizzle, over node-pg, does what applications do; exit code 0 if all of it goes as with Postgres itself.
'use strict';

const assert = require('node:assert/strict');

const { installed, main, portable, tenant } = require('../../drivers/checks.cjs');

const { drizzle } = installed('drizzle-orm/node-postgres');
const { eq, sql } = installed('drizzle-orm');
const table = installed('drizzle-orm/pg-core');
const { Client, Pool } = installed('pg');

const connectionString = process.env.TENANTRY_URL.replace('?sslmode=disable', '');
const pool = new Pool({ connectionString, max: 8 });
pool.on('error', () => {});
const orm = drizzle(pool);

/** One client, and the ORM over it. */
const db = {
  async connect() {
    const client = new Client({ connectionString });
    client.on('error', () => {});
    await client.connect();
    return Object.assign(drizzle(client), { client });
  },
  close: ({ client }) => client.end(),
  run: (each, text) => each.execute(sql.raw(text)),
  one: async (each, text) => Object.values((await each.execute(sql.raw(text))).rows[0])[0],
  code: (error) => error.code ?? error.cause?.code,
};
const { all, ownRows } = portable(db);

const notes = table.pgTable('notes_drizzle', {
  id: table.serial('id').primaryKey(),
  text: table.text('text').unique(),
  numbers: table.integer('numbers').array(),
  data: table.jsonb('data'),
});

async function objects() {
  await orm.execute(sql`DROP TABLE IF EXISTS notes_drizzle`);
  await orm.execute(sql`CREATE TABLE notes_drizzle (id serial PRIMARY KEY, text text UNIQUE, numbers int[], data jsonb)`);
  await orm.insert(notes).values(Array.from({ length: 100 }, (_, n) => ({ text: `note ${n}`, numbers: [n], data: { n } })));
  assert.equal(await orm.$count(notes), 100);
  const [note] = await orm.select().from(notes).where(eq(notes.text, 'note 7'));
  assert.deepEqual([note.numbers, note.data], [[7], { n: 7 }]);
  await orm.update(notes).set({ text: 'changed' }).where(eq(notes.id, note.id));
  await orm.insert(notes).values({ text: 'changed' }).onConflictDoUpdate({ target: notes.text, set: { numbers: [1] } });
  assert.equal(await orm.$count(notes), 100);
}

async function prepared_statements() {
  const by = orm.select().from(notes).where(eq(notes.text, sql.placeholder('text'))).prepare('by_text');
  await Promise.all(Array.from({ length: 8 }, async () => {
    for (let number = 10; number < 20; number += 1) {
      assert.deepEqual((await by.execute({ text: `note ${number}` }))[0].numbers, [number]);
    }
  }));
}

async function transactions() {
  await assert.rejects(orm.transaction(async (within) => {
    await within.delete(notes);
    within.rollback();
  }));
  assert.equal(await orm.$count(notes), 100);
  await orm.transaction(async (outer) => {
    await assert.rejects(outer.transaction((inner) => inner.execute(sql`SELECT * FROM no_such_table`)));
    assert.equal((await outer.execute(sql`SELECT 'alive' AS text`)).rows[0].text, 'alive');
  }, { isolationLevel: 'repeatable read' });
}

async function many_at_once() {
  await Promise.all(Array.from({ length: 16 }, async (_, number) => {
    for (let round = 0; round < 10; round += 1) {
      await orm.transaction(async (within) => {
        await ownRows(within);
        const { rows } = await within.execute(sql`SELECT ${number}::int AS number, ${tenant}::text AS tenant`);
        assert.deepEqual(rows, [{ number, tenant }]);
      });
    }
  }));
}

main('Drizzle', 'drizzle-orm', [objects, prepared_statements, transactions, many_at_once, ...all]);
