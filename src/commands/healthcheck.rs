//! `tenantry healthcheck`: asks a running proxy over HTTP whether it is well.
//!
//! Owns a request of five lines and the reading of a status line, so that an image needs no shell and no curl.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use clap::Args;

use super::{Failure, output};

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
    let (authority, path) = split(&args.url)?;
    let answer = ask(authority, path, args.timeout)
        .map_err(|error| Failure::runtime(format_args!("no answer from {authority}: {error}")))?;
    let (status, body) = status_and_body(&answer);
    match status {
        Some(200) => Ok(output::to_stdout(&format!("ok: {}\n", body.trim()))?),
        Some(status) => Err(Failure::runtime(format_args!("{} says {status}: {}", args.url, body.trim()))),
        None => Err(Failure::runtime(format_args!("{} does not speak HTTP", args.url))),
    }
}

/// Host with port, and path.
fn split(url: &str) -> Result<(&str, &str), Failure> {
    let rest = url.strip_prefix("http://").ok_or_else(|| Failure::usage("the URL starts with http://"))?;
    let slash = rest.find('/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at(slash);
    if authority.is_empty() || path.contains(char::is_whitespace) || authority.contains(char::is_whitespace) {
        return Err(Failure::usage("the URL is http://host:port/path"));
    }
    Ok((authority, if path.is_empty() { "/" } else { path }))
}

/// Sends the request and reads the answer, at most [`ANSWER_BYTES`] of it.
fn ask(authority: &str, path: &str, timeout: Duration) -> std::io::Result<String> {
    let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let target = if has_port { authority.to_owned() } else { format!("{authority}:80") };
    let mut last = std::io::Error::other("the name has no address");
    for address in target.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, timeout) {
            Ok(mut stream) => {
                stream.set_read_timeout(Some(timeout))?;
                stream.set_write_timeout(Some(timeout))?;
                let request =
                    format!("GET {path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n");
                stream.write_all(request.as_bytes())?;
                let mut answer = Vec::new();
                stream.take(ANSWER_BYTES).read_to_end(&mut answer)?;
                return Ok(String::from_utf8_lossy(&answer).into_owned());
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// The number in `HTTP/1.1 200 OK`, and what follows the empty line.
fn status_and_body(answer: &str) -> (Option<u16>, &str) {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((answer, ""));
    let status = head.strip_prefix("HTTP/1.").and_then(|rest| rest.split(' ').nth(1));
    (status.and_then(|status| status.parse().ok()), body)
}

/// More of an answer is not read.
const ANSWER_BYTES: u64 = 65_536;

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

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
