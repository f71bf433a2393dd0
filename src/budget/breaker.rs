//! A breaker: after a failure nothing is tried for a while, then one thing at a time.
//!
//! Owns the back-off and the rule of the single probe. One instance guards the cluster (it cannot be reached), one each
//! tenant (it is not let in). Pure: the time is an argument.
//!
//! ```text
//!            failed                    time passes, probe begins
//!  Closed ───────────► Open(until, pause) ───────────► Probing(pause)
//!    ▲                   ▲      ▲                          │ │ │
//!    │ succeeded         │      └── abandoned: at once ────┘ │ │
//!    └───────────────────┼────────── succeeded ──────────────┼─┘
//!                        └─── probe failed: pause doubles ───┘
//! ```

use super::config::BudgetConfig;
use crate::time::Moment;

/// A breaker's state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Breaker {
    /// All is well.
    #[default]
    Closed,
    /// Something failed; nothing is tried before `until`.
    Open { until: Moment, pause_us: u64 },
    /// One attempt is under way.
    Probing { pause_us: u64 },
}

/// What may be tried now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gate {
    /// Anything.
    Open,
    /// One thing, which is the probe.
    Probe,
    /// Nothing before that time, which is `NEVER` while a probe is under way (its end opens or closes the gate).
    Shut(Moment),
}

impl Breaker {
    pub(super) fn gate(self, now: Moment) -> Gate {
        match self {
            Self::Closed => Gate::Open,
            Self::Open { until, .. } if now >= until => Gate::Probe,
            Self::Open { until, .. } => Gate::Shut(until),
            Self::Probing { .. } => Gate::Shut(Moment::NEVER),
        }
    }

    pub(super) const fn is_closed(self) -> bool {
        matches!(self, Self::Closed)
    }

    /// An attempt failed. Only a probe's failure lengthens the pause: attempts begun before the breaker opened fail
    /// together and say nothing new.
    pub(super) fn failed(&mut self, now: Moment, role: Role, config: &BudgetConfig) {
        let pause_us = match (*self, role) {
            (Self::Closed, _) => config.backoff_min_us,
            (Self::Probing { pause_us }, Role::Probe) => {
                pause_us.saturating_mul(2).min(config.backoff_max_us)
            }
            (Self::Probing { .. }, Role::Ordinary) | (Self::Open { .. }, _) => return,
        };
        *self = Self::Open { until: Moment(now.0.saturating_add(pause_us)), pause_us };
    }

    /// An attempt succeeded, whichever it was.
    pub(super) fn succeeded(&mut self) {
        *self = Self::Closed;
    }

    /// Marks an attempt that begins now; it is the probe if the breaker was waiting for one.
    pub(super) fn begin(&mut self, now: Moment) -> Role {
        match *self {
            Self::Open { until, pause_us } if now >= until => {
                *self = Self::Probing { pause_us };
                Role::Probe
            }
            Self::Closed | Self::Open { .. } | Self::Probing { .. } => Role::Ordinary,
        }
    }

    /// The attempt ended without a verdict: if it was the probe, the next one may begin at once.
    pub(super) fn abandoned(&mut self, now: Moment, role: Role) {
        if let (Self::Probing { pause_us }, Role::Probe) = (*self, role) {
            *self = Self::Open { until: now, pause_us };
        }
    }
}

/// What an attempt means to a breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Begun while the breaker was closed.
    Ordinary,
    /// The one attempt on which an open breaker's future hangs.
    Probe,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_doubles_with_each_failed_probe_up_to_its_limit() {
        let config = BudgetConfig::new(1);
        let mut breaker = Breaker::default();
        let mut now = Moment(7);
        breaker.failed(now, Role::Ordinary, &config);
        let mut pauses = Vec::new();
        for _ in 0..8 {
            let Gate::Shut(until) = breaker.gate(now) else { panic!("open breakers are shut") };
            pauses.push(until.micros_since(now) / 1_000);
            now = until;
            assert_eq!(breaker.gate(now), Gate::Probe);
            assert_eq!(breaker.begin(now), Role::Probe);
            assert_eq!(breaker.gate(now), Gate::Shut(Moment::NEVER));
            breaker.failed(now, Role::Probe, &config);
        }
        assert_eq!(pauses, [100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000]);
        breaker.succeeded();
        assert_eq!(breaker.gate(now), Gate::Open);
    }

    #[test]
    fn stragglers_neither_lengthen_the_pause_nor_end_the_probe() {
        let config = BudgetConfig::new(1);
        let mut breaker = Breaker::default();
        breaker.failed(Moment(0), Role::Ordinary, &config);
        let first = breaker;
        breaker.failed(Moment(50), Role::Ordinary, &config);
        assert_eq!(breaker, first);
        let now = Moment(100_000);
        assert_eq!(breaker.begin(now), Role::Probe);
        breaker.failed(now, Role::Ordinary, &config);
        assert_eq!(breaker.gate(now), Gate::Shut(Moment::NEVER));
        breaker.abandoned(now, Role::Probe);
        assert_eq!(breaker.gate(now), Gate::Probe);
    }
}
