//! The bytes that give CSV its structure, found 64 bytes at a time.

/// Walks over the delimiters, quotes and line ends of a text.
pub(crate) struct Marks<'a> {
    text: &'a [u8],
    delimiter: u8,
    /// Where the window of 64 bytes starts.
    window: usize,
    /// The marks in the window that are still ahead, a bit for each byte.
    ahead: u64,
    /// Those of the window's marks that are quotes.
    quotes: u64,
}

impl<'a> Marks<'a> {
    /// The marks of `text` from the byte `from` on.
    pub(crate) fn new(text: &'a [u8], delimiter: u8, from: usize) -> Self {
        let mut marks = Self { text, delimiter, window: from & !63, ahead: 0, quotes: 0 };
        marks.load();
        marks.ahead &= u64::MAX << (from & 63);
        marks
    }

    /// The place of the next mark; the text's length when there is none.
    #[inline]
    pub(crate) fn next(&mut self) -> usize {
        while self.ahead == 0 {
            if !self.slide() {
                return self.text.len();
            }
        }
        let place = self.window + self.ahead.trailing_zeros() as usize;
        self.ahead &= self.ahead - 1;
        place
    }

    /// The place of the next quote; the text's length when there is none. Marks before it are left behind.
    #[inline]
    pub(crate) fn next_quote(&mut self) -> usize {
        loop {
            let quotes = self.ahead & self.quotes;
            if quotes != 0 {
                let bit = quotes.trailing_zeros();
                self.ahead &= (u64::MAX - 1) << bit;
                return self.window + bit as usize;
            }
            if !self.slide() {
                return self.text.len();
            }
        }
    }

    fn slide(&mut self) -> bool {
        if self.window + 64 >= self.text.len() {
            self.ahead = 0;
            return false;
        }
        self.window += 64;
        self.load();
        true
    }

    #[inline]
    fn load(&mut self) {
        let rest = &self.text[self.window.min(self.text.len())..];
        if let Some(window) = rest.first_chunk() {
            (self.ahead, self.quotes) = find(window, self.delimiter);
        } else {
            let mut window = [0; 64];
            window[..rest.len()].copy_from_slice(rest);
            (self.ahead, self.quotes) = find(&window, self.delimiter);
        }
    }
}

/// The marks and the quotes among 64 bytes.
#[inline]
fn find(window: &[u8; 64], delimiter: u8) -> (u64, u64) {
    let (mut marks, mut quotes) = (0, 0);
    for (i, bytes) in window.as_chunks::<16>().0.iter().enumerate() {
        let (more_marks, more_quotes) = find_16(bytes, delimiter);
        marks |= u64::from(more_marks) << (16 * i);
        quotes |= u64::from(more_quotes) << (16 * i);
    }
    (marks, quotes)
}

#[cfg(target_arch = "x86_64")]
#[inline]
fn find_16(bytes: &[u8; 16], delimiter: u8) -> (u16, u16) {
    #[allow(unsafe_code, reason = "vector instructions ask for a caller that knows the machine has them")]
    // SAFETY: SSE2 is part of every x86-64, and the function has no other condition.
    unsafe {
        find_with_sse2(bytes, delimiter)
    }
}

#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "sse2")]
fn find_with_sse2(bytes: &[u8; 16], delimiter: u8) -> (u16, u16) {
    use std::arch::x86_64::{_mm_cmpeq_epi8, _mm_movemask_epi8, _mm_or_si128, _mm_set_epi64x, _mm_set1_epi8};
    let half = |at: usize| i64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
    let bytes = _mm_set_epi64x(half(8), half(0));
    let quotes = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(b'"'.cast_signed()));
    let delimiters = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(delimiter.cast_signed()));
    let feeds = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(b'\n'.cast_signed()));
    let returns = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(b'\r'.cast_signed()));
    let marks = _mm_or_si128(_mm_or_si128(quotes, delimiters), _mm_or_si128(feeds, returns));
    let [low, high, ..] = _mm_movemask_epi8(marks).to_le_bytes();
    let [quotes_low, quotes_high, ..] = _mm_movemask_epi8(quotes).to_le_bytes();
    (u16::from_le_bytes([low, high]), u16::from_le_bytes([quotes_low, quotes_high]))
}

/// For other machines; compilers find their own vectors in it.
#[cfg(not(target_arch = "x86_64"))]
#[inline]
fn find_16(bytes: &[u8; 16], delimiter: u8) -> (u16, u16) {
    let bits = |found: &dyn Fn(u8) -> bool| {
        bytes.iter().enumerate().fold(0, |bits, (i, &byte)| bits | u16::from(found(byte)) << i)
    };
    let mark = |byte| byte == delimiter || matches!(byte, b'"' | b'\n' | b'\r');
    (bits(&mark), bits(&|byte| byte == b'"'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_mark_is_found_once(text in "[a,\"\n\r;é]{0,300}", from in 0_usize..300) {
            let text = text.as_bytes();
            let from = from.min(text.len());
            let expected: Vec<usize> =
                (from..text.len()).filter(|&i| matches!(text[i], b',' | b'"' | b'\n' | b'\r')).collect();
            let mut marks = Marks::new(text, b',', from);
            let found: Vec<usize> =
                std::iter::from_fn(|| Some(marks.next()).filter(|&place| place < text.len())).collect();
            prop_assert_eq!(found, expected);
        }

        #[test]
        fn quotes_are_found_past_other_marks(text in "[a,\"\n]{0,300}") {
            let text = text.as_bytes();
            let mut marks = Marks::new(text, b',', 0);
            let found: Vec<usize> =
                std::iter::from_fn(|| Some(marks.next_quote()).filter(|&place| place < text.len())).collect();
            prop_assert_eq!(found, memchr::memchr_iter(b'"', text).collect::<Vec<_>>());
        }
    }
}
