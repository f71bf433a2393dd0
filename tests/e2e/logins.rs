//! Logging in: who is let in, by which name, over which transport, and what the refused can learn (nothing).

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Batch, Login, PATIENCE, Plan, Reply, Stage, TenantPlan, Wire};

const WHO: &str = "SELECT owner FROM things WHERE id = 1";

async fn refused(stage: &Stage, login: &Login) -> Reply {
    let reply = stage.connect().await.log_in(login).await;
    assert_eq!((reply.errors.len(), reply.status), (1, None), "{login:?}: {reply:?}");
    assert_eq!(reply.errors[0].severity, "FATAL");
    reply
}

#[tokio::test]
async fn wrong_passwords_and_unknown_names_look_the_same() {
    let stage = Stage::start(Plan::new(&["acme", "bolt"])).await;
    let right = stage.login("acme");
    let variants = [
        Login { password: "wrong".into(), ..right.clone() },
        Login { password: stage.login("bolt").password, ..right.clone() },
        Login { user: "nobody".into(), ..right.clone() },
        Login { user: "nobody.acme".into(), ..right.clone() },
        Login { user: "acme.nobody".into(), ..right.clone() },
        Login { user: "acme.bolt".into(), ..right.clone() },
        Login { user: "role_acme".into(), ..right.clone() },
        Login { user: "x".repeat(63), ..right.clone() },
    ];
    for login in &variants {
        let reply = refused(&stage, login).await;
        assert_eq!(reply.code(), "28P01", "{login:?}");
        // PostgreSQL's own text names the user, who typed it; nothing else may differ.
        let text = format!("{:?}", reply.errors[0]).replace(&login.user, "USER");
        assert!(text.contains("password authentication failed for user"), "{text}");
        assert!(!text.contains("tenant") && !text.contains("127.0.0.1"), "{text}");
        let shapes: String = reply.shape();
        assert_eq!(shapes, "E", "{login:?}");
    }
    stage.client("acme").await;
}

#[tokio::test]
async fn a_tenant_may_be_named_in_several_ways() {
    let stage = Stage::start(Plan::new(&["acme", "bolt"])).await;
    let right = stage.login("acme");
    let option = |value: &str| vec![("options".to_owned(), value.to_owned())];
    let variants = [
        Login { user: "acme".into(), ..right.clone() },
        Login { user: "acme.acme".into(), ..right.clone() },
        Login { parameters: option("-c tenantry.tenant=acme"), ..right.clone() },
        Login { database: "acme".into(), ..right.clone() },
    ];
    for login in &variants {
        let mut client = stage.connect().await.logged_in(login).await;
        assert_eq!(client.query(WHO).await.value(), "acme", "{login:?}");
    }
}

#[tokio::test]
async fn sources_that_disagree_are_refused() {
    let stage = Stage::start(Plan::new(&["acme", "bolt"])).await;
    let right = stage.login("acme");
    let parameters = vec![("options".to_owned(), "-c tenantry.tenant=bolt".to_owned())];
    let reply = refused(&stage, &Login { parameters, ..right }).await;
    assert!(["28000", "28P01"].contains(&reply.code()), "{reply:?}");
}

#[tokio::test]
async fn a_database_that_the_tenant_does_not_have_is_refused_after_the_password() {
    let stage = Stage::start(Plan::new(&["acme"])).await;
    let reply = refused(&stage, &Login { database: "postgres".into(), ..stage.login("acme") }).await;
    assert_eq!(reply.code(), "3D000");
    let wrong = Login { database: "postgres".into(), password: "wrong".into(), ..stage.login("acme") };
    assert_eq!(refused(&stage, &wrong).await.code(), "28P01");
}

#[tokio::test]
async fn tls_by_request_and_direct() {
    let stage = Stage::start(Plan::new(&["acme"]).tls("prefer")).await;
    let (address, config) = (stage.address(), stage.tls_client());
    let login = stage.login("acme");
    let mut plain = Wire::connect(address).await.logged_in(&login).await;
    assert_eq!(plain.query(WHO).await.value(), "acme");
    let mut tls = Wire::connect_tls(address, config.clone(), "localhost").await.logged_in(&login).await;
    assert_eq!(tls.query(WHO).await.value(), "acme");
    let mut direct = Wire::connect_tls_direct(address, config, "localhost").await.logged_in(&login).await;
    assert_eq!(direct.query(WHO).await.value(), "acme");
}

#[tokio::test]
async fn where_tls_is_required_a_plain_login_is_refused_before_the_password() {
    let stage = Stage::start(Plan::new(&["acme"]).tls("require")).await;
    let mut plain = Wire::connect(stage.address()).await;
    let reply = plain.log_in(&stage.login("acme")).await;
    assert_eq!((reply.code(), reply.shape().as_str()), ("28000", "E"));
    let mut client = stage.client("acme").await;
    assert_eq!(client.query(WHO).await.value(), "acme");
}

