//! The frame around each part of a trace: length and checksum, so that what is cut off or damaged is seen.
//!
//! Owns the frame and the numbers in it. Must not know what a block says.

/// Appends a block.
pub(super) fn put(out: &mut Vec<u8>, tag: u8, payload: &[u8]) {
    // Whoever makes a payload keeps it far below that.
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    out.push(tag);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&check(tag, length, payload).to_le_bytes());
    out.extend_from_slice(payload);
}

/// Why there is no further block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// The bytes end in the middle of it, or before it.
    Short,
    /// It is not what was written.
    Garbled,
}

/// Takes the next block: its tag and payload.
pub(super) fn take<'t>(bytes: &mut &'t [u8]) -> Result<(u8, &'t [u8]), Stop> {
    let (tag, rest) = bytes.split_first().ok_or(Stop::Short)?;
    let (length, rest) = rest.split_first_chunk().ok_or(Stop::Short)?;
    let (sum, rest) = rest.split_first_chunk().ok_or(Stop::Short)?;
    let length = u32::from_le_bytes(*length);
    let size = usize::try_from(length).map_err(|_| Stop::Short)?;
    let (payload, rest) = rest.split_at_checked(size).ok_or(Stop::Short)?;
    if u32::from_le_bytes(*sum) != check(*tag, length, payload) {
        return Err(Stop::Garbled);
    }
    *bytes = rest;
    Ok((*tag, payload))
}

/// Appends a number, seven bits a byte, the lowest first.
pub(super) fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number > 0x7f {
        out.push(0x80 | low_bits(number));
        number >>= 7;
    }
    out.push(low_bits(number));
}

/// Takes a number.
pub(super) fn take_number(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let bits = u64::from(byte & 0x7f);
        // The tenth byte has room for one bit.
        if shift == 63 && bits > 1 {
            return None;
        }
        number |= bits << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

fn low_bits(number: u64) -> u8 {
    let [low, ..] = number.to_le_bytes();
    low & 0x7f
}

/// CRC-32 (IEEE 802.3) of a block.
fn check(tag: u8, length: u32, payload: &[u8]) -> u32 {
    let all = std::iter::once(tag).chain(length.to_le_bytes()).chain(payload.iter().copied());
    !all.fold(u32::MAX, |sum, byte| {
        let [low, ..] = sum.to_le_bytes();
        (sum >> 8) ^ TABLE.get(usize::from(low ^ byte)).copied().unwrap_or_default()
    })
}

const TABLE: [u32; 256] = table();

const fn table() -> [u32; 256] {
    let mut table = [0_u32; 256];
    let mut byte = 0_u32;
    while byte < 256 {
        let (mut sum, mut bit) = (byte, 0);
        while bit < 8 {
            sum = if sum & 1 == 1 { sum >> 1 ^ 0xedb8_8320 } else { sum >> 1 };
            bit += 1;
        }
        table[byte as usize] = sum;
        byte += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The check value of the standard is that of the nine digits.
    #[test]
    fn the_checksum_is_the_usual_one() {
        let digits = b"123456789";
        let length = u32::from_le_bytes(*b"2345");
        assert_eq!(check(b'1', length, &digits[5..]), 0xcbf4_3926);
    }

    #[test]
    fn numbers_come_back_and_longer_ones_are_refused() {
        for number in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX - 1, u64::MAX] {
            let mut bytes = Vec::new();
            put_number(&mut bytes, number);
            let mut rest = &bytes[..];
            assert_eq!((take_number(&mut rest), rest.len()), (Some(number), 0));
            assert_eq!(take_number(&mut &bytes[..bytes.len() - 1]), None);
        }
        assert_eq!(take_number(&mut &[0xff; 9][..]), None);
        assert_eq!(take_number(&mut &[&[0xff; 9][..], &[2]].concat()[..]), None);
        assert_eq!(take_number(&mut &[0x80; 20][..]), None);
    }
}
