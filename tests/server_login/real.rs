//! Logins at a real Postgres: each way of authenticating, each `sslmode`, several hosts, cancel.

use std::time::Duration;

use tenantry::backend::admin::{AdminError, ServerLimits, server_limits};
use tenantry::backend::{FailureClass, Farewell, LoginFailure, Profile, Server, close, close_with, login};
use tenantry::config::settings::{ChannelBinding, Endpoint, Host, SslMode, TargetSessionAttrs};
use tenantry::error::ClientFacing;
use tenantry::tenant::{ServerAuth, Tenant};

use crate::fixtures::*;

async fn plain() -> Endpoint {
    endpoint(vec![tcp("127.0.0.1", postgres().await.port())])
}

/// With TLS to `localhost`, which is the name in the certificate.
async fn tls(ssl_mode: SslMode) -> Endpoint {
    Endpoint {
        hosts: vec![tcp("localhost", postgres().await.port())],
        ssl_mode,
        ssl_root_cert: Some(PAPERS.path("ca.pem")),
        ..plain().await
    }
}

async fn is_encrypted(server: &mut Server) -> bool {
    let sql = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    let says = scalar(&mut server.stream, sql).await.unwrap() == "t";
    assert_eq!(says, server.stream.is_tls());
    says
}

#[tokio::test]
async fn scram_works_over_tcp_and_over_a_unix_socket() {
    let postgres = postgres().await;
    let unix = Host::Unix { dir: postgres.socket_dir().to_owned(), port: postgres.port() };
    for host in [tcp("127.0.0.1", postgres.port()), unix] {
        let mut server = login(&profile(endpoint(vec![host]), "acme")).await.unwrap();
        assert_eq!(scalar(&mut server.stream, "SELECT session_user").await.unwrap(), "acme");
        let pid = scalar(&mut server.stream, "SELECT pg_backend_pid()").await.unwrap();
        assert_eq!(pid, server.pid.to_string());
        assert!(reported(&server, "server_version").is_some());
        assert_eq!(reported(&server, "application_name"), Some("tenantry"));
        assert_eq!(reported(&server, "client_encoding"), Some("UTF8"));
        assert_eq!(reported(&server, "is_superuser"), Some("off"));
    }
}

