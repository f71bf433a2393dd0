//! A client that speaks the protocol byte by byte, and says only what it is told to.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use tenantry::auth::scram_client::{Binding, NONCE_BYTES, Outcome, SaltedKeys, ScramClient};
use tenantry::wire::messages::{
    Authentication, parse_authentication, parse_error_fields, put_sasl_initial_response, put_sasl_response,
};
use tenantry::wire::startup::{ProtocolVersion, put_startup};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::timeout;

/// Nothing here takes this long unless it is broken.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) struct Raw<S> {
    pub(crate) stream: S,
}

/// What a client sees of a refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) code: String,
    pub(crate) message: String,
    /// All fields as they came.
    pub(crate) bytes: Vec<u8>,
}

/// A startup packet of protocol 3.0.
pub(crate) fn startup(parameters: &[(&str, &str)]) -> Vec<u8> {
    startup_of(0, parameters)
}

pub(crate) fn startup_of(minor: u16, parameters: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    put_startup(&mut out, ProtocolVersion { major: 3, minor }, parameters);
    out
}

/// A SCRAM exchange with a nonce that is good enough here.
pub(crate) fn scram(binding: Binding) -> ScramClient {
    ScramClient::new(&[7; NONCE_BYTES], binding)
}

/// The SASLResponse to a challenge, as it came in an `R` message.
pub(crate) fn answer(client: ScramClient, challenge: &[u8], password: &str) -> (Vec<u8>, Outcome) {
    let challenge = client.challenge(&challenge[4..]).unwrap();
    let keys = SaltedKeys::derive(password, challenge.salt(), challenge.iterations());
    let (message, outcome) = challenge.answer(&keys);
    let mut out = Vec::new();
    put_sasl_response(&mut out, message.as_bytes());
    (out, outcome)
}

impl<S: AsyncRead + AsyncWrite + Unpin> Raw<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream }
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) -> &mut Self {
        self.stream.write_all(bytes).await.unwrap();
        self.stream.flush().await.unwrap();
        self
    }

    pub(crate) async fn byte(&mut self) -> u8 {
        timeout(PATIENCE, self.stream.read_u8()).await.expect("an answer").unwrap()
    }

    /// The next message: type and body.
    pub(crate) async fn message(&mut self) -> (u8, Vec<u8>) {
        let tag = self.byte().await;
        let length = timeout(PATIENCE, self.stream.read_u32()).await.expect("a length").unwrap();
        let mut body = vec![0; usize::try_from(length).unwrap() - 4];
        timeout(PATIENCE, self.stream.read_exact(&mut body)).await.expect("a body").unwrap();
        (tag, body)
    }

    /// What is left until the connection ends.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        match timeout(PATIENCE, self.stream.read_to_end(&mut rest)).await.expect("the connection ends") {
            Ok(_) => rest,
            Err(error) => panic!("the connection broke after {} bytes: {error}", rest.len()),
        }
    }

    /// Neither bytes nor an end have come so far.
    pub(crate) async fn is_open(&mut self) -> bool {
        let mut byte = [0];
        let mut read = ReadBuf::new(&mut byte);
        poll_fn(|cx| Poll::Ready(Pin::new(&mut self.stream).poll_read(cx, &mut read).is_pending())).await
    }

    /// The next message is an ErrorResponse, and after it the connection ends.
    pub(crate) async fn refused(&mut self) -> Refused {
        let (tag, body) = self.message().await;
        assert_eq!(char::from(tag), 'E', "{}", body.escape_ascii());
        assert_eq!(self.rest().await, b"", "nothing comes after a FATAL");
        let fields = parse_error_fields(&body);
        assert_eq!(fields.severity(), Some(&b"FATAL"[..]));
        let code = String::from_utf8(fields.code().unwrap().to_vec()).unwrap();
        Refused { code, message: fields.message().into_owned(), bytes: body.clone() }
    }

    /// The mechanisms the server offers.
    pub(crate) async fn offered(&mut self) -> Vec<String> {
        let (tag, body) = self.message().await;
        assert_eq!(char::from(tag), 'R', "{}", body.escape_ascii());
        match parse_authentication(&body) {
            Ok(Authentication::Sasl(names)) => {
                names.map(|name| String::from_utf8(name.to_vec()).unwrap()).collect()
            }
            other => panic!("not an offer: {other:?}"),
        }
    }

    /// Proves a password once SASL was offered; the bytes of all answers until the verdict.
    ///
    /// Our own client of SCRAM is used here because it is fast without optimisation; that another one agrees is shown by the
    /// tests with tokio-postgres.
    pub(crate) async fn prove(
        &mut self,
        mechanism: &str,
        password: &str,
        binding: Binding,
    ) -> Vec<(u8, Vec<u8>)> {
        let client = scram(binding);
        let mut out = Vec::new();
        put_sasl_initial_response(&mut out, mechanism, client.first_message().as_bytes());
        self.send(&out).await;
        let challenge = self.message().await;
        if challenge.0 == b'E' {
            return vec![challenge];
        }
        let (answer, outcome) = answer(client, &challenge.1, password);
        self.send(&answer).await;
        let verdict = self.message().await;
        if verdict.0 == b'R' {
            outcome.verify(&verdict.1[4..]).expect("the server knows the password too");
        }
        vec![challenge, verdict]
    }

    /// A whole login without TLS; panics unless it succeeds.
    pub(crate) async fn log_in(&mut self, parameters: &[(&str, &str)], password: &str) -> &mut Self {
        self.send(&startup(parameters)).await;
        assert_eq!(self.offered().await, ["SCRAM-SHA-256"]);
        let answers = self.prove("SCRAM-SHA-256", password, Binding::None).await;
        assert_eq!(answers.last().unwrap().0, b'R', "{answers:?}");
        self.greeted().await;
        self
    }

    /// The reception's greeting arrives.
    pub(crate) async fn greeted(&mut self) {
        while self.message().await.0 != b'Z' {}
    }
}
