//! Things that break: servers, the whole of Postgres, clients in the middle of something.

use std::time::Duration;

use crate::support::{Batch, PATIENCE, Plan, Stage, Wire, eventually};

const TERMINATE: &str =
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename LIKE 'role\\_%'";

/// Waits until a query succeeds on this session, through errors that keep it alive.
async fn recovers(client: &mut Wire) {
    eventually("the session recovers", PATIENCE, async || {
        let reply = client.query("SELECT 1").await;
        assert_eq!(reply.status, Some('I'), "{reply:?}");
        reply.errors.is_empty().then_some(())
    })
    .await;
}

/// No server in a transaction, none more than the proxy says, and the rows of `acme` untouched.
async fn is_clean(stage: &Stage) {
    let sql = "SELECT state FROM pg_stat_activity WHERE usename LIKE 'role\\_%' AND state <> 'idle'";
    eventually("every server is idle", PATIENCE, async || {
        stage.postgres.psql(sql).await.unwrap().is_empty().then_some(())
    })
    .await;
    let mut client = stage.client("acme").await;
    assert_eq!(client.query("SELECT count(*) FROM things").await.value(), "20");
}

#[tokio::test]
async fn an_idle_server_that_dies_is_not_noticed() {
    let stage = Stage::start(Plan::new(&["acme"])).await;
    let mut client = stage.client("acme").await;
    for _ in 0..5 {
        let pid = client.query("SELECT pg_backend_pid()").await.value().to_owned();
        // Behind its first answers a new server is asked what functions there are: it is leased until then.
        let busy = "SELECT 1 FROM pg_stat_activity WHERE usename LIKE 'role\\_%' AND state <> 'idle'";
        eventually("it is idle", PATIENCE, async || {
            stage.postgres.psql(busy).await.unwrap().is_empty().then_some(())
        })
        .await;
        stage.postgres.psql(TERMINATE).await.unwrap();
        stage.servers_become(0, Duration::from_secs(5)).await;
        // It leaves the list of sessions before it closes its socket.
        let process = std::path::Path::new("/proc").join(pid);
        eventually("its process is gone", PATIENCE, async || (!process.exists()).then_some(())).await;
        recovers(&mut client).await;
    }
}

#[tokio::test]
async fn a_server_that_dies_in_a_transaction_ends_the_session() {
    let stage = Stage::start(Plan::new(&["acme"])).await;
    let mut client = stage.client("acme").await;
    let mut other = stage.client("acme").await;
    client.query("BEGIN; INSERT INTO things VALUES (500, 'acme', '')").await;
    stage.postgres.psql(TERMINATE).await.unwrap();
    let reply = client.query("COMMIT").await;
    assert!(reply.status.is_none(), "{reply:?}");
    assert!(reply.errors.iter().any(|error| ["57P01", "08006"].contains(&error.code.as_str())), "{reply:?}");
    recovers(&mut other).await;
    is_clean(&stage).await;
}

#[tokio::test]
async fn a_server_that_dies_in_a_query_ends_the_session() {
    let stage = Stage::start(Plan::new(&["acme"])).await;
    let mut client = stage.client("acme").await;
    client.send(&Batch::new().query("SELECT pg_sleep(60)").0).await;
    let sql = "SELECT 1 FROM pg_stat_activity WHERE usename = 'role_acme' AND state = 'active'";
    eventually("the query runs", PATIENCE, async || {
        (!stage.postgres.psql(sql).await.unwrap().is_empty()).then_some(())
    })
    .await;
    stage.postgres.psql(TERMINATE).await.unwrap();
    let reply = client.until_ready().await;
    assert!(reply.status.is_none() && !reply.errors.is_empty(), "{reply:?}");
    is_clean(&stage).await;
}

