//! Whole messages from a server, with limits.
//!
//! Owns the read buffer of a login. Must not know what a message means. What a server claims about lengths is checked
//! before it is waited for, and one login or query may not cost more than a fixed number of bytes.

use std::io;

use super::error::LoginFailure;
use crate::net::Stream;
use crate::wire::messages::{MessageError, parse_error_fields, split_message};

/// A stream with the messages that have arrived on it.
#[derive(Debug)]
pub(super) struct Link {
    stream: Stream,
    unread: Vec<u8>,
    bytes_left: usize,
}

/// One message.
#[derive(Debug)]
pub(super) struct Incoming {
    pub(super) tag: u8,
    pub(super) body: Vec<u8>,
}

impl Link {
    /// Wraps a stream from which nothing has been read.
    pub(super) const fn new(stream: Stream) -> Self {
        Self { stream, unread: Vec::new(), bytes_left: BYTES_MAX }
    }

    /// The stream below.
    pub(super) const fn stream(&self) -> &Stream {
        &self.stream
    }

    /// Whether everything that was read has been taken.
    pub(super) fn is_drained(&self) -> bool {
        self.unread.is_empty()
    }

    /// The stream, without what was read and not taken.
    pub(super) fn into_stream(self) -> Stream {
        self.stream
    }

    /// Allows another full measure of bytes, for another query.
    pub(super) const fn refill(&mut self) {
        self.bytes_left = BYTES_MAX;
    }

    /// Sends. A server that has closed already is not an error here: it may have said why, and that is read next.
    pub(super) async fn send(&mut self, bytes: &[u8]) -> Result<(), LoginFailure> {
        match self.stream.write_all(bytes).await {
            Ok(()) => Ok(()),
            Err(error)
                if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) =>
            {
                Ok(())
            }
            Err(error) => Err(LoginFailure::Closed(Some(error))),
        }
    }

    /// The next message. Not cancel-safe in the middle of a message's bytes only in so far as the link must be dropped
    /// then; the login drops it.
    pub(super) async fn next(&mut self) -> Result<Incoming, LoginFailure> {
        loop {
            let message = split_message(&self.unread, BODY_MAX).map_err(|error| match error {
                MessageError::TooLong { .. } => LoginFailure::Protocol("a message is too long"),
                MessageError::BadLength | MessageError::Malformed => {
                    LoginFailure::Protocol("a message has an impossible length")
                }
            })?;
            if let Some(message) = message {
                let incoming = Incoming { tag: message.tag, body: message.body.to_vec() };
                let consumed = message.consumed;
                self.unread.drain(..consumed);
                return Ok(incoming);
            }
            self.read_more().await?;
        }
    }

    async fn read_more(&mut self) -> Result<(), LoginFailure> {
        let old = self.unread.len();
        self.unread.resize(old.saturating_add(READ_BYTES), 0);
        let result = self.stream.read(self.unread.get_mut(old..).unwrap_or_default()).await;
        let count = *result.as_ref().unwrap_or(&0);
        self.unread.truncate(old.saturating_add(count));
        match result {
            Ok(0) => Err(LoginFailure::Closed(None)),
            Err(error) => Err(LoginFailure::Closed(Some(error))),
            Ok(count) => {
                self.bytes_left = self
                    .bytes_left
                    .checked_sub(count)
                    .ok_or(LoginFailure::Protocol("the server sends without end"))?;
                Ok(())
            }
        }
    }
}

/// A server's ErrorResponse as a failure. `early`: before it asked for authentication.
pub(super) fn server_error(body: &[u8], early: bool) -> LoginFailure {
    let fields = parse_error_fields(body);
    // It goes into logs, and a login has not proven yet that the server is ours: no line breaks, no endless lines.
    let text = |bytes: &[u8]| -> Box<str> {
        let text = String::from_utf8_lossy(bytes);
        let printable = |letter: char| if letter.is_control() { ' ' } else { letter };
        text.chars().take(MESSAGE_CHARS_MAX).map(printable).collect::<String>().into()
    };
    let Some(code) = fields.code() else {
        return LoginFailure::Protocol("an error without SQLSTATE");
    };
    // The routine is not translated, unlike the text: limits of a role and of a database are checked in these two.
    let own_limit = code == b"53300"
        && matches!(fields.field(b'R'), Some(b"InitializeSessionUserId" | b"CheckMyDatabase"));
    LoginFailure::Server {
        code: text(code),
        message: text(fields.field(b'M').unwrap_or_default()),
        own_limit,
        early,
    }
}

/// Longest body of a message in a login: ParameterStatus and errors are a few hundred bytes.
const BODY_MAX: usize = 64 * 1024;

/// Bytes one login, or one query of the proxy's own, may bring in all.
const BYTES_MAX: usize = 1024 * 1024;

/// Bytes asked for by one read. A whole login is about a kilobyte.
const READ_BYTES: usize = 4096;

/// Longest part of a server's text that is kept for the log.
const MESSAGE_CHARS_MAX: usize = 500;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_servers_text_cannot_forge_a_line_of_the_log() {
        let body = format!("C28P01\0Mno\n2026-01-01 all is well{}\0\0", "x".repeat(1000));
        let LoginFailure::Server { code, message, own_limit, early } = server_error(body.as_bytes(), true)
        else {
            panic!("a server's error")
        };
        assert!(message.starts_with("no 2026") && message.len() == MESSAGE_CHARS_MAX, "{message}");
        assert_eq!((&*code, own_limit, early), ("28P01", false, true));
    }

    #[test]
    fn a_limit_of_the_role_is_told_from_one_of_the_server() {
        let own_limit = |code: &str, routine: &str| {
            let body = format!("C{code}\0Mzu viele\0R{routine}\0\0");
            matches!(server_error(body.as_bytes(), false), LoginFailure::Server { own_limit: true, .. })
        };
        assert!(own_limit("53300", "InitializeSessionUserId") && own_limit("53300", "CheckMyDatabase"));
        assert!(!own_limit("53300", "InitProcess") && !own_limit("53300", "InitPostgres"));
        // NOLOGIN, and no right to connect: checked in the same two.
        assert!(!own_limit("28000", "InitializeSessionUserId") && !own_limit("42501", "CheckMyDatabase"));
    }
}
