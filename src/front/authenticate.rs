//! The proof: client certificate, SCRAM or token (`token`), and the slowing down of those who guess.
//!
//! Owns the conversation about it. What counts as a proof is `auth`'s; this only carries messages, and makes sure that
//! who does not exist is carried along exactly like who does.

use std::hash::BuildHasher;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::time::{Instant, sleep};

use super::conversation::Conversation;
use super::failure::LoginFailure;
use super::handshake::{Handshake, Introduced, Proved, Visit};
use super::introduction::AuthWish;
use crate::auth::bearer::{OAUTHBEARER, TOKEN_MESSAGE_BYTES_MAX};
use crate::auth::identity::{Authenticated, Identity, Unproved};
use crate::auth::refusal::Refusal;
use crate::auth::resolve::{Naming, claimed, resolve};
use crate::auth::scram_server::{CLIENT_MESSAGE_BYTES_MAX, Exchange, ScramError};
use crate::net::tls::common_name;
use crate::tenant::AuthFace;
use crate::tenant::issuer::{Issuer, TokenAs};
use crate::wire::messages::{
    MessageError, parse_sasl_initial, put_authentication_sasl, put_authentication_sasl_continue,
    put_authentication_sasl_final,
};

impl Handshake<Introduced> {
    /// Has the client prove who it is. Every outcome of the same key takes its delay, if it has one.
    pub(super) async fn authenticate(mut self) -> Result<Handshake<Proved>, LoginFailure> {
        let user = self.state.introduction.user.clone();
        let proved = match self.begin() {
            // Nothing is asked. What was said of the protocol goes out with the greeting.
            Ok(Begun::Proved(authenticated)) => Ok(authenticated),
            Ok(Begun::Asked(claim, Way::Password(issuer))) => self.by_password(claim, &issuer).await,
            Ok(Begun::Asked(claim, Way::Sasl { scram, bearer })) => self.by_sasl(claim, scram, bearer).await,
            Err(failure) => Err(Unproven::Other(failure)),
        };
        match proved {
            Ok(authenticated) => Ok(self.next(|Introduced { introduction, slot }| Proved {
                introduction,
                slot,
                authenticated,
            })),
            Err(Unproven::Scram(why)) => Err(self.refuse(LoginFailure::Scram { user, why }).await),
            Err(Unproven::Other(failure)) => Err(self.refuse(failure).await),
        }
    }

    /// Finds out who the client claims to be and what it is asked for, and takes a certificate as proof where it is one.
    fn begin(&self) -> Result<Begun, LoginFailure> {
        let settings = &self.visit.settings;
        let naming = Naming { sources: &settings.tenant_sources, sni_domain: settings.sni_domain.as_deref() };
        let stream = &self.talk.stream;
        let claims = self.state.introduction.claims(stream.server_name());
        // What is asked for must not tell who exists: who does not is asked for what most are.
        let mut face = settings.catalog.usual_face();
        let identity = match resolve(&claims, naming, &settings.catalog) {
            Ok(identity) => {
                face = identity.auth().face();
                match by_certificate(identity, &self.talk) {
                    Ok(authenticated) => return Ok(Begun::Proved(authenticated)),
                    Err(claim) => claim,
                }
            }
            Err(refusal) => Err(refusal),
        };
        let (tenant, user) = claimed(&claims, naming);
        let (user, fingerprint) = (user.to_owned(), self.visit.fingerprint(&tenant, user));
        Ok(Begun::Asked(Claim { identity, tenant, user, fingerprint }, self.way(face)?))
    }

