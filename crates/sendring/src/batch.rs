//! What a thread has queued, and what the kernel did not take of it.
//!
//! Owns the queue, its bounds and the flush. A socket stands in it by its number: that it stays open until then is what
//! [`crate::Batched`] is there for, and nothing else may queue.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::mem;
use std::os::fd::{BorrowedFd, RawFd};
use std::sync::atomic::{AtomicU16, Ordering};
use std::task::{Poll, Waker};

use rustix::net::{SendFlags, send};

use crate::ring::{Outcome, Ring};

/// Begins to queue on this thread.
///
/// # Errors
/// If the system has no io_uring (Linux 6.1 or newer), or does not allow it: then nothing is queued.
pub fn start() -> io::Result<()> {
    static NEXT: AtomicU16 = AtomicU16::new(1);
    let next = |number: u16| number.checked_add(1);
    let number = NEXT.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
    let batch = Batch::new(number.map_err(|_| io::Error::other("too many threads have queued"))?)?;
    BATCH.with(|here| *here.borrow_mut() = Some(batch));
    Ok(())
}

/// Sends what the tasks of this thread queue. Never ends: it is to be polled as a task beside them, by an executor that
/// polls in the order of waking.
///
/// The first message of a batch wakes it. It then lets the tasks that were woken meanwhile go first, once, so that what
/// they send goes out together; a task that never rests cannot keep it from its turn.
pub async fn keep_flushing() {
    let mut has_waited = false;
    poll_fn(|cx| {
        FLUSHER.with(|flusher| {
            if !flusher.borrow().as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
                *flusher.borrow_mut() = Some(cx.waker().clone());
            }
        });
        let goes_last = QUEUED.get() > 0 && !has_waited;
        if goes_last {
            cx.waker().wake_by_ref();
        } else {
            flush();
        }
        has_waited = goes_last;
        Poll::<()>::Pending
    })
    .await;
}

/// Sends what this thread has queued.
pub fn flush() {
    if QUEUED.get() == 0 {
        return;
    }
    // Waking a task, or forgetting the last of it, can run anything, and so queue again.
    let mut waiting = with(Batch::flush).unwrap_or_default();
    for Waiting { waker, is_unsent } in waiting.drain(..) {
        if is_unsent {
            waker.wake();
        }
    }
    with(|batch| batch.waiting.is_empty().then(|| batch.waiting = waiting));
}

/// What the kernel did not take of a message that was queued.
#[derive(Debug)]
pub struct Unsent {
    bytes: Vec<u8>,
    error: Option<io::Error>,
}

impl Unsent {
    /// What is still to be sent.
    ///
    /// # Errors
    /// If the connection is gone.
    pub fn bytes(&mut self) -> io::Result<&[u8]> {
        self.error.take().map_or(Ok(&self.bytes), Err)
    }

    /// Forgets the first `count` bytes: they are sent. `None` if that was all.
    #[must_use]
    pub fn behind(mut self, count: usize) -> Option<Self> {
        self.bytes.drain(..count.min(self.bytes.len()));
        (!self.bytes.is_empty()).then_some(self)
    }
}

/// Queues `bytes` for a socket that stays open, with this number, until they are flushed. `false` if they cannot be queued:
/// then whoever asks sends them, behind what it queued before.
pub(crate) fn queue(socket: RawFd, bytes: &[u8], waker: &Waker) -> bool {
    if bytes.is_empty() || bytes.len() > LONGEST {
        return false;
    }
    // The first try may find it full.
    for _ in 0..2 {
        match with(|batch| batch.queue(socket, bytes, waker)) {
            Some(Queued::Yes) => return true,
            Some(Queued::Full) => flush(),
            Some(Queued::Behind) | None => return false,
        }
    }
    false
}

/// Whether something of the socket's waits as unsent.
pub(crate) fn has_unsent(socket: RawFd) -> bool {
    with(|batch| batch.has_unsent(socket)).unwrap_or(false)
}

/// Takes what was not sent on the socket.
pub(crate) fn take_unsent(socket: RawFd) -> Option<Unsent> {
    with(|batch| batch.take_unsent(socket)).flatten()
}

