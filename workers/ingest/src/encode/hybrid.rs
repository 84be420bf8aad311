//! Parquet's hybrid of run lengths and bit packing.
//!
//! Source: <https://parquet.apache.org/docs/file-format/data-pages/encodings/#RLE>. A run of at least eight equal numbers is written once with
//! its length; what lies between runs is packed in groups of eight.

/// The bits that numbers up to `highest` need; at least one.
pub(crate) fn width(highest: u32) -> u32 {
    (32 - highest.leading_zeros()).max(1)
}

/// Adds `numbers`, each below `2^width`, to `out`.
pub(crate) fn encode<T: Copy + PartialEq + Into<u32>>(numbers: &[T], width: u32, out: &mut Vec<u8>) {
    let mut packed_from = 0;
    let mut at = 0;
    while at < numbers.len() {
        let first = numbers[at];
        let run = numbers[at..].iter().take_while(|&&number| number == first).count();
        if run >= 8 {
            pack(&numbers[packed_from..at], width, out);
            repeat(first.into(), run, width, out);
            at += run;
            packed_from = at;
        } else {
            // Groups hold eight, so the next run can only start after a whole group.
            at = (at + 8).min(numbers.len());
        }
    }
    pack(&numbers[packed_from..], width, out);
}

/// Adds `count` times `number`.
pub(crate) fn repeat(number: u32, count: usize, width: u32, out: &mut Vec<u8>) {
    varint((count as u64) << 1, out);
    out.extend_from_slice(&number.to_le_bytes()[..width.div_ceil(8) as usize]);
}

fn pack<T: Copy + Into<u32>>(numbers: &[T], width: u32, out: &mut Vec<u8>) {
    if numbers.is_empty() {
        return;
    }
    let groups = numbers.len().div_ceil(8);
    varint((groups as u64) << 1 | 1, out);
    let (mut waiting, mut bits) = (0_u64, 0);
    for &number in numbers {
        waiting |= u64::from(number.into()) << bits;
        bits += width;
        if bits >= 32 {
            let [word @ .., _, _, _, _] = waiting.to_le_bytes();
            out.extend_from_slice(&word);
            waiting >>= 32;
            bits -= 32;
        }
    }
    // The last group is filled up with zeros.
    let padding = u32::try_from(groups * 8 - numbers.len()).unwrap_or(0) * width;
    let bytes = (bits + padding).div_ceil(8) as usize;
    let rest = waiting.to_le_bytes();
    out.extend((0..bytes).map(|i| rest.get(i).copied().unwrap_or(0)));
}

fn varint(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(u8::try_from(number & 0x7f).unwrap_or(0) | 0x80);
        number >>= 7;
    }
    out.push(u8::try_from(number).unwrap_or(0));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_encoded_can_be_read_again(
            runs in proptest::collection::vec((0_u32..1000, 1_usize..40), 0..30), extra in 0_u32..8,
        ) {
            let numbers: Vec<u32> =
                runs.iter().flat_map(|&(number, count)| std::iter::repeat_n(number, count)).collect();
            let width = width(numbers.iter().copied().max().unwrap_or(0)) + extra;
            let mut bytes = Vec::new();
            encode(&numbers, width, &mut bytes);
            prop_assert_eq!(decode(&bytes, width, numbers.len()), numbers);
        }
    }

    #[test]
    fn a_run_is_written_once() {
        let mut bytes = Vec::new();
        encode(&[5_u32; 1000], 3, &mut bytes);
        assert_eq!(bytes, [0xd0, 0x0f, 5]);
    }

    /// A reader that follows the specification word by word.
    fn decode(bytes: &[u8], width: u32, count: usize) -> Vec<u32> {
        let (mut numbers, mut at) = (Vec::new(), 0);
        while numbers.len() < count {
            let (mut header, mut shift) = (0_u64, 0);
            loop {
                header |= u64::from(bytes[at] & 0x7f) << shift;
                shift += 7;
                at += 1;
                if bytes[at - 1] < 0x80 {
                    break;
                }
            }
            let size = usize::try_from(header >> 1).unwrap();
            if header & 1 == 0 {
                let mut word = [0; 4];
                let length = width.div_ceil(8) as usize;
                word[..length].copy_from_slice(&bytes[at..at + length]);
                at += length;
                numbers.extend(std::iter::repeat_n(u32::from_le_bytes(word), size));
            } else {
                for i in 0..size * 8 {
                    let bit = |j: usize| u32::from(bytes[at + j / 8] >> (j % 8) & 1);
                    let first = i * width as usize;
                    numbers.push((0..width as usize).map(|j| bit(first + j) << j).sum());
                }
                at += size * width as usize;
            }
        }
        assert_eq!(at, bytes.len());
        numbers.truncate(count);
        numbers
    }
}
