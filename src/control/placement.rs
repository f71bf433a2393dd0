//! Which workers a tenant lives on.
//!
//! Owns the choice, which is made when a tenant's first client comes and holds for as long as its number of workers does.
//! Has no clock: how long each worker has been busy is told to it. Must not know workers beyond their numbers.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::spread::{Change, Spread, Step};
use crate::ids::{TenantId, WorkerId};

/// Where a tenant lives.
#[derive(Debug)]
enum Placement {
    /// On one worker.
    Pinned(Seats),
    /// On several.
    Spread(Box<Spread>),
}

/// A worker, as a tenant's clients see it.
#[derive(Clone, Debug)]
pub(super) struct Seats {
    pub(super) worker: WorkerId,
    /// How many of the tenant's clients are there. Nobody counts where there is one worker only.
    taken: Option<Arc<AtomicU32>>,
}

impl Seats {
    fn new(worker: WorkerId, counts: bool) -> Self {
        Self { worker, taken: counts.then(Arc::default) }
    }

    /// How many of the tenant's clients are there.
    pub(super) fn taken(&self) -> u32 {
        self.taken.as_ref().map_or(0, |taken| taken.load(Ordering::Relaxed))
    }

    /// One more is.
    pub(super) fn take(&self) -> Seat {
        if let Some(taken) = &self.taken {
            taken.fetch_add(1, Ordering::Relaxed);
        }
        Seat(self.taken.clone())
    }
}

/// A client that counts on its worker. Dropping it ends that.
#[derive(Debug)]
pub(super) struct Seat(Option<Arc<AtomicU32>>);

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(taken) = &self.0 {
            taken.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Where a client goes.
#[derive(Debug)]
pub(super) struct Place {
    /// Its worker.
    pub(super) worker: WorkerId,
    /// How many clients its tenant has on other workers.
    pub(super) elsewhere: u32,
    /// To be kept for as long as the client is there.
    pub(super) seat: Seat,
    /// To be taken before it comes there.
    pub(super) steps: Vec<Step>,
}

/// All tenants that have been placed, and what is known of the workers.
#[derive(Debug)]
pub(super) struct Placements {
    of: HashMap<TenantId, Placement>,
    workers: Vec<Load>,
}

/// One worker.
#[derive(Clone, Debug, Default)]
pub(super) struct Load {
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

    /// A worker for a client of the tenant, of the `wanted` ones that the tenant is to have: of those where it was put, or
    /// else of those with most time left and fewest tenants.
    pub(super) fn place(&mut self, tenant: TenantId, wanted: u32) -> Option<Place> {
        let mut steps = Vec::new();
        let workers = &mut self.workers;
        let placement = match self.of.entry(tenant) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => {
                let first = Seats::new(least_burdened(workers, &[])?, workers.len() > 1);
                let placement = match wanted.min(there(workers)) {
                    0 | 1 => Placement::Pinned(first),
                    wanted => {
                        let mut spread = Spread::new(first);
                        // Nobody is there yet: nothing has to be waited for.
                        if let Some((change, _)) = spread.resize(wanted, |seats| more(workers, seats)) {
                            steps = spread.resized(change.number);
                        }
                        Placement::Spread(Box::new(spread))
                    }
                };
                place.insert(placement)
            }
        };
        let (seats, clients) = match placement {
            Placement::Pinned(seats) => (&*seats, seats.taken()),
            Placement::Spread(spread) => {
                (spread.fewest(|worker| !is_gone(workers, worker))?, spread.clients())
            }
        };
        let elsewhere = clients.saturating_sub(seats.taken());
        Some(Place { worker: seats.worker, elsewhere, seat: seats.take(), steps })
    }

    /// The tenant is to have so many workers from now on. What has to be done for that; when it has been, comes
    /// [`Self::resized`]. `None` if nothing has, or only later.
    pub(super) fn resize(&mut self, tenant: TenantId, wanted: u32) -> Option<Change> {
        let there = u32::try_from(self.workers.len()).unwrap_or(u32::MAX);
        let wanted = wanted.min(there).max(1);
        let placement = self.of.get_mut(&tenant)?;
        if let Placement::Pinned(seats) = placement
            && wanted > 1
        {
            *placement = Placement::Spread(Box::new(Spread::new(seats.clone())));
        }
        let Placement::Spread(spread) = placement else { return None };
        let (change, left) = spread.resize(wanted, |seats| more(&mut self.workers, seats))?;
        for worker in left {
            if let Some(load) = self.workers.get_mut(usize::from(worker.0)) {
                load.tenants = load.tenants.saturating_sub(1);
            }
        }
        Some(change)
    }

    /// What this change asked for has been done. Returns the last steps, and what has to be done for what was wanted
    /// meanwhile.
    pub(super) fn resized(&mut self, tenant: TenantId, number: u32) -> (Vec<Step>, Option<Change>) {
        let Some(Placement::Spread(spread)) = self.of.get_mut(&tenant) else { return Default::default() };
        let steps = spread.resized(number);
        let wanted = spread.wanted();
        (steps, self.resize(tenant, wanted))
    }

    /// The tenants that have been placed.
    pub(super) fn tenants(&self) -> Vec<TenantId> {
        self.of.keys().copied().collect()
    }
}

