//! A client of bare messages: sees exactly what is on the wire, and may be as rude as a test wants.
//!
//! Owns login and framing, independent of the proxy's own code. Must not know the stage.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use rustls::ClientConfig;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::Batch;

/// No answer within this is a failure of the test, not of the network.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// One message from the proxy or from Postgres.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) tag: u8,
    pub(crate) body: Vec<u8>,
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = &self.body[..self.body.len().min(120)];
        write!(f, "{}({})", char::from(self.tag), String::from_utf8_lossy(shown).replace('\0', "|"))
    }
}

/// Fields of an ErrorResponse or NoticeResponse.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fields {
    pub(crate) severity: String,
    pub(crate) code: String,
    pub(crate) message: String,
    pub(crate) detail: String,
    pub(crate) routine: String,
    pub(crate) hint: String,
}

impl Message {
    /// The fields, if it is an error or a notice.
    pub(crate) fn fields(&self) -> Fields {
        let mut fields = Fields::default();
        for part in self.body.split(|byte| *byte == 0).filter(|part| !part.is_empty()) {
            let text = String::from_utf8_lossy(&part[1..]).into_owned();
            match part[0] {
                b'V' => fields.severity = text,
                b'C' => fields.code = text,
                b'M' => fields.message = text,
                b'D' => fields.detail = text,
                b'R' => fields.routine = text,
                b'H' => fields.hint = text,
                _ => {}
            }
        }
        fields
    }

    /// Columns, if it is a DataRow.
    pub(crate) fn columns(&self) -> Vec<Option<String>> {
        let (count, mut rest) = self.body.split_first_chunk::<2>().unwrap();
        (0..u16::from_be_bytes(*count))
            .map(|_| {
                let (length, after) = rest.split_first_chunk::<4>().unwrap();
                let Ok(length) = usize::try_from(i32::from_be_bytes(*length)) else {
                    rest = after;
                    return None;
                };
                let (value, after) = after.split_at(length);
                rest = after;
                Some(String::from_utf8_lossy(value).into_owned())
            })
            .collect()
    }

    fn c_strings(&self) -> Vec<String> {
        let mut parts: Vec<String> = self
            .body
            .split(|byte| *byte == 0)
            .map(|part| String::from_utf8_lossy(part).into_owned())
            .collect();
        parts.pop();
        parts
    }
}

/// All messages up to a ReadyForQuery (or the end), sorted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reply {
    pub(crate) messages: Vec<Message>,
    pub(crate) rows: Vec<Vec<Option<String>>>,
    pub(crate) tags: Vec<String>,
    pub(crate) errors: Vec<Fields>,
    pub(crate) notices: Vec<Fields>,
    /// Status byte of ReadyForQuery; `None` if the stream ended first.
    pub(crate) status: Option<char>,
}

impl Reply {
    /// The single value of the single row.
    #[track_caller]
    pub(crate) fn value(&self) -> &str {
        assert!(self.errors.is_empty(), "{self:?}");
        assert_eq!(self.rows.len(), 1, "{self:?}");
        self.rows[0][0].as_deref().unwrap()
    }

    /// First column of all rows.
    #[track_caller]
    pub(crate) fn column(&self) -> Vec<&str> {
        assert!(self.errors.is_empty(), "{self:?}");
        self.rows.iter().map(|row| row[0].as_deref().unwrap_or("NULL")).collect()
    }

    /// The code of the only error.
    #[track_caller]
    pub(crate) fn code(&self) -> &str {
        assert_eq!(self.errors.len(), 1, "{self:?}");
        &self.errors[0].code
    }

    /// Tags of the messages in order, as a string.
    pub(crate) fn shape(&self) -> String {
        self.messages.iter().map(|message| char::from(message.tag)).collect()
    }
}

/// A connection, logged in or not.
pub(crate) struct Wire {
    io: Box<dyn Io>,
    inbox: Vec<u8>,
    /// What [`Wire::send_within`] could not send.
    unsent: Vec<u8>,
    /// From BackendKeyData.
    pub(crate) key: (u32, Vec<u8>),
    /// Newest value of each ParameterStatus.
    pub(crate) parameters: std::collections::BTreeMap<String, String>,
}

