//! A server that follows a script: send this, expect that.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tenantry::net::tls::{ServerTls, Start};
use tenantry::net::{Listener, Stream};
use tokio::task::JoinHandle;

/// One step of a script.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// Reads an untagged packet: SSLRequest, startup or CancelRequest.
    Packet,
    /// Reads a tagged message.
    Message,
    /// Reads the client-first message and answers with its nonce continued, a salt and an iteration count.
    ServerFirst(&'static str),
    /// Sends bytes.
    Send(Vec<u8>),
    /// Does a TLS handshake.
    Tls(ServerTls, Start),
    /// Waits until the other end closes, as a server does that waits for the next message.
    AwaitEnd,
    /// Does nothing for ever, and keeps the socket.
    Hang,
}

/// A scripted server; stops when dropped.
pub(crate) struct Fake {
    address: SocketAddr,
    ended: Arc<AtomicUsize>,
    packets: Arc<Mutex<Vec<Vec<u8>>>>,
    accepting: JoinHandle<()>,
}

impl Fake {
    /// Follows the script with each connection, and closes at its end.
    pub(crate) fn start(script: Vec<Step>) -> Self {
        Self::start_in_turn(Vec::new(), script)
    }

    /// Follows one of `first` with each of the first connections, and `script` with each one after them.
    pub(crate) fn start_in_turn(first: Vec<Vec<Step>>, script: Vec<Step>) -> Self {
        let listener = Listener::bind_tcp("127.0.0.1:0".parse().unwrap(), 64).unwrap();
        let address = listener.local_addr().unwrap();
        let ended = Arc::new(AtomicUsize::new(0));
        let packets = Arc::<Mutex<_>>::default();
        let (count, read) = (ended.clone(), packets.clone());
        let mut scripts = first.into_iter();
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (script, count) = (scripts.next().unwrap_or_else(|| script.clone()), count.clone());
                let read = read.clone();
                tokio::spawn(async move {
                    let _ = follow(stream, script, &read).await;
                    count.fetch_add(1, Ordering::SeqCst);
                });
            }
        });
        Self { address, ended, packets, accepting }
    }

    /// Its port.
    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// The untagged packets read so far, without their length.
    pub(crate) fn packets(&self) -> Vec<Vec<u8>> {
        self.packets.lock().clone()
    }

    /// Scripts that came to their end.
    pub(crate) fn ended(&self) -> usize {
        self.ended.load(Ordering::SeqCst)
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn follow(mut stream: Stream, script: Vec<Step>, packets: &Mutex<Vec<Vec<u8>>>) -> std::io::Result<()> {
    for step in script {
        match step {
            Step::Packet => {
                let mut length = [0; 4];
                stream.read_exact(&mut length).await?;
                let mut body = vec![0; usize::try_from(u32::from_be_bytes(length)).unwrap() - 4];
                stream.read_exact(&mut body).await?;
                packets.lock().push(body);
            }
            Step::Message => drop(message(&mut stream).await?),
            Step::ServerFirst(rest) => {
                let first = String::from_utf8(message(&mut stream).await?).unwrap();
                let nonce = first.rsplit("r=").next().unwrap();
                stream.write_all(&authentication(11, format!("r={nonce}{rest}").as_bytes())).await?;
            }
            Step::Send(bytes) => stream.write_all(&bytes).await?,
            Step::Tls(tls, start) => stream = tls.accept(stream, start).await?,
            Step::AwaitEnd => while stream.read(&mut [0; 512]).await? > 0 {},
            Step::Hang => std::future::pending().await,
        }
    }
    Ok(())
}

async fn message(stream: &mut Stream) -> std::io::Result<Vec<u8>> {
    let mut header = [0; 5];
    stream.read_exact(&mut header).await?;
    let [_, length @ ..] = header;
    let mut body = vec![0; usize::try_from(u32::from_be_bytes(length)).unwrap() - 4];
    stream.read_exact(&mut body).await?;
    Ok(body)
}

/// A tagged message.
pub(crate) fn tagged(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    out.extend_from_slice(&u32::try_from(body.len() + 4).unwrap().to_be_bytes());
    out.extend_from_slice(body);
    out
}

/// An `R` message.
pub(crate) fn authentication(kind: u32, data: &[u8]) -> Vec<u8> {
    tagged(b'R', &[&kind.to_be_bytes(), data].concat())
}

/// An ErrorResponse.
pub(crate) fn error(code: &str) -> Vec<u8> {
    tagged(b'E', format!("SFATAL\0VFATAL\0C{code}\0Mno\0\0").as_bytes())
}

/// What a server sends that trusts us: the whole greeting, with the parameters given.
pub(crate) fn greeting(parameters: &[(&str, &str)]) -> Vec<u8> {
    greeting_with_key(parameters, &[1, 2, 3, 4])
}

/// As [`greeting`], with this secret for cancels.
pub(crate) fn greeting_with_key(parameters: &[(&str, &str)], secret: &[u8]) -> Vec<u8> {
    let mut out = authentication(0, b"");
    for (name, value) in parameters {
        out.extend(tagged(b'S', format!("{name}\0{value}\0").as_bytes()));
    }
    out.extend(tagged(b'K', &[&[0, 0, 0, 7], secret].concat()));
    out.extend(tagged(b'Z', b"I"));
    out
}
