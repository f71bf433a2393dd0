//! How the naive scheduler gives slots to tenants.

use tenantry::budget::CloseReason;
use tenantry::ids::TenantId;

use super::{Reference, State, cost};

impl Reference {
    pub(super) fn supply(&mut self) {
        let mut barred = Vec::new();
        while !self.shut(self.breaker) {
            let Some((lane, tenant)) = self.best(&barred, None) else { return };
            if !self.provide(lane.min(2), tenant) {
                barred.extend(if lane < 2 { lane..5 } else { lane..lane + 1 });
            }
        }
    }

    pub(super) fn provide(&mut self, band: usize, tenant: u32) -> bool {
        if self.capped(band) {
            return false;
        }
        if self.free() > if band == 2 { self.c.headroom } else { 0 } {
            let probes = self.begin(tenant);
            self.order(tenant, probes);
            return true;
        }
        let paid = band == 2 && !self.slack();
        if paid && self.tokens < 1_000_000 {
            return false;
        }
        let Some(victim) = self.victim(tenant, band) else { return false };
        if paid {
            self.tokens -= 1_000_000;
        }
        self.close(victim, CloseReason::Evicted { successor: TenantId(tenant) }, Some(tenant));
        true
    }

    pub(super) fn victim(&mut self, borrower: u32, band: usize) -> Option<usize> {
        let served_more = |owner| self.v_now(borrower) + cost(self.c.lead_us, 1) < self.tenants[&owner].v;
        let age = |owner| match band {
            0 | 1 => 0,
            _ if served_more(owner) => self.c.burst_idle_age_us,
            _ => self.c.stale_us.max(self.c.burst_idle_age_us),
        };
        if let Some(server) = self.borrowed(|owner, since| since + age(owner) <= self.now) {
            return Some(server);
        }
        if band == 2 {
            let need = self.c.burst_idle_age_us.max(self.hold(borrower).min(self.c.collateral_max_us));
            let expected = self.all_expected();
            let unexpected = |owner, since| !expected.contains(&(owner, since));
            return self.sieve(need, band, unexpected).or_else(|| self.sieve(need, band, |_, _| true));
        } else {
            let head = self.ready(borrower).unwrap_or(0);
            let borrowers = self.tenants.keys().filter(|t| self.over_share(**t) && self.class(**t) == 0);
            let returning = borrowers.map(|t| (self.n(*t) - self.share(*t)).min(self.busy(*t)));
            if returning.sum::<u32>() >= self.c.releases_awaited
                && self.now < head + self.c.release_patience_us
            {
                return None;
            }
        }
        let expected = self.all_expected();
        let stale = self.c.stale_us.max(self.c.idle_age_us);
        self.sieve(stale, 0, |owner, since| !expected.contains(&(owner, since)))
            .or_else(|| self.needed_last(band))
    }

    /// Idle servers that are expected to be used.
    fn all_expected(&self) -> Vec<(u32, u64)> {
        let idle = self.idle_servers().into_iter();
        idle.map(|(_, since, number)| (self.servers[number].tenant, since))
            .filter(|(owner, since)| self.expected(*owner, *since, self.now))
            .collect()
    }

    /// Whether a server that is idle since then is expected to be used: its tenant has a rhythm and is not four times late.
    fn expected(&self, tenant: u32, since: u64, now: u64) -> bool {
        let mean = self.tenants[&tenant].rhythm.2.map(|(mean, _)| mean).filter(|mean| *mean < 10_000_000);
        mean.is_some_and(|mean| now - since < 4 * mean * u64::from(self.idle(tenant)))
    }

    /// How long it will lie idle from that moment on.
    fn idles_for(&self, tenant: u32, since: u64, now: u64) -> u64 {
        let (last, _, gaps) = self.tenants[&tenant].rhythm;
        let Some((mean, _)) = gaps else { return 0 };
        let span = mean * u64::from(self.idle(tenant));
        match now.saturating_sub(last) {
            _ if mean >= 10_000_000 && now - since < 20_000 => 0,
            _ if !self.expected(tenant, since, now) => u64::MAX,
            passed if passed <= span => span - passed,
            passed => (passed - span).min(now - since),
        }
    }

