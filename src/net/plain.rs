//! Reading and writing plain sockets: one system call each, and none where the socket is known to have nothing.
//!
//! Owns the short way past `tokio`'s `poll_read` and `poll_write`. They ask for leave, look for readiness and register a
//! waker before each attempt, and call through libc, whose `recv` and `send` are cancellation points: together about a
//! tenth of what a small transaction costs the proxy itself. Here a waker is registered when there is nothing to do. So
//! nothing makes a task that always finds something give way: its own loop has to be bounded, and then [`give_way`].

use std::future::Future;
use std::io::{self, ErrorKind, IoSlice};
use std::pin::pin;
use std::task::{Context, Poll, ready};

use rustix::io::retry_on_intr;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown, recv, send, sendmsg, shutdown};
use sendring::{Batched, Steady};
use tokio::io::Interest;
use tokio::net::{TcpStream, UnixStream};
use tokio::task::yield_now;

/// A socket whose readiness a runtime keeps track of.
pub(super) trait Watched: Steady {
    /// Does `io` if the socket may be ready for it; `WouldBlock` from it means that it is not any more.
    fn attempt<T>(&self, interest: Interest, io: impl FnOnce() -> io::Result<T>) -> io::Result<T>;
    /// Ready when it may be readable.
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
    /// Ready when it may be writable.
    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
}

impl Watched for TcpStream {
    fn attempt<T>(&self, interest: Interest, io: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        self.try_io(interest, io)
    }

    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_read_ready(cx)
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_write_ready(cx)
    }
}

impl Watched for UnixStream {
    fn attempt<T>(&self, interest: Interest, io: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        self.try_io(interest, io)
    }

    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_read_ready(cx)
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_write_ready(cx)
    }
}

/// Has a task that has done enough for now polled again when the others have had their turn and the runtime has looked at
/// its sockets and timers. Waking it would put it in front of those.
pub fn give_way(cx: &mut Context<'_>) {
    // Never ready at first, and there is no second time.
    let _ = pin!(yield_now()).poll(cx);
}

/// Reads what there is, up to the size of `buf`; 0 is the end. Whoever waits for an answer may wait for it with a question
/// that was queued and not taken: it goes out now.
pub(super) fn poll_read(
    socket: &mut Batched<impl Watched>,
    cx: &mut Context<'_>,
    buf: &mut [u8],
) -> Poll<io::Result<usize>> {
    if socket.has_unsent() {
        // If it cannot be sent, what the other end said before may tell why.
        let _ = poll_settled(socket, cx);
    }
    let socket = &**socket;
    loop {
        let read = attempt(socket, Interest::READABLE, buf.len(), || {
            Ok(retry_on_intr(|| recv(socket, &mut *buf, RecvFlags::empty()))?.0)
        });
        match read {
            Err(error) if error.kind() == ErrorKind::WouldBlock => ready!(socket.poll_readable(cx))?,
            done => return Poll::Ready(done),
        }
    }
}

/// Writes a part of `buf`, behind what was queued.
pub(super) fn poll_write(
    socket: &mut Batched<impl Watched>,
    cx: &mut Context<'_>,
    buf: &[u8],
) -> Poll<io::Result<usize>> {
    ready!(poll_settled(socket, cx))?;
    poll_send(&**socket, cx, buf)
}

/// Writes a part of several buffers: queues them if they are small, as [`Batched::queue`] does.
pub(super) fn poll_queue_or_write(
    socket: &mut Batched<impl Watched>,
    cx: &mut Context<'_>,
    bufs: &[IoSlice<'_>],
) -> Poll<io::Result<usize>> {
    let length = |bufs: &[IoSlice<'_>]| bufs.iter().map(|buf| buf.len()).sum::<usize>();
    let queued = bufs.iter().take_while(|buf| socket.queue(buf, cx.waker())).count();
    if queued > 0 {
        return Poll::Ready(Ok(length(bufs.get(..queued).unwrap_or_default())));
    }
    ready!(poll_settled(socket, cx))?;
    let socket = &**socket;
    loop {
        let written = attempt(socket, Interest::WRITABLE, length(bufs), || {
            let mut nothing = SendAncillaryBuffer::default();
            Ok(retry_on_intr(|| sendmsg(socket, bufs, &mut nothing, SendFlags::NOSIGNAL))?)
        });
        match written {
            Err(error) if error.kind() == ErrorKind::WouldBlock => ready!(socket.poll_writable(cx))?,
            done => return Poll::Ready(done),
        }
    }
}

/// Hands to the kernel what it did not take of what was queued. What is still in the queue goes out in its turn.
pub(super) fn poll_flush(socket: &mut Batched<impl Watched>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
    if socket.has_unsent() { poll_settled(socket, cx) } else { Poll::Ready(Ok(())) }
}

/// Hands to the kernel what was queued.
fn poll_settled(socket: &mut Batched<impl Watched>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
    socket.flush();
    let mut rest = socket.take_unsent();
    while let Some(mut unsent) = rest {
        match unsent.bytes().map(|bytes| poll_send(&**socket, cx, bytes)) {
            Ok(Poll::Ready(Ok(sent))) => rest = unsent.behind(sent),
            Ok(Poll::Pending) => {
                socket.put_unsent(unsent);
                return Poll::Pending;
            }
            Ok(Poll::Ready(Err(error))) | Err(error) => {
                // Nothing may follow what was lost, whoever finds out about it: from now on every read is the end.
                let _ = shutdown(&**socket, Shutdown::Both);
                return Poll::Ready(Err(error));
            }
        }
    }
    Poll::Ready(Ok(()))
}

/// Ends our direction, behind what was queued.
pub(super) fn poll_shutdown(
    socket: &mut Batched<impl Watched>,
    cx: &mut Context<'_>,
) -> Poll<io::Result<()>> {
    ready!(poll_settled(socket, cx))?;
    Poll::Ready(Ok(shutdown(&**socket, Shutdown::Write)?))
}

fn poll_send(socket: &impl Watched, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
    loop {
        let written = attempt(socket, Interest::WRITABLE, buf.len(), || {
            Ok(retry_on_intr(|| send(socket, buf, SendFlags::NOSIGNAL))?)
        });
        match written {
            Err(error) if error.kind() == ErrorKind::WouldBlock => ready!(socket.poll_writable(cx))?,
            done => return Poll::Ready(done),
        }
    }
}

/// Moves up to `wanted` bytes. Fewer mean that the socket is empty, or full: the runtime is told at once, as if another
/// attempt had failed. Readiness is told once each time that it changes, so nothing is missed.
fn attempt(
    socket: &impl Watched,
    interest: Interest,
    wanted: usize,
    io: impl FnOnce() -> io::Result<usize>,
) -> io::Result<usize> {
    let mut moved = None;
    let outcome = socket.attempt(interest, || match io()? {
        few if few > 0 && few < wanted => {
            moved = Some(few);
            Err(ErrorKind::WouldBlock.into())
        }
        all => Ok(all),
    });
    moved.map_or(outcome, Ok)
}
