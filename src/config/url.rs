//! Where a cluster is: libpq's connection URIs and keyword/value strings.
//!
//! Owns the syntax (hosts, ports, percent encoding, parameters) and which parameters mean something here. Must not
//! resolve names or read files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::settings::{
    ChannelBinding, Endpoint, Host, MaxProtocol, SslMode, TargetSessionAttrs, TlsIdentity,
};

/// What is wrong with a URL. The text holds no password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct UrlError {
    /// What is wrong.
    message: String,
}

/// Reads `postgres://h1:5432,h2/app?sslmode=verify-full` or `host=h1,h2 dbname=app`. Relative paths of certificates
/// start at `base`.
///
/// # Errors
/// What is wrong, without any secret of the URL in it.
pub fn parse_endpoint(text: &str, base: &Path) -> Result<Endpoint, UrlError> {
    let scheme = ["postgres://", "postgresql://"].iter().find_map(|scheme| text.strip_prefix(scheme));
    let parameters = match scheme {
        Some(rest) => uri(rest)?,
        None if text.contains("://") => return fail("the URL does not start with `postgres://`"),
        None => keyword_values(text)?,
    };
    endpoint(&parameters, base)
}

/// Keywords and values in the order written; a later one wins.
type Parameters = Vec<(String, String)>;

/// The part of a URI behind its scheme.
fn uri(rest: &str) -> Result<Parameters, UrlError> {
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
    if authority.contains('@') {
        return fail(
            "the URL names a user: every tenant has a role of its own, and `admin` is for operators",
        );
    }
    let mut parameters = Vec::new();
    let (mut hosts, mut ports) = (Vec::new(), Vec::new());
    for part in authority.split(',') {
        let (host, port) = host_and_port(part)?;
        hosts.push(decode(host)?);
        ports.push(port);
    }
    if !authority.is_empty() {
        parameters.push(("host".to_owned(), hosts.join(",")));
        parameters.push(("port".to_owned(), ports.join(",")));
    }
    if !database.is_empty() {
        parameters.push(("dbname".to_owned(), decode(database)?));
    }
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let Some((key, value)) = pair.split_once('=') else {
            return fail(format!("the parameter `{pair}` has no value"));
        };
        parameters.push((decode(key)?, decode(value)?));
    }
    Ok(parameters)
}

/// Splits `host:port`, `[::1]:port` or a host alone.
fn host_and_port(part: &str) -> Result<(&str, &str), UrlError> {
    let Some(bracketed) = part.strip_prefix('[') else {
        return Ok(part.split_once(':').unwrap_or((part, "")));
    };
    let Some((address, rest)) = bracketed.split_once(']') else {
        return fail("an IPv6 address lacks its `]`");
    };
    match rest.strip_prefix(':') {
        Some(port) => Ok((address, port)),
        None if rest.is_empty() => Ok((address, "")),
        None => fail("after `]` comes a `:` and the port"),
    }
}

/// Replaces `%41` by `A`.
fn decode(text: &str) -> Result<String, UrlError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let hex = rest.split_at_checked(2).and_then(|(hex, after)| {
            rest = after;
            u8::from_str_radix(std::str::from_utf8(hex).ok().filter(|hex| !hex.starts_with('+'))?, 16).ok()
        });
        match hex {
            Some(byte @ 1..) => bytes.push(byte),
            Some(0) => return fail("the URL holds a zero byte, `%00`"),
            None => return fail("after `%` come two hexadecimal digits"),
        }
    }
    String::from_utf8(bytes).or_else(|_| fail("the URL is not UTF-8 once decoded"))
}

/// `host=h1 port=5432 options='a b'`, with libpq's quotes and backslashes.
fn keyword_values(text: &str) -> Result<Parameters, UrlError> {
    let mut parameters = Vec::new();
    let mut rest = text.trim_start();
    if rest.is_empty() {
        return fail("the URL is empty");
    }
    while !rest.is_empty() {
        let Some((key, after)) = rest.split_once('=') else {
            return fail(
                "this is neither a URL (`postgres://host:5432/database`) nor a list of `keyword=value`",
            );
        };
        let (value, after) = value(after.trim_start())?;
        parameters.push((key.trim().to_owned(), value));
        rest = after.trim_start();
    }
    Ok(parameters)
}

