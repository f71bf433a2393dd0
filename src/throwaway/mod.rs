//! Throwaway Postgres clusters for tests, benches and `tenantry demo`.
//!
//! Owns finding server binaries on this machine and the life of a cluster in a temporary directory: made, started,
//! broken on purpose, restarted, and always removed. Nothing is downloaded. Must not know the proxy.
//!
//! Never for data worth keeping: `fsync` is off.

mod account;
mod binaries;
mod cluster;
mod options;
mod process;

pub use binaries::{NotFound, PgBin, find_postgres};
pub use cluster::{Cluster, ClusterError, Rows};
pub use options::{ClusterOptions, Hba, ServerCertificate};
