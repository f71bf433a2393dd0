//! Small messages to many sockets in one system call.
//!
//! A thread that serves many sockets reads some of them, and what it read goes out by others. Each send wakes whoever waits
//! at the other end; where that shares the processor with the sender it takes over at once, and the sender pays two switches
//! for each message. Here a thread queues what it would send, and hands the whole turn to the kernel together: with
//! io_uring it enters the kernel once, and is interrupted once.
//!
//! A [`Batched`] socket queues, and [`keep_flushing`] is the task that sends what a thread has queued. Sends never wait:
//! what the kernel does not take at once stands in [`Unsent`], and the task that queued it is woken. Without [`start`]
//! nothing is ever queued.
//!
//! This crate may say `unsafe`. It must not know what the bytes mean.

mod batch;
mod batched;
mod ring;

pub use batch::{Unsent, flush, keep_flushing, start};
pub use batched::{Batched, Steady};
