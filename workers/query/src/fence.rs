//! What a caller's SQL may say: one SELECT-like statement over datasets, and nothing of the machine below them.
//!
//! DuckDB parses the text (`json_serialize_sql`), so what is judged is what will run. The tree is then walked: tables must
//! be datasets, versions of them, or names of the statement's own, table functions must be on a short list, and scalar functions must not be
//! on another. DuckDB's locked settings stand behind all of this as a second fence.

mod lists;
mod marked;
mod read;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use duckdb::Connection;
use lakehouse_contract::DatasetName;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value, error::Category};

pub(crate) use read::{Memory, Parsed};

use crate::{
    Error,
    error::Scrub,
    generation::{Generation, Known},
    version::Version,
};

/// A statement that may run.
#[derive(Debug)]
pub(crate) struct Statement {
    /// The text to run: what was judged, and nothing of the caller's around it.
    pub(crate) sql: String,
    /// Whether it means the same inside another query. `EXPLAIN` cannot stand there, and `current_query()` shows it.
    pub(crate) is_movable: bool,
    /// The datasets that it reads, by the lower case of their names.
    pub(crate) datasets: BTreeSet<String>,
    /// The versions that it reads by their numbers, by the lower case of how it names them.
    pub(crate) versions: BTreeMap<String, Version>,
}

/// The parts that one query may have. The time to plan grows with their square.
const MAX_SELECTS: usize = 1000;

/// Reads a text that is to give at most `limit` rows. Nothing of the catalogue is asked for it.
pub(crate) fn parse(
    connection: &Connection,
    scrub: &Scrub,
    memory: &Memory,
    sql: &str,
    max_bytes: usize,
    limit: Option<u64>,
) -> Result<Arc<Parsed>, Error> {
    if sql.len() > max_bytes {
        let found = sql.len();
        return Err(Error::Refused(format!(
            "the statement has {found} bytes; at most {max_bytes} are allowed"
        )));
    }
    if sql.contains('\0') {
        return Err(Error::Refused("the statement holds a NUL character".into()));
    }
    memory.recall(sql, limit, || {
        let (word, rest) = first_word(sql);
        let explained = word.eq_ignore_ascii_case("EXPLAIN");
        let judged = if explained { rest } else { sql };
        if explained && ["ANALYZE", "ANALYSE"].iter().any(|w| first_word(rest).0.eq_ignore_ascii_case(w)) {
            return Err(Error::Refused(
                "EXPLAIN ANALYZE is not allowed: it names this service's files; EXPLAIN shows the plan"
                    .into(),
            ));
        }
        let read = |text: &str| serialized(connection, scrub, text);
        let json = read(judged)?;
        let tree = only_statement(&json, judged)?;
        let alone = without_end(judged, &tree, read);
        let sql = match limit {
            // Written anew: where DuckDB and `first_word` end a comment differently, the caller's text says something else.
            _ if explained => format!("EXPLAIN {alone}"),
            // DuckDB counts no further than an i64, and there are no more rows than that.
            Some(rows) if i64::try_from(rows).is_ok() => {
                limited(alone, &tree, rows, read).unwrap_or_else(|| alone.to_owned())
            }
            Some(_) | None => alone.to_owned(),
        };
        Ok(Parsed { judged: judged.to_owned(), explained, tree, sql, size: json.len() })
    })
}

impl Parsed {
    /// Judges the statement.
    pub(crate) fn check(&self, generation: &Generation) -> Result<Statement, Error> {
        let Self { judged, explained, tree, sql, .. } = self;
        let mut walk = Walk {
            generation,
            sql: judged,
            ctes: BTreeSet::new(),
            datasets: BTreeSet::new(),
            versions: BTreeMap::new(),
            selects: 0,
            is_movable: !explained,
        };
        walk.collect_ctes(tree)?;
        walk.node(tree)?;
        let Walk { datasets, versions, is_movable, .. } = walk;
        Ok(Statement { sql: sql.clone(), is_movable, datasets, versions })
    }
}

/// DuckDB's own reading of a text.
#[derive(Deserialize)]
struct Serialized {
    error: bool,
    #[serde(default)]
    error_type: String,
    #[serde(default)]
    error_message: String,
    #[serde(default)]
    position: Option<String>,
    #[serde(default)]
    statements: Vec<Value>,
}