#[tokio::test]
async fn the_server_name_may_name_the_tenant() {
    let plan = Plan::new(&["acme", "bolt"])
        .tls("require")
        .set("login", "tenant_sources", "[\"sni\", \"user_suffix\", \"user\"]")
        .set("login", "sni_domain", "\"db.test\"");
    let stage = Stage::start(plan).await;
    let connect = |name: &'static str| Wire::connect_tls(stage.address(), stage.tls_client(), name);
    let mut client = connect("acme.db.test").await.logged_in(&stage.login("acme")).await;
    assert_eq!(client.query(WHO).await.value(), "acme");
    let reply = connect("bolt.db.test").await.log_in(&stage.login("acme")).await;
    assert_eq!((reply.errors.len(), reply.status), (1, None), "{reply:?}");
}

#[tokio::test]
async fn a_client_certificate_is_enough_where_the_tenant_says_so() {
    let tenants = vec![
        TenantPlan::new("acme").line("client_auth = { certificate = \"acme.client\" }"),
        TenantPlan::new("bolt"),
    ];
    let stage = Stage::start(Plan::of(tenants).tls("prefer")).await;
    let login = Login { password: String::new(), ..stage.login("acme") };
    let good = stage.authority.client(Some(&stage.authority.issue(&["acme.client"])));
    let mut client = Wire::connect_tls(stage.address(), good, "localhost").await.logged_in(&login).await;
    assert_eq!(client.query(WHO).await.value(), "acme");
    let other = stage.authority.client(Some(&stage.authority.issue(&["bolt.client"])));
    let mut wire = Wire::connect_tls(stage.address(), other, "localhost").await;
    assert_eq!(wire.log_in(&login).await.status, None);
    let mut wire = Wire::connect_tls(stage.address(), stage.tls_client(), "localhost").await;
    assert_eq!(wire.log_in(&login).await.status, None);
}

#[tokio::test]
async fn channel_binding_works_when_the_client_demands_it() {
    let stage = Stage::start(Plan::new(&["acme"]).tls("require")).await;
    let tls = tokio_postgres_rustls::MakeRustlsConnect::new(rustls::ClientConfig::clone(&stage.tls_client()));
    let mut config = stage.tokio_config("acme");
    config.channel_binding(tokio_postgres::config::ChannelBinding::Require);
    config.ssl_mode(tokio_postgres::config::SslMode::Require);
    let (client, connection) = config.connect(tls).await.unwrap();
    tokio::spawn(async move {
        let _ = connection.await;
    });
    assert_eq!(client.query_one(WHO, &[]).await.unwrap().get::<_, String>(0), "acme");
}

#[tokio::test]
async fn newer_minor_versions_and_unknown_options_are_negotiated() {
    let stage = Stage::start(Plan::new(&["acme"])).await;
    for (version, options) in
        [(0x0003_0002, vec![]), (0x0003_0063, vec![]), (0x0003_0000, vec![("_pq_.shiny", "on")])]
    {
        let mut login = stage.login("acme");
        login.version = version;
        login.parameters =
            options.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let mut client = stage.connect().await;
        let reply = client.log_in(&login).await;
        assert_eq!(reply.status, Some('I'), "{version:x}: {reply:?}");
        assert_eq!(client.query(WHO).await.value(), "acme");
        if version == 0x0003_0002 {
            assert!(client.key.1.len() > 4, "protocol 3.2 has long cancel keys: {:?}", client.key);
        }
    }
    for version in [0x0002_0000, 0x0004_0000] {
        let reply = refused(&stage, &Login { version, ..stage.login("acme") }).await;
        assert!(["0A000", "08P01"].contains(&reply.code()), "{reply:?}");
    }
}

#[tokio::test]
async fn gss_encryption_is_declined_and_the_login_goes_on() {
    let stage = Stage::start(Plan::new(&["acme"])).await;
    let mut stream = TcpStream::connect(stage.address()).await.unwrap();
    for request in [Batch::gssenc_request(), Batch::ssl_request()] {
        stream.write_all(&request.0).await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), b'N');
    }
    let mut client = Wire::over(stream).logged_in(&stage.login("acme")).await;
    assert_eq!(client.query(WHO).await.value(), "acme");
}

#[tokio::test]
async fn bytes_sent_along_with_the_tls_request_are_never_taken_into_the_session() {
    let stage = Stage::start(Plan::new(&["acme"]).tls("prefer")).await;
    let mut stream = TcpStream::connect(stage.address()).await.unwrap();
    let smuggled =
        Batch::ssl_request().raw(&Batch::startup(0x0003_0000, &[("user", "acme"), ("database", "app")]).0);
    stream.write_all(&smuggled.0).await.unwrap();
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("not closed");
    assert!(!answer.contains(&b'R'), "the smuggled startup packet was answered: {answer:?}");
}

