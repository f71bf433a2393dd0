//! The rows that answer the proxy's own questions, and the values in them.
//!
//! Owns DataRow and Bind as far as texts go (PostgreSQL manual, "Message Formats"), and the notation that values come in:
//! hexadecimal digits of the database's own bytes, whatever the client encoding is.

/// A row of an answer: texts, or NULL.
pub(super) type Row = Vec<Option<Box<[u8]>>>;

/// A text's bytes in the encoding of the database, whatever the client encoding is; one longer than `max` is cut.
pub(super) fn hex_of(expression: &str, max: usize) -> String {
    format!(
        "pg_catalog.encode(pg_catalog.substr(pg_catalog.convert_to({expression},\
         pg_catalog.getdatabaseencoding()),1,{}),'hex')",
        max.saturating_add(1)
    )
}

/// A text from its hexadecimal digits; `None` if it is longer than `max`, or not UTF-8.
pub(super) fn text_of(hex: &[u8], max: usize) -> Option<Box<str>> {
    let bytes = bytes(hex).filter(|bytes| bytes.len() <= max)?;
    String::from_utf8(bytes).ok().map(String::into_boxed_str)
}

/// Bytes from their hexadecimal digits.
pub(super) fn bytes(hex: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    hex.chunks_exact(2)
        .map(|pair| match pair {
            [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
            _ => None,
        })
        .collect()
}

/// The columns of a DataRow (PostgreSQL manual, "Message Formats").
pub(super) fn row(body: &[u8]) -> Option<Row> {
    let (count, mut rest) = body.split_first_chunk::<2>()?;
    let mut row = Row::with_capacity(usize::from(u16::from_be_bytes(*count)));
    for _ in 0..u16::from_be_bytes(*count) {
        let (len, tail) = rest.split_first_chunk::<4>()?;
        rest = tail;
        row.push(match usize::try_from(i32::from_be_bytes(*len)) {
            Ok(len) => {
                let (text, tail) = rest.split_at_checked(len)?;
                rest = tail;
                Some(text.into())
            }
            Err(_) => None,
        });
    }
    Some(row)
}

/// The parameters of a Bind that are texts.
pub(super) fn bound_texts(body: &[u8]) -> Option<Vec<&str>> {
    let (formats, rest) = body.split_first_chunk::<2>()?;
    let rest = rest.get(usize::from(u16::from_be_bytes(*formats)).checked_mul(2)?..)?;
    let (count, mut rest) = rest.split_first_chunk::<2>()?;
    let mut texts = Vec::new();
    for _ in 0..u16::from_be_bytes(*count) {
        let (len, tail) = rest.split_first_chunk::<4>()?;
        let len = usize::try_from(i32::from_be_bytes(*len)).unwrap_or_default();
        let (value, tail) = tail.split_at_checked(len)?;
        texts.extend(std::str::from_utf8(value));
        rest = tail;
    }
    Some(texts)
}

#[cfg(test)]
pub(super) fn data_row(columns: &[Option<&str>]) -> Vec<u8> {
    let mut body = u16::try_from(columns.len()).unwrap().to_be_bytes().to_vec();
    for column in columns {
        let len = column.map_or(-1, |text| i32::try_from(text.len()).unwrap());
        body.extend_from_slice(&len.to_be_bytes());
        body.extend_from_slice(column.unwrap_or_default().as_bytes());
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_read_whole_or_not_at_all() {
        let body = data_row(&[Some("ab"), None, Some("")]);
        assert_eq!(row(&body), Some(vec![Some(b"ab".as_slice().into()), None, Some(b"".as_slice().into())]));
        for len in 0..body.len() {
            assert_eq!(row(&body[..len]), None, "{len}");
        }
    }
}
