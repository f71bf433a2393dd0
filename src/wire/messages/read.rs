//! Readers: whole messages out of a buffer, and the few bodies that a login has to understand.
//!
//! Owns the checks of lengths and terminators. Must not allocate for what a peer claims, nor panic whatever the bytes.

use std::borrow::Cow;

use crate::wire::frame::split_cstr;
use crate::wire::startup::ProtocolVersion;

/// One whole message at the start of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// Its type byte.
    pub tag: u8,
    /// What follows the length.
    pub body: &'a [u8],
    /// Bytes of the buffer it takes, header included.
    pub consumed: usize,
}

/// Why bytes are not a message that may come now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// The length field counts itself, so it is at least 4.
    #[error("invalid message length")]
    BadLength,
    /// Longer than this state allows.
    #[error("message of {length} bytes exceeds the limit of {limit}")]
    TooLong {
        /// Bytes the body would have.
        length: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// The body does not have the layout of its type.
    #[error("malformed message")]
    Malformed,
}

/// Splits the first message off `buf`; `None` as long as it is not whole. `body_max` limits the body, and is checked as
/// soon as the length is known.
///
/// # Errors
/// If the length is impossible or above the limit.
pub fn split_message(buf: &[u8], body_max: usize) -> Result<Option<Message<'_>>, MessageError> {
    let Some((&tag, rest)) = buf.split_first() else { return Ok(None) };
    let Some((length, rest)) = rest.split_first_chunk::<4>() else { return Ok(None) };
    let length = i32::from_be_bytes(*length);
    let length = usize::try_from(length).ok().and_then(|length| length.checked_sub(4));
    let length = length.ok_or(MessageError::BadLength)?;
    if length > body_max {
        return Err(MessageError::TooLong { length, limit: body_max });
    }
    Ok(rest.get(..length).map(|body| Message { tag, body, consumed: length.saturating_add(5) }))
}

/// A client's SASLInitialResponse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SaslInitial<'a> {
    /// The mechanism it chose.
    pub mechanism: &'a [u8],
    /// Its first message, if it sent one.
    pub data: Option<&'a [u8]>,
}

/// Reads the body of a SASLInitialResponse. (A SASLResponse has no layout: its body is the data.)
///
/// # Errors
/// If the body has another layout.
pub fn parse_sasl_initial(body: &[u8]) -> Result<SaslInitial<'_>, MessageError> {
    let (mechanism, rest) = split_cstr(body).ok_or(MessageError::Malformed)?;
    let (length, data) = rest.split_first_chunk::<4>().ok_or(MessageError::Malformed)?;
    let length = i32::from_be_bytes(*length);
    if length == -1 && data.is_empty() {
        return Ok(SaslInitial { mechanism, data: None });
    }
    if usize::try_from(length) != Ok(data.len()) {
        return Err(MessageError::Malformed);
    }
    Ok(SaslInitial { mechanism, data: Some(data) })
}

/// What a server asks for in an `R` message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authentication<'a> {
    /// AuthenticationOk.
    Ok,
    /// AuthenticationCleartextPassword.
    CleartextPassword,
    /// AuthenticationMD5Password.
    Md5Password {
        /// Salt of the digest.
        salt: [u8; 4],
    },
    /// AuthenticationSASL.
    Sasl(Mechanisms<'a>),
    /// AuthenticationSASLContinue.
    SaslContinue(&'a [u8]),
    /// AuthenticationSASLFinal.
    SaslFinal(&'a [u8]),
    /// Any other method (GSSAPI, SSPI, ...), by its number.
    Other(u32),
}

/// The SASL mechanisms a server offers; an iterator over their names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mechanisms<'a>(&'a [u8]);

impl<'a> Iterator for Mechanisms<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (name, rest) = split_cstr(self.0)?;
        self.0 = rest;
        (!name.is_empty()).then_some(name)
    }
}

/// Reads the body of an `R` message.
///
/// # Errors
/// If the body has another layout.
pub fn parse_authentication(body: &[u8]) -> Result<Authentication<'_>, MessageError> {
    let (kind, rest) = body.split_first_chunk::<4>().ok_or(MessageError::Malformed)?;
    match u32::from_be_bytes(*kind) {
        0 => Ok(Authentication::Ok),
        3 => Ok(Authentication::CleartextPassword),
        5 => rest
            .try_into()
            .map(|salt| Authentication::Md5Password { salt })
            .map_err(|_| MessageError::Malformed),
        10 if rest.last() == Some(&0) => Ok(Authentication::Sasl(Mechanisms(rest))),
        10 => Err(MessageError::Malformed),
        11 => Ok(Authentication::SaslContinue(rest)),
        12 => Ok(Authentication::SaslFinal(rest)),
        other => Ok(Authentication::Other(other)),
    }
}

/// Reads the body of a ParameterStatus: name and value.
///
/// # Errors
/// If the body has another layout.
pub fn parse_parameter_status(body: &[u8]) -> Result<(&[u8], &[u8]), MessageError> {
    let (name, rest) = split_cstr(body).ok_or(MessageError::Malformed)?;
    match split_cstr(rest) {
        Some((value, [])) => Ok((name, value)),
        Some(_) | None => Err(MessageError::Malformed),
    }
}

