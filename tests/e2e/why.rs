//! Goal: whoever waits can be told why, by the command that an operator types. Each cause is provoked on a real Postgres.

use serde_json::Value;

use crate::support::{Batch, PATIENCE, Plan, Stage, TenantPlan, Wire, eventually};

/// Asks until the tenant's clients wait for this; returns all that is said.
async fn waits_for(stage: &Stage, tenant: &str, cause: &str) -> Value {
    let mut last = String::new();
    let what = format!("{tenant} waits for {cause}");
    let found = tokio::time::timeout(
        PATIENCE,
        eventually(&what, PATIENCE * 2, async || {
            let (_, said) = stage.proxy().command(&["why", tenant, "--json"]).await;
            let answer: Value = serde_json::from_str(&said).ok()?;
            last = said;
            (answer["cause"] == cause).then_some(answer)
        }),
    );
    found.await.unwrap_or_else(|_| panic!("{what}: {last}"))
}

fn sentence(answer: &Value) -> &str {
    answer["sentence"].as_str().unwrap()
}

/// A client that has begun a transaction.
async fn holder(stage: &Stage, tenant: &str) -> Wire {
    let mut client = stage.client(tenant).await;
    client.query("BEGIN").await;
    client
}

/// A client that has asked for something, and waits.
async fn waiter(stage: &Stage, tenant: &str) -> Wire {
    let mut client = stage.client(tenant).await;
    client.send(&Batch::new().query("SELECT 1").0).await;
    client
}

async fn counted(stage: &Stage, cause: &str) -> f64 {
    stage.proxy().metrics().await.sum("tenantry_wait_cause_seconds_count", &[("cause", cause)])
}

#[tokio::test]
async fn the_ceiling_and_a_slow_server() {
    let stage = Stage::start(Plan::new(&["acme"]).one_server_each()).await;
    stage.warm_up("acme").await;
    let before = counted(&stage, "ceiling").await;
    let mut first = holder(&stage, "acme").await;
    let mut second = waiter(&stage, "acme").await;
    let answer = waits_for(&stage, "acme", "ceiling").await;
    assert!(sentence(&answer).contains("1 of 1 servers busy"), "{answer}");
    assert!(sentence(&answer).contains("raising the ceiling to 2 would need 1 server"), "{answer}");
    assert!(sentence(&answer).contains("1 client waits"), "{answer}");
    assert_eq!((&answer["clients"]["waiting"], &answer["servers"]["busy"]), (&1.into(), &1.into()));
    first.query("COMMIT").await;
    assert_eq!(second.until_ready().await.value(), "1");
    assert_eq!(counted(&stage, "ceiling").await, before + 1.0);

    // Many quick transactions say what is usual.
    for _ in 0..80 {
        first.query("SELECT 1").await;
    }
    first.query("BEGIN").await;
    second.send(&Batch::new().query("SELECT 1").0).await;
    let answer = waits_for(&stage, "acme", "server_slow").await;
    assert!(sentence(&answer).contains("(usually "), "{answer}");
    assert!(answer["transaction_us"].as_u64() >= answer["usual_transaction_us"].as_u64().map(|us| us * 4));
    first.query("COMMIT").await;
    second.until_ready().await;

    let (ok, said) = stage.proxy().command(&["why", "acme"]).await;
    assert!(ok && said.starts_with("acme does not wait: 0 of 1 servers busy, 1 idle."), "{said}");
    let (ok, said) = stage.proxy().command(&["why", "nobody"]).await;
    assert!(!ok && said.contains("there is no tenant `nobody`"), "{said}");
}