#[tokio::test]
async fn postgres_is_killed_and_restarted_under_load() {
    let mut stage = Stage::start(Plan::new(&["acme", "bolt"]).budget(6).queue_timeout("2s")).await;
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let mut tasks = Vec::new();
    for number in 0..12 {
        let name = if number % 2 == 0 { "acme" } else { "bolt" };
        let (login, address, stop) = (stage.login(name), stage.address(), stop.clone());
        tasks.push(tokio::spawn(async move {
            let (mut good, mut bad) = (0_u32, 0_u32);
            let mut client = None;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let mut wire = match client.take() {
                    Some(wire) => wire,
                    None => {
                        let mut wire = Wire::connect(address).await;
                        if wire.log_in(&login).await.status.is_none() {
                            bad += 1;
                            tokio::task::yield_now().await;
                            continue;
                        }
                        wire
                    }
                };
                let reply =
                    wire.query("BEGIN; SELECT pg_sleep(0.001), owner FROM things WHERE id = 1; COMMIT").await;
                for error in &reply.errors {
                    let codes = ["08001", "08006", "53300", "57P01", "57P02", "57P03"];
                    assert!(codes.contains(&error.code.as_str()), "{error:?}");
                }
                if reply.errors.is_empty() && reply.status.is_some() {
                    assert_eq!(reply.rows[0][1].as_deref(), Some(login.user.as_str()));
                    good += 1;
                } else {
                    bad += 1;
                }
                client = reply.status.is_some().then_some(wire);
            }
            (good, bad)
        }));
    }
    let transactions =
        async |stage: &Stage| stage.proxy().metrics().await.sum("tenantry_tenant_transactions_total", &[]);
    for _ in 0..3 {
        let before = transactions(&stage).await;
        eventually("transactions flow", PATIENCE, async || {
            (transactions(&stage).await > before + 100.0).then_some(())
        })
        .await;
        stage.postgres.kill_9().unwrap();
        stage.postgres.start_again().await.unwrap();
    }
    let before = transactions(&stage).await;
    eventually("transactions flow again", PATIENCE, async || {
        (transactions(&stage).await > before + 100.0).then_some(())
    })
    .await;
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    for task in tasks {
        let (good, _) = task.await.unwrap();
        assert!(good > 0);
    }
    assert!(stage.servers().await <= 6);
    is_clean(&stage).await;
}

async fn has_idle(stage: &Stage, count: f64) -> Option<()> {
    let metrics = stage.proxy().metrics().await;
    (metrics.sum("tenantry_tenant_servers", &[("tenant", "acme"), ("state", "idle")]) == count).then_some(())
}

#[tokio::test]
async fn while_postgres_is_down_the_answer_is_quick_and_typed() {
    let mut stage = Stage::start(Plan::new(&["acme"]).queue_timeout("5s")).await;
    let mut client = stage.client("acme").await;
    client.query("SELECT 1").await;
    // Until the catalog has told of functions, nobody knows what the session has set.
    eventually("an idle server", PATIENCE, async || has_idle(&stage, 1.0).await).await;
    stage.postgres.kill_9().unwrap();
    // A query that meets the dying server itself is lost with it (08006); this is about what comes after.
    eventually("the dead server is noticed", PATIENCE, async || has_idle(&stage, 0.0).await).await;
    for _ in 0..10 {
        let start = tokio::time::Instant::now();
        let reply = client.query("SELECT 1").await;
        assert!(["08001", "57P03", "08006"].contains(&reply.code()), "{reply:?}");
        assert!(!format!("{reply:?}").contains("127.0.0.1"));
        assert!(start.elapsed() < Duration::from_secs(4));
        assert_eq!(reply.status, Some('I'), "nothing was in flight, so the session goes on: {reply:?}");
    }
    assert_eq!(stage.proxy().get("/livez").await.0, 200);
    stage.postgres.start_again().await.unwrap();
    recovers(&mut client).await;
}

#[tokio::test]
async fn a_frozen_postgres_costs_waiters_their_timeout_and_nothing_else() {
    let stage = Stage::start(Plan::new(&["acme"]).budget(3).queue_timeout("500ms")).await;
    let mut running = stage.client("acme").await;
    let mut waiting = stage.client("acme").await;
    running.query("BEGIN").await;
    stage.postgres.freeze().unwrap();
    running.send(&Batch::new().query("SELECT 'after the thaw'").0).await;
    let start = tokio::time::Instant::now();
    let reply = waiting.query("SELECT 1").await;
    assert!(["53300", "08001"].contains(&reply.code()), "{reply:?}");
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    assert_eq!(stage.proxy().get("/livez").await.0, 200);
    stage.postgres.thaw().unwrap();
    assert_eq!(running.until_ready().await.value(), "after the thaw");
    running.query("COMMIT").await;
    recovers(&mut waiting).await;
    assert!(stage.servers().await <= 3);
}

#[tokio::test]
async fn one_frozen_server_holds_up_only_its_client() {
    let stage = Stage::start(Plan::new(&["acme"]).budget(3)).await;
    let mut stuck = stage.client("acme").await;
    stuck.query("BEGIN").await;
    let pid = stuck.query("SELECT pg_backend_pid()").await.value().parse().unwrap();
    stage.postgres.signal_backend("STOP", pid).unwrap();
    stuck.send(&Batch::new().query("SELECT 'late'").0).await;
    let mut other = stage.client("acme").await;
    for _ in 0..20 {
        assert_eq!(other.query("SELECT 1").await.value(), "1");
    }
    stage.postgres.signal_backend("CONT", pid).unwrap();
    assert_eq!(stuck.until_ready().await.value(), "late");
}

