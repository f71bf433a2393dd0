//! What a client must not send.
//!
//! Owns the limits on a client's messages and the error it gets beyond them.

use super::statement::MAX_TENANT_BYTES;
use crate::error::{ClientError, ClientFacing, Fault, Severity, SqlState};
use crate::wire::frame::{self, HEADER_BYTES, Header};

/// What no well-behaved client sends.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A length that no message can have.
    #[error("invalid message length")]
    Length(#[from] frame::BadLength),
    /// A type that a client must not send now.
    #[error("invalid frontend message type {0}")]
    Type(u8),
    /// A message longer than its type allows.
    #[error("message of type {0} is too long")]
    TooLong(u8),
    /// A body that does not have the shape of its type.
    #[error("invalid message format")]
    Malformed(u8),
    /// A named statement's text beyond what is kept.
    #[error("prepared statement of {0} bytes is too long")]
    StatementTooLong(usize),
    /// A statement's name beyond what is kept.
    #[error("name of {0} bytes is too long for a prepared statement")]
    NameTooLong(usize),
    /// Texts of named statements beyond what is kept for a tenant.
    #[error("the prepared statements of this tenant are too long")]
    StatementsTooLong,
    /// More named statements than a client may have.
    #[error("too many prepared statements")]
    TooManyStatements(usize),
}

impl Violation {
    /// What the client is told where the message alone can be refused: the session goes on.
    #[must_use]
    pub(super) fn to_refusal(&self) -> ClientError {
        ClientError { severity: Severity::Error, ..self.to_client() }
    }
}

impl ClientFacing for Violation {
    fn to_client(&self) -> ClientError {
        let (code, reason) = match self {
            Self::Length(_) | Self::Type(_) | Self::Malformed(_) => {
                (SqlState::PROTOCOL_VIOLATION, "protocol_violation")
            }
            Self::TooLong(_) | Self::StatementTooLong(_) | Self::NameTooLong(_) => {
                (SqlState::PROGRAM_LIMIT_EXCEEDED, "message_too_large")
            }
            Self::StatementsTooLong | Self::TooManyStatements(_) => {
                (SqlState::CONFIGURATION_LIMIT_EXCEEDED, "too_many_statements")
            }
        };
        let error = ClientError::fatal(code, Fault::Client, reason, self.to_string());
        match self {
            Self::StatementTooLong(_) => error
                .with_detail(format!("A named statement may have {MAX_NAMED_PARSE_BYTES} bytes."))
                .with_hint("Use the unnamed statement for texts this long."),
            Self::NameTooLong(_) => error.with_detail(format!(
                "A name may have {MAX_NAME_BYTES} bytes; Postgres tells names apart by the first 63."
            )),
            Self::StatementsTooLong => error
                .with_detail(format!("All clients of a tenant may hold {MAX_TENANT_BYTES} bytes of texts."))
                .with_hint("Close statements that are not needed."),
            Self::TooManyStatements(max) => error
                .with_detail(format!("A client may hold {max} named prepared statements."))
                .with_hint("Close statements that are not needed, or raise max_client_statements."),
            Self::Length(_) | Self::Type(_) | Self::TooLong(_) | Self::Malformed(_) => error,
        }
    }
}

/// A simple query or an unnamed Parse up to this size is read whole before it is forwarded.
pub(super) const MAX_INSPECTED_BYTES: usize = 16 * 1024;
/// A named Parse is kept, so it has an end.
pub(super) const MAX_NAMED_PARSE_BYTES: usize = 16 * 1024 * 1024;
/// So is its name.
pub(super) const MAX_NAME_BYTES: usize = 256;
/// When one pass over a client's bytes has become more than this on its way to the server, it pauses.
pub(super) const MAX_ASSEMBLED_BYTES: usize = 1024 * 1024;
/// When so much of prepared texts was read once more in one pass, it pauses.
pub(super) const MAX_LOOKED_AT_BYTES: usize = 4 * 1024 * 1024;

/// The header of a client's message, once it is there; its length is one that the type may have.
pub(super) fn checked_header(message: &[u8]) -> Result<Option<Header>, Violation> {
    let Some(tag) = message.first() else { return Ok(None) };
    let limit = frame::client_body_limit(*tag).ok_or(Violation::Type(*tag))?;
    let Some(header) = frame::peek(message)? else { return Ok(None) };
    if header.body_len > limit {
        return Err(Violation::TooLong(header.tag));
    }
    Ok(Some(header))
}

/// The body of a message that is there to its end.
pub(super) fn whole_body(header: Header, message: &[u8]) -> Option<&[u8]> {
    message.get(HEADER_BYTES..header.total_len())
}
