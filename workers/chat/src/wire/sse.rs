//! Server-sent events (WHATWG HTML, section 9.2.6): bytes in any portions; hands on the data of each event.
//!
//! Names and ids of events are left out: no provider says anything with them that its data does not say too.

use memchr::memchr2;

use crate::event::Fault;

/// The longest event, in bytes. An image that a model drew fits.
const MAX_EVENT: usize = 32 << 20;

/// What is left of the last portion.
#[derive(Debug, Default)]
pub(crate) struct Sse {
    /// The beginning of a line whose end has not come.
    line: Vec<u8>,
    /// The data of the event so far.
    data: Vec<u8>,
    has_data: bool,
    /// The last byte was CR: an LF that follows belongs to it.
    after_cr: bool,
    /// The first line is over, so a byte order mark would be content.
    begun: bool,
}

impl Sse {
    /// Hands the data of every event that is whole now to `each`.
    pub(crate) fn push(
        &mut self,
        mut bytes: &[u8],
        mut each: impl FnMut(&[u8]) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        if self.after_cr && !bytes.is_empty() {
            self.after_cr = false;
            bytes = bytes.strip_prefix(b"\n").unwrap_or(bytes);
        }
        while let Some(end) = memchr2(b'\n', b'\r', bytes) {
            if self.line.is_empty() {
                self.line(&bytes[..end], &mut each)?;
            } else {
                self.keep(&bytes[..end])?;
                let line = std::mem::take(&mut self.line);
                self.line(&line, &mut each)?;
            }
            let ended_by = bytes[end];
            bytes = &bytes[end + 1..];
            if ended_by == b'\r' {
                match bytes.first() {
                    Some(b'\n') => bytes = &bytes[1..],
                    Some(_) => {}
                    None => self.after_cr = true,
                }
            }
        }
        self.keep(bytes)
    }

    /// The end of the stream. An event without the empty line after it counts: some servers leave that out.
    pub(crate) fn end(&mut self, mut each: impl FnMut(&[u8]) -> Result<(), Fault>) -> Result<(), Fault> {
        let line = std::mem::take(&mut self.line);
        self.line(&line, &mut each)?;
        self.line(b"", &mut each)
    }

    fn keep(&mut self, part: &[u8]) -> Result<(), Fault> {
        self.line.extend_from_slice(part);
        fits(self.line.len() + self.data.len())
    }

    fn line(
        &mut self,
        mut line: &[u8],
        each: &mut impl FnMut(&[u8]) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        if !self.begun {
            self.begun = true;
            line = line.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(line);
        }
        if line.is_empty() {
            return self.dispatch(each);
        }
        // A comment begins with a colon, so it has no name and is left out like the other fields.
        let Some(value) = line.strip_prefix(b"data") else { return Ok(()) };
        let value = match value.first() {
            None => value,
            Some(b':') => value[1..].strip_prefix(b" ").unwrap_or(&value[1..]),
            Some(_) => return Ok(()),
        };
        if self.has_data {
            self.data.push(b'\n');
        }
        self.has_data = true;
        self.data.extend_from_slice(value);
        fits(self.data.len())
    }

    fn dispatch(&mut self, each: &mut impl FnMut(&[u8]) -> Result<(), Fault>) -> Result<(), Fault> {
        if !std::mem::take(&mut self.has_data) {
            return Ok(());
        }
        let outcome = if self.data.is_empty() { Ok(()) } else { each(&self.data) };
        self.data.clear();
        self.data.shrink_to(super::KEPT);
        outcome
    }
}

fn fits(length: usize) -> Result<(), Fault> {
    if length > MAX_EVENT {
        return Err(Fault::Malformed(format!("an event has more than {MAX_EVENT} bytes")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lines_end_in_three_ways_and_fields_in_two() {
        for text in [
            "data: a\ndata:b\n\ndata: c\n\n",
            "data: a\r\ndata:b\r\n\r\ndata: c\r\n\r\n",
            "data: a\rdata:b\r\rdata: c\r\r",
            "\u{feff}: hello\nevent: x\nid: 1\ndata: a\ndata:b\n\n\n\n:\n\nretry: 5\ndata: c\n\n",
        ] {
            assert_eq!(events(&[text.as_bytes()]), ["a\nb", "c"], "{text:?}");
        }
    }

    #[test]
    fn only_one_blank_is_taken_off_and_empty_data_is_no_event() {
        assert_eq!(events(&[b"data:  a\n\ndata\n\ndata:\n\ndatax: b\n\n"]), [" a"]);
    }

    #[test]
    fn an_event_at_the_very_end_needs_no_empty_line() {
        assert_eq!(events(&[b"data: a\n\ndata: [DONE]"]), ["a", "[DONE]"]);
    }

    #[test]
    fn an_endless_line_is_refused() {
        let mut sse = Sse::default();
        let portion = vec![b'x'; 1 << 20];
        let refused = (0..40).any(|_| sse.push(&portion, |_| Ok(())).is_err());
        assert!(refused);
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_events(
            text in "((data: ?|: |event: |x)?[a-c \u{e9}]{0,4}(\n|\r\n|\r)){0,12}(data: [a-c]{0,3})?",
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
        ) {
            let bytes = text.as_bytes();
            prop_assert_eq!(events(&split(bytes, &cuts)), events(&[bytes]));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            events(&[&bytes]);
        }
    }

    fn events(portions: &[&[u8]]) -> Vec<String> {
        let mut sse = Sse::default();
        let mut all = Vec::new();
        let mut take = |data: &[u8]| {
            all.push(String::from_utf8_lossy(data).into_owned());
            Ok(())
        };
        for portion in portions {
            sse.push(portion, &mut take).unwrap();
        }
        sse.end(&mut take).unwrap();
        all
    }

    fn split<'a>(bytes: &'a [u8], cuts: &[prop::sample::Index]) -> Vec<&'a [u8]> {
        super::super::tests::split(bytes, cuts)
    }
}