#[tokio::test]
async fn a_full_budget_and_the_tenants_own_servers() {
    let stage = Stage::start(Plan::new(&["acme", "bolt"]).budget(2)).await;
    let mut bolts = [holder(&stage, "bolt").await, holder(&stage, "bolt").await];
    let mut acme = stage.connect().await;
    let login = stage.login("acme");
    let logged_in = tokio::spawn(async move {
        acme.log_in(&login).await;
        acme.query("SELECT 1").await;
        acme
    });
    let answer = waits_for(&stage, "acme", "budget_full").await;
    assert!(sentence(&answer).contains("2 of 2 busy"), "{answer}");
    assert_eq!(answer["budget"]["capacity"], 2);
    for bolt in &mut bolts {
        bolt.query("COMMIT").await;
    }
    let mut acme = logged_in.await.unwrap();
    assert!(counted(&stage, "budget_full").await >= 1.0);

    // Both have one server, and the other one's is never idle for long.
    let mut other = stage.client("acme").await;
    let busy = eventually("a short wait is put down to a short transaction", PATIENCE, async || {
        for _ in 0..20 {
            bolts[0].query("SELECT 1").await;
            acme.send(&Batch::new().query("SELECT 1").0).await;
            other.query("SELECT 1").await;
            acme.until_ready().await;
        }
        Some(counted(&stage, "own_servers").await).filter(|count| *count > 0.0)
    });
    busy.await;
}

#[tokio::test]
async fn logins_and_the_brake_on_them() {
    let stage = Stage::start(Plan::new(&["acme"]).budget(20).queue_timeout("30s")).await;
    stage.warm_up("acme").await;
    stage.postgres.psql("ALTER SYSTEM SET post_auth_delay = 2").await.unwrap();
    stage.postgres.psql("SELECT pg_reload_conf()").await.unwrap();
    let _holders = [holder(&stage, "acme").await, holder(&stage, "acme").await];
    let _first = waiter(&stage, "acme").await;
    let answer = waits_for(&stage, "acme", "login").await;
    assert!(sentence(&answer).contains("1 of its servers log in"), "{answer}");
    let mut others = Vec::new();
    for _ in 0..17 {
        others.push(waiter(&stage, "acme").await);
    }
    let answer = waits_for(&stage, "acme", "reconnect_brake").await;
    let logging_in = answer["budget"]["login"].as_u64().unwrap();
    assert!((8..16).contains(&logging_in), "{answer}");
    for other in &mut others {
        assert_eq!(other.until_ready().await.value(), "1");
    }
    assert!(counted(&stage, "login").await > 0.0 && counted(&stage, "reconnect_brake").await > 0.0);
}

#[tokio::test]
async fn the_tenants_rate_and_an_operator() {
    let limits =
        "limits = { transactions_per_second = 1, transaction_burst = 3, transaction_delay = \"20s\" }";
    let acme = TenantPlan::new("acme").line(limits);
    let plan = Plan::of(vec![acme, TenantPlan::new("bolt")]);
    let stage = Stage::start(plan.set("http", "token", "\"operators-only-0123\"")).await;
    let mut client = stage.client("acme").await;
    while counted(&stage, "rate_limit").await == 0.0 {
        client.query("SELECT 1").await;
    }
    client.send(&Batch::new().query("SELECT 1").0).await;
    let answer = waits_for(&stage, "acme", "rate_limit").await;
    assert!(sentence(&answer).contains("it may begin 1 transactions a second, and begins more"), "{answer}");
    assert_eq!(answer["transactions_per_second"], 1);
    client.until_ready().await;
    let mut client = stage.client("bolt").await;
    let (ok, said) = stage.proxy().command(&["pause", "bolt", "--for", "1m"]).await;
    assert!(ok, "{said}");
    client.send(&Batch::new().query("SELECT 1").0).await;
    let answer = waits_for(&stage, "bolt", "paused").await;
    assert!(sentence(&answer).contains("An operator has paused it"), "{answer}");
    assert_eq!(answer["halted"]["how"], "pause");
    let (ok, said) = stage.proxy().command(&["resume", "bolt"]).await;
    assert!(ok, "{said}");
    assert_eq!(client.until_ready().await.value(), "1");
    assert!(counted(&stage, "paused").await > 0.0);
}

