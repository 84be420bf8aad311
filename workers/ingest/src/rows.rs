//! From a block of CSV to a row group, or at least to the kinds of values in it.
//!
//! A block is read under a plan that says how each column is read. Every value is checked. When one does not fit a plan that was only
//! guessed, no more is encoded in this pass: from then on the blocks are only looked at, and the plan of the next pass is no guess.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use parquet::schema::types::SchemaDescriptor;

use crate::{
    Error, Tracker,
    csv::{self, Block, Field, Index, Syntax, SyntaxKind},
    encode::{BooleanEncoder, Codec, EncodedColumn, FixedEncoder, TextEncoder},
    error::{Fault, shown},
    kind::{Kinds, Reading, expectation},
    value,
};

/// So much text is taken apart before its columns are read: it should still lie in the cache then.
const BITE: usize = 256 << 10;

/// How a column is read.
#[derive(Clone, Debug)]
pub(crate) struct PlannedColumn {
    pub(crate) name: String,
    /// Whether the reading is promised and not guessed.
    pub(crate) declared: bool,
    pub(crate) reading: Reading,
}

/// What the readers of one pass share.
pub(crate) struct Pass<'a> {
    pub(crate) delimiter: u8,
    pub(crate) null_values: &'a [String],
    pub(crate) plan: &'a [PlannedColumn],
    pub(crate) schema: &'a SchemaDescriptor,
    /// Set once there is nothing to encode any more.
    pub(crate) only_look: AtomicBool,
    pub(crate) tracker: &'a Tracker,
}

/// What became of a block.
pub(crate) struct BlockResult {
    /// For each column, the kinds of its values, as far as they were not part of the guess.
    pub(crate) kinds: Vec<Kinds>,
    pub(crate) rows: u64,
    /// The rows' column chunks, unless the pass only looks.
    pub(crate) columns: Option<Vec<EncodedColumn>>,
}

/// Reads blocks, one after another, in memory that it keeps.
pub(crate) struct Reader<'a> {
    pass: &'a Pass<'a>,
    index: Index,
    codec: Codec,
    scratch: Vec<u8>,
}