#[tokio::test]
async fn a_newcomer_that_a_frozen_server_cannot_greet_is_told() {
    let plan = Plan::new(&["acme"]).one_server_each().queue_timeout("500ms");
    let stage = Stage::start(plan).await;
    stage.warm_up("acme").await;
    let mut client = stage.client("acme").await;
    let pid = client.query("SELECT pg_backend_pid()").await.value().parse().unwrap();
    stage.postgres.signal_backend("STOP", pid).unwrap();
    // Settings that nobody has asked for yet: the server must say what it makes of them.
    let mut login = stage.login("acme");
    login.parameters.push(("datestyle".to_owned(), "German".to_owned()));
    let reply = Wire::connect(stage.address()).await.log_in(&login).await;
    assert_eq!((reply.code(), reply.status), ("08006", None), "{reply:?}");
    stage.postgres.signal_backend("CONT", pid).unwrap();
    recovers(&mut client).await;
}

#[tokio::test]
async fn a_client_that_vanishes_in_a_transaction_leaves_a_clean_server() {
    let stage = Stage::start(Plan::new(&["acme"]).one_server_each()).await;
    for statement in ["BEGIN; INSERT INTO things VALUES (500, 'acme', '')", "BEGIN; SELECT broken"] {
        let mut client = stage.client("acme").await;
        client.query(statement).await;
        drop(client);
        is_clean(&stage).await;
    }
}

#[tokio::test]
async fn a_client_that_vanishes_in_a_query_does_not_keep_its_server() {
    let stage = Stage::start(Plan::new(&["acme"]).one_server_each()).await;
    let mut client = stage.client("acme").await;
    client.send(&Batch::new().query("INSERT INTO things SELECT 500, pg_sleep(60)::text, ''").0).await;
    stage.servers_become(1, PATIENCE).await;
    drop(client);
    let start = tokio::time::Instant::now();
    is_clean(&stage).await;
    assert!(start.elapsed() < Duration::from_secs(20));
}