    /// The same, if its tenant came back as soon as it did lately.
    fn idles_at_least(&self, tenant: u32, since: u64, now: u64) -> u64 {
        let (last, _, gaps) = self.tenants[&tenant].rhythm;
        let Some((_, least)) = gaps.filter(|_| self.expected(tenant, since, now)) else { return 0 };
        (least * u64::from(self.idle(tenant))).saturating_sub(now.saturating_sub(last))
    }

    /// How long a server must have been idle before somebody of that band takes it: what is below a floor must be stale.
    fn need(&self, owner: u32, band: usize, need: u64) -> u64 {
        let is_floor = self.band(owner, self.n(owner) - 1) == 0;
        if is_floor && band > 0 { need.max(self.c.stale_us) } else { need }
    }

    /// The longest idle server of each tenant, of these the one that will be used again last.
    fn needed_last(&self, band: usize) -> Option<usize> {
        let mut best: Option<(u64, usize)> = None;
        let mut seen = Vec::new();
        for (_, since, number) in self.idle_servers() {
            let owner = self.servers[number].tenant;
            if seen.contains(&owner) {
                continue;
            }
            seen.push(owner);
            let soon = since + self.c.idle_age_min_us;
            let is_worth_it = self.idles_at_least(owner, since, soon) >= self.c.idle_gain_us;
            let usual = self.c.idle_age_us.max(self.c.idle_age_min_us);
            let age = if is_worth_it { self.c.idle_age_min_us } else { usual };
            let is_ripe = since + self.need(owner, band, age) <= self.now;
            if !is_ripe || self.over_share(owner) || !self.above_reserve(owner) {
                continue;
            }
            let idles = self.idles_for(owner, since, self.now);
            if best.is_none_or(|(most, _)| idles > most) {
                best = Some((idles, number));
            }
        }
        best.map(|(_, number)| number)
    }

    /// The longest idle server of each tenant above its share, the longest idle of these.
    pub(super) fn borrowed(&self, ripe: impl Fn(u32, u64) -> bool) -> Option<usize> {
        let idle = self.idle_servers();
        let oldest = |tenant: u32| idle.iter().find(|(_, _, number)| self.servers[*number].tenant == tenant);
        let over = self.tenants.keys().filter(|t| self.over_share(**t));
        let ripe =
            over.filter_map(|t| oldest(*t).filter(|(_, since, _)| ripe(*t, *since)).map(|o| (o.1, *t, o.2)));
        ripe.min().map(|(_, _, number)| number)
    }

    pub(super) fn sieve(&mut self, need: u64, band: usize, of: impl Fn(u32, u64) -> bool) -> Option<usize> {
        let ripe = |number: usize| match self.servers[number].state {
            State::Idle { since, .. } => {
                let owner = self.servers[number].tenant;
                let need = self.need(owner, band, need);
                since + need <= self.now
                    && !self.over_share(owner)
                    && self.above_reserve(owner)
                    && of(owner, since)
            }
            _ => false,
        };
        let mut alive = self.alive();
        let start = self.hand.and_then(|hand| alive.iter().position(|number| *number == hand));
        alive.rotate_left(start.unwrap_or(0));
        let candidates: Vec<usize> = alive.into_iter().filter(|number| ripe(*number)).collect();
        let passed = candidates.iter().position(|number| !self.servers[*number].visited);
        for number in candidates.iter().take(passed.unwrap_or(candidates.len())) {
            self.servers[*number].visited = false;
        }
        let found = *candidates.get(passed.unwrap_or(0))?;
        let alive = self.alive();
        self.hand = alive.iter().skip_while(|number| **number != found).nth(1).copied();
        Some(found)
    }

    pub(super) fn alive(&self) -> Vec<usize> {
        let lives =
            |number: &usize| matches!(self.servers[*number].state, State::Idle { .. } | State::Busy { .. });
        let mut alive: Vec<usize> = (0..self.servers.len()).filter(lives).collect();
        alive.sort_by_key(|number| self.servers[*number].birth);
        alive
    }

    pub(super) fn shed(&mut self) {
        while self.staying() > self.working {
            let first = self.idle_servers().first().map(|(_, _, number)| *number);
            let oldest = first.filter(|_| self.overreserved());
            let Some(victim) =
                self.borrowed(|_, _| true).or_else(|| self.sieve(0, 0, |_, _| true)).or(oldest)
            else {
                return;
            };
            self.close(victim, CloseReason::Capacity, None);
        }
    }
}
