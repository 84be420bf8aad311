//! Conditions on metadata: parsed and checked once, then evaluated exactly.
//!
//! ```text
//! {"state": "IL", "age": {"$gte": 18, "$lt": 65}, "$or": [{"skills": "rust"}, {"skills": {"$in": ["go", "c"]}}]}
//! ```
//! Conditions side by side must all hold. `$eq $ne $in $nin` compare texts, numbers and booleans, and look into lists of texts;
//! `$gt $gte $lt $lte` compare texts and numbers; `$exists` asks for the field; `$and $or $not` join. A row without the field, or with a value
//! of another kind, passes `$ne`, `$nin`, `$not` and `$exists: false` only.

use std::{collections::BTreeMap, ops::Bound, sync::Arc};

use lakehouse_contract::vectors::Metadata;
use serde_json::{Map, Value};

use crate::value::{Kind, Kinds, Number};

/// The deepest nesting.
const MAX_DEPTH: usize = 32;
/// The most values that one filter names.
const MAX_VALUES: usize = 10_000;

/// The fields of an index and the kinds of their values.
pub(crate) type Fields = BTreeMap<Arc<str>, Kinds>;

/// What a field is compared with.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Scalar {
    Bool(bool),
    Number(Number),
    Text(String),
}

impl Scalar {
    fn of(value: &Value) -> Option<Self> {
        match value {
            Value::Bool(value) => Some(Self::Bool(*value)),
            Value::Number(number) => Some(Self::Number(Number::of(number))),
            Value::String(text) => Some(Self::Text(text.clone())),
            _ => None,
        }
    }

    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Bool(_) => Kind::Bool,
            Self::Number(_) => Kind::Number,
            Self::Text(_) => Kind::Text,
        }
    }

    /// How a value of the same kind stands to this.
    fn order(&self, value: &Value) -> Option<std::cmp::Ordering> {
        match (self, value) {
            (Self::Bool(own), Value::Bool(value)) => Some(value.cmp(own)),
            (Self::Number(own), Value::Number(value)) => Some(Number::of(value).cmp(own)),
            (Self::Text(own), Value::String(value)) => Some(value.as_str().cmp(own)),
            _ => None,
        }
    }

    fn equals(&self, value: &Value) -> bool {
        match (self, value) {
            (Self::Text(text), Value::Array(items)) => items.iter().any(|item| item.as_str() == Some(text)),
            _ => self.order(value).is_some_and(std::cmp::Ordering::is_eq),
        }
    }
}

/// A condition on one field.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Test {
    Exists(bool),
    In(Vec<Scalar>),
    NotIn(Vec<Scalar>),
    /// Both limits are of one kind, and at least one is there.
    Between(Bound<Scalar>, Bound<Scalar>),
}

/// A condition on all metadata.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Filter {
    All(Vec<Filter>),
    Any(Vec<Filter>),
    Not(Box<Filter>),
    Field(String, Test),
}

/// Why a filter cannot be used. The sentence is fit for the caller.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidFilter {
    /// It is no filter at all.
    #[error("the filter is not understood: {0}")]
    Syntax(String),
    /// No vector has the field.
    #[error("the filter names the field `{field}`, which no vector here has; {}", known_fields(.known))]
    UnknownField {
        /// The field.
        field: String,
        /// The fields that there are.
        known: Vec<String>,
    },
    /// The field is compared with something that it never is.
    #[error("the filter compares `{field}` with {given}, and it is {found} here")]
    WrongType {
        /// The field.
        field: String,
        /// What it is compared with.
        given: String,
        /// What it is.
        found: String,
    },
}

fn known_fields(fields: &[String]) -> String {
    match fields {
        [] => "they have no metadata".into(),
        fields => format!("there are `{}`", fields.join("`, `")),
    }
}

impl Filter {
    /// Reads a filter.
    pub(crate) fn parse(value: &Value) -> Result<Self, InvalidFilter> {
        let mut parser = Parser { values: 0 };
        parser.object(value, 0).map_err(InvalidFilter::Syntax)
    }

