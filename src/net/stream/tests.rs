//! Plain and TLS streams over real sockets on the loopback interface.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

use super::*;
use crate::config::settings::{
    ChannelBinding, Endpoint, Host, ListenTls, MaxProtocol, SslMode, TargetSessionAttrs, TlsIdentity,
    TlsMode, TlsVersion,
};
use crate::net::dial::{self, SocketOptions};
use crate::net::listen::Listener;
use crate::net::tls::{self, ClientTls, ServerTls, Start, TlsError};

/// A CA, a server certificate for `localhost` and a client certificate for `acme`.
struct Papers {
    dir: tempfile::TempDir,
}

impl Papers {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut ca = CertificateParams::new(Vec::new()).unwrap();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate().unwrap()).unwrap();
        std::fs::write(dir.path().join("ca.pem"), ca.pem()).unwrap();
        for (file, names, common_name) in [
            ("server", vec!["localhost".to_owned()], "ignored"),
            ("client", vec![], "acme"),
            ("named", vec![], "localhost"),
        ] {
            let mut params = CertificateParams::new(names).unwrap();
            params.distinguished_name.push(DnType::CommonName, common_name);
            let key = KeyPair::generate().unwrap();
            let leaf = params.signed_by(&key, &ca).unwrap();
            std::fs::write(dir.path().join(format!("{file}.pem")), leaf.pem()).unwrap();
            std::fs::write(dir.path().join(format!("{file}.key")), key.serialize_pem()).unwrap();
        }
        Self { dir }
    }

    fn path(&self, file: &str) -> PathBuf {
        self.dir.path().join(file)
    }

    fn identity(&self, name: &str) -> TlsIdentity {
        TlsIdentity { cert: self.path(&format!("{name}.pem")), key: self.path(&format!("{name}.key")) }
    }

    fn listen(&self, identity: &str) -> ListenTls {
        ListenTls {
            mode: TlsMode::Prefer,
            identity: Some(self.identity(identity)),
            client_ca: Some(self.path("ca.pem")),
            min_version: TlsVersion::V1_2,
        }
    }

    fn endpoint(&self, ssl_mode: SslMode) -> Endpoint {
        Endpoint {
            hosts: vec![Host::Tcp { host: "localhost".into(), port: 1 }],
            database: None,
            ssl_mode,
            ssl_root_cert: Some(self.path("ca.pem")),
            ssl_identity: None,
            ssl_direct: false,
            target_session_attrs: TargetSessionAttrs::Any,
            channel_binding: ChannelBinding::Prefer,
            max_protocol: MaxProtocol::V3_2,
        }
    }
}

async fn plain_pair() -> (Stream, Stream) {
    let listener = Listener::bind_tcp("127.0.0.1:0".parse().unwrap(), 8).unwrap();
    let near = dial::tcp(listener.local_addr().unwrap(), SocketOptions::default()).await.unwrap();
    (near, listener.accept().await.unwrap().0)
}

async fn tls_pair(
    server: &ListenTls,
    client: &Endpoint,
    host: &str,
    start: Start,
) -> (io::Result<Stream>, io::Result<Stream>) {
    let (near, far) = plain_pair().await;
    let (server, client) = (ServerTls::load(server).unwrap(), ClientTls::load(client).unwrap());
    tokio::join!(client.connect(near, host), server.accept(far, start))
}

async fn good_pair(papers: &Papers) -> (Stream, Stream) {
    let (near, far) = tls_pair(
        &papers.listen("server"),
        &papers.endpoint(SslMode::VerifyFull),
        "localhost",
        Start::Requested,
    )
    .await;
    (near.unwrap(), far.unwrap())
}

/// Sends `size` bytes one way while the other end reads, and checks them.
async fn transfer(from: &mut Stream, to: &mut Stream, size: usize) {
    let sent: Vec<u8> = (0..=250).cycle().take(size).collect();
    let mut got = vec![0; size];
    let (written, read) = tokio::join!(from.write_all(&sent), to.read_exact(&mut got));
    written.unwrap();
    read.unwrap();
    assert!(sent == got, "the bytes arrive in order and unchanged");
}

