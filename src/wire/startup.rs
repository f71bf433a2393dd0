//! The untagged packets that open a connection: SSLRequest, GSSENCRequest, CancelRequest and StartupMessage.
//!
//! Owns their layout and limits (PostgreSQL manual, "Message Formats"). Must not know what a parameter means, except
//! that a name must not be given twice where that would make two readers see two different clients.
//!
//! ```text
//! length:i32  code:i32            code = major << 16 | minor, or a request code 1234.5678 to 1234.5680
//!             name\0 value\0 ...  then one \0 that is the last byte of the packet
//! ```

use std::fmt;

use crate::error::{ClientError, ClientFacing, Fault, SqlState};
use crate::wire::frame::split_cstr;

/// Limits of a startup packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StartupLimits {
    /// Bytes after the length field.
    pub packet_bytes_max: usize,
    /// Parameters, protocol options included.
    pub parameters_max: usize,
}

impl Default for StartupLimits {
    /// PostgreSQL's `MAX_STARTUP_PACKET_LENGTH`, and far more parameters than any driver sends.
    fn default() -> Self {
        Self { packet_bytes_max: 10_000, parameters_max: 256 }
    }
}

/// The first thing a client says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FirstMessage {
    /// It wants TLS.
    SslRequest,
    /// It wants GSSAPI encryption.
    GssEncRequest,
    /// It wants another client's query cancelled.
    Cancel(CancelKey),
    /// It wants to log in.
    Startup(StartupPacket),
}

/// What a client presents to cancel a query. The secret is not printed.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct CancelKey {
    /// "Process id": any number that the key's maker chose.
    pub pid: u32,
    /// 4 bytes in protocol 3.0, up to 256 in 3.2.
    pub secret: Vec<u8>,
}

impl fmt::Debug for CancelKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CancelKey").field("pid", &self.pid).finish_non_exhaustive()
    }
}

/// A version of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProtocolVersion {
    /// 3 since PostgreSQL 7.4.
    pub major: u16,
    /// 0, or 2 since PostgreSQL 18. 1 was never used.
    pub minor: u16,
}

impl ProtocolVersion {
    /// The minor version to speak with a client that asked for this one: never above its wish, never 1.
    #[must_use]
    pub const fn minor_to_speak(self) -> u16 {
        if self.minor >= NEWEST_MINOR { NEWEST_MINOR } else { 0 }
    }
}

impl fmt::Display for ProtocolVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// A StartupMessage of protocol 3.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartupPacket {
    /// The version asked for.
    pub protocol: ProtocolVersion,
    /// Names and values in the order given, without the `_pq_.` options.
    pub parameters: Vec<(String, String)>,
    /// Names of the `_pq_.` protocol options asked for. We know none.
    pub unknown_options: Vec<String>,
}

impl StartupPacket {
    /// The value of the parameter of exactly that name; the last one counts, as in PostgreSQL.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Whether the client must be told that it does not get all it asked for.
    #[must_use]
    pub const fn needs_negotiation(&self) -> bool {
        self.protocol.minor != self.protocol.minor_to_speak() || !self.unknown_options.is_empty()
    }
}

/// Why a first packet is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StartupError {
    /// Shorter than a packet can be, or longer than allowed.
    #[error("invalid length of startup packet")]
    Length,
    /// The length of a cancel request does not fit its key.
    #[error("invalid length of cancel request packet")]
    CancelLength,
    /// Not names and values, or no terminator, or bytes after it.
    #[error("invalid startup packet layout: expected terminator as last byte")]
    Layout,
    /// Protocol 2 or older, 4 or newer.
    #[error("unsupported frontend protocol {0}: server supports 3.0 to 3.2")]
    Protocol(ProtocolVersion),
    /// A name or value that is not UTF-8.
    #[error("startup packet is not valid UTF-8")]
    NotUtf8,
    /// A parameter that says who the client is comes twice.
    #[error("startup parameter \"{0}\" is given twice")]
    Duplicate(&'static str),
    /// More parameters than allowed.
    #[error("startup packet has more than {0} parameters")]
    TooMany(usize),
}

impl ClientFacing for StartupError {
    fn to_client(&self) -> ClientError {
        let (code, reason) = match self {
            Self::Protocol(_) => (SqlState::FEATURE_NOT_SUPPORTED, "unsupported_protocol"),
            Self::Length
            | Self::CancelLength
            | Self::Layout
            | Self::NotUtf8
            | Self::Duplicate(_)
            | Self::TooMany(_) => (SqlState::PROTOCOL_VIOLATION, "bad_startup_packet"),
        };
        ClientError::fatal(code, Fault::Client, reason, self.to_string())
    }
}

