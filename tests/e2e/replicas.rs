//! Read replicas: what goes to them, when it goes to the primary instead, and what must not differ between the two.

use tenantry::throwaway::{Cluster, Hba};

use crate::steering::order;
use crate::support::{Batch, PATIENCE, Plan, Stage, TenantPlan, Wire, eventually};

/// A primary, a standby, and the proxy before both.
struct Scene {
    stage: Stage,
    standby: Cluster,
}

impl Scene {
    /// `reads` is the tenant's `replica_reads`.
    async fn start(reads: &str) -> Self {
        Self::start_with(reads, |plan| plan).await
    }

    async fn start_with(reads: &str, change: impl FnOnce(Plan) -> Plan) -> Self {
        let mut stage = Stage::without_proxy(change(plan(reads))).await;
        let standby = stage.postgres.standby().await.unwrap_or_else(|error| panic!("{error}"));
        stage.plan = stage.plan.clone().replica(&standby);
        stage.start_proxy().await;
        Self { stage, standby }
    }

    /// A client that asks for a replica behind its user name.
    async fn reader(&self) -> Wire {
        let mut login = self.stage.login("acme");
        login.user.push_str("+replica");
        self.stage.connect().await.logged_in(&login).await
    }

    /// Runs something on the primary, and waits until the standby has replayed it.
    async fn write(&self, sql: &str) {
        self.stage.postgres.psql_in("app", sql).await.unwrap();
        let rows = self.stage.postgres.psql("SELECT pg_current_wal_lsn()").await.unwrap();
        let written = rows[0][0].clone().unwrap();
        let sql = format!("SELECT pg_last_wal_replay_lsn() >= '{written}'");
        eventually("the standby has replayed it", PATIENCE, async || {
            (self.standby.psql(&sql).await.unwrap()[0][0].as_deref() == Some("t")).then_some(())
        })
        .await;
    }

    async fn transactions(&self, to: &str) -> f64 {
        let page = self.stage.proxy().metrics().await;
        page.sum("tenantry_tenant_replica_transactions_total", &[("tenant", "acme"), ("to", to)])
    }
}

fn plan(reads: &str) -> Plan {
    let tenants =
        ["acme", "globex"].map(|name| TenantPlan::new(name).line(&format!("replica_reads = \"{reads}\"")));
    let mut plan = Plan::of(tenants.to_vec());
    for (name, value) in [("wal_level", "replica"), ("max_wal_senders", "5")] {
        plan.postgres.settings.push((name.to_owned(), value.to_owned()));
    }
    let lines = [
        "local replication postgres trust",
        "local all all scram-sha-256",
        "host all all 127.0.0.1/32 scram-sha-256",
    ];
    plan.postgres.hba = Hba::Lines(lines.map(str::to_owned).to_vec());
    plan
}

impl Plan {
    /// The standby is a replica of the only cluster.
    fn replica(self, standby: &Cluster) -> Self {
        let url = format!("\"postgres://localhost:{}/app\"", standby.port());
        self.set("cluster.east", "url", &url)
            .set("cluster.east", "replica_of", "\"main\"")
            .set("cluster.east", "max_connections", "6")
            .set("cluster.east", "max_lag", "\"1s\"")
    }
}

/// Whether the server that serves this client replays another's changes.
async fn is_on_replica(client: &mut Wire) -> bool {
    client.query("SELECT pg_is_in_recovery()").await.value() == "t"
}

/// Waits until this client's transactions go there.
async fn goes_to(client: &mut Wire, place: &str) {
    eventually(place, PATIENCE, async || {
        (is_on_replica(client).await == (place == "the replica")).then_some(())
    })
    .await;
}

const READ_ONLY_TRANSACTION: &str = "25006";

#[tokio::test]
async fn sessions_that_ask_for_a_replica_read_there_and_no_others_do() {
    let scene = Scene::start("sessions").await;
    let options = [("options", "-c tenantry.target=replica")];
    for mut client in [scene.reader().await, scene.stage.client_with("acme", &options).await] {
        goes_to(&mut client, "the replica").await;
        let refused = client.query("CREATE TABLE t ()").await;
        assert_eq!(refused.errors[0].code, READ_ONLY_TRANSACTION, "{refused:?}");
        // A plain transaction is one, too.
        assert!(client.query("BEGIN").await.errors.is_empty());
        assert!(is_on_replica(&mut client).await);
        assert!(client.query("COMMIT").await.errors.is_empty());
    }
    let mut writer = scene.stage.client("acme").await;
    assert!(!is_on_replica(&mut writer).await);
    assert!(writer.query("BEGIN READ ONLY").await.errors.is_empty());
    assert!(!is_on_replica(&mut writer).await, "the tenant's transactions are not asked for");
    assert!(writer.query("COMMIT; CREATE TABLE t ()").await.errors.is_empty());
    assert!(scene.transactions("replica").await >= 2.0);
    let page = scene.stage.proxy().metrics().await;
    assert!(page.has("tenantry_replica_lag_seconds", &[("cluster", "east")]));
}

