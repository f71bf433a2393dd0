//! From a trace to what the clients of a configuration do.
//!
//! Owns what is assumed where the trace does not say it: how long somebody would have held a server who got none.

use std::collections::BTreeMap;

use crate::ids::TenantId;
use crate::trace::{Mark, Request, Trace};

/// A client that comes, holds a server if it gets one, and goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Visit {
    /// When it comes, in microseconds since the recording began.
    pub at_us: u64,
    /// Whose it is.
    pub tenant: TenantId,
    /// How long it holds its server.
    pub hold_us: u32,
    /// No rate holds for it.
    pub exempt: bool,
}

/// The visits of those tenants that `known` has a number for, in the order in which they come; and how many requests are of
/// others.
pub fn visits(trace: &Trace, known: impl Fn(&str) -> Option<TenantId>) -> (Vec<Visit>, u64) {
    let tenants: Vec<Option<TenantId>> = trace.names.iter().map(|name| known(name)).collect();
    let holds = Holds::of(&trace.requests);
    let (mut visits, mut others) = (Vec::with_capacity(trace.requests.len()), 0_u64);
    for request in &trace.requests {
        let index = usize::try_from(request.tenant).unwrap_or(usize::MAX);
        let Some(tenant) = tenants.get(index).copied().flatten() else {
            others = others.saturating_add(1);
            continue;
        };
        let hold_us =
            if request.asked.has(Mark::Unserved) { holds.usual(request.tenant) } else { request.hold_us };
        visits.push(Visit { at_us: request.at_us, tenant, hold_us, exempt: request.asked.has(Mark::Exempt) });
    }
    (visits, others)
}

/// How long servers are held: count and sum.
#[derive(Default)]
struct Holds {
    by_tenant: BTreeMap<u32, (u64, u64)>,
    all: (u64, u64),
}

impl Holds {
    fn of(requests: &[Request]) -> Self {
        let mut holds = Self::default();
        // A client that keeps its server for an hour says nothing about one that was turned away.
        let plain =
            |request: &&Request| !request.asked.has(Mark::Unserved) && !request.asked.has(Mark::Pinned);
        for request in requests.iter().filter(plain) {
            let of_tenant = holds.by_tenant.entry(request.tenant).or_default();
            for (count, sum_us) in [of_tenant, &mut holds.all] {
                *count = count.saturating_add(1);
                *sum_us = sum_us.saturating_add(request.hold_us.into());
            }
        }
        holds
    }

    /// The mean of its tenant, or else of all.
    fn usual(&self, tenant: u32) -> u32 {
        let mean = |(count, sum_us): (u64, u64)| sum_us.checked_div(count);
        let of_tenant = self.by_tenant.get(&tenant).copied().and_then(mean);
        let mean_us = of_tenant.or_else(|| mean(self.all)).unwrap_or(UNKNOWN_HOLD_US);
        u32::try_from(mean_us).unwrap_or(u32::MAX)
    }
}

/// Of a trace in which nobody got a server.
const UNKNOWN_HOLD_US: u64 = 5_000;
