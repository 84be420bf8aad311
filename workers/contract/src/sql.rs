//! Bodies of queryd.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::catalog::Damaged;

/// `POST /sql`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SqlRequest {
    /// One SELECT-like statement.
    pub sql: String,
    /// Values for `?` or `$1`…, in order: null, booleans, numbers, texts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub params: Vec<Value>,
    /// At most this many rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
}

/// The JSON answer of `POST /sql`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SqlAnswer {
    /// One a column of the result.
    pub columns: Vec<SqlColumn>,
    /// Values in column order, each in its type's JSON form.
    pub rows: Vec<Vec<Value>>,
    /// `rows.len()`.
    pub row_count: u64,
}

/// A column of a result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SqlColumn {
    /// The column's name.
    pub name: String,
    /// DuckDB's name of the type, such as `BIGINT` or `DECIMAL(18,2)`.
    #[serde(rename = "type")]
    pub column_type: String,
}

/// `GET /sql/views`, and the answer to `POST /sql/refresh`: what can be queried, and what cannot be and why.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Views {
    /// Every dataset that has a view, by name.
    pub views: Vec<ViewInfo>,
    /// Datasets without one.
    pub damaged: Vec<Damaged>,
}

/// A dataset that can be queried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewInfo {
    /// The view's name.
    pub name: String,
    /// The version that queries see.
    pub version: u64,
    /// Rows in it.
    pub row_count: u64,
}
