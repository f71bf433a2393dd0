//! One client's login as a type that changes with each stage, so that no path can skip one.
//!
//! Owns the order of stages and what is allowed in each. Must not know how a proof is made (`authenticate`).
//!
//! `Connected` hears a PROXY protocol header from a trusted address, and nothing from others. Then:
//!
//! | `Accepted` hears | answer | then |
//! |---|---|---|
//! | a TLS handshake (TCP, first byte 0x16) | TLS with ALPN `postgresql` | `Accepted`, nothing more may be asked for |
//! | SSLRequest, once | `S` and TLS, or `N` | `Accepted` |
//! | GSSENCRequest, once, before TLS | `N` | `Accepted` |
//! | CancelRequest | none | closed |
//! | StartupMessage | NegotiateProtocolVersion if needed | `Introduced` |
//! | anything else | FATAL | closed |

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::acceptor::Shared;
use super::admitted::Admitted;
use super::conversation::Conversation;
use super::failure::LoginFailure;
use super::introduction::Introduction;
use super::limits::ClientSlot;
use crate::auth::identity::Authenticated;
use crate::config::settings::{Settings, TenantSource, TlsMode};
use crate::net::Stream;
use crate::net::tls::{ServerTls, Start};
use crate::wire::messages::put_negotiate_protocol_version;
use crate::wire::proxy_header::Origin;
use crate::wire::startup::{CancelKey, FirstMessage, StartupPacket};

/// A login in the stage `S`. Its methods are not cancel-safe: the connection closes with the future.
pub(super) struct Handshake<S> {
    pub(super) talk: Conversation,
    pub(super) visit: Visit,
    pub(super) state: S,
}

/// What does not change during a login.
pub(super) struct Visit {
    pub(super) shared: Arc<Shared>,
    /// As they were when the client connected.
    pub(super) settings: Arc<Settings>,
    /// Where the client is: as the load balancer says, if there is one. `None` on a Unix socket.
    pub(super) peer: Option<SocketAddr>,
    pub(super) request_id: u64,
    pub(super) deadline: Instant,
}

/// Connected. Where the client is remains to be seen if a load balancer may stand in front of it.
pub(super) struct Connected;

/// It is known where the client is; it may still ask for encryption.
pub(super) struct Accepted {
    ssl: Request,
    gss: Request,
}

/// Whether a request for encryption may come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Request {
    Possible,
    Over,
}

/// Has said who it wants to be, and has a place among the clients.
pub(super) struct Introduced {
    pub(super) introduction: Introduction,
    pub(super) slot: ClientSlot,
}

/// Has proved it.
pub(super) struct Proved {
    pub(super) introduction: Introduction,
    pub(super) slot: ClientSlot,
    pub(super) authenticated: Authenticated,
}

/// How a connection begins.
pub(super) enum Opening {
    /// With a login.
    Login(Box<Handshake<Introduced>>),
    /// With a cancel request. The connection is closed when that has been carried out: the sender waits for the close.
    Cancel(CancelKey, Conversation),
}

impl<S> Handshake<S> {
    /// The same login in the next stage.
    pub(super) fn next<T>(self, next: impl FnOnce(S) -> T) -> Handshake<T> {
        Handshake { talk: self.talk, visit: self.visit, state: next(self.state) }
    }

    /// Ends the login: tells the client, and hands the failure on.
    pub(super) async fn refuse(self, failure: LoginFailure) -> LoginFailure {
        let Self { talk, visit: _, state } = self;
        // Its place among the clients is free at once, not when the client has read why.
        drop(state);
        talk.refuse(&failure).await;
        failure
    }
}

impl Handshake<Connected> {
    pub(super) const fn new(stream: Stream, visit: Visit, shutdown: CancellationToken) -> Self {
        Self { talk: Conversation::new(stream, shutdown), visit, state: Connected }
    }

    /// Hears from a load balancer where the client is. From a trusted address the header must come: whether bytes are one
    /// cannot be guessed safely.
    pub(super) async fn locate(mut self) -> Result<Handshake<Accepted>, LoginFailure> {
        let proxies = &self.visit.settings.listen.trusted_proxies;
        if self.visit.peer.is_some_and(|peer| proxies.contain(peer.ip())) {
            match self.talk.proxy_header().await {
                Ok(Origin::Client(client)) => self.visit.peer = Some(client),
                Ok(Origin::Sender) => {}
                Err(failure) => return Err(self.refuse(failure).await),
            }
        }
        Ok(self.next(|Connected| Accepted { ssl: Request::Possible, gss: Request::Possible }))
    }
}

impl Handshake<Accepted> {
    /// Encryption, as far as wanted, and the startup packet.
    pub(super) async fn open(mut self) -> Result<Opening, LoginFailure> {
        match self.tls() {
            Some(tls) if self.talk.starts_with_tls().await? => {
                self = self.start_tls(&tls, Start::Direct).await?;
            }
            Some(_) => {}
            None if self.visit.peer.is_some() => self.talk.begin_in_clear().await?,
            // On a Unix socket TLS is what breaks the protocol, and the client is told so in the clear.
            None => {}
        }
        loop {
            let heard = match self.talk.first_message().await {
                Ok(FirstMessage::Cancel(key)) => return Ok(Opening::Cancel(key, self.talk)),
                Ok(FirstMessage::Startup(packet)) => {
                    return self.introduce(&packet).await.map(|login| Opening::Login(Box::new(login)));
                }
                Ok(FirstMessage::SslRequest) => self.hear_ssl_request(),
                Ok(FirstMessage::GssEncRequest) => self.hear_gss_request(),
                Err(failure) => Err(failure),
            };
            self = match heard {
                Ok(Answer::StartTls(tls)) => {
                    self.talk.output.push(b'S');
                    self.talk.send().await?;
                    self.start_tls(&tls, Start::Requested).await?
                }
                Ok(Answer::Decline) => {
                    self.talk.output.push(b'N');
                    self.talk.send().await?;
                    self
                }
                Err(failure) => return Err(self.refuse(failure).await),
            };
        }
    }