fn serialized(connection: &Connection, scrub: &Scrub, sql: &str) -> Result<String, Error> {
    const SERIALIZE: &str =
        "SELECT json_serialize_sql(?::VARCHAR, skip_null := true, skip_empty := true, skip_default := true)";
    // Prepared once for each connection: planning this takes longer than running it.
    let read = connection.prepare_cached(SERIALIZE);
    read.and_then(|mut read| read.query_row([sql], |row| row.get(0))).map_err(|error| scrub.error(&error))
}

/// The tree of the one statement in a text.
fn only_statement(json: &str, sql: &str) -> Result<Value, Error> {
    let parsed: Serialized = deep(json)?;
    if parsed.error && parsed.error_type == "parser" {
        let position = parsed.position.and_then(|position| position.parse().ok());
        return Err(Error::Sql(marked::message("Parser", &parsed.error_message, sql, position)));
    }
    if parsed.error {
        let word = first_word(sql).0.to_uppercase();
        return Err(Error::Refused(format!(
            "only a statement that reads is allowed (SELECT, WITH, FROM, VALUES, DESCRIBE, SUMMARIZE, SHOW TABLES, \
             EXPLAIN); this one starts with {word}"
        )));
    }
    let mut statements = parsed.statements;
    match (statements.pop(), statements.len()) {
        (None, _) => Err(Error::Refused("the statement is empty".into())),
        (Some(only), 0) => Ok(only),
        (Some(_), others) => {
            Err(Error::Refused(format!("one statement at a time; this text holds {}", others + 1)))
        }
    }
}

/// Reads JSON as deep as DuckDB's limit on expressions lets it become; the thread's stack is made for that.
fn deep<T: DeserializeOwned>(json: &str) -> Result<T, Error> {
    let mut deserializer = serde_json::Deserializer::from_str(json);
    deserializer.disable_recursion_limit();
    T::deserialize(&mut deserializer).map_err(|error| match error.classify() {
        // DuckDB writes `Infinity` for a literal beyond DOUBLE, and JSON has no such number.
        Category::Syntax => Error::Refused(
            "the statement holds a number that is too large for a DOUBLE; infinity is written 'infinity'::DOUBLE".into(),
        ),
        _ => Error::Internal(format!("DuckDB's tree: {error}")),
    })
}

/// The text without the `;` that ends it and without a comment behind that, so that a query can be written around it.
fn without_end<'a>(sql: &'a str, root: &Value, read: impl Fn(&str) -> Result<String, Error>) -> &'a str {
    let same = |text: &str| only_statement(&read(text)?, text).map(|tree| tree == *root);
    let text = sql.trim_end_matches(|c: char| c == ';' || c.is_whitespace());
    match text.rsplit_once(';') {
        Some((before, _)) if same(before).unwrap_or(false) => before,
        _ => text,
    }
}

/// The text with a `LIMIT` after it, when that is the same statement but for the limit. Otherwise rows are cut later.
fn limited(
    sql: &str,
    root: &Value,
    rows: u64,
    read: impl Fn(&str) -> Result<String, Error>,
) -> Option<String> {
    let sql = format!("{sql}\nLIMIT {rows}");
    let mut other = only_statement(&read(&sql).ok()?, &sql).ok()?;
    let node = other.get_mut("node")?.as_object_mut()?;
    let modifiers = node.get_mut("modifiers")?.as_array_mut()?;
    let added = modifiers.pop()?;
    if modifiers.is_empty() {
        node.remove("modifiers");
    }
    (added["type"] == "LIMIT_MODIFIER" && other == *root).then_some(sql)
}

struct Walk<'a> {
    generation: &'a Generation,
    sql: &'a str,
    ctes: BTreeSet<String>,
    datasets: BTreeSet<String>,
    versions: BTreeMap<String, Version>,
    selects: usize,
    is_movable: bool,
}

