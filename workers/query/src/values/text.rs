//! Texts and digits, the two things that most answers are made of, as bytes.

/// A JSON text with its quotes and escapes: those that JSON asks for, and no others.
pub(super) fn json(text: &str, out: &mut Vec<u8>) {
    let mut rest = text.as_bytes();
    out.reserve(rest.len() + 2);
    out.push(b'"');
    loop {
        let plain = rest.len() - after_plain(rest).len();
        let (before, escaped) = rest.split_at(plain);
        out.extend_from_slice(before);
        let [byte, after @ ..] = escaped else { break };
        escape(*byte, out);
        rest = after;
    }
    out.push(b'"');
}

/// What is left from the first byte on that JSON does not take as it is.
fn after_plain(mut bytes: &[u8]) -> &[u8] {
    // The compiler makes one comparison of these for all bytes at once.
    while let Some((block, rest)) = bytes.split_first_chunk::<32>() {
        if block.iter().fold(false, |found, byte| found | is_escaped(*byte)) {
            break;
        }
        bytes = rest;
    }
    while let Some((eight, rest)) = bytes.split_first_chunk() {
        let found = escapes(u64::from_le_bytes(*eight));
        if found != 0 {
            return &bytes[(found.trailing_zeros() / 8) as usize..];
        }
        bytes = rest;
    }
    let plain = bytes.iter().position(|byte| is_escaped(*byte));
    &bytes[plain.unwrap_or(bytes.len())..]
}

fn is_escaped(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

/// The highest bit of the first byte that must be escaped, and perhaps of some after it. Zero when there is none.
///
/// Sean Eron Anderson, "Bit Twiddling Hacks", "Determine if a word has a byte less than n".
fn escapes(eight: u64) -> u64 {
    const ONES: u64 = u64::MAX / 0xff;
    const TOPS: u64 = ONES << 7;
    let below = |bytes: u64, limit: u8| bytes.wrapping_sub(ONES * u64::from(limit)) & !bytes;
    let is = |byte: u8| below(eight ^ (ONES * u64::from(byte)), 1);
    (below(eight, 0x20) | is(b'"') | is(b'\\')) & TOPS
}

fn escape(byte: u8, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let short = match byte {
        b'"' | b'\\' => byte,
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        0x08 => b'b',
        0x0c => b'f',
        _ => {
            out.extend_from_slice(b"\\u00");
            out.extend([byte >> 4, byte & 15].map(|digit| HEX[usize::from(digit)]));
            return;
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}

/// A number's digits.
pub(super) fn digits(number: impl itoa::Integer, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// A number's digits with zeros before them, at least `width` in all.
pub(super) fn padded(number: u128, width: usize, out: &mut Vec<u8>) {
    let mut buffer = itoa::Buffer::new();
    let digits = buffer.format(number).as_bytes();
    out.extend(std::iter::repeat_n(b'0', width.saturating_sub(digits.len())));
    out.extend_from_slice(digits);
}

/// Two digits of a number below 100.
pub(super) fn two(number: i64, out: &mut Vec<u8>) {
    let digit = |number: i64| b'0' + u8::try_from(number % 10).unwrap_or(0);
    out.extend_from_slice(&[digit(number / 10), digit(number)]);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_text_is_what_any_json_writer_makes_of_it(text in "(\\PC|[\u{0}-\u{7f}\u{80}\u{ff}\u{2028}\\\\\"]){0,40}") {
            let mut out = Vec::new();
            json(&text, &mut out);
            prop_assert_eq!(String::from_utf8(out).unwrap(), serde_json::to_string(&text).unwrap());
        }

        #[test]
        fn digits_are_padded_to_their_width(number: u128, width in 0_usize..45) {
            let mut out = Vec::new();
            padded(number, width, &mut out);
            prop_assert_eq!(String::from_utf8(out).unwrap(), format!("{number:0width$}"));
        }
    }

    #[test]
    fn every_byte_is_found_wherever_it_stands() {
        for byte in 0..0x80_u8 {
            for place in 0..50 {
                let mut text = vec![b'x'; 50];
                text[place] = byte;
                let mut out = Vec::new();
                json(std::str::from_utf8(&text).unwrap(), &mut out);
                assert_eq!(out, serde_json::to_vec(std::str::from_utf8(&text).unwrap()).unwrap());
            }
        }
    }
}