/// Reads the body of a BackendKeyData: process id and secret, which has 4 to 256 bytes.
///
/// # Errors
/// If the body has another layout.
pub fn parse_backend_key_data(body: &[u8]) -> Result<(u32, &[u8]), MessageError> {
    let (pid, secret) = body.split_first_chunk::<4>().ok_or(MessageError::Malformed)?;
    if !(4..=256).contains(&secret.len()) {
        return Err(MessageError::Malformed);
    }
    Ok((u32::from_be_bytes(*pid), secret))
}

/// Reads the body of a NegotiateProtocolVersion: the newest version of protocol 3 that the server speaks, and how many of
/// the `_pq_.` options it does not know.
///
/// # Errors
/// If the body has another layout, or names another protocol.
pub fn parse_negotiate_protocol_version(body: &[u8]) -> Result<(ProtocolVersion, usize), MessageError> {
    let (version, rest) = body.split_first_chunk::<4>().ok_or(MessageError::Malformed)?;
    let (count, mut rest) = rest.split_first_chunk::<4>().ok_or(MessageError::Malformed)?;
    let [a, b, c, d] = *version;
    let version = ProtocolVersion { major: u16::from_be_bytes([a, b]), minor: u16::from_be_bytes([c, d]) };
    let mut names = 0_usize;
    while !rest.is_empty() {
        (_, rest) = split_cstr(rest).ok_or(MessageError::Malformed)?;
        names = names.saturating_add(1);
    }
    if version.major != 3 || usize::try_from(u32::from_be_bytes(*count)) != Ok(names) {
        return Err(MessageError::Malformed);
    }
    Ok((version, names))
}

/// The fields of an ErrorResponse or NoticeResponse; an iterator over type byte and text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorFields<'a>(&'a [u8]);

/// Reads the body of an ErrorResponse or NoticeResponse. Malformed bodies have fewer fields; nothing fails.
#[must_use]
pub const fn parse_error_fields(body: &[u8]) -> ErrorFields<'_> {
    ErrorFields(body)
}

impl<'a> ErrorFields<'a> {
    /// The untranslated severity (`V`), or the translated one (`S`) of servers before 9.6.
    #[must_use]
    pub fn severity(self) -> Option<&'a [u8]> {
        self.field(b'V').or_else(|| self.field(b'S'))
    }

    /// The SQLSTATE (`C`).
    #[must_use]
    pub fn code(self) -> Option<&'a [u8]> {
        self.field(b'C')
    }

    /// The primary text (`M`), for logs: bytes that are not UTF-8 are replaced.
    #[must_use]
    pub fn message(self) -> Cow<'a, str> {
        String::from_utf8_lossy(self.field(b'M').unwrap_or_default())
    }

    /// The first field of that type.
    #[must_use]
    pub fn field(mut self, wanted: u8) -> Option<&'a [u8]> {
        self.find(|(field, _)| *field == wanted).map(|(_, text)| text)
    }
}