    fn hear_ssl_request(&mut self) -> Result<Answer, LoginFailure> {
        if self.state.ssl == Request::Over {
            return Err(LoginFailure::Misplaced("SSLRequest"));
        }
        self.state.ssl = Request::Over;
        self.talk.expect_silence()?;
        Ok(self.tls().map_or(Answer::Decline, Answer::StartTls))
    }

    /// We never do GSSAPI encryption. The client goes on with SSLRequest or its startup packet.
    fn hear_gss_request(&mut self) -> Result<Answer, LoginFailure> {
        if self.state.gss == Request::Over {
            return Err(LoginFailure::Misplaced("GSSENCRequest"));
        }
        self.state.gss = Request::Over;
        self.talk.expect_silence()?;
        Ok(Answer::Decline)
    }

    /// The TLS to offer this client: none on Unix sockets, as in PostgreSQL.
    fn tls(&self) -> Option<ServerTls> {
        let offered = self.visit.peer.is_some() && self.visit.settings.listen.tls.mode != TlsMode::Disable;
        if offered { self.visit.shared.tls.load().as_ref().clone() } else { None }
    }

    async fn start_tls(self, tls: &ServerTls, start: Start) -> Result<Self, LoginFailure> {
        let state = Accepted { ssl: Request::Over, gss: Request::Over };
        Ok(Self { talk: self.talk.secure(tls, start).await?, visit: self.visit, state })
    }

    async fn introduce(mut self, packet: &StartupPacket) -> Result<Handshake<Introduced>, LoginFailure> {
        if packet.needs_negotiation() {
            let unknown: Vec<_> = packet.unknown_options.iter().map(String::as_str).collect();
            let minor = packet.protocol.minor_to_speak();
            put_negotiate_protocol_version(&mut self.talk.output, minor.into(), &unknown);
        }
        match self.visit.receive(packet, self.talk.stream.is_tls()) {
            Ok(introduced) => Ok(self.next(|_| introduced)),
            Err(failure) => Err(self.refuse(failure).await),
        }
    }
}

impl Visit {
    /// What can be judged before the client has proved anything, without a look at the catalog.
    fn receive(&self, packet: &StartupPacket, is_tls: bool) -> Result<Introduced, LoginFailure> {
        let listen = &self.settings.listen;
        if listen.tls.mode == TlsMode::Require && self.peer.is_some() && !is_tls {
            return Err(LoginFailure::TlsRequired);
        }
        let introduction = Introduction::read(packet)?;
        if introduction.tenant.is_some() && !self.settings.tenant_sources.contains(&TenantSource::Option) {
            return Err(LoginFailure::OptionSwitchedOff);
        }
        let max = listen.max_clients;
        let slot = self.shared.clients.claim(max).ok_or(LoginFailure::TooManyClients { max })?;
        Ok(Introduced { introduction, slot })
    }
}

impl Handshake<Proved> {
    /// The last check, and the crossing to the worker.
    pub(super) async fn admit(self) -> Result<Admitted, LoginFailure> {
        let tenant = self.state.authenticated.tenant().clone();
        let database = match self.state.introduction.wanted_database() {
            None => tenant.database.to_string(),
            Some(wanted) if tenant.allows_database(wanted) => wanted.to_owned(),
            Some(wanted) => {
                let (user, database) = (self.state.introduction.user.clone(), wanted.to_owned());
                let failure = LoginFailure::UnknownDatabase { user, database };
                return Err(self.refuse(failure).await);
            }
        };
        if self.state.introduction.replication.is_some() && !tenant.replication {
            return Err(self.refuse(LoginFailure::Replication).await);
        }
        let Self { talk, visit, state } = self;
        let ends_sessions = visit.settings.issuer.as_ref().is_some_and(|issuer| issuer.ends_sessions);
        let valid_for = state.authenticated.valid_for().filter(|_| ends_sessions);
        let ends_at = valid_for.and_then(|span| Instant::now().checked_add(span));
        let (stream, unread, unsent) = talk.into_parts();
        Ok(Admitted {
            tenant,
            user: state.authenticated.user().clone(),
            mode: state.authenticated.mode(),
            ends_at,
            replication: state.introduction.replication,
            target: state.introduction.target.unwrap_or_default(),
            database,
            stream: stream.into_portable().map_err(|_| LoginFailure::Disconnected)?,
            protocol_minor: state.introduction.protocol_minor.into(),
            parameters: state.introduction.settings,
            unread,
            unsent,
            peer: visit.peer,
            request_id: visit.request_id,
            slot: state.slot,
        })
    }
}

/// What to say to a request for encryption.
enum Answer {
    StartTls(ServerTls),
    Decline,
}
