//! Last words: what is still said to a client that goes, and how long it has to take them.
//!
//! Owns the limit. A client that does not read must not keep its place among the clients for ever.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Sleep, sleep, timeout};

use super::life::{Phase, Session, Step};
use crate::net::Stream;

/// The last words of a session are on their way.
#[derive(Debug, Default)]
pub(super) struct Closing {
    /// Made when the client does not take them at once.
    limit: Option<Pin<Box<Sleep>>>,
}

impl Session {
    pub(super) fn poll_closing(&mut self, cx: &mut Context<'_>) -> Step {
        match self.to_client.poll_drain(&mut self.stream, cx) {
            Poll::Pending => return self.poll_close_limit(cx),
            Poll::Ready(Err(_)) => return self.end(),
            Poll::Ready(Ok(())) => {}
        }
        // Unread bytes would turn the close into a reset, and the reset could overtake our last words.
        let mut scratch = self.floor.take_scratch();
        let _ = self.stream.poll_read(cx, &mut scratch);
        self.floor.put_scratch(scratch);
        match self.stream.poll_shutdown(cx) {
            Poll::Pending => self.poll_close_limit(cx),
            Poll::Ready(_) => self.end(),
        }
    }

    fn poll_close_limit(&mut self, cx: &mut Context<'_>) -> Step {
        let Phase::Closing(closing) = &mut self.phase else { return Step::Again };
        let limit = closing.limit.get_or_insert_with(|| Box::pin(sleep(LAST_WORDS_TIMEOUT)));
        if limit.as_mut().poll(cx).is_pending() {
            return Step::Wait;
        }
        self.log_end("last_words_unread");
        self.end()
    }
}

/// Says this to a client that has no session. Not cancel-safe.
///
/// # Errors
/// If the connection is gone, or the client does not read in time.
pub(super) async fn say(stream: &mut Stream, words: &[u8]) -> io::Result<()> {
    timeout(LAST_WORDS_TIMEOUT, stream.write_all(words))
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Says this to a client that has no session, and closes. Not cancel-safe.
pub(super) async fn say_last(stream: &mut Stream, words: &[u8]) {
    if say(stream, words).await.is_ok() {
        let _ = timeout(LAST_WORDS_TIMEOUT, poll_fn(|cx| stream.poll_shutdown(cx))).await;
    }
}

/// How long a client has to take last words that do not fit into its socket.
pub(super) const LAST_WORDS_TIMEOUT: Duration = Duration::from_secs(5);
