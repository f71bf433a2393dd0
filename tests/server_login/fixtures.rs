//! A shared cluster, certificates, and settings as short expressions.

use std::path::PathBuf;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tenantry::backend::{Connector, Profile, Server};
use tenantry::config::settings::{
    AdminLogin, ChannelBinding, Cluster, Endpoint, Host, MaxConnections, MaxProtocol, Servers, SslMode,
    TargetSessionAttrs, TlsIdentity,
};
use tenantry::ids::{ClusterId, TenantId};
use tenantry::net::Stream;
use tenantry::tenant::{Allowance, PoolMode, Secret, ServerAuth, Tenant, Tier, TimeLimits};
use tenantry::throwaway::{self, ClusterOptions, Hba, ServerCertificate};
use tokio::sync::OnceCell;

/// Password of every role that has one.
pub(crate) const PASSWORD: &str = "correct horse";

/// A CA with a certificate for `localhost`, and client certificates.
pub(crate) struct Papers {
    dir: tempfile::TempDir,
}

impl Papers {
    /// Makes them.
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut ca = CertificateParams::new(Vec::new()).unwrap();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate().unwrap()).unwrap();
        std::fs::write(dir.path().join("ca.pem"), ca.pem()).unwrap();
        for (file, names) in [("server", vec!["localhost".to_owned()]), ("certified", Vec::new())] {
            let mut params = CertificateParams::new(names).unwrap();
            params.distinguished_name.push(DnType::CommonName, file);
            let key = KeyPair::generate().unwrap();
            let leaf = params.signed_by(&key, &ca).unwrap();
            std::fs::write(dir.path().join(format!("{file}.pem")), leaf.pem()).unwrap();
            std::fs::write(dir.path().join(format!("{file}.key")), key.serialize_pem()).unwrap();
        }
        Self { dir }
    }

    /// One of the files.
    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.dir.path().join(file)
    }

    /// One of the files' text.
    pub(crate) fn text(&self, file: &str) -> String {
        std::fs::read_to_string(self.path(file)).unwrap()
    }

    /// Certificate and key.
    pub(crate) fn identity(&self, name: &str) -> TlsIdentity {
        TlsIdentity { cert: self.path(&format!("{name}.pem")), key: self.path(&format!("{name}.key")) }
    }
}

/// The certificates of the shared cluster.
pub(crate) static PAPERS: LazyLock<Papers> = LazyLock::new(Papers::new);

/// The shared cluster.
pub(crate) async fn postgres() -> &'static throwaway::Cluster {
    static SHARED: OnceCell<throwaway::Cluster> = OnceCell::const_new();
    SHARED.get_or_init(start_shared).await
}

