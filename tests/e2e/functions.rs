//! What functions set or take out of sight follows the client that ran them, and reaches nobody else.

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
    let mut stage = Stage::start(Plan::new(&["acme"]).one_server_each()).await;
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
