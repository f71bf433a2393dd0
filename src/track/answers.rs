//! The rows that answer the proxy's own questions, and the values in them.
//!
//! Owns DataRow and Bind as far as texts go (PostgreSQL manual, "Message Formats"), and the notation that values come in:
//! hexadecimal digits of the database's own bytes, whatever the client encoding is.

use std::collections::BTreeSet;

use crate::wire::frame;

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

/// The first column of the first row in an answer.
#[must_use]
pub fn first_value(answer: &[u8]) -> Option<Box<str>> {
    let mut rest = answer;
    while let Ok(Some(header)) = frame::peek(rest) {
        let (message, behind) = rest.split_at_checked(header.total_len())?;
        if header.tag == b'D' {
            let value = row(message.get(frame::HEADER_BYTES..)?)?.into_iter().next()??;
            return String::from_utf8(value.into()).ok().map(String::into_boxed_str);
        }
        rest = behind;
    }
    None
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

/// The parameters of a Bind, from the formats on, in pieces: those that look like the name of a custom setting.
#[derive(Debug, Default)]
pub(super) struct Texts {
    at: At,
    /// Bytes to pass over first.
    skip: usize,
    /// What has come of the number or value that is read.
    kept: Vec<u8>,
    /// Parameters still to come.
    left: u16,
    names: BTreeSet<Box<str>>,
}

/// What is read next.
#[derive(Clone, Copy, Debug, Default)]
enum At {
    /// How many formats there are.
    #[default]
    Formats,
    /// How many parameters.
    Count,
    /// The length of one.
    Length,
    /// One of that many bytes.
    Value(usize),
    /// Nothing any more.
    End,
}

impl Texts {
    /// They go on with this piece.
    pub(super) fn feed(&mut self, mut piece: &[u8]) {
        loop {
            let skipped = self.skip.min(piece.len());
            self.skip = self.skip.saturating_sub(skipped);
            let wanted = match self.at {
                At::Formats | At::Count => 2,
                At::Length => 4,
                At::Value(len) => len,
                At::End => return,
            };
            let rest = piece.get(skipped..).unwrap_or_default();
            let missing = wanted.saturating_sub(self.kept.len());
            let (head, tail) = rest.split_at_checked(missing).unwrap_or((rest, &[]));
            self.kept.extend_from_slice(head);
            if self.skip > 0 || self.kept.len() < wanted {
                return;
            }
            piece = tail;
            self.step();
        }
    }

    /// The names that have been found, in small letters.
    pub(super) fn into_names(self) -> BTreeSet<Box<str>> {
        self.names
    }

    /// What was read is whole.
    fn step(&mut self) {
        let kept = std::mem::take(&mut self.kept);
        let short = || kept.first_chunk().map_or(0, |bytes| u16::from_be_bytes(*bytes));
        match self.at {
            At::Formats => {
                self.skip = usize::from(short()).saturating_mul(2);
                self.at = At::Count;
                return;
            }
            At::Count => self.left = short(),
            At::Length => {
                let len = kept.first_chunk().map_or(0, |bytes| i32::from_be_bytes(*bytes));
                // NULL has a length of -1.
                let len = usize::try_from(len).unwrap_or_default();
                if len <= MAX_NAME_BYTES {
                    self.at = At::Value(len);
                    return;
                }
                self.skip = len;
            }
            At::Value(_) => {
                let name = std::str::from_utf8(&kept).ok().filter(|name| is_class_and_name(name));
                self.names.extend(name.map(|name| name.to_ascii_lowercase().into()));
            }
            At::End => {}
        }
        self.at = if self.left > 0 { At::Length } else { At::End };
        self.left = self.left.saturating_sub(1);
    }
}

fn is_class_and_name(text: &str) -> bool {
    let is_part = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$'))
    };
    text.contains('.') && text.split('.').all(is_part)
}

/// A longer value is not looked at: two identifiers and the dot.
const MAX_NAME_BYTES: usize = 127;

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

    #[test]
    fn parameters_are_read_however_they_are_cut() {
        let mut body = b"\0\x02\0\0\0\x01\0\x05\0\0\x03\x20".to_vec();
        body.extend_from_slice(&[b'a'; 800]);
        body.extend_from_slice(b"\xff\xff\xff\xff\0\0\0\x04My.E\0\0\0\x03a b\0\0\0\0\0\x01\0\x01");
        for cut in 0..body.len() {
            let mut texts = Texts::default();
            texts.feed(&body[..cut]);
            texts.feed(&body[cut..]);
            assert_eq!(texts.into_names().into_iter().collect::<Vec<_>>(), ["my.e".into()], "{cut}");
        }
        let mut hostile = Texts::default();
        hostile.feed(&[0xff; 4000]);
        assert!(hostile.into_names().is_empty());
    }
}
