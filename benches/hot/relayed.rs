//! Messages on their way through `track`, as a session passes them on.

use std::hint::black_box;

use anyhow::{Result, anyhow, ensure};
use tenantry::ids::ClientId;
use tenantry::track::{
    ClientState, Exchange, Params, ServerState, Settings, Sink, StatementCache, is_worth_a_lease,
};

/// A client, a server and the exchange between them.
struct Talk {
    client: ClientState,
    server: ServerState,
    texts: StatementCache,
    exchange: Exchange,
    out: Vec<u8>,
}

impl Talk {
    fn new() -> Self {
        let params = [("application_name", "app"), ("TimeZone", "UTC"), ("DateStyle", "ISO, MDY")];
        let params = params.map(|(name, value)| (name.into(), value.into()));
        let settings = Settings { params: Params::new(params.to_vec()).into(), extras: Vec::new().into() };
        let mut client = ClientState::nobody(ClientId(1));
        client.settings = settings.clone();
        client.max_statements = 1_000;
        Self {
            client,
            server: ServerState::new(settings, 200),
            texts: StatementCache::default(),
            exchange: Exchange::default(),
            out: Vec::new(),
        }
    }

    /// One lease: a request, its answer, and whether it is over.
    fn lease(&mut self, request: &[u8], answer: &[u8]) -> Result<()> {
        self.out.clear();
        self.exchange.begin(&self.client, &mut self.server, &mut self.out);
        let mut sink = Sink::new(request, &mut self.out);
        let mut refused = Vec::new();
        let parts = (&mut self.client, &mut self.server, &mut self.texts);
        self.exchange
            .client_bytes(parts, request, &mut sink, &mut refused)
            .map_err(|violation| anyhow!("{violation:?}"))?;
        black_box(sink.finish());
        self.answered(answer)?;
        ensure!(self.exchange.is_over(&self.server), "the lease is not over");
        self.exchange.clear();
        Ok(())
    }

    fn answered(&mut self, answer: &[u8]) -> Result<()> {
        self.out.clear();
        let mut sink = Sink::new(answer, &mut self.out);
        self.exchange
            .server_bytes(&mut self.client, &mut self.server, answer, &mut sink)
            .map_err(|fault| anyhow!("{fault:?}"))?;
        black_box(sink.finish());
        Ok(())
    }
}

pub(crate) fn simple(count: u32) -> Result<()> {
    let request = message(b'Q', b"SELECT 1\0");
    let answer = [message(b'T', &description()), row(), complete(), ready()].concat();
    repeat(count, &request, &answer)
}

pub(crate) fn extended(count: u32) -> Result<()> {
    let request = [
        message(b'P', b"\0SELECT 1\0\0\0"),
        message(b'B', b"\0\0\0\0\0\0\0\0"),
        message(b'D', b"P\0"),
        message(b'E', b"\0\0\0\0\0"),
        message(b'S', b""),
    ];
    let answer =
        [message(b'1', b""), message(b'2', b""), message(b'T', &description()), row(), complete(), ready()];
    repeat(count, &request.concat(), &answer.concat())
}

pub(crate) fn prepared(count: u32) -> Result<()> {
    let mut talk = Talk::new();
    let prepare = [message(b'P', b"one\0SELECT 1\0\0\0"), message(b'S', b"")].concat();
    talk.lease(&prepare, &[message(b'1', b""), ready()].concat())?;
    let request =
        [message(b'B', b"\0one\0\0\0\0\0\0\0"), message(b'E', b"\0\0\0\0\0"), message(b'S', b"")].concat();
    let answer = [message(b'2', b""), row(), complete(), ready()].concat();
    (0..count).try_for_each(|_| talk.lease(&request, &answer))
}

pub(crate) fn rows(count: u32) -> Result<()> {
    let mut talk = Talk::new();
    let request = message(b'Q', b"SELECT many\0");
    let rows = [row().repeat(100), complete(), ready()].concat();
    let first = message(b'T', &description());
    (0..count).try_for_each(|_| talk.lease(&request, &[&first[..], &rows[..]].concat()))
}

pub(crate) fn first_message(count: u32) -> Result<()> {
    let request = message(b'Q', b"SELECT 1\0");
    for _ in 0..count {
        ensure!(is_worth_a_lease(black_box(&request)).is_ok_and(|worth| worth), "it is not recognised");
    }
    Ok(())
}

fn repeat(count: u32, request: &[u8], answer: &[u8]) -> Result<()> {
    let mut talk = Talk::new();
    (0..count).try_for_each(|_| talk.lease(request, answer))
}

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX).to_be_bytes();
    [&[tag], length.as_slice(), body].concat()
}

/// One column, an int4 named `?column?`.
fn description() -> Vec<u8> {
    [b"\0\x01?column?\0".as_slice(), &[0; 6], &[0, 0, 0, 23], &[0, 4], &[0xff; 4], &[0, 0]].concat()
}

fn row() -> Vec<u8> {
    message(b'D', b"\0\x01\0\0\0\x011")
}

fn complete() -> Vec<u8> {
    message(b'C', b"SELECT 1\0")
}

fn ready() -> Vec<u8> {
    message(b'Z', b"I")
}
