//! Values for `?` and `$1`.

use duckdb::{ParamsFromIter, Statement, params_from_iter, types::Value};
use serde_json::Value as Json;

use crate::Error;

/// The values of a statement's parameters, once their number and kinds fit.
pub(crate) fn bind(statement: &Statement<'_>, given: &[Json]) -> Result<Vec<Value>, Error> {
    let expected = statement.parameter_count();
    for index in 1..=expected {
        let name = statement.parameter_name(index).unwrap_or_default();
        let is_number = name.bytes().all(|byte| byte.is_ascii_digit());
        if !is_number {
            return Err(Error::Params(format!(
                "the parameter `${name}` has a name; write `?` or `$1`, `$2`, … and give `params` in that order"
            )));
        }
        // DuckDB has no name for a number that is left out.
        if name.parse() != Ok(index) {
            return Err(Error::Params(format!(
                "the statement has {expected} parameters, and none of them is ${index}: they are counted from $1 without a gap"
            )));
        }
    }
    if given.len() != expected {
        let found = given.len();
        return Err(Error::Params(format!(
            "the statement has {expected} parameters and `params` has {found} values"
        )));
    }
    given.iter().enumerate().map(|(index, json)| value(index, json)).collect()
}

/// Executes a prepared statement so that its rows come in batches while they are made.
pub(crate) fn start(statement: &mut Statement<'_>, params: &[Value]) -> duckdb::Result<()> {
    statement.stream_arrow(of(params)).map(drop)
}

/// Executes a prepared statement to its end before the first row is given.
pub(crate) fn start_whole(statement: &mut Statement<'_>, params: &[Value]) -> duckdb::Result<()> {
    statement.query_arrow(of(params)).map(drop)
}

/// Values as DuckDB's client takes them.
pub(crate) fn of(values: &[Value]) -> ParamsFromIter<&[Value]> {
    params_from_iter(values)
}

fn value(index: usize, json: &Json) -> Result<Value, Error> {
    match json {
        Json::Null => Ok(Value::Null),
        Json::Bool(flag) => Ok(Value::Boolean(*flag)),
        Json::String(text) => Ok(Value::Text(text.clone())),
        Json::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(integer), _, _) => Ok(Value::BigInt(integer)),
            (_, Some(integer), _) => Ok(Value::UBigInt(integer)),
            (_, _, Some(float)) => Ok(Value::Double(float)),
            _ => Err(Error::Params(format!(
                "`params[{index}]` is a number that is too large; give it as text"
            ))),
        },
        Json::Array(_) | Json::Object(_) => Err(Error::Params(format!(
            "`params[{index}]` is {}; a parameter is null, a boolean, a number or text",
            if json.is_array() { "an array" } else { "an object" }
        ))),
    }
}
