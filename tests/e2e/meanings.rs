//! What a prepared text means: settled when it is prepared, by the settings of the client that prepares it.

use crate::statements::{execute, prepare, stage};
use crate::support::{Batch, Plan, Reply, Stage, Wire};

#[tokio::test]
async fn a_text_means_what_the_settings_of_its_client_make_of_it() {
    let stage = Stage::start(Plan::new(&["acme"]).one_server_each()).await;
    let with = async |name: &str, value: &str| {
        let mut login = stage.login("acme");
        login.parameters.push((name.to_owned(), value.to_owned()));
        Wire::connect(stage.address()).await.logged_in(&login).await
    };
    let run = || Batch::new().bind("", "s", &[]).execute("").sync();
    for (setting, values, text, answers) in [
        (
            "TimeZone",
            ["UTC", "Asia/Tokyo"],
            "SELECT extract(epoch FROM '2026-01-01 12:00'::timestamptz)::int",
            ["1767268800", "1767236400"],
        ),
        (
            "DateStyle",
            ["ISO, MDY", "ISO, DMY"],
            "SELECT extract(month FROM '01/02/2026'::date)::int",
            ["1", "2"],
        ),
        ("standard_conforming_strings", ["on", "off"], r"SELECT length('a\\b')", ["4", "3"]),
        ("array_nulls", ["on", "off"], "SELECT '{NULL}'::text[] = ARRAY['NULL']", ["f", "t"]),
    ] {
        let mut clients = [with(setting, values[0]).await, with(setting, values[1]).await];
        for (client, answer) in clients.iter_mut().zip(answers) {
            prepare(client, "s", text).await;
            assert_eq!(client.ask(run()).await.value(), answer, "{setting}");
        }
        for (client, answer) in clients.iter_mut().zip(answers) {
            assert_eq!(client.ask(run()).await.value(), answer, "{setting}, again");
        }
        // And within one client, which has the text under two names.
        let [mut client, _] = clients;
        let changed = client.query(&format!("SET {setting} = '{}'", values[1])).await;
        assert!(changed.errors.is_empty(), "{changed:?}");
        prepare(&mut client, "t", text).await;
        let later = client.ask(Batch::new().bind("", "t", &[]).execute("").sync()).await;
        assert_eq!(later.value(), answers[1], "{setting} set later");
        assert_eq!(client.ask(run()).await.value(), answers[0], "{setting}: as it was when it was prepared");
    }
}

/// What the client's own server would have computed once stays that, on servers that prepare it anew as well.
#[tokio::test]
async fn a_text_keeps_its_meaning_on_a_server_that_lacks_it() {
    let stage = stage(9).await;
    let mut client = stage.client("acme").await;
    client.query("SET DateStyle = 'ISO, DMY'").await;
    prepare(&mut client, "s", "SELECT extract(month FROM '01/02/2026'::date) || $1").await;
    client.query("SET DateStyle = 'ISO, MDY'").await;
    // Who begins a transaction keeps a server, so that the client gets another one.
    let mut others = Vec::new();
    let mut occupy = async || {
        let mut other = stage.client("acme").await;
        other.query("BEGIN").await;
        others.push(other);
    };
    let show = |of: &Reply| of.value().to_owned();
    occupy().await;
    let reply = client.ask(execute("s", "a")).await;
    assert_eq!(reply.shape(), "2DCZ", "nothing else is heard: {reply:?}");
    assert_eq!(show(&client.ask(execute("s", "a")).await), "2a");
    occupy().await;
    let reply = client
        .ask(
            Batch::new()
                .bind("", "s", &["b"])
                .execute("")
                .parse("", "SHOW DateStyle")
                .bind("", "", &[])
                .execute("")
                .sync(),
        )
        .await;
    assert_eq!((reply.rows[0][0].as_deref(), reply.rows[1][0].as_deref()), (Some("2b"), Some("ISO, MDY")));
    occupy().await;
    client.query("BEGIN; SET LOCAL DateStyle = 'ISO, YMD'").await;
    assert_eq!(show(&client.ask(execute("s", "c")).await), "2c");
    assert_eq!(show(&client.query("SHOW DateStyle").await), "ISO, YMD");
    client.query("COMMIT").await;
    assert_eq!(show(&client.query("SHOW DateStyle").await), "ISO, MDY");
    occupy().await;
    assert_eq!(show(&client.query("EXECUTE s('d')").await), "2d");
    assert_eq!(show(&client.query("SHOW DateStyle").await), "ISO, MDY");
    // With another search_path Postgres reads it anew by itself.
    client.query("SET search_path = pg_catalog, schema_acme").await;
    // The server is asked for it.
    client.query("SELECT 1").await;
    assert_eq!(show(&client.ask(execute("s", "e")).await), "1e");
    client.query("SET DateStyle = 'ISO, DMY'").await;
    occupy().await;
    assert_eq!(show(&client.ask(execute("s", "f")).await), "1f");
}

/// Texts that are prepared while settings are on their way are nobody else's.
#[tokio::test]
async fn a_text_is_shared_only_under_settings_that_are_known() {
    const DMY: &str = "SET DateStyle = 'ISO, DMY'";
    let date = |number: usize| format!("SELECT extract(month FROM '01/02/2026'::date) -- {number}");
    let nulls = |number: usize| {
        format!("SELECT count(*) FROM (SELECT 1 WHERE (NULL = NULL) IS NOT NULL) n -- {number}")
    };
    let stage = Stage::start(Plan::new(&["acme"]).one_server_each()).await;
    let run = || Batch::new().bind("", "s", &[]).execute("").sync();
    let local = || Batch::new().query("BEGIN").query("SET LOCAL DateStyle = 'ISO, DMY'");
    let nullish = "BEGIN; SET LOCAL transform_null_equals = on";
    let batches = [
        (date(0), local().parse("s", &date(0)).sync().query("COMMIT")),
        (date(1), Batch::new().query(DMY).parse("s", &date(1)).sync().query("RESET DateStyle")),
        (date(2), Batch::new().run(DMY, &[]).parse("s", &date(2)).run("RESET DateStyle", &[]).sync()),
        (nulls(3), Batch::new().query(nullish).parse("s", &nulls(3)).sync().query("COMMIT")),
        (
            nulls(4),
            Batch::new().query("SET array_nulls = off").parse("s", &nulls(4)).sync().query("RESET ALL"),
        ),
    ];
    for (text, batch) in batches {
        let (mut client, mut other) = (stage.client("acme").await, stage.client("acme").await);
        client.send(&batch.query("SELECT 'end'").0).await;
        while client.until_ready().await.rows != [[Some("end".to_owned())]] {}
        prepare(&mut other, "s", &text).await;
        let expected = other.query(&text).await.value().to_owned();
        assert_eq!(other.ask(run()).await.value(), expected, "{text}");
    }
}
