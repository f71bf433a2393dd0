//! Traces: what was asked of a proxy's servers, and for how long, to be tried out on another configuration.
//!
//! Owns the record that a worker keeps for each request ([`Record`]), and the file ([`Encoder`], [`parse`]). A trace says
//! when which tenant asked, what it waited and how long it held its server: no query, no user, no address. Must not know
//! files, threads, nor what a trace is good for (`replay`).
//!
//! ```text
//!  file   = "TNTRACE" version:u8 started_unix_ms:u64 block*          whole numbers are little-endian
//!  block  = tag:u8 length:u32 check:u32 payload                     check = CRC-32 of tag, length and payload
//!
//!  tag 1, names     (length name)*                 the next numbers of the dictionary, from 0
//!  tag 2, requests  base_us count record*          of one worker, in the order in which they ended
//!  tag 3, dropped   count                          records that are missing so far, in all
//!  tag 4, end       (nothing)                      nothing was cut off
//!
//!  record = head end hold [wait]                   numbers of 7 bits a byte (LEB128)
//!  head   = dictionary number << 5 | marks << 1 | whether `wait` follows
//!  end    = microseconds since the end of the record before, or since `base_us`
//! ```
//!
//! A file that ends early, or is damaged somewhere, is read up to there.

mod block;
mod decode;
mod encode;
mod record;

pub use decode::{Ending, LATEST_US, Request, Trace, TraceError, parse};
pub use encode::{Encoder, HEAD_BYTES};
pub use record::{Asked, Mark, Record};

#[cfg(test)]
mod tests;
