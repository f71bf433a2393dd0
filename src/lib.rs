//! Tenantry: a tenant-aware PostgreSQL connection proxy.
//!
//! `docs/architecture.md` is the map. A module uses lower layers only, and never a sibling; `tests/layers.rs` holds
//! the table below to that.
//!
//! | layer | modules |
//! |---|---|
//! | 0 | `ids` `error` `time` |
//! | 1 | `wire` `tenant` `stats` `trace` |
//! | 2 | `auth` `track` `budget` `config` |
//! | 3 | `net` `replay` |
//! | 4 | `backend` |
//! | 5 | `pool` |
//! | 6 | `session` |
//! | 7 | `worker` `front` |
//! | 8 | `control` `telemetry` `tenants_ops` `throwaway` |
//! | 9 | `proxy` |
//! | 10 | `commands` |

pub mod auth;
pub mod backend;
pub mod budget;
pub mod commands;
pub mod config;
pub mod control;
pub mod error;
pub mod front;
pub mod ids;
pub mod net;
pub mod pool;
pub mod proxy;
pub mod replay;
pub mod session;
pub mod stats;
pub mod telemetry;
pub mod tenant;
pub mod tenants_ops;
pub mod throwaway;
pub mod time;
pub mod trace;
pub mod track;
pub mod wire;
pub mod worker;
