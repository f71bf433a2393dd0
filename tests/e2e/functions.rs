//! What functions set or take out of sight follows the client that ran them, and reaches nobody else.

mod first;

use crate::support::{Batch, PATIENCE, Plan, Stage, Wire, eventually};

const USER: &str = "SELECT coalesce(current_setting('app.user', true), '')";
const LOGIN: &str = "CREATE FUNCTION login(who text) RETURNS void LANGUAGE plpgsql AS \
     $$ BEGIN PERFORM set_config('app.user', who, false); SET work_mem = '5MB'; END $$";

async fn run(client: &mut Wire, sql: &str) {
    let reply = client.query(sql).await;
    assert!(reply.errors.is_empty(), "{sql}: {reply:?}");
}

/// A stage whose tenant has one server, made by somebody who is gone.
async fn stage_with(functions: &[&str]) -> Stage {
    stage_behind("SELECT 1", functions).await
}

/// The same, with something in the database that is not the tenant's.
async fn stage_behind(others: &str, functions: &[&str]) -> Stage {
    let mut stage = Stage::start(Plan::new(&["acme"]).one_server_each()).await;
    stage.postgres.psql_in("app", others).await.unwrap();
    let mut maker = stage.client("acme").await;
    for sql in functions {
        run(&mut maker, sql).await;
    }
    drop(maker);
    // A proxy that knows nothing of them.
    stage.proxy().signal("TERM");
    assert!(stage.proxy_mut().ended(PATIENCE).await.success());
    stage.proxy_mut().run_again().await;
    stage
}

async fn user(client: &mut Wire) -> String {
    client.query(USER).await.value().to_owned()
}

#[tokio::test]
async fn what_a_function_sets_follows_its_client_and_only_it() {
    let stage = stage_with(&[
        LOGIN,
        "CREATE FUNCTION outer_login(who text) RETURNS void LANGUAGE sql AS 'SELECT login(who)'",
    ])
    .await;
    let (mut ann, mut bob) = (stage.client("acme").await, stage.client("acme").await);
    run(&mut ann, "SELECT login('ann')").await;
    assert_eq!(user(&mut bob).await, "");
    assert_eq!(bob.query("SHOW work_mem").await.value(), "4MB");
    let call = Batch::new().parse("s", "SELECT outer_login($1)").bind("", "s", &["bob"]).execute("").sync();
    assert!(bob.ask(call).await.errors.is_empty());
    for _ in 0..3 {
        assert_eq!(user(&mut ann).await, "ann");
        assert_eq!(user(&mut bob).await, "bob");
        assert_eq!(bob.query("SHOW work_mem").await.value(), "5MB");
    }
    let call = Batch::new().parse("", "SELECT login($1)").bind("", "", &["eve"]).execute("").sync();
    assert!(ann.ask(call).await.errors.is_empty());
    let mut newcomer = stage.client("acme").await;
    assert_eq!(user(&mut newcomer).await, "");
    assert_eq!(user(&mut ann).await, "eve");
    run(&mut ann, "BEGIN; SELECT login('nobody'); ROLLBACK").await;
    assert_eq!(user(&mut newcomer).await, "");
    assert_eq!(user(&mut ann).await, "eve", "rolled back");
}

#[tokio::test]
async fn what_a_trigger_sets_follows_its_client_and_only_it() {
    let stage = stage_with(&[
        "CREATE TABLE logins (who text)",
        "CREATE FUNCTION on_login() RETURNS trigger LANGUAGE plpgsql AS \
         $$ BEGIN PERFORM set_config('app.user', NEW.who, false); RETURN NEW; END $$",
        "CREATE TRIGGER t BEFORE INSERT ON logins FOR EACH ROW EXECUTE FUNCTION on_login()",
    ])
    .await;
    let (mut ann, mut bob) = (stage.client("acme").await, stage.client("acme").await);
    run(&mut bob, "SELECT 1").await;
    run(&mut ann, "INSERT INTO logins VALUES ('ann')").await;
    assert_eq!(user(&mut bob).await, "");
    assert_eq!(user(&mut ann).await, "ann");
}

