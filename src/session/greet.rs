//! The greeting: what an authenticated client is told before its first query.
//!
//! Owns the startup settings: those Postgres reports and those it does not are both applied on a server once, and the
//! outcome is remembered per tenant, so that most clients are greeted without a server. Must not know how the client
//! proved who it is (`front`).

use std::any::Any;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use super::admission::Admission;
use super::arrival::Arrival;
use super::closing;
use super::life::Session;
use super::registry::ClientCell;
use super::replication;
use crate::error::{ClientError, Fault, Severity, SqlState};
use crate::net::{PortableStream, Stream};
use crate::pool::{Greeting, Lease, Leftover};
use crate::tenant::{PoolMode, Replication, Target, Tenant};
use crate::track::{Bounds, ClientState, Exchange, Extras, ServerFault, Settings, Sink, lexer, params};
use crate::wire::messages;

/// A client that has just proved who it is, on its way to its worker.
pub struct Newcomer {
    /// Its tenant, as the catalog had it when the login began.
    pub tenant: Arc<Tenant>,
    /// The connection.
    pub stream: PortableStream,
    /// Number of the connection in the logs.
    pub request_id: u64,
    /// How many clients its tenant has on other workers.
    pub elsewhere: u32,
    /// Whatever must live as long as the client does (its place among all clients).
    pub place: Box<dyn Any + Send>,
    /// What its session is to be like.
    pub wishes: SessionWishes,
}

/// What a session is to be like.
#[derive(Debug)]
pub struct SessionWishes {
    /// How long it keeps a server.
    pub mode: PoolMode,
    /// Nothing but a replication connection, to a server of its own.
    pub replication: Option<Replication>,
    /// Where its transactions are to go.
    pub target: Target,
    /// When it ends, because the token that opened it is good for no other.
    pub ends_at: Option<tokio::time::Instant>,
    /// 2 or more: the client understands long cancel keys.
    pub protocol_minor: u32,
    /// Settings it asked for.
    pub parameters: Vec<(String, String)>,
    /// What it said behind its login.
    pub unread: Vec<u8>,
    /// The last words of its login, which it has yet to hear: they go in front of the greeting, in one write.
    pub unsent: Vec<u8>,
}

impl std::fmt::Debug for Newcomer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Newcomer").field("tenant", &self.tenant.name).finish_non_exhaustive()
    }
}

/// Why a client is not greeted.
#[derive(Debug)]
pub(super) enum NotGreeted {
    /// It is told.
    Told(Box<ClientError>),
    /// Postgres' own words about a setting.
    ServerSaid(Box<[u8]>),
    /// It is gone.
    Gone,
}

/// Greets a client and makes its session; `None` if it was sent away. Not cancel-safe.
pub async fn greet(admission: Admission, stream: Stream, wishes: SessionWishes) -> Option<Session> {
    let SessionWishes { mode, replication, target, ends_at, protocol_minor, mut parameters, unread, unsent } =
        wishes;
    let goes_to = admission.cell.tenant.replica_reads().of_session(target);
    if goes_to == Target::Replica && replication.is_none() {
        read_only(&mut parameters);
    }
    if let Some(at) = ends_at {
        admission.floor.registry.ends_at(&admission.cell, admission.floor.pool.clock().moment(at));
    }
    let mut arrival = Arrival { stream, admission, mode, target: goes_to, unread };
    let ((settings, startup), mut lease) = match settle_in(&mut arrival, replication, parameters).await {
        Ok(found) => found,
        Err(why) => {
            log_refusal(&arrival.admission.cell, &why);
            send_away(&mut arrival.stream, unsent, &why).await;
            return None;
        }
    };
    let Arrival { mut stream, admission, unread, .. } = arrival;
    let (floor, cell) = (&admission.floor, &admission.cell);
    let server_pid = lease.as_mut().and_then(Lease::server).map(|server| server.pid);
    let key = floor.registry.key(cell, protocol_minor >= 2, server_pid);
    if closing::say(&mut stream, &greeting(unsent, &settings, &key)).await.is_err() {
        if let Some(lease) = lease {
            give_back_after_greeting(lease);
        }
        return None;
    }
    let mut client = ClientState::new(cell.id, settings, floor.max_client_statements.get());
    client.startup = startup;
    client.bounds = cell.tenant.bounds();
    if mode == PoolMode::Transaction {
        client.functions = cell.tenant.functions.clone();
    }
    let mut session = Session::new(stream, admission, client, mode).going_to(target);
    let Some(lease) = lease else { return Some(session.with_carry(&unread)) };
    if replication.is_some() {
        // From here on a reload asks it to leave; one that came while it was greeted did not.
        if let Err(why) = replication::may_replicate(&session.cell.tenant) {
            log_refusal(&session.cell, &why);
            send_away(&mut session.stream, Vec::new(), &why).await;
            return None;
        }
        session.begin_replication(lease, unread);
        return Some(session);
    }
    let mut lease = Some(lease);
    poll_fn(|cx| {
        if let Some(lease) = lease.take() {
            // How it ends is the session's own business.
            let _ = session.begin_lease(cx, lease, &unread);
        }
        Poll::Ready(())
    })
    .await;
    Some(session)
}

