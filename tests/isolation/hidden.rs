//! What a session leaves behind out of sight: functions of the tenant's do it, or what runs them.
//!
//! Owns those functions, who has them, and the statements that run them. Not every tenant has all: where one function may
//! set anything, takes a lock, or runs without a word, the proxy expects that of all of the tenant's, and those that it
//! would have missed alone are found with it. So only one tenant has each of what a client is kept for.

use crate::kind::Kind;
use crate::mess::{MESSES, Mess, Then, bound, mess, work_mem};

/// This tenant has no functions at all.
const WITH_NOTHING: &str = "echo";

/// What some tenants have.
pub(crate) struct Hidden {
    tenants: &'static [&'static str],
    /// Run once in each of their schemas, by their role.
    fixture: &'static str,
    messes: &'static [Mess],
}

/// What is run in a tenant's schema before anybody comes.
pub(crate) fn fixtures(tenant: &str) -> String {
    of(tenant).map(|hidden| hidden.fixture).collect()
}

/// Everything that clients of the tenant can leave behind.
pub(crate) fn messes(tenant: &str) -> Vec<&'static Mess> {
    MESSES.iter().chain(of(tenant).flat_map(|hidden| hidden.messes)).collect()
}

/// Each way to leave something, with a tenant whose clients can.
pub(crate) fn each() -> impl Iterator<Item = (&'static str, &'static Mess)> {
    let any = MESSES.iter().map(|mess| (WITH_NOTHING, mess));
    any.chain(HIDDEN.iter().flat_map(|hidden| hidden.messes.iter().map(|mess| (hidden.tenants[0], mess))))
}

/// Whether a trigger sets something when a note is written.
pub(crate) fn has_trigger(tenant: &str) -> bool {
    BY_TRIGGER.tenants.contains(&tenant)
}

fn of(tenant: &str) -> impl Iterator<Item = &'static Hidden> {
    HIDDEN.into_iter().filter(move |hidden| hidden.tenants.contains(&tenant))
}

static HIDDEN: [&Hidden; 8] =
    [&BY_NAME, &BY_TRIGGER, &LOCKS, &TEMP_BY_SCHEMA, &TEMP_BY_WORD, &BY_RELATION, &WITHOUT_A_WORD, &TEXTS];