impl<'a> Iterator for ErrorFields<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (&field, rest) = self.0.split_first()?;
        if field == 0 {
            self.0 = &[];
            return None;
        }
        let (text, rest) = split_cstr(rest)?;
        self.0 = rest;
        Some((field, text))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::error::{ClientError, Fault, SqlState};
    use crate::wire::messages::*;

    fn whole(bytes: &[u8]) -> Message<'_> {
        split_message(bytes, usize::MAX).unwrap().unwrap()
    }

    #[test]
    fn a_length_is_judged_before_the_body_is_there() {
        assert_eq!(split_message(b"p\0\0\0", 9), Ok(None));
        assert_eq!(split_message(b"p\0\0\0\x03", 9), Err(MessageError::BadLength));
        assert_eq!(split_message(b"p\xff\xff\xff\xff", 9), Err(MessageError::BadLength));
        let too_long = Err(MessageError::TooLong { length: 10, limit: 9 });
        assert_eq!(split_message(b"p\0\0\0\x0e", 9), too_long);
        assert_eq!(split_message(b"p\0\0\0\x0d", 9), Ok(None));
    }

    #[test]
    fn a_message_leaves_what_follows_it() {
        let message = split_message(b"p\0\0\0\x06abrest", 2).unwrap().unwrap();
        assert_eq!(message, Message { tag: b'p', body: b"ab", consumed: 7 });
    }

    #[test]
    fn a_sasl_initial_response_must_be_exactly_as_long_as_it_says() {
        let data = Some(&b"abc"[..]);
        assert_eq!(parse_sasl_initial(b"M\0\0\0\0\x03abc"), Ok(SaslInitial { mechanism: b"M", data }));
        assert_eq!(
            parse_sasl_initial(b"M\0\xff\xff\xff\xff"),
            Ok(SaslInitial { mechanism: b"M", data: None })
        );
        for bad in [&b""[..], b"M", b"M\0", b"M\0\0\0\0\x03abcd", b"M\0\0\0\0\x03ab", b"M\0\xff\xff\xff\xffa"]
        {
            assert_eq!(parse_sasl_initial(bad), Err(MessageError::Malformed));
        }
    }

    #[test]
    fn error_fields_come_back_from_a_built_error() {
        let mut out = Vec::new();
        let error =
            ClientError::fatal(SqlState::TOO_MANY_CONNECTIONS, Fault::Server, "x", "full").with_hint("wait");
        put_error(&mut out, &error);
        let fields = parse_error_fields(whole(&out).body);
        assert_eq!(fields.severity(), Some(&b"FATAL"[..]));
        assert_eq!(fields.code(), Some(&b"53300"[..]));
        assert_eq!(fields.message(), "full");
        assert_eq!(fields.field(b'H'), Some(&b"wait"[..]));
        assert_eq!(fields.field(b'D'), None);
        assert_eq!(parse_error_fields(b"SERROR\0Mtorn").count(), 1);
    }

    #[test]
    fn authentication_requests_are_told_apart() {
        let mut out = Vec::new();
        put_authentication_sasl(&mut out, &["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"]);
        let Ok(Authentication::Sasl(offered)) = parse_authentication(whole(&out).body) else {
            panic!("not SASL");
        };
        assert_eq!(offered.collect::<Vec<_>>(), [&b"SCRAM-SHA-256-PLUS"[..], b"SCRAM-SHA-256"]);
        let md5 = Authentication::Md5Password { salt: *b"salt" };
        assert_eq!(parse_authentication(b"\0\0\0\x05salt"), Ok(md5));
        assert_eq!(parse_authentication(b"\0\0\0\x05sal"), Err(MessageError::Malformed));
        assert_eq!(parse_authentication(b"\0\0\0\x0aM"), Err(MessageError::Malformed));
        assert_eq!(parse_authentication(b"\0\0\0\x07"), Ok(Authentication::Other(7)));
        assert_eq!(parse_authentication(b"\0\0\0"), Err(MessageError::Malformed));
    }

    #[test]
    fn a_negotiation_comes_back_as_it_was_built() {
        let mut out = Vec::new();
        put_negotiate_protocol_version(&mut out, 2, &["_pq_.a", "_pq_.b"]);
        let version = ProtocolVersion { major: 3, minor: 2 };
        assert_eq!(parse_negotiate_protocol_version(whole(&out).body), Ok((version, 2)));
        for bad in [
            &b""[..],
            b"\0\x03\0\0\0\0\0",
            b"\0\x03\0\0\0\0\0\x01",
            b"\0\x03\0\0\0\0\0\x01a",
            b"\0\x02\0\0\0\0\0\0",
        ] {
            assert_eq!(parse_negotiate_protocol_version(bad), Err(MessageError::Malformed));
        }
    }

    proptest! {
        #[test]
        fn what_is_built_is_read_back(
            name in "[^\0]{0,20}", value in "[^\0]{0,20}", pid: u32,
            secret in prop::collection::vec(any::<u8>(), 4..=256),
            data in prop::collection::vec(any::<u8>(), 0..64),
        ) {
            let mut out = Vec::new();
            put_parameter_status(&mut out, &name, &value);
            prop_assert_eq!(parse_parameter_status(whole(&out).body), Ok((name.as_bytes(), value.as_bytes())));
            out.clear();
            put_backend_key_data(&mut out, pid, &secret);
            prop_assert_eq!(parse_backend_key_data(whole(&out).body), Ok((pid, &secret[..])));
            out.clear();
            put_sasl_initial_response(&mut out, &name, &data);
            let read = SaslInitial { mechanism: name.as_bytes(), data: Some(&data) };
            prop_assert_eq!(parse_sasl_initial(whole(&out).body), Ok(read));
            out.clear();
            put_authentication_sasl_final(&mut out, &data);
            prop_assert_eq!(parse_authentication(whole(&out).body), Ok(Authentication::SaslFinal(&data)));
        }

        #[test]
        fn a_message_is_found_as_soon_as_its_last_byte_is_there(
            body in prop::collection::vec(any::<u8>(), 0..64), cut in 0_usize..64,
        ) {
            let mut out = Vec::new();
            put_sasl_response(&mut out, &body);
            let cut = cut.min(out.len() - 1);
            prop_assert_eq!(split_message(&out[..cut], 64), Ok(None));
            prop_assert_eq!(split_message(&out, 64), Ok(Some(Message { tag: b'p', body: &body, consumed: out.len() })));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..128)) {
            let _ = split_message(&bytes, 64);
            let _ = parse_sasl_initial(&bytes);
            if let Ok(Authentication::Sasl(mechanisms)) = parse_authentication(&bytes) {
                prop_assert!(mechanisms.count() <= bytes.len());
            }
            let _ = parse_parameter_status(&bytes);
            let _ = parse_backend_key_data(&bytes);
            prop_assert!(parse_error_fields(&bytes).count() <= bytes.len());
        }
    }
}
