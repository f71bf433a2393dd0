//! The arguments of `tenantry demo`.
//!
//! Owns their names, defaults and help. Must not act on them.

use std::path::PathBuf;

/// Arguments of `tenantry demo`.
#[derive(Clone, Debug, clap::Args)]
pub struct DemoArgs {
    /// Run the load for this many seconds and end by itself; without it, the load runs for 10 seconds and the demo
    /// stays up until Ctrl-C
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub seconds: Option<u64>,
    /// Hot tenants; the last of them is the noisy one
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=99))]
    pub hot: u32,
    /// Warm tenants
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u32).range(0..=999))]
    pub warm: u32,
    /// Cold tenants
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(0..=999))]
    pub cold: u32,
    /// Directory of the Postgres server programs (initdb, postgres); found by itself if left out
    #[arg(long, value_name = "DIR")]
    pub pg_bin: Option<PathBuf>,
}
