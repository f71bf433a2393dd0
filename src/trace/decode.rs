//! From the bytes of a file to what it says.
//!
//! Owns the reading of what may be cut off, damaged or no trace at all: it ends in an error or a beginning, never in a
//! panic, and takes no more memory than the file's length allows.

use std::sync::Arc;

use super::block::{self, Stop, take_number};
use super::encode::{DROPPED, END, MAGIC, NAMES, REQUESTS, VERSION};
use super::record::{Asked, Mark};

/// What was recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// When the recording began, in milliseconds since 1970.
    pub started_unix_ms: u64,
    /// Tenants, by their numbers in this file.
    pub names: Vec<Arc<str>>,
    /// Requests in the order in which they came.
    pub requests: Vec<Request>,
    /// Servers' logins that were measured: how many, and how long they took together.
    pub logins: (u64, u64),
    /// Records that are missing because they could not be written in time.
    pub dropped: u64,
    /// How the file ends.
    pub ending: Ending,
}

/// One request for a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// When it came, in microseconds since the recording began.
    pub at_us: u64,
    /// Whose: an index of [`Trace::names`].
    pub tenant: u32,
    /// How long it held its server.
    pub hold_us: u32,
    /// What it waited, and marks.
    pub asked: Asked,
}

/// How a file ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// As it should.
    Complete,
    /// Without its last words: it was cut off, or is being written still.
    Open,
    /// What follows is damaged, from this byte on.
    Damaged {
        /// Its number.
        at: usize,
    },
}

/// No request ends later: three centuries behind the beginning. Whoever reckons with such times need not fear their sums.
pub const LATEST_US: u64 = 1 << 53;

/// Why a file is no trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TraceError {
    /// It begins with something else.
    #[error("this is not a trace")]
    NotATrace,
    /// Another version of this program wrote it.
    #[error("version {0} of the format is not known here, only {VERSION}")]
    Version(u8),
}

/// Reads a file, as far as it is whole.
///
/// # Errors
/// If it is no trace, or one of another version.
pub fn parse(file: &[u8]) -> Result<Trace, TraceError> {
    let mut rest = file.strip_prefix(MAGIC).ok_or(TraceError::NotATrace)?;
    let (version, after) = rest.split_first().ok_or(TraceError::NotATrace)?;
    if *version != VERSION {
        return Err(TraceError::Version(*version));
    }
    let (started, after) = after.split_first_chunk().ok_or(TraceError::NotATrace)?;
    rest = after;
    let mut trace = Trace {
        started_unix_ms: u64::from_le_bytes(*started),
        names: Vec::new(),
        requests: Vec::new(),
        logins: (0, 0),
        dropped: 0,
        ending: Ending::Open,
    };
    trace.ending = loop {
        let at = file.len().saturating_sub(rest.len());
        match block::take(&mut rest) {
            Ok((END, [])) => break Ending::Complete,
            Ok((tag, payload)) if trace.block(tag, payload).is_some() => {}
            Ok(_) | Err(Stop::Garbled) => break Ending::Damaged { at },
            Err(Stop::Short) => break Ending::Open,
        }
    };
    // Each worker's are in the order in which they ended.
    trace.requests.sort_by_key(|request| request.at_us);
    Ok(trace)
}

impl Trace {
    /// Takes one block, or nothing of it.
    fn block(&mut self, tag: u8, payload: &[u8]) -> Option<()> {
        match tag {
            NAMES => {
                let known = self.names.len();
                self.take_names(payload).or_else(|| {
                    self.names.truncate(known);
                    None
                })
            }
            REQUESTS => {
                let (known, logins) = (self.requests.len(), self.logins);
                self.take_requests(payload).or_else(|| {
                    self.requests.truncate(known);
                    self.logins = logins;
                    None
                })
            }
            DROPPED => {
                let mut rest = payload;
                self.dropped = take_number(&mut rest).filter(|_| rest.is_empty())?;
                Some(())
            }
            _ => None,
        }
    }

    fn take_names(&mut self, mut payload: &[u8]) -> Option<()> {
        while !payload.is_empty() {
            let length = usize::try_from(take_number(&mut payload)?).ok()?;
            let (name, rest) = payload.split_at_checked(length)?;
            self.names.push(std::str::from_utf8(name).ok()?.into());
            payload = rest;
        }
        Some(())
    }

    fn take_requests(&mut self, mut payload: &[u8]) -> Option<()> {
        let mut end_us = take_number(&mut payload)?;
        let count = take_number(&mut payload)?;
        for _ in 0..count {
            let head = take_number(&mut payload)?;
            end_us = end_us.checked_add(take_number(&mut payload)?).filter(|end_us| *end_us < LATEST_US)?;
            let hold_us = u32::try_from(take_number(&mut payload)?).ok()?;
            let wait_us = if head & 1 == 1 { take_number(&mut payload)? } else { 0 };
            let tenant = u32::try_from(head >> 5).ok()?;
            self.names.get(usize::try_from(tenant).ok()?)?;
            let marks = u32::try_from(head >> 1 & 0xf).ok()?;
            let asked = Asked::from_parts(u32::try_from(wait_us).ok()?, marks);
            if asked.has(Mark::Login) {
                let (logins, took_us) = self.logins;
                self.logins = (logins.saturating_add(1), took_us.saturating_add(hold_us.into()));
                continue;
            }
            // What began before the recording did came at its first moment.
            let at_us = end_us.saturating_sub(hold_us.into()).saturating_sub(asked.wait_us().into());
            let hold_us = u32::try_from(end_us.min(hold_us.into())).ok()?;
            self.requests.push(Request { at_us, tenant, hold_us, asked });
        }
        payload.is_empty().then_some(())
    }
}