impl Walk<'_> {
    /// Every name that a WITH gives, wherever it stands: a name outside its scope is one that DuckDB does not find.
    fn collect_ctes(&mut self, node: &Value) -> Result<(), Error> {
        match node {
            Value::Array(items) => items.iter().try_for_each(|item| self.collect_ctes(item)),
            Value::Object(fields) => {
                let entries = fields.get("cte_map").and_then(|map| map["map"].as_array());
                for entry in entries.into_iter().flatten() {
                    let name = entry["key"].as_str().unwrap_or_default().to_lowercase();
                    // Outside its scope such a name would lead to DuckDB's own view, to a file, or to a version.
                    if self.generation.is_reserved(&name)
                        || name.contains('/')
                        || Version::parse(&name).is_some()
                    {
                        return Err(Error::Refused(format!("`{name}` cannot be the name of a WITH query")));
                    }
                    self.ctes.insert(name);
                }
                fields.values().try_for_each(|value| self.collect_ctes(value))
            }
            _ => Ok(()),
        }
    }

    fn node(&mut self, node: &Value) -> Result<(), Error> {
        match node {
            Value::Array(items) => items.iter().try_for_each(|item| self.node(item)),
            Value::Object(fields) => self.object(fields),
            _ => Ok(()),
        }
    }

    fn object(&mut self, fields: &Map<String, Value>) -> Result<(), Error> {
        match text(fields, "type") {
            "BASE_TABLE" => self.table(fields)?,
            "TABLE_FUNCTION" => return self.table_function(fields),
            "SHOW_REF" => show(fields)?,
            "SELECT_NODE" => {
                self.selects += 1;
                if self.selects > MAX_SELECTS {
                    return Err(Error::Refused(format!("the statement has more than {MAX_SELECTS} SELECTs")));
                }
            }
            _ => {}
        }
        let function = text(fields, "function_name").to_lowercase();
        if lists::is_denied(&function) {
            return Err(Error::Refused(format!("the function `{function}` is not allowed")));
        }
        self.is_movable &= function != "current_query";
        if lists::STRUCTURED.contains(&function.as_str()) {
            structure(&function, fields)?;
        }
        // JSON becomes a VARIANT as deep as it goes, and a thread's stack may end before that.
        if text(fields, "id") == "VARIANT" {
            return Err(Error::Refused("the type VARIANT is not allowed; JSON holds the same values".into()));
        }
        fields.values().try_for_each(|value| self.node(value))
    }

    fn table(&mut self, fields: &Map<String, Value>) -> Result<(), Error> {
        let (catalog, schema, table) =
            (text(fields, "catalog_name"), text(fields, "schema_name"), text(fields, "table_name"));
        let name = table.to_lowercase();
        let known_catalog = matches!(catalog.to_lowercase().as_str(), "" | "memory" | "system");
        match schema.to_lowercase().as_str() {
            "information_schema" if known_catalog && lists::INFORMATION_SCHEMA.contains(&name.as_str()) => {
                Ok(())
            }
            "" if self.ctes.contains(&name) => {
                // The name may also stand outside the scope of its WITH, and mean the dataset there.
                if matches!(self.generation.find(&name), Known::Dataset) {
                    self.datasets.insert(name);
                }
                Ok(())
            }
            "" | "main" | "memory" if known_catalog => match self.generation.find(&name) {
                Known::Dataset => {
                    self.datasets.insert(name);
                    Ok(())
                }
                Known::Broken { dataset, message } => {
                    Err(Error::Dataset { dataset: dataset.to_owned(), message: message.to_owned() })
                }
                // The view of a version is the query's own, and so in no schema of the database.
                Known::Nothing if catalog.is_empty() && schema.to_lowercase() != "memory" => {
                    self.version(table, fields)
                }
                Known::Nothing => Err(self.unknown(table, fields)),
            },
            _ => {
                let parts: Vec<_> =
                    [catalog, schema, table].into_iter().filter(|part| !part.is_empty()).collect();
                Err(self.unknown(&parts.join("."), fields))
            }
        }
    }

    /// A name that no dataset has may be that of a version: a dataset as it was.
    fn version(&mut self, table: &str, fields: &Map<String, Value>) -> Result<(), Error> {
        let version = Version::parse(table).ok_or_else(|| self.unknown(table, fields))?;
        let Version { dataset, number } = version;
        let spelled = self.generation.spelled(&dataset.as_str().to_lowercase());
        let dataset = spelled.and_then(|name| DatasetName::parse(name).ok()).unwrap_or(dataset);
        self.versions.insert(table.to_lowercase(), Version { dataset, number });
        Ok(())
    }

    /// DuckDB's own sentence, with a dataset's name and not a system view's as the hint.
    fn unknown(&self, name: &str, fields: &Map<String, Value>) -> Error {
        let position = fields.get("query_location").and_then(Value::as_u64);
        let hint = match self.generation.nearest(name) {
            _ if name.contains('@') => {
                "\nA version's name is its dataset, `@` and its number: \"sales@3\".".to_owned()
            }
            Some(near) => format!("\nDid you mean \"{near}\"?"),
            None => "\nSHOW TABLES lists the datasets.".to_owned(),
        };
        let message = format!("Table with name {name} does not exist!{hint}");
        let position = position.and_then(|position| usize::try_from(position).ok());
        Error::Sql(marked::message("Catalog", &message, self.sql, position))
    }

    fn table_function(&mut self, fields: &Map<String, Value>) -> Result<(), Error> {
        let call = fields.get("function").and_then(Value::as_object);
        let name = call.map(|call| text(call, "function_name").to_lowercase()).unwrap_or_default();
        if !lists::TABLE_FUNCTIONS.contains(&name.as_str()) {
            return Err(Error::Refused(format!(
                "the table function `{name}` is not allowed; datasets are read by their names, and these can be called: {}",
                lists::TABLE_FUNCTIONS.join(", ")
            )));
        }
        // The call has been judged as a table function; what stands in it is judged like anything else.
        let arguments = call.into_iter().flat_map(Map::values);
        let others = fields.iter().filter(|(field, _)| *field != "function").map(|(_, value)| value);
        arguments.chain(others).try_for_each(|value| self.node(value))
    }
}

