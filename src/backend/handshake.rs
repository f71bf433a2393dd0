//! The messages of a server login after the startup packet.
//!
//! Owns authentication and greeting. No password ever leaves the proxy: SCRAM proves it, cleartext and MD5 are refused.
//!
//! ```text
//! startup ─► NegotiateProtocolVersion, if we asked for more than the server has; then
//!        ├─► Ok ───────────────────────────────────────────┐
//!        └─► SASL ─► SASLContinue ─► SASLFinal (proven) ─► Ok ─► ParameterStatus*, BackendKeyData, ReadyForQuery
//! ```

use super::error::LoginFailure;
use super::link::{Incoming, Link, server_error};
use super::profile::Profile;
use crate::auth::scram_client::{BindingPolicy, NONCE_BYTES, Proven, ScramClient, ScramError, choose};
use crate::config::settings::ChannelBinding;
use crate::wire::messages::{
    Authentication, parse_authentication, parse_backend_key_data, parse_negotiate_protocol_version,
    parse_parameter_status, put_sasl_initial_response, put_sasl_response,
};
use crate::wire::startup::ProtocolVersion;

/// What a server says about itself before its first query.
#[derive(Debug, Default)]
pub(super) struct Greeting {
    pub(super) parameters: Vec<(Box<str>, Box<str>)>,
    pub(super) pid: u32,
    pub(super) secret: Box<[u8]>,
}

/// Proves the profile to the server, as far as the server asks for it.
pub(super) async fn authenticate(link: &mut Link, profile: &Profile) -> Result<(), LoginFailure> {
    let policy = match profile.connector().endpoint().channel_binding {
        ChannelBinding::Disable => BindingPolicy::Never,
        ChannelBinding::Prefer => BindingPolicy::Prefer,
        ChannelBinding::Require => BindingPolicy::Require,
    };
    let request = first_authentication(link, profile.connector().protocol()).await?;
    match parse(&request)? {
        // A server that asks for nothing proves nothing either.
        Authentication::Ok if policy == BindingPolicy::Require => {
            Err(LoginFailure::Scram(ScramError::BindingRequired))
        }
        Authentication::Ok => Ok(()),
        Authentication::Sasl(offered) => {
            let end_point = link.stream().channel_binding();
            let binding = choose(offered, end_point, policy).map_err(LoginFailure::Scram)?;
            let mut nonce = [0; NONCE_BYTES];
            aws_lc_rs::rand::fill(&mut nonce).map_err(|_| LoginFailure::Protocol("no randomness"))?;
            let _proven: Proven = prove(link, profile, ScramClient::new(&nonce, binding)).await?;
            let done = next_authentication(link, false).await?;
            match parse(&done)? {
                Authentication::Ok => Ok(()),
                _ => Err(LoginFailure::Protocol("no AuthenticationOk after SCRAM")),
            }
        }
        Authentication::CleartextPassword => Err(LoginFailure::Method("a cleartext password")),
        Authentication::Md5Password { .. } => Err(LoginFailure::Method("an MD5 password")),
        Authentication::SaslContinue(_) | Authentication::SaslFinal(_) => {
            Err(LoginFailure::Protocol("an answer to a SASL exchange that was not begun"))
        }
        Authentication::Other(7..=9) => Err(LoginFailure::Method("GSSAPI or SSPI")),
        Authentication::Other(_) => Err(LoginFailure::Method("an unknown authentication")),
    }
}

/// Reads on until the server is ready, and takes what came with that.
pub(super) async fn greet(link: &mut Link) -> Result<Greeting, LoginFailure> {
    let mut greeting = Greeting::default();
    let mut ready = false;
    // Asynchronous messages may have arrived together with ReadyForQuery; the relay must find an empty stream.
    while !ready || !link.is_drained() {
        let message = link.next().await?;
        match message.tag {
            b'S' => greeting.note_parameter(&message.body)?,
            b'K' if !ready => greeting.note_key(&message.body)?,
            b'Z' if !ready && message.body == b"I" => ready = true,
            b'N' | b'A' => {}
            b'E' => return Err(server_error(&message.body, false)),
            _ => return Err(LoginFailure::Protocol("unexpected message before ReadyForQuery")),
        }
    }
    Ok(greeting)
}