/// A value that does not fit its column. The lower of two is the one that the file has first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Misfit {
    row: usize,
    column: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(pass: &'a Pass<'a>) -> Self {
        let index = Index { columns: pass.plan.len(), ..Index::default() };
        Self { pass, index, codec: Codec::new(), scratch: Vec::new() }
    }

    /// Reads the rows of a block from the byte `from` on.
    pub(crate) fn read(&mut self, block: &Block, from: usize) -> Result<BlockResult, Error> {
        if !self.pass.only_look.load(Relaxed) {
            if let Some(result) = self.encode(block, from)? {
                return Ok(result);
            }
            self.pass.only_look.store(true, Relaxed);
        }
        let (kinds, rows) = self.look_at(block, from, usize::MAX)?;
        Ok(BlockResult { kinds, rows, columns: None })
    }

    /// Encodes the rows; `None` when a value does not fit the plan's guess.
    fn encode(&mut self, block: &Block, from: usize) -> Result<Option<BlockResult>, Error> {
        let encoder = |column: &PlannedColumn| Encoder::new(column.reading, self.codec.clone());
        let mut encoders: Vec<Encoder> = self.pass.plan.iter().map(encoder).collect();
        let mut rows = 0;
        let mut at = from;
        while at < block.bytes.len() {
            let end = self.bite(block, at)?;
            let mut broken: Option<Misfit> = None;
            for (column, encoder) in encoders.iter_mut().enumerate() {
                if let Some(misfit) = self.add_column(block, column, encoder)? {
                    if !self.pass.plan[column].declared {
                        return Ok(None);
                    }
                    broken = broken.into_iter().chain([misfit]).min();
                }
            }
            self.keep_promise(block, broken)?;
            rows += self.index.rows() as u64;
            at = end?;
        }
        self.pass.tracker.add(block.bytes.len() as u64, rows);
        let kinds = encoders.iter().map(Encoder::kinds).collect();
        let columns = encoders
            .into_iter()
            .enumerate()
            .map(|(i, encoder)| encoder.finish(self.pass.schema.column(i)))
            .collect::<Result<_, _>>()?;
        Ok(Some(BlockResult { kinds, rows, columns: Some(columns) }))
    }

    /// Finds the kinds of values in the block, or in as much of it as starts in its next `bytes`.
    pub(crate) fn look(&mut self, block: &Block, from: usize, bytes: usize) -> Result<Vec<Kinds>, Error> {
        self.look_at(block, from, bytes).map(|(kinds, _)| kinds)
    }

    fn look_at(&mut self, block: &Block, from: usize, bytes: usize) -> Result<(Vec<Kinds>, u64), Error> {
        let mut kinds = vec![Kinds::NONE; self.pass.plan.len()];
        let mut rows = 0;
        let mut at = from;
        while at < block.bytes.len() && at - from < bytes {
            let end = self.bite(block, at)?;
            let mut broken: Option<Misfit> = None;
            for (column, planned) in self.pass.plan.iter().enumerate() {
                if planned.declared {
                    let reading = planned.reading;
                    let misfit =
                        self.each(block, column, |text| Ok(text.is_none_or(|text| fits(text, reading))))?;
                    broken = broken.into_iter().chain(misfit).min();
                } else if !kinds[column].settled() {
                    let seen = &mut kinds[column];
                    self.each(block, column, |text| {
                        if let Some(text) = text.filter(|text| !text.is_empty()) {
                            *seen |= Kinds::of(text);
                        }
                        Ok(true)
                    })?;
                }
            }
            self.keep_promise(block, broken)?;
            rows += self.index.rows() as u64;
            at = end?;
        }
        self.pass.tracker.add(block.bytes.len() as u64, rows);
        Ok((kinds, rows))
    }

    /// Takes the next records apart. The inner result is the place after them, or why they end before a faulty one.
    fn bite(&mut self, block: &Block, at: usize) -> Result<Result<usize, Error>, Error> {
        self.pass.tracker.check()?;
        let scanned = csv::scan(&block.bytes, self.pass.delimiter, at, BITE, &mut self.index);
        let end = match scanned {
            Ok(end) => end,
            Err(syntax) => syntax.byte,
        };
        let text = &block.bytes[at..end];
        if simdutf8::basic::from_utf8(text).is_err() {
            return Err(Fault::not_utf8(text, block.offset + at as u64).into());
        }
        let columns = self.index.columns;
        Ok(scanned.map_err(|syntax| syntax_fault(block, syntax, columns).into()))
    }

    fn add_column(
        &mut self,
        block: &Block,
        column: usize,
        encoder: &mut Encoder,
    ) -> Result<Option<Misfit>, Error> {
        /// Adds what `parse` makes of a text; empty texts are null.
        macro_rules! parsed {
            ($encoder:ident, $parse:expr) => {
                self.each(block, column, |text| {
                    let Some(text) = text.filter(|text| !text.is_empty()) else {
                        $encoder.null()?;
                        return Ok(true);
                    };
                    let Some(value) = $parse(text) else { return Ok(false) };
                    $encoder.value(value)?;
                    Ok(true)
                })
            };
        }
        match encoder {
            Encoder::Int64(encoder) => parsed!(encoder, value::int64),
            Encoder::Float64(encoder) => parsed!(encoder, float64),
            Encoder::DeclaredFloat64(encoder) => parsed!(encoder, value::declared_float64),
            Encoder::Boolean(encoder) => parsed!(encoder, value::boolean),
            Encoder::Date(encoder) => parsed!(encoder, value::date),
            Encoder::Timestamp(encoder, zone) => parsed!(encoder, |text| {
                value::timestamp(text).filter(|&(_, zoned)| zone.takes(zoned)).map(|(instant, _)| instant)
            }),
            Encoder::Text(encoder) => self.each(block, column, |text| {
                match text {
                    Some(text) => encoder.value(text)?,
                    None => encoder.null()?,
                }
                Ok(true)
            }),
            Encoder::Empty(encoder) => self.each(block, column, |text| {
                match text {
                    Some(b"") => encoder.value(b"")?,
                    Some(_) => return Ok(false),
                    None => encoder.null()?,
                }
                Ok(true)
            }),
        }
    }

    /// Hands the column's values to `take`, `None` for null, until it says that one does not fit.
    #[inline]
    fn each(
        &mut self,
        block: &Block,
        column: usize,
        mut take: impl FnMut(Option<&[u8]>) -> parquet::errors::Result<bool>,
    ) -> Result<Option<Misfit>, Error> {
        let Self { pass, index, scratch, codec: _ } = self;
        for (row, field) in index.column(column).enumerate() {
            let null = !pass.null_values.is_empty() && is_null(field, &block.bytes, pass.null_values);
            let text = if null { None } else { Some(field.value(&block.bytes, scratch)) };
            if !take(text)? {
                return Ok(Some(Misfit { row, column }));
            }
        }
        Ok(None)
    }

    /// Fails with the value that breaks a declared type, when there is one.
    fn keep_promise(&mut self, block: &Block, broken: Option<Misfit>) -> Result<(), Error> {
        let Some(Misfit { row, column }) = broken else { return Ok(()) };
        let PlannedColumn { name, reading, .. } = &self.pass.plan[column];
        let field = self.index.fields[row * self.index.columns + column];
        let value = shown(field.value(&block.bytes, &mut self.scratch));
        let column_type = reading.column_type();
        let message = format!("`{value}` is not the declared {column_type}: {}", expectation(column_type));
        let fault = Fault::at(block.offset + field.start() as u64, message);
        Err(Fault { column: Some(name.clone()), value: Some(value), ..fault }.into())
    }
}

