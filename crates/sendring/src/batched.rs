//! A socket that can queue what it sends.
//!
//! Owns the promise that a socket in a thread's queue stays open, and the same socket, until the queue is flushed.

use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::task::Waker;

use tokio::net::{TcpStream, UnixStream};

use crate::batch::{self, Unsent};

/// A socket that stays the same for as long as it is there.
///
/// # Safety
/// `as_fd` returns the same descriptor each time, and only dropping the value closes it: nothing that takes it by shared
/// reference does.
pub unsafe trait Steady: AsFd {}

// SAFETY: both own one descriptor from their making to their end.
unsafe impl Steady for TcpStream {}
// SAFETY: as above.
unsafe impl Steady for UnixStream {}

/// A socket that can queue what it sends, as large as the socket. It can be looked at and used by reference as before;
/// whatever could close it flushes first.
#[derive(Debug)]
pub struct Batched<S: Steady>(ManuallyDrop<S>);

impl<S: Steady> Batched<S> {
    /// Wraps a socket.
    #[must_use]
    pub const fn new(socket: S) -> Self {
        Self(ManuallyDrop::new(socket))
    }

    /// Queues `bytes` to be sent by the next [`crate::flush`] of this thread. `false` if they are too long, if nothing is
    /// queued on this thread, or if earlier ones are unsent: then they are to be sent directly, behind [`Self::flush`] and
    /// [`Self::take_unsent`]. `waker` is woken if the kernel does not take them all.
    pub fn queue(&mut self, bytes: &[u8], waker: &Waker) -> bool {
        batch::queue(self.number(), bytes, waker)
    }

    /// Whether something was queued and not taken by the kernel.
    #[must_use]
    pub fn has_unsent(&self) -> bool {
        batch::is_held(self.number()) && batch::has_unsent(self.number())
    }

    /// Sends what is queued for this socket, and with it all that this thread has queued.
    pub fn flush(&self) {
        if batch::is_held(self.number()) {
            batch::flush();
        }
    }

    /// Takes what was queued and not taken by the kernel, to be sent now.
    pub fn take_unsent(&mut self) -> Option<Unsent> {
        if batch::is_held(self.number()) { batch::take_unsent(self.number()) } else { None }
    }

    /// Keeps what still was not sent.
    pub fn put_unsent(&mut self, unsent: Unsent) {
        batch::put_unsent(self.number(), unsent);
    }

    /// The socket alone. What is queued is flushed; what the kernel does not take then is lost.
    #[must_use]
    pub fn into_inner(mut self) -> S {
        self.let_go();
        // SAFETY: `self` is forgotten, so that nothing touches the field again.
        let socket = unsafe { ManuallyDrop::take(&mut self.0) };
        std::mem::forget(self);
        socket
    }

    /// After this no queue knows the socket.
    fn let_go(&mut self) {
        if batch::is_held(self.number()) {
            batch::flush();
            drop(self.take_unsent());
            // Another thread's queue cannot be flushed from here. Tasks stay on their threads, so this is a mistake in the
            // program, and going on could send one client's bytes to another.
            if batch::is_held(self.number()) {
                std::process::abort();
            }
        }
    }

    fn number(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl<S: Steady> Deref for Batched<S> {
    type Target = S;

    fn deref(&self) -> &S {
        &self.0
    }
}

impl<S: Steady> Drop for Batched<S> {
    fn drop(&mut self) {
        self.let_go();
        // SAFETY: nothing touches the field behind a drop, and `into_inner`, which takes it too, does not drop.
        unsafe { ManuallyDrop::drop(&mut self.0) };
    }
}
