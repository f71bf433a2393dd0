//! The PROXY protocol, versions 1 and 2: how a load balancer says for whom it connects.
//!
//! Owns the layouts and limits of "The PROXY protocol" (HAProxy, `doc/proxy-protocol.txt`). Must not know who may send such
//! a header: whoever is not trusted is not asked for one (`front`).
//!
//! ```text
//! v1  PROXY TCP4 192.0.2.1 198.51.100.7 51234 5432\r\n        text, at most 107 bytes
//! v2  \r\n\r\n\0\r\nQUIT\n  0x20|command  family|transport  length:u16  addresses  TLVs
//! ```
//!
//! | what comes | the client is |
//! |---|---|
//! | v1 `TCP4`, `TCP6`; v2 PROXY with IPv4 or IPv6 over a stream | the source address |
//! | v1 `UNKNOWN`; v2 PROXY unspecified or from a Unix socket | not known: the sender stands for it |
//! | v2 LOCAL (a health check) | the sender itself |
//! | anything else | an error: the specification forbids guessing |

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// Who the connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// This client.
    Client(SocketAddr),
    /// The sender itself, or somebody of whom it knows no address.
    Sender,
}

/// Why bytes are no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProxyHeaderError {
    /// They begin otherwise.
    #[error("no PROXY protocol header")]
    Missing,
    /// A line of version 1 with something else than a protocol, two addresses and two ports.
    #[error("a malformed PROXY protocol header of version 1")]
    BadLine,
    /// More than 107 bytes without a line end, or more than [`BODY_BYTES_MAX`] after the fixed part.
    #[error("a PROXY protocol header that is too long")]
    TooLong,
    /// A version or command that does not exist.
    #[error("a PROXY protocol header of version and command 0x{0:02x}")]
    UnknownCommand(u8),
    /// A family or transport that PostgreSQL does not speak.
    #[error("a PROXY protocol header with family and transport 0x{0:02x}")]
    UnknownFamily(u8),
    /// Fewer bytes than the addresses need.
    #[error("a PROXY protocol header without room for its addresses")]
    TooShort,
}

/// Reads a header at the start of `buf` and how many bytes it takes; `None` as long as it is not whole. Until then every
/// byte of `buf` belongs to the header.
///
/// # Errors
/// If the bytes cannot become a header, as soon as that is certain.
pub fn parse(buf: &[u8]) -> Result<Option<(Origin, usize)>, ProxyHeaderError> {
    match buf.first() {
        None => Ok(None),
        Some(first) if Some(first) == V1_START.first() => parse_v1(buf),
        Some(_) => parse_v2(buf),
    }
}

fn parse_v1(buf: &[u8]) -> Result<Option<(Origin, usize)>, ProxyHeaderError> {
    expect_start(buf, V1_START)?;
    let most = buf.get(..V1_BYTES_MAX).unwrap_or(buf);
    let Some(end) = memchr::memchr(b'\n', most) else {
        return if buf.len() < V1_BYTES_MAX { Ok(None) } else { Err(ProxyHeaderError::TooLong) };
    };
    let line = most.get(V1_START.len()..end).and_then(|line| line.strip_suffix(b"\r"));
    let line = line.and_then(|line| std::str::from_utf8(line).ok()).ok_or(ProxyHeaderError::BadLine)?;
    let origin = parse_line(line).ok_or(ProxyHeaderError::BadLine)?;
    Ok(Some((origin, end.saturating_add(1))))
}

/// What stands between `PROXY ` and the line end.
fn parse_line(line: &str) -> Option<Origin> {
    let mut words = line.split(' ');
    let source = match words.next()? {
        // Whatever follows has no meaning.
        "UNKNOWN" => return Some(Origin::Sender),
        "TCP4" => source_of::<Ipv4Addr>(&mut words)?,
        "TCP6" => source_of::<Ipv6Addr>(&mut words)?,
        _ => return None,
    };
    words.next().is_none().then_some(Origin::Client(source))
}

