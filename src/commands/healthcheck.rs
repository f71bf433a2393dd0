//! `tenantry healthcheck`: asks a running proxy over HTTP whether it is well.
//!
//! Owns what counts as well. An image needs no shell and no curl for it.

use std::time::Duration;

use clap::Args;

use super::{Failure, http, output};

/// Arguments of `tenantry healthcheck`.
#[derive(Debug, Args)]
pub struct HealthcheckArgs {
    /// What to ask: /livez for "the process answers", /readyz for "it takes clients".
    #[arg(long, env = "TENANTRY_HEALTHCHECK_URL", default_value = "http://127.0.0.1:9127/readyz")]
    pub url: String,
    /// How long to wait for the answer.
    #[arg(long, default_value = "2s", value_parser = humantime::parse_duration)]
    pub timeout: Duration,
}

/// Asks, and fails unless the answer is 200.
///
/// # Errors
/// If there is no answer in time, or another one.
pub fn run(args: &HealthcheckArgs) -> Result<(), Failure> {
    let (authority, path) = http::split(&args.url)?;
    let (status, body) = http::ask(("GET", authority, path), None, args.timeout)
        .map_err(|error| Failure::runtime(format_args!("no answer from {authority}: {error}")))?;
    match status {
        Some(200) => Ok(output::to_stdout(&format!("ok: {body}\n"))?),
        Some(status) => Err(Failure::runtime(format_args!("{} says {status}: {body}", args.url))),
        None => Err(Failure::runtime(format_args!("{} does not speak HTTP", args.url))),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::http::split;
    use super::*;

    fn against(answer: &'static str) -> Result<(), Failure> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/readyz", listener.local_addr().unwrap());
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            let read = stream.read(&mut request).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
            String::from_utf8_lossy(&request[..read]).into_owned()
        });
        let result = run(&HealthcheckArgs { url, timeout: Duration::from_secs(5) });
        let request = server.join().unwrap();
        assert!(request.starts_with("GET /readyz HTTP/1.1\r\n"), "{request}");
        result
    }

    #[test]
    fn only_a_200_is_well() {
        assert!(against("HTTP/1.1 200 OK\r\n\r\nready").is_ok());
        let failure = against("HTTP/1.1 503 Service Unavailable\r\n\r\ndraining").unwrap_err();
        assert!(failure.to_string().contains("503") && failure.to_string().contains("draining"), "{failure}");
        assert_eq!(failure.code(), 1);
        assert!(against("nonsense").is_err());
    }

    #[test]
    fn urls_are_read() {
        assert_eq!(split("http://[::1]:9127/livez").unwrap(), ("[::1]:9127", "/livez"));
        assert_eq!(split("http://h").unwrap(), ("h", "/"));
        assert!(split("https://h/").is_err());
        assert!(split("http:///x").is_err());
    }
}
