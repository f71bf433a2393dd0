//! Goal: a day in the life of an operator. A tenant becomes noisy, is promoted, comes to its ceiling, is throttled, drained,
//! moved to another cluster and let go on; the others hardly notice, measured by how they fared before.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::Value;
use tenantry::throwaway::{Cluster, ClusterOptions};
use tokio::task::JoinSet;

use crate::support::{Login, PATIENCE, Plan, Stage, TenantPlan, Wire, eventually};

const QUIET: [&str; 4] = ["anna", "bert", "cleo", "dora"];
const NOISY_CLIENTS: u64 = 30;

/// What clients do until they are told to stop, and what became of it.
#[derive(Default)]
struct Load {
    is_over: AtomicBool,
    done: AtomicU64,
    failed: AtomicU64,
    /// Where the noisy tenant's last transaction ran.
    port: AtomicU64,
}

/// Asks now and then, as a person does; no answer may be missing.
async fn quiet(mut client: Wire, load: Arc<Load>) {
    let mut pause = tokio::time::interval(Duration::from_millis(15));
    while !load.is_over.load(Ordering::SeqCst) {
        pause.tick().await;
        let reply = client.query("SELECT 1").await;
        let counter = if reply.errors.is_empty() { &load.done } else { &load.failed };
        counter.fetch_add(1, Ordering::SeqCst);
    }
}

/// Asks without a pause, and connects again if it is asked to.
async fn noisy(address: std::net::SocketAddr, login: Login, load: Arc<Load>) {
    while !load.is_over.load(Ordering::SeqCst) {
        let mut client = Wire::connect(address).await;
        if !client.log_in(&login).await.errors.is_empty() {
            continue;
        }
        while !load.is_over.load(Ordering::SeqCst) {
            client
                .send(&crate::support::Batch::new().query("SELECT current_setting('port'), pg_sleep(0.02)").0)
                .await;
            // A paused tenant's clients wait for longer than any test is patient.
            let Some(reply) = patiently(&mut client).await else { break };
            match reply {
                Ok(port) => {
                    load.port.store(port, Ordering::SeqCst);
                    load.done.fetch_add(1, Ordering::SeqCst);
                }
                Err(()) => drop(load.failed.fetch_add(1, Ordering::SeqCst)),
            }
        }
    }
}

/// The port of the server that answered, or an error; `None` if the connection has ended.
async fn patiently(client: &mut Wire) -> Option<Result<u64, ()>> {
    let mut outcome = Err(());
    loop {
        let message = client.message_within(Duration::from_secs(60)).await.flatten()?;
        match message.tag {
            b'D' => outcome = Ok(message.columns()[0].as_deref().unwrap().parse().unwrap()),
            b'Z' => return Some(outcome),
            _ => {}
        }
    }
}

async fn command(stage: &Stage, arguments: &[&str]) -> String {
    let (ok, said) = stage.proxy().command(arguments).await;
    assert!(ok, "{arguments:?}: {said}");
    said
}

async fn why(stage: &Stage) -> Value {
    serde_json::from_str(&command(stage, &["why", "noisy", "--json"]).await).unwrap()
}

/// Milliseconds that a quiet tenant's request waits for a server, on the average of a hundred and more.
async fn mean_wait_ms(stage: &Stage, loads: &[Arc<Load>]) -> f64 {
    let sums = async || {
        let metrics = stage.proxy().metrics().await;
        let sum =
            |name: &str| -> f64 { QUIET.iter().map(|tenant| metrics.sum(name, &[("tenant", tenant)])).sum() };
        (sum("tenantry_tenant_wait_seconds_total"), sum("tenantry_tenant_leases_total"))
    };
    let (wait, leases) = sums().await;
    eventually("quiet tenants go on", PATIENCE, async || {
        let (_, now) = sums().await;
        (now - leases > 400.0).then_some(())
    })
    .await;
    let (wait_after, leases_after) = sums().await;
    for load in loads {
        assert_eq!(load.failed.load(Ordering::SeqCst), 0, "a quiet tenant was refused something");
    }
    (wait_after - wait) * 1e3 / (leases_after - leases)
}

