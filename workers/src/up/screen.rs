//! What `up` tells the person who started it: on standard output what happens to each Dataset, on standard error what is wrong.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use lakehouse_contract::DatasetName;
use lakehouse_crds::{
    Dataset, DatasetStatus,
    conditions::{READY, STALLED},
};
use lakehouse_plan::human;

use crate::terminal::{
    bar::{Bar, Bars},
    hint, printable,
};

/// Cheap to clone; clones write to the same terminal.
#[derive(Clone, Debug, Default)]
pub(crate) struct Screen {
    bars: Bars,
    told: Arc<Mutex<HashMap<DatasetName, String>>>,
}

impl Screen {
    /// A bar for a running ingest.
    pub(crate) fn bar(&self, name: &DatasetName) -> Bar {
        self.bars.add(name.as_str())
    }

    /// A line on standard output.
    pub(crate) fn line(&self, text: &str) {
        self.bars.aside(|| println!("{text}"));
    }

    /// Something that somebody must mend.
    pub(crate) fn problem(&self, text: &str) {
        self.bars.aside(|| eprintln!("lakehouse: {text}"));
    }

    /// What a Dataset has come to, unless that was the last thing told of it.
    pub(crate) fn dataset(&self, name: &DatasetName, status: &DatasetStatus) {
        let (line, good) = summary(name, status);
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.insert(name.clone(), line.clone()).as_ref() == Some(&line) {
            return;
        }
        drop(told);
        if good { self.line(&line) } else { self.bars.aside(|| eprintln!("{line}")) }
    }

    /// What to try, once the first round is over. `credential` is how a shell says the token, where one is asked for.
    pub(crate) fn next_steps(&self, url: &str, credential: Option<&str>, datasets: &[Dataset]) {
        let ready = datasets.iter().find(|dataset| {
            dataset
                .status
                .as_ref()
                .is_some_and(|status| condition(status, READY).is_some_and(|(holds, _)| holds))
        });
        let name = ready.and_then(|dataset| dataset.metadata.name.as_deref());
        self.line(&steps(url, credential, name).join("\n"));
    }
}

/// What to try on this server: on the dataset `name`, where one is ready.
fn steps(url: &str, credential: Option<&str>, name: Option<&str>) -> Vec<String> {
    let (program, server) = (hint::program(), hint::at_server(url));
    let mut lines = vec![String::new(), "Try, in another terminal:".to_owned()];
    match name {
        Some(name) => {
            let table = hint::sql_name(name);
            lines.push(format!("  {program} sql{server} 'SELECT * FROM {table} LIMIT 5'"));
            let body = format!(r#"{{"sql": "SELECT count(*) FROM {}"}}"#, table.replace('"', "\\\""));
            let header =
                credential.map(|token| format!(" -H \"Authorization: Bearer {token}\"")).unwrap_or_default();
            lines.push(format!("  curl -s{header} {url}/v1/sql -d '{body}'"));
        }
        None => lines.push(format!("  {program} ingest{server} FILE.csv")),
    }
    lines.push(format!("  {program} get{server} -o wide"));
    lines.push("Ctrl-C ends it.".to_owned());
    lines
}

/// One line, and whether it is good news.
fn summary(name: &DatasetName, status: &DatasetStatus) -> (String, bool) {
    let (ready, message) = condition(status, READY).unwrap_or((false, ""));
    if !ready {
        let stalled = condition(status, STALLED).is_some_and(|(holds, _)| holds);
        let mark = if stalled { '✗' } else { '…' };
        return (format!("{mark} {name}: {}", printable(message)), !stalled);
    }
    let columns = match status.columns.len() {
        1 => "1 column".to_owned(),
        count => format!("{count} columns"),
    };
    let (rows, version) = (status.rows.unwrap_or(0), status.version.unwrap_or(0));
    let size = status.size.as_deref().unwrap_or("0 B");
    (format!("✓ {name}: {}, {columns}, {size} of Parquet, version {version}", human::rows(rows)), true)
}

/// Whether a condition holds, and what it says.
pub(crate) fn condition<'a>(status: &'a DatasetStatus, name: &str) -> Option<(bool, &'a str)> {
    let found = status.conditions.iter().find(|condition| condition.type_ == name)?;
    Some((found.status == "True", found.message.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_to_try_with_curl_holds_the_token_that_is_asked_for() {
        let curl = |credential| steps("http://h:1", credential, Some("sales")).swap_remove(3);
        let body = r#"{"sql": "SELECT count(*) FROM sales"}"#;
        assert_eq!(curl(None), format!("  curl -s http://h:1/v1/sql -d '{body}'"));
        let header = r#"-H "Authorization: Bearer $LAKEHOUSE_TOKEN""#;
        assert_eq!(
            curl(Some("$LAKEHOUSE_TOKEN")),
            format!("  curl -s {header} http://h:1/v1/sql -d '{body}'")
        );
    }
}