/// Reads the first packet of a connection and how many bytes it takes; `None` as long as it is not whole. Lengths and
/// versions are judged as soon as they are there.
///
/// # Errors
/// If the bytes cannot become a packet that is accepted.
pub fn parse_first(buf: &[u8], limits: StartupLimits) -> Result<Option<(FirstMessage, usize)>, StartupError> {
    let Some((length, rest)) = buf.split_first_chunk::<4>() else { return Ok(None) };
    let length = i32::from_be_bytes(*length);
    let length = usize::try_from(length).ok().and_then(|length| length.checked_sub(4));
    let length =
        length.filter(|length| (4..=limits.packet_bytes_max).contains(length)).ok_or(StartupError::Length)?;
    let Some((code, _)) = rest.split_first_chunk::<4>() else { return Ok(None) };
    let code = u32::from_be_bytes(*code);
    judge_early(code, length)?;
    let Some(body) = rest.get(4..length) else { return Ok(None) };
    let message = match code {
        SSL_REQUEST => FirstMessage::SslRequest,
        GSS_ENC_REQUEST => FirstMessage::GssEncRequest,
        CANCEL_REQUEST => FirstMessage::Cancel(parse_cancel(body)?),
        code => FirstMessage::Startup(parse_parameters(version(code), body, limits)?),
    };
    Ok(Some((message, length.saturating_add(4))))
}

/// Appends an SSLRequest.
pub fn put_ssl_request(out: &mut Vec<u8>) {
    put_packet(out, SSL_REQUEST, &[]);
}

/// Appends a GSSENCRequest.
pub fn put_gss_enc_request(out: &mut Vec<u8>) {
    put_packet(out, GSS_ENC_REQUEST, &[]);
}

/// Appends a CancelRequest.
pub fn put_cancel_request(out: &mut Vec<u8>, pid: u32, secret: &[u8]) {
    put_packet(out, CANCEL_REQUEST, &[&pid.to_be_bytes(), secret]);
}

/// Appends a StartupMessage. Neither names nor values may contain a NUL, and names must not be empty.
pub fn put_startup(out: &mut Vec<u8>, protocol: ProtocolVersion, parameters: &[(&str, &str)]) {
    let mut body = Vec::new();
    for (name, value) in parameters {
        debug_assert!(
            !name.is_empty() && !name.contains('\0') && !value.contains('\0'),
            "a startup parameter is a C string"
        );
        for text in [name, value] {
            body.extend_from_slice(text.as_bytes());
            body.push(0);
        }
    }
    body.push(0);
    put_packet(out, (u32::from(protocol.major) << 16) | u32::from(protocol.minor), &[&body]);
}

fn put_packet(out: &mut Vec<u8>, code: u32, parts: &[&[u8]]) {
    let length = parts.iter().fold(8_usize, |sum, part| sum.saturating_add(part.len()));
    debug_assert!(i32::try_from(length).is_ok(), "a packet of our own fits its length field");
    out.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    out.extend_from_slice(&code.to_be_bytes());
    for part in parts {
        out.extend_from_slice(part);
    }
}

/// What can be refused before the body is there.
fn judge_early(code: u32, length: usize) -> Result<(), StartupError> {
    match code {
        SSL_REQUEST | GSS_ENC_REQUEST if length == 4 => Ok(()),
        SSL_REQUEST | GSS_ENC_REQUEST => Err(StartupError::Length),
        CANCEL_REQUEST if (8 + 1..=8 + CANCEL_SECRET_MAX).contains(&length) => Ok(()),
        CANCEL_REQUEST => Err(StartupError::CancelLength),
        code if version(code).major == 3 => Ok(()),
        code => Err(StartupError::Protocol(version(code))),
    }
}

fn version(code: u32) -> ProtocolVersion {
    let [a, b, c, d] = code.to_be_bytes();
    ProtocolVersion { major: u16::from_be_bytes([a, b]), minor: u16::from_be_bytes([c, d]) }
}

fn parse_cancel(body: &[u8]) -> Result<CancelKey, StartupError> {
    let (pid, secret) = body.split_first_chunk::<4>().ok_or(StartupError::CancelLength)?;
    Ok(CancelKey { pid: u32::from_be_bytes(*pid), secret: secret.to_vec() })
}

