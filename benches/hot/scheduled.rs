//! The budget's scheduler, as a worker's pool asks it.

use anyhow::{Context, Result, bail};
use tenantry::budget::{BudgetConfig, Condition, Input, Output, Scheduler};
use tenantry::ids::{RequestId, ServerId, TenantId};
use tenantry::tenant::Allowance;
use tenantry::time::Moment;

/// A scheduler that knows a thousand tenants, and what it has said.
struct Desk {
    scheduler: Scheduler,
    now: Moment,
    requests: u64,
    out: Vec<Output>,
}

impl Desk {
    fn new(capacity: u32) -> Result<Self> {
        let mut desk = Self {
            scheduler: Scheduler::new(BudgetConfig::new(capacity)),
            now: Moment(0),
            requests: 0,
            out: Vec::new(),
        };
        for tenant in 0..TENANTS {
            let allowance =
                Allowance { reserve: 0, floor: 0, share: 1, ceiling: 5, weight: 1, max_waiters: 100 };
            desk.tell(Input::SetTenant { tenant: TenantId(tenant), allowance })?;
        }
        Ok(desk)
    }

    fn tell(&mut self, input: Input) -> Result<()> {
        self.now = Moment(self.now.0 + 10);
        self.out.clear();
        self.scheduler.handle(self.now, input, &mut self.out).context("the scheduler refuses")
    }

    fn acquire(&mut self, tenant: u32) -> Result<()> {
        self.requests += 1;
        let (request, deadline) = (RequestId(self.requests), Moment(self.now.0 + 5_000_000));
        self.tell(Input::Acquire { request, tenant: TenantId(tenant), deadline, prefer: None, exempt: false })
    }

    fn release(&mut self, server: ServerId) -> Result<()> {
        self.tell(Input::Release { server, condition: Condition::Clean })
    }

    /// Logs in what was ordered; returns the server.
    fn open(&mut self) -> Result<ServerId> {
        let ordered = self.out.iter().find_map(|output| match output {
            Output::Open { server, .. } => Some(*server),
            _ => None,
        });
        let server = ordered.context("nothing was ordered")?;
        self.tell(Input::Opened { server })?;
        Ok(server)
    }

    /// Which server was granted.
    fn granted(&self) -> Result<ServerId> {
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
