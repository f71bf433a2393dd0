//! Goal: what is queued arrives, in order, at the socket it was queued for and at no other, whatever becomes of the socket
//! meanwhile. Method: Unix socket pairs, the far end read with the standard library.
//!
//! Where the system gives no io_uring nothing is ever queued; then that is what is checked.
#![expect(clippy::unwrap_used, reason = "a test expects by failing")]

use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream as Far;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Wake, Waker};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{SendFlags, send};
use sendring::{Batched, flush, keep_flushing, start};
use tokio::net::UnixStream;
use tokio::runtime::{Builder, LocalOptions};
use tokio::task::{spawn_local, yield_now};

/// Counts how often it is woken.
#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// A waker, and its count.
fn waker() -> (Waker, Arc<Woken>) {
    let woken = Arc::new(Woken::default());
    (woken.clone().into(), woken)
}

/// Runs a test in a runtime as a worker has it. Without io_uring it only checks that nothing is queued.
fn in_a_worker(test: impl AsyncFnOnce()) {
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).unwrap();
    runtime.block_on(async {
        if let Err(error) = start() {
            eprintln!("no io_uring here: {error}");
            let (mut near, _far) = pair();
            assert!(!near.queue(b"x", Waker::noop()));
            return;
        }
        test().await;
    });
}

fn pair() -> (Batched<UnixStream>, Far) {
    let (near, far) = Far::pair().unwrap();
    near.set_nonblocking(true).unwrap();
    far.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    (Batched::new(UnixStream::from_std(near).unwrap()), far)
}

/// What has arrived; waits for nothing.
fn arrived(far: &Far) -> Vec<u8> {
    far.set_nonblocking(true).unwrap();
    let mut bytes = Vec::new();
    let end = (&*far).read_to_end(&mut bytes);
    assert!(end.is_ok() || end.is_err_and(|error| error.kind() == ErrorKind::WouldBlock));
    far.set_nonblocking(false).unwrap();
    bytes
}

/// Writes until the socket takes nothing more.
fn fill(near: &UnixStream) -> usize {
    let mut filled = 0;
    loop {
        match send(near, &[b'.'; 1000], SendFlags::NOSIGNAL) {
            Ok(count) => filled += count,
            Err(error) => {
                assert_eq!(error, Errno::WOULDBLOCK);
                return filled;
            }
        }
    }
}

#[test]
fn everything_queued_arrives_in_order_and_not_before_the_flush() {
    in_a_worker(async || {
        // More than one batch takes, and each socket twice.
        let (mut near, far): (Vec<_>, Vec<_>) = (0..50).map(|_| pair()).unzip();
        let (waker, woken) = waker();
        for (number, near) in near.iter_mut().enumerate() {
            assert!(near.queue(format!("first {number},").as_bytes(), &waker));
            assert!(near.queue(b" again,", &waker));
        }
        assert_eq!(arrived(&far[49]), b"", "the last batch has not been flushed");
        for near in &mut near {
            assert!(near.queue(b" second", &waker));
        }
        flush();
        for (number, far) in far.iter().enumerate() {
            assert_eq!(arrived(far), format!("first {number}, again, second").as_bytes());
        }
        assert_eq!(woken.0.load(Ordering::Relaxed), 0);
    });
}

#[test]
fn a_long_message_is_not_queued() {
    in_a_worker(async || {
        let (mut near, far) = pair();
        assert!(near.queue(b"short", Waker::noop()));
        assert!(!near.queue(&[0; 5000], Waker::noop()));
        near.flush();
        assert_eq!(arrived(&far), b"short");
    });
}

#[test]
fn what_a_full_socket_does_not_take_is_kept_and_its_task_woken() {
    in_a_worker(async || {
        let ((mut full, full_far), (mut other, other_far)) = (pair(), pair());
        let filled = fill(&full);
        let ((full_waker, full_woken), (other_waker, other_woken)) = (waker(), waker());
        assert!(full.queue(b"kept", &full_waker));
        assert!(other.queue(b"sent", &other_waker));
        assert!(!full.has_unsent());
        flush();
        assert_eq!(arrived(&other_far), b"sent");
        assert!(full.has_unsent() && !other.has_unsent());
        assert_eq!(full_woken.0.load(Ordering::Relaxed), 1);
        assert_eq!(other_woken.0.load(Ordering::Relaxed), 0);
        assert!(!full.queue(b"behind", &full_waker), "what follows must not overtake");

        let mut unsent = full.take_unsent().unwrap();
        assert_eq!(unsent.bytes().unwrap(), b"kept");
        full.put_unsent(unsent.behind(1).unwrap());
        assert!(full.has_unsent());
        assert_eq!(full.take_unsent().unwrap().bytes().unwrap(), b"ept");
        assert!(!full.has_unsent());
        assert_eq!(arrived(&full_far).len(), filled);
        assert!(full.queue(b"behind", &full_waker), "nothing is in its way any more");
        flush();
        assert_eq!(arrived(&full_far), b"behind");
    });
}

