//! One HTTP request to a running proxy.
//!
//! Owns a request of five lines and the reading of its answer: nothing that would need a client library.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use super::Failure;

/// Host with port, and path.
pub(super) fn split(url: &str) -> Result<(&str, &str), Failure> {
    let rest = url.strip_prefix("http://").ok_or_else(|| Failure::usage("the URL starts with http://"))?;
    let slash = rest.find('/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at(slash);
    if authority.is_empty() || path.contains(char::is_whitespace) || authority.contains(char::is_whitespace) {
        return Err(Failure::usage("the URL is http://host:port/path"));
    }
    Ok((authority, if path.is_empty() { "/" } else { path }))
}

/// Sends a request and reads the answer, at most [`ANSWER_BYTES`] of it: the status, if it has one, and the body.
pub(super) fn ask(
    (method, authority, path): (&str, &str, &str),
    token: Option<&str>,
    timeout: Duration,
) -> std::io::Result<(Option<u16>, String)> {
    let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let target = if has_port { authority.to_owned() } else { format!("{authority}:80") };
    let mut last = std::io::Error::other("the name has no address");
    for address in target.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, timeout) {
            Ok(mut stream) => {
                stream.set_read_timeout(Some(timeout))?;
                stream.set_write_timeout(Some(timeout))?;
                let authorization =
                    token.map_or_else(String::new, |token| format!("Authorization: Bearer {token}\r\n"));
                let request = format!(
                    "{method} {path} HTTP/1.1\r\nHost: {authority}\r\n{authorization}Content-Length: 0\r\n\
                     Connection: close\r\n\r\n"
                );
                stream.write_all(request.as_bytes())?;
                let mut answer = Vec::new();
                stream.take(ANSWER_BYTES).read_to_end(&mut answer)?;
                let (status, body) = status_and_body(&String::from_utf8_lossy(&answer));
                return Ok((status, body));
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// The number in `HTTP/1.1 200 OK`, and what follows the empty line.
fn status_and_body(answer: &str) -> (Option<u16>, String) {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((answer, ""));
    let status = head.strip_prefix("HTTP/1.").and_then(|rest| rest.split(' ').nth(1));
    (status.and_then(|status| status.parse().ok()), body.trim().to_owned())
}

/// More of an answer is not read.
const ANSWER_BYTES: u64 = 65_536;
