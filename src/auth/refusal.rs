//! Why a login fails, and the one face that all of these reasons show to the client.
//!
//! Owns the uniform error: unknown tenant, unknown user, wrong password and wrong certificate have the same text, so that
//! nobody can ask the proxy which tenants exist. The reason itself is for the log.

use crate::error::{ClientError, Fault, SqlState};

/// Why a client is not who it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// No source named a tenant.
    NoTenantNamed,
    /// The startup option names a tenant that does not exist.
    UnknownTenant,
    /// Two sources name two tenants.
    SourcesDisagree,
    /// The tenant has no such user.
    UnknownUser,
    /// The proof does not fit the verifier.
    WrongPassword,
    /// The user needs a client certificate and there is none.
    NoCertificate,
    /// The client certificate names somebody else.
    WrongCertificate,
    /// The stored verifier cannot be read.
    BadVerifier,
    /// The user logs in with a token, and gave none.
    TokenWanted,
    /// The user does not log in with a token.
    NoTokenUser,
    /// Not a token, or one that lacks something.
    TokenMalformed,
    /// The token's algorithm is not accepted.
    TokenAlgorithm,
    /// The issuer has no key of that name for that algorithm.
    TokenKey,
    /// The token's signature is wrong.
    TokenSignature,
    /// Another issuer's token.
    TokenIssuer,
    /// A token for somebody else than us.
    TokenAudience,
    /// The token lacks a scope.
    TokenScope,
    /// The token was valid.
    TokenExpired,
    /// The token will be valid.
    TokenNotYetValid,
    /// The token names another tenant, or none.
    TokenOfAnotherTenant,
    /// The token names another user, or none.
    TokenOfAnotherUser,
}

impl Refusal {
    /// All refusals.
    pub const ALL: [Self; 21] = [
        Self::NoTenantNamed,
        Self::UnknownTenant,
        Self::SourcesDisagree,
        Self::UnknownUser,
        Self::WrongPassword,
        Self::NoCertificate,
        Self::WrongCertificate,
        Self::BadVerifier,
        Self::TokenWanted,
        Self::NoTokenUser,
        Self::TokenMalformed,
        Self::TokenAlgorithm,
        Self::TokenKey,
        Self::TokenSignature,
        Self::TokenIssuer,
        Self::TokenAudience,
        Self::TokenScope,
        Self::TokenExpired,
        Self::TokenNotYetValid,
        Self::TokenOfAnotherTenant,
        Self::TokenOfAnotherUser,
    ];

    /// The reason as the log has it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoTenantNamed => "no_tenant_named",
            Self::UnknownTenant => "unknown_tenant",
            Self::SourcesDisagree => "sources_disagree",
            Self::UnknownUser => "unknown_user",
            Self::WrongPassword => "wrong_password",
            Self::NoCertificate => "no_certificate",
            Self::WrongCertificate => "wrong_certificate",
            Self::BadVerifier => "bad_verifier",
            Self::TokenWanted => "token_wanted",
            Self::NoTokenUser => "no_token_user",
            Self::TokenMalformed => "token_malformed",
            Self::TokenAlgorithm => "token_algorithm",
            Self::TokenKey => "token_key",
            Self::TokenSignature => "token_signature",
            Self::TokenIssuer => "token_issuer",
            Self::TokenAudience => "token_audience",
            Self::TokenScope => "token_scope",
            Self::TokenExpired => "token_expired",
            Self::TokenNotYetValid => "token_not_yet_valid",
            Self::TokenOfAnotherTenant => "token_of_another_tenant",
            Self::TokenOfAnotherUser => "token_of_another_user",
        }
    }

    /// The error for the client. `user` is the name as the client sent it; the refusal does not show.
    #[must_use]
    pub fn to_client(self, user: &str) -> ClientError {
        let text = format!("password authentication failed for user \"{}\"", shown(user));
        ClientError::fatal(SqlState::INVALID_PASSWORD, Fault::Client, "bad_password", text)
    }
}

/// At most 63 bytes of a name, which is all that PostgreSQL keeps of it.
#[must_use]
pub fn shown(name: &str) -> &str {
    let end = (0..=63.min(name.len())).rev().find(|end| name.is_char_boundary(*end));
    end.and_then(|end| name.get(..end)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_shows_the_same_face() {
        let faces: Vec<_> = Refusal::ALL.iter().map(|refusal| refusal.to_client("acme")).collect();
        assert!(faces.windows(2).all(|pair| pair[0] == pair[1]));
        assert_eq!(faces[0].to_string(), "FATAL 28P01: password authentication failed for user \"acme\"");
        let mut reasons: Vec<_> = Refusal::ALL.iter().map(|refusal| refusal.as_str()).collect();
        reasons.dedup();
        assert_eq!(reasons.len(), Refusal::ALL.len(), "the log tells them apart");
    }

    #[test]
    fn a_long_name_is_cut_between_characters() {
        assert_eq!(shown(&"é".repeat(40)), "é".repeat(31));
        assert_eq!(shown("acme"), "acme");
    }
}
