//! From a block of whole records to the places of their fields.

use super::{MAX_RECORD_BYTES, marks::Marks};

/// Where a field's content lies in its block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Field {
    start: u32,
    /// Bytes, and the two flags.
    length: u32,
}

const QUOTED: u32 = 1 << 31;
const DOUBLED: u32 = 1 << 30;

impl Field {
    fn new(start: usize, end: usize, flags: u32) -> Self {
        let start = u32::try_from(start).expect("a block is far below 4 GiB");
        let length = u32::try_from(end).expect("a block is far below 4 GiB") - start;
        Self { start, length: length | flags }
    }

    /// The content's first byte in the block.
    #[inline]
    pub(crate) fn start(self) -> usize {
        self.start as usize
    }

    /// Whether it stood in quotes.
    #[inline]
    pub(crate) fn quoted(self) -> bool {
        self.length & QUOTED != 0
    }

    /// The content as the block has it: without the quotes around it, with the doubled ones in it.
    #[inline]
    pub(crate) fn raw(self, block: &[u8]) -> &[u8] {
        let start = self.start();
        &block[start..start + (self.length & !(QUOTED | DOUBLED)) as usize]
    }

    /// The value; `scratch` holds it when doubled quotes had to go.
    #[inline]
    pub(crate) fn value<'a>(self, block: &'a [u8], scratch: &'a mut Vec<u8>) -> &'a [u8] {
        let raw = self.raw(block);
        if self.length & DOUBLED == 0 {
            return raw;
        }
        scratch.clear();
        let mut rest = raw;
        while let Some(quote) = memchr::memchr(b'"', rest) {
            scratch.extend_from_slice(&rest[..=quote]);
            rest = &rest[quote + 2..];
        }
        scratch.extend_from_slice(rest);
        scratch
    }
}

/// The fields of some records, row after row.
#[derive(Debug, Default)]
pub(crate) struct Index {
    pub(crate) fields: Vec<Field>,
    pub(crate) columns: usize,
}

impl Index {
    pub(crate) fn rows(&self) -> usize {
        self.fields.len() / self.columns
    }

    /// The fields of one column, from the first row on.
    #[inline]
    pub(crate) fn column(&self, column: usize) -> impl Iterator<Item = Field> {
        self.fields.chunks_exact(self.columns).map(move |record| record[column])
    }
}

/// A place where the text is not CSV.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Syntax {
    /// The byte in the block.
    pub(crate) byte: usize,
    pub(crate) kind: SyntaxKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SyntaxKind {
    /// The record that starts here has `found` fields.
    Ragged { found: usize },
    /// The record that starts here is longer than is allowed.
    TooLong,
    /// The quote here is not closed before the block ends.
    Unclosed,
    /// Here, right after a closing quote, stands something else than a delimiter or a line end.
    AfterQuote,
}

/// Finds the fields of the records from `from` on, until at least `bytes` are read or the block ends; returns where it stopped.
///
/// `index.columns` says how many fields a record has; 0 takes as many as the first record has and stops after it. Empty
/// lines are skipped, except in a table of one column, where they are empty values. On a fault, `index` holds the records before it.
pub(crate) fn scan(
    block: &[u8],
    delimiter: u8,
    from: usize,
    bytes: usize,
    index: &mut Index,
) -> Result<usize, Syntax> {
    index.fields.clear();
    let fields = &mut index.fields;
    let mut marks = Marks::new(block, delimiter, from);
    let mut record = from;
    let mut complete = 0;
    while record < block.len() && record - from < bytes {
        let end = match record_fields(block, delimiter, record, &mut marks, fields) {
            Ok(end) => end,
            Err(fault) => {
                fields.truncate(complete);
                return Err(fault);
            }
        };
        let found = fields.len() - complete;
        let next = after_line_end(block, end, &mut marks);
        let empty_line = end == record;
        if empty_line && index.columns != 1 {
            fields.truncate(complete);
        } else if index.columns == 0 {
            index.columns = found;
            return Ok(next);
        } else if found == index.columns && end - record <= MAX_RECORD_BYTES {
            complete = fields.len();
        } else {
            fields.truncate(complete);
            let too_long = end - record > MAX_RECORD_BYTES;
            let kind = if too_long { SyntaxKind::TooLong } else { SyntaxKind::Ragged { found } };
            return Err(Syntax { byte: record, kind });
        }
        record = next;
    }
    Ok(record)
}

/// Adds the fields of the record at `start`; returns where its line end stands, or the block's end.
#[inline]
fn record_fields(
    block: &[u8],
    delimiter: u8,
    start: usize,
    marks: &mut Marks,
    fields: &mut Vec<Field>,
) -> Result<usize, Syntax> {
    let mut start = start;
    loop {
        let end = if block.get(start) == Some(&b'"') {
            let (field, end) = quoted_field(block, delimiter, start, marks)?;
            fields.push(field);
            end
        } else {
            let mut end = marks.next();
            // A quote inside a field that does not start with one stands for itself.
            while block.get(end) == Some(&b'"') {
                end = marks.next();
            }
            fields.push(Field::new(start, end, 0));
            end
        };
        if block.get(end) != Some(&delimiter) {
            return Ok(end);
        }
        start = end + 1;
    }
}

/// The field whose opening quote stands at `open`, and the place right after its closing quote.
#[inline]
fn quoted_field(
    block: &[u8],
    delimiter: u8,
    open: usize,
    marks: &mut Marks,
) -> Result<(Field, usize), Syntax> {
    marks.next_quote();
    let mut flags = QUOTED;
    let close = loop {
        let quote = marks.next_quote();
        if quote == block.len() {
            return Err(Syntax { byte: open, kind: SyntaxKind::Unclosed });
        }
        if block.get(quote + 1) != Some(&b'"') {
            break quote;
        }
        marks.next_quote();
        flags |= DOUBLED;
    };
    let end = close + 1;
    match block.get(end) {
        None => {}
        Some(&byte) if byte == delimiter || matches!(byte, b'\n' | b'\r') => {
            marks.next();
        }
        Some(_) => return Err(Syntax { byte: end, kind: SyntaxKind::AfterQuote }),
    }
    Ok((Field::new(open + 1, close, flags), end))
}

