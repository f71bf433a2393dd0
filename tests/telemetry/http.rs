//! A server on a free port, and as much of an HTTP client as these tests need.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use tenantry::telemetry::http::serve;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::fake::Fake;

/// A running server.
pub(crate) struct Server {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// Ends it.
    pub(crate) shutdown: CancellationToken,
    /// Ends with it.
    pub(crate) task: JoinHandle<std::io::Result<()>>,
}

impl Server {
    /// Serves a fake.
    pub(crate) async fn start(fake: Arc<Fake>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(serve(listener, fake, shutdown.clone()));
        Self { address, shutdown, task }
    }

    /// GET, without any header that matters.
    pub(crate) async fn get(&self, target: &str) -> Response {
        self.request("GET", target, "").await
    }

    /// Any request; `headers` are whole lines.
    pub(crate) async fn request(&self, method: &str, target: &str, headers: &str) -> Response {
        let mut stream = self.send(method, target, headers).await;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.unwrap();
        Response::parse(&bytes)
    }

    /// Only asks; the answer stays in the socket.
    pub(crate) async fn send(&self, method: &str, target: &str, headers: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let request =
            format!("{method} {target} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        stream
    }
}

/// An answer.
pub(crate) struct Response {
    /// Status code.
    pub(crate) status: u16,
    headers: HashMap<String, String>,
    /// The body, put together if it came in chunks.
    pub(crate) body: String,
}

impl Response {
    /// A header by its name in lower case.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    fn parse(bytes: &[u8]) -> Self {
        let text = std::str::from_utf8(bytes).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").expect("a whole head");
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers: HashMap<_, _> = lines
            .map(|line| line.split_once(": ").unwrap())
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        let chunked = headers.get("transfer-encoding").is_some_and(|encoding| encoding == "chunked");
        let body = if chunked { unchunked(body) } else { body.to_owned() };
        Self { status, headers, body }
    }
}

fn unchunked(mut rest: &str) -> String {
    let mut body = String::new();
    loop {
        let (size, after) = rest.split_once("\r\n").expect("a chunk's size");
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            assert_eq!(after, "\r\n", "something behind the last chunk");
            return body;
        }
        // A chunk may end within a character only if the server cuts there; it cuts bytes, so go by bytes.
        body.push_str(after.get(..size).expect("a whole chunk of whole characters"));
        rest = after[size..].strip_prefix("\r\n").unwrap();
    }
}
