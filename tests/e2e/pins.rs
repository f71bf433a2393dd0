//! What works on one server only keeps its client there, for as long as it lasts, within limits, and visibly.

use crate::support::{Batch, Plan, Stage, Wire, eventually};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(10);

async fn pinned(stage: &Stage) -> f64 {
    stage.proxy().metrics().await.sum("tenantry_tenant_servers_pinned", &[("tenant", "acme")])
}

async fn has_pins(stage: &Stage, count: f64) {
    eventually("as many pinned servers", PATIENCE, async || (pinned(stage).await == count).then_some(()))
        .await;
}

async fn all_right(client: &mut Wire, sql: &str) {
    let reply = client.query(sql).await;
    assert!(reply.errors.is_empty(), "{sql}: {reply:?}");
}

#[tokio::test]
async fn a_pin_ends_with_what_caused_it() {
    let stage = Stage::start(Plan::new(&["acme"]).one_server_each()).await;
    let (mut client, mut other) = (stage.client("acme").await, stage.client("acme").await);
    for (keeps, ends) in [
        ("LISTEN news", "UNLISTEN news"),
        ("LISTEN news; LISTEN more", "UNLISTEN *"),
        ("SELECT pg_advisory_lock(7)", "SELECT pg_advisory_unlock(7)"),
        ("SELECT pg_advisory_lock_shared(7)", "SELECT pg_advisory_unlock_all()"),
        ("CREATE TEMP TABLE mine (x int)", "DROP TABLE mine"),
        ("CREATE TEMP TABLE mine (x int)", "DISCARD TEMP"),
        ("CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS 'SELECT 1'", "DROP FUNCTION pg_temp.f()"),
        ("DECLARE c CURSOR WITH HOLD FOR SELECT 1", "CLOSE c"),
        ("PREPARE p AS SELECT 1", "DEALLOCATE p"),
        ("PREPARE p AS SELECT 1", "SELECT 1; DEALLOCATE p"),
        ("SELECT pg_advisory_lock(7)", "DISCARD ALL"),
        ("BEGIN; CREATE TEMP TABLE mine (x int)", "ROLLBACK"),
        (
            "DO $$ BEGIN PERFORM pg_advisory_lock(7); END $$",
            "DO $$ BEGIN PERFORM pg_advisory_unlock(7); END $$",
        ),
    ] {
        for is_extended in [false, true] {
            all_right(&mut client, keeps).await;
            all_right(&mut client, "SELECT 1").await;
            let open = keeps.starts_with("DO");
            if !open {
                assert_eq!(pinned(&stage).await, 1.0, "{keeps}");
            }
            if is_extended && !ends.contains(';') {
                let reply = client.ask(Batch::new().run(ends, &[]).sync()).await;
                assert!(reply.errors.is_empty(), "{ends}: {reply:?}");
            } else {
                all_right(&mut client, ends).await;
            }
            all_right(&mut other, "SELECT 'after'").await;
            has_pins(&stage, 0.0).await;
        }
    }
}

