//! Columns of numbers, days and instants: values of a fixed size.

use parquet::{errors::Result, file::statistics::Statistics, schema::types::ColumnDescPtr};

use super::{Codec, chunk::EncodedColumn, values::Values};

/// Encodes a column chunk of values of a fixed size.
pub(crate) struct FixedEncoder<T> {
    values: Values,
    range: Option<(T, T)>,
}

/// A value of fixed size.
pub(crate) trait Fixed: Copy + PartialOrd {
    /// Adds the plain encoding; whether the value is certainly not new to the chunk.
    fn add_to(self, values: &mut Values) -> Result<bool>;
    /// What the footer says of a chunk whose values lie in `range`.
    fn statistics(range: Option<(Self, Self)>, nulls: u64) -> Statistics;
}

impl<T: Fixed> FixedEncoder<T> {
    pub(crate) fn new(codec: Codec) -> Self {
        Self { values: Values::new(codec), range: None }
    }

    /// Adds a value.
    #[inline]
    pub(crate) fn value(&mut self, value: T) -> Result<()> {
        if !value.add_to(&mut self.values)? {
            let (lowest, highest) = self.range.unwrap_or((value, value));
            let lowest = if value < lowest { value } else { lowest };
            let highest = if value > highest { value } else { highest };
            self.range = Some((lowest, highest));
        }
        Ok(())
    }

    /// Adds a null.
    pub(crate) fn null(&mut self) -> Result<()> {
        self.values.null()
    }

    /// The lowest and the highest value so far.
    pub(crate) fn range(&self) -> Option<(T, T)> {
        self.range
    }

    pub(crate) fn finish(self, column: ColumnDescPtr) -> Result<EncodedColumn> {
        let range = self.range;
        self.values.finish(column, |nulls| T::statistics(range, nulls))
    }
}

impl Fixed for i32 {
    #[inline]
    fn add_to(self, values: &mut Values) -> Result<bool> {
        values.fixed(self.to_le_bytes())
    }

    fn statistics(range: Option<(Self, Self)>, nulls: u64) -> Statistics {
        let (lowest, highest) = range.unzip();
        Statistics::int32(lowest, highest, None, Some(nulls), false)
    }
}

impl Fixed for i64 {
    #[inline]
    fn add_to(self, values: &mut Values) -> Result<bool> {
        values.fixed(self.to_le_bytes())
    }

    fn statistics(range: Option<(Self, Self)>, nulls: u64) -> Statistics {
        let (lowest, highest) = range.unzip();
        Statistics::int64(lowest, highest, None, Some(nulls), false)
    }
}

impl Fixed for f64 {
    #[inline]
    fn add_to(self, values: &mut Values) -> Result<bool> {
        values.fixed(self.to_le_bytes())
    }

    /// Zeros get the sign that makes the range wider, as the format asks: readers differ in how they order the two.
    fn statistics(range: Option<(Self, Self)>, nulls: u64) -> Statistics {
        let (lowest, highest) = range.unzip();
        let lowest = lowest.map(|lowest| if lowest == 0.0 { -0.0 } else { lowest });
        let highest = highest.map(|highest| if highest == 0.0 { 0.0 } else { highest });
        Statistics::double(lowest, highest, None, Some(nulls), false)
    }
}
