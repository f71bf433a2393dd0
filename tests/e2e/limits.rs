//! Limits of the proxy: servers, waits, clients. Every refusal says which limit and what to do.

use std::time::Duration;

use crate::support::{Batch, PATIENCE, Plan, Stage, TenantPlan, Wire, eventually};

#[tokio::test]
async fn the_queue_timeout_is_an_error_and_the_session_goes_on() {
    let stage = Stage::start(Plan::new(&["acme"]).one_server_each().queue_timeout("300ms")).await;
    let mut holder = stage.client("acme").await;
    let mut waiter = stage.client("acme").await;
    holder.query("BEGIN").await;
    let start = tokio::time::Instant::now();
    let reply = waiter.query("SELECT 'never'").await;
    let waited = start.elapsed();
    assert_eq!((reply.code(), reply.status), ("53300", Some('I')));
    assert_eq!(reply.errors[0].severity, "ERROR");
    assert!(!reply.errors[0].detail.is_empty() && !reply.errors[0].hint.is_empty(), "{reply:?}");
    assert!(waited > Duration::from_millis(290) && waited < Duration::from_millis(900), "{waited:?}");
    holder.query("COMMIT").await;
    assert_eq!(waiter.query("SELECT 'later'").await.value(), "later");
    let metrics = stage.proxy().metrics().await;
    assert_eq!(metrics.sum("tenantry_tenant_queue_timeouts_total", &[("tenant", "acme")]), 1.0);
}

#[tokio::test]
async fn who_waits_because_server_logins_are_refused_is_told_so() {
    let stage = Stage::start(Plan::new(&["acme", "bolt"]).budget(2).queue_timeout("1s")).await;
    let mut holder = stage.client("acme").await;
    let mut waiter = stage.client("acme").await;
    holder.query("BEGIN").await;
    stage.postgres.psql("ALTER ROLE role_acme PASSWORD 'changed'").await.unwrap();
    let reply = waiter.query("SELECT 1").await;
    assert_eq!((reply.code(), reply.status), ("53300", Some('I')), "{reply:?}");
    let (detail, hint) = (&reply.errors[0].detail, &reply.errors[0].hint);
    assert!(detail.contains("1 of at most 2") && detail.contains("refuses the login"), "{reply:?}");
    assert!(detail.contains("28P01") && !format!("{reply:?}").contains("role_acme"), "{reply:?}");
    assert!(hint.contains("operator") && !hint.contains("transactions"), "{reply:?}");

    // With the password back, the second server comes; then a full budget is a full budget again.
    stage.postgres.psql("ALTER ROLE role_acme PASSWORD 'db-acme'").await.unwrap();
    eventually("a server logs in", PATIENCE, async || {
        waiter.query("SELECT 1").await.errors.is_empty().then_some(())
    })
    .await;
    let mut bolt = stage.client("bolt").await;
    bolt.query("BEGIN").await;
    let reply = waiter.query("SELECT 1").await;
    assert_eq!(reply.code(), "53300", "{reply:?}");
    let (detail, hint) = (&reply.errors[0].detail, &reply.errors[0].hint);
    assert!(detail.contains("1 of at most 2") && !detail.contains("refuses"), "{reply:?}");
    assert!(hint.contains("shorter transactions"), "{reply:?}");
}

#[tokio::test]
async fn a_timed_out_pipeline_is_skipped_up_to_its_sync() {
    let stage = Stage::start(Plan::new(&["acme"]).one_server_each().queue_timeout("200ms")).await;
    let mut holder = stage.client("acme").await;
    let mut waiter = stage.client("acme").await;
    holder.query("BEGIN").await;
    let batch =
        Batch::new().run("SELECT $1", &["a"]).sync().run("SELECT $1", &["b"]).run("SELECT $1", &["c"]).sync();
    waiter.send(&batch.0).await;
    for _ in 0..2 {
        let reply = waiter.until_ready().await;
        assert_eq!((reply.shape().as_str(), reply.code()), ("EZ", "53300"));
    }
    holder.query("COMMIT").await;
    assert_eq!(waiter.ask(Batch::new().run("SELECT $1", &["d"]).sync()).await.value(), "d");
}