#[tokio::test]
async fn what_a_client_that_vanishes_kept_its_server_for_is_free_soon() {
    let stage = Stage::start(Plan::new(&["acme"]).budget(4)).await;
    let mut holder = stage.client("acme").await;
    assert!(holder.query("SELECT pg_advisory_lock(7)").await.errors.is_empty());
    assert!(holder.query("CREATE TEMP TABLE mine (x int)").await.errors.is_empty());
    // On a server of its own: nobody needs the other one, so nobody resets it by the way.
    let mut other = stage.client("acme").await;
    other.send(&Batch::new().query("SELECT 'mine now' FROM (SELECT pg_advisory_lock(7)) AS lock").0).await;
    eventually("the other one waits for the lock", PATIENCE, async || {
        let sql = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted";
        (!stage.postgres.psql(sql).await.unwrap().is_empty()).then_some(())
    })
    .await;
    drop(holder);
    assert_eq!(other.until_ready().await.value(), "mine now");
    // Postgres lets the lock go first.
    eventually("the table goes with the lock", PATIENCE, async || {
        let sql = "SELECT 1 FROM pg_class WHERE relname = 'mine'";
        stage.postgres.psql_in("app", sql).await.unwrap().is_empty().then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_client_that_vanishes_in_copy_leaves_a_clean_server() {
    let stage = Stage::start(Plan::new(&["acme"]).one_server_each()).await;
    for sql in [
        "COPY things FROM STDIN",
        "COPY (SELECT repeat('x', 1000) FROM generate_series(1, 100000)) TO STDOUT",
    ] {
        let mut client = stage.client("acme").await;
        client.send(&Batch::new().query(sql).0).await;
        client.message().await.unwrap();
        client.send(&Batch::new().copy_data(b"500\tacme\t\n").raw(b"d\0\0\0\xffhalf a mess").0).await;
        drop(client);
        is_clean(&stage).await;
    }
}

#[tokio::test]
async fn a_client_that_vanishes_in_the_middle_of_a_message_leaves_a_clean_server() {
    let stage = Stage::start(Plan::new(&["acme"]).one_server_each()).await;
    let whole =
        Batch::new().query("BEGIN").run("SELECT $1", &["a long enough value"]).sync().query("COMMIT").0;
    for cut in 1..whole.len() {
        let mut client = stage.client("acme").await;
        client.send(&whole[..cut]).await;
        drop(client);
    }
    is_clean(&stage).await;
    assert!(stage.servers().await <= 1);
}

#[tokio::test]
async fn clients_that_vanish_while_they_wait_are_forgotten() {
    let stage = Stage::start(Plan::new(&["acme"]).one_server_each()).await;
    let mut holder = stage.client("acme").await;
    holder.query("BEGIN").await;
    for _ in 0..20 {
        let mut waiter = stage.client("acme").await;
        waiter.send(&Batch::new().query("INSERT INTO things VALUES (500, 'acme', '')").0).await;
        assert_eq!(waiter.message_within(Duration::from_millis(10)).await, None);
        drop(waiter);
    }
    eventually("nobody waits", PATIENCE, async || {
        let metrics = stage.proxy().metrics().await;
        (metrics.sum("tenantry_tenant_clients", &[("state", "waiting")]) == 0.0).then_some(())
    })
    .await;
    holder.query("COMMIT").await;
    is_clean(&stage).await;
}

#[tokio::test]
async fn a_client_that_vanishes_in_its_login_costs_nothing() {
    let stage = Stage::start(Plan::new(&["acme"])).await;
    let startup = Batch::startup(0x0003_0000, &[("user", "acme"), ("database", "app")]).0;
    for cut in 0..startup.len() {
        let mut wire = Wire::connect(stage.address()).await;
        wire.send(&startup[..cut]).await;
    }
    for _ in 0..50 {
        let mut wire = Wire::connect(stage.address()).await;
        wire.send(&startup).await;
        wire.expect(b'R').await;
    }
    eventually("nobody is left", PATIENCE, async || {
        let metrics = stage.proxy().metrics().await;
        (metrics.sum("tenantry_clients_half_open", &[]) == 0.0).then_some(())
    })
    .await;
    is_clean(&stage).await;
}

#[tokio::test]
async fn postgres_saying_it_is_full_is_not_a_broken_host() {
    let mut plan = Plan::new(&["acme"]).budget(15).queue_timeout("2s");
    plan.postgres.max_connections = 12;
    let stage = Stage::start(plan).await;
    let mut clients = Vec::new();
    for _ in 0..12 {
        let mut client = stage.client("acme").await;
        client.send(&Batch::new().query("SELECT pg_sleep(0.5), 'served'").0).await;
        clients.push(client);
    }
    let mut served = 0;
    for client in &mut clients {
        let reply = client.until_ready().await;
        assert_eq!(reply.status, Some('I'), "{reply:?}");
        assert!(reply.errors.iter().all(|error| error.code == "53300"), "{reply:?}");
        served += reply.rows.len();
    }
    assert!(served >= 6, "{served} served");
}

/// As on a standby, where LISTEN fails.
#[tokio::test]
async fn a_listener_that_cannot_listen_is_tried_again_after_growing_pauses() {
    let stage = Stage::start(Plan::new(&["acme"]).budget(4)).await;
    let mut client = stage.client("acme").await;
    assert!(client.query("LISTEN news").await.errors.is_empty());
    let listeners = "SELECT pid FROM pg_stat_activity WHERE application_name = 'tenantry listener'";
    eventually("a listener", PATIENCE, async || {
        (!stage.postgres.psql(listeners).await.unwrap().is_empty()).then_some(())
    })
    .await;
    let forbid = "REVOKE EXECUTE ON FUNCTION pg_catalog.set_config(text, text, boolean) FROM PUBLIC";
    stage.postgres.psql_in("app", forbid).await.unwrap();
    stage.postgres.psql(&listeners.replace("pid", "pg_terminate_backend(pid)")).await.unwrap();
    let losses = || {
        let log = stage.proxy().log();
        let lines = log.lines().filter(|line| line.contains("listener_lost"));
        let time = |line: &str| humantime::parse_rfc3339(line.split('"').nth(3).unwrap()).unwrap();
        lines.map(time).collect::<Vec<_>>()
    };
    let losses =
        eventually("six losses", PATIENCE, async || Some(losses()).filter(|all| all.len() >= 6)).await;
    // The first is that of the one that was ended: the next is asked for at once.
    let lasted = losses[5].duration_since(losses[1]).unwrap();
    assert!(lasted >= Duration::from_millis(50 + 100 + 200 + 400 - 5), "{lasted:?}");
}
