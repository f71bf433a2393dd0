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
    Ok(warnings(cluster, budget, &tenants))
}

/// What fits only as long as not everybody comes at once.
fn warnings(cluster: &Cluster, budget: u32, tenants: &[&Tenant]) -> Vec<SumWarning> {
    let name = &cluster.name;
    let mut warnings = Vec::new();
    let floors: u64 =
        tenants.iter().map(|tenant| u64::from(tenant.allowance.floor.max(tenant.allowance.reserve))).sum();
    if floors > u64::from(budget) {
        let text = format!(
            "cluster `{name}`: the floors of all {} tenants add up to {floors}, the budget is {budget}: \
             if all were active at once, some would wait for their floor",
            tenants.len()
        );
        warnings.push(SumWarning { text });
    }
    // With "auto" the default ceilings were chosen before the budget was known; there it says nothing.
    let above = tenants.iter().filter(|tenant| tenant.highest_ceiling() > budget);
    let first =
        above.min_by_key(|tenant| &tenant.name).filter(|_| cluster.max_connections != MaxConnections::Auto);
    if let Some(first) = first {
        let text = format!(
            "cluster `{name}`: tenant `{}` has a ceiling of {}, the budget is {budget}: the ceiling has no effect",
            first.name,
            first.highest_ceiling()
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
pub(super) const SERVERS_PER_WORKER: u32 = 2;

/// More parts of a sum than this are added up.
const PARTS_SHOWN: usize = 5;

#[cfg(test)]
mod tests {
    use super::super::load_text;
    use super::*;
    use std::path::Path;

    /// A cluster with a budget and tenants of these reserves (a floor of 1 each).
    fn file(max_connections: &str, tenants: &[(&str, u32)]) -> String {
        let mut text = format!(
            "threads.workers = 2\n[cluster.main]\nurl = \"postgres://localhost/app\"\n\
             max_connections = {max_connections}\nadmin = {{ user = \"admin\" }}\n"
        );
        for (name, reserve) in tenants {
            text += &format!(
                "[[tenant]]\nname = \"{name}\"\nrole = \"r_{name}\"\nschema = \"s_{name}\"\n\
                 limits = {{ reserve = {reserve}, ceiling = 100 }}\nclient_auth = {{ certificate = \"{name}\" }}\n"
            );
        }
        text + "[listen.tls]\ncert = \"c\"\nkey = \"k\"\nclient_ca = \"ca\"\n"
    }

    fn title(max_connections: &str, tenants: &[(&str, u32)]) -> String {
        let error = load_text(&file(max_connections, tenants), Path::new(""), &|_| None, None).unwrap_err();
        error.titles().join("\n")
    }

    fn cluster(max_connections: MaxConnections) -> Cluster {
        let loaded = load_text(&file("40", &[("a", 0)]), Path::new(""), &|_| None, None).unwrap();
        Cluster { max_connections, ..Cluster::clone(&loaded.settings.clusters[0]) }
    }

    #[test]
    fn reserves_must_fit_and_the_sum_is_shown() {
        let tenants = [("a", 7), ("b", 30), ("c", 1), ("d", 2), ("e", 3), ("f", 4), ("g", 5)];
        assert_eq!(
            title("40", &tenants),
            "cluster `main`: the reserves are more than the budget: \
             b 30 + a 7 + g 5 + f 4 + e 3 + 2 more 3 = 52 > 40"
        );
    }

    #[test]
    fn every_worker_needs_two_servers() {
        let title = title("3", &[("a", 0)]);
        assert!(title.contains("the budget is 3 server connections, but 2 workers x 2 = 4"), "{title}");
    }

    #[test]
    fn more_floors_than_budget_are_a_warning() {
        let names: Vec<String> = (0..5).map(|number| format!("t{number}")).collect();
        let tenants: Vec<(&str, u32)> = names.iter().map(|name| (name.as_str(), 0)).collect();
        let loaded = load_text(&file("4", &tenants), Path::new(""), &|_| None, None).unwrap();
        let warnings = loaded.warnings.join("\n");
        assert!(warnings.contains("the floors of all 5 tenants add up to 5, the budget is 4"), "{warnings}");
        assert!(warnings.contains("a ceiling of 100, the budget is 4"), "{warnings}");
    }

    #[test]
    fn the_budget_is_what_the_server_leaves() {
        let numbers = ServerNumbers { max_connections: 500, superuser_reserved: 3, reserved: 2 };
        assert_eq!(budget(&cluster(MaxConnections::Auto), numbers), Ok(475));
        assert_eq!(budget(&cluster(MaxConnections::Fixed(100)), numbers), Ok(100));
        let too_much = budget(&cluster(MaxConnections::Fixed(476)), numbers).unwrap_err().to_string();
        assert!(too_much.contains("is 476, but the server leaves less"), "{too_much}");
        assert!(too_much.contains(
            "500 - superuser_reserved_connections 3 - reserved_connections 2 - admin_reserve 20 = 475"
        ));
        let few = ServerNumbers { max_connections: 23, superuser_reserved: 3, reserved: 0 };
        let nothing = budget(&cluster(MaxConnections::Auto), few).unwrap_err().to_string();
        assert!(nothing.contains("leave no connection") && nothing.contains("= 0"), "{nothing}");
        let fewer = ServerNumbers { max_connections: 10, ..few };
        assert!(budget(&cluster(MaxConnections::Fixed(1)), fewer).is_err());
    }
}
