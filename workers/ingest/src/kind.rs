//! From the values of a column to its type.
//!
//! A column's [`Kinds`] is the set of kinds of value that were seen in it. Sets join by union, so the order in which parts of a
//! file are looked at, and how many look at once, cannot change the type that comes out.

use std::ops::BitOrAssign;

use lakehouse_contract::ColumnType;

use crate::value::{self, EXACT_IN_DOUBLE};

/// The kinds of value seen in a column. Empty fields and nulls are of no kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Kinds(u8);

impl Kinds {
    pub(crate) const NONE: Self = Self(0);
    /// Integers that are doubles without loss.
    pub(crate) const INTEGER: Self = Self(1);
    /// Integers that are not.
    pub(crate) const BIG_INTEGER: Self = Self(1 << 1);
    pub(crate) const FLOAT: Self = Self(1 << 2);
    pub(crate) const BOOLEAN: Self = Self(1 << 3);
    pub(crate) const DATE: Self = Self(1 << 4);
    /// Instants without a zone.
    pub(crate) const LOCAL: Self = Self(1 << 5);
    /// Instants with a zone.
    pub(crate) const ZONED: Self = Self(1 << 6);
    pub(crate) const TEXT: Self = Self(1 << 7);

    /// The kind of one value that is not empty.
    pub(crate) fn of(text: &[u8]) -> Self {
        match text {
            [b'-' | b'0'..=b'9', ..] => Self::of_digits(text),
            [b't' | b'T' | b'f' | b'F', ..] if value::boolean(text).is_some() => Self::BOOLEAN,
            _ => Self::TEXT,
        }
    }

    fn of_digits(text: &[u8]) -> Self {
        if let Some(number) = value::int64(text) {
            return Self::of_integer(number);
        }
        if value::float64(text).is_some() {
            return Self::FLOAT;
        }
        if value::date(text).is_some() {
            return Self::DATE;
        }
        match value::timestamp(text) {
            Some((_, true)) => Self::ZONED,
            Some((_, false)) => Self::LOCAL,
            None => Self::TEXT,
        }
    }

    /// The kind of an integer.
    pub(crate) fn of_integer(number: i64) -> Self {
        if number.unsigned_abs() <= EXACT_IN_DOUBLE { Self::INTEGER } else { Self::BIG_INTEGER }
    }

    /// Whether no further value can change the type: it is text.
    pub(crate) fn settled(self) -> bool {
        matches!(self.reading(), Reading::Text)
    }

    /// How a column with exactly these kinds is read.
    pub(crate) fn reading(self) -> Reading {
        const INTEGERS: u8 = Kinds::INTEGER.0 | Kinds::BIG_INTEGER.0;
        const NUMBERS: u8 = Kinds::INTEGER.0 | Kinds::FLOAT.0;
        match self {
            Self::NONE => Reading::Empty,
            Self::BOOLEAN => Reading::Boolean,
            Self::DATE => Reading::Date,
            Self::LOCAL => Reading::Timestamp(Zone::Without),
            Self::ZONED => Reading::Timestamp(Zone::With),
            Self(kinds) if kinds & !INTEGERS == 0 => Reading::Int64,
            Self(kinds) if kinds & !NUMBERS == 0 => Reading::Float64,
            Self(_) => Reading::Text,
        }
    }
}

impl BitOrAssign for Kinds {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

/// How the fields of a column become values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    /// Nothing but empty fields so far; text, should it stay so.
    Empty,
    Int64,
    /// Decimal fractions, and integers that lose nothing.
    Float64,
    /// Any number that is near a double: the column is declared.
    DeclaredFloat64,
    Boolean,
    Date,
    Timestamp(Zone),
    Text,
}

/// Which instants a column takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Zone {
    With,
    Without,
    /// Both: the column is declared, so that there is nothing to guess.
    Either,
}

impl Zone {
    pub(crate) fn takes(self, zoned: bool) -> bool {
        match self {
            Self::With => zoned,
            Self::Without => !zoned,
            Self::Either => true,
        }
    }
}

impl Reading {
    /// How a column of a declared type is read.
    pub(crate) fn declared(column_type: ColumnType) -> Self {
        match column_type {
            ColumnType::Int64 => Self::Int64,
            ColumnType::Float64 => Self::DeclaredFloat64,
            ColumnType::Boolean => Self::Boolean,
            ColumnType::Date => Self::Date,
            ColumnType::Timestamp => Self::Timestamp(Zone::Either),
            ColumnType::String => Self::Text,
        }
    }

    /// The type of the column's values.
    pub(crate) fn column_type(self) -> ColumnType {
        match self {
            Self::Int64 => ColumnType::Int64,
            Self::Float64 | Self::DeclaredFloat64 => ColumnType::Float64,
            Self::Boolean => ColumnType::Boolean,
            Self::Date => ColumnType::Date,
            Self::Timestamp(_) => ColumnType::Timestamp,
            Self::Empty | Self::Text => ColumnType::String,
        }
    }
}

/// Why `text` is no value of a declared type, and what would be one.
pub(crate) fn expectation(column_type: ColumnType) -> &'static str {
    match column_type {
        ColumnType::Int64 => {
            "an int64 is digits without leading zeros, with `-` before them or nothing, within 64 bits"
        }
        ColumnType::Float64 => {
            "a float64 is a decimal number such as `-12.5`, `3` or `1e-7`, with a point and no group separators"
        }
        ColumnType::Boolean => "a boolean is `true` or `false`",
        ColumnType::Date => "a date is a real day as `YYYY-MM-DD`",
        ColumnType::Timestamp => {
            "a timestamp is `YYYY-MM-DD HH:MM:SS`, with up to six decimals and with `Z` or `+HH:MM` after it or nothing"
        }
        ColumnType::String => "a string is any text",
    }
}