async fn start_shared() -> throwaway::Cluster {
    let lines = [
        "local all all scram-sha-256",
        "hostssl all tls_only 127.0.0.1/32 scram-sha-256",
        "hostnossl all plain_only 127.0.0.1/32 scram-sha-256",
        "host all tls_only,plain_only 127.0.0.1/32 reject",
        "host all trusted 127.0.0.1/32 trust",
        "hostssl all certified 127.0.0.1/32 cert",
        "host all clear 127.0.0.1/32 password",
        "host all old 127.0.0.1/32 md5",
        "host all all 127.0.0.1/32 scram-sha-256",
    ];
    let tls = ServerCertificate {
        cert_pem: PAPERS.text("server.pem"),
        key_pem: PAPERS.text("server.key"),
        client_ca_pem: Some(PAPERS.text("ca.pem")),
    };
    let cluster = throwaway::Cluster::start(ClusterOptions {
        tls: Some(tls),
        hba: Hba::Lines(lines.map(str::to_owned).to_vec()),
        ..ClusterOptions::default()
    })
    .await
    .unwrap();
    for role in ["acme", "tls_only", "plain_only", "trusted", "certified", "clear"] {
        cluster.psql(&format!("CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}'")).await.unwrap();
    }
    cluster.psql(r#"CREATE SCHEMA "odd \ name"; GRANT USAGE ON SCHEMA "odd \ name" TO acme"#).await.unwrap();
    cluster
        .psql(&format!("SET password_encryption = md5; CREATE ROLE old LOGIN PASSWORD '{PASSWORD}'"))
        .await
        .unwrap();
    cluster
}

/// A TCP host.
pub(crate) fn tcp(host: &str, port: u16) -> Host {
    Host::Tcp { host: host.into(), port }
}

/// An endpoint without TLS.
pub(crate) fn endpoint(hosts: Vec<Host>) -> Endpoint {
    Endpoint {
        hosts,
        database: None,
        ssl_mode: SslMode::Disable,
        ssl_root_cert: None,
        ssl_identity: None,
        ssl_direct: false,
        target_session_attrs: TargetSessionAttrs::Any,
        channel_binding: ChannelBinding::Prefer,
        max_protocol: MaxProtocol::V3_2,
    }
}

/// A cluster's settings.
pub(crate) fn cluster(endpoint: Endpoint) -> Cluster {
    Cluster {
        id: ClusterId(0),
        name: "main".into(),
        endpoint,
        max_connections: MaxConnections::Auto,
        admin_reserve: 0,
        admin: Some(AdminLogin {
            user: "acme".into(),
            password: Some(Secret::new(PASSWORD.into())),
            database: "postgres".into(),
        }),
        replica_of: None,
    }
}

/// Limits with a connect timeout.
pub(crate) fn servers(connect_timeout: Duration) -> Servers {
    Servers {
        connect_timeout,
        lifetime: Duration::ZERO,
        idle_timeout: Duration::ZERO,
        tcp_keepalive: Some(Duration::from_secs(60)),
        tcp_user_timeout: Some(Duration::from_secs(30)),
        max_prepared_statements: 10,
        max_client_statements: 10,
        cleanup_timeout: Duration::from_secs(5),
        refuses_hopeless_waits: true,
    }
}

/// A connector with a generous timeout.
pub(crate) fn connector(endpoint: Endpoint) -> Connector {
    Connector::new(&cluster(endpoint), &servers(Duration::from_secs(20))).unwrap()
}

/// A tenant with a password.
pub(crate) fn tenant(role: &str) -> Tenant {
    Tenant {
        id: TenantId(1),
        name: role.into(),
        cluster: ClusterId(0),
        database: "postgres".into(),
        database_aliases: Vec::new(),
        role: role.into(),
        search_path: "public".into(),
        allowed_schemas: None,
        uses_lastval: false,
        replication: false,
        replica_reads: tenantry::tenant::ReplicaReads::Sessions,
        settings: Vec::new(),
        tier: Tier::Hot,
        allowance: Allowance { reserve: 0, floor: 1, share: 5, ceiling: 5, weight: 5, max_waiters: 10 },
        mode: PoolMode::Transaction,
        max_clients: 10,
        workers: 1,
        queue_timeout: Duration::from_secs(5),
        time_limits: TimeLimits::default(),
        tiers: None,
        rates: None,
        users: Vec::new(),
        server_auth: ServerAuth::Password(Secret::new(PASSWORD.into())),
    }
}

/// A tenant's settings as the catalog holds them.
pub(crate) fn settings(pairs: &[(&str, &str)]) -> Vec<(Arc<str>, Arc<str>)> {
    pairs.iter().map(|(name, value)| (Arc::from(*name), Arc::from(*value))).collect()
}

/// A role's login at an endpoint.
pub(crate) fn profile(endpoint: Endpoint, role: &str) -> Profile {
    Profile::new(&connector(endpoint), &tenant(role))
}

/// The value the server reported.
pub(crate) fn reported<'a>(server: &'a Server, name: &str) -> Option<&'a str> {
    server.parameters.iter().find(|(key, _)| **key == *name).map(|(_, value)| &**value)
}

/// Sends a simple query.
pub(crate) async fn send_query(stream: &mut Stream, sql: &str) {
    let mut message = vec![b'Q'];
    message.extend_from_slice(&u32::try_from(sql.len() + 5).unwrap().to_be_bytes());
    message.extend_from_slice(sql.as_bytes());
    message.push(0);
    stream.write_all(&message).await.unwrap();
}

/// The next message's tag and body.
pub(crate) async fn next_message(stream: &mut Stream) -> (u8, Vec<u8>) {
    let mut header = [0; 5];
    stream.read_exact(&mut header).await.unwrap();
    let [tag, length @ ..] = header;
    let mut body = vec![0; usize::try_from(u32::from_be_bytes(length)).unwrap() - 4];
    stream.read_exact(&mut body).await.unwrap();
    (tag, body)
}

/// Runs a query with one row of one column; an error of the server is `Err` with its SQLSTATE.
pub(crate) async fn scalar(stream: &mut Stream, sql: &str) -> Result<String, String> {
    send_query(stream, sql).await;
    answer(stream).await
}

/// The one value of a query that was sent.
pub(crate) async fn answer(stream: &mut Stream) -> Result<String, String> {
    let mut result = Err("no row".to_owned());
    loop {
        match next_message(stream).await {
            (b'D', body) => result = Ok(String::from_utf8(body[6..].to_vec()).unwrap()),
            (b'E', body) => {
                let code = body.split(|byte| *byte == 0).find(|field| field.first() == Some(&b'C')).unwrap();
                result = Err(String::from_utf8(code[1..].to_vec()).unwrap());
            }
            (b'Z', _) => return result,
            _ => {}
        }
    }
}
