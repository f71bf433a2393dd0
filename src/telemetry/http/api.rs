//! What operators ask of one tenant, and order for it: `/api/v1/tenants/NAME/...`.
//!
//! Owns paths, parameters and answers (JSON). Reading is open as the metrics are; orders need the token of the
//! configuration. Must not know how an order is carried out (`telemetry::Source`).
//!
//! | request | parameters | does |
//! |---|---|---|
//! | `GET .../why` | | says why its clients wait |
//! | `POST .../pause` | `for` (30s) | no transaction begins; clients wait |
//! | `POST .../drain` | `for` (30s) | the same, and it gives up its servers |
//! | `POST .../suspend` | `for` (10m) | requests are refused with 57P03 |
//! | `POST .../throttle` | `for` (10m), `transactions_per_second`, `transaction_burst` | another rate holds |
//! | `POST .../resume` | | it goes on as configured |

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value, json};
use subtle::ConstantTimeEq as _;
use tokio::time::timeout;

use super::pages::{COLLECT, Shared, with_headers};
use crate::budget::{Command, Halt};
use crate::tenant::RateLimit;

/// Parameters of an order.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Parameters {
    #[serde(rename = "for")]
    span: Option<String>,
    transactions_per_second: Option<u32>,
    transaction_burst: Option<u32>,
}

/// `GET /api/v1/tenants/NAME/why`
pub(super) async fn why(State(shared): State<Arc<Shared>>, Path(name): Path<String>) -> Response {
    answer(&shared, &name).await
}

/// `POST /api/v1/tenants/NAME/ORDER`
pub(super) async fn steer(
    State(shared): State<Arc<Shared>>,
    Path((name, order)): Path<(String, String)>,
    Query(parameters): Query<Parameters>,
    headers: HeaderMap,
) -> Response {
    if let Some(refusal) = unauthorized(&shared, &headers) {
        return refusal;
    }
    let command = match command(&order, &parameters) {
        Ok(command) => command,
        Err((status, error)) => return refused(status, &error),
    };
    if !shared.source.steer(&name, command) {
        return unknown(&name);
    }
    answer(&shared, &name).await
}

/// Whoever may read may not order. The token is compared in constant time.
fn unauthorized(shared: &Shared, headers: &HeaderMap) -> Option<Response> {
    let Some(token) = shared.source.token() else {
        let error = "orders are off: set `http.token` in the configuration";
        return Some(refused(StatusCode::FORBIDDEN, error));
    };
    let shown = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let shown = shown.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
    if bool::from(shown.as_bytes().ct_eq(token.expose().as_bytes())) {
        return None;
    }
    let mut refusal =
        refused(StatusCode::UNAUTHORIZED, "the token is missing or wrong: `Authorization: Bearer TOKEN`");
    refusal.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    Some(refusal)
}

fn command(order: &str, parameters: &Parameters) -> Result<Command, (StatusCode, String)> {
    let bad = |error: String| (StatusCode::BAD_REQUEST, error);
    let span = |default: Duration| match parameters.span.as_deref() {
        None => Ok(default),
        Some(text) => match humantime::parse_duration(text) {
            Ok(span) if span.is_zero() || span > LONGEST => Err(bad(format!(
                "`for` must be more than zero, and at most {}",
                humantime::format_duration(LONGEST)
            ))),
            Ok(span) => Ok(span),
            Err(error) => Err(bad(format!("`for={text}` is no time such as 30s or 5m: {error}"))),
        },
    };
    let rate = parameters.transactions_per_second;
    let is_throttle = order == "throttle";
    if !is_throttle && (rate.is_some() || parameters.transaction_burst.is_some()) {
        return Err(bad(format!("`{order}` has no rate; `throttle` has")));
    }
    match order {
        "pause" => Ok(Command::Halt(Halt::Pause, span(SHORT)?)),
        "drain" => Ok(Command::Halt(Halt::Drain, span(SHORT)?)),
        "suspend" => Ok(Command::Halt(Halt::Suspend, span(LONG)?)),
        "throttle" => {
            let per_second = rate
                .filter(|rate| *rate > 0)
                .ok_or_else(|| bad("`throttle` needs `transactions_per_second`, at least 1".to_owned()))?;
            let burst = parameters.transaction_burst.unwrap_or(per_second).max(1);
            Ok(Command::Throttle(RateLimit { per_second, burst, delay_us: DELAY_US }, span(LONG)?))
        }
        "resume" if parameters.span.is_some() => Err(bad("`resume` has no `for`".to_owned())),
        "resume" => Ok(Command::Resume),
        _ => Err((
            StatusCode::NOT_FOUND,
            format!("there is no order `{order}`: pause, drain, suspend, throttle or resume"),
        )),
    }
}