fn is_gone(workers: &[Load], worker: WorkerId) -> bool {
    workers.get(usize::from(worker.0)).is_none_or(|load| load.gone)
}

/// How many workers have not ended.
fn there(workers: &[Load]) -> u32 {
    u32::try_from(workers.iter().filter(|load| !load.gone).count()).unwrap_or(u32::MAX)
}

/// Another worker for a tenant that has these.
fn more(workers: &mut [Load], seats: &[Seats]) -> Option<Seats> {
    Some(Seats::new(least_burdened(workers, seats)?, true))
}

/// The worker with most time left and fewest tenants, which has one more now. Both count: tenants that do nothing now may
/// do something later.
fn least_burdened(workers: &mut [Load], except: &[Seats]) -> Option<WorkerId> {
    let tenants = workers.iter().fold(0_u32, |sum, load| sum.saturating_add(load.tenants));
    let even = f64::from(tenants.max(1)) / workers.len() as f64;
    let burden = |load: &Load| f64::from(load.tenants) / even + load.part * WEIGHT;
    let is_free = |number: usize| !except.iter().any(|seats| usize::from(seats.worker.0) == number);
    let there = workers.iter_mut().enumerate().filter(|(number, load)| !load.gone && is_free(*number));
    let (number, load) = there.min_by(|(_, a), (_, b)| burden(a).total_cmp(&burden(b)))?;
    load.tenants = load.tenants.saturating_add(1);
    Some(WorkerId(u16::try_from(number).ok()?))
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
        let place = placements.place(TenantId(tenant), 1).unwrap();
        assert!(place.steps.is_empty());
        place.worker.0.into()
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
        assert!(Placements::new(0).place(TenantId(1), 1).is_none());
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
            // Those with more than half a worker's work on two or three.
            let (mut spread, mut spreads) = (vec![0.0; workers], Placements::new(workers));
            let mut placements = Placements::new(workers);
            let mut busy = vec![Duration::ZERO; workers];
            let mut spread_busy = busy.clone();
            let mut next = 0;
            while next < loads.len() {
                for load in loads.iter().skip(next).take(1 + next * 31 % 200) {
                    by_load[worker(&mut placements, u32::try_from(next).unwrap())] += load;
                    by_count[next % workers] += load;
                    let parts = (1..).find(|parts| load / f64::from(*parts) <= 0.5).unwrap();
                    let tenant = TenantId(u32::try_from(next).unwrap());
                    let seats: Vec<_> = (0..parts).map(|_| spreads.place(tenant, parts).unwrap()).collect();
                    for place in &seats {
                        spread[usize::from(place.worker.0)] += load / f64::from(parts);
                    }
                    next += 1;
                }
                for (busy, load) in busy.iter_mut().zip(&by_load) {
                    *busy += SECOND.mul_f64(f64::min(*load, 1.0));
                }
                placements.observe(SECOND, busy.iter().copied().map(Some));
                for (busy, load) in spread_busy.iter_mut().zip(&spread) {
                    *busy += SECOND.mul_f64(f64::min(*load, 1.0));
                }
                spreads.observe(SECOND, spread_busy.iter().copied().map(Some));
            }
            let busiest = |loads: &[f64]| loads.iter().copied().fold(0.0, f64::max);
            let least = busiest(&loads).max(BUSY_WORKERS / workers as f64);
            let (by_load, by_count) = (busiest(&by_load) / least, busiest(&by_count) / least);
            println!(
                "seed {seed}: busiest worker {by_load:.2} of the least, {by_count:.2} by counting tenants, least {least:.2}"
            );
            println!("  {:.2} of a worker's work with large tenants spread", busiest(&spread));
            assert!(busiest(&spread) < 0.9, "seed {seed}: {}", busiest(&spread));
            assert!(by_load < 1.3, "seed {seed}: {by_load}");
            assert!(by_load < by_count, "seed {seed}: {by_load}, {by_count} by counting");
        }
    }

    /// How unequal: the largest of 10,000 tenants has a fiftieth of the load.
    const ZIPF: f64 = 0.8;
    /// The load of all, in workers.
    const BUSY_WORKERS: f64 = 32.0;
}