    /// Checks its fields and types against those of the index.
    pub(crate) fn check(&self, fields: &Fields) -> Result<(), InvalidFilter> {
        match self {
            Self::All(all) | Self::Any(all) => all.iter().try_for_each(|filter| filter.check(fields)),
            Self::Not(filter) => filter.check(fields),
            Self::Field(field, test) => {
                let Some(kinds) = fields.get(field.as_str()) else {
                    let known = fields.keys().map(ToString::to_string).collect();
                    return Err(InvalidFilter::UnknownField { field: field.clone(), known });
                };
                let given: Vec<&Scalar> = match test {
                    Test::Exists(_) => Vec::new(),
                    Test::In(values) | Test::NotIn(values) => values.iter().collect(),
                    Test::Between(low, high) => [low, high].into_iter().filter_map(limit).collect(),
                };
                let in_lists = matches!(test, Test::In(_) | Test::NotIn(_)) && kinds.has(Kind::List);
                let fits = |value: &&Scalar| {
                    // A declared field that no vector has yet may become anything.
                    kinds.is_empty() || kinds.has(value.kind()) || (in_lists && value.kind() == Kind::Text)
                };
                match given.into_iter().find(|value| !fits(value)) {
                    None => Ok(()),
                    Some(value) => Err(InvalidFilter::WrongType {
                        field: field.clone(),
                        given: value.kind().to_string(),
                        found: kinds.to_string(),
                    }),
                }
            }
        }
    }

    /// Whether this metadata passes.
    pub(crate) fn passes(&self, metadata: &Metadata) -> bool {
        match self {
            Self::All(all) => all.iter().all(|filter| filter.passes(metadata)),
            Self::Any(any) => any.iter().any(|filter| filter.passes(metadata)),
            Self::Not(filter) => !filter.passes(metadata),
            Self::Field(field, test) => test.passes(metadata.get(field)),
        }
    }
}

impl Test {
    fn passes(&self, value: Option<&Value>) -> bool {
        match self {
            Self::Exists(wanted) => value.is_some() == *wanted,
            Self::In(values) => value.is_some_and(|value| values.iter().any(|one| one.equals(value))),
            Self::NotIn(values) => !value.is_some_and(|value| values.iter().any(|one| one.equals(value))),
            Self::Between(low, high) => value.is_some_and(|value| {
                let above = match low {
                    Bound::Unbounded => true,
                    Bound::Included(limit) => limit.order(value).is_some_and(std::cmp::Ordering::is_ge),
                    Bound::Excluded(limit) => limit.order(value).is_some_and(std::cmp::Ordering::is_gt),
                };
                let below = match high {
                    Bound::Unbounded => true,
                    Bound::Included(limit) => limit.order(value).is_some_and(std::cmp::Ordering::is_le),
                    Bound::Excluded(limit) => limit.order(value).is_some_and(std::cmp::Ordering::is_lt),
                };
                above && below
            }),
        }
    }
}

fn limit(bound: &Bound<Scalar>) -> Option<&Scalar> {
    match bound {
        Bound::Included(value) | Bound::Excluded(value) => Some(value),
        Bound::Unbounded => None,
    }
}

struct Parser {
    values: usize,
}

impl Parser {
    /// An object of conditions that must all hold.
    fn object(&mut self, value: &Value, depth: usize) -> Result<Filter, String> {
        let Value::Object(conditions) = value else {
            return Err(format!("an object such as {{\"state\": \"IL\"}} is expected, not {}", shown(value)));
        };
        if depth > MAX_DEPTH {
            return Err(format!("it is nested deeper than {MAX_DEPTH}"));
        }
        let each = conditions.iter().map(|(name, value)| match name.as_str() {
            "$and" => self.list(name, value, depth).map(Filter::All),
            "$or" => self.list(name, value, depth).map(Filter::Any),
            "$not" => Ok(Filter::Not(Box::new(self.object(value, depth + 1)?))),
            _ if name.starts_with('$') => {
                Err(format!("there is no `{name}` here; `$and`, `$or` and `$not` join conditions"))
            }
            field => self.field(field, value, depth),
        });
        all(each.collect::<Result<_, _>>()?)
    }

