//! A connection during the login: what was read and not yet understood, what is to be written.
//!
//! Owns both buffers and their limits. Must not know the order of messages.

use std::time::Duration;

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::failure::LoginFailure;
use crate::net::Stream;
use crate::net::tls::{ServerTls, Start};
use crate::wire::messages::{put_error, split_message};
use crate::wire::proxy_header::{self, Origin};
use crate::wire::startup::{FirstMessage, StartupLimits, parse_first};

/// A client that is logging in. No method is cancel-safe: the connection closes with the future.
pub(super) struct Conversation {
    pub(super) stream: Stream,
    /// Read and not yet consumed. Bounded by the largest message of the state plus one chunk.
    input: Vec<u8>,
    /// To be written with the next [`Self::send`].
    pub(super) output: Vec<u8>,
    /// Ends every wait.
    shutdown: CancellationToken,
}

impl Conversation {
    pub(super) const fn new(stream: Stream, shutdown: CancellationToken) -> Self {
        Self { stream, input: Vec::new(), output: Vec::new(), shutdown }
    }

    /// Reads a PROXY protocol header and nothing that follows it: that may be a TLS handshake. Only for TCP.
    pub(super) async fn proxy_header(&mut self) -> Result<Origin, LoginFailure> {
        let mut header = Vec::new();
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            let known = header.len();
            let seen = self.peek(&mut chunk).await?;
            header.extend_from_slice(chunk.get(..seen).unwrap_or_default());
            let verdict = proxy_header::parse(&header)?;
            let whole = verdict.map_or(header.len(), |(_, consumed)| consumed);
            // At once: these bytes were seen just now.
            let own = chunk.get_mut(..whole.saturating_sub(known)).unwrap_or_default();
            self.stream.read_exact(own).await.map_err(|_| LoginFailure::Disconnected)?;
            if let Some((origin, _)) = verdict {
                return Ok(origin);
            }
        }
    }

    /// Whether the client starts with a TLS handshake. Nothing is consumed. Only for TCP.
    pub(super) async fn starts_with_tls(&self) -> Result<bool, LoginFailure> {
        let mut first = [0];
        self.peek(&mut first).await?;
        Ok(first == [TLS_HANDSHAKE])
    }

    /// Hears the beginning of a client that cannot have TLS. One that wants it at once is told by the end of the connection:
    /// it would understand nothing else.
    pub(super) async fn begin_in_clear(&mut self) -> Result<(), LoginFailure> {
        self.fill().await?;
        if self.input.first() == Some(&TLS_HANDSHAKE) { Err(LoginFailure::TlsNotOffered) } else { Ok(()) }
    }

    /// Does the TLS handshake. Nothing may have been read that is not understood.
    pub(super) async fn secure(self, tls: &ServerTls, start: Start) -> Result<Self, LoginFailure> {
        self.expect_silence()?;
        let Self { stream, input, output, shutdown } = self;
        let accepted = shutdown.run_until_cancelled(tls.accept(stream, start)).await;
        let stream = accepted.ok_or(LoginFailure::ShuttingDown)?.map_err(LoginFailure::TlsFailed)?;
        Ok(Self { stream, input, output, shutdown })
    }

    /// Reads one untagged packet.
    pub(super) async fn first_message(&mut self) -> Result<FirstMessage, LoginFailure> {
        loop {
            if let Some((message, consumed)) = parse_first(&self.input, StartupLimits::default())? {
                self.consume(consumed);
                return Ok(message);
            }
            self.fill().await?;
        }
    }

    /// Reads the body of one SASL response of at most `body_max` bytes.
    pub(super) async fn response(&mut self, body_max: usize) -> Result<Vec<u8>, LoginFailure> {
        loop {
            // The type is judged first: with another message the length means something else.
            match self.input.first() {
                Some(b'p') | None => {}
                Some(b'X') => return Err(LoginFailure::Disconnected),
                Some(other) => return Err(LoginFailure::NotAResponse(*other)),
            }
            if let Some(message) = split_message(&self.input, body_max)? {
                let (body, consumed) = (message.body.to_vec(), message.consumed);
                self.consume(consumed);
                return Ok(body);
            }
            self.fill().await?;
        }
    }

    /// Writes what was put into `output`.
    pub(super) async fn send(&mut self) -> Result<(), LoginFailure> {
        let written = self.stream.write_all(&self.output).await;
        self.output.clear();
        written.map_err(|_| LoginFailure::Disconnected)
    }

    /// Fails if more was read than understood: it came before our answer, so it cannot have been meant for what
    /// follows the answer.
    pub(super) const fn expect_silence(&self) -> Result<(), LoginFailure> {
        if self.input.is_empty() { Ok(()) } else { Err(LoginFailure::EarlyData) }
    }

    /// Tells the client why it is refused, and closes so that it can read that: what it still sends is read and thrown
    /// away for a moment, because closing a socket with unread input resets it and the error would be lost.
    pub(super) async fn refuse(mut self, failure: &LoginFailure) {
        let Some(error) = failure.to_client() else { return };
        put_error(&mut self.output, &error);
        let mut rest = vec![0; CHUNK_BYTES];
        let farewell = async {
            if self.send().await.is_err() || self.stream.shutdown().await.is_err() {
                return;
            }
            for _ in 0..LINGER_READS_MAX {
                match self.stream.read(&mut rest).await {
                    Ok(0) | Err(_) => return,
                    Ok(_) => {}
                }
            }
        };
        let _ = timeout(LINGER, farewell).await;
    }

    /// The stream, what was read past the login, and what has yet to be sent of it.
    pub(super) fn into_parts(self) -> (Stream, Vec<u8>, Vec<u8>) {
        (self.stream, self.input, self.output)
    }

    /// Looks at what has arrived, at least one byte.
    async fn peek(&self, buf: &mut [u8]) -> Result<usize, LoginFailure> {
        let peeked = self.shutdown.run_until_cancelled(self.stream.peek(buf)).await;
        match peeked.ok_or(LoginFailure::ShuttingDown)? {
            Ok(0) | Err(_) => Err(LoginFailure::Disconnected),
            Ok(count) => Ok(count),
        }
    }

    async fn fill(&mut self) -> Result<(), LoginFailure> {
        let start = self.input.len();
        self.input.resize(start.saturating_add(CHUNK_BYTES), 0);
        let rest = self.input.get_mut(start..).unwrap_or_default();
        let read = self.shutdown.run_until_cancelled(self.stream.read(rest)).await;
        let count = read.ok_or(LoginFailure::ShuttingDown)?.unwrap_or(0);
        self.input.truncate(start.saturating_add(count));
        if count == 0 { Err(LoginFailure::Disconnected) } else { Ok(()) }
    }

    fn consume(&mut self, count: usize) {
        self.input.drain(..count.min(self.input.len()));
    }
}

/// First byte of a TLS handshake record. No packet of ours starts with it: it would be 369 MB long.
const TLS_HANDSHAKE: u8 = 0x16;
/// Enough for every usual message of a login.
const CHUNK_BYTES: usize = 2048;
/// How long a refused client may take to hang up.
const LINGER: Duration = Duration::from_secs(1);
/// How much a refused client may still send.
const LINGER_READS_MAX: usize = 32;