#[tokio::test]
async fn a_login_that_dawdles_is_ended_by_the_proxy() {
    let stage = Stage::start(Plan::new(&["acme"]).set("listen", "login_timeout", "\"500ms\"")).await;
    let startup = Batch::startup(0x0003_0000, &[("user", "acme"), ("database", "app")]);
    for bytes in [&[][..], &startup.0[..6], &startup.0[..]] {
        let mut wire = Wire::connect(stage.address()).await;
        wire.send(bytes).await;
        let start = tokio::time::Instant::now();
        while wire.message().await.is_some() {}
        assert!(
            start.elapsed() < Duration::from_secs(3),
            "{:?} after {} bytes",
            start.elapsed(),
            bytes.len()
        );
    }
    stage.client("acme").await;
}

#[tokio::test]
async fn half_open_logins_do_not_keep_others_out_of_the_proxy_for_long() {
    let plan =
        Plan::new(&["acme"]).set("listen", "max_half_open", "5").set("listen", "login_timeout", "\"1s\"");
    let stage = Stage::start(plan).await;
    let mut idlers = Vec::new();
    for _ in 0..20 {
        idlers.push(Wire::connect(stage.address()).await);
    }
    let mut client = stage.client("acme").await;
    assert_eq!(client.query(WHO).await.value(), "acme");
}

#[tokio::test]
async fn a_unix_socket_is_as_good_as_tcp() {
    let dir = tempfile::tempdir().unwrap();
    let plan =
        Plan::new(&["acme"]).set("listen", "unix_socket_dir", &format!("\"{}\"", dir.path().display()));
    let stage = Stage::start(plan).await;
    let path = dir.path().join(format!(".s.PGSQL.{}", stage.address().port()));
    let stream = tokio::net::UnixStream::connect(&path).await.unwrap();
    let mut client = Wire::over(stream).logged_in(&stage.login("acme")).await;
    assert_eq!(client.query(WHO).await.value(), "acme");
}

#[tokio::test]
async fn servers_are_reached_over_verified_tls_with_channel_binding() {
    let mut plan = Plan::new(&["acme"]);
    plan.server_query = "sslmode=verify-full&channel_binding=require&sslrootcert=CA".to_owned();
    let mut stage = Stage::without_proxy(plan).await;
    stage.plan.server_query =
        stage.plan.server_query.replace("CA", &stage.dir.path().join("ca.crt").display().to_string());
    stage.start_proxy().await;
    let mut client = stage.client("acme").await;
    let reply = client.query("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()").await;
    assert_eq!(reply.value(), "t");
}

#[tokio::test]
async fn a_server_whose_certificate_nobody_vouches_for_is_not_used() {
    let stranger = crate::support::Authority::new("stranger");
    let mut plan = Plan::new(&["acme"]).queue_timeout("3s");
    plan.server_query = "sslmode=verify-full&sslrootcert=CA".to_owned();
    let mut stage = Stage::without_proxy(plan).await;
    let path = stage.dir.path().join("stranger.crt");
    std::fs::write(&path, stranger.pem()).unwrap();
    stage.plan.server_query = stage.plan.server_query.replace("CA", &path.display().to_string());
    stage.start_proxy().await;
    let mut client = stage.connect().await;
    let login = client.log_in(&stage.login("acme")).await;
    let reply = if login.status.is_some() { client.query(WHO).await } else { login };
    assert!(["08001", "53300", "57P03", "08006"].contains(&reply.code()), "{reply:?}");
    assert!(!format!("{reply:?}").contains("127.0.0.1"));
}

#[tokio::test]
async fn the_server_password_being_wrong_is_not_the_clients_fault() {
    let stage = Stage::start(Plan::new(&["acme", "bolt"])).await;
    stage.postgres.psql("ALTER ROLE role_acme PASSWORD 'changed'").await.unwrap();
    let mut client = stage.connect().await;
    let login = client.log_in(&stage.login("acme")).await;
    let reply = if login.status.is_some() { client.query(WHO).await } else { login };
    assert_ne!(reply.code(), "28P01", "{reply:?}");
    assert!(!format!("{reply:?}").contains("role_acme"), "{reply:?}");
    // While the proxy does not try again, everybody else of the tenant is refused at once, and told the same.
    let again = refused(&stage, &stage.login("acme")).await;
    assert_eq!(again.errors[0].message, "the database server refuses the login for this tenant");
    assert!(again.errors[0].detail.contains("28P01"), "{again:?}");
    let mut bolt = stage.client("bolt").await;
    assert_eq!(bolt.query(WHO).await.value(), "bolt");
}