    fn list(&mut self, name: &str, value: &Value, depth: usize) -> Result<Vec<Filter>, String> {
        match value {
            Value::Array(items) if !items.is_empty() => {
                items.iter().map(|item| self.object(item, depth + 1)).collect()
            }
            _ => Err(format!("`{name}` takes a list of conditions that is not empty")),
        }
    }

    fn field(&mut self, field: &str, value: &Value, depth: usize) -> Result<Filter, String> {
        match value {
            Value::Object(operators) => self.operators(field, operators, depth),
            value => Ok(Filter::Field(field.to_owned(), Test::In(vec![self.scalar(field, value)?]))),
        }
    }

    fn operators(
        &mut self,
        field: &str,
        operators: &Map<String, Value>,
        depth: usize,
    ) -> Result<Filter, String> {
        if depth > MAX_DEPTH {
            return Err(format!("it is nested deeper than {MAX_DEPTH}"));
        }
        if operators.is_empty() {
            return Err(format!("`{field}` has no condition"));
        }
        let each = operators.iter().map(|(name, value)| {
            let test = match name.as_str() {
                "$eq" => Test::In(vec![self.scalar(field, value)?]),
                "$ne" => Test::NotIn(vec![self.scalar(field, value)?]),
                "$in" => Test::In(self.scalars(field, name, value)?),
                "$nin" => Test::NotIn(self.scalars(field, name, value)?),
                "$gt" => Test::Between(Bound::Excluded(self.ordered(field, name, value)?), Bound::Unbounded),
                "$gte" => Test::Between(Bound::Included(self.ordered(field, name, value)?), Bound::Unbounded),
                "$lt" => Test::Between(Bound::Unbounded, Bound::Excluded(self.ordered(field, name, value)?)),
                "$lte" => Test::Between(Bound::Unbounded, Bound::Included(self.ordered(field, name, value)?)),
                "$exists" => match value {
                    Value::Bool(wanted) => Test::Exists(*wanted),
                    _ => return Err(format!("`$exists` of `{field}` takes true or false")),
                },
                "$not" => return Ok(Filter::Not(Box::new(self.field(field, value, depth + 1)?))),
                _ => {
                    return Err(format!(
                        "`{field}` has the operator `{name}`; there are $eq, $ne, $gt, $gte, $lt, $lte, $in, $nin, $exists and $not"
                    ));
                }
            };
            Ok(Filter::Field(field.to_owned(), test))
        });
        all(each.collect::<Result<_, _>>()?)
    }

    fn scalar(&mut self, field: &str, value: &Value) -> Result<Scalar, String> {
        self.values += 1;
        if self.values > MAX_VALUES {
            return Err(format!("it names more than {MAX_VALUES} values"));
        }
        Scalar::of(value).ok_or_else(|| {
            format!("`{field}` is compared with {}; a text, a number or a boolean is expected", shown(value))
        })
    }

    fn scalars(&mut self, field: &str, name: &str, value: &Value) -> Result<Vec<Scalar>, String> {
        let Value::Array(items) = value else { return Err(format!("`{name}` of `{field}` takes a list")) };
        items.iter().map(|item| self.scalar(field, item)).collect()
    }

    fn ordered(&mut self, field: &str, name: &str, value: &Value) -> Result<Scalar, String> {
        match self.scalar(field, value)? {
            Scalar::Bool(_) => Err(format!("`{name}` of `{field}` takes a number or a text, not a boolean")),
            ordered => Ok(ordered),
        }
    }
}

/// One condition as it is; several must all hold.
#[expect(clippy::unnecessary_wraps, reason = "both of its callers end with it")]
fn all(mut filters: Vec<Filter>) -> Result<Filter, String> {
    Ok(if filters.len() == 1 { filters.remove(0) } else { Filter::All(filters) })
}

fn shown(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
