//! A relay with a fault: passes on everything, and changes a message once in a while.
//!
//! Owns the faults, each of them a bug that a proxy could have. Must not know what is said behind it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

/// A bug of a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Towards Postgres: a setting is given back for a transaction only, so the next one does not have it.
    SettingNotRestored,
    /// Towards Postgres: a Bind comes with the client's name for the statement.
    NameNotMapped,
    /// Towards the client: an answer within a pipeline is missing.
    AnswerSwallowed,
}

/// A running relay.
pub(crate) struct Relay {
    pub(crate) address: SocketAddr,
    /// How often the fault was there.
    pub(crate) faults: Arc<AtomicU64>,
}

/// What both directions of all connections share.
#[derive(Clone)]
struct Mischief {
    fault: Fault,
    /// Occasions so far.
    occasions: Arc<AtomicU64>,
    faults: Arc<AtomicU64>,
}

impl Relay {
    /// Relays to `target` for as long as the test runs.
    pub(crate) async fn start(target: SocketAddr, fault: Fault) -> Self {
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let address = listener.local_addr().unwrap();
        let faults = Arc::new(AtomicU64::new(0));
        let mischief = Mischief { fault, occasions: Arc::default(), faults: faults.clone() };
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let Ok(far) = TcpStream::connect(target).await else { continue };
                near.set_nodelay(true).unwrap();
                far.set_nodelay(true).unwrap();
                let (near_read, near_write) = near.into_split();
                let (far_read, far_write) = far.into_split();
                // A startup packet has no type.
                tokio::spawn(mischief.clone().pass(near_read, far_write, Direction::ToServer));
                tokio::spawn(mischief.clone().pass(far_read, near_write, Direction::ToClient));
            }
        });
        Self { address, faults }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    ToServer,
    ToClient,
}

impl Mischief {
    /// Passes on messages until one side ends.
    async fn pass(self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf, direction: Direction) {
        let mut input = Vec::new();
        let mut is_first = direction == Direction::ToServer;
        loop {
            let mut output = Vec::new();
            let mut done = 0;
            while let Some(length) = length(&input[done..], is_first) {
                let message = &input[done..done + length];
                done += length;
                match self.change(message, direction).filter(|_| !is_first) {
                    Some(changed) => output.extend_from_slice(&changed),
                    None => output.extend_from_slice(message),
                }
                is_first = false;
            }
            input.drain(..done);
            if to.write_all(&output).await.is_err() {
                return;
            }
            match from.read_buf(&mut input).await {
                Ok(0) | Err(_) => {
                    let _ = to.shutdown().await;
                    return;
                }
                Ok(_) => {}
            }
        }
    }

    /// What becomes of a message, if it does not stay the same.
    fn change(&self, message: &[u8], direction: Direction) -> Option<Vec<u8>> {
        let changed = match (self.fault, direction) {
            (Fault::SettingNotRestored, Direction::ToServer) => not_restored(message),
            (Fault::NameNotMapped, Direction::ToServer) => not_mapped(message),
            (Fault::AnswerSwallowed, Direction::ToClient) => swallowed(message),
            _ => None,
        }?;
        let is_due = self.occasions.fetch_add(1, Ordering::Relaxed) % EVERY == EVERY - 1;
        self.faults.fetch_add(u64::from(is_due), Ordering::Relaxed);
        is_due.then_some(changed)
    }
}

/// Length of the whole message that the bytes begin with, if it is there.
fn length(bytes: &[u8], is_first: bool) -> Option<usize> {
    let tag = usize::from(!is_first);
    let length = u32::from_be_bytes(bytes.get(tag..tag + 4)?.try_into().unwrap());
    let length = tag + usize::try_from(length).unwrap();
    (bytes.len() >= length).then_some(length)
}

/// `set_config(name, value, false)` becomes `true`: for the transaction, which is this query.
fn not_restored(message: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(message.get(5..).filter(|_| message[0] == b'Q')?).ok()?;
    let is_own = text.contains("SELECT pg_catalog.set_config(");
    // As long as it was.
    is_own.then(|| [&message[..5], text.replace(",false);", ",true );").as_bytes()].concat())
}

/// `tenantry_5` becomes what a client calls it.
fn not_mapped(message: &[u8]) -> Option<Vec<u8>> {
    let body = message.get(5..).filter(|_| message[0] == b'B')?;
    let mut parts = body.splitn(3, |byte| *byte == 0);
    let (portal, name, rest) = (parts.next()?, parts.next()?, parts.next()?);
    if !name.starts_with(b"tenantry_") {
        return None;
    }
    let body = [portal, b"\0s0\0", rest].concat();
    let length = u32::try_from(body.len() + 4).unwrap();
    Some([b"B", length.to_be_bytes().as_slice(), &body].concat())
}

fn swallowed(message: &[u8]) -> Option<Vec<u8>> {
    matches!(message[0], b'2' | b'C').then(Vec::new)
}

/// How many messages pass for each that does not.
const EVERY: u64 = 200;
