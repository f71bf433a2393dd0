//! A tenant on several workers: one tenant all the same, in its limits, its metrics and its walls.

use std::collections::BTreeMap;

use crate::placing::worker;
use crate::support::{Batch, PATIENCE, Plan, Stage, TenantPlan, Wire, eventually};

/// Servers that Postgres lets the tenant's role have: one more is a login that fails, and is counted.
const CEILING: u32 = 5;

fn tenant(workers: u32) -> TenantPlan {
    TenantPlan::new("acme")
        .line(&format!("workers = {workers}"))
        .line(&format!("limits = {{ ceiling = {CEILING}, share = {CEILING}, max_clients = 9 }}"))
}

async fn stage(workers: u32) -> Stage {
    stage_of(tenant(workers)).await
}

async fn stage_of(tenant: TenantPlan) -> Stage {
    let stage = Stage::start(Plan::of(vec![tenant]).workers(2)).await;
    stage.postgres.psql(&format!("ALTER ROLE role_acme CONNECTION LIMIT {CEILING}")).await.unwrap();
    stage
}

async fn reload(stage: &mut Stage, workers: u32) {
    reload_to(stage, vec![tenant(workers)]).await;
}

async fn reload_to(stage: &mut Stage, tenants: Vec<TenantPlan>) {
    stage
        .reload(|mut plan| {
            plan.tenants = tenants;
            plan
        })
        .await;
}

async fn clients(stage: &Stage, count: usize) -> Vec<Wire> {
    let mut clients = Vec::new();
    for _ in 0..count {
        clients.push(stage.client("acme").await);
    }
    clients
}

/// How many of them are on which worker.
fn places(clients: &[Wire]) -> BTreeMap<u32, usize> {
    let mut places = BTreeMap::new();
    for client in clients {
        *places.entry(worker(client)).or_default() += 1;
    }
    places
}

/// All ask for a transaction. Those that wait have to be heard of later.
async fn begin(clients: &mut [Wire]) {
    for client in clients {
        client.send(&Batch::new().query("BEGIN").0).await;
    }
}

/// Until so many of the tenant's servers work and so many of its clients wait.
async fn until(stage: &Stage, servers: u32, waiting: u32) {
    let what = format!("{servers} servers work and {waiting} clients wait");
    eventually(&what, PATIENCE, async || {
        let metrics = stage.proxy().metrics().await;
        let count = |name, state| metrics.sum(name, &[("tenant", "acme"), ("state", state)]);
        let active = count("tenantry_tenant_servers", "active");
        assert!(active <= f64::from(CEILING), "{active} servers");
        (active == f64::from(servers) && count("tenantry_tenant_clients", "waiting") == f64::from(waiting))
            .then_some(())
    })
    .await;
}

/// Postgres has never had to refuse a server because there were too many.
async fn was_never_above_its_ceiling(stage: &Stage) {
    let failures = "tenantry_tenant_server_login_failures_total";
    assert_eq!(stage.proxy().metrics().await.sum(failures, &[("tenant", "acme")]), 0.0);
}

async fn commit(client: &mut Wire) {
    assert_eq!(client.query("COMMIT").await.tags, ["COMMIT"]);
}

#[tokio::test]
async fn its_workers_have_its_ceiling_and_its_clients_together() {
    let mut stage = stage(2).await;
    let mut clients = clients(&stage, 9).await;
    // What is the same behind it divides as before.
    reload(&mut stage, 2).await;
    assert_eq!(places(&clients), BTreeMap::from([(0, 5), (1, 4)]));
    let refused = stage.connect().await.log_in(&stage.login("acme")).await;
    assert_eq!(refused.code(), "53300");
    let told = &refused.errors[0];
    assert!(told.detail.contains("may have 9 clients"), "the tenant's limit, not a part of it: {told:?}");
    begin(&mut clients).await;
    until(&stage, CEILING, 4).await;
    let metrics = stage.proxy().metrics().await;
    let acme = |name| metrics.sum(name, &[("tenant", "acme")]);
    assert_eq!(acme("tenantry_tenant_clients"), 9.0);
    assert_eq!(acme("tenantry_tenant_servers_ceiling"), f64::from(CEILING));
    was_never_above_its_ceiling(&stage).await;
}

#[tokio::test]
async fn it_grows_without_ever_having_more_servers_than_it_may() {
    let mut stage = stage(1).await;
    let mut held = clients(&stage, 5).await;
    let mut idle = stage.client("acme").await;
    assert_eq!(places(&held), BTreeMap::from([(0, 5)]));
    begin(&mut held).await;
    until(&stage, CEILING, 0).await;
    for client in &mut held {
        client.until_ready().await;
    }
    reload(&mut stage, 2).await;
    let early = stage.client("acme").await;
    assert_eq!(worker(&early), 0, "the other worker has no servers for it as long as this one has them all");
    for client in held.iter_mut().take(2) {
        commit(client).await;
    }
    // Three of seven are too many for this worker now: those that do nothing go first.
    let farewell = idle.expect(b'E').await.fields();
    assert_eq!((farewell.severity.as_str(), farewell.code.as_str()), ("FATAL", "57P01"));
    assert!(farewell.message.contains("configuration has changed"), "{farewell:?}");
    let mut late = stage.client("acme").await;
    assert_eq!(worker(&late), 1);
    late.query("BEGIN").await;
    let mut later = stage.client("acme").await;
    assert_eq!(worker(&later), 1);
    later.query("BEGIN").await;
    until(&stage, CEILING, 0).await;
    for client in &mut held[2..] {
        commit(client).await;
    }
    was_never_above_its_ceiling(&stage).await;
}

