//! What a request asks for: the query's parameters, and what the body tells of itself.

use axum::http::{HeaderMap, header};
use lakehouse_contract::{
    DatasetName,
    ingest::{Format, IngestSpec, SchemaPolicy, WriteMode, delimiter_of_name},
};
use lakehouse_http::Problem;
use serde::Deserialize;

/// The query of `POST /ingest`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Params {
    name: Option<String>,
    format: Option<String>,
    delimiter: Option<String>,
    header: Option<bool>,
    schema_policy: Option<SchemaPolicy>,
    write_mode: Option<WriteMode>,
}

/// What the body says of itself; weaker than what the query says.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) file_name: Option<String>,
    pub(super) content_type: Option<String>,
}

impl Told {
    pub(super) fn by_headers(headers: &HeaderMap) -> Self {
        let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        Self { file_name: None, content_type: content_type.map(str::to_owned) }
    }

    fn media_type(&self) -> &str {
        let whole = self.content_type.as_deref().unwrap_or_default();
        whole.split(';').next().unwrap_or_default().trim()
    }

    /// The file's name first, then its media type; CSV when neither says anything.
    fn format(&self) -> Format {
        let by_type = || match self.media_type() {
            "application/x-ndjson" | "application/ndjson" | "application/jsonl" => Format::NDJSON,
            "application/vnd.apache.parquet" | "application/x-parquet" => Format::Parquet,
            _ => Format::CSV,
        };
        self.file_name.as_deref().and_then(Format::of_name).unwrap_or_else(by_type)
    }

    fn is_tab_separated(&self) -> bool {
        let by_name = self.file_name.as_deref().and_then(delimiter_of_name) == Some('\t');
        by_name || self.media_type() == "text/tab-separated-values"
    }
}

impl Params {
    pub(super) fn name(&self) -> Result<DatasetName, Problem> {
        let Some(name) = &self.name else {
            return Err(Problem::bad_request(
                "the query lacks `name`, the dataset to fill: `POST /ingest?name=sales`",
            ));
        };
        DatasetName::parse(name.as_str()).map_err(|error| Problem::bad_request(error.to_string()))
    }

    /// How to read a file of a dataset that no resource declares.
    pub(super) fn spec(&self, name: DatasetName, told: &Told) -> Result<IngestSpec, Problem> {
        let format = match &self.format {
            None => told.format(),
            Some(text) => [Format::CSV, Format::NDJSON, Format::Parquet]
                .into_iter()
                .find(|format| format.as_str().eq_ignore_ascii_case(text))
                .ok_or_else(|| {
                    Problem::bad_request(format!("`format` is `{text}`; CSV, NDJSON and Parquet are known"))
                })?,
        };
        let mut spec = IngestSpec::inferred(name, format);
        spec.csv.delimiter = match &self.delimiter {
            Some(text) => delimiter(text)?,
            None if told.is_tab_separated() => '\t',
            None => spec.csv.delimiter,
        };
        spec.csv.header = self.header.unwrap_or(spec.csv.header);
        spec.schema_policy = self.schema_policy.unwrap_or_default();
        spec.write_mode = self.write_mode.unwrap_or_default();
        Ok(spec)
    }

    /// How to read a file of a dataset that a resource declares: as the resource says, and in no other way.
    pub(super) fn of_declared(&self, declared: IngestSpec) -> Result<IngestSpec, Problem> {
        let Self { name: _, format, delimiter, header, schema_policy, write_mode } = self;
        let given = [
            ("format", format.is_some()),
            ("delimiter", delimiter.is_some()),
            ("header", header.is_some()),
            ("schema_policy", schema_policy.is_some()),
            ("write_mode", write_mode.is_some()),
        ];
        match given.into_iter().find(|(_, given)| *given) {
            None => Ok(declared),
            Some((parameter, _)) => Err(Problem::bad_request(format!(
                "`{parameter}` cannot be given here: the resource of dataset `{}` says how its files are read",
                declared.name
            ))),
        }
    }
}

fn delimiter(text: &str) -> Result<char, Problem> {
    let mut characters = text.chars();
    match (text, characters.next(), characters.next()) {
        ("tab" | "\\t", _, _) => Ok('\t'),
        (_, Some(c), None) if c.is_ascii() && !matches!(c, '"' | '\r' | '\n' | '\0') => Ok(c),
        _ => Err(Problem::bad_request(format!(
            "`delimiter` is {text:?}; one ASCII character is expected, not a quote or a line end, or `tab`"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_csv_unless_something_says_otherwise() {
        assert_eq!(spec(&Params::default(), "", "").format, Format::CSV);
        assert_eq!(spec(&Params::default(), "", "application/x-ndjson").format, Format::NDJSON);
        assert_eq!(spec(&Params::default(), "a.CSV", "application/x-ndjson").format, Format::CSV);
        let asked = Params { format: Some("parquet".into()), ..Params::default() };
        assert_eq!(spec(&asked, "a.csv", "text/csv").format, Format::Parquet);
    }

    #[test]
    fn tabs_part_the_fields_of_a_tsv_file() {
        assert_eq!(spec(&Params::default(), "a.csv", "text/csv").csv.delimiter, ',');
        assert_eq!(spec(&Params::default(), "a.TSV", "").csv.delimiter, '\t');
        assert_eq!(
            spec(&Params::default(), "", "text/tab-separated-values; charset=utf-8").csv.delimiter,
            '\t'
        );
        let asked = Params { delimiter: Some(";".into()), ..Params::default() };
        assert_eq!(spec(&asked, "a.tsv", "").csv.delimiter, ';');
    }

    #[test]
    fn a_parameter_that_makes_no_sense_is_named() {
        let named = |params: Params, parameter: &str| {
            let problem = params.spec(name(), &Told::default()).unwrap_err();
            assert!(problem.message.contains(parameter), "{problem:?}");
        };
        named(Params { format: Some("xml".into()), ..Params::default() }, "`format`");
        for text in ["", ";;", "\"", "\n", "é"] {
            named(Params { delimiter: Some(text.into()), ..Params::default() }, "`delimiter`");
        }
    }

    #[test]
    fn the_resource_of_a_declared_dataset_has_the_say() {
        let mut declared = IngestSpec::inferred(name(), Format::CSV);
        declared.csv.delimiter = ';';
        assert_eq!(Params::default().of_declared(declared.clone()).unwrap(), declared);
        let asked = Params { header: Some(true), ..Params::default() };
        assert!(asked.of_declared(declared).unwrap_err().message.contains("`header`"));
    }

    fn name() -> DatasetName {
        DatasetName::parse("sales").unwrap()
    }

    fn spec(params: &Params, file_name: &str, content_type: &str) -> IngestSpec {
        let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let told = Told { file_name: some(file_name), content_type: some(content_type) };
        params.spec(name(), &told).unwrap()
    }
}
