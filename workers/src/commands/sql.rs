//! `lakehouse sql`: one question, answered as a table, JSON, CSV or Arrow.

use std::{
    fs::File,
    io::{self, Read, Write},
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context, bail};
use lakehouse_contract::sql::{SqlAnswer, SqlRequest};
use lakehouse_plan::human;
use reqwest::Response;
use serde_json::Value;

use crate::{
    client::{Client, Connection},
    terminal::table::{self, Column, Place},
};

/// As many rows as a person may look through; `--limit` asks for another number.
const TABLE_ROWS: u64 = 1000;

const JSON: &str = "application/json";
const CSV: &str = "text/csv";
const ARROW: &str = "application/vnd.apache.arrow.stream";

/// Ask a question in SQL
///
/// Every dataset is a view under its name. The answer is a table; --json, --csv and --arrow give it to programs.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  lakehouse sql 'SELECT state, count(*) AS airports FROM airports GROUP BY state ORDER BY airports DESC LIMIT 5'
  lakehouse sql 'SELECT * FROM airports WHERE iata = ?' --param 00M
  lakehouse sql --csv -f report.sql > report.csv
  lakehouse sql 'DESCRIBE airports'")]
pub(crate) struct Sql {
    #[command(flatten)]
    connection: Connection,

    /// One SELECT statement; `-` takes it from standard input
    #[arg(value_name = "STATEMENT", required_unless_present = "file", conflicts_with = "file")]
    statement: Option<String>,

    /// Take the statement from this file
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,

    /// A value for the next `?`: true, false, null or a number in its plain form, such as 7 or -1.5; anything else is
    /// text, also 007 and 0E0. Text that looks like one of those goes into double quotes: --param '"60601"'
    #[arg(long = "param", value_name = "VALUE", value_parser = param, allow_hyphen_values = true)]
    params: Vec<Value>,

    /// At most this many rows [default: 1000 in a table, all elsewhere]
    #[arg(long, value_name = "N")]
    limit: Option<u64>,

    #[command(flatten)]
    form: Form,
}

#[derive(Debug, clap::Args)]
#[group(multiple = false)]
struct Form {
    /// The service's JSON: columns with their types, and rows
    #[arg(long)]
    json: bool,

    /// CSV with a header
    #[arg(long)]
    csv: bool,

    /// An Arrow IPC stream into this file; `-` is standard output
    #[arg(long, value_name = "FILE")]
    arrow: Option<PathBuf>,
}

impl Sql {
    /// Asks and shows the answer.
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let Self { connection, statement, file, params, limit, form } = self;
        let client = connection.client()?;
        let request = SqlRequest { sql: read_statement(statement, file.as_deref())?, params, limit };
        super::block_on(async {
            match form {
                Form { json: true, .. } => {
                    let response = client.sql(&request, JSON).await?;
                    to_stdout(&client, response, b"\n").await
                }
                Form { csv: true, .. } => {
                    let response = client.sql(&request, CSV).await?;
                    to_stdout(&client, response, b"").await
                }
                Form { arrow: Some(path), .. } => {
                    let response = client.sql(&request, ARROW).await?;
                    if path.as_os_str() == "-" {
                        to_stdout(&client, response, b"").await
                    } else {
                        to_file(&client, response, &path).await
                    }
                }
                Form { .. } => {
                    let shown = answer_table(&client, request, Place::stdout()).await?;
                    super::unless_reader_left(io::stdout().lock().write_all(shown.as_bytes()))
                }
            }
        })
    }
}

fn read_statement(statement: Option<String>, file: Option<&Path>) -> anyhow::Result<String> {
    let text = match (statement, file) {
        (None, Some(path)) => {
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?
        }
        (Some(dash), _) if dash == "-" => {
            let mut text = String::new();
            io::stdin().read_to_string(&mut text).context("cannot read the statement from standard input")?;
            text
        }
        (statement, _) => statement.unwrap_or_default(),
    };
    if text.trim().is_empty() {
        bail!("the statement is empty");
    }
    Ok(text)
}

