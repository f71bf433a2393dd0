//! Who is trusted to be Postgres: libpq's `sslmode` as a certificate verifier.
//!
//! Owns three degrees: any certificate (`require` without a CA file), a known CA (`verify-ca`), a known CA and the host's
//! name (`verify-full`). The handshake's signature is checked in all of them, so that channel binding means something.

use std::net::IpAddr;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use super::certificate::{common_name, names_hosts, validity};

/// How much of a server's certificate is checked.
#[derive(Debug)]
pub(super) enum Trust {
    /// Nothing: TLS keeps listeners out, not impostors.
    Anyone,
    /// Its chain.
    Authority(Anchors),
    /// Its chain and its name.
    AuthorityAndName(Anchors),
}

/// What a chain may end in.
#[derive(Debug)]
pub(super) struct Anchors {
    /// Certificate authorities.
    pub(super) roots: RootCertStore,
    /// Certificates of the CA file as they stand: OpenSSL trusts a self-signed server certificate that is listed
    /// itself, and that is how many servers are set up; webpki would refuse it as a CA used as a server.
    pub(super) listed: Vec<CertificateDer<'static>>,
}

/// Checks a server's certificate as libpq does.
#[derive(Debug)]
pub(super) struct Verifier {
    pub(super) trust: Trust,
    pub(super) algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match &self.trust {
            Trust::Anyone => {}
            Trust::Authority(anchors) => self.check_chain(anchors, leaf, intermediates, now)?,
            Trust::AuthorityAndName(anchors) => {
                self.check_chain(anchors, leaf, intermediates, now)?;
                check_name(leaf, name)?;
            }
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl Verifier {
    fn check_chain(
        &self,
        anchors: &Anchors,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        if anchors.listed.iter().any(|listed| listed == leaf) {
            return check_dates(leaf, now);
        }
        let parsed = ParsedCertificate::try_from(leaf)?;
        let algorithms = self.algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&parsed, &anchors.roots, intermediates, now, algorithms)
    }
}

fn check_dates(leaf: &CertificateDer<'_>, now: UnixTime) -> Result<(), Error> {
    let (first, last) = validity(leaf).ok_or(CertificateError::BadEncoding)?;
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    if now < first {
        return Err(CertificateError::NotValidYet.into());
    }
    if now > last {
        return Err(CertificateError::Expired.into());
    }
    Ok(())
}

/// The host's name is among the certificate's alternative names, or is its common name if it has none of those.
fn check_name(leaf: &CertificateDer<'_>, name: &ServerName<'_>) -> Result<(), Error> {
    if names_hosts(leaf) {
        return verify_server_name(&ParsedCertificate::try_from(leaf)?, name);
    }
    let matched = common_name(leaf).is_some_and(|pattern| match name {
        ServerName::DnsName(host) => matches_host(&pattern, host.as_ref()),
        ServerName::IpAddress(address) => {
            pattern.parse::<IpAddr>().is_ok_and(|common_name| common_name == IpAddr::from(*address))
        }
        _ => false,
    });
    if matched { Ok(()) } else { Err(CertificateError::NotValidForName.into()) }
}

/// libpq's rule for common names: equal without regard to case, or `*.` for exactly one label in front.
fn matches_host(pattern: &str, host: &str) -> bool {
    if pattern.eq_ignore_ascii_case(host) {
        return true;
    }
    let (Some(parent), Some((label, rest))) = (pattern.strip_prefix("*."), host.split_once('.')) else {
        return false;
    };
    !label.is_empty() && parent.contains('.') && parent.eq_ignore_ascii_case(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_exactly_one_label() {
        assert!(matches_host("DB.example.com", "db.EXAMPLE.com"));
        assert!(matches_host("*.example.com", "db.example.com"));
        assert!(!matches_host("*.example.com", "a.b.example.com"));
        assert!(!matches_host("*.example.com", "example.com"));
        assert!(!matches_host("*.com", "example.com"), "a whole top-level domain is nobody's");
        assert!(!matches_host("d*.example.com", "db.example.com"));
        assert!(!matches_host("*.example.com", ".example.com"));
    }
}
