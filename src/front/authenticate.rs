//! The proof: client certificate or SCRAM, and the slowing down of those who guess.
//!
//! Owns the conversation about it. What counts as a proof is `auth`'s; this only carries messages, and makes sure that
//! who does not exist is carried along exactly like who does.

use std::hash::BuildHasher;
use std::net::{IpAddr, SocketAddr};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::time::{Instant, sleep};

use super::conversation::Conversation;
use super::failure::LoginFailure;
use super::handshake::{Handshake, Introduced, Proved, Visit};
use crate::auth::identity::{Authenticated, Identity, Unproved};
use crate::auth::refusal::Refusal;
use crate::auth::resolve::{Naming, claimed, resolve};
use crate::auth::scram_server::{CLIENT_MESSAGE_BYTES_MAX, Exchange, ScramError};
use crate::net::tls::common_name;
use crate::wire::messages::{
    parse_sasl_initial, put_authentication_sasl, put_authentication_sasl_continue,
    put_authentication_sasl_final,
};

impl Handshake<Introduced> {
    /// Has the client prove who it is. Every outcome of the same key takes its delay, if it has one.
    pub(super) async fn authenticate(mut self) -> Result<Handshake<Proved>, LoginFailure> {
        let user = self.state.introduction.user.clone();
        let proved = match self.begin() {
            Begun::Proved(authenticated) => Ok(authenticated),
            Begun::Scram { exchange, fingerprint } => {
                let answer = scram(&mut self.talk, exchange).await;
                if let Ok(_) | Err(ScramFailure::Scram(_)) = &answer {
                    self.visit.hold_back(fingerprint, answer.is_ok()).await;
                }
                self.conclude(answer).await
            }
        };
        match proved {
            Ok(authenticated) => Ok(self.next(|Introduced { introduction, slot }| Proved {
                introduction,
                slot,
                authenticated,
            })),
            Err(ScramFailure::Scram(why)) => Err(self.refuse(LoginFailure::Scram { user, why }).await),
            Err(ScramFailure::Other(failure)) => Err(self.refuse(failure).await),
        }
    }

    /// Finds out who the client claims to be, and takes a certificate as proof where it is one.
    fn begin(&self) -> Begun {
        let settings = &self.visit.settings;
        let naming = Naming { sources: &settings.tenant_sources, sni_domain: settings.sni_domain.as_deref() };
        let stream = &self.talk.stream;
        let claims = self.state.introduction.claims(stream.server_name());
        let claim = match resolve(&claims, naming, &settings.catalog) {
            Ok(identity) => match by_certificate(identity, &self.talk) {
                Ok(authenticated) => return Begun::Proved(authenticated),
                Err(claim) => claim,
            },
            Err(refusal) => Err(refusal),
        };
        let (tenant, user) = claimed(&claims, naming);
        Begun::Scram {
            exchange: Exchange::new(
                claim,
                (&tenant, user),
                &self.visit.shared.mock,
                stream.channel_binding(),
            ),
            fingerprint: self.visit.fingerprint(&tenant, user),
        }
    }

    /// Gives the client the last word of a successful exchange.
    async fn conclude(
        &mut self,
        answer: Result<(Authenticated, String), ScramFailure>,
    ) -> Result<Authenticated, ScramFailure> {
        let (authenticated, server_final) = answer?;
        put_authentication_sasl_final(&mut self.talk.output, server_final.as_bytes());
        self.talk.send().await?;
        Ok(authenticated)
    }
}

/// How a proof begins.
enum Begun {
    /// It is over: a certificate was enough.
    Proved(Authenticated),
    /// By SCRAM, in earnest or in pretence.
    Scram { exchange: Exchange, fingerprint: u64 },
}

/// Why there is no proof.
enum ScramFailure {
    Scram(ScramError),
    Other(LoginFailure),
}

impl From<ScramError> for ScramFailure {
    fn from(error: ScramError) -> Self {
        Self::Scram(error)
    }
}

impl<E: Into<LoginFailure>> From<E> for ScramFailure {
    fn from(error: E) -> Self {
        Self::Other(error.into())
    }
}

/// The proof by the certificate that TLS has verified. `Err` holds what is left to be proved by SCRAM.
fn by_certificate(
    identity: Identity,
    talk: &Conversation,
) -> Result<Authenticated, Result<Identity, Refusal>> {
    let name = talk.stream.peer_certificate().as_ref().and_then(common_name);
    identity.prove_by_certificate(name.as_deref()).map_err(|unproved| match unproved {
        Unproved::NeedsScram(identity) => Ok(identity),
        Unproved::Refused(refusal) => Err(refusal),
    })
}

/// A whole SCRAM exchange, but for the server's last message.
async fn scram(talk: &mut Conversation, exchange: Exchange) -> Result<(Authenticated, String), ScramFailure> {
    put_authentication_sasl(&mut talk.output, exchange.mechanisms());
    talk.send().await?;
    let initial = talk.response(CLIENT_MESSAGE_BYTES_MAX).await?;
    let initial = parse_sasl_initial(&initial)?;
    let first = match initial.data {
        Some(first) => first.to_vec(),
        None => {
            put_authentication_sasl_continue(&mut talk.output, &[]);
            talk.send().await?;
            talk.response(CLIENT_MESSAGE_BYTES_MAX).await?
        }
    };
    let (challenge, server_first) = exchange.begin(initial.mechanism, &first, &nonce()?)?;
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
    async fn hold_back(&self, fingerprint: u64, succeeded: bool) {
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