/// The path is back when anybody could look at it, and the table is still there.
#[tokio::test]
async fn a_table_that_a_passing_path_makes_temporary_keeps_its_client() {
    const MAKE: &str = "CREATE TABLE passing (x int)";
    let stage = Stage::start(Plan::new(&["acme"]).one_server_each()).await;
    let (mut client, mut other) = (stage.client("acme").await, stage.client("acme").await);
    let bound = |path: &str| {
        let begin = Batch::new().run("BEGIN", &[]).run("SELECT set_config('search_path', $1, true)", &[path]);
        begin.run(MAKE, &[]).run("COMMIT", &[]).sync()
    };
    let texts = [
        "BEGIN; SET LOCAL search_path = 'pg_temp', schema_acme; CREATE TABLE passing (x int); COMMIT",
        r"BEGIN; SET LOCAL search_path = U&'pg\005ftemp', schema_acme; CREATE TABLE passing (x int); COMMIT",
        "SELECT set_config('search_path', 'pg_temp, schema_acme', true); CREATE TABLE passing (x int)",
        "SET search_path = 'pg_temp', schema_acme; CREATE TABLE passing (x int); RESET search_path",
    ];
    let mut batches: Vec<_> = texts.into_iter().map(|text| Batch::new().query(text)).collect();
    batches.push(bound("PG_TEMP, schema_acme"));
    for (number, batch) in batches.into_iter().enumerate() {
        let reply = client.ask(batch).await;
        assert!(reply.errors.is_empty(), "{number}: {reply:?}");
        all_right(&mut client, "SELECT 1").await;
        assert_eq!(pinned(&stage).await, 1.0, "{number}");
        all_right(&mut client, "DROP TABLE pg_temp.passing").await;
        all_right(&mut other, "SELECT 'after'").await;
        has_pins(&stage, 0.0).await;
    }
    let reply = client.ask(bound("schema_acme")).await;
    assert!(reply.errors.is_empty(), "{reply:?}");
    all_right(&mut other, "SELECT 'meanwhile'").await;
}

/// What a reset that fails calls for brings rows of its own, in front of the answer.
#[tokio::test]
async fn a_lock_behind_a_reset_that_fails_keeps_its_client() {
    let stage = Stage::start(Plan::new(&["acme"]).one_server_each()).await;
    let mut client = stage.client_with("acme", &[("application_name", "billing")]).await;
    let mut other = stage.client("acme").await;
    // What is asked of every new server is out of the way.
    all_right(&mut other, "SELECT 1").await;
    for locks in ["SELECT pg_advisory_lock(7); RESET ALL; SELECT 1/0", "LOCK; RESET ALL; SELECT 1/0"] {
        let locks = locks.replace("LOCK", "DO $$ BEGIN PERFORM pg_advisory_lock(7); END $$");
        assert_eq!(client.query(&locks).await.code(), "22012");
        has_pins(&stage, 1.0).await;
        all_right(&mut client, "SELECT pg_advisory_unlock(7)").await;
        all_right(&mut other, "SELECT 'after'").await;
        has_pins(&stage, 0.0).await;
    }
}

/// The proxy's own questions mean what they say, whatever the client's search_path begins with.
#[tokio::test]
async fn operators_of_a_client_do_not_answer_for_the_server() {
    let stage = Stage::start(Plan::new(&["acme"]).one_server_each()).await;
    let (mut client, mut other) = (stage.client("acme").await, stage.client("acme").await);
    for of in ["oid", "text", "name", "int4"] {
        let no =
            format!("CREATE FUNCTION no({of}, {of}) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT false'");
        all_right(&mut client, &no).await;
        for operator in ["=", "<>"] {
            let make = format!("CREATE OPERATOR {operator} (LEFTARG = {of}, RIGHTARG = {of}, FUNCTION = no)");
            all_right(&mut client, &make).await;
        }
    }
    all_right(&mut client, "SET search_path = schema_acme, pg_catalog").await;
    for (keeps, ends) in [
        ("CREATE TEMP TABLE mine (x int)", "DROP TABLE mine"),
        ("DO $$ BEGIN PERFORM pg_advisory_lock(7); END $$", "SELECT pg_advisory_unlock(7)"),
    ] {
        all_right(&mut client, keeps).await;
        all_right(&mut client, "SELECT 1").await;
        has_pins(&stage, 1.0).await;
        all_right(&mut client, ends).await;
        all_right(&mut other, "SELECT 'after'").await;
    }
    all_right(&mut client, "DO $$ BEGIN SET work_mem = '5MB'; END $$").await;
    assert_eq!(other.query("SHOW work_mem").await.value(), "4MB");
    assert_eq!(client.query("SHOW work_mem").await.value(), "5MB");
    for hides in [
        "CREATE FUNCTION hides() RETURNS text LANGUAGE plpgsql AS \
         $$ BEGIN SET work_mem = '6MB'; RETURN 'x'; END $$",
        "CREATE VIEW calls AS SELECT hides()",
    ] {
        all_right(&mut client, hides).await;
    }
    for calls in ["SELECT hides()", "TABLE calls"] {
        all_right(&mut other, calls).await;
        assert_eq!(client.query("SHOW work_mem").await.value(), "5MB", "{calls}");
        assert_eq!(other.query("SHOW work_mem").await.value(), "6MB");
        all_right(&mut other, "RESET work_mem").await;
    }
}

