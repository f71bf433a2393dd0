//! A query of the proxy's own: simple protocol, text in, text out.
//!
//! Owns what `target_session_attrs` and the admin session need, not a client library. Results are small, and limited.

use super::error::LoginFailure;
use super::link::{Link, server_error};

/// Rows of columns; `None` is NULL.
pub(super) type Rows = Vec<Vec<Option<String>>>;

/// Runs one statement and collects its rows. After an error of the server the session can go on; after any other
/// failure it must be closed.
pub(super) async fn run(link: &mut Link, sql: &str) -> Result<Rows, LoginFailure> {
    link.refill();
    link.send(&query_message(sql)).await?;
    let mut rows = Vec::new();
    let mut error = None;
    loop {
        let message = link.next().await?;
        match message.tag {
            b'D' => rows.push(data_row(&message.body).ok_or(LoginFailure::Protocol("malformed row"))?),
            b'E' => error = Some(server_error(&message.body, false)),
            b'Z' if link.is_drained() => return error.map_or(Ok(rows), Err),
            b'T' | b'C' | b'I' | b'N' | b'S' | b'A' | b'Z' => {}
            _ => return Err(LoginFailure::Protocol("unexpected message in answer to a query")),
        }
    }
}

fn query_message(sql: &str) -> Vec<u8> {
    let length = u32::try_from(sql.len().saturating_add(5)).unwrap_or(u32::MAX);
    let mut out = vec![b'Q'];
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(sql.as_bytes());
    out.push(0);
    out
}

fn data_row(body: &[u8]) -> Option<Vec<Option<String>>> {
    let (count, mut rest) = body.split_first_chunk::<2>()?;
    let mut columns = Vec::new();
    for _ in 0..u16::from_be_bytes(*count) {
        let (length, tail) = rest.split_first_chunk::<4>()?;
        let length = i32::from_be_bytes(*length);
        if length == -1 {
            columns.push(None);
            rest = tail;
            continue;
        }
        let (value, tail) = tail.split_at_checked(usize::try_from(length).ok()?)?;
        columns.push(Some(String::from_utf8_lossy(value).into_owned()));
        rest = tail;
    }
    rest.is_empty().then_some(columns)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_row_is_read_column_by_column() {
        let body = b"\0\x03\0\0\0\x02on\xff\xff\xff\xff\0\0\0\0";
        assert_eq!(data_row(body), Some(vec![Some("on".to_owned()), None, Some(String::new())]));
        assert_eq!(data_row(b"\0\x01\0\0\0\x05on"), None, "shorter than it says");
        assert_eq!(data_row(b"\0\0x"), None, "longer than it says");
        assert_eq!(data_row(b"\0\x01\xff\xff\xff\xfe"), None, "a negative length");
    }

    proptest! {
        #[test]
        fn arbitrary_rows_never_panic(body in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = data_row(&body);
        }
    }
}
