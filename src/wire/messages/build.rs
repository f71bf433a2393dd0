//! Builders: each appends one whole message to a buffer that the caller owns.
//!
//! Owns how a message is laid out. Must not fail: a NUL inside a text, which the protocol cannot carry, is left out.

use crate::error::ClientError;
use crate::wire::frame::put as message;

/// Appends an ErrorResponse.
pub fn put_error(out: &mut Vec<u8>, error: &ClientError) {
    message(out, b'E', |out| put_fields(out, error.severity.as_str(), error));
}

/// Appends an ErrorResponse with the fields of a server's own error (`body`), made fatal: what failed was a part of the
/// client's login or of its place on a server.
pub fn put_server_error_as_fatal(out: &mut Vec<u8>, body: &[u8]) {
    message(out, b'E', |out| {
        for (field, text) in super::parse_error_fields(body) {
            out.push(field);
            out.extend_from_slice(if matches!(field, b'S' | b'V') { b"FATAL" } else { text });
            out.push(0);
        }
        out.push(0);
    });
}

/// Appends a NoticeResponse with the fields of `notice`; its severity on the wire is WARNING.
pub fn put_notice(out: &mut Vec<u8>, notice: &ClientError) {
    message(out, b'N', |out| put_fields(out, "WARNING", notice));
}

/// Appends a ParameterStatus.
pub fn put_parameter_status(out: &mut Vec<u8>, name: &str, value: &str) {
    message(out, b'S', |out| {
        put_text(out, name);
        put_text(out, value);
    });
}

/// Appends a BackendKeyData: 4 bytes of secret in protocol 3.0, up to 256 in protocol 3.2.
pub fn put_backend_key_data(out: &mut Vec<u8>, pid: u32, secret: &[u8]) {
    message(out, b'K', |out| {
        out.extend_from_slice(&pid.to_be_bytes());
        out.extend_from_slice(secret);
    });
}

/// Appends a ReadyForQuery; `status` is `b'I'`, `b'T'` or `b'E'`.
pub fn put_ready_for_query(out: &mut Vec<u8>, status: u8) {
    message(out, b'Z', |out| out.push(status));
}

/// Appends an AuthenticationOk.
pub fn put_authentication_ok(out: &mut Vec<u8>) {
    put_authentication(out, 0, &[]);
}

/// Appends an AuthenticationCleartextPassword.
pub fn put_authentication_cleartext_password(out: &mut Vec<u8>) {
    put_authentication(out, 3, &[]);
}

/// Appends an AuthenticationSASL that offers these mechanisms, the preferred one first.
pub fn put_authentication_sasl(out: &mut Vec<u8>, mechanisms: &[&str]) {
    message(out, b'R', |out| {
        out.extend_from_slice(&10_u32.to_be_bytes());
        for mechanism in mechanisms {
            put_text(out, mechanism);
        }
        out.push(0);
    });
}

/// Appends an AuthenticationSASLContinue.
pub fn put_authentication_sasl_continue(out: &mut Vec<u8>, data: &[u8]) {
    put_authentication(out, 11, data);
}

/// Appends an AuthenticationSASLFinal.
pub fn put_authentication_sasl_final(out: &mut Vec<u8>, data: &[u8]) {
    put_authentication(out, 12, data);
}

/// Appends a NegotiateProtocolVersion: the newest minor version of protocol 3 to use, and the options we do not know.
///
/// The number on the wire is a whole protocol version (3 << 16 | minor), as PostgreSQL sends it and libpq reads it,
/// although the manual calls the field a minor version. libpq refuses a minor above the one it asked for.
pub fn put_negotiate_protocol_version(out: &mut Vec<u8>, newest_minor: u32, unknown_options: &[&str]) {
    message(out, b'v', |out| {
        out.extend_from_slice(&((3 << 16) | (newest_minor & 0xffff)).to_be_bytes());
        out.extend_from_slice(&length_u32(unknown_options.len()).to_be_bytes());
        for option in unknown_options {
            put_text(out, option);
        }
    });
}

/// Appends a CommandComplete.
pub fn put_command_complete(out: &mut Vec<u8>, tag: &str) {
    message(out, b'C', |out| put_text(out, tag));
}

/// Appends a ParseComplete.
pub fn put_parse_complete(out: &mut Vec<u8>) {
    message(out, b'1', |_| {});
}

/// Appends a CloseComplete.
pub fn put_close_complete(out: &mut Vec<u8>) {
    message(out, b'3', |_| {});
}