#[tokio::test]
async fn what_only_looks_like_a_pin_is_none() {
    let stage = Stage::start(Plan::new(&["acme"]).one_server_each()).await;
    let (mut client, mut other) = (stage.client("acme").await, stage.client("acme").await);
    for harmless in [
        "SELECT pg_try_advisory_lock(7), pg_advisory_unlock(7)",
        "BEGIN; LISTEN news; ROLLBACK",
        "CREATE TEMP TABLE mine (x int); DROP TABLE mine",
        "DEALLOCATE ALL; SELECT 1",
        "BEGIN; PREPARE p AS SELECT 1; DEALLOCATE p; COMMIT",
        "DO $$ BEGIN PERFORM 1; END $$",
    ] {
        all_right(&mut client, harmless).await;
        all_right(&mut other, "SELECT 'after'").await;
        has_pins(&stage, 0.0).await;
    }
}

#[tokio::test]
async fn a_value_too_long_to_be_carried_keeps_its_client_until_it_is_gone() {
    let stage = Stage::start(Plan::new(&["acme"]).budget(20)).await;
    let (mut client, mut other) = (stage.client("acme").await, stage.client("acme").await);
    let long = |bytes: usize| "v".repeat(bytes);
    let many: String = (0..30).map(|n| format!("SET my.many{n} = '{}';", long(8000))).collect();
    for (sets, ends) in [
        (Batch::new().query(&format!("SET my.long = '{}'", long(9000))), "RESET my.long"),
        (Batch::new().query(&format!("SET my.long = '{}'", long(200_000))), "SET my.long = 'short'"),
        (Batch::new().query(&format!("SET my.long = '{}'", long(3_000_000))), "RESET ALL"),
        (
            Batch::new().run("SELECT set_config('my.long', $1, false)", &[&long(200_000)]).sync(),
            "DISCARD ALL",
        ),
        (
            Batch::new().run("SELECT set_config($1, $2, false)", &["my.long", &long(200_000)]).sync(),
            "RESET my.long",
        ),
        (Batch::new().query(&format!("SET application_name = '{}'", long(200_000))), "SELECT 1"),
        (Batch::new().query(&many), "RESET ALL"),
    ] {
        let reply = client.ask(sets).await;
        assert!(reply.errors.is_empty(), "{ends}");
        if ends != "SELECT 1" {
            has_pins(&stage, 1.0).await;
        }
        let look =
            "SELECT length(current_setting('my.long', true)), length(current_setting('my.many7', true))";
        let before = client.query(look).await.rows;
        all_right(&mut other, "BEGIN; SELECT 1").await;
        assert_eq!(client.query(look).await.rows, before);
        all_right(&mut other, "COMMIT").await;
        all_right(&mut client, ends).await;
        has_pins(&stage, 0.0).await;
    }
}

