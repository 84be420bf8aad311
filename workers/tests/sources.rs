//! What `lakehouse up` promises of sources that change, fail and heal.
#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod common;

use std::{
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

use common::{Lakehouse, file};
use serde_json::json;

const SALES: &str = "sku,price\n007,1.50\n012,20.00\n";

#[test]
fn a_source_that_keeps_silent_holds_up_no_other_dataset() {
    let folder = tempfile::tempdir().unwrap();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap(); // connections wait in its queue for ever
    let url = format!("http://{}/a.csv", silent.local_addr().unwrap());
    let yaml = file(folder.path(), "a.yaml", &dataset("a", &url, ""));
    let sales = file(folder.path(), "sales.csv", SALES);
    let paths = [yaml.to_str().unwrap(), sales.to_str().unwrap()];
    let lakehouse = Lakehouse::up(&folder.path().join("data"), &paths);
    lakehouse.wait_for("sales", "Ready", "True");
    let waiting = lakehouse.wait_for("a", "SourceReachable", "Unknown");
    assert_eq!(waiting["reason"], "NotChecked", "{waiting}");

    file(folder.path(), "a.yaml", "");
    lakehouse.wait_for_list(&["sales"]);
}

#[test]
fn a_source_that_was_missing_is_read_when_it_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let web = Web::start();
    let yaml = file(folder.path(), "sales.yaml", &dataset("sales", &web.url("/sales.csv"), ""));
    let lakehouse = Lakehouse::up(&folder.path().join("data"), &[yaml.to_str().unwrap()]);
    let missing = lakehouse.wait_for("sales", "SourceReachable", "False");
    assert_eq!(missing["reason"], "SourceMissing", "{missing}");
    web.serve("/sales.csv", "", SALES);
    lakehouse.wait_for("sales", "Ready", "True");
    assert_eq!(lakehouse.sql("SELECT sku FROM sales ORDER BY sku"), json!([["007"], ["012"]]));
}

#[test]
fn a_corrected_secret_opens_a_source_that_was_denied() {
    let folder = tempfile::tempdir().unwrap();
    let web = Web::start();
    web.serve("/sales.csv", "authorization: Bearer right", SALES);
    let secret = |token: &str| {
        format!(
            "apiVersion: v1\nkind: Secret\nmetadata: {{name: key}}\nstringData: {{Authorization: Bearer {token}}}\n"
        )
    };
    let spec = dataset("sales", &web.url("/sales.csv"), ", headersSecretRef: {name: key}");
    file(folder.path(), "sales.yaml", &spec);
    file(folder.path(), "secret.yaml", &secret("hidden"));
    let lakehouse = Lakehouse::up(&folder.path().join("data"), &[folder.path().to_str().unwrap()]);
    let denied = lakehouse.wait_for("sales", "SourceReachable", "False");
    assert_eq!(denied["reason"], "SourceDenied", "{denied}");
    assert!(!lakehouse.dataset("sales").to_string().contains("hidden"));
    file(folder.path(), "secret.yaml", &secret("right"));
    lakehouse.wait_for("sales", "Ready", "True");
    let (_, stderr) = lakehouse.stop();
    assert!(stderr.contains("sales") && !stderr.contains("hidden"), "{stderr}");
}

#[test]
fn what_a_removed_file_or_resource_had_published_stays() {
    let folder = tempfile::tempdir().unwrap();
    let sources = folder.path().join("sources");
    std::fs::create_dir(&sources).unwrap();
    file(&sources, "sales.csv", SALES);
    file(&sources, "old.csv", SALES);
    let yaml = dataset("old", "", "").replace("http: {url: \"\"}", "upload: {}");
    file(&sources, "old.yaml", &yaml);
    let lakehouse = Lakehouse::up(&folder.path().join("data"), &[sources.to_str().unwrap()]);
    lakehouse.wait_for("sales", "Ready", "True");
    lakehouse.wait_for("old", "Ready", "True");
    for name in ["sales.csv", "old.csv", "old.yaml"] {
        std::fs::remove_file(sources.join(name)).unwrap();
    }
    file(&sources, "new.csv", SALES);
    lakehouse.wait_for_list(&["new", "old", "sales"]);
    let rows = lakehouse.sql("SELECT (SELECT count(*) FROM sales), (SELECT count(*) FROM old)");
    assert_eq!(rows, json!([[2, 2]]));
}

fn dataset(name: &str, url: &str, more: &str) -> String {
    format!(
        "apiVersion: lakehouse.dev/v1alpha1\nkind: Dataset\nmetadata: {{name: {name}}}\n\
         spec: {{source: {{http: {{url: \"{url}\"{more}}}}}}}\n"
    )
}

/// A web server with at most one file. Its thread ends with the test's process.
struct Web {
    address: String,
    file: Arc<Mutex<Option<Served>>>,
}

struct Served {
    path: &'static str,
    /// A line of the head without which the file is denied.
    wanted: &'static str,
    content: &'static str,
}

impl Web {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let file = Arc::<Mutex<Option<Served>>>::default();
        let served = Arc::clone(&file);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                // A client that left is no matter.
                let _ = answer(&stream, served.lock().unwrap().as_ref());
            }
        });
        Self { address, file }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn serve(&self, path: &'static str, wanted: &'static str, content: &'static str) {
        *self.file.lock().unwrap() = Some(Served { path, wanted, content });
    }
}

fn answer(mut stream: &TcpStream, file: Option<&Served>) -> std::io::Result<()> {
    let mut head = Vec::new();
    for line in BufReader::new(stream).lines() {
        let line = line?;
        if line.is_empty() {
            break;
        }
        head.push(line);
    }
    let asked = head.first().map(String::as_str).unwrap_or_default();
    let (status, content) = match file {
        Some(file) if !asked.contains(file.path) => ("404 Not Found", ""),
        Some(file) if !file.wanted.is_empty() && !head.iter().any(|line| line == file.wanted) => {
            ("401 Unauthorized", "")
        }
        Some(file) => ("200 OK", file.content),
        None => ("404 Not Found", ""),
    };
    let length = content.len();
    write!(stream, "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{content}")
}
