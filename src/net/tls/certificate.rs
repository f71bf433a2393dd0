//! What the proxy reads in a certificate: the hash for channel binding, the names of its subject, its validity.
//!
//! Owns parsing. Must not decide whether a certificate is trusted (`verifier`).

use aws_lc_rs::digest;
use rustls::pki_types::CertificateDer;
use x509_cert::Certificate;
use x509_cert::der::asn1::{ObjectIdentifier, PrintableStringRef, TeletexStringRef, Utf8StringRef};
use x509_cert::der::{Any, Decode, Tag, Tagged};
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

/// The `tls-server-end-point` data of a server certificate (RFC 5929 §4.1): its hash by the hash function of its
/// signature, where MD5 and SHA-1 count as SHA-256.
///
/// `None` for a signature algorithm without a hash of its own (Ed25519) or with the hash among its parameters
/// (RSASSA-PSS), where PostgreSQL's own support depends on its version.
#[must_use]
pub fn end_point(certificate: &CertificateDer<'_>) -> Option<Vec<u8>> {
    let parsed = Certificate::from_der(certificate).ok()?;
    let oid = parsed.signature_algorithm().oid;
    let algorithm =
        HASHES.iter().find(|(known, _)| ObjectIdentifier::new(known).is_ok_and(|known| known == oid))?.1;
    Some(digest::digest(algorithm, certificate).as_ref().to_vec())
}

/// The common name of a certificate's subject; the last one if there are several, as in PostgreSQL.
#[must_use]
pub fn common_name(certificate: &CertificateDer<'_>) -> Option<String> {
    let parsed = Certificate::from_der(certificate).ok()?;
    let common_name = ObjectIdentifier::new(COMMON_NAME).ok()?;
    let names = parsed.tbs_certificate().subject();
    let value = names.iter().filter(|name| name.oid == common_name).last()?;
    text(&value.value)
}

/// Whether a certificate names hosts in its extensions, so that its common name must not be looked at.
pub(super) fn names_hosts(certificate: &CertificateDer<'_>) -> bool {
    let Ok(parsed) = Certificate::from_der(certificate) else { return true };
    match parsed.tbs_certificate().get_extension::<SubjectAltName>() {
        Ok(None) => false,
        Ok(Some((_, names))) => {
            names.0.iter().any(|name| matches!(name, GeneralName::DnsName(_) | GeneralName::IpAddress(_)))
        }
        Err(_) => true,
    }
}

/// First and last second of a certificate's validity, in Unix time.
pub(super) fn validity(certificate: &CertificateDer<'_>) -> Option<(i64, i64)> {
    let parsed = Certificate::from_der(certificate).ok()?;
    let validity = parsed.tbs_certificate().validity();
    let seconds = |time: x509_cert::time::Time| i64::try_from(time.to_unix_duration().as_secs()).ok();
    Some((seconds(validity.not_before)?, seconds(validity.not_after)?))
}

/// A name's text. A NUL inside is refused: it is how one host's certificate was passed off as another's.
fn text(value: &Any) -> Option<String> {
    let text = match value.tag() {
        Tag::Utf8String => value.decode_as::<Utf8StringRef<'_>>().ok()?.as_str().to_owned(),
        Tag::PrintableString => value.decode_as::<PrintableStringRef<'_>>().ok()?.as_str().to_owned(),
        Tag::TeletexString => value.decode_as::<TeletexStringRef<'_>>().ok()?.as_str().to_owned(),
        _ => return None,
    };
    (!text.contains('\0')).then_some(text)
}

const COMMON_NAME: &str = "2.5.4.3";

/// Signature algorithms and the hash that goes into the channel binding.
const HASHES: [(&str, &digest::Algorithm); 10] = [
    ("1.2.840.113549.1.1.4", &digest::SHA256),  // md5WithRSAEncryption
    ("1.2.840.113549.1.1.5", &digest::SHA256),  // sha1WithRSAEncryption
    ("1.2.840.10045.4.1", &digest::SHA256),     // ecdsa-with-SHA1
    ("1.2.840.113549.1.1.11", &digest::SHA256), // sha256WithRSAEncryption
    ("1.2.840.113549.1.1.12", &digest::SHA384), // sha384WithRSAEncryption
    ("1.2.840.113549.1.1.13", &digest::SHA512), // sha512WithRSAEncryption
    ("1.2.840.113549.1.1.14", &digest::SHA224), // sha224WithRSAEncryption
    ("1.2.840.10045.4.3.2", &digest::SHA256),   // ecdsa-with-SHA256
    ("1.2.840.10045.4.3.3", &digest::SHA384),   // ecdsa-with-SHA384
    ("1.2.840.10045.4.3.4", &digest::SHA512),   // ecdsa-with-SHA512
];
