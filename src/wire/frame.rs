//! Frames of the running protocol: one tag byte, four length bytes, a body (PostgreSQL manual, "Message Formats").
//!
//! Owns the look at a header and the limits on lengths. Must not know what a message means: bodies are not read here.

/// Bytes before a body.
pub const HEADER_BYTES: usize = 5;

/// Postgres itself never takes a longer message (`PQ_LARGE_MESSAGE_LIMIT`, MaxAllocSize - 1).
pub const MAX_BODY_BYTES: usize = 0x3fff_ffff - 1;

/// Limit for messages that carry little (`PQ_SMALL_MESSAGE_LIMIT`).
pub const MAX_SMALL_BODY_BYTES: usize = 10_000;

/// The header of one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The message type.
    pub tag: u8,
    /// Length of the body, in bytes, without the header.
    pub body_len: usize,
}

impl Header {
    /// Length of the whole message, in bytes.
    #[must_use]
    pub const fn total_len(self) -> usize {
        self.body_len.saturating_add(HEADER_BYTES)
    }
}

/// A length no message can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("message of type 0x{tag:02x} claims an impossible length of {length} bytes")]
pub struct BadLength {
    /// The message type.
    pub tag: u8,
    /// What the four bytes say.
    pub length: u32,
}

/// The header at the start of `bytes`; `None` while fewer than five bytes are there.
///
/// # Errors
/// If the length is smaller than itself (4) or larger than any Postgres message.
pub fn peek(bytes: &[u8]) -> Result<Option<Header>, BadLength> {
    let Some((&[tag, a, b, c, d], _)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
        return Ok(None);
    };
    let length = u32::from_be_bytes([a, b, c, d]);
    match (length as usize).checked_sub(4) {
        Some(body_len) if body_len <= MAX_BODY_BYTES => Ok(Some(Header { tag, body_len })),
        _ => Err(BadLength { tag, length }),
    }
}

/// The longest body that a client's message of this type may have; `None` if clients must not send the type at all
/// after login.
#[must_use]
pub const fn client_body_limit(tag: u8) -> Option<usize> {
    match tag {
        b'Q' | b'P' | b'B' | b'F' | b'd' => Some(MAX_BODY_BYTES),
        b'D' | b'C' | b'E' | b'f' => Some(MAX_SMALL_BODY_BYTES),
        b'S' | b'H' | b'c' | b'X' => Some(0),
        _ => None,
    }
}

/// A NUL-terminated string at the start of `bytes` and what follows it.
#[must_use]
pub fn split_cstr(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = memchr::memchr(0, bytes)?;
    let (text, rest) = bytes.split_at_checked(end)?;
    Some((text, rest.split_first()?.1))
}

/// Appends a message: its tag, its length and the body that `body` writes.
pub fn put(out: &mut Vec<u8>, tag: u8, body: impl FnOnce(&mut Vec<u8>)) {
    out.push(tag);
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    body(out);
    let length = u32::try_from(out.len().saturating_sub(at)).unwrap_or(u32::MAX);
    if let Some(field) = out.get_mut(at..).and_then(|tail| tail.first_chunk_mut::<4>()) {
        *field = length.to_be_bytes();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_needs_five_bytes() {
        assert_eq!(peek(b"Q\0\0\0"), Ok(None));
        assert_eq!(peek(b"Q\0\0\0\x08"), Ok(Some(Header { tag: b'Q', body_len: 4 })));
    }

    #[test]
    fn impossible_lengths_are_errors() {
        assert_eq!(peek(b"Q\0\0\0\x03"), Err(BadLength { tag: b'Q', length: 3 }));
        assert_eq!(peek(b"Q\xff\xff\xff\xff"), Err(BadLength { tag: b'Q', length: u32::MAX }));
    }

    #[test]
    fn put_writes_what_peek_reads() {
        let mut out = Vec::new();
        put(&mut out, b'S', |body| body.extend_from_slice(b"abc\0"));
        assert_eq!(out, b"S\0\0\0\x08abc\0");
        assert_eq!(peek(&out), Ok(Some(Header { tag: b'S', body_len: 4 })));
    }

    #[test]
    fn a_c_string_ends_at_its_nul() {
        assert_eq!(split_cstr(b"ab\0cd"), Some((&b"ab"[..], &b"cd"[..])));
        assert_eq!(split_cstr(b"ab"), None);
    }
}
