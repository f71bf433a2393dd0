//! Clients, their proxy and the servers: plays scripts as `session::leased` would, in a random order.
//!
//! After each step the world checks what must hold: a lease ends only on a server that is idle and silent, a client sees
//! only texts of its own, the conversation says that it is over only when it is.

use std::collections::BTreeMap;

use tenantry::ids::ClientId;
use tenantry::track::{
    ClientState, Exchange, Params, ServerState, Settings, Sink, StatementCache, is_worth_a_lease,
    unleased_bytes,
};

use super::backend::{Backend, Nature};
use super::rng::{Rng, env};

/// Where a client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Parked,
    Waiting,
    Leased(usize),
    Over,
}

/// One client as the proxy has it.
pub(super) struct Client {
    pub(super) state: ClientState,
    exchange: Exchange,
    pub(super) phase: Phase,
    carry: Vec<u8>,
    discard: usize,
    leaving: bool,
    /// What it has written and the proxy has not read.
    pub(super) unsent: Vec<u8>,
    /// What it has read.
    pub(super) received: Vec<u8>,
}

/// One server as the proxy has it, and the backend behind it.
pub(super) struct Server {
    state: ServerState,
    carry: Vec<u8>,
    backend: Backend,
    to_backend: Vec<u8>,
    from_backend: Vec<u8>,
    leased: bool,
}

/// All of them.
pub(super) struct World {
    pub(super) rng: Rng,
    pub(super) clients: Vec<Client>,
    servers: Vec<Server>,
    cache: StatementCache,
    statements_max: usize,
    nature: Nature,
    pub(super) steps: u64,
    /// Servers that were closed because the order of answers was in doubt.
    pub(super) suspects: u64,
    /// Prints what goes through the proxy.
    traces: bool,
    /// A client may confuse the order of answers so far that it loses its server.
    pub(super) tolerates_faults: bool,
    /// How often that happened.
    pub(super) faults: u64,
}

/// The settings of the proxy's own logins.
pub(super) fn login() -> BTreeMap<String, String> {
    let pairs = [("application_name", "tenantry"), ("TimeZone", "UTC"), ("DateStyle", "ISO")];
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}

/// Settings as the proxy knows them.
pub(super) fn settings(values: &BTreeMap<String, String>) -> Settings {
    let pairs = |reported: bool| {
        let wanted = values.iter().filter(move |(name, _)| name.contains('.') != reported);
        wanted.map(|(name, value)| (name.as_str().into(), value.as_str().into())).collect::<Vec<_>>()
    };
    Settings { params: Params::new(pairs(true)).into(), extras: pairs(false).into() }
}

impl World {
    pub(super) fn new(mut rng: Rng, reports_at_once: bool) -> Self {
        let noise = rng.chance(50).then(|| rng.clone());
        let nature = Nature { login: login(), reports_at_once, noise };
        let statements_max = *rng.pick(&[1, 2, 3, 100]);
        let servers = 1 + rng.below(3);
        let mut world = Self {
            rng,
            clients: Vec::new(),
            servers: Vec::new(),
            cache: StatementCache::default(),
            statements_max,
            nature,
            steps: 0,
            suspects: 0,
            traces: env("TENANTRY_SIM_TRACE").is_some(),
            tolerates_faults: false,
            faults: 0,
        };
        world.servers = (0..servers).map(|_| world.server()).collect();
        world
    }

    fn server(&self) -> Server {
        Server {
            state: ServerState::new(settings(&login()), self.statements_max),
            carry: Vec::new(),
            backend: Backend::new(self.nature.clone()),
            to_backend: Vec::new(),
            from_backend: Vec::new(),
            leased: false,
        }
    }

    pub(super) fn add_client(&mut self, login: &BTreeMap<String, String>) {
        let id = ClientId(self.clients.len() as u64 + 1);
        let mut state = ClientState::nobody(id);
        state.settings = settings(login);
        let own = login.iter().filter(|(name, value)| self::login().get(*name) != Some(value));
        let own: Vec<_> = own.map(|(name, value)| (name.as_str().into(), value.as_str().into())).collect();
        state.startup = own.into();
        state.max_statements = 20;
        self.clients.push(Client {
            state,
            exchange: Exchange::default(),
            phase: Phase::Parked,
            carry: Vec::new(),
            discard: 0,
            leaving: false,
            unsent: Vec::new(),
            received: Vec::new(),
        });
    }