/// Source address, destination address, source port, destination port.
fn source_of<'a, A: FromStr + Into<IpAddr>>(words: &mut impl Iterator<Item = &'a str>) -> Option<SocketAddr> {
    let source: A = words.next()?.parse().ok()?;
    let _destination: A = words.next()?.parse().ok()?;
    let port = port(words.next()?)?;
    let _destination_port = self::port(words.next()?)?;
    Some(SocketAddr::new(source.into(), port))
}

/// A decimal number without a sign or leading zeros.
fn port(text: &str) -> Option<u16> {
    let port: u16 = text.parse().ok()?;
    (port.to_string() == text).then_some(port)
}

fn parse_v2(buf: &[u8]) -> Result<Option<(Origin, usize)>, ProxyHeaderError> {
    expect_start(buf, &V2_START)?;
    let rest = buf.get(V2_START.len()..).unwrap_or_default();
    let Some((&command, rest)) = rest.split_first() else { return Ok(None) };
    if !matches!(command, V2_LOCAL | V2_PROXY) {
        return Err(ProxyHeaderError::UnknownCommand(command));
    }
    let Some((&family, rest)) = rest.split_first() else { return Ok(None) };
    // The receiver of a LOCAL header has to ignore the family; a length must be right in any case.
    let family = Family::of(if command == V2_LOCAL { V2_UNSPECIFIED } else { family })?;
    let Some((length, rest)) = rest.split_first_chunk::<2>() else { return Ok(None) };
    let length = usize::from(u16::from_be_bytes(*length));
    if length > BODY_BYTES_MAX {
        return Err(ProxyHeaderError::TooLong);
    }
    if length < family.address_bytes() {
        return Err(ProxyHeaderError::TooShort);
    }
    let Some(body) = rest.get(..length) else { return Ok(None) };
    // What follows the addresses are TLVs, of which we need none.
    let origin = family.origin(body).ok_or(ProxyHeaderError::TooShort)?;
    Ok(Some((origin, V2_FIXED_BYTES.saturating_add(length))))
}

/// What the addresses of a version 2 header look like.
#[derive(Clone, Copy)]
enum Family {
    Unspecified,
    V4,
    V6,
    Unix,
}

impl Family {
    const fn of(byte: u8) -> Result<Self, ProxyHeaderError> {
        match byte {
            V2_UNSPECIFIED => Ok(Self::Unspecified),
            0x11 => Ok(Self::V4),
            0x21 => Ok(Self::V6),
            0x31 => Ok(Self::Unix),
            other => Err(ProxyHeaderError::UnknownFamily(other)),
        }
    }

    /// Two addresses, and for IP two ports.
    const fn address_bytes(self) -> usize {
        match self {
            Self::Unspecified => 0,
            Self::V4 => 12,
            Self::V6 => 36,
            Self::Unix => 216,
        }
    }

    fn origin(self, body: &[u8]) -> Option<Origin> {
        let (ip, port) = match self {
            Self::Unspecified | Self::Unix => return Some(Origin::Sender),
            Self::V4 => (IpAddr::from(*body.first_chunk::<4>()?), body.get(8..)?.first_chunk::<2>()?),
            Self::V6 => (IpAddr::from(*body.first_chunk::<16>()?), body.get(32..)?.first_chunk::<2>()?),
        };
        Some(Origin::Client(SocketAddr::new(ip, u16::from_be_bytes(*port))))
    }
}

/// Fails as soon as a byte differs.
fn expect_start(buf: &[u8], start: &[u8]) -> Result<(), ProxyHeaderError> {
    let same = buf.iter().zip(start).all(|(byte, wanted)| byte == wanted);
    if same { Ok(()) } else { Err(ProxyHeaderError::Missing) }
}

/// Bytes of addresses and TLVs: room for a client certificate, which some senders put there.
pub const BODY_BYTES_MAX: usize = 8_192;