/// Puts back what still was not sent.
pub(crate) fn put_unsent(socket: RawFd, unsent: Unsent) {
    with(|batch| batch.put_unsent(socket, unsent));
}

/// Whether something is queued for the socket, or waits as unsent, on whichever thread.
pub(crate) fn is_held(socket: RawFd) -> bool {
    holder(socket).is_some_and(|holder| holder.load(Ordering::Relaxed) != 0)
}

/// Which thread holds something for each socket; 0 is none. Two bytes for each number that is in use: the rest of it is
/// never touched, and takes no memory. Only the thread that has the socket reads and writes its entry.
static HOLDERS: [AtomicU16; SOCKETS] = [const { AtomicU16::new(0) }; SOCKETS];
/// Sockets with higher numbers are never queued for. It is the most that Linux allows a process without being asked.
const SOCKETS: usize = 1 << 20;

fn holder(socket: RawFd) -> Option<&'static AtomicU16> {
    usize::try_from(socket).ok().and_then(|socket| HOLDERS.get(socket))
}

/// The longest message that is queued: copying a longer one costs as much as is saved.
const LONGEST: usize = 4096;
/// Messages in a batch. More save nothing, and make the first ones wait.
const MESSAGES: u8 = 32;
/// Bytes of all messages in a batch.
const ROOM: usize = 64 * 1024;

thread_local! {
    static BATCH: RefCell<Option<Batch>> = const { RefCell::new(None) };
    /// Messages that are queued; beside the batch, because it is asked before each write.
    static QUEUED: Cell<usize> = const { Cell::new(0) };
    /// Whoever flushes.
    static FLUSHER: RefCell<Option<Waker>> = const { RefCell::new(None) };
}

/// `None` where nothing was started, and at the end of the thread.
fn with<T>(act: impl FnOnce(&mut Batch) -> T) -> Option<T> {
    BATCH.try_with(|batch| batch.borrow_mut().as_mut().map(act)).ok().flatten()
}

/// What became of a message.
enum Queued {
    Yes,
    /// There is no room: flush, and ask again.
    Full,
    /// The socket has unsent bytes, or too high a number.
    Behind,
}

struct Batch {
    /// `None` once it has failed: then each message is a system call.
    ring: Option<Ring>,
    messages: Vec<Message>,
    /// Whose messages they are, in the same order.
    waiting: Vec<Waiting>,
    bytes: Vec<u8>,
    outcomes: Vec<Outcome>,
    unsent: Vec<(RawFd, Unsent)>,
    /// The number of the thread.
    thread: u16,
}

/// A message in the queue; its bytes end here and begin where those before it end.
struct Message {
    socket: RawFd,
    end: usize,
}

/// The task behind a message.
struct Waiting {
    waker: Waker,
    is_unsent: bool,
}

impl Batch {
    fn new(thread: u16) -> io::Result<Self> {
        Ok(Self {
            ring: Some(Ring::new(u32::from(MESSAGES))?),
            messages: Vec::with_capacity(usize::from(MESSAGES)),
            waiting: Vec::with_capacity(usize::from(MESSAGES)),
            bytes: Vec::with_capacity(ROOM),
            outcomes: Vec::with_capacity(usize::from(MESSAGES)),
            unsent: Vec::new(),
            thread,
        })
    }

