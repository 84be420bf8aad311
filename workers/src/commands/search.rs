//! `lakehouse search`: what is nearest to a text, as a table, JSON, or the SQL of the rows behind it.

use std::{
    collections::BTreeSet,
    io::{self, Write},
    time::Instant,
};

use anyhow::{Context, bail};
use lakehouse_contract::{
    IndexName,
    vectors::{DEFAULT_K, Hit, MAX_K, SearchAnswer, SearchRequest},
};
use lakehouse_plan::human;
use serde_json::Value;

use crate::{
    client::Connection,
    terminal::table::{self, Column, Place},
};

/// Find what is nearest to a text
///
/// The text is embedded by the model that made the index. The built-in model `local/lexical` finds shared words and parts of words;
/// meanings are what other models find.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  lakehouse search airports-text 'international near Chicago'
  lakehouse search airports-text 'field' -k 3 --filter '{\"state\": \"AK\"}'
  lakehouse sql \"$(lakehouse search airports-text 'international' --sql)\"")]
pub(crate) struct Search {
    #[command(flatten)]
    connection: Connection,

    /// The index
    #[arg(value_name = "INDEX", value_parser = |text: &str| IndexName::parse(text))]
    index: IndexName,

    /// What to look for
    #[arg(value_name = "TEXT")]
    text: String,

    /// At most this many hits
    #[arg(short, value_name = "N", default_value_t = DEFAULT_K, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_K)))]
    k: u32,

    /// Only vectors whose metadata fits, such as {"state": "IL"} or {"rows": {"$gte": 10}}
    #[arg(long, value_name = "JSON", value_parser = filter)]
    filter: Option<Value>,

    #[command(flatten)]
    form: Form,
}

#[derive(Debug, clap::Args)]
#[group(multiple = false)]
struct Form {
    /// The service's JSON
    #[arg(long)]
    json: bool,

    /// The rows behind the hits as an SQL statement
    #[arg(long)]
    sql: bool,
}

fn filter(text: &str) -> Result<Value, String> {
    match serde_json::from_str(text) {
        Ok(filter @ Value::Object(_)) => Ok(filter),
        Ok(_) => Err("a filter is a JSON object, such as {\"state\": \"IL\"}".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

impl Search {
    /// Asks and shows the answer.
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let Self { connection, index, text, k, filter, form } = self;
        if text.trim().is_empty() {
            bail!("there is no text to look for");
        }
        let client = connection.client()?;
        let request = SearchRequest { text: Some(text), k: Some(k), filter, ..SearchRequest::default() };
        let asked = Instant::now();
        let answer = super::block_on(async { Ok(client.search(&index, &request).await?) })?;
        let took = u64::try_from(asked.elapsed().as_millis()).unwrap_or(u64::MAX);
        let shown = match form {
            Form { json: true, .. } => serde_json::to_string_pretty(&answer)? + "\n",
            Form { sql: true, .. } => {
                let sql = answer.sql.with_context(|| {
                    format!("index `{index}` is filled by clients: no rows of a dataset stand behind it")
                })?;
                format!("{sql}\n")
            }
            Form { .. } => shown(answer, took, Place::stdout()),
        };
        super::unless_reader_left(io::stdout().lock().write_all(shown.as_bytes()))
    }
}

/// A line for each hit, with a column for each metadata field that any of them has.
fn shown(answer: SearchAnswer, took: u64, place: Place) -> String {
    let SearchAnswer { results, matches, version, .. } = answer;
    let hits = results.unwrap_or_default();
    let fields: BTreeSet<&String> = hits.iter().flat_map(|hit| hit.metadata.keys()).collect();
    let is_number =
        |field: &String| hits.iter().filter_map(|hit| hit.metadata.get(field)).all(Value::is_number);
    let mut columns = vec![
        Column { name: "distance".to_owned(), right: true },
        Column { name: "id".to_owned(), right: false },
    ];
    columns.extend(fields.iter().map(|field| Column { name: (*field).clone(), right: is_number(field) }));
    let rows: Vec<Vec<Option<String>>> = hits
        .iter()
        .map(|Hit { id, distance, metadata, .. }| {
            let mut row = vec![Some(format!("{distance:.4}")), Some(id.clone())];
            row.extend(fields.iter().map(|field| metadata.get(*field).map(text)));
            row
        })
        .collect();
    let count = match hits.len() {
        1 => "1 hit".to_owned(),
        count => format!("{} hits", human::count(count as u64)),
    };
    let of = matches
        .map(|matches| format!(" of {} that pass the filter", human::count(matches)))
        .unwrap_or_default();
    let version = version.map(|version| format!(", version {version}")).unwrap_or_default();
    format!("{}({count}{of}{version}, {})\n", table::ruled(&columns, &rows, place), human::duration(took))
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use lakehouse_contract::vectors::Metadata;
    use serde_json::json;

    use super::*;

    #[test]
    fn each_hit_is_a_line_with_what_is_kept_with_it() {
        let hit = |id: &str, distance: f32, metadata: Value| {
            let metadata: Metadata = serde_json::from_value(metadata).unwrap();
            Hit { id: id.to_owned(), distance, metadata, source: None }
        };
        let results =
            vec![hit("w-1", 0.25, json!({"state": "IL", "years": 3})), hit("w-2", 0.5, json!({"years": 12}))];
        let answer = SearchAnswer {
            results: Some(results),
            matches: Some(1200),
            version: Some(3),
            ..SearchAnswer::default()
        };
        let text = shown(answer, 7, Place::default());
        let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
        assert_eq!(lines[0], " distance | id  | state | years");
        assert_eq!(lines[2], "   0.2500 | w-1 | IL    |     3");
        assert!(lines[3].starts_with("   0.5000 | w-2 |") && lines[3].ends_with("|    12"), "{}", lines[3]);
        assert_eq!(lines[4], "(2 hits of 1,200 that pass the filter, version 3, 7ms)");
    }

    #[test]
    fn a_filter_is_an_object() {
        assert_eq!(filter(r#"{"a": 1}"#), Ok(json!({"a": 1})));
        assert!(filter("[1]").unwrap_err().contains("a JSON object"));
        assert!(filter("{").is_err());
    }
}