/// One value and what follows it.
fn value(text: &str) -> Result<(String, &str), UrlError> {
    let quoted = text.starts_with('\'');
    let mut value = String::new();
    let mut chars = text.char_indices();
    if quoted {
        chars.next();
    }
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => value.extend(chars.next().map(|(_, c)| c)),
            '\'' if quoted => return Ok((value, text.get(at.saturating_add(1)..).unwrap_or_default())),
            c if c.is_whitespace() && !quoted => return Ok((value, text.get(at..).unwrap_or_default())),
            c => value.push(c),
        }
    }
    if quoted { fail("a quoted value has no end") } else { Ok((value, "")) }
}

/// Gives the parameters their meaning.
fn endpoint(parameters: &Parameters, base: &Path) -> Result<Endpoint, UrlError> {
    for (key, _) in parameters {
        check_keyword(key)?;
    }
    let find =
        |key: &str| parameters.iter().rev().find(|(found, _)| found == key).map(|(_, value)| value.as_str());
    let hosts = hosts(find("host").unwrap_or_default(), find("port").unwrap_or_default())?;
    let database = find("dbname").filter(|name| !name.is_empty()).map(Arc::from);
    if let Some(database) = &database {
        super::names::check_name(database).or_else(|why| fail(format!("the database: {why}")))?;
    }
    let root = find("sslrootcert").filter(|path| !path.is_empty());
    let ssl_root_cert = root.filter(|path| *path != "system").map(|path| base.join(path));
    let default_mode = if root == Some("system") { SslMode::VerifyFull } else { SslMode::Prefer };
    let endpoint = Endpoint {
        hosts,
        database,
        ssl_mode: find("sslmode").map_or(Ok(default_mode), ssl_mode)?,
        ssl_root_cert,
        ssl_identity: identity(find("sslcert"), find("sslkey"), base)?,
        ssl_direct: find("sslnegotiation").map_or(Ok(false), ssl_negotiation)?,
        target_session_attrs: find("target_session_attrs")
            .map_or(Ok(TargetSessionAttrs::Any), session_attrs)?,
        channel_binding: find("channel_binding").map_or(Ok(ChannelBinding::Prefer), channel_binding)?,
        max_protocol: find("max_protocol_version").map_or(Ok(MaxProtocol::V3_2), max_protocol)?,
    };
    consistent(&endpoint, root == Some("system"))?;
    Ok(endpoint)
}

/// Combinations that libpq refuses, too.
fn consistent(endpoint: &Endpoint, system_roots: bool) -> Result<(), UrlError> {
    let weak = matches!(endpoint.ssl_mode, SslMode::Disable | SslMode::Allow | SslMode::Prefer);
    if endpoint.ssl_direct && weak {
        return fail("`sslnegotiation=direct` needs `sslmode=require`, `verify-ca` or `verify-full`");
    }
    if system_roots && endpoint.ssl_mode != SslMode::VerifyFull {
        return fail("`sslrootcert=system` needs `sslmode=verify-full`");
    }
    if endpoint.channel_binding == ChannelBinding::Require && endpoint.ssl_mode == SslMode::Disable {
        return fail("`channel_binding=require` needs TLS, but `sslmode=disable` switches it off");
    }
    Ok(())
}

/// Pairs hosts with ports, as libpq does: one port for all, or one for each.
fn hosts(hosts: &str, ports: &str) -> Result<Vec<Host>, UrlError> {
    let hosts: Vec<_> = hosts.split(',').collect();
    let ports: Vec<_> = ports.split(',').collect();
    if ports.len() != 1 && ports.len() != hosts.len() {
        return fail(format!("{} ports do not fit {} hosts", ports.len(), hosts.len()));
    }
    hosts
        .iter()
        .enumerate()
        .map(|(index, name)| host(name, ports.get(index).or(ports.first()).copied()))
        .collect()
}

/// One host.
fn host(name: &str, port: Option<&str>) -> Result<Host, UrlError> {
    let port = match port {
        None | Some("") => DEFAULT_PORT,
        Some(text) => match text.parse() {
            Ok(port @ 1..) => port,
            _ => return fail(format!("`{text}` is not a port (1 to 65535)")),
        },
    };
    if name.is_empty() {
        return fail("the URL names no host: write one, or a socket directory (`host=/run/postgresql`)");
    }
    if name.contains(char::is_whitespace) || name.contains(char::is_control) {
        return fail("a host name holds a space or control character");
    }
    Ok(match name.starts_with('/') {
        true => Host::Unix { dir: PathBuf::from(name), port },
        false => Host::Tcp { host: name.into(), port },
    })
}