#[tokio::test]
async fn a_function_that_a_client_makes_is_known_at_once() {
    let stage = stage_with(&[]).await;
    let (mut ann, mut bob) = (stage.client("acme").await, stage.client("acme").await);
    run(&mut bob, "SELECT 1").await;
    run(&mut ann, LOGIN).await;
    run(&mut ann, "SELECT login('ann')").await;
    assert_eq!(user(&mut bob).await, "");
    assert_eq!(user(&mut ann).await, "ann");
    run(&mut bob, "DROP FUNCTION login; CREATE FUNCTION login(who text) RETURNS void LANGUAGE sql AS ''")
        .await;
}

#[tokio::test]
async fn a_function_that_is_replaced_in_a_long_text_is_known_at_once() {
    let stage = stage_with(&["CREATE FUNCTION login(who text) RETURNS void LANGUAGE sql AS ''"]).await;
    let (mut ann, mut bob) = (stage.client("acme").await, stage.client("acme").await);
    // Longer than what is read at once, and in the middle of it.
    let padding = "-- \n".repeat(60_000);
    let text = format!("{padding} {} {padding}", LOGIN.replace("CREATE", "cReAtE OR REPLACE"));
    for batch in [Batch::new().query(&format!("SELECT 1; {text}")), Batch::new().run(&text, &[]).sync()] {
        run(&mut bob, "SELECT login('harmless')").await;
        let reply = ann.ask(batch).await;
        assert!(reply.errors.is_empty(), "{reply:?}");
        run(&mut ann, "SELECT login('ann')").await;
        assert_eq!(bob.query("SHOW work_mem").await.value(), "4MB");
        assert_eq!(user(&mut bob).await, "");
        assert_eq!(user(&mut ann).await, "ann");
        run(&mut ann, "CREATE OR REPLACE FUNCTION login(who text) RETURNS void LANGUAGE sql AS ''").await;
    }
}

#[tokio::test]
async fn a_lock_that_a_function_takes_keeps_its_client() {
    let lock = "CREATE FUNCTION enter() RETURNS void LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_advisory_lock(7); END $$";
    let leave = "CREATE FUNCTION leave() RETURNS void LANGUAGE sql AS 'SELECT pg_advisory_unlock_all()'";
    let stage = stage_with(&[lock, leave]).await;
    let mut client = stage.client("acme").await;
    run(&mut client, "SELECT enter()").await;
    let pinned =
        async || stage.proxy().metrics().await.sum("tenantry_tenant_servers_pinned", &[("tenant", "acme")]);
    eventually("a pinned server", PATIENCE, async || (pinned().await == 1.0).then_some(())).await;
    run(&mut client, "SELECT leave()").await;
    eventually("no pinned server", PATIENCE, async || (pinned().await == 0.0).then_some(())).await;
}

#[tokio::test]
async fn a_client_that_leaves_right_behind_its_answer_costs_no_server() {
    let stage = stage_with(&[]).await;
    let mut pids = std::collections::BTreeSet::new();
    for round in 0..20 {
        let mut client = stage.client("acme").await;
        // What is set is asked for behind the answer.
        run(&mut client, &format!("SET work_mem = '{}MB'", 5 + round)).await;
        drop(client);
        let pid = stage.client("acme").await.query("SELECT pg_backend_pid()").await.value().to_owned();
        pids.insert(pid);
    }
    assert_eq!(pids.len(), 1, "{pids:?}");
}

#[tokio::test]
async fn what_functions_set_under_names_that_nobody_can_read_reaches_nobody() {
    let setter = |n: usize| {
        let body = format!("SELECT set_config(''app.k{n}'', ''x'', false)");
        format!("CREATE FUNCTION set_{n}() RETURNS text LANGUAGE sql AS '{body}';")
    };
    let many: String = (0..60).map(setter).collect();
    let computed = "CREATE FUNCTION put(k text, v text) RETURNS void LANGUAGE plpgsql AS \
         $$ BEGIN PERFORM set_config('app.' || k, v, false); END $$";
    for (functions, call) in [(computed, "SELECT put('user', 'eve')"), (many.as_str(), "SELECT set_59()")] {
        let stage = stage_with(&[functions]).await;
        let (mut ann, mut bob) = (stage.client("acme").await, stage.client("acme").await);
        assert_eq!(user(&mut bob).await, "");
        run(&mut ann, call).await;
        let look = "SELECT concat(current_setting('app.user', true), current_setting('app.k59', true))";
        assert_eq!(bob.query(look).await.value(), "", "{call}");
    }
}