/// A JSON scalar where the text is one, the text itself otherwise: `0E0` is an airport before it is a number.
#[allow(clippy::unnecessary_wraps, reason = "clap wants a Result from a parser")]
fn param(text: &str) -> Result<Value, std::convert::Infallible> {
    Ok(match serde_json::from_str(text) {
        Ok(value @ (Value::Null | Value::Bool(_) | Value::String(_))) => value,
        Ok(Value::Number(number)) if number.to_string() == text => Value::Number(number),
        Ok(Value::Number(_) | Value::Array(_) | Value::Object(_)) | Err(_) => Value::String(text.to_owned()),
    })
}

/// Asks for one row more than is shown, to know whether there are more.
async fn answer_table(client: &Client, request: SqlRequest, place: Place) -> anyhow::Result<String> {
    let shown_rows = request.limit.unwrap_or(TABLE_ROWS);
    let request = SqlRequest { limit: Some(request.limit.unwrap_or(TABLE_ROWS + 1)), ..request };
    let asked = Instant::now();
    let response = client.sql(&request, JSON).await?;
    let answer: SqlAnswer = client.json(response).await?;
    let took = u64::try_from(asked.elapsed().as_millis()).unwrap_or(u64::MAX);

    let more = answer.row_count > shown_rows;
    let columns: Vec<Column> = answer
        .columns
        .iter()
        .map(|column| Column { name: column.name.clone(), right: is_number(&column.column_type) })
        .collect();
    let rows: Vec<Vec<Option<String>>> = answer
        .rows
        .into_iter()
        .take(usize::try_from(shown_rows).unwrap_or(usize::MAX))
        .map(|row| row.into_iter().map(text).collect())
        .collect();
    let rows_are = human::rows(rows.len() as u64);
    let hint = if more { "; there are more: --limit N shows N of them, --csv gives all" } else { "" };
    Ok(format!("{}({rows_are}, {}{hint})\n", table::ruled(&columns, &rows, place), human::duration(took)))
}

/// A value as it is shown; `None` is NULL.
fn text(value: Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text),
        other => Some(other.to_string()),
    }
}

/// Whether values of this DuckDB type belong in line on the right.
fn is_number(duckdb_type: &str) -> bool {
    let name = duckdb_type.split('(').next().unwrap_or(duckdb_type);
    match name {
        "FLOAT" | "DOUBLE" | "DECIMAL" => !duckdb_type.ends_with(']'),
        name => matches!(
            name.strip_prefix('U').unwrap_or(name),
            "TINYINT" | "SMALLINT" | "INTEGER" | "BIGINT" | "HUGEINT"
        ),
    }
}

/// Passes the body on as it comes, then `end`.
async fn to_stdout(client: &Client, mut response: Response, end: &[u8]) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    while let Some(piece) = client.piece(&mut response).await? {
        if let Err(error) = out.write_all(piece.as_ref()) {
            return super::unless_reader_left(Err(error));
        }
    }
    super::unless_reader_left(out.write_all(end).and_then(|()| out.flush()))
}

/// Writes the body to a file; half an answer does not stay.
async fn to_file(client: &Client, response: Response, path: &Path) -> anyhow::Result<()> {
    let file = File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
    let copied = copy(client, response, file).await;
    if copied.is_err() {
        // The copy's own error is the one to tell.
        let _ = std::fs::remove_file(path);
    }
    copied.with_context(|| format!("cannot write {}", path.display()))
}

