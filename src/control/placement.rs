//! Which worker a tenant lives on.
//!
//! Owns the choice, which is made when a tenant's first client comes and holds for as long as the process lives. Has no
//! clock: how long each worker has been busy is told to it. Must not know workers beyond their numbers.

use std::collections::HashMap;
use std::time::Duration;

use crate::ids::{TenantId, WorkerId};

/// Where a tenant lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Placement {
    /// On one worker, for as long as the process lives.
    Pinned(WorkerId),
}

/// All tenants that have been placed, and what is known of the workers.
#[derive(Debug)]
pub(super) struct Placements {
    of: HashMap<TenantId, Placement>,
    workers: Vec<Load>,
}

/// One worker.
#[derive(Clone, Debug, Default)]
struct Load {
    /// Tenants that live here.
    tenants: u32,
    /// How long it had been busy by then.
    busy: Duration,
    /// The part of its time that it is busy, of late: 0 to 1.
    part: f64,
    /// It has ended, and does nothing any more.
    gone: bool,
}

impl Placements {
    /// Nobody is placed yet.
    pub(super) fn new(workers: usize) -> Self {
        Self { of: HashMap::new(), workers: vec![Load::default(); workers] }
    }

    /// Takes note of how long each worker has been busy since it started, `None` for one that has ended; `elapsed` has
    /// passed since the last time.
    pub(super) fn observe(&mut self, elapsed: Duration, busy: impl IntoIterator<Item = Option<Duration>>) {
        let seconds = elapsed.as_secs_f64();
        if seconds <= 0.0 {
            return;
        }
        for (load, busy) in self.workers.iter_mut().zip(busy) {
            let Some(busy) = busy else {
                load.gone = true;
                continue;
            };
            let part = (busy.saturating_sub(load.busy).as_secs_f64() / seconds).min(1.0);
            load.part += (part - load.part) * NEWS;
            load.busy = busy;
        }
    }

    /// Where the tenant lives: where it was put, or else on the worker with most time left and fewest tenants. Both count:
    /// tenants that do nothing now may do something later.
    pub(super) fn place(&mut self, tenant: TenantId) -> Option<Placement> {
        if let Some(known) = self.of.get(&tenant) {
            return Some(*known);
        }
        let tenants = self.workers.iter().fold(0_u32, |sum, load| sum.saturating_add(load.tenants));
        let even = f64::from(tenants.max(1)) / self.workers.len() as f64;
        let burden = |load: &Load| f64::from(load.tenants) / even + load.part * WEIGHT;
        let there = self.workers.iter_mut().enumerate().filter(|(_, load)| !load.gone);
        let (number, load) = there.min_by(|(_, a), (_, b)| burden(a).total_cmp(&burden(b)))?;
        load.tenants = load.tenants.saturating_add(1);
        let placement = Placement::Pinned(WorkerId(u16::try_from(number).ok()?));
        self.of.insert(tenant, placement);
        Some(placement)
    }
}