/// What the client is greeted with, and the server that it keeps from the beginning on: for replication, and in session
/// mode, where it is told the server's process id.
async fn settle_in(
    arrival: &mut Arrival,
    replication: Option<Replication>,
    parameters: Vec<(String, String)>,
) -> Result<(Greeting, Option<Lease>), NotGreeted> {
    let cell = arrival.admission.cell.clone();
    let wishes = wishes(&cell.tenant.tenant(), &cell.tenant.bounds(), parameters)
        .map_err(|error| NotGreeted::Told(Box::new(error)))?;
    if let Some(kind) = replication {
        let mut lease = replication::open(arrival, kind, &wishes).await?;
        let settings = lease.server().map(|server| server.state.settings.clone()).unwrap_or_default();
        return Ok(((settings, Rc::default()), Some(lease)));
    }
    let known = cell.tenant.greeting(&wishes);
    if let (Some(greeting), PoolMode::Transaction) = (&known, arrival.mode) {
        return Ok((greeting.clone(), None));
    }
    let mut lease = arrival.lease().await?;
    // A replica's servers report other things.
    let known = if lease.tenant().is_reader() { lease.tenant().greeting(&wishes) } else { known };
    let greeting = match known {
        Some(greeting) => greeting,
        None => match learn_in_time(&cell, wishes, &mut lease).await {
            Ok(greeting) => greeting,
            Err(why) => {
                lease.give_back(Leftover::Work);
                return Err(why);
            }
        },
    };
    match arrival.mode {
        PoolMode::Session => Ok((greeting, Some(lease))),
        PoolMode::Transaction => {
            give_back_after_greeting(lease);
            Ok((greeting, None))
        }
    }
}

/// The server has the settings of the client that was greeted.
fn give_back_after_greeting(mut lease: Lease) {
    let ends = lease.server().is_some_and(|server| server.state.limits_others());
    lease.give_back(if ends { Leftover::State } else { Leftover::Nothing });
}

fn log_refusal(cell: &ClientCell, why: &NotGreeted) {
    let reason = match why {
        NotGreeted::Told(error) => error.reason,
        NotGreeted::ServerSaid(_) => "startup_setting",
        NotGreeted::Gone => "disconnected",
    };
    let (name, request_id) = (&cell.tenant.tenant().name, cell.request_id);
    tracing::info!(customer_id = %name, request_id, reason, "client not greeted");
}

/// Tells a client why it cannot stay, without a greeting.
async fn send_away_with(stream: &mut Stream, unsent: Vec<u8>, error: ClientError) {
    send_away(stream, unsent, &NotGreeted::Told(Box::new(error))).await;
}

async fn send_away(stream: &mut Stream, mut words: Vec<u8>, why: &NotGreeted) {
    match why {
        NotGreeted::Told(error) => {
            let fatal = ClientError { severity: Severity::Fatal, ..(**error).clone() };
            messages::put_error(&mut words, &fatal);
        }
        NotGreeted::ServerSaid(body) => messages::put_server_error_as_fatal(&mut words, body),
        NotGreeted::Gone => return,
    }
    closing::say_last(stream, &words).await;
}