    /// One random step. Returns whether anything was there to be done.
    pub(super) fn step(&mut self) -> bool {
        self.steps += 1;
        let (clients, servers) = (self.clients.len(), self.servers.len());
        let total = clients * 3 + servers;
        let first = self.rng.below(total);
        (first..first + total).any(|action| match action % total {
            action if action < clients => self.read_client(action),
            action if action < clients * 2 => self.read_server(action - clients),
            action if action < clients * 3 => self.grant(action - clients * 2),
            action => self.run_backend(action - clients * 3),
        })
    }

    /// Whether nothing is on its way to or from this client.
    pub(super) fn is_settled(&self, client: usize) -> bool {
        let client = self.client(client);
        client.unsent.is_empty()
            && match client.phase {
                Phase::Parked | Phase::Over => true,
                Phase::Waiting => false,
                Phase::Leased(server) => {
                    let server = &self.servers[server];
                    server.to_backend.is_empty() && server.from_backend.is_empty() && !server.backend.dead
                }
            }
    }

    pub(super) fn client(&self, client: usize) -> &Client {
        &self.clients[client]
    }

    /// A random piece of what waits, mostly all of it.
    fn piece(rng: &mut Rng, from: &mut Vec<u8>) -> Vec<u8> {
        let len = if rng.chance(40) { from.len() } else { 1 + rng.below(from.len().min(40)) };
        from.drain(..len).collect()
    }

    fn run_backend(&mut self, index: usize) -> bool {
        let server = &mut self.servers[index];
        if server.to_backend.is_empty() {
            return false;
        }
        let bytes = Self::piece(&mut self.rng, &mut server.to_backend);
        server.backend.feed(&bytes);
        server.from_backend.append(&mut server.backend.sent);
        true
    }

    fn read_client(&mut self, index: usize) -> bool {
        let client = &mut self.clients[index];
        if client.unsent.is_empty() || client.leaving || client.phase == Phase::Over {
            return false;
        }
        let read = Self::piece(&mut self.rng, &mut client.unsent);
        match client.phase {
            Phase::Parked => self.unleased(index, read),
            Phase::Waiting => client.carry.extend_from_slice(&read),
            Phase::Leased(server) => {
                let mut input = std::mem::take(&mut client.carry);
                input.extend_from_slice(&read);
                self.feed(index, server, &input, Vec::new());
                self.end_if_over(index, server);
            }
            Phase::Over => {}
        }
        true
    }

    /// As `Session::take_unleased` does.
    fn unleased(&mut self, index: usize, mut read: Vec<u8>) {
        let client = &mut self.clients[index];
        let dropped = client.discard.min(read.len());
        client.discard -= dropped;
        read.drain(..dropped);
        if client.discard > 0 {
            return;
        }
        let mut input = std::mem::take(&mut client.carry);
        input.append(&mut read);
        let done = unleased_bytes(&input, &mut client.received).expect("a script breaks no rule");
        client.discard = done.discard;
        client.carry = input.split_off(done.consumed);
        if done.terminated {
            client.phase = Phase::Over;
        } else if is_worth_a_lease(&client.carry).expect("a script breaks no rule") {
            client.phase = Phase::Waiting;
        }
    }

    fn grant(&mut self, index: usize) -> bool {
        if self.client(index).phase != Phase::Waiting {
            return false;
        }
        let free: Vec<usize> =
            (0..self.servers.len()).filter(|server| !self.servers[*server].leased).collect();
        if free.is_empty() {
            return false;
        }
        let server = *self.rng.pick(&free);
        let client = &mut self.clients[index];
        client.phase = Phase::Leased(server);
        self.servers[server].leased = true;
        let mut out = Vec::new();
        client.exchange.begin(&client.state, &mut self.servers[server].state, &mut out);
        let input = std::mem::take(&mut client.carry);
        self.feed(index, server, &input, out);
        self.end_if_over(index, server);
        true
    }

    /// As `Session::feed` does.
    fn feed(&mut self, index: usize, at: usize, input: &[u8], mut out: Vec<u8>) {
        let (client, server) = (&mut self.clients[index], &mut self.servers[at]);
        let mut sink = Sink::new(input, &mut out);
        let fed = client
            .exchange
            .client_bytes(
                (&mut client.state, &mut server.state, &mut self.cache),
                input,
                &mut sink,
                &mut client.received,
            )
            .expect("a script breaks no rule");
        let bytes = sink.finish();
        if self.traces {
            eprintln!("client {index} > {:?}", bytes.escape_ascii().to_string());
        }
        server.to_backend.extend_from_slice(bytes);
        client.leaving = fed.terminated;
        if !fed.terminated {
            client.carry.extend_from_slice(&input[fed.consumed..]);
        }
        self.settle(index, at);
    }

