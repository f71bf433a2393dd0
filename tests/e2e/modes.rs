//! Session mode: the client keeps its server, and with it all that transaction mode cannot keep.

use crate::support::{Batch, PATIENCE, Plan, Stage, TenantPlan, eventually};

async fn stage(budget: u32) -> Stage {
    let plan = Plan::of(vec![TenantPlan::new("acme").line("mode = \"session\""), TenantPlan::new("bolt")]);
    Stage::start(if budget == 1 { plan.one_server_each() } else { plan.budget(budget) }).await
}

#[tokio::test]
async fn a_session_keeps_its_server_and_its_state() {
    let stage = stage(4).await;
    let mut client = stage.client("acme").await;
    let mut other = stage.client("acme").await;
    let pid = client.query("SELECT pg_backend_pid()").await.value().to_owned();
    client
        .query("SET work_mem = '77MB'; CREATE TEMP TABLE mine (x int); PREPARE p AS SELECT 'prepared'")
        .await;
    for _ in 0..3 {
        assert_ne!(other.query("SELECT pg_backend_pid()").await.value(), pid);
        assert_eq!(client.query("SELECT pg_backend_pid()").await.value(), pid);
        assert_eq!(client.query("SHOW work_mem").await.value(), "77MB");
        assert_eq!(client.query("SELECT count(*) FROM mine").await.value(), "0");
        assert_eq!(client.query("EXECUTE p").await.value(), "prepared");
    }
}

#[tokio::test]
async fn notifications_reach_a_session_that_listens() {
    let stage = stage(4).await;
    let mut listener = stage.client("acme").await;
    let mut speaker = stage.client("acme").await;
    assert!(listener.query("LISTEN news").await.errors.is_empty());
    speaker.query("NOTIFY news, 'hello'").await;
    let message = listener.expect(b'A').await;
    assert!(String::from_utf8_lossy(&message.body).contains("hello"));
}

#[tokio::test]
async fn the_state_of_a_session_ends_with_it() {
    let stage = stage(1).await;
    let mut client = stage.client("acme").await;
    client
        .query(
            "SET work_mem = '77MB'; CREATE TEMP TABLE mine (x int); SELECT pg_advisory_lock(7); LISTEN news",
        )
        .await;
    client.send(&Batch::new().terminate().0).await;
    drop(client);
    let mut next = stage.client("acme").await;
    assert_ne!(next.query("SHOW work_mem").await.value(), "77MB");
    assert_eq!(next.query("SELECT count(*) FROM pg_class WHERE relname = 'mine'").await.value(), "0");
    assert_eq!(next.query("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'").await.value(), "0");
    assert_eq!(next.query("SELECT count(*) FROM pg_listening_channels()").await.value(), "0");
}

#[tokio::test]
async fn a_second_session_waits_for_the_first_to_leave() {
    let stage = stage(1).await;
    let mut first = stage.client("acme").await;
    first.query("SELECT 1").await;
    let (login, mut second) = (stage.login("acme"), stage.connect().await);
    {
        let greeted = second.log_in(&login);
        tokio::pin!(greeted);
        assert!(tokio::time::timeout(std::time::Duration::from_millis(300), &mut greeted).await.is_err());
        drop(first);
        assert_eq!(greeted.await.status, Some('I'));
    }
    assert_eq!(second.query("SELECT 'mine now'").await.value(), "mine now");
}

