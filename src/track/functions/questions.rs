//! What the catalog is asked about functions.
//!
//! Owns three questions. The first tells whether there are any but Postgres' own: five index look-ups. The second costs
//! what the tenant has, not what the database has: `pg_depend` and `pg_shdepend` have indexes for it, and `pg_proc` has none
//! that finds a schema's functions. The third is asked only where functions were found that leave something behind.
//!
//! A server that has just logged in pays for each catalog, operator and type that it hears of first, and for planning more
//! than for the rows. So a catalog's number is written as such, arrays are made before they are used (of those the planner
//! takes ten rows to come, and no catalog as a whole), and `OFFSET 0` keeps look-ups in the order they are written in.

use super::super::answers::hex_of;
use super::super::params;

/// Which functions are the newest, for [`are_there`]: with the numbers of [`made`], in one row, found by indexes.
pub(super) fn newest() -> String {
    format!("{UNLIMITED}SELECT {NEWEST}")
}

/// Whether there are functions that are not Postgres' own, given the answer to [`newest`]: the first number is the greatest
/// of all functions, and none that somebody made has a smaller one than this, even if the numbers have gone round.
pub(super) fn are_there(newest: &[u8]) -> bool {
    let greatest =
        newest.split(|byte| *byte == b',').next().and_then(|number| std::str::from_utf8(number).ok());
    greatest.and_then(|number| number.parse::<u32>().ok()).is_none_or(|number| number >= FIRST_OWN_OID)
}

/// The functions that a role's texts may run: those in its schemas, in others that it may use, those that relations in
/// either call wherever they are, and those of event triggers.
///
/// Rows: number, name, whether it is a trigger's, whether its language is SQL or PL/pgSQL, whether it belongs to an
/// extension (only if it says something suspicious), and its body if that does.
pub(super) fn functions(schemas: Option<&[Box<str>]>) -> String {
    let schemas = match schemas {
        Some(schemas) => {
            let names: Vec<String> = schemas.iter().map(|schema| params::literal(schema)).collect();
            format!("ARRAY[{}]::pg_catalog.name[]", names.join(","))
        }
        None => "pg_catalog.current_schemas(false)".to_owned(),
    };
    format!(
        "{UNLIMITED}WITH RECURSIVE m(r) AS (\
         SELECT pg_catalog.to_regrole(pg_catalog.quote_ident(session_user))::pg_catalog.oid \
         UNION SELECT a.roleid FROM m JOIN pg_catalog.pg_auth_members a ON a.member {EQ} m.r),\
         n(o) AS (SELECT pg_catalog.unnest(ARRAY(\
         SELECT oid FROM pg_catalog.pg_namespace WHERE nspname {EQ} ANY({schemas}) \
         UNION SELECT s.objid FROM pg_catalog.pg_shdepend s WHERE s.refclassid {EQ} {AUTHID} AND s.classid {EQ} {NAMESPACE} \
         AND s.refobjid {EQ} ANY(ARRAY(SELECT r FROM m)) AND s.dbid {EQ} (SELECT oid FROM pg_catalog.pg_database \
         WHERE datname {EQ} pg_catalog.current_database()) \
         UNION SELECT oid FROM pg_catalog.pg_namespace WHERE nspacl IS NOT NULL \
         AND (oid OPERATOR(pg_catalog.>=) {FIRST_OWN_OID}::pg_catalog.oid OR nspname {EQ} 'public') \
         AND pg_catalog.aclcontains(nspacl,pg_catalog.makeaclitem(0,nspowner,'USAGE',false))))),\
         x(c,o) AS (SELECT d.classid,d.objid FROM n CROSS JOIN LATERAL (SELECT classid,objid FROM pg_catalog.pg_depend \
         WHERE refclassid {EQ} {NAMESPACE} AND refobjid {EQ} n.o AND classid {EQ} ANY({made}) OFFSET 0) d),\
         f(o) AS (SELECT o FROM x WHERE c {EQ} {PROC} \
         UNION SELECT u.refobjid FROM x CROSS JOIN LATERAL (SELECT classid,objid FROM pg_catalog.pg_depend \
         WHERE refclassid {EQ} {CLASS} AND refobjid {EQ} x.o \
         AND deptype {EQ} ANY('{{a,i}}') AND classid {EQ} ANY({users}) OFFSET 0) d \
         CROSS JOIN LATERAL (SELECT refobjid FROM pg_catalog.pg_depend \
         WHERE classid {EQ} d.classid AND objid {EQ} d.objid AND refclassid {EQ} {PROC} OFFSET 0) u WHERE x.c {EQ} {CLASS} \
         UNION SELECT evtfoid FROM pg_catalog.pg_event_trigger) \
         SELECT p.oid,{name},p.prorettype {EQ} 'pg_catalog.trigger'::pg_catalog.regtype::pg_catalog.oid,{is_read},\
         e.yes,CASE WHEN s.yes THEN {body} END \
         FROM f JOIN pg_catalog.pg_proc p ON p.oid {EQ} f.o JOIN pg_catalog.pg_language l ON l.oid {EQ} p.prolang \
         CROSS JOIN LATERAL (SELECT CASE WHEN p.prosqlbody IS NULL THEN p.prosrc \
         ELSE pg_catalog.pg_get_function_sqlbody(p.oid) END AS body OFFSET 0) b \
         CROSS JOIN LATERAL (SELECT b.body OPERATOR(pg_catalog.~*) E'{SUSPICIOUS}' OR NOT {is_read} AS yes OFFSET 0) s \
         CROSS JOIN LATERAL (SELECT EXISTS(SELECT FROM pg_catalog.pg_depend d WHERE d.classid {EQ} {PROC} \
         AND d.objid {EQ} p.oid AND d.deptype {EQ} 'e') AS yes OFFSET 0) e \
         WHERE l.lanname OPERATOR(pg_catalog.<>) ALL('{{internal,c}}') AND (s.yes OR NOT e.yes)",
        made = any_of(&[PROC, CLASS]),
        users = any_of(&[REWRITE, POLICY, TRIGGER, ATTRDEF, CONSTRAINT]),
        is_read = format_args!("l.lanname {EQ} ANY('{{sql,plpgsql}}')"),
        name = hex_of("p.proname::pg_catalog.text", MAX_BODY_BYTES),
        body = hex_of("b.body", MAX_BODY_BYTES),
    )
}

