//! Log lines: JSON for machines, text for people, both with UTC milliseconds.
//!
//! Owns the shape of a line (`docs/operating.md`), the filter and the thread that writes. Must not know what is
//! logged; whoever logs passes no secret and no query text.
//!
//! ```text
//!   tracing event ──► filter ──► event: one line ──► lines: bounded queue ──► thread ──► standard error
//! ```
//!
//! | JSON field | meaning |
//! |---|---|
//! | `timestamp` | UTC, milliseconds, `2026-01-31T12:00:00.123Z` |
//! | `level` | `ERROR`, `WARN`, `INFO`, `DEBUG`, `TRACE` |
//! | `message` | a sentence that does not change |
//! | `target` | the module |
//! | `customer_id` | the tenant's name |
//! | `request_id` | one client from its accept to its end |
//! | `reason` | a stable word, the same as in metrics |

mod event;
mod fields;
mod lines;

use std::io;

use tracing::Subscriber;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry, fmt, reload};

use crate::config::settings::Log;

/// Why logs could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter is not in `tracing`'s syntax.
    #[error("`{filter}` is not a log filter: {cause}")]
    Filter {
        /// As given.
        filter: String,
        /// What is wrong with it.
        cause: ParseError,
    },
    /// Logs were set up before, in this process.
    #[error("logs are set up already")]
    Twice,
    /// The thread that writes could not be started.
    #[error("cannot start the log thread: {0}")]
    Thread(#[from] io::Error),
}

/// Changes the filter of a running process.
#[derive(Clone, Debug)]
pub struct Filter(reload::Handle<EnvFilter, Registry>);

impl Filter {
    /// Replaces the filter, or leaves the old one if the new one is wrong.
    ///
    /// # Errors
    /// If the filter is not in `tracing`'s syntax.
    pub fn set(&self, filter: &str) -> Result<(), LogError> {
        let filter = parse(filter)?;
        // Fails only when the subscriber is gone, and with it everything there is to filter.
        let _ = self.0.reload(filter);
        Ok(())
    }
}

/// The process' logs. Keep it until the end: dropping it writes what is still queued, for at most a second.
#[derive(Debug)]
pub struct Logs {
    filter: Filter,
    _flush: lines::Flush,
}

impl Logs {
    /// The filter, to be changed at reload.
    #[must_use]
    pub const fn filter(&self) -> &Filter {
        &self.filter
    }
}

/// Sends this process' events to standard error. Once per process.
///
/// # Errors
/// If the filter is wrong, logs were set up before, or no thread can be started.
pub fn init(log: &Log) -> Result<Logs, LogError> {
    let (writer, flush) = lines::start(log.format, io::stderr())?;
    let (subscriber, filter) = subscriber(log, writer)?;
    subscriber.try_init().map_err(|_| LogError::Twice)?;
    Ok(Logs { filter, _flush: flush })
}

/// A subscriber that writes each event as one line to `writer`, in one call.
///
/// # Errors
/// If the filter is not in `tracing`'s syntax.
pub fn subscriber<W>(
    log: &Log,
    writer: W,
) -> Result<(impl Subscriber + Send + Sync + 'static, Filter), LogError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let (filter, handle) = reload::Layer::new(parse(&log.filter)?);
    let layer = fmt::layer()
        .fmt_fields(fields::Stored)
        .event_format(event::Line { format: log.format })
        .with_writer(writer)
        .with_ansi(false);
    Ok((Registry::default().with(filter).with(layer), Filter(handle)))
}

fn parse(filter: &str) -> Result<EnvFilter, LogError> {
    EnvFilter::builder().parse(filter).map_err(|cause| LogError::Filter { filter: filter.to_owned(), cause })
}

#[cfg(test)]
mod tests;