#[tokio::test]
async fn a_user_may_have_a_mode_of_its_own() {
    let mut plan = Plan::new(&["acme"]);
    let verifier_line =
        plan.toml("127.0.0.1:1".parse().unwrap(), "127.0.0.1:2".parse().unwrap(), 3, "/".as_ref());
    let auth = verifier_line.lines().find(|line| line.starts_with("client_auth")).unwrap().to_owned();
    for (name, mode) in [("app", "transaction"), ("worker", "session")] {
        plan.tenants[0].lines.push(format!("[[tenant.user]]\nname = \"{name}\"\nmode = \"{mode}\"\n{auth}"));
    }
    let stage = Stage::start(plan).await;
    for (user, keeps) in [("app.acme", false), ("worker.acme", true)] {
        let login = crate::support::Login { user: user.to_owned(), ..stage.login("acme") };
        let mut client = stage.connect().await.logged_in(&login).await;
        client.query("SELECT 1").await;
        eventually("the metrics agree", PATIENCE, async || {
            let metrics = stage.proxy().metrics().await;
            let active = metrics.sum("tenantry_tenant_servers", &[("tenant", "acme"), ("state", "active")]);
            ((active > 0.0) == keeps).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn transaction_mode_never_fails_silently() {
    let stage = stage(2).await;
    for statement in [
        "LISTEN news",
        "CREATE TEMP TABLE mine (x int)",
        "SELECT pg_advisory_lock(7)",
        "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
        "PREPARE p AS SELECT 1",
    ] {
        // What the one before left is gone: only one server may be kept.
        eventually("no server is kept", PATIENCE, async || {
            let metrics = stage.proxy().metrics().await;
            (metrics.sum("tenantry_tenant_servers_pinned", &[("tenant", "bolt")]) == 0.0).then_some(())
        })
        .await;
        let mut client = stage.client("bolt").await;
        let mut other = stage.client("bolt").await;
        let reply = client.query(statement).await;
        if reply.errors.is_empty() {
            // Accepted: then it must hold for this client, whatever others do in between.
            other.query("SELECT 1").await;
            let check = match statement {
                "LISTEN news" => {
                    other.query("NOTIFY news").await;
                    client.expect(b'A').await;
                    continue;
                }
                "CREATE TEMP TABLE mine (x int)" => "SELECT count(*) FROM mine",
                "SELECT pg_advisory_lock(7)" => "SELECT pg_advisory_unlock(7)",
                "PREPARE p AS SELECT 1" => "EXECUTE p",
                _ => "FETCH c",
            };
            let reply = client.query(check).await;
            assert!(reply.errors.is_empty() && reply.notices.is_empty(), "{statement}: {reply:?}");
            assert_ne!(reply.value(), "f", "{statement}");
        } else {
            assert_eq!((reply.code(), reply.status), ("0A000", Some('I')), "{statement}: {reply:?}");
        }
    }
}

#[tokio::test]
async fn what_drivers_say_at_the_end_of_a_lease_keeps_no_server() {
    let stage = Stage::start(Plan::new(&["acme"]).one_server_each().queue_timeout("1s")).await;
    let everyday = [
        "SELECT pg_advisory_unlock_all()",
        "CLOSE ALL",
        "UNLISTEN *",
        "RESET ALL",
        "DISCARD ALL",
        "DEALLOCATE ALL",
        "ROLLBACK",
        "SELECT pg_advisory_unlock_all(); CLOSE ALL; UNLISTEN *; RESET ALL;",
        "UPDATE things SET body = body WHERE id = 1",
        "UPDATE things SET body = body WHERE id = 1;",
        "INSERT INTO things (id, owner, body) VALUES (600, 'x', CURRENT_TIMESTAMP) ON CONFLICT DO NOTHING;",
        "TRUNCATE things",
        "VACUUM things",
        "ANALYZE things",
        "CREATE TABLE IF NOT EXISTS mine (x int)",
        "CREATE INDEX IF NOT EXISTS mine_x ON mine (x)",
        "SELECT pg_advisory_xact_lock(1)",
        "BEGIN; DECLARE c CURSOR FOR SELECT 1; COMMIT",
    ];
    let mut keep = Vec::new();
    for sql in everyday {
        for is_named in [false, true] {
            if is_named && sql.trim_end_matches(';').contains(';') {
                continue;
            }
            let (mut client, mut other) = (stage.client("acme").await, stage.client("acme").await);
            let batch = if is_named {
                Batch::new().parse("P_0", sql).sync().bind("", "P_0", &[]).execute("").sync()
            } else {
                Batch::new().query(sql)
            };
            client.send(&batch.0).await;
            for _ in 0..=u8::from(is_named) {
                let reply = client.until_ready().await;
                assert!(reply.errors.is_empty(), "{sql}: {reply:?}");
            }
            if !other.query("SELECT 'served'").await.errors.is_empty() {
                keep.push(format!("{sql} (named: {is_named})"));
            }
        }
    }
    assert_eq!(keep, Vec::<String>::new(), "these keep their server");
}