#[tokio::test]
async fn a_change_that_waits_is_in_the_log_and_can_be_taken_back() {
    let mut stage = stage(1).await;
    let mut held = clients(&stage, 5).await;
    for client in held.iter_mut().take(4) {
        client.query("BEGIN").await;
    }
    reload(&mut stage, 2).await;
    eventually("the log says that it waits", PATIENCE, async || {
        stage.proxy().log().contains("workers_change_waits").then_some(())
    })
    .await;
    let refused = held[4].query("SELECT 1").await;
    assert_eq!(refused.code(), "53300");
    let detail = &refused.errors[0].detail;
    assert!(
        detail.ends_with("holds 4 of at most 3 server connections on this one of its 2 workers."),
        "{detail}"
    );
    reload(&mut stage, 1).await;
    assert_eq!(held[4].query("SELECT 1").await.value(), "1");
    was_never_above_its_ceiling(&stage).await;
}

#[tokio::test]
async fn it_grows_although_its_clients_keep_their_servers() {
    let session = |workers| tenant(workers).line("mode = \"session\"");
    let mut stage = stage_of(session(1)).await;
    let mut held = clients(&stage, 5).await;
    for client in &mut held {
        client.query("BEGIN").await;
    }
    reload_to(&mut stage, vec![session(2)]).await;
    // They are nearly always in a transaction. Those that are told to go are told so when it is over.
    eventually("only three are left", PATIENCE, async || {
        let mut left = Vec::new();
        for mut client in held.drain(..) {
            commit(&mut client).await;
            if client.query("BEGIN").await.tags == ["BEGIN"] {
                left.push(client);
            }
        }
        held = left;
        (held.len() <= 3).then_some(())
    })
    .await;
    // Others find servers on the other worker.
    let mut others = Vec::new();
    for _ in 0..2 {
        let newcomer = eventually("a client has a server", PATIENCE, async || {
            let mut client = stage.connect().await;
            client.log_in(&stage.login("acme")).await.errors.is_empty().then_some(client)
        });
        others.push(newcomer.await);
    }
    for newcomer in &mut others {
        assert_eq!(newcomer.query("BEGIN").await.tags, ["BEGIN"]);
    }
    was_never_above_its_ceiling(&stage).await;
}

#[tokio::test]
async fn it_shrinks_when_the_transactions_on_the_worker_that_it_leaves_are_over() {
    let mut stage = stage(2).await;
    let mut held = clients(&stage, 4).await;
    assert_eq!(places(&held), BTreeMap::from([(0, 2), (1, 2)]));
    begin(&mut held).await;
    for client in &mut held {
        client.until_ready().await;
    }
    reload(&mut stage, 1).await;
    let mut more = clients(&stage, 3).await;
    assert_eq!(places(&more), BTreeMap::from([(0, 3)]));
    begin(&mut more).await;
    until(&stage, CEILING, 2).await;
    for client in held.iter_mut().filter(|client| worker(client) == 1) {
        commit(client).await;
        assert_eq!(client.expect(b'E').await.fields().code, "57P01");
    }
    for client in &mut more {
        assert_eq!(client.until_ready().await.tags, ["BEGIN"]);
    }
    until(&stage, CEILING, 0).await;
    was_never_above_its_ceiling(&stage).await;
}

#[tokio::test]
async fn a_function_that_is_made_on_one_worker_leaks_nothing_on_the_other() {
    let stage = stage(2).await;
    let mut all = clients(&stage, 5).await;
    let (mut here, mut there): (Vec<_>, Vec<_>) = all.drain(..).partition(|client| worker(client) == 0);
    // What there is, is known on the other worker.
    for _ in 0..3 {
        there[0].query("SELECT 1").await;
    }
    let made = here[0].query(
        "CREATE FUNCTION login(who text) RETURNS void LANGUAGE plpgsql AS \
         $$ BEGIN PERFORM set_config('app.user', who, false); END $$",
    );
    assert_eq!(made.await.tags, ["CREATE FUNCTION"]);
    here[0].query("SELECT 1").await;
    there[0].query("SELECT login('ann')").await;
    let user = "SELECT coalesce(current_setting('app.user', true), '')";
    assert_eq!(there[1].query(user).await.value(), "");
    assert_eq!(there[0].query(user).await.value(), "ann");
    assert_eq!(here[1].query(user).await.value(), "");
}

/// The first client of a worker runs what nobody knows there.
#[tokio::test]
async fn functions_that_are_made_out_of_sight_on_one_worker_leak_nothing_on_the_other() {
    let stage = stage(2).await;
    let make = "SET search_path = schema_acme; \
         CREATE FUNCTION make() RETURNS void LANGUAGE plpgsql AS $m$ BEGIN EXECUTE \
         $e$ CREATE FUNCTION login(who text) RETURNS void LANGUAGE plpgsql AS \
         $$ BEGIN PERFORM set_config('app.user', who, false); END $$ $e$; END $m$; \
         GRANT CREATE ON SCHEMA schema_acme TO role_acme";
    stage.postgres.psql_in("app", make).await.unwrap();
    let all = clients(&stage, 4).await;
    let (mut here, mut there): (Vec<_>, Vec<_>) = all.into_iter().partition(|client| worker(client) == 0);
    for _ in 0..3 {
        there[0].query("SELECT 1").await;
    }
    assert!(here[0].query("SELECT make()").await.errors.is_empty());
    here[0].query("SELECT 1").await;
    assert!(there[0].query("SELECT login('ann')").await.errors.is_empty());
    let user = "SELECT coalesce(current_setting('app.user', true), '')";
    assert_eq!(there[1].query(user).await.value(), "");
    assert_eq!(there[0].query(user).await.value(), "ann");
}
