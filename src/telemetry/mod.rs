//! What operators see: metrics, health and logs.
//!
//! Owns the exposition (`docs/metrics.md`), the HTTP pages that carry it, and the shape of a log line. Must not know
//! who counts: everything comes from a [`Source`], asked when somebody scrapes.
//!
//! ```text
//!   Prometheus ──► http ──► Source::report() ──► metrics ──► text, bounded or streamed
//!   kubelet    ──►      ──► Source::readiness()
//!   tracing events ──► logs ──► one line each, written by a thread of its own
//! ```

pub mod http;
pub mod logs;
mod metrics;
mod source;
mod why;

pub use source::{ClusterHealth, Phase, ProxyReport, Readiness, Source};
pub use why::Explained;
