//! The SQL of `tenantry tenant sql` on a real Postgres: two tenants made by it cannot reach each other, hostile names
//! do no harm, and the inspection of `check --live` finds each hole that somebody makes afterwards.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test expects by failing")]

use std::path::Path;
use std::sync::Arc;

use tenantry::auth::verifier::{DEFAULT_ITERATIONS, Verifier};
use tenantry::config::{self, Settings};
use tenantry::tenant::Tenant;
use tenantry::tenants_ops::sql::provision;
use tenantry::tenants_ops::wall::{Finding, Inspection, Severity};
use tenantry::throwaway::{Cluster, ClusterOptions, Hba};
use tokio_postgres::{Client, NoTls};

const PASSWORD: &str = "it's a \\ secret";

/// Tenants by name, role and schema in database `app`; `more` is put at the end of each.
fn tenants(list: &[(&str, &str, &str)], database: &str, more: &str) -> Settings {
    let mut text = "[listen.tls]\ncert = \"c\"\nkey = \"k\"\nclient_ca = \"ca\"\n".to_owned();
    text += "[cluster.main]\nurl = \"postgres://localhost/app\"\nmax_connections = 40\n";
    for (name, role, schema) in list {
        let quoted = |text: &str| toml_string(text);
        text += &format!(
            "[[tenant]]\nname = {}\nrole = {}\nschema = {}\ndatabase = {}\n\
             client_auth = {{ certificate = \"x\" }}\n{more}\n",
            quoted(name),
            quoted(role),
            quoted(schema),
            quoted(database)
        );
    }
    config::load_text(&text, Path::new(""), &|_| None, None).unwrap().settings
}