#[tokio::test]
async fn statements_named_in_a_timed_out_pipeline_do_not_exist() {
    let stage = Stage::start(Plan::new(&["acme"]).one_server_each().queue_timeout("200ms")).await;
    let mut holder = stage.client("acme").await;
    let mut waiter = stage.client("acme").await;
    holder.query("BEGIN").await;
    let parse = || Batch::new().parse("s", "SELECT $1");
    let reply = waiter.ask(parse().bind("", "s", &["x"]).execute("").sync()).await;
    assert_eq!(reply.code(), "53300");
    holder.query("COMMIT").await;
    let reply = waiter.ask(Batch::new().bind("", "s", &["x"]).execute("").sync()).await;
    assert_eq!(reply.code(), "26000");
    assert_eq!(waiter.ask(parse().bind("", "s", &["x"]).execute("").sync()).await.value(), "x");
}

#[tokio::test]
async fn more_clients_than_servers_are_served_in_turn() {
    let stage = Stage::start(Plan::new(&["acme"]).budget(3)).await;
    let mut clients = Vec::new();
    for _ in 0..30 {
        clients.push(stage.client("acme").await);
    }
    for client in &mut clients {
        client.send(&Batch::new().query("SELECT pg_sleep(0.01), 'done'").0).await;
    }
    for client in &mut clients {
        assert!(client.until_ready().await.errors.is_empty());
    }
    assert!(stage.servers().await <= 3);
}

#[tokio::test]
async fn a_tenant_may_have_only_so_many_clients() {
    let tenants = vec![TenantPlan::new("acme").line("limits = { max_clients = 3 }"), TenantPlan::new("bolt")];
    let stage = Stage::start(Plan::of(tenants)).await;
    let mut clients: Vec<Wire> = Vec::new();
    for _ in 0..3 {
        clients.push(stage.client("acme").await);
    }
    let reply = stage.connect().await.log_in(&stage.login("acme")).await;
    assert_eq!((reply.code(), reply.status), ("53300", None));
    assert_eq!(reply.errors[0].severity, "FATAL");
    stage.client("bolt").await;
    drop(clients.pop());
    eventually("a place is free again", PATIENCE, async || {
        stage.connect().await.log_in(&stage.login("acme")).await.status
    })
    .await;
}

#[tokio::test]
async fn the_proxy_may_have_only_so_many_clients() {
    let stage = Stage::start(Plan::new(&["acme", "bolt"]).set("listen", "max_clients", "4")).await;
    let mut clients = Vec::new();
    for name in ["acme", "bolt", "acme", "bolt"] {
        clients.push(stage.client(name).await);
    }
    let mut refused = stage.connect().await;
    let reply = refused.log_in(&stage.login("acme")).await;
    assert!(reply.status.is_none(), "{reply:?}");
    assert!(reply.errors.iter().all(|error| error.code == "53300"), "{reply:?}");
    drop(clients.pop());
    eventually("a place is free again", PATIENCE, async || {
        stage.connect().await.log_in(&stage.login("acme")).await.status
    })
    .await;
}

#[tokio::test]
async fn a_full_queue_refuses_at_once() {
    let tenants = vec![TenantPlan::new("acme").line("limits = { max_waiters = 2 }")];
    let stage = Stage::start(Plan::of(tenants).one_server_each()).await;
    let mut holder = stage.client("acme").await;
    holder.query("BEGIN").await;
    let mut waiters = vec![stage.client("acme").await, stage.client("acme").await];
    for waiter in &mut waiters {
        waiter.send(&Batch::new().query("SELECT 'patience'").0).await;
    }
    eventually("two wait", PATIENCE, async || {
        let metrics = stage.proxy().metrics().await;
        (metrics.sum("tenantry_tenant_clients", &[("tenant", "acme"), ("state", "waiting")]) == 2.0)
            .then_some(())
    })
    .await;
    let mut third = stage.client("acme").await;
    let start = tokio::time::Instant::now();
    let reply = third.query("SELECT 'no room'").await;
    assert_eq!((reply.code(), reply.status), ("53300", Some('I')));
    assert!(start.elapsed() < Duration::from_secs(1));
    let detail = &reply.errors[0].detail;
    assert_eq!(detail, "This tenant holds 1 of at most 1 server connections.", "its own numbers");
    holder.query("COMMIT").await;
    for waiter in &mut waiters {
        assert_eq!(waiter.until_ready().await.value(), "patience");
    }
    assert_eq!(third.query("SELECT 'room'").await.value(), "room");
}

