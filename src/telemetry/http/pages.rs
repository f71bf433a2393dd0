//! The pages: what each one answers, with which status and type.
//!
//! Owns paths, status codes and the limits on collecting. Must not know the text of a metric.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Query, Request, State};
use axum::http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use serde::Deserialize;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use tokio_util::io::ReaderStream;

use super::guard::Origin;
use super::{accept, api};
use crate::telemetry::metrics::{Dialect, Exposition, TenantPages};
use crate::telemetry::{ProxyReport, Readiness, Source};
use crate::tenant::Tier;

/// What the pages share.
pub(super) struct Shared {
    pub(super) source: Arc<dyn Source>,
    exposition: Exposition,
    born: Instant,
    pages: Arc<Semaphore>,
    streams: Arc<Semaphore>,
}

/// All pages.
///
/// # Errors
/// If the process' own series cannot be registered.
pub(super) fn router(source: Arc<dyn Source>) -> Result<Router, prometheus::Error> {
    let shared = Arc::new(Shared {
        source,
        exposition: Exposition::new()?,
        born: Instant::now(),
        pages: Arc::new(Semaphore::new(1)),
        streams: Arc::new(Semaphore::new(STREAMS)),
    });
    Ok(Router::new()
        .route("/metrics", get(metrics))
        .route("/metrics/tenants", get(tenants))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/api/v1/tenants/{name}/why", get(api::why))
        .route("/api/v1/tenants/{name}/{order}", post(api::steer))
        .fallback(not_found)
        .layer(middleware::from_fn_with_state(shared.clone(), account))
        .with_state(shared))
}

/// Always 200: the process answers. Whether Postgres does is not this page's business, or a lost database would
/// restart every proxy.
async fn livez() -> Response {
    plain(StatusCode::OK, "ok\n")
}

/// 200 when new clients are welcome, 503 otherwise; `?verbose` lists the checks.
async fn readyz(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let readiness = shared.source.readiness();
    let ready = readiness.is_ready();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let verbose = request.uri().query().is_some_and(|query| query.split('&').any(is_verbose));
    let mut text = if verbose { checks(&readiness) } else { String::new() };
    text.push_str(if ready { "ready\n" } else { "not ready\n" });
    plain(status, text)
}

fn is_verbose(parameter: &str) -> bool {
    matches!(parameter, "verbose" | "verbose=" | "verbose=1" | "verbose=true")
}

fn checks(readiness: &Readiness) -> String {
    let mut text = String::new();
    let mut line = |holds: bool, name: &str, state: &str| {
        let sign = if holds { '+' } else { '-' };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "[{sign}] {name}: {state}");
    };
    let phase = readiness.phase;
    line(phase == crate::telemetry::Phase::Serving, "phase", phase.as_str());
    for cluster in &readiness.clusters {
        let state = if cluster.reachable { "reachable" } else { "unreachable" };
        line(cluster.reachable, &format!("cluster {}", cluster.name), state);
    }
    text
}

/// The bounded page.
async fn metrics(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    let started = Instant::now();
    let dialect = wanted(&headers);
    let collecting = async {
        let place = shared.pages.clone().acquire_owned().await.ok()?;
        Some((place, shared.source.report().await))
    };
    let Ok(Some((place, report))) = timeout(COLLECT, collecting).await else { return too_late() };
    let rendering = shared.clone();
    let now_ms = u64::try_from(started.duration_since(shared.born).as_millis()).unwrap_or(u64::MAX);
    let page = tokio::task::spawn_blocking(move || {
        let page = rendering.exposition.render(report, dialect, now_ms);
        rendering.exposition.observe_scrape(started.elapsed());
        // Moved here: a scraper that hangs up does not free its place before the work ends.
        drop(place);
        page
    });
    match page.await {
        Ok(page) => exposition(dialect, Body::from(page)),
        Err(_) => plain(StatusCode::INTERNAL_SERVER_ERROR, "the page could not be written\n"),
    }
}

/// Parameters of `/metrics/tenants`.
#[derive(Deserialize)]
struct TenantQuery {
    tier: Option<String>,
}

/// Every tenant, or every tenant of a tier, in pieces.
async fn tenants(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    Query(query): Query<TenantQuery>,
) -> Response {
    let tier = match query.tier.as_deref() {
        None | Some("") => None,
        Some(name) => match Tier::ALL.into_iter().find(|tier| tier.as_str() == name) {
            Some(tier) => Some(tier),
            None => return plain(StatusCode::BAD_REQUEST, "tier must be hot, warm or cold\n"),
        },
    };
    let dialect = wanted(&headers);
    let Ok(place) = shared.streams.clone().try_acquire_owned() else {
        return plain(StatusCode::SERVICE_UNAVAILABLE, "two of these pages are being read already\n");
    };
    let Ok(report) = timeout(COLLECT, shared.source.report()).await else { return too_late() };
    let ProxyReport { settings, workers, .. } = report;
    let deadline = Instant::now() + STREAM;
    let pages = TenantPages::new(settings, workers, tier, dialect, deadline, place);
    exposition(dialect, Body::from_stream(ReaderStream::with_capacity(pages, PIECE_BYTES)))
}

async fn not_found() -> Response {
    plain(
        StatusCode::NOT_FOUND,
        "try /metrics, /metrics/tenants, /livez, /readyz or /api/v1/tenants/NAME/why\n",
    )
}

/// Notes that there is a request, and counts the answer, under a page's name and never under what the peer wrote.
async fn account(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(origin): ConnectInfo<Origin>,
    request: Request,
    next: Next,
) -> Response {
    origin.has_asked();
    let path = request.uri().path();
    let is_api = path.starts_with("/api/v1/");
    let page = PAGES.into_iter().find(|page| *page == path).unwrap_or(if is_api { "/api" } else { "other" });
    let response = tokio::select! {
        biased;
        response = next.run(request) => response,
        () = origin.is_wanted() => plain(StatusCode::SERVICE_UNAVAILABLE, "too many connections\n"),
    };
    shared.exposition.count_request(page, response.status().as_u16());
    response
}

fn wanted(headers: &HeaderMap) -> Dialect {
    accept::dialect(headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()))
}

fn too_late() -> Response {
    plain(StatusCode::SERVICE_UNAVAILABLE, "the workers did not answer in time\n")
}

fn plain(status: StatusCode, text: impl Into<Body>) -> Response {
    with_headers(status, "text/plain; charset=utf-8", text.into())
}

fn exposition(dialect: Dialect, body: Body) -> Response {
    with_headers(StatusCode::OK, dialect.content_type(), body)
}

pub(super) fn with_headers(status: StatusCode, content_type: &'static str, body: Body) -> Response {
    let mut response = (status, body).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

const PAGES: [&str; 4] = ["/metrics", "/metrics/tenants", "/livez", "/readyz"];

/// Time for all workers to answer, waiting for another scrape included. Below Prometheus' usual 10 s.
pub(super) const COLLECT: Duration = Duration::from_secs(5);

/// Streams at the same time.
const STREAMS: usize = 2;

/// Time to read a stream to its end.
const STREAM: Duration = Duration::from_secs(60);

/// Bytes handed to HTTP at once.
const PIECE_BYTES: usize = 64 * 1024;
