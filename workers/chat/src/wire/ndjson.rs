//! Lines of JSON: bytes in any portions; hands on each line.

use memchr::memchr;

use crate::event::Fault;

/// The longest line, in bytes.
const MAX_LINE: usize = 32 << 20;

/// What is left of the last portion.
#[derive(Debug, Default)]
pub(crate) struct Ndjson {
    /// The beginning of a line whose end has not come.
    line: Vec<u8>,
}

impl Ndjson {
    /// Hands every line that is whole now to `each`; blank ones are left out.
    pub(crate) fn push(
        &mut self,
        mut bytes: &[u8],
        mut each: impl FnMut(&[u8]) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        while let Some(end) = memchr(b'\n', bytes) {
            let (head, rest) = (&bytes[..end], &bytes[end + 1..]);
            bytes = rest;
            if self.line.is_empty() {
                hand_on(head, &mut each)?;
            } else {
                self.keep(head)?;
                hand_on(&self.line, &mut each)?;
                self.line.clear();
                self.line.shrink_to(super::KEPT);
            }
        }
        self.keep(bytes)
    }

    /// The end of the stream: the last line needs no mark after it.
    pub(crate) fn end(&mut self, mut each: impl FnMut(&[u8]) -> Result<(), Fault>) -> Result<(), Fault> {
        hand_on(&std::mem::take(&mut self.line), &mut each)
    }

    fn keep(&mut self, part: &[u8]) -> Result<(), Fault> {
        self.line.extend_from_slice(part);
        if self.line.len() > MAX_LINE {
            return Err(Fault::Malformed(format!("a line has more than {MAX_LINE} bytes")));
        }
        Ok(())
    }
}

fn hand_on(line: &[u8], each: &mut impl FnMut(&[u8]) -> Result<(), Fault>) -> Result<(), Fault> {
    let line = line.trim_ascii();
    if line.is_empty() { Ok(()) } else { each(line) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn blank_lines_and_a_missing_last_mark_do_not_matter() {
        assert_eq!(lines(&[b"{\"a\":1}\r\n\n  \n{\"b\":2}"]), ["{\"a\":1}", "{\"b\":2}"]);
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_lines(
            bytes in prop::collection::vec(prop_oneof![Just(b'\n'), Just(b'\r'), any::<u8>()], 0..200),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
        ) {
            prop_assert_eq!(lines(&super::super::tests::split(&bytes, &cuts)), lines(&[&bytes]));
        }
    }

    fn lines(portions: &[&[u8]]) -> Vec<String> {
        let mut reader = Ndjson::default();
        let mut all = Vec::new();
        let mut take = |line: &[u8]| {
            all.push(String::from_utf8_lossy(line).into_owned());
            Ok(())
        };
        for portion in portions {
            reader.push(portion, &mut take).unwrap();
        }
        reader.end(&mut take).unwrap();
        all
    }
}