    /// As `Session::read_server` does.
    fn read_server(&mut self, index: usize) -> bool {
        let client = &mut self.clients[index];
        let Phase::Leased(at) = client.phase else { return false };
        let server = &mut self.servers[at];
        if server.from_backend.is_empty() {
            if server.backend.dead {
                self.lose(index, at);
                return true;
            }
            return false;
        }
        let read = Self::piece(&mut self.rng, &mut server.from_backend);
        let mut input = std::mem::take(&mut server.carry);
        input.extend_from_slice(&read);
        let mut out = Vec::new();
        let mut sink = Sink::new(&input, &mut out);
        let (state, server_state) = (&mut client.state, &mut server.state);
        let turn = match client.exchange.server_bytes(state, server_state, &input, &mut sink) {
            Ok(turn) => turn,
            Err(fault) => {
                let doubted = server_state.suspect && self.tolerates_faults;
                assert!(doubted, "client {index} lost its server: {fault:?}");
                self.faults += 1;
                self.lose(index, at);
                return true;
            }
        };
        let bytes = sink.finish();
        if self.traces {
            eprintln!(
                "client {index} < {:?} of {:?}",
                bytes.escape_ascii().to_string(),
                read.escape_ascii().to_string()
            );
        }
        client.received.extend_from_slice(bytes);
        server.carry = input[turn.consumed..].to_vec();
        self.settle(index, at);
        let client = &mut self.clients[index];
        let kept = std::mem::take(&mut client.carry);
        if !client.leaving {
            self.feed(index, at, &kept, Vec::new());
        }
        self.end_if_over(index, at);
        true
    }

    /// As `Session::settle` does.
    fn settle(&mut self, index: usize, at: usize) {
        let (client, server) = (&mut self.clients[index], &mut self.servers[at]);
        let mut out = Vec::new();
        client.exchange.settle(&client.state, &mut server.state, &mut out);
        if self.traces && !out.is_empty() {
            eprintln!("client {index} >> {:?}", out.escape_ascii().to_string());
        }
        server.to_backend.append(&mut out);
    }

    /// The server is gone, and the client with it.
    fn lose(&mut self, index: usize, at: usize) {
        let client = &mut self.clients[index];
        client.phase = Phase::Over;
        client.unsent.clear();
        self.servers[at] = self.server();
    }

    /// As `Session::is_over` and `Session::end_lease` do in transaction mode.
    fn end_if_over(&mut self, index: usize, at: usize) {
        let (client, server) = (&mut self.clients[index], &mut self.servers[at]);
        let over = client.exchange.is_over(&server.state) && server.carry.is_empty();
        let over = over && !server.state.is_unsettled();
        if client.leaving && client.exchange.is_exhausted(&server.state) {
            client.phase = Phase::Over;
        } else if over && !server.state.pinned {
            if std::mem::take(&mut server.state.settings_changed) {
                client.state.settings.params = server.state.settings.params.clone();
            }
            client.phase = if server.state.lost_settings { Phase::Over } else { Phase::Parked };
        } else {
            return;
        }
        client.exchange.clear();
        self.suspects += u64::from(server.state.suspect);
        if over && !server.state.suspect {
            self.release(at);
        } else {
            self.servers[at] = self.server();
        }
        if self.client(index).phase == Phase::Parked {
            // `carry_is_fresh`.
            self.unleased(index, Vec::new());
        }
    }

    /// Whether a client keeps its server though nothing is outstanding, because of what it has left there.
    pub(super) fn is_kept(&self, client: usize) -> bool {
        let client = self.client(client);
        let Phase::Leased(server) = client.phase else { return false };
        let state = &self.servers[server].state;
        state.pinned && client.exchange.is_over(state)
    }

    fn release(&mut self, at: usize) {
        let server = &mut self.servers[at];
        // What brings no answer (the rest of a COPY that has failed, Flush) may still be on its way.
        server.backend.feed(&std::mem::take(&mut server.to_backend));
        let idle = server.from_backend.is_empty() && server.backend.is_idle();
        assert!(idle, "a lease ended on {:?}", server.backend);
        server.leased = false;
    }
}
