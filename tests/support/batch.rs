//! Frontend messages as bytes, chained: what a client writes in one go.
//!
//! Owns the encoding, independent of the proxy's own code. Must not know sockets.

/// Bytes to send, built message by message.
#[derive(Clone, Default)]
pub(crate) struct Batch(pub(crate) Vec<u8>);

impl Batch {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Any message: tag, length, body.
    pub(crate) fn message(mut self, tag: u8, body: &[u8]) -> Self {
        self.0.push(tag);
        self.0.extend_from_slice(&length_of(body.len()).to_be_bytes());
        self.0.extend_from_slice(body);
        self
    }

    /// Bytes as they are.
    pub(crate) fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub(crate) fn query(self, sql: &str) -> Self {
        self.message(b'Q', &strings(&[sql]))
    }

    pub(crate) fn parse(self, name: &str, sql: &str) -> Self {
        let mut body = strings(&[name, sql]);
        body.extend_from_slice(&[0, 0]);
        self.message(b'P', &body)
    }

    /// All parameters and results as text.
    pub(crate) fn bind(self, portal: &str, statement: &str, values: &[&str]) -> Self {
        let mut body = strings(&[portal, statement]);
        body.extend_from_slice(&[0, 0]);
        body.extend_from_slice(&u16::try_from(values.len()).unwrap().to_be_bytes());
        for value in values {
            body.extend_from_slice(&u32::try_from(value.len()).unwrap().to_be_bytes());
            body.extend_from_slice(value.as_bytes());
        }
        body.extend_from_slice(&[0, 0]);
        self.message(b'B', &body)
    }

    pub(crate) fn describe_statement(self, name: &str) -> Self {
        self.message(b'D', &[b"S", name.as_bytes(), b"\0"].concat())
    }

    pub(crate) fn describe_portal(self, name: &str) -> Self {
        self.message(b'D', &[b"P", name.as_bytes(), b"\0"].concat())
    }

    pub(crate) fn execute(self, portal: &str) -> Self {
        self.execute_rows(portal, 0)
    }

    pub(crate) fn execute_rows(self, portal: &str, rows: u32) -> Self {
        let mut body = strings(&[portal]);
        body.extend_from_slice(&rows.to_be_bytes());
        self.message(b'E', &body)
    }

    pub(crate) fn close_statement(self, name: &str) -> Self {
        self.message(b'C', &[b"S", name.as_bytes(), b"\0"].concat())
    }

    pub(crate) fn sync(self) -> Self {
        self.message(b'S', b"")
    }

    pub(crate) fn flush(self) -> Self {
        self.message(b'H', b"")
    }

    pub(crate) fn copy_data(self, data: &[u8]) -> Self {
        self.message(b'd', data)
    }

    pub(crate) fn copy_done(self) -> Self {
        self.message(b'c', b"")
    }

    pub(crate) fn copy_fail(self, why: &str) -> Self {
        self.message(b'f', &strings(&[why]))
    }

    pub(crate) fn terminate(self) -> Self {
        self.message(b'X', b"")
    }

    /// The unnamed statement from text to result, without a Sync.
    pub(crate) fn run(self, sql: &str, values: &[&str]) -> Self {
        self.parse("", sql).bind("", "", values).execute("")
    }

    /// A startup packet: length, version, pairs.
    pub(crate) fn startup(version: u32, pairs: &[(&str, &str)]) -> Self {
        let mut body = version.to_be_bytes().to_vec();
        for (name, value) in pairs {
            body.extend_from_slice(&strings(&[name, value]));
        }
        body.push(0);
        Self(untagged(&body))
    }

    pub(crate) fn ssl_request() -> Self {
        Self(untagged(&80_877_103_u32.to_be_bytes()))
    }

    pub(crate) fn gssenc_request() -> Self {
        Self(untagged(&80_877_104_u32.to_be_bytes()))
    }

    pub(crate) fn cancel_request(pid: u32, secret: &[u8]) -> Self {
        Self(untagged(&[&80_877_102_u32.to_be_bytes(), &pid.to_be_bytes(), secret].concat()))
    }
}

fn strings(texts: &[&str]) -> Vec<u8> {
    texts.iter().flat_map(|text| text.bytes().chain([0])).collect()
}

fn untagged(body: &[u8]) -> Vec<u8> {
    [&length_of(body.len()).to_be_bytes(), body].concat()
}

fn length_of(body: usize) -> u32 {
    u32::try_from(body + 4).unwrap()
}