/// A TOML basic string.
fn toml_string(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

fn tenant(settings: &Settings, name: &str) -> Arc<Tenant> {
    settings.catalog.by_name(name).unwrap().clone()
}

fn sql(tenant: &Tenant) -> String {
    let verifier = Verifier::from_password(PASSWORD, b"0123456789abcdef", DEFAULT_ITERATIONS).to_string();
    provision(tenant, Some(&verifier))
}

async fn login(cluster: &Cluster, user: &str, database: &str) -> Client {
    let mut wish = tokio_postgres::Config::new();
    wish.host("127.0.0.1").port(cluster.port()).user(user).password(PASSWORD).dbname(database);
    let (client, connection) = wish.connect(NoTls).await.unwrap();
    tokio::spawn(async move {
        let _ = connection.await;
    });
    client
}

async fn one(client: &Client, query: &str) -> String {
    client.query_one(query, &[]).await.unwrap_or_else(|error| panic!("{query}: {error:?}")).get(0)
}

/// A cluster with the tenants `acme` and `globex` in database `app`.
async fn two_tenants() -> (Cluster, Settings) {
    let cluster = Cluster::start(ClusterOptions::default()).await.unwrap();
    cluster.psql("CREATE DATABASE app").await.unwrap();
    let list = [("acme", "tenant_acme", "data_acme"), ("globex", "tenant_globex", "data_globex")];
    let settings =
        tenants(&list, "app", "limits = { ceiling = 3 }\nsettings = { statement_timeout = \"7s\" }");
    for name in ["acme", "globex"] {
        cluster.psql_in("app", &sql(&tenant(&settings, name))).await.unwrap();
    }
    (cluster, settings)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_tenants_cannot_reach_each_other() {
    let (cluster, settings) = two_tenants().await;
    let acme = login(&cluster, "tenant_acme", "app").await;
    acme.batch_execute(
        "CREATE TABLE notes (body text); INSERT INTO notes VALUES ('acme''s');
         CREATE SEQUENCE numbers; CREATE TYPE mood AS ENUM ('good');
         CREATE FUNCTION answer() RETURNS int LANGUAGE sql AS 'SELECT 42';
         CREATE FUNCTION leak() RETURNS SETOF notes LANGUAGE sql SECURITY DEFINER AS 'SELECT * FROM data_acme.notes';
         CREATE VIEW open AS SELECT * FROM notes; GRANT SELECT ON open, notes TO PUBLIC;",
    )
    .await
    .unwrap();
    assert_eq!(one(&acme, "SELECT current_schema::text").await, "data_acme");
    assert_eq!(one(&acme, "SHOW statement_timeout").await, "7s");

    let globex = login(&cluster, "tenant_globex", "app").await;
    globex.batch_execute("CREATE TABLE own (x int); CREATE TEMP TABLE t (x int)").await.unwrap();
    for forbidden in [
        "SELECT * FROM data_acme.notes",
        "SELECT * FROM data_acme.open",
        "SELECT data_acme.answer()",
        "SELECT * FROM data_acme.leak()",
        "SELECT nextval('data_acme.numbers')",
        "SELECT 'good'::data_acme.mood",
        "INSERT INTO data_acme.notes VALUES ('x')",
        "CREATE TABLE data_acme.mine (x int)",
        "CREATE TABLE public.meeting_point (x int)",
        "CREATE SCHEMA another",
        "CREATE ROLE another",
        "CREATE DATABASE another",
        "SET ROLE tenant_acme",
        "SET SESSION AUTHORIZATION tenant_acme",
        "GRANT tenant_acme TO tenant_globex",
        "ALTER ROLE tenant_acme PASSWORD 'x'",
        "ALTER ROLE tenant_globex CONNECTION LIMIT 100",
        "DROP SCHEMA data_globex CASCADE",
        "ALTER SCHEMA data_acme RENAME TO mine",
        "COPY own FROM PROGRAM 'id'",
        "COPY own TO '/tmp/own'",
        "SELECT pg_read_file('/etc/passwd')",
    ] {
        let error = globex.batch_execute(forbidden).await.expect_err(forbidden);
        assert_eq!(error.code().map(|code| code.code()), Some("42501"), "{forbidden}: {error:?}");
    }
    // Postgres answers these with a warning only, but grants nothing: the schema is not the tenant's.
    for futile in ["tenant_acme", "PUBLIC"] {
        globex.batch_execute(&format!("GRANT ALL ON SCHEMA data_globex TO {futile}")).await.unwrap();
    }
    assert_eq!(inspect(&cluster, &settings, "app").await, []);
    // Nor does what PUBLIC would be given stay with it, should somebody open the schema by mistake.
    cluster.psql_in("app", "GRANT USAGE ON SCHEMA data_acme TO tenant_globex").await.unwrap();
    let error = globex.batch_execute("SELECT data_acme.answer()").await.unwrap_err();
    assert_eq!(error.code().map(|code| code.code()), Some("42501"), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_limit_holds_and_the_operator_s_tables_can_be_used() {
    let (cluster, _) = two_tenants().await;
    cluster.psql_in("app", "CREATE TABLE data_acme.migrated (id serial, x int)").await.unwrap();
    let acme = login(&cluster, "tenant_acme", "app").await;
    acme.batch_execute("INSERT INTO migrated (x) VALUES (1); SELECT * FROM migrated").await.unwrap();
    let (_second, _third) =
        tokio::join!(login(&cluster, "tenant_acme", "app"), login(&cluster, "tenant_acme", "app"));
    let mut wish = tokio_postgres::Config::new();
    wish.host("127.0.0.1").port(cluster.port()).user("tenant_acme").password(PASSWORD).dbname("app");
    let Err(error) = wish.connect(NoTls).await else { panic!("a fourth login") };
    assert_eq!(error.code().map(|code| code.code()), Some("53300"), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_names_do_no_harm() {
    let cluster = Cluster::start(ClusterOptions::default()).await.unwrap();
    let database = "da\"ta'b\\ase -- $tenantry$";
    cluster.psql(&format!("CREATE DATABASE {}", config::names::quoted(database))).await.unwrap();
    cluster.psql_in(database, "CREATE SCHEMA victim; CREATE TABLE victim.t AS SELECT 1 AS x").await.unwrap();
    let list = [
        ("a", "ro\"le'; DROP SCHEMA victim CASCADE; --", "s\"; DROP SCHEMA victim CASCADE; --"),
        ("b", "$tenantry$ $tenantry1$ \\' ", "user"),
        ("c", "CamelCase", "ünïcødé, schéma"),
    ];
    let more = "settings = { application_name = \"it's a \\\\ \\\"name\\\"\", \"my.own\" = \"';--\", work_mem = \"8MB\" }";
    let settings = tenants(&list, database, more);
    for _ in 0..2 {
        for (name, _, _) in list {
            cluster.psql_in(database, &sql(&tenant(&settings, name))).await.unwrap();
        }
    }
    for (name, role, schema) in list {
        let client = login(&cluster, role, database).await;
        client.batch_execute("CREATE TABLE mine (x int)").await.unwrap();
        assert_eq!(one(&client, "SELECT current_user::text").await, role);
        assert_eq!(one(&client, "SELECT current_schema::text").await, schema);
        assert_eq!(one(&client, "SHOW application_name").await, "it's a \\ \"name\"");
        assert_eq!(one(&client, "SHOW my.own").await, "';--");
        let path = tenant(&settings, name).search_path.to_string();
        client.batch_execute(&format!("SET search_path = {path}")).await.unwrap();
        assert_eq!(one(&client, "SELECT current_schema::text").await, schema, "{path}");
    }
    assert_eq!(cluster.psql_in(database, "SELECT x FROM victim.t").await.unwrap().len(), 1);
    assert_eq!(inspect(&cluster, &settings, database).await, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_needs_no_superuser() {
    let cluster = Cluster::start(ClusterOptions::default()).await.unwrap();
    let verifier = Verifier::from_password(PASSWORD, b"0123456789abcdef", DEFAULT_ITERATIONS).to_string();
    cluster.psql(&format!("CREATE ROLE operator LOGIN CREATEROLE PASSWORD '{verifier}'")).await.unwrap();
    cluster.psql("CREATE DATABASE app OWNER operator").await.unwrap();
    let settings = tenants(&[("acme", "tenant_acme", "data_acme")], "app", "");
    let operator = login(&cluster, "operator", "app").await;
    for _ in 0..2 {
        operator.batch_execute(&sql(&tenant(&settings, "acme"))).await.unwrap();
    }
    let acme = login(&cluster, "tenant_acme", "app").await;
    acme.batch_execute("CREATE TABLE t (x int); CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'")
        .await
        .unwrap();
    let public =
        "SELECT count(*)::text FROM pg_proc, aclexplode(proacl) a WHERE proname = 'f' AND a.grantee = 0";
    assert_eq!(one(&acme, public).await, "0");
    let member = "SELECT count(*)::text FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.roleid \
                  JOIN pg_roles o ON o.oid = m.member WHERE r.rolname = 'tenant_acme' AND o.rolname = 'operator' \
                  AND m.grantor = m.member";
    assert_eq!(one(&operator, member).await, "0", "the operator is a member only while it has to be");
    assert_eq!(inspect(&cluster, &settings, "app").await, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_stops_in_the_wrong_database_and_at_a_role_with_rights() {
    let cluster = Cluster::start(ClusterOptions::default()).await.unwrap();
    cluster.psql("CREATE DATABASE app").await.unwrap();
    let settings = tenants(&[("acme", "tenant_acme", "data_acme")], "app", "");
    let text = sql(&tenant(&settings, "acme"));
    let error = format!("{:?}", cluster.psql(&text).await.unwrap_err());
    assert!(error.contains("this is database postgres, the tenant lives in app"), "{error}");
    cluster.psql("CREATE ROLE tenant_acme SUPERUSER").await.unwrap();
    let error = format!("{:?}", cluster.psql_in("app", &text).await.unwrap_err());
    assert!(error.contains("has rights that no tenant may have"), "{error}");
    assert!(
        cluster
            .psql_in("app", "SELECT FROM pg_namespace WHERE nspname = 'data_acme'")
            .await
            .unwrap()
            .is_empty()
    );
}

/// What the inspection finds, as an ordinary role.
async fn inspect(cluster: &Cluster, settings: &Settings, database: &str) -> Vec<Finding> {
    let all: Vec<&Tenant> = settings.catalog.iter().map(|tenant| &**tenant).collect();
    let mut inspection = Inspection::new(all.clone(), &all);
    cluster.psql("DROP ROLE IF EXISTS inspector; CREATE ROLE inspector").await.unwrap();
    for question in inspection.questions() {
        let rows = cluster.psql_in(database, &format!("SET ROLE inspector; {question}")).await.unwrap();
        inspection.answer(&rows);
    }
    inspection.findings()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_hole_is_found() {
    let (cluster, settings) = two_tenants().await;
    assert_eq!(inspect(&cluster, &settings, "app").await, []);
    let app = "app";
    for (make, undo, severity, words) in HOLES {
        cluster.psql_in(app, make).await.unwrap();
        let findings = inspect(&cluster, &settings, app).await;
        let found = findings
            .iter()
            .any(|finding| finding.severity == *severity && finding.to_string().contains(words));
        assert!(found, "{make}: {findings:#?}");
        cluster.psql_in(app, undo).await.unwrap();
    }
    assert_eq!(inspect(&cluster, &settings, app).await, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_alone_in_a_database_may_own_it() {
    let cluster = Cluster::start(ClusterOptions::default()).await.unwrap();
    cluster.psql("CREATE DATABASE app").await.unwrap();
    let settings = tenants(&[("acme", "tenant_acme", "data_acme")], "app", "");
    cluster.psql_in("app", &sql(&tenant(&settings, "acme"))).await.unwrap();
    cluster.psql("ALTER DATABASE app OWNER TO tenant_acme").await.unwrap();
    let findings = inspect(&cluster, &settings, "app").await;
    assert_eq!(findings.len(), 1, "{findings:#?}");
    assert_eq!(findings[0].severity, Severity::Note);
}

/// What `tenantry check --live` says about a configuration: exit code and report.
fn check_live(text: &str) -> (Option<i32>, String) {
    check_live_with(text, &["-q"])
}

fn check_live_with(text: &str, args: &[&str]) -> (Option<i32>, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.toml");
    std::fs::write(&path, text).unwrap();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_tenantry"));
    let output = command.args(["check", "--live", "-c", path.to_str().unwrap()]).args(args).output().unwrap();
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    (output.status.code(), text.concat())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_live_check_logs_in_as_each_tenant() {
    let cluster = Cluster::start(ClusterOptions::default()).await.unwrap();
    cluster.psql("CREATE DATABASE app").await.unwrap();
    let verifier = Verifier::from_password(PASSWORD, b"0123456789abcdef", DEFAULT_ITERATIONS).to_string();
    let names = ["good", "busy", "wrong", "expired", "barred", "apart", "gone"];
    let mut text = format!(
        "[cluster.main]\nurl = \"postgres://127.0.0.1:{}/app?sslmode=disable\"\nmax_connections = 20\n\
         admin = {{ user = \"inspector\", password = {} }}\n",
        cluster.port(),
        toml_string(PASSWORD)
    );
    for name in names {
        let password = if name == "wrong" { "another" } else { PASSWORD };
        text += &format!(
            "[[tenant]]\nname = \"{name}\"\nrole = \"r_{name}\"\nschema = \"s_{name}\"\nlimits.ceiling = 1\n\
             server_auth = {{ password = {} }}\nclient_auth = {{ scram = \"{verifier}\" }}\n",
            toml_string(password)
        );
    }
    let settings = config::load_text(&text, Path::new(""), &|_| None, None).unwrap().settings;
    for name in names.into_iter().filter(|name| *name != "gone") {
        cluster.psql_in("app", &sql(&tenant(&settings, name))).await.unwrap();
    }
    let inspector = format!("CREATE ROLE inspector LOGIN PASSWORD '{verifier}'");
    cluster.psql(&format!("{inspector}; GRANT CONNECT ON DATABASE app TO inspector")).await.unwrap();
    cluster.psql("ALTER ROLE r_expired VALID UNTIL '2001-01-01'; ALTER ROLE r_barred NOLOGIN").await.unwrap();
    cluster.psql("REVOKE CONNECT ON DATABASE app FROM r_apart").await.unwrap();
    // It has all the connections that it may have, as under a proxy at work.
    let _busy = login(&cluster, "r_busy", "app").await;

    let (code, report) = check_live(&text);
    assert_eq!(code, Some(1), "{report}");
    let line = |words: &str| report.lines().find(|line| line.contains(words)).unwrap_or_default().to_owned();
    for (name, words) in [
        ("wrong", "28P01: password authentication failed for user \"r_wrong\""),
        ("expired", "28P01: password authentication failed for user \"r_expired\""),
        ("barred", "28000: role \"r_barred\" is not permitted to log in"),
        ("apart", "42501: permission denied for database \"app\""),
        ("gone", "28P01: password authentication failed for user \"r_gone\""),
    ] {
        let line = line(&format!("tenant `{name}` cannot log in"));
        assert!(line.starts_with("error: ") && line.contains(words), "{name}: {report}");
    }
    let busy = line("tenant `busy`");
    assert!(busy.starts_with("note: ") && busy.contains("53300"), "{report}");
    assert!(line("`r_expired`").contains("VALID UNTIL"), "{report}");
    assert!(!report.contains("`good`"), "{report}");
    assert!(report.contains("logged in as 1 of 7 tenants"), "{report}");

    cluster.psql("ALTER ROLE r_expired VALID UNTIL 'infinity'; ALTER ROLE r_barred LOGIN").await.unwrap();
    cluster.psql("GRANT CONNECT ON DATABASE app TO r_apart").await.unwrap();
    let gone = tenant(&settings, "gone");
    cluster.psql_in("app", &sql(&gone)).await.unwrap();
    let (code, report) = check_live(&text.replace("\"another\"", &toml_string(PASSWORD)));
    assert_eq!((code, report.as_str()), (Some(0), ""), "quiet where nothing is wrong");
}

/// On a replica it is asked who may read there, and whether it is one. A primary that is named as its own replica is none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_live_check_looks_at_replicas_too() {
    let settings = [("wal_level", "replica"), ("max_wal_senders", "3")];
    let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let rules = [
        "local replication postgres trust",
        "local all all scram-sha-256",
        "host all all 127.0.0.1/32 scram-sha-256",
    ];
    let hba = Hba::Lines(rules.map(str::to_owned).to_vec());
    let cluster =
        Cluster::start(ClusterOptions { settings, hba, ..ClusterOptions::default() }).await.unwrap();
    cluster.psql("CREATE DATABASE app").await.unwrap();
    let verifier = Verifier::from_password(PASSWORD, b"0123456789abcdef", DEFAULT_ITERATIONS).to_string();
    let admin = format!("admin = {{ user = \"inspector\", password = {} }}", toml_string(PASSWORD));
    let at = |name: &str, port: u16, more: &str| {
        format!(
            "[cluster.{name}]\nurl = \"postgres://127.0.0.1:{port}/app?sslmode=disable\"\nmax_connections = 20\n\
             {admin}\n{more}\n"
        )
    };
    let mut tenants = String::new();
    for (name, reads) in [("acme", "sessions"), ("globex", "never")] {
        tenants += &format!(
            "[[tenant]]\nname = \"{name}\"\nrole = \"r_{name}\"\nschema = \"s_{name}\"\nlimits.ceiling = 1\n\
             cluster = \"main\"\nreplica_reads = \"{reads}\"\nserver_auth = {{ password = {} }}\n\
             client_auth = {{ scram = \"{verifier}\" }}\n",
            toml_string(PASSWORD)
        );
    }
    let main = at("main", cluster.port(), "");
    let text = |port: u16| main.clone() + &at("copy", port, "replica_of = \"main\"") + &tenants;
    let settings = config::load_text(&text(cluster.port()), Path::new(""), &|_| None, None).unwrap().settings;
    for name in ["acme", "globex"] {
        cluster.psql_in("app", &sql(&tenant(&settings, name))).await.unwrap();
    }
    let inspector = format!("CREATE ROLE inspector LOGIN PASSWORD '{verifier}'");
    cluster.psql(&format!("{inspector}; GRANT CONNECT ON DATABASE app TO inspector")).await.unwrap();
    let standby = cluster.standby().await.unwrap();

    let (code, report) = check_live(&text(cluster.port()));
    assert_eq!(code, Some(1), "{report}");
    assert!(report.contains("cluster `copy` replays nothing"), "{report}");
    let is_there = "SELECT count(*) FROM pg_roles WHERE rolname = 'inspector'";
    eventually(async || standby.psql(is_there).await.unwrap()[0][0].as_deref() == Some("1")).await;
    let (code, report) = check_live(&text(standby.port()));
    assert_eq!((code, report.as_str()), (Some(0), ""), "both, and the one tenant that reads there");

    // A standby that is not called a replica takes no writes.
    let (code, report) = check_live_with(&(at("main", standby.port(), "") + &tenants), &[]);
    assert!(
        code == Some(0) && report.contains("cluster `main` replays another and takes no writes"),
        "{report}"
    );

    // What its logins meet there is seen: the standby lets in nobody but its admin.
    let hba = standby.psql("SHOW hba_file").await.unwrap()[0][0].clone().unwrap();
    let rules = std::fs::read_to_string(&hba).unwrap();
    std::fs::write(&hba, format!("host all r_acme,r_globex all reject\n{rules}")).unwrap();
    standby.psql("SELECT pg_reload_conf()").await.unwrap();
    eventually(async || check_live(&text(standby.port())).0 == Some(1)).await;
    let (_, report) = check_live(&text(standby.port()));
    assert!(report.contains("tenant `acme` cannot log in"), "{report}");
    assert!(report.contains("cluster `copy`: logged in as 0 of 1 tenants"), "{report}");
}

/// Asks again for at most a minute.
async fn eventually(holds: impl AsyncFn() -> bool) {
    let mut again = tokio::time::interval(std::time::Duration::from_millis(50));
    for _ in 0..1_200 {
        again.tick().await;
        if holds().await {
            return;
        }
    }
    panic!("it never was");
}

/// What makes a hole, what closes it, how bad it is, and words of what is said.
const HOLES: &[(&str, &str, Severity, &str)] = &[
    (
        "GRANT tenant_acme TO tenant_globex",
        "REVOKE tenant_acme FROM tenant_globex",
        Severity::Hole,
        "is a member of `tenant_acme`, the role of tenant `acme`",
    ),
    (
        "GRANT pg_read_all_data TO tenant_acme",
        "REVOKE pg_read_all_data FROM tenant_acme",
        Severity::Hole,
        "member of `pg_read_all_data`",
    ),
    (
        "ALTER ROLE tenant_acme SUPERUSER",
        "ALTER ROLE tenant_acme NOSUPERUSER",
        Severity::Hole,
        "attribute SUPERUSER",
    ),
    (
        "ALTER ROLE tenant_acme CREATEROLE",
        "ALTER ROLE tenant_acme NOCREATEROLE",
        Severity::Hole,
        "attribute CREATEROLE",
    ),
    (
        "ALTER ROLE tenant_acme CREATEDB",
        "ALTER ROLE tenant_acme NOCREATEDB",
        Severity::Hole,
        "attribute CREATEDB",
    ),
    (
        "ALTER ROLE tenant_acme REPLICATION",
        "ALTER ROLE tenant_acme NOREPLICATION",
        Severity::Hole,
        "attribute REPLICATION",
    ),
    (
        "ALTER ROLE tenant_acme BYPASSRLS",
        "ALTER ROLE tenant_acme NOBYPASSRLS",
        Severity::Hole,
        "attribute BYPASSRLS",
    ),
    (
        "GRANT USAGE ON SCHEMA data_acme TO PUBLIC",
        "REVOKE USAGE ON SCHEMA data_acme FROM PUBLIC",
        Severity::Hole,
        "open to PUBLIC",
    ),
    (
        "GRANT CREATE ON SCHEMA data_acme TO tenant_globex",
        "REVOKE CREATE ON SCHEMA data_acme FROM tenant_globex",
        Severity::Hole,
        "open to `tenant_globex`",
    ),
    (
        "ALTER SCHEMA data_acme OWNER TO tenant_globex",
        "ALTER SCHEMA data_acme OWNER TO postgres",
        Severity::Hole,
        "belongs to `tenant_globex`",
    ),
    (
        "ALTER DATABASE app OWNER TO tenant_acme",
        "ALTER DATABASE app OWNER TO postgres; GRANT CONNECT ON DATABASE app TO tenant_acme",
        Severity::Hole,
        "tenant `acme`: role `tenant_acme` owns the database",
    ),
    (
        "CREATE ROLE g; GRANT g TO tenant_globex; ALTER DATABASE app OWNER TO g",
        "ALTER DATABASE app OWNER TO postgres; DROP ROLE g",
        Severity::Hole,
        "tenant `globex`: role `tenant_globex` is a member of `g`, which owns the database",
    ),
    (
        "GRANT CREATE ON DATABASE app TO tenant_acme",
        "REVOKE CREATE ON DATABASE app FROM tenant_acme",
        Severity::Hole,
        "tenant `acme`: role `tenant_acme` has CREATE on the database",
    ),
    (
        "CREATE ROLE g; GRANT g TO tenant_globex; GRANT CREATE ON DATABASE app TO g",
        "REVOKE CREATE ON DATABASE app FROM g; DROP ROLE g",
        Severity::Hole,
        "tenant `globex`: role `tenant_globex` has CREATE on the database as a member of `g`",
    ),
    (
        "GRANT CREATE ON DATABASE app TO PUBLIC",
        "REVOKE CREATE ON DATABASE app FROM PUBLIC",
        Severity::Hole,
        "PUBLIC has CREATE on this database",
    ),
    (
        "GRANT CREATE ON SCHEMA public TO PUBLIC",
        "REVOKE CREATE ON SCHEMA public FROM PUBLIC",
        Severity::Hole,
        "tenants can meet",
    ),
    (
        "CREATE ROLE g; GRANT g TO tenant_globex; GRANT USAGE ON SCHEMA data_acme TO g",
        "DROP OWNED BY g; DROP ROLE g",
        Severity::Hole,
        "tenant `globex` is a member of that role",
    ),
    (
        "CREATE ROLE s SUPERUSER; GRANT s TO tenant_globex",
        "DROP ROLE s",
        Severity::Hole,
        "SUPERUSER (as a member of s)",
    ),
    ("ALTER ROLE tenant_acme NOLOGIN", "ALTER ROLE tenant_acme LOGIN", Severity::Fault, "may not log in"),
    (
        "ALTER ROLE tenant_acme CONNECTION LIMIT 2",
        "ALTER ROLE tenant_acme CONNECTION LIMIT 3",
        Severity::Fault,
        "is 2, its ceiling 3",
    ),
    (
        "REVOKE CONNECT ON DATABASE app FROM tenant_acme",
        "GRANT CONNECT ON DATABASE app TO tenant_acme",
        Severity::Fault,
        "may not connect",
    ),
    (
        "REVOKE USAGE ON SCHEMA data_acme FROM tenant_acme",
        "GRANT USAGE ON SCHEMA data_acme TO tenant_acme",
        Severity::Fault,
        "has no USAGE",
    ),
    (
        "ALTER SCHEMA data_acme RENAME TO gone",
        "ALTER SCHEMA gone RENAME TO data_acme",
        Severity::Fault,
        "schema `data_acme` does not exist",
    ),
    (
        "ALTER ROLE tenant_acme RENAME TO gone",
        "ALTER ROLE gone RENAME TO tenant_acme",
        Severity::Fault,
        "role `tenant_acme` does not exist",
    ),
    (
        "GRANT CONNECT ON DATABASE app TO PUBLIC",
        "REVOKE CONNECT ON DATABASE app FROM PUBLIC",
        Severity::Note,
        "PUBLIC has CONNECT",
    ),
];