/// The numbers of the newest functions, and of the newest of what runs them unseen: another answer means that some were made
/// or dropped. One row, found by indexes.
pub(super) fn made() -> String {
    format!("SELECT {NEWEST}")
}

/// What runs these functions without naming them: whatever depends on them, on what depends on them, and so on.
///
/// Rows: the sort (a function, a relation, a trigger, or anything else, of which no text need tell), and the name of the
/// first two. From a rule, a policy, a default or a constraint the way goes to its table, from a table to the views and
/// policies that read it, to what it is a partition of, and to what its foreign keys refer to (whose changes reach it).
pub(super) fn reach(oids: &[Box<str>]) -> String {
    let parts = any_of(&[REWRITE, POLICY, ATTRDEF, CONSTRAINT]);
    // The planner takes the walk for so long that it compiles it, which takes a hundred times as long as the walk.
    format!(
        "{UNLIMITED}SET LOCAL jit=off;WITH RECURSIVE r(c,o) AS (\
         SELECT {PROC}::pg_catalog.oid,pg_catalog.unnest('{{{oids}}}'::pg_catalog.oid[]) \
         UNION SELECT x.c,x.o FROM r CROSS JOIN LATERAL (\
         SELECT d.classid,d.objid FROM pg_catalog.pg_depend d WHERE d.refclassid {EQ} r.c AND d.refobjid {EQ} r.o \
         AND (r.c {NE} {CLASS} OR d.classid {EQ} ANY({readers})) \
         UNION ALL SELECT d.refclassid,d.refobjid FROM pg_catalog.pg_depend d WHERE d.classid {EQ} r.c AND d.objid {EQ} r.o \
         AND d.deptype {EQ} ANY('{{a,i}}') AND d.refclassid {EQ} ANY({kept}) AND r.c {EQ} ANY({parts}) \
         UNION ALL SELECT r.c,i.indrelid FROM pg_catalog.pg_index i WHERE i.indexrelid {EQ} r.o AND r.c {EQ} {CLASS} \
         UNION ALL SELECT r.c,i.inhparent FROM pg_catalog.pg_inherits i WHERE i.inhrelid {EQ} r.o AND r.c {EQ} {CLASS} \
         UNION ALL SELECT r.c,k.confrelid FROM pg_catalog.pg_constraint k \
         WHERE k.conrelid {EQ} r.o AND k.contype {EQ} 'f' AND r.c {EQ} {CLASS}) x(c,o)) \
         SELECT DISTINCT CASE WHEN r.c {EQ} {PROC} THEN 'f' WHEN r.c {EQ} {CLASS} THEN 'r' \
         WHEN r.c {EQ} {TRIGGER} THEN 't' ELSE 'x' END,\
         CASE WHEN r.c {EQ} {PROC} THEN (SELECT {function} FROM pg_catalog.pg_proc p WHERE p.oid {EQ} r.o) \
         WHEN r.c {EQ} {CLASS} THEN (SELECT {relation} FROM pg_catalog.pg_class k WHERE k.oid {EQ} r.o) END \
         FROM r WHERE r.c {NE} ALL({parts})",
        oids = oids.join(","),
        readers = any_of(&[REWRITE, POLICY, PROC]),
        kept = any_of(&[CLASS, TYPE]),
        function = hex_of("p.proname::pg_catalog.text", MAX_BODY_BYTES),
        relation = hex_of("k.relname::pg_catalog.text", MAX_BODY_BYTES),
    )
}

