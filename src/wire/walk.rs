//! A walk along the messages of one direction: where they begin and end, whatever pieces they come in.
//!
//! Owns the place between two pieces. Keeps no byte of a body. Must not know what a message means.

use super::frame::{BadLength, HEADER_BYTES, peek};

/// What a walk comes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The message type.
    pub tag: u8,
    /// The first byte of its body, unless that is empty.
    pub first: Option<u8>,
}

/// A place in a stream of messages.
#[derive(Clone, Copy, Debug, Default)]
pub struct Walk {
    header: [u8; HEADER_BYTES],
    /// Bytes of the header that have come.
    known: usize,
    /// Bytes of the body still to come.
    rest: usize,
    /// The first byte of the body is still to come.
    fresh: bool,
}

impl Walk {
    /// Whether the next byte begins a message.
    #[must_use]
    pub const fn is_between(&self) -> bool {
        self.known == 0 && self.rest == 0
    }

    /// Goes along `bytes`, or, if `first_only`, no further than to the first place between two messages. Returns how far
    /// it has come.
    ///
    /// # Errors
    /// If a message claims an impossible length.
    pub fn along(
        &mut self,
        bytes: &[u8],
        first_only: bool,
        mut seen: impl FnMut(Seen),
    ) -> Result<usize, BadLength> {
        let mut at = 0;
        while let Some((&byte, after)) = bytes.get(at..).and_then(<[u8]>::split_first) {
            if first_only && self.is_between() {
                break;
            }
            if self.rest > 0 {
                if std::mem::take(&mut self.fresh) {
                    let [tag, ..] = self.header;
                    seen(Seen { tag, first: Some(byte) });
                }
                let here = self.rest.min(after.len().saturating_add(1));
                self.rest = self.rest.saturating_sub(here);
                at = at.saturating_add(here);
                continue;
            }
            if let Some(place) = self.header.get_mut(self.known) {
                *place = byte;
            }
            self.known = self.known.saturating_add(1);
            at = at.saturating_add(1);
            if let Some(header) = peek(self.header.get(..self.known).unwrap_or_default())? {
                (self.known, self.rest, self.fresh) = (0, header.body_len, true);
                if header.body_len == 0 {
                    seen(Seen { tag: header.tag, first: None });
                }
            }
        }
        Ok(at)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::frame::put;

    fn stream(bodies: &[(u8, Vec<u8>)]) -> Vec<u8> {
        let mut out = Vec::new();
        for (tag, body) in bodies {
            put(&mut out, *tag, |into| into.extend_from_slice(body));
        }
        out
    }

    proptest! {
        #[test]
        fn any_pieces_of_a_stream_show_the_same_messages(
            bodies in prop::collection::vec((b'A'..=b'Z', prop::collection::vec(any::<u8>(), 0..20)), 0..10),
            cuts in prop::collection::vec(1_usize..9, 0..100),
        ) {
            let bytes = stream(&bodies);
            let (mut walk, mut found, mut at) = (Walk::default(), Vec::new(), 0);
            for cut in cuts.into_iter().chain([bytes.len()]) {
                let end = bytes.len().min(at + cut);
                prop_assert_eq!(walk.along(&bytes[at..end], false, |seen| found.push(seen)), Ok(end - at));
                at = end;
            }
            prop_assert!(walk.is_between());
            let wanted: Vec<_> =
                bodies.iter().map(|(tag, body)| Seen { tag: *tag, first: body.first().copied() }).collect();
            prop_assert_eq!(found, wanted);
        }

        #[test]
        fn the_first_place_between_two_messages_is_found(
            bodies in prop::collection::vec((b'A'..=b'Z', prop::collection::vec(any::<u8>(), 0..20)), 1..10),
            part in 0_usize..25,
        ) {
            let bytes = stream(&bodies);
            let first = 5 + bodies[0].1.len();
            let part = part.min(first);
            let mut walk = Walk::default();
            walk.along(&bytes[..part], false, |_| ()).unwrap();
            let wanted = if part == 0 || part == first { 0 } else { first - part };
            prop_assert_eq!(walk.along(&bytes[part..], true, |_| ()), Ok(wanted));
            prop_assert!(walk.is_between());
        }
    }

    #[test]
    fn an_impossible_length_is_an_error() {
        let mut walk = Walk::default();
        assert_eq!(walk.along(b"d\0\0", false, |_| ()), Ok(3));
        assert!(walk.along(b"\0\x03", false, |_| ()).is_err());
    }
}