impl Greeting {
    fn note_parameter(&mut self, body: &[u8]) -> Result<(), LoginFailure> {
        let (name, value) =
            parse_parameter_status(body).map_err(|_| LoginFailure::Protocol("malformed ParameterStatus"))?;
        let (name, value) = (String::from_utf8_lossy(name), String::from_utf8_lossy(value));
        if let Some((_, old)) = self.parameters.iter_mut().find(|(known, _)| **known == *name) {
            *old = value.into();
            return Ok(());
        }
        if self.parameters.len() >= PARAMETERS_MAX {
            return Err(LoginFailure::Protocol("too many ParameterStatus messages"));
        }
        self.parameters.push((name.into(), value.into()));
        Ok(())
    }

    fn note_key(&mut self, body: &[u8]) -> Result<(), LoginFailure> {
        let (pid, secret) =
            parse_backend_key_data(body).map_err(|_| LoginFailure::Protocol("malformed BackendKeyData"))?;
        self.pid = pid;
        self.secret = secret.into();
        Ok(())
    }
}

/// The SCRAM exchange.
async fn prove(link: &mut Link, profile: &Profile, client: ScramClient) -> Result<Proven, LoginFailure> {
    let password = profile.password().ok_or(LoginFailure::NoPassword)?;
    let mut out = Vec::new();
    put_sasl_initial_response(&mut out, client.mechanism(), client.first_message().as_bytes());
    link.send(&out).await?;
    let message = next_authentication(link, false).await?;
    let Authentication::SaslContinue(server_first) = parse(&message)? else {
        return Err(LoginFailure::Protocol("no SASLContinue in the SCRAM exchange"));
    };
    let challenge = client.challenge(server_first).map_err(LoginFailure::Scram)?;
    let keys = profile
        .keys()
        .keys(profile.connector().derivations(), password, challenge.salt(), challenge.iterations())
        .await
        .ok_or_else(|| LoginFailure::Closed(Some(std::io::Error::other("the runtime is shutting down"))))?;
    let (answer, outcome) = challenge.answer(&keys);
    out.clear();
    put_sasl_response(&mut out, answer.as_bytes());
    link.send(&out).await?;
    let message = next_authentication(link, false).await?;
    match parse(&message)? {
        Authentication::SaslFinal(server_final) => outcome.verify(server_final).map_err(LoginFailure::Scram),
        // A server that lets us in without its own proof does not know the verifier.
        Authentication::Ok => Err(LoginFailure::Scram(ScramError::Signature)),
        _ => Err(LoginFailure::Protocol("no SASLFinal in the SCRAM exchange")),
    }
}

/// As [`next_authentication`], for the first message after the startup packet. A server that does not speak the version
/// we asked for says so before anything else (PostgreSQL manual, "Message Flow"), and the login goes on with the one it
/// names. What depends on the version for us is the length of the cancel key, which the key itself tells.
async fn first_authentication(link: &mut Link, asked: ProtocolVersion) -> Result<Vec<u8>, LoginFailure> {
    let first = link.next().await?;
    if first.tag != b'v' {
        return authentication_of(first, link, true).await;
    }
    let (spoken, unknown_options) = parse_negotiate_protocol_version(&first.body)
        .map_err(|_| LoginFailure::Protocol("malformed NegotiateProtocolVersion"))?;
    if spoken >= asked || unknown_options > 0 {
        return Err(LoginFailure::Protocol(
            "a NegotiateProtocolVersion for something that was not asked for",
        ));
    }
    next_authentication(link, true).await
}

/// The body of the next `R` message; notices are passed over.
async fn next_authentication(link: &mut Link, early: bool) -> Result<Vec<u8>, LoginFailure> {
    let message = link.next().await?;
    authentication_of(message, link, early).await
}

/// The body of this message if it is an `R`, or of the next one.
async fn authentication_of(
    mut message: Incoming,
    link: &mut Link,
    early: bool,
) -> Result<Vec<u8>, LoginFailure> {
    loop {
        match message.tag {
            b'R' => return Ok(message.body),
            b'E' => return Err(server_error(&message.body, early)),
            b'N' => message = link.next().await?,
            _ => return Err(LoginFailure::Protocol("unexpected message during authentication")),
        }
    }
}

fn parse(body: &[u8]) -> Result<Authentication<'_>, LoginFailure> {
    parse_authentication(body).map_err(|_| LoginFailure::Protocol("malformed authentication request"))
}

/// Parameters one server may report. Postgres reports about 15; extensions may add theirs.
const PARAMETERS_MAX: usize = 200;
