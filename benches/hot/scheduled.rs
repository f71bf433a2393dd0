//! The budget's scheduler, as a worker's pool asks it.

use std::collections::HashMap;

use anyhow::{Context, Result, bail};
use tenantry::budget::{BudgetConfig, Condition, Input, Output, Permit, Scheduler};
use tenantry::ids::{RequestId, ServerId, TenantId};
use tenantry::tenant::Allowance;
use tenantry::time::Moment;

/// A scheduler that knows some tenants, and what it has said.
pub(crate) struct Desk {
    scheduler: Scheduler,
    now: Moment,
    requests: u64,
    out: Vec<Output>,
    permits: HashMap<ServerId, Permit>,
}

impl Desk {
    fn new(capacity: u32) -> Result<Self> {
        Self::with_tenants(capacity, TENANTS, 0)
    }

    /// Knows so many tenants, each with that floor.
    pub(crate) fn with_tenants(capacity: u32, tenants: u32, floor: u32) -> Result<Self> {
        let mut desk = Self {
            scheduler: Scheduler::new(BudgetConfig::new(capacity)),
            now: Moment(0),
            requests: 0,
            out: Vec::new(),
            permits: HashMap::new(),
        };
        for tenant in 0..tenants {
            let allowance =
                Allowance { reserve: 0, floor, share: 1, ceiling: 5, weight: 1, max_waiters: 100 };
            desk.tell(Input::SetTenant { tenant: TenantId(tenant), allowance })?;
        }
        Ok(desk)
    }

    /// Lets time pass.
    pub(crate) fn pass(&mut self, us: u64) {
        self.now = Moment(self.now.0 + us);
    }

    /// As [`acquire`](Self::acquire), and waits for as long as it takes.
    pub(crate) fn acquire_in_the_end(&mut self, tenant: u32) -> Result<()> {
        self.requests += 1;
        let (request, tenant, deadline) = (RequestId(self.requests), TenantId(tenant), Moment::NEVER);
        self.tell(Input::Acquire { request, tenant, deadline, prefer: None, exempt: false })
    }

    /// Its server is gone, whose slot goes to somebody else: returns the tenant and the server that is ordered for it.
    pub(crate) fn close(&mut self, server: ServerId) -> Result<(TenantId, ServerId)> {
        let permit = self.permits.remove(&server).context("a server has a permit")?;
        self.tell(Input::Closed { permit })?;
        self.ordered().context("nothing was ordered")
    }

    /// Logs a server in.
    pub(crate) fn opened(&mut self, server: ServerId) -> Result<()> {
        self.tell(Input::Opened { server })
    }

    /// Which server was ordered for whom. Its permit is kept.
    pub(crate) fn ordered(&mut self) -> Option<(TenantId, ServerId)> {
        self.out.drain(..).find_map(|output| match output {
            Output::Open { permit, server, tenant } => {
                self.permits.insert(server, permit);
                Some((tenant, server))
            }
            _ => None,
        })
    }

    /// Which server is to be closed.
    pub(crate) fn closing(&self) -> Option<ServerId> {
        self.out.iter().find_map(|output| match output {
            Output::Close { server, .. } => Some(*server),
            _ => None,
        })
    }

    fn tell(&mut self, input: Input) -> Result<()> {
        self.now = Moment(self.now.0 + 10);
        self.out.clear();
        self.scheduler.handle(self.now, input, &mut self.out).context("the scheduler refuses")
    }

    pub(crate) fn acquire(&mut self, tenant: u32) -> Result<()> {
        self.requests += 1;
        let (request, deadline) = (RequestId(self.requests), Moment(self.now.0 + 5_000_000));
        self.tell(Input::Acquire { request, tenant: TenantId(tenant), deadline, prefer: None, exempt: false })
    }

    pub(crate) fn release(&mut self, server: ServerId) -> Result<()> {
        self.tell(Input::Release { server, condition: Condition::Clean })
    }

    /// Logs in what was ordered; returns the server.
    pub(crate) fn open(&mut self) -> Result<ServerId> {
        let (_, server) = self.ordered().context("nothing was ordered")?;
        self.opened(server)?;
        Ok(server)
    }

    /// Which server was granted.
    pub(crate) fn granted(&self) -> Result<ServerId> {
        for output in &self.out {
            if let Output::Grant { server, .. } = output {
                return Ok(*server);
            }
        }
        bail!("nothing was granted")
    }
}

pub(crate) fn hit(count: u32) -> Result<()> {
    let mut desk = Desk::new(10)?;
    desk.acquire(7)?;
    let server = desk.open()?;
    desk.release(server)?;
    for _ in 0..count {
        desk.acquire(7)?;
        let server = desk.granted()?;
        desk.release(server)?;
    }
    Ok(())
}

pub(crate) fn turn(count: u32) -> Result<()> {
    let mut desk = Desk::new(1)?;
    desk.acquire(7)?;
    let mut server = desk.open()?;
    for _ in 0..WAITING {
        desk.acquire(7)?;
    }
    for _ in 0..count {
        desk.acquire(7)?;
        desk.release(server)?;
        server = desk.granted()?;
    }
    Ok(())
}

const TENANTS: u32 = 1_000;
const WAITING: u32 = 64;
