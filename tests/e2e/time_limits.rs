//! Time limits of clients: silence between transactions, in one, with a kept server, and the length of a transaction.

use std::time::Duration;

use crate::support::{Batch, Fields, PATIENCE, Plan, Stage, TenantPlan, Wire, eventually};

/// One server each: what an ended client had must be there for the next.
async fn stage(limit: &str, modes: &[(&'static str, &str)]) -> Stage {
    let tenant = |(name, mode): &(&'static str, &str)| {
        TenantPlan::new(name).line(&format!("mode = \"{mode}\"")).line(&format!("limits = {{ {limit} }}"))
    };
    let tenants = modes.iter().map(tenant).chain([TenantPlan::new("calm")]);
    Stage::start(Plan::of(tenants.collect()).one_server_each()).await
}

const BOTH: [(&str, &str); 2] = [("acme", "transaction"), ("bolt", "session")];

/// Waits for the last words.
async fn farewell(client: &mut Wire) -> Fields {
    let farewell = client.expect(b'E').await.fields();
    assert_eq!(farewell.severity, "FATAL");
    assert!(client.is_closed().await);
    farewell
}

/// How often a limit has hit clients of a tenant.
async fn hits(stage: &Stage, tenant: &str, limit: &str) -> f64 {
    let labels = [("tenant", tenant), ("limit", limit)];
    stage.proxy().metrics().await.sum("tenantry_tenant_time_limits_total", &labels)
}

/// The next client of the tenant has its server, the same or a new one, and nothing of the last one's.
async fn next_is_served(stage: &Stage, tenant: &str) {
    let mut next = stage.client(tenant).await;
    let left = "SELECT (SELECT count(*) FROM things WHERE id > 1000)
                + (SELECT count(*) FROM pg_listening_channels())
                + (SELECT count(*) FROM pg_class WHERE relname = 'mine')
                + (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory')";
    assert_eq!(next.query(left).await.value(), "0");
    next.send(&Batch::new().terminate().0).await;
    let servers = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'role_";
    let rows = stage.postgres.psql(&format!("{servers}{tenant}'")).await.unwrap();
    assert_eq!(rows[0][0].as_deref(), Some("1"), "the budget is whole");
}

#[tokio::test]
async fn a_client_that_is_silent_between_transactions_is_sent_away() {
    let stage = stage("client_idle_timeout = \"500ms\"", &BOTH).await;
    let mut calm = stage.client("calm").await;
    assert_eq!(calm.query("SELECT 1").await.value(), "1");
    for (name, _) in BOTH {
        let mut client = stage.client(name).await;
        assert_eq!(client.query("SELECT 'here'").await.value(), "here");
        let start = tokio::time::Instant::now();
        let told = farewell(&mut client).await;
        assert!(start.elapsed() >= Duration::from_millis(400), "{:?}", start.elapsed());
        assert_eq!(told.code, "57P05");
        assert!(told.detail.contains("500ms (client_idle_timeout)") && !told.hint.is_empty(), "{told:?}");
        next_is_served(&stage, name).await;
        // Whoever says nothing at all is silent as well.
        assert_eq!(farewell(&mut stage.client(name).await).await.code, "57P05");
        assert_eq!(hits(&stage, name, "client_idle_timeout").await, 2.0);
    }
    assert_eq!(calm.query("SELECT 'still here'").await.value(), "still here");
    assert_eq!(hits(&stage, "calm", "client_idle_timeout").await, 0.0);
    assert!(stage.proxy().log().contains("\"reason\":\"client_idle_timeout\""), "{}", stage.proxy().log());
}

#[tokio::test]
async fn a_client_that_waits_for_its_answer_is_not_silent() {
    let limits =
        "client_idle_timeout = \"500ms\", idle_transaction_timeout = \"500ms\", pin_idle_timeout = \"500ms\"";
    let stage = stage(limits, &BOTH).await;
    let work = Batch::new().query("LISTEN news").query("SELECT pg_sleep(2)").query("BEGIN");
    let work = work.query("SELECT pg_sleep(2)").query("COMMIT").run("SELECT pg_sleep(2)", &[]).sync();
    let mut clients = [stage.client("acme").await, stage.client("bolt").await];
    for client in &mut clients {
        client.send(&work.0).await;
    }
    // The second of a tenant waits in the queue, which is no silence of its own either.
    let mut waiter = stage.client("acme").await;
    waiter.send(&Batch::new().query("SELECT 'served'").0).await;
    let waited = waiter.until_ready().await;
    for client in &mut clients {
        for _ in 0..6 {
            let reply = client.until_ready().await;
            assert!(reply.errors.is_empty() && reply.status.is_some(), "{reply:?}");
        }
    }
    assert!(waited.errors.is_empty() || waited.code() == "53300", "{waited:?}");
    assert_eq!(farewell(&mut clients[1]).await.code, "57P05");
}

#[tokio::test]
async fn a_client_that_speaks_now_and_then_is_not_silent() {
    let limits = "client_idle_timeout = \"1s\", pin_idle_timeout = \"1s\", idle_transaction_timeout = \"1s\"";
    let stage = stage(limits, &BOTH).await;
    let mut calm = stage.client("calm").await;
    for (name, _) in BOTH {
        let mut client = stage.client(name).await;
        for begin in ["SELECT 'parked'", "LISTEN news", "BEGIN"] {
            assert!(client.query(begin).await.errors.is_empty());
            for _ in 0..12 {
                calm.query("SELECT pg_sleep(0.15)").await;
                assert_eq!(client.query("SELECT 'here'").await.value(), "here", "{name} after {begin}");
            }
        }
    }
}

#[tokio::test]
async fn a_client_that_is_silent_in_a_transaction_is_sent_away() {
    let stage = stage("idle_transaction_timeout = \"500ms\"", &BOTH).await;
    let mut calm = stage.client("calm").await;
    calm.query("BEGIN").await;
    for (name, _) in BOTH {
        for sql in [
            "BEGIN; INSERT INTO things VALUES (2000, 'lost', '')",
            "BEGIN; CREATE TEMP TABLE mine (x int); SELECT pg_advisory_lock(7); LISTEN news",
            "BEGIN; SELECT 1 / 0",
        ] {
            let mut client = stage.client(name).await;
            assert_ne!(client.query(sql).await.status, Some('I'));
            let told = farewell(&mut client).await;
            assert_eq!(told.code, "25P03", "{sql}");
            assert!(told.detail.contains("500ms (idle_transaction_timeout)"), "{told:?}");
            next_is_served(&stage, name).await;
        }
        assert_eq!(hits(&stage, name, "idle_transaction_timeout").await, 3.0);
        // Between transactions it may be silent, with a pin too.
        let mut client = stage.client(name).await;
        client.query("LISTEN news").await;
        assert!(client.message_within(Duration::from_millis(1_500)).await.is_none());
        assert_eq!(client.query("SELECT 'here'").await.value(), "here");
        client.send(&Batch::new().terminate().0).await;
        // Half a request holds a server as well.
        let mut client = stage.client(name).await;
        client.send(&Batch::new().run("SELECT 1", &[]).flush().0).await;
        let told = eventually("its end", PATIENCE, async || {
            client.message().await.filter(|message| message.tag == b'E').map(|message| message.fields())
        });
        assert_eq!(told.await.code, "25P03");
        next_is_served(&stage, name).await;
    }
    assert_eq!(calm.query("COMMIT").await.tags, ["COMMIT"]);
}

#[tokio::test]
async fn a_transaction_that_lasts_too_long_is_cancelled() {
    let stage = stage("transaction_timeout = \"500ms\"", &BOTH).await;
    let mut calm = stage.client("calm").await;
    calm.query("BEGIN").await;
    for (name, _) in BOTH {
        for (before, sql) in [
            ("SELECT 1", "SELECT pg_sleep(300)"),
            ("BEGIN; INSERT INTO things VALUES (2000, 'lost', '')", "SELECT pg_sleep(300)"),
            ("LISTEN news", "SELECT pg_sleep(300)"),
        ] {
            let mut client = stage.client(name).await;
            client.send(&Batch::new().query(before).query(sql).0).await;
            assert!(client.until_ready().await.errors.is_empty());
            let told = eventually("its end", PATIENCE, async || {
                client.message().await.filter(|message| message.tag == b'E').map(|message| message.fields())
            });
            let told = told.await;
            assert_eq!((told.severity.as_str(), told.code.as_str()), ("FATAL", "25P04"));
            assert!(told.detail.contains("500ms (transaction_timeout)"), "{told:?}");
            let running =
                "SELECT 1 FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'SELECT pg_sleep%'";
            eventually("nothing runs", PATIENCE, async || {
                stage.postgres.psql(running).await.unwrap().is_empty().then_some(())
            })
            .await;
            next_is_served(&stage, name).await;
        }
        // It is the transaction that counts, not each statement.
        let mut client = stage.client(name).await;
        client.query("BEGIN").await;
        let ended = eventually("its end", PATIENCE, async || {
            let reply = client.query("SELECT pg_sleep(0.05)").await;
            reply.status.is_none().then_some(reply)
        });
        assert_eq!(ended.await.code(), "25P04");
        next_is_served(&stage, name).await;
        assert_eq!(hits(&stage, name, "transaction_timeout").await, 4.0);
    }
    assert_eq!(calm.query("COMMIT").await.tags, ["COMMIT"]);
}

#[tokio::test]
async fn a_client_that_does_not_read_loses_its_server_with_its_transaction() {
    let stage = stage("transaction_timeout = \"500ms\", idle_transaction_timeout = \"500ms\"", &BOTH).await;
    for (name, _) in BOTH {
        let mut deaf = stage.client(name).await;
        let sql = "SELECT repeat('x', 1000000) FROM generate_series(1, 1000)";
        deaf.send(&Batch::new().query(sql).0).await;
        // A COPY without data: the server waits for its client, and an answer is still to come.
        next_is_served(&stage, name).await;
        let mut mute = stage.client(name).await;
        mute.send(&Batch::new().query("COPY things FROM STDIN").0).await;
        mute.expect(b'G').await;
        assert_eq!(farewell(&mut mute).await.code, "25P04");
        next_is_served(&stage, name).await;
        assert_eq!(hits(&stage, name, "transaction_timeout").await, 2.0);
        drop(deaf);
    }
}

#[tokio::test]
async fn many_short_transactions_are_not_a_long_one() {
    let stage = stage("transaction_timeout = \"500ms\"", &BOTH).await;
    for (name, _) in BOTH {
        let mut client = stage.client(name).await;
        for keeps in ["SELECT 'nothing'", "LISTEN news"] {
            assert!(client.query(keeps).await.errors.is_empty());
            // All at once: something is outstanding from the first to the last.
            let work = (0..15).fold(Batch::new(), |work, _| work.query("SELECT pg_sleep(0.1), 'done'"));
            client.send(&work.0).await;
            for _ in 0..15 {
                let reply = client.until_ready().await;
                assert!(reply.errors.is_empty() && reply.status == Some('I'), "{name}: {reply:?}");
            }
            // One after the other.
            for _ in 0..15 {
                let reply = client.query("SELECT pg_sleep(0.1)").await;
                assert!(reply.errors.is_empty() && reply.status == Some('I'), "{name}: {reply:?}");
            }
        }
        // Nothing is left over from them.
        assert!(client.message_within(Duration::from_millis(1_500)).await.is_none());
    }
}

#[tokio::test]
async fn a_client_that_keeps_a_server_and_does_not_use_it_is_sent_away() {
    let stage = stage("pin_idle_timeout = \"500ms\"", &BOTH).await;
    for (sql, what) in [
        ("LISTEN news", "LISTEN"),
        ("CREATE TEMP TABLE mine (x int)", "temporary object"),
        ("SELECT pg_advisory_lock(7)", "advisory lock"),
    ] {
        let mut client = stage.client("acme").await;
        assert!(client.query(sql).await.errors.is_empty());
        let told = farewell(&mut client).await;
        assert_eq!(told.code, "57P05");
        assert!(told.detail.contains("500ms (pin_idle_timeout)"), "{told:?}");
        assert!(told.detail.contains(what), "{told:?}");
        next_is_served(&stage, "acme").await;
    }
    assert_eq!(hits(&stage, "acme", "pin_idle_timeout").await, 3.0);
    let metrics = stage.proxy().metrics().await;
    assert_eq!(metrics.sum("tenantry_tenant_servers_pinned", &[("tenant", "acme")]), 0.0);
    // A client without a pin, one in a transaction, and one whose server is its own are not meant.
    let mut clients = [stage.client("acme").await, stage.client("bolt").await];
    clients[0].query("SELECT 1").await;
    clients[1].query("LISTEN news").await;
    for client in &mut clients {
        assert!(client.message_within(Duration::from_millis(1_500)).await.is_none());
    }
    let mut working = stage.client("acme").await;
    assert_eq!(working.query("LISTEN news; BEGIN").await.status, Some('T'));
    assert!(working.message_within(Duration::from_millis(1_500)).await.is_none());
    assert_eq!(working.query("COMMIT").await.tags, ["COMMIT"]);
    assert_eq!(farewell(&mut working).await.code, "57P05");
    assert_eq!(clients[0].query("SELECT 'here'").await.value(), "here");
}

#[tokio::test]
async fn a_reload_changes_time_limits() {
    let mut stage = Stage::start(Plan::new(&["acme", "calm"])).await;
    let (mut idle, mut holder) = (stage.client("acme").await, stage.client("acme").await);
    assert_eq!(holder.query("BEGIN").await.status, Some('T'));
    assert!(idle.message_within(Duration::from_millis(1_500)).await.is_none());
    stage.reload(|plan| plan.set("tier.hot", "client_idle_timeout", "\"500ms\"")).await;
    assert_eq!(farewell(&mut idle).await.code, "57P05");
    stage
        .reload(|mut plan| {
            plan.tenants[1] = plan.tenants[1].clone().line("limits = { idle_transaction_timeout = \"0s\" }");
            plan.set("tier.hot", "client_idle_timeout", "\"0s\"").set(
                "pool",
                "idle_transaction_timeout",
                "\"500ms\"",
            )
        })
        .await;
    let mut calm = stage.client("calm").await;
    calm.query("BEGIN").await;
    assert_eq!(farewell(&mut holder).await.code, "25P03");
    assert!(calm.message_within(Duration::from_millis(1_500)).await.is_none());
    assert_eq!(calm.query("COMMIT").await.tags, ["COMMIT"]);
    let mut idle = stage.client("acme").await;
    assert!(idle.message_within(Duration::from_millis(1_500)).await.is_none());
    assert_eq!(idle.query("SELECT 'here'").await.value(), "here");
}

#[tokio::test]
async fn a_drain_waits_for_transactions_no_longer_than_their_limit() {
    let tenants = vec![TenantPlan::new("acme").line("limits = { idle_transaction_timeout = \"1s\" }")];
    let mut stage = Stage::start(Plan::of(tenants).set("drain", "timeout", "\"60s\"")).await;
    let mut holder = stage.client("acme").await;
    holder.query("BEGIN").await;
    stage.proxy().signal("TERM");
    assert_eq!(farewell(&mut holder).await.code, "25P03");
    assert!(stage.proxy_mut().ended(PATIENCE).await.success());
}
