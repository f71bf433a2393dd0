//! TLS: by request and direct, required or not, channel binding, client certificates, server names.

use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tenantry::auth::scram_client::Binding;
use tenantry::backend::{Connector, Profile, login};
use tenantry::config::settings::{
    ChannelBinding, Cluster, Endpoint, Host, MaxConnections, MaxProtocol, SslMode, TargetSessionAttrs,
    TlsMode, TlsVersion,
};
use tenantry::front::LoginResult;
use tenantry::ids::ClusterId;
use tenantry::net::tls::ALPN;
use tenantry::tenant::{Secret, ServerAuth, Tenant};
use tenantry::wire::startup::{put_cancel_request, put_gss_enc_request, put_ssl_request};
use tokio::net::TcpStream;
use tokio_postgres::config::{ChannelBinding as Wanted, SslMode as WantedTls, SslNegotiation};
use tokio_postgres_rustls::MakeRustlsConnect;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::papers::Papers;
use crate::raw::{Raw, startup, startup_of};
use crate::rig::{Rig, servers};

fn rig(papers: &Papers, mode: TlsMode) -> Rig {
    Rig::with(|settings| settings.listen.tls = papers.listen(mode))
}

fn ssl_request() -> Vec<u8> {
    let mut out = Vec::new();
    put_ssl_request(&mut out);
    out
}

async fn handshake(
    stream: TcpStream,
    config: ClientConfig,
    name: &str,
) -> std::io::Result<Raw<TlsStream<TcpStream>>> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.map(Raw::new)
}

/// SSLRequest, `S`, and the handshake.
pub(crate) async fn secured(
    rig: &Rig,
    config: ClientConfig,
    name: &str,
) -> std::io::Result<Raw<TlsStream<TcpStream>>> {
    let mut client = rig.connect().await;
    assert_eq!(client.send(&ssl_request()).await.byte().await, b'S');
    handshake(client.stream, config, name).await
}

fn postgres(rig: &Rig) -> tokio_postgres::Config {
    let mut config = tokio_postgres::Config::new();
    config.user("acme").password("pencil").port(rig.port).host("localhost").ssl_mode(WantedTls::Require);
    config.hostaddr("127.0.0.1".parse().unwrap());
    config
}

#[tokio::test]
async fn tokio_postgres_binds_to_the_channel() {
    let papers = Papers::new();
    let mut rig = rig(&papers, TlsMode::Require);
    for binding in [Wanted::Require, Wanted::Disable] {
        let tls = MakeRustlsConnect::new(papers.client(None));
        let connected = postgres(&rig).channel_binding(binding).connect(tls).await.unwrap();
        assert_eq!(rig.guest().await.tenant, "acme");
        drop(connected);
    }
}

#[tokio::test]
async fn direct_tls_needs_its_alpn() {
    let papers = Papers::new();
    let mut rig = rig(&papers, TlsMode::Require);
    let mut config = papers.client(None);
    config.alpn_protocols = vec![ALPN.to_vec()];
    let tls = MakeRustlsConnect::new(config.clone());
    let connected = postgres(&rig).ssl_negotiation(SslNegotiation::Direct).connect(tls).await.unwrap();
    assert_eq!(rig.guest().await.tenant, "acme");
    drop(connected);
    let stream = rig.connect().await.stream;
    let mut nameless = handshake(stream, papers.client(None), "localhost").await.unwrap();
    let _ = tokio::io::AsyncWriteExt::write_all(&mut nameless.stream, &startup(&[("user", "acme")])).await;
    let mut rest = Vec::new();
    let _ = tokio::io::AsyncReadExt::read_to_end(&mut nameless.stream, &mut rest).await;
    assert_eq!(rest, b"", "without ALPN nothing is answered");
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let stream = rig.connect().await.stream;
    assert!(handshake(stream, config, "localhost").await.is_err());
    rig.counted(LoginResult::TlsFailed, 2).await;
    rig.expect_nobody();
}

/// The proxy as its own Postgres, which shows its login to servers and that of its clients at once.
#[tokio::test]
async fn direct_tls_binds_to_the_channel_on_both_legs() {
    let papers = Papers::new();
    let mut rig = rig(&papers, TlsMode::Require);
    for channel_binding in [ChannelBinding::Require, ChannelBinding::Disable] {
        let endpoint = Endpoint {
            hosts: vec![Host::Tcp { host: "localhost".into(), port: rig.port }],
            database: None,
            ssl_mode: SslMode::VerifyFull,
            ssl_root_cert: Some(papers.path("ca.pem")),
            ssl_identity: None,
            ssl_direct: true,
            target_session_attrs: TargetSessionAttrs::Any,
            channel_binding,
            max_protocol: MaxProtocol::V3_2,
        };
        let cluster = Cluster {
            id: ClusterId(0),
            name: "main".into(),
            endpoint,
            max_connections: MaxConnections::Fixed(1),
            admin_reserve: 0,
            admin: None,
            replica_of: None,
        };
        let connector = Connector::new(&cluster, &servers()).unwrap();
        let known = rig.settings.load().catalog.by_name("acme").unwrap().clone();
        let server_auth = ServerAuth::Password(Secret::new("pencil".to_owned()));
        let profile = Profile::new(&connector, &Tenant { server_auth, ..(*known).clone() });
        let server = login(&profile).await.unwrap();
        assert!(server.stream.is_tls());
        let guest = rig.guest().await;
        assert_eq!((&*guest.tenant, guest.protocol_minor), ("acme", 2), "3.2 is asked for and spoken");
    }
    let mut config = papers.client(None);
    config.alpn_protocols = vec![ALPN.to_vec()];
    let mut direct = postgres(&rig);
    direct.ssl_negotiation(SslNegotiation::Direct).channel_binding(Wanted::Require);
    let connected = direct.connect(MakeRustlsConnect::new(config)).await.unwrap();
    assert_eq!(rig.guest().await.tenant, "acme");
    drop(connected);
    rig.counted(LoginResult::Ok, 3).await;
}