/// A client of other people's making, which trusts the papers' CA.
fn rustls_client(
    papers: &Papers,
    versions: &[&'static rustls::SupportedProtocolVersion],
    alpn: Vec<Vec<u8>>,
) -> tokio_rustls::TlsConnector {
    let mut roots = rustls::RootCertStore::empty();
    let ca = std::fs::read(papers.path("ca.pem")).unwrap();
    roots.add(rustls::pki_types::pem::PemObject::from_pem_slice(&ca).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn;
    tokio_rustls::TlsConnector::from(Arc::new(config))
}

#[test]
fn a_stream_is_small() {
    // mio adds the number of its selector to each socket where debug assertions are on.
    let extra = if cfg!(debug_assertions) { size_of::<usize>() } else { 0 };
    assert!(size_of::<Stream>() <= 40 + extra, "{}", size_of::<Stream>());
}

#[tokio::test]
async fn plain_streams_carry_bytes_both_ways_and_end() {
    let (mut near, mut far) = plain_pair().await;
    transfer(&mut near, &mut far, 3_000_000).await;
    transfer(&mut far, &mut near, 10).await;
    assert!(!near.is_tls() && near.channel_binding().is_none() && near.server_name().is_none());
    far.write_all(b"ab").await.unwrap();
    let mut peeked = [0; 1];
    assert_eq!(near.peek(&mut peeked).await.unwrap(), 1);
    near.shutdown().await.unwrap();
    let mut buf = [0; 8];
    assert_eq!(far.read(&mut buf).await.unwrap(), 0, "FIN is the end");
    assert_eq!(
        near.read(&mut buf).await.unwrap(),
        2,
        "the other direction still works, and peeking consumed nothing"
    );
}

#[tokio::test]
async fn both_ends_of_tls_agree_on_name_certificate_and_channel_binding() {
    let papers = Papers::new();
    let mut endpoint = papers.endpoint(SslMode::VerifyFull);
    endpoint.ssl_identity = Some(papers.identity("client"));
    let (near, far) = tls_pair(&papers.listen("server"), &endpoint, "localhost", Start::Direct).await;
    let (mut near, mut far) = (near.unwrap(), far.unwrap());
    transfer(&mut near, &mut far, 3_000_000).await;
    transfer(&mut far, &mut near, 3_000_000).await;
    assert!(near.is_tls() && far.is_tls());
    assert_eq!(far.server_name(), Some("localhost"));
    assert_eq!(tls::common_name(&far.peer_certificate().unwrap()).as_deref(), Some("acme"));
    let binding = near.channel_binding().unwrap();
    assert_eq!(binding.len(), 32, "ECDSA with SHA-256");
    assert_eq!(far.channel_binding(), Some(binding));
}

#[tokio::test]
async fn one_tls_read_returns_all_records_that_are_decrypted() {
    let papers = Papers::new();
    let (mut near, mut far) = good_pair(&papers).await;
    for _ in 0..20 {
        near.write_all(b"0123456789").await.unwrap();
    }
    let mut buf = vec![0; 65_536];
    let mut total = 0;
    let mut reads = 0;
    while total < 200 {
        total += far.read(&mut buf).await.unwrap();
        reads += 1;
    }
    assert!(reads < 10, "20 records took {reads} reads");
}

#[tokio::test]
async fn a_tls_peer_that_vanishes_is_the_end_and_not_an_error() {
    let papers = Papers::new();
    let (near, mut far) = good_pair(&papers).await;
    let Kind::TlsClient(side) = near.0 else { panic!("TLS") };
    drop(side.tls.into_inner().0);
    assert_eq!(far.read(&mut [0; 8]).await.unwrap(), 0);
}

#[test]
fn a_connection_goes_on_in_another_runtime_when_its_first_one_is_gone() {
    let papers = Papers::new();
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for encrypted in [false, true] {
        let first = runtime();
        let (near, far) = first.block_on(async {
            let (mut near, far) = if encrypted { good_pair(&papers).await } else { plain_pair().await };
            near.write_all(b"sent before").await.unwrap();
            (near.into_portable().unwrap(), far.into_portable().unwrap())
        });
        assert_eq!(near.is_tls(), encrypted);
        drop(first);
        let worker = std::thread::spawn(move || {
            runtime().block_on(async move {
                let (mut near, mut far) = (near.attach().unwrap(), far.attach().unwrap());
                let mut buf = [0; 11];
                far.read_exact(&mut buf).await.unwrap();
                assert_eq!(&buf, b"sent before");
                transfer(&mut far, &mut near, 100_000).await;
            });
        });
        worker.join().unwrap();
    }
}

#[tokio::test]
async fn a_detached_socket_refuses_to_work_instead_of_hanging() {
    let (near, _far) = plain_pair().await;
    let mut detached = near.into_socket().unwrap().detach().unwrap();
    let error = poll_fn(|cx| poll_read_some(&mut detached, cx, &mut [0; 1])).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotConnected);
}

#[tokio::test]
async fn sslmode_decides_which_certificates_pass() {
    let papers = Papers::new();
    let other = Papers::new();
    let listen = papers.listen("server");
    let cases = [
        (SslMode::VerifyFull, papers.path("ca.pem"), "localhost", true),
        (SslMode::VerifyFull, papers.path("ca.pem"), "127.0.0.1", false),
        (SslMode::VerifyFull, other.path("ca.pem"), "localhost", false),
        (SslMode::VerifyFull, papers.path("server.pem"), "localhost", true),
        (SslMode::VerifyCa, papers.path("ca.pem"), "127.0.0.1", true),
        (SslMode::VerifyCa, other.path("ca.pem"), "localhost", false),
        (SslMode::Require, other.path("ca.pem"), "localhost", false),
    ];
    for (ssl_mode, root, host, passes) in cases {
        let endpoint = Endpoint { ssl_root_cert: Some(root), ..papers.endpoint(ssl_mode) };
        let (near, _) = tls_pair(&listen, &endpoint, host, Start::Requested).await;
        assert_eq!(near.is_ok(), passes, "{ssl_mode:?} {host}: {near:?}");
        if let Err(error) = near {
            let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
            assert!(matches!(inner, Some(rustls::Error::InvalidCertificate(_))), "{error:?}");
        }
    }
    let endpoint = Endpoint { ssl_root_cert: None, ..papers.endpoint(SslMode::Require) };
    let (near, _) = tls_pair(&listen, &endpoint, "127.0.0.1", Start::Requested).await;
    assert!(near.is_ok(), "require without a CA file trusts anyone");
}

#[tokio::test]
async fn a_common_name_counts_where_there_is_no_alternative_name() {
    let papers = Papers::new();
    let endpoint = papers.endpoint(SslMode::VerifyFull);
    let (near, _) = tls_pair(&papers.listen("named"), &endpoint, "localhost", Start::Requested).await;
    assert!(near.is_ok(), "{near:?}");
    let (near, _) = tls_pair(&papers.listen("named"), &endpoint, "elsewhere", Start::Requested).await;
    assert!(near.is_err());
    let (near, _) = tls_pair(&papers.listen("server"), &endpoint, "ignored", Start::Requested).await;
    assert!(near.is_err(), "the common name is not looked at beside alternative names");
}

#[tokio::test]
async fn direct_tls_without_alpn_is_refused() {
    let papers = Papers::new();
    let server = ServerTls::load(&papers.listen("server")).unwrap();
    for (offered, start, accepted) in [
        (vec![], Start::Direct, false),
        (vec![], Start::Requested, true),
        (vec![b"http/1.1".to_vec()], Start::Requested, false),
        (vec![b"postgresql".to_vec()], Start::Direct, true),
    ] {
        let (near, far) = plain_pair().await;
        let connector = rustls_client(&papers, rustls::ALL_VERSIONS, offered.clone());
        let connect = connector.connect("localhost".try_into().unwrap(), near.into_socket().unwrap());
        let (_, accept) = tokio::join!(connect, server.accept(far, start));
        assert_eq!(accept.is_ok(), accepted, "{offered:?} {start:?}");
    }
}

#[tokio::test]
async fn the_minimum_version_holds() {
    let papers = Papers::new();
    for (min_version, accepted) in [(TlsVersion::V1_2, true), (TlsVersion::V1_3, false)] {
        let listen = ListenTls { min_version, ..papers.listen("server") };
        let (near, far) = plain_pair().await;
        let connector = rustls_client(&papers, &[&rustls::version::TLS12], Vec::new());
        let connect = connector.connect("localhost".try_into().unwrap(), near.into_socket().unwrap());
        let server = ServerTls::load(&listen).unwrap();
        let (connect, accept) = tokio::join!(connect, server.accept(far, Start::Requested));
        assert_eq!((connect.is_ok(), accept.is_ok()), (accepted, accepted), "{min_version:?}");
    }
}

#[test]
fn broken_files_are_named_in_the_error() {
    let papers = Papers::new();
    let with = |cert: &Path, key: &Path| ListenTls {
        identity: Some(TlsIdentity { cert: cert.to_owned(), key: key.to_owned() }),
        ..papers.listen("server")
    };
    let good = papers.identity("server");
    let load = |settings: &ListenTls| ServerTls::load(settings).map(|_| ());
    assert!(matches!(load(&with(&papers.path("none"), &good.key)), Err(TlsError::Read { .. })));
    assert!(matches!(load(&with(&good.key, &good.key)), Err(TlsError::Certificate { .. })));
    assert!(matches!(load(&with(&good.cert, &good.cert)), Err(TlsError::Key { .. })));
    assert!(matches!(load(&with(&good.cert, &papers.path("client.key"))), Err(TlsError::Identity { .. })));
    assert!(matches!(
        load(&ListenTls { identity: None, ..papers.listen("server") }),
        Err(TlsError::NoIdentity)
    ));
    assert!(
        ServerTls::load(&papers.listen("server"))
            .unwrap()
            .not_after()
            .is_some_and(|last| last > 1_700_000_000)
    );
}

#[tokio::test]
async fn a_loop_of_reads_that_always_find_something_is_bounded_by_a_time_limit() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    theirs.writable().await.unwrap();
    let mut sent = 0;
    while let Ok(more) = theirs.try_write(&[b'x'; 1024]) {
        sent += more;
    }
    ours.readable().await.unwrap();
    let mut stream = Stream::from_unix(ours);
    let mut read = 0;
    let limited = tokio::time::timeout(std::time::Duration::ZERO, async {
        loop {
            read += stream.read(&mut [0]).await.unwrap();
        }
    });
    let ended: Result<(), _> = limited.await;
    assert!(
        ended.is_err() && read < sent,
        "{read} of {sent} bytes were read before anybody looked at the time"
    );
}

