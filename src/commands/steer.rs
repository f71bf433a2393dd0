//! `tenantry why`, `pause`, `drain`, `suspend`, `throttle`, `resume`: one tenant of a running proxy.
//!
//! Owns the arguments and what is printed. The proxy is asked over HTTP, where its configuration says it listens.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;
use serde_json::Value;

use super::{ConfigArgs, Failure, http, load, output};

/// Which tenant of which proxy.
#[derive(Debug, Args)]
pub struct TenantArgs {
    /// The tenant.
    pub name: String,
    /// Where the proxy is, such as http://127.0.0.1:9127; read from the configuration if left out.
    #[arg(long, env = "TENANTRY_API_URL")]
    pub url: Option<String>,
    /// `http.token`; read from the configuration if that says where the proxy is. Others can see arguments: use the
    /// variable.
    #[arg(long, env = "TENANTRY_API_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// Print all numbers, as JSON.
    #[arg(long)]
    pub json: bool,
    /// The configuration.
    #[command(flatten)]
    pub config: ConfigArgs,
}

/// Arguments of orders that hold for a while.
#[derive(Debug, Args)]
pub struct HaltArgs {
    /// Which tenant.
    #[command(flatten)]
    pub tenant: TenantArgs,
    /// How long it holds; it ends by itself then, or with `resume`. Without it 30s, for `suspend` 10m.
    #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration)]
    pub span: Option<Duration>,
    /// Wait for so long at most until no transaction runs any more (with `drain`: until no server is left).
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub wait: Option<Duration>,
}

/// Arguments of `tenantry throttle`.
#[derive(Debug, Args)]
pub struct ThrottleArgs {
    /// Which tenant.
    #[command(flatten)]
    pub tenant: TenantArgs,
    /// Transactions that it may begin per second.
    #[arg(long, value_name = "RATE", value_parser = clap::value_parser!(u32).range(1..))]
    pub transactions_per_second: u32,
    /// Transactions that it may begin at once after a pause; a second's worth if left out.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    pub transaction_burst: Option<u32>,
    /// How long it holds; it ends by itself then, or with `resume`. Without it 10m.
    #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration)]
    pub span: Option<Duration>,
}

/// Says why the tenant's clients wait.
///
/// # Errors
/// If the proxy does not answer, or knows no such tenant.
pub fn why(args: &TenantArgs) -> Result<(), Failure> {
    let proxy = Proxy::find(args)?;
    let answer = proxy.ask("GET", &args.name, "why", &[])?;
    say(args, &answer)
}

/// Holds the tenant up: `pause`, `drain` or `suspend`.
///
/// # Errors
/// As [`why`]; and if its transactions, or servers, are not gone in the time that was given for that.
pub fn halt(order: &str, args: &HaltArgs) -> Result<(), Failure> {
    if args.wait.is_some_and(|patience| args.span.is_some_and(|span| span <= patience)) {
        return Err(Failure::usage("`--wait` must be shorter than `--for`: what is waited for ends then"));
    }
    let proxy = Proxy::find(&args.tenant)?;
    let span =
        args.span.map(|span| ("for", humantime::format_duration(span).to_string().replace(' ', "%20")));
    let name = &args.tenant.name;
    let mut answer = proxy.ask("POST", name, order, span.as_slice())?;
    let Some(patience) = args.wait else { return say(&args.tenant, &answer) };
    let mut patience = patience;
    loop {
        // Where it reads as where it writes.
        let servers = |state: &str| {
            let [home, replicas] =
                ["servers", "replicas"].map(|place| answer[place][state].as_u64().unwrap_or(0));
            home.saturating_add(replicas)
        };
        let left = match order {
            "drain" => ["login", "idle", "busy", "closing"].map(servers).iter().sum(),
            // The tenant's listener is in no transaction.
            _ => servers("busy").saturating_sub(servers("listener")),
        };
        // No worker has met it: there is nothing to wait for.
        let is_unknown = answer["workers"] == 0;
        if !is_unknown && answer["halted"]["how"] != order {
            return Err(Failure::runtime(format_args!("{order} of {name} has ended")));
        }
        if left == 0 {
            return say(&args.tenant, &answer);
        }
        if patience.is_zero() {
            say(&args.tenant, &answer)?;
            return Err(Failure::runtime(format_args!(
                "{left} servers of {name} are still in use; {order} goes on"
            )));
        }
        std::thread::sleep(LOOK.min(patience));
        patience = patience.saturating_sub(LOOK);
        answer = proxy.ask("GET", name, "why", &[])?;
    }
}

