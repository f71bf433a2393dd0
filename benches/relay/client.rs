//! A lean Postgres client: logs in, sends prepared bytes, and counts until ReadyForQuery.
//!
//! Owns one connection and the walk over message headers. Bodies are not looked at, except during login and for errors.

use std::io::ErrorKind;
use std::net::SocketAddr;

use anyhow::{Context, Result, bail, ensure};
use rustls::HandshakeKind;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::certificate::Encryption;
use crate::scram::Password;
use crate::stream::Stream;

/// Who logs in, and where.
pub(crate) struct Login {
    pub(crate) address: SocketAddr,
    pub(crate) user: String,
    pub(crate) database: String,
    pub(crate) password: Password,
    /// For a login over TLS.
    pub(crate) encryption: Option<Encryption>,
}

/// A logged-in client.
pub(crate) struct Client {
    stream: Stream,
}

impl Client {
    /// Connects and authenticates (trust or SCRAM-SHA-256); returns after the first ReadyForQuery.
    pub(crate) async fn login(login: &Login, nonce: u64) -> Result<Self> {
        let socket = TcpStream::connect(login.address).await.context("connecting")?;
        socket.set_nodelay(true)?;
        let mut stream = match &login.encryption {
            None => Stream::Plain(socket),
            Some(encryption) => Stream::Tls(Box::new(encryption.start(socket).await?)),
        };
        send(&mut stream, &startup(&login.user, &login.database)).await?;
        let first_bare = Password::first_bare(nonce);
        let mut body = Vec::new();
        loop {
            let tag = read_message(&mut stream, &mut body).await.context("during login")?;
            match (tag, auth_code(&body)) {
                (b'R', Some(10)) => {
                    let client_first = format!("n,,{first_bare}");
                    let mut message = b"SCRAM-SHA-256\0".to_vec();
                    message.extend_from_slice(&length(client_first.len())?);
                    message.extend_from_slice(client_first.as_bytes());
                    send(&mut stream, &framed(b'p', &message)?).await?;
                }
                (b'R', Some(11)) => {
                    let server_first = std::str::from_utf8(body.get(4..).unwrap_or_default())?;
                    let answer = login.password.answer(&first_bare, server_first)?;
                    send(&mut stream, &framed(b'p', answer.as_bytes())?).await?;
                }
                (b'R', Some(0 | 12)) | (b'S' | b'K' | b'N', _) => {}
                (b'Z', _) => return Ok(Self { stream }),
                (b'E', _) => bail!("login refused: {}", error_text(&body)),
                (tag, code) => bail!("unexpected login message {:?} {code:?}", char::from(tag)),
            }
        }
    }

    /// How the TLS session came about; `None` without one.
    pub(crate) fn handshake(&self) -> Option<HandshakeKind> {
        self.stream.handshake()
    }

    /// Sends a request with one write and reads until ReadyForQuery.
    pub(crate) async fn exchange(&mut self, request: &[u8]) -> Result<()> {
        self.exchange_many(request, 1).await
    }

    /// Sends requests with one write and reads until ReadyForQuery has come for each.
    pub(crate) async fn exchange_many(&mut self, requests: &[u8], count: usize) -> Result<()> {
        self.send(requests).await?;
        let mut buffer = [0; 8 * 1_024];
        self.finish(&mut buffer, count).await.map(drop)
    }

    /// Sends bytes and reads nothing.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> Result<()> {
        send(&mut self.stream, bytes).await
    }

    /// Reads until `count` times ReadyForQuery, or a request for COPY data, have come; returns the bytes read.
    pub(crate) async fn finish(&mut self, buffer: &mut [u8], count: usize) -> Result<u64> {
        let mut walk = Walk::default();
        let (mut bytes, mut ready) = (0, 0);
        while ready < count {
            let read = self.stream.read(buffer).await.context("reading")?;
            ensure!(read > 0, "the proxy closed the connection");
            bytes += u64::try_from(read)?;
            ready += walk.advance(buffer.get(..read).unwrap_or_default())?;
        }
        Ok(bytes)
    }

    /// Says Terminate and waits until the other side has closed.
    pub(crate) async fn close(mut self) -> Result<()> {
        send(&mut self.stream, &framed(b'X', &[])?).await?;
        let mut rest = [0; 64];
        loop {
            match self.stream.read(&mut rest).await {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                // TLS without a word of goodbye.
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// A walk over message headers that survives any split of the bytes.
#[derive(Default)]
struct Walk {
    /// Body bytes of the current message still to come.
    skip: usize,
    /// Header bytes of the next message seen so far.
    header: [u8; HEADER],
    filled: usize,
}

impl Walk {
    /// Returns how often the server has become ready for more.
    fn advance(&mut self, mut bytes: &[u8]) -> Result<usize> {
        let mut ready = 0;
        while !bytes.is_empty() {
            if self.skip > 0 {
                let step = self.skip.min(bytes.len());
                self.skip -= step;
                bytes = bytes.get(step..).unwrap_or_default();
                continue;
            }
            let step = (HEADER - self.filled).min(bytes.len());
            let (head, rest) = bytes.split_at(step);
            if let Some(room) = self.header.get_mut(self.filled..self.filled + step) {
                room.copy_from_slice(head);
            }
            self.filled += step;
            bytes = rest;
            if self.filled == HEADER {
                self.filled = 0;
                let [tag, length @ ..] = self.header;
                self.skip = usize::try_from(u32::from_be_bytes(length))?.saturating_sub(4);
                match tag {
                    b'Z' | b'G' => ready += 1,
                    b'E' => bail!("the server sent an error: {}", error_text(bytes)),
                    _ => {}
                }
            }
        }
        Ok(ready)
    }
}

/// A message: tag, length and body.
pub(crate) fn framed(tag: u8, body: &[u8]) -> Result<Vec<u8>> {
    let mut message = vec![tag];
    message.extend_from_slice(&length(body.len() + 4)?);
    message.extend_from_slice(body);
    Ok(message)
}

fn length(bytes: usize) -> Result<[u8; 4]> {
    Ok(u32::try_from(bytes)?.to_be_bytes())
}

fn startup(user: &str, database: &str) -> Vec<u8> {
    let mut body = vec![0, 3, 0, 0];
    for text in ["user", user, "database", database] {
        body.extend_from_slice(text.as_bytes());
        body.push(0);
    }
    body.push(0);
    let total = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
    [total.to_be_bytes().as_slice(), &body].concat()
}

fn auth_code(body: &[u8]) -> Option<u32> {
    body.first_chunk::<4>().map(|code| u32::from_be_bytes(*code))
}

async fn send(stream: &mut Stream, bytes: &[u8]) -> Result<()> {
    stream.write_all(bytes).await.context("sending")?;
    // TLS may hold back what the socket did not take.
    stream.flush().await.context("sending")
}

async fn read_message(stream: &mut Stream, body: &mut Vec<u8>) -> Result<u8> {
    let tag = stream.read_u8().await?;
    let size = usize::try_from(stream.read_u32().await?)?.saturating_sub(4);
    ensure!(size < 64 * 1_024, "a login message is too long");
    body.resize(size, 0);
    stream.read_exact(body).await?;
    Ok(tag)
}

/// The readable part of an error message's body.
fn error_text(body: &[u8]) -> String {
    let fields: Vec<_> = body.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
    fields.join(" ").chars().take(300).collect()
}

const HEADER: usize = 5;