/// A text says the name of the function, or of what runs it.
static BY_NAME: Hidden = Hidden {
    tenants: &["acme", "bolt", "cosmo", "delta"],
    fixture: "
    CREATE FUNCTION leave_mark(text, text) RETURNS text LANGUAGE plpgsql AS
        $$ BEGIN PERFORM set_config('statement_timeout', $2, false); RETURN set_config('my.function', $1, false); END $$;
    CREATE PROCEDURE leave_block(text) LANGUAGE plpgsql AS
        $$ BEGIN PERFORM set_config('my.block', $1, false); END $$;
    CREATE FUNCTION leave_sign() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN
        PERFORM set_config('my.function', substring(current_query() FROM 'sign ([0-9]+)'), false); RETURN true; END $$;
    CREATE FUNCTION leave_body(text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS
        $$ BEGIN PERFORM set_config('my.function', $1, false); RETURN true; END $$;
    CREATE FUNCTION leave_last(text, text) RETURNS text LANGUAGE plpgsql AS
        $$ BEGIN RETURN set_config('my.function', $2, false); END $$;
    CREATE VIEW signs AS SELECT leave_sign();
    CREATE VIEW more_signs AS SELECT * FROM signs;
    CREATE AGGREGATE last_left(text) (SFUNC = leave_last, STYPE = text);
    CREATE TABLE guarded AS SELECT 1 AS one;
    ALTER TABLE guarded ENABLE ROW LEVEL SECURITY;
    ALTER TABLE guarded FORCE ROW LEVEL SECURITY;
    CREATE POLICY guard ON guarded USING (leave_sign());
    CREATE TYPE visit AS (who text);
    CREATE FUNCTION signed(visit) RETURNS text LANGUAGE plpgsql AS
        $$ BEGIN RETURN set_config('my.function', $1.who, false); END $$;",
    messes: &[
        mess(
            "SELECT leave_mark('{id}', '{odd}ms')",
            &[Then::Own(Kind::CustomByFunction, "{id}"), Then::Own(Kind::StatementTimeout, "{odd}ms")],
        ),
        mess(
            "SELECT 1 WHERE leave_mark('{id}', '{odd}ms') IS NOT NULL",
            &[Then::Own(Kind::CustomByFunction, "{id}"), Then::Own(Kind::StatementTimeout, "{odd}ms")],
        ),
        mess(
            "SELECT * FROM schema_{tenant}.leave_mark('{id}', '{odd}ms')",
            &[Then::Own(Kind::CustomByFunction, "{id}"), Then::Own(Kind::StatementTimeout, "{odd}ms")],
        ),
        mess("SELECT /* sign {id} */ * FROM signs", &[Then::Own(Kind::CustomByFunction, "{id}")]),
        mess("TABLE schema_{tenant}.more_signs -- sign {id}", &[Then::Own(Kind::CustomByFunction, "{id}")]),
        mess("SELECT /* sign {id} */ one FROM guarded", &[Then::Own(Kind::CustomByFunction, "{id}")]),
        mess("SELECT last_left('{id}')", &[Then::Own(Kind::CustomByFunction, "{id}")]),
        mess("SELECT (row('{id}')::visit).signed", &[Then::Own(Kind::CustomByFunction, "{id}")]),
        mess("CALL leave_block('{id}')", &[Then::Maybe(Kind::CustomByDo, "{id}")]),
    ],
};

static BY_TRIGGER: Hidden = Hidden {
    tenants: &["acme", "cosmo", "delta"],
    fixture: "
    CREATE FUNCTION note_mark() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN PERFORM set_config('my.trigger', NEW.body, false); RETURN NEW; END $$;
    CREATE TRIGGER note_mark BEFORE INSERT ON notes FOR EACH ROW EXECUTE FUNCTION note_mark();",
    messes: &[mess("INSERT INTO notes (body) VALUES ('{id}')", &[Then::Own(Kind::CustomByTrigger, "{id}")])],
};

static LOCKS: Hidden = Hidden {
    tenants: &["acme"],
    fixture: "
    CREATE FUNCTION leave_lock(bigint) RETURNS void LANGUAGE sql AS $$ SELECT pg_advisory_lock($1) $$;",
    messes: &[mess("SELECT leave_lock({id})", &[Then::Own(Kind::Lock, "{id}")])],
};

/// The schema alone says that it is temporary.
static TEMP_BY_SCHEMA: Hidden = Hidden {
    tenants: &["bolt"],
    fixture: "
    CREATE FUNCTION leave_table(text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN
        CREATE TABLE pg_temp.made (x int); EXECUTE format('ALTER TABLE pg_temp.made RENAME TO %I', $1); END $$;
    CREATE FUNCTION leave_formatted(what text) RETURNS void LANGUAGE plpgsql AS
        $$ BEGIN EXECUTE format('CREATE TABLE IF NOT EXISTS pg_temp.%I (x int)', what); END $$;",
    messes: &[
        mess("SELECT leave_table('remains_{id}')", &[Then::Own(Kind::TempRelation, "remains_{id}")]),
        mess("SELECT leave_formatted('remains_{id}')", &[Then::Own(Kind::TempRelation, "remains_{id}")]),
        bound(
            "SELECT leave_formatted($1)",
            &["remains_{id}"],
            &[Then::Own(Kind::TempRelation, "remains_{id}")],
        ),
    ],
};

static TEMP_BY_WORD: Hidden = Hidden {
    tenants: &["delta"],
    fixture: "
    CREATE FUNCTION leave_temp(text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN
        CREATE TEMP TABLE made (x int); EXECUTE format('ALTER TABLE made RENAME TO %I', $1); END $$;",
    messes: &[
        mess("SELECT leave_temp('remains_{id}')", &[Then::Own(Kind::TempRelation, "remains_{id}")]),
        bound(
            "SELECT * FROM leave_temp($1)",
            &["remains_{id}"],
            &[Then::Own(Kind::TempRelation, "remains_{id}")],
        ),
    ],
};

/// A text says the name of a table, and changes it. Where there are triggers, each change is expected to run them.
static BY_RELATION: Hidden = Hidden {
    tenants: &["bolt"],
    fixture: "
    CREATE TABLE filled (a text, b boolean DEFAULT leave_sign());
    CREATE TABLE checked (a text CHECK (leave_body(a)));
    CREATE TABLE generated (a text, b boolean GENERATED ALWAYS AS (leave_body(a)) STORED);
    CREATE TABLE indexed (a text);
    CREATE INDEX ON indexed (leave_body(a));
    CREATE TABLE partly (a text);
    CREATE INDEX ON partly (a) WHERE leave_body(a);
    CREATE TABLE ruled (a text);
    CREATE RULE ruled AS ON INSERT TO ruled DO ALSO SELECT leave_body(NEW.a);
    CREATE TABLE parted (a text) PARTITION BY LIST (a);
    CREATE TABLE part PARTITION OF parted (CHECK (leave_body(a))) DEFAULT;",
    messes: &[
        mess(
            "INSERT /* sign {id} */ INTO filled (a) VALUES ('x')",
            &[Then::Own(Kind::CustomByFunction, "{id}")],
        ),
        mess("INSERT INTO checked VALUES ('{id}')", &[Then::Own(Kind::CustomByFunction, "{id}")]),
        bound("INSERT INTO checked VALUES ($1)", &["{id}"], &[Then::Own(Kind::CustomByFunction, "{id}")]),
        mess("INSERT INTO generated VALUES ('{id}')", &[Then::Own(Kind::CustomByFunction, "{id}")]),
        mess("INSERT INTO indexed VALUES ('{id}')", &[Then::Own(Kind::CustomByFunction, "{id}")]),
        mess("INSERT INTO partly VALUES ('{id}')", &[Then::Own(Kind::CustomByFunction, "{id}")]),
        mess("INSERT INTO ruled VALUES ('{id}')", &[Then::Own(Kind::CustomByFunction, "{id}")]),
        mess("INSERT INTO parted VALUES ('{id}')", &[Then::Own(Kind::CustomByFunction, "{id}")]),
    ],
};

/// No name in a text tells of the function.
static WITHOUT_A_WORD: Hidden = Hidden {
    tenants: &["delta"],
    fixture: "
    CREATE DOMAIN checked_text AS text CHECK (leave_body(VALUE));
    CREATE OPERATOR ## (RIGHTARG = text, FUNCTION = leave_body);
    CREATE TYPE person AS (name text);
    CREATE FUNCTION to_truth(person) RETURNS boolean LANGUAGE sql AS 'SELECT leave_body($1.name)';
    CREATE CAST (person AS boolean) WITH FUNCTION to_truth;",
    messes: &[
        mess("SELECT '{id}'::checked_text", &[Then::Own(Kind::CustomByFunction, "{id}")]),
        bound("SELECT $1::checked_text", &["{id}"], &[Then::Own(Kind::CustomByFunction, "{id}")]),
        mess("SELECT ## text '{id}'", &[Then::Own(Kind::CustomByFunction, "{id}")]),
        mess("SELECT row('{id}')::person::boolean", &[Then::Own(Kind::CustomByFunction, "{id}")]),
    ],
};

/// Functions run a text that they are given, or put it together.
static TEXTS: Hidden = Hidden {
    tenants: &["cosmo"],
    fixture: "
    CREATE FUNCTION run_first(text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN EXECUTE $1; RETURN ''; END $$;
    CREATE FUNCTION run_spelled(text) RETURNS text LANGUAGE sql AS $$ SELECT U&\"set\\005fconfig\"('work_mem', $1, false) $$;
    CREATE FUNCTION run_named(what text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN EXECUTE what; END $$;
    CREATE FUNCTION run_whole(what text) RETURNS void LANGUAGE plpgsql AS
        $$ BEGIN EXECUTE format('%s', what); END $$;
    CREATE FUNCTION run_parts(verb text, setting text, value text) RETURNS void LANGUAGE plpgsql AS
        $$ BEGIN EXECUTE format('%s %I = %L', verb, setting, value); END $$;
    CREATE FUNCTION run_rows(what text) RETURNS SETOF text LANGUAGE plpgsql AS
        $$ BEGIN RETURN QUERY EXECUTE what; END $$;
    CREATE FUNCTION run_loop(what text) RETURNS void LANGUAGE plpgsql AS
        $$ DECLARE one record; BEGIN FOR one IN EXECUTE what LOOP NULL; END LOOP; END $$;
    CREATE PROCEDURE run_block(what text) LANGUAGE plpgsql AS $$ BEGIN EXECUTE what; END $$;
    CREATE FUNCTION run_body() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN EXECUTE NEW.body; RETURN NEW; END $$;
    CREATE TABLE orders (body text);
    CREATE TRIGGER run_body BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION run_body();",
    messes: &[
        work_mem("SELECT run_first('SET work_mem = ''{odd}kB''')"),
        work_mem("SELECT run_spelled('{odd}kB')"),
        work_mem("SELECT run_named('SELECT set_config(''work_mem'', ''{odd}kB'', false)')"),
        work_mem("SELECT run_named('SET work' || '_mem = ''{odd}kB''')"),
        work_mem("SELECT run_whole('SET work_mem = ''{odd}kB''')"),
        work_mem("SELECT run_parts('SET', 'work_mem', '{odd}kB')"),
        work_mem("SELECT run_rows('SELECT set_con' || 'fig(''work_mem'', ''{odd}kB'', false)')"),
        work_mem("SELECT run_loop('SELECT set_config(''work_mem'', ''{odd}kB'', false)')"),
        work_mem("CALL run_block('SET work_mem = ''{odd}kB''')"),
        work_mem("INSERT INTO orders VALUES ('SET work_mem = ''{odd}kB''')"),
        bound(
            "SELECT run_first($1)",
            &["SET work_mem = '{odd}kB'"],
            &[Then::Own(Kind::WorkMem, "{odd}kB")],
        ),
        bound(
            "SELECT run_parts($1, $2, $3)",
            &["SET", "statement_timeout", "{odd}ms"],
            &[Then::Own(Kind::StatementTimeout, "{odd}ms")],
        ),
        bound(
            "INSERT INTO orders VALUES ($1)",
            &["SET statement_timeout = '{odd}ms'"],
            &[Then::Own(Kind::StatementTimeout, "{odd}ms")],
        ),
        // Custom settings are in no view: those that functions name follow their client.
        mess(
            "SELECT run_first('SET my.function = ''{id}''')",
            &[Then::Own(Kind::CustomByFunction, "{id}")],
        ),
        mess("SELECT run_first('SET my.name = ''{id}''')", &[Then::Maybe(Kind::CustomBySet, "{id}")]),
        mess("SELECT run_parts('SET', 'my.name', '{id}')", &[Then::Maybe(Kind::CustomBySet, "{id}")]),
        bound(
            "SELECT run_named($1)",
            &["SELECT set_config('my.name', '{id}', false)"],
            &[Then::Maybe(Kind::CustomBySet, "{id}")],
        ),
        mess("CALL run_block('SET my.block = ''{id}''')", &[Then::Maybe(Kind::CustomByDo, "{id}")]),
        mess(
            "SELECT run_named('SET ROLE role_{tenant}_aide')",
            &[Then::Own(Kind::Role, "role_{tenant}_aide")],
        ),
        mess("SELECT run_named('SET search_path = public')", &[Then::Maybe(Kind::Path, "public")]),
        // What lives on one server.
        mess("SELECT run_first('SELECT pg_advisory_lock({id})')", &[Then::Own(Kind::Lock, "{id}")]),
        bound("SELECT run_first($1)", &["SELECT pg_advisory_lock({id})"], &[Then::Own(Kind::Lock, "{id}")]),
        mess("CALL run_block('SELECT pg_advisory_lock({id})')", &[Then::Own(Kind::Lock, "{id}")]),
        mess(
            "SELECT run_first('CREATE TEMP TABLE IF NOT EXISTS remains_{id} (x int)')",
            &[Then::Own(Kind::TempRelation, "remains_{id}")],
        ),
        bound(
            "SELECT run_named($1)",
            &["CREATE TABLE IF NOT EXISTS pg_temp.remains_{id} (x int)"],
            &[Then::Own(Kind::TempRelation, "remains_{id}")],
        ),
        mess(
            "INSERT INTO orders VALUES ('CREATE TEMP TABLE IF NOT EXISTS remains_{id} (x int)')",
            &[Then::Own(Kind::TempRelation, "remains_{id}")],
        ),
        mess(
            "SELECT run_named('DECLARE remains_{id} CURSOR WITH HOLD FOR SELECT 1')",
            &[Then::Own(Kind::HeldCursor, "remains_{id}")],
        ),
        mess(
            "SELECT run_named('PREPARE remains AS SELECT ''{id}''')",
            &[Then::Own(Kind::Prepared, "PREPARE remains AS SELECT '{id}'")],
        ),
        mess("SELECT run_named('LISTEN remains_{id}')", &[Then::Maybe(Kind::Channel, "remains_{id}")]),
    ],
};