async fn answer(shared: &Shared, name: &str) -> Response {
    match timeout(COLLECT, shared.source.explain(name)).await {
        Ok(Some(explained)) => written(StatusCode::OK, &explained.json()),
        Ok(None) => unknown(name),
        Err(_) => refused(StatusCode::SERVICE_UNAVAILABLE, "the workers did not answer in time"),
    }
}

fn unknown(name: &str) -> Response {
    refused(StatusCode::NOT_FOUND, &format!("there is no tenant `{name}`"))
}

fn refused(status: StatusCode, error: &str) -> Response {
    written(status, &json!({ "error": error }))
}

fn written(status: StatusCode, value: &Value) -> Response {
    with_headers(status, "application/json", Body::from(format!("{value}\n")))
}

/// How long a tenant's clients are made to wait unless it is said otherwise.
const SHORT: Duration = Duration::from_secs(30);
/// How long it is refused or slowed down.
const LONG: Duration = Duration::from_secs(600);
/// Longer than that is a matter for the configuration.
const LONGEST: Duration = Duration::from_secs(24 * 3_600);
/// Who comes too early by less waits.
const DELAY_US: u32 = 50_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(order: &str, query: &str) -> Result<Command, String> {
        let uri = format!("http://h/?{query}").parse().unwrap();
        let Query(parameters) = Query::try_from_uri(&uri).map_err(|error| error.to_string())?;
        command(order, &parameters).map_err(|(_, error)| error)
    }

    #[test]
    fn orders_have_a_time_that_ends() {
        assert_eq!(parsed("pause", ""), Ok(Command::Halt(Halt::Pause, SHORT)));
        assert_eq!(parsed("drain", "for=2m"), Ok(Command::Halt(Halt::Drain, Duration::from_secs(120))));
        assert_eq!(parsed("suspend", "for=1h"), Ok(Command::Halt(Halt::Suspend, Duration::from_secs(3_600))));
        let limit = RateLimit { per_second: 50, burst: 50, delay_us: DELAY_US };
        assert_eq!(parsed("throttle", "transactions_per_second=50"), Ok(Command::Throttle(limit, LONG)));
        assert_eq!(parsed("resume", ""), Ok(Command::Resume));
    }

    #[test]
    fn what_makes_no_sense_is_an_error_that_says_why() {
        for (order, query, why) in [
            ("pause", "for=0s", "more than zero"),
            ("pause", "for=25h", "at most 1day"),
            ("pause", "for=soon", "no time"),
            ("pause", "until=5", "unknown field"),
            ("drain", "transactions_per_second=5", "no rate"),
            ("throttle", "", "needs `transactions_per_second`"),
            ("throttle", "transactions_per_second=0", "at least 1"),
            ("throttle", "transactions_per_second=-1", "invalid"),
            ("resume", "for=1s", "no `for`"),
            ("stop", "", "no order `stop`"),
        ] {
            let error = parsed(order, query).unwrap_err();
            assert!(error.contains(why), "{order}?{query}: {error}");
        }
    }
}