/// The greeting, behind what the client has yet to hear of its login.
fn greeting(mut words: Vec<u8>, settings: &Settings, (pid, secret): &(u32, Vec<u8>)) -> Vec<u8> {
    words.reserve(512);
    messages::put_authentication_ok(&mut words);
    for (name, value) in settings.params.iter() {
        messages::put_parameter_status(&mut words, name, value);
    }
    messages::put_backend_key_data(&mut words, *pid, secret);
    messages::put_ready_for_query(&mut words, b'I');
    words
}

/// What a server makes of the wishes, remembered for the next client that has the same. A server that does not answer keeps
/// a newcomer no longer than a queue would.
async fn learn_in_time(cell: &ClientCell, wishes: Extras, lease: &mut Lease) -> Result<Greeting, NotGreeted> {
    let tenant = lease.tenant().clone();
    let before = tenant.base();
    let learned = tokio::time::timeout(tenant.patience(), learn(cell, &wishes, lease)).await;
    let settings = learned.unwrap_or_else(|_| Err(NotGreeted::Told(Box::new(cannot_learn()))))?;
    let greeting = (settings.clone(), startup(&wishes, &settings));
    // Defaults may have changed meanwhile.
    if before == tenant.base() {
        tenant.remember_greeting(wishes, greeting.clone());
    }
    Ok(greeting)
}

/// Who goes to replicas reads only, also where it is the primary that serves it. A client that says otherwise is told by a
/// replica that it cannot.
fn read_only(parameters: &mut Vec<(String, String)>) {
    const READ_ONLY: &str = "default_transaction_read_only";
    if !parameters.iter().any(|(name, _)| name.eq_ignore_ascii_case(READ_ONLY)) {
        parameters.push((READ_ONLY.to_owned(), "on".to_owned()));
    }
}

/// Startup settings in a canonical order, refused where they would leave the tenant.
fn wishes(
    tenant: &Tenant,
    bounds: &Bounds,
    parameters: Vec<(String, String)>,
) -> Result<Extras, ClientError> {
    let mut wishes = Extras::new();
    for (name, value) in parameters {
        let lower = name.to_ascii_lowercase();
        match lower.as_str() {
            "search_path" if same_path(&value, &tenant.search_path) => {}
            "search_path" if stays_inside(&value, bounds) => wishes.push((lower.into(), value.into())),
            "search_path" | "role" | "session_authorization" => {
                return Err(ClientError::fatal(
                    SqlState::INSUFFICIENT_PRIVILEGE,
                    Fault::Client,
                    "outside_tenant",
                    format!("parameter \"{lower}\" cannot be set to \"{value}\" at startup"),
                )
                .with_detail("Role and search_path of a session are its tenant's.")
                .with_hint("Leave the parameter out."));
            }
            _ => wishes.push((lower.into(), value.into())),
        }
    }
    wishes.sort();
    Ok(wishes)
}

/// What RESET goes back to for this client: what it asked for, as the server has understood it.
fn startup(wishes: &Extras, settings: &Settings) -> Rc<Extras> {
    let understood = |name: &str| settings.params.value(name).filter(|_| params::is_settable_reported(name));
    let all: Extras =
        wishes.iter().map(|(name, value)| (name.clone(), understood(name).unwrap_or(value).into())).collect();
    if all.is_empty() { Rc::default() } else { Rc::new(all) }
}

fn stays_inside(path: &str, bounds: &Bounds) -> bool {
    match lexer::split_path(path) {
        Some(schemas) => bounds.allow(schemas.iter().map(String::as_str)),
        None => bounds.schemas.is_none(),
    }
}

fn same_path(a: &str, b: &str) -> bool {
    let plain = |path: &str| -> Vec<String> {
        path.split(',').map(|part| part.trim().trim_matches('"').to_owned()).collect()
    };
    plain(a) == plain(b)
}