/// The start of the record after the line end at `end`: LF, CR, or both as one.
#[inline]
fn after_line_end(block: &[u8], end: usize, marks: &mut Marks) -> usize {
    if block.get(end) == Some(&b'\r') && block.get(end + 1) == Some(&b'\n') {
        marks.next();
        end + 2
    } else {
        (end + 1).min(block.len())
    }
}

#[cfg(test)]
mod tests {
    use csv_core::{ReadRecordResult, Reader, ReaderBuilder};
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        #[test]
        fn records_are_those_of_csv_core(text in "[ab,;\"\"\n\r]{0,80}|([a-c]{0,40}|\"([a,\n]|\"\"){0,40}\"|,|\n|\r\n){0,30}", semicolon: bool) {
            let delimiter = if semicolon { b';' } else { b',' };
            let (records, fault) = scanned(text.as_bytes(), delimiter);
            let expected = with_csv_core(text.as_bytes(), delimiter);
            match fault {
                None => prop_assert_eq!(records, expected),
                Some(SyntaxKind::Unclosed | SyntaxKind::AfterQuote) => {
                    prop_assert_eq!(&records[..], &expected[..records.len()]);
                    prop_assert!(text.contains('"'));
                }
                Some(other) => prop_assert!(false, "{:?}", other),
            }
        }

        #[test]
        fn what_is_written_by_the_rules_is_read_again(
            rows in proptest::collection::vec(proptest::collection::vec("[a,\"\n\r é]{0,70}", 3), 1..20),
        ) {
            let field = |field: &String| format!("\"{}\"", field.replace('"', "\"\""));
            let line = |row: &Vec<String>| row.iter().map(field).collect::<Vec<_>>().join(",");
            let text = rows.iter().map(line).collect::<Vec<_>>().join("\r\n");
            let (records, fault) = scanned(text.as_bytes(), b',');
            prop_assert_eq!(fault, None);
            let rows: Vec<Vec<Vec<u8>>> =
                rows.iter().map(|row| row.iter().map(|field| field.clone().into_bytes()).collect()).collect();
            prop_assert_eq!(records, rows);
        }
    }

    #[test]
    fn an_empty_line_is_a_value_only_in_a_table_of_one_column() {
        let mut index = Index { columns: 1, ..Index::default() };
        scan(b"a\n\nb\n", b',', 0, usize::MAX, &mut index).unwrap();
        assert_eq!(index.rows(), 3);
        let mut index = Index { columns: 2, ..Index::default() };
        scan(b"a,b\n\r\n\nc,d\n\n", b',', 0, usize::MAX, &mut index).unwrap();
        assert_eq!(index.rows(), 2);
    }

    #[test]
    fn faults_are_named_where_they_are() {
        let fault = |text: &[u8]| {
            let mut index = Index { columns: 2, ..Index::default() };
            let fault = scan(text, b',', 0, usize::MAX, &mut index).unwrap_err();
            (fault.byte, fault.kind, index.rows())
        };
        assert_eq!(fault(b"a,b\nc\n"), (4, SyntaxKind::Ragged { found: 1 }, 1));
        assert_eq!(fault(b"a,b\nc,d,e"), (4, SyntaxKind::Ragged { found: 3 }, 1));
        assert_eq!(fault(b"a,b\nc,\"d\ne"), (6, SyntaxKind::Unclosed, 1));
        assert_eq!(fault(b"a,b\nc,\"d\" \n"), (9, SyntaxKind::AfterQuote, 1));
    }

    /// All records, one by one, so that their widths may differ, and the fault that ended them.
    fn scanned(text: &[u8], delimiter: u8) -> (Vec<Vec<Vec<u8>>>, Option<SyntaxKind>) {
        let (mut records, mut at, mut scratch) = (Vec::new(), 0, Vec::new());
        while at < text.len() {
            let mut index = Index::default();
            match scan(text, delimiter, at, usize::MAX, &mut index) {
                Ok(next) => at = next,
                Err(fault) => return (records, Some(fault.kind)),
            }
            let record: Vec<Vec<u8>> =
                index.fields.iter().map(|field| field.value(text, &mut scratch).to_vec()).collect();
            records.extend(Some(record).filter(|record| !record.is_empty()));
        }
        (records, None)
    }

    fn with_csv_core(text: &[u8], delimiter: u8) -> Vec<Vec<Vec<u8>>> {
        let mut reader: Reader = ReaderBuilder::new().delimiter(delimiter).build();
        let (mut records, mut input) = (Vec::new(), text);
        let (mut output, mut ends) = (vec![0; text.len() + 1], vec![0; text.len() + 1]);
        let (mut written, mut fields) = (0, 0);
        loop {
            let (result, read, more, ended) =
                reader.read_record(input, &mut output[written..], &mut ends[fields..]);
            input = &input[read..];
            (written, fields) = (written + more, fields + ended);
            match result {
                ReadRecordResult::InputEmpty => {}
                ReadRecordResult::Record => {
                    let starts = std::iter::once(0).chain(ends.iter().copied());
                    let record = starts.zip(&ends[..fields]).map(|(start, &end)| output[start..end].to_vec());
                    records.push(record.collect());
                    (written, fields) = (0, 0);
                }
                ReadRecordResult::End => return records,
                other => panic!("{other:?}"),
            }
        }
    }
}