/// Appends a client's SASLInitialResponse.
pub fn put_sasl_initial_response(out: &mut Vec<u8>, mechanism: &str, data: &[u8]) {
    message(out, b'p', |out| {
        put_text(out, mechanism);
        out.extend_from_slice(&length_u32(data.len()).to_be_bytes());
        out.extend_from_slice(data);
    });
}

/// Appends a client's SASLResponse.
pub fn put_sasl_response(out: &mut Vec<u8>, data: &[u8]) {
    message(out, b'p', |out| out.extend_from_slice(data));
}

/// Appends a client's Terminate.
pub fn put_terminate(out: &mut Vec<u8>) {
    message(out, b'X', |_| {});
}

fn put_authentication(out: &mut Vec<u8>, kind: u32, data: &[u8]) {
    message(out, b'R', |out| {
        out.extend_from_slice(&kind.to_be_bytes());
        out.extend_from_slice(data);
    });
}

/// `S` is the severity for people, `V` the same untranslated for programs: one word here.
fn put_fields(out: &mut Vec<u8>, severity: &str, error: &ClientError) {
    let fields = [
        (b'S', Some(severity)),
        (b'V', Some(severity)),
        (b'C', Some(error.code.as_str())),
        (b'M', Some(&*error.message)),
        (b'D', error.detail.as_deref()),
        (b'H', error.hint.as_deref()),
        (b'R', error.routine()),
    ];
    for (field, text) in fields {
        if let Some(text) = text {
            out.push(field);
            put_text(out, text);
        }
    }
    out.push(0);
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    if text.as_bytes().contains(&0) {
        out.extend(text.bytes().filter(|byte| *byte != 0));
    } else {
        out.extend_from_slice(text.as_bytes());
    }
    out.push(0);
}

/// Our own messages are far below 4 GB; the type does not know that.
fn length_u32(length: usize) -> u32 {
    debug_assert!(u32::try_from(length).is_ok(), "a message of our own fits its length field");
    u32::try_from(length).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Fault, SqlState};

    fn built(build: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut out = vec![0xaa];
        build(&mut out);
        assert_eq!(out.remove(0), 0xaa, "builders append");
        out
    }

    #[test]
    fn an_error_carries_all_its_fields_in_postgres_order() {
        let error = ClientError::fatal(SqlState::INVALID_PASSWORD, Fault::Client, "test", "no\0pe")
            .with_detail("why")
            .with_hint("what");
        assert_eq!(
            built(|out| put_error(out, &error)),
            b"E\0\0\0\x2bSFATAL\0VFATAL\0C28P01\0Mnope\0Dwhy\0Hwhat\0\0",
        );
        assert!(built(|out| put_notice(out, &error)).starts_with(b"N\0\0\0\x2fSWARNING\0VWARNING\0"));
    }

    #[test]
    fn fixed_messages_have_the_bytes_of_the_manual() {
        assert_eq!(built(put_authentication_ok), b"R\0\0\0\x08\0\0\0\0");
        assert_eq!(built(|out| put_ready_for_query(out, b'I')), b"Z\0\0\0\x05I");
        assert_eq!(built(put_parse_complete), b"1\0\0\0\x04");
        assert_eq!(built(put_close_complete), b"3\0\0\0\x04");
        assert_eq!(built(put_terminate), b"X\0\0\0\x04");
        assert_eq!(built(|out| put_command_complete(out, "SET")), b"C\0\0\0\x08SET\0");
        assert_eq!(built(|out| put_parameter_status(out, "a", "b")), b"S\0\0\0\x08a\0b\0");
        assert_eq!(built(|out| put_backend_key_data(out, 1, b"key!")), b"K\0\0\0\x0c\0\0\0\x01key!");
        assert_eq!(built(|out| put_authentication_sasl(out, &["A", "B"])), b"R\0\0\0\x0d\0\0\0\x0aA\0B\0\0");
        assert_eq!(built(|out| put_authentication_sasl_continue(out, b"x")), b"R\0\0\0\x09\0\0\0\x0bx");
        assert_eq!(built(|out| put_authentication_sasl_final(out, b"x")), b"R\0\0\0\x09\0\0\0\x0cx");
        assert_eq!(
            built(|out| put_negotiate_protocol_version(out, 2, &["_pq_.x"])),
            b"v\0\0\0\x13\0\x03\0\x02\0\0\0\x01_pq_.x\0",
        );
        assert_eq!(built(|out| put_sasl_initial_response(out, "M", b"d")), b"p\0\0\0\x0bM\0\0\0\0\x01d");
        assert_eq!(built(|out| put_sasl_response(out, b"d")), b"p\0\0\0\x05d");
    }
}