/// Applies the wishes on a server and reads what it makes of them.
async fn learn(cell: &ClientCell, wishes: &Extras, lease: &mut Lease) -> Result<Settings, NotGreeted> {
    let tenant = lease.tenant().clone();
    let Some(server) = lease.server() else { return Err(NotGreeted::Gone) };
    let mut client = ClientState::nobody(cell.id);
    let base = tenant.base().unwrap_or_else(|| server.state.settings.params.clone());
    client.settings = desired(&base, wishes);
    let mut exchange = Exchange::default();
    let mut out = Vec::new();
    exchange.begin(&client, &mut server.state, &mut out);
    let lost = || NotGreeted::Told(Box::new(cannot_learn()));
    server.stream.write_all(&out).await.map_err(|_| lost())?;
    let mut input = Vec::new();
    let mut buffer = vec![0_u8; 4096];
    while !exchange.is_over(&server.state) {
        let Ok(read @ 1..) = server.stream.read(&mut buffer).await else {
            return Err(lost());
        };
        input.extend_from_slice(buffer.get(..read).unwrap_or_default());
        out.clear();
        let mut sink = Sink::new(&input, &mut out);
        match exchange.server_bytes(&mut client, &mut server.state, &input, &mut sink) {
            Ok(turn) => drop(input.drain(..turn.consumed)),
            Err(ServerFault::OwnQueryFailed(body)) => return Err(NotGreeted::ServerSaid(body)),
            Err(ServerFault::Protocol(_)) => return Err(lost()),
        }
    }
    // Half a message that nobody asked for: whoever reads on needs its beginning.
    server.carry = input;
    tenant.intern(&mut server.state.settings.params);
    server.state.settings_changed = false;
    client.settings.params = server.state.settings.params.clone();
    Ok(client.settings)
}

/// The tenant's own settings with the wishes on top.
fn desired(base: &Rc<params::Params>, wishes: &Extras) -> Settings {
    let mut settings = Settings { params: base.clone(), extras: Rc::default() };
    let mut extras = Extras::new();
    for (name, value) in wishes {
        if params::is_settable_reported(name) && base.value(name).is_some() {
            Rc::make_mut(&mut settings.params).set(name, value);
        } else {
            extras.push((name.clone(), value.clone()));
        }
    }
    if !extras.is_empty() {
        settings.extras = Rc::new(extras);
    }
    settings
}

fn cannot_learn() -> ClientError {
    ClientError::fatal(
        SqlState::CONNECTION_FAILURE,
        Fault::Server,
        "server_lost",
        "the connection to the database server was lost",
    )
    .with_detail("The server ended it, or did not answer in time, while it was asked what the startup parameters mean.")
    .with_hint("Connect again.")
}

/// Tells a newcomer that its tenant has as many clients as it may have, behind what it has yet to hear of its login.
pub async fn turn_away(stream: &mut Stream, unsent: Vec<u8>, max_clients: u32) {
    let error = ClientError::fatal(
        SqlState::TOO_MANY_CONNECTIONS,
        Fault::Proxy,
        "too_many_clients",
        "too many clients of this tenant",
    )
    .with_detail(format!("The tenant may have {max_clients} clients at the same time."))
    .with_hint("Close connections that are not needed, or raise max_clients.");
    send_away_with(stream, unsent, error).await;
}

/// Tells a newcomer that it comes too early, behind what it has yet to hear of its login.
pub async fn turn_away_early(stream: &mut Stream, unsent: Vec<u8>, retry_us: u64) {
    let error = ClientError::fatal(
        SqlState::TOO_MANY_CONNECTIONS,
        Fault::Proxy,
        "login_rate_limited",
        "the tenant's clients log in too often",
    )
    .with_detail("Its logins_per_second are used up, and so is the delay that is allowed.")
    .with_hint(format!(
        "Connect again after {} ms, and keep connections open: they cost next to nothing here.",
        retry_us.div_ceil(1_000)
    ));
    send_away_with(stream, unsent, error).await;
}

/// Tells a newcomer that its tenant is gone, or that nobody is let in any more, behind what it has yet to hear of its login.
pub async fn turn_away_leaving(stream: &mut Stream, unsent: Vec<u8>) {
    let error = ClientError::fatal(
        SqlState::CANNOT_CONNECT_NOW,
        Fault::Proxy,
        "draining",
        "the proxy is not accepting new clients for this tenant",
    )
    .with_hint("Connect again: another instance may be up already.");
    send_away_with(stream, unsent, error).await;
}
