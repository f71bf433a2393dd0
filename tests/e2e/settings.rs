//! Settings of a session: what Postgres reports follows the client, nothing reaches another one.

use crate::support::{Batch, PATIENCE, Plan, Stage, Wire, eventually};

async fn one_server() -> Stage {
    Stage::start(Plan::new(&["acme", "bolt"]).one_server_each()).await
}

async fn show(client: &mut Wire, name: &str) -> String {
    client.query(&format!("SHOW {name}")).await.value().to_owned()
}

#[tokio::test]
async fn what_a_client_set_at_startup_is_its_own_whatever_the_encoding_of_the_one_before() {
    let stage = Stage::start(Plan::new(&["acme"]).one_server_each()).await;
    let with = async |pairs: &[(&str, &str)]| {
        let mut login = stage.login("acme");
        login.parameters.extend(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        Wire::connect(stage.address()).await.logged_in(&login).await
    };
    let hex = "SELECT encode(convert_to(current_setting('my.word'), 'UTF8'), 'hex')";
    for encoding in ["LATIN1", "SJIS", "GBK"] {
        let mut before = with(&[("client_encoding", encoding)]).await;
        assert_eq!(before.query("SHOW client_encoding").await.value(), encoding);
        let word = format!("caf\u{e9} '\\ {encoding}");
        let expected: String = word.bytes().map(|byte| format!("{byte:02x}")).collect();
        let mut client = with(&[("client_encoding", "UTF8"), ("my.word", &word)]).await;
        for _ in 0..2 {
            assert_eq!(client.query(hex).await.value(), expected, "after {encoding}");
            assert_eq!(before.query("SHOW client_encoding").await.value(), encoding);
        }
    }
}

#[tokio::test]
async fn startup_parameters_are_applied_and_reported() {
    let stage = one_server().await;
    let parameters = [("application_name", "billing"), ("TimeZone", "Asia/Tokyo"), ("DateStyle", "German")];
    let mut client = stage.client_with("acme", &parameters).await;
    assert_eq!(client.parameters["application_name"], "billing");
    assert_eq!(client.parameters["TimeZone"], "Asia/Tokyo");
    assert_eq!(show(&mut client, "application_name").await, "billing");
    assert_eq!(show(&mut client, "TimeZone").await, "Asia/Tokyo");
    assert_eq!(show(&mut client, "DateStyle").await, "German, DMY");
    for name in ["server_version", "client_encoding", "integer_datetimes", "standard_conforming_strings"] {
        assert!(client.parameters.contains_key(name), "{name} is missing: {:?}", client.parameters);
    }
}

#[tokio::test]
async fn reported_settings_follow_the_client_on_a_shared_server() {
    let stage = one_server().await;
    let mut tokyo = stage.client("acme").await;
    let mut paris = stage.client("acme").await;
    tokyo.query("SET TimeZone = 'Asia/Tokyo'").await;
    paris.query("SET TimeZone = 'Europe/Paris'").await;
    paris.query("SET application_name = 'paris'").await;
    for _ in 0..3 {
        assert_eq!(show(&mut tokyo, "TimeZone").await, "Asia/Tokyo");
        assert_eq!(show(&mut paris, "TimeZone").await, "Europe/Paris");
        assert_eq!(show(&mut paris, "application_name").await, "paris");
        assert_ne!(show(&mut tokyo, "application_name").await, "paris");
    }
    assert_eq!(tokyo.parameters["TimeZone"], "Asia/Tokyo");
    assert_eq!(paris.parameters["TimeZone"], "Europe/Paris");
}

#[tokio::test]
async fn a_client_is_told_only_of_changes_of_its_own() {
    let stage = one_server().await;
    let mut tokyo = stage.client("acme").await;
    let mut quiet = stage.client("acme").await;
    let reply = tokyo.query("SET TimeZone = 'Asia/Tokyo'").await;
    assert_eq!(reply.shape(), "CSZ");
    let reply = quiet.query("SELECT 1").await;
    assert_eq!(reply.shape(), "TDCZ");
    let reply = tokyo.query("SELECT 1").await;
    assert_eq!(reply.shape(), "TDCZ");
}

#[tokio::test]
async fn settings_follow_in_a_pipeline_too() {
    let stage = one_server().await;
    let mut tokyo = stage.client("acme").await;
    let mut other = stage.client("acme").await;
    tokyo.query("SET TimeZone = 'Asia/Tokyo'").await;
    other.query("SET TimeZone = 'UTC'").await;
    let batch = Batch::new().run("SELECT current_setting('TimeZone')", &[]).sync().query("SHOW TimeZone");
    tokyo.send(&batch.0).await;
    assert_eq!(tokyo.until_ready().await.shape(), "12DCZ");
    assert_eq!(tokyo.until_ready().await.value(), "Asia/Tokyo");
}

#[tokio::test]
async fn set_local_ends_with_its_transaction() {
    let stage = one_server().await;
    let mut client = stage.client("acme").await;
    let mut other = stage.client("acme").await;
    let before = show(&mut client, "TimeZone").await;
    client.query("BEGIN; SET LOCAL TimeZone = 'Asia/Tokyo'; SET LOCAL work_mem = '77MB'").await;
    assert_eq!(show(&mut client, "work_mem").await, "77MB");
    client.query("COMMIT").await;
    assert_eq!(show(&mut client, "TimeZone").await, before);
    assert_ne!(show(&mut client, "work_mem").await, "77MB");
    assert_ne!(show(&mut other, "work_mem").await, "77MB");
}

#[tokio::test]
async fn a_setting_that_was_rolled_back_is_gone() {
    let stage = one_server().await;
    let mut client = stage.client("acme").await;
    let mut other = stage.client("acme").await;
    client.query("SET application_name = 'kept'").await;
    client.query("BEGIN; SET application_name = 'lost'").await;
    client.query("ROLLBACK").await;
    other.query("SELECT 1").await;
    assert_eq!(show(&mut client, "application_name").await, "kept");
    client.query("RESET application_name").await;
    other.query("SELECT 1").await;
    assert_ne!(show(&mut client, "application_name").await, "kept");
}

#[tokio::test]
async fn settings_that_postgres_does_not_report_never_reach_another_client() {
    let stage = one_server().await;
    for set in [
        "SET work_mem = '77MB'",
        "SELECT set_config('work_mem', '77MB', false)",
        "DO $$ BEGIN SET work_mem = '77MB'; END $$",
    ] {
        let mut client = stage.client("acme").await;
        // Applied, refused or pinned is the proxy's business, if it says so; what it must not do is leak.
        client.query(set).await;
        drop(client);
        let mut other = stage.client("acme").await;
        assert_ne!(show(&mut other, "work_mem").await, "77MB", "after {set}");
    }
}

/// Another client makes the server change hands.
async fn interrupt(other: &mut Wire) {
    let row = other.query("SELECT current_setting('work_mem'), current_setting('my.word', true)").await;
    assert_ne!(row.rows[0][0].as_deref(), Some("77MB"), "it leaks");
    assert_eq!(row.rows[0][1].as_deref().unwrap_or_default(), "", "it leaks");
}

#[tokio::test]
async fn settings_that_postgres_does_not_report_follow_their_client() {
    let stage = one_server().await;
    let (mut client, mut other) = (stage.client("acme").await, stage.client("acme").await);
    let way = async |client: &mut Wire, other: &mut Wire, set: Batch, expected: &str| {
        client.ask(set).await;
        for _ in 0..2 {
            interrupt(other).await;
            assert_eq!(show(client, "work_mem").await, expected);
        }
    };
    let query = |sql: &str| Batch::new().query(sql);
    let before = show(&mut client, "work_mem").await;
    way(&mut client, &mut other, query("SET work_mem = '77MB'"), "77MB").await;
    way(&mut client, &mut other, query("RESET work_mem"), &before).await;
    way(&mut client, &mut other, query("SELECT set_config('work_mem', '77MB', false)"), "77MB").await;
    way(&mut client, &mut other, query("SET work_mem TO DEFAULT"), &before).await;
    way(&mut client, &mut other, Batch::new().run("SET SESSION work_mem TO '77MB'", &[]).sync(), "77MB")
        .await;
    way(&mut client, &mut other, query("RESET ALL"), &before).await;
    way(&mut client, &mut other, query("BEGIN; SET work_mem = '77MB'; COMMIT"), "77MB").await;
    way(&mut client, &mut other, query("BEGIN; SET work_mem = '88MB'; ROLLBACK"), "77MB").await;
    way(&mut client, &mut other, query("BEGIN; SET LOCAL work_mem = '88MB'; COMMIT"), "77MB").await;
    way(&mut client, &mut other, query("SET work_mem = '88MB'; SELECT 1/0"), "77MB").await;
    way(&mut client, &mut other, query("DISCARD ALL"), &before).await;
    let savepoints =
        "BEGIN; SET work_mem = '77MB'; SAVEPOINT a; SET work_mem = '88MB'; ROLLBACK TO a; COMMIT";
    way(&mut client, &mut other, query(savepoints), "77MB").await;
    way(&mut client, &mut other, query("DO $$ BEGIN SET work_mem = '76MB'; END $$"), "76MB").await;
}

/// What a client is told behind `sets` on its server, and on another one that knows nothing of it.
async fn here_and_elsewhere(stage: &Stage, sets: Vec<Batch>, look: &str) -> [String; 2] {
    let mut client = stage.client("acme").await;
    for set in sets {
        client.ask(set).await;
    }
    client.query("BEGIN").await;
    let pid = client.query("SELECT pg_backend_pid()").await.value().to_owned();
    let here = client.query(look).await;
    client.query("ROLLBACK").await;
    let mut others = Vec::new();
    loop {
        let mut other = stage.client("acme").await;
        other.query("BEGIN").await;
        let is_it = other.query("SELECT pg_backend_pid()").await.value() == pid;
        others.push(other);
        if is_it {
            break;
        }
    }
    client.query("BEGIN").await;
    assert_ne!(client.query("SELECT pg_backend_pid()").await.value(), pid);
    let elsewhere = client.query(look).await;
    [here, elsewhere].map(|reply| match reply.errors.first() {
        Some(error) => error.code.clone(),
        None => format!("{:?}", reply.rows[0][0]),
    })
}

#[tokio::test]
async fn a_custom_setting_that_is_empty_follows_its_client_as_well() {
    let stage = Stage::start(Plan::new(&["acme"]).budget(20)).await;
    let some = |text: &str| format!("{:?}", Some(text));
    for (n, (sets, value)) in [
        (&["SET my.e = ''"] as &[&str], ""),
        (&["SELECT set_config('my.e', '', false)"], ""),
        (&["SET my.e = 'x'", "RESET my.e"], ""),
        (&["SET my.e = 'x'", "RESET ALL"], ""),
        (&["SET my.e = 'x'", "DISCARD ALL"], ""),
        (&["SET my.e = ''", "SET my.f = 'x'; SET my.g = 'x'", "DISCARD ALL"], ""),
        (&["BEGIN; SET my.e = 'x'", "ROLLBACK"], ""),
        (&["SET my.e = ''", "DO $$ BEGIN PERFORM 1; END $$"], ""),
        (&["BEGIN; SET my.e = 'x'", "DO $$ BEGIN PERFORM 1; END $$", "COMMIT"], "x"),
        (&["BEGIN; SET my.e = 'x'; SAVEPOINT a", "SET log_statement = 'all'", "ROLLBACK TO a; COMMIT"], "x"),
    ]
    .into_iter()
    .enumerate()
    {
        for (look, way) in [("SHOW my.e", "a"), ("SELECT current_setting('my.e', true)", "b")] {
            let named = |sql: &str| sql.replace("my.", &format!("my.{way}{n}_"));
            let batches = sets.iter().map(|set| Batch::new().query(&named(set))).collect();
            let told = here_and_elsewhere(&stage, batches, &named(look)).await;
            assert_eq!(told, [some(value), some(value)], "{look} {sets:?}");
        }
    }
    let unset = here_and_elsewhere(&stage, vec![Batch::new().query("RESET work_mem")], "SHOW my.unset").await;
    assert_eq!(unset, ["42704", "42704"], "who never named it is told so");
}

#[tokio::test]
async fn a_custom_setting_in_a_long_text_follows_its_client() {
    type Way<'a> = &'a dyn Fn(&str) -> Vec<Batch>;
    let stage = Stage::start(Plan::new(&["acme"]).budget(20)).await;
    let pad = "x".repeat(300_000);
    let query = |sql: &str| vec![Batch::new().query(sql)];
    let bound = |sql: &str, values: &[&str]| vec![Batch::new().run(sql, values).sync()];
    let mut maker = stage.client("acme").await;
    let functions = [9, 10].map(|n| {
        let body = format!("BEGIN PERFORM set_config('my.long{n}', 'a', false); RETURN 1; END");
        format!("CREATE FUNCTION f{n}(t text) RETURNS int LANGUAGE plpgsql AS $$ {body} $$;")
    });
    assert!(maker.query(&functions.concat()).await.errors.is_empty());
    let ways: [Way<'_>; 11] = [
        &|name| query(&format!("SET {name} = 'a'; SELECT '{pad}'")),
        &|name| query(&format!("SELECT '{pad}'; SET {name} = 'a'")),
        &|name| query(&format!("SELECT '{pad}', set_config('{name}', 'a', false), '{pad}'")),
        &|name| query(&format!("SELECT 'C:\'; SET {name} = 'a'")),
        &|name| query(&format!("DO $$ BEGIN SET {name} = 'a'; END $$")),
        &|name| bound(&format!("/* {pad} */ SET {name} = 'a'"), &[]),
        &|name| {
            let parse =
                Batch::new().parse("", &format!("SELECT set_config('{name}', $1, false), '{pad}'")).sync();
            vec![parse, Batch::new().bind("", "", &["a"]).execute("").sync()]
        },
        &|name| bound("SELECT set_config($1, $2, false), length($3)", &[name, "a", &pad]),
        &|name| bound("SELECT set_config($3, $2, false), length($1)", &[&pad, "a", name]),
        &|_| query(&format!("SELECT f9('{pad}')")),
        &|_| bound(&format!("SELECT f10('{pad}')"), &[]),
    ];
    for (n, way) in ways.iter().enumerate() {
        let name = format!("my.long{n}");
        let told = here_and_elsewhere(&stage, way(&name), &format!("SHOW {name}")).await;
        assert_eq!(told, [r#"Some("a")"#, r#"Some("a")"#], "{n}");
    }
}

#[tokio::test]
async fn a_client_that_sets_something_keeps_no_server_and_resets_none() {
    let stage = one_server().await;
    let (mut client, mut other) = (stage.client("acme").await, stage.client("acme").await);
    for _ in 0..5 {
        client.query("SET my.word = 'caf\u{e9}, ''quoted'''").await;
        interrupt(&mut other).await;
        assert_eq!(show(&mut client, "my.word").await, "caf\u{e9}, 'quoted'");
    }
    assert_eq!(stage.proxy().metrics().await.sum("tenantry_tenant_server_resets_total", &[]), 0.0);
}

#[tokio::test]
async fn a_setting_that_is_refused_changes_nothing() {
    let stage = one_server().await;
    let (mut client, mut other) = (stage.client("acme").await, stage.client("acme").await);
    client.query("SET work_mem = '77MB'").await;
    for refused in ["SET no_such_setting = 1", "SET log_statement = 'all'", "SET work_mem = 'much'"] {
        assert_eq!(client.query(refused).await.errors.len(), 1, "{refused}");
        interrupt(&mut other).await;
        assert_eq!(show(&mut client, "work_mem").await, "77MB", "after {refused}");
    }
}

#[tokio::test]
async fn a_reset_goes_back_to_what_the_client_asked_for_at_startup() {
    let stage = one_server().await;
    let startup = [("TimeZone", "Asia/Tokyo"), ("application_name", "billing"), ("work_mem", "66MB")];
    let mut client = stage.client_with("acme", &startup).await;
    let mut other = stage.client("acme").await;
    let changed = "SET TimeZone = 'UTC'; SET application_name = 'x'; SET work_mem = '55MB'";
    for (reset, shape) in [
        ("RESET ALL", "CSSZ"),
        ("DISCARD ALL", "CSSZ"),
        ("RESET TimeZone; RESET application_name; RESET work_mem", "CCCSSZ"),
        ("SET TIME ZONE DEFAULT; SET application_name TO DEFAULT; SET work_mem TO DEFAULT", "CCCSSZ"),
    ] {
        client.query(changed).await;
        other.query("SELECT 1").await;
        assert_eq!(show(&mut client, "work_mem").await, "55MB");
        let reply = client.query(reset).await;
        assert_eq!(reply.shape(), shape, "{reset}");
        assert_eq!(client.parameters["TimeZone"], "Asia/Tokyo", "{reset}");
        for _ in 0..2 {
            for (name, value) in startup {
                assert_eq!(show(&mut client, name).await, value, "{reset}");
            }
            interrupt(&mut other).await;
        }
    }
    let prepared = Batch::new().run("RESET ALL", &[]).sync().query("SHOW work_mem");
    client.query(changed).await;
    client.send(&prepared.0).await;
    client.until_ready().await;
    assert_eq!(client.until_ready().await.value(), "66MB", "in the same pipeline");
}

/// What gives them back is read under the client_encoding of the moment.
#[tokio::test]
async fn startup_settings_come_back_letter_by_letter_in_any_encoding() {
    let stage = one_server().await;
    let startup = [("my.x", "Ã\\"), ("my.y", ";SELECT pg_advisory_lock(1);--"), ("my.z", "café 漢字")];
    let mut client = stage.client_with("acme", &startup).await;
    let look = "SELECT string_agg(encode(convert_to(current_setting('my.' || n), 'UTF8'), 'hex'), ' ') \
                FROM unnest(ARRAY['x', 'y', 'z']) n";
    let before = client.query(look).await.value().to_owned();
    for encoding in ["SJIS", "LATIN1", "GBK", "UTF8"] {
        client.query("SET backslash_quote = on").await;
        client.query(&format!("SET client_encoding = '{encoding}'")).await;
        let reply = client.query("RESET my.x; RESET my.y; RESET my.z").await;
        assert!(reply.errors.is_empty(), "{encoding}: {reply:?}");
        assert_eq!(client.query(look).await.value(), before, "{encoding}");
        let locks = stage.postgres.psql("SELECT 1 FROM pg_locks WHERE locktype = 'advisory'").await.unwrap();
        assert!(locks.is_empty(), "{encoding}");
    }
}

#[tokio::test]
async fn a_reset_that_fails_takes_nothing_away() {
    let stage = one_server().await;
    let mut client = stage.client_with("acme", &[("TimeZone", "Asia/Tokyo"), ("work_mem", "66MB")]).await;
    let mut other = stage.client("acme").await;
    client.query("SET TimeZone = 'UTC'; SET work_mem = '55MB'").await;
    for failing in [
        Batch::new().query("SELECT 1/0; RESET ALL"),
        Batch::new().run("SELECT 1/0", &[]).run("RESET ALL", &[]).sync(),
        Batch::new().query("SELECT 1; DISCARD ALL"),
    ] {
        assert_eq!(client.ask(failing).await.errors.len(), 1);
        for _ in 0..2 {
            assert_eq!(show(&mut client, "TimeZone").await, "UTC");
            assert_eq!(show(&mut client, "work_mem").await, "55MB");
            interrupt(&mut other).await;
        }
    }
    client.query("BEGIN").await;
    client.query("RESET ALL").await;
    let level = client.query("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE").await;
    assert!(level.errors.is_empty(), "nothing of ours counts as the first query: {level:?}");
    assert_eq!(show(&mut client, "work_mem").await, "66MB");
    client.query("ROLLBACK").await;
    interrupt(&mut other).await;
    assert_eq!(show(&mut client, "work_mem").await, "55MB");
    assert_eq!(client.parameters["TimeZone"], "UTC");
}

/// What a reset that fails calls for brings rows of its own, in front of the answer.
#[tokio::test]
async fn a_setting_behind_a_reset_that_fails_follows_its_client_and_only_it() {
    let stage = one_server().await;
    let mut client = stage.client_with("acme", &[("application_name", "billing")]).await;
    let mut other = stage.client("acme").await;
    let user = "SELECT coalesce(current_setting('app.who', true), '')";
    // What is asked of every new server is out of the way.
    other.query("SELECT 1").await;
    let failing = "BEGIN; SET app.who = 'alice'; COMMIT; RESET ALL; SELECT 1/0";
    assert_eq!(client.query(failing).await.code(), "22012");
    for _ in 0..2 {
        assert_eq!(other.query(user).await.value(), "");
        assert_eq!(client.query(user).await.value(), "alice");
        assert_eq!(show(&mut client, "application_name").await, "billing");
    }
}

#[tokio::test]
async fn what_the_unnamed_statement_sets_behind_discard_all_never_reaches_another_client() {
    let stage = one_server().await;
    let mut client = stage.client("acme").await;
    let set = "SELECT set_config('work_mem', '9MB', false)";
    assert_eq!(client.ask(Batch::new().run(set, &[]).sync()).await.value(), "9MB");
    let discard = Batch::new().parse("d", "DISCARD ALL").bind("", "d", &[]).execute("").sync();
    assert_eq!(client.ask(discard).await.tags, ["DISCARD ALL"]);
    // DISCARD ALL has left the unnamed statement where it was.
    assert_eq!(client.ask(Batch::new().bind("", "", &[]).execute("").sync()).await.value(), "9MB");
    let mut other = stage.client("acme").await;
    assert_ne!(show(&mut other, "work_mem").await, "9MB");
}

#[tokio::test]
async fn settings_that_are_named_out_of_sight_never_reach_another_client() {
    let stage = one_server().await;
    let mut client = stage.client("acme").await;
    let look = "SELECT coalesce(current_setting('my.name', true), '') || current_setting('work_mem')";
    let mut other = stage.client("acme").await;
    let bound = Batch::new().parse("s", "SELECT set_config($1, $2, false)").sync();
    assert!(client.ask(bound).await.errors.is_empty());
    for (name, value) in [("my.name", "leak"), ("work_mem", "9999kB")] {
        let bind = Batch::new().bind("", "s", &[name, value]).execute("").sync();
        assert!(client.ask(bind).await.errors.is_empty());
        assert_eq!(other.query(look).await.value(), "4MB", "{name}");
    }
    assert_eq!(client.query(look).await.value(), "leak9999kB", "they follow their client");
    for sql in [
        "SELECT set_config('my.' || 'name', 'leak', false)",
        "UPDATE pg_settings SET setting = '8888' WHERE name = 'work_mem'",
        "WITH x AS (SELECT 1) UPDATE pg_catalog.pg_settings SET setting = '7777' WHERE name = 'work_mem'",
        "SELECT query_to_xml('SELECT set' || '_config(''work_mem'', ''7777kB'', false)', true, false, '')",
    ] {
        assert!(client.query(sql).await.errors.is_empty(), "{sql}");
        assert_eq!(other.query(look).await.value(), "4MB", "{sql}");
    }
}

#[tokio::test]
async fn names_of_settings_as_postgres_reads_them_are_those_that_are_reset() {
    let stage = Stage::start(Plan::new(&["acme"]).one_server_each()).await;
    let (mut client, mut other) = (stage.client("acme").await, stage.client("acme").await);
    let (long, cut) = (format!("my.{}", "n".repeat(70)), format!("my.{}", "n".repeat(63)));
    for (sql, name) in [
        ("SET my.\u{e9} = 'v'".to_owned(), "my.\u{e9}"),
        ("SELECT set_config('my.\u{e8}', 'v', false)".to_owned(), "my.\u{e8}"),
        ("CREATE TEMP TABLE t (); SET my.\u{ea} = 'v'; DROP TABLE t".to_owned(), "my.\u{ea}"),
        (format!("SET {long} = 'v'"), &cut),
        (format!("SELECT set_config('{long}x', 'v', false)"), &format!("{long}x")),
    ] {
        let reply = client.query(&sql).await;
        assert!(reply.errors.is_empty(), "{sql}: {reply:?}");
        let look = format!("SELECT coalesce(current_setting('{name}', true), '')");
        assert_eq!(other.query(&look).await.value(), "", "{sql}");
    }
    assert_eq!(show(&mut client, &cut).await, "v", "it follows its client");
}

#[tokio::test]
async fn a_client_whose_path_was_found_outside_goes_on() {
    let stage = one_server().await;
    let mut client = stage.client("acme").await;
    for _ in 0..30 {
        let stray = "DO $$ BEGIN PERFORM set_config('search_path', 'public', false); END $$";
        let ahead = Batch::new().query(stray).query("SET work_mem = '5MB'").query("DISCARD ALL");
        client.send(&ahead.0).await;
        for _ in 0..3 {
            let reply = client.until_ready().await;
            assert!(reply.errors.is_empty() && reply.status == Some('I'), "{reply:?}");
        }
        assert_eq!(client.query("SHOW search_path").await.value(), "schema_acme");
    }
}

#[tokio::test]
async fn the_role_and_the_path_cannot_be_left_behind_for_others() {
    let stage = one_server().await;
    for set in [
        "SET search_path = public",
        "SET ROLE role_acme",
        "SET SESSION AUTHORIZATION role_acme",
        "CREATE TEMP TABLE things (owner text)",
    ] {
        let mut client = stage.client("acme").await;
        client.query(set).await;
        drop(client);
        let mut other = stage.client("acme").await;
        let reply = other.query("SELECT current_schema, current_user, owner FROM things WHERE id = 1").await;
        assert!(reply.errors.is_empty(), "after {set}: {reply:?}");
        let row: Vec<_> = reply.rows[0].iter().flatten().map(String::as_str).collect();
        assert_eq!(row, ["schema_acme", "role_acme", "acme"], "after {set}");
    }
}

#[tokio::test]
async fn a_tenants_own_settings_hold_from_the_first_query() {
    let mut plan = Plan::new(&["acme"]);
    plan.tenants[0]
        .lines
        .push("settings = { statement_timeout = \"1234ms\", work_mem = \"9MB\" }".to_owned());
    let stage = Stage::start(plan).await;
    let mut client = stage.client("acme").await;
    assert_eq!(show(&mut client, "statement_timeout").await, "1234ms");
    assert_eq!(show(&mut client, "work_mem").await, "9MB");
}

#[tokio::test]
async fn a_startup_parameter_that_postgres_does_not_know_is_refused() {
    let stage = one_server().await;
    let mut login = stage.login("acme");
    login.parameters = vec![("no_such_setting".to_owned(), "1".to_owned())];
    let reply = stage.connect().await.log_in(&login).await;
    assert_eq!(reply.errors.len(), 1, "{reply:?}");
    assert!(["42704", "22023", "0A000"].contains(&reply.code()), "{reply:?}");
}

#[tokio::test]
async fn a_client_that_limits_its_idle_time_ends_no_server_of_others() {
    let stage = Stage::start(Plan::new(&["acme", "bolt"]).one_server_each()).await;
    let (mut client, mut other) = (stage.client("acme").await, stage.client("bolt").await);
    let mut pids = std::collections::BTreeSet::new();
    for _ in 0..3 {
        let reply = client.query("SET idle_session_timeout = '100ms'").await;
        assert!(reply.errors.is_empty(), "{pids:?} {reply:?}");
        assert_eq!(show(&mut client, "idle_session_timeout").await, "100ms");
        assert_eq!(show(&mut stage.client("acme").await, "idle_session_timeout").await, "0");
        // Postgres would have ended it by now.
        other.query("SELECT pg_sleep(0.2)").await;
        pids.insert(stage.client("acme").await.query("SELECT pg_backend_pid()").await.value().to_owned());
    }
    assert_eq!(pids.len(), 1, "{pids:?}");
}

#[tokio::test]
async fn defaults_that_change_in_postgres_are_those_of_clients_that_come_later() {
    let stage = Stage::start(Plan::new(&["acme"]).one_server_each()).await;
    let mut client = stage.client("acme").await;
    let before = show(&mut client, "timezone").await;
    for sql in [
        "ALTER ROLE role_acme SET timezone = 'Asia/Tokyo'",
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'role_acme'",
    ] {
        stage.postgres.psql_in("app", sql).await.unwrap();
    }
    // Its request finds a server that has just logged in.
    let mut first = stage.client("acme").await;
    eventually("a new server", PATIENCE, async || {
        first.query("SELECT 1").await.errors.is_empty().then_some(())
    })
    .await;
    let mut newcomer = stage.client("acme").await;
    assert_eq!(newcomer.parameters["TimeZone"], "Asia/Tokyo");
    assert_eq!(show(&mut newcomer, "timezone").await, "Asia/Tokyo");
    assert_eq!(show(&mut first, "timezone").await, before, "as a session that was there before");
}