/// Known keywords pass; others are told apart by why they are not taken.
fn check_keyword(key: &str) -> Result<(), UrlError> {
    if TAKEN.contains(&key) {
        return Ok(());
    }
    match REFUSED.iter().find(|(refused, _)| *refused == key) {
        Some((_, why)) => fail(format!("`{key}` has no place here: {why}")),
        None => fail(format!("unknown parameter `{key}`; known are {}", TAKEN.join(", "))),
    }
}

/// `sslcert` and `sslkey` come together.
fn identity(cert: Option<&str>, key: Option<&str>, base: &Path) -> Result<Option<TlsIdentity>, UrlError> {
    match (cert, key) {
        (None, None) => Ok(None),
        (Some(cert), Some(key)) => Ok(Some(TlsIdentity { cert: base.join(cert), key: base.join(key) })),
        (Some(_), None) => fail("`sslcert` needs `sslkey`"),
        (None, Some(_)) => fail("`sslkey` needs `sslcert`"),
    }
}

/// `sslmode`
fn ssl_mode(word: &str) -> Result<SslMode, UrlError> {
    Ok(match word {
        "disable" => SslMode::Disable,
        "allow" => SslMode::Allow,
        "prefer" => SslMode::Prefer,
        "require" => SslMode::Require,
        "verify-ca" => SslMode::VerifyCa,
        "verify-full" => SslMode::VerifyFull,
        _ => return not_a_word("sslmode", word, "disable, allow, prefer, require, verify-ca, verify-full"),
    })
}

/// `sslnegotiation`: whether TLS starts without SSLRequest.
fn ssl_negotiation(word: &str) -> Result<bool, UrlError> {
    match word {
        "postgres" => Ok(false),
        "direct" => Ok(true),
        _ => not_a_word("sslnegotiation", word, "postgres, direct"),
    }
}

/// `target_session_attrs`
fn session_attrs(word: &str) -> Result<TargetSessionAttrs, UrlError> {
    Ok(match word {
        "any" => TargetSessionAttrs::Any,
        "read-write" => TargetSessionAttrs::ReadWrite,
        "read-only" => TargetSessionAttrs::ReadOnly,
        "primary" => TargetSessionAttrs::Primary,
        "standby" => TargetSessionAttrs::Standby,
        "prefer-standby" => TargetSessionAttrs::PreferStandby,
        _ => {
            let known = "any, read-write, read-only, primary, standby, prefer-standby";
            return not_a_word("target_session_attrs", word, known);
        }
    })
}

/// `channel_binding`
fn channel_binding(word: &str) -> Result<ChannelBinding, UrlError> {
    Ok(match word {
        "disable" => ChannelBinding::Disable,
        "prefer" => ChannelBinding::Prefer,
        "require" => ChannelBinding::Require,
        _ => return not_a_word("channel_binding", word, "disable, prefer, require"),
    })
}

/// `max_protocol_version`
fn max_protocol(word: &str) -> Result<MaxProtocol, UrlError> {
    match word {
        "3.0" => Ok(MaxProtocol::V3_0),
        "3.2" | "latest" => Ok(MaxProtocol::V3_2),
        _ => not_a_word("max_protocol_version", word, "3.0, 3.2, latest"),
    }
}

/// The error for a word outside of a list.
fn not_a_word<T>(key: &str, word: &str, known: &str) -> Result<T, UrlError> {
    fail(format!("`{key}={word}` is unknown; known are {known}"))
}

/// An error of that text.
fn fail<T>(message: impl Into<String>) -> Result<T, UrlError> {
    Err(UrlError { message: message.into() })
}

/// libpq's default port.
const DEFAULT_PORT: u16 = 5432;

/// Keywords that mean something here.
const TAKEN: [&str; 11] = [
    "host",
    "port",
    "dbname",
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "sslnegotiation",
    "target_session_attrs",
    "channel_binding",
    "max_protocol_version",
];