#[tokio::test]
async fn functions_that_a_block_makes_or_that_change_their_name_are_known_at_once() {
    let stage = stage_with(&[]).await;
    let (mut ann, mut bob) = (stage.client("acme").await, stage.client("acme").await);
    run(&mut bob, "SELECT 1").await;
    let block = format!("DO $x$ BEGIN {LOGIN}; END $x$");
    run(&mut ann, &block).await;
    run(&mut bob, "SELECT 1").await;
    run(&mut ann, "ALTER FUNCTION login(text) RENAME TO enter").await;
    run(&mut bob, "SELECT 1").await;
    run(&mut ann, "SELECT enter('ann')").await;
    assert_eq!(user(&mut bob).await, "");
}

const ENTER: &str = "CREATE FUNCTION enter(who text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS \
     $$ BEGIN PERFORM set_config('app.user', who, false); RETURN true; END $$";
/// A function that calls one that leaves something, and leaves nothing itself as far as its text tells.
const BY_ANOTHER: &str =
    "CREATE FUNCTION visit(who text) RETURNS boolean LANGUAGE sql AS 'SELECT enter(who)'";

/// What another client, and then the client itself, sees of what a text of the client's sets.
async fn seen_of(stage: &Stage, sql: &str) -> (String, String) {
    let (mut ann, mut bob) = (stage.client("acme").await, stage.client("acme").await);
    assert_eq!(user(&mut bob).await, "");
    run(&mut ann, sql).await;
    (user(&mut bob).await, user(&mut ann).await)
}

fn kept_apart() -> (String, String) {
    (String::new(), "ann".to_owned())
}