/// Lets the tenant begin so many transactions only.
///
/// # Errors
/// As [`why`].
pub fn throttle(args: &ThrottleArgs) -> Result<(), Failure> {
    let proxy = Proxy::find(&args.tenant)?;
    let mut parameters = vec![("transactions_per_second", args.transactions_per_second.to_string())];
    parameters.extend(args.transaction_burst.map(|burst| ("transaction_burst", burst.to_string())));
    parameters.extend(
        args.span.map(|span| ("for", humantime::format_duration(span).to_string().replace(' ', "%20"))),
    );
    say(&args.tenant, &proxy.ask("POST", &args.tenant.name, "throttle", &parameters)?)
}

/// Lets the tenant go on.
///
/// # Errors
/// As [`why`].
pub fn resume(args: &TenantArgs) -> Result<(), Failure> {
    say(args, &Proxy::find(args)?.ask("POST", &args.name, "resume", &[])?)
}

/// A running proxy.
struct Proxy {
    authority: String,
    token: Option<String>,
}

impl Proxy {
    /// Where the arguments say it is, or else the configuration.
    fn find(args: &TenantArgs) -> Result<Self, Failure> {
        let (url, token) = match (&args.url, &args.token) {
            (Some(url), Some(token)) => (url.clone(), Some(token.clone())),
            // A token is shown to nobody but the proxy of whose configuration it is.
            (Some(url), None) => (url.clone(), None),
            (None, token) => {
                let settings =
                    load::configuration(&args.config.config, None).map_err(Failure::config)?.settings;
                let written = || settings.http_token.as_ref().map(|token| token.expose().to_owned());
                let Some(address) = settings.http else {
                    return Err(Failure::usage("the configuration has `http.address = \"off\"`"));
                };
                let url = format!("http://{}", reachable(address));
                (url, token.clone().or_else(written))
            }
        };
        let (authority, _) = http::split(&url)?;
        Ok(Self { authority: authority.to_owned(), token })
    }

    fn ask(
        &self,
        method: &str,
        name: &str,
        what: &str,
        parameters: &[(&str, String)],
    ) -> Result<Value, Failure> {
        if !name.chars().all(|letter| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '-')) {
            return Err(Failure::usage(format_args!("`{name}` is not a tenant's name")));
        }
        let query: Vec<_> = parameters.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let path = format!("/api/v1/tenants/{name}/{what}?{}", query.join("&"));
        let request = (method, self.authority.as_str(), path.trim_end_matches('?'));
        // Whoever only asks needs none.
        let token = self.token.as_deref().filter(|_| method == "POST");
        let (status, body) = http::ask(request, token, PATIENCE)
            .map_err(|error| Failure::runtime(format_args!("no answer from {}: {error}", self.authority)))?;
        let answer: Value = serde_json::from_str(&body).unwrap_or_default();
        match (status, answer["error"].as_str()) {
            (Some(200), None) => Ok(answer),
            (Some(_), Some(error)) => Err(Failure::runtime(error)),
            _ => Err(Failure::runtime(format_args!("{} does not answer as a proxy: {body}", self.authority))),
        }
    }
}

/// Where one connects to whoever listens everywhere.
fn reachable(address: SocketAddr) -> SocketAddr {
    use std::net::{Ipv4Addr, Ipv6Addr};
    match address {
        SocketAddr::V4(any) if any.ip().is_unspecified() => (Ipv4Addr::LOCALHOST, any.port()).into(),
        SocketAddr::V6(any) if any.ip().is_unspecified() => (Ipv6Addr::LOCALHOST, any.port()).into(),
        address => address,
    }
}

fn say(args: &TenantArgs, answer: &Value) -> Result<(), Failure> {
    let text =
        if args.json { answer.to_string() } else { answer["sentence"].as_str().unwrap_or("").to_owned() };
    Ok(output::to_stdout(&format!("{text}\n"))?)
}

const PATIENCE: Duration = Duration::from_secs(10);
/// How often is looked whether a tenant has come to rest.
const LOOK: Duration = Duration::from_millis(50);