    fn queue(&mut self, socket: RawFd, bytes: &[u8], waker: &Waker) -> Queued {
        let Some(holder) = holder(socket) else { return Queued::Behind };
        let is_held = holder.load(Ordering::Relaxed) != 0;
        if is_held && self.has_unsent(socket) {
            return Queued::Behind;
        }
        if self.bytes.len() + bytes.len() > ROOM {
            return Queued::Full;
        }
        // One send for what follows at once, if it is the same task's: whoever has handed the socket on is not to be told in
        // place of who has it now. Two sends to one socket would not do: the first may be short.
        let is_same_task = self.waiting.last().is_some_and(|last| last.waker.will_wake(waker));
        if let Some(last) = self.messages.last_mut().filter(|last| is_same_task && last.socket == socket) {
            self.bytes.extend_from_slice(bytes);
            last.end = self.bytes.len();
            return Queued::Yes;
        }
        if self.messages.len() == usize::from(MESSAGES) || is_held {
            return Queued::Full;
        }
        self.bytes.extend_from_slice(bytes);
        if self.messages.is_empty() {
            FLUSHER.with(|flusher| flusher.borrow().as_ref().map(Waker::wake_by_ref));
        }
        self.messages.push(Message { socket, end: self.bytes.len() });
        self.waiting.push(Waiting { waker: waker.clone(), is_unsent: false });
        holder.store(self.thread, Ordering::Relaxed);
        QUEUED.set(self.messages.len());
        Queued::Yes
    }

    fn has_unsent(&self, socket: RawFd) -> bool {
        self.unsent.iter().any(|(of, _)| *of == socket)
    }

    fn take_unsent(&mut self, socket: RawFd) -> Option<Unsent> {
        let at = self.unsent.iter().position(|(of, _)| *of == socket)?;
        let (_, unsent) = self.unsent.swap_remove(at);
        self.let_go(socket);
        Some(unsent)
    }

    fn put_unsent(&mut self, socket: RawFd, unsent: Unsent) {
        if let Some(holder) = holder(socket) {
            holder.store(self.thread, Ordering::Relaxed);
            self.unsent.push((socket, unsent));
        }
    }

    fn let_go(&self, socket: RawFd) {
        if let Some(holder) = holder(socket) {
            holder.store(0, Ordering::Relaxed);
        }
    }

    /// Sends all. Returns whose messages they were, and whether they are to be told that not all went.
    fn flush(&mut self) -> Vec<Waiting> {
        let messages = mem::take(&mut self.messages);
        let bytes = mem::take(&mut self.bytes);
        self.send_together(&messages, &bytes);
        let mut waiting = mem::take(&mut self.waiting);
        for (at, (message, bytes)) in pieces(&messages, &bytes).enumerate() {
            self.let_go(message.socket);
            let outcome = match self.outcomes.get(at).copied().flatten() {
                Some(result) => usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result)),
                None => send(borrowed(message), bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)
                    .map_err(Into::into),
            };
            let (sent, error) = match outcome {
                Ok(sent) => (sent, None),
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) =>
                {
                    (0, None)
                }
                Err(error) => (0, Some(error)),
            };
            if let Some(rest @ [_, ..]) = bytes.get(sent..) {
                self.put_unsent(message.socket, Unsent { bytes: rest.to_vec(), error });
                if let Some(waiting) = waiting.get_mut(at) {
                    waiting.is_unsent = true;
                }
            }
        }
        (self.messages, self.bytes) = (messages, bytes);
        self.messages.clear();
        self.bytes.clear();
        QUEUED.set(0);
        waiting
    }

    /// By the ring, if there is more than one. What has no outcome is still to be sent.
    fn send_together(&mut self, messages: &[Message], bytes: &[u8]) {
        self.outcomes.clear();
        if messages.len() < 2 {
            return;
        }
        let Some(ring) = &mut self.ring else { return };
        let sends = pieces(messages, bytes).map(|(message, bytes)| (borrowed(message), bytes));
        if ring.send(sends, &mut self.outcomes).is_err() {
            self.ring = None;
        }
    }
}

/// Each message with its bytes.
fn pieces<'a>(messages: &'a [Message], bytes: &'a [u8]) -> impl Iterator<Item = (&'a Message, &'a [u8])> {
    let mut begin = 0;
    messages.iter().map(move |message| {
        let piece = bytes.get(begin..message.end).unwrap_or_default();
        begin = message.end;
        (message, piece)
    })
}

fn borrowed(message: &Message) -> BorrowedFd<'_> {
    // SAFETY: `Batched` does not let go of a socket before what is queued for it is flushed, and a message is borrowed only
    // while it is being flushed.
    unsafe { BorrowedFd::borrow_raw(message.socket) }
}