#[tokio::test]
async fn search_path_and_settings_hold_from_the_first_query_and_survive_discard_all() {
    let tenant = Tenant {
        search_path: r#""odd \ name", public"#.into(),
        allowed_schemas: None,
        uses_lastval: false,
        replication: false,
        settings: settings(&[
            ("timezone", "Europe/Zurich"),
            ("statement_timeout", "31s"),
            ("work_mem", "5MB"),
            ("search_path", "pg_catalog"),
        ]),
        ..tenant("acme")
    };
    let mut server = login(&Profile::new(&connector(plain().await), &tenant)).await.unwrap();
    assert_eq!(reported(&server, "TimeZone"), Some("Europe/Zurich"));
    for round in 0..2 {
        for (setting, value) in [
            ("search_path", r#""odd \ name", public"#),
            ("TimeZone", "Europe/Zurich"),
            ("statement_timeout", "31s"),
            ("work_mem", "5MB"),
        ] {
            let shown = scalar(&mut server.stream, &format!("SHOW {setting}")).await.unwrap();
            assert_eq!(shown, value, "{setting} in round {round}");
        }
        assert_eq!(scalar(&mut server.stream, "SELECT current_schema()").await.unwrap(), r"odd \ name");
        let _ = scalar(&mut server.stream, "SET search_path = pg_catalog").await;
        let _ = scalar(&mut server.stream, "DISCARD ALL").await;
    }
}

#[tokio::test]
async fn a_refused_login_is_the_tenants_own_problem() {
    let elsewhere = Tenant { database: "nowhere".into(), ..tenant("acme") };
    let unknown_setting = Tenant { settings: settings(&[("no_such_setting", "1")]), ..tenant("acme") };
    let no_password = Tenant { server_auth: ServerAuth::None, ..tenant("acme") };
    let wrong = Tenant {
        server_auth: ServerAuth::Password(tenantry::tenant::Secret::new("battery staple".into())),
        ..tenant("acme")
    };
    let connector = connector(plain().await);
    for (tenant, code, reason) in [
        (&wrong, Some("28P01"), "server_login_rejected"),
        (&tenant("nobody"), Some("28P01"), "server_login_rejected"),
        (&elsewhere, Some("3D000"), "server_login_rejected"),
        (&unknown_setting, Some("42704"), "server_login_rejected"),
        (&no_password, None, "server_no_password"),
    ] {
        let error = login(&Profile::new(&connector, tenant)).await.unwrap_err();
        assert_eq!((error.sqlstate(), error.reason()), (code, reason), "{error}");
        assert_eq!(error.class(), FailureClass::Rejected);
        let shown = format!("{:?}", error.to_client());
        assert!(
            !shown.contains("127.0.0.1") && !shown.contains("acme") && !shown.contains("nowhere"),
            "{shown}"
        );
    }
}

#[tokio::test]
async fn a_password_is_never_sent_in_clear_or_as_md5() {
    for (role, method) in [("clear", "cleartext"), ("old", "MD5")] {
        let error = login(&profile(plain().await, role)).await.unwrap_err();
        assert!(matches!(error.failure(), LoginFailure::Method(_)), "{error}");
        assert_eq!((error.reason(), error.class()), ("server_auth_method", FailureClass::Rejected));
        assert!(error.to_string().contains(method), "{error}");
    }
}

#[tokio::test]
async fn channel_binding_is_used_under_tls_and_missed_without() {
    let required = Endpoint { channel_binding: ChannelBinding::Require, ..tls(SslMode::VerifyFull).await };
    let mut server = login(&profile(required, "acme")).await.unwrap();
    assert!(is_encrypted(&mut server).await);
    let never = Endpoint { channel_binding: ChannelBinding::Disable, ..tls(SslMode::VerifyFull).await };
    login(&profile(never, "acme")).await.unwrap();
    let in_clear = Endpoint { channel_binding: ChannelBinding::Require, ..plain().await };
    for role in ["acme", "trusted"] {
        let error = login(&profile(in_clear.clone(), role)).await.unwrap_err();
        assert_eq!(error.reason(), "server_channel_binding", "{role}: {error}");
    }
}

#[tokio::test]
async fn trust_and_client_certificates_need_no_password() {
    let trusted = Tenant { server_auth: ServerAuth::None, ..tenant("trusted") };
    let mut server = login(&Profile::new(&connector(plain().await), &trusted)).await.unwrap();
    assert_eq!(scalar(&mut server.stream, "SELECT session_user").await.unwrap(), "trusted");
    let certified = Tenant { server_auth: ServerAuth::None, ..tenant("certified") };
    let with =
        Endpoint { ssl_identity: Some(PAPERS.identity("certified")), ..tls(SslMode::VerifyFull).await };
    let mut server = login(&Profile::new(&connector(with), &certified)).await.unwrap();
    assert_eq!(scalar(&mut server.stream, "SELECT session_user").await.unwrap(), "certified");
    let without = connector(tls(SslMode::VerifyFull).await);
    let error = login(&Profile::new(&without, &certified)).await.unwrap_err();
    assert_eq!((error.sqlstate(), error.class()), (Some("28000"), FailureClass::Rejected), "{error}");
}

#[tokio::test]
async fn each_sslmode_uses_tls_as_in_libpq() {
    use SslMode::{Allow, Disable, Prefer, Require, VerifyCa, VerifyFull};
    for (mode, role, encrypted) in [
        (Disable, "acme", Some(false)),
        (Disable, "tls_only", None),
        (Allow, "acme", Some(false)),
        (Allow, "tls_only", Some(true)),
        (Prefer, "acme", Some(true)),
        (Prefer, "plain_only", Some(false)),
        (Require, "acme", Some(true)),
        (Require, "plain_only", None),
        (VerifyCa, "acme", Some(true)),
        (VerifyFull, "acme", Some(true)),
    ] {
        match (login(&profile(tls(mode).await, role)).await, encrypted) {
            (Ok(mut server), Some(encrypted)) => {
                assert_eq!(is_encrypted(&mut server).await, encrypted, "{mode:?} {role}");
            }
            (Err(error), None) => assert_eq!(error.sqlstate(), Some("28000"), "{mode:?} {role}: {error}"),
            (result, _) => panic!("{mode:?} {role}: {result:?}"),
        }
    }
}

#[tokio::test]
async fn certificates_are_checked_for_authority_and_name() {
    let strangers = Papers::new();
    let other_ca = |mode| async move { tls(mode).await };
    let by_address = vec![tcp("127.0.0.1", postgres().await.port())];
    for (mode, ca, hosts, passes) in [
        (SslMode::VerifyFull, PAPERS.path("ca.pem"), None, true),
        (SslMode::VerifyFull, PAPERS.path("ca.pem"), Some(by_address.clone()), false),
        (SslMode::VerifyCa, PAPERS.path("ca.pem"), Some(by_address.clone()), true),
        (SslMode::VerifyCa, strangers.path("ca.pem"), None, false),
        (SslMode::Require, strangers.path("ca.pem"), None, false),
    ] {
        let base = other_ca(mode).await;
        let hosts = hosts.unwrap_or_else(|| base.hosts.clone());
        let endpoint = Endpoint { ssl_root_cert: Some(ca), hosts, ..base };
        match login(&profile(endpoint, "acme")).await {
            Ok(server) => assert!(passes && server.stream.is_tls(), "{mode:?}"),
            Err(error) => {
                assert!(!passes, "{mode:?}: {error}");
                assert!(matches!(error.failure(), LoginFailure::Certificate(_)), "{error}");
                assert_eq!(
                    (error.reason(), error.class()),
                    ("server_certificate", FailureClass::Unavailable)
                );
            }
        }
    }
}

#[tokio::test]
async fn a_dead_host_makes_way_for_the_next() {
    let port = postgres().await.port();
    let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let hosts = vec![tcp("no-such-host.invalid", 5432), tcp("127.0.0.1", dead), tcp("127.0.0.1", port)];
    login(&profile(endpoint(hosts), "acme")).await.unwrap();
    let error =
        login(&profile(endpoint(vec![tcp("no-such-host.invalid", 1), tcp("127.0.0.1", dead)]), "acme"))
            .await
            .unwrap_err();
    assert_eq!((error.reason(), error.class()), ("server_connect_refused", FailureClass::Unavailable));
    assert!(error.to_string().contains("no-such-host.invalid"), "every host is in the log: {error}");
    let missing = Host::Unix { dir: "/nonexistent".into(), port: 5432 };
    let error = login(&profile(endpoint(vec![missing]), "acme")).await.unwrap_err();
    assert_eq!(error.reason(), "server_connect_refused");
}

#[tokio::test]
async fn target_session_attrs_looks_at_what_the_session_may_do() {
    use TargetSessionAttrs::{Any, Primary, ReadOnly, ReadWrite, Standby};
    let reader = Tenant { settings: settings(&[("default_transaction_read_only", "on")]), ..tenant("acme") };
    for (attrs, writer_passes, reader_passes) in [
        (Any, true, true),
        (ReadWrite, true, false),
        (ReadOnly, false, true),
        (Primary, true, true),
        (Standby, false, false),
    ] {
        let connector = connector(Endpoint { target_session_attrs: attrs, ..plain().await });
        for (tenant, passes) in [(&tenant("acme"), writer_passes), (&reader, reader_passes)] {
            let result = login(&Profile::new(&connector, tenant)).await;
            assert_eq!(result.is_ok(), passes, "{attrs:?}");
            if let Err(error) = result {
                assert_eq!(error.reason(), "server_session_attrs");
            }
        }
    }
}

#[tokio::test]
async fn many_logins_derive_the_keys_once() {
    let profile = profile(plain().await, "acme");
    let logins: Vec<_> = (0..20)
        .map(|_| {
            let profile = profile.clone();
            tokio::spawn(async move { login(&profile).await.map(|server| server.pid) })
        })
        .collect();
    for attempt in logins {
        attempt.await.unwrap().unwrap();
    }
    assert_eq!(profile.key_derivations(), 1);
}

#[tokio::test]
async fn a_cancel_reaches_the_query_with_and_without_tls() {
    for endpoint in [plain().await, tls(SslMode::VerifyFull).await] {
        let mut server = login(&profile(endpoint, "acme")).await.unwrap();
        send_query(&mut server.stream, "SELECT pg_sleep(60)").await;
        until_running(server.pid).await;
        server.cancel.send().await.unwrap();
        let answered = tokio::time::timeout(Duration::from_secs(10), answer(&mut server.stream)).await;
        assert_eq!(answered.expect("the query ends at once"), Err("57014".to_owned()));
        let now = scalar(&mut server.stream, "SELECT 1").await;
        assert_eq!(now.as_deref(), Ok("1"), "the session goes on, and no late cancel hits it");
    }
}

async fn until_running(pid: u32) {
    let sql = format!("SELECT 1 FROM pg_stat_activity WHERE pid = {pid} AND wait_event = 'PgSleep'");
    while postgres().await.psql(&sql).await.unwrap().is_empty() {}
}

#[tokio::test]
async fn close_returns_when_the_backend_is_gone() {
    for endpoint in [plain().await, tls(SslMode::Require).await] {
        let profile = profile(endpoint, "acme");
        for unread in ["", "SELECT repeat('x', 1000) FROM generate_series(1, 20000)"] {
            for _ in 0..5 {
                let mut server = login(&profile).await.unwrap();
                if !unread.is_empty() {
                    send_query(&mut server.stream, unread).await;
                }
                let pid = server.pid;
                let farewell = if unread.is_empty() { Farewell::Terminate } else { Farewell::EndOfStream };
                tokio::time::timeout(Duration::from_secs(20), close_with(server.stream, farewell))
                    .await
                    .unwrap();
                let sql = format!("SELECT state FROM pg_stat_activity WHERE pid = {pid}");
                assert_eq!(postgres().await.psql(&sql).await.unwrap().len(), 0, "{unread}");
            }
        }
    }
}

#[tokio::test]
async fn closing_behind_half_a_message_does_not_complete_it() {
    let postgres = postgres().await;
    postgres.psql("CREATE SCHEMA half; GRANT ALL ON SCHEMA half TO acme").await.unwrap();
    for endpoint in [plain().await, tls(SslMode::Require).await] {
        // Terminate begins with `X` and NUL: two missing bytes would be filled up to `victimaX`, and run.
        let mut server = login(&profile(endpoint, "acme")).await.unwrap();
        let text = b"CREATE TABLE half.victimab (a int)--b\0";
        let length = u32::try_from(text.len() + 4).unwrap().to_be_bytes();
        let whole = [b"Q", &length[..], text].concat();
        server.stream.write_all(&whole[..whole.len() - 2]).await.unwrap();
        tokio::time::timeout(Duration::from_secs(20), close(server.stream)).await.unwrap();
        let made = postgres.psql("SELECT relname FROM pg_class WHERE relname LIKE 'victim%'").await.unwrap();
        assert_eq!(made.len(), 0, "{made:?}");
    }
}

#[tokio::test]
async fn the_limits_of_the_server_are_read() {
    let cluster = cluster(plain().await);
    let connector = connector(plain().await);
    let limits = server_limits(&connector, &cluster).await.unwrap();
    assert_eq!(
        limits,
        ServerLimits { max_connections: 60, superuser_reserved: 3, reserved: limits.reserved }
    );
    assert_eq!(limits.usable(), 57 - limits.reserved);
    let without = tenantry::config::settings::Cluster { admin: None, ..cluster };
    assert!(matches!(server_limits(&connector, &without).await, Err(AdminError::NoLogin(_))));
}