#[tokio::test]
async fn a_day_in_the_life() {
    let tenants =
        QUIET.iter().map(|name| TenantPlan::new(name)).chain([TenantPlan::new("noisy").tier("auto")]);
    let plan = Plan::of(tenants.collect()).budget(10).set("http", "token", "\"operators-only-0123\"");
    let plan =
        plan.set("tier.hot", "ceiling", "6").set("tier.cold", "ceiling", "3").set("tier.hot", "share", "4");
    let stage = Stage::start(plan).await;
    let other = elsewhere(&stage).await;

    // Morning: all is quiet.
    let quiets: Vec<_> = QUIET.iter().map(|_| Arc::new(Load::default())).collect();
    let mut tasks = JoinSet::new();
    for (tenant, load) in QUIET.iter().zip(&quiets) {
        tasks.spawn(quiet(stage.client(tenant).await, load.clone()));
    }
    let before_ms = mean_wait_ms(&stage, &quiets).await;
    let fares = async |when: &str| {
        let now_ms = mean_wait_ms(&stage, &quiets).await;
        assert!(now_ms <= 2.0 * before_ms + 15.0, "{when}: they wait {now_ms} ms, and {before_ms} before");
    };

    // It becomes noisy, is promoted, and comes to its new ceiling.
    let load = Arc::new(Load::default());
    for _ in 0..NOISY_CLIENTS {
        tasks.spawn(noisy(stage.address(), stage.login("noisy"), load.clone()));
    }
    eventually("it is promoted", PATIENCE * 2, async || (why(&stage).await["tier"] == "hot").then_some(()))
        .await;
    let promotion = stage.proxy().log();
    let line = promotion.lines().find(|line| line.contains("\"promoted\"")).unwrap();
    assert!(line.contains("servers at the peak of the last minutes"), "{line}");
    let answer = eventually("it waits for its ceiling", PATIENCE, async || {
        let answer = why(&stage).await;
        (answer["cause"] == "ceiling" && answer["servers"]["busy"] == 6).then_some(answer)
    })
    .await;
    assert!(answer["sentence"].as_str().unwrap().contains("6 of 6 servers busy"), "{answer}");
    fares("beside a noisy one").await;

    // It is throttled.
    command(&stage, &["throttle", "noisy", "--transactions-per-second", "20", "--transaction-burst", "1"])
        .await;
    let done = load.done.load(Ordering::SeqCst);
    fares("beside a throttled one").await;
    let (slow, refused) = (load.done.load(Ordering::SeqCst) - done, load.failed.load(Ordering::SeqCst));
    assert!(slow < 400 && refused > 0, "{slow} transactions, {refused} refused");

    // It is drained, and moved.
    command(&stage, &["drain", "noisy", "--for", "2m", "--wait", "20s"]).await;
    assert_eq!(servers(&stage.postgres).await, 0);
    assert!(
        why(&stage).await["clients"]["connected"].as_u64() >= Some(NOISY_CLIENTS - 5),
        "they are still there"
    );
    let moved = format!(
        "{}\n[cluster.other]\nurl = \"postgres://127.0.0.1:{}/app\"\nmax_connections = 10\n",
        stage.toml(),
        other.port()
    );
    let place = moved.find("name = \"noisy\"").unwrap();
    let (head, tail) = moved.split_at(place);
    stage
        .reload_text(
            &format!("{head}{}", tail.replacen("cluster = \"main\"", "cluster = \"other\"", 1)),
            "ok",
        )
        .await;
    eventually("its clients wait at the other cluster", PATIENCE, async || {
        let answer = why(&stage).await;
        (answer["cluster"] == "other"
            && answer["cause"] == "paused"
            && answer["clients"]["waiting"].as_u64() > Some(20))
        .then_some(())
    })
    .await;
    fares("while one moves").await;

    // It goes on, elsewhere.
    command(&stage, &["resume", "noisy"]).await;
    eventually("it goes on at the other cluster", PATIENCE, async || {
        (load.port.load(Ordering::SeqCst) == u64::from(other.port())).then_some(())
    })
    .await;
    assert_eq!(servers(&stage.postgres).await, 0);
    fares("when one has moved").await;

    load.is_over.store(true, Ordering::SeqCst);
    quiets.iter().for_each(|load| load.is_over.store(true, Ordering::SeqCst));
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
}

/// Another cluster, where the tenant has a role and a schema too.
async fn elsewhere(stage: &Stage) -> Cluster {
    let options =
        ClusterOptions { template: stage.plan.postgres.template.clone(), ..ClusterOptions::default() };
    let other = Cluster::start(options).await.unwrap_or_else(|error| panic!("{error}"));
    other.psql("CREATE DATABASE app").await.unwrap();
    other.psql_in("app", &stage.plan.sql(false)).await.unwrap();
    other
}

/// Servers of the noisy tenant there.
async fn servers(cluster: &Cluster) -> usize {
    let rows =
        cluster.psql("SELECT pid::text FROM pg_stat_activity WHERE usename = 'role_noisy'").await.unwrap();
    rows.len()
}