fn parse_parameters(
    protocol: ProtocolVersion,
    body: &[u8],
    limits: StartupLimits,
) -> Result<StartupPacket, StartupError> {
    let mut packet = StartupPacket { protocol, parameters: Vec::new(), unknown_options: Vec::new() };
    let mut rest = body;
    loop {
        let (name, after) = split_text(rest)?;
        if name.is_empty() {
            return if after.is_empty() { Ok(packet) } else { Err(StartupError::Layout) };
        }
        let (value, after) = split_text(after)?;
        rest = after;
        if packet.parameters.len().saturating_add(packet.unknown_options.len()) >= limits.parameters_max {
            return Err(StartupError::TooMany(limits.parameters_max));
        }
        if name.starts_with("_pq_.") {
            packet.unknown_options.push(name.to_owned());
            continue;
        }
        if let Some(name) = IDENTIFYING.iter().find(|identifying| **identifying == name)
            && packet.parameter(name).is_some()
        {
            return Err(StartupError::Duplicate(name));
        }
        packet.parameters.push((name.to_owned(), value.to_owned()));
    }
}

fn split_text(bytes: &[u8]) -> Result<(&str, &[u8]), StartupError> {
    let (text, rest) = split_cstr(bytes).ok_or(StartupError::Layout)?;
    let text = std::str::from_utf8(text).map_err(|_| StartupError::NotUtf8)?;
    Ok((text, rest))
}

const SSL_REQUEST: u32 = (1234 << 16) | 5679;
const GSS_ENC_REQUEST: u32 = (1234 << 16) | 5680;
const CANCEL_REQUEST: u32 = (1234 << 16) | 5678;
const CANCEL_SECRET_MAX: usize = 256;
const NEWEST_MINOR: u16 = 2;