/// `SHOW TABLES` and `SHOW ALL TABLES` are allowed; `DESCRIBE` and `SUMMARIZE` hold a query that is walked like any other.
fn show(fields: &Map<String, Value>) -> Result<(), Error> {
    let what = text(fields, "table_name").trim_matches('"');
    match text(fields, "show_type") {
        "DESCRIBE" | "SUMMARY" if what.is_empty() => Ok(()),
        "SHOW_UNQUALIFIED" if matches!(what, "tables" | "__show_tables_expanded") => Ok(()),
        _ => Err(Error::Refused(
            "of the SHOW statements, SHOW TABLES, SHOW ALL TABLES and SHOW <dataset> are allowed".into(),
        )),
    }
}

/// The brackets that the structure of one JSON function may have. DuckDB works for seconds at a thousand of them.
const MAX_STRUCTURE: usize = 100;

/// The second argument of `from_json` and its like becomes a type while DuckDB plans, where nothing interrupts it.
fn structure(function: &str, fields: &Map<String, Value>) -> Result<(), Error> {
    let literal = fields.get("children").and_then(|children| children[1]["value"]["value"].as_str());
    let is_small = |text: &str| text.matches(['[', '{']).count() <= MAX_STRUCTURE;
    literal.filter(|text| is_small(text)).map(drop).ok_or_else(|| {
        Error::Refused(format!(
            "the structure that `{function}` takes must be a text in quotes with at most {MAX_STRUCTURE} brackets"
        ))
    })
}

fn text<'a>(fields: &'a Map<String, Value>, name: &str) -> &'a str {
    fields.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// The first word of a text and what comes after it. White space and comments before it are skipped.
fn first_word(sql: &str) -> (&str, &str) {
    let mut sql = sql;
    loop {
        sql = sql.trim_start();
        sql = match (sql.strip_prefix("--"), sql.strip_prefix("/*")) {
            (Some(comment), _) => comment.split_once('\n').map_or("", |(_, after)| after),
            (_, Some(comment)) => comment.split_once("*/").map_or("", |(_, after)| after),
            _ => break,
        };
    }
    sql.split_at(sql.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(sql.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_word_is_found_behind_comments() {
        assert_eq!(first_word("  -- a\n/* b */ explain select 1"), ("explain", " select 1"));
        assert_eq!(first_word("(select 1)"), ("", "(select 1)"));
        assert_eq!(first_word("-- nothing"), ("", ""));
    }
}