/// For `ANY` and `ALL`.
fn any_of(classes: &[u32]) -> String {
    let numbers: Vec<String> = classes.iter().map(u32::to_string).collect();
    format!("'{{{}}}'::pg_catalog.oid[]", numbers.join(","))
}

/// The catalogs of what depends and is depended on (`src/include/catalog`): their numbers are the same in all versions.
const TYPE: u32 = 1247;
const PROC: u32 = 1255;
const CLASS: u32 = 1259;
const AUTHID: u32 = 1260;
const ATTRDEF: u32 = 2604;
const CONSTRAINT: u32 = 2606;
const NAMESPACE: u32 = 2615;
const REWRITE: u32 = 2618;
const TRIGGER: u32 = 2620;
const POLICY: u32 = 3256;

/// Operators are named with their schema, and `IN` and `CASE x WHEN` are not used, which have one in them: a client's
/// search_path may begin with a schema of its own, with others of the same names in it.
const EQ: &str = "OPERATOR(pg_catalog.=)";
const NE: &str = "OPERATOR(pg_catalog.<>)";

/// A longer body may do anything.
pub(super) const MAX_BODY_BYTES: usize = 256 * 1024;

/// From here on objects are not Postgres' own (`src/include/access/transam.h`, FirstNormalObjectId).
const FIRST_OWN_OID: u32 = 16384;

/// What a body says that leaves something behind; less is sent then.
const SUSPICIOUS: &str = "set_config|pg_settings|advisory_lock|pg_temp|(last|curr)val\
     |to_xml|ts_stat|ts_rewrite|u&\
     |\\\\m(set|reset|discard|listen|temp|temporary|hold|prepare|deallocate|execute|create|alter)\\\\M";

/// A client's limits are for its own statements.
const UNLIMITED: &str = "SET LOCAL statement_timeout=0;SET LOCAL lock_timeout=0;";

const NEWEST: &str = "pg_catalog.concat_ws(',',(SELECT oid FROM pg_catalog.pg_proc ORDER BY oid DESC LIMIT 1),\
     (SELECT oid FROM pg_catalog.pg_rewrite ORDER BY oid DESC LIMIT 1),\
     (SELECT oid FROM pg_catalog.pg_trigger ORDER BY oid DESC LIMIT 1),\
     (SELECT oid FROM pg_catalog.pg_policy ORDER BY oid DESC LIMIT 1),\
     (SELECT oid FROM pg_catalog.pg_operator ORDER BY oid DESC LIMIT 1))";
