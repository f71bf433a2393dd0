//! The exposition: from a [`ProxyReport`](super::ProxyReport) to text that Prometheus reads.
//!
//! | file | owns |
//! |---|---|
//! | `text` | the two dialects (Prometheus text 0.0.4, OpenMetrics 1.0), escaping, numbers |
//! | `tenants` | the table of a tenant's series |
//! | `table` | one row per tenant, merged from all workers |
//! | `cells` | a tenant's counters as an array, for sums and differences |
//! | `roster` | who is named on the bounded page, and the honest sum of the rest |
//! | `process` | series of the process itself, by the `prometheus` crate |
//! | `overall` | series per tier, per cluster and of the whole proxy |
//! | `page` | the bounded page: all of the above |
//! | `stream` | every tenant, in pieces |

mod cells;
#[cfg(test)]
mod fixture;
mod overall;
mod page;
mod process;
mod roster;
mod stream;
mod table;
mod tenants;
mod text;

pub(super) use page::Exposition;
pub(super) use stream::TenantPages;
pub(super) use text::Dialect;

/// The label value under which `/metrics` sums up the tenants it does not name.
const OTHER: &str = "_other";