#[tokio::test]
async fn one_pin_too_many_is_refused_before_it_is_sent_and_the_session_goes_on() {
    let mut plan = Plan::new(&["acme"]).budget(20);
    plan.tenants[0].lines.push("limits = { ceiling = 3 }".to_owned());
    let stage = Stage::start(plan).await;
    let mut keepers = vec![stage.client("acme").await, stage.client("acme").await];
    for keeper in &mut keepers {
        all_right(keeper, "CREATE TEMP TABLE mine (x int)").await;
    }
    let mut client = stage.client("acme").await;
    let refused = client.query("SELECT pg_advisory_lock(8)").await;
    assert_eq!((refused.code(), refused.status), ("53400", Some('I')), "{refused:?}");
    let error = &refused.errors[0];
    assert!(
        error.message.contains("advisory lock") && error.detail.contains("may keep 2 servers"),
        "{error:?}"
    );
    assert!(error.hint.contains("session mode") && error.hint.contains("limits.ceiling"), "{error:?}");
    let refused = client.ask(Batch::new().run("LISTEN news", &[]).sync()).await;
    assert_eq!((refused.code(), refused.status), ("53400", Some('I')), "{refused:?}");
    let inside =
        Batch::new().query("BEGIN").query("PREPARE p AS SELECT 1").query("SELECT 1").query("ROLLBACK");
    client.send(&inside.0).await;
    let codes: Vec<_> = [client.until_ready().await, client.until_ready().await, client.until_ready().await]
        .iter()
        .map(|reply| reply.errors.first().map_or_else(String::new, |error| error.code.clone()))
        .collect();
    assert_eq!(codes, ["", "53400", "25P02"], "it aborts the transaction, as any error does");
    client.until_ready().await;
    assert_eq!(client.query("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'").await.value(), "0");
    // Those who have a pin may have more of it.
    all_right(&mut keepers[0], "LISTEN news; SELECT pg_advisory_lock(8)").await;
    drop(keepers);
    has_pins(&stage, 0.0).await;
    all_right(&mut client, "SELECT pg_advisory_lock(8)").await;
    let metrics = stage.proxy().metrics().await;
    assert_eq!(metrics.sum("tenantry_tenant_refusals_total", &[("reason", "pin_limit")]), 3.0);
}

#[tokio::test]
async fn a_pin_that_no_text_shows_ends_its_session_if_it_is_one_too_many() {
    let mut plan = Plan::new(&["acme"]).budget(20).queue_timeout("2s");
    plan.tenants[0].lines.push("limits = { ceiling = 2 }".to_owned());
    let stage = Stage::start(plan).await;
    let long = format!("SELECT set_config('my.name', repeat('x', {}), false)", 9_000);
    for hidden in [
        "DO $$ BEGIN CREATE TEMP TABLE mine (x int); END $$",
        "DO $$ BEGIN PERFORM pg_advisory_lock(8); END $$",
        long.as_str(),
    ] {
        let mut keeper = stage.client("acme").await;
        all_right(&mut keeper, hidden).await;
        has_pins(&stage, 1.0).await;
        let mut client = stage.client("acme").await;
        let again = hidden.replace("(8)", "(9)");
        all_right(&mut client, &again).await;
        // It was told that its transaction is over; then that its session is.
        let end = client.until_ready().await;
        assert_eq!((end.code(), end.status), ("53400", None), "{hidden}: {end:?}");
        assert!(end.errors[0].detail.contains("1 servers") && !end.errors[0].hint.is_empty(), "{end:?}");
        // The tenant's other server is there for all others, with nothing of that left.
        let mut other = stage.client("acme").await;
        let look = "SELECT concat(to_regclass('pg_temp.mine') IS NULL, current_setting('my.name', true), (SELECT count(*) \
             FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()))";
        assert_eq!(other.query(look).await.value(), "t0", "{hidden}");
        // Inside a transaction it ends with that, if it has not gone by then.
        all_right(&mut other, &format!("BEGIN; {again}")).await;
        all_right(&mut other, "ROLLBACK; SELECT pg_advisory_unlock_all()").await;
        all_right(&mut other, "SELECT 1").await;
        all_right(&mut keeper, "SELECT 1").await;
        has_pins(&stage, 1.0).await;
        drop(keeper);
        has_pins(&stage, 0.0).await;
    }
    let metrics = stage.proxy().metrics().await;
    assert_eq!(metrics.sum("tenantry_tenant_refusals_total", &[("reason", "pin_limit")]), 3.0);
}