    /// How the client proves who it is: as it wishes, or as its user does. Nobody is asked for a token that others could
    /// read on its way.
    fn way(&self, face: AuthFace) -> Result<Way, LoginFailure> {
        let issuer = self.visit.settings.issuer.as_ref();
        let in_secret = self.talk.stream.is_tls() || self.visit.peer.is_none();
        let wish = match (self.state.introduction.auth, issuer) {
            (Some(AuthWish::OauthBearer | AuthWish::Password), None) => return Err(LoginFailure::NoTokens),
            (Some(AuthWish::OauthBearer | AuthWish::Password), Some(_)) if !in_secret => {
                return Err(LoginFailure::TokenInClear);
            }
            (wish, _) => wish,
        };
        let Some(issuer) = issuer.filter(|_| in_secret).cloned() else {
            return Ok(Way::Sasl { scram: true, bearer: None });
        };
        Ok(match (wish, face, issuer.token_as) {
            (Some(AuthWish::Scram), ..) | (None, AuthFace::Scram, _) => {
                Way::Sasl { scram: true, bearer: None }
            }
            (Some(AuthWish::Password), ..) | (None, AuthFace::Token, TokenAs::Password) => {
                Way::Password(issuer)
            }
            (Some(AuthWish::OauthBearer), ..) | (None, AuthFace::Token, TokenAs::OauthBearer) => {
                Way::Sasl { scram: false, bearer: Some(issuer) }
            }
            (None, AuthFace::Either, _) => Way::Sasl { scram: true, bearer: Some(issuer) },
        })
    }

    /// A SASL exchange by the mechanism that the client chooses.
    async fn by_sasl(
        &mut self,
        claim: Claim,
        scram: bool,
        bearer: Option<Arc<Issuer>>,
    ) -> Result<Authenticated, Unproven> {
        let mock = &self.visit.shared.mock;
        let end_point = self.talk.stream.channel_binding();
        let exchange = Exchange::new(claim.identity.clone(), (&claim.tenant, &claim.user), mock, end_point);
        let mut offered = if scram { exchange.mechanisms().to_vec() } else { Vec::new() };
        offered.extend(bearer.is_some().then_some(OAUTHBEARER));
        put_authentication_sasl(&mut self.talk.output, &offered);
        self.talk.send().await?;
        let limit = if bearer.is_some() { TOKEN_MESSAGE_BYTES_MAX } else { CLIENT_MESSAGE_BYTES_MAX };
        let initial = self.talk.response(limit).await?;
        let initial = parse_sasl_initial(&initial)?;
        if !offered.iter().any(|offered| offered.as_bytes() == initial.mechanism) {
            return Err(ScramError::UnknownMechanism.into());
        }
        let bearer = bearer.filter(|_| initial.mechanism == OAUTHBEARER.as_bytes());
        let limit = if bearer.is_some() { TOKEN_MESSAGE_BYTES_MAX } else { CLIENT_MESSAGE_BYTES_MAX };
        let first = match initial.data {
            Some(first) if first.len() > limit => {
                return Err(MessageError::TooLong { length: first.len(), limit }.into());
            }
            Some(first) => first.to_vec(),
            None => {
                put_authentication_sasl_continue(&mut self.talk.output, &[]);
                self.talk.send().await?;
                self.talk.response(limit).await?
            }
        };
        match bearer {
            Some(issuer) => self.by_bearer(claim, &issuer, &first).await,
            None => {
                let answer = scram_exchange(&mut self.talk, exchange, initial.mechanism, &first).await;
                if let Ok(_) | Err(Unproven::Scram(_)) = &answer {
                    self.visit.hold_back(claim.fingerprint, answer.is_ok()).await;
                }
                self.conclude(answer)
            }
        }
    }

    /// The last word of a successful exchange, for the client to hear with its greeting: one write less.
    fn conclude(
        &mut self,
        answer: Result<(Authenticated, String), Unproven>,
    ) -> Result<Authenticated, Unproven> {
        let (authenticated, server_final) = answer?;
        put_authentication_sasl_final(&mut self.talk.output, server_final.as_bytes());
        Ok(authenticated)
    }
}

/// How a proof begins.
enum Begun {
    /// It is over: a certificate was enough.
    Proved(Authenticated),
    /// In earnest or in pretence.
    Asked(Claim, Way),
}

