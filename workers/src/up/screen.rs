//! What `up` tells the person who started it: on standard output what becomes of each resource, on standard error what is wrong.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use lakehouse_contract::DatasetName;
use lakehouse_crds::{
    ChatProviderStatus, Dataset, DatasetStatus, VectorIndexStatus,
    conditions::{Condition, READY, STALLED},
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
    /// The last line of each resource, by its kind and name.
    told: Arc<Mutex<HashMap<(&'static str, String), String>>>,
    /// Whether it was told how to ask an index.
    asked: Arc<AtomicBool>,
    /// Whether it was told how to chat.
    chatted: Arc<AtomicBool>,
}

impl Screen {
    /// A bar for a running ingest or build.
    pub(crate) fn bar(&self, name: &str) -> Bar {
        self.bars.add(name)
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
        let (ready, said) = verdict(&status.conditions);
        let (line, good) =
            if ready { (ready_dataset(name, status), true) } else { waits(name.as_str(), &said) };
        self.tell(("dataset", name.to_string()), &line, good);
    }

    /// What a VectorIndex has come to, unless that was the last thing told of it; and how to ask the first one that is ready.
    pub(crate) fn index(&self, name: &str, status: &VectorIndexStatus, model: Option<&str>, url: &str) {
        let (ready, said) = verdict(&status.conditions);
        let (line, good) = if ready { (ready_index(name, status), true) } else { waits(name, &said) };
        self.tell(("index", name.to_owned()), &line, good);
        if ready && model.is_some() && !self.asked.swap(true, Ordering::Relaxed) {
            let (program, server) = (hint::program(), hint::at_server(url));
            self.line(&format!("  ask it in another terminal: {program} search{server} {name} 'some words'"));
        }
    }

    /// What a ChatProvider has come to, unless that was the last thing told of it; and how to chat with the first one that is ready. `model`
    /// is one that can be asked for.
    pub(crate) fn provider(&self, name: &str, status: &ChatProviderStatus, model: Option<&str>, url: &str) {
        let (ready, said) = verdict(&status.conditions);
        let (line, good) = if ready {
            (format!("✓ {name}: {}", printable(&said.message)), true)
        } else {
            waits(name, &said)
        };
        self.tell(("provider", name.to_owned()), &line, good);
        if ready
            && let Some(model) = model
            && !self.chatted.swap(true, Ordering::Relaxed)
        {
            let (program, server) = (hint::program(), hint::at_server(url));
            self.line(&format!(
                "  chat with it in another terminal: {program} chat{server} {} 'some words'",
                printable(model)
            ));
        }
    }

    fn tell(&self, of: (&'static str, String), line: &str, good: bool) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.insert(of, line.to_owned()).as_deref() == Some(line) {
            return;
        }
        drop(told);
        if good { self.line(line) } else { self.bars.aside(|| eprintln!("{line}")) }
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

/// What the conditions say of a resource.
struct Said {
    message: String,
    /// Whether it waits for an edit.
    stalled: bool,
}

fn verdict(conditions: &[Condition]) -> (bool, Said) {
    let found = |name: &str| conditions.iter().find(|condition| condition.type_ == name);
    let holds = |name| found(name).is_some_and(|condition| condition.status == "True");
    let message = found(READY).map(|condition| condition.message.clone()).unwrap_or_default();
    (holds(READY), Said { message, stalled: holds(STALLED) })
}

/// One line of a resource that is not ready, and whether it may still become so by itself.
fn waits(name: &str, said: &Said) -> (String, bool) {
    let mark = if said.stalled { '✗' } else { '…' };
    (format!("{mark} {name}: {}", printable(&said.message)), !said.stalled)
}

fn ready_dataset(name: &DatasetName, status: &DatasetStatus) -> String {
    let columns = match status.columns.len() {
        1 => "1 column".to_owned(),
        count => format!("{count} columns"),
    };
    let (rows, version) = (status.rows.unwrap_or(0), status.version.unwrap_or(0));
    let size = status.size.as_deref().unwrap_or("0 B");
    format!("✓ {name}: {}, {columns}, {size} of Parquet, version {version}", human::rows(rows))
}

fn ready_index(name: &str, status: &VectorIndexStatus) -> String {
    let vectors = match status.vectors.unwrap_or(0) {
        1 => "1 vector".to_owned(),
        count => format!("{} vectors", human::count(count)),
    };
    let model =
        status.embedding.as_ref().map(|embedding| format!(" by {}", embedding.model)).unwrap_or_default();
    let version = status.version.map(|version| format!(", version {version}")).unwrap_or_default();
    let failed = match status.failed {
        None | Some(0) => String::new(),
        Some(count) => format!(", {} without one", human::rows(count)),
    };
    format!("✓ {name}: {vectors}{model}{failed}{version}")
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