#[tokio::test]
async fn where_tls_is_required_a_plain_login_is_refused_and_unix_sockets_are_not() {
    let papers = Papers::new();
    let mut rig = rig(&papers, TlsMode::Require);
    let mut client = rig.connect().await;
    let refused = client.send(&startup(&[("user", "acme")])).await.refused().await;
    assert_eq!(refused.code, "28000");
    assert!(String::from_utf8_lossy(&refused.bytes).contains("sslmode=require"), "{refused:?}");
    rig.counted(LoginResult::TlsRequired, 1).await;
    let mut client = rig.connect_unix().await;
    assert_eq!(
        client.send(&ssl_request()).await.byte().await,
        b'N',
        "no TLS on Unix sockets, as in PostgreSQL"
    );
    client.log_in(&[("user", "acme")], "pencil").await;
    rig.guest().await;
    let mut cancel = Vec::new();
    put_cancel_request(&mut cancel, 3, b"1234");
    let mut client = rig.connect().await;
    client.send(&cancel).await;
    assert_eq!(rig.cancelled().await.pid, 3, "cancel requests come in plain from older clients");
    assert_eq!(client.rest().await, b"");
}

#[tokio::test]
async fn where_tls_is_preferred_both_ways_are_open() {
    let papers = Papers::new();
    let mut rig = rig(&papers, TlsMode::Prefer);
    rig.connect().await.log_in(&[("user", "acme")], "pencil").await;
    rig.guest().await;
    let mut client = rig.connect().await;
    let mut gss = Vec::new();
    put_gss_enc_request(&mut gss);
    assert_eq!(client.send(&gss).await.byte().await, b'N');
    assert_eq!(client.send(&ssl_request()).await.byte().await, b'S');
    let mut client = handshake(client.stream, papers.client(None), "localhost").await.unwrap();
    client.send(&startup(&[("user", "acme")])).await;
    assert_eq!(client.offered().await, ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"]);
}

#[tokio::test]
async fn bytes_smuggled_in_before_the_handshake_never_enter_the_session() {
    let papers = Papers::new();
    let mut rig = rig(&papers, TlsMode::Prefer);
    let mut client = rig.connect().await;
    let smuggled = [ssl_request(), startup(&[("user", "acme")])].concat();
    assert_eq!(client.send(&smuggled).await.refused().await.code, "08P01", "no `S` is sent before");
    rig.counted(LoginResult::ProtocolViolation, 1).await;
    rig.expect_nobody();
}

#[tokio::test]
async fn inside_tls_encryption_cannot_be_requested_again_but_queries_cancelled() {
    let papers = Papers::new();
    let mut rig = rig(&papers, TlsMode::Prefer);
    let mut gss = Vec::new();
    put_gss_enc_request(&mut gss);
    for request in [ssl_request(), gss] {
        let mut client = secured(&rig, papers.client(None), "localhost").await.unwrap();
        assert_eq!(client.send(&request).await.refused().await.code, "08P01");
    }
    let mut client = secured(&rig, papers.client(None), "localhost").await.unwrap();
    let mut cancel = Vec::new();
    put_cancel_request(&mut cancel, 9, &[1; 32]);
    client.send(&cancel).await;
    assert_eq!(rig.cancelled().await.pid, 9);
}

#[tokio::test]
async fn a_downgrade_of_channel_binding_is_noticed() {
    let papers = Papers::new();
    let rig = rig(&papers, TlsMode::Prefer);
    let another_channel = || Binding::EndPoint(vec![1; 32]);
    let cases: [(fn() -> Binding, _, _); 3] = [
        (|| Binding::NotOffered, "SCRAM-SHA-256", "28000"),
        (another_channel, "SCRAM-SHA-256-PLUS", "28000"),
        (|| Binding::None, "SCRAM-SHA-256-PLUS", "08P01"),
    ];
    for (binding, mechanism, code) in cases {
        for user in ["acme", "nobody"] {
            let mut client = secured(&rig, papers.client(None), "localhost").await.unwrap();
            client.send(&startup(&[("user", user)])).await.offered().await;
            let answers = client.prove(mechanism, "pencil", binding()).await;
            let (tag, body) = answers.last().unwrap();
            assert_eq!(*tag, b'E');
            let text = String::from_utf8_lossy(body).into_owned();
            assert!(text.contains(&format!("C{code}\0")), "{user}: {text}");
        }
    }
}

#[tokio::test]
async fn a_client_certificate_is_the_proof_where_the_user_has_one() {
    let papers = Papers::new();
    let mut rig = rig(&papers, TlsMode::Prefer);
    let app = [("user", "app"), ("tenantry.tenant", "shop")];
    let mut client = secured(&rig, papers.client(Some("shop")), "localhost").await.unwrap();
    client.send(&startup(&app)).await.greeted().await;
    assert_eq!((rig.guest().await.tenant, rig.counters.of(LoginResult::Ok)), ("shop".to_owned(), 1));
    // What is said of the protocol is said although nothing is asked.
    let mut client = secured(&rig, papers.client(Some("shop")), "localhost").await.unwrap();
    client.send(&startup_of(9999, &app)).await;
    assert_eq!(client.message().await, (b'v', b"\0\x03\0\x02\0\0\0\0".to_vec()));
    client.greeted().await;
    assert_eq!(rig.guest().await.protocol_minor, 2);
    // A certificate of somebody else, and none: the same pretence of an exchange as for a wrong password.
    let mut faces = Vec::new();
    for certificate in [Some("other"), None] {
        let mut client = secured(&rig, papers.client(certificate), "localhost").await.unwrap();
        client.send(&startup(&app)).await.offered().await;
        faces.push(client.prove("SCRAM-SHA-256", "pencil", Binding::None).await.pop());
    }
    let mut plain = rig.connect().await;
    plain.send(&startup(&app)).await.offered().await;
    faces.push(plain.prove("SCRAM-SHA-256", "pencil", Binding::None).await.pop());
    assert!(faces.windows(2).all(|pair| pair[0] == pair[1]), "{faces:?}");
    rig.counted(LoginResult::BadPassword, 3).await;
    // A certificate does not help where a password is wanted.
    let mut client = secured(&rig, papers.client(Some("shop")), "localhost").await.unwrap();
    client.send(&startup(&[("user", "acme")])).await;
    assert_eq!(client.offered().await.len(), 2);
    rig.expect_nobody();
}

#[tokio::test]
async fn a_certificate_that_nobody_signed_ends_the_handshake() {
    let papers = Papers::new();
    let mut rig = rig(&papers, TlsMode::Prefer);
    if let Ok(mut client) = secured(&rig, papers.client(Some("forged")), "localhost").await {
        // In TLS 1.3 the client hears of it with its first read.
        let read = tokio::io::AsyncReadExt::read_u8(&mut client.stream).await;
        assert!(read.is_err());
    }
    rig.counted(LoginResult::TlsFailed, 1).await;
    rig.expect_nobody();
}

#[tokio::test]
async fn the_server_name_names_the_tenant() {
    let papers = Papers::new();
    let mut rig = rig(&papers, TlsMode::Require);
    let login = async |name: &str, user: &str| {
        let mut client = secured(&rig, papers.client(None), name).await.unwrap();
        client.send(&startup(&[("user", user)])).await.offered().await;
        let answers = client.prove("SCRAM-SHA-256", "pencil", Binding::None).await;
        answers.last().unwrap().0 == b'R'
    };
    assert!(login("acme.db.test", "reader").await);
    assert!(!login("beta.db.test", "reader").await, "another tenant's password");
    assert!(!login("beta.db.test", "reader.acme").await, "the names disagree");
    assert!(!login("nobody.db.test", "acme").await, "a tenant's own address is meant seriously");
    assert!(login("db.test", "acme").await, "the proxy's own name names no tenant");
    assert!(login("beta.other.test", "acme").await, "nor does a name outside of the domain");
    for _ in 0..3 {
        assert_eq!(rig.guest().await.tenant, "acme");
    }
    rig.expect_nobody();
}

#[tokio::test]
async fn old_tls_is_refused_where_the_new_is_demanded() {
    let papers = Papers::new();
    let mut rig = Rig::with(|settings| {
        settings.listen.tls = papers.listen(TlsMode::Require);
        settings.listen.tls.min_version = TlsVersion::V1_3;
    });
    let old = papers.client_of(None, &[&rustls::version::TLS12]);
    assert!(secured(&rig, old, "localhost").await.is_err());
    rig.counted(LoginResult::TlsFailed, 1).await;
    let tls = MakeRustlsConnect::new(papers.client_of(None, &[&rustls::version::TLS13]));
    let connected = postgres(&rig).channel_binding(Wanted::Require).connect(tls).await.unwrap();
    rig.guest().await;
    drop(connected);
}

#[tokio::test]
async fn a_tls_handshake_where_there_is_no_tls_is_closed() {
    let mut rig = Rig::plain();
    let mut client = rig.connect().await;
    client.send(&[0x16, 3, 1]).await;
    let mut rest = Vec::new();
    let _ = tokio::io::AsyncReadExt::read_to_end(&mut client.stream, &mut rest).await;
    assert_eq!(rest, b"");
    rig.counted(LoginResult::TlsFailed, 1).await;
    rig.expect_nobody();
}