/// Who a client claims to be, in names that exist or not.
pub(super) struct Claim {
    pub(super) identity: Result<Identity, Refusal>,
    tenant: String,
    user: String,
    pub(super) fingerprint: u64,
}

/// What a client is asked for.
enum Way {
    /// A password that is a token.
    Password(Arc<Issuer>),
    /// One of these mechanisms.
    Sasl { scram: bool, bearer: Option<Arc<Issuer>> },
}

/// Why there is no proof.
pub(super) enum Unproven {
    Scram(ScramError),
    Other(LoginFailure),
}

impl From<ScramError> for Unproven {
    fn from(error: ScramError) -> Self {
        Self::Scram(error)
    }
}

impl<E: Into<LoginFailure>> From<E> for Unproven {
    fn from(error: E) -> Self {
        Self::Other(error.into())
    }
}

/// The proof by the certificate that TLS has verified. `Err` holds what is left to be proved otherwise.
fn by_certificate(
    identity: Identity,
    talk: &Conversation,
) -> Result<Authenticated, Result<Identity, Refusal>> {
    let name = talk.stream.peer_certificate().as_ref().and_then(common_name);
    identity.prove_by_certificate(name.as_deref()).map_err(|unproved| match unproved {
        Unproved::NotByCertificate(identity) => Ok(identity),
        Unproved::Refused(refusal) => Err(refusal),
    })
}

/// What follows the client's first message of SCRAM, but for the server's last one.
async fn scram_exchange(
    talk: &mut Conversation,
    exchange: Exchange,
    mechanism: &[u8],
    first: &[u8],
) -> Result<(Authenticated, String), Unproven> {
    let (challenge, server_first) = exchange.begin(mechanism, first, &nonce()?)?;
    put_authentication_sasl_continue(&mut talk.output, server_first.as_bytes());
    talk.send().await?;
    let last = talk.response(CLIENT_MESSAGE_BYTES_MAX).await?;
    Ok(challenge.finish(&last)?)
}

/// 18 random bytes as text, as PostgreSQL has it.
fn nonce() -> Result<String, LoginFailure> {
    let mut random = [0; 18];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| LoginFailure::NoRandomness)?;
    Ok(STANDARD.encode(random))
}

impl Visit {
    /// Counts an attempt, and waits before its answer if there were many failures. Never beyond half of what is left of the
    /// login's time.
    pub(super) async fn hold_back(&self, fingerprint: u64, succeeded: bool) {
        let now = self.shared.now();
        let delay = {
            let mut throttle = self.shared.throttle.lock();
            let delay = throttle.delay(fingerprint, now);
            if succeeded {
                throttle.handle_success(fingerprint);
            } else {
                throttle.handle_failure(fingerprint, now);
            }
            delay
        };
        let left = self.deadline.saturating_duration_since(Instant::now());
        let delay = delay.min(left / 2);
        if !delay.is_zero() {
            sleep(delay).await;
        }
    }

    /// Who is slowed down: an address (of IPv6 its network, which one customer has), and whom it claims to be.
    fn fingerprint(&self, tenant: &str, user: &str) -> u64 {
        let address = self.peer.map(network);
        self.shared.hasher.hash_one((address, tenant, user))
    }
}

fn network(peer: SocketAddr) -> u128 {
    match peer.ip() {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => match address.to_ipv4_mapped() {
            Some(address) => address.to_ipv6_mapped().to_bits(),
            None => address.to_bits() >> 64,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_network_counts_as_one_and_ipv4_addresses_each() {
        let of = |peer: &str| network(peer.parse().unwrap());
        assert_eq!(of("[2001:db8::1]:5"), of("[2001:db8::2:3]:6"));
        assert_ne!(of("[2001:db8:0:1::1]:5"), of("[2001:db8::1]:5"));
        assert_eq!(of("10.0.0.1:5"), of("[::ffff:10.0.0.1]:6"));
        assert_ne!(of("10.0.0.1:5"), of("10.0.0.2:5"));
    }
}