fn is_null(field: Field, block: &[u8], null_values: &[String]) -> bool {
    !field.quoted() && null_values.iter().any(|null| null.as_bytes() == field.raw(block))
}

/// A number of a column that holds fractions: integers too, when they lose nothing.
fn float64(text: &[u8]) -> Option<f64> {
    value::float64(text).or_else(|| {
        let number = value::int64(text)?;
        (Kinds::of_integer(number) == Kinds::INTEGER).then_some(number as f64)
    })
}

/// Whether a text is a value of a declared column.
fn fits(text: &[u8], reading: Reading) -> bool {
    text.is_empty()
        || match reading {
            Reading::Int64 => value::int64(text).is_some(),
            Reading::Float64 | Reading::DeclaredFloat64 => value::declared_float64(text).is_some(),
            Reading::Boolean => value::boolean(text).is_some(),
            Reading::Date => value::date(text).is_some(),
            Reading::Timestamp(zone) => value::timestamp(text).is_some_and(|(_, zoned)| zone.takes(zoned)),
            Reading::Text | Reading::Empty => true,
        }
}

/// What is wrong where a block is not CSV.
pub(crate) fn syntax_fault(block: &Block, syntax: Syntax, columns: usize) -> Fault {
    let Syntax { byte, kind } = syntax;
    let most = csv::MAX_RECORD_BYTES >> 20;
    let message = match kind {
        SyntaxKind::Ragged { found: 1 } => format!("this record has 1 field; the first one has {columns}"),
        SyntaxKind::Ragged { found } => {
            format!("this record has {found} fields; the first one has {columns}")
        }
        SyntaxKind::TooLong => {
            format!("the record that starts here is longer than the {most} MiB that are allowed")
        }
        SyntaxKind::Unclosed if block.cut => {
            format!(
                "the quote that opens here is not closed within {most} MiB, the most that a record may have"
            )
        }
        SyntaxKind::Unclosed => "the quote that opens here is never closed".to_owned(),
        SyntaxKind::AfterQuote => {
            let rest = &block.bytes[byte..];
            let end = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')).unwrap_or(rest.len());
            format!(
                "after a closing quote there is `{}`; a delimiter or a line end is expected, and a quote inside a quoted field is written twice",
                shown(&rest[..end.min(80)])
            )
        }
    };
    Fault::at(block.offset + byte as u64, message)
}

/// The encoder of one column.
enum Encoder {
    Int64(FixedEncoder<i64>),
    Float64(FixedEncoder<f64>),
    DeclaredFloat64(FixedEncoder<f64>),
    Boolean(BooleanEncoder),
    Date(FixedEncoder<i32>),
    Timestamp(FixedEncoder<i64>, crate::kind::Zone),
    Text(TextEncoder),
    Empty(TextEncoder),
}

impl Encoder {
    fn new(reading: Reading, codec: Codec) -> Self {
        match reading {
            Reading::Int64 => Self::Int64(FixedEncoder::new(codec)),
            Reading::Float64 => Self::Float64(FixedEncoder::new(codec)),
            Reading::DeclaredFloat64 => Self::DeclaredFloat64(FixedEncoder::new(codec)),
            Reading::Boolean => Self::Boolean(BooleanEncoder::new(codec)),
            Reading::Date => Self::Date(FixedEncoder::new(codec)),
            Reading::Timestamp(zone) => Self::Timestamp(FixedEncoder::new(codec), zone),
            Reading::Text => Self::Text(TextEncoder::new(codec)),
            Reading::Empty => Self::Empty(TextEncoder::new(codec)),
        }
    }

    /// What the values add to the kinds that the plan was guessed from.
    fn kinds(&self) -> Kinds {
        let Self::Int64(encoder) = self else { return Kinds::NONE };
        encoder.range().map_or(Kinds::NONE, |(lowest, highest)| {
            let mut kinds = Kinds::of_integer(lowest);
            kinds |= Kinds::of_integer(highest);
            kinds
        })
    }

    fn finish(self, column: parquet::schema::types::ColumnDescPtr) -> parquet::errors::Result<EncodedColumn> {
        match self {
            Self::Int64(encoder) | Self::Timestamp(encoder, _) => encoder.finish(column),
            Self::Float64(encoder) | Self::DeclaredFloat64(encoder) => encoder.finish(column),
            Self::Boolean(encoder) => encoder.finish(column),
            Self::Date(encoder) => encoder.finish(column),
            Self::Text(encoder) | Self::Empty(encoder) => encoder.finish(column),
        }
    }
}