#[tokio::test]
async fn a_transaction_that_says_that_it_only_reads_goes_to_the_replica_and_what_comes_behind_it_does_not() {
    let scene = Scene::start("transactions").await;
    scene.write("CREATE TABLE schema_acme.t (a int); GRANT ALL ON schema_acme.t TO role_acme").await;
    let mut client = scene.stage.client("acme").await;
    let read = "SELECT pg_is_in_recovery()";
    eventually("a transaction on the replica", PATIENCE, async || {
        let ran =
            [client.query("BEGIN READ ONLY").await, client.query(read).await, client.query("COMMIT").await];
        assert!(ran.iter().all(|reply| reply.errors.is_empty()), "{ran:?}");
        (ran[1].value() == "t").then_some(())
    })
    .await;
    assert!(!is_on_replica(&mut client).await);
    // All at once, in simple queries and in extended ones.
    let simple =
        Batch::new().query("BEGIN READ ONLY").query(read).query("COMMIT").query("INSERT INTO t VALUES (1)");
    let extended = Batch::new().run("START TRANSACTION READ ONLY", &[]).sync().run(read, &[]).sync();
    let extended = extended.run("COMMIT", &[]).sync().run("INSERT INTO t VALUES ($1)", &["2"]).sync();
    for batch in [simple, extended] {
        client.send(&batch.0).await;
        let mut replies = Vec::new();
        for _ in 0..4 {
            replies.push(client.until_ready().await);
        }
        assert!(replies.iter().all(|reply| reply.errors.is_empty()), "{replies:?}");
        assert_eq!(replies[1].value(), "t");
    }
    // A Sync that comes late, and a transaction that goes on behind it.
    client.send(&Batch::new().run("BEGIN READ ONLY", &[]).0).await;
    client.send(&Batch::new().flush().0).await;
    for tag in *b"12C" {
        client.expect(tag).await;
    }
    client.send(&Batch::new().sync().query(read).query("COMMIT").0).await;
    client.until_ready().await;
    assert_eq!(client.until_ready().await.value(), "t");
    client.until_ready().await;
    assert_eq!(client.query("SELECT count(*) FROM t").await.value(), "2");
}

