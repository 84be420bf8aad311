//! Cuts a file into blocks of whole records.
//!
//! A block ends at the first end of a record at or after its nominal size. The rule looks at nothing but the content, so
//! the cuts, and with them every byte of the output, are the same however the file is read.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use super::MAX_RECORD_BYTES;
use crate::Error;

/// How much more is read at once to find the end of a block's last record.
const MORE: usize = 64 << 10;

const BOM: &[u8] = b"\xef\xbb\xbf";

/// Some whole records.
#[derive(Debug)]
pub(crate) struct Block {
    /// Their bytes.
    pub(crate) bytes: Vec<u8>,
    /// Where they start in the file.
    pub(crate) offset: u64,
    /// Whether the last record is cut off because it is longer than is allowed.
    pub(crate) cut: bool,
}

/// The blocks of a file, in order.
pub(crate) struct Blocks {
    path: PathBuf,
    file: File,
    /// What the open file measures.
    size: u64,
    delimiter: u8,
    nominal: usize,
    /// Bytes that were read and belong to the next block.
    carried: Vec<u8>,
    offset: u64,
    ended: bool,
}

impl Blocks {
    /// Opens the file. `nominal` is the size at which a block ends with its next record.
    pub(crate) fn open(path: &Path, delimiter: u8, nominal: usize) -> Result<Self, Error> {
        let open = || {
            let file = File::open(path)?;
            let size = file.metadata()?.len();
            Ok((file, size))
        };
        let (file, size) = open().map_err(|error| Error::read(path, error))?;
        let path = path.to_owned();
        let mut blocks =
            Self { path, file, size, delimiter, nominal, carried: Vec::new(), offset: 0, ended: false };
        let mut head = Vec::new();
        blocks.read(&mut head, BOM.len())?;
        if head == BOM {
            blocks.offset = BOM.len() as u64;
        } else {
            blocks.carried = head;
        }
        Ok(blocks)
    }

    /// Bytes of the whole file.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Where the next block starts in the file.
    pub(crate) fn position(&self) -> u64 {
        self.offset
    }

    /// The next block, in the memory of `bytes`.
    pub(crate) fn next(&mut self, mut bytes: Vec<u8>) -> Result<Option<Block>, Error> {
        bytes.clear();
        // So that the buffer need not grow and move for the end of its last record.
        bytes.reserve(self.nominal.min(usize::try_from(self.size).unwrap_or(usize::MAX)) + MORE);
        bytes.append(&mut self.carried);
        let missing = self.nominal.saturating_sub(bytes.len());
        self.read(&mut bytes, missing)?;
        if bytes.is_empty() {
            return Ok(None);
        }
        let mut cutter = Cutter { delimiter: self.delimiter, nominal: self.nominal, at: 0, quoted: false };
        let (end, cut) = loop {
            if let Some(end) = cutter.end(&bytes, self.ended) {
                break (end, false);
            }
            if self.ended {
                break (bytes.len(), false);
            }
            if bytes.len() > self.nominal + MAX_RECORD_BYTES {
                break (bytes.len(), true);
            }
            self.read(&mut bytes, MORE)?;
        };
        self.carried.extend_from_slice(&bytes[end..]);
        bytes.truncate(end);
        let offset = self.offset;
        self.offset += bytes.len() as u64;
        Ok(Some(Block { bytes, offset, cut }))
    }

    /// Adds up to `count` bytes, fewer only at the file's end.
    fn read(&mut self, bytes: &mut Vec<u8>, count: usize) -> Result<(), Error> {
        let read = (&self.file).take(count as u64).read_to_end(bytes);
        let read: io::Result<usize> = read;
        self.ended |= read.map_err(|error| Error::read(&self.path, error))? < count;
        Ok(())
    }
}

/// Finds the end of a block, in bytes that grow.
struct Cutter {
    delimiter: u8,
    nominal: usize,
    /// Everything before is read.
    at: usize,
    /// Whether `at` stands inside quotes.
    quoted: bool,
}

impl Cutter {
    /// The first end of a record at or after the nominal size; `None` when more bytes are needed.
    fn end(&mut self, bytes: &[u8], all: bool) -> Option<usize> {
        // The last byte of a line end that ends the block is at this place or after it.
        let last = self.nominal.saturating_sub(1);
        loop {
            if self.quoted {
                let Some(close) = memchr::memchr(b'"', &bytes[self.at..]) else {
                    self.at = bytes.len();
                    return None;
                };
                let close = self.at + close;
                match bytes.get(close + 1) {
                    Some(b'"') => self.at = close + 2,
                    None if !all => {
                        self.at = close;
                        return None;
                    }
                    _ => {
                        self.quoted = false;
                        self.at = close + 1;
                    }
                }
            } else if self.at < last {
                let before = &bytes[self.at..last.min(bytes.len())];
                match memchr::memchr(b'"', before) {
                    Some(quote) => self.quote(bytes, self.at + quote),
                    None => self.at += before.len(),
                }
                if self.at == bytes.len() {
                    return None;
                }
            } else {
                let Some(place) = memchr::memchr3(b'"', b'\n', b'\r', &bytes[self.at..]) else {
                    self.at = bytes.len();
                    return None;
                };
                let place = self.at + place;
                match (bytes[place], bytes.get(place + 1)) {
                    (b'"', _) => self.quote(bytes, place),
                    (b'\r', Some(b'\n')) => return Some(place + 2),
                    (b'\r', None) if !all => {
                        self.at = place;
                        return None;
                    }
                    _ => return Some(place + 1),
                }
            }
        }
    }

    /// Steps over a quote that stands outside quotes: at the start of a field it opens one, elsewhere it is a character.
    fn quote(&mut self, bytes: &[u8], place: usize) {
        let before = place.checked_sub(1).map(|before| bytes[before]);
        self.quoted = before.is_none_or(|byte| byte == self.delimiter || matches!(byte, b'\n' | b'\r'));
        self.at = place + 1;
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn blocks_end_where_records_end(text in "[a,\"\n\r]{0,200}", nominal in 1_usize..40) {
            let mut file = tempfile::NamedTempFile::new().unwrap();
            file.write_all(text.as_bytes()).unwrap();
            let mut blocks = Blocks::open(file.path(), b',', nominal).unwrap();
            let ends = record_ends(text.as_bytes());
            let mut at = 0;
            while let Some(block) = blocks.next(Vec::new()).unwrap() {
                prop_assert_eq!(block.offset, at as u64);
                let expected = ends.iter().copied().find(|&end| end >= at + nominal).unwrap_or(text.len());
                at += block.bytes.len();
                prop_assert_eq!(at, expected);
            }
            prop_assert_eq!(at, text.len());
        }
    }

    /// The slow and plain way: byte by byte, with the field's state.
    fn record_ends(text: &[u8]) -> Vec<usize> {
        let (mut quoted, mut start_of_field, mut ends, mut i) = (false, true, Vec::new(), 0);
        while i < text.len() {
            let byte = text[i];
            if quoted {
                if byte == b'"' && text.get(i + 1) == Some(&b'"') {
                    i += 1;
                } else if byte == b'"' {
                    quoted = false;
                }
            } else if byte == b'"' && start_of_field {
                quoted = true;
            } else if byte == b'\n' || byte == b'\r' {
                if byte == b'\r' && text.get(i + 1) == Some(&b'\n') {
                    i += 1;
                }
                ends.push(i + 1);
            }
            start_of_field = !quoted && matches!(byte, b',' | b'\n' | b'\r');
            i += 1;
        }
        ends
    }
}
