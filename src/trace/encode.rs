//! From records to the bytes of a file.
//!
//! Owns the dictionary of one file. Writing is the caller's: every method appends to a buffer.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::block::{put, put_number};
use super::record::Record;
use crate::ids::TenantId;

/// Makes one file.
#[derive(Debug, Default)]
pub struct Encoder {
    /// Dictionary numbers by tenant.
    numbers: BTreeMap<TenantId, u32>,
    payload: Vec<u8>,
}

impl Encoder {
    /// Begins a file: appends what stands first in it.
    #[must_use]
    pub fn begin(started_unix_ms: u64, out: &mut Vec<u8>) -> Self {
        out.extend_from_slice(MAGIC);
        out.push(VERSION);
        out.extend_from_slice(&started_unix_ms.to_le_bytes());
        Self::default()
    }

    /// Appends the names of those tenants that the file does not know yet.
    pub fn names(&mut self, names: &[(TenantId, Arc<str>)], out: &mut Vec<u8>) {
        self.payload.clear();
        for (tenant, name) in names {
            let next = u32::try_from(self.numbers.len()).unwrap_or(u32::MAX);
            if let std::collections::btree_map::Entry::Vacant(place) = self.numbers.entry(*tenant) {
                place.insert(next);
                put_number(&mut self.payload, name.len() as u64);
                self.payload.extend_from_slice(name.as_bytes());
            }
        }
        if !self.payload.is_empty() {
            put(out, NAMES, &self.payload);
        }
    }

    /// Appends what a worker has noted since `base_us`, and returns how many records that is: those of tenants without a
    /// name are left out.
    pub fn batch(&mut self, base_us: u64, records: &[Record], out: &mut Vec<u8>) -> u64 {
        let numbers = &self.numbers;
        let known = || records.iter().filter_map(|record| Some((*numbers.get(&record.tenant)?, record)));
        let count = known().count() as u64;
        if count == 0 {
            return 0;
        }
        self.payload.clear();
        put_number(&mut self.payload, base_us);
        put_number(&mut self.payload, count);
        let mut before_us = 0_u32;
        for (number, record) in known() {
            let wait_us = record.asked.wait_us();
            let head = u64::from(number) << 5 | u64::from(record.asked.marks()) << 1 | u64::from(wait_us > 0);
            put_number(&mut self.payload, head);
            // A worker notes them as they end, so none is earlier than the one before.
            put_number(&mut self.payload, u64::from(record.end_us.saturating_sub(before_us)));
            before_us = before_us.max(record.end_us);
            put_number(&mut self.payload, u64::from(record.hold_us));
            if wait_us > 0 {
                put_number(&mut self.payload, u64::from(wait_us));
            }
        }
        put(out, REQUESTS, &self.payload);
        count
    }

    /// Appends how many records are missing so far.
    pub fn dropped(&mut self, count: u64, out: &mut Vec<u8>) {
        self.payload.clear();
        put_number(&mut self.payload, count);
        put(out, DROPPED, &self.payload);
    }

    /// Ends a file.
    pub fn end(self, out: &mut Vec<u8>) {
        put(out, END, &[]);
    }
}

/// What a trace begins with.
pub(super) const MAGIC: &[u8; 7] = b"TNTRACE";
pub(super) const VERSION: u8 = 1;
/// What stands before the first block.
pub const HEAD_BYTES: u64 = 16;
pub(super) const NAMES: u8 = 1;
pub(super) const REQUESTS: u8 = 2;
pub(super) const DROPPED: u8 = 3;
pub(super) const END: u8 = 4;