#[test]
fn who_has_the_socket_now_hears_that_it_is_full() {
    in_a_worker(async || {
        let ((mut full, _full_far), (mut free, free_far)) = (pair(), pair());
        fill(&full);
        let ((before, before_woken), (now, _)) = (waker(), waker());
        assert!(full.queue(b"of the last task", &before));
        assert!(!full.queue(b"of this task", &now), "nobody would wake it");
        assert_eq!(before_woken.0.load(Ordering::Relaxed), 1);
        assert!(free.queue(b"first", &before));
        assert!(free.queue(b", second", &now));
        flush();
        assert_eq!(arrived(&free_far), b"first, second");
    });
}

#[test]
fn a_connection_that_is_gone_is_an_error_of_its_own() {
    in_a_worker(async || {
        let ((mut gone, gone_far), (mut other, other_far)) = (pair(), pair());
        drop(gone_far);
        let (waker, woken) = waker();
        assert!(gone.queue(b"lost", &waker));
        assert!(other.queue(b"sent", &waker));
        flush();
        assert_eq!(arrived(&other_far), b"sent");
        assert_eq!(woken.0.load(Ordering::Relaxed), 1);
        let error = gone.take_unsent().unwrap().bytes().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    });
}

#[test]
fn a_socket_that_is_closed_takes_its_messages_with_it() {
    in_a_worker(async || {
        let ((mut closed, closed_far), (mut other, other_far)) = (pair(), pair());
        let number = closed.as_fd().as_raw_fd();
        assert!(closed.queue(b"mine", Waker::noop()));
        assert!(other.queue(b"other", Waker::noop()));
        drop(closed);
        // The next socket gets the number: what is queued for it is another client's.
        let (next, next_far) = pair();
        assert_eq!(next.as_fd().as_raw_fd(), number);
        flush();
        assert_eq!(arrived(&closed_far), b"mine");
        assert_eq!(arrived(&next_far), b"");
        assert_eq!(arrived(&other_far), b"other");
    });
}

#[test]
fn unsent_bytes_go_with_their_socket() {
    in_a_worker(async || {
        let ((mut full, _far), (mut taken, taken_far)) = (pair(), pair());
        fill(&full);
        let number = full.as_fd().as_raw_fd();
        assert!(full.queue(b"never sent", Waker::noop()));
        flush();
        assert!(full.has_unsent());
        drop(full);
        let (mut next, next_far) = pair();
        assert_eq!(next.as_fd().as_raw_fd(), number);
        assert!(!next.has_unsent() && next.take_unsent().is_none());
        assert!(next.queue(b"new", Waker::noop()));
        // As when a socket is taken out of its wrapper.
        assert!(taken.queue(b"before", Waker::noop()));
        let taken = taken.into_inner().into_std().unwrap();
        (&taken).write_all(b", behind").unwrap();
        flush();
        assert_eq!(arrived(&next_far), b"new");
        assert_eq!(arrived(&taken_far), b"before, behind");
    });
}

#[test]
fn the_flusher_comes_behind_whoever_was_woken_and_is_not_kept_off_by_the_busy() {
    in_a_worker(async || {
        spawn_local(keep_flushing());
        yield_now().await;
        let (mut near, far) = pair();
        let far = Rc::new(far);
        spawn_local(async {
            loop {
                yield_now().await;
            }
        });
        let (mut second, second_far) = pair();
        let first_far = Rc::clone(&far);
        let sending = spawn_local(async move {
            assert!(near.queue(b"sent", Waker::noop()));
            // Woken by the first sender: its message belongs to the same batch.
            let second = spawn_local(async move {
                assert_eq!(arrived(&first_far), b"", "the flusher did not wait for it");
                assert!(second.queue(b"too", Waker::noop()));
                second
            });
            (near, second)
        });
        let (_near, second) = sending.await.unwrap();
        let _second = second.await.unwrap();
        let mut turns = 0;
        while arrived(&far).is_empty() {
            turns += 1;
            assert!(turns < 100, "a task that never rests keeps messages from being sent");
            yield_now().await;
        }
        assert_eq!(arrived(&second_far), b"too", "one batch for both");
    });
}
