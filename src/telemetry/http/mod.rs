//! The HTTP pages: `/metrics`, `/metrics/tenants`, `/livez`, `/readyz` and `/api/v1/tenants/NAME/...`; else 404.
//!
//! Owns the server and its limits. Must not know what a page says (`metrics`, [`Source`]).
//!
//! | limit | why |
//! |---|---|
//! | 64 connections; 16 KiB and 5 s to ask, 15 s without a byte of the answer leaving | `guard`: each costs a fixed amount |
//! | one connection more takes the place of the longest silent one | `places`: a probe always gets through |
//! | one page at a time, 5 s to collect it | at 100,000 tenants a report is some 20 MB |
//! | two streams, 60 s each | a stream keeps its report until the last byte |

mod accept;
mod api;
mod guard;
mod pages;
mod places;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::Source;

/// Serves the pages until `shutdown`; then lets running answers finish for at most two seconds.
///
/// Cancel-safe: dropping the future stops accepting.
///
/// # Errors
/// If the process' own series cannot be registered, or the socket does not listen.
pub async fn serve(
    listener: TcpListener,
    source: Arc<dyn Source>,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let router = pages::router(source).map_err(io::Error::other)?;
    let router = router.into_make_service_with_connect_info::<guard::Origin>();
    // Its queue is made longer: who does not find room in it is heard after a second at the earliest.
    SockRef::from(&listener).listen(BACKLOG)?;
    let listener = guard::GuardedListener::new(listener, guard::Limits::default());
    let stopped = shutdown.clone().cancelled_owned();
    let serving = axum::serve(listener, router).with_graceful_shutdown(stopped);
    tokio::select! {
        result = serving => result,
        () = async { shutdown.cancelled().await; tokio::time::sleep(LAST_ANSWERS).await } => Ok(()),
    }
}

/// How long running answers may take once the proxy stops.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// Connections that wait to be accepted. Tokio asks for 128.
const BACKLOG: i32 = 1_024;
