//! The sums of a cluster: what the server allows, what the tenants ask for, and whether it fits.
//!
//! Owns the arithmetic and its words, because an operator who reads "does not fit" wants to see the numbers. Used
//! when a file is loaded (budgets written as numbers), when a server's limits become known, and by `tenantry check`.

use std::fmt::Write as _;

use super::settings::{Cluster, MaxConnections};
use crate::tenant::Tenant;

/// What a Postgres server says about its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerNumbers {
    /// `max_connections`
    pub max_connections: u32,
    /// `superuser_reserved_connections`
    pub superuser_reserved: u32,
    /// `reserved_connections` (PostgreSQL 16 and later; else 0)
    pub reserved: u32,
}

/// A sum that does not work out. The text shows the arithmetic.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct SumError {
    /// The arithmetic.
    text: String,
}

/// A sum that works out, but not when everybody comes at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SumWarning {
    /// The arithmetic.
    pub text: String,
}

/// Server connections that Tenantry may have on a cluster, given the server's numbers.
///
/// # Errors
/// If the reserves leave nothing, or the number in the file is more than the server has left.
pub fn budget(cluster: &Cluster, numbers: ServerNumbers) -> Result<u32, SumError> {
    let ServerNumbers { max_connections, superuser_reserved, reserved } = numbers;
    let admin_reserve = cluster.admin_reserve;
    let taken = superuser_reserved.saturating_add(reserved).saturating_add(admin_reserve);
    let left = i64::from(max_connections).saturating_sub(i64::from(taken));
    let name = &cluster.name;
    let sum = format!(
        "max_connections {max_connections} - superuser_reserved_connections {superuser_reserved} \
         - reserved_connections {reserved} - admin_reserve {admin_reserve} = {left}"
    );
    match (u32::try_from(left), cluster.max_connections) {
        (Ok(left @ 1..), MaxConnections::Auto) => Ok(left),
        (Ok(left @ 1..), MaxConnections::Fixed(wanted)) if wanted <= left => Ok(wanted),
        (Ok(1..), MaxConnections::Fixed(wanted)) => Err(SumError {
            text: format!(
                "cluster `{name}`: `max_connections` is {wanted}, but the server leaves less: {sum}"
            ),
        }),
        (Ok(0) | Err(_), _) => Err(SumError {
            text: format!("cluster `{name}`: the reserves leave no connection for tenants: {sum}"),
        }),
    }
}

/// Checks what the tenants of a cluster ask for against its budget. Tenants of other clusters are passed over.
///
/// Reserves are hard and must fit. Floors are promises for tenants that are active, so they may add up to more than
/// the budget; then a warning says so.
///
/// # Errors
/// If the budget is too small for the worker threads, or the reserves do not fit into it.
pub fn sums<'a>(
    cluster: &Cluster,
    budget: u32,
    workers: usize,
    tenants: impl IntoIterator<Item = &'a Tenant>,
) -> Result<Vec<SumWarning>, SumError> {
    let name = &cluster.name;
    let workers = u32::try_from(workers).unwrap_or(u32::MAX);
    let needed = workers.saturating_mul(SERVERS_PER_WORKER);
    if budget < needed.max(1) {
        let text = format!(
            "cluster `{name}`: the budget is {budget} server connections, but {workers} workers x {SERVERS_PER_WORKER} \
             = {needed} are needed: raise `max_connections` or lower `threads.workers`"
        );
        return Err(SumError { text });
    }
    let tenants: Vec<&Tenant> = tenants.into_iter().filter(|tenant| tenant.cluster == cluster.id).collect();
    let reserves: Vec<(&str, u32)> = tenants
        .iter()
        .map(|tenant| (&*tenant.name, tenant.allowance.reserve))
        .filter(|(_, count)| *count > 0)
        .collect();
    let reserved = total(&reserves);
    if reserved > u64::from(budget) {
        let text = format!(
            "cluster `{name}`: the reserves are more than the budget: {} = {reserved} > {budget}",
            addition(&reserves)
        );
        return Err(SumError { text });
    }
    Ok(warnings(name, budget, &tenants))
}

/// What fits only as long as not everybody comes at once.
fn warnings(cluster: &str, budget: u32, tenants: &[&Tenant]) -> Vec<SumWarning> {
    let mut warnings = Vec::new();
    let floors: u64 =
        tenants.iter().map(|tenant| u64::from(tenant.allowance.floor.max(tenant.allowance.reserve))).sum();
    if floors > u64::from(budget) {
        let text = format!(
            "cluster `{cluster}`: the floors of all {} tenants add up to {floors}, the budget is {budget}: \
             if all were active at once, some would wait for their floor",
            tenants.len()
        );
        warnings.push(SumWarning { text });
    }
    let above = tenants.iter().filter(|tenant| tenant.allowance.ceiling > budget);
    if let Some(first) = above.clone().min_by_key(|tenant| &tenant.name) {
        let text = format!(
            "cluster `{cluster}`: {} tenants have a ceiling above the budget of {budget} (`{}`: {}): \
             one of them could take all of it",
            above.count(),
            first.name,
            first.allowance.ceiling
        );
        warnings.push(SumWarning { text });
    }
    warnings
}

/// `acme 30 + globex 20 + 3 more 15`: the largest first.
fn addition(parts: &[(&str, u32)]) -> String {
    let mut sorted = parts.to_vec();
    sorted.sort_by_key(|(name, count)| (std::cmp::Reverse(*count), *name));
    let shown = sorted.len().min(PARTS_SHOWN);
    let (first, rest) = sorted.split_at(shown);
    let mut text =
        first.iter().map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(" + ");
    if !rest.is_empty() {
        // Writing to a String cannot fail.
        let _ = write!(text, " + {} more {}", rest.len(), total(rest));
    }
    text
}

/// The sum of all counts.
fn total(parts: &[(&str, u32)]) -> u64 {
    parts.iter().map(|(_, count)| u64::from(*count)).sum()
}

/// A worker with fewer servers than this cannot turn one over while another works.
const SERVERS_PER_WORKER: u32 = 2;

/// More parts of a sum than this are added up.
const PARTS_SHOWN: usize = 5;