/// libpq's keywords that are written elsewhere, or not at all.
const REFUSED: [(&str, &str); 14] = [
    ("user", "every tenant has a `role` of its own, and `admin` is for operators"),
    ("password", "it is written in a tenant's `server_auth`, or in `admin`"),
    ("passfile", "passwords are written in `server_auth` or in `admin`"),
    ("hostaddr", "write the address as the host"),
    ("connect_timeout", "it is `pool.connect_timeout`"),
    ("options", "settings are written in a tenant's `settings`"),
    ("application_name", "servers are named `tenantry`"),
    ("client_encoding", "it follows the client"),
    ("keepalives", "it is `pool.tcp_keepalive`"),
    ("keepalives_idle", "it is `pool.tcp_keepalive`"),
    ("tcp_user_timeout", "it is `pool.tcp_user_timeout`"),
    ("load_balance_hosts", "hosts are tried in the order written"),
    ("gssencmode", "GSSAPI encryption is not supported"),
    ("service", "service files are not read"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<Endpoint, UrlError> {
        parse_endpoint(text, Path::new("/etc/tenantry"))
    }

    fn tcp(host: &str, port: u16) -> Host {
        Host::Tcp { host: host.into(), port }
    }

    #[test]
    fn a_full_uri_is_read() {
        let url = "postgres://db1:6000,db2,[::1]:7/my%20app?sslmode=verify-full&sslrootcert=ca.pem\
                   &target_session_attrs=read-write&sslnegotiation=direct&channel_binding=require";
        let endpoint = parse(url).unwrap();
        assert_eq!(endpoint.hosts, [tcp("db1", 6000), tcp("db2", 5432), tcp("::1", 7)]);
        assert_eq!(endpoint.database.as_deref(), Some("my app"));
        assert_eq!(endpoint.ssl_root_cert.as_deref(), Some(Path::new("/etc/tenantry/ca.pem")));
        assert_eq!(endpoint.target_session_attrs, TargetSessionAttrs::ReadWrite);
        assert!(endpoint.ssl_direct);
        assert_eq!(endpoint.max_protocol, MaxProtocol::V3_2);
        for (word, version) in
            [("3.0", MaxProtocol::V3_0), ("3.2", MaxProtocol::V3_2), ("latest", MaxProtocol::V3_2)]
        {
            let endpoint = parse(&format!("postgres://db1/app?max_protocol_version={word}")).unwrap();
            assert_eq!(endpoint.max_protocol, version, "{word}");
        }
    }

    #[test]
    fn sockets_and_keyword_values_are_read() {
        let socket = Host::Unix { dir: "/run/postgresql".into(), port: 5433 };
        for text in [
            "postgresql://%2Frun%2Fpostgresql:5433/app",
            "postgresql:///app?host=/run/postgresql&port=5433",
            "host=/run/postgresql port=5433 dbname=app",
            "host = '/run/postgresql' port = 5433 dbname='ap\\p'",
        ] {
            let endpoint = parse(text).unwrap();
            assert_eq!(endpoint.hosts, std::slice::from_ref(&socket), "{text}");
            assert_eq!(endpoint.database.as_deref(), Some("app"), "{text}");
            assert_eq!(endpoint.ssl_mode, SslMode::Prefer);
        }
    }

    #[test]
    fn each_mistake_is_named() {
        for (text, part) in [
            ("", "empty"),
            ("mysql://x", "postgres://"),
            ("just text", "neither"),
            ("postgres://", "no host"),
            ("postgres://u:p@h/db", "names a user"),
            ("postgres://h:0/db", "not a port"),
            ("postgres://h:99999/db", "not a port"),
            ("postgres://h/db?sslmode=on", "sslmode=on"),
            ("postgres://h/db?max_protocol_version=3.1", "3.0, 3.2, latest"),
            ("postgres://h/db?user=x", "role"),
            ("postgres://h/db?hots=x", "unknown parameter"),
            ("postgres://h/%zz", "hexadecimal"),
            ("postgres://h/%00", "zero byte"),
            ("postgres://[::1/db", "`]`"),
            ("postgres://h/db?sslcert=a", "sslkey"),
            ("postgres://h/db?sslnegotiation=direct", "needs `sslmode"),
            ("postgres://h/db?sslrootcert=system&sslmode=require", "verify-full"),
            ("host=a,b,c port=1,2", "2 ports do not fit 3 hosts"),
            ("host='a", "no end"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
            assert!(!error.contains("u:p"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,60}", tail in ".{0,60}") {
            let _ = parse(&text);
            let _ = parse(&format!("postgres://{text}/{tail}"));
            let _ = parse(&format!("host={text} {tail}"));
        }
    }
}
