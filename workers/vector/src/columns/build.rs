//! Columns on their way into a file.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, HashMap},
};

use lakehouse_ann::sections;
use lakehouse_contract::vectors::Metadata;
use roaring::RoaringBitmap;
use serde_json::Value;

use super::{BYTES, DIRECTORY, Directory, MAX_BITMAPS, SPARSE, Span, Strings};
use crate::{
    Result,
    value::{Kind, Number},
};

/// Metadata of the rows of a segment that is being written. Each distinct value is held once.
#[derive(Debug, Default)]
pub(crate) struct Builder {
    rows: u32,
    columns: BTreeMap<String, Column>,
}

#[derive(Debug, Default)]
struct Column {
    values: HashMap<(Kind, Box<str>), u32>,
    /// A row and its value, in the order of rows.
    entries: Vec<(u32, u32)>,
}

impl Builder {
    /// Adds the next row. The metadata was checked.
    pub(crate) fn push(&mut self, metadata: &Metadata) {
        for (field, value) in metadata {
            let Some((kind, text)) = encoded(value) else { continue };
            if !self.columns.contains_key(field) {
                self.columns.insert(field.clone(), Column::default());
            }
            let Some(column) = self.columns.get_mut(field) else { continue };
            let next = u32::try_from(column.values.len()).expect("a segment has at most a million values");
            let value = *column.values.entry((kind, text)).or_insert(next);
            column.entries.push((self.rows, value));
        }
        self.rows += 1;
    }

    pub(crate) fn write(self, out: &mut sections::Writer) -> Result<()> {
        let mut bytes = Spool { section: out.section(BYTES)?, at: 0 };
        let mut directory = Vec::with_capacity(self.columns.len());
        for (field, column) in self.columns {
            directory.push(column.write(field, self.rows, &mut bytes)?);
        }
        let directory = serde_json::to_vec(&directory).expect("plain data always has a JSON form");
        out.put_section(DIRECTORY, &directory)?;
        Ok(())
    }
}

/// A value as a dictionary holds it: texts as they are, everything else as JSON.
fn encoded(value: &Value) -> Option<(Kind, Box<str>)> {
    let kind = Kind::of(value)?;
    let text = match value {
        Value::String(text) => text.as_str().into(),
        other => other.to_string().into(),
    };
    Some((kind, text))
}

impl Column {
    fn write(self, field: String, rows: u32, out: &mut Spool<'_>) -> Result<Directory> {
        let Self { values, entries } = self;
        let (sorted, codes) = sorted(values);
        let mut kinds = [0; 4];
        for (kind, _) in &sorted {
            kinds[*kind as usize] += 1;
        }
        let entries: Vec<(u32, u32)> =
            entries.into_iter().map(|(row, value)| (row, codes[value as usize])).collect();

        let width = match sorted.len() {
            0..0xff => 1,
            0xff..0xffff => 2,
            _ => 4,
        };
        let dense = entries.len() * SPARSE >= rows as usize;
        let rows_of = if dense { None } else { Some(out.u32s(entries.iter().map(|(row, _)| *row))?) };
        let codes = if dense {
            let mut all = vec![0_u32; rows as usize];
            for (row, code) in &entries {
                all[*row as usize] = code + 1;
            }
            out.codes(width, all.into_iter())?
        } else {
            out.codes(width, entries.iter().map(|(_, code)| code + 1))?
        };
        let bitmaps = if sorted.len() <= MAX_BITMAPS {
            let mut rows = vec![RoaringBitmap::new(); sorted.len()];
            for (row, code) in &entries {
                rows[*code as usize].insert(*row);
            }
            Some(out.bitmaps(rows)?)
        } else {
            None
        };
        let elements = elements(&sorted, &entries);
        let element_texts = out.strings(elements.keys().map(String::as_bytes))?;
        let element_rows = out.bitmaps(elements.into_values())?;
        let values = out.strings(sorted.iter().map(|(_, text)| text.as_bytes()))?;
        Ok(Directory {
            field,
            values,
            kinds,
            width,
            codes,
            rows: rows_of,
            bitmaps,
            elements: element_texts,
            element_rows,
        })
    }
}