/// Parameters that decide who a client is, or how it is treated before it has proved it.
const IDENTIFYING: [&str; 6] =
    ["user", "database", "options", "replication", "tenantry.tenant", "tenantry.auth"];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const V3: ProtocolVersion = ProtocolVersion { major: 3, minor: 0 };

    fn parse(bytes: &[u8]) -> Result<Option<(FirstMessage, usize)>, StartupError> {
        parse_first(bytes, StartupLimits::default())
    }

    fn startup(protocol: ProtocolVersion, parameters: &[(&str, &str)]) -> Vec<u8> {
        let mut out = Vec::new();
        put_startup(&mut out, protocol, parameters);
        out
    }

    fn parsed(bytes: &[u8]) -> StartupPacket {
        match parse(bytes) {
            Ok(Some((FirstMessage::Startup(packet), consumed))) if consumed == bytes.len() => packet,
            other => panic!("not one startup packet: {other:?}"),
        }
    }

    #[test]
    fn requests_have_the_bytes_of_the_manual() {
        assert_eq!(parse(b"\0\0\0\x08\x04\xd2\x16\x2f"), Ok(Some((FirstMessage::SslRequest, 8))));
        assert_eq!(parse(b"\0\0\0\x08\x04\xd2\x16\x30more"), Ok(Some((FirstMessage::GssEncRequest, 8))));
        let key = CancelKey { pid: 7, secret: b"abcd".to_vec() };
        let cancel = b"\0\0\0\x10\x04\xd2\x16\x2e\0\0\0\x07abcd";
        assert_eq!(parse(cancel), Ok(Some((FirstMessage::Cancel(key.clone()), 16))));
        assert_eq!(format!("{key:?}"), "CancelKey { pid: 7, .. }", "the secret is not printed");
    }

    #[test]
    fn impossible_lengths_are_refused_before_the_body() {
        for length in [i32::MIN, -1, 0, 4, 7, 10_005, i32::MAX] {
            assert_eq!(parse(&length.to_be_bytes()), Err(StartupError::Length), "{length}");
        }
        assert_eq!(parse(&10_004_i32.to_be_bytes()), Ok(None));
        assert_eq!(parse(b"\0\0\0\x09\x04\xd2\x16\x2f"), Err(StartupError::Length));
        assert_eq!(parse(b"\0\0\0\x0c\x04\xd2\x16\x2e"), Err(StartupError::CancelLength));
        assert_eq!(parse(b"\0\0\x01\x0d\x04\xd2\x16\x2e"), Err(StartupError::CancelLength));
        assert_eq!(parse(b"GET / HTTP/1.1\r\n"), Err(StartupError::Length));
    }

    #[test]
    fn other_major_versions_are_refused_at_once() {
        for (major, minor) in [(0, 0), (2, 0), (4, 0), (1234, 5677)] {
            let version = ProtocolVersion { major, minor };
            let bytes = startup(version, &[("user", "acme")]);
            assert_eq!(parse(&bytes[..8]), Err(StartupError::Protocol(version)));
            assert_eq!(StartupError::Protocol(version).to_client().code, SqlState::FEATURE_NOT_SUPPORTED);
        }
    }

    #[test]
    fn a_minor_version_is_never_negotiated_up() {
        for (asked, spoken) in [(0, 0), (1, 0), (2, 2), (3, 2), (9999, 2)] {
            let packet = parsed(&startup(ProtocolVersion { major: 3, minor: asked }, &[("user", "acme")]));
            assert_eq!(packet.protocol.minor_to_speak(), spoken);
            assert_eq!(packet.needs_negotiation(), asked != spoken);
        }
        let packet = parsed(&startup(V3, &[("_pq_.wish", "1"), ("user", "acme")]));
        assert!(packet.needs_negotiation());
        assert_eq!(packet.unknown_options, ["_pq_.wish"]);
        assert_eq!(packet.parameters.len(), 1);
    }

    #[test]
    fn a_packet_ends_with_its_terminator_and_nothing_else() {
        for body in [&b""[..], b"user\0acme\0", b"user\0acme", b"user\0\0acme", b"\0x", b"user\0acme\0\0\0"] {
            let mut out = Vec::new();
            put_packet(&mut out, 3 << 16, &[body]);
            assert_eq!(parse(&out), Err(StartupError::Layout), "{body:?}");
        }
        assert!(parsed(&startup(V3, &[])).parameters.is_empty());
        assert_eq!(parsed(&startup(V3, &[("user", "")])).parameter("user"), Some(""));
    }

    #[test]
    fn who_a_client_is_cannot_be_said_twice() {
        for name in IDENTIFYING {
            assert_eq!(parse(&startup(V3, &[(name, "a"), (name, "b")])), Err(StartupError::Duplicate(name)));
        }
        let packet = parsed(&startup(V3, &[("DateStyle", "ISO"), ("DateStyle", "German")]));
        assert_eq!(packet.parameter("DateStyle"), Some("German"), "for settings the last one counts");
    }

    #[test]
    fn names_that_are_not_utf8_are_refused() {
        let mut out = Vec::new();
        put_packet(&mut out, 3 << 16, &[b"user\0\xff\xfe\0\0"]);
        assert_eq!(parse(&out), Err(StartupError::NotUtf8));
    }

    #[test]
    fn parameters_are_counted() {
        let limits = StartupLimits { parameters_max: 2, ..StartupLimits::default() };
        let three = startup(V3, &[("a", "1"), ("_pq_.b", "2"), ("c", "3")]);
        assert_eq!(parse_first(&three, limits), Err(StartupError::TooMany(2)));
    }

    prop_compose! {
        fn any_parameters()(map in prop::collection::btree_map("[^\0_][^\0]{0,12}", "[^\0]{0,20}", 0..8))
            -> Vec<(String, String)> { map.into_iter().collect() }
    }

    proptest! {
        #[test]
        fn what_is_built_is_read_back_however_it_is_split(
            minor: u16, parameters in any_parameters(), trailing in prop::collection::vec(any::<u8>(), 0..8),
        ) {
            let borrowed: Vec<_> = parameters.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
            let mut bytes = startup(ProtocolVersion { major: 3, minor }, &borrowed);
            let length = bytes.len();
            bytes.extend(trailing);
            for cut in 0..length {
                prop_assert_eq!(parse(&bytes[..cut]), Ok(None));
            }
            let protocol = ProtocolVersion { major: 3, minor };
            let packet = StartupPacket { protocol, parameters, unknown_options: vec![] };
            for cut in length..=bytes.len() {
                prop_assert_eq!(parse(&bytes[..cut]), Ok(Some((FirstMessage::Startup(packet.clone()), length))));
            }
        }

        #[test]
        fn cancel_keys_of_every_length_are_read_back(
            pid: u32, secret in prop::collection::vec(any::<u8>(), 1..=256),
        ) {
            let mut out = Vec::new();
            put_cancel_request(&mut out, pid, &secret);
            let length = out.len();
            prop_assert_eq!(parse(&out), Ok(Some((FirstMessage::Cancel(CancelKey { pid, secret }), length))));
        }

        #[test]
        fn a_verdict_does_not_change_when_more_bytes_come(
            length in 0_u32..64, code in prop_oneof![Just(3 << 16), Just(SSL_REQUEST), Just(CANCEL_REQUEST), any::<u32>()],
            body in prop::collection::vec(prop_oneof![Just(0_u8), Just(b'a'), any::<u8>()], 0..64),
        ) {
            let bytes = [&length.to_be_bytes()[..], &code.to_be_bytes(), &body].concat();
            let verdict = (0..=bytes.len()).map(|cut| parse(&bytes[..cut])).find(|verdict| *verdict != Ok(None));
            if let Some(verdict) = verdict {
                prop_assert_eq!(parse(&bytes), verdict);
            }
        }
    }
}
