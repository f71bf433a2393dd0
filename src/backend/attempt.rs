//! One attempt at one address: connect, TLS, startup packet, authentication, greeting, target_session_attrs.
//!
//! Owns the timeout of the attempt and its orderly end: a login that failed after the connect is not over until Postgres
//! has closed too, because until then it holds one of its slots. Must not know which address comes next.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::attrs::{Verdict, judge};
use super::cancel::CancelHandle;
use super::close::{Farewell, close_with};
use super::connector::Connector;
use super::error::{LoginFailure, Stage};
use super::handshake::{Greeting, authenticate, greet};
use super::link::Link;
use super::login::Server;
use super::profile::Profile;
use super::query;
use crate::config::settings::TargetSessionAttrs;
use crate::net::{Stream, dial};
use crate::wire::startup::put_ssl_request;

/// One address of one host.
#[derive(Clone, Debug)]
pub(super) enum Place {
    /// An address, and the name or address that was asked for: what a certificate is compared with.
    Tcp { address: SocketAddr, host: Arc<str> },
    /// A Unix socket.
    Unix(PathBuf),
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp { address, host } if *address.ip().to_string() == **host => address.fmt(f),
            Self::Tcp { address, host } => write!(f, "{host} ({address})"),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

/// Whether an attempt uses TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encryption {
    /// It does not.
    Never,
    /// If the server offers it.
    IfOffered,
    /// It does, or fails.
    Always,
}

/// How far an attempt has come. Outside the timed future, so that the link survives a timeout and is closed in order.
struct Progress {
    stage: Stage,
    link: Option<Link>,
}

/// Tries to log in. Cancel-safe: the connection closes with the future.
pub(super) async fn attempt(
    profile: &Profile,
    place: &Place,
    encryption: Encryption,
    wanted: TargetSessionAttrs,
) -> Result<Server, LoginFailure> {
    let limit = profile.connector().connect_timeout();
    let mut progress = Progress { stage: Stage::Connect, link: None };
    let result = timeout(limit, run(&mut progress, profile, place, encryption, wanted)).await;
    let failure = match (result, progress.link) {
        (Ok(Ok(greeting)), Some(link)) => return Ok(server(profile, place, link, greeting)),
        (Ok(Ok(_)), None) => LoginFailure::Closed(None),
        (Ok(Err(failure @ LoginFailure::SessionAttrs)), link) => {
            part(link, Farewell::Terminate).await;
            failure
        }
        (Ok(Err(failure)), link) => {
            part(link, Farewell::EndOfStream).await;
            failure
        }
        (Err(_), link) => {
            part(link, Farewell::EndOfStream).await;
            LoginFailure::Timeout { stage: progress.stage, after_ms: limit.as_millis() }
        }
    };
    Err(failure)
}

/// Connects and, if wanted, does the TLS handshake; also for cancel requests.
pub(super) async fn open(
    connector: &Connector,
    place: &Place,
    encryption: Encryption,
    stage: &mut Stage,
) -> Result<Stream, LoginFailure> {
    let connected = match place {
        Place::Tcp { address, .. } => dial::tcp(*address, connector.socket()).await,
        Place::Unix(path) => dial::unix(path).await,
    };
    let stream = connected.map_err(|error| match error.kind() {
        io::ErrorKind::ConnectionRefused => LoginFailure::Refused,
        io::ErrorKind::NotFound if matches!(place, Place::Unix(_)) => LoginFailure::Refused,
        _ => LoginFailure::Connect(error),
    })?;
    match (place, encryption) {
        (Place::Unix(_), _) | (_, Encryption::Never) => Ok(stream),
        (Place::Tcp { host, .. }, Encryption::IfOffered | Encryption::Always) => {
            *stage = Stage::Tls;
            encrypt(connector, host, stream, encryption).await
        }
    }
}

async fn run(
    progress: &mut Progress,
    profile: &Profile,
    place: &Place,
    encryption: Encryption,
    wanted: TargetSessionAttrs,
) -> Result<Greeting, LoginFailure> {
    let startup = profile.startup().map_err(LoginFailure::Startup)?;
    let stream = open(profile.connector(), place, encryption, &mut progress.stage).await?;
    progress.stage = Stage::Login;
    let link = progress.link.insert(Link::new(stream));
    link.send(startup).await?;
    authenticate(link, profile).await?;
    let greeting = greet(link).await?;
    let accepted = match judge(wanted, &greeting.parameters) {
        Verdict::Accepted => true,
        Verdict::Refused => false,
        Verdict::Ask(question) => {
            let rows = query::run(link, question.sql()).await?;
            let answer = rows.first().and_then(|row| row.first()).and_then(Option::as_deref);
            question.satisfied(wanted, answer.unwrap_or_default())
        }
    };
    if accepted { Ok(greeting) } else { Err(LoginFailure::SessionAttrs) }
}

/// Asks for TLS and does the handshake. The answer is read as exactly one byte: whatever follows it belongs to TLS, so
/// that nothing a man in the middle sends in the clear is taken for the server's encrypted words.
async fn encrypt(
    connector: &Connector,
    host: &str,
    mut stream: Stream,
    encryption: Encryption,
) -> Result<Stream, LoginFailure> {
    let Some(tls) = connector.tls() else { return Ok(stream) };
    if !connector.endpoint().ssl_direct {
        let mut request = Vec::new();
        put_ssl_request(&mut request);
        stream.write_all(&request).await.map_err(|error| LoginFailure::Closed(Some(error)))?;
        let mut answer = [0; 1];
        stream.read_exact(&mut answer).await.map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => LoginFailure::Closed(None),
            _ => LoginFailure::Closed(Some(error)),
        })?;
        match (answer, encryption) {
            ([b'S'], _) => {}
            ([b'N'], Encryption::Never | Encryption::IfOffered) => return Ok(stream),
            ([b'N'], Encryption::Always) => return Err(LoginFailure::TlsNotOffered),
            // An `E` would be followed by an error text that nobody has vouched for.
            _ => return Err(LoginFailure::Protocol("an answer to SSLRequest that is neither S nor N")),
        }
    }
    tls.connect(stream, host).await.map_err(tls_failure)
}

fn tls_failure(error: io::Error) -> LoginFailure {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(refused @ rustls::Error::InvalidCertificate(_)) => LoginFailure::Certificate(refused.clone()),
        Some(_) | None => LoginFailure::Tls(error),
    }
}

fn server(profile: &Profile, place: &Place, link: Link, greeting: Greeting) -> Server {
    let Greeting { parameters, pid, secret } = greeting;
    let stream = link.into_stream();
    let encryption = if stream.is_tls() { Encryption::Always } else { Encryption::Never };
    let cancel = CancelHandle::new(profile.connector().clone(), place.clone(), encryption, pid, secret);
    Server { stream, parameters, pid, cancel }
}

/// Ends a login that failed and waits, within limits, until Postgres has let go of its slot.
async fn part(link: Option<Link>, farewell: Farewell) {
    if let Some(link) = link {
        let _ = timeout(PARTING_MAX, close_with(link.into_stream(), farewell)).await;
    }
}

/// Longest wait for a server to close after a failed login. Postgres takes milliseconds.
const PARTING_MAX: Duration = Duration::from_secs(2);