/// The dictionary in its order, and the place in it of each value that was numbered as it came.
fn sorted(values: HashMap<(Kind, Box<str>), u32>) -> (Vec<(Kind, Box<str>)>, Vec<u32>) {
    let mut sorted: Vec<((Kind, Box<str>), u32)> = values.into_iter().collect();
    sorted.sort_unstable_by(|((left, a), _), ((right, b), _)| {
        left.cmp(right).then_with(|| match left {
            Kind::Number => Number::parse(a).cmp(&Number::parse(b)).then_with(|| a.cmp(b)),
            _ => Ordering::Equal.then_with(|| a.cmp(b)),
        })
    });
    let mut codes = vec![0; sorted.len()];
    for (code, (_, value)) in (0..).zip(&sorted) {
        codes[*value as usize] = code;
    }
    (sorted.into_iter().map(|(value, _)| value).collect(), codes)
}

/// The texts that stand in lists, with the rows of these lists.
fn elements(sorted: &[(Kind, Box<str>)], entries: &[(u32, u32)]) -> BTreeMap<String, RoaringBitmap> {
    let first = sorted.partition_point(|(kind, _)| *kind < Kind::List);
    let lists: Vec<Vec<String>> =
        sorted[first..].iter().map(|(_, text)| serde_json::from_str(text).unwrap_or_default()).collect();
    let mut elements: BTreeMap<String, RoaringBitmap> = BTreeMap::new();
    for (row, code) in entries {
        let Some(list) = (*code as usize).checked_sub(first).and_then(|at| lists.get(at)) else { continue };
        for text in list {
            match elements.get_mut(text) {
                Some(rows) => {
                    rows.insert(*row);
                }
                None => {
                    elements.insert(text.clone(), [*row].into_iter().collect());
                }
            }
        }
    }
    elements
}

/// The section of all bytes. Each part begins at a multiple of 8, so that numbers can be read where they lie.
struct Spool<'w> {
    section: sections::Section<'w>,
    at: u64,
}

impl Spool<'_> {
    fn put(&mut self, bytes: &[u8]) -> Result<Span> {
        let span = Span { at: self.at, len: bytes.len() as u64 };
        self.section.put(bytes)?;
        let gap = bytes.len().next_multiple_of(8) - bytes.len();
        self.section.put(&[0; 8][..gap])?;
        self.at += (bytes.len() + gap) as u64;
        Ok(span)
    }

    fn u32s(&mut self, numbers: impl Iterator<Item = u32>) -> Result<Span> {
        let bytes: Vec<u8> = numbers.flat_map(u32::to_le_bytes).collect();
        self.put(&bytes)
    }

    fn codes(&mut self, width: u8, codes: impl Iterator<Item = u32>) -> Result<Span> {
        let bytes: Vec<u8> =
            codes.flat_map(|code| code.to_le_bytes().into_iter().take(usize::from(width))).collect();
        self.put(&bytes)
    }

    fn strings<B: AsRef<[u8]>>(&mut self, strings: impl Iterator<Item = B>) -> Result<Strings> {
        let (mut bytes, mut ends) = (Vec::new(), Vec::new());
        for string in strings {
            bytes.extend_from_slice(string.as_ref());
            ends.push(bytes.len() as u64);
        }
        let count = u32::try_from(ends.len()).expect("a segment has at most a few million of them");
        let ends: Vec<u8> = ends.into_iter().flat_map(u64::to_le_bytes).collect();
        Ok(Strings { count, ends: self.put(&ends)?, bytes: self.put(&bytes)? })
    }

    fn bitmaps(&mut self, bitmaps: impl IntoIterator<Item = RoaringBitmap>) -> Result<Strings> {
        let serialized = bitmaps.into_iter().map(|mut bitmap| {
            bitmap.optimize();
            let mut bytes = Vec::with_capacity(bitmap.serialized_size());
            bitmap.serialize_into(&mut bytes).expect("writing to memory cannot fail");
            bytes
        });
        self.strings(serialized)
    }
}