const V1_START: &[u8] = b"PROXY ";
/// With its line end.
const V1_BYTES_MAX: usize = 107;
const V2_START: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
const V2_FIXED_BYTES: usize = 16;
const V2_LOCAL: u8 = 0x20;
const V2_PROXY: u8 = 0x21;
const V2_UNSPECIFIED: u8 = 0;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A header of version 2.
    fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len()).unwrap();
        [&V2_START[..], &[command, family], &length.to_be_bytes(), body].concat()
    }

    fn v4_body(source: [u8; 4], port: u16) -> Vec<u8> {
        [&source[..], &[198, 51, 100, 7], &port.to_be_bytes(), &5432_u16.to_be_bytes()].concat()
    }

    fn client(text: &str) -> Origin {
        Origin::Client(text.parse().unwrap())
    }

    #[test]
    fn lines_of_version_1_are_read() {
        let longest = "PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535 ".len();
        let filled =
            format!("UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535 {}", "x".repeat(105 - longest));
        for (line, origin) in [
            ("TCP4 192.0.2.1 198.51.100.7 51234 5432", client("192.0.2.1:51234")),
            ("TCP4 255.255.255.255 255.255.255.255 65535 65535", client("255.255.255.255:65535")),
            ("TCP6 2001:db8::1 ::1 1 0", client("[2001:db8::1]:1")),
            ("UNKNOWN", Origin::Sender),
            ("UNKNOWN whatever it says", Origin::Sender),
            (&filled, Origin::Sender),
        ] {
            let line = format!("PROXY {line}\r\n");
            assert_eq!(parse(line.as_bytes()), Ok(Some((origin, line.len()))), "{line}");
            assert_eq!(parse(format!("{line}\n\r\nmore").as_bytes()), Ok(Some((origin, line.len()))));
        }
        assert_eq!(filled.len() + 8, V1_BYTES_MAX);
    }

    #[test]
    fn other_lines_are_refused() {
        for line in [
            "",
            "TCP4",
            "TCP4 192.0.2.1 198.51.100.7 51234",
            "TCP4 192.0.2.1 198.51.100.7 51234 5432 ",
            "TCP4 192.0.2.1 198.51.100.7 51234 5432 6",
            "TCP4  192.0.2.1 198.51.100.7 51234 5432",
            "TCP4 192.0.2.1 198.51.100.7 051234 5432",
            "TCP4 192.0.2.1 198.51.100.7 +51234 5432",
            "TCP4 192.0.2.1 198.51.100.7 65536 5432",
            "TCP4 192.0.2.01 198.51.100.7 51234 5432",
            "TCP4 ::1 ::1 51234 5432",
            "TCP6 192.0.2.1 198.51.100.7 51234 5432",
            "TCP4 localhost 198.51.100.7 51234 5432",
            "UDP4 192.0.2.1 198.51.100.7 51234 5432",
            "tcp4 192.0.2.1 198.51.100.7 51234 5432",
            "UNKNOWNS",
        ] {
            assert_eq!(
                parse(format!("PROXY {line}\r\n").as_bytes()),
                Err(ProxyHeaderError::BadLine),
                "{line}"
            );
        }
        assert_eq!(parse(b"PROXY UNKNOWN\n"), Err(ProxyHeaderError::BadLine), "a line ends with CR and LF");
        let endless = [b"PROXY UNKNOWN ".as_slice(), &[b'x'; 93]].concat();
        assert_eq!(parse(&endless), Err(ProxyHeaderError::TooLong));
        assert_eq!(parse(&endless[..106]), Ok(None));
        let late = [&endless, b"\r\n".as_slice()].concat();
        assert_eq!(parse(&late), Err(ProxyHeaderError::TooLong), "the line end must lie within the limit");
    }

    #[test]
    fn headers_of_version_2_are_read() {
        let v6 = [&Ipv6Addr::LOCALHOST.octets()[..], &[9; 16], &443_u16.to_be_bytes(), &[0, 0]].concat();
        let unix = [b'/'; 216];
        let with_tlv = [v4_body([192, 0, 2, 1], 51_234), vec![4, 0, 2, 1, 1]].concat();
        let long = [v4_body([192, 0, 2, 1], 51_234), vec![0; BODY_BYTES_MAX - 12]].concat();
        for (header, origin) in [
            (v2(0x21, 0x11, &v4_body([192, 0, 2, 1], 51_234)), client("192.0.2.1:51234")),
            (v2(0x21, 0x11, &with_tlv), client("192.0.2.1:51234")),
            (v2(0x21, 0x11, &long), client("192.0.2.1:51234")),
            (v2(0x21, 0x21, &v6), client("[::1]:443")),
            (v2(0x21, 0x31, &unix), Origin::Sender),
            (v2(0x21, 0, &[]), Origin::Sender),
            (v2(0x21, 0, b"ignored"), Origin::Sender),
            (v2(0x20, 0, &[]), Origin::Sender),
            (v2(0x20, 0x11, &v4_body([192, 0, 2, 1], 51_234)), Origin::Sender),
            (v2(0x20, 0xff, b"x"), Origin::Sender),
        ] {
            let followed = [&header[..], &header].concat();
            assert_eq!(parse(&followed), Ok(Some((origin, header.len()))), "{}", header.escape_ascii());
        }
    }

    #[test]
    fn other_headers_are_refused_as_early_as_possible() {
        use ProxyHeaderError::{Missing, TooLong, TooShort, UnknownCommand, UnknownFamily};
        let v4 = v4_body([192, 0, 2, 1], 51_234);
        for (header, error) in [
            (v2(0x11, 0x11, &v4)[..13].to_vec(), UnknownCommand(0x11)),
            (v2(0x22, 0x11, &v4)[..13].to_vec(), UnknownCommand(0x22)),
            (v2(0x21, 0x12, &v4)[..14].to_vec(), UnknownFamily(0x12)),
            (v2(0x21, 0x01, &v4)[..14].to_vec(), UnknownFamily(0x01)),
            (v2(0x21, 0x11, &v4[..11])[..16].to_vec(), TooShort),
            (v2(0x21, 0x21, &[0; 35])[..16].to_vec(), TooShort),
            (v2(0x21, 0x31, &[0; 215])[..16].to_vec(), TooShort),
            (v2(0x21, 0, &vec![0; BODY_BYTES_MAX + 1])[..16].to_vec(), TooLong),
            (v2(0x20, 0, &vec![0; usize::from(u16::MAX)])[..16].to_vec(), TooLong),
            (b"\0\0\0\x08".to_vec(), Missing),
            (b"\x16\x03\x01".to_vec(), Missing),
            (b"PROXX".to_vec(), Missing),
            (b"\r\n\r\n\0\r\nQUIX".to_vec(), Missing),
        ] {
            assert_eq!(parse(&header), Err(error), "{}", header.escape_ascii());
        }
        assert_eq!(parse(b""), Ok(None));
    }

    fn header() -> impl Strategy<Value = (Vec<u8>, Origin)> {
        let v1 = (any::<SocketAddr>(), any::<u16>()).prop_map(|(source, port)| {
            let (word, ip) = (if source.is_ipv4() { "TCP4" } else { "TCP6" }, source.ip());
            // The address alone: a scope has no place in a header.
            let origin = Origin::Client(SocketAddr::new(ip, source.port()));
            (format!("PROXY {word} {ip} {ip} {} {port}\r\n", source.port()).into_bytes(), origin)
        });
        let tlvs = prop::collection::vec(any::<u8>(), 0..40);
        let v2 = (any::<SocketAddr>(), tlvs).prop_map(|(source, tlvs)| {
            let port = source.port().to_be_bytes();
            let (family, ip) = match source.ip() {
                IpAddr::V4(ip) => (0x11, ip.octets().to_vec()),
                IpAddr::V6(ip) => (0x21, ip.octets().to_vec()),
            };
            let body = [&ip, &ip, &port[..], &port, &tlvs].concat();
            (v2(0x21, family, &body), Origin::Client(SocketAddr::new(source.ip(), source.port())))
        });
        prop_oneof![v1, v2]
    }

    proptest! {
        #[test]
        fn what_is_built_is_read_back_however_it_is_split(
            (header, origin) in header(), trailing in prop::collection::vec(any::<u8>(), 0..8),
        ) {
            for cut in 0..header.len() {
                prop_assert_eq!(parse(&header[..cut]), Ok(None), "cut at {}", cut);
            }
            let whole = [&header[..], &trailing].concat();
            prop_assert_eq!(parse(&whole), Ok(Some((origin, header.len()))));
        }
    }
}