async fn copy(client: &Client, mut response: Response, mut file: File) -> anyhow::Result<()> {
    while let Some(piece) = client.piece(&mut response).await? {
        file.write_all(piece.as_ref())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use axum::{Json, Router, http::HeaderMap, routing};
    use serde_json::json;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::client::tests::{client, serve};

    #[test]
    fn a_parameter_is_what_json_reads_and_text_otherwise() {
        let cases = [
            ("7", json!(7)),
            ("-1.5", json!(-1.5)),
            ("true", json!(true)),
            ("null", json!(null)),
            ("00501", json!("00501")),
            ("0E0", json!("0E0")),
            ("1e5", json!("1e5")),
            ("18446744073709551616", json!("18446744073709551616")),
            ("\"60601\"", json!("60601")),
            ("Chicago", json!("Chicago")),
            ("[1,2]", json!("[1,2]")),
            ("", json!("")),
        ];
        for (text, value) in cases {
            assert_eq!(param(text), Ok(value), "{text}");
        }
    }

    #[test]
    fn numbers_are_known_by_their_type() {
        for name in ["BIGINT", "UTINYINT", "DOUBLE", "DECIMAL(18,2)", "HUGEINT"] {
            assert!(is_number(name), "{name}");
        }
        for name in ["VARCHAR", "DATE", "BIGINT[]", "DECIMAL(18,2)[]", "STRUCT(a INTEGER)", "UUID", "BOOLEAN"]
        {
            assert!(!is_number(name), "{name}");
        }
    }

    #[tokio::test]
    async fn an_answer_becomes_a_table_with_rows_and_time() {
        let shown = table_of(json!({
            "columns": [{"name": "state", "type": "VARCHAR"}, {"name": "n", "type": "BIGINT"}],
            "rows": [["GA", "414513"], [null, 7]],
            "row_count": 2,
        }))
        .await;
        let (table, below) = shown.rsplit_once("\n(").unwrap();
        assert_eq!(table, " state | n\n-------+--------\n GA    | 414513\n NULL  |      7");
        assert!(below.starts_with("2 rows, ") && below.ends_with(")\n"), "{below}");
    }

    #[tokio::test]
    async fn a_table_says_when_there_are_more_rows() {
        let rows: Vec<_> = (0..=TABLE_ROWS).map(|i| json!([i])).collect();
        let shown = table_of(json!({
            "columns": [{"name": "i", "type": "BIGINT"}], "row_count": rows.len(), "rows": rows,
        }))
        .await;
        assert!(shown.contains("(1,000 rows, ") && shown.contains("; there are more"), "{shown}");
        assert!(!shown.contains("\n 1000\n"), "the row that only told of more is not shown");
    }

    #[tokio::test]
    async fn arrow_reaches_its_file_as_it_is() {
        let route = routing::post(async |headers: HeaderMap| {
            assert_eq!(headers["accept"], ARROW);
            "arrow bytes"
        });
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("answer.arrow");
        let server = serve(Router::new().route("/v1/sql", route)).await;
        save(&server, &path).await.unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "arrow bytes");
    }

    #[tokio::test]
    async fn half_an_answer_does_not_stay() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await.unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nonly this").await.unwrap();
        });
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("answer.arrow");
        let error = save(&server, &path).await.unwrap_err();
        assert!(error.to_string().contains("answer.arrow"), "{error}");
        assert!(!path.exists());
    }

    #[test]
    fn an_empty_statement_is_not_sent() {
        assert!(read_statement(Some("  \n".into()), None).is_err());
        let missing = read_statement(None, Some(Path::new("/no/such/file.sql"))).unwrap_err();
        assert!(missing.to_string().contains("/no/such/file.sql"));
    }

    async fn save(server: &str, path: &Path) -> anyhow::Result<()> {
        let client = client(server, None);
        let response = client.sql(&SqlRequest::default(), ARROW).await?;
        to_file(&client, response, path).await
    }

    async fn table_of(answer: Value) -> String {
        let server = serve(Router::new().route("/v1/sql", routing::post(async || Json(answer)))).await;
        answer_table(&client(&server, None), SqlRequest::default(), Place::default()).await.unwrap()
    }
}
