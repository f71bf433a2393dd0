//! The proof by token, as a password or by OAUTHBEARER.
//!
//! Owns the conversation about it (RFC 7628 as PostgreSQL 18 speaks it; manual, "SASL Authentication"). What a token proves
//! is `auth::bearer`'s.
//!
//! ```text
//! client                          proxy
//! SASLInitialResponse: token ──►  right:  AuthenticationOk
//!                                 wrong, or empty:  SASLContinue: where to get one
//! SASLResponse: 0x01         ──►                    FATAL
//! ```

use std::time::{SystemTime, UNIX_EPOCH};

use super::authenticate::{Claim, Unproven};
use super::failure::LoginFailure;
use super::handshake::{Handshake, Introduced};
use crate::auth::bearer::{self, FAILURE_ACKNOWLEDGED, TOKEN_MESSAGE_BYTES_MAX};
use crate::auth::identity::Authenticated;
use crate::auth::scram_server::{CLIENT_MESSAGE_BYTES_MAX, ScramError};
use crate::tenant::issuer::Issuer;
use crate::wire::frame::split_cstr;
use crate::wire::messages::{
    MessageError, put_authentication_cleartext_password, put_authentication_sasl_continue,
};

impl Handshake<Introduced> {
    /// Asks for a password, which must be a token. Only under TLS or on a Unix socket.
    pub(super) async fn by_password(
        &mut self,
        claim: Claim,
        issuer: &Issuer,
    ) -> Result<Authenticated, Unproven> {
        put_authentication_cleartext_password(&mut self.talk.output);
        self.talk.send().await?;
        let message = self.talk.response(TOKEN_MESSAGE_BYTES_MAX).await?;
        let Some((token, [])) = split_cstr(&message) else { return Err(MessageError::Malformed.into()) };
        self.judge(claim, issuer, std::str::from_utf8(token).unwrap_or_default()).await
    }

    /// What follows the client's first message of OAUTHBEARER.
    pub(super) async fn by_bearer(
        &mut self,
        claim: Claim,
        issuer: &Issuer,
        first: &[u8],
    ) -> Result<Authenticated, Unproven> {
        let answer = match bearer::parse_initial(first).map_err(LoginFailure::Bearer)? {
            Some(token) => self.judge(claim, issuer, token).await,
            None => {
                let user = self.state.introduction.user.clone();
                Err(LoginFailure::Discovery { user }.into())
            }
        };
        if answer.is_err() {
            put_authentication_sasl_continue(
                &mut self.talk.output,
                bearer::failure_challenge(issuer).as_bytes(),
            );
            self.talk.send().await?;
            match self.talk.response(CLIENT_MESSAGE_BYTES_MAX).await {
                // Who leaves now has been told what there is to tell, and the reason is for the log all the same.
                Err(LoginFailure::Disconnected) => {}
                Err(failure) => return Err(failure.into()),
                Ok(message) if message == FAILURE_ACKNOWLEDGED => {}
                Ok(_) => {
                    return Err(LoginFailure::Bearer("The client did not acknowledge the failure.").into());
                }
            }
        }
        answer
    }

    async fn judge(&self, claim: Claim, issuer: &Issuer, token: &str) -> Result<Authenticated, Unproven> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let verdict = bearer::prove(claim.identity, issuer, token, now);
        self.visit.hold_back(claim.fingerprint, verdict.is_ok()).await;
        verdict.map_err(|refusal| ScramError::Refused(refusal).into())
    }
}
