//! Messages of clients as bytes, and bytes of servers as messages.

use tenantry::wire::frame;

/// One message.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) tag: u8,
    pub(super) body: Vec<u8>,
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = self.body.get(..self.body.len().min(160)).unwrap_or_default();
        write!(f, "{}({})", char::from(self.tag), shown.escape_ascii())
    }
}

/// The whole messages at the start of `bytes`, and how many bytes they have.
pub(super) fn split(bytes: &[u8]) -> (Vec<Message>, usize) {
    let (mut found, mut at) = (Vec::new(), 0);
    while let Some(rest) = bytes.get(at..)
        && let Some(header) = frame::peek(rest).expect("a length that a message can have")
        && let Some(body) = rest.get(frame::HEADER_BYTES..header.total_len())
    {
        found.push(Message { tag: header.tag, body: body.to_vec() });
        at += header.total_len();
    }
    (found, at)
}

pub(super) fn put(out: &mut Vec<u8>, tag: u8, parts: &[&[u8]]) {
    frame::put(out, tag, |body| parts.iter().for_each(|part| body.extend_from_slice(part)));
}

pub(super) fn query(out: &mut Vec<u8>, sql: &str) {
    put(out, b'Q', &[sql.as_bytes(), b"\0"]);
}

pub(super) fn parse(out: &mut Vec<u8>, name: &str, sql: &str) {
    put(out, b'P', &[name.as_bytes(), b"\0", sql.as_bytes(), b"\0\0\0"]);
}

/// A Bind with one parameter.
pub(super) fn bind(out: &mut Vec<u8>, portal: &str, name: &str, value: &[u8]) {
    let length = u32::try_from(value.len()).expect("a short value").to_be_bytes();
    let parts = [portal.as_bytes(), b"\0", name.as_bytes(), b"\0\0\0\0\x01", &length, value, b"\0\0"];
    put(out, b'B', &parts);
}

/// A Describe (`D`) or Close (`C`) of a statement (`S`) or portal (`P`).
pub(super) fn about(out: &mut Vec<u8>, tag: u8, kind: u8, name: &str) {
    put(out, tag, &[&[kind], name.as_bytes(), b"\0"]);
}

pub(super) fn execute(out: &mut Vec<u8>, portal: &str, rows_max: u32) {
    put(out, b'E', &[portal.as_bytes(), b"\0", &rows_max.to_be_bytes()]);
}

pub(super) fn function_call(out: &mut Vec<u8>, argument: &str) {
    put(out, b'F', &[argument.as_bytes()]);
}

pub(super) fn bare(out: &mut Vec<u8>, tag: u8) {
    put(out, tag, &[]);
}
