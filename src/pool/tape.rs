//! The tape of a worker: what was asked of its servers, while somebody records it.
//!
//! Owns the buffer, which is there only then, and when it is sent. A worker never waits for whoever writes: what cannot be
//! taken at once is dropped and counted. Must not know files.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError};

use super::clock::Clock;
use super::server::Server;
use super::tenant::TenantState;
use crate::ids::TenantId;
use crate::time::Moment;
use crate::trace::{Asked, Mark, Record};

/// Where a recording goes, as all workers know it.
#[derive(Clone, Debug)]
pub struct Recording {
    /// Which one: no two of a process have the same number, and none has 0.
    pub number: u32,
    /// Counts from the beginning of the recording.
    pub clock: Clock,
    /// Who writes.
    pub batches: SyncSender<Batch>,
    /// Records that could not be taken.
    pub dropped: Arc<AtomicU64>,
}

/// What a worker has noted for a while.
#[derive(Debug)]
pub struct Batch {
    /// When it began, in microseconds since the beginning of the recording.
    pub base_us: u64,
    /// Names of tenants that this worker has not told before.
    pub names: Vec<(TenantId, Arc<str>)>,
    /// Requests in the order in which they ended.
    pub records: Vec<Record>,
}

/// The tape of one worker.
#[derive(Debug, Default)]
pub(super) struct Tape {
    /// All that a transaction looks at.
    is_on: Cell<bool>,
    reel: RefCell<Option<Reel>>,
}

impl Tape {
    /// Records there from now on; `None`: not at all. What was noted before is sent.
    pub(super) fn record(&self, recording: Option<Recording>) {
        let mut reel = self.reel.borrow_mut();
        let before = reel.as_ref().map(|reel| reel.recording.number);
        if before == recording.as_ref().map(|recording| recording.number) {
            return;
        }
        *reel = recording.map(Reel::new);
        self.is_on.set(reel.is_some());
    }

    /// Whether anything has to be noted.
    pub(super) const fn is_on(&self) -> bool {
        self.is_on.get()
    }

    /// A lease has ended.
    #[cold]
    pub(super) fn note_lease(&self, tenant: &TenantState, server: &Server, now: Moment) {
        self.note(tenant, server.asked, now.micros_since(server.since), now);
    }

    /// A request got no server.
    #[cold]
    pub(super) fn note_unserved(&self, tenant: &TenantState, asked: Asked, now: Moment) {
        self.note(tenant, asked.with(Mark::Unserved), 0, now);
    }

    /// A server has logged in.
    #[cold]
    pub(super) fn note_login(&self, tenant: &TenantState, took_us: u64, now: Moment) {
        self.note(tenant, Asked::default().with(Mark::Login), took_us, now);
    }

    /// Sends what has been noted so far; to be called now and then.
    pub(super) fn flush(&self) {
        if self.is_on() && self.reel.borrow_mut().as_mut().is_some_and(|reel| reel.send() == Sent::Nowhere) {
            self.record(None);
        }
    }

    fn note(&self, tenant: &TenantState, asked: Asked, hold_us: u64, now: Moment) {
        // Replays are of the ledgers where tenants are at home.
        if tenant.is_reader() {
            return;
        }
        let is_full = match &mut *self.reel.borrow_mut() {
            Some(reel) => reel.note(tenant, asked, hold_us, now),
            None => false,
        };
        if is_full {
            self.flush();
        }
    }
}

/// What became of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sent {
    /// It was sent, or dropped.
    Away,
    /// Nobody writes any more: the file is full, or cannot be written.
    Nowhere,
}

/// A recording in progress.
#[derive(Debug)]
struct Reel {
    recording: Recording,
    records: Vec<Record>,
    /// Kept until they have been sent.
    names: Vec<(TenantId, Arc<str>)>,
    /// When the first of the records was noted, by the worker's clock and by the recording's.
    began: (Moment, u64),
}

impl Reel {
    const fn new(recording: Recording) -> Self {
        Self { recording, records: Vec::new(), names: Vec::new(), began: (Moment(0), 0) }
    }

    /// Returns whether there is no room for another one.
    fn note(&mut self, tenant: &TenantState, asked: Asked, hold_us: u64, now: Moment) -> bool {
        if self.records.is_empty() {
            self.records.reserve_exact(BATCH);
            self.began = (now, self.recording.clock.now().0);
        }
        if tenant.taped.replace(self.recording.number) != self.recording.number {
            self.names.push((tenant.id, tenant.tenant().name.clone()));
        }
        self.records.push(Record {
            tenant: tenant.id,
            end_us: u32::try_from(now.micros_since(self.began.0)).unwrap_or(u32::MAX),
            hold_us: u32::try_from(hold_us).unwrap_or(u32::MAX),
            asked,
        });
        self.records.len() >= BATCH
    }

    fn send(&mut self) -> Sent {
        if self.records.is_empty() {
            return Sent::Away;
        }
        let (names, records) = (std::mem::take(&mut self.names), std::mem::take(&mut self.records));
        let batch = Batch { base_us: self.began.1, names, records };
        match self.recording.batches.try_send(batch) {
            Ok(()) => Sent::Away,
            Err(TrySendError::Full(Batch { names, mut records, .. })) => {
                self.recording.dropped.fetch_add(records.len() as u64, Ordering::Relaxed);
                // The buffer is used again: there is one too many under way already.
                records.clear();
                (self.names, self.records) = (names, records);
                Sent::Away
            }
            Err(TrySendError::Disconnected(_)) => Sent::Nowhere,
        }
    }
}

impl Drop for Reel {
    /// What is left is sent, if it can be.
    fn drop(&mut self) {
        self.send();
    }
}

/// Records per batch: 64 KiB.
const BATCH: usize = 4_096;

#[cfg(test)]
mod tests;