/// Who logs in, and to what.
#[derive(Clone, Debug)]
pub(crate) struct Login {
    pub(crate) user: String,
    pub(crate) password: String,
    pub(crate) database: String,
    pub(crate) version: u32,
    pub(crate) parameters: Vec<(String, String)>,
}

impl Wire {
    pub(crate) fn over(io: impl Io + 'static) -> Self {
        Self {
            io: Box::new(io),
            inbox: Vec::new(),
            unsent: Vec::new(),
            key: (0, Vec::new()),
            parameters: Default::default(),
        }
    }

    /// The stream below, and what was read from it and not asked for yet.
    pub(crate) fn into_parts(self) -> (Box<dyn Io>, Vec<u8>) {
        (self.io, self.inbox)
    }

    /// A plain connection, nothing sent yet.
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self::over(stream)
    }

    /// SSLRequest, then TLS.
    pub(crate) async fn connect_tls(address: SocketAddr, config: Arc<ClientConfig>, name: &str) -> Self {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        stream.write_all(&Batch::ssl_request().0).await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), b'S', "TLS was refused");
        Self::over(handshake(stream, config, name).await.unwrap())
    }

    /// TLS from the first byte, ALPN `postgresql`.
    pub(crate) async fn connect_tls_direct(
        address: SocketAddr,
        config: Arc<ClientConfig>,
        name: &str,
    ) -> Self {
        let mut config = ClientConfig::clone(&config);
        config.alpn_protocols = vec![b"postgresql".to_vec()];
        let stream = TcpStream::connect(address).await.unwrap();
        Self::over(handshake(stream, Arc::new(config), name).await.unwrap())
    }

    /// Logs in; panics with the error if it is refused.
    pub(crate) async fn logged_in(mut self, login: &Login) -> Self {
        let reply = self.log_in(login).await;
        assert_eq!(reply.status, Some('I'), "{login:?}: {reply:?}");
        self
    }

    /// Startup and SCRAM up to the first ReadyForQuery, an error, or the end.
    pub(crate) async fn log_in(&mut self, login: &Login) -> Reply {
        let mut pairs = vec![("user", login.user.as_str()), ("database", login.database.as_str())];
        pairs.extend(login.parameters.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        self.send(&Batch::startup(login.version, &pairs).0).await;
        let mut scram = ScramSha256::new(login.password.as_bytes(), ChannelBinding::unsupported());
        loop {
            let Some(message) = self.message().await else { return Reply::default() };
            if message.tag == b'v' {
                continue;
            }
            if message.tag != b'R' {
                return self.until_ready_after(vec![message]).await;
            }
            let (kind, data) = message.body.split_first_chunk::<4>().unwrap();
            let batch = match u32::from_be_bytes(*kind) {
                0 => return self.until_ready().await,
                10 => {
                    let body = [
                        SCRAM_SHA_256.as_bytes(),
                        b"\0",
                        &u32::try_from(scram.message().len()).unwrap().to_be_bytes(),
                        scram.message(),
                    ];
                    Batch::new().message(b'p', &body.concat())
                }
                11 => {
                    scram.update(data).unwrap();
                    Batch::new().message(b'p', scram.message())
                }
                12 => {
                    scram.finish(data).unwrap();
                    continue;
                }
                other => panic!("authentication request {other}"),
            };
            self.send(&batch.0).await;
        }
    }

    /// Writes; the other side may be gone already.
    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        let sent = async {
            self.io.write_all(bytes).await?;
            self.io.flush().await
        };
        let _ = tokio::time::timeout(PATIENCE, sent).await.expect("nobody reads what we send");
    }

    /// Writes unless the other side does not take it all within `span`; then the rest is kept and the answer is `None`.
    pub(crate) async fn send_within(&mut self, bytes: &[u8], span: Duration) -> Option<()> {
        let mut sent = 0;
        while sent < bytes.len() {
            match tokio::time::timeout(span, self.io.write(&bytes[sent..])).await {
                Ok(written) => sent += written.unwrap(),
                Err(_) => {
                    self.unsent = bytes[sent..].to_vec();
                    return None;
                }
            }
        }
        Some(())
    }

    /// Writes what [`Wire::send_within`] left.
    pub(crate) async fn send_rest(&mut self) {
        let rest = std::mem::take(&mut self.unsent);
        self.send(&rest).await;
    }

    /// Reads up to `limit` bytes, forgets them, and says how many; 0 is the end.
    pub(crate) async fn read_raw(&mut self, limit: usize) -> usize {
        if !self.inbox.is_empty() {
            let taken = limit.min(self.inbox.len());
            self.inbox.drain(..taken);
            return taken;
        }
        let mut scratch = vec![0; limit.min(1 << 18)];
        let read = self.io.read(&mut scratch);
        tokio::time::timeout(PATIENCE, read).await.expect("no bytes in time").unwrap()
    }

    /// The next message; `None` when the stream ends, in whatever way.
    pub(crate) async fn message(&mut self) -> Option<Message> {
        tokio::time::timeout(PATIENCE, self.next_message()).await.expect("no message in time")
    }

    async fn next_message(&mut self) -> Option<Message> {
        while self.inbox.len() < 5 || self.inbox.len() < self.frame_length() {
            let needed = self.frame_length().saturating_sub(self.inbox.len()).clamp(16 * 1024, 1 << 20);
            self.inbox.reserve(needed);
            match self.io.read_buf(&mut self.inbox).await {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
        let rest = self.inbox.split_off(self.frame_length());
        let frame = std::mem::replace(&mut self.inbox, rest);
        let message = Message { tag: frame[0], body: frame[5..].to_vec() };
        self.note(&message);
        Some(message)
    }

    fn frame_length(&self) -> usize {
        match self.inbox.get(1..5) {
            Some(length) => 1 + usize::try_from(u32::from_be_bytes(length.try_into().unwrap())).unwrap(),
            None => 5,
        }
    }

    fn note(&mut self, message: &Message) {
        match message.tag {
            b'K' => {
                let (pid, secret) = message.body.split_first_chunk::<4>().unwrap();
                self.key = (u32::from_be_bytes(*pid), secret.to_vec());
            }
            b'S' => {
                if let [name, value] = &message.c_strings()[..] {
                    self.parameters.insert(name.clone(), value.clone());
                }
            }
            _ => {}
        }
    }

    /// Everything up to ReadyForQuery.
    pub(crate) async fn until_ready(&mut self) -> Reply {
        self.until_ready_after(Vec::new()).await
    }

    async fn until_ready_after(&mut self, first: Vec<Message>) -> Reply {
        let mut reply = Reply::default();
        let mut early = first.into_iter();
        loop {
            let message = match early.next() {
                Some(message) => message,
                None => match self.message().await {
                    Some(message) => message,
                    None => return reply,
                },
            };
            match message.tag {
                b'D' => reply.rows.push(message.columns()),
                b'C' => reply.tags.extend(message.c_strings()),
                b'E' => reply.errors.push(message.fields()),
                b'N' => reply.notices.push(message.fields()),
                b'Z' => reply.status = message.body.first().map(|status| char::from(*status)),
                _ => {}
            }
            reply.messages.push(message);
            if reply.status.is_some() {
                return reply;
            }
        }
    }

    /// Sends and collects one reply.
    pub(crate) async fn ask(&mut self, batch: Batch) -> Reply {
        self.send(&batch.0).await;
        self.until_ready().await
    }

    /// A simple query.
    pub(crate) async fn query(&mut self, sql: &str) -> Reply {
        self.ask(Batch::new().query(sql)).await
    }

    /// The next message has this tag.
    #[track_caller]
    pub(crate) fn expect(&mut self, tag: u8) -> impl Future<Output = Message> {
        let at = std::panic::Location::caller();
        async move {
            let message = self.message().await;
            match message {
                Some(message) if message.tag == tag => message,
                other => panic!("{at}: expected {}, got {other:?}", char::from(tag)),
            }
        }
    }

    /// Whether the other side closes without another message than an error.
    pub(crate) async fn is_closed(&mut self) -> bool {
        while let Some(message) = self.message().await {
            if message.tag != b'E' {
                return false;
            }
        }
        true
    }

    /// What comes within `span`, if anything: `Some(None)` is the end of the stream.
    pub(crate) async fn message_within(&mut self, span: Duration) -> Option<Option<Message>> {
        tokio::time::timeout(span, self.next_message()).await.ok()
    }
}

async fn handshake(
    stream: TcpStream,
    config: Arc<ClientConfig>,
    name: &str,
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let name = rustls_pki_types::ServerName::try_from(name.to_owned()).unwrap();
    tokio_rustls::TlsConnector::from(config).connect(name, stream).await
}