/// New servers are not to be had; the one that there is goes on.
#[tokio::test]
async fn a_server_that_is_down_and_one_that_refuses() {
    let stage = Stage::start(Plan::new(&["acme"]).set("pool", "connect_timeout", "\"300ms\"")).await;
    stage.warm_up("acme").await;
    let _other = holder(&stage, "acme").await;
    let mut first = holder(&stage, "acme").await;
    stage.postgres.psql("ALTER ROLE role_acme NOLOGIN").await.unwrap();
    let mut second = waiter(&stage, "acme").await;
    let answer = waits_for(&stage, "acme", "login_refused").await;
    assert!(sentence(&answer).contains("SQLSTATE of the server: 28000"), "{answer}");
    first.query("COMMIT").await;
    second.until_ready().await;
    stage.postgres.psql("ALTER ROLE role_acme LOGIN").await.unwrap();

    first.query("BEGIN").await;
    let frozen = Frozen::new(stage.postgres.pid().unwrap());
    second.send(&Batch::new().query("SELECT 1").0).await;
    let answer = waits_for(&stage, "acme", "server_down").await;
    assert!(sentence(&answer).contains("cluster main cannot be reached"), "{answer}");
    first.query("COMMIT").await;
    assert_eq!(second.until_ready().await.value(), "1", "the server that there is serves it");
    drop(frozen);
}

/// The postmaster alone: its children go on, and nobody is let in.
struct Frozen(u32);

impl Frozen {
    fn new(pid: u32) -> Self {
        Self(pid).signal("STOP")
    }

    fn signal(self, name: &str) -> Self {
        let status = std::process::Command::new("sh")
            .args(["-c", "kill -\"$0\" \"$1\"", name, &self.0.to_string()])
            .status();
        assert!(status.unwrap().success());
        self
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        std::mem::forget(Self(self.0).signal("CONT"));
    }
}

#[tokio::test]
async fn tenants_with_long_transactions_share_a_part_of_the_budget() {
    let stage = Stage::start(Plan::new(&["acme"]).budget(4).set("tier.hot", "share", "1")).await;
    let mut client = stage.client("acme").await;
    for _ in 0..2 {
        client.query("SELECT pg_sleep(0.6)").await;
    }
    let mut holders = Vec::new();
    for _ in 0..3 {
        holders.push(holder(&stage, "acme").await);
    }
    let mut last = waiter(&stage, "acme").await;
    let answer = waits_for(&stage, "acme", "long_borrowers").await;
    assert!(sentence(&answer).contains("hold all servers that they may hold together"), "{answer}");
    assert_eq!((&answer["servers"]["busy"], &answer["budget"]["capacity"]), (&3.into(), &4.into()));
    holders[0].query("COMMIT").await;
    last.until_ready().await;
}

/// A long wait is a line of the log, with its cause; many of one tenant are one line.
#[tokio::test]
async fn a_long_wait_is_logged_with_its_cause() {
    let plan = Plan::new(&["acme"]).one_server_each().set("log", "slow_wait", "\"50ms\"");
    let stage = Stage::start(plan).await;
    stage.warm_up("acme").await;
    let mut first = holder(&stage, "acme").await;
    let mut waiters =
        [waiter(&stage, "acme").await, waiter(&stage, "acme").await, waiter(&stage, "acme").await];
    first.query("SELECT pg_sleep(0.06)").await;
    first.query("COMMIT").await;
    for waiter in &mut waiters {
        waiter.until_ready().await;
    }
    let log = stage.proxy().log();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("a client waited long")).collect();
    let [line] = lines[..] else { panic!("{lines:?}") };
    let line: Value = serde_json::from_str(line).unwrap();
    assert_eq!((&line["customer_id"], &line["reason"]), (&"acme".into(), &"ceiling".into()), "{line}");
    assert!(line["waited_ms"].as_u64() >= Some(50) && line["ceiling"] == 1 && line["budget"] == 20, "{line}");
}
