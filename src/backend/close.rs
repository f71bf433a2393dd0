//! Closing a server so that its slot at Postgres is known to be free.
//!
//! Owns the farewell: at most a Terminate, then the end of our direction, then reading until the server's end.

use std::future::poll_fn;
use std::task::{Context, Poll};

use crate::net::{Stream, give_way};

/// The last words to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Farewell {
    /// A Terminate message. Only between two messages: behind half a message its five bytes would be taken for the rest
    /// of it, and `DROP TABLE ab`, cut short by two bytes, would run as `DROP TABLE aX`.
    Terminate,
    /// Nothing: the end of the stream says it all, whatever was sent before. Postgres ends such a session in the same
    /// way, and counts it in `pg_stat_database.sessions_abandoned`.
    EndOfStream,
}

/// Closes a server in whatever state it is: as [`close_with`] and [`Farewell::EndOfStream`].
pub async fn close(stream: Stream) {
    close_with(stream, Farewell::EndOfStream).await;
}

/// Says farewell and returns when Postgres has closed its end: the backend is gone. There is no limit on the wait; the
/// caller sets one. Cancel-safe: the socket closes with the future.
///
/// What the server still sends is read and dropped, since a backend that cannot send does not read either.
pub async fn close_with(stream: Stream, farewell: Farewell) {
    let unsent: &[u8] = match farewell {
        Farewell::Terminate => TERMINATE,
        Farewell::EndOfStream => &[],
    };
    let mut closing = Closing { stream, unsent, ended: false };
    let mut scratch = vec![0; SCRATCH_BYTES];
    poll_fn(|cx| closing.poll(cx, &mut scratch)).await;
}

struct Closing {
    stream: Stream,
    unsent: &'static [u8],
    ended: bool,
}

impl Closing {
    fn poll(&mut self, cx: &mut Context<'_>, scratch: &mut [u8]) -> Poll<()> {
        self.poll_send(cx);
        for _ in 0..READS {
            match self.stream.poll_read(cx, scratch) {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(()),
                Poll::Ready(Ok(_)) => {}
                Poll::Pending => return Poll::Pending,
            }
        }
        give_way(cx);
        Poll::Pending
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) {
        while !self.unsent.is_empty() {
            match self.stream.poll_write(cx, self.unsent) {
                Poll::Ready(Ok(count)) if count > 0 => {
                    self.unsent = self.unsent.get(count..).unwrap_or_default();
                }
                Poll::Ready(_) => {
                    // The connection is broken in our direction; reading will show its end.
                    self.unsent = &[];
                    self.ended = true;
                }
                Poll::Pending => return,
            }
        }
        if !self.ended && self.stream.poll_shutdown(cx).is_ready() {
            self.ended = true;
        }
    }
}

/// The Terminate message.
const TERMINATE: &[u8] = b"X\0\0\0\x04";

const SCRATCH_BYTES: usize = 4096;
/// Reads of one poll. What a server still sends to a client that has gone may be without end, until it is cancelled.
const READS: usize = 16;

#[cfg(test)]
mod tests {
    use tokio::net::UnixStream;

    use super::*;

    #[tokio::test]
    async fn a_server_that_goes_on_talking_does_not_keep_others_from_their_turn() {
        let (ours, server) = UnixStream::pair().unwrap();
        server.writable().await.unwrap();
        let mut said = 0;
        while let Ok(more) = server.try_write(&[b'x'; 1024]) {
            said += more;
        }
        assert!(said > READS * SCRATCH_BYTES, "{said} bytes are more than one poll reads");
        ours.readable().await.unwrap();
        let mut closing = Closing { stream: Stream::from_unix(ours), unsent: &[], ended: false };
        let mut scratch = [0; SCRATCH_BYTES];
        assert!(poll_fn(|cx| Poll::Ready(closing.poll(cx, &mut scratch))).await.is_pending());
        let left = poll_fn(|cx| Poll::Ready(closing.stream.poll_read(cx, &mut scratch))).await;
        assert!(left.is_ready(), "it has given way before everything was read");
    }
}