#[tokio::test]
async fn a_search_path_may_be_reordered_and_narrowed_but_not_left() {
    let mut plan = Plan::new(&["acme", "bolt"]).one_server_each();
    plan.tenants[0].lines.push("allowed_schemas = [\"public\"]".to_owned());
    let stage = Stage::start(plan).await;
    let (mut client, mut other) = (stage.client("acme").await, stage.client("acme").await);
    let path = async |client: &mut Wire| client.query("SHOW search_path").await.value().to_owned();
    let before = path(&mut client).await;
    for inside in ["public, schema_acme", "\"schema_acme\"", "public", "pg_catalog, schema_acme"] {
        all_right(&mut client, &format!("SET search_path TO {inside}")).await;
        assert_eq!(path(&mut other).await, before, "it stays with its client");
        assert_eq!(path(&mut client).await.replace('"', ""), inside.replace('"', ""));
    }
    for outside in [
        "SET search_path = schema_bolt",
        "BEGIN; SET LOCAL search_path TO public, schema_bolt; COMMIT",
        "SELECT set_config('search_path', 'schema_bolt', false)",
        "SET SCHEMA 'schema_bolt'",
    ] {
        let reply = client.query(outside).await;
        assert_eq!((reply.code(), reply.status), ("42501", Some('I')), "{outside}: {reply:?}");
        assert!(reply.errors[0].detail.contains("schema_acme") && !reply.errors[0].hint.is_empty());
    }
    assert_eq!(path(&mut client).await, "pg_catalog, schema_acme");
    // Out of sight it is found afterwards, and does not stay.
    all_right(&mut client, "DO $$ BEGIN SET search_path = schema_bolt; END $$").await;
    assert!(!path(&mut other).await.contains("bolt"));
    assert!(!path(&mut client).await.contains("bolt"));
    let metrics = stage.proxy().metrics().await;
    assert!(metrics.sum("tenantry_tenant_refusals_total", &[("reason", "outside_tenant")]) >= 4.0);
}

#[tokio::test]
async fn a_role_that_was_given_up_stays_given_up() {
    let stage = Stage::start(Plan::new(&["acme"]).one_server_each()).await;
    stage.postgres.psql("CREATE ROLE lesser; GRANT lesser TO role_acme").await.unwrap();
    let (mut client, mut other) = (stage.client("acme").await, stage.client("acme").await);
    for set in ["SET ROLE lesser", "SELECT set_config('role', 'lesser', false)"] {
        all_right(&mut client, set).await;
        for _ in 0..2 {
            assert_eq!(other.query("SELECT current_user").await.value(), "role_acme");
            assert_eq!(client.query("SELECT current_user").await.value(), "lesser");
        }
        all_right(&mut client, "RESET ROLE").await;
        assert_eq!(other.query("SELECT current_user").await.value(), "role_acme");
        assert_eq!(client.query("SELECT current_user").await.value(), "role_acme");
    }
    assert_eq!(client.query("SET ROLE postgres").await.code(), "42501");
}

#[tokio::test]
async fn what_a_driver_says_between_a_draw_and_its_question_does_no_harm() {
    let stage = Stage::start(Plan::new(&["acme"]).one_server_each()).await;
    let (mut client, mut other) = (stage.client("acme").await, stage.client("acme").await);
    client.query("CREATE TABLE drawn (id serial, n int)").await;
    // From the first who asks on it is expected.
    client.query("SELECT lastval()").await;
    for _ in 0..3 {
        let insert =
            Batch::new().parse("p", "INSERT INTO drawn (n) VALUES (1) RETURNING id").bind("", "p", &[]);
        let mine = client.ask(insert.execute("").sync()).await.value().to_owned();
        other.send(&Batch::new().query("INSERT INTO drawn (n) VALUES (2)").0).await;
        assert!(client.query("DEALLOCATE p").await.errors.is_empty());
        assert_eq!(client.query("SELECT lastval()").await.value(), mine);
        assert!(other.until_ready().await.errors.is_empty());
    }
}