/// Those texts behind which somebody sees what he should not.
async fn wrong_of(stage: &Stage, texts: &[&'static str]) -> Vec<(&'static str, (String, String))> {
    let mut wrong = Vec::new();
    for sql in texts {
        let seen = seen_of(stage, sql).await;
        if seen != kept_apart() {
            wrong.push((*sql, seen));
        }
    }
    wrong
}

#[tokio::test]
async fn what_runs_a_function_without_calling_it_is_found_in_the_catalog() {
    let (made, texts): (Vec<&str>, Vec<&str>) = [
        (BY_ANOTHER, ""),
        ("CREATE VIEW entered AS SELECT enter('ann')", "SELECT * FROM entered"),
        ("CREATE VIEW visited AS SELECT visit('ann'); CREATE VIEW \"B\" AS TABLE visited", "TABLE \"B\""),
        (
            "CREATE TABLE ruled (a text); CREATE RULE r AS ON INSERT TO ruled DO ALSO SELECT visit('ann')",
            "INSERT INTO ruled VALUES ('x')",
        ),
        (
            "CREATE TABLE guarded AS SELECT 'ann' AS who; CREATE POLICY p ON guarded USING (enter(who)); \
             ALTER TABLE guarded ENABLE ROW LEVEL SECURITY; ALTER TABLE guarded FORCE ROW LEVEL SECURITY",
            "SELECT count(*) FROM guarded",
        ),
        ("CREATE VIEW seen AS SELECT FROM guarded", "SELECT FROM seen"),
        ("CREATE TABLE filled (a int, b boolean DEFAULT enter('ann'))", "INSERT INTO filled VALUES (1)"),
        (
            "CREATE TABLE generated (a text, b boolean GENERATED ALWAYS AS (enter(a)) STORED)",
            "INSERT INTO generated VALUES ('ann')",
        ),
        ("CREATE TABLE checked (a text CHECK (enter(a)))", "INSERT INTO checked VALUES ('ann')"),
        (
            "CREATE TABLE parted (a text) PARTITION BY LIST (a); \
             CREATE TABLE part PARTITION OF parted (CHECK (enter(a))) DEFAULT",
            "INSERT INTO parted VALUES ('ann')",
        ),
        (
            "CREATE TABLE parent (a text PRIMARY KEY); INSERT INTO parent VALUES ('x'); CREATE TABLE child \
             (b text REFERENCES parent ON UPDATE CASCADE, CHECK (b = 'x' OR enter(b))); INSERT INTO child VALUES ('x')",
            "UPDATE parent SET a = 'ann'",
        ),
        (
            "CREATE TABLE indexed (a text); CREATE INDEX ON indexed (enter(a))",
            "INSERT INTO indexed VALUES ('ann')",
        ),
        (
            "CREATE FUNCTION step(a text, b text) RETURNS text LANGUAGE sql AS 'SELECT b WHERE enter(b)'; \
             CREATE AGGREGATE last_of(text) (SFUNC = step, STYPE = text)",
            "SELECT last_of('ann')",
        ),
        (
            "CREATE TABLE visits AS SELECT 'ann' AS who; \
             CREATE FUNCTION left_by(visits) RETURNS boolean LANGUAGE sql AS 'SELECT enter($1.who)'",
            "SELECT x.left_by FROM visits x",
        ),
    ]
    .into_iter()
    .unzip();
    let made: Vec<&str> = [ENTER].into_iter().chain(made).collect();
    let wrong = wrong_of(&stage_with(&made).await, texts.get(1..).unwrap()).await;
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn a_function_that_no_word_tells_of_is_expected_in_every_text() {
    let mut wrong = Vec::new();
    for (made, sql) in [
        ("CREATE DOMAIN d AS text CHECK (enter(VALUE))", "SELECT 'ann'::d"),
        ("CREATE OPERATOR ## (RIGHTARG = text, FUNCTION = enter)", "SELECT ## text 'ann'"),
        (
            "CREATE TYPE person AS (name text); \
             CREATE FUNCTION to_bool(person) RETURNS boolean LANGUAGE sql AS 'SELECT enter($1.name)'; \
             CREATE CAST (person AS boolean) WITH FUNCTION to_bool",
            "SELECT row('ann')::person::boolean",
        ),
    ] {
        wrong.extend(wrong_of(&stage_with(&[ENTER, made]).await, &[sql]).await);
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn functions_of_schemas_that_the_tenant_may_use_or_its_relations_use_are_known() {
    let body = "RETURNS boolean LANGUAGE plpgsql AS \
        $$ BEGIN PERFORM set_config('app.user', 'ann', false); RETURN true; END $$";
    let hidden = format!(
        "CREATE SCHEMA hidden; CREATE FUNCTION hidden.enter() {body}; \
         CREATE VIEW schema_acme.entered AS SELECT hidden.enter(); GRANT SELECT ON schema_acme.entered TO role_acme"
    );
    let granted = "CREATE SCHEMA granted; CREATE ROLE friends; GRANT friends TO role_acme; ALTER ROLE role_acme INHERIT";
    let mut wrong = Vec::new();
    for (others, sql) in [
        (
            format!("GRANT USAGE ON SCHEMA public TO PUBLIC; CREATE FUNCTION public.enter() {body}"),
            "SELECT public.enter()",
        ),
        (
            format!(
                "CREATE SCHEMA open; GRANT USAGE ON SCHEMA open TO PUBLIC; CREATE FUNCTION open.enter() {body}"
            ),
            "SELECT open.enter()",
        ),
        (
            format!(
                "{granted}; GRANT USAGE ON SCHEMA granted TO friends; CREATE FUNCTION granted.enter() {body}"
            ),
            "SELECT granted.enter()",
        ),
        (hidden, "SELECT * FROM entered"),
    ] {
        let stage = stage_behind(&others, &[]).await;
        wrong.extend(wrong_of(&stage, &[sql]).await);
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn a_view_that_a_client_makes_is_known_at_once() {
    let stage = stage_with(&[ENTER]).await;
    let mut maker = stage.client("acme").await;
    run(&mut maker, "SELECT 1").await;
    run(&mut maker, "CREATE VIEW entered AS SELECT enter('ann')").await;
    assert_eq!(seen_of(&stage, "TABLE entered").await, kept_apart());
}

const LATE: &str = "FUNCTION late() RETURNS boolean LANGUAGE plpgsql AS \
     $y$ BEGIN PERFORM set_config('app.user', 'ann', false); RETURN true; END $y$";

#[tokio::test]
async fn functions_and_views_that_functions_make_are_known_behind_their_call() {
    let harmless = "CREATE FUNCTION late() RETURNS boolean LANGUAGE sql AS 'SELECT true'";
    let make = format!("EXECUTE $e$CREATE {LATE}$e$;");
    let replace = "EXECUTE $e$CREATE OR REPLACE FUNCTION late() RETURNS boolean LANGUAGE plpgsql AS \
         $y$ BEGIN SET app.\"user\" = 'ann'; RETURN true; END $y$$e$;";
    let procedure =
        |body: &str| format!("CREATE PROCEDURE make() LANGUAGE plpgsql AS $x$ BEGIN {body} END $x$");
    let function = |body: &str| {
        format!("CREATE FUNCTION make() RETURNS int LANGUAGE plpgsql AS $x$ BEGIN {body} RETURN 1; END $x$")
    };
    let runner =
        "CREATE FUNCTION run(x text) RETURNS int LANGUAGE plpgsql AS $$ BEGIN EXECUTE x; RETURN 1; END $$";
    let through_run = format!("SELECT run($x$CREATE {LATE}$x$)");
    let view = function("EXECUTE format('CREATE VIEW %I AS SELECT enter(''ann'')', 'entered');");
    let prepared = "PREPARE p AS SELECT make()";
    let call = "SELECT late()";
    let mut wrong = Vec::new();
    for (made, run_by, sql) in [
        (vec![procedure(&make)], vec!["CALL make()"], call),
        (vec![procedure(&make)], vec!["DO $$ BEGIN CALL make(); END $$"], call),
        (vec![function(&make)], vec!["SELECT make()"], call),
        (vec![function(&make)], vec![prepared, "EXECUTE p", "DEALLOCATE p"], call),
        (vec![runner.to_owned()], vec![&*through_run], call),
        (vec![ENTER.to_owned(), view], vec!["SELECT make()"], "TABLE entered"),
        (vec![harmless.to_owned(), function(replace)], vec!["SELECT make()"], call),
    ] {
        let made: Vec<&str> = made.iter().map(String::as_str).collect();
        let stage = stage_with(&made).await;
        let mut maker = stage.client("acme").await;
        run(&mut maker, "SELECT 1").await;
        // What there is before is known when somebody else gets the server.
        run(&mut stage.client("acme").await, "SELECT 1").await;
        for text in &run_by {
            run(&mut maker, text).await;
        }
        let seen = seen_of(&stage, sql).await;
        if seen != kept_apart() {
            wrong.push((run_by.join("; "), seen));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn a_function_that_runs_what_it_is_given_may_set_anything() {
    let mut wrong = Vec::new();
    for (made, sql) in [
        (
            "run(x text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN EXECUTE x; RETURN ''; END $$",
            "SELECT run('{}')",
        ),
        (
            "run(x text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN EXECUTE format('%s', x); RETURN ''; END $$",
            "SELECT run('{}')",
        ),
        (
            "run(x text) RETURNS SETOF text LANGUAGE plpgsql AS $$ BEGIN RETURN QUERY EXECUTE x; END $$",
            "SELECT run('SELECT set_con' || 'fig(''work_mem'', ''7MB'', false)')",
        ),
        (
            "run() RETURNS void LANGUAGE plpgsql AS $$ BEGIN EXECUTE 'se' || 't work_mem = ''7MB'''; END $$",
            "SELECT run()",
        ),
    ] {
        let stage = stage_with(&[&format!("CREATE FUNCTION {made}")]).await;
        let (mut ann, mut bob) = (stage.client("acme").await, stage.client("acme").await);
        run(&mut ann, &sql.replace("{}", "SET work_mem = ''7MB''")).await;
        let others = bob.query("SHOW work_mem").await.value().to_owned();
        let own = ann.query("SHOW work_mem").await.value().to_owned();
        if (&*others, &*own) != ("4MB", "7MB") {
            wrong.push((made, others, own));
        }
        if sql.contains("{}") {
            run(&mut ann, &sql.replace("{}", "SET app.\"user\" = ''ann''")).await;
            assert_eq!(user(&mut bob).await, "", "{made}");
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn a_name_that_is_computed_leaves_the_others_with_their_client() {
    let computed = "CREATE FUNCTION set_any(k text, v text) RETURNS void LANGUAGE plpgsql AS \
        $$ BEGIN PERFORM set_config('app.' || k, v, false); END $$";
    assert_eq!(seen_of(&stage_with(&[ENTER, computed]).await, "SELECT enter('ann')").await, kept_apart());
}

#[tokio::test]
async fn what_is_made_in_pg_temp_out_of_sight_is_gone_with_its_client() {
    let make = "CREATE FUNCTION make() RETURNS void LANGUAGE plpgsql AS \
        $$ BEGIN CREATE TABLE pg_temp.orders (a int); END $$";
    for sql in [
        ["SELECT make()", "SELECT 1"],
        ["SET search_path = pg_temp, schema_acme", "CREATE TABLE orders (a int)"],
    ] {
        let stage = stage_with(&[make]).await;
        let mut ann = stage.client("acme").await;
        for sql in sql {
            run(&mut ann, sql).await;
        }
        drop(ann);
        let mut bob = stage.client("acme").await;
        let orders = "SELECT count(*) FROM pg_class WHERE relname = 'orders'";
        assert_eq!(bob.query(orders).await.value(), "0", "{sql:?}");
    }
}

#[tokio::test]
async fn what_a_sequence_gave_another_client_is_not_told_by_functions() {
    let sequence = "CREATE SEQUENCE numbers";
    let asking =
        "CREATE FUNCTION last() RETURNS bigint LANGUAGE plpgsql AS $$ BEGIN RETURN lastval(); END $$";
    let mut wrong = Vec::new();
    for (made, sql) in [
        (vec![sequence, asking], "SELECT last()"),
        (vec![sequence], "DO $$ BEGIN RAISE NOTICE '%', lastval(); END $$"),
        (vec![sequence], "SELECT query_to_xml('SELECT lastval()', true, false, '')"),
    ] {
        let stage = stage_with(&made).await;
        let (mut ann, mut bob) = (stage.client("acme").await, stage.client("acme").await);
        run(&mut bob, "SELECT 1").await;
        assert_eq!(ann.query("SELECT nextval('numbers')").await.value(), "1");
        let reply = bob.query(sql).await;
        if reply.errors.iter().all(|error| error.code != "55000") {
            wrong.push((sql, reply));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn functions_that_come_or_run_behind_their_parse_are_known() {
    let enter = "SELECT enter('ann')";
    let enter_now = || Batch::new().bind("", "", &[]).execute("").sync();
    // Prepared in one request and bound in the next: the text that makes the function, and the one that calls it.
    let stage = stage_with(&[]).await;
    let mut maker = stage.client("acme").await;
    assert!(maker.ask(Batch::new().parse("", ENTER).sync()).await.errors.is_empty());
    settled(&stage).await;
    assert!(maker.ask(enter_now()).await.errors.is_empty());
    assert_eq!(seen_of(&stage, enter).await, kept_apart(), "made behind its Parse");
    let stage = stage_with(&[ENTER]).await;
    let (mut ann, mut bob) = (stage.client("acme").await, stage.client("acme").await);
    assert!(ann.ask(Batch::new().parse("", enter).sync()).await.errors.is_empty());
    settled(&stage).await;
    assert!(ann.ask(enter_now()).await.errors.is_empty());
    assert_eq!(user(&mut bob).await, "", "called behind its Parse, which came before anything was known");
}

/// Returns when the server has been asked what there is to ask, and another client has had it.
async fn settled(stage: &Stage) {
    run(&mut stage.client("acme").await, "SELECT 1").await;
}

#[tokio::test]
async fn functions_that_are_committed_behind_newer_ones_are_known() {
    let maker = |name: &str| {
        format!(
            "CREATE PROCEDURE make_{name}() LANGUAGE plpgsql AS $x$ BEGIN EXECUTE \
             $e$CREATE FUNCTION {name}() RETURNS boolean LANGUAGE plpgsql AS \
             $y$ BEGIN SET app.\"user\" = 'ann'; RETURN true; END $y$$e$; END $x$"
        )
    };
    let stage = Stage::start(Plan::new(&["acme"])).await;
    let (mut ann, mut bob) = (stage.client("acme").await, stage.client("acme").await);
    for name in ["early", "late"] {
        run(&mut ann, &maker(name)).await;
    }
    settled(&stage).await;
    run(&mut ann, "BEGIN; CALL make_early()").await;
    run(&mut bob, "CALL make_late()").await;
    settled(&stage).await;
    run(&mut ann, "COMMIT").await;
    settled(&stage).await;
    assert_eq!(seen_of(&stage, "SELECT early()").await, kept_apart());
}

#[tokio::test]
async fn what_a_function_prepares_or_holds_keeps_its_client() {
    let function = |body: &str| format!("CREATE FUNCTION f() RETURNS void LANGUAGE sql AS '{body}'");
    let mut wrong = Vec::new();
    for (body, look) in [
        ("DECLARE c CURSOR WITH HOLD FOR SELECT 1", "SELECT count(*) FROM pg_cursors"),
        ("PREPARE p AS SELECT 1", "SELECT count(*) FROM pg_prepared_statements WHERE from_sql"),
    ] {
        let stage = Stage::start(Plan::new(&["acme"])).await;
        let (mut ann, mut bob) = (stage.client("acme").await, stage.client("acme").await);
        run(&mut ann, &function(body)).await;
        settled(&stage).await;
        run(&mut ann, "SELECT f()").await;
        let seen = (bob.query(look).await.value().to_owned(), ann.query(look).await.value().to_owned());
        if seen != ("0".to_owned(), "1".to_owned()) {
            wrong.push((body, seen));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn a_text_that_was_sent_before_its_function_changed_is_expected_to_run_the_new_one() {
    let stage = Stage::start(Plan::new(&["acme"])).await;
    let (mut ann, mut bob) = (stage.client("acme").await, stage.client("acme").await);
    run(
        &mut ann,
        "CREATE TABLE gate (); CREATE FUNCTION late() RETURNS boolean LANGUAGE sql AS 'SELECT true'",
    )
    .await;
    settled(&stage).await;
    run(&mut ann, "BEGIN; LOCK TABLE gate").await;
    bob.send(&Batch::new().query("BEGIN; LOCK TABLE gate; SELECT late(); COMMIT").0).await;
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
    eventually("a client behind the lock", PATIENCE, async || {
        let rows = stage.postgres.psql_in("app", waits).await.unwrap();
        (rows[0][0].as_deref() == Some("1")).then_some(())
    })
    .await;
    run(&mut ann, &format!("CREATE OR REPLACE {LATE}; COMMIT")).await;
    settled(&stage).await;
    assert!(bob.until_ready().await.errors.is_empty());
    // On all of the tenant's servers.
    let mut others = Vec::new();
    for _ in 0..4 {
        let mut client = stage.client("acme").await;
        run(&mut client, "BEGIN").await;
        assert_eq!(user(&mut client).await, "");
        others.push(client);
    }
}

#[tokio::test]
async fn a_server_with_what_no_reset_takes_away_is_nobody_elses() {
    let mode = "CREATE FUNCTION isn_weak(boolean) RETURNS boolean LANGUAGE sql AS 'SELECT $1'";
    let stage = stage_with(&[mode]).await;
    let mut client = stage.client("acme").await;
    let reply = client.query("SELECT isn_weak(true), pg_backend_pid()").await;
    let pid = reply.rows[0][1].clone();
    let now = stage.client("acme").await.query("SELECT pg_backend_pid()").await;
    assert_ne!(now.rows[0][0], pid);
}
