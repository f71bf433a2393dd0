//! Logging in: hosts and addresses in order, transports as `sslmode` says, one server or one error in the end.
//!
//! Owns the order. An unreachable host, one that does not take logins now, or one that is not of the kind wanted makes
//! way for the next; a server that is full or refuses the login has spoken for the cluster, as in libpq.

use std::sync::Arc;

use tokio::time::timeout;

use super::attempt::{Encryption, Place, attempt};
use super::attrs::passes;
use super::cancel::CancelHandle;
use super::connector::{Connector, unix_path};
use super::error::{LoginError, LoginFailure, Stage};
use super::profile::Profile;
use crate::config::settings::{Host, SslMode, TargetSessionAttrs};
use crate::net::{Stream, dial};

/// A server connection that is ready for its first query.
#[derive(Debug)]
pub struct Server {
    /// The connection; nothing of it is read ahead.
    pub stream: Stream,
    /// All parameters the server reported, the newest value of each.
    pub parameters: Vec<(Box<str>, Box<str>)>,
    /// The process id of the backend; 0 if the server did not say.
    pub pid: u32,
    /// Cancels what runs on it.
    pub cancel: CancelHandle,
}

/// Logs in with a profile: tries all hosts, each address within `connect_timeout`. Cancel-safe: dropping the future
/// closes the connection (Postgres notices a moment later).
///
/// An error is returned only when Postgres has closed the failed connections too, or did not within two seconds.
///
/// # Errors
/// If no host gives a session; see [`LoginError::class`].
pub async fn login(profile: &Profile) -> Result<Server, LoginError> {
    // Boxed: a login is rare and its future has kilobytes, which the callers' futures need not have.
    Box::pin(try_hosts(profile)).await
}

async fn try_hosts(profile: &Profile) -> Result<Server, LoginError> {
    let endpoint = profile.connector().endpoint();
    let mut earlier: Vec<(String, LoginFailure)> = Vec::new();
    for &wanted in passes(endpoint.target_session_attrs) {
        for host in &endpoint.hosts {
            let places = match places(profile.connector(), host).await {
                Ok(places) => places,
                Err(failure) => {
                    earlier.push((label(host), failure));
                    continue;
                }
            };
            for place in places {
                match try_transports(profile, &place, wanted).await {
                    Ok(server) => return Ok(server),
                    Err(failure) if failure.tries_next_host() => earlier.push((place.to_string(), failure)),
                    Err(failure) => return Err(LoginError::new(earlier, place.to_string(), failure)),
                }
            }
        }
    }
    let no_host = || (String::from("no host"), LoginFailure::Protocol("the cluster has no host"));
    let (place, failure) = earlier.pop().unwrap_or_else(no_host);
    Err(LoginError::new(earlier, place, failure))
}

/// The addresses of a host.
async fn places(connector: &Connector, host: &Host) -> Result<Vec<Place>, LoginFailure> {
    match host {
        Host::Unix { dir, port } => Ok(vec![Place::Unix(unix_path(dir, *port))]),
        Host::Tcp { host, port } => {
            let limit = connector.connect_timeout();
            let late = |_| LoginFailure::Timeout { stage: Stage::Resolve, after_ms: limit.as_millis() };
            let found = timeout(limit, dial::resolve(host, *port)).await.map_err(late)?;
            let addresses = found.map_err(LoginFailure::Resolve)?;
            Ok(addresses.into_iter().map(|address| Place::Tcp { address, host: Arc::clone(host) }).collect())
        }
    }
}

/// One address, with TLS, without, or one after the other (`allow`, `prefer`).
async fn try_transports(
    profile: &Profile,
    place: &Place,
    wanted: TargetSessionAttrs,
) -> Result<Server, LoginFailure> {
    let (first, second) = transports(profile.connector().endpoint().ssl_mode, place);
    match attempt(profile, place, first, wanted).await {
        Ok(server) => Ok(server),
        Err(failure) => match second.filter(|_| other_transport_may_do(&failure)) {
            Some(second) => attempt(profile, place, second, wanted).await,
            None => Err(failure),
        },
    }
}

fn transports(ssl_mode: SslMode, place: &Place) -> (Encryption, Option<Encryption>) {
    match (place, ssl_mode) {
        (Place::Unix(_), _) | (_, SslMode::Disable) => (Encryption::Never, None),
        (_, SslMode::Allow) => (Encryption::Never, Some(Encryption::Always)),
        (_, SslMode::Prefer) => (Encryption::IfOffered, Some(Encryption::Never)),
        (_, SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull) => (Encryption::Always, None),
    }
}

/// A failed handshake, or a `pg_hba.conf` without a line for this transport. Nothing was proven to the server yet.
fn other_transport_may_do(failure: &LoginFailure) -> bool {
    match failure {
        LoginFailure::Tls(_) | LoginFailure::Certificate(_) => true,
        LoginFailure::Server { code, early, .. } => *early && &**code == "28000",
        LoginFailure::Resolve(_)
        | LoginFailure::Refused
        | LoginFailure::Connect(_)
        | LoginFailure::Timeout { .. }
        | LoginFailure::TlsNotOffered
        | LoginFailure::Closed(_)
        | LoginFailure::Method(_)
        | LoginFailure::NoPassword
        | LoginFailure::Scram(_)
        | LoginFailure::SessionAttrs
        | LoginFailure::Protocol(_)
        | LoginFailure::Startup(_) => false,
    }
}

fn label(host: &Host) -> String {
    match host {
        Host::Tcp { host, port } => format!("{host}:{port}"),
        Host::Unix { dir, port } => unix_path(dir, *port).display().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(code: &str, early: bool) -> LoginFailure {
        LoginFailure::Server { code: code.into(), message: "".into(), own_limit: false, early }
    }

    #[test]
    fn only_a_refusal_of_the_transport_makes_way_for_the_other_one() {
        assert!(other_transport_may_do(&server("28000", true)));
        assert!(!other_transport_may_do(&server("28000", false)), "authentication had begun");
        assert!(!other_transport_may_do(&server("53300", true)), "a full server is not asked twice");
        assert!(!other_transport_may_do(&LoginFailure::Closed(None)));
        assert!(other_transport_may_do(&LoginFailure::Tls(std::io::ErrorKind::InvalidData.into())));
    }

    #[test]
    fn a_full_or_refusing_server_speaks_for_the_cluster() {
        assert!(!server("53300", false).tries_next_host());
        assert!(!server("28P01", false).tries_next_host());
        assert!(server("57P03", true).tries_next_host());
        assert!(LoginFailure::SessionAttrs.tries_next_host());
        assert!(LoginFailure::Refused.tries_next_host());
    }
}