#[tokio::test]
async fn who_draws_and_goes_on_does_not_keep_its_server() {
    let stage = Stage::start(Plan::new(&["acme"]).one_server_each()).await;
    let (mut client, mut other) = (stage.client("acme").await, stage.client("acme").await);
    client.query("CREATE SEQUENCE numbers").await;
    client.query("SELECT nextval('numbers')").await;
    other.send(&Batch::new().query("SELECT 'served'").0).await;
    let served = async { other.until_ready().await.value().to_owned() };
    let busy = async {
        loop {
            client.query("SELECT 1").await;
        }
    };
    let served = tokio::time::timeout(PATIENCE, async {
        tokio::select! { served = served => served, () = busy => String::new() }
    });
    assert_eq!(served.await.unwrap(), "served");
}

/// Whoever asks for each number, or for none, keeps its server from others for a second, and loses no number by that.
#[tokio::test]
async fn who_draws_all_the_time_does_not_keep_its_server() {
    let stage = Stage::start(Plan::new(&["acme"]).one_server_each()).await;
    let (mut client, mut other) = (stage.client("acme").await, stage.client("acme").await);
    let mut has_asked = false;
    all_right(&mut client, "CREATE SEQUENCE numbers").await;
    // In one text a question cannot be seen to stand behind its draw.
    all_right(&mut client, "CREATE TABLE drawn (id serial)").await;
    let insert = "INSERT INTO drawn DEFAULT VALUES; SELECT lastval()";
    for asks in [None, Some(false), Some(true), None] {
        let draw = if asks.is_none() && has_asked { insert } else { "SELECT nextval('numbers')" };
        has_asked |= asks.is_some();
        all_right(&mut client, "DEALLOCATE ALL").await;
        if asks == Some(true) {
            client.ask(Batch::new().parse("ask", "SELECT lastval()").sync()).await;
        }
        let is_served = std::cell::Cell::new(false);
        let waiting = async {
            let served = other.query("SELECT 'served'").await;
            is_served.set(true);
            served
        };
        let busy = async {
            while !is_served.get() {
                let drawn = client.query(draw).await;
                assert!(drawn.errors.is_empty(), "{drawn:?}");
                let given = drawn.value().to_owned();
                let last = match asks {
                    None => continue,
                    Some(false) => client.query("SELECT lastval()").await,
                    Some(true) => client.ask(Batch::new().bind("", "ask", &[]).execute("").sync()).await,
                };
                assert_eq!(last.value(), given);
            }
        };
        let (served, ()) = tokio::join!(waiting, busy);
        assert!(served.errors.is_empty(), "{asks:?}: {served:?}");
    }
}

#[tokio::test]
async fn nobody_is_told_what_a_sequence_gave_another_client() {
    let stage = Stage::start(Plan::new(&["acme"]).one_server_each()).await;
    let (mut client, mut other) = (stage.client("acme").await, stage.client("acme").await);
    all_right(&mut client, "CREATE SEQUENCE numbers").await;
    assert_eq!(client.query("SELECT nextval('numbers')").await.value(), "1");
    for ask in ["SELECT lastval()", "SELECT currval('numbers')", "SELECT pg_catalog.lastval ()"] {
        for is_extended in [false, true] {
            let reply = match is_extended {
                false => other.query(ask).await,
                true => other.ask(Batch::new().run(ask, &[]).sync()).await,
            };
            assert_eq!(reply.code(), "55000", "{ask}: {reply:?}");
            client.query("SELECT nextval('numbers')").await;
        }
    }
    // On a server that has not changed hands it is there.
    let given = client.query("SELECT nextval('numbers')").await.value().to_owned();
    assert_eq!(client.query("SELECT lastval()").await.value(), given);
    other.query("BEGIN").await;
    let given = other.query("SELECT nextval('numbers')").await.value().to_owned();
    assert_eq!(other.query("SELECT currval('numbers')").await.value(), given);
    other.query("COMMIT").await;
    assert_eq!(other.query("SELECT lastval()").await.value(), given);
}

