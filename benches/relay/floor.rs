//! The floor: a bare relay that copies bytes and looks at none of them.
//!
//! Owns the process that `--floor` starts: one thread, one epoll, a Postgres connection for each client. Anything that
//! reads and forwards bytes pays at least this much; what a proxy costs beyond it is its own doing.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Result, bail};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use slab::Slab;

/// The life of a relay process. It ends when it is killed.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let [port, upstream] = arguments else { bail!("--floor needs two ports") };
    let local = |port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let upstream = local(upstream.parse()?);
    let mut poll = Poll::new()?;
    let mut listener = TcpListener::bind(local(port.parse()?))?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut events = Events::with_capacity(1_024);
    let mut pairs: Slab<Pair> = Slab::new();
    let mut buffer = vec![0; BUFFER];
    loop {
        match poll.poll(&mut events, None) {
            // strace attaches.
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            polled => polled?,
        }
        for event in &events {
            if event.token() == LISTENER {
                accept(&listener, upstream, &poll, &mut pairs)?;
                continue;
            }
            let Token(number) = event.token();
            let key = number / 2;
            let Some(pair) = pairs.get_mut(key) else { continue };
            let Pair { client, server } = pair;
            let (this, other) = if number.is_multiple_of(2) { (client, server) } else { (server, client) };
            let mut lives = Ok(true);
            if event.is_writable() && !this.rest.is_empty() {
                lives = this.flush().and_then(|()| pump(other, this, &mut buffer));
            }
            if event.is_readable() && matches!(lives, Ok(true)) {
                lives = pump(this, other, &mut buffer);
            }
            if !matches!(lives, Ok(true)) {
                pairs.remove(key);
            }
        }
    }
}

struct Pair {
    client: End,
    server: End,
}

struct End {
    socket: TcpStream,
    /// What did not fit into the socket when it was written.
    rest: Vec<u8>,
}

impl End {
    fn new(socket: TcpStream) -> io::Result<Self> {
        socket.set_nodelay(true)?;
        Ok(Self { socket, rest: Vec::new() })
    }

    fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.socket.write(bytes) {
                Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.rest.extend_from_slice(bytes);
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        let rest = std::mem::take(&mut self.rest);
        self.write(&rest)
    }
}

/// Copies what has arrived. Returns whether the connection lives on. A read that does not fill the buffer has emptied the
/// socket; one that does is followed by another, since readiness is told once.
fn pump(from: &mut End, to: &mut End, buffer: &mut [u8]) -> io::Result<bool> {
    while to.rest.is_empty() {
        match from.socket.read(buffer) {
            Ok(0) => return Ok(false),
            Ok(read) => {
                to.write(buffer.get(..read).unwrap_or_default())?;
                if read < buffer.len() {
                    break;
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

fn accept(
    listener: &TcpListener,
    upstream: SocketAddr,
    poll: &Poll,
    pairs: &mut Slab<Pair>,
) -> io::Result<()> {
    loop {
        let client = match listener.accept() {
            Ok((client, _)) => client,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        };
        let server = std::net::TcpStream::connect(upstream)?;
        server.set_nonblocking(true)?;
        let mut pair = Pair { client: End::new(client)?, server: End::new(TcpStream::from_std(server))? };
        let entry = pairs.vacant_entry();
        let (both, number) = (Interest::READABLE | Interest::WRITABLE, entry.key() * 2);
        poll.registry().register(&mut pair.client.socket, Token(number), both)?;
        poll.registry().register(&mut pair.server.socket, Token(number + 1), both)?;
        entry.insert(pair);
    }
}

const LISTENER: Token = Token(usize::MAX);
const BUFFER: usize = 64 * 1_024;
