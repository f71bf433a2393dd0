//! The numbers of the budget rules, with their defaults (`docs/budgets.md`, Defaults).
//!
//! Owns [`BudgetConfig`]. All times are in microseconds.

/// The numbers by which a [`Scheduler`](super::Scheduler) decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BudgetConfig {
    /// Number of this ledger: a permit of another ledger is refused. Give every scheduler its own.
    pub ledger: u32,
    /// Whether to say with `StandingChanged` what is lacking, for an [`Exchange`](super::Exchange) with other workers.
    pub announce_need: bool,
    /// Servers the scheduler may have at first (`SetCapacity` changes it).
    pub capacity: u32,
    /// Free slots that a tenant above its share may not take.
    pub headroom: u32,
    /// Waiters of all tenants together.
    pub max_waiters: u32,
    /// Whether a request is refused at once that would be served behind its deadline only.
    pub refuses_hopeless_waits: bool,
    /// How long a server login takes.
    pub open_latency: OpenLatency,
    /// Servers that may be logging in at once, for tenants below their floor, below their share, and above it.
    pub opens_in_flight: [u32; 3],
    /// Reconnects per second that burst evictions and turns above the floor may cause together, at least.
    pub reconnects_per_second: u32,
    /// The same as a part of the transactions per second, in thousandths; the larger of both holds.
    pub reconnects_per_mille: u32,
    /// An idle server of a tenant within its share is safe from others below their share for so long.
    pub idle_age_us: u64,
    /// The same if its tenant has lately never asked sooner than [`Self::idle_gain_us`] from then on.
    pub idle_age_min_us: u64,
    /// A server that will lie idle for so long is of more use to somebody else, a login there and a login back.
    pub idle_gain_us: u64,
    /// An idle server is safe from others above their share for at least so long.
    pub burst_idle_age_us: u64,
    /// An idle server older than this is taken to cost little: the brakes are off while there is one.
    pub stale_us: u64,
    /// The longest idle age that is ever asked of a server before a burst takes it.
    pub collateral_max_us: u64,
    /// Running short transactions above their tenants' shares from which the next release is awaited.
    pub releases_awaited: u32,
    /// How long a waiter awaits such a release before an idle server is evicted after all.
    pub release_patience_us: u64,
    /// The shortest tenure of a server before it goes to another tenant of the same band.
    pub quantum_min_us: u64,
    /// The longest tenure that is granted while others of the same band wait.
    pub quantum_max_us: u64,
    /// How long a full round among tenants of the same band should take.
    pub round_us: u64,
    /// The shortest tenure of a server before it goes to a tenant of a better band.
    pub better_band_tenure_us: u64,
    /// How far a tenant must be ahead in virtual time before it gives a server to another of its band.
    pub lead_us: u64,
    /// How much over-use or under-use of the past is remembered.
    pub lag_max_us: u64,
    /// Mean holds from which a tenant is a long borrower, and a very long one.
    pub long_hold_us: [u64; 2],
    /// The part of the capacity that (very) long borrowers together may hold above their shares: one n-th.
    pub long_hold_divisor: [u32; 2],
    /// First pause after Postgres could not be reached.
    pub backoff_min_us: u64,
    /// Longest such pause.
    pub backoff_max_us: u64,
    /// The working capacity grows by one after each such span without "too many connections".
    pub capacity_recovery_us: u64,
}

impl BudgetConfig {
    /// The defaults, with this capacity.
    #[must_use]
    pub const fn new(capacity: u32) -> Self {
        Self {
            ledger: 0,
            announce_need: false,
            capacity,
            headroom: 0,
            max_waiters: 1_000_000,
            refuses_hopeless_waits: true,
            open_latency: OpenLatency::Measured { start_us: 5 * MS },
            opens_in_flight: [32, 16, 12],
            reconnects_per_second: 50,
            reconnects_per_mille: 20,
            idle_age_us: 5 * MS,
            idle_age_min_us: MS,
            idle_gain_us: 10 * MS,
            burst_idle_age_us: 20 * MS,
            stale_us: 250 * MS,
            collateral_max_us: 5 * SECOND,
            releases_awaited: 4,
            release_patience_us: 10 * MS,
            quantum_min_us: 100 * MS,
            quantum_max_us: SECOND,
            round_us: 2 * SECOND,
            better_band_tenure_us: 10 * MS,
            lead_us: 10 * MS,
            lag_max_us: 200 * MS,
            long_hold_us: [50 * MS, 500 * MS],
            long_hold_divisor: [2, 4],
            backoff_min_us: 100 * MS,
            backoff_max_us: 5 * SECOND,
            capacity_recovery_us: SECOND,
        }
    }

    /// What a worker of the proxy goes by, with this capacity.
    #[must_use]
    pub const fn of_worker(capacity: u32) -> Self {
        Self { opens_in_flight: WORKERS_OPENS_IN_FLIGHT, ..Self::new(capacity) }
    }
}

/// Logins under way at once, below the floor, below the share and above it. A login costs Postgres 5 to 10 ms of CPU: eight
/// at a time are about a thousand a second, which is what one postmaster can fork. More at a time make all of them
/// slower: with 32 on two cores each was measured to take 125 ms.
const WORKERS_OPENS_IN_FLIGHT: [u32; 3] = [8, 6, 4];

/// What is assumed about the time a server login takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenLatency {
    /// A moving mean of what was measured.
    Measured {
        /// The mean before the first measurement.
        start_us: u64,
    },
    /// Always the same.
    Fixed {
        /// That time.
        us: u64,
    },
}

impl OpenLatency {
    /// The expected time of a login.
    #[must_use]
    pub const fn expected_us(self) -> u64 {
        match self {
            Self::Measured { start_us } => start_us,
            Self::Fixed { us } => us,
        }
    }

    /// Learns from one login.
    pub(super) fn observe(&mut self, took_us: u64) {
        match self {
            Self::Measured { start_us } => {
                // A stuck login says nothing about the next one; the mean moves by one eighth.
                let sample = took_us.min(10 * SECOND);
                *start_us = (start_us.saturating_mul(7).saturating_add(sample) / 8).max(100);
            }
            Self::Fixed { .. } => {}
        }
    }
}

const MS: u64 = 1_000;
const SECOND: u64 = 1_000_000;