/// How much of what is known of a worker is what was seen last: with a look each second, five seconds count for most.
const NEWS: f64 = 0.3;
/// A worker that is busy all the time is as good as one that does nothing and has so many times an even part of the tenants.
const WEIGHT: f64 = 4.0;

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn worker(placements: &mut Placements, tenant: u32) -> usize {
        let Some(Placement::Pinned(WorkerId(worker))) = placements.place(TenantId(tenant)) else {
            panic!("there are workers");
        };
        worker.into()
    }

    #[test]
    fn idle_workers_take_turns_and_a_tenant_stays() {
        let mut placements = Placements::new(3);
        let homes: Vec<usize> = (0..6).map(|tenant| worker(&mut placements, tenant)).collect();
        assert_eq!(homes, [0, 1, 2, 0, 1, 2]);
        placements.observe(SECOND, [SECOND, Duration::ZERO, Duration::ZERO].map(Some));
        assert_eq!(worker(&mut placements, 3), 0, "it stays");
    }

    #[test]
    fn a_busy_worker_gets_nobody_until_it_has_time_again() {
        let mut placements = Placements::new(2);
        for tenant in 0..4 {
            worker(&mut placements, tenant);
        }
        placements.observe(SECOND, [SECOND, Duration::ZERO].map(Some));
        assert_eq!((4..7).map(|tenant| worker(&mut placements, tenant)).collect::<Vec<_>>(), [1, 1, 1]);
        for seconds in 2..12 {
            placements.observe(SECOND, [SECOND, SECOND * seconds].map(Some));
        }
        assert_eq!(worker(&mut placements, 7), 0);
    }

    #[test]
    fn those_who_come_together_are_not_all_put_on_the_worker_that_had_most_time() {
        let mut placements = Placements::new(4);
        for tenant in 0..40 {
            worker(&mut placements, tenant);
        }
        placements.observe(SECOND, [SECOND, SECOND, SECOND, SECOND * 8 / 10].map(Some));
        let mut put = [0; 4];
        for tenant in 40..440 {
            put[worker(&mut placements, tenant)] += 1;
        }
        assert!(put.iter().all(|put| (85..=120).contains(put)), "{put:?}");
    }

    /// Pools of applications that connect at night work in the morning.
    #[test]
    fn tenants_that_do_nothing_yet_are_not_all_put_on_the_worker_that_has_a_little_less_to_do() {
        let mut placements = Placements::new(2);
        let mut put = [0; 2];
        for second in 1..=500 {
            let busy = [SECOND * 4 / 100, SECOND * 9 / 100].map(|part| Some(part * second));
            placements.observe(SECOND, busy);
            for tenant in 0..10 {
                put[worker(&mut placements, second * 10 + tenant)] += 1;
            }
        }
        assert!(put.iter().all(|put| *put > 2_000), "{put:?}");
    }

    #[test]
    fn a_worker_that_has_ended_gets_nobody() {
        let mut placements = Placements::new(2);
        placements.observe(SECOND, [None, Some(SECOND)]);
        assert_eq!((0..3).map(|tenant| worker(&mut placements, tenant)).collect::<Vec<_>>(), [1, 1, 1]);
    }

    #[test]
    fn without_a_worker_nobody_is_placed() {
        assert_eq!(Placements::new(0).place(TenantId(1)), None);
    }

    /// Tenants whose loads are as unequal as those of real ones (Zipf) come in any order, some in each second, and work from
    /// then on. The largest has more than one worker can do. What is compared is the busiest worker with the least that it
    /// could have: that tenant, or the mean of all.
    #[test]
    fn the_busiest_of_64_workers_has_little_more_than_it_must() {
        let (workers, tenants) = (64, 10_000_u32);
        // Each of them has no divisor in common with 10,000, and so makes another order of them all.
        for seed in [1, 3, 7, 1237, 7919] {
            let harmonic: f64 = (1..=tenants).map(|rank| f64::from(rank).powf(-ZIPF)).sum();
            let rank = |number: u32| number * seed % tenants + 1;
            let loads: Vec<f64> = (0..tenants)
                .map(|number| f64::from(rank(number)).powf(-ZIPF) / harmonic * BUSY_WORKERS)
                .collect();
            let (mut by_load, mut by_count) = (vec![0.0; workers], vec![0.0; workers]);
            let mut placements = Placements::new(workers);
            let mut busy = vec![Duration::ZERO; workers];
            let mut next = 0;
            while next < loads.len() {
                for load in loads.iter().skip(next).take(1 + next * 31 % 200) {
                    by_load[worker(&mut placements, u32::try_from(next).unwrap())] += load;
                    by_count[next % workers] += load;
                    next += 1;
                }
                for (busy, load) in busy.iter_mut().zip(&by_load) {
                    *busy += SECOND.mul_f64(f64::min(*load, 1.0));
                }
                placements.observe(SECOND, busy.iter().copied().map(Some));
            }
            let busiest = |loads: &[f64]| loads.iter().copied().fold(0.0, f64::max);
            let least = busiest(&loads).max(BUSY_WORKERS / workers as f64);
            let (by_load, by_count) = (busiest(&by_load) / least, busiest(&by_count) / least);
            println!(
                "seed {seed}: busiest worker {by_load:.2} of the least, {by_count:.2} by counting tenants, least {least:.2}"
            );
            assert!(by_load < 1.3, "seed {seed}: {by_load}");
            assert!(by_load < by_count, "seed {seed}: {by_load}, {by_count} by counting");
        }
    }

    /// How unequal: the largest of 10,000 tenants has a fiftieth of the load.
    const ZIPF: f64 = 0.8;
    /// The load of all, in workers.
    const BUSY_WORKERS: f64 = 32.0;
}