#[test]
fn what_is_queued_and_what_is_written_arrive_in_their_order() {
    let papers = Papers::new();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(tokio::runtime::LocalOptions::default())
        .unwrap();
    runtime.block_on(async {
        // Where the system has no io_uring nothing is queued, and the same must arrive.
        let batches = sendring::start().is_ok();
        tokio::task::spawn_local(sendring::keep_flushing());
        for encrypted in [false, true] {
            let (mut near, mut far) = if encrypted { good_pair(&papers).await } else { plain_pair().await };
            let reading = tokio::task::spawn_local(async move {
                // Slowly at first, so that the sockets between fill up and queued messages are taken in part.
                let (mut got, mut buf) = (Vec::new(), vec![0; 700]);
                loop {
                    match far.read(&mut buf).await.unwrap() {
                        0 => return got,
                        read => got.extend_from_slice(&buf[..read]),
                    }
                }
            });
            let (mut sent, mut queued, mut unsent) = (Vec::new(), 0, 0);
            for number in 0_usize..20_000 {
                let piece: Vec<u8> =
                    (0..1 + number * 37 % 900).map(|at| u8::try_from((at + number) % 251).unwrap()).collect();
                let is_queued = poll_fn(|cx| Poll::Ready(near.queue(cx, &piece))).await;
                queued += usize::from(is_queued);
                if !is_queued {
                    near.write_all(&piece).await.unwrap();
                }
                sent.extend_from_slice(&piece);
                if number % 3 == 0 {
                    sendring::flush();
                    unsent += usize::from(near.has_unsent());
                }
                if number % 1_000 == 999 {
                    tokio::task::yield_now().await;
                }
            }
            near.shutdown().await.unwrap();
            let got = reading.await.unwrap();
            assert!(got == sent, "{} of {} bytes, or others", got.len(), sent.len());
            assert_eq!(queued > 0, batches && !encrypted, "TLS queues what it has encrypted");
            assert_eq!(unsent > 0, batches, "the socket was never full, or nobody is told");
        }
    });
}