#[tokio::test]
async fn a_tenant_without_servers_gets_one_although_another_holds_the_rest() {
    let tenants = vec![TenantPlan::new("noisy").tier("hot"), TenantPlan::new("quiet").tier("cold")];
    let stage = Stage::start(Plan::of(tenants).budget(4)).await;
    let mut noise = Vec::new();
    for _ in 0..20 {
        noise.push(stage.client("noisy").await);
    }
    for client in &mut noise {
        client.send(&Batch::new().query("SELECT pg_sleep(0.3)").0).await;
    }
    let mut quiet = stage.client("quiet").await;
    let start = tokio::time::Instant::now();
    assert_eq!(quiet.query("SELECT owner FROM things WHERE id = 1").await.value(), "quiet");
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    for client in &mut noise {
        assert!(client.until_ready().await.errors.is_empty());
    }
    assert!(stage.servers().await <= 4);
}

#[tokio::test]
async fn a_server_idle_for_too_long_is_closed() {
    let stage = Stage::start(Plan::new(&["acme"]).set("pool", "server_idle_timeout", "\"500ms\"")).await;
    let mut client = stage.client("acme").await;
    client.query("SELECT 1").await;
    assert_eq!(stage.servers().await, 1);
    stage.servers_become(0, Duration::from_secs(10)).await;
    assert_eq!(client.query("SELECT 1").await.value(), "1");
}

#[tokio::test]
async fn a_server_too_old_is_replaced_between_transactions() {
    let stage = Stage::start(Plan::new(&["acme"]).set("pool", "server_lifetime", "\"1s\"")).await;
    let mut client = stage.client("acme").await;
    let pid = async |client: &mut Wire| client.query("SELECT pg_backend_pid()").await.value().to_owned();
    let first = pid(&mut client).await;
    eventually("another server", PATIENCE, async || (pid(&mut client).await != first).then_some(())).await;
}

#[tokio::test]
async fn an_impossible_budget_refuses_to_start() {
    let stage = Stage::without_proxy(Plan::new(&["acme"]).budget(0)).await;
    let dir = stage.dir.path();
    let address = "127.0.0.1:0".parse().unwrap();
    let toml = stage.plan.toml(address, address, stage.postgres.port(), dir);
    let mut proxy = crate::support::Proxy::spawn(dir, address, address, &toml);
    let status = proxy.ended(PATIENCE).await;
    assert!(!status.success());
    assert!(proxy.log().contains("max_connections"), "{}", proxy.log());
}

#[tokio::test]
async fn clients_of_one_tenant_take_turns() {
    let stage = Stage::start(Plan::new(&["acme"]).budget(2)).await;
    let done = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let mut tasks = Vec::new();
    for number in 0..6 {
        let (mut client, done) = (stage.client("acme").await, done.clone());
        tasks.push(tokio::spawn(async move {
            for _ in 0..50 {
                for sql in ["BEGIN", "SELECT pg_sleep(0.001)", "COMMIT"] {
                    let reply = client.query(sql).await;
                    assert!(reply.errors.is_empty(), "client {number}: {reply:?}");
                }
                done.lock().unwrap().push(number);
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    // When the first of them is through with its fifty, none has fewer than half of that.
    let done = done.lock().unwrap();
    let mut counts = [0; 6];
    for number in done.iter() {
        counts[*number] += 1;
        if counts[*number] == 50 {
            break;
        }
    }
    assert!(counts.iter().all(|count| *count >= 25), "{counts:?}");
}

#[tokio::test]
async fn clients_of_one_tenant_take_turns_with_prepared_statements() {
    let stage = Stage::start(Plan::new(&["acme", "bolt"]).budget(4)).await;
    let mut tasks = Vec::new();
    for number in 0..12 {
        let mut client = stage.client(["acme", "bolt"][number % 2]).await;
        tasks.push(tokio::spawn(async move {
            for (name, sql) in [("b", "BEGIN"), ("s", "SELECT pg_sleep(0.002)"), ("c", "COMMIT")] {
                let reply = client.ask(Batch::new().parse(name, sql).sync()).await;
                assert!(reply.errors.is_empty(), "client {number}: {reply:?}");
            }
            for round in 0..60 {
                for name in ["b", "s", "c"] {
                    let reply = client.ask(Batch::new().bind("", name, &[]).execute("").sync()).await;
                    assert!(reply.errors.is_empty(), "client {number} round {round}: {reply:?}");
                }
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
}