#[tokio::test]
async fn a_tenant_that_only_reads_says_so_once() {
    let mut scene = Scene::start("always").await;
    let mut client = scene.stage.client("acme").await;
    goes_to(&mut client, "the replica").await;
    scene
        .stage
        .reload(|mut plan| {
            for tenant in &mut plan.tenants {
                tenant.lines = vec!["replica_reads = \"never\"".to_owned()];
            }
            plan
        })
        .await;
    assert!(!is_on_replica(&mut client).await, "from the reload on");
    eventually("the servers on the replica are closed", PATIENCE, async || {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'role_acme'";
        (scene.standby.psql(sql).await.unwrap()[0][0].as_deref() == Some("0")).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_replica_that_is_behind_is_not_read_from_until_it_has_caught_up() {
    let scene = Scene::start("sessions").await;
    let mut reader = scene.reader().await;
    goes_to(&mut reader, "the replica").await;
    scene.standby.psql("SELECT pg_wal_replay_pause()").await.unwrap();
    scene.stage.postgres.psql_in("app", "CREATE TABLE schema_acme.news AS SELECT 1 AS a").await.unwrap();
    goes_to(&mut reader, "the primary").await;
    // It reads only, also there.
    let refused = reader.query("CREATE TABLE t ()").await;
    assert_eq!(refused.errors[0].code, READ_ONLY_TRANSACTION, "{refused:?}");
    assert!(scene.transactions("primary").await >= 1.0);
    scene.standby.psql("SELECT pg_wal_replay_resume()").await.unwrap();
    goes_to(&mut reader, "the replica").await;
}

#[tokio::test]
async fn a_replica_that_goes_away_or_becomes_a_primary_costs_no_session() {
    let mut scene = Scene::start("sessions").await;
    let mut reader = scene.reader().await;
    goes_to(&mut reader, "the replica").await;
    // Idle servers are lost, no transaction is.
    scene.standby.stop().unwrap();
    for _ in 0..20 {
        assert!(!is_on_replica(&mut reader).await);
    }
    scene.standby.start_again().await.unwrap();
    goes_to(&mut reader, "the replica").await;
    assert_eq!(scene.standby.psql("SELECT pg_promote()").await.unwrap()[0][0].as_deref(), Some("t"));
    goes_to(&mut reader, "the primary of the tenant").await;
    let port = reader.query("SHOW port").await;
    eventually("nothing goes to it any more", PATIENCE, async || {
        (reader.query("SHOW port").await.value() == scene.stage.postgres.port().to_string()).then_some(())
    })
    .await;
    drop(port);
    for _ in 0..50 {
        assert_eq!(reader.query("SHOW port").await.value(), scene.stage.postgres.port().to_string());
    }
}

#[tokio::test]
async fn a_replica_has_a_budget_of_its_own() {
    let scene = Scene::start("sessions").await;
    let mut readers = Vec::new();
    let mut first = scene.reader().await;
    goes_to(&mut first, "the replica").await;
    for _ in 0..12 {
        let mut reader = scene.reader().await;
        reader.send(&Batch::new().query("BEGIN; SELECT pg_is_in_recovery()").0).await;
        readers.push(reader);
    }
    // The primary has all of its servers yet.
    for tenant in ["acme", "globex"] {
        assert!(!is_on_replica(&mut scene.stage.client(tenant).await).await);
    }
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE usename LIKE 'role\\_%'";
    for mut reader in readers {
        let reply = reader.until_ready().await;
        assert_eq!((reply.value(), reply.errors.len()), ("t", 0));
        let servers = scene.standby.psql(sql).await.unwrap()[0][0].clone().unwrap();
        assert!(servers.parse::<u32>().unwrap() <= 6, "{servers}");
        assert!(reader.query("COMMIT").await.errors.is_empty());
    }
}

#[tokio::test]
async fn what_a_client_sets_on_a_replica_is_its_own_also_by_a_function_that_is_new() {
    let scene = Scene::start("sessions").await;
    let (mut ann, mut bob) = (scene.reader().await, scene.reader().await);
    goes_to(&mut ann, "the replica").await;
    goes_to(&mut bob, "the replica").await;
    let user = "SELECT coalesce(current_setting('app.user', true), '')";
    for round in 0..5 {
        let name = format!("enter_{round}");
        let mut maker = scene.stage.client("acme").await;
        let body = "BEGIN PERFORM set_config('app.user', 'ann', false); RETURN pg_is_in_recovery(); END";
        let made = format!("CREATE FUNCTION {name}() RETURNS boolean LANGUAGE plpgsql AS $y${body}$y$");
        assert!(maker.query(&made).await.errors.is_empty());
        // As soon as the replica has it.
        eventually("the function is there", PATIENCE, async || {
            let reply = ann.query(&format!("SELECT {name}()")).await;
            reply.errors.is_empty().then(|| assert_eq!(reply.value(), "t"))
        })
        .await;
        let seen = (bob.query(user).await.value().to_owned(), ann.query(user).await.value().to_owned());
        assert_eq!(seen, (String::new(), "ann".to_owned()), "round {round}");
        assert!(ann.query("RESET app.\"user\"").await.errors.is_empty());
        // On the primary it is harmless from here on, on the replica not yet.
        scene.standby.psql("SELECT pg_wal_replay_pause()").await.unwrap();
        let harmless = made.replace("CREATE", "CREATE OR REPLACE").replace(body, "BEGIN RETURN false; END");
        assert!(maker.query(&harmless).await.errors.is_empty());
        assert_eq!(maker.query(&format!("SELECT {name}()")).await.value(), "f");
        let on_replica = ann.query(&format!("SELECT {name}()")).await.value() == "t";
        let seen = (bob.query(user).await.value().to_owned(), ann.query(user).await.value().to_owned());
        let own = if on_replica { "ann" } else { "" };
        assert_eq!(seen, (String::new(), own.to_owned()), "round {round}");
        scene.standby.psql("SELECT pg_wal_replay_resume()").await.unwrap();
        goes_to(&mut ann, "the replica").await;
        goes_to(&mut bob, "the replica").await;
        assert!(ann.query("RESET app.\"user\"").await.errors.is_empty());
    }
    // What it says itself goes with it, from the one to the other.
    assert!(ann.query("SET statement_timeout = '7s'").await.errors.is_empty());
    assert_eq!(bob.query("SHOW statement_timeout").await.value(), "0");
    scene.standby.psql("SELECT pg_wal_replay_pause()").await.unwrap();
    scene.stage.postgres.psql_in("app", "CREATE TABLE schema_acme.news AS SELECT 1 AS a").await.unwrap();
    goes_to(&mut ann, "the primary").await;
    assert_eq!(ann.query("SHOW statement_timeout").await.value(), "7s");
}

#[tokio::test]
async fn a_cancel_finds_what_runs_on_a_replica() {
    let scene = Scene::start("sessions").await;
    let mut reader = scene.reader().await;
    goes_to(&mut reader, "the replica").await;
    let (pid, secret) = reader.key.clone();
    reader.send(&Batch::new().query("SELECT pg_sleep(600)").0).await;
    let sql =
        "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(600)' AND pid <> pg_backend_pid()";
    eventually("it runs", PATIENCE, async || {
        (scene.standby.psql(sql).await.unwrap()[0][0].as_deref() == Some("1")).then_some(())
    })
    .await;
    scene.stage.connect().await.send(&Batch::cancel_request(pid, &secret).0).await;
    let reply = reader.until_ready().await;
    assert_eq!(reply.errors[0].code, "57014", "{reply:?}");
    goes_to(&mut reader, "the replica").await;
}

#[tokio::test]
async fn a_pause_holds_readers_too_and_a_replica_comes_with_a_reload() {
    let mut stage = Stage::start(plan("sessions")).await;
    let standby = stage.postgres.standby().await.unwrap_or_else(|error| panic!("{error}"));
    let mut login = stage.login("acme");
    login.user.push_str("+replica");
    let mut reader = stage.connect().await.logged_in(&login).await;
    assert!(!is_on_replica(&mut reader).await, "there is none");
    stage.reload(|plan| plan.replica(&standby)).await;
    let mut late = stage.connect().await.logged_in(&login).await;
    goes_to(&mut late, "the replica").await;
    goes_to(&mut reader, "the replica").await;
}

#[tokio::test]
async fn a_transaction_on_a_replica_keeps_nothing_and_ends_with_its_client() {
    let scene = Scene::start("transactions").await;
    let mut client = scene.stage.client("acme").await;
    let begin = async |client: &mut Wire| {
        eventually("a transaction on the replica", PATIENCE, async || {
            assert!(client.query("BEGIN READ ONLY").await.errors.is_empty());
            if is_on_replica(client).await {
                return Some(());
            }
            client.query("COMMIT").await;
            None
        })
        .await;
    };
    begin(&mut client).await;
    for keeps in
        ["SELECT pg_advisory_lock(1)", "PREPARE p AS SELECT 1", "DECLARE c CURSOR WITH HOLD FOR SELECT 1"]
    {
        assert_eq!(client.query(keeps).await.code(), "53400", "{keeps}");
        assert!(client.query("ROLLBACK").await.errors.is_empty());
        begin(&mut client).await;
    }
    // Its driver gives up in the middle of a query: so does the replica.
    client.send(&Batch::new().query("SELECT pg_sleep(600)").0).await;
    let running =
        "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(600)' AND state = 'active'";
    let count = async || scene.standby.psql(running).await.unwrap()[0][0].clone().unwrap();
    eventually("it runs", PATIENCE, async || (count().await == "1").then_some(())).await;
    drop(client);
    eventually("it is cancelled", PATIENCE, async || (count().await == "0").then_some(())).await;
    // No standby has serializable transactions.
    let mut strict = scene.stage.client("acme").await;
    assert!(strict.query("SET default_transaction_isolation = 'serializable'").await.errors.is_empty());
    assert!(strict.query("BEGIN READ ONLY").await.errors.is_empty());
    assert!(!is_on_replica(&mut strict).await);
}

#[tokio::test]
async fn who_waits_for_a_replica_that_is_taken_away_is_served_by_the_primary() {
    let mut scene = Scene::start("sessions").await;
    let mut first = scene.reader().await;
    goes_to(&mut first, "the replica").await;
    let mut holders = Vec::new();
    for _ in 0..6 {
        let mut holder = scene.reader().await;
        assert!(holder.query("BEGIN; SELECT 1").await.errors.is_empty());
        holders.push(holder);
    }
    first.send(&Batch::new().query("SELECT pg_is_in_recovery()").0).await;
    let page = async || scene.stage.proxy().metrics().await;
    eventually("it waits", PATIENCE, async || {
        let waiting =
            page().await.sum("tenantry_tenant_clients", &[("tenant", "acme"), ("state", "waiting")]);
        (waiting == 1.0).then_some(())
    })
    .await;
    scene
        .stage
        .reload(|mut plan| {
            plan.tenants
                .iter_mut()
                .for_each(|tenant| tenant.lines = vec!["replica_reads = \"never\"".to_owned()]);
            plan
        })
        .await;
    assert_eq!(first.until_ready().await.value(), "f");
    for mut holder in holders {
        assert!(holder.query("COMMIT").await.errors.is_empty(), "a transaction is not cut off");
        assert!(!is_on_replica(&mut holder).await);
    }
}

#[tokio::test]
async fn a_session_of_session_mode_that_finds_no_replica_begins_at_the_primary() {
    let mut scene = Scene::start_with("sessions", |plan| plan.set("pool", "mode", "\"session\"")).await;
    let mut on_replica = eventually("a session on the replica", PATIENCE, async || {
        let mut reader = scene.reader().await;
        is_on_replica(&mut reader).await.then_some(reader)
    })
    .await;
    let hot = |wire: &Wire| wire.parameters.get("in_hot_standby").cloned();
    let writer = scene.stage.client("acme").await;
    // PostgreSQL 14 and later say so.
    if hot(&writer).is_some() {
        assert_eq!((hot(&on_replica), hot(&writer)), (Some("on".to_owned()), Some("off".to_owned())));
    }
    assert!(is_on_replica(&mut on_replica).await);
    scene.standby.stop().unwrap();
    let mut reader = scene.reader().await;
    assert!(!is_on_replica(&mut reader).await);
}

#[tokio::test]
async fn a_tenant_that_is_paused_is_paused_on_a_replica_that_comes_later() {
    let mut stage =
        Stage::start(plan("always").set("http", "token", "\"0123456789abcdef0123456789abcdef\"")).await;
    let standby = stage.postgres.standby().await.unwrap_or_else(|error| panic!("{error}"));
    let mut client = stage.client("acme").await;
    assert!(!is_on_replica(&mut client).await);
    order(&stage, &["pause", "acme", "--for", "1m"]).await;
    stage.reload(|plan| plan.replica(&standby)).await;
    // Others read there: the replica is fit.
    let mut other = stage.client("globex").await;
    goes_to(&mut other, "the replica").await;
    client.send(&Batch::new().query("SELECT 1").0).await;
    eventually("it waits", PATIENCE, async || {
        let page = stage.proxy().metrics().await;
        let waiting = page.sum("tenantry_tenant_clients", &[("tenant", "acme"), ("state", "waiting")]);
        (waiting == 1.0).then_some(())
    })
    .await;
    order(&stage, &["resume", "acme"]).await;
    assert_eq!(client.until_ready().await.value(), "1");
}

#[tokio::test]
async fn a_tenant_that_a_replica_has_rejected_once_is_let_in_again() {
    let scene = Scene::start("sessions").await;
    let (mut acme, mut login) = (scene.reader().await, scene.stage.login("globex"));
    login.user.push_str("+replica");
    let mut globex = scene.stage.connect().await.logged_in(&login).await;
    goes_to(&mut acme, "the replica").await;
    goes_to(&mut globex, "the replica").await;
    scene.write("ALTER ROLE role_acme NOLOGIN").await;
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'role_acme'";
    scene.standby.psql(end).await.unwrap();
    goes_to(&mut acme, "the primary").await;
    scene.write("ALTER ROLE role_acme LOGIN").await;
    // The other one keeps the replica fit.
    eventually("acme on the replica again", PATIENCE, async || {
        assert!(is_on_replica(&mut globex).await);
        is_on_replica(&mut acme).await.then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_drain_that_is_waited_for_waits_for_replicas_too() {
    let token = "\"0123456789abcdef0123456789abcdef\"";
    let scene = Scene::start_with("sessions", |plan| plan.set("http", "token", token)).await;
    let mut reader = scene.reader().await;
    goes_to(&mut reader, "the replica").await;
    assert!(reader.query("BEGIN; SELECT 1").await.errors.is_empty());
    let drain = ["drain", "acme", "--for", "1m", "--wait", "100ms"];
    let (ok, said) = scene.stage.proxy().command(&drain).await;
    assert!(!ok && said.contains("still in use"), "{said}");
    let why = order(&scene.stage, &["why", "acme"]).await;
    assert!(why.contains("On replicas: 1 busy"), "{why}");
    assert!(reader.query("COMMIT").await.errors.is_empty());
    order(&scene.stage, &["drain", "acme", "--for", "1m", "--wait", "10s"]).await;
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'role_acme'";
    assert_eq!(scene.standby.psql(sql).await.unwrap()[0][0].as_deref(), Some("0"));
}