/// Nothing is forgotten at hand-overs before the first who asks: it comes upon what another client was given.
#[tokio::test]
async fn the_first_who_asks_is_not_told_what_a_sequence_gave_another_client() {
    const ASK: &str = "SELECT lastval()";
    let simple = || Batch::new().query(ASK);
    let batches = [
        ("acme", "SET work_mem = '5MB'", simple()),
        ("bolt", "BEGIN", simple()),
        ("cosmo", "SELECT 1", Batch::new().query("SELECT 2").query(ASK)),
        ("delta", "SELECT 1", Batch::new().run("SELECT 2", &[]).run(ASK, &[]).sync()),
        ("echo", "BEGIN", Batch::new().run("SELECT 2", &[]).sync().run(ASK, &[]).sync()),
        (
            "foxtrot",
            "SET work_mem = '5MB'",
            Batch::new().parse("s", ASK).bind("", "s", &[]).execute("").sync(),
        ),
    ];
    let names: Vec<&str> = batches.iter().map(|(tenant, _, _)| *tenant).collect();
    let stage = Stage::start(Plan::new(&names).one_server_each()).await;
    for (tenant, before, ask) in batches {
        let (mut client, mut other) = (stage.client(tenant).await, stage.client(tenant).await);
        let is_in_block = before == "BEGIN";
        if !is_in_block {
            other.query(before).await;
        }
        all_right(&mut client, "CREATE SEQUENCE numbers").await;
        assert_eq!(client.query("SELECT nextval('numbers')").await.value(), "1");
        if is_in_block {
            other.query(before).await;
        }
        other.send(&ask.0).await;
        let mut reply = other.until_ready().await;
        while reply.errors.is_empty()
            && !reply.rows.iter().flatten().any(|value| value.as_deref() == Some("1"))
        {
            reply = other.until_ready().await;
        }
        assert_eq!(reply.code(), "55000", "{tenant}: {reply:?}");
    }
}

#[tokio::test]
async fn what_others_have_prepared_cannot_be_named() {
    let stage = Stage::start(Plan::new(&["acme"]).one_server_each()).await;
    let (mut client, mut other) = (stage.client("acme").await, stage.client("acme").await);
    client.ask(Batch::new().parse("s", "SELECT 'secret'").sync()).await;
    for number in 0..5 {
        for verb in ["EXECUTE", "DEALLOCATE"] {
            let reply = other.query(&format!("{verb} tenantry_{number}")).await;
            assert_eq!(reply.code(), "26000", "{verb}: {reply:?}");
        }
    }
    let run = Batch::new().bind("", "s", &[]).execute("").sync();
    assert_eq!(client.ask(run).await.value(), "secret");
}

#[tokio::test]
async fn who_asks_at_once_gets_its_own_number_whoever_else_draws() {
    let mut plan = Plan::new(&["acme"]).budget(20);
    plan.tenants[0].lines.push("limits = { ceiling = 3 }".to_owned());
    let stage = std::sync::Arc::new(Stage::start(plan).await);
    let mut client = stage.client("acme").await;
    all_right(&mut client, "CREATE TABLE drawn (id serial, who text)").await;
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..6 {
        let stage = stage.clone();
        tasks.spawn(async move {
            let mut client = stage.client("acme").await;
            for _ in 0..10 {
                let drawn = client.query("SELECT nextval('drawn_id_seq')").await.value().to_owned();
                assert_eq!(client.query("SELECT currval('drawn_id_seq')").await.value(), drawn);
                let insert = format!("INSERT INTO drawn (who) VALUES ('{number}') RETURNING id");
                let given = client.query(&insert).await.value().to_owned();
                let last = client.query("SELECT lastval()").await;
                assert_eq!(last.rows.first().map(|row| row[0].clone()), Some(Some(given)), "{last:?}");
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
}
